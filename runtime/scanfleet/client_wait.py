"""Waiting for a job's end by asking gently: soon after a change, rarely while nothing happens."""

from collections.abc import Callable
from datetime import timedelta

from scanfleet.client_http import Clock
from scanfleet.client_models import JobFailed, JobInfo, OnChange, WaitTimedOut
from scanfleet.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
PAUSE_GROWTH = 1.5
OUTAGE_PATIENCE = timedelta(seconds=30)
"""A wait goes on through an outage of the service that is no longer than this."""


def wait_until_finished(
    read: Callable[[], JobInfo],
    *,
    clock: Clock,
    timeout: timedelta | None,
    on_change: OnChange | None,
    raise_on_failure: bool,
    outage_patience: timedelta,
) -> JobInfo:
    """Return the job once it has ended. `read` asks for it; Scanfleet.wait explains the rest."""
    deadline = None if timeout is None else clock.now() + timeout.total_seconds()
    pause, answered_at = FIRST_PAUSE_SECONDS, clock.now()
    seen: JobInfo | None = None
    while True:
        job = _read_through_outage(read, clock, patient_until=answered_at + outage_patience.total_seconds())
        if job is not None:
            answered_at = clock.now()
            if seen is None or job.visible_state != seen.visible_state:
                pause = FIRST_PAUSE_SECONDS
                if on_change is not None:
                    on_change(job)
            seen = job
            if job.is_finished:
                if raise_on_failure and job.result is None:
                    raise JobFailed(job)
                return job
        _sleep(clock, pause, deadline, seen)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)


def _read_through_outage(
    read: Callable[[], JobInfo], clock: Clock, *, patient_until: float
) -> JobInfo | None:
    """Return the job, or None while the service is away and the patience lasts."""
    try:
        return read()
    except Unavailable:
        if clock.now() >= patient_until:
            raise
        return None


def _sleep(clock: Clock, seconds: float, deadline: float | None, seen: JobInfo | None) -> None:
    """Sleep, but not past the deadline. Raises WaitTimedOut at the deadline."""
    left = float("inf") if deadline is None else deadline - clock.now()
    if left > 0:
        clock.sleep(min(seconds, left))
    elif seen is None:
        raise Unavailable("the service did not answer within the time to wait")
    else:
        raise WaitTimedOut(seen)
