"""The message of an attempt: extended, replaced before SQS's 12 hours are over, let go once."""

from datetime import timedelta

import boto3
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sqs import sqs_backends

from scanfleet import contract
from scanfleet.agent.message import HeldMessage
from scanfleet.contract import Pool, Priority
from scanfleet.errors import Unavailable
from scanfleet.jobs import Job, new_job_id
from scanfleet.queue import Backlog, JobQueues
from scanfleet.sqs import DeliveryOver

REGION = "eu-west-1"
POOL = Pool.LINUX_CPU
VISIBILITY_SECONDS = 35


class Bench:
    """A queue, one received message of it, and time that tests move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.client = boto3.client("sqs")
        self.url = self.client.create_queue(QueueName="jobs")["QueueUrl"]
        self.queues = JobQueues(self.client, {POOL: dict.fromkeys(Priority, self.url)})
        job = Job(
            job_id=new_job_id(),
            owner="ann",
            processor="p",
            pool=POOL,
            source_uri="s3://b/in/",
            target_uri="s3://b/out/",
            created_at=0,
            queued_at=0,
            state_changed_at=0,
        )
        self.queues.send(job)
        message = self.queues.receive(
            POOL, Priority.NORMAL, wait=timedelta(), visibility_seconds=VISIBILITY_SECONDS
        )
        assert message is not None
        self.held = HeldMessage(message, job, visibility_seconds=VISIBILITY_SECONDS, clock=lambda: self.now)
        self.put_away = []

    @property
    def counts(self) -> tuple[int, int]:
        """Return messages that nobody holds (a delayed one, too), and those in flight."""
        # Both priorities are one queue here, so all is counted twice.
        backlog: Backlog = self.queues.backlog(POOL)
        return backlog.waiting // 2, backlog.in_flight // 2

    def was_sent_long_ago(self) -> None:
        """Make SQS believe that the 12 hours are nearly over; moto counts them from the sending."""
        queue = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues["jobs"]
        for message in queue._messages:
            message.sent_timestamp -= 12 * 3600 * 1000


@pytest.fixture
def bench(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield Bench()


def test_a_message_is_extended_for_eleven_hours_and_then_replaced_by_a_fresh_one(bench):
    bench.now += contract.MESSAGE_REPLACED_AFTER.total_seconds() - 1
    bench.held.extend(bench.queues)
    assert bench.counts == (0, 1)

    bench.now += 1
    bench.held.extend(bench.queues)
    assert bench.counts == (1, 0)

    bench.now += 5
    bench.held.extend(bench.queues)
    assert bench.counts == (1, 0), "one fresh message is enough"


def test_an_extension_that_sqs_refuses_for_its_total_limit_replaces_the_message(bench):
    bench.was_sent_long_ago()

    bench.held.extend(bench.queues)

    assert bench.counts == (1, 0)


def test_a_message_that_was_replaced_is_not_put_away(bench):
    bench.now += contract.MESSAGE_REPLACED_AFTER.total_seconds()
    bench.held.extend(bench.queues)

    bench.held.let_go(bench.put_away.append)

    assert bench.put_away == []
    assert bench.counts == (1, 0), "its later reader finds the job ended"


def test_a_message_is_put_away_once(bench):
    bench.held.let_go(bench.queues.delete)
    bench.held.let_go(bench.put_away.append)

    assert bench.put_away == []
    assert bench.counts == (0, 0)


def test_a_message_that_has_come_back_meanwhile_is_left_to_its_reader(bench, caplog):
    def invalid(_message):
        raise DeliveryOver("delete message: the queue answered ReceiptHandleIsInvalid")

    bench.held.let_go(invalid)

    assert [(record.levelname, record.action) for record in caplog.records] == [("WARNING", "message_left")]


def test_a_queue_that_is_silent_at_the_end_leaves_the_message(bench, caplog):
    def silent(_message):
        raise Unavailable("delete message: the queue did not answer")

    bench.held.let_go(silent)

    assert [record.action for record in caplog.records] == ["message_left"]


def test_a_silent_queue_is_tried_again(bench, monkeypatch):
    def silent(**_):
        raise bench.client.exceptions.ClientError({"Error": {"Code": "ServiceUnavailable"}}, "x")

    with monkeypatch.context() as patch:
        patch.setattr(bench.client, "change_message_visibility", silent)
        with pytest.raises(Unavailable):
            bench.held.extend(bench.queues)

    bench.held.extend(bench.queues)
    assert bench.counts == (0, 1)


def test_the_replacement_comes_well_before_sqs_loses_patience():
    assert contract.MESSAGE_REPLACED_AFTER + timedelta(minutes=30) < timedelta(hours=12)
