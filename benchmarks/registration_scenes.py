"""Made scenes with known truth, seen by virtual sensors: occlusion, noise, partial overlap as scanners have.

Two kinds: boxes, spheres and cylinders hit by rays (rooms, streets), and bumpy surfaces given by very many
points of which a depth buffer keeps the visible ones (statue, dental arch). Every scan is delivered in a
frame of its own; `truth[i]` maps scan i back into the world.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.scan import Scan

Points = NDArray[np.float64]


@dataclass(frozen=True)
class ScanSet:
    """Scans with their truth: `truth` (n, 4, 4) scan to world; `groups`: which scans belong together."""

    name: str
    scans: list[Scan]
    truth: Points
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Solids:
    """What rays hit: `boxes` (b, 2, 3) corners, `balls` (s, 4), `posts` (c, 5): x, y, r, z from, z to."""

    boxes: Points
    balls: Points
    posts: Points


def random_rotation(rng: np.random.Generator) -> Points:
    """Return a rotation drawn evenly from all rotations."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def axis_rotation(axis: int, angle: float) -> Points:
    """Return the rotation by `angle` radians about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    r = np.eye(3)
    r[i, i], r[j, j], r[i, j], r[j, i] = c, c, -s, s
    return r


def cast(solids: Solids, origin: Points, directions: Points) -> Points:
    """Return the distance to the first hit of each ray, (n,), infinite where nothing is hit."""
    best = np.full(len(directions), np.inf)
    inverse = 1.0 / np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    for low, high in solids.boxes:
        one, two = (low - origin) * inverse, (high - origin) * inverse
        enter, leave = np.minimum(one, two).max(axis=1), np.maximum(one, two).min(axis=1)
        # From inside a box (a room's walls) the far side is what is seen.
        hit = np.where(enter > 1e-9, enter, leave)
        best = np.where((leave >= enter) & (leave > 1e-9), np.minimum(best, hit), best)
    for *centre, radius in solids.balls:
        m = origin - np.array(centre)
        b = directions @ m
        root = b**2 - (m @ m - radius**2)
        near = -b - np.sqrt(np.maximum(root, 0))
        best = np.where((root > 0) & (near > 1e-9), np.minimum(best, near), best)
    for x, y, radius, low_z, high_z in solids.posts:
        m, d = origin[:2] - np.array([x, y]), directions[:, :2]
        a, b = np.maximum((d**2).sum(axis=1), 1e-12), d @ m
        root = b**2 - a * (m @ m - radius**2)
        near = (-b - np.sqrt(np.maximum(root, 0))) / a
        z = origin[2] + near * directions[:, 2]
        best = np.where((root > 0) & (near > 1e-9) & (z > low_z) & (z < high_z), np.minimum(best, near), best)
    return best


def panorama(rng: np.random.Generator, *, columns: int, rows: int, low: float, high: float) -> Points:
    """Return unit ray directions of a turning scanner, elevation `low` to `high` degrees."""
    azimuth = np.linspace(0, 2 * np.pi, columns, endpoint=False) + rng.uniform(0, 2 * np.pi)
    elevation = np.deg2rad(np.linspace(low, high, rows))
    a, e = np.meshgrid(azimuth, elevation)
    return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1).reshape(-1, 3)


def camera(target: Points, origin: Points, *, width: int, height: int, field: float) -> Points:
    """Return unit ray directions of a camera at `origin` that looks at `target`, `field` degrees wide."""
    forward = (target - origin) / np.linalg.norm(target - origin)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    half = np.tan(np.deg2rad(field) / 2)
    u, v = np.meshgrid(np.linspace(-half, half, width), np.linspace(-half, half, height) * height / width)
    rays = forward + u[..., None] * right + v[..., None] * up
    flat = rays.reshape(-1, 3)
    rays_out: Points = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return rays_out


def room(rng: np.random.Generator) -> Solids:
    """Return a room of some metres with a doorway's niche and furniture."""
    size = np.array([rng.uniform(4, 7), rng.uniform(3, 5), 2.6])
    boxes: list[Any] = [[[0, 0, 0], size]]
    for _ in range(9):
        extent = rng.uniform([0.3, 0.3, 0.4], [1.4, 0.8, 1.9])
        low = np.append(rng.uniform([0, 0], size[:2] - extent[:2]), 0)
        boxes.append([low, low + extent])
    for _ in range(6):
        low = rng.uniform([0, 0, 0.8], size - [0.6, 0.1, 0.6])
        boxes.append([low, low + rng.uniform([0.2, 0.05, 0.2], [0.6, 0.1, 0.6])])
    balls = np.column_stack([rng.uniform([0.5, 0.5, 0.3], size - 0.5, (3, 3)), rng.uniform(0.1, 0.3, 3)])
    posts = np.array([[*rng.uniform([0.3, 0.3], size[:2] - 0.3), 0.05, 0, 2.0] for _ in range(3)])
    return Solids(np.array(boxes, float), balls, posts)


