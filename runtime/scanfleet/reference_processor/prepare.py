"""Scans made ready for registration: centred, in units of the coarse voxel, thinned, described."""

from dataclasses import dataclass

import numpy as np

from scanfleet.reference_processor.downsample import (
    GicpCloud,
    Points,
    Surface,
    crowded,
    gicp_cloud,
    roughness,
    surface,
    towards,
    voxel_means,
)
from scanfleet.reference_processor.features import Described, describe
from scanfleet.reference_processor.line_of_sight import Viewpoint, find_viewpoint
from scanfleet.reference_processor.scale import Scale, local_origin
from scanfleet.reference_processor.scan import Scan

FEATURE_RADIUS = 5.0
KEY_POINTS = 2_500


@dataclass(frozen=True)
class Prepared:
    """One scan inside the registration; lengths are coarse voxels, positions relative to `origin`.

    `origin` (3,) in scan units; `fine_voxel` edge of the fine grid; `levels` clouds for GICP: coarse,
    middle (geometric mean), fine; `roughness` of the fine surface; `viewpoint`: where it was seen from.
    """

    origin: Points
    fine_voxel: float
    roughness: float
    viewpoint: Viewpoint | None
    coarse: Surface
    fine: Surface
    described: Described
    levels: tuple[GicpCloud, ...]


def prepare(scan: Scan, scale: Scale, *, seed: int = 0) -> Prepared:
    """Return `scan` at the two grid sizes of `scale`."""
    origin = local_origin(scan.points)
    points = (scan.points - origin) / scale.coarse
    fine_voxel = scale.fine / scale.coarse
    fine_points, owner = voxel_means(points, fine_voxel)
    given = None if scan.normals is None else _mean_directions(scan.normals, owner, len(fine_points))
    kept = crowded(fine_points)
    fine_points, given = fine_points[kept], None if given is None else given[kept]
    coarse_points, coarse_owner = voxel_means(fine_points, 1.0)
    coarse_given = None if given is None else _mean_directions(given, coarse_owner, len(coarse_points))
    middle_points, _ = voxel_means(fine_points, float(np.sqrt(fine_voxel)))
    fine = surface(fine_points, support=None, radius=4 * fine_voxel, given=given, voxel=fine_voxel)
    coarse = surface(coarse_points, support=fine.tree, radius=2.0, given=coarse_given, voxel=1.0)
    viewpoint = find_viewpoint(fine, points, delivered_origin=-origin / scale.coarse, seed=seed)
    if viewpoint is not None:
        fine, coarse = towards(fine, viewpoint.place), towards(coarse, viewpoint.place)
    return Prepared(
        origin=origin,
        roughness=roughness(fine),
        viewpoint=viewpoint,
        fine_voxel=fine_voxel,
        coarse=coarse,
        fine=fine,
        described=describe(coarse, radius=FEATURE_RADIUS, limit=KEY_POINTS),
        levels=(gicp_cloud(coarse_points), gicp_cloud(middle_points), gicp_cloud(fine_points)),
    )


def _mean_directions(directions: Points, owner: np.ndarray, count: int) -> Points:
    sums = [np.bincount(owner, weights=directions[:, axis], minlength=count) for axis in range(3)]
    mean = np.stack(sums, axis=1)
    result: Points = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return result
