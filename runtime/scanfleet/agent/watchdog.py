"""Watches a running program: looks at all its signals, and ends it, with evidence, when it hangs."""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import psutil

from scanfleet.agent.budgets import Budget, Budgets
from scanfleet.agent.dialogs import Dialog, dialogs_of
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program import RunningProgram
from scanfleet.agent.usage import FolderGrowth, TreeMeter, TreeUsage
from scanfleet.agent.verdict import Judge, Look, Verdict
from scanfleet.agent.watch import Sample
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass

log = logging.getLogger(__name__)

SAMPLES_KEPT = 120
"""The last ones are part of the evidence: four minutes at the usual pace."""

OnCompleted = Callable[[float, Mapping[str, float]], None]
"""Takes the run's seconds and those of its stages."""


class GpuPort(Protocol):
    """See `gpu.RunGpus`."""

    def percent(self, pids: Collection[int]) -> float | None: ...

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


class Watchdog:
    """Watches one run of one program. See `watch.Watch`. clock: seconds.

    It begins to count when it is made, which is right before the program starts.
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
        dialogs: Callable[[Collection[int]], tuple[Dialog, ...]] = dialogs_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program_log, self._board, self._growth = program_log, board, growth
        self._gpus, self._evidence, self._on_completed = gpus, evidence, on_completed
        self._dialogs = dialogs
        self._clock = clock
        self._interval = budgets.interval
        self._judge = Judge(budgets)
        self._meter: TreeMeter | None = None
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
        usage = self._measure(program)
        sample = None if usage is None else self._sample(at, usage)
        percent, stage = self._board.current()
        verdict = self._judge.take(Look(at=at, sample=sample, percent=percent, stage=stage))
        if usage is not None:
            verdict = self._dialog(usage.pids) or verdict
        return None if verdict is None else self._end(program, verdict)

    def completed(self, stage_seconds: Mapping[str, float]) -> None:
        """Have the run remembered."""
        if self._on_completed is not None:
            self._on_completed(self._clock() - self._started_at, stage_seconds)

    def _measure(self, program: RunningProgram) -> TreeUsage | None:
        """Return what the program used since the last look; None when the system does not tell."""
        self._meter = self._meter or TreeMeter(program)
        try:
            return self._meter.measure()
        except (psutil.Error, OSError) as error:
            if not self._is_blind:  # one line a run
                log.warning("program not measured: %s", error, extra=_facts("usage_unknown", program))
            self._is_blind = True
            return None

    def _sample(self, at: float, usage: TreeUsage) -> Sample:
        printed = self._program_log.printed_bytes
        sample = Sample(
            at=at,
            cpu_seconds=usage.cpu_seconds,
            io_bytes=usage.io_bytes,
            printed_bytes=printed - self._printed_bytes,
            output_growth_bytes=self._growth.measure(),
            resident_bytes=usage.resident_bytes,
            processes=len(usage.pids),
            gpu_percent=None if self._gpus is None else self._gpus.percent(usage.pids),
        )
        self._printed_bytes = printed
        self._samples.append(sample)
        return sample

    def _dialog(self, pids: Collection[int]) -> Verdict | None:
        try:
            dialogs = self._dialogs(pids)
        except OSError as error:
            log.debug("windows not found: %s", error, extra={"action": "dialogs_unknown"})
            return None
        if not dialogs:
            return None
        return Verdict(Budget.DIALOG, f"the program waits for an answer that nobody can give: {dialogs[0]}")

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
