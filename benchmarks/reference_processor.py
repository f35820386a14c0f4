"""Seconds and peak memory of the reference processor for 2, 6 and 12 scans of 200,000 points.

Scans of the made dental arch; the program runs as the agent starts it. There is no peer with the same command
line, so the rows are reported; the bars are the project's own: 1.5 GB for 12 scans.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scanfleet.sample import make_sample

SCANS = (2, 6, 12)
POINTS = 200_000
MEMORY_BAR_MB = 1500.0
TIMEOUT_SECONDS = 900


def rows() -> list[dict[str, Any]]:
    """Return the table's rows: {what, value, unit, peer, ratio, bar, met}."""
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in SCANS:
            # The maker has 6 scans at least; of them the first two overlap.
            truth = make_sample(folder / f"made{count}", scans=max(count, 6), points=POINTS)
            for extra in sorted(truth.scans_folder.iterdir())[count:]:
                extra.unlink()
            table += _measured(count, truth.scans_folder, folder / f"result{count}")
    return table


def _measured(count: int, scans: Path, target: Path) -> list[dict[str, Any]]:
    config = target.with_suffix(".json")
    settings = {"Source Folder Path": str(scans), "Target Folder Path": str(target), "Reduce Roughness": 1}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "scanfleet.reference_processor", "--iScanComplete", str(config)]
    began = time.perf_counter()
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(program.pid, 0)
    seconds = time.perf_counter() - began
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode != 0:
        raise RuntimeError(f"the program ended with {program.returncode} for {count} scans")
    report = json.loads((target / "report.json").read_text(encoding="utf-8"))
    what = f"reference processor, {count} scans of {POINTS:,} points"
    peak = usage.ru_maxrss / 1024
    return [
        _row(f"{what}: seconds ({report['verdict']})", seconds, "s"),
        _row(f"{what}: CPU seconds", usage.ru_utime + usage.ru_stime, "s"),
        _row(f"{what}: registration seconds", report["seconds"]["register"], "s"),
        _row(f"{what}: peak memory", peak, "MB", bar=MEMORY_BAR_MB),
    ]


def _row(what: str, value: float, unit: str, *, bar: float | None = None) -> dict[str, Any]:
    met = None if bar is None else value <= bar
    return {
        "what": what,
        "value": round(value, 2),
        "unit": unit,
        "peer": None,
        "ratio": None,
        "bar": bar,
        "met": met,
    }


if __name__ == "__main__":
    print(json.dumps(rows(), indent=1))
