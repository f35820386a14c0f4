"""One source of truth for slots: what is stored, what agents take, what scaling counts with."""

import time

import pytest

from scanfleet import contract
from scanfleet.agent.build import find_slots
from scanfleet.calibration import machine
from scanfleet.calibration.records import Calibration, CalibrationStore, MeasuredPoint
from scanfleet.calibration.slots import MEMORY_SHARE, PoolSlots, calibrated, choose_slots
from scanfleet.contract import Metric, Pool
from scanfleet.controller.decision import backlog_per_slot, decide
from scanfleet.controller.facts import Instance, PoolFacts
from scanfleet.errors import ConfigurationError, Unavailable
from scanfleet.settings import AgentSettings, load
from tests.support.cloud import moto_job_table

GIB = 2**30
TYPE = "g4dn.xlarge"


def made(slots=3, *, processor="medit_autotest", kind=TYPE, pool=Pool.WINDOWS_GPU, memory=2 * GIB):
    """A calibration whose programs took `memory` bytes each."""
    point = MeasuredPoint(
        slots=slots,
        jobs=9,
        rounds=3,
        jobs_per_hour=40.0,
        low=38.0,
        high=42.0,
        p50_seconds=200.0,
        p95_seconds=240.0,
        memory_bytes=memory * slots,
    )
    return Calibration(
        processor=processor,
        pool=pool,
        machine=kind,
        slots=slots,
        is_sure=True,
        reasons=("a reason",),
        sample="generated",
        sample_bytes=1000,
        measured_at=1_790_000_000.0,
        seconds=600.0,
        machine_memory_bytes=16 * GIB,
        memory_limit_bytes=13 * GIB,
        points=(point,),
    )


@pytest.fixture
def client(monkeypatch):
    with moto_job_table(monkeypatch) as client:
        yield client


@pytest.fixture
def store(client):
    return CalibrationStore(client, "jobs")


# --- The store -----------------------------------------------------------------------------------------


def test_a_calibration_comes_back_as_it_was_kept(store):
    store.put(made())

    assert store.of(Pool.WINDOWS_GPU) == (made(),)
    assert store.of(Pool.LINUX_CPU) == ()


def test_one_is_kept_for_each_kind_of_machine_and_processor_and_the_last_one_counts(store):
    for calibration in (made(2), made(4), made(1, kind="g5.xlarge"), made(6, processor="reference")):
        store.put(calibration)

    kept = {(c.machine, c.processor): c.slots for c in store.of(Pool.WINDOWS_GPU)}
    assert kept == {(TYPE, "medit_autotest"): 4, ("g5.xlarge", "medit_autotest"): 1, (TYPE, "reference"): 6}


def test_what_is_forgotten_is_gone_and_what_is_not_there_is_said(store):
    store.put(made())

    assert store.remove(Pool.WINDOWS_GPU, TYPE, "medit_autotest")
    assert not store.remove(Pool.WINDOWS_GPU, TYPE, "medit_autotest")
    assert store.of(Pool.WINDOWS_GPU) == ()


def test_a_calibration_of_another_version_is_left_out_and_logged(client, store, caplog):
    store.put(made())
    client.put_item(
        TableName="jobs",
        Item={
            "pk": {"S": "CALIBRATION#windows-gpu"},
            "sk": {"S": "x#y"},
            "calibration": {"S": '{"slots": 0}'},
        },
    )

    assert store.of(Pool.WINDOWS_GPU) == (made(),)
    assert [record.action for record in caplog.records] == ["calibration_not_understood"]


# --- The rule ------------------------------------------------------------------------------------------


def test_without_a_calibration_the_default_counts_and_is_said():
    choice = choose_slots([made(kind="g5.xlarge")], TYPE)

    assert choice.slots == contract.DEFAULT_SLOTS
    assert choice.why == f"default: no calibration for {TYPE}"


def test_of_several_processors_the_one_that_takes_fewest_side_by_side_decides():
    several = [made(5), made(2, processor="reference"), made(1, kind="g5.xlarge")]

    found = calibrated(several, TYPE)
    assert found is not None
    assert found.processor == "reference"
    assert choose_slots(several, TYPE).slots == 2


def test_the_choice_says_which_calibration_it_follows():
    assert choose_slots([made()], TYPE).why == f"calibration of medit_autotest on {TYPE}, 2026-09-21: 3"


@pytest.mark.parametrize(("memory_gib", "slots"), [(64, 4), (5, 2), (0.5, 1)])
def test_there_are_never_more_slots_than_fit_into_the_memory(memory_gib, slots):
    choice = choose_slots([made(4)], TYPE, memory_bytes=int(memory_gib * GIB))

    assert choice.slots == slots
    assert ("memory for" in choice.why) == (slots < 4)
    assert slots == 1 or slots * 2 * GIB <= MEMORY_SHARE * memory_gib * GIB


