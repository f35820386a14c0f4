"""`config.json`: the two folders, and what each key of the Medit program means here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanfleet.errors import InvalidRequest, ScanfleetError
from scanfleet.processors.medit_settings import SOURCE_KEY, TARGET_KEY, MeditSettings, validate

DEFAULT_MAX_POINTS = 3_000_000
"""Merged points at most when "File Size" sets no limit: keeps memory bounded whatever comes in."""
BYTES_PER_POINT = 24
MEGABYTE = 1_000_000
MIN_POINT_LIMIT = 1_000
MERGE_FINENESS = (1.0, 0.7, 0.5)
"""Voxel edge as a multiple of the scans' point spacing, by "High Resolution Merge Type"."""
MAX_SMOOTHING = 5


class BadConfig(ScanfleetError):
    """The configuration file is missing or wrong."""


@dataclass(frozen=True)
class Config:
    """What to do. See docs/reference-processor.md for the meaning of each key.

    mesh: 0 none, 1 where points are, 2 with holes filled. smoothing: passes, 0 to 5. max_points: of each
    merged cloud. raw: the keys as they came, for the report.
    """

    source: Path
    target: Path
    force_global: bool
    save_sources: bool
    compensate_occlusion: int
    mesh: int
    smoothing: int
    merge_fineness: float
    max_points: int
    raw: dict[str, Any]


def read_config(path: Path) -> Config:
    """Return the configuration in `path`. Raises BadConfig naming what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path.name}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadConfig(f"{path.name}: got a {type(content).__name__}, allowed is an object with the keys")
    source, target = _folder(content, SOURCE_KEY), _folder(content, TARGET_KEY)
    if not source.is_dir():
        raise BadConfig(f"{SOURCE_KEY}: there is no folder {source}")
    settings = {key: value for key, value in content.items() if key not in (SOURCE_KEY, TARGET_KEY)}
    try:
        complete = validate(settings, allow_unknown=True)
    except InvalidRequest as error:
        raise BadConfig(f"{path.name}: {error}") from None
    return _interpreted(source, target, complete)


def _folder(content: dict[str, Any], key: str) -> Path:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadConfig(f"{key}: got {value!r}, allowed is the path of a folder")
    return Path(value)


def _interpreted(source: Path, target: Path, settings: dict[str, Any]) -> Config:
    medit = MeditSettings.model_validate(settings)
    limit = DEFAULT_MAX_POINTS
    if medit.file_size:
        limit = max(medit.file_size * MEGABYTE // BYTES_PER_POINT, MIN_POINT_LIMIT)
    fineness = MERGE_FINENESS[min(medit.merge_type, len(MERGE_FINENESS) - 1)]
    if medit.high_resolution_prep:
        fineness /= 2
    return Config(
        source=source,
        target=target,
        force_global=medit.force_global_align,
        save_sources=medit.save_source,
        compensate_occlusion=max(medit.compensate_occlusion_level, 1) if medit.compensate_occlusion else 0,
        mesh=min(medit.complete_type, 2),
        smoothing=min(medit.reduce_roughness, MAX_SMOOTHING),
        merge_fineness=fineness,
        max_points=min(limit, 4 * DEFAULT_MAX_POINTS),
        raw=settings,
    )


def explain_settings(config: Config) -> dict[str, dict[str, Any]]:
    """Return what each key does here: {key: {"value", "honoured", "effect"}}."""
    no_gpu = "accepted; this program computes on the CPU"
    mesh = ("no mesh", "mesh where points were measured", "mesh with holes filled")[config.mesh]
    effects: dict[str, tuple[bool, str]] = {
        "Force Global Align": (
            True,
            "positions in the files are " + ("ignored" if config.force_global else "tried"),
        ),
        "Save Source To Result Folder": (
            True,
            "aligned scans " + ("written" if config.save_sources else "not written"),
        ),
        "Use GPU": (False, no_gpu),
        "Use GPU For Voxel Regeneration": (False, no_gpu),
        "Compensate Occlusion Align": (True, f"tolerance for small overlaps: {config.compensate_occlusion}"),
        "Compensate Occlusion Level": (
            config.compensate_occlusion > 0,
            f"tolerance for small overlaps: {config.compensate_occlusion}; needs Compensate Occlusion Align",
        ),
        "Apply High Resolution to Prep": (
            True,
            "halves the voxel" if config.raw["Apply High Resolution to Prep"] else "the voxel is not halved",
        ),
        "Complete Type": (True, mesh),
        "File Size": (True, f"at most {config.max_points} points in a merged cloud"),
        "Reduce Roughness": (True, _smoothing(config)),
        "High Resolution Merge Type": (True, f"voxel is {config.merge_fineness} of the point spacing"),
    }
    unknown = (False, "unknown key; no effect")
    return {
        key: {
            "value": value,
            "honoured": effects.get(key, unknown)[0],
            "effect": effects.get(key, unknown)[1],
        }
        for key, value in config.raw.items()
    }


def _smoothing(config: Config) -> str:
    asked = config.raw["Reduce Roughness"]
    most = f", the most there are (asked for {asked})" if asked > config.smoothing else ""
    return f"{config.smoothing} smoothing passes{most}"
