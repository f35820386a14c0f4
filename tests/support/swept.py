"""A small system in one process's moto, a clock that tests move, and a sweeper over it."""

import json
import time
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import boto3

from scanfleet.clients import Clients, build_clients
from scanfleet.contract import STAGING_PREFIX, Pool, Priority
from scanfleet.jobs import Job, new_job_id
from scanfleet.leases import Lease, Leases
from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import S3Uri
from scanfleet.settings import SweeperSettings
from scanfleet.store import JobStore
from scanfleet.sweeper.sweeper import Sweeper, build_sweeper
from tests.support.cloud import create_job_table

TABLE, ARTIFACTS = "jobs", "artifacts"
MINUTE, HOUR = 60.0, 3600.0


@cache
def _session() -> boto3.Session:
    """Return the session of all clients: reading the services' descriptions takes longer than a test."""
    return boto3.Session("test", "test", region_name="us-east-1")


def in_time() -> bool:
    """Say that a run's time is not up."""
    return False


class SweptSystem:
    """The parts that the sweeper looks at; build it inside moto's `mock_aws`."""

    def __init__(self) -> None:
        self.now = time.time()
        self.clients: Clients = build_clients(session=_session())
        create_job_table(self.clients.dynamodb, TABLE)
        self.clients.s3.create_bucket(Bucket=ARTIFACTS)
        self.urls = {
            pool: {
                priority: self.clients.sqs.create_queue(QueueName=f"{pool}-{priority}")["QueueUrl"]
                for priority in Priority
            }
            for pool in Pool
        }
        self.store = JobStore(self.clients.dynamodb, TABLE, clock=self.clock, on_transition=_ignore)
        self.leases = Leases(self.clients.dynamodb, TABLE, clock=self.clock, on_transition=_ignore)
        self.queues = JobQueues(self.clients.sqs, self.urls)
        self.objects = ObjectStore(self.clients.s3)
        self.sweeper = self.new_sweeper()

    def clock(self) -> float:
        """Return the present moment."""
        return self.now

    def new_sweeper(self) -> Sweeper:
        """Return a sweeper as a fresh process would have it, with clients of its own."""
        settings = SweeperSettings(job_table=TABLE, queues=self.urls, artifacts_bucket=ARTIFACTS)
        return build_sweeper(build_clients(session=_session()), settings, clock=self.clock)

    def sweep(self, *, after: float = 0.0) -> int:
        """Let this many seconds pass, then sweep once; return the repairs."""
        self.now += after
        return self.sweeper.run(is_time_up=in_time)

    def sweep_for(self, seconds: float) -> int:
        """Sweep once a minute for this long; return the repairs."""
        return sum(self.sweep(after=MINUTE) for _ in range(int(seconds // MINUTE)))

    # --- Jobs ----------------------------------------------------------------------------------------------

    def record(self, **facts: Any) -> Job:
        """Record a job, and send nothing."""
        job_id = new_job_id()
        defaults: dict[str, Any] = {
            "job_id": job_id,
            "owner": "ann",
            "processor": "reference",
            "pool": Pool.LINUX_CPU,
            "source_uri": "s3://data/in/",
            "target_uri": f"s3://data/out/{job_id}/",
            "created_at": self.now,
            "queued_at": self.now,
            "state_changed_at": self.now,
        }
        return self.store.create(Job(**(defaults | facts)))

    def submit(self, **facts: Any) -> Job:
        """Record a job, send its message and mark it, as the API does."""
        job = self.record(**facts)
        self.queues.send(job)
        return self.store.mark_enqueued(job)

    def take(self, job: Job, agent: str = "a1") -> Lease:
        """Take the job's lease as an agent does."""
        lease = self.leases.take(job.job_id, agent)
        assert isinstance(lease, Lease), lease
        return lease

    def messages(self, pool: Pool = Pool.LINUX_CPU) -> list[str]:
        """Take every message off the pool's queues; return their job ids."""
        found = []
        for url in self.urls[pool].values():
            while batch := self.clients.sqs.receive_message(QueueUrl=url).get("Messages", []):
                for message in batch:
                    found.append(json.loads(message["Body"])["job_id"])
                    self.clients.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return sorted(found)

    # --- Staged results ------------------------------------------------------------------------------------

    def stage(self, job: Job, attempt: int, *names: str) -> None:
        """Leave staged results of an attempt, written now."""
        for name in names or ("a.ply",):
            self.objects.put_bytes(S3Uri(ARTIFACTS, f"{STAGING_PREFIX}{job.job_id}/{attempt}/{name}"), b"x")

    def staged(self) -> list[str]:
        """Return what is staged, as "<job>/<attempt>/<file>"."""
        return [found.relative for found in self.objects.list_folder(S3Uri(ARTIFACTS, STAGING_PREFIX))]

    def uploads(self) -> list[str]:
        """Return the keys of unfinished uploads."""
        found = self.clients.s3.list_multipart_uploads(Bucket=ARTIFACTS)
        return [upload["Key"] for upload in found.get("Uploads", [])]


def refuse(client: Any, operation: str, code: str, *, when: Callable[[Any], bool] = lambda _: True) -> None:
    """Have each call of the operation that fits `when` answered with this error from now on."""

    def answer(params: Any, **_: Any) -> Any:
        body = params.get("body", b"")
        if when(body if isinstance(body, str) else bytes(body).decode()):
            return SimpleNamespace(status_code=400), {"Error": {"Code": code}, "ResponseMetadata": {}}
        return None

    service = client.meta.service_model.service_name
    client.meta.events.register(f"before-call.{service}.{operation}", answer)


def _ignore(_transition: Any) -> None:
    """Transitions are told to nobody."""
