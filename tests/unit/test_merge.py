"""Merging, cleaning, smoothing and meshing keep to the surface that was measured."""

import numpy as np
import pytest

from scanfleet.reference_processor.merge import merge, moved, surface_normals, without_outliers
from scanfleet.reference_processor.mesh import reconstruct
from scanfleet.reference_processor.outward import sees_everything
from scanfleet.reference_processor.scan import Scan
from scanfleet.reference_processor.smooth import smooth


def sphere(count: int, *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Points of the unit sphere."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * (1.0 + rng.normal(scale=noise, size=(count, 1)))


def turned(angle: float, shift: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = shift
    return pose


def radius_error(points: np.ndarray) -> float:
    return float(np.sqrt(((np.linalg.norm(points, axis=1) - 1.0) ** 2).mean()))


def merged_sphere(*, noise: float = 0.0, voxel: float = 0.04, max_points: int = 10**6):
    poses = np.stack([np.eye(4), turned(0.7, (3.0, 1.0, 0.5))])
    scans = []
    for k, pose in enumerate(poses):
        points = sphere(15_000, noise=noise, seed=k)
        normals = points / np.linalg.norm(points, axis=1, keepdims=True)
        inverse = np.linalg.inv(pose)
        scans.append(Scan(str(k), moved(points, inverse), normals @ inverse[:3, :3].T))
    return merge(scans, poses, (0, 1), voxel=voxel, max_points=max_points)


def test_scans_are_merged_in_the_common_frame_one_point_a_voxel():
    cloud, voxel = merged_sphere()

    assert voxel == 0.04
    assert int(cloud.count.sum()) == 30_000
    assert len(np.unique(np.floor(cloud.points / voxel), axis=0)) == pytest.approx(
        len(cloud.points), rel=0.01
    )
    assert radius_error(cloud.points) < 1e-3
    assert set(cloud.scan) == {0, 1}


def test_a_limit_of_points_makes_the_voxel_larger():
    cloud, voxel = merged_sphere(max_points=2_000)

    assert len(cloud.points) <= 2_000
    assert voxel > 0.04


def test_noise_thicker_than_the_voxel_is_brought_back_onto_the_surface():
    noisy, _ = merged_sphere(noise=0.03, voxel=0.02)

    assert radius_error(noisy.points) < 0.6 * 0.03


def test_lonely_points_are_removed_and_the_surface_stays():
    cloud, _ = merged_sphere()
    rng = np.random.default_rng(5)
    far = rng.uniform(-3, 3, size=(40, 3))
    far = far[np.abs(np.linalg.norm(far, axis=1) - 1) > 0.3]
    scan = Scan("all", np.concatenate([cloud.points, far]), None)
    dirty, _ = merge([scan], np.eye(4)[None], (0,), voxel=0.01, max_points=10**6)

    clean, near = without_outliers(dirty)

    off = np.abs(np.linalg.norm(clean.points, axis=1) - 1) > 0.3
    assert off.sum() <= 0.1 * len(far)
    assert (~off).sum() > 0.995 * len(cloud.points)
    assert near.index.max() < len(clean.points)


def test_normals_point_out_and_smoothing_lowers_the_noise_without_shrinking():
    cloud, _ = merged_sphere(noise=0.006)
    clean, near = without_outliers(cloud)

    normals = surface_normals(clean, near)
    smoothed = smooth(clean.points, normals, near, passes=3)

    assert ((normals * clean.points).sum(axis=1) > 0.9).mean() > 0.98
    assert radius_error(smoothed) < 0.7 * radius_error(clean.points)
    assert np.linalg.norm(smoothed, axis=1).mean() == pytest.approx(1.0, abs=5e-3)


def test_far_from_the_origin_nothing_is_lost():
    points = sphere(8_000) + np.array([500_000.0, 6_000_000.0, 100.0])
    scan = Scan("map", points, sphere(8_000))

    cloud, _ = merge([scan], np.eye(4)[None], (0,), voxel=0.05, max_points=10**6)

    assert radius_error(cloud.points - [500_000.0, 6_000_000.0, 100.0]) < 2e-3


def test_a_sensor_at_the_origin_is_told_from_an_objects_own_frame():
    front = sphere(20_000)
    front = front[front[:, 2] < -0.1] + [0.0, 0.0, 5.0]
    whole = sphere(20_000) + np.array([0.0, 0.0, 5.0])

    assert sees_everything(front)
    assert not sees_everything(whole)


def euler_characteristic(faces: np.ndarray) -> int:
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0
    )
    return len(np.unique(faces)) - len(edges) + len(faces)


def test_a_sphere_becomes_a_closed_mesh_that_looks_outward():
    points = sphere(20_000)

    mesh = reconstruct(points, points, np.full(len(points), 0.03), cell=0.05, fill_holes=True)

    assert radius_error(mesh.points) < 0.01
    assert euler_characteristic(mesh.faces) == 2
    a, b, c = (mesh.points[mesh.faces[:, k]] for k in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi, rel=0.02)


def test_a_mesh_of_what_was_measured_leaves_large_holes_open():
    points = sphere(20_000)
    points = points[points[:, 2] < 0.7]

    mesh = reconstruct(points, points, np.full(len(points), 0.03), cell=0.05, fill_holes=False)

    assert mesh.points[:, 2].max() < 0.8
    assert len(mesh.faces) > 1_000
