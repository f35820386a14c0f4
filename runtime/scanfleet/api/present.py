"""The present state that listeners are told before the changes."""

from scanfleet.callers import Caller
from scanfleet.jobs import Job
from scanfleet.store import JobFilter, JobStore

PRESENT_JOBS = 200
"""So many of the newest unfinished jobs are told unasked; the others come when they change."""


def present_jobs(store: JobStore, caller: Caller) -> tuple[Job, ...]:
    """Return the newest unfinished jobs that the caller may see, newest first."""
    wanted = JobFilter(owner=None if caller.is_operator else caller.owner)
    return store.list_jobs(wanted, limit=PRESENT_JOBS).jobs
