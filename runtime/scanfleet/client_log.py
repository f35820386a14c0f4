"""Following a job's log: every line once, in order, from attempt to attempt, until the job has ended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from scanfleet.client_http import Clock
from scanfleet.client_models import JobInfo, LogPage
from scanfleet.client_wait import OUTAGE_PATIENCE
from scanfleet.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
PAUSE_GROWTH = 1.5
LOG_START = "0-0"

T = TypeVar("T")
ReadJob = Callable[[], JobInfo]
ReadLog = Callable[[int, str], LogPage]
"""Takes an attempt and a place in its log; gives what follows, one page at most."""


@dataclass(frozen=True)
class LogLine:
    """One line that a job's program printed."""

    attempt: int
    text: str


class LogFollower:
    """Reads one job's log as it grows. An outage shorter than `patience` only delays lines."""

    def __init__(
        self,
        read_job: ReadJob,
        read_log: ReadLog,
        *,
        clock: Clock,
        patience: timedelta = OUTAGE_PATIENCE,
    ) -> None:
        self._read_job = read_job
        self._read_log = read_log
        self._clock = clock
        self._patience = patience.total_seconds()
        self._pause = FIRST_PAUSE_SECONDS

    def lines(self, *, attempt: int | None, only: bool, after: str | None) -> Iterator[LogLine]:
        """Yield lines until the job, or with `only` the attempt, has ended.

        attempt: the first one; None: the one that runs, or the first to come. after: a place in its log.
        """
        job = self._patiently(self._read_job)
        at = attempt or max(1, job.attempt)
        place = after or LOG_START
        while True:
            # The job first: what was printed before its attempt ended is in the log that is read afterwards.
            is_over = job.is_finished or job.attempt > at
            was_empty = True
            # Whoever names an attempt that never comes is told so, by the service.
            exists = job.attempt >= at or (only and job.is_finished)
            for page in self._pages(at, place, exists=exists):
                was_empty = False
                place = page.next or place
                yield from (LogLine(at, text) for text in page.lines)
            if is_over and (only or job.attempt <= at):
                return
            if is_over:
                at, place = at + 1, LOG_START
                continue
            self._rest(was_empty=was_empty)
            job = self._patiently(self._read_job)

    def _pages(self, attempt: int, place: str, *, exists: bool) -> Iterator[LogPage]:
        """Yield what is there by now, page by page."""
        while exists:
            page = self._patiently(partial(self._read_log, attempt, place))
            if not page.lines:
                return
            yield page
            place = page.next or place

    def _rest(self, *, was_empty: bool) -> None:
        self._clock.sleep(self._pause)
        longer = min(self._pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)
        self._pause = longer if was_empty else FIRST_PAUSE_SECONDS

    def _patiently(self, read: Callable[[], T]) -> T:
        """Return what is read, also from a service that is away for a while."""
        give_up_at = self._clock.now() + self._patience
        while True:
            try:
                return read()
            except Unavailable:
                if self._clock.now() >= give_up_at:
                    raise
            self._clock.sleep(LONGEST_PAUSE_SECONDS)
