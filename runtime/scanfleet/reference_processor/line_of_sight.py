"""Where a scan was taken from, and the space that its rays prove to be empty.

A sensor that turns by equal angles puts K cos(a) / r^2 points on a unit of surface, r away and tilted by a.
The density of the points therefore tells the place of the sensor, if the scan was not thinned or merged; a
place is only believed if the scan hides nothing of itself from there. Between the sensor and the points is
nothing: another scan's surface in that space proves a transform wrong, where surfaces alone (bare walls of
two different rooms) would fit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from scanfleet.reference_processor.downsample import Indices, Points, Surface

STARTS = 1_500
DESCENTS = 14
# Mean misfit of the logarithm of the density: below it the scan follows the law of one sensor.
GOOD_MISFIT = 0.36
# A thinned cloud is evenly dense, and some far place always explains that: a sensor has to explain more.
BETTER_THAN_EVEN = 0.6
# The delivered origin needs less proof, for many formats put it at the sensor.
ORIGIN_MISFIT = 0.7
MOST_HIDDEN = 0.1


@dataclass(frozen=True)
class Viewpoint:
    """A sensor's place and what it saw: `ranges` (6, g, g), distance to the nearest point in each direction.

    The directions are the cells of a cube's six faces; infinite where nothing was seen. `cell`: angle of one.
    """

    place: Points
    ranges: Points
    cell: float

    def intrudes(self, points: Points) -> NDArray[np.bool_]:
        """Return for each of (n, 3) points whether it lies in space that this sensor saw through.

        Conservative: all nine directions around must have been seen, and seen clearly farther away.
        """
        face, row, column, distance = _cells(points - self.place, self.ranges.shape[1])
        nearest = np.full(len(points), np.inf)
        seen = np.ones(len(points), bool)
        last = self.ranges.shape[1] - 1
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                r = self.ranges[face, np.clip(row + i, 0, last), np.clip(column + j, 0, last)]
                seen &= np.isfinite(r)
                nearest = np.minimum(nearest, r)
        result: NDArray[np.bool_] = seen & (distance < nearest * 0.97 - 2.0)
        return result


def find_viewpoint(
    surface: Surface, raw: Points, *, delivered_origin: Points, seed: int, samples: int = 300
) -> Viewpoint | None:
    """Return the viewpoint of a scan, or None where the points do not tell.

    `surface`: the thinned scan; `raw`: all its points; `delivered_origin` (3,): the origin of its file. All
    in the registration's units.
    """
    if len(raw) < 500:
        return None
    rng = np.random.default_rng(seed)
    law = _density_law(surface, raw, rng, samples)
    low, high = surface.points.min(axis=0), surface.points.max(axis=0)
    extent = float((high - low).max())
    near_origin = np.linalg.norm(delivered_origin - (low + high) / 2) < 1.5 * extent
    origin_misfit = law.misfit(delivered_origin) if near_origin else np.inf
    best, best_misfit = _descend(law, low, high, rng)
    candidates = []
    if origin_misfit < ORIGIN_MISFIT and origin_misfit < best_misfit + 0.15:
        candidates.append(delivered_origin)
    if best_misfit < GOOD_MISFIT and best_misfit < BETTER_THAN_EVEN * law.even_misfit():
        candidates.append(best)
    views = [_view(surface, place) for place in candidates]
    return next((view for view in views if hidden_fraction(view, surface) < MOST_HIDDEN), None)


def hidden_fraction(view: Viewpoint, surface: Surface) -> float:
    """Return the fraction of a scan's own points that others of it would have hidden from the sensor."""
    offset = surface.points - view.place
    face, row, column, distance = _cells(offset, view.ranges.shape[1])
    tilt = np.abs(np.einsum("ij,ij->i", offset, surface.normals)) / np.maximum(distance, 1e-9)
    slack = 2.0 + 0.03 * distance + 2 * view.cell * distance / np.maximum(tilt, 0.15)
    return float(np.mean(distance > view.ranges[face, row, column] + slack))


