"""A fixed number of workers that each keep one program running, until enough jobs are counted.

Workers begin one after the other, spread over a job's time: in step, they would all do the same stage at
once, which jobs that arrive by themselves do not. Jobs count that begin once all workers run. Until the last
of them has ended all workers go on, so that each counted job had its neighbours to its end.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scanfleet.agent.runner import ProgramStopped
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.calibration.programs import RunJob

STOPPED_WITHIN = 60.0
"""Seconds for the programs to end once they were asked to; a process that cannot be killed is left behind."""


class CutShort(Exception):
    """A stretch was ended before all jobs were counted: too_much_memory, or else the deadline."""

    def __init__(self, *, too_much_memory: bool) -> None:
        super().__init__("too much memory" if too_much_memory else "the budget is used up")
        self.too_much_memory = too_much_memory


@dataclass
class _Stretch:
    """What the workers of one stretch share; `changed` guards all of it."""

    slots: int
    jobs: int
    changed: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0
    begun: int = 0
    seconds: list[float] = field(default_factory=list)
    stops: set[StopRequest] = field(default_factory=set)
    is_over: bool = False
    too_much_memory: bool = False
    failure: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.is_over or self.failure is not None or len(self.seconds) >= self.jobs


class ClosedLoop:
    """Keeps programs running. clock: seconds."""

    def __init__(self, run_job: RunJob, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_job = run_job
        self._clock = clock
        self._present: _Stretch | None = None

    def measure(self, slots: int, *, jobs: int, spread: float, deadline: float) -> tuple[float, ...]:
        """Return the seconds of so many jobs, with `slots` programs running all the time.

        spread: seconds between the first worker's begin and the last one's, about. deadline: by the clock.
        Raises CutShort, or what a job raised. No program is left when this returns or raises, whatever it is.
        """
        stretch = self._present = _Stretch(slots=slots, jobs=jobs)
        threads = [
            threading.Thread(
                target=self._work,
                args=(stretch, self._clock() + spread * number / slots),
                name=f"slot-{number}",
                daemon=True,
            )
            for number in range(slots)
        ]
        try:
            for thread in threads:
                thread.start()
            with stretch.changed:
                while not stretch.is_done and (left := deadline - self._clock()) > 0:
                    stretch.changed.wait(min(left, 1.0))
        finally:
            self._end(stretch, threads)
        if stretch.too_much_memory:
            raise CutShort(too_much_memory=True)
        if stretch.failure is not None:
            raise stretch.failure
        if len(stretch.seconds) < jobs:
            raise CutShort(too_much_memory=False)
        return tuple(stretch.seconds)

    def too_much_memory(self) -> None:
        """End the present stretch at once."""
        stretch = self._present
        if stretch is not None:
            with stretch.changed:
                stretch.is_over = stretch.too_much_memory = True
                stretch.changed.notify_all()
                stops = tuple(stretch.stops)
            for stop in stops:
                stop.set(StopReason.LEASE_LOST)  # without grace: memory is short now

    def _end(self, stretch: _Stretch, threads: list[threading.Thread]) -> None:
        with stretch.changed:
            stretch.is_over = True
            stretch.changed.notify_all()
            stops = tuple(stretch.stops)
        for stop in stops:
            stop.set(StopReason.AGENT_STOPPING)
        give_up_at = time.monotonic() + STOPPED_WITHIN
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_at - time.monotonic()))

    def _work(self, stretch: _Stretch, begin_at: float) -> None:
        with stretch.changed:
            while not stretch.is_done and (left := begin_at - self._clock()) > 0:
                stretch.changed.wait(left)
            stretch.running += 1
        while self._one_more(stretch):
            pass

    def _one_more(self, stretch: _Stretch) -> bool:
        """Run one job; return whether to go on."""
        stop = StopRequest()
        with stretch.changed:
            if stretch.is_done:
                return False
            counts = stretch.running == stretch.slots and stretch.begun < stretch.jobs
            stretch.begun += counts
            stretch.stops.add(stop)
        try:
            seconds = self._run_job(stop)
        except ProgramStopped:
            return False
        except Exception as error:  # noqa: BLE001 - told by `measure`, in the caller's thread
            with stretch.changed:
                stretch.failure = stretch.failure or error
                stretch.changed.notify_all()
            return False
        with stretch.changed:
            stretch.stops.discard(stop)
            if counts:
                stretch.seconds.append(seconds)
                stretch.changed.notify_all()
        return True
