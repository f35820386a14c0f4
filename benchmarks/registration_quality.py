"""Measure the registration on made scan sets: python -m benchmarks.registration_quality [set ...].

For each set: how many seeds came out right, joined too little or joined wrongly, the worst error, CPU seconds
and the peak memory of the whole run. A wrong join counts as a failure of the run (exit code 1).
"""

import argparse
import resource
import sys
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.registration_scenes import ScanSet
from benchmarks.registration_sets import SETS
from scanfleet.reference_processor.registration import Registration, register
from scanfleet.reference_processor.scale import local_origin


@dataclass(frozen=True)
class Outcome:
    """One run: `error` worst root mean square misplacement of a scan in its group, in fine voxels and units.

    `wrong`: number of scans joined to ones that they have nothing in common with, or misplaced by 3 voxels;
    `missing`: groups more than there truly are; `degrees`: worst rotation error.
    """

    error_voxels: float
    error: float
    degrees: float
    wrong: int
    missing: int
    seconds: float


def measure(scans: ScanSet) -> Outcome:
    """Return how the registration of `scans` compares with their truth."""
    start = time.process_time()
    result = register(scans.scans)
    seconds = time.process_time() - start
    errors = [_error(scans, result, group[0], i) for group in result.groups for i in group[1:]]
    lost = sum(1 for _, _, related in errors if not related)
    worst = max((e for e, _, related in errors if related), default=0.0)
    misplaced = sum(1 for e, _, related in errors if related and e > 3 * result.voxel_size)
    return Outcome(
        error_voxels=worst / result.voxel_size,
        error=worst,
        degrees=max((d for _, d, related in errors if related), default=0.0),
        wrong=lost + misplaced,
        missing=max(len(result.groups) - len(scans.groups), 0),
        seconds=seconds,
    )


def _error(scans: ScanSet, result: Registration, first: int, i: int) -> tuple[float, float, bool]:
    """Return misplacement of scan `i` against `first`, rotation error in degrees, and whether they belong."""
    if not any(i in group and first in group for group in scans.groups):
        return 0.0, 0.0, False
    truth = np.linalg.inv(scans.truth[first]) @ scans.truth[i]
    points = scans.scans[i].points[:: max(1, len(scans.scans[i].points) // 2000)]
    centre = local_origin(points)
    found = result.poses[i]
    difference = (points - centre) @ (found[:3, :3] - truth[:3, :3]).T
    difference += (found[:3, :3] - truth[:3, :3]) @ centre + found[:3, 3] - truth[:3, 3]
    cosine = (np.trace(found[:3, :3].T @ truth[:3, :3]) - 1) / 2
    degrees = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return float(np.sqrt((difference**2).sum(axis=1).mean())), degrees, True


def main() -> int:
    """Print the table; return 1 if anything was joined wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    print("| set | right | incomplete | wrong | worst error (voxels) | degrees | CPU s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    wrong = 0
    for name in arguments.sets or SETS:
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        outcomes = [measure(SETS[name](seed)) for seed in seeds]
        bad = [seed for seed, o in zip(seeds, outcomes, strict=True) if o.wrong]
        incomplete = [s for s, o in zip(seeds, outcomes, strict=True) if o.missing and not o.wrong]
        wrong += len(bad)
        right = len(outcomes) - len(bad) - len(incomplete)
        good = [o for o in outcomes if not o.wrong]
        print(
            f"| {name} | {right}/{len(outcomes)} | {incomplete or ''} | {bad or ''} "
            f"| {max((o.error_voxels for o in good), default=0.0):.2f} "
            f"| {max((o.degrees for o in good), default=0.0):.3f} "
            f"| {float(np.median([o.seconds for o in outcomes])):.1f} |",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the process: {peak:.0f} MB")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
