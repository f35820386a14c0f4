"""The main job as its users meet it: `make run` once installed, and a cancel of a running job."""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from benchmarks.harness import Row, run_child
from scanfleet.client import Scanfleet
from scanfleet.jobs import JobState
from scanfleet.local.system import LocalSystem, Plan
from scanfleet.sample import make_sample

ROOT = Path(__file__).resolve().parent.parent
RUNS = 3
CANCELS = 5
LOOK_SECONDS = 0.02


def rows() -> list[Row]:
    """Return the main job's figures."""
    command = [sys.executable, "-m", "scanfleet.local", "run"]
    runs = [run_child(command, cwd=ROOT) for _ in range(RUNS)]
    results = [json.loads(output.splitlines()[-1].removeprefix("RESULT ")) for _, output in runs]
    worst = max(result["error_against_truth"]["point_rmse_max_mm"] for result in results)
    cancels = _cancel_seconds()
    return [
        Row.limit("make run, installed (median)", median(c.seconds for c, _ in runs), "s", at_most=60),
        Row.fact("make run: alignment error of the sample, worst pair", worst, "mm"),
        Row.limit("cancel to program and job ended (median)", median(cancels), "s", at_most=2),
        Row.limit("cancel to program and job ended (worst)", max(cancels), "s", at_most=2),
    ]


def _cancel_seconds() -> list[float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(repo_root=ROOT, state=folder / "state", logs=folder / "logs", agents=1)
        scans = make_sample(folder / "sample").scans_folder
        with LocalSystem(plan, on_step=lambda _: None) as system, system.client() as client:
            source = client.upload_folder(scans)
            return [_cancel_one(client, source) for _ in range(CANCELS)]


def _cancel_one(client: Scanfleet, source: str) -> float:
    """Return the seconds from asking for the cancel to the ended job: the program is gone before that."""
    handle = client.submit(source, source.replace("source/", "result/"))
    pause = threading.Event()
    while handle.refresh().status is not JobState.PROCESSING:
        pause.wait(LOOK_SECONDS)
    asked = time.monotonic()
    handle.cancel()
    while not handle.refresh().is_finished:
        pause.wait(LOOK_SECONDS)
    return time.monotonic() - asked
