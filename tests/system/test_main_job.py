"""The main job on one machine, as users meet it: real processes, the emulator, the reference processor."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from scanfleet import sample
from scanfleet.client import Scanfleet
from scanfleet.contract import MANIFEST_NAME
from scanfleet.jobs import FailureClass, JobState
from scanfleet.local.system import LocalSystem, Plan

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
COMPLETED, FAILED = JobState.COMPLETED, JobState.FAILED


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    home = tmp_path_factory.mktemp("system")
    with LocalSystem(
        Plan(repo_root=ROOT, state=home / "state", logs=home / "logs"), on_step=lambda _: None
    ) as started:
        yield started


@pytest.fixture
def client(system):
    with system.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return sample.make_sample(tmp_path_factory.mktemp("sample"), scans=6, points=20_000, seed=3)


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def pose(report: dict, name: str) -> np.ndarray:
    return np.array(next(scan["pose"] for scan in report["scans"] if Path(scan["file"]).name == name))


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart two poses put points 10 m from the origin, at most, in the poses' unit."""
    difference = one[:3] - other[:3]
    return float(np.linalg.norm(difference[:, 3]) + 10 * np.linalg.norm(difference[:, :3], ord=2))


class TestTheMainJob:
    """On a running system."""

    def test_a_sample_is_merged_within_its_noise(self, client: Scanfleet, made, tmp_path):
        handle = client.submit(made.scans_folder, tmp_path / "result")
        job = handle.wait()

        assert job.status is COMPLETED, job.failure
        error = sample.alignment_error(report_of(tmp_path / "result"), made)
        assert (error.scans_aligned, error.scans) == (6, 6)
        assert error.point_rmse_max_mm < 0.1
        names = {path.name for path in (tmp_path / "result").iterdir()}
        assert {"merged.ply", "report.json", MANIFEST_NAME} <= names
        assert sum(name.endswith(".png") for name in names) >= 3
        assert set(job.stage_seconds) >= {"read", "register", "merge", "write"}
        assert "scanfleet_stage: register" in client.log(handle.job_id)

    def test_the_kinect_frames_become_one_room(self, client, shared_data, tmp_path):
        job = client.submit(shared_data / "scans" / "kinect_room", tmp_path / "result").wait()

        assert job.status is COMPLETED, job.failure
        assert report_of(tmp_path / "result")["verdict"] == "aligned"

    def test_the_car_sweeps_agree_with_the_reference_pose(self, client, shared_data, tmp_path):
        folder = shared_data / "scans" / "car"
        job = client.submit(folder, tmp_path / "result").wait()

        assert job.status is COMPLETED, job.failure
        report = report_of(tmp_path / "result")
        found = np.linalg.inv(pose(report, "car_cloud400.csv")) @ pose(report, "car_cloud401.csv")
        # Two poses are published for this pair: no farther from the first than the second is.
        row = (folder / "carCloudList.csv").read_text().splitlines()[2].split(",")[1:]
        first = np.array(row, dtype=float).reshape(4, 4)
        second = np.linalg.inv(np.loadtxt(folder / "icp_reference_4x4.txt"))
        assert apart(found, first) <= apart(second, first)

    def test_the_two_halves_of_the_hippo_are_put_together(self, client, shared_data, tmp_path):
        job = client.submit(shared_data / "scans" / "hippo", tmp_path / "result").wait()

        assert job.status is COMPLETED, job.failure
        report = report_of(tmp_path / "result")
        assert report["verdict"] == "aligned"
        (pair,) = [pair for pair in report["pairs"] if pair["accepted"]]
        assert pair["overlap"] > 0.5

    @pytest.mark.parametrize(
        "name", ["empty.ply", "no_vertex.ply", "missingheader.pcd", "malformed.obj", "crash-30d6d0f7.ply"]
    )
    def test_a_broken_file_fails_the_job_as_bad_input_and_is_named(
        self, client, shared_data, made, tmp_path, name
    ):
        folder = tmp_path / "scans"
        folder.mkdir()
        good = sorted(made.scans_folder.iterdir())[0]
        (folder / good.name).write_bytes(good.read_bytes())
        (folder / name).write_bytes((shared_data / "bad" / "mesh" / name).read_bytes())

        job = client.submit(folder, tmp_path / "result").wait()

        assert job.status is FAILED
        assert job.failure.failure_class is FailureClass.BAD_INPUT
        assert name in job.failure.reason
        assert job.attempt == 1

    def test_the_agents_live_on_after_bad_input(self, client, system):
        assert {agent["agent_id"] for agent in client.load().instances} == {"agent-1", "agent-2"}
        system.processes.raise_if_dead()

    def test_a_cancelled_job_stops_and_publishes_nothing(self, client, system, made, tmp_path):
        handle = client.submit(made.scans_folder, tmp_path / "result")
        wait_until(lambda: handle.refresh().status is JobState.PROCESSING)

        handle.cancel()
        job = handle.wait()

        assert job.status is JobState.CANCELLED
        assert job.result is None
        for agent in system.processes.running():
            wait_until(lambda agent=agent: not psutil.Process(agent.pid).children(recursive=True))


