"""The lengths that every other number of the registration is a multiple of, measured on the scans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanfleet.reference_processor.downsample import voxel_means

Points = NDArray[np.float64]

# Voxels of the finer grid that a scan may fill: bounds memory and seconds, whatever the scan's size.
FINE_POINTS = 20_000
# Voxels of the coarser grid, on which features are described and matched.
COARSE_POINTS = 4_000


@dataclass(frozen=True)
class Scale:
    """Lengths in scan units.

    `resolution`: distance between neighbouring points, of the coarsest ordinary scan.
    `fine`: voxel edge of the grid that poses are refined and checked on.
    `coarse`: voxel edge of the grid that features are matched on; the unit of length inside the registration.
    """

    resolution: float
    fine: float
    coarse: float


def local_origin(points: Points) -> Points:
    """Return the (3,) centre of a scan's bounding box.

    Far from the origin (UTM northings are 6e6) a rotation matrix's last digits move points by micrometres,
    and 32-bit or 21-bit cell indices overflow; around its own centre no scan has either problem.
    """
    centre: Points = (points.min(axis=0) + points.max(axis=0)) / 2
    return centre


def point_spacing(points: Points, *, rng: np.random.Generator, samples: int = 1500, k: int = 10) -> float:
    """Return the edge of the square that one point of the surface has to itself, the median over `samples`.

    From the distance r to the k-th neighbour, as if k points shared the disc: r * sqrt(pi / k). Neighbour 1
    alone would call a lidar fine because it is fine along a ring, and would be 0 where points are doubled.
    Returns 0.0 when all points coincide.
    """
    centred = points - local_origin(points)
    if len(centred) > 400_000:
        centred = centred[rng.choice(len(centred), 400_000, replace=False)]
    k = min(k, len(centred) - 1)
    if k < 1:
        return 0.0
    probe = centred[rng.choice(len(centred), min(samples, len(centred)), replace=False)]
    distance = cKDTree(centred).query(probe, k=[k + 1], workers=2)[0]
    thinning = np.sqrt(len(centred) / len(points))
    return float(np.median(distance) * np.sqrt(np.pi / k) * thinning)


def common_scale(scans: Sequence[Points], *, seed: int) -> Scale:
    """Return the lengths that suit all of `scans`.

    The fine voxel follows the coarsest scan (a dense scan can be thinned, a thin one not be filled), the
    coarse voxel gives the scans about COARSE_POINTS voxels each in the median.
    """
    rng = np.random.default_rng(seed)
    spacings = np.array([point_spacing(points, rng=rng) for points in scans])
    extent = max(float(np.ptp(points, axis=0).max()) for points in scans)
    typical = float(np.median(spacings[spacings > 0])) if (spacings > 0).any() else 0.0
    resolution = min(float(spacings.max()), 4 * typical) or extent * 1e-3 or 1.0
    fine = 1.5 * resolution
    thinned = [points - local_origin(points) for points in scans]
    for _ in range(3):
        thinned = [voxel_means(points, fine)[0] for points in thinned]
        excess = max(len(points) for points in thinned) / FINE_POINTS
        if excess <= 1.05:
            break
        fine *= float(np.sqrt(excess))
    coarse = _coarse_voxel(thinned, start=2 * fine)
    return Scale(resolution=resolution, fine=min(fine, coarse / 1.5), coarse=coarse)


def _coarse_voxel(scans: Sequence[Points], *, start: float) -> float:
    """Return the voxel edge that gives the median scan about COARSE_POINTS voxels, at least `start`."""
    voxel = start
    for _ in range(4):
        counts = [len(voxel_means(points, voxel)[0]) for points in scans]
        ratio = float(np.median(counts)) / COARSE_POINTS
        if abs(np.log(ratio)) < 0.15:
            break
        voxel = max(voxel * float(np.sqrt(ratio)), start)
    return voxel
