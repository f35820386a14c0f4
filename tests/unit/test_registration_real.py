"""The registration on published scans: a figure, a room and a street corner, against their references."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.registration_scenes import Points, random_rotation
from scanfleet.reference_processor.readers import read_scan
from scanfleet.reference_processor.registration import Verdict, register
from scanfleet.reference_processor.scan import Scan


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "scans"


def load(folder: Path, *names: str) -> list[Scan]:
    return [read_scan(folder / name, name).scan for name in names]


def apply(pose: Points, points: Points) -> Points:
    return points @ pose[:3, :3].T + pose[:3, 3]


def median_gap(one: Points, other: Points) -> float:
    return float(np.median(cKDTree(one).query(other)[0]))


def thrown(scan: Scan, rng: np.random.Generator) -> Scan:
    """Return the scan turned at random about its middle and shifted by its size."""
    middle = scan.points.mean(axis=0)
    shift = rng.normal(size=3) * np.ptp(scan.points, axis=0).max()
    return Scan(scan.name, (scan.points - middle) @ random_rotation(rng).T + shift)


def test_two_lidar_sweeps_land_on_their_reference_pose(folder: Path) -> None:
    scans = load(folder, "car/car_cloud400.csv", "car/car_cloud401.csv")
    rows = np.genfromtxt(folder / "car/carCloudList.csv", delimiter=",", skip_header=1)[:, 1:]
    reference = rows[1].reshape(4, 4)

    result = register(scans)

    assert result.verdict is Verdict.ALIGNED
    assert median_gap(scans[0].points, apply(result.poses[1], scans[1].points)) < 0.1
    off = apply(result.poses[1], scans[1].points) - apply(reference, scans[1].points)
    assert np.sqrt((off**2).sum(axis=1).mean()) < 0.15


@pytest.mark.parametrize("seed", [0, 1])
def test_two_halves_of_a_figure_come_together_from_any_start(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scans = [thrown(s, rng) for s in load(folder, "hippo/hippo1.obj", "hippo/hippo2.obj")]

    result = register(scans)

    assert result.verdict is Verdict.ALIGNED
    assert 0.6 < result.pairs[0].overlap < 0.95
    gap = median_gap(scans[0].points, apply(result.poses[1], scans[1].points))
    assert gap < result.resolution


def test_frames_of_a_room_come_together_thrown_about_as_they_do_as_delivered(folder: Path) -> None:
    frames = load(folder, *[f"kinect_room/capture000{k}.pcd" for k in (1, 2, 3)])
    frames = [Scan(s.name, s.points[::3]) for s in frames]
    rng = np.random.default_rng(4)
    tossed = [thrown(s, rng) for s in frames]

    as_delivered, global_only = register(frames), register(tossed)

    assert as_delivered.verdict is Verdict.ALIGNED
    assert global_only.verdict is Verdict.ALIGNED
    for k in (1, 2):
        one = apply(as_delivered.poses[k], frames[k].points[::50])
        # Bring the tossed frame 0 back onto the delivered one by its known points.
        back, *_ = np.linalg.lstsq(
            np.column_stack([tossed[0].points, np.ones(len(tossed[0].points))]), frames[0].points
        )
        other = apply(global_only.poses[k], tossed[k].points[::50])
        other = np.column_stack([other, np.ones(len(other))]) @ back
        assert np.sqrt(((one - other) ** 2).sum(axis=1).mean()) < 0.02


def test_a_room_and_a_figure_are_not_joined(folder: Path) -> None:
    room = load(folder, "kinect_room/capture0001.pcd")[0]
    figure = load(folder, "hippo/hippo1.obj")[0]
    scaled = Scan(figure.name, figure.points * 4)

    result = register([Scan(room.name, room.points[::4]), scaled])

    assert result.verdict is Verdict.NO_OVERLAP


def test_a_street_corner_and_a_room_are_not_joined(folder: Path) -> None:
    room = load(folder, "kinect_room/capture0003.pcd")[0]
    street = load(folder, "car/car_cloud401.csv")[0]

    result = register([Scan(room.name, room.points[::4]), street])

    assert result.verdict is Verdict.NO_OVERLAP
