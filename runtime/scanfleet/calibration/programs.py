"""Runs one job of the calibration, as an agent would: its workspace, its runner, the real program.

The sample is copied into each workspace. That stands for the download; nothing is uploaded.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program import RunningProgram
from scanfleet.agent.runner import Runner
from scanfleet.agent.stopping import StopRequest
from scanfleet.agent.usage import TreeMeter
from scanfleet.agent.workspace import Scratch
from scanfleet.calibration.meter import MemoryMeter
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, Job, new_job_id
from scanfleet.processors.base import Processor

LOOK_INTERVAL = timedelta(seconds=0.2)
"""Memory that is taken and given back within this may be overlooked."""
LINES_SHOWN = 5
RunJob = Callable[[StopRequest], float]
"""Runs one job, returns its seconds. Raises JobFailure, or ProgramStopped once the request is set."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """Runs jobs of one processor on copies of one sample. limit_seconds: of one program."""

    processor: Processor
    settings: Mapping[str, Any]
    sample: Path
    scratch: Scratch
    runner: Runner
    meter: MemoryMeter
    limit_seconds: float

    def run(self, stop: StopRequest) -> float:
        """Run one job; see RunJob."""
        since = time.monotonic()
        job = self._job()
        with self.processor.pinned() as pinned, self.scratch.workspace(job.job_id, 1) as workspace:
            shutil.copytree(self.sample, workspace.folders.input, dirs_exist_ok=True)
            program_log = ProgramLog(workspace.log_path)
            watch = MeterWatch(self.meter, self.limit_seconds)
            try:
                self.runner.run(
                    pinned.prepare(job, workspace.folders),
                    processor=pinned,
                    program_log=program_log,
                    board=ProgressBoard(time.monotonic),
                    stop=stop,
                    watch=watch,
                )
            except JobFailure as failure:
                last = " | ".join(program_log.last_lines()[-LINES_SHOWN:])
                raise JobFailure(failure.failure_class, f"{failure}; it printed: {last}") from failure
            finally:
                self.meter.ended(watch)
                program_log.close()
        return time.monotonic() - since

    def _job(self) -> Job:
        now = time.time()
        return Job(
            job_id=new_job_id(),
            owner="calibration",
            processor=self.processor.name,
            pool=self.processor.pool,
            source_uri="s3://calibration/in/",
            target_uri="s3://calibration/out/",
            settings=dict(self.settings),
            created_at=now,
            queued_at=now,
            state_changed_at=now,
        )


class MeterWatch:
    """Tells the meter what one program uses, and ends a program that takes for ever. See `watch.Watch`."""

    interval = LOOK_INTERVAL

    def __init__(self, meter: MemoryMeter, limit_seconds: float) -> None:
        self._meter = meter
        self._limit_seconds = limit_seconds
        self._since = time.monotonic()
        self._tree: TreeMeter | None = None

    def look(self, program: RunningProgram) -> JobFailure | None:
        """Measure the whole tree."""
        self._tree = self._tree or TreeMeter(program)
        try:
            usage = self._tree.measure()
        except (psutil.Error, OSError):  # it ends just now
            return None
        self._meter.note(self, usage.resident_bytes)
        self._meter.used_cpu(usage.cpu_seconds)
        if time.monotonic() - self._since > self._limit_seconds:
            return JobFailure(FailureClass.HANG, f"took longer than {self._limit_seconds:.0f} s")
        return None

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Nothing is learned from calibrations."""
