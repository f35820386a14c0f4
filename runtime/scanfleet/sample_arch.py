"""A made dental arch and what a virtual sensor sees of it: the surface behind `sample`.

The arch is a horseshoe swept by a cross-section (gum with a tooth on top), in millimetres. Fourteen teeth of
different widths, one missing, one high, one turned, and uneven gums: no part of it looks like another, so its
scans have one right alignment only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ALONG, ACROSS = 1500, 420
"""Grid of the surface: about 0.09 mm along the arch and 0.11 mm across."""

HALF_WIDTH_MM, DEPTH_MM = 26.0, 40.0
TOOTH_WIDTHS_MM = (10.2, 9.6, 7.0, 6.6, 7.7, 6.8, 8.8, 8.3, 6.4, 7.9, 7.2, 6.8, 10.0, 10.8)
TOOTH_HEIGHTS_MM = (15.0, 15.6, 16.2, 16.6, 18.4, 17.0, 18.0, 17.7, 16.7, 17.2, 9.0, 16.4, 15.4, 14.6)
"""Above the base; the eleventh tooth is missing: only gum is left."""
TOOTH_HALF_DEPTHS_MM = (5.4, 5.3, 4.4, 4.2, 3.8, 3.0, 3.3, 3.2, 3.0, 3.7, 3.5, 4.5, 5.2, 5.5)
TOOTH_SHIFTS_MM = (0.0, 0.3, -0.4, 0.2, 0.9, -0.5, 0.1, 0.4, -0.7, 0.5, 0.0, -0.3, 0.4, -0.2)
MOLARS = frozenset({0, 1, 2, 11, 12, 13})
GUM_HALF_WIDTH_MM, GUM_HEIGHT_MM = 7.5, 9.0


@dataclass(frozen=True)
class Arch:
    """The surface as a grid: `points` and unit `normals`, (ALONG, ACROSS, 3); `spine` (ALONG, 3) its middle.

    `cell_area` (ALONG - 1, ACROSS - 1) in mm2, for sampling evenly.
    """

    points: Array
    normals: Array
    spine: Array
    cell_area: Array


def make_arch() -> Arch:
    """Return the arch; the same every time. The occlusal plane is x-y, z points out of the jaw."""
    spine, outward = _spine()
    position = np.linspace(0.0, sum(TOOTH_WIDTHS_MM), ALONG)
    angle = np.linspace(0.02, np.pi - 0.02, ACROSS)
    lateral, height = _cross_sections(position, angle)
    points = spine[:, None, :] + outward[:, None, :] * lateral[..., None]
    points[..., 2] += height
    along = np.gradient(points, axis=0)
    across = np.gradient(points, axis=1)
    normals = np.cross(along, across)
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
    middle = slice(ACROSS // 2, ACROSS // 2 + 1)
    if normals[:, middle, 2].mean() < 0:
        normals = -normals
    edge_1, edge_2 = np.diff(points, axis=0)[:, :-1], np.diff(points, axis=1)[:-1]
    area = np.linalg.norm(np.cross(edge_1, edge_2), axis=2)
    return Arch(points=points, normals=normals, spine=spine, cell_area=area)


def _spine() -> tuple[Array, Array]:
    """Return the arch's middle line and its outward direction, both (ALONG, 3), evenly spaced by length.

    A parabola-like curve whose right side is a little wider than its left.
    """
    t = np.linspace(-1.0, 1.0, 4000)
    x = HALF_WIDTH_MM * np.sign(t) * np.abs(t) ** 0.8 * (1.0 + 0.05 * t)
    y = DEPTH_MM * (1.0 - np.abs(t) ** 2.4) + 1.5 * np.sin(2.3 * t)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    even = np.linspace(0.0, length[-1], ALONG)
    x, y = np.interp(even, length, x), np.interp(even, length, y)
    kernel = np.hanning(61) / np.hanning(61).sum()
    x, y = (np.convolve(np.pad(v, 30, mode="reflect", reflect_type="odd"), kernel, "valid") for v in (x, y))
    tangent = np.stack([np.gradient(x), np.gradient(y)], axis=1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    zero = np.zeros(ALONG)
    return np.stack([x, y, zero], axis=1), np.stack([-tangent[:, 1], tangent[:, 0], zero], axis=1)


def _cross_sections(position: Array, angle: Array) -> tuple[Array, Array]:
    """Return lateral offset and height in mm, (ALONG, ACROSS): the union of gum and tooth, softly joined."""
    cos, sin = np.abs(np.cos(angle))[None, :], np.sin(angle)[None, :]
    half_width, top, shift, cusps = (column[:, None] for column in _tooth_shape(position))
    wave = 1.0 + 0.05 * np.sin(0.31 * position + 0.4) + 0.03 * np.sin(0.83 * position + 1.9)
    gum = _superellipse(cos, sin, GUM_HALF_WIDTH_MM * wave[:, None], GUM_HEIGHT_MM / wave[:, None], 2.6)
    tooth = _superellipse(cos, sin, half_width, top, 3.2)
    tooth += cusps * np.cos(7.0 * (angle[None, :] - np.pi / 2)) * np.exp(-((cos / 0.32) ** 2))
    difference = gum - tooth
    radius = tooth + 0.5 * (difference + np.sqrt(difference**2 + 0.35**2))
    rugae = 0.10 * np.sin(1.9 * position[:, None] + 3.0 * angle[None, :]) * np.exp(-((sin / 0.75) ** 4))
    radius = radius + rugae
    sway = shift * np.clip(radius * sin / GUM_HEIGHT_MM - 0.6, 0.0, 1.0)
    return radius * np.cos(angle)[None, :] + sway, radius * sin


def _superellipse(cos: Array, sin: Array, half_width: Array, height: Array, power: float) -> Array:
    """Return the polar radius of a superellipse, by angle."""
    reached: Array = ((cos / half_width) ** power + (sin / height) ** power) ** (-1.0 / power)
    return reached


def _tooth_shape(position: Array) -> tuple[Array, Array, Array, Array]:
    """Return half depth, height, sideways shift and cusp height in mm at each position along the arch."""
    ends = np.cumsum(TOOTH_WIDTHS_MM)
    tooth = np.minimum(np.searchsorted(ends, position, side="right"), len(ends) - 1)
    width = np.asarray(TOOTH_WIDTHS_MM)[tooth]
    inside = 2.0 * (position - (ends[tooth] - width)) / width - 1.0
    crown = np.sqrt(np.clip(1.0 - np.abs(inside) ** 5, 0.0, 1.0))
    height = np.asarray(TOOTH_HEIGHTS_MM)[tooth]
    top = GUM_HEIGHT_MM - 1.5 + (height - GUM_HEIGHT_MM + 1.5) * (0.25 + 0.75 * crown)
    half = np.asarray(TOOTH_HALF_DEPTHS_MM)[tooth] * (0.62 + 0.38 * crown)
    shift = np.asarray(TOOTH_SHIFTS_MM)[tooth] * crown
    is_molar = np.isin(tooth, list(MOLARS))
    cusps = np.where(is_molar, 0.9, 0.12) * crown * (0.6 + 0.4 * np.cos(2.2 * np.pi * inside + tooth))
    kernel = np.hanning(15) / np.hanning(15).sum()
    smooth = (np.convolve(np.pad(v, 7, mode="edge"), kernel, "valid") for v in (half, top, shift, cusps))
    half, top, shift, cusps = smooth
    return half, top, shift, cusps


@dataclass(frozen=True)
class Sensor:
    """A virtual sensor. `pose` (4, 4): sensor frame (z forward, mm) to the arch's frame; `aim` (3,) mm."""

    pose: Array
    aim: Array
    view_radius_mm: float


