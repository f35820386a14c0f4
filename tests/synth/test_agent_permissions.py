"""The machines' role allows what agents do: their calls over moto, against the synthesized policy."""

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from fnmatch import fnmatchcase

import pytest

from scanfleet.agent import checks
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.clients import build_autoscaling_client, build_clients
from scanfleet.contract import Pool, Priority
from scanfleet.errors import Unavailable
from scanfleet.jobs import FailureClass, JobState
from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import S3Uri
from tests.support.aws_calls import Need, record
from tests.support.fleet import ARTIFACTS, DATA, TABLE, TestFleet
from tests.support.moto_fleet import moto_fleet, moto_server
from tests.synth.test_fleet_stack import Allowed, permissions

COMPLETED, FAILED, CANCELLED, QUEUED = (
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.QUEUED,
)
DEAD_LETTERS = "dead-letters"


@pytest.fixture
def running(tmp_path, monkeypatch) -> Iterator[TestFleet]:
    with moto_server() as endpoint, moto_fleet(endpoint, tmp_path, monkeypatch) as found:
        yield found


def work(fleet: TestFleet, agents: TestFleet) -> None:
    """Everything that agents do with jobs: success, retry, cancel, hand-back, others' jobs, dead letters."""
    url = fleet.queue_urls[Pool.LINUX_CPU][Priority.NORMAL]
    held = {"hold": str(fleet.folder / "go")}
    with agents.agent("a1") as first:
        fleet.await_state(fleet.submit(), COMPLETED)
        fleet.await_state(fleet.submit(priority=Priority.HIGH), COMPLETED)
        cancelled = fleet.submit(settings=held)
        fleet.await_job(cancelled, lambda found: found.stage == "work")
        fleet.store.request_cancel(fleet.store.get(cancelled.job_id))
        fleet.await_state(cancelled, CANCELLED)
        back = fleet.submit(settings=held)
        fleet.await_job(back, lambda found: found.stage == "work")
        first.drain(timedelta())
        fleet.await_state(back, QUEUED)
    (fleet.folder / "go").write_text("")
    with agents.agent("a2"), agents.agent("a3"):
        fleet.await_state(back, COMPLETED)
        poison = fleet.await_state(fleet.submit(settings={"exit_code": 3}), FAILED)
        assert {failure.failure_class for failure in poison.failures} == {FailureClass.PROGRAM_ERROR}
        fleet.clients.sqs.send_message(QueueUrl=url, MessageBody="not json")
        fleet.await_state(fleet.submit(), COMPLETED)


def belong_to_a_group() -> list[Need]:
    """What an agent tells its Auto Scaling group of itself."""
    client = build_autoscaling_client("us-east-1")
    needs = record([client])
    member = FleetMember(client, fleet="a-fleet", instance_id="i-0abc")
    for call in (
        lambda: member.protect(True),
        member.set_unhealthy,
        member.end_instance,
        lambda: member.heartbeat("drain"),
        lambda: member.complete("drain"),
    ):
        try:
            call()
        except Unavailable:
            continue  # there is no such group here; the call was made
    return needs


def is_allowed(need: Need, allowed: Allowed, dead_letters: str) -> bool:
    if need.action != allowed.action:
        return False
    service = need.action.partition(":")[0]
    if service == "dynamodb":
        tests = allowed.conditions.values()
        keys = [key for test in tests for key in test.get("dynamodb:LeadingKeys", []) if len(key) > 1]
        return any(fnmatchcase(need.leading_key, key) for key in keys)
    if service == "sqs":
        return ("DeadLetters" in allowed.resource) == (need.resource == dead_letters)
    if service == "s3":
        bucket, _, key = need.resource.partition("/")
        name = {DATA: "BucketsData", ARTIFACTS: "BucketsArtifacts"}[bucket]
        pattern = allowed.resource.partition("/")[2]
        return name in re.split("/", allowed.resource)[0] and fnmatchcase(key, pattern)
    return True


def refused(needs: Iterable[Need], allowed: Iterable[Allowed], dead_letters: str = "") -> set[Need]:
    found = list(allowed)
    return {need for need in needs if not any(is_allowed(need, one, dead_letters) for one in found)}


@pytest.mark.parametrize(
    "need",
    [
        Need("sqs:SendMessage", "the queue"),
        Need("dynamodb:Query", leading_key="AGENTS"),
        Need("dynamodb:Query", leading_key="CALIBRATION#windows-gpu"),
        Need("s3:DeleteObject", f"{ARTIFACTS}/staging/x"),
        Need("autoscaling:TerminateInstanceInAutoScalingGroup"),
    ],
    ids=lambda need: need.action,
)
def test_a_call_that_the_role_lacks_is_noticed(stack, need):
    allowed = list(permissions(stack("dev", "fleet")))
    without = [one for one in allowed if one.action != need.action]

    assert refused([need], allowed) == set()
    assert refused([need], without) == {need}


@pytest.mark.parametrize(
    "need",
    [
        Need("dynamodb:PutItem", leading_key="JOB#1"),
        Need("dynamodb:PutItem", leading_key="CALIBRATION#windows-gpu"),
        Need("dynamodb:Query", leading_key="CALIBRATION#linux-cpu"),
        Need("dynamodb:Query", leading_key="JOB#1"),
        Need("s3:DeleteObject", f"{DATA}/out/x"),
        Need("s3:GetObject", f"{ARTIFACTS}/logs/x"),
    ],
)
def test_what_machines_must_not_do_is_refused(stack, need):
    assert refused([need], permissions(stack("dev", "fleet"))) == {need}


def test_machines_may_do_all_that_their_agents_do(running, stack):
    clients = build_clients()  # not those that the test submits and looks with
    agents = TestFleet(clients, running.queue_urls, running.folder)
    dead_letters = clients.sqs.create_queue(QueueName=DEAD_LETTERS)["QueueUrl"]
    agents.queues = JobQueues(clients.sqs, running.queue_urls, {Pool.LINUX_CPU: dead_letters})
    calls = record([clients.dynamodb, clients.sqs, clients.s3])

    work(running, agents)

    needs = {*calls, *belong_to_a_group()}
    assert refused(needs, permissions(stack("dev", "fleet")), dead_letters) == set()
    assert {need.action for need in needs} >= {
        *("sqs:ReceiveMessage", "sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
        *("dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:PutItem", "dynamodb:DeleteItem"),
        *("dynamodb:Query", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
        "autoscaling:TerminateInstanceInAutoScalingGroup",
    }, "the agents were not seen at work"
    assert Need("sqs:SendMessage", dead_letters) in needs


def test_machines_may_do_all_that_they_check_before_their_first_job(running, stack):
    clients = build_clients()
    calls = record([clients.dynamodb, clients.sqs, clients.s3])
    objects = ObjectStore(clients.s3)

    for check in (
        checks.clock(clients.dynamodb, TABLE),
        checks.job_table(clients.dynamodb, TABLE),
        checks.queue(JobQueues(clients.sqs, running.queue_urls), Pool.LINUX_CPU),
        checks.artifacts(objects, ARTIFACTS, "i-0abc"),
        checks.inputs(objects, S3Uri(DATA, "")),
    ):
        check.look()

    assert refused(calls, permissions(stack("dev", "fleet"))) == set()
    assert {need.action for need in calls} == {
        *("dynamodb:GetItem", "dynamodb:UpdateItem", "sqs:GetQueueAttributes"),
        *("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"),
    }
