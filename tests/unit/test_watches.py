"""Which budgets a run gets, and what is remembered of it."""

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from scanfleet.agent.budgets import ENOUGH_RUNS, StageBudget
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.tools import Run
from scanfleet.agent.watches import Watches
from scanfleet.agent.workspace import Scratch
from scanfleet.attempts import Machine
from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError
from scanfleet.history import RunHistory
from scanfleet.jobs import Failure, FailureClass, Job, new_job_id
from scanfleet.objects import ObjectStore
from scanfleet.past_runs import PastRun, Place, settings_fingerprint
from scanfleet.processors.base import Progress
from scanfleet.settings import AgentSettings, load
from tests.support.cloud import moto_job_table
from tests.support.scripted_program import ScriptedProcessor

GB = 1024**3


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def dynamodb(monkeypatch):
    with moto_job_table(monkeypatch) as client:
        yield client


@pytest.fixture
def history(dynamodb):
    return RunHistory(dynamodb, "jobs", reread=timedelta())


@pytest.fixture
def set_up(monkeypatch, tmp_path, history):
    """Return watches of an agent with these settings besides the required ones."""

    def watches(**changed: str) -> Watches:
        required = {
            "JOB_TABLE": "jobs",
            "QUEUES": '{"linux-cpu": {"normal": "http://q", "high": "http://q"}}',
            "DEAD_LETTERS": '{"linux-cpu": "http://q"}',
            "ARTIFACTS_BUCKET": "artifacts",
            "ALLOWED_PREFIXES": "s3://data/",
            "POOL": "linux-cpu",
            "SCRATCH": str(tmp_path / "scratch"),
        }
        for name, value in (required | changed).items():
            monkeypatch.setenv(f"SCANFLEET_{name}", value)
        objects = ObjectStore(boto3.client("s3", region_name="us-east-1"))
        return Watches(load(AgentSettings), objects, history)

    return watches


@pytest.fixture
def run_of(tmp_path):
    """Return a run of a job with these facts."""
    scratch = Scratch(tmp_path / "scratch")
    scratch.claim()
    log = ProgramLog(tmp_path / "program.log")

    with scratch.workspace(new_job_id(), 1) as workspace:

        def run(**facts) -> Run:
            now = time.time()
            defaults = {
                "job_id": new_job_id(),
                "owner": "ann",
                "processor": "scripted",
                "pool": Pool.LINUX_CPU,
                "source_uri": "s3://data/in/",
                "target_uri": "s3://data/out/",
                "created_at": now,
                "queued_at": now,
                "state_changed_at": now,
            }
            return Run(
                job=Job(**(defaults | facts)),
                processor=ScriptedProcessor(),
                workspace=workspace,
                program_log=log,
                board=ProgressBoard(time.monotonic),
                input_bytes=GB,
            )

        yield run
    log.close()
    scratch.release()


def hang() -> Failure:
    return Failure(
        failure_class=FailureClass.HANG, reason="stood still", attempt=1, at=datetime.now(UTC), agent_id="a1"
    )


def remember(history: RunHistory, duration: float) -> None:
    """Keep just enough runs of that duration: some find the place of another."""
    while len(history.like("scripted", input_bytes=GB)) < ENOUGH_RUNS:
        past = PastRun(duration, {"align": duration})
        history.add("scripted", input_bytes=GB, job_id=new_job_id(), run=past)


def test_without_settings_and_past_runs_the_defaults_count(set_up, run_of):
    budgets = set_up().budgets(run_of())

    assert budgets.total == seconds(3600)
    assert (budgets.startup, budgets.idle, budgets.finish) == (seconds(180), seconds(120), seconds(60))
    assert budgets.total_of("align") is None


def test_a_jobs_own_limit_is_its_total(set_up, run_of):
    assert set_up().budgets(run_of(time_limit_seconds=500)).total == seconds(500)


