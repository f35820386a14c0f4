"""Scans from files: `read_scan` for one, by its suffix; one module a format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.readers.base import MIN_POINTS, BadScan, NotAScan, Points, RawCloud
from scanfleet.reference_processor.readers.obj import read_obj
from scanfleet.reference_processor.readers.pcd import read_pcd
from scanfleet.reference_processor.readers.ply import read_ply
from scanfleet.reference_processor.readers.stl import read_stl
from scanfleet.reference_processor.readers.surface import is_coarse, sample_surface, unit, vertex_normals
from scanfleet.reference_processor.readers.table import read_table
from scanfleet.reference_processor.scan import Scan

__all__ = ["MAX_POINTS", "MIN_POINTS", "SUFFIXES", "BadScan", "LoadedScan", "NotAScan", "read_scan"]

_READERS: dict[str, Callable[[Path], RawCloud]] = {
    ".ply": read_ply,
    ".obj": read_obj,
    ".stl": read_stl,
    ".pcd": read_pcd,
    ".xyz": read_table,
    ".csv": read_table,
    ".txt": read_table,
    ".asc": read_table,
    ".pts": read_table,
}
SUFFIXES = frozenset(_READERS)
MAX_POINTS = 4_000_000
"""Of a larger scan this many points are used, evenly chosen: memory has to stay bounded."""
FARTHEST = 1e12
"""Coordinates beyond this are damage, and their squares would overflow."""


@dataclass(frozen=True)
class LoadedScan:
    """A scan and what became of the file's points.

    `points_read` points of the file; `points_dropped` of them were not finite or no measurement; `notes`
    sentences for the report.
    """

    scan: Scan
    points_read: int
    points_dropped: int
    notes: tuple[str, ...] = ()


def read_scan(path: Path, name: str) -> LoadedScan:
    """Return the scan in `path`; `name` is what messages and the report call it.

    Raises BadScan naming the file when it is broken or has too few points, NotAScan when it holds something
    else.
    """
    reader = _READERS[path.suffix.lower()]
    if path.stat().st_size == 0 and path.suffix.lower() != ".txt":
        raise BadScan("the file is empty", file=name)
    try:
        return _finish(reader(path), name)
    except BadScan as error:
        raise error.in_file(name) from None


def _finish(raw: RawCloud, name: str) -> LoadedScan:
    points, normals, notes = raw.points, raw.normals, list(raw.notes)
    if raw.faces is not None and len(raw.faces) and np.isfinite(points).all():
        if is_coarse(points, raw.faces):
            points, normals = sample_surface(points, raw.faces)
            notes.append(f"its triangles are large: {len(points)} points were taken evenly from its surface")
        elif normals is None or not _agree(normals, vertex_normals(points, raw.faces)):
            normals = vertex_normals(points, raw.faces)
    is_usable: NDArray[np.bool_] = np.asarray((np.abs(points) < FARTHEST).all(axis=1))
    no_depth = is_usable & (points == 0).all(axis=1)
    if no_depth.sum() > 1:
        # Depth cameras write 0 0 0 where they measured nothing; a real point there is one at most.
        is_usable &= ~no_depth
        notes.append(f"{int(no_depth.sum())} points at 0 0 0 count as not measured")
    dropped = len(points) - int(is_usable.sum())
    _check_enough(points[is_usable], len(points))
    kept = _kept(is_usable)
    if len(kept) < int(is_usable.sum()):
        notes.append(f"it is large: {len(kept)} of its points are used")
    scan = Scan(name, np.ascontiguousarray(points[kept]), _usable_normals(normals, kept))
    return LoadedScan(scan, points_read=len(raw.points), points_dropped=dropped, notes=tuple(notes))


def _agree(given: Points, computed: Points) -> bool:
    """Say whether normals fit the faces: an OBJ may list as many normals as vertices in another order."""
    cosine = np.abs((unit(given) * computed).sum(axis=1))
    return bool(np.median(cosine) > 0.7)


def _check_enough(points: Points, read: int) -> None:
    if len(points) < MIN_POINTS:
        problem = (
            f"{len(points)} usable points"
            if len(points) == read
            else f"{len(points)} of {read} points usable"
        )
        raise BadScan(f"it has {problem}", allowed=f"at least {MIN_POINTS} points with finite coordinates")
    if not np.ptp(points, axis=0).any():
        raise BadScan(f"all {len(points)} points lie at one place", allowed="a surface")


def _kept(is_usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices of the points to use: all usable ones, or MAX_POINTS of them, evenly chosen."""
    usable = np.flatnonzero(is_usable)
    if len(usable) <= MAX_POINTS:
        return usable
    return np.sort(np.random.default_rng(0).choice(usable, MAX_POINTS, replace=False))


def _usable_normals(normals: Points | None, kept: NDArray[np.int64]) -> Points | None:
    """Return unit normals of the kept points, or None when they are missing for more than a few."""
    if normals is None:
        return None
    normals = unit(normals[kept])
    is_missing = ~normals.any(axis=1)
    if is_missing.mean() > 0.02:
        return None
    normals[is_missing] = (0.0, 0.0, 1.0)
    return normals