def place_sensors(arch: Arch, count: int, rng: np.random.Generator) -> list[Sensor]:
    """Return `count` sensors along the arch, each tilted another way and rolled at random.

    Neighbours share about half of what they see; the first and the last share nothing.
    """
    stops = np.linspace(0.09, 0.91, count)
    # Six sensors over 125 mm lie 20 mm apart; a radius of 1.75 distances keeps about half in common.
    radius = max(24.0, 1.75 * sum(TOOTH_WIDTHS_MM) * 0.82 / max(count - 1, 1))
    sensors = []
    for i, stop in enumerate(stops):
        k = round(stop * (ALONG - 1))
        aim = arch.spine[k] + np.array([0.0, 0.0, 11.0])
        aim[:2] += rng.normal(scale=1.0, size=2)
        outward = np.cross(np.append(np.gradient(arch.spine[:, :2], axis=0)[k], 0.0), [0.0, 0.0, -1.0])
        outward /= np.linalg.norm(outward)
        tilt = np.deg2rad(rng.uniform(8.0, 24.0)) * (1.0 if i % 2 else -1.0)
        towards = np.cos(tilt) * np.array([0.0, 0.0, 1.0]) + np.sin(tilt) * outward
        towards += rng.normal(scale=0.05, size=3)
        # The first sensor is held upright, so that a result in its frame is seen upright, too.
        up = np.array([0.0, 1.0, 0.0]) if i == 0 else rng.normal(size=3)
        sensors.append(Sensor(_look_at(aim, towards, up, rng), aim, radius))
    return sensors


