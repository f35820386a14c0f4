"""An attempt's signs of life: what its heartbeat goes by, so that a lease outlives no work.

The thread of an attempt can stand still while the heartbeat's thread beats on: in a transfer whose far end
went silent, in a system call that never returns. Each phase therefore owes a sign of life within its
allowance: bytes that moved, a file that was copied, a look at the running program. What the program prints
is no sign: others read it. Whether the program itself is alive is its watch's to decide.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from scanfleet import contract
from scanfleet.agent.program import RunningProgram
from scanfleet.agent.watch import Watch
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass


class Phase(StrEnum):
    """What an attempt is at. The values are parts of sentences."""

    DOWNLOAD = "the download"
    """Signs: bytes received. Next: the run."""
    RUN = "the program's watch"
    """Signs: looks at the program. Next: the upload."""
    STAGE = "the upload of the results"
    """Signs: bytes sent. Next: the publication."""
    PUBLISH = "the publication of the results"
    """Signs: files copied."""
    LOG = "the end of the log"
    """The last phase, however the work ended; it bounds itself (log_shipping.py)."""


@dataclass(frozen=True)
class Allowances:
    """How long each phase may go without a sign of life, and the time to settle after being asked to stop."""

    transfer: timedelta = contract.TRANSFER_STALL
    look: timedelta = contract.LOOK_STALL
    stop: timedelta = contract.STOP_ALLOWANCE

    def of(self, phase: Phase) -> timedelta:
        """Return the phase's allowance."""
        return self.look if phase is Phase.RUN else self.transfer


class Vitals:
    """Written by the attempt's threads, read by its heartbeat. clock: seconds."""

    def __init__(self, allowances: Allowances, clock: Callable[[], float]) -> None:
        self._allowances = allowances
        self._clock = clock
        self._lock = threading.Lock()
        self._phase: Phase | None = None
        self._seen_at = clock()
        self._moved = 0

    def begin(self, phase: Phase) -> None:
        """Enter the phase."""
        with self._lock:
            self._phase = phase
            self._seen_at = self._clock()
            self._moved = 0

    def sign(self) -> None:
        """Give a sign of life."""
        with self._lock:
            self._seen_at = self._clock()

    def moved(self, bytes_done: int, _total: int) -> None:
        """Hear how many bytes a transfer has moved; a count that stands still is no sign."""
        with self._lock:
            if bytes_done != self._moved:
                self._moved = bytes_done
                self._seen_at = self._clock()

    def stall(self) -> JobFailure | None:
        """Return the failure of an attempt whose phase gave no sign within its allowance, or None."""
        with self._lock:
            phase, silent = self._phase, self._clock() - self._seen_at
        if phase is None or silent < self._allowances.of(phase).total_seconds():
            return None
        failure_class = FailureClass.HANG if phase is Phase.RUN else FailureClass.TRANSFER
        return JobFailure(failure_class, f"{phase} stood still for {silent:.0f} s")


class SeenWatch:
    """A watch whose looks are signs of life."""

    def __init__(self, watch: Watch, vitals: Vitals) -> None:
        self._watch = watch
        self._vitals = vitals

    @property
    def interval(self) -> timedelta:
        """Return how long to wait between two looks."""
        return self._watch.interval

    def look(self, program: RunningProgram) -> JobFailure | None:
        """Look, and be seen before and after: evidence takes a while."""
        self._vitals.sign()
        try:
            return self._watch.look(program)
        finally:
            self._vitals.sign()

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Take note of a run whose job has been completed."""
        self._watch.completed(stage_seconds, since_end=since_end)
