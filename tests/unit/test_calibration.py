"""Calibrations with real processes of known scaling: the true knee, limits, interruption, and the verb."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import boto3
import psutil
import pytest
from typer.testing import CliRunner

from scanfleet import cli_calibrate
from scanfleet.agent.build import find_slots
from scanfleet.calibration import calibrate as calibrating
from scanfleet.calibration import plan
from scanfleet.calibration.calibrate import Request, calibrate
from scanfleet.calibration.meter import GpuMemoryMeter, MemoryMeter
from scanfleet.calibration.plan import Plan, jobs_a_slot, parse_slots, stretch_seconds
from scanfleet.calibration.records import CalibrationStore
from scanfleet.cli import app
from scanfleet.contract import Parameter, Pool, parameter_name
from scanfleet.errors import InvalidRequest, JobFailure
from scanfleet.jobs import FailureClass
from tests.support.cloud import moto_job_table
from tests.support.scaling_program import ScalingProcessor

MIB = 2**20
GUARD_SECONDS = 120.0


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    """Real stretches fill their share of the budget; here a job of each worker is enough."""
    monkeypatch.setattr(plan, "MOST_JOBS_A_SLOT", 1)


@pytest.fixture
def sample(tmp_path):
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "scan.txt").write_text("points")
    return folder


@pytest.fixture
def processor(tmp_path):
    return ScalingProcessor(tmp_path / "shared")


@pytest.fixture
def request_of(tmp_path, sample, processor):
    """A calibration of the stand-in: request_of(slots="1..4", parallel=2, ...)."""

    def make(*, slots="1..3", rounds=2, budget=GUARD_SECONDS, **settings):
        return Request(
            processor=processor,
            pool=Pool.LINUX_CPU,
            machine="stand-in",
            sample=sample,
            sample_name="sample",
            scratch=tmp_path / "scratch",
            plan=Plan(slots=parse_slots(slots), rounds=rounds, budget_seconds=budget),
            tolerance=0.10,
            memory_share=0.85,
            settings=settings,
        )

    return make


def memory_for(monkeypatch, count: int, each: int) -> None:
    """Let the machine have memory for so many programs of this size, and a little more."""
    monkeypatch.setattr(calibrating.machine, "memory_bytes", lambda: int((count + 0.5) * each / 0.85))
    monkeypatch.setattr(calibrating.machine, "available_bytes", lambda: 2**40)


def nothing_is_left(request: Request, processor: ScalingProcessor) -> bool:
    mine = [
        p for p in psutil.Process().children(recursive=True) if str(request.scratch) in " ".join(p.cmdline())
    ]
    return not mine and not request.scratch.exists()


# --- The knee ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parallel", "most"), [(1, 3), (2, 4)])
def test_the_knee_is_where_the_program_really_runs_side_by_side_no_more(
    request_of, processor, parallel, most
):
    # Starting a process takes time that is no part of the law: the program takes far longer.
    said = []

    result = calibrate(request_of(slots=f"1..{most}", seconds=1.5, parallel=parallel), say=said.append)

    assert result.calibration is not None
    assert result.calibration.slots == parallel, "\n".join(said)
    assert result.calibration.is_complete
    assert [point.slots for point in result.calibration.points] == list(range(1, most + 1))
    assert processor.most_side_by_side == most
    assert nothing_is_left(request_of(), processor)


def test_all_workers_run_while_a_job_counts(request_of):
    """Otherwise three slots would be measured with one or two programs."""
    result = calibrate(
        request_of(slots="1,3", rounds=1, budget=30, seconds=0.6, parallel=1), say=lambda line: None
    )

    assert result.calibration is not None
    three = result.calibration.points[-1]
    assert three.slots == 3
    assert three.p50_seconds > 1.5  # alone it would take 0.6 s and its start


# --- Limits --------------------------------------------------------------------------------------------


def test_slots_whose_projected_memory_is_too_much_are_never_tried(request_of, processor, monkeypatch):
    each = 64 * MIB
    memory_for(monkeypatch, 2, each + 12 * MIB)  # the interpreter has some of its own

    result = calibrate(
        request_of(slots="1..4", rounds=1, seconds=3.0, memory_bytes=each), say=lambda line: None
    )

    assert result.calibration is not None
    assert processor.most_side_by_side == 2
    assert result.calibration.slots == 2
    assert any("3 slots and more would have used more memory" in why for why in result.calibration.reasons)
    two = result.calibration.points[-1]
    assert 2 * each <= two.memory_bytes <= 2 * (each + 24 * MIB)


def test_programs_that_grow_beyond_the_limit_are_ended_at_once(request_of, processor, monkeypatch):
    """No projection tells: only side by side do they grow."""
    each = 64 * MIB
    memory_for(monkeypatch, 3, each)
    grown = 4 * each

    result = calibrate(
        request_of(
            slots="1..2",
            rounds=1,
            seconds=4.0,
            parallel=64,
            memory_bytes=each,
            grows_from=2,
            grown_bytes=grown,
        ),
        say=lambda line: None,
    )

    assert result.calibration is not None
    assert [point.slots for point in result.calibration.points] == [1]
    assert result.calibration.slots == 1
    assert nothing_is_left(request_of(), processor)


def test_a_count_at_which_the_program_fails_is_left_out_and_the_rest_counts(request_of, processor):
    said = []

    result = calibrate(request_of(slots="1..4", rounds=1, seconds=3.0, fails_from=3), say=said.append)

    assert result.calibration is not None
    assert [point.slots for point in result.calibration.points] == [1, 2]
    assert any("3 slots and more made the program fail" in why for why in result.calibration.reasons)
    assert any("too many of us" in line for line in said)


def test_a_program_that_fails_alone_ends_the_calibration_with_what_it_said(request_of, processor):
    with pytest.raises(JobFailure, match="too many of us") as failure:
        calibrate(request_of(fails_from=1), say=lambda line: None)

    assert failure.value.failure_class is FailureClass.PROGRAM_ERROR
    assert nothing_is_left(request_of(), processor)


def test_a_budget_that_is_too_small_for_each_concurrency_is_refused_after_one_job(request_of, processor):
    with pytest.raises(InvalidRequest, match="at least"):
        calibrate(request_of(slots="1..8", budget=3.0, seconds=0.8), say=lambda line: None)

    assert processor.most_side_by_side == 1


def test_a_budget_that_one_job_uses_up_is_refused(request_of, processor):
    with pytest.raises(InvalidRequest, match="longer than the budget"):
        calibrate(request_of(budget=0.7, seconds=60.0), say=lambda line: None)

    assert nothing_is_left(request_of(), processor)


def test_a_sample_without_inputs_is_refused_before_anything_runs(request_of, processor, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(InvalidRequest, match="--sample"):
        calibrate(replace(request_of(), sample=empty), say=lambda line: None)

    assert processor.most_side_by_side == 0


# --- Neighbours ----------------------------------------------------------------------------------------


def test_what_others_used_is_what_the_machine_worked_and_our_programs_did_not(monkeypatch):
    monkeypatch.setattr(calibrating.machine.psutil, "cpu_count", lambda: 2)

    share = calibrating.machine.foreign_share
    assert share(busy_seconds=150.0, own_seconds=100.0, elapsed=100.0) == 0.25
    assert share(busy_seconds=90.0, own_seconds=100.0, elapsed=100.0) == 0.0


def test_a_calibration_beside_other_work_is_doubted(request_of, monkeypatch):
    hours = iter(range(0, 10**6, 3600))
    monkeypatch.setattr(calibrating.machine, "busy_cpu_seconds", lambda: float(next(hours)))

    result = calibrate(request_of(slots="1..2", rounds=1), say=lambda line: None)

    assert result.calibration is not None
    assert result.calibration.foreign_cpu_share == 1.0
    assert any("others used 100% of the machine's CPU" in why for why in result.calibration.reasons)
    assert not result.calibration.is_sure


# --- Ctrl-C --------------------------------------------------------------------------------------------


def interrupt_when(condition) -> threading.Thread:
    """Press Ctrl-C once the condition holds."""

    def wait():
        give_up_at = time.monotonic() + GUARD_SECONDS
        while not condition() and time.monotonic() < give_up_at:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_an_interrupted_calibration_tells_what_is_known_and_leaves_no_program(request_of, processor):
    seen: list[int] = []

    def two_run():
        seen[:] = processor.running()
        return len(seen) == 2

    thread = interrupt_when(two_run)
    result = calibrate(request_of(slots="1..2", seconds=3.0), say=lambda line: None)
    thread.join()

    assert result.was_interrupted
    assert result.calibration is not None
    assert [point.slots for point in result.calibration.points] == [1]
    assert not result.calibration.is_complete
    assert not any(psutil.pid_exists(pid) for pid in seen)
    assert nothing_is_left(request_of(), processor)


# --- The verb ------------------------------------------------------------------------------------------


@pytest.fixture
def cloud(monkeypatch):
    with moto_job_table(monkeypatch) as client:
        ssm = boto3.client("ssm", region_name="us-east-1")
        ssm.put_parameter(Name=parameter_name("dev", Parameter.JOB_TABLE), Value="jobs", Type="String")
        yield client


@pytest.fixture
def verb(monkeypatch, processor, sample, tmp_path):
    """Run the verb on the stand-in: verb("--store", "--stage", "dev")."""
    monkeypatch.setattr(cli_calibrate, "_program", lambda *_: processor)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)

    def run(*words, seconds=0.2):
        fixed = ["calibrate", "--processor", "scaling", "--machine", "stand-in"]
        measured = [
            "--sample",
            str(sample),
            "--slots",
            "1..2",
            "--rounds",
            "1",
            "--set",
            f"seconds={seconds}",
        ]
        return CliRunner().invoke(app, [*fixed, *measured, *words])

    return run


def test_a_calibration_changes_nothing_unless_it_is_told_to_store(verb, cloud):
    result = verb("--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["slots"] in (1, 2)
    assert CalibrationStore(cloud, "jobs").of(Pool.LINUX_CPU) == ()


def test_a_stored_calibration_is_shown_followed_by_agents_and_forgotten(verb, cloud, agent_settings):
    stored = verb("--store", "--stage", "dev", "--json")
    assert stored.exit_code == 0, stored.output
    slots = json.loads(stored.stdout)["slots"]

    shown = json.loads(verb("--show", "--stage", "dev", "--json").stdout)["calibrations"]
    assert [(one["machine"], one["processor"], one["slots"]) for one in shown] == [
        ("stand-in", "scaling", slots)
    ]
    assert find_slots(agent_settings, cloud, instance_type="stand-in").slots == slots
    forgotten = json.loads(verb("--forget", "--stage", "dev", "--json").stdout)
    assert forgotten["forgotten"] is True
    assert find_slots(agent_settings, cloud, instance_type="stand-in").why.startswith("default")


@pytest.fixture
def agent_settings(monkeypatch, tmp_path):
    from scanfleet.settings import AgentSettings

    return AgentSettings(
        job_table="jobs",
        queues={"linux-cpu": {"high": "https://q/h", "normal": "https://q/n"}},
        dead_letters={"linux-cpu": "https://q/d"},
        artifacts_bucket="artifacts",
        allowed_prefixes="s3://data/",
        pool="linux-cpu",
        scratch=tmp_path,
        slots="auto",
    )


def test_a_person_sees_the_plan_before_the_table_the_reasons_and_where_the_picture_is(verb, tmp_path):
    result = verb()

    assert result.exit_code == 0, result.output
    assert "1, 2 side by side, 1 rounds, 600 s at most" in result.stderr
    assert "<- recommended" in result.stdout
    assert "one round only" in result.stdout
    picture = tmp_path / "calibration-scaling-stand-in.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.name in result.stderr


def test_storing_is_refused_before_the_work_without_a_stage(verb, processor):
    result = verb("--store")

    assert result.exit_code == 2
    assert "--stage" in result.stderr
    assert processor.most_side_by_side == 0


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_the_interrupted_verb_prints_what_is_known_stores_nothing_and_ends_with_130(verb, processor, cloud):
    thread = interrupt_when(lambda: len(processor.running()) == 2)
    result = verb("--store", "--stage", "dev", "--plot", "none", seconds=3.0)
    thread.join()

    assert result.exit_code == 130
    assert "<- recommended" in result.stdout
    assert "nothing was stored" in result.stderr
    assert CalibrationStore(cloud, "jobs").of(Pool.LINUX_CPU) == ()


# --- The plan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slots"), [("1..4", (1, 2, 3, 4)), ("3", (1, 2, 3)), ("2,8", (1, 2, 8)), ("1", (1,))]
)
def test_concurrencies_are_read_and_one_is_always_measured(text, slots):
    assert parse_slots(text) == slots


@pytest.mark.parametrize("text", ["", "0", "65", "4..1", "2..4", "1,x", "-1", "1..1000"])
def test_what_is_no_list_of_concurrencies_is_refused(text):
    with pytest.raises(InvalidRequest, match="--slots"):
        parse_slots(text)


def test_the_first_round_goes_upwards_and_later_ones_by_chance_but_the_same_for_a_seed():
    made = Plan(slots=tuple(range(1, 9)), rounds=4, budget_seconds=60)

    assert made.order(0, made.slots) == list(range(1, 9))
    assert made.order(1, made.slots) == made.order(1, made.slots)
    assert len({tuple(made.order(number, made.slots)) for number in (1, 2, 3)}) == 3
    assert sorted(made.order(2, made.slots)) == list(range(1, 9))


def test_as_many_jobs_are_planned_as_fit_into_a_stretch(monkeypatch):
    monkeypatch.setattr(plan, "MOST_JOBS_A_SLOT", 10)
    for slots in (1, 2, 5):
        for seconds in (5.0, 60.0, 500.0):
            count = jobs_a_slot(slots, 10.0, seconds=seconds)
            assert 1 <= count <= 10
            assert count == 1 or stretch_seconds(slots, count, 10.0) <= seconds


# --- Memory --------------------------------------------------------------------------------------------


def test_the_peak_is_of_all_programs_together_at_one_moment():
    meter = MemoryMeter(limit_bytes=1000, available=lambda: 10**9, reserve_bytes=0)
    told: list[str] = []
    meter.begin(lambda: told.append("too much"))

    meter.note("a", 600)
    meter.ended("a")
    meter.note("b", 300)
    meter.note("c", 500)
    assert (meter.peak_bytes, told) == (800, [])
    meter.note("b", 501)
    assert (meter.peak_bytes, told) == (1001, ["too much"])


def test_a_machine_that_would_soon_swap_is_told_whatever_the_programs_themselves_use():
    left = [100]
    meter = MemoryMeter(limit_bytes=10**9, available=lambda: left[-1], reserve_bytes=50)
    told: list[str] = []
    meter.begin(lambda: told.append("too much"))

    meter.note("a", 1)
    assert told == []
    left.append(49)
    meter.note("a", 1)
    assert told == ["too much"]


def test_gpu_memory_is_what_came_on_top_of_what_was_in_use_before():
    used: list[int | None] = [500]
    looked = threading.Event()

    def state():
        looked.set()
        return {
            "devices": [
                {"memory_used_bytes": used[-1], "memory_total_bytes": 4000},
                {"memory_used_bytes": None, "memory_total_bytes": None},
            ]
        }

    meter = GpuMemoryMeter(state)
    assert meter.peak_bytes is None
    meter.start()
    try:
        assert looked.wait(GUARD_SECONDS)
        used.append(1700)
        until(lambda: meter.peak_bytes == 1200)
        used.append(600)
        meter.begin()
        until(lambda: meter.peak_bytes == 100)
        assert meter.total_bytes == 4000
    finally:
        meter.stop()


def until(condition):
    give_up_at = time.monotonic() + GUARD_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
