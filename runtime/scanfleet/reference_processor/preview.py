"""Pictures of a point cloud: every point a small disc, shaded, the nearest in front.

No graphics library: a depth buffer in numpy, about a fifth of a second a picture.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Points = NDArray[np.float64]
Picture = NDArray[np.float32]

WIDTH, HEIGHT = 800, 600
SCALE = 2
"""Drawn this much larger and then averaged down: smooth edges."""
MAX_DRAWN = 400_000
MAX_RADIUS = 6
MARGIN = 0.06
CLAY = np.array([0.86, 0.80, 0.72], dtype=np.float32)
BACKGROUND_TOP = np.array([0.955, 0.96, 0.97], dtype=np.float32)
BACKGROUND_BOTTOM = np.array([0.80, 0.82, 0.85], dtype=np.float32)
PALETTE = np.array(
    [
        [0.90, 0.55, 0.35],
        [0.35, 0.62, 0.80],
        [0.55, 0.75, 0.45],
        [0.80, 0.55, 0.78],
        [0.92, 0.78, 0.40],
        [0.45, 0.72, 0.70],
        [0.85, 0.47, 0.52],
        [0.62, 0.60, 0.85],
        [0.72, 0.62, 0.50],
        [0.60, 0.70, 0.82],
        [0.78, 0.80, 0.55],
        [0.66, 0.52, 0.60],
    ],
    dtype=np.float32,
)
"""Colours of the scans in the picture that tells them apart."""


@dataclass(frozen=True)
class View:
    """A direction to look from: rows of `axes` (3, 3) are right, up and towards the viewer."""

    name: str
    axes: Points


@dataclass(frozen=True)
class Drawable:
    """What is drawn: `points`, unit `normals` and `colours` (n, 3), `spacing` (n,) to neighbours."""

    points: Points
    normals: Points
    spacing: Points
    colours: Picture


def drawable(
    points: Points, normals: Points, spacing: Points, *, scan: NDArray[np.int32] | None = None
) -> Drawable:
    """Return what to draw, at most MAX_DRAWN points; coloured by `scan` (n,) if given, else like clay."""
    chosen = np.arange(len(points))
    wider = 1.0
    if len(points) > MAX_DRAWN:
        chosen = np.sort(np.random.default_rng(0).choice(len(points), MAX_DRAWN, replace=False))
        wider = float(np.sqrt(len(points) / MAX_DRAWN))
    if scan is None:
        colours = np.broadcast_to(CLAY, (len(chosen), 3))
    else:
        colours = PALETTE[scan[chosen] % len(PALETTE)]
    return Drawable(points[chosen], normals[chosen], spacing[chosen] * wider, np.asarray(colours, np.float32))


def three_views(points: Points, normals: Points) -> tuple[View, View, View]:
    """Return views from the front, the left and above.

    In a camera's frame (z forward, y down) the front is what the camera saw. Else it is where most of the
    surface
    looks to, because scans show the side that a scanner saw, or the flattest side; the widest direction lies
    across the picture.
    """
    front = _camera_axes(points, normals)
    if front is None:
        front = _axes_by_shape(points, normals)
        if abs(front[2, 2]) > 0.8:  # ground seen from above
            return (
                View("front", _turned(front, yaw=0.0, pitch=-55.0)),
                View("left", _turned(_rolled(front, 70.0), yaw=0.0, pitch=-55.0)),
                View("top", front),
            )
    return (
        View("front", front),
        View("left", _turned(front, yaw=-50.0, pitch=22.0)),
        View("top", _turned(front, yaw=20.0, pitch=58.0)),
    )


def _rolled(axes: Points, degrees: float) -> Points:
    """Return the axes of a viewer who tilted the head to the left."""
    a = np.deg2rad(degrees)
    right, up, towards = axes
    return np.stack([np.cos(a) * right + np.sin(a) * up, np.cos(a) * up - np.sin(a) * right, towards])


def _camera_axes(points: Points, normals: Points) -> Points | None:
    """Return the axes of the camera at the origin if the frame is a camera's, else None."""
    is_ahead = (
        np.quantile(points[:, 2], 0.01) > 0 and np.quantile(points[:, 2], 0.5) > np.ptp(points[:, 0]) / 4
    )
    looks_back = float(normals[:, 2].mean()) < -0.25
    return np.diag([1.0, -1.0, -1.0]) if is_ahead and looks_back else None


def _axes_by_shape(points: Points, normals: Points) -> Points:
    mean = normals.mean(axis=0)
    centred = points - np.median(points, axis=0)
    axes = np.linalg.svd(np.cov(centred.T))[0].T
    towards = mean / np.linalg.norm(mean) if np.linalg.norm(mean) > 0.2 else axes[2]
    right = axes[0] - towards * (axes[0] @ towards)
    if np.linalg.norm(right) < 0.3:
        right = axes[1] - towards * (axes[1] @ towards)
    right /= np.linalg.norm(right)
    up = np.cross(towards, right)
    if up @ np.array([0.0, 0.35, 1.0]) < 0:  # survey and CAD frames have z up, or else y
        right, up = -right, -up
    return np.stack([right, up, towards])


def _turned(axes: Points, *, yaw: float, pitch: float) -> Points:
    """Return the axes of a viewer who went `yaw` degrees to the right and `pitch` degrees up."""
    a, b = np.deg2rad(yaw), np.deg2rad(pitch)
    right, up, towards = axes
    right, towards = np.cos(a) * right - np.sin(a) * towards, np.cos(a) * towards + np.sin(a) * right
    up, towards = np.cos(b) * up - np.sin(b) * towards, np.cos(b) * towards + np.sin(b) * up
    return np.stack([right, up, towards])


