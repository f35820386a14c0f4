"""The image's test phase: golden sets are really run, and each bound that is broken is named."""

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from scanfleet import golden
from scanfleet.errors import ConfigurationError, JobFailure
from scanfleet.processors.base import Invocation
from scanfleet.processors.medit_autotest import PROGRAM
from scanfleet.processors.reference import ReferenceProcessor


class Scripted(ReferenceProcessor):
    """The reference processor's settings, with a program of one line in its place."""

    name = "reference"

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def prepare(self, job: Any, folders: Any) -> Invocation:
        argv = (sys.executable, "-c", self._program, str(folders.output))
        return Invocation(argv=argv, cwd=folders.work)


WRITES_REPORT = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
(out / "report.json").write_text(json.dumps({"quality": {"rmse": 0.04, "all": [1, 2]}}))
(out / "merged.ply").write_bytes(b"x" * 100)
"""


@pytest.fixture
def golden_set(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "scans").mkdir(parents=True)
    (folder / "scans" / "a.ply").write_bytes(b"ply")
    return folder


def expect(folder: Path, **facts: Any) -> None:
    document = {"processor": "reference", "files": [{"name": "merged.ply"}]} | facts
    (folder / "expected.json").write_text(json.dumps(document))


def check(folder: Path, tmp_path: Path, program: str = WRITES_REPORT, seconds: float = 60) -> tuple[str, ...]:
    processors = {"reference": Scripted(program)}
    return golden.check_set(folder, tmp_path / "run", processors=processors, limit_seconds=seconds).problems


def test_a_result_within_its_bounds_is_good(golden_set, tmp_path):
    number = {"path": "quality.rmse", "at_least": 0.01, "at_most": 0.05}
    expect(
        golden_set,
        files=[{"name": "merged.ply", "bytes_at_least": 100, "bytes_at_most": 100}],
        numbers=[number, {"path": "quality.all.1", "at_least": 2}],
    )

    assert check(golden_set, tmp_path) == ()


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"files": [{"name": "mesh.obj"}]}, "mesh.obj is missing"),
        ({"files": [{"name": "merged.ply", "bytes_at_least": 101}]}, "has 100 bytes"),
        ({"files": [{"name": "merged.ply", "bytes_at_most": 99}]}, "has 100 bytes"),
        ({"numbers": [{"path": "quality.rmse", "at_most": 0.03}]}, "quality.rmse is 0.04"),
        ({"numbers": [{"path": "quality.rmse", "at_least": 0.05}]}, "quality.rmse is 0.04"),
        ({"numbers": [{"path": "quality.median", "at_most": 1}]}, "quality.median is no number"),
        ({"numbers": [{"file": "other.json", "path": "a", "at_most": 1}]}, "a is no number"),
    ],
)
def test_each_bound_that_is_broken_is_named(golden_set, tmp_path, facts, named):
    expect(golden_set, **facts)

    (problem,) = check(golden_set, tmp_path)

    assert named in problem


def test_a_program_that_fails_is_named_with_its_last_lines(golden_set, tmp_path):
    expect(golden_set)

    problems = check(golden_set, tmp_path, "import sys; print('no GPU'); sys.exit(3)")

    assert "3" in problems[0]
    assert problems[-1] == "| no GPU"


def test_a_program_that_is_too_slow_is_stopped(golden_set, tmp_path):
    expect(golden_set, seconds_at_most=0.5)

    problems = check(golden_set, tmp_path, "input() if False else __import__('threading').Event().wait(60)")

    assert problems[0] == "took longer than 0.5 s and was stopped"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": []}', '{"files": [{"name": "a"}], "typo": 1}']
)
def test_an_expectation_that_expects_nothing_is_refused(golden_set, tmp_path, content):
    (golden_set / "expected.json").write_text(content)

    with pytest.raises(ConfigurationError, match=r"expected\.json"):
        check(golden_set, tmp_path)


def test_a_setting_that_the_program_does_not_know_is_refused(golden_set, tmp_path):
    expect(golden_set, settings={"Use GPUs": True})

    with pytest.raises(ConfigurationError, match="Use GPU"):
        check(golden_set, tmp_path)


def test_a_set_comes_from_s3_and_cannot_leave_its_folder(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        session = boto3.session.Session(region_name="us-east-1")
        s3 = session.client("s3")
        s3.create_bucket(Bucket="golden")
        for key in ("v1/", "v1/expected.json", "v1/scans/a.ply", "v10/scans/b.ply"):
            s3.put_object(Bucket="golden", Key=key, Body=b"{}")

        golden.download_set("s3://golden/v1/", tmp_path / "set", session=session)

        found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
        assert found == {"set/expected.json", "set/scans/a.ply"}

        s3.put_object(Bucket="golden", Key="v1/../../escape", Body=b"")
        with pytest.raises(JobFailure, match="could leave the folder"):
            golden.download_set("s3://golden/v1/", tmp_path / "other", session=session)


def test_a_release_without_its_program_fails_the_image(tmp_path):
    (tmp_path / "1.0").mkdir()
    (tmp_path / ".active").write_text("1.0\n")

    with pytest.raises(ConfigurationError, match=PROGRAM):
        golden.installed(tmp_path)


def test_the_image_has_the_closed_program_once_a_release_is_active(tmp_path):
    assert set(golden.installed(tmp_path)) == {"reference"}

    (tmp_path / "1.0").mkdir()
    (tmp_path / "1.0" / PROGRAM).write_bytes(b"MZ")
    (tmp_path / ".active").write_text("1.0\n")

    assert set(golden.installed(tmp_path)) == {"reference", "medit_autotest"}


def test_the_generated_sample_is_really_run_and_measured(tmp_path, monkeypatch, capsys):
    # The image takes 8 scans of 60,000 points; here the same code takes less time.
    monkeypatch.setattr(golden, "SAMPLE_SCANS", 6)
    monkeypatch.setattr(golden, "SAMPLE_POINTS", 12_000)
    words = ["--seconds-at-most", "200", "--releases", str(tmp_path)]

    assert golden.main(words) == 0
    assert "generated sample: good after" in capsys.readouterr().out

    monkeypatch.setattr(golden, "SAMPLE_RMSE_AT_MOST_MM", 1e-6)
    assert golden.main(words) == 1
    said = capsys.readouterr().out
    assert "generated sample: BROKEN" in said
    assert "the largest point error in mm is" in said


def test_a_set_that_cannot_be_used_shows_before_the_image_is_built(tmp_path, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    words = ["--only-read", "--seconds-at-most", "60", "--releases", str(tmp_path), "--set"]
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="golden")
        s3.put_object(Bucket="golden", Key="v1/scans/a.ply", Body=b"")

        assert golden.main([*words, "none"]) == 0
        assert golden.main([*words, "s3://golden/v1/"]) == 1
        assert "has no expected.json" in capsys.readouterr().err

        expected = {"processor": "reference", "files": [{"name": "merged.ply"}]}
        s3.put_object(Bucket="golden", Key="v1/expected.json", Body=json.dumps(expected))
        assert golden.main([*words, "s3://golden/v1/"]) == 0
        assert "for reference" in capsys.readouterr().out
