"""Which staged results nobody will ever publish. Pure: staging.py reads and deletes."""

from datetime import timedelta

from scanfleet.jobs import LEASED_STATES, Job, JobState

ORPHANED_AFTER = timedelta(hours=1)
"""Nothing that was written later is deleted. A frozen agent that wakes may still upload for its lost attempt,
within minutes: its lease and its calls' time limits see to that."""


def is_over(job: Job, attempt: int) -> bool:
    """Return whether nobody may publish, and nobody needs, what this attempt has staged.

    - The committed attempt's results are needed until the job is completed: whoever holds the lease copies
      them. Also those of a job that failed after the commit: its owner may retry it, and the program does not
      run again.
    - A leased job's present attempt may go on, even after its lease ran out: its agent may wake before
      another one takes the job.
    - Any other attempt lost the right to commit, which needs its own number on a leased job.
    """
    if attempt == job.committed_attempt:
        return job.state is JobState.COMPLETED
    if job.state in LEASED_STATES:
        return attempt < job.attempt
    return attempt <= job.attempt


def is_orphaned(job: Job, attempt: int, *, written_at: float, now: float) -> bool:
    """Return whether what the attempt staged can be deleted. written_at: its newest object's time."""
    safe = ORPHANED_AFTER.total_seconds()
    return is_over(job, attempt) and now - written_at > safe and now - job.state_changed_at > safe
