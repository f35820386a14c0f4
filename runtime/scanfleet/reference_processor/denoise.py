"""Points of noisy scans moved onto the surface that they mean together.

A depth camera's noise grows with distance: far walls are layers many voxels thick. Noise is told from shape
by the
surface variation, which falls with the size of the neighbourhood where there is noise, and stays at an edge.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanfleet.reference_processor.cloud import Cloud, Points, voxel_means
from scanfleet.reference_processor.neighbours import NEIGHBOURS, WORKERS, Planes, fit_planes, neighbours

NOISY = 0.04
"""Surface variation of noise and of edges; a plane has it when its noise is a third of a voxel."""
NOISY_SHARE = 0.08
"""Below this part of noisy points there are only edges."""
FLATTER = 0.6
"""Noise has to fall to this part of the variation; an edge keeps it."""
LEVELS = 3
BLENDED = 4


def flattened(cloud: Cloud, voxel: float) -> Points | None:
    """Return the cloud's points with noisy ones moved onto planes through 2, 4 or 8 times larger voxels.

    Each noisy point uses the finest size at which its surroundings are flat. None when the cloud is not
    noisy. Source: in the manner of moving least squares, Alexa et al., "Point set surfaces", 2001.
    """
    variation = fit_planes(cloud.points, neighbours(cloud.points, k=NEIGHBOURS)).variation
    noisy = np.flatnonzero(variation > NOISY)
    if len(noisy) < NOISY_SHARE * len(variation):
        return None
    points = cloud.points[noisy]
    best = FLATTER * variation[noisy]
    target = points.copy()
    is_done = np.zeros(len(noisy), dtype=bool)
    for level in range(1, LEVELS + 1):
        cloud_there, _ = voxel_means(cloud, voxel * 2**level)
        if len(cloud_there.points) < 4 * NEIGHBOURS or is_done.all():
            break
        planes = fit_planes(cloud_there.points, neighbours(cloud_there.points, k=NEIGHBOURS))
        left = np.flatnonzero(~is_done)
        moved, flatness = _projected(points[left], cloud_there.points, planes)
        is_better = flatness < best[left]
        target[left[is_better]] = moved[is_better]
        best[left[is_better]] = flatness[is_better]
        is_done[left] = is_better & (flatness < NOISY)
    result = cloud.points.copy()
    result[noisy] = target
    return result


def _projected(points: Points, places: Points, planes: Planes) -> tuple[Points, NDArray[np.float32]]:
    """Return the points on the planes of the nearest places, blended by distance, and the variation there."""
    distance, near = cKDTree(places, balanced_tree=False).query(points, k=BLENDED, workers=WORKERS)
    reach = np.maximum(distance[:, -1:], 1e-30)
    weight = np.exp(-2.0 * (distance / reach) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    height = np.einsum("nki,nki->nk", points[:, None, :] - planes.centres[near], planes.normals[near])
    moved = points - np.einsum("nk,nki->ni", weight * height, planes.normals[near])
    return moved, (weight * planes.variation[near]).sum(axis=1).astype(np.float32)