def write_preview(path: Path, what: Drawable, view: View, *, caption: str) -> None:
    """Write the picture of `what` seen from `view`, WIDTH x HEIGHT, as PNG, with a line of text."""
    picture = _render(what, view)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).reduce(SCALE)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=17)
    printable = caption.encode("ascii", "replace").decode("ascii")
    draw.text((20, HEIGHT - 34), printable, fill=(70, 76, 84), font=font)
    image.save(path, compress_level=4)


def _render(what: Drawable, view: View) -> Picture:
    width, height = WIDTH * SCALE, HEIGHT * SCALE
    local = (what.points - np.median(what.points, axis=0)) @ view.axes.T
    x, y, depth, per_pixel = _fitted(local, width, height)
    radius = np.clip(what.spacing * per_pixel * 0.85, 0.6, MAX_RADIUS)
    nearest, distance = _splat(x, y, depth, radius, width=width, height=height)
    picture = _background(width, height)
    drawn = nearest >= 0
    # Lit point by point: there are fewer of them than pixels.
    lit = what.colours * _shade(what.normals @ view.axes.T)[:, None]
    light = _occlusion(distance, float(np.ptp(depth)))
    picture[drawn] = lit.take(nearest[drawn], axis=0) * light[drawn][:, None]
    return picture


def _fitted(local: Points, width: int, height: int) -> tuple[Points, Points, Points, float]:
    """Return pixel positions, depth (larger is nearer, in pixels) and pixels per unit.

    The picture is fitted to all but the outermost thousandth of the points on each side.
    """
    low, high = np.quantile(local, [0.001, 0.999], axis=0)
    size = np.maximum(high - low, 1e-12)
    per_pixel = float(min(width * (1 - 2 * MARGIN) / size[0], height * (1 - 2.4 * MARGIN) / size[1]))
    middle = (low + high) / 2
    x = (local[:, 0] - middle[0]) * per_pixel + width / 2
    y = height * 0.49 - (local[:, 1] - middle[1]) * per_pixel
    return x, y, local[:, 2] * per_pixel, per_pixel


def _splat(
    x: Points, y: Points, depth: Points, radius: Points, *, width: int, height: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return for each pixel the index of the nearest point (-1 where there is none) and its depth (-inf)."""
    buffer = np.full(width * height, -np.inf, dtype=np.float32)
    nearest = np.full(width * height, -1, dtype=np.int32)
    column, row = np.round(x).astype(np.int32), np.round(y).astype(np.int32)
    size = np.ceil(radius - 0.4).astype(np.int32)
    # From back to front: of several points in a pixel, numpy keeps what is assigned last.
    order = np.argsort(depth, kind="stable").astype(np.int32)
    for wanted in np.unique(size):
        members = order[size[order] == wanted]
        c, r, d = column[members], row[members], depth[members].astype(np.float32)
        for dx in range(-wanted, wanted + 1):
            for dy in range(-wanted, wanted + 1):
                if dx * dx + dy * dy > (wanted + 0.3) ** 2:
                    continue
                cx, cy = c + dx, r + dy
                inside = (cx >= 0) & (cx < width) & (cy >= 0) & (cy < height)
                pixel = cy * width + cx
                pixel = np.where(inside, pixel, 0)
                # A disc's rim lies a little behind its middle, so that discs meet instead of overlapping.
                near = d - 0.15 * (dx * dx + dy * dy) / max(wanted, 1)
                wins = inside & (near > buffer[pixel])
                buffer[pixel[wins]] = near[wins]
                nearest[pixel[wins]] = members[wins]
    return nearest.reshape(height, width), buffer.reshape(height, width)


def _shade(normals: Points) -> Picture:
    """Return the brightness of surfaces with these normals in the viewer's frame, lit from the upper left."""
    facing = normals * np.where(normals[:, 2:] < 0, -1.0, 1.0)
    key = np.array([-0.45, 0.60, 0.66])
    fill = np.array([0.70, 0.10, 0.70])
    # Half of the light wraps around: surfaces seen at a slant stay readable.
    key_light = (0.5 + 0.5 * (facing @ (key / np.linalg.norm(key)))) ** 1.6
    fill_light = np.clip(facing @ (fill / np.linalg.norm(fill)), 0, 1)
    brightness: Picture = (0.18 + 0.72 * key_light + 0.16 * fill_light + 0.06 * key_light**20).astype(
        np.float32
    )
    return brightness


def _occlusion(depth: NDArray[np.float32], range_pixels: float) -> Picture:
    """Return how much light reaches each pixel: less where the pixels around it are nearer.

    Source: Boucheny, "Visualisation scientifique de grands volumes de donnees", 2009 (eye-dome lighting).
    """
    filled = depth[::2, ::2]
    shadow = np.zeros(filled.shape, dtype=np.float32)
    scale = np.float32(max(range_pixels, 1.0) * 0.02)
    for reach, weight in ((1, 0.5), (3, 0.3), (7, 0.2)):
        for dy, dx in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
            other = np.roll(filled, (dy, dx), axis=(0, 1))
            with np.errstate(invalid="ignore"):
                higher = np.nan_to_num(other - filled, nan=0.0, posinf=0.0, neginf=0.0)
            shadow += weight * np.clip(higher / (2 * scale * reach), 0, 1) / 4
    light: Picture = np.exp(-1.1 * shadow).astype(np.float32)
    return light.repeat(2, axis=0).repeat(2, axis=1)


def _background(width: int, height: int) -> Picture:
    t = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    rows = BACKGROUND_TOP * (1 - t) + BACKGROUND_BOTTOM * t
    return np.broadcast_to(rows, (height, width, 3)).copy()