def test_settings_set_every_budget(set_up, run_of):
    watches = set_up(
        TIME_LIMIT_SECONDS="100",
        WATCHDOG_STARTUP_SECONDS="10",
        WATCHDOG_IDLE_SECONDS="11.5",
        WATCHDOG_FINISH_SECONDS="12",
        WATCHDOG_STAGE_SECONDS="13",
        WATCHDOG_STAGES='{"export": {"idle_seconds": 14, "seconds": 15}, "load": {}}',
    )

    budgets = watches.budgets(run_of())

    assert budgets.total == seconds(100)
    assert (budgets.startup, budgets.idle, budgets.finish) == (seconds(10), seconds(11.5), seconds(12))
    assert budgets.stage == seconds(13)
    assert budgets.stages["export"] == StageBudget(idle=seconds(14), total=seconds(15))
    assert budgets.idle_in("load") == seconds(11.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WATCHDOG_IDLE_SECONDS", "0"),
        ("WATCHDOG_IDLE_SECONDS", "inf"),
        ("WATCHDOG_STAGES", "align"),
        ("WATCHDOG_STAGES", '{"align": {"idle": 3}}'),
        ("WATCHDOG_STAGES", '{"align": {"seconds": -1}}'),
    ],
)
def test_a_wrong_setting_is_named(set_up, name, value):
    with pytest.raises(ConfigurationError, match=f"SCANFLEET_{name}"):
        set_up(**{name: value})


def test_past_runs_shorten_the_limits(set_up, run_of, history):
    remember(history, 400.0)

    budgets = set_up().budgets(run_of())

    assert budgets.total == seconds(1200)
    assert budgets.total_of("align") == seconds(1600)


def test_learning_can_be_switched_off(set_up, run_of, history):
    remember(history, 400.0)

    assert set_up(WATCHDOG_LEARNS="false").budgets(run_of()).total == seconds(3600)


def test_a_job_that_hung_before_is_judged_by_the_set_limits(set_up, run_of, history):
    remember(history, 400.0)

    assert set_up().budgets(run_of(failures=(hang(),))).total == seconds(3600)


def test_a_hang_that_an_owner_has_forgiven_does_not_count(set_up, run_of, history):
    remember(history, 400.0)

    assert set_up().budgets(run_of(failures=(hang(),), failures_forgiven=1)).total == seconds(1200)


def test_a_completed_run_is_remembered_with_all_that_is_known_of_it(set_up, run_of, history):
    machine = Machine(instance_id="i-1", instance_type="g4dn.xlarge", ami_id="ami-1", driver="537.70")
    job = {"agent_id": "a1", "release": "4.2", "settings": {"Reduce Roughness": 1}}
    times = {"started_at": 100.0, "state_changed_at": 112.0}
    run = replace(run_of(**job, **times), machine=machine, beside=2)
    run.board.update(Progress(percent=55.0, stage="align"))
    watch = set_up()(run)

    watch.completed({"align": 3.0})

    (past,) = history.near("scripted", input_bytes=GB)
    assert past.stages == {"align": 3.0}
    assert past.seconds >= 0
    assert past.place == Place(
        agent_id="a1",
        instance_id="i-1",
        instance_type="g4dn.xlarge",
        ami_id="ami-1",
        driver="537.70",
        release="4.2",
        busy=2,
    )
    assert past.settings == settings_fingerprint({"Reduce Roughness": 1})
    assert (past.input_bytes, past.download_seconds, past.upload_seconds) == (GB, 12.0, 0.0)
    assert sorted(past.marks) == [10, 20, 30, 40, 50]
    assert past.finished_at == pytest.approx(time.time(), abs=60)
    assert past.expected is None, "it was the first"


def test_what_was_expected_of_a_run_is_remembered_and_told(set_up, run_of, history, caplog):
    remember(history, 400.0)
    caplog.set_level(logging.INFO)
    watch = set_up()(run_of())

    watch.completed({}, since_end=0.0)

    past = max(history.near("scripted", input_bytes=GB), key=lambda run: run.finished_at)
    assert past.expected.low <= 400.0 <= past.expected.high
    assert past.expected.likely == pytest.approx(400.0)
    (told,) = [record for record in caplog.records if getattr(record, "action", "") == "run_compared"]
    assert told.job_id


def test_a_run_of_which_nothing_can_be_told_goes_on(set_up, run_of, history, monkeypatch):
    def fail(*_facts, **_more):
        raise ZeroDivisionError

    monkeypatch.setattr("scanfleet.agent.watches.Forecast", fail)

    set_up()(run_of()).completed({}, since_end=0.0)

    (past,) = history.near("scripted", input_bytes=GB)
    assert past.expected is None


def test_marks_count_from_the_programs_start(set_up, run_of, history):
    watches, run = set_up(), run_of()
    watch = watches(run)
    run.board.update(Progress(percent=95.0))

    watch.completed({}, since_end=0.0)

    (past,) = history.near("scripted", input_bytes=GB)
    assert sorted(past.marks) == list(range(10, 100, 10))
    assert all(0 <= seconds <= past.seconds for seconds in past.marks.values())
