"""A scan set with known truth, so that accuracy can be measured without foreign data.

folder/scans/scan_01.ply ...   what a job gets: each scan in its sensor's frame, millimetres
folder/truth.json              beside it, never uploaded: the poses that bring the scans together
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanfleet.sample_arch import make_arch, place_sensors, see

Array = NDArray[np.float64]

SCANS_FOLDER = "scans"
TRUTH_NAME = "truth.json"
MIN_SCANS, MAX_SCANS = 6, 12
PROBES = 64
"""Points of each scan that the truth keeps: alignment errors in millimetres are measured at them."""


@dataclass(frozen=True)
class SampleTruth:
    """What is known about a sample.

    scans_folder: what to submit. poses: file name -> (4, 4), scan frame to common frame, mm.
    probes: file name -> (PROBES, 3) points of the scan in its own frame, without noise.
    """

    scans_folder: Path
    poses: Mapping[str, Array]
    probes: Mapping[str, Array]


@dataclass(frozen=True)
class AlignmentError:
    """How far the reported poses are from the truth, over all pairs of scans that the report puts together.

    Relative poses are compared, so the result's frame does not matter. Degrees and millimetres (root mean
    square over the probes). scans_aligned: scans in the largest group; scans: scans in the truth. The figures
    are None when no pair is together.
    """

    scans: int
    scans_aligned: int
    pairs: int
    rotation_median_deg: float | None
    rotation_max_deg: float | None
    point_rmse_median_mm: float | None
    point_rmse_max_mm: float | None


def make_sample(
    folder: Path,
    *,
    scans: int = 8,
    points: int = 60_000,
    noise_mm: float = 0.02,
    outlier_share: float = 0.002,
    seed: int = 1,
) -> SampleTruth:
    """Write a sample into `folder` and return its truth; the same files for the same arguments.

    scans: 6 to 12. points: per scan, at most. noise_mm: standard deviation along each axis. outlier_share:
    part of the points that is replaced by points up to 8 mm off the surface.
    Raises ValueError naming the argument, its value and what is allowed.
    """
    if not MIN_SCANS <= scans <= MAX_SCANS:
        raise ValueError(f"scans: got {scans}, allowed is {MIN_SCANS} to {MAX_SCANS}")
    if not 1_000 <= points <= 2_000_000:
        raise ValueError(f"points: got {points}, allowed is 1000 to 2000000")
    rng = np.random.default_rng(seed)
    arch = make_arch()
    target = folder / SCANS_FOLDER
    names = [f"scan_{number:02d}.ply" for number in range(1, scans + 1)]
    target.mkdir(parents=True, exist_ok=True)
    strangers = sorted({path.name for path in target.iterdir()} - set(names))
    if strangers:
        # A scan of another sample beside these would be submitted, and merged, with them.
        raise ValueError(f"folder: {target} already holds {strangers[0]}; allowed is an empty folder")
    poses: dict[str, Array] = {}
    probes: dict[str, Array] = {}
    for number, sensor in enumerate(place_sensors(arch, scans, rng), start=1):
        name = names[number - 1]
        seen = see(arch, sensor, points=points, rng=rng)
        poses[name] = sensor.pose
        probes[name] = seen[rng.choice(len(seen), PROBES, replace=False)]
        _write_ply(target / name, _measured(seen, noise_mm, outlier_share, rng))
    truth = SampleTruth(scans_folder=target, poses=poses, probes=probes)
    _write_truth(folder / TRUTH_NAME, truth, seed=seed)
    return truth


def read_truth(folder: Path) -> SampleTruth:
    """Return the truth of a sample that `make_sample` wrote into `folder`."""
    content = json.loads((folder / TRUTH_NAME).read_text(encoding="utf-8"))
    return SampleTruth(
        scans_folder=folder / SCANS_FOLDER,
        poses={name: np.array(scan["pose"]) for name, scan in content["scans"].items()},
        probes={name: np.array(scan["probes"]) for name, scan in content["scans"].items()},
    )


def alignment_error(report: Mapping[str, Any], truth: SampleTruth) -> AlignmentError:
    """Return how far a reference processor's `report.json` is from the truth.

    report["scans"]: list of {"file", "pose": 4 x 4 scan to result, "group": number from 1}. Scans that the
    truth does not know are left out.
    """
    found = {
        Path(scan["file"]).name: (np.array(scan["pose"], dtype=float), scan["group"])
        for scan in report["scans"]
        if Path(scan["file"]).name in truth.poses
    }
    rotations, distances = [], []
    names = sorted(found)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if found[first][1] == found[second][1]:
                estimated = np.linalg.inv(found[first][0]) @ found[second][0]
                known = np.linalg.inv(truth.poses[first]) @ truth.poses[second]
                rotations.append(_angle_deg(estimated[:3, :3].T @ known[:3, :3]))
                distances.append(_point_rmse(estimated, known, truth.probes[second]))
    groups = [group for _, group in found.values()]
    return AlignmentError(
        scans=len(truth.poses),
        scans_aligned=max((groups.count(g) for g in groups), default=0) if rotations else 0,
        pairs=len(rotations),
        rotation_median_deg=float(np.median(rotations)) if rotations else None,
        rotation_max_deg=max(rotations, default=None),
        point_rmse_median_mm=float(np.median(distances)) if distances else None,
        point_rmse_max_mm=max(distances, default=None),
    )


def _angle_deg(rotation: Array) -> float:
    """Return the angle of a rotation matrix; from the sine too, because near 0 the cosine alone is blunt."""
    axis = rotation - rotation.T
    sine = np.sqrt((axis**2).sum() / 8.0)
    return float(np.rad2deg(np.arctan2(sine, (np.trace(rotation) - 1.0) / 2.0)))


def _point_rmse(estimated: Array, known: Array, points: Array) -> float:
    difference = estimated - known
    moved = points @ difference[:3, :3].T + difference[:3, 3]
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _measured(seen: Array, noise_mm: float, outlier_share: float, rng: np.random.Generator) -> Array:
    """Return the points as a sensor would report them: noisy, with a few outliers."""
    measured = seen + rng.normal(scale=noise_mm, size=seen.shape)
    wrong = rng.random(len(seen)) < outlier_share
    measured[wrong] += rng.uniform(-8.0, 8.0, size=(int(wrong.sum()), 3))
    return measured


def _write_ply(path: Path, points: Array) -> None:
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment made by scanfleet sample, millimetres\n"
        f"element vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_bytes(header.encode("ascii") + points.astype("<f4").tobytes())


def _write_truth(path: Path, truth: SampleTruth, *, seed: int) -> None:
    scans = {
        name: {"pose": pose.tolist(), "probes": np.round(truth.probes[name], 6).tolist()}
        for name, pose in truth.poses.items()
    }
    content = {"units": "mm", "seed": seed, "pose": "4 x 4, scan frame to common frame", "scans": scans}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
