"""A watch for tests that are about something else."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from scanfleet.agent.program import RunningProgram
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass


class TimeLimit:
    """The least of all watches: ends a program that runs longer than its limit. clock: seconds."""

    interval = timedelta(seconds=0.5)

    def __init__(self, total: timedelta, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._started_at = clock()

    def look(self, program: RunningProgram) -> JobFailure | None:
        """Return a hang once the program runs longer than its limit."""
        del program
        if self._clock() - self._started_at < self._total.total_seconds():
            return None
        limit = int(self._total.total_seconds())
        return JobFailure(FailureClass.HANG, f"the program ran longer than its limit of {limit} s")

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Learn nothing."""
