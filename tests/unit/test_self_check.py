"""What a machine finds out about itself before it takes a job, and what becomes of that."""

import logging
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto import mock_aws

from scanfleet.agent import checks
from scanfleet.agent.readiness import QUEUE_SILENCE_TOLERATED
from scanfleet.agent.self_check import Check, CheckFailed, CheckRules, SelfCheck
from scanfleet.agent.workspace import OWNER_FILE, Scratch
from scanfleet.contract import STAGING_PREFIX, Pool, Priority
from scanfleet.jobs import is_job_id
from scanfleet.objects import ObjectStore
from scanfleet.processors.medit_autotest import PROGRAM, MeditAutoTest
from scanfleet.processors.release_source import FixedRelease
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import S3Uri
from tests.support.cloud import create_job_table

TABLE, ARTIFACTS, DATA = "jobs", "artifacts", "data"
GIB = 1024**3


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now

    def forward(self, by):
        self.now += by.total_seconds()


class Machine:
    """A worker's part of it: whether it takes jobs, and what its health check says."""

    def __init__(self):
        self.reason = None
        self.is_healthy = True
        self.busy = 0
        self.given_up = []

    def suspend(self, cause, reason, *, is_healthy=False):
        self.reason = reason
        self.is_healthy = reason is None or is_healthy


class Thing:
    """Something to check; `problem` is what is wrong with it."""

    def __init__(self, name="thing", *, every=None, can_heal=True):
        self.problem = None
        self.looks = 0
        self.can_heal = can_heal
        self.check = Check(name, self.look, every)

    def look(self):
        self.looks += 1
        if isinstance(self.problem, Exception):
            raise self.problem
        if self.problem:
            raise CheckFailed(self.problem, "mend it", can_heal=self.can_heal)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def start(machine, clock):
    def start(*things, **facts):
        made = [thing.check for thing in things]
        return SelfCheck(machine, made, on_hopeless=machine.given_up.append, clock=clock, **facts)

    return start


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="scanfleet")


def told(caplog, action):
    return [record for record in caplog.records if getattr(record, "action", "") == action]


# --- Before the first job ----------------------------------------------------------------------------------


def test_no_job_is_taken_before_the_first_check(start, machine):
    start(Thing())

    assert machine.reason == "the machine is being checked"
    assert not machine.is_healthy


def test_a_machine_that_is_well_serves(start, machine, caplog):
    start(Thing()).look()

    assert machine.reason is None
    assert told(caplog, "self_check_passed")


def test_every_reason_is_told_at_once_and_each_is_logged_once_with_what_to_do(start, machine, caplog):
    disk, gpu, fine = Thing("disk"), Thing("gpu"), Thing("clock")
    disk.problem, gpu.problem = "full", "absent"
    check = start(disk, gpu, fine)

    for _ in range(3):
        check.look()

    assert machine.reason == "disk: full; gpu: absent"
    assert not machine.is_healthy
    assert [(r.check, r.reason, r.to_do) for r in told(caplog, "check_failed")] == [
        ("disk", "full", "mend it"),
        ("gpu", "absent", "mend it"),
    ]
    assert fine.looks == 1


def test_another_reason_of_the_same_check_is_logged_too(start, machine, caplog):
    thing = Thing()
    check = start(thing)
    for thing.problem in ("full", "full", "gone"):
        check.look()

    assert [record.reason for record in told(caplog, "check_failed")] == ["full", "gone"]


def test_a_healed_cause_brings_the_machine_into_service(start, machine, caplog):
    thing = Thing()
    thing.problem = "full"
    check = start(thing)
    check.look()

    thing.problem = None
    check.look()

    assert machine.reason is None
    assert told(caplog, "check_healed")


def test_a_check_that_breaks_counts_as_failed(start, machine):
    thing = Thing()
    thing.problem = ZeroDivisionError("0")
    start(thing).look()

    assert "the check itself failed: ZeroDivisionError" in machine.reason


# --- The fleet is told -------------------------------------------------------------------------------------


def test_what_cannot_heal_is_told_to_the_fleet_once_and_not_before_it_has_lasted(start, machine, clock):
    gpu = Thing("gpu", can_heal=False)
    gpu.problem = "absent"
    check = start(gpu)
    check.look()
    assert machine.given_up == []

    for _ in range(3):
        clock.forward(CheckRules().hopeless)
        check.look()

    assert machine.given_up == ["gpu: absent"]


def test_what_can_heal_is_left_to_the_ready_limit(start, machine, clock):
    thing = Thing()
    thing.problem = "full"
    check = start(thing)
    for _ in range(3):
        clock.forward(timedelta(hours=1))
        check.look()

    assert machine.given_up == []


# --- While it serves ---------------------------------------------------------------------------------------


def test_a_full_disk_while_serving_takes_no_jobs_and_does_not_replace_the_machine(start, machine, clock):
    disk = Thing("disk", every=timedelta(seconds=15))
    check = start(disk)
    check.look()

    disk.problem = "full"
    clock.forward(timedelta(seconds=15))
    check.look()
    assert (machine.reason, machine.is_healthy) == ("disk: full", True)

    disk.problem = None
    check.look()
    assert machine.reason is None


