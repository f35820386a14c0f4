"""An attempt is stopped at every instant between two of its calls, and another agent finishes the job.

The stopped one then goes on (a zombie), or never does (killed). Its heartbeat never notices anything: what
has to hold, holds by the conditions of its writes alone. Time is no part of this: the other agent's clock
says that the lease has run out.
"""

import json
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import boto3
import pytest

from scanfleet import contract
from scanfleet.agent.attempt import Attempt
from scanfleet.agent.lease import HeartbeatRules, Pulse
from scanfleet.agent.publication import Publication
from scanfleet.agent.stopping import StopRequest
from scanfleet.agent.tools import Tools
from scanfleet.agent.transfer import Transfer
from scanfleet.clients import build_clients
from scanfleet.contract import MANIFEST_NAME, Pool, Priority
from scanfleet.errors import ScanfleetError
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.leases import Lease, Leases
from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues, Message
from scanfleet.s3_uri import S3Uri
from scanfleet.store import JobStore
from scanfleet.telemetry import Transition
from tests.support.cloud import create_job_table
from tests.support.fleet import ARTIFACTS, DATA, TABLE, TestFleet
from tests.support.gated_cloud import Gate, GatedCloud, Instant, When

POOL = Pool.LINUX_CPU
NEVER = timedelta(hours=1)
OBLIVIOUS = HeartbeatRules(every=NEVER, lease=NEVER * 2, visibility_seconds=3, look=NEVER)
"""A heartbeat that notices nothing while a test runs."""
LATER_SECONDS = 3600.0
"""How far the other agent's clock is ahead: every lease has run out by then."""
HANG_GUARD_SECONDS = 60.0


class Writes:
    """Runs no process: writes what the scripted program would, signed with the agent's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, invocation, *, board, **_: object) -> None:
        output = Path(json.loads(Path(invocation.argv[2]).read_text())["output"])
        *_, job_id, attempt, _ = output.parts
        for file in ("a.txt", "deep/b.txt"):
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            (output / file).write_text(f"{file} of {job_id}, attempt {attempt}, by {self._name}")


@dataclass
class Agent:
    """One agent: its tools, and what it does with a message."""

    name: str
    tools: Tools

    def handle(self, message: Message) -> None:
        """Do what a worker does, as far as a test has it do anything."""
        with suppress(ScanfleetError):  # the message is left then
            taken = self.tools.leases.take(message.job_id(), self.name)
            if isinstance(taken, Lease):
                Attempt(self.tools, taken, message, StopRequest()).run()


class World:
    """A cloud with two agents; `first` is the one that gets stopped."""

    def __init__(self, cloud: GatedCloud, folder: Path) -> None:
        self.gate = cloud.gates["first"] = Gate()
        self._folder = folder
        self._transitions: list[Transition] = []
        self.fleet = TestFleet(build_clients(), {}, folder)
        create_job_table(self.fleet.clients.dynamodb, TABLE)
        for bucket in (DATA, ARTIFACTS):
            self.fleet.clients.s3.create_bucket(Bucket=bucket)
        self.store = JobStore(self.fleet.clients.dynamodb, TABLE, on_transition=self._transitions.append)
        self.queue_url = self.fleet.clients.sqs.create_queue(QueueName="jobs")["QueueUrl"]
        self.queues = JobQueues(self.fleet.clients.sqs, {POOL: dict.fromkeys(Priority, self.queue_url)})

    def agent(self, name: str, *, ahead_seconds: float = 0.0, in_parts: bool = False) -> Agent:
        """Return an agent with clients of its own. in_parts: it copies every file as a large one."""
        session = boto3.Session(aws_access_key_id=name, aws_secret_access_key="x", region_name="us-east-1")
        clients = build_clients(session=session)
        leases = Leases(
            clients.dynamodb,
            TABLE,
            clock=lambda: time.time() + ahead_seconds,
            on_transition=self._transitions.append,
        )
        queues = JobQueues(clients.sqs, {POOL: dict.fromkeys(Priority, self.queue_url)})
        objects = ObjectStore(clients.s3, **({"max_single_copy_bytes": 0} if in_parts else {}))
        transfer = Transfer(objects, clients.credentials)
        tools = replace(
            self.fleet.tools(self._folder / name),
            leases=leases,
            queues=queues,
            objects=objects,
            transfer=transfer,
            publication=Publication(objects, transfer, artifacts_bucket=ARTIFACTS),
            runner=Writes(name),
            pulse=Pulse(leases, queues, OBLIVIOUS),
        )
        return Agent(name, tools)

    def submit(self, *, target_uri: str = "") -> Job:
        """Record a job; with a target, one that replaces the results there."""
        job_id, now = new_job_id(), time.time()
        self.fleet.objects.put_bytes(S3Uri(DATA, f"in/{job_id}/a.txt"), b"input")
        job = Job(
            job_id=job_id,
            owner="ann",
            processor="scripted",
            pool=POOL,
            source_uri=f"s3://{DATA}/in/{job_id}/",
            target_uri=target_uri or f"s3://{DATA}/out/{job_id}/",
            created_at=now,
            queued_at=now,
            state_changed_at=now,
        )
        return self.store.create(job, replace=True)

    def message(self, job: Job) -> Message:
        """Return a delivery of the job's message."""
        self.queues.send(job)
        while True:
            message = self.queues.receive(
                POOL, Priority.NORMAL, wait=timedelta(seconds=1), visibility_seconds=600
            )
            assert message is not None
            if message.job_id() == job.job_id:
                return message

    def view(self, job: Job) -> tuple[Job, dict[str, str]]:
        """Return all that a reader of the job sees: its record, and the target folder byte by byte."""
        return self.store.get(job.job_id), self.fleet.published(job)

    def ends(self, job: Job) -> list[JobState]:
        """Return how often, and how, the job has ended."""
        mine = [one.job for one in self._transitions if one.job.job_id == job.job_id]
        return [found.state for found in mine if found.state.is_terminal]

    def staged(self, job: Job) -> list[str]:
        """Return what is staged of the attempt whose results were committed."""
        return self.fleet.artifacts(f"{contract.STAGING_PREFIX}{job.job_id}/{job.committed_attempt}/")


