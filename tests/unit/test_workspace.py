"""An agent's scratch folder: claimed by one, emptied, and one attempt never touches another's folders."""

import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from scanfleet.agent.stale_workspaces import remove_stale_workspaces, removing_stale_workspaces
from scanfleet.agent.workspace import OWNER_FILE, Scratch
from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError
from scanfleet.jobs import new_job_id


@pytest.fixture
def scratch(tmp_path):
    made = Scratch(tmp_path / "scratch")
    made.claim()
    return made


def test_an_attempt_gets_three_empty_folders_and_leaves_nothing(scratch):
    with scratch.workspace("job", 1) as workspace:
        for folder in (workspace.folders.input, workspace.folders.work, workspace.folders.output):
            assert list(folder.iterdir()) == []
            (folder / "file").write_text("x")
        assert workspace.folders.input == scratch.folder / "job" / "1" / "input"

    assert [path.name for path in scratch.folder.iterdir()] == [OWNER_FILE]


def test_an_attempt_that_lost_its_lease_leaves_its_successor_alone(scratch):
    with scratch.workspace("job", 2) as second:
        with scratch.workspace("job", 1):
            pass

        assert second.folders.output.is_dir()


def test_the_workspace_is_removed_when_the_attempt_fails(scratch):
    with pytest.raises(RuntimeError, match="boom"), scratch.workspace("job", 1):
        raise RuntimeError("boom")

    assert not (scratch.folder / "job").exists()


def leave(scratch, job_id, attempt):
    """Leave an attempt's folder behind, as an attempt does whose files could not be removed."""
    folder = scratch.folder / job_id / str(attempt) / "output"
    folder.mkdir(parents=True)
    (folder / "open.ply").write_text("x")
    return folder


def test_a_folder_of_an_attempt_that_no_longer_runs_is_removed_while_the_agent_lives(scratch):
    first, second = new_job_id(), new_job_id()
    leave(scratch, first, 3)

    with scratch.workspace(first, 4) as running, scratch.workspace(second, 1):
        (running.folders.output / "result").write_text("x")
        gone = scratch.remove_stale()

        assert [(stale.job_id, stale.attempt) for stale in gone] == [(first, 3)]
        assert (running.folders.output / "result").read_text() == "x"
        assert not (scratch.folder / first / "3").exists()
        assert (scratch.folder / second / "1" / "input").is_dir()
    assert scratch.remove_stale() == []
    assert [path.name for path in scratch.folder.iterdir()] == [OWNER_FILE]


def test_a_folder_whose_attempt_could_not_remove_it_is_removed_later(scratch, monkeypatch):
    job_id = new_job_id()
    with monkeypatch.context() as open_file:
        open_file.setattr(shutil, "rmtree", lambda *_, **__: None)  # as Windows leaves a file that is open
        with scratch.workspace(job_id, 1) as workspace:
            (workspace.folders.work / "open").write_text("x")
        assert scratch.remove_stale() == [], "what is still there is not told as removed"

    assert [stale.root for stale in scratch.remove_stale()] == [scratch.folder / job_id / "1"]
    assert not (scratch.folder / job_id).exists()


def test_what_is_no_attempts_folder_is_left_alone(scratch):
    for name in ("notes", f"{new_job_id()}/cache", f"{new_job_id()}/-1"):
        (scratch.folder / name).mkdir(parents=True)
    target = scratch.folder.parent / "elsewhere"
    (target / "1").mkdir(parents=True)
    (scratch.folder / new_job_id()).symlink_to(target)

    assert scratch.remove_stale() == []
    assert (target / "1").is_dir()


def test_looks_at_any_instant_never_touch_a_running_attempt(scratch):
    job_id, end = new_job_id(), threading.Event()

    def look():
        while not end.is_set():
            scratch.remove_stale()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for attempt in range(1, 200):
            with scratch.workspace(job_id, attempt) as workspace:
                (workspace.folders.output / "file").write_text("x")
                assert (workspace.folders.output / "file").read_text() == "x"
    finally:
        end.set()
        looker.join()


def test_each_removed_folder_is_told_once(scratch, caplog):
    job_id = new_job_id()
    leave(scratch, job_id, 1)

    for _ in range(2):
        remove_stale_workspaces(scratch, Pool.LINUX_CPU)

    told = [(r.repair, r.job_id, r.attempt) for r in caplog.records if r.action == "repaired"]
    assert told == [("workspace_stale", job_id, 1)]


def test_the_looks_end_with_the_agent(scratch):
    folder = leave(scratch, new_job_id(), 1)

    with removing_stale_workspaces(scratch, Pool.LINUX_CPU, every=timedelta(milliseconds=5)):
        deadline = time.monotonic() + 60
        while folder.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    assert "stale-workspaces" not in {thread.name for thread in threading.enumerate()}


def test_what_an_earlier_life_left_is_removed(tmp_path):
    folder = tmp_path / "scratch"
    (folder / "old-job" / "1").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    (folder / OWNER_FILE).write_text("999999999 1.0")

    Scratch(folder).claim()

    assert [path.name for path in folder.iterdir()] == [OWNER_FILE]
    assert tmp_path.is_dir()


def test_a_folder_of_a_living_agent_is_refused(tmp_path):
    folder = tmp_path / "scratch"
    claim = (
        "import sys; from pathlib import Path; from scanfleet.agent.workspace import Scratch;"
        "Scratch(Path(sys.argv[1])).claim(); print('claimed', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", claim, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"claimed\n"

        with pytest.raises(ConfigurationError, match=str(other.pid)):
            Scratch(folder).claim()
    finally:
        other.communicate()

    Scratch(folder).claim()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(ConfigurationError, match="SCANFLEET_SCRATCH"):
        Scratch(tmp_path / "scratch").claim()


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "scratch").write_text("x")

    with pytest.raises(ConfigurationError, match="SCANFLEET_SCRATCH"):
        Scratch(tmp_path / "scratch").claim()
