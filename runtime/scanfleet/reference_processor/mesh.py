"""A surface through oriented points: Poisson reconstruction by Fourier transform, then surface nets.

Sources: Kazhdan, "Reconstruction of solid models from oriented point sets", 2005; Peng et al., "Shape as
points: a differentiable Poisson solver", 2021; Gibson, "Constrained elastic surface nets", 1998.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Points = NDArray[np.float64]
Field = NDArray[np.float32]
Faces = NDArray[np.int64]

MAX_CELLS = 14_000_000
"""Bounds memory: about 30 bytes a cell at the peak."""
PADDING = 0.10
"""Empty margin on each side: the transform repeats itself, and the surface must not meet its copy."""
BLUR_CELLS = 1.5
REACH_CELLS = 3
HOLE_SHARE = 0.05
"""Holes are filled as far as this part of the cloud's diagonal from the nearest point."""
MIN_PIECE_FACES = 200


@dataclass(frozen=True)
class Mesh:
    """Triangles: `points` (n, 3), `faces` (m, 3), corners counter-clockwise seen from outside."""

    points: Points
    faces: Faces


@dataclass(frozen=True)
class _Grid:
    """Grid points: `origin` (3,), edge `cell`, `shape` points along each axis."""

    origin: Points
    cell: float
    shape: tuple[int, int, int]


def reconstruct(points: Points, normals: Points, spacing: Points, *, cell: float, fill_holes: bool) -> Mesh:
    """Return a mesh through the points.

    spacing (n,): each point's distance to its neighbours; it weighs points and says how wide a gap is a hole.
    cell: edge of the grid, made larger when the grid would exceed MAX_CELLS. fill_holes: close gaps as wide
    as a tenth of the object; otherwise triangles stay where points are. The mesh may be empty.
    """
    grid = _grid(points, cell)
    field = _indicator(grid, points, normals, spacing)
    field -= np.float32(np.median(_values_at(field, grid, points)))
    reach = HOLE_SHARE * float(np.linalg.norm(np.ptp(points, axis=0))) if fill_holes else 0.0
    near = _near_points(grid, points, cells=max(REACH_CELLS, int(np.ceil(reach / grid.cell))))
    mesh = _where_points_are(_surface_net(field, grid, near), points, spacing, max(reach, 1.5 * grid.cell))
    return _large_pieces(mesh)


def _grid(points: Points, cell: float) -> _Grid:
    extent = np.ptp(points, axis=0)
    margin = np.maximum(PADDING * extent.max(), 8 * cell)
    size = extent + 2 * margin
    cell = max(cell, float(np.cbrt(np.prod(size) / MAX_CELLS)))
    shape = [fft.next_fast_len(int(n) + 1, real=True) for n in size / cell]
    origin = (points.max(axis=0) + points.min(axis=0) - cell * (np.array(shape) - 1)) / 2
    return _Grid(origin, cell, (shape[0], shape[1], shape[2]))


