"""Smoothing along the normal: noise goes, edges stay, points do not drift along the surface.

Source: the bilateral filter of Fleishman, Drori, Cohen-Or, "Bilateral mesh denoising", 2003, on points.
"""

import numpy as np

from scanfleet.reference_processor.neighbours import CHUNK, Neighbours, Points


def smooth(points: Points, normals: Points, near: Neighbours, *, passes: int) -> Points:
    """Return the points moved along their normals towards what their neighbours agree on.

    Each pass is one step. Neighbours on the other side of an edge (normals more than about 45 degrees apart)
    hardly count; neither do those that lie unusually far off.
    """
    for _ in range(passes):
        shift = np.empty(len(points))
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            shift[part] = _steps(points, normals, near, part)
        points = points + shift[:, None] * normals
    return points


def _steps(points: Points, normals: Points, near: Neighbours, part: slice) -> Points:
    """Return how far the points of `part` move along their normals."""
    index, distance = near.index[part], near.distance[part].astype(np.float64)
    height = np.einsum("nki,ni->nk", points[index] - points[part, None, :], normals[part])
    reach = np.maximum(distance.mean(axis=1, keepdims=True), 1e-30)
    agreement = np.einsum("nki,ni->nk", normals[index], normals[part])
    spread = np.maximum(np.median(np.abs(height), axis=1, keepdims=True) * 2.0, 0.05 * reach)
    weight = np.exp(-0.5 * (distance / reach) ** 2 - 0.5 * (height / spread) ** 2)
    weight *= np.exp(-(((1.0 - np.clip(agreement, -1.0, 1.0)) / 0.3) ** 2))
    steps: Points = (weight * height).sum(axis=1) / (weight.sum(axis=1) + 1.0)
    return steps
