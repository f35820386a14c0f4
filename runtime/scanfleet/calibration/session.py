"""One calibration: a first run alone, then rounds of stretches, until the plan or the budget is through."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from scanfleet.calibration.closed_loop import ClosedLoop, CutShort
from scanfleet.calibration.measurement import Segment, Stopped
from scanfleet.calibration.meter import GpuMemoryMeter, MemoryMeter
from scanfleet.calibration.plan import Plan, jobs_a_slot
from scanfleet.errors import InvalidRequest, JobFailure

SLOWER_THAN_BEST = 0.75
"""Throughput below this share of the best, and falling: more slots are not tried."""
GIB = 2**30
Say = Callable[[str], None]


@dataclass
class Measured:
    """What is known so far. is_complete: every round was measured to its end or until something spoke against
    it; was_interrupted: somebody ended it."""

    segments: list[Segment] = field(default_factory=list)
    stopped: dict[int, Stopped] = field(default_factory=dict)
    seconds: float = 0.0
    is_complete: bool = False
    was_interrupted: bool = False


class Session:
    """Measures by a plan. say: takes a line for people. clock: seconds.

    memory_limit: bytes that all programs together may have.
    """

    def __init__(
        self,
        loop: ClosedLoop,
        plan: Plan,
        *,
        meter: MemoryMeter,
        memory_limit: float,
        gpus: GpuMemoryMeter | None = None,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._meter = meter
        self._memory_limit = memory_limit
        self._gpus = gpus
        self._say = say
        self._clock = clock
        self._deadline = 0.0
        self._job_seconds: dict[int, float] = {}
        """Slots -> mean seconds of a job, as measured last."""
        self._memory: dict[int, int] = {}

    def run(self) -> Measured:
        """Measure. Ctrl-C ends it: what is known by then is returned.

        Raises InvalidRequest when the budget is too small, and JobFailure when the program fails alone.
        """
        began = self._clock()
        self._deadline = began + self._plan.budget_seconds
        measured = Measured()
        try:
            self._run_alone()
            self._measure_rounds(measured)
        except KeyboardInterrupt:
            measured.was_interrupted = True
        measured.seconds = self._clock() - began
        return measured

    def _run_alone(self) -> None:
        """Run one job that does not count: files come from the disk, and its time is needed for the plan."""
        self._meter.begin(self._loop.too_much_memory)
        try:
            seconds = self._loop.measure(1, jobs=1, spread=0.0, deadline=self._deadline)[0]
        except CutShort as cut:
            why = "uses more memory than allowed" if cut.too_much_memory else "takes longer than the budget"
            field_name = "--max-memory" if cut.too_much_memory else "--budget"
            raise InvalidRequest.of(field_name, f"one program alone {why}; more is needed") from cut
        self._job_seconds[1], self._memory[1] = seconds, self._meter.peak_bytes
        least = self._plan.least_seconds(seconds)
        self._say(
            f"one job alone: {seconds:.1f} s, {self._meter.peak_bytes / GIB:.2f} GiB; a round of"
            f" {len(self._plan.slots)} concurrencies takes {least:.0f} s or more"
        )
        if least > self._deadline - self._clock():
            raise InvalidRequest.of(
                "--budget",
                f"measuring each concurrency once takes at least {seconds + least:.0f} s; allow three times"
                " that for a result that can be trusted, or ask for fewer --slots",
                value=f"{self._plan.budget_seconds:.0f}s",
            )

    def _measure_rounds(self, measured: Measured) -> None:
        for number in range(self._plan.rounds):
            began = self._clock()
            slots_left = [slots for slots in self._plan.slots if slots not in measured.stopped]
            for slots in self._plan.order(number, slots_left):
                if slots in measured.stopped:
                    continue
                if number == 0 and (why := self._objection(slots, measured)) is not None:
                    self._leave_out(slots, why, measured)
                    break
                if not self._stretch(slots, number, measured):
                    return
            if number == 0:
                measured.is_complete = True
            took = self._clock() - began
            if number + 1 < self._plan.rounds and self._clock() + took > self._deadline:
                self._say(f"the budget allows no further round after {number + 1}")
                return

    def _stretch(self, slots: int, number: int, measured: Measured) -> bool:
        """Measure one stretch; return False when the budget is used up."""
        job = self._expected_seconds(slots)
        share = self._deadline - self._clock()
        left = (self._plan.rounds - number) * len(self._plan.slots) - len(
            [s for s in measured.segments if s.round_number == number]
        )
        count = slots * jobs_a_slot(slots, job, seconds=share / max(1, left))
        self._meter.begin(self._loop.too_much_memory)
        if self._gpus is not None:
            self._gpus.begin()
        spread = job * (slots - 1) / slots
        try:
            seconds = self._loop.measure(slots, jobs=count, spread=spread, deadline=self._deadline)
        except CutShort as cut:
            if not cut.too_much_memory:
                self._say(f"the budget ended while {slots} ran side by side: that stretch does not count")
                return False
            self._leave_out(slots, Stopped.MEMORY, measured)
            return True
        except JobFailure as failure:
            if slots == 1:
                raise
            self._say(f"{slots} side by side: {failure}")
            self._leave_out(slots, Stopped.FAILED, measured)
            return True
        found = Segment(
            slots=slots,
            round_number=number,
            seconds=seconds,
            memory_bytes=self._meter.peak_bytes,
            gpu_memory_bytes=None if self._gpus is None else self._gpus.peak_bytes,
        )
        measured.segments.append(found)
        mean = sum(seconds) / len(seconds)
        self._job_seconds[slots] = mean
        self._memory[slots] = max(found.memory_bytes, self._memory.get(slots, 0))
        self._say(
            f"round {number + 1}: {slots} side by side: {count} {'job' if count == 1 else 'jobs'}"
            f" of {mean:.1f} s,"
            f" {3600 * slots / mean:.1f} jobs an hour, {found.memory_bytes / GIB:.2f} GiB"
        )
        return True

    def _expected_seconds(self, slots: int) -> float:
        """Return a job's seconds: as measured; else as if each program more only made the others wait."""
        if slots in self._job_seconds:
            return self._job_seconds[slots]
        below = max(known for known in self._job_seconds if known < slots)
        return self._job_seconds[below] * slots / below

    def _objection(self, slots: int, measured: Measured) -> Stopped | None:
        """Return why these slots should not be tried, judged by fewer."""
        if self._projected_memory(slots) > self._memory_limit:
            return Stopped.MEMORY
        rates = [3600 * s.slots / (sum(s.seconds) / len(s.seconds)) for s in measured.segments]
        if len(rates) > 1 and rates[-1] < min(rates[-2], SLOWER_THAN_BEST * max(rates)):
            return Stopped.SLOWER
        return None

    def _projected_memory(self, slots: int) -> float:
        """Return the memory of so many, by the steepest slope seen so far."""
        known = sorted(self._memory.items())
        slope = known[0][1] / known[0][0]
        for (few, less), (many, more) in pairwise(known):
            slope = max(slope, (more - less) / (many - few))
        return known[-1][1] + slope * (slots - known[-1][0])

    def _leave_out(self, slots: int, why: Stopped, measured: Measured) -> None:
        """Measure these and more no longer; what was measured of them does not count, as they do not work."""
        for more in self._plan.slots:
            if more >= slots:
                measured.stopped[more] = why
        if why is not Stopped.SLOWER:
            measured.segments = [s for s in measured.segments if s.slots < slots]
        self._say(f"{slots} side by side and more are left out: {why}")