@dataclass(frozen=True)
class _DensityLaw:
    """Samples of a scan: places, normals, logarithm of the points per area."""

    points: Points
    normals: Points
    log_density: Points

    def misfit(self, place: Points) -> float:
        return float(self.misfits(np.asarray(place)[None])[0])

    def even_misfit(self) -> float:
        """Return the misfit of the law that knows no sensor: the same density everywhere."""
        excess = np.abs(self.log_density - np.median(self.log_density))
        return float(np.minimum(excess, 1.5).mean())

    def misfits(self, places: Points) -> Points:
        """Return the mean absolute deviation, cut at 1.5, from the law of a sensor at each of `places`."""
        offset = places[:, None, :] - self.points
        distance = np.sqrt((offset**2).sum(axis=2)) + 1e-9
        towards = np.abs(np.einsum("pni,ni->pn", offset, self.normals))
        excess = self.log_density - np.log(towards + 1e-3 * distance) + 3 * np.log(distance)
        excess = excess - np.median(excess, axis=1, keepdims=True)
        result: Points = np.minimum(np.abs(excess), 1.5).mean(axis=1)
        return result


def _descend(law: _DensityLaw, low: Points, high: Points, rng: np.random.Generator) -> tuple[Points, float]:
    """Return the place of least misfit and the misfit, from many starts inside and around the scan's box."""
    extent = float((high - low).max())
    starts = np.concatenate(
        [
            rng.uniform(low - 0.2 * extent, high + 0.2 * extent, (STARTS, 3)),
            (low + high) / 2 + rng.normal(size=(STARTS // 5, 3)) * 1.5 * extent,
        ]
    )
    order = np.argsort(law.misfits(starts), kind="stable")
    # Starts that lie together fall into the same hollow: of the best, take ones that lie apart.
    chosen: list[int] = []
    for k in order[: STARTS // 4]:
        if all(np.linalg.norm(starts[k] - starts[c]) > 0.07 * extent for c in chosen):
            chosen.append(int(k))
        if len(chosen) == DESCENTS:
            break
    options = {"maxiter": 120, "xatol": 0.05, "fatol": 1e-4}
    found = [minimize(law.misfit, starts[k], method="Nelder-Mead", options=options) for k in chosen]
    best = min(found, key=lambda f: float(f.fun))
    return np.asarray(best.x), float(best.fun)


def _density_law(
    surface: Surface, raw: Points, rng: np.random.Generator, samples: int, k: int = 16
) -> _DensityLaw:
    index = rng.choice(len(raw), min(samples, len(raw)), replace=False)
    points = raw[index]
    radius = cKDTree(raw).query(points, k=[k + 1], workers=2)[0][:, 0]
    near = surface.tree.query(points, workers=2)[1]
    return _DensityLaw(points, surface.normals[near], -2 * np.log(np.maximum(radius, 1e-9)))


def _view(surface: Surface, place: Points) -> Viewpoint:
    distance = np.maximum(np.linalg.norm(surface.points - place, axis=1), 1e-9)
    cell = float(np.clip(1.5 * np.median(surface.spacing / distance), 0.005, 0.2))
    size = int(np.ceil(2 / cell))
    face, row, column, distance = _cells(surface.points - place, size)
    ranges = np.full((6, size, size), np.inf)
    np.minimum.at(ranges, (face, row, column), distance)
    return Viewpoint(place=place, ranges=ranges, cell=2 / size)


def _cells(offset: Points, size: int) -> tuple[Indices, Indices, Indices, Points]:
    """Return cube face, row and column of each direction, and its length."""
    axis = np.abs(offset).argmax(axis=1)
    each = np.arange(len(offset))
    main = offset[each, axis]
    scale = np.maximum(np.abs(main), 1e-12)
    row = (offset[each, (axis + 1) % 3] / scale + 1) / 2 * size
    column = (offset[each, (axis + 2) % 3] / scale + 1) / 2 * size
    last = size - 1
    return (
        axis * 2 + (main > 0),
        np.clip(row.astype(np.int64), 0, last),
        np.clip(column.astype(np.int64), 0, last),
        np.linalg.norm(offset, axis=1),
    )