def test_a_machine_that_stays_unable_is_replaced_after_a_while(start, machine, clock):
    disk = Thing("disk", every=timedelta(seconds=15))
    check = start(disk)
    check.look()
    disk.problem = "full"
    clock.forward(timedelta(seconds=15))
    check.look()

    clock.forward(QUEUE_SILENCE_TOLERATED)
    check.look()

    assert (machine.reason, machine.is_healthy) == ("disk: full", False)


def test_a_job_that_fills_the_disk_for_long_does_not_lose_its_machine(start, machine, clock):
    disk = Thing("disk", every=timedelta(seconds=15))
    check = start(disk)
    check.look()
    disk.problem, machine.busy = "full", 1
    clock.forward(timedelta(seconds=15))
    check.look()

    clock.forward(QUEUE_SILENCE_TOLERATED)
    check.look()
    assert (machine.reason, machine.is_healthy) == ("disk: full", True)

    machine.busy = 0
    check.look()
    assert not machine.is_healthy


def test_while_serving_each_check_has_its_own_pace(start, clock):
    often, once = Thing("often", every=timedelta(seconds=15)), Thing("once")
    check = start(often, once)
    for _ in range(7):
        check.look()
        clock.forward(timedelta(seconds=5))

    assert (often.looks, once.looks) == (3, 1)


def test_the_thread_looks_until_it_is_stopped(start, machine):
    thing = Thing()
    thing.problem = "full"
    check = start(thing, rules=CheckRules(look=timedelta(seconds=0.01)))
    check.start()
    thing.problem = None
    deadline = time.monotonic() + 30
    while machine.reason is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    check.stop()

    assert "self-check" not in {thread.name for thread in threading.enumerate()}


# --- Program, GPU, disk ------------------------------------------------------------------------------------


def reason_of(check):
    with pytest.raises(CheckFailed) as caught:
        check.look()
    assert caught.value.to_do
    return caught.value


def test_a_missing_program_fails_until_it_is_there(tmp_path):
    check = checks.program(MeditAutoTest(releases=FixedRelease(tmp_path)))
    assert PROGRAM in reason_of(check).reason

    (tmp_path / PROGRAM).write_bytes(b"MZ")
    check.look()


class FakeGpus:
    def __init__(self, *memory):
        self.memory = list(memory)

    def state(self):
        return {"devices": [{"memory_total_bytes": size} for size in self.memory]}


def test_a_machine_without_a_gpu_cannot_heal():
    failed = reason_of(checks.gpu(lambda: None))

    assert "no GPU" in failed.reason
    assert not failed.can_heal


def test_a_gpu_that_stops_answering_is_found(tmp_path):
    gpus = FakeGpus(16 * GIB)
    check = checks.gpu(lambda: gpus)
    check.look()

    gpus.memory = [None]
    assert "does not answer" in reason_of(check).reason


def test_a_driver_that_never_answers_is_found_and_holds_no_other_check_up():
    answer = threading.Event()
    try:
        check = checks.gpu(answer.wait, patience=timedelta(seconds=0.1))
        failures = []
        thread = threading.Thread(target=lambda: failures.append(reason_of(check)), daemon=True)
        thread.start()
        thread.join(30)

        assert [(failed.reason, failed.can_heal) for failed in failures] == [
            ("the GPU does not answer", False)
        ]
    finally:
        answer.set()


def test_a_full_disk_is_told_with_its_numbers(tmp_path):
    free = {"bytes": 5}
    check = checks.disk(tmp_path / "not" / "there yet", min_free_bytes=10, free=lambda _: free["bytes"])
    assert "5 bytes are free" in reason_of(check).reason

    free["bytes"] = 10
    check.look()


def test_a_real_disk_has_a_byte(tmp_path):
    checks.disk(tmp_path, min_free_bytes=1).look()


