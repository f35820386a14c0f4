"""Waiting for a job's end: told of each change where the server tells, asking gently where it does not.

Asking: soon after a change, rarely while nothing happens. Told: asked all the same from time to time, because
what a queued job waits for is no change of its own, and because no connection is believed for ever.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Protocol

from scanfleet.client_http import Clock
from scanfleet.client_models import JobFailed, JobInfo, OnChange, WaitTimedOut
from scanfleet.errors import Unavailable
from scanfleet.jobs import JobState

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
PAUSE_GROWTH = 1.5
ASKED_WHILE_TOLD_SECONDS = 30.0
QUEUED_ASKED_SECONDS = 3.0
OUTAGE_PATIENCE = timedelta(seconds=30)
"""A wait goes on through an outage of the service that is no longer than this."""


class Changes(Protocol):
    """Pushed states of the job."""

    def start(self) -> None:
        """Begin to listen, if that has not begun."""
        ...

    @property
    def is_live(self) -> bool:
        """Say whether changes are told now."""
        ...

    def wait(self, seconds: float) -> JobInfo | None:
        """Return the next pushed state, or None after `seconds` at the latest."""
        ...


def wait_until_finished(
    read: Callable[[], JobInfo],
    *,
    clock: Clock,
    timeout: timedelta | None,
    on_change: OnChange | None,
    raise_on_failure: bool,
    outage_patience: timedelta,
    changes: Changes | None = None,
) -> JobInfo:
    """Return the job once it has ended. `read` asks for it; Scanfleet.wait explains the rest."""
    for job in follow(read, clock=clock, timeout=timeout, outage_patience=outage_patience, changes=changes):
        if on_change is not None:
            on_change(job)
        if job.is_finished:
            if raise_on_failure and job.result is None:
                raise JobFailed(job)
            return job
    raise AssertionError("a job is followed to its end")


def follow(
    read: Callable[[], JobInfo],
    *,
    clock: Clock,
    timeout: timedelta | None,
    outage_patience: timedelta,
    changes: Changes | None = None,
) -> Iterator[JobInfo]:
    """Yield the job as first seen and at every visible change; the ended job is the last."""
    deadline = None if timeout is None else clock.now() + timeout.total_seconds()
    pause, answered_at = FIRST_PAUSE_SECONDS, clock.now()
    seen: JobInfo | None = None
    pushed: JobInfo | None = None
    while True:
        if pushed is not None and seen is not None and not pushed.is_finished:
            job: JobInfo | None = seen if _is_older(pushed, seen) else _with_news(seen, pushed)
        else:
            # The end is read: messages leave out results, and what is read is the last word.
            patient_until = answered_at + outage_patience.total_seconds()
            job = _read_through_outage(read, clock, patient_until=patient_until)
        if job is not None:
            answered_at = clock.now()
            has_changed = seen is None or job.visible_state != seen.visible_state
            seen = job
            if has_changed:
                pause = FIRST_PAUSE_SECONDS
                yield job
            if job.is_finished:
                return
            if changes is not None:
                changes.start()
        if changes is not None and changes.is_live and seen is not None and job is not None:
            pushed = changes.wait(_until(clock, deadline, seen, _told_pause(seen)))
        else:
            pushed = None
            clock.sleep(_until(clock, deadline, seen, pause))
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)


def _is_older(pushed: JobInfo, seen: JobInfo) -> bool:
    """Say whether a message tells what was before: for a moment messages follow what was asked for.

    Within an attempt a job only goes forward, unless it is queued again.
    """
    if pushed.attempt == seen.attempt and pushed.status is JobState.QUEUED:
        return False
    return _how_far(pushed) < _how_far(seen)


def _how_far(job: JobInfo) -> tuple[int, int, float]:
    return job.attempt, _ORDER.index(job.status), job.progress_percent


_ORDER = tuple(JobState)


def _with_news(seen: JobInfo, pushed: JobInfo) -> JobInfo:
    """Return the job with what a message says; it leaves out what lists of jobs leave out."""
    news = {name: getattr(pushed, name) for name in pushed.model_fields_set}
    if pushed.status is not JobState.QUEUED:
        news["why_waiting"] = None
    return seen.model_copy(update=news)


def _told_pause(seen: JobInfo) -> float:
    return QUEUED_ASKED_SECONDS if seen.status is JobState.QUEUED else ASKED_WHILE_TOLD_SECONDS


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


def _until(clock: Clock, deadline: float | None, seen: JobInfo | None, seconds: float) -> float:
    """Return how long to wait: not past the deadline. Raises WaitTimedOut at the deadline."""
    left = float("inf") if deadline is None else deadline - clock.now()
    if left > 0:
        return min(seconds, left)
    if seen is None:
        raise Unavailable("the service did not answer within the time to wait")
    raise WaitTimedOut(seen)