# --- Agents --------------------------------------------------------------------------------------------


@pytest.fixture
def settings(monkeypatch, tmp_path):
    def read(slots):
        for name, value in {
            "JOB_TABLE": "jobs",
            "QUEUES": '{"windows-gpu": {"high": "https://q/h", "normal": "https://q/n"}}',
            "DEAD_LETTERS": '{"windows-gpu": "https://q/d"}',
            "ARTIFACTS_BUCKET": "artifacts",
            "ALLOWED_PREFIXES": "s3://data/",
            "POOL": "windows-gpu",
            "SCRATCH": str(tmp_path),
            "SLOTS": slots,
        }.items():
            monkeypatch.setenv(f"SCANFLEET_{name}", value)
        return load(AgentSettings)

    return read


@pytest.mark.parametrize("slots", ["auto", "0"])
def test_an_agent_without_a_number_takes_the_calibrated_slots_of_its_instance_type(
    client, store, settings, slots
):
    store.put(made(3, memory=1))

    choice = find_slots(settings(slots), client, instance_type=TYPE)

    assert choice.slots == 3
    assert "calibration" in choice.why


def test_a_number_that_an_operator_has_set_wins_over_any_calibration(client, store, settings):
    store.put(made(3))

    choice = find_slots(settings("2"), client, instance_type=TYPE)

    assert (choice.slots, choice.why) == (2, "setting")


def test_outside_of_ec2_an_agent_follows_the_calibration_of_machines_of_its_size(client, store, settings):
    store.put(made(2, kind=machine.kind_of_machine(), memory=1))

    assert find_slots(settings("auto"), client, instance_type="").slots == 2


def test_a_table_that_does_not_answer_leaves_the_default_and_says_so(client, settings):
    client.delete_table(TableName="jobs")

    choice = find_slots(settings("auto"), client, instance_type=TYPE)

    assert choice.slots == contract.DEFAULT_SLOTS
    assert "could not be read" in choice.why or "no calibration could be read" in choice.why


@pytest.mark.parametrize("slots", ["65", "-1", "many"])
def test_slots_beyond_what_is_allowed_are_refused(settings, slots):
    with pytest.raises(ConfigurationError, match="SCANFLEET_SLOTS"):
        settings(slots)


# --- Scaling -------------------------------------------------------------------------------------------


def booting(instance_type):
    return Instance(
        instance_id=f"i-{instance_type}",
        instance_type=instance_type,
        lifecycle_state="Pending:Wait",
        launched_at=1000.0,
    )


def test_scaling_counts_a_booting_machine_with_the_slots_that_its_agent_will_take(store):
    store.put(made(3))
    facts = PoolFacts(
        pool=Pool.WINDOWS_GPU,
        taken_at=1000.0,
        waiting=0,
        in_flight=0,
        slots_per_instance=contract.DEFAULT_SLOTS,
        slots_by_type=PoolSlots(store).by_machine(Pool.WINDOWS_GPU),
        instances=(booting(TYPE), booting("g5.xlarge")),
    )

    agents = sum(choose_slots(store.of(Pool.WINDOWS_GPU), kind).slots for kind in (TYPE, "g5.xlarge"))
    assert decide(facts)[Metric.SLOTS_BOOTING] == agents == 4


def test_an_empty_fleet_asks_for_as_many_machines_as_the_jobs_fill():
    assert [backlog_per_slot(jobs, 0, empty=4) for jobs in (0, 1, 4, 5, 9)] == [0, 1, 1, 2, 3]
    assert backlog_per_slot(12, 4, empty=4) == 3


def test_scaling_reads_the_calibrations_once_a_minute(store):
    now = time.monotonic()
    moments = [now]
    slots = PoolSlots(store, clock=lambda: moments[-1])
    assert slots.by_machine(Pool.WINDOWS_GPU) == {}
    store.put(made(3))

    moments.append(now + 59)
    assert slots.by_machine(Pool.WINDOWS_GPU) == {}
    moments.append(now + 61)
    assert slots.by_machine(Pool.WINDOWS_GPU) == {TYPE: 3}


def test_scaling_goes_on_with_what_it_knew_while_the_table_does_not_answer(store, monkeypatch, caplog):
    store.put(made(3))
    moments = [0.0]
    slots = PoolSlots(store, clock=lambda: moments[-1])
    slots.by_machine(Pool.WINDOWS_GPU)

    def silent(pool):
        raise Unavailable("no answer")

    monkeypatch.setattr(store, "of", silent)
    moments.append(100.0)

    assert slots.by_machine(Pool.WINDOWS_GPU) == {TYPE: 3}
    assert caplog.records[-1].action == "calibrations_not_read"
