"""When the controller samples: once in each SAMPLE_PERIOD of the clock, whichever invocation is running.

The scheduler starts an invocation somewhere within each minute, give or take a few seconds. An invocation
samples at once if nobody has sampled the present period yet, then at the start of each further one, and ends
before the next invocation may come: two never run at once.
Source: EventBridge Scheduler guide, "Schedule types": schedules have a precision of one minute.
"""

from collections.abc import Callable
from datetime import timedelta

from scanfleet.contract import CONTROLLER_PERIOD, SAMPLE_PERIOD

HAND_OVER = timedelta(seconds=3)
"""No sample starts within this much of the next invocation."""
SAMPLE_LIMIT = timedelta(seconds=15)
"""No sample starts with less time than this left: above what a sample takes when services do not answer."""


class Minutes:
    """Calls `sample` at fixed instants; remembers the last one's period from invocation to invocation.

    clock: epoch seconds. sleep: takes seconds.
    """

    def __init__(
        self, sample: Callable[[], None], *, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._sample = sample
        self._clock = clock
        self._sleep = sleep
        self._last_period: int | None = None

    def run(self, *, remaining_seconds: Callable[[], float], after_first: Callable[[], None]) -> int:
        """Sample until this invocation's minute is over; return how often.

        remaining_seconds: until the invocation is cut off. after_first: work of once a minute, done after the
        first sample, because scaling waits for nothing.
        """
        end = self._clock() + (CONTROLLER_PERIOD - HAND_OVER).total_seconds()
        count = self._sample_if_due()
        after_first()
        while (pause := self._next_start() - self._clock()) + self._clock() <= end:
            if remaining_seconds() - pause < SAMPLE_LIMIT.total_seconds():
                break
            self._sleep(max(0.0, pause))
            count += self._sample_if_due()
        return count

    def _sample_if_due(self) -> int:
        period = int(self._clock() // SAMPLE_PERIOD.total_seconds())
        if period == self._last_period:
            return 0
        self._last_period = period
        self._sample()
        return 1

    def _next_start(self) -> float:
        """Return when the next sample is due. A slow one makes periods be skipped, never sampled twice."""
        period = SAMPLE_PERIOD.total_seconds()
        present = self._clock() // period
        due_now = int(present) != self._last_period
        return float((present if due_now else present + 1) * period)
