"""Receipts: where a job's time went, why each attempt was made, and dollars that add up to the bill."""

import json
import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from scanfleet.agent.machine_time import MachineTime, Share
from scanfleet.attempt_records import Opening
from scanfleet.attempts import Machine, Usage, Work
from scanfleet.cli import app
from scanfleet.client import Scanfleet
from scanfleet.contract import Pool
from scanfleet.jobs import FailureClass, Job, JobState, ResultSummary, new_job_id
from scanfleet.leases import Lease, Leases
from scanfleet.prices import Price, price_of
from scanfleet.receipt import Receipt, receipt_of
from scanfleet.store import JobStore
from tests.support.api import OPERATOR, RunningApi, as_owner, running_api, served_with
from tests.support.cloud import create_job_table

HOURLY = 0.71  # g4dn.xlarge with Windows in us-east-1
G4DN = Machine(
    instance_id="i-1",
    instance_type="g4dn.xlarge",
    ami_id="ami-1",
    region="us-east-1",
    system="windows",
    driver="551.78",
    slots=2,
)
USAGE = Usage(seconds=100.0, cpu_percent_mean=350.0, cpu_percent_peak=399.0, memory_bytes_peak=3 * 2**30)


# --- What a machine costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "own", "expected"),
    [
        ({}, {}, Price(HOURLY, "2026-08-26")),
        ({"system": "linux"}, {}, Price(0.526, "2026-08-26")),
        ({"region": "eu-central-1"}, {}, Price(0.8415, "2026-08-26")),
        ({}, {"g4dn.xlarge": 0.6}, Price(0.6, None)),
        ({"instance_type": "m9.large"}, {"m9.large": 2.0}, Price(2.0, None)),
        ({"instance_type": "m9.large"}, {}, "there is no price of m9.large in us-east-1"),
        ({"region": "mars-1"}, {}, "there is no price of g4dn.xlarge in mars-1"),
        ({"instance_type": ""}, {"g4dn.xlarge": 0.6}, "the machine is no EC2 instance"),
    ],
)
def test_a_machine_has_the_operators_price_or_the_lists_or_none_with_the_reason(changed, own, expected):
    assert price_of(G4DN.model_copy(update=changed), own) == expected


# --- A day of one instance ----------------------------------------------------------------------------------


class Day:
    """One instance's life with jobs that come, wait, run on its slots, fail, and are run again."""

    BOOTED_AT = 1_800_000_000.0

    def __init__(self, client: Any, *, slots: int, boot: float) -> None:
        self.now = self.BOOTED_AT
        self.slots = slots
        self.machine = G4DN.model_copy(update={"slots": slots, "booted_at": self.BOOTED_AT})
        self.store = JobStore(client, "jobs", clock=lambda: self.now, on_transition=lambda _: None)
        self.leases = Leases(client, "jobs", clock=lambda: self.now, on_transition=lambda _: None)
        self.now += boot
        self.time = MachineTime(slots, boot_seconds=boot, clock=lambda: self.now)
        self.running: list[tuple[float, int, Lease, Share]] = []
        self.jobs: list[str] = []
        self._order = count()

    def submit(self) -> str:
        job_id = new_job_id()
        job = Job(
            job_id=job_id,
            owner="ann",
            processor="p",
            pool=Pool.LINUX_CPU,
            source_uri="s3://data/in/",
            target_uri=f"s3://data/out/{job_id}/",
            created_at=self.now,
            queued_at=self.now,
            state_changed_at=self.now,
        )
        self.store.create(job)
        self.jobs.append(job_id)
        return job_id

    def start(self, job_id: str, *, seconds: float) -> None:
        """Start the job, once a slot is free."""
        while len(self.running) >= self.slots:
            self.end_next()
        share = self.time.begin()
        opening = Opening(
            machine=self.machine, boot_seconds=share.boot_seconds, idle_seconds=share.idle_seconds
        )
        lease = self.leases.take(job_id, "i-1", opening)
        assert isinstance(lease, Lease)
        self.running.append((self.now + seconds, next(self._order), lease, share))
        self.running.sort(key=lambda one: one[:2])

    def wait_until(self, moment: float) -> None:
        while self.running and self.running[0][0] <= moment:
            self.end_next()
        self.now = max(self.now, moment)

    def end_next(self) -> None:
        """End the run that ends first; every seventh fails and its job is run again later."""
        ends_at, number, lease, share = self.running.pop(0)
        self.now = max(self.now, ends_at)
        work = Work(idle_seconds=share.end())
        if number % 7 == 3:
            failure = self.leases.failure(lease, FailureClass.TRANSFER, "S3 was away")
            self.leases.requeue(lease, failure, work)
            self.start(lease.job.job_id, seconds=30)
        else:
            self.leases.complete(lease, ResultSummary(attempt=1, files=1, size_bytes=1), work)

    def receipts(self) -> list[Receipt]:
        jobs = [self.store.get(job_id) for job_id in self.jobs]
        return [receipt_of(job, durations=job.durations_seconds, prices={}, now=self.now) for job in jobs]


