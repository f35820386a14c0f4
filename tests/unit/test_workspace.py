"""An agent's scratch folder: claimed by one, emptied, and one attempt never touches another's folders."""

import os
import subprocess
import sys

import pytest

from scanfleet.agent.workspace import OWNER_FILE, Scratch
from scanfleet.errors import ConfigurationError


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
