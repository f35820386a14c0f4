"""Adapters: settings, command lines, progress lines, exit codes."""

import json
import sys

import pytest

from scanfleet.contract import Env, Pool
from scanfleet.errors import ConfigurationError, InvalidRequest
from scanfleet.jobs import FailureClass, Job, new_job_id
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, ProgramExit, Progress, explain_exit, read_protocol_line
from scanfleet.processors.medit_autotest import PROGRAM, MeditAutoTest
from scanfleet.processors.registry import known_processors, pool_processors
from scanfleet.processors.release_source import FixedRelease
from scanfleet.settings import AgentSettings, SystemSettings, load

ALL_KEYS = {
    "Force Global Align": True,
    "Save Source To Result Folder": False,
    "Use GPU": True,
    "Use GPU For Voxel Regeneration": True,
    "Compensate Occlusion Align": False,
    "Apply High Resolution to Prep": False,
    "Complete Type": 1,
    "File Size": 2,
    "Compensate Occlusion Level": 3,
    "Reduce Roughness": 4,
    "High Resolution Merge Type": 5,
}


@pytest.fixture
def folders(tmp_path):
    made = AttemptFolders(tmp_path / "input", tmp_path / "work", tmp_path / "output")
    for folder in (made.input, made.work, made.output):
        folder.mkdir()
    return made


@pytest.fixture
def job():
    return Job(
        job_id=new_job_id(),
        owner="ann",
        processor="medit_autotest",
        pool=Pool.WINDOWS_GPU,
        source_uri="s3://b/in/",
        target_uri="s3://b/out/",
        settings=ALL_KEYS,
        created_at=0,
        queued_at=0,
        state_changed_at=0,
    )


def test_all_keys_are_taken_as_they_are():
    assert medit_settings.validate(ALL_KEYS, allow_unknown=False) == ALL_KEYS


def test_left_out_keys_get_their_defaults():
    assert set(medit_settings.validate({}, allow_unknown=False)) == set(ALL_KEYS)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("Use GPU", 1, "true or false"),
        ("Use GPU", "true", "true or false"),
        ("Use GPU", None, "true or false"),
        ("Complete Type", True, "an integer"),
        ("Complete Type", 1.0, "an integer"),
        ("Complete Type", "1", "an integer"),
        ("Complete Type", -1, "an integer"),
        ("File Size", 2**31, "2147483647"),
        ("Reduce Roughness", [1], "an integer"),
    ],
)
def test_a_mistyped_key_is_refused_with_its_value_and_what_is_allowed(key, value, allowed):
    with pytest.raises(InvalidRequest) as caught:
        medit_settings.validate({key: value}, allow_unknown=False)

    (error,) = caught.value.errors
    assert (error.field, error.value) == (key, json.dumps(value))
    assert allowed in error.allowed


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(InvalidRequest, match='did you mean "Force Global Align"'):
        medit_settings.validate({"force global align": True}, allow_unknown=False)


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(InvalidRequest) as caught:
        medit_settings.validate({"Nonsense": 1, "Use GPU": 2, "File Size": "x"}, allow_unknown=False)

    assert {error.field for error in caught.value.errors} == {"Nonsense", "Use GPU", "File Size"}


def test_unknown_keys_pass_when_the_deployment_allows_them():
    assert medit_settings.validate({"New Key": 1}, allow_unknown=True)["New Key"] == 1


def test_medit_is_called_with_its_configuration_in_the_source_folder(tmp_path, folders, job):
    release = tmp_path / "release"
    release.mkdir()
    (release / PROGRAM).write_bytes(b"MZ")
    processor = MeditAutoTest(releases=FixedRelease(release))

    processor.check_ready()
    invocation = processor.prepare(job, folders)

    config = folders.input / "config.json"
    assert invocation.argv == (str(release / PROGRAM), "--iScanComplete", str(config))
    assert invocation.cwd == release
    paths = {"Source Folder Path": str(folders.input), "Target Folder Path": str(folders.output)}
    assert json.loads(config.read_text()) == paths | ALL_KEYS


