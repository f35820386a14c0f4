"""Named scan sets for the registration: made ones that have a truth, and traps that must not be joined."""

from collections.abc import Callable

import numpy as np

from benchmarks.registration_scenes import (
    Points,
    ScanSet,
    arch,
    bumpy_ball,
    camera,
    deliver,
    panorama,
    room,
    scan_from,
    street,
    view,
)

APART = ((0,), (1,))


def statue(
    seed: int, *, count: int = 6, pixels: int = 220, noise: float = 0.001, move: str = "any"
) -> ScanSet:
    """Return `count` depth-camera views around a bumpy figure of about 1 m."""
    rng = np.random.default_rng(seed)
    points, normals = bumpy_ball(rng)
    worlds = []
    for i in range(count):
        angle = 2 * np.pi * i / count
        origin = np.array([2.5 * np.cos(angle), 2.5 * np.sin(angle), rng.uniform(-0.8, 0.8)])
        worlds.append(view(points, normals, origin, np.zeros(3), rng, pixels=pixels, field=40, noise=noise))
    return deliver(f"statue x{count}", worlds, rng, move=move)


def dental(seed: int, *, count: int = 8, move: str = "any") -> ScanSet:
    """Return `count` views along a row of teeth, millimetres."""
    rng = np.random.default_rng(seed)
    points, normals = arch(rng)
    worlds = []
    for i in range(count):
        angle = (-1 + 2 * i / (count - 1)) * 1.7
        target = np.array([26 * np.sin(angle), 38 * np.cos(angle * 0.8), 4.0])
        origin = target + np.array([rng.normal(0, 8), rng.normal(0, 8), 45.0])
        worlds.append(view(points, normals, origin, target, rng, pixels=220, field=34, noise=0.02))
    return deliver(f"teeth x{count}", worlds, rng, move=move)


def room_panoramas(seed: int, *, count: int = 4, move: str = "any") -> ScanSet:
    """Return turning-scanner scans of one furnished room."""
    rng = np.random.default_rng(seed)
    solids = room(rng)
    worlds = []
    for _ in range(count):
        rays = panorama(rng, columns=400, rows=140, low=-60, high=60)
        worlds.append(scan_from(solids, _standing(solids.boxes, rng), rays, rng, noise=0.004, reach=20))
    return deliver(f"room x{count}", worlds, rng, move=move)


def room_frames(seed: int, *, count: int = 4, step: float = 0.35, move: str = "any") -> ScanSet:
    """Return depth-camera frames of one furnished room, turned `step` radians from one to the next."""
    rng = np.random.default_rng(seed)
    solids = room(rng)
    size = solids.boxes[0, 1]
    worlds = []
    for i in range(count):
        angle = step * i
        ahead = np.array([np.cos(angle), np.sin(angle), 0.0])
        origin = np.array([size[0] / 2, size[1] / 2, 1.5]) - 1.2 * ahead
        rays = camera(origin + ahead - [0, 0, 0.2], origin, width=320, height=240, field=75)
        worlds.append(scan_from(solids, origin, rays, rng, noise=0.004, reach=20))
    return deliver(f"room frames x{count}", worlds, rng, move=move)


def street_sweeps(seed: int, *, count: int = 4, step: float = 8.0, move: str = "any") -> ScanSet:
    """Return lidar sweeps taken every `step` metres of a street."""
    rng = np.random.default_rng(seed)
    solids = street(rng)
    worlds = []
    for i in range(count):
        origin = np.array([(i - (count - 1) / 2) * step, rng.normal(0, 1.5), 1.8])
        rays = panorama(rng, columns=900, rows=48, low=-25, high=25)
        worlds.append(scan_from(solids, origin, rays, rng, noise=0.02, reach=70))
    return deliver(f"street x{count}, {step:g} m", worlds, rng, move=move)


def _two(name: str, one: ScanSet, other: ScanSet, seed: int, *, last: int = 0) -> ScanSet:
    worlds = [_world(one, 0), _world(other, last)]
    return deliver(name, worlds, np.random.default_rng(seed), groups=APART)


def _world(scans: ScanSet, index: int) -> Points:
    truth = scans.truth[index]
    result: Points = scans.scans[index].points @ truth[:3, :3].T + truth[:3, 3]
    return result


