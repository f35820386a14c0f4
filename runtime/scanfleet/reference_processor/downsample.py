"""Thinned scans with normals, in the unit of length that the registration works in."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import small_gicp
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

Points = NDArray[np.float64]
Indices = NDArray[np.int64]


def voxel_means(points: Points, voxel: float) -> tuple[Points, Indices]:
    """Return the mean of the points in each occupied voxel, (m, 3), and the voxel of each point, (n,).

    The order depends on the points alone, so that a run can be repeated.
    """
    cells = np.floor((points - points.min(axis=0)) / voxel).astype(np.int64)
    shape = cells.max(axis=0) + 1
    keys = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    _, owner, counts = np.unique(keys, return_inverse=True, return_counts=True)
    owner = owner.reshape(-1)
    sums = [np.bincount(owner, weights=points[:, axis], minlength=len(counts)) for axis in range(3)]
    return np.stack(sums, axis=1) / counts[:, None], owner


@dataclass(frozen=True)
class Surface:
    """A thinned scan: what matching, refinement and checking look at.

    `points` (n, 3); `normals` (n, 3) unit; `spacing` (n,) distance to the sixth neighbour, so that sparse
    parts are known as such; `is_oriented`: the normals' signs are known, not only consistent.
    """

    points: Points
    normals: Points
    spacing: Points
    is_oriented: bool
    tree: cKDTree

    @property
    def size(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class GicpCloud:
    """A point cloud with covariances and its tree, as small_gicp takes them."""

    cloud: Any
    tree: Any


def surface(
    points: Points, *, support: cKDTree | None, radius: float, given: Points | None, voxel: float
) -> Surface:
    """Return `points` with normals fitted to their neighbours in `support` within `radius`.

    `given` are normals for the same points (voxel means of the scan's own) or None: they only decide the
    fitted normals' signs, and only if neighbours agree about them; readers deliver unoriented ones too.
    """
    tree = cKDTree(points)
    normals = _fitted_normals(points, support=support or tree, radius=radius)
    k = min(9, len(points))
    distances, neighbours = tree.query(points, k=k, workers=2)
    if k == 1:
        distances, neighbours = distances[:, None], neighbours[:, None]
    is_oriented = False
    signs = _agreed_signs(normals, given, neighbours)
    if signs is None:
        normals = _propagated(points, normals, distances, neighbours)
    else:
        normals, is_oriented = normals * signs[:, None], True
    spacing = np.maximum(distances[:, min(6, k - 1)], voxel)
    return Surface(points=points, normals=normals, spacing=spacing, is_oriented=is_oriented, tree=tree)


def towards(surface: Surface, place: Points) -> Surface:
    """Return `surface` with its normals turned towards the sensor at `place`."""
    away = np.einsum("ij,ij->i", surface.normals, place - surface.points) < 0
    return replace(
        surface, normals=np.where(away[:, None], -surface.normals, surface.normals), is_oriented=True
    )


def crowded(points: Points, *, times: float = 4.0, k: int = 6) -> NDArray[np.bool_]:
    """Return which points have neighbours as near as those neighbours have theirs, within `times`.

    The others are stray points. Comparing with the neighbours keeps the sparse far end of a lidar's sweep.
    """
    if len(points) <= k + 1:
        return np.ones(len(points), bool)
    distances, index = cKDTree(points).query(points, k=k + 1, workers=2)
    reach = distances[:, k]
    result: NDArray[np.bool_] = reach <= times * np.median(reach[index[:, 1:]], axis=1)
    return result


def roughness(surface: Surface, *, samples: int = 1500, k: int = 12) -> float:
    """Return the median distance of points from the plane through their `k` nearest: noise plus curvature."""
    index = np.arange(surface.size)[:: max(1, surface.size // samples)]
    near = surface.tree.query(surface.points[index], k=min(k, surface.size), workers=2)[1]
    near = near.reshape(len(index), -1)
    offsets = surface.points[near] - surface.points[near].mean(axis=1, keepdims=True)
    squares = np.linalg.eigvalsh(np.einsum("nki,nkj->nij", offsets, offsets) / near.shape[1])[:, 0]
    return float(np.sqrt(np.median(np.maximum(squares, 0))))


def gicp_cloud(points: Points, *, neighbours: int = 12) -> GicpCloud:
    """Return `points` ready for small_gicp, covariances from `neighbours` neighbours."""
    cloud = small_gicp.PointCloud(points)
    tree = small_gicp.KdTree(cloud, num_threads=2)
    small_gicp.estimate_covariances(cloud, tree, num_neighbors=neighbours, num_threads=2)
    return GicpCloud(cloud=cloud, tree=tree)


def _fitted_normals(points: Points, *, support: cKDTree, radius: float, k: int = 24) -> Points:
    """Return the direction in which the neighbourhood of each point is thinnest, (n, 3)."""
    k = min(k, support.n)
    distances, index = support.query(points, k=k, workers=2)
    if k == 1:
        distances, index = distances[:, None], index[:, None]
    # At least six neighbours, however sparse the place: a normal from two points is noise.
    weight = ((distances <= radius) | (np.arange(k) < 7)).astype(np.float64)
    data = np.asarray(support.data)
    offsets = data[index] - points[:, None, :]
    mean = (weight[:, :, None] * offsets).sum(axis=1) / weight.sum(axis=1)[:, None]
    offsets = (offsets - mean[:, None, :]) * weight[:, :, None]
    covariance = np.einsum("nki,nkj->nij", offsets, offsets)
    normals: Points = np.linalg.eigh(covariance)[1][:, :, 0]
    return normals


def _agreed_signs(normals: Points, given: Points | None, neighbours: Indices) -> Points | None:
    """Return +1 or -1 for each fitted normal after the given ones; None if those are missing or at odds."""
    if given is None:
        return None
    length = np.linalg.norm(given, axis=1)
    if np.mean(length > 0.5) < 0.95:
        return None
    dots = np.einsum("ni,nki->nk", given, given[neighbours])
    if np.mean(dots[:, 1:] > 0) < 0.97:
        return None
    signs: Points = np.where(np.einsum("ni,ni->n", normals, given) < 0, -1.0, 1.0)
    return signs


def _propagated(points: Points, normals: Points, distances: Points, neighbours: Indices) -> Points:
    """Return the normals with signs made consistent along the surface.

    Each connected piece keeps one unknown sign; it is turned to look away from the piece's middle, which
    two views of a convex thing then agree about. Matching does not rely on it.
    Source: Hoppe et al. 1992, "Surface reconstruction from unorganized points".
    """
    n, k = neighbours.shape
    rows = np.repeat(np.arange(n), k - 1)
    columns = neighbours[:, 1:].reshape(-1)
    agreement = np.abs(np.einsum("ni,ni->n", normals[rows], normals[columns]))
    length = distances[:, 1:].reshape(-1) / max(float(np.median(distances[:, -1])), 1e-12)
    graph = coo_matrix((1e-3 + 1 - agreement + 0.1 * length, (rows, columns)), shape=(n, n)).tocsr()
    tree = minimum_spanning_tree(graph.maximum(graph.T))
    tree = (tree + tree.T).tocsr()
    pieces, piece = connected_components(tree, directed=False)
    parent = np.arange(n)
    for root in np.unique(piece, return_index=True)[1]:
        order, before = breadth_first_order(tree, root, directed=False)
        parent[order[1:]] = before[order[1:]]
    signs = np.where(np.einsum("ni,ni->n", normals, normals[parent]) < 0, -1.0, 1.0)
    # Pointer jumping: after k rounds each point carries the product of the signs of 2^k steps to the root.
    while (parent != parent[parent]).any():
        signs = signs * signs[parent]
        parent = parent[parent]
    turned = normals * signs[:, None]
    sums = np.stack([np.bincount(piece, weights=points[:, a], minlength=pieces) for a in range(3)], axis=1)
    middle = sums / np.bincount(piece, minlength=pieces)[:, None]
    outward = np.bincount(
        piece, weights=np.einsum("ni,ni->n", turned, points - middle[piece]), minlength=pieces
    )
    result: Points = turned * np.where(outward < 0, -1.0, 1.0)[piece][:, None]
    return result
