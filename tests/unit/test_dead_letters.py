"""Messages that lead to no attempt, and jobs that may hurt machines: dead letters with a reason."""

import json
import random
import time
from collections import Counter
from datetime import timedelta

import pytest

from scanfleet import contract
from scanfleet.agent.burial import put_away
from scanfleet.agent.message import HeldMessage
from scanfleet.agent.settling import Settlement
from scanfleet.contract import Pool, Priority
from scanfleet.dead_letters import Burial, Cause
from scanfleet.errors import ConfigurationError, JobFailure, Unavailable
from scanfleet.jobs import (
    QUARANTINED_CLASSES,
    RETRY_RULES,
    FailureClass,
    JobState,
    new_job_id,
)
from scanfleet.leases import Lease, NothingToDo
from scanfleet.messages import body_for
from scanfleet.queue import Backlog
from tests.support.moto_fleet import moto_fleet, moto_server

POOL = Pool.LINUX_CPU
VISIBLE_AGAIN = timedelta(minutes=10)


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def fleet(endpoint, monkeypatch, tmp_path):
    with moto_fleet(endpoint, tmp_path, monkeypatch) as fleet:
        yield fleet


def send(fleet, body, priority=Priority.NORMAL):
    fleet.clients.sqs.send_message(QueueUrl=fleet.queue_urls[POOL][priority], MessageBody=body)


def letters(fleet):
    """Return every dead letter of the pool."""
    found = []
    while some := fleet.queues.dead_letters.receive(POOL, visibility=VISIBLE_AGAIN):
        found += some
    return found


def await_letters(fleet, count, *, seconds=60):
    deadline = time.monotonic() + seconds
    while fleet.queues.dead_letters.waiting(POOL) < count:
        assert time.monotonic() < deadline, fleet.queues.dead_letters.waiting(POOL)
        time.sleep(0.05)
    return letters(fleet)


def failed_for_good(fleet, job, failure_class):
    """Fail the job until the class's retries are used up; return it as its last attempt left it."""
    for _ in range(RETRY_RULES[failure_class].max_retries):
        lease = taken(fleet, job)
        fleet.leases.requeue(lease, fleet.leases.failure(lease, failure_class, "it broke"))
    message = fleet.queues.receive(POOL, Priority.NORMAL, wait=timedelta(), visibility_seconds=30)
    held = HeldMessage(message, job, visibility_seconds=30)
    settlement = Settlement(fleet.leases, fleet.queues, held)
    settlement.failed(taken(fleet, job), JobFailure(failure_class, "it broke\x1b[0m"))
    return fleet.store.get(job.job_id)


def taken(fleet, job):
    lease = fleet.leases.take(job.job_id, "a1")
    assert isinstance(lease, Lease)
    return lease


# --- Messages that nobody may run --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("not json", Cause.UNREADABLE),
        ("[" * 100_000, Cause.UNREADABLE),
        ('{"version": 2, "job_id": "01JD5Z9W4T8Q2V6K3M7N1P5R9S"}', Cause.UNREADABLE),
        ('{"version": true, "job_id": "01JD5Z9W4T8Q2V6K3M7N1P5R9S"}', Cause.UNREADABLE),
        ('{"version": 1}', Cause.UNREADABLE),
        ('{"version": 1, "job_id": "../../etc"}', Cause.UNREADABLE),
        ("x" * (256 * 1024), Cause.UNREADABLE),
        (body_for("01JD5Z9W4T8Q2V6K3M7N1P5R9S"), Cause.NO_SUCH_JOB),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_message_that_nobody_may_run_is_a_dead_letter_at_its_first_delivery(fleet, body, cause):
    send(fleet, body)
    with fleet.agent("i-1"):
        (letter,) = await_letters(fleet, 1)
        backlog = fleet.queues.backlog(POOL)

    assert letter.body == body
    assert backlog.waiting + backlog.in_flight == 0
    if len(body) < 200_000:  # a message of the largest size has no room for a reason
        assert (letter.cause, letter.agent_id) == (cause, "i-1")
        assert letter.reason
        assert abs(letter.at - time.time()) < 300


def test_a_message_stays_where_it_is_when_the_dead_letter_queue_does_not_take_it(fleet):
    send(fleet, "not json")
    message = fleet.queues.receive(POOL, Priority.NORMAL, wait=timedelta(), visibility_seconds=30)
    fleet.clients.sqs.delete_queue(QueueUrl=fleet.queues.dead_letters._urls[POOL])

    with pytest.raises(Unavailable):
        fleet.queues.bury(message, POOL, Burial(cause=Cause.UNREADABLE, reason="r", agent_id="a", at=0))

    fleet.queues.extend(message, visibility_seconds=0)
    assert fleet.queues.backlog(POOL).waiting == 1


def test_a_pool_without_a_dead_letter_queue_is_named(fleet):
    with pytest.raises(ConfigurationError, match="windows-gpu"):
        fleet.queues.dead_letters.waiting(Pool.WINDOWS_GPU)


def test_a_letter_that_sqs_moved_says_so(fleet):
    fleet.clients.sqs.send_message(
        QueueUrl=fleet.queues.dead_letters._urls[POOL],
        MessageBody=body_for(new_job_id()),
        MessageAttributes={
            "scanfleet_when": {"DataType": "String", "StringValue": "somebody else's"},
            "scanfleet_cause": {"DataType": "String", "StringValue": "moon"},
        },
    )

    (letter,) = letters(fleet)

    assert (letter.cause, letter.agent_id) == (Cause.DELIVERED_TOO_OFTEN, None)
    assert abs(letter.at - time.time()) < 300