@pytest.fixture
def table(monkeypatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("dynamodb")
        create_job_table(client, "jobs")
        yield client


@pytest.mark.parametrize("slots", [1, 3])
def test_the_receipts_of_an_instances_day_add_up_to_its_bill(table, slots):
    """To a hundredth of a percent, up to the end of its last job: what comes after is nobody's."""
    chance = random.Random(slots)
    day = Day(table, slots=slots, boot=270.0)
    for _ in range(60):
        day.wait_until(day.now + chance.expovariate(1 / 600))
        day.start(day.submit(), seconds=chance.uniform(60, 900))
    while day.running:
        day.end_next()

    receipts = day.receipts()
    paid = sum(receipt.cost.usd for receipt in receipts)
    bill = (day.now - day.BOOTED_AT) * HOURLY / 3600
    assert day.now - day.BOOTED_AT > 6 * 3600
    assert paid == pytest.approx(bill, rel=1e-4)
    assert sum(receipt.boot_share_seconds for receipt in receipts) == pytest.approx(270)
    assert {receipt.cost.usd > 0 for receipt in receipts} == {True}


def test_the_seconds_of_two_jobs_side_by_side_are_divided(table):
    day = Day(table, slots=2, boot=100.0)
    first, second = day.submit(), day.submit()
    day.start(first, seconds=1000)
    day.start(second, seconds=500)
    while day.running:
        day.end_next()

    alone_for_a_while, beside = day.receipts()
    assert (alone_for_a_while.busy_share_seconds, beside.busy_share_seconds) == (500, 250)
    assert (alone_for_a_while.idle_share_seconds, beside.idle_share_seconds) == (250, 0)
    assert (alone_for_a_while.boot_share_seconds, beside.boot_share_seconds) == (100, 0)
    assert beside.cost.usd == beside.cost.busy_usd == pytest.approx(250 * HOURLY / 3600, abs=1e-6)


# --- The API ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api_of_module():
    with running_api() as running:
        yield running


@pytest.fixture
def api(api_of_module):
    api_of_module.reset()
    return api_of_module


def take(api: RunningApi, job_id: str, machine: Machine = G4DN) -> Lease:
    opening = Opening(machine=machine, boot_seconds=240.0, idle_seconds=60.0)
    lease = api.leases.take(job_id, "i-1", opening)
    assert isinstance(lease, Lease)
    return lease


def receipt(api: RunningApi, job_id: str, **headers: str) -> dict[str, Any]:
    answer = api.http.get(f"/job/{job_id}/receipt", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def completed(api: RunningApi, name: str, machine: Machine = G4DN) -> str:
    """Return a job that waited 30 s, failed once after 20 s, and then ran 100 s."""
    job_id = api.submit(name)
    api.clock.now += 30
    lease = take(api, job_id, machine)
    api.clock.now += 20
    failure = api.leases.failure(lease, FailureClass.CRASH, "it fell over", 139)
    api.leases.requeue(lease, failure, Work(bytes_downloaded=1000))
    api.clock.now += 10
    lease = api.leases.advance(take(api, job_id, machine), JobState.PROCESSING, release="2.4", input_bytes=9)
    api.clock.now += 100
    lease = api.leases.advance(lease, JobState.UPLOADING)
    work = Work(
        stage_seconds={"align": 80.0},
        bytes_downloaded=1000,
        bytes_published=500,
        usage=USAGE,
        idle_seconds=50.0,
    )
    api.leases.complete(lease, ResultSummary(attempt=2, files=1, size_bytes=500), work)
    return job_id


def test_a_receipt_says_where_time_and_money_went(api):
    found = receipt(api, completed(api, "a"))

    assert (found["queue_seconds"], found["run_seconds"]) == (40, 120)
    assert found["stage_seconds"] == {"align": 80.0}
    assert (found["bytes_downloaded"], found["bytes_published"]) == (2000, 500)
    assert (found["release"], found["machine"]["ami_id"]) == ("2.4", "ami-1")
    assert found["usage"]["cpu_percent_peak"] == 399.0
    shares = [found[f"{name}_share_seconds"] for name in ("busy", "boot", "idle")]
    assert shares == [60, 480, 170]
    cost = found["cost"]
    assert cost["usd"] == pytest.approx(sum(shares) * HOURLY / 3600, abs=1e-5)
    assert cost["usd"] == pytest.approx(sum(one["cost_usd"] for one in found["attempts"]), abs=1e-5)
    assert (cost["hourly_usd"], cost["price_as_of"], cost["is_estimate"]) == (HOURLY, "2026-08-26", True)


def test_each_attempt_says_why_it_was_made(api):
    job_id = api.submit("a")
    for failure_class in (FailureClass.CRASH, FailureClass.BAD_INPUT):
        lease = take(api, job_id)
        failure = api.leases.failure(lease, failure_class, "so it was")
        ends = {FailureClass.CRASH: api.leases.requeue, FailureClass.BAD_INPUT: api.leases.fail}
        ends[failure_class](lease, failure)
    assert api.http.post(f"/job/{job_id}/retry").status_code == 202
    api.leases.cancel(take(api, job_id))
    assert api.http.post(f"/job/{job_id}/retry").status_code == 202
    take(api, job_id)

    assert [attempt["why"] for attempt in receipt(api, job_id)["attempts"]] == [
        "the job was submitted",
        "attempt 1 ended: crash: so it was",
        "its owner retried it after bad_input: so it was",
        "its owner retried the cancelled job",
    ]


def test_a_machine_without_a_price_has_no_cost_and_says_why(api):
    found = receipt(api, completed(api, "a", G4DN.model_copy(update={"instance_type": "m9.large"})))

    reason = "there is no price of m9.large in us-east-1"
    assert (found["cost"], found["why_no_cost"]) == (None, f"attempt 1: {reason}")
    assert {(one["cost_usd"], one["why_no_cost"]) for one in found["attempts"]} == {(None, reason)}


def test_the_operators_own_price_counts(api):
    job_id = completed(api, "a")
    with served_with(api, hourly_prices={"g4dn.xlarge": 3.6}) as dearer:
        cost = receipt(dearer, job_id)["cost"]

    assert (cost["usd"], cost["price_as_of"]) == (pytest.approx(0.71), None)


def test_a_job_that_waits_has_an_empty_receipt_and_one_that_runs_has_its_own_so_far(api):
    job_id = api.submit("a")
    api.clock.now += 15
    waiting = receipt(api, job_id)
    take(api, job_id)
    api.clock.now += 36
    running = receipt(api, job_id)

    assert (waiting["queue_seconds"], waiting["attempts"], waiting["machine"]) == (15, [], None)
    assert (waiting["cost"], waiting["why_no_cost"]) == (None, "no attempt has started")
    assert (running["run_seconds"], running["busy_share_seconds"]) == (36, 18)
    assert running["attempts"][0]["ended_at"] is None


def test_a_receipt_is_its_owners_and_the_operators(api):
    job_id = api.submit("a")

    assert api.http.get(f"/job/{job_id}/receipt", headers=as_owner("bob")).status_code == 404
    assert receipt(api, job_id, **OPERATOR)["job_id"] == job_id


def test_the_job_itself_shows_attempts_usage_and_inputs(api):
    job_id = completed(api, "a")
    found = api.http.get(f"/job/{job_id}").json()

    assert [(one["attempt"], one["outcome"]) for one in found["attempts"]] == [(1, "crash"), (2, "completed")]
    assert found["attempts"][1]["started_at"].endswith("Z")
    assert (found["input_bytes"], found["usage"]["cpu_percent_mean"]) == (9, 350.0)


# --- Client and command line --------------------------------------------------------------------------------


def test_the_client_reads_what_the_service_says(api):
    job_id = completed(api, "a")
    with Scanfleet(api.url) as fleet:
        found = fleet.handle(job_id).receipt()

    assert found.model_dump(mode="json") == receipt(api, job_id)


def test_the_command_line_shows_a_receipt_to_people_and_programs(api):
    job_id = completed(api, "a")
    shown = CliRunner().invoke(app, ["receipt", job_id, "--url", api.url])
    read = CliRunner().invoke(app, ["receipt", job_id, "--url", api.url, "--json"])

    assert (shown.exit_code, read.exit_code) == (0, 0)
    for text in (
        "CPU 350 % (399 % peak) of a core",
        "memory 3.00 GiB peak",
        "480.0 s boot",
        "$0.14",
        "crash",
    ):
        assert text in shown.output
    assert json.loads(read.output) == receipt(api, job_id)


def test_the_command_line_says_why_there_is_no_cost(api):
    job_id = completed(api, "a", Machine())
    shown = CliRunner().invoke(app, ["receipt", job_id, "--url", api.url])

    assert "not known: attempt 1: the machine is no EC2 instance" in shown.output
