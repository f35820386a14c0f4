"""The reference processor as the agent starts it: a real child process on made scans."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scanfleet.errors import ConfigurationError, InvalidRequest
from scanfleet.jobs import FailureClass, Job, JobState, new_job_id
from scanfleet.processors.base import AttemptFolders, ProgramExit, read_protocol_line
from scanfleet.processors.medit_settings import KEYS
from scanfleet.processors.reference import ReferenceProcessor
from scanfleet.reference_processor.config import BadConfig, read_config
from scanfleet.reference_processor.readers import read_scan
from scanfleet.sample import alignment_error, make_sample


@pytest.fixture
def folders(tmp_path) -> AttemptFolders:
    made = AttemptFolders(tmp_path / "input", tmp_path / "work", tmp_path / "output")
    for folder in (made.input, made.work, made.output):
        folder.mkdir()
    return made


def job_with(settings: dict) -> Job:
    processor = ReferenceProcessor()
    return Job(
        job_id=new_job_id(),
        owner="me",
        processor=processor.name,
        pool=processor.pool,
        source_uri="s3://b/in/",
        target_uri="s3://b/out/",
        settings=processor.validate_settings(settings),
        state=JobState.PROCESSING,
        created_at=0.0,
        queued_at=0.0,
        state_changed_at=0.0,
    )


def start(folders: AttemptFolders, settings: dict | None = None) -> subprocess.CompletedProcess:
    """Run the program as the agent does and return how it ended."""
    call = ReferenceProcessor().prepare(job_with(settings or {}), folders)
    environment = {**os.environ, **call.env}
    return subprocess.run(
        call.argv, cwd=call.cwd, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def reasons(result: subprocess.CompletedProcess) -> list[str]:
    told = [read_protocol_line(line) for line in result.stdout.splitlines()]
    return [progress.failure_reason for progress in told if progress and progress.failure_reason]


def report_of(folders: AttemptFolders) -> dict:
    return json.loads((folders.output / "report.json").read_text(encoding="utf-8"))


def write_points(path: Path, points: np.ndarray) -> None:
    np.savetxt(path, points, fmt="%.6f")


def wavy(count: int, seed: int) -> np.ndarray:
    """A wavy sheet, another one for each seed."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 10, (2, count))
    waves = rng.uniform(0.4, 1.6, 6)
    z = (
        np.sin(waves[0] * x + waves[1] * y)
        + 0.5 * np.cos(waves[2] * x - waves[3] * y)
        + 0.3 * np.sin(waves[4] * x * y / 4)
    )
    return np.stack([x, y, z], axis=1)


# --- The whole program -------------------------------------------------------------------------------------


def test_a_sample_is_aligned_merged_meshed_drawn_and_reported(tmp_path, folders):
    truth = make_sample(tmp_path / "sample", scans=6, points=12_000, seed=1)
    for path in truth.scans_folder.iterdir():
        path.rename(folders.input / path.name)
    (folders.input / "notes.md").write_text("patient 7")

    settings = {"Complete Type": 1, "Reduce Roughness": 1, "Save Source To Result Folder": True}
    result = start(folders, settings)

    assert result.returncode == 0, result.stdout + result.stderr
    report = report_of(folders)
    assert report["verdict"] == "aligned"
    error = alignment_error(report, truth)
    assert error.scans_aligned == 6
    assert error.point_rmse_max_mm is not None
    assert error.point_rmse_max_mm < 0.5
    names = {
        path.relative_to(folders.output).as_posix() for path in folders.output.rglob("*") if path.is_file()
    }
    assert names == {
        "merged.ply",
        "mesh.ply",
        "report.json",
        *(f"preview_{side}.png" for side in ("front", "left", "top", "scans")),
        *(f"sources/scan_0{k}.ply.ply" for k in range(1, 7)),
    }
    merged = read_scan(folders.output / "merged.ply", "merged.ply")
    assert merged.points_read == report["points_out"] == report["groups"][0]["points_out"]
    assert report["points_in"] == sum(scan["points_read"] for scan in report["scans"])
    assert [item["file"] for item in report["ignored"]] == ["notes.md"]
    assert set(report["settings"]) == set(KEYS)
    assert report["settings"]["Use GPU"]["honoured"] is False
    stages = ["read", "register", "merge", "clean", "smooth", "mesh", "write"]
    assert set(report["seconds"]) == {*stages, "total"}
    told = [progress for line in result.stdout.splitlines() if (progress := read_protocol_line(line))]
    assert [progress.stage for progress in told if progress.stage] == stages
    percents = [progress.percent for progress in told if progress.percent is not None]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0


def test_scans_that_do_not_overlap_are_reported_and_never_merged(folders):
    write_points(folders.input / "a.xyz", wavy(4_000, 1))
    rng = np.random.default_rng(2)
    ball = rng.normal(size=(4_000, 3))
    write_points(folders.input / "b.xyz", 3 * ball / np.linalg.norm(ball, axis=1, keepdims=True))

    result = start(folders)

    assert result.returncode == 0, result.stdout + result.stderr
    report = report_of(folders)
    assert report["verdict"] == "no_overlap"
    assert [group["scans"] for group in report["groups"]] in ([["a.xyz"], ["b.xyz"]], [["b.xyz"], ["a.xyz"]])
    assert (folders.output / "merged_group2.ply").is_file()
    assert "nothing was merged" in report["summary"]