FUZZED = 200


def fuzzed_bodies():
    """Return bodies that no version has sent: JSON of any shape, near misses, and text that SQS can carry."""
    rng = random.Random(7)
    alphabet = [chr(code) for code in (9, 10, 13, *range(32, 127), 0xE9, 0x4E2D, 0x1F600)]
    job_id = new_job_id()

    def near_miss():
        message = {"version": 1, "job_id": job_id}
        message[rng.choice(["version", "job_id", "more"])] = rng.choice(
            [None, True, -1, 1.5, 2, "", "1", [], {}, [job_id], job_id.lower(), job_id + "0", "I" * 26]
        )
        if rng.random() < 0.2:
            del message[rng.choice(list(message))]
        return json.dumps(message)

    def text():
        return "".join(rng.choices(alphabet, k=rng.randint(1, 80)))

    def cut():
        return body_for(job_id)[: rng.randint(1, 40)]

    return [
        rng.choice([near_miss, text, cut, lambda: json.dumps(rng.choice([0, "x", [text()], None]))])()
        for _ in range(FUZZED)
    ]


def test_hundreds_of_fuzzed_messages_all_become_dead_letters_and_good_jobs_complete(fleet):
    """Each is received once and no more: nothing loops."""
    bodies = fuzzed_bodies()
    jobs = []
    for number, body in enumerate(bodies):
        send(fleet, body, Priority.HIGH if number % 7 == 0 else Priority.NORMAL)
        if number % 60 == 0:
            jobs.append(fleet.submit())
    received = Counter()
    real = fleet.queues.receive

    def counted(*where, **how):
        message = real(*where, **how)
        if message is not None:
            received[message.receive_count] += 1
        return message

    fleet.queues.receive = counted
    with fleet.agent("i-1", slots=2) as worker:
        for job in jobs:
            fleet.await_state(job, JobState.COMPLETED, seconds=240)
        found = await_letters(fleet, FUZZED, seconds=240)
        assert worker.problem() is None

    assert Counter(letter.body for letter in found) == Counter(bodies)
    assert all(letter.reason and letter.agent_id == "i-1" for letter in found)
    assert {letter.cause for letter in found} <= {Cause.UNREADABLE, Cause.NO_SUCH_JOB}
    assert received == {1: FUZZED + len(jobs)}
    assert fleet.queues.backlog(POOL) == Backlog(waiting=0, in_flight=0)


# --- Quarantine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure_class", sorted(QUARANTINED_CLASSES))
def test_a_job_that_may_hurt_machines_is_quarantined_once_its_retries_are_used_up(fleet, failure_class):
    job = fleet.submit()

    failed = failed_for_good(fleet, job, failure_class)

    assert failed.state is JobState.FAILED
    assert failed.quarantined_at == failed.finished_at
    (letter,) = letters(fleet)
    assert (letter.cause, letter.job_id()) == (Cause.QUARANTINED, job.job_id)
    assert letter.reason.endswith("it broke\N{REPLACEMENT CHARACTER}[0m")
    assert fleet.queues.backlog(POOL).waiting == 0


@pytest.mark.parametrize("failure_class", sorted(set(FailureClass) - QUARANTINED_CLASSES))
def test_a_job_that_failed_harmlessly_is_no_dead_letter(fleet, failure_class):
    failed = failed_for_good(fleet, fleet.submit(), failure_class)

    assert (failed.state, failed.quarantined_at) == (JobState.FAILED, None)
    assert letters(fleet) == []


def test_a_job_whose_every_machine_dies_is_quarantined_by_the_next_reader(fleet):
    job = fleet.submit()
    clock = [time.time()]
    fleet.leases._clock = lambda: clock[0]
    for number in range(contract.MAX_LOST_MACHINES + 1):
        assert isinstance(fleet.leases.take(job.job_id, f"a{number}"), Lease)
        clock[0] += 60

    ended = fleet.leases.take(job.job_id, "last")

    assert isinstance(ended, NothingToDo)
    assert ended.job.quarantined_at is not None


def test_a_crash_between_the_record_and_the_letter_only_delays_the_letter(fleet):
    """The record is written, the agent dies: the message comes back, and its reader writes the letter."""
    job = fleet.submit()
    lease = taken(fleet, job)
    failed = fleet.leases.fail(lease, fleet.leases.failure(lease, FailureClass.HANG, "hung"))
    assert failed.quarantined_at is not None
    assert letters(fleet) == []

    with fleet.agent():
        (letter,) = await_letters(fleet, 1)

    assert (letter.cause, letter.job_id()) == (Cause.QUARANTINED, job.job_id)


def test_an_ended_job_s_message_just_goes(fleet):
    job = fleet.submit()
    message = fleet.queues.receive(POOL, Priority.NORMAL, wait=timedelta(), visibility_seconds=30)

    put_away(fleet.queues, message, job.model_copy(update={"state": JobState.COMPLETED}), agent_id="a1")

    assert letters(fleet) == []
    assert fleet.queues.backlog(POOL).waiting == 0


def test_an_owner_s_retry_ends_the_quarantine(fleet):
    failed = failed_for_good(fleet, fleet.submit(), FailureClass.HANG)

    assert fleet.store.retry(failed).quarantined_at is None
