"""A calibration in words and rows, for people."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scanfleet.calibration.records import Calibration

GIB = 2**30


def point_rows(calibration: Calibration) -> Iterator[dict[str, Any]]:
    """Return a row for each concurrency; the recommended one has a mark."""
    for point in calibration.points:
        row: dict[str, Any] = {
            "slots": point.slots,
            "jobs_an_hour": f"{point.jobs_per_hour:.1f}",
            "90%_interval": f"{point.low:.1f} to {point.high:.1f}",
            "p50_seconds": f"{point.p50_seconds:.1f}",
            "p95_seconds": f"{point.p95_seconds:.1f}",
            "memory_gib": f"{point.memory_bytes / GIB:.2f}",
        }
        if point.gpu_memory_bytes is not None:
            row["gpu_gib"] = f"{point.gpu_memory_bytes / GIB:.2f}"
        yield row | {
            "jobs": point.jobs,
            "rounds": point.rounds,
            "": "<- recommended" if point.slots == calibration.slots else "",
        }


def kept_row(calibration: Calibration) -> dict[str, Any]:
    """Return what is kept in one row."""
    measured = datetime.fromtimestamp(calibration.measured_at, tz=UTC)
    return {
        "pool": calibration.pool,
        "machine": calibration.machine,
        "processor": calibration.processor,
        "slots": calibration.slots,
        "measured": measured.isoformat(timespec="minutes"),
        "release": calibration.release or "",
    }


def lines(calibration: Calibration) -> Iterator[str]:
    """Return the recommendation and its reasons, a sentence a line."""
    sure = "" if calibration.is_sure else ", with doubts"
    yield f"{calibration.processor} on {calibration.machine}: {calibration.slots} slots{sure}"
    for reason in calibration.reasons:
        yield f"- {reason}"
    if calibration.fit is not None:
        yield (
            f"- scalability law: contention {calibration.fit['contention']:.3f},"
            f" crosstalk {calibration.fit['crosstalk']:.4f}"
        )
