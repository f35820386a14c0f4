"""How much of a surface three planes explain.

Three planes fix a pose exactly, so any corner of any room or box lies perfectly on any other: a fit whose
common surface is three planes and nothing more is no evidence that the two are the same corner.
"""

import numpy as np

from scanfleet.reference_processor.downsample import Points

PLANES = 3
TRIALS = 60


def beyond_flats(points: Points, normals: Points, *, thickness: float) -> float:
    """Return the fraction of `points` (n, 3) that lies on none of the three planes that take the most."""
    total = len(points)
    if total < TRIALS:
        return 0.0
    for _ in range(PLANES):
        pick = np.linspace(0, len(points) - 1, TRIALS).astype(np.int64)
        offset = np.einsum("ti,ti->t", normals[pick], points[pick])
        height = np.abs(points @ normals[pick].T - offset)
        alike = np.abs(normals @ normals[pick].T)
        on_plane = (height < thickness) & (alike > 0.9)
        best = int(on_plane.sum(axis=0).argmax())
        rest = ~on_plane[:, best]
        points, normals = points[rest], normals[rest]
        if len(points) < TRIALS:
            break
    return len(points) / total
