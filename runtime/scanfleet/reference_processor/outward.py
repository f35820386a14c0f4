"""Which side of a surface is outside: a scanner is at the origin of the frame that it measures in."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

MAX_HIDDEN = 0.12
"""Part of the points that may lie behind others, seen from a true sensor: mixed pixels at edges do."""


def outward_hint(points: Points, normals: Points | None) -> Points:
    """Return (n, 3) directions that point out of the surface: the scan's normals, or else a guess.

    The guess is "towards the frame's origin" when everything is visible from there, as in a sensor's own
    frame, and "away from the scan's middle" otherwise.
    """
    if normals is not None:
        return normals
    away = -points if sees_everything(points) else points - points.mean(axis=0)
    result: Points = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    return result


def sees_everything(points: Points, *, samples: int = 60_000) -> bool:
    """Say whether the frame's origin can be the sensor: hardly any point is hidden from it."""
    if len(points) > samples:
        points = points[np.random.default_rng(0).choice(len(points), samples, replace=False)]
    depth = np.linalg.norm(points, axis=1)
    if depth.min() < 1e-3 * np.ptp(points, axis=0).max():
        return False
    directions = points / depth[:, None]
    # Pixels that hold about eight points each, so that most are filled and each surface is one depth in them.
    spread = np.sort(np.ptp(directions, axis=0))[1:]
    pixel = max(float(np.sqrt(8.0 * spread.prod() / len(points))), 1e-6)
    cells = np.floor((directions + 1.0) / pixel).astype(np.int64)
    side = int(2.0 / pixel) + 2
    _, owner = np.unique((cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2], return_inverse=True)
    nearest = np.full(int(owner.max()) + 1, np.inf)
    np.minimum.at(nearest, owner, depth)
    # A surface seen at a slant fills some depth of its pixel; what is hidden lies much farther behind.
    allowed = np.maximum(12.0 * pixel * depth, 0.05 * np.ptp(points, axis=0).max())
    hidden = depth - nearest[owner] > allowed
    return bool(hidden.mean() < MAX_HIDDEN)