def test_a_scratch_that_cannot_be_made_is_claimed_once_it_can(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    scratch = Scratch(blocked / "scratch")
    check = checks.scratch(scratch)
    assert "cannot be used" in reason_of(check).reason

    blocked.unlink()
    check.look()

    assert [path.name for path in scratch.folder.iterdir()] == [OWNER_FILE]
    scratch.release()


def test_a_scratch_that_was_lost_is_found(tmp_path):
    scratch = Scratch(tmp_path / "scratch")
    check = checks.scratch(scratch)
    check.look()
    (scratch.folder / OWNER_FILE).unlink()
    scratch.folder.rmdir()

    assert str(scratch.folder) in reason_of(check).reason


# --- AWS ---------------------------------------------------------------------------------------------------


class Account:
    """moto's account, in which `refuse` takes a permission away and `date` sets the clock of answers."""

    def __init__(self, session):
        self.s3, self.sqs, self.dynamodb = (session.client(name) for name in ("s3", "sqs", "dynamodb"))
        create_job_table(self.dynamodb, TABLE)
        for bucket in (ARTIFACTS, DATA):
            self.s3.create_bucket(Bucket=bucket)
        urls = {p: self.sqs.create_queue(QueueName=p.value)["QueueUrl"] for p in Priority}
        self.queues = JobQueues(self.sqs, {Pool.LINUX_CPU: urls})
        self.objects = ObjectStore(self.s3)
        self.refused = set()
        self.ahead = None
        for client in (self.s3, self.sqs, self.dynamodb):
            client.meta.events.register_first("before-send", self._answer)

    def _answer(self, request, event_name, **_):
        *_, service, operation = event_name.split(".")
        date = datetime.now(UTC) + (self.ahead or timedelta())
        headers = {"date": format_datetime(date, usegmt=True)}
        if operation in self.refused:
            kind = "application/xml" if service == "s3" else "application/x-amz-json-1.0"
            return Refusal(request.url, headers | {"content-type": kind}, is_xml=service == "s3")
        if self.ahead is not None and operation == "GetItem":
            return Empty(request.url, headers)
        return None

    def checks(self):
        return {
            check.name: check
            for check in (
                checks.job_table(self.dynamodb, TABLE),
                checks.queue(self.queues, Pool.LINUX_CPU),
                checks.artifacts(self.objects, ARTIFACTS, "i-0abc"),
                checks.inputs(self.objects, S3Uri(DATA, "")),
                checks.clock(self.dynamodb, TABLE),
            )
        }


class Refusal(AWSResponse):
    def __init__(self, url, headers, *, is_xml):
        super().__init__(url, 403, headers, None)
        xml = b"<Error><Code>AccessDenied</Code><Message>not authorized</Message></Error>"
        json = b'{"__type": "com.amazon#AccessDeniedException", "message": "not authorized"}'
        self._content = xml if is_xml else json


class Empty(AWSResponse):
    def __init__(self, url, headers):
        super().__init__(url, 200, headers, None)
        self._content = b"{}"


@pytest.fixture
def account(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield Account(boto3.Session())


def test_a_machine_that_may_do_all_passes_and_leaves_nothing_behind(account):
    for check in account.checks().values():
        check.look()

    assert account.s3.list_objects_v2(Bucket=ARTIFACTS)["KeyCount"] == 0
    assert account.dynamodb.scan(TableName=TABLE)["Count"] == 0


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("GetItem", "job table"),
        ("UpdateItem", "job table"),
        ("GetQueueAttributes", "queue"),
        ("PutObject", "artifacts"),
        ("GetObject", "artifacts"),
        ("DeleteObjects", "artifacts"),
        ("ListObjectsV2", "inputs"),
    ],
)
def test_a_permission_that_is_missing_is_found_and_healed(account, operation, name):
    account.refused = {operation}
    check = account.checks()[name]
    failed = reason_of(check)
    assert "AccessDenied" in failed.reason
    assert "security.md" in failed.to_do

    account.refused = set()
    check.look()


def test_no_check_receives_a_message_or_needs_more_than_the_agents_role(account):
    account.sqs.send_message(
        QueueUrl=account.sqs.get_queue_url(QueueName="high")["QueueUrl"], MessageBody="x"
    )
    account.refused = {
        "ReceiveMessage",
        "PutItem",
        "DeleteItem",
        "Scan",
        "Query",
        "SendMessage",
        "HeadBucket",
    }

    for check in account.checks().values():
        check.look()

    assert account.queues.backlog(Pool.LINUX_CPU).waiting == 1


def test_the_probe_lies_under_the_prefix_that_the_role_may_write(account):
    keys = []
    account.s3.meta.events.register(
        "provide-client-params.s3.PutObject", lambda params, **_: keys.append(params["Key"])
    )
    account.checks()["artifacts"].look()

    assert keys == [f"{STAGING_PREFIX}self-check/i-0abc"]


@pytest.mark.parametrize(("seconds", "word"), [(20, "behind"), (120, "behind"), (-3600, "ahead of")])
def test_a_wrong_clock_is_told(account, seconds, word):
    account.ahead = timedelta(seconds=seconds)

    assert f"s {word} AWS's" in reason_of(account.checks()["clock"]).reason


@pytest.mark.parametrize("seconds", [0, 12, -12])
def test_a_clock_that_is_a_little_off_is_no_problem(account, seconds):
    account.ahead = timedelta(seconds=seconds)

    account.checks()["clock"].look()


def test_a_refusal_tells_the_time_as_well(account):
    account.ahead = timedelta(minutes=10)
    account.refused = {"GetItem"}

    assert re.search(r"(599|600|601) s behind", reason_of(account.checks()["clock"]).reason)


def test_no_answer_is_no_matter_of_the_clock(account):
    silent = boto3.Session().client("dynamodb", endpoint_url="http://127.0.0.1:1")

    checks.clock(silent, TABLE).look()


def test_a_slow_answer_is_no_wrong_clock(account):
    """The answer's date may be from any moment of the wait."""
    times = iter([1000.0 - 400, 1000.0 + 400])
    account.ahead = datetime.fromtimestamp(1000 + 100, UTC) - datetime.now(UTC)

    checks.clock(account.dynamodb, TABLE, now=lambda: next(times)).look()


def test_the_probe_is_no_job():
    assert not is_job_id(checks.PROBE)
