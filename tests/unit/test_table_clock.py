"""The clock of leases: the table's own, so that no machine's wrong clock takes a living lease."""

import time
from types import SimpleNamespace

import pytest

from scanfleet.clients import build_clients
from scanfleet.contract import HEARTBEAT_INTERVAL, LEASE_DURATION, Pool
from scanfleet.dynamo import DATE_TOLERANCE_SECONDS, TableClock
from scanfleet.jobs import Job, new_job_id
from scanfleet.leases import HeldElsewhere, Lease, Leases
from scanfleet.store import JobStore
from tests.support.cloud import create_job_table
from tests.support.moto_fleet import moto_server

HOUR = 3600.0


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def job(endpoint, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    client = build_clients().dynamodb
    create_job_table(client, "jobs")
    now = time.time()
    yield JobStore(client, "jobs").create(
        Job(
            job_id=new_job_id(),
            owner="ann",
            processor="p",
            pool=Pool.LINUX_CPU,
            source_uri="s3://b/in/",
            target_uri="s3://b/out/",
            created_at=now,
            queued_at=now,
            state_changed_at=now,
        )
    )
    client.delete_table(TableName="jobs")


def leases_of_a_machine(*, wrong_by: float) -> Leases:
    client = build_clients().dynamodb
    clock = TableClock(client, wall=lambda: time.time() + wrong_by)
    return Leases(client, "jobs", lease_seconds=60, clock=clock)


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR])
def test_a_machine_whose_clock_is_wrong_takes_no_living_lease(job, wrong_by):
    assert isinstance(leases_of_a_machine(wrong_by=0).take(job.job_id, "right"), Lease)

    assert isinstance(leases_of_a_machine(wrong_by=wrong_by).take(job.job_id, "wrong"), HeldElsewhere)


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR])
def test_a_lease_of_a_machine_whose_clock_is_wrong_ends_when_it_should(job, wrong_by):
    wrong = leases_of_a_machine(wrong_by=wrong_by)
    wrong.check()  # it has heard from the table, as any agent has that looks for jobs

    lease = wrong.take(job.job_id, "wrong")

    assert isinstance(lease, Lease)
    assert lease.job.lease_expires_at == pytest.approx(time.time() + 60, abs=20)


def test_a_jump_of_the_wall_clock_does_not_move_it(job):
    wall, monotonic = [1_000_000.0], [50.0]
    clock = TableClock(build_clients().dynamodb, wall=lambda: wall[0], monotonic=lambda: monotonic[0])

    wall[0] += HOUR
    monotonic[0] += 7

    assert clock() == 1_000_007.0


def test_an_exact_clock_is_left_alone_by_the_whole_seconds_of_http():
    heard = []
    events = SimpleNamespace(register=lambda _event, hear: heard.append(hear))
    client = SimpleNamespace(meta=SimpleNamespace(events=events))
    clock = TableClock(client, wall=lambda: 1_700_000_000.9, monotonic=lambda: 0.0)
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}}}
    [hear] = heard

    hear(parsed=answer)
    hear(parsed={})

    assert clock() == 1_700_000_000.9


def test_the_default_lease_outlasts_what_the_clock_may_be_off():

    assert HEARTBEAT_INTERVAL.total_seconds() + 2 * DATE_TOLERANCE_SECONDS < LEASE_DURATION.total_seconds()
