"""Local shape descriptors, and the correspondences that they suggest.

Source: Rusu, Blodow, Beetz 2009, "Fast Point Feature Histograms (FPFH) for 3D registration".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from scanfleet.reference_processor.downsample import Indices, Points, Surface

BINS = 11
NEIGHBOURS = 80
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Described:
    """Key points of a surface with their descriptors.

    `index` (m,) into the surface's points; `features` (m, 33) unit float32; `flipped` the descriptors that
    the same surface has when all its normals point the other way.
    """

    index: Indices
    features: Features
    flipped: Features


@dataclass(frozen=True)
class Matches:
    """Suggested correspondences, most trusted first.

    `source`, `target` (m,) indices of surface points; `sign` (m,) +1 or -1: how the target's normal has to
    be turned to agree with the source's; `likeness` ranks pairs of scans: how many points found their like.
    """

    source: Indices
    target: Indices
    sign: Points
    likeness: float


def describe(surface: Surface, *, radius: float, limit: int) -> Described:
    """Return the descriptors of the `limit` most distinctive points of `surface`."""
    features = _fpfh(surface, radius)
    index = np.arange(surface.size)
    if surface.size > limit:
        # Flat ground has one descriptor thousandfold: points far from the usual one are worth matching.
        usual = np.median(features, axis=0)
        index = np.sort(np.argsort(-np.linalg.norm(features - usual, axis=1), kind="stable")[:limit])
    return Described(index=index, features=features[index], flipped=_flip(features[index]))


def match(source: Described, target: Described, *, limit: int) -> Matches:
    """Return at most `limit` correspondences: mutual nearest descriptors first, then one-sided ones.

    Each descriptor is compared in both senses of the normals: their signs are a guess.
    """
    likeness = source.features @ target.features.T
    opposite = source.features @ target.flipped.T
    is_opposite = opposite > likeness
    np.maximum(likeness, opposite, out=likeness)
    forward = likeness.argmax(axis=1)
    backward = likeness.argmax(axis=0)
    rows = np.concatenate([np.arange(len(forward)), backward])
    columns = np.concatenate([forward, np.arange(len(backward))])
    mutual = np.concatenate([backward[forward] == np.arange(len(forward)), np.zeros(len(backward), bool)])
    one_sided = np.concatenate([~mutual[: len(forward)], forward[backward] != np.arange(len(backward))])
    rank = likeness[rows, columns] + np.where(mutual, 1.0, 0.0)
    keep = np.flatnonzero(mutual | one_sided)
    keep = keep[np.argsort(-rank[keep], kind="stable")[:limit]]
    rows, columns = rows[keep], columns[keep]
    alike = np.sort(likeness[rows, columns] * mutual[keep])[::-1][:200]
    return Matches(
        source=source.index[rows],
        target=target.index[columns],
        sign=np.where(is_opposite[rows, columns], -1.0, 1.0),
        likeness=float(alike.sum()),
    )


def _fpfh(surface: Surface, radius: float) -> Features:
    """Return unit-length square-rooted FPFH descriptors, (n, 33).

    The square root makes the dot product the Hellinger likeness of the histograms, which a few crowded bins
    do not dominate.
    """
    points, normals = surface.points, surface.normals
    k = min(NEIGHBOURS, surface.size)
    distance, index = surface.tree.query(points, k=k, workers=2)
    distance, index = distance.reshape(len(points), k), index.reshape(len(points), k)
    near = (distance <= radius) & (distance > 0)
    row, column = np.nonzero(near)
    other = index[row, column]
    length = distance[row, column]
    simple = _spfh(points, normals, row, other, length)
    weight = 1.0 / np.maximum(length, 0.5)
    total = np.bincount(row, weights=weight, minlength=len(points))
    gather = csr_matrix((weight, (row, other)), shape=(len(points), len(points)))
    features = simple + (gather @ simple) / np.maximum(total, 1e-12)[:, None]
    features = np.sqrt(features)
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    result: Features = (features / np.maximum(norm, 1e-12)).astype(np.float32)
    return result


def _spfh(points: Points, normals: Points, row: Indices, other: Indices, length: Points) -> Points:
    """Return each point's own histograms of the three angles to its neighbours, (n, 33), each sums to 1."""
    direction = (points[other] - points[row]) / length[:, None]
    u = normals[row]
    v = np.cross(direction, u)
    v /= np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
    w = np.cross(u, v)
    n = normals[other]
    alpha = np.einsum("ij,ij->i", v, n)
    phi = np.einsum("ij,ij->i", u, direction)
    theta = np.arctan2(np.einsum("ij,ij->i", w, n), np.einsum("ij,ij->i", u, n)) / np.pi
    count = np.maximum(np.bincount(row, minlength=len(points)), 1)
    parts = []
    for value in (alpha, phi, theta):
        cell = np.clip(((value + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
        histogram = np.bincount(row * BINS + cell, minlength=len(points) * BINS).reshape(-1, BINS)
        parts.append(histogram / count[:, None])
    return np.concatenate(parts, axis=1)


def _flip(features: Features) -> Features:
    """Return the descriptors for reversed normals: phi and theta change sign, alpha does not."""
    alpha, phi, theta = features[:, :BINS], features[:, BINS : 2 * BINS], features[:, 2 * BINS :]
    return np.concatenate([alpha, phi[:, ::-1], theta[:, ::-1]], axis=1)
