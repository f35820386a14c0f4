"""Watches a running program: looks at all its signals, and ends it, with evidence, when it hangs."""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

from scanfleet.agent.budgets import Budget, Budgets
from scanfleet.agent.dialogs import Dialog, dialogs_of
from scanfleet.agent.eyes import BLIND_AFTER, Blind, Eyes, StillLooking
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program import RunningProgram
from scanfleet.agent.usage import FolderGrowth, TreeMeter, TreeUsage
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.verdict import Judge, Look, Verdict
from scanfleet.agent.watch import Sample
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass

log = logging.getLogger(__name__)

SAMPLES_KEPT = 120
"""The last ones are part of the evidence: four minutes at the usual pace."""

OnCompleted = Callable[[float, Mapping[str, float], float], None]
"""Takes the run's seconds, those of its stages, and those from its end until its job was completed."""


class GpuPort(Protocol):
    """See `gpu.RunGpus`."""

    def percent(self, pids: Collection[int]) -> float | None: ...

    def memory_bytes(self, pids: Collection[int]) -> int | None: ...

    def state(self) -> dict[str, Any]: ...


class EvidencePort(Protocol):
    """See `evidence.EvidenceSaver`."""

    def save(
        self,
        reason: str,
        *,
        program: RunningProgram,
        samples: Sequence[Sample],
        gpu: Callable[[], Mapping[str, Any]] | None,
    ) -> bool: ...


@dataclass(frozen=True)
class Seen:
    """What one look has found. at: when; disk_bytes: of the folders that grow, as last walked."""

    at: float
    usage: TreeUsage
    printed_bytes: int
    output_growth_bytes: int
    disk_bytes: int | None
    gpu_percent: float | None
    gpu_memory_bytes: int | None
    dialogs: tuple[Dialog, ...]


class Watchdog:
    """Watches one run of one program. See `watch.Watch`. clock: seconds.

    It begins to count when it is made, which is right before the program starts. Systems and drivers that do
    not answer hold it up for a moment at most: then only the limits of time count. meter: takes what each
    look has found. input_bytes: what the workspace holds besides the folders that grow.
    """

    def __init__(
        self,
        budgets: Budgets,
        *,
        program_log: ProgramLog,
        board: ProgressBoard,
        growth: FolderGrowth,
        gpus: GpuPort | None = None,
        evidence: EvidencePort | None = None,
        on_completed: OnCompleted | None = None,
        meter: UsageMeter | None = None,
        input_bytes: int = 0,
        dialogs: Callable[[Collection[int]], tuple[Dialog, ...]] = dialogs_of,
        blind_after: timedelta = BLIND_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program_log, self._board, self._growth = program_log, board, growth
        self._gpus, self._evidence, self._on_completed = gpus, evidence, on_completed
        self._meter, self._input_bytes = meter, input_bytes
        self._dialogs = dialogs
        self._blind_after = blind_after
        self._clock = clock
        self._interval = budgets.interval
        self._judge = Judge(budgets)
        self._eyes: Eyes[Seen] | None = None
        self._printed_bytes = 0
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_KEPT)
        self._is_blind = False
        self._started_at = clock()

    @property
    def interval(self) -> timedelta:
        """Return how long to wait between two looks."""
        return self._interval

    def look(self, program: RunningProgram) -> JobFailure | None:
        """Return a hang once a budget is used up; the evidence is saved by then."""
        at = self._clock() - self._started_at
        try:
            seen = self._see(program)
        except StillLooking:
            return None
        sample = None if seen is None else self._sample(at, seen)
        percent, stage = self._board.current()
        facts = {"action": "program_seen", "progress_percent": percent, "stage": stage}
        log.debug("program looked at", extra=facts | (vars(sample) if sample else {}))
        verdict = self._judge.take(Look(at=at, sample=sample, percent=percent, stage=stage))
        if seen is not None and seen.dialogs:
            reason = f"the program waits for an answer that nobody can give: {seen.dialogs[0]}"
            verdict = Verdict(Budget.DIALOG, reason)
        return None if verdict is None else self._end(program, verdict)

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Have the run remembered."""
        if self._on_completed is not None:
            self._on_completed(self._clock() - since_end - self._started_at, stage_seconds, since_end)

    def _see(self, program: RunningProgram) -> Seen | None:
        """Return what there is to see; None when the system does not tell. Raises StillLooking."""
        if self._eyes is None:
            look = partial(self._take_look, TreeMeter(program))
            name = f"look-{program.pid}"
            self._eyes = Eyes(look, name=name, blind_after=self._blind_after, clock=self._clock)
        try:
            return self._eyes.see()
        except Blind as blind:
            if not self._is_blind:  # one line a run
                log.warning("program not measured: %s", blind, extra=_facts("usage_unknown", program))
            self._is_blind = True
            return None

    def _take_look(self, meter: TreeMeter) -> Seen:
        """Ask everything that may not answer."""
        usage = meter.measure()
        return Seen(
            at=self._clock() - self._started_at,
            usage=usage,
            printed_bytes=self._program_log.printed_bytes,
            output_growth_bytes=self._growth.measure(),
            disk_bytes=self._growth.size,
            gpu_percent=None if self._gpus is None else self._gpus.percent(usage.pids),
            gpu_memory_bytes=None if self._gpus is None else self._gpus.memory_bytes(usage.pids),
            dialogs=self._find_dialogs(usage.pids),
        )

    def _find_dialogs(self, pids: Collection[int]) -> tuple[Dialog, ...]:
        try:
            return self._dialogs(pids)
        except OSError as error:
            log.debug("windows not found: %s", error, extra={"action": "dialogs_unknown"})
            return ()

    def _sample(self, at: float, seen: Seen) -> Sample:
        sample = Sample(
            at=at,
            cpu_seconds=seen.usage.cpu_seconds,
            io_bytes=seen.usage.io_bytes,
            printed_bytes=seen.printed_bytes - self._printed_bytes,
            output_growth_bytes=seen.output_growth_bytes,
            resident_bytes=seen.usage.resident_bytes,
            processes=len(seen.usage.pids),
            gpu_percent=seen.gpu_percent,
        )
        self._printed_bytes = seen.printed_bytes
        self._samples.append(sample)
        if self._meter is not None:
            self._count(self._meter, seen)
        return sample

    def _count(self, meter: UsageMeter, seen: Seen) -> None:
        meter.add(
            seen.at,
            cpu_seconds=seen.usage.cpu_seconds,
            io_bytes=seen.usage.io_bytes,
            memory_bytes=seen.usage.resident_bytes,
            gpu_percent=seen.gpu_percent,
            gpu_memory_bytes=seen.gpu_memory_bytes,
            disk_bytes=None if seen.disk_bytes is None else self._input_bytes + seen.disk_bytes,
        )

    def _end(self, program: RunningProgram, verdict: Verdict) -> JobFailure:
        facts = _facts("program_hangs", program) | {"budget": verdict.budget}
        log.warning("program hangs: %s", verdict.reason, extra=facts)
        saved = self._evidence is not None and self._evidence.save(
            verdict.reason,
            program=program,
            samples=tuple(self._samples),
            gpu=None if self._gpus is None else self._gpus.state,
        )
        return JobFailure(FailureClass.HANG, verdict.reason, has_evidence=saved)


def _facts(action: str, program: RunningProgram) -> dict[str, object]:
    return {"action": action, "pid": program.pid}