def test_another_agent_finishes_the_job_of_a_killed_one(tmp_path, made):
    plan = Plan(repo_root=ROOT, state=tmp_path / "state", logs=tmp_path / "logs")
    with LocalSystem(plan, on_step=lambda _: None) as system, Scanfleet(system.url) as client:
        handle = client.submit(made.scans_folder, tmp_path / "result")
        wait_until(lambda: handle.refresh().status is JobState.PROCESSING)
        victim = handle.refresh()
        agent_id = next(a["agent_id"] for a in client.load().instances if handle.job_id in a["job_ids"])
        children = {c.name: c.pid for c in system.processes.running()}

        os.kill(children[agent_id], signal.SIGKILL)
        job = handle.wait()

    assert victim.attempt == 1
    assert job.status is COMPLETED, job.failure
    assert job.attempt == 2
    assert [failure.failure_class for failure in job.failures] == [FailureClass.LOST_MACHINE]
    assert job.failures[0].agent_id == agent_id
    assert report_of(tmp_path / "result")["verdict"] == "aligned"


# --- The commands ------------------------------------------------------------------------------------------


class Command:
    """`python -m scanfleet.local ...` in a terminal of its own, with everything it started watched."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scanfleet.local", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.family: set[psutil.Process] = set()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def await_line(self, part: str, *, seconds: float = 120) -> None:
        wait_until(
            lambda: any(part in line for line in self.lines) or self.process.poll() is not None,
            seconds=seconds,
        )
        assert any(part in line for line in self.lines), self.text
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))

    def finish(self, *, seconds: float = 180) -> int:
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self._reader.join()
            self.process.stdout.close()
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def left_over(self) -> list[str]:
        """Return the command lines of those it started that still run."""
        _, alive = psutil.wait_procs(self.family, timeout=5)
        return [" ".join(process.cmdline()) for process in alive]

    def child(self, word: str) -> psutil.Process:
        """Return the started process whose command line holds the word, not its guardian."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            line = process.cmdline()
            if any(word in part for part in line) and not any("guardian.py" in part for part in line):
                return process
        raise AssertionError(f"no {word} among the started processes")


def test_make_run_does_the_main_job_and_leaves_nothing_behind():
    command = Command("run")
    command.await_line("POST http://127.0.0.1")
    code = command.finish()

    assert code == 0, command.text
    assert command.lines[-1].startswith("RESULT ")
    result = json.loads(command.lines[-1].removeprefix("RESULT "))
    assert result["status"] == "completed"
    assert result["error_against_truth"]["point_rmse_max_mm"] < 0.1
    assert len(list(Path(result["result_folder"]).glob("preview_*.png"))) >= 3
    assert {"downloading", "processing", "uploading", "register"} <= set(result["seconds_by_stage"])
    assert command.left_over() == []


def test_make_run_with_a_folder_that_is_none_says_so():
    command = Command("run", "--scans", "/no/such/folder")

    assert command.finish() == 1
    assert "/no/such/folder is not a folder" in command.text


def test_make_run_with_nothing_readable_says_what_is_readable_and_fails(tmp_path):
    (tmp_path / "notes.docx").write_text("no scan")
    command = Command("run", "--scans", str(tmp_path))
    command.await_line("POST http://127.0.0.1")

    assert command.finish() == 1
    assert "PLY" in command.text
    assert "Source Folder Path" in command.text
    assert command.left_over() == []


def test_ctrl_c_during_the_job_stops_everything():
    command = Command("run")
    command.await_line("POST http://127.0.0.1")

    command.process.send_signal(signal.SIGINT)

    assert command.finish() == 130
    assert command.left_over() == []


def test_the_emulators_death_ends_the_run_with_a_clear_message():
    command = Command("run")
    command.await_line("POST http://127.0.0.1")

    command.child("emulator_entry").kill()

    assert command.finish() == 1
    assert "emulator was killed by signal 9" in command.text
    assert command.left_over() == []


def test_make_up_keeps_its_jobs_over_a_restart(tmp_path, made):
    plan = Plan(repo_root=ROOT, state=tmp_path / "state", logs=tmp_path / "logs", agents=1)
    with LocalSystem(plan, on_step=lambda _: None) as system, system.client() as client:
        job = client.submit(made.scans_folder, tmp_path / "result").wait()
        assert job.status is COMPLETED, job.failure

    with LocalSystem(plan, on_step=lambda _: None) as system, system.client() as client:
        again = client.get(job.job_id)
        client.download_result(again, tmp_path / "again")

    assert again == job
    assert report_of(tmp_path / "again") == report_of(tmp_path / "result")


def test_make_up_says_where_everything_is_and_ends_well_with_ctrl_c(tmp_path):
    ports = ("--port", "0", "--emulator-port", "0")
    command = Command("up", "--agents", "1", *ports, "--state", str(tmp_path))
    command.await_line("Ctrl-C stops everything")

    command.process.send_signal(signal.SIGINT)

    assert command.finish() == 0, command.text
    for part in ("console", "API", "S3 endpoint", "submit"):
        assert part in command.text
    assert command.left_over() == []
