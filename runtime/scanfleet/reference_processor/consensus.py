"""Rigid transforms that many suggested correspondences agree on, however many of them are wrong.

Two correspondences are compatible when they keep the distance between their points and the angle between
their normals; true ones are all compatible with each other, wrong ones rarely. Seeds are the correspondences
that share the most compatible partners, each seed and its best partners give one transform.
Source: Chen et al. 2022, "SC2-PCR: A second order spatial compatibility for efficient and robust point cloud
registration"; Leordeanu and Hebert 2005, "A spectral technique for correspondence problems".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.downsample import Points, Surface
from scanfleet.reference_processor.features import Matches

# All lengths are in coarse voxels: a matched point is off by up to about one voxel.
LENGTH_TOLERANCE = 1.5
INLIER_DISTANCE = 2.0
SEEDS = 160
SEED_PARTNERS = 16


@dataclass(frozen=True)
class Hypotheses:
    """Candidate transforms, best first: `transforms` (h, 4, 4) source to target, `votes` (h,) for each."""

    transforms: Points
    votes: NDArray[np.int64]


def agree(source: Surface, target: Surface, matches: Matches, *, limit: int) -> Hypotheses:
    """Return at most `limit` distinct transforms that the most matches agree on."""
    if len(matches.source) < 3:
        return Hypotheses(transforms=np.zeros((0, 4, 4)), votes=np.zeros(0, np.int64))
    a, b = source.points[matches.source], target.points[matches.target]
    na = source.normals[matches.source]
    nb = target.normals[matches.target] * matches.sign[:, None]
    compatible = _compatibility(a, b, na, nb)
    shared = compatible * (compatible @ compatible)
    transforms = _seeded(a, b, shared)
    transforms = _refit(a, b, na, nb, transforms)
    votes = _inliers(a, b, na, nb, transforms).sum(axis=1)
    order = np.argsort(-votes, kind="stable")
    chosen = distinct(transforms[order], source.points, apart=4.0, limit=limit)
    return Hypotheses(transforms=transforms[order][chosen], votes=votes[order][chosen])


def kabsch(a: Points, b: Points, weight: Points) -> Points:
    """Return the transforms (s, 4, 4) that best map `a` onto `b`, both (s, k, 3), weights (s, k).

    Source: Kabsch 1976; the determinant's sign keeps reflections out (Umeyama 1991).
    """
    total = np.maximum(weight.sum(axis=1), 1e-12)[:, None]
    ca = (weight[:, :, None] * a).sum(axis=1) / total
    cb = (weight[:, :, None] * b).sum(axis=1) / total
    h = np.einsum("sk,ski,skj->sij", weight, a - ca[:, None], b - cb[:, None])
    u, _, vt = np.linalg.svd(h)
    v = vt.transpose(0, 2, 1)
    v[:, :, 2] *= np.sign(np.linalg.det(v @ u.transpose(0, 2, 1)))[:, None]
    rotation = v @ u.transpose(0, 2, 1)
    transform = np.tile(np.eye(4), (len(a), 1, 1))
    transform[:, :3, :3] = rotation
    transform[:, :3, 3] = cb - np.einsum("sij,sj->si", rotation, ca)
    return transform


def displacement(one: Points, others: Points, points: Points) -> Points:
    """Return the root mean square distance, (h,), between where `one` and each of `others` take `points`."""
    centre = points.mean(axis=0)
    spread = np.cov(points.T, bias=True)
    difference = others[:, :3, :3] - one[:3, :3]
    shift = difference @ centre + others[:, :3, 3] - one[:3, 3]
    squares = np.einsum("hij,jk,hik->h", difference, spread, difference) + (shift**2).sum(axis=1)
    result: Points = np.sqrt(np.maximum(squares, 0))
    return result


def distinct(transforms: Points, points: Points, *, apart: float, limit: int) -> list[int]:
    """Return the indices of the first `limit` transforms that differ from the ones before by `apart`."""
    chosen: list[int] = []
    free = np.ones(len(transforms), bool)
    while free.any() and len(chosen) < limit:
        first = int(np.argmax(free))
        chosen.append(first)
        free &= displacement(transforms[first], transforms, points) > apart
        free[first] = False
    return chosen


def _compatibility(a: Points, b: Points, na: Points, nb: Points) -> NDArray[np.float32]:
    da, db = _distances(a), _distances(b)
    fits = (np.abs(da - db) < LENGTH_TOLERANCE) & (np.minimum(da, db) > 2 * LENGTH_TOLERANCE)
    angles = np.abs((na @ na.T) - (nb @ nb.T)) < 0.5
    compatible: NDArray[np.float32] = (fits & angles).astype(np.float32)
    return compatible


def _distances(points: Points) -> NDArray[np.float32]:
    p = (points - points.mean(axis=0)).astype(np.float32)
    squares = (p**2).sum(axis=1)
    result: NDArray[np.float32] = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * p @ p.T, 0))
    return result


def _seeded(a: Points, b: Points, shared: NDArray[np.float32]) -> Points:
    """Return one transform for each of the seeds, from the seed and its best partners."""
    k = min(SEED_PARTNERS, len(a) - 1)
    strength = np.partition(shared, -k, axis=1)[:, -k:].sum(axis=1)
    seeds = np.argsort(-strength, kind="stable")[:SEEDS]
    partners = np.argpartition(-shared[seeds], k, axis=1)[:, :k] if k < len(a) else None
    if partners is None:
        return np.zeros((0, 4, 4))
    members = np.concatenate([seeds[:, None], partners], axis=1)
    weight = np.concatenate(
        [np.ones((len(seeds), 1)), np.take_along_axis(shared[seeds], partners, axis=1) > 0], axis=1
    )
    return kabsch(a[members], b[members], weight)


def _refit(a: Points, b: Points, na: Points, nb: Points, transforms: Points) -> Points:
    weight = _inliers(a, b, na, nb, transforms).astype(np.float64)
    enough = weight.sum(axis=1) >= 4
    result = transforms.copy()
    if enough.any():
        count = int(enough.sum())
        shape = (count, *a.shape)
        result[enough] = kabsch(np.broadcast_to(a, shape), np.broadcast_to(b, shape), weight[enough])
    return result


def _inliers(a: Points, b: Points, na: Points, nb: Points, transforms: Points) -> NDArray[np.bool_]:
    rotation = transforms[:, :3, :3]
    moved = a @ rotation.transpose(0, 2, 1) + transforms[:, None, :3, 3]
    near = ((moved - b) ** 2).sum(axis=2) < INLIER_DISTANCE**2
    turned = np.einsum("sij,mj,mi->sm", rotation, na, nb, optimize=True)
    inliers: NDArray[np.bool_] = near & (turned > 0.5)
    return inliers