@pytest.fixture(scope="module")
def cloud():
    with GatedCloud() as running:
        yield running


@pytest.fixture
def world(cloud, monkeypatch, tmp_path):
    for name, value in {
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    found = World(cloud, tmp_path)
    yield found
    clients = found.fleet.clients
    clients.dynamodb.delete_table(TableName=TABLE)
    clients.sqs.delete_queue(QueueUrl=found.queue_url)
    for bucket in (DATA, ARTIFACTS):
        for one in clients.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            clients.s3.delete_object(Bucket=bucket, Key=one["Key"])
        clients.s3.delete_bucket(Bucket=bucket)


def assert_one_attempts_results(world: World, job: Job) -> None:
    """Assert invariant 2 of a completed job: what is there is one attempt's, as its manifest says."""
    record, files = world.view(job)
    assert record.state is JobState.COMPLETED
    manifest = json.loads(files[MANIFEST_NAME])
    assert manifest["job_id"] == job.job_id
    assert manifest["attempt"] == record.committed_attempt == record.result.attempt
    assert {file["key"] for file in manifest["files"]} == {"a.txt", "deep/b.txt"}
    for file in manifest["files"]:
        assert sha256(files[file["key"]].encode()).hexdigest() == file["sha256"]
        assert f"of {job.job_id}, attempt {record.committed_attempt}, by" in files[file["key"]]
    assert world.staged(record) == []


def calls_of_one_attempt(world: World, agent: Agent) -> list[str]:
    """Return the calls that an undisturbed attempt makes."""
    world.gate.stop_at(Instant(0, When.BEFORE))
    job = world.submit()
    agent.handle(world.message(job))
    assert_one_attempts_results(world, job)
    return list(world.gate.calls)


def begin(agent: Agent, message: Message) -> threading.Thread:
    thread = threading.Thread(target=agent.handle, args=(message,), name="first", daemon=True)
    thread.start()
    return thread


def end(thread: threading.Thread) -> None:
    thread.join(HANG_GUARD_SECONDS)
    assert not thread.is_alive()


def live_through(world: World, zombie: Agent, other: Agent, instant: Instant) -> None:
    """Stop the zombie, have its job finished and its results replaced, and let it go on."""
    job = world.submit()
    message = world.message(job)
    world.gate.stop_at(instant)
    thread = begin(zombie, message)
    assert world.gate.await_stopped(thread)

    other.handle(world.message(job))
    assert_one_attempts_results(world, job)
    later = world.submit(target_uri=job.target_uri)
    other.handle(world.message(later))
    assert_one_attempts_results(world, later)
    seen, seen_later = world.store.get(job.job_id), world.view(later)

    world.gate.go_on()
    end(thread)

    assert world.store.get(job.job_id) == seen
    assert world.view(later) == seen_later
    assert world.staged(seen) == []
    assert world.ends(job) == [JobState.COMPLETED]
    assert world.ends(later) == [JobState.COMPLETED]
    assert not list(zombie.tools.scratch.folder.rglob("*.*")), "a workspace is left"


@pytest.mark.parametrize("when", When)
def test_a_zombie_that_slept_at_any_instant_changes_nothing_that_a_reader_sees(world, when):
    zombie, other = world.agent("first"), world.agent("other", ahead_seconds=LATER_SECONDS)
    calls = calls_of_one_attempt(world, zombie)
    assert {"TransactWriteItems", "DeleteMessage"} <= set(calls)

    for number, name in enumerate(calls, start=1):
        print(f"{when} call {number}, {name}")  # noqa: T201 - which one it was, when it fails
        live_through(world, zombie, other, Instant(number, when))


@pytest.mark.parametrize("when", When)
def test_a_zombie_that_slept_while_it_copied_in_parts_changes_nothing_either(world, when):
    zombie = world.agent("first", in_parts=True)
    other = world.agent("other", ahead_seconds=LATER_SECONDS, in_parts=True)
    calls = calls_of_one_attempt(world, zombie)
    assert any("uploads" in name for name in calls)

    for number, name in enumerate(calls, start=1):
        if number > calls.index("TransactWriteItems"):
            print(f"{when} call {number}, {name}")  # noqa: T201 - which one it was, when it fails
            live_through(world, zombie, other, Instant(number, when))


def test_a_job_whose_agent_was_killed_at_any_instant_ends_exactly_once(world):
    other = world.agent("other", ahead_seconds=LATER_SECONDS)
    calls = calls_of_one_attempt(world, world.agent("first"))

    for number, name in enumerate(calls, start=1):
        print(f"killed before call {number}, {name}")  # noqa: T201 - which one it was, when it fails
        job = world.submit()
        message = world.message(job)
        world.gate.stop_at(Instant(number, When.BEFORE))
        victim = world.agent("first")
        thread = begin(victim, message)
        assert world.gate.await_stopped(thread)
        world.gate.kill()
        end(thread)
        shutil.rmtree(victim.tools.scratch.folder, ignore_errors=True)  # as the next agent there does

        other.handle(world.message(job))
        other.handle(world.message(job))

        assert_one_attempts_results(world, job)
        assert world.ends(job) == [JobState.COMPLETED]


def test_a_lost_answer_at_any_call_does_no_harm(world):
    other = world.agent("other", ahead_seconds=LATER_SECONDS)
    calls = calls_of_one_attempt(world, world.agent("first"))

    for number, name in enumerate(calls, start=1):
        print(f"lost the answer to call {number}, {name}")  # noqa: T201 - which one it was, when it fails
        job = world.submit()
        message = world.message(job)
        world.gate.lose_answer_to(number)
        world.agent("first").handle(message)

        other.handle(world.message(job))

        assert_one_attempts_results(world, job)
        assert world.ends(job) == [JobState.COMPLETED]
