"""The sample is the same for the same seed, is a fair set of scans, and its truth measures alignments."""

import hashlib
import json

import numpy as np
import pytest
from scipy.spatial import cKDTree

from scanfleet.reference_processor.readers import read_scan
from scanfleet.sample import SampleTruth, alignment_error, make_sample, read_truth


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> SampleTruth:
    return make_sample(tmp_path_factory.mktemp("sample"), scans=6, points=4_000, seed=1)


def report_of(poses: dict[str, np.ndarray], groups: dict[str, int] | None = None) -> dict:
    return {
        "scans": [
            {"file": name, "pose": pose.tolist(), "group": (groups or {}).get(name, 1)}
            for name, pose in poses.items()
        ]
    }


def in_common_frame(truth: SampleTruth) -> list[np.ndarray]:
    return [
        read_scan(truth.scans_folder / name, name).scan.points @ pose[:3, :3].T + pose[:3, 3]
        for name, pose in truth.poses.items()
    ]


def test_the_same_seed_makes_the_same_files_and_another_seed_others(tmp_path):
    def digest(folder: str, seed: int) -> str:
        truth = make_sample(tmp_path / folder, scans=6, points=1_000, seed=seed)
        files = [*sorted(truth.scans_folder.iterdir()), tmp_path / folder / "truth.json"]
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    assert digest("a", 1) == digest("b", 1) != digest("c", 2)


def test_the_truth_lies_beside_the_scans_and_reads_back(sample):
    folder = sample.scans_folder.parent

    assert sorted(path.name for path in folder.iterdir()) == ["scans", "truth.json"]
    assert {path.name for path in sample.scans_folder.iterdir()} == set(sample.poses)
    again = read_truth(folder)
    for name, pose in sample.poses.items():
        np.testing.assert_array_equal(again.poses[name], pose)


def test_neighbouring_scans_overlap_partly_and_the_ends_do_not(sample):
    clouds = in_common_frame(sample)

    def overlap(i: int, j: int) -> float:
        return float((cKDTree(clouds[j]).query(clouds[i])[0] < 1.0).mean())

    best = [max(overlap(i, j) for j in range(6) if j != i) for i in range(6)]
    assert min(best) > 0.3
    assert max(best) < 0.98
    assert overlap(0, 5) < 0.1


def test_scans_lie_in_their_sensors_frames(sample):
    for name in sample.poses:
        points = read_scan(sample.scans_folder / name, name).scan.points
        assert np.quantile(points[:, 2], 0.01) > 50.0


def test_the_true_poses_have_no_error_in_whatever_frame_they_are_told(sample):
    frame = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])

    error = alignment_error(report_of({n: frame @ pose for n, pose in sample.poses.items()}), sample)

    assert (error.scans, error.scans_aligned, error.pairs) == (6, 6, 15)
    assert error.rotation_max_deg == pytest.approx(0.0, abs=1e-6)
    assert error.point_rmse_max_mm == pytest.approx(0.0, abs=1e-6)


def test_a_pose_that_is_off_is_measured_in_degrees_and_millimetres(sample):
    poses = dict(sample.poses)
    first = next(iter(poses))
    shift, angle = np.eye(4), np.deg2rad(2.0)
    shift[:3, 3] = [0.0, 0.5, 0.0]
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]

    shifted = alignment_error(report_of({**poses, first: shift @ poses[first]}), sample)
    turned = alignment_error(report_of({**poses, first: turn @ poses[first]}), sample)

    assert shifted.point_rmse_max_mm == pytest.approx(0.5)
    assert shifted.point_rmse_median_mm == pytest.approx(0.0, abs=1e-6)
    assert turned.rotation_max_deg == pytest.approx(2.0)


def test_scans_of_different_groups_are_not_compared(sample):
    groups = dict.fromkeys(sample.poses, 1)
    groups[next(iter(groups))] = 2

    error = alignment_error(report_of(dict(sample.poses), groups), sample)

    assert (error.scans_aligned, error.pairs) == (5, 10)


def test_no_scans_together_means_no_figures(sample):
    groups = {name: number for number, name in enumerate(sample.poses, start=1)}

    error = alignment_error(report_of(dict(sample.poses), groups), sample)

    assert (error.scans_aligned, error.pairs, error.rotation_median_deg) == (0, 0, None)


@pytest.mark.parametrize("arguments", [{"scans": 5}, {"scans": 13}, {"points": 10}])
def test_a_sample_out_of_bounds_is_refused_with_what_is_allowed(tmp_path, arguments):
    with pytest.raises(ValueError, match="allowed is"):
        make_sample(tmp_path, **arguments)


def test_the_truth_is_plain_json_in_millimetres(sample):
    content = json.loads((sample.scans_folder.parent / "truth.json").read_text())

    assert content["units"] == "mm"


def test_a_folder_that_holds_other_scans_is_refused(tmp_path):
    make_sample(tmp_path, scans=7, points=1_000)

    with pytest.raises(ValueError, match=r"scan_07\.ply"):
        make_sample(tmp_path, scans=6, points=1_000)
