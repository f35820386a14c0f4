"""A calibration from its options to its result: builds the parts, measures, analyses."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from scanfleet.agent.gpu import open_gpus
from scanfleet.agent.runner import Runner
from scanfleet.agent.workspace import Scratch
from scanfleet.calibration import machine
from scanfleet.calibration.analysis import Curve, analyse
from scanfleet.calibration.closed_loop import ClosedLoop
from scanfleet.calibration.measurement import Limits
from scanfleet.calibration.meter import GpuMemoryMeter, MemoryMeter
from scanfleet.calibration.plan import Plan
from scanfleet.calibration.programs import Programs
from scanfleet.calibration.recommend import recommend
from scanfleet.calibration.records import Calibration, MeasuredPoint
from scanfleet.calibration.session import Measured, Session
from scanfleet.contract import Pool
from scanfleet.errors import InvalidRequest
from scanfleet.processors.base import Processor

RESERVE_SHARE = 0.05
"""Of the machine's memory: with less available it would soon swap, and the stretch is ended."""
GPU_MEMORY_SHARE = 0.95
MOST_FOREIGN_SHARE = 0.1
"""Of the machine's CPU: the system itself, the guardians and the copying of samples stay below."""
STOP_GRACE = timedelta(seconds=2)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be calibrated. machine: its kind. tolerance: of the best throughput, such as 0.05.

    memory_share: of the machine's memory that all programs may have. scratch: a folder that is made,
    emptied and removed.
    """

    processor: Processor
    pool: Pool
    machine: str
    sample: Path
    sample_name: str
    scratch: Path
    plan: Plan
    tolerance: float
    memory_share: float
    p95_seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    release: str | None = None


@dataclass(frozen=True)
class Result:
    """calibration: None when nothing was measured before somebody interrupted it."""

    calibration: Calibration | None
    was_interrupted: bool


def calibrate(request: Request, *, say: Callable[[str], None]) -> Result:
    """Measure and analyse. No program and no workspace is left, whatever happens.

    Raises InvalidRequest (settings, sample, budget), ConfigurationError (the program is not here) and
    JobFailure (it fails).
    """
    request.processor.check_ready()
    settings = request.processor.validate_settings(request.settings)
    sample_bytes = _check_sample(request)
    memory = machine.memory_bytes()
    reserve = int(RESERVE_SHARE * memory)
    allowed = int(min(request.memory_share * memory, machine.available_bytes() - reserve))
    meter = MemoryMeter(limit_bytes=allowed, available=machine.available_bytes, reserve_bytes=reserve)
    scratch = Scratch(request.scratch)
    scratch.claim()
    gpus = _gpu_meter()
    programs = Programs(
        processor=request.processor,
        settings=settings,
        sample=request.sample,
        scratch=scratch,
        runner=Runner(grace=STOP_GRACE),
        meter=meter,
        limit_seconds=request.plan.budget_seconds,
    )
    session = Session(
        ClosedLoop(programs.run), request.plan, meter=meter, memory_limit=allowed, gpus=gpus, say=say
    )
    busy_before = machine.busy_cpu_seconds()
    try:
        measured = session.run()
    finally:
        if gpus is not None:
            gpus.stop()
        scratch.release()
        shutil.rmtree(request.scratch, ignore_errors=True)
    if not measured.segments:
        return Result(None, measured.was_interrupted)
    gpu_total = None if gpus is None else gpus.total_bytes
    limits = Limits(
        memory_bytes=allowed,
        gpu_memory_bytes=None if gpu_total is None else int(GPU_MEMORY_SHARE * gpu_total),
        p95_seconds=request.p95_seconds,
    )
    foreign = machine.foreign_share(
        busy_seconds=machine.busy_cpu_seconds() - busy_before,
        own_seconds=meter.cpu_seconds,
        elapsed=measured.seconds,
    )
    calibration = _concluded(
        request, measured, limits, sample_bytes=sample_bytes, memory_bytes=memory, foreign=foreign
    )
    return Result(calibration, measured.was_interrupted)


def _concluded(
    request: Request,
    measured: Measured,
    limits: Limits,
    *,
    sample_bytes: int,
    memory_bytes: int,
    foreign: float,
) -> Calibration:
    curve = analyse(measured.segments, tolerance=request.tolerance, seed=request.plan.seed)
    found = recommend(
        curve,
        tolerance=request.tolerance,
        limits=limits,
        stopped=measured.stopped,
        largest=max(request.plan.slots),
    )
    reasons = found.reasons
    if not measured.is_complete:
        reasons += ("not every concurrency was measured",)
    is_alone = foreign <= MOST_FOREIGN_SHARE
    if not is_alone:
        reasons += (
            f"others used {foreign:.0%} of the machine's CPU meanwhile: more programs side by side then also"
            " get more of it, and the knee comes out too high; measure on a quiet machine",
        )
    return Calibration(
        processor=request.processor.name,
        pool=request.pool,
        machine=request.machine,
        slots=found.slots,
        is_sure=found.is_sure and measured.is_complete and is_alone,
        reasons=reasons,
        sample=request.sample_name,
        sample_bytes=sample_bytes,
        release=request.release,
        measured_at=time.time(),
        seconds=round(measured.seconds, 1),
        is_complete=measured.is_complete,
        foreign_cpu_share=round(foreign, 3),
        machine_memory_bytes=memory_bytes,
        memory_limit_bytes=limits.memory_bytes or memory_bytes,
        points=_points(curve),
        fit=None
        if curve.fit is None
        else {
            "rate": curve.fit.rate,
            "contention": curve.fit.contention,
            "crosstalk": curve.fit.crosstalk,
        },
    )


def _points(curve: Curve) -> tuple[MeasuredPoint, ...]:
    return tuple(
        MeasuredPoint(
            slots=point.slots,
            jobs=point.jobs,
            rounds=point.rounds,
            jobs_per_hour=round(point.jobs_per_hour, 3),
            low=round(point.low, 3),
            high=round(point.high, 3),
            p50_seconds=round(point.p50_seconds, 3),
            p95_seconds=round(point.p95_seconds, 3),
            memory_bytes=point.memory_bytes,
            gpu_memory_bytes=point.gpu_memory_bytes,
        )
        for point in curve.points
    )


def _check_sample(request: Request) -> int:
    """Return the sample's bytes. Raises InvalidRequest for a folder that holds nothing to process."""
    files = [path for path in request.sample.rglob("*") if path.is_file()]
    if not any(request.processor.accepts(path.name) for path in files):
        raise InvalidRequest.of(
            "--sample",
            f"the folder needs inputs of {request.processor.name}: {request.processor.input_kinds}",
            value=request.sample,
        )
    return sum(path.stat().st_size for path in files)


def _gpu_meter() -> GpuMemoryMeter | None:
    found = open_gpus()
    if found is None:
        return None
    meter = GpuMemoryMeter(found.state)
    meter.start()
    return meter