def _look_at(aim: Array, towards: Array, up: Array, rng: np.random.Generator) -> Array:
    """Return a sensor's pose: about 110 mm from `aim`, in direction `towards`, held as `up` says."""
    forward = -towards / np.linalg.norm(towards)
    side = np.cross(forward, up)
    side /= np.linalg.norm(side)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([side, np.cross(forward, side), forward], axis=1)
    pose[:3, 3] = aim - forward * rng.uniform(95.0, 125.0)
    return pose


def see(arch: Arch, sensor: Sensor, *, points: int, rng: np.random.Generator) -> Array:
    """Return at most `points` surface points that the sensor sees, (n, 3) in its frame, without noise.

    Seen is what lies in the view, faces the sensor (within 78 degrees) and is not behind something nearer.
    """
    rotation, origin = sensor.pose[:3, :3], sensor.pose[:3, 3]
    near = np.linalg.norm(arch.points - sensor.aim, axis=2) < sensor.view_radius_mm
    ray = origin - arch.points
    facing = np.einsum("ijk,ijk->ij", ray, arch.normals) > np.cos(np.deg2rad(78)) * np.linalg.norm(
        ray, axis=2
    )
    candidates = np.flatnonzero((near & facing)[:-1, :-1])
    if candidates.size == 0:
        return np.zeros((0, 3))
    chance = arch.cell_area.ravel()[candidates]
    drawn = rng.choice(candidates, size=int(points * 1.6), p=chance / chance.sum())
    seen = (_within_cells(arch, drawn, rng) - origin) @ rotation
    in_front = (arch.points.reshape(-1, 3)[::2] - origin) @ rotation
    visible = seen[~_is_hidden(seen, in_front)]
    return visible[:points]


def _within_cells(arch: Arch, cells: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Return a random point in each of the grid cells, by bilinear interpolation."""
    i, j = np.divmod(cells, ACROSS - 1)
    u, v = rng.random((2, cells.size, 1))
    grid = arch.points
    near = grid[i, j] * (1 - v) + grid[i, j + 1] * v
    far = grid[i + 1, j] * (1 - v) + grid[i + 1, j + 1] * v
    result: Array = near * (1 - u) + far * u
    return result


def _is_hidden(
    points: Array, surface: Array, *, pixel: float = 0.0035, tolerance_mm: float = 0.8
) -> NDArray[np.bool_]:
    """Say for each point whether `surface` has something nearer in its pixel; both in the sensor's frame.

    `pixel` is the tangent of a pixel's angle: 0.38 mm at 110 mm, so that the surface's grid leaves no holes.
    """
    size = 512

    def pixels(p: Array) -> NDArray[np.int64]:
        cells = np.floor(p[:, :2] / p[:, 2:] / pixel).astype(np.int64) + size // 2
        cells = np.clip(cells, 0, size - 1)
        result: NDArray[np.int64] = cells[:, 0] * size + cells[:, 1]
        return result

    depth = np.full(size * size, np.inf)
    np.minimum.at(depth, pixels(surface), surface[:, 2])
    hidden: NDArray[np.bool_] = points[:, 2] > depth[pixels(points)] + tolerance_mm
    return hidden
