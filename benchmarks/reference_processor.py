"""Seconds and peak memory of the reference processor for 2, 6 and 12 scans of 200,000 points.

Scans of the made dental arch; the program runs as the agent starts it. There is no peer with the same command
line, so most rows are facts; the bar on memory is the project's own: 1.5 GB for 12 scans.
"""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, run_child
from scanfleet.sample import MIN_SCANS, make_sample

SCANS = (2, 6, 12)
POINTS = 200_000
MEMORY_BAR_MB = 1500.0
TIMEOUT_SECONDS = 900


def rows() -> list[Row]:
    """Return the reference processor's figures."""
    table: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in SCANS:
            truth = make_sample(folder / f"made{count}", scans=max(count, MIN_SCANS), points=POINTS)
            for extra in sorted(truth.scans_folder.iterdir())[count:]:
                extra.unlink()  # the first two overlap
            table += _measured(count, truth.scans_folder, folder / f"result{count}")
    return table


def _measured(count: int, scans: Path, target: Path) -> list[Row]:
    config = target.with_suffix(".json")
    settings = {"Source Folder Path": str(scans), "Target Folder Path": str(target), "Reduce Roughness": 1}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "scanfleet.reference_processor", "--iScanComplete", str(config)]
    cost, _ = run_child(command, timeout_seconds=TIMEOUT_SECONDS)
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    what = f"{count} scans of {POINTS:,} points"
    return [
        Row.fact(f"{what}: whole program ({report['verdict']})", cost.seconds, "s"),
        Row.fact(f"{what}: CPU time", cost.cpu_seconds, "s"),
        Row.fact(f"{what}: registration", report["seconds"]["register"], "s"),
        Row.limit(f"{what}: peak memory", cost.peak_bytes / 1e6, "MB", at_most=MEMORY_BAR_MB),
    ]