def two_statues(seed: int) -> ScanSet:
    """Return one view each of two figures."""
    return _two("trap: two statues", statue(seed, count=3), statue(seed + 1000, count=3), seed)


def statue_front_and_back(seed: int) -> ScanSet:
    """Return the front and the back of one figure: nothing in common but the rim."""
    one = statue(seed, count=2)
    return _two("trap: front and back", one, one, seed, last=1)


def two_rooms(seed: int) -> ScanSet:
    """Return one scan each of two rooms."""
    one, other = room_panoramas(seed, count=1), room_panoramas(seed + 1000, count=1)
    return _two("trap: two rooms", one, other, seed)


def two_streets(seed: int) -> ScanSet:
    """Return one sweep each of two streets."""
    one, other = street_sweeps(seed, count=1), street_sweeps(seed + 1000, count=1)
    return _two("trap: two streets", one, other, seed)


def ends_of_the_arch(seed: int) -> ScanSet:
    """Return the two ends of a row of teeth."""
    one = dental(seed, count=5)
    return _two("trap: both ends of a jaw", one, one, seed, last=4)


def solid(kind: str, seed: int, *, count: int = 20_000, noise: float = 0.003) -> ScanSet:
    """Return two samplings of a shape whose pose its surface does not fix: `kind` is a key of SOLIDS."""
    rng = np.random.default_rng(seed)
    worlds = [SOLIDS[kind](rng, count, side) + rng.normal(0, noise, (count, 3)) for side in (0, 1)]
    return deliver(f"trap: {kind}", worlds, rng, groups=APART)


def _plane(rng: np.random.Generator, count: int, side: int) -> Points:
    return np.column_stack([rng.uniform(side, 3 + side, count), rng.uniform(0, 2, count), np.zeros(count)])


def _cylinder(rng: np.random.Generator, count: int, side: int) -> Points:
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.column_stack([np.cos(angle), np.sin(angle), rng.uniform(side, 3 + side, count)])


def _ball(rng: np.random.Generator, count: int, side: int) -> Points:
    points = rng.normal(size=(count, 3))
    points[:, side] = np.abs(points[:, side])
    result: Points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return result


def _box(rng: np.random.Generator, count: int, side: int) -> Points:
    points = rng.uniform(-1, 1, (count, 3)) * (1 - 2 * side)
    face, row = rng.integers(0, 3, count), np.arange(count)
    points[row, face] = np.sign(points[row, face])
    return points * [1, 0.7, 0.5]


SOLIDS: dict[str, Callable[[np.random.Generator, int, int], Points]] = {
    "plane": _plane,
    "cylinder": _cylinder,
    "ball": _ball,
    "box": _box,
}

SETS: dict[str, Callable[[int], ScanSet]] = {
    "statue": statue,
    "statue-4": lambda seed: statue(seed, count=4),
    "statue-sparse": lambda seed: statue(seed, pixels=90),
    "statue-noisy": lambda seed: statue(seed, noise=0.006),
    "teeth": dental,
    "room": room_panoramas,
    "room-frames": room_frames,
    "room-frames-near": lambda seed: room_frames(seed, step=0.1, move="small"),
    "street": street_sweeps,
    "street-15m": lambda seed: street_sweeps(seed, count=3, step=15.0),
    "two-statues": two_statues,
    "front-and-back": statue_front_and_back,
    "two-rooms": two_rooms,
    "two-streets": two_streets,
    "ends-of-the-arch": ends_of_the_arch,
    "plane": lambda seed: solid("plane", seed),
    "cylinder": lambda seed: solid("cylinder", seed),
    "ball": lambda seed: solid("ball", seed),
    "box": lambda seed: solid("box", seed),
}


def _standing(boxes: Points, rng: np.random.Generator) -> Points:
    """Return a place in the room, at eye height, that no furniture fills."""
    size = boxes[0, 1]
    place = rng.uniform([0.5, 0.5, 1.2], [size[0] - 0.5, size[1] - 0.5, 1.8])
    while ((place > boxes[1:, 0] - 0.2) & (place < boxes[1:, 1] + 0.2)).all(axis=1).any():
        place = rng.uniform([0.5, 0.5, 1.2], [size[0] - 0.5, size[1] - 0.5, 1.8])
    return place