def street(rng: np.random.Generator) -> Solids:
    """Return 120 m of street: house fronts with steps and bays, cars, poles, trees."""
    boxes: list[Any] = [[[-200, -200, -1], [200, 200, 0]]]
    for side in (-1, 1):
        x = -70.0
        while x < 70:
            width, depth = rng.uniform(6, 18), side * rng.uniform(8, 11)
            height = rng.uniform(5, 18)
            boxes.append([[x, min(depth, side * 25), 0], [x + width, max(depth, side * 25), height]])
            for _ in range(4):
                bay = x + rng.uniform(0, max(width - 2, 0.5))
                z = rng.uniform(0, height - 2)
                face = [depth - side * rng.uniform(0.2, 0.8), depth]
                boxes.append(
                    [[bay, min(face), z], [bay + rng.uniform(0.8, 2), max(face), z + rng.uniform(1, 2.5)]]
                )
            x += width + (rng.uniform(2, 6) if rng.random() < 0.3 else 0)
        for _ in range(10):
            x = rng.uniform(-65, 65)
            y = side * rng.uniform(4.2, 5.5)
            boxes.append([[x, y - 0.9, 0.2], [x + rng.uniform(3.6, 4.8), y + 0.9, 0.9]])
            boxes.append([[x + 1, y - 0.8, 0.9], [x + 3, y + 0.8, 1.5]])
    posts = np.array(
        [[rng.uniform(-65, 65), rng.choice([-7, 7]) + rng.normal(0, 0.2), 0.12, 0, 6] for _ in range(16)]
    )
    balls = np.array([[p[0], p[1], 6, rng.uniform(1, 2)] for p in posts[::2]])
    return Solids(np.array(boxes, float), balls, posts)


def scan_from(
    solids: Solids, origin: Points, rays: Points, rng: np.random.Generator, *, noise: float, reach: float
) -> Points:
    """Return the world points that a sensor at `origin` sees within `reach`, with range noise."""
    distance = cast(solids, origin, rays)
    seen = distance < reach
    distance = distance[seen] + rng.normal(0, noise, int(seen.sum()))
    points: Points = origin + rays[seen] * distance[:, None]
    return points


