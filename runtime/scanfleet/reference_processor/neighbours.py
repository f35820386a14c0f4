"""Each point's nearest neighbours, and what they tell: density and surface direction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]

CHUNK = 100_000
WORKERS = 2
NEIGHBOURS = 14
"""What surfaces are judged by: two rings of neighbours."""


@dataclass(frozen=True)
class Neighbours:
    """`index` (n, k) int32 and `distance` (n, k) float32 of the k nearest other points, nearest first."""

    index: NDArray[np.int32]
    distance: NDArray[np.float32]


def neighbours(points: Points, *, k: int) -> Neighbours:
    """Return the k nearest neighbours of each point (fewer when there are fewer points)."""
    k = min(k, len(points) - 1)
    # Searched in an order in which neighbours follow each other: the tree stays in the processor's cache, and
    # the search takes half the time.
    order = _by_place(points)
    ordered = points[order]
    tree = cKDTree(ordered, balanced_tree=False)
    index = np.empty((len(points), k), dtype=np.int32)
    distance = np.empty((len(points), k), dtype=np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        found_distance, found_index = tree.query(ordered[part], k=range(2, k + 2), workers=WORKERS)
        index[order[part]], distance[order[part]] = order[found_index], found_distance
    return Neighbours(index, distance)


def _by_place(points: Points) -> NDArray[np.int64]:
    """Return an order in which points of one block of space follow each other."""
    block = max(float(np.ptp(points, axis=0).max()) / 64, 1e-300)
    cells = np.floor((points - points.min(axis=0)) / block).astype(np.int64)
    order: NDArray[np.int64] = np.argsort(
        (cells[:, 0] * 128 + cells[:, 1]) * 128 + cells[:, 2], kind="stable"
    )
    return order


def without(near: Neighbours, removed: NDArray[np.bool_]) -> Neighbours:
    """Return the neighbours of the points that are left when a few are removed, in their new numbering.

    A removed neighbour's place is taken by the nearest one that is left.
    """
    kept = np.flatnonzero(~removed)
    index, distance = near.index[kept], near.distance[kept]
    is_gone = removed[index]
    rows = np.flatnonzero(is_gone.any(axis=1))
    for row in rows:
        left = np.flatnonzero(~is_gone[row])
        if len(left):
            index[row, is_gone[row]], distance[row, is_gone[row]] = (
                index[row, left[0]],
                distance[row, left[0]],
            )
        else:
            index[row] = kept[row]
    number = np.cumsum(~removed, dtype=np.int32) - 1
    return Neighbours(number[index].astype(np.int32), distance)


@dataclass(frozen=True)
class Planes:
    """Planes through neighbourhoods: `centres` (n, 3), `normals` (n, 3) of unknown sign, `variation` (n,).

    Surface variation is 0 where all points lie in the plane and 1/3 where they lie in all directions.
    Source: Pauly, Gross, Kobbelt, "Efficient simplification of point-sampled surfaces", 2002.
    """

    centres: Points
    normals: Points
    variation: NDArray[np.float32]


def fit_planes(points: Points, near: Neighbours) -> Planes:
    """Return the plane through each point and its neighbours."""
    centres, normals = np.empty_like(points), np.empty_like(points)
    variation = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        # Relative to the point itself: coordinates far from 0 would cost digits.
        cloud = points[near.index[part]] - points[part, None, :]
        cloud = np.concatenate([cloud, np.zeros((len(cloud), 1, 3))], axis=1)
        middle = cloud.mean(axis=1)
        cloud -= middle[:, None, :]
        covariance = np.einsum("nki,nkj->nij", cloud, cloud, optimize=True)
        values, vectors = np.linalg.eigh(covariance)
        centres[part], normals[part] = points[part] + middle, vectors[:, :, 0]
        variation[part] = np.maximum(values[:, 0], 0) / np.maximum(values.sum(axis=1), 1e-300)
    return Planes(centres, normals, variation)


def oriented(normals: Points, hint: Points, near: Neighbours, *, passes: int = 3) -> Points:
    """Return `normals` with the signs that `hint` (n, 3) suggests; where it is vague, neighbours decide."""
    cosine = (normals * hint).sum(axis=1) / np.maximum(np.linalg.norm(hint, axis=1), 1e-12)
    signed = np.where(cosine < 0, -1.0, 1.0)[:, None] * normals
    weight = np.abs(cosine)[:, None]
    for _ in range(passes):
        vague = np.flatnonzero(weight[:, 0] < 0.25)
        if not len(vague):
            break
        around = (signed * weight)[near.index[vague, :8]].sum(axis=1)
        flip = (around * signed[vague]).sum(axis=1) < 0
        signed[vague[flip]] *= -1.0
    return signed
