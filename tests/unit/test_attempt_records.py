"""The records of a job's attempts: opened with the lease, closed with its end, whoever writes it."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from scanfleet.agent.budgets import Budgets
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.watchdog import Watchdog
from scanfleet.attempt_records import ATTEMPTS_KEPT, Opening
from scanfleet.attempts import Machine, Usage, Work
from scanfleet.errors import LeaseLost
from scanfleet.jobs import FailureClass, JobState
from scanfleet.leases import Lease
from scanfleet.store_items import item_from_job
from tests.support.moto_fleet import moto_fleet, moto_server

COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
MACHINE = Machine(
    instance_id="i-1",
    instance_type="g4dn.xlarge",
    ami_id="ami-1",
    region="us-east-1",
    system="windows",
    driver="551.78",
    slots=2,
    booted_at=1_700_000_000.0,
)
WORK = Work(
    stage_seconds={"align": 3.0},
    bytes_downloaded=10,
    bytes_published=20,
    usage=Usage(seconds=3.0, cpu_percent_mean=50.0),
    idle_seconds=1.5,
)


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def fleet(endpoint, monkeypatch, tmp_path):
    with moto_fleet(endpoint, tmp_path, monkeypatch) as fleet:
        yield fleet


def take(fleet, job, agent="a1") -> Lease:
    opening = Opening(machine=MACHINE, boot_seconds=240.0, idle_seconds=60.0)
    lease = fleet.leases.take(job.job_id, agent, opening)
    assert isinstance(lease, Lease)
    return lease


def outlive(fleet, lease) -> None:
    """Return once the lease has run out."""
    while time.time() <= lease.job.lease_expires_at:
        time.sleep(0.05)


def watched(run) -> Watchdog:
    """Return a real watch that looks twenty times a second."""
    return Watchdog(
        Budgets(total=timedelta(seconds=60), startup=timedelta(seconds=1), idle=timedelta(seconds=50)),
        program_log=run.program_log,
        board=run.board,
        growth=FolderGrowth(run.workspace.folders.output, run.workspace.folders.work),
        meter=run.usage,
        input_bytes=run.input_bytes,
    )


def test_a_whole_job_leaves_one_record_with_machine_times_bytes_and_usage(fleet):
    with fleet.agent(slots=2, machine=MACHINE, new_watch=watched):
        hold = fleet.folder / "go"
        job = fleet.submit(files={"a.txt": "input"}, settings={"hold": str(hold), "files": {"r.txt": "four"}})
        fleet.await_job(job, lambda found: found.usage is not None)
        hold.touch()
        done = fleet.await_state(job, COMPLETED, FAILED)

    (record,) = done.attempts
    assert (record.attempt, record.agent_id, record.outcome) == (1, "a1", "completed")
    assert record.machine == MACHINE
    assert record.queued_at == job.queued_at <= record.started_at < record.ended_at
    assert set(record.state_seconds) == {"downloading", "processing", "uploading"}
    assert sum(record.state_seconds.values()) == pytest.approx(record.ended_at - record.started_at, abs=0.1)
    assert record.stage_seconds == done.stage_seconds != {}
    assert (record.bytes_downloaded, record.bytes_published) == (5, 4)
    assert record.usage == done.usage
    assert record.usage.memory_bytes_peak > 1_000_000
    assert record.usage.disk_bytes_peak >= 5
    assert record.idle_seconds > 0  # the other slot was free


def test_a_running_job_shows_stage_times_usage_and_inputs(fleet):
    hold = fleet.folder / "go"
    with fleet.agent(new_watch=watched):
        job = fleet.submit(settings={"hold": str(hold)})
        seen = fleet.await_job(job, lambda found: found.usage is not None and found.stage == "work")
        later = fleet.await_job(job, lambda found: found.usage.seconds > seen.usage.seconds)
        hold.touch()
        done = fleet.await_state(job, COMPLETED, FAILED)

    assert seen.input_bytes == 5
    assert seen.started_at <= seen.stage_since <= time.time()
    assert later.stage_since == seen.stage_since
    assert seen.attempts[0].ended_at is None
    assert seen.attempts[0].bytes_downloaded == 5
    assert (done.stage_since, done.input_bytes) == (None, 5)


def test_each_failed_attempt_keeps_its_own_times(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(settings={"exit_code": 3}), FAILED)

    first, second = failed.attempts
    assert [first.outcome, second.outcome] == ["program_error", "program_error"]
    assert first.ended_at <= second.queued_at <= second.started_at
    assert set(first.state_seconds) == set(second.state_seconds) == {"downloading", "processing"}
    for state in first.state_seconds:
        both = first.state_seconds[state] + second.state_seconds[state]
        assert both == pytest.approx(failed.durations_seconds[state], abs=0.01)


def test_a_lost_machines_record_is_closed_by_who_takes_over_with_what_it_told_last(fleet):
    job = fleet.submit()
    lease = take(fleet, job, "dead")
    lease = fleet.leases.advance(lease, JobState.PROCESSING, release="1.2", input_bytes=77)
    usage = Usage(seconds=9.0, cpu_percent_mean=300.0)
    told = fleet.leases.renew(
        lease, progress_percent=10, stage="merge", stage_seconds={"align": 4.0}, usage=usage
    )
    outlive(fleet, told)

    taken = take(fleet, job, "alive").job

    lost, running = taken.attempts
    assert (lost.outcome, lost.ended_at) == ("lost_machine", told.job.lease_expires_at)
    assert (lost.release, lost.bytes_downloaded, lost.usage) == ("1.2", 77, usage)
    assert lost.stage_seconds == {"align": 4.0}
    assert (running.agent_id, running.ended_at, running.queued_at) == ("alive", None, lost.ended_at)
    assert (taken.stage_seconds, taken.usage, taken.input_bytes) == ({}, None, None)


def test_a_zombie_changes_no_record(fleet):
    job = fleet.submit()
    zombie = take(fleet, job, "dead")
    outlive(fleet, zombie)
    taken = take(fleet, job, "alive")
    failure = fleet.leases.failure(zombie, FailureClass.CRASH, "late")
    ends = (
        lambda: fleet.leases.fail(zombie, failure, WORK),
        lambda: fleet.leases.requeue(zombie, failure, WORK),
        lambda: fleet.leases.cancel(zombie, WORK),
        lambda: fleet.leases.advance(zombie, JobState.PROCESSING, release="9"),
        lambda: fleet.leases.renew(zombie, progress_percent=1, stage="x", usage=WORK.usage),
    )
    for end in ends:
        with pytest.raises(LeaseLost):
            end()

    assert fleet.store.get(job.job_id) == taken.job


@pytest.mark.parametrize("how", ["requeue", "fail", "cancel"])
def test_whatever_gives_the_lease_up_closes_the_record(fleet, how):
    job = fleet.submit()
    lease = take(fleet, job)
    failure = fleet.leases.failure(lease, FailureClass.CRASH, "broken")
    if how == "cancel":
        fleet.leases.cancel(lease, WORK)
    else:
        getattr(fleet.leases, how)(lease, failure, WORK)

    found = fleet.store.get(job.job_id)
    (record,) = found.attempts
    assert record.outcome == ("cancelled" if how == "cancel" else "crash")
    assert (record.boot_seconds, record.idle_seconds) == (240.0, 61.5)
    assert (record.stage_seconds, record.usage) == (WORK.stage_seconds, WORK.usage)
    assert (found.stage_seconds, found.usage) == (WORK.stage_seconds, WORK.usage)


def test_a_job_that_is_cancelled_after_its_machine_was_lost_has_a_closed_record(fleet):
    job = fleet.submit()
    lease = take(fleet, job)
    fleet.store.request_cancel(lease.job)
    outlive(fleet, lease)
    fleet.leases.take(job.job_id, "a2")

    found = fleet.store.get(job.job_id)
    assert (found.state, found.attempts[-1].outcome) == (CANCELLED, "lost_machine")
    assert found.attempts[-1].ended_at == lease.job.lease_expires_at


def test_the_attempt_that_only_publishes_keeps_what_the_one_that_ran_has_found(fleet):
    job = fleet.submit()
    lease = fleet.leases.advance(take(fleet, job), JobState.PROCESSING, input_bytes=5)
    lease = fleet.leases.renew(lease, progress_percent=1, stage=None, usage=WORK.usage)
    lease = fleet.leases.advance(lease, JobState.UPLOADING, stage_seconds={"align": 1.0})
    outlive(fleet, fleet.leases.commit(lease))

    again = take(fleet, job, "a2").job

    assert (again.stage_seconds, again.usage, again.input_bytes) == ({"align": 1.0}, WORK.usage, 5)


def test_many_attempts_stay_few_records_and_a_small_item(fleet):
    job = fleet.submit()
    stages = {f"stage-{number:02d}-" + "x" * 40: 12345.678 for number in range(50)}
    for _ in range(ATTEMPTS_KEPT + 5):
        lease = take(fleet, job)
        failure = fleet.leases.failure(lease, FailureClass.TRANSFER, "again")
        fleet.leases.requeue(lease, failure, WORK.model_copy(update={"stage_seconds": stages}))

    found = fleet.store.get(job.job_id)
    assert [record.attempt for record in found.attempts] == list(range(6, ATTEMPTS_KEPT + 6))
    size = sum(len(name) + len(next(iter(value.values()))) for name, value in item_from_job(found).items())
    assert size < 100_000  # of 400 KB


def test_a_record_of_an_agent_that_wrote_none_is_left_alone(fleet):
    """During a rollout an older agent's lease has no open record."""
    job = fleet.submit()
    lease = take(fleet, job)
    older = replace(lease, job=lease.job.model_copy(update={"attempts": ()}))

    ended = fleet.leases.cancel(older)

    assert ended.state is CANCELLED
