"""Poses of many scans from transforms between pairs of them, with contradicting pairs found and left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from scanfleet.reference_processor.downsample import Points

# An edge that the finished graph misplaces by more than this many coarse voxels contradicts the others.
CONTRADICTION = 2.0


@dataclass(frozen=True)
class Edge:
    """A measured transform from scan `source` into the frame of scan `target`.

    `information` (6, 6), rotation first, in the target's frame; `weight` ranks edges by trust.
    """

    source: int
    target: int
    transform: Points
    information: Points
    weight: float


def connected(count: int, edges: Sequence[Edge]) -> tuple[tuple[int, ...], ...]:
    """Return the sets of scans that `edges` connect, largest first, then by lowest index."""
    group = list(range(count))
    for edge in edges:
        old, new = group[edge.source], group[edge.target]
        group = [new if g == old else g for g in group]
    members = [tuple(i for i in range(count) if group[i] == g) for g in sorted(set(group))]
    return tuple(sorted(members, key=lambda m: (-len(m), m[0])))


def chain(count: int, edges: Sequence[Edge]) -> Points:
    """Return poses (count, 4, 4) by following the most trusted edges from each group's first scan."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for group in connected(count, edges):
        placed = {group[0]}
        while len(placed) < len(group):
            reach = [e for e in edges if (e.source in placed) != (e.target in placed)]
            reach = [e for e in reach if e.source in group]
            edge = max(reach, key=_trust)
            if edge.target in placed:
                poses[edge.source] = poses[edge.target] @ edge.transform
                placed.add(edge.source)
            else:
                poses[edge.target] = poses[edge.source] @ inverse_of(edge.transform)
                placed.add(edge.target)
    return poses


def optimise(count: int, edges: Sequence[Edge], *, rounds: int = 30) -> Points:
    """Return the poses, (count, 4, 4), that satisfy all `edges` best; the first scan of each group stays put.

    Gauss-Newton on SE(3); edges are weighted by Geman and McClure's function of what is left of them, so
    that a few wrong ones do not bend the rest. Source: Zhou, Park, Koltun 2016, "Fast global registration";
    Grisetti et al. 2010, "A tutorial on graph-based SLAM".
    """
    poses = chain(count, edges)
    fixed = {group[0] for group in connected(count, edges)}
    free = [i for i in range(count) if i not in fixed]
    slot = {scan: k for k, scan in enumerate(free)}
    # Graduated: a wide kernel first, so that drift along a chain is not taken for a contradiction.
    for step in range(rounds if free else 0):
        width = max(CONTRADICTION, 16.0 * 0.6**step)
        delta = _step(poses, edges, slot, width)
        for scan, k in slot.items():
            poses[scan] = exponential(delta[6 * k : 6 * k + 6]) @ poses[scan]
        if step > 8 and float(np.abs(delta).max()) < 1e-9:
            break
    return poses


def _trust(edge: Edge) -> float:
    return edge.weight


def misplacement(edge: Edge, poses: Points) -> float:
    """Return how far, in coarse voxels, `poses` put the source from where `edge` has it.

    Measured where the scans overlap and as far as the overlap resists (a wall may be slid along freely).
    """
    error = logarithm(inverse_of(poses[edge.target]) @ poses[edge.source] @ inverse_of(edge.transform))
    square = float(error @ edge.information @ error)
    return float(np.sqrt(max(square, 0.0) * 3))


def inverse_of(transform: Points) -> Points:
    """Return the inverse of a rigid transform (4, 4)."""
    result = np.eye(4)
    result[:3, :3] = transform[:3, :3].T
    result[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return result


def exponential(twist: Points) -> Points:
    """Return the transform (4, 4) of a twist (6,), rotation first."""
    omega, v = twist[:3], twist[3:]
    angle = float(np.linalg.norm(omega))
    k = _cross(omega)
    if angle < 1e-8:
        left = np.eye(3) + k / 2
    else:
        a, b = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
        left = np.eye(3) + a * k + b * k @ k
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_rotvec(omega).as_matrix()
    transform[:3, 3] = left @ v
    return transform


def logarithm(transform: Points) -> Points:
    """Return the twist (6,), rotation first, of a transform (4, 4)."""
    omega = Rotation.from_matrix(transform[:3, :3]).as_rotvec()
    angle = float(np.linalg.norm(omega))
    k = _cross(omega)
    if angle < 1e-8:
        inverse = np.eye(3) - k / 2
    else:
        c = (
            1 / angle**2 - (1 + np.cos(angle)) / (2 * angle * np.sin(angle))
            if angle < np.pi - 1e-6
            else 1 / angle**2
        )
        inverse = np.eye(3) - k / 2 + c * k @ k
    result: Points = np.concatenate([omega, inverse @ transform[:3, 3]])
    return result


def _step(poses: Points, edges: Sequence[Edge], slot: dict[int, int], width: float) -> Points:
    """Return the Gauss-Newton step, (6 f,), for the free poses."""
    size = 6 * len(slot)
    h, g = np.zeros((size, size)), np.zeros(size)
    for edge in edges:
        inverse = inverse_of(poses[edge.target])
        error = logarithm(inverse @ poses[edge.source] @ inverse_of(edge.transform))
        robust = (width**2 / (width**2 + misplacement(edge, poses) ** 2)) ** 2
        information = edge.information * (robust * edge.weight)
        jacobian = _adjoint(inverse)
        own = [(edge.source, jacobian), (edge.target, -jacobian)]
        for one, j_one in own:
            if one not in slot:
                continue
            a = slice(6 * slot[one], 6 * slot[one] + 6)
            g[a] += j_one.T @ information @ error
            for two, j_two in own:
                if two in slot:
                    b = slice(6 * slot[two], 6 * slot[two] + 6)
                    h[a, b] += j_one.T @ information @ j_two
    damping = 1e-9 * max(float(np.trace(h)) / size, 1e-12)
    return np.asarray(np.linalg.solve(h + damping * np.eye(size), -g), dtype=np.float64)


def _adjoint(transform: Points) -> Points:
    rotation = transform[:3, :3]
    result = np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = rotation
    result[3:, :3] = _cross(transform[:3, 3]) @ rotation
    return result


def _cross(v: Points) -> Points:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0.0]])
