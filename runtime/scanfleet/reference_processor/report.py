"""`report.json`: what was read, how it fits, what came out; docs/reference-processor.md has the schema."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scanfleet.contract import PRODUCT
from scanfleet.reference_processor.folder import MAX_NAMED, Folder
from scanfleet.reference_processor.registration import Registration, Verdict

SCHEMA = 1
REPORT_NAME = "report.json"


@dataclass(frozen=True)
class GroupResult:
    """What came out for one group of scans that overlap; files are names in the target folder."""

    number: int
    members: tuple[int, ...]
    points_in: int
    points_merged: int
    points_outliers: int
    points_out: int
    merge_voxel: float
    cloud_file: str
    mesh: Mapping[str, Any] | None
    previews: tuple[str, ...]


def summary(verdict: Verdict, scans: int, groups: Sequence[GroupResult]) -> str:
    """Return the verdict as a sentence for people."""
    files = ", ".join(group.cloud_file for group in groups[:5]) + (" ..." if len(groups) > 5 else "")
    if verdict == Verdict.SINGLE_SCAN:
        return "There is one scan; nothing had to be aligned."
    if verdict == Verdict.ALIGNED:
        return f"All {scans} scans overlap and were aligned; the merged cloud is {files}."
    if verdict == Verdict.NO_OVERLAP:
        return (
            f"None of the {scans} scans overlaps another one safely, so nothing was merged; "
            f"each is in a file of its own: {files}."
        )
    largest = len(groups[0].members)
    return (
        f"{largest} of {scans} scans overlap and were aligned; the others fit nowhere safely. "
        f"There are {len(groups)} groups, each with its own file and frame: {files}."
    )


def build_report(
    folder: Folder,
    registration: Registration,
    groups: Sequence[GroupResult],
    *,
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the report as JSON values."""
    names = [loaded.scan.name for loaded in folder.scans]
    group_of = {member: group.number for group in groups for member in group.members}
    return {
        "schema": SCHEMA,
        "program": {"name": "scanfleet reference processor", "version": version(PRODUCT)},
        "verdict": str(registration.verdict),
        "summary": summary(registration.verdict, len(names), groups),
        "units": "as in the scans",
        "scans": [
            {
                "file": loaded.scan.name,
                "points_read": loaded.points_read,
                "points_dropped": loaded.points_dropped,
                "points_used": len(loaded.scan.points),
                "pose": registration.poses[k].tolist(),
                "group": group_of[k],
                "notes": list(loaded.notes),
            }
            for k, loaded in enumerate(folder.scans)
        ],
        "pairs": [
            {
                "source": names[pair.source],
                "target": names[pair.target],
                "overlap": _number(pair.overlap),
                "inlier_rmse": _number(pair.inlier_rmse),
                "accepted": bool(pair.accepted),
                "reason": pair.reason,
            }
            for pair in registration.pairs
        ],
        "groups": [_group(group, names) for group in groups],
        "points_in": sum(loaded.points_read for loaded in folder.scans),
        "points_out": sum(group.points_out for group in groups),
        "quality": _quality(registration),
        "parameters": {
            "point_spacing": _number(registration.resolution),
            "registration_voxel": _number(registration.voxel_size),
            "merge_voxel": [_number(group.merge_voxel) for group in groups],
        },
        "settings": dict(settings),
        "ignored": [{"file": item.file, "reason": item.reason} for item in folder.ignored[:MAX_NAMED]],
        "ignored_count": len(folder.ignored),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "peak_memory_mb": peak_memory_mb(),
    }


def write_report(target: Path, report: Mapping[str, Any]) -> None:
    """Write the report into the target folder."""
    text = json.dumps(report, indent=2, allow_nan=False)
    (target / REPORT_NAME).write_text(text + "\n", encoding="utf-8")


def peak_memory_mb() -> float | None:
    """Return the most memory that this process has held, in MB, or None where the system does not tell."""
    try:
        import resource  # noqa: PLC0415 Windows has no such module
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 * 1024) if sys.platform == "darwin" else peak / 1024, 1)


def _group(group: GroupResult, names: Sequence[str]) -> dict[str, Any]:
    return {
        "number": group.number,
        "scans": [names[member] for member in group.members],
        "points_in": group.points_in,
        "points_merged": group.points_merged,
        "points_removed_as_outliers": group.points_outliers,
        "points_out": group.points_out,
        "cloud": group.cloud_file,
        "mesh": dict(group.mesh) if group.mesh is not None else None,
        "previews": list(group.previews),
    }


def _quality(registration: Registration) -> dict[str, float | int | None]:
    accepted = [pair for pair in registration.pairs if pair.accepted]
    return {
        "pairs_tried": len(registration.pairs),
        "pairs_accepted": len(accepted),
        "overlap_median": _number(float(np.median([p.overlap for p in accepted]))) if accepted else None,
        "inlier_rmse_median": _number(float(np.median([p.inlier_rmse for p in accepted])))
        if accepted
        else None,
        "inlier_rmse_max": _number(max(p.inlier_rmse for p in accepted)) if accepted else None,
    }


def _number(value: float) -> float | None:
    """Return a number that JSON has: None for infinity and not-a-number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