def test_a_missing_release_is_a_clear_error_at_start_up(tmp_path):
    with pytest.raises(ConfigurationError, match="nor SCANFLEET_MEDIT_RELEASE_FOLDER is set"):
        MeditAutoTest(releases=None).check_ready()
    with pytest.raises(ConfigurationError, match=PROGRAM):
        MeditAutoTest(releases=FixedRelease(tmp_path)).check_ready()


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("Aligning 42 %", 42),
        ("merge: 7.5%", 7.5),
        ("100%", 100),
        ("142 %", None),
        ("50 % done", None),
        ("", None),
    ],
)
def test_medit_progress_is_the_percentage_at_a_lines_end(line, percent):
    told = MeditAutoTest(releases=None).read_line(line)

    assert told == (None if percent is None else Progress(percent=percent))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("scanfleet_progress: 42.5", Progress(percent=42.5)),
        ("scanfleet_progress: 0", Progress(percent=0)),
        ("scanfleet_stage: align", Progress(stage="align")),
        ("scanfleet_fail: a.ply is empty", Progress(failure_reason="a.ply is empty")),
        ("scanfleet_progress: 101", None),
        ("scanfleet_progress: -1", None),
        ("scanfleet_progress: nan", None),
        ("scanfleet_progress: inf", None),
        ("scanfleet_progress: lots", None),
        ("scanfleet_stage: <script>", None),
        ("scanfleet_stage: ", None),
        ("scanfleet_fail: ", None),
        (" scanfleet_progress: 5", None),
        ("hello", None),
    ],
)
def test_only_well_formed_protocol_lines_tell_something(line, told):
    assert read_protocol_line(line) == told


def test_exit_codes_become_failure_classes():
    assert explain_exit(ProgramExit(0)) is None
    assert explain_exit(ProgramExit(3)).failure_class is FailureClass.PROGRAM_ERROR
    assert explain_exit(ProgramExit(-11)).failure_class is FailureClass.CRASH
    assert explain_exit(ProgramExit(-9)).failure_class is FailureClass.OUT_OF_MEMORY
    access_violation = explain_exit(ProgramExit(0xC0000005))
    assert access_violation.failure_class is FailureClass.CRASH
    assert "0xC0000005" in access_violation.reason
    assert explain_exit(ProgramExit(3, "no overlap")).reason == "no overlap"


def test_the_interpreter_that_runs_the_reference_processor_is_this_one(folders, job):
    from scanfleet.processors.reference import ReferenceProcessor

    invocation = ReferenceProcessor().prepare(job, folders)

    assert invocation.argv[0] == sys.executable
    assert invocation.argv[-2:] == ("--iScanComplete", str(folders.input / "config.json"))


def test_the_deployment_says_which_pool_runs_the_reference_processor(monkeypatch):
    for name, value in {
        "SCANFLEET_JOB_TABLE": "jobs",
        "SCANFLEET_ARTIFACTS_BUCKET": "artifacts",
        "SCANFLEET_QUEUES": "{}",
        "SCANFLEET_ALLOWED_PREFIXES": "s3://data/",
    }.items():
        monkeypatch.setenv(name, value)
    assert known_processors(load(SystemSettings))["reference"].pool is Pool.LINUX_CPU

    monkeypatch.setenv(Env.REFERENCE_POOL, "windows-gpu")
    settings = load(SystemSettings)

    assert known_processors(settings)["reference"].pool is Pool.WINDOWS_GPU
    assert not pool_processors(settings, Pool.LINUX_CPU)


def test_the_closed_program_is_left_out_where_nothing_names_its_place_and_others_serve_the_pool(tmp_path):
    settings = {
        "job_table": "jobs",
        "artifacts_bucket": "a",
        "queues": "{}",
        "allowed_prefixes": "s3://data/",
    }
    both = SystemSettings(**settings, reference_pool="windows-gpu")
    alone = SystemSettings(**settings)

    assert set(pool_processors(both, Pool.WINDOWS_GPU)) == {"reference"}
    assert set(pool_processors(both, Pool.WINDOWS_GPU, FixedRelease(tmp_path))) == {
        "reference",
        "medit_autotest",
    }
    assert set(pool_processors(alone, Pool.WINDOWS_GPU)) == {"medit_autotest"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"medit_releases": "r"}, "SCANFLEET_RELEASE_BUCKET is needed"),
        ({"medit_releases": "r", "release_bucket": "b", "medit_release_folder": "f"}, "exclude each other"),
    ],
)
def test_where_releases_come_from_is_said_in_one_way(given, said):
    settings = {
        "job_table": "jobs",
        "artifacts_bucket": "a",
        "queues": "{}",
        "allowed_prefixes": "s3://data/",
    }

    with pytest.raises(ValueError, match=said):
        AgentSettings(**settings, pool="windows-gpu", scratch="s", **given)