def bumpy_ball(rng: np.random.Generator, *, count: int = 400_000, bumps: int = 60) -> tuple[Points, Points]:
    """Return points and normals of a statue-like closed surface about 1 in size."""
    centres = rng.normal(size=(bumps, 3))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    widths, heights = rng.uniform(0.08, 0.45, bumps), rng.uniform(-0.08, 0.14, bumps)

    def radius(d: Points) -> Points:
        r = np.full(len(d), 0.5)
        for c, w, h in zip(centres, widths, heights, strict=True):
            r += h * np.exp((d @ c - 1) / w**2)
        return r

    d = rng.normal(size=(count, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    stretch = np.array([1.0, rng.uniform(0.6, 0.9), rng.uniform(1.0, 1.6)])
    return _with_normals(d, lambda q: q / np.linalg.norm(q, axis=1, keepdims=True), radius, stretch)


def _with_normals(
    d: Points, unit: Callable[[Points], Points], radius: Callable[[Points], Points], stretch: Points
) -> tuple[Points, Points]:
    one = np.cross(d, np.where(np.abs(d[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    two = np.cross(d, one)
    step = 1e-4

    def at(q: Points) -> Points:
        q = unit(q)
        return q * radius(q)[:, None] * stretch

    normal = np.cross(at(d + step * one) - at(d - step * one), at(d + step * two) - at(d - step * two))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return at(d), normal


def arch(rng: np.random.Generator, *, count: int = 500_000) -> tuple[Points, Points]:
    """Return points and normals of a dental-arch-like relief, millimetres, about 60 x 50 x 15."""
    u, v = rng.uniform(-1, 1, count), rng.uniform(-1, 1, count)
    teeth = 14
    size = rng.uniform(0.75, 1.25, teeth + 1)
    offsets = rng.normal(0, 0.25, (teeth + 1, 3))
    edges = np.concatenate([[0], np.cumsum(size)])
    edges = edges / edges[-1] * 2 - 1
    cusps = rng.uniform(-1, 1, (teeth + 1, 4, 2))

    def at(u: Points, v: Points) -> Points:
        tooth = np.clip(np.searchsorted(edges, u) - 1, 0, teeth)
        w = (u - edges[tooth]) / (edges[tooth + 1] - edges[tooth]) * 2 - 1
        crown = np.clip(1 - w**4, 0, 1) ** 0.5 * np.clip(1 - v**4, 0, 1) ** 0.5
        height = crown * (7 + offsets[tooth, 0])
        for i in range(4):
            c = cusps[tooth, i] * 0.6
            height += crown * 1.2 * np.exp(-((w - c[:, 0]) ** 2 + (v - c[:, 1]) ** 2) / 0.08)
        angle = u * 1.9
        along = np.stack([26 * np.sin(angle), 38 * (np.cos(angle * 0.8)), np.zeros_like(u)], axis=1)
        across = np.stack([np.sin(angle), np.cos(angle), np.zeros_like(u)], axis=1)
        width = 5.0 + offsets[tooth, 1]
        points = along + across * (v * width + offsets[tooth, 2])[:, None]
        points[:, 2] = height
        result: Points = points
        return result

    step = 1e-4
    normal = np.cross(at(u + step, v) - at(u - step, v), at(u, v + step) - at(u, v - step))
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / np.maximum(length, 1e-12)
    normal *= np.where(normal[:, 2:] < 0, -1, 1)
    return at(u, v), normal


def view(
    points: Points,
    normals: Points,
    origin: Points,
    target: Points,
    rng: np.random.Generator,
    *,
    pixels: int,
    field: float,
    noise: float,
) -> Points:
    """Return the world points that a depth camera sees: the nearest in each pixel, noisy along the ray."""
    forward = (target - origin) / np.linalg.norm(target - origin)
    helper = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.95 else np.array([1.0, 0.0, 0.0])
    right = np.cross(forward, helper)
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    rays = points - origin
    depth = rays @ forward
    half = np.tan(np.deg2rad(field) / 2)
    x = ((rays @ right / depth / half + 1) / 2 * pixels).astype(int)
    y = ((rays @ up / depth / half + 1) / 2 * pixels).astype(int)
    facing = np.einsum("ij,ij->i", normals, rays) < -0.15 * np.linalg.norm(rays, axis=1)
    inside = (depth > 0) & (x >= 0) & (x < pixels) & (y >= 0) & (y < pixels)
    candidates = np.flatnonzero(inside)
    order = candidates[np.lexsort((depth[candidates], y[candidates] * pixels + x[candidates]))]
    key = y[order] * pixels + x[order]
    nearest = order[np.concatenate([[True], key[1:] != key[:-1]])]
    nearest = nearest[facing[nearest]]
    seen = points[nearest]
    directions = (seen - origin) / np.linalg.norm(seen - origin, axis=1, keepdims=True)
    result: Points = seen + directions * rng.normal(0, noise, (len(seen), 1))
    return result


def deliver(
    name: str,
    worlds: list[Points],
    rng: np.random.Generator,
    *,
    move: str = "any",
    scale: float = 1.0,
    offset: Points | None = None,
    groups: tuple[tuple[int, ...], ...] | None = None,
) -> ScanSet:
    """Return the scans in frames of their own.

    `move`: "any" (random rotation and shift), "level" (turned about z), "small" (some degrees), "none".
    """
    scans, truths = [], []
    extent = float(max(np.ptp(w, axis=0).max() for w in worlds))
    for i, world in enumerate(worlds):
        pose = np.eye(4)
        if move == "any":
            pose[:3, :3] = random_rotation(rng)
        elif move == "level":
            pose[:3, :3] = axis_rotation(2, rng.uniform(-np.pi, np.pi))
        elif move == "small":
            pose[:3, :3] = axis_rotation(2, rng.normal(0, 0.05)) @ axis_rotation(0, rng.normal(0, 0.05))
        spread = {"any": 1.0, "level": 0.5, "small": 0.02, "none": 0.0}[move]
        centre = world.mean(axis=0) if move in ("any", "level") else np.zeros(3)
        pose[:3, 3] = rng.normal(0, spread * extent, 3) - pose[:3, :3] @ centre
        points = world @ pose[:3, :3].T + pose[:3, 3]
        points, pose = points * scale, pose.copy()
        pose[:3, 3] *= scale
        if offset is not None:
            points = points + offset
            pose[:3, 3] += offset
        rng.shuffle(points)
        scans.append(Scan(name=f"{name}-{i:02d}", points=points))
        truths.append(np.linalg.inv(pose))
    return ScanSet(name, scans, np.array(truths), groups or (tuple(range(len(worlds))),))
