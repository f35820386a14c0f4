"""The registration on made scans with known truth, and on what must not be joined."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.registration_scenes import Points, ScanSet, axis_rotation, random_rotation
from benchmarks.registration_sets import SETS, room_panoramas, solid, statue
from scanfleet.reference_processor.registration import Registration, Verdict, register
from scanfleet.reference_processor.scan import Scan


def misplacement(scans: ScanSet, result: Registration, i: int, first: int = 0) -> float:
    """Return the root mean square distance of scan `i` from its true place, in fine voxels."""
    truth = np.linalg.inv(scans.truth[first]) @ scans.truth[i]
    points = scans.scans[i].points[::20]
    difference = result.poses[i] - truth
    centre = points.mean(axis=0)
    off = (points - centre) @ difference[:3, :3].T + difference[:3, :3] @ centre + difference[:3, 3]
    return float(np.sqrt((off**2).sum(axis=1).mean())) / result.voxel_size


def moved(scan: Scan, rotation: Points, shift: Points) -> Scan:
    return replace(scan, points=scan.points @ rotation.T + shift)


@pytest.fixture(scope="module")
def figure() -> ScanSet:
    """Three views, 60 degrees apart, in frames of their own."""
    whole = statue(11)
    return replace(whole, scans=whole.scans[:3], truth=whole.truth[:3], groups=((0, 1, 2),))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_length_does_not_matter(figure: ScanSet, scale: float) -> None:
    scans = [replace(s, points=s.points * scale) for s in figure.scans]
    truth = figure.truth.copy()
    truth[:, :3, 3] *= scale

    result = register(scans)

    assert result.verdict is Verdict.ALIGNED
    assert max(misplacement(replace(figure, scans=scans, truth=truth), result, i) for i in (1, 2)) < 0.5


def test_coordinates_of_a_map_grid_cost_no_accuracy(figure: ScanSet) -> None:
    offset = np.array([6.1e5, 5.3e6, 120.0])
    scans = [replace(s, points=s.points + offset) for s in figure.scans]
    truth = figure.truth.copy()
    truth[:, :3, 3] -= np.einsum("nij,j->ni", truth[:, :3, :3], offset)

    result = register(scans)

    assert result.verdict is Verdict.ALIGNED
    assert max(misplacement(replace(figure, scans=scans, truth=truth), result, i) for i in (1, 2)) < 0.5


def test_the_same_seed_gives_the_same_poses(figure: ScanSet) -> None:
    one, two = register(figure.scans[:2], seed=5), register(figure.scans[:2], seed=5)

    np.testing.assert_array_equal(one.poses, two.poses)


def test_a_sparse_scan_finds_its_place_on_a_dense_one(figure: ScanSet) -> None:
    thin = replace(figure.scans[1], points=figure.scans[1].points[::5])
    scans = replace(figure, scans=[figure.scans[0], thin])

    result = register(scans.scans)

    assert result.verdict is Verdict.ALIGNED
    assert misplacement(scans, result, 1) < 0.5


def test_a_third_of_common_surface_is_enough() -> None:
    scans = statue(0, count=4)

    result = register(scans.scans)

    # Views a quarter turn apart have 20 to 45 % in common.
    assert result.verdict is Verdict.ALIGNED
    assert max(misplacement(scans, result, i) for i in range(1, 4)) < 0.5


def test_rooms_with_bare_walls_are_put_together_by_their_furniture() -> None:
    scans = room_panoramas(0, count=3)

    result = register(scans.scans)

    assert result.verdict is Verdict.ALIGNED
    assert max(misplacement(scans, result, i) for i in (1, 2)) < 0.5


def test_a_stranger_among_the_scans_is_left_alone(figure: ScanSet) -> None:
    stranger = statue(77, count=3).scans[0]

    result = register([stranger, *figure.scans[:2]])

    assert result.verdict is Verdict.PARTIAL
    assert result.groups == ((1, 2), (0,))
    np.testing.assert_array_equal(result.poses[0], np.eye(4))
    assert all(p.reason for p in result.pairs)


@pytest.mark.parametrize(
    "name", ["two-statues", "front-and-back", "two-rooms", "two-streets", "ends-of-the-arch"]
)
def test_scans_that_have_nothing_in_common_are_not_joined(name: str) -> None:
    result = register(SETS[name](1).scans)

    assert result.verdict is Verdict.NO_OVERLAP
    assert not any(p.accepted for p in result.pairs)


@pytest.mark.parametrize("kind", ["plane", "cylinder", "ball", "box"])
def test_a_shape_that_does_not_fix_its_pose_is_not_joined(kind: str) -> None:
    result = register(solid(kind, 2).scans)

    assert result.verdict is Verdict.NO_OVERLAP
    assert result.pairs[0].reason


def test_force_global_ignores_where_the_files_put_the_scans(figure: ScanSet) -> None:
    result = register(figure.scans[:2], force_global=True)

    assert result.verdict is Verdict.ALIGNED
    assert misplacement(figure, result, 1) < 0.5


def test_a_pair_says_how_much_overlaps_and_maps_source_onto_target(figure: ScanSet) -> None:
    result = register(figure.scans[:2])

    (pair,) = result.pairs
    assert pair.accepted
    assert 0.2 < pair.overlap <= 1.0
    assert 0.0 < pair.inlier_rmse < result.resolution
    np.testing.assert_allclose(np.linalg.inv(result.poses[0]) @ result.poses[1], pair.transform, atol=1e-6)


def test_one_scan_is_its_own_frame(figure: ScanSet) -> None:
    result = register(figure.scans[:1])

    assert result.verdict is Verdict.SINGLE_SCAN
    np.testing.assert_array_equal(result.poses, np.eye(4)[None])


def test_progress_rises_to_a_hundred(figure: ScanSet) -> None:
    seen: list[float] = []

    register(figure.scans[:2], on_progress=seen.append)

    assert seen == sorted(seen)
    assert seen[-1] == 100.0


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_a_handful_of_points_is_refused_rather_than_crashed_on(count: int) -> None:
    rng = np.random.default_rng(0)
    scans = [Scan("a", rng.normal(size=(count, 3))), Scan("b", rng.normal(size=(count, 3)))]

    assert register(scans).verdict is Verdict.NO_OVERLAP


def test_points_that_all_coincide_are_refused_rather_than_crashed_on() -> None:
    scans = [Scan("a", np.ones((100, 3))), Scan("b", np.zeros((100, 3)))]

    assert register(scans).verdict is Verdict.NO_OVERLAP


def test_no_scans_and_empty_scans_are_errors() -> None:
    with pytest.raises(ValueError, match="need scans with points"):
        register([])
    with pytest.raises(ValueError, match="need scans with points"):
        register([Scan("empty", np.zeros((0, 3)))])


def test_scans_delivered_nearly_right_stay_there(figure: ScanSet) -> None:
    rng = np.random.default_rng(3)
    world = [moved(s, t[:3, :3], t[:3, 3]) for s, t in zip(figure.scans, figure.truth, strict=True)]
    tilt = axis_rotation(1, 0.03)
    scans = [world[0], moved(world[1], tilt, rng.normal(0, 0.01, 3))]
    truth = np.tile(np.eye(4), (2, 1, 1))
    truth[1, :3, :3] = tilt.T
    truth[1, :3, 3] = -tilt.T @ (scans[1].points[0] - tilt @ world[1].points[0])

    result = register(scans)

    assert misplacement(replace(figure, scans=scans, truth=truth), result, 1) < 0.5


def test_random_rotations_are_rotations() -> None:
    rotation = random_rotation(np.random.default_rng(0))

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