def test_one_scan_is_cleaned_and_drawn(folders):
    (folders.input / "deep" / "er").mkdir(parents=True)
    write_points(folders.input / "deep" / "er" / "a.xyz", wavy(5_000, 1))

    result = start(folders)

    report = report_of(folders)
    assert (result.returncode, report["verdict"]) == (0, "single_scan")
    assert report["scans"][0]["file"] == "deep/er/a.xyz"
    assert report["scans"][0]["pose"] == np.eye(4).tolist()


# --- Bad input ---------------------------------------------------------------------------------------------


def test_a_broken_scan_is_bad_input_and_is_named(folders):
    write_points(folders.input / "good.xyz", wavy(4_000, 1))
    (folders.input / "cut.ply").write_bytes(
        b"ply\nformat ascii 1.0\nelement vertex 900\n"
        b"property float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n"
    )

    result = start(folders)

    failure = ReferenceProcessor().explain_exit(ProgramExit(result.returncode, reasons(result)[-1]))
    assert failure is not None
    assert failure.failure_class == FailureClass.BAD_INPUT
    assert failure.reason.startswith("cut.ply: the header states 900")
    assert "Traceback" not in result.stderr
    assert not list(folders.output.iterdir())


def test_a_folder_without_scans_is_bad_input_that_says_what_was_found(folders):
    (folders.input / "poses.txt").write_text("1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n")
    (folders.input / "photo.jpg").write_bytes(b"x")

    result = start(folders)

    assert result.returncode == 65
    assert "poses.txt: it is a 4 x 4 matrix" in reasons(result)[0]


def test_real_broken_files_are_bad_input(shared_data, folders):
    for path in sorted((shared_data / "bad" / "mesh").iterdir())[:2]:
        (folders.input / path.name).write_bytes(path.read_bytes())

        result = start(folders)

        assert result.returncode == 65
        assert path.name in reasons(result)[0]
        (folders.input / path.name).unlink()


# --- Configuration -----------------------------------------------------------------------------------------


def config_of(folder: Path, **changes: object) -> Path:
    content = {"Source Folder Path": str(folder), "Target Folder Path": str(folder / "out"), **changes}
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


def test_each_key_has_its_documented_meaning(tmp_path):
    changes = {
        "Force Global Align": True,
        "Compensate Occlusion Align": True,
        "Compensate Occlusion Level": 2,
        "Apply High Resolution to Prep": True,
        "High Resolution Merge Type": 1,
        "Complete Type": 7,
        "File Size": 24,
        "Reduce Roughness": 99,
    }

    config = read_config(config_of(tmp_path, **changes))

    assert (config.force_global, config.compensate_occlusion, config.mesh, config.smoothing) == (
        True,
        2,
        2,
        5,
    )
    assert config.merge_fineness == pytest.approx(0.35)
    assert config.max_points == 1_000_000


@pytest.mark.parametrize(
    "changes", [{"Source Folder Path": 5}, {"Target Folder Path": ""}, {"Use GPU": "yes"}, {"File Size": -1}]
)
def test_a_wrong_key_is_refused_by_name(tmp_path, changes):
    with pytest.raises(BadConfig, match=next(iter(changes))):
        read_config(config_of(tmp_path, **changes))


def test_a_configuration_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")

    with pytest.raises(BadConfig, match=r"config\.json"):
        read_config(path)


def test_a_wrong_command_line_is_told():
    result = subprocess.run(
        [sys.executable, "-m", "scanfleet.reference_processor", "scans"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 64
    assert "--iScanComplete" in reasons(result)[0]


# --- The adapter -------------------------------------------------------------------------------------------


def test_the_adapter_accepts_scans_by_their_ending_in_any_case():
    processor = ReferenceProcessor()

    assert all(processor.accepts(key) for key in ("a/b.PLY", "c.stl", "d.Xyz", "e.pts"))
    assert not any(processor.accepts(key) for key in ("a.jpg", "ply", "a.ply.tmp", "config.json"))


def test_the_adapter_explains_exits():
    explain = ReferenceProcessor().explain_exit

    classes = {code: explain(ProgramExit(code)) for code in (65, 137, 70, -11)}

    assert explain(ProgramExit(0)) is None
    assert {code: failure.failure_class for code, failure in classes.items() if failure} == {
        65: FailureClass.BAD_INPUT,
        137: FailureClass.OUT_OF_MEMORY,
        70: FailureClass.PROGRAM_ERROR,
        -11: FailureClass.CRASH,
    }


def test_the_adapter_refuses_unknown_settings_and_misses_what_is_not_installed(monkeypatch):
    with pytest.raises(InvalidRequest):
        ReferenceProcessor().validate_settings({"Complete Typ": 1})

    ReferenceProcessor().check_ready()
    monkeypatch.setattr("scanfleet.processors.reference.MODULES", ("numpy", "no_such_library"))
    with pytest.raises(ConfigurationError, match=r"no_such_library.*scanfleet\[reference\]"):
        ReferenceProcessor().check_ready()
