"""Points from meshes: normals from faces, and points on faces too large to be described by corners."""

import numpy as np

from scanfleet.reference_processor.readers.base import Faces, Points

COARSE_EDGE = 1 / 60
"""An edge is coarse when it is longer than this part of the mesh's diagonal."""
COARSE_AREA = 0.3
"""A mesh is sampled when more than this part of its area lies in triangles with a coarse edge."""
SAMPLE_SPACING = 1 / 250
"""Distance between samples, as part of the diagonal."""
MIN_SAMPLES, MAX_SAMPLES = 20_000, 200_000


def vertex_normals(points: Points, faces: Faces) -> Points:
    """Return (n, 3) unit normals, weighted by the area of the faces at each vertex; 0 where there is none."""
    area_vectors = _area_vectors(points, faces)
    normals = np.zeros_like(points)
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], area_vectors[:, axis], len(points))
    return unit(normals)


def unit(vectors: Points) -> Points:
    """Return the vectors at length 1; those without a direction become 0."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_usable = np.isfinite(length) & (length > 1e-30)
    result: Points = np.where(is_usable, vectors / np.where(is_usable, length, 1.0), 0.0)
    return result


def is_coarse(points: Points, faces: Faces) -> bool:
    """Say whether the corners alone describe the surface badly: much of it lies in large triangles.

    A cloud of which only a few points are corners is no mesh.
    """
    if len(np.unique(faces)) < len(points) / 2:
        return False
    diagonal = float(np.linalg.norm(np.ptp(points, axis=0)))
    corners = points[faces]
    longest = np.max([np.linalg.norm(corners[:, i] - corners[:, i - 1], axis=1) for i in range(3)], axis=0)
    area = np.linalg.norm(_area_vectors(points, faces), axis=1)
    return bool(area[longest > COARSE_EDGE * diagonal].sum() > COARSE_AREA * area.sum() > 0)


def sample_surface(points: Points, faces: Faces) -> tuple[Points, Points]:
    """Return points spread evenly over the faces, and their faces' normals; the same every time."""
    area_vectors = _area_vectors(points, faces)
    area = np.linalg.norm(area_vectors, axis=1)
    diagonal = float(np.linalg.norm(np.ptp(points, axis=0)))
    count = int(np.clip(area.sum() / 2 / (SAMPLE_SPACING * diagonal) ** 2, MIN_SAMPLES, MAX_SAMPLES))
    rng = np.random.default_rng(0)
    # Equal steps through the summed area: more even than independent draws.
    steps = (np.arange(count) + rng.random(count)) * (area.sum() / count)
    chosen = np.minimum(np.searchsorted(np.cumsum(area), steps), len(faces) - 1)
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = (points[faces[chosen, corner]] for corner in range(3))
    return a + u * (b - a) + v * (c - a), unit(area_vectors[chosen])


def _area_vectors(points: Points, faces: Faces) -> Points:
    """Return each face's normal, as long as twice its area."""
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    result: Points = np.cross(b - a, c - a)
    return result
