"""Results as PLY, binary little endian."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

_BATCH = 200_000


def write_ply(
    path: Path, points: Points, normals: Points | None, *, faces: NDArray[np.int64] | None = None
) -> int:
    """Write points, normals and triangles; return the file's size in bytes.

    Positions are float, or double where float would cost digits: far from the origin, such as map
    coordinates.
    """
    position = "float" if _fits_float(points) else "double"
    names = ["x", "y", "z"] + (["nx", "ny", "nz"] if normals is not None else [])
    kinds = [position] * 3 + ["float"] * (len(names) - 3)
    row = np.dtype([(n, "<f8" if k == "double" else "<f4") for n, k in zip(names, kinds, strict=True)])
    lines = ["ply", "format binary_little_endian 1.0", "comment Scanfleet reference processor"]
    lines += [f"element vertex {len(points)}"]
    lines += [f"property {kind} {name}" for kind, name in zip(kinds, names, strict=True)]
    if faces is not None:
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with path.open("wb") as handle:
        handle.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        for start in range(0, len(points), _BATCH):
            part = slice(start, start + _BATCH)
            rows = np.empty(len(points[part]), dtype=row)
            columns = (
                points[part] if normals is None else np.concatenate([points[part], normals[part]], axis=1)
            )
            for k, name in enumerate(names):
                rows[name] = columns[:, k]
            handle.write(rows.tobytes())
        if faces is not None:
            triangles = np.empty(len(faces), dtype=np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
            triangles["count"], triangles["corners"] = 3, faces
            handle.write(triangles.tobytes())
        return handle.tell()


def _fits_float(points: Points) -> bool:
    """Say whether float keeps positions to a millionth of the cloud's size; it has 24 bits."""
    if not len(points):
        return True
    extent = float(np.ptp(points, axis=0).max())
    return float(np.abs(points).max()) * 2.0**-24 < extent / 1_000_000
