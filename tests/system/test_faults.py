"""A short fault campaign, and proof that broken builds do not get through one. docs/fault-campaign.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.plan import KINDS, make_plan

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
JOBS, SEED = 40, 11


def campaign(report: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a campaign of its own; return its exit code, its report and what it printed."""
    command = [sys.executable, "-m", "tests.faults", "--report", str(report), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(report.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(report.read_text()), done.stdout


def test_no_job_is_lost_doubled_or_left_behind_whatever_fails(tmp_path):
    arguments = ("--jobs", str(JOBS), "--seed", str(SEED))
    code, report, printed = campaign(tmp_path / "report.json", *arguments)

    assert report["problem_list"] == []
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith(
        f"FAULTS jobs={JOBS} faults={report['faults_happened']} lost=0"
    )
    assert report["faults_happened"] >= 2 * JOBS
    assert report["jobs_by_state"]["completed"] > JOBS / 2


@pytest.mark.parametrize(
    ("switch", "mode", "faults", "kind", "words"),
    [
        ("fencing", "slow", "agent_frozen,machine_frozen", "doubled", ("ends", "attempt")),
        ("tree-kill", "orphans", "latency", "orphans", ("outlives the job",)),
        ("publish-order", "normal", "latency", "doubled", ("came after the manifest",)),
    ],
)
def test_a_build_that_is_broken_on_purpose_fails_for_its_reason(tmp_path, switch, mode, faults, kind, words):
    size = ("--jobs", "8", "--seed", "5", "--agents", "3")
    what = ("--broken", switch, "--modes", mode, "--only", faults)
    code, report, printed = campaign(tmp_path / "report.json", *size, *what)

    assert code == 1
    assert report["problems"][kind] > 0, printed
    reasons = [problem["text"] for problem in report["problem_list"] if problem["kind"] == kind]
    assert any(word in reason for word in words for reason in reasons)


def test_a_campaign_whose_agents_do_not_run_ends_and_says_so(tmp_path):
    report = tmp_path / "report.json"
    # More jobs than run at once, so that some wait for room.
    arguments = ("--jobs", "40", "--agents", "3", "--broken", "start", "--report", str(report))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 1
    assert "agents do not run" in done.stderr
    assert not report.exists()


def test_the_same_seed_makes_the_same_plan_and_another_one_another():
    assert make_plan(jobs=50, seed=3).digest == make_plan(jobs=50, seed=3).digest
    assert make_plan(jobs=50, seed=3).digest != make_plan(jobs=50, seed=4).digest


def test_a_full_plan_holds_every_kind_of_fault_and_at_least_two_for_each_job():
    plan = make_plan(jobs=1000, seed=7)

    assert {fault.kind for fault in plan.faults} == set(KINDS)
    assert all(len(job.faults) >= 2 for job in plan.jobs)
