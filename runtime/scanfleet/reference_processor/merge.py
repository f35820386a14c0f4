"""Aligned scans as one cloud: the mean of what the scans measured in each voxel, without outliers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanfleet.reference_processor.cloud import Cloud, Points, joined, voxel_means
from scanfleet.reference_processor.denoise import NOISY, NOISY_SHARE, flattened
from scanfleet.reference_processor.neighbours import (
    NEIGHBOURS,
    WORKERS,
    Neighbours,
    fit_planes,
    neighbours,
    oriented,
    without,
)
from scanfleet.reference_processor.outward import outward_hint
from scanfleet.reference_processor.scan import Scan

OUTLIER_RATIO = 3.0
"""A point this much lonelier than the points around it is an outlier. Compared locally, because density
falls with distance; in the manner of the local outlier factor, Breunig et al., 2000."""
WEAK_OUTLIER_RATIO = 1.8
"""The same for a point that is nobody's neighbour, or was measured once where others were measured often."""
SHUNNED_BELOW = 3
MOST_OUTLIERS = 0.2
"""If more of the points look like outliers they are none: the cloud is simply uneven."""
SUSPECT_RATIO = 1.5
OUTLIER_ROUNDS = 3
NORMAL_PASSES = 3


def moved(points: Points, pose: Points) -> Points:
    """Return points in the frame that the (4, 4) pose leads to."""
    result: Points = points @ pose[:3, :3].T + pose[:3, 3]
    return result


def merge(
    scans: Sequence[Scan],
    poses: Points,
    members: Sequence[int],
    *,
    voxel: float,
    max_points: int,
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[Cloud, float]:
    """Return the cloud of the scans in `members`, and the finest voxel edge used.

    The edge grows when `max_points` asks for it. One scan at a time is moved and thinned, so memory follows
    the
    result, not the input. Where scans are noisier than the voxel is wide, their points first move onto the
    surface that they mean together: see denoise.py. `on_progress` gets 0 to 100.
    """
    parts = []
    for done, member in enumerate(members, start=1):
        scan, pose = scans[member], poses[member]
        hint = outward_hint(scan.points, scan.normals) @ pose[:3, :3].T
        ones = np.ones(len(scan.points), dtype=np.int64)
        cloud = Cloud(moved(scan.points, pose), hint, ones, np.full(len(ones), member, dtype=np.int32))
        parts.append(voxel_means(cloud, voxel)[0])
        on_progress(60.0 * done / len(members))
    cloud = voxel_means(joined(parts), voxel)[0]
    del parts
    while len(cloud.points) > max_points:
        # A surface has about as many voxels as their edge squared goes into it.
        voxel *= max(float(np.sqrt(len(cloud.points) / max_points)) * 1.02, 1.02)
        cloud = voxel_means(cloud, voxel)[0]
    on_progress(70.0)
    flat = flattened(cloud, voxel)
    if flat is not None:
        cloud = voxel_means(replace(cloud, points=flat), voxel)[0]
    on_progress(100.0)
    return cloud, voxel


def without_outliers(cloud: Cloud) -> tuple[Cloud, Neighbours]:
    """Return the cloud without points that lie much lonelier than their neighbours do, and its neighbours."""
    near = neighbours(cloud.points, k=NEIGHBOURS)
    loneliness = near.distance.mean(axis=1).astype(np.float64)
    ratio = _ratio(loneliness, loneliness, near.index)
    # Nobody's neighbour: everything around it has nearer company.
    is_shunned = np.bincount(near.index.ravel(), minlength=len(ratio)) < SHUNNED_BELOW
    is_weak = (cloud.count == 1) & (np.median(cloud.count[near.index], axis=1) >= 3)
    is_outlier = ratio > np.where(is_shunned | is_weak, WEAK_OUTLIER_RATIO, OUTLIER_RATIO)
    _add_company(is_outlier, ratio, loneliness, cloud.points)
    if not is_outlier.any() or is_outlier.mean() > MOST_OUTLIERS:
        return cloud, near
    return cloud.part(~is_outlier), without(near, is_outlier)


def _add_company(is_outlier: NDArray[np.bool_], ratio: Points, loneliness: Points, points: Points) -> None:
    """Add outliers that looked less lonely only because other outliers were near, in place."""
    for _ in range(OUTLIER_ROUNDS):
        suspects = np.flatnonzero(~is_outlier & (ratio > SUSPECT_RATIO))
        kept = np.flatnonzero(~is_outlier)
        if not len(suspects) or not is_outlier.any() or len(kept) <= NEIGHBOURS:
            return
        tree = cKDTree(points[kept], balanced_tree=False)
        distance, index = tree.query(points[suspects], k=range(2, NEIGHBOURS + 2), workers=WORKERS)
        loneliness[suspects] = distance.mean(axis=1)
        ratio[suspects] = _ratio(loneliness[suspects], loneliness, kept[index])
        found = suspects[ratio[suspects] > OUTLIER_RATIO]
        is_outlier[found] = True
        if not len(found):
            return


def _ratio(own: Points, all_points: Points, index: NDArray[np.integer[Any]]) -> Points:
    """Return how much lonelier points are than the closest-lying quarter of their neighbours."""
    around = np.sort(all_points[index], axis=1)
    ratio: Points = own / np.maximum(around[:, around.shape[1] // 4], 1e-30)
    return ratio


def surface_normals(cloud: Cloud, near: Neighbours) -> Points:
    """Return the cloud's unit normals, (n, 3), pointing out of the surface.

    Where the cloud is still thick with noise, a normal is the mean of those around it.
    """
    planes = fit_planes(cloud.points, near)
    normals = oriented(planes.normals, cloud.outward, near)
    noisy = np.flatnonzero(planes.variation > NOISY)
    if len(noisy) < NOISY_SHARE * len(normals):
        return normals
    for _ in range(NORMAL_PASSES):
        mean = normals[near.index[noisy]].sum(axis=1) + normals[noisy]
        normals[noisy] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return normals
