"""A merged cloud, and its thinning to one point a voxel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """A merged cloud.

    `points` (n, 3); `outward` (n, 3) directions out of the surface, any length; `count` (n,) measured points
    in each; `scan` (n,) index of a scan that saw it.
    """

    points: Points
    outward: Points
    count: NDArray[np.int64]
    scan: NDArray[np.int32]

    def part(self, chosen: NDArray[np.generic]) -> "Cloud":
        """Return the chosen points (a mask or indices)."""
        return Cloud(self.points[chosen], self.outward[chosen], self.count[chosen], self.scan[chosen])


def joined(parts: Sequence[Cloud]) -> Cloud:
    return Cloud(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.outward for part in parts]),
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.scan for part in parts]),
    )


def voxel_means(cloud: Cloud, voxel: float) -> tuple[Cloud, NDArray[np.int64]]:
    """Return one point for each occupied voxel, and the voxel of each point.

    Points are means weighted by how many measurements each stands for.

    The grid is the common frame's own, so that thinning scan by scan and then all together gives the same
    cells.
    """
    cells = np.floor(cloud.points / voxel).astype(np.int64)
    cells -= cells.min(axis=0)
    shape = cells.max(axis=0) + 1
    if float(np.prod(shape.astype(np.float64))) < 2.0**62:
        keys = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
        _, first, owner = np.unique(keys, return_index=True, return_inverse=True)
    else:  # very far outliers: the cell's number would not fit into 64 bits
        _, first, owner = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    owner = owner.reshape(-1)
    count = np.bincount(owner, weights=cloud.count)
    points = _sums(cloud.points * cloud.count[:, None], owner) / count[:, None]
    outward = _sums(cloud.outward * cloud.count[:, None], owner) / count[:, None]
    return Cloud(points, outward, count.astype(np.int64), cloud.scan[first]), owner


def _sums(values: Points, owner: NDArray[np.int64]) -> Points:
    return np.stack([np.bincount(owner, weights=values[:, axis]) for axis in range(3)], axis=1)