def _indicator(grid: _Grid, points: Points, normals: Points, spacing: Points) -> Field:
    """Return the function whose gradient is nearest to the normals: low inside, high outside."""
    area = np.clip(spacing / np.median(spacing), 0.3, 4.0) ** 2
    frequencies = [(2j * np.pi * fft.fftfreq(n)).astype(np.complex64) for n in grid.shape[:2]] + [
        (2j * np.pi * fft.rfftfreq(grid.shape[2])).astype(np.complex64)
    ]
    for axis in range(3):
        if grid.shape[axis] % 2 == 0:  # the highest frequency has no derivative
            frequencies[axis][grid.shape[axis] // 2] = 0
    along = [f.reshape([-1 if k == axis else 1 for k in range(3)]) for axis, f in enumerate(frequencies)]
    total: NDArray[np.complex64] | None = None
    for axis in range(3):
        part = fft.rfftn(_splat(grid, points, normals[:, axis] * area), workers=2, overwrite_x=True)
        part *= along[axis]
        total = part if total is None else total + part
        del part
    assert total is not None
    square = (along[0] ** 2 + along[1] ** 2 + along[2] ** 2).real
    total *= np.exp(np.float32(BLUR_CELLS**2 / 2) * square)
    total /= np.where(square == 0, np.float32(1), square)
    total[0, 0, 0] = 0
    field: Field = fft.irfftn(total, s=grid.shape, workers=2, overwrite_x=True)
    return field


def _corners(grid: _Grid, points: Points) -> tuple[NDArray[np.int64], Points]:
    """Return each point's cell as a flat index of its lowest corner, and the position inside, 0 to 1."""
    local = (points - grid.origin) / grid.cell
    low = np.clip(np.floor(local), 0, np.array(grid.shape) - 2).astype(np.int64)
    flat = (low[:, 0] * grid.shape[1] + low[:, 1]) * grid.shape[2] + low[:, 2]
    return flat, local - low


def _splat(grid: _Grid, points: Points, values: Points) -> Field:
    """Return the values spread over the eight grid points around each point."""
    flat, inside = _corners(grid, points)
    field = np.zeros(int(np.prod(grid.shape)), dtype=np.float32)
    for corner in product((0, 1), repeat=3):
        weight = np.prod(np.where(corner, inside, 1 - inside), axis=1)
        np.add.at(field, flat + _offset(grid, corner), (weight * values).astype(np.float32))
    return field.reshape(grid.shape)


def _values_at(field: Field, grid: _Grid, points: Points) -> Points:
    flat, inside = _corners(grid, points)
    values = np.zeros(len(points))
    for corner in product((0, 1), repeat=3):
        weight = np.prod(np.where(corner, inside, 1 - inside), axis=1)
        values += weight * field.ravel()[flat + _offset(grid, corner)]
    return values


def _offset(grid: _Grid, corner: tuple[int, ...]) -> int:
    return (corner[0] * grid.shape[1] + corner[1]) * grid.shape[2] + corner[2]


def _near_points(grid: _Grid, points: Points, *, cells: int) -> NDArray[np.bool_]:
    """Return which cells lie within about `cells` cells of a point."""
    is_near = np.zeros([n - 1 for n in grid.shape], dtype=bool)
    low = np.floor((points - grid.origin) / grid.cell).astype(np.int64)
    is_near[low[:, 0], low[:, 1], low[:, 2]] = True
    grown: NDArray[np.bool_] = ndimage.maximum_filter(is_near, size=2 * cells + 1)
    return grown


# --- Surface nets ------------------------------------------------------------------------------------------


def _surface_net(field: Field, grid: _Grid, wanted: NDArray[np.bool_]) -> Mesh:
    """Return the surface where `field` is 0: a vertex in each cell that it crosses, a quad for each edge."""
    is_inside = field < 0
    views = {
        c: is_inside[
            c[0] : grid.shape[0] - 1 + c[0], c[1] : grid.shape[1] - 1 + c[1], c[2] : grid.shape[2] - 1 + c[2]
        ]
        for c in product((0, 1), repeat=3)
    }
    any_in, all_in = np.zeros(views[0, 0, 0].shape, bool), np.ones(views[0, 0, 0].shape, bool)
    for view in views.values():
        any_in |= view
        all_in &= view
    is_active = any_in & ~all_in
    is_active &= wanted
    cells = np.argwhere(is_active)
    if not len(cells):
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    number = np.full(is_active.shape, -1, dtype=np.int32)
    number[is_active] = np.arange(len(cells), dtype=np.int32)
    points = grid.origin + grid.cell * (cells + _crossings(field, grid, cells))
    quads = np.concatenate([_quads(is_inside, number, axis) for axis in range(3)])
    return Mesh(points, _split(points, quads))


def _crossings(field: Field, grid: _Grid, cells: NDArray[np.int64]) -> Points:
    """Return for each cell the mean of the points where its edges cross 0, in cells."""
    flat = (cells[:, 0] * grid.shape[1] + cells[:, 1]) * grid.shape[2] + cells[:, 2]
    corner_values = {c: field.ravel()[flat + _offset(grid, c)] for c in product((0, 1), repeat=3)}
    total, count = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for start, a in corner_values.items():
        for axis in range(3):
            if start[axis]:
                continue
            end = tuple(1 if k == axis else value for k, value in enumerate(start))
            b = corner_values[end]
            crossed = (a < 0) != (b < 0)
            t = np.divide(a, a - b, out=np.zeros_like(a), where=crossed)
            position = np.tile(np.array(start, dtype=float), (len(cells), 1))
            position[:, axis] = t
            total += position * crossed[:, None]
            count += crossed
    return total / np.maximum(count, 1)[:, None]


def _quads(is_inside: NDArray[np.bool_], number: NDArray[np.int32], axis: int) -> NDArray[np.int64]:
    """Return the quads of the grid edges along `axis` that the surface crosses."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    lower = [slice(None)] * 3
    upper = [slice(None)] * 3
    lower[axis], upper[axis] = slice(0, -1), slice(1, None)
    for other in (first, second):
        lower[other] = upper[other] = slice(1, -1)
    below, above = is_inside[tuple(lower)], is_inside[tuple(upper)]
    edges = np.argwhere(below != above)
    edges[:, first] += 1
    edges[:, second] += 1
    goes_out = below[tuple((edges - _unit_shift(first, second)).T)]
    corners = []
    for a, b in ((1, 1), (0, 1), (0, 0), (1, 0)):
        cell = edges.copy()
        cell[:, first] -= a
        cell[:, second] -= b
        corners.append(number[cell[:, 0], cell[:, 1], cell[:, 2]])
    quads = np.stack(corners, axis=1).astype(np.int64)
    quads[~goes_out] = quads[~goes_out][:, ::-1]
    result: NDArray[np.int64] = quads[(quads >= 0).all(axis=1)]
    return result


def _unit_shift(first: int, second: int) -> NDArray[np.int64]:
    shift = np.zeros(3, dtype=np.int64)
    shift[[first, second]] = 1
    return shift


def _split(points: Points, quads: NDArray[np.int64]) -> Faces:
    """Return two triangles for each quad, split along its shorter diagonal."""
    a, b, c, d = quads.T
    is_ac = ((points[a] - points[c]) ** 2).sum(axis=1) <= ((points[b] - points[d]) ** 2).sum(axis=1)
    first = np.where(is_ac[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(is_ac[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.concatenate([first, second])


# --- Trimming ----------------------------------------------------------------------------------------------


def _where_points_are(mesh: Mesh, points: Points, spacing: Points, reach: float) -> Mesh:
    """Return the mesh without the parts that bridge holes: farther from any point than its neighbours are."""
    if not len(mesh.faces):
        return mesh
    distance, nearest = cKDTree(points).query(mesh.points, workers=2)
    is_kept = distance < np.maximum(reach, 1.5 * spacing[nearest])
    return _compact(mesh.points, mesh.faces[is_kept[mesh.faces].all(axis=1)])


def _large_pieces(mesh: Mesh) -> Mesh:
    """Return the mesh without crumbs: pieces of few faces, unless there is nothing else."""
    if not len(mesh.faces):
        return mesh
    a, b, c = mesh.faces.T
    ones = np.ones(2 * len(a), dtype=np.int8)
    links = coo_matrix(
        (ones, (np.concatenate([a, b]), np.concatenate([b, c]))), shape=(len(mesh.points),) * 2
    )
    _, piece = connected_components(links, directed=False)
    sizes = np.bincount(piece[a])
    is_large = sizes >= min(MIN_PIECE_FACES, int(sizes.max()))
    return _compact(mesh.points, mesh.faces[is_large[piece[a]]])


def _compact(points: Points, faces: Faces) -> Mesh:
    """Return the faces with only the points that they use."""
    used, index = np.unique(faces, return_inverse=True)
    return Mesh(points[used], index.reshape(-1, 3))
