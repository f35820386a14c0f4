"""An agent's worker in this process, over any cloud, with the scripted program."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from scanfleet.agent.breaker import Breaker
from scanfleet.agent.lease import HeartbeatRules, Pulse
from scanfleet.agent.publication import Publication
from scanfleet.agent.runner import Runner
from scanfleet.agent.tools import Tools
from scanfleet.agent.transfer import Transfer
from scanfleet.agent.worker import Worker
from scanfleet.agent.workspace import Scratch
from scanfleet.agent_reports import AgentDirectory
from scanfleet.clients import Clients
from scanfleet.contract import Pool, Priority
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.leases import Leases
from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import AllowedPrefixes, S3Uri
from scanfleet.store import JobStore
from tests.support.scripted_program import ScriptedProcessor
from tests.support.time_limit import TimeLimit

DATA, ARTIFACTS, TABLE = "data", "artifacts", "jobs"
FAST = HeartbeatRules(
    every=timedelta(seconds=0.2),
    lease=timedelta(seconds=2),
    visibility_seconds=3,
    look=timedelta(seconds=0.05),
)


class TestFleet:
    """The parts of a running system, and short ways to use them."""

    __test__ = False

    def __init__(self, clients: Clients, queue_urls: dict[Pool, dict[Priority, str]], folder: Path) -> None:
        self.clients = clients
        self.folder = folder
        self.queue_urls = queue_urls
        self.store = JobStore(clients.dynamodb, TABLE)
        self.leases = Leases(clients.dynamodb, TABLE, lease_seconds=FAST.lease.total_seconds())
        dead_letters = {
            pool: clients.sqs.create_queue(QueueName=f"dead-{new_job_id()}")["QueueUrl"]
            for pool in queue_urls
        }
        self.queues = JobQueues(clients.sqs, queue_urls, dead_letters)
        self.objects = ObjectStore(clients.s3)
        self.directory = AgentDirectory(clients.dynamodb, TABLE)

    def submit(self, *, files: dict[str, str] | None = None, replace: bool = False, **facts: Any) -> Job:
        """Upload the inputs, record a scripted job and queue it; `settings` go to the program."""
        job_id = new_job_id()
        for name, text in ({"a.txt": "input"} if files is None else files).items():
            self.objects.put_bytes(S3Uri(DATA, f"in/{job_id}/{name}"), text.encode())
        now = time.time()
        defaults: dict[str, Any] = {
            "job_id": job_id,
            "owner": "ann",
            "processor": "scripted",
            "pool": Pool.LINUX_CPU,
            "source_uri": f"s3://{DATA}/in/{job_id}/",
            "target_uri": f"s3://{DATA}/out/{job_id}/",
            "created_at": now,
            "queued_at": now,
            "state_changed_at": now,
        }
        job = self.store.create(Job(**(defaults | facts)), replace=replace)
        self.queues.send(job)
        return job

    def tools(self, scratch: Path, *, grace: float = 0.5) -> Tools:
        transfer = Transfer(self.objects, self.clients.credentials)
        return Tools(
            leases=self.leases,
            queues=self.queues,
            objects=self.objects,
            transfer=transfer,
            publication=Publication(self.objects, transfer, artifacts_bucket=ARTIFACTS),
            scratch=Scratch(scratch),
            runner=Runner(grace=timedelta(seconds=grace)),
            processors={"scripted": ScriptedProcessor()},
            allowed_prefixes=AllowedPrefixes((f"s3://{DATA}/",)),
            artifacts_bucket=ARTIFACTS,
            pulse=Pulse(self.leases, self.queues, FAST),
            new_watch=lambda run: TimeLimit(timedelta(seconds=run.job.time_limit_seconds or 60)),
        )

    @contextmanager
    def agent(
        self,
        name: str = "a1",
        *,
        slots: int = 1,
        grace: float = 0.5,
        breaker: Breaker | None = None,
        **tools_changed: Any,
    ) -> Iterator[Worker]:
        """Run a worker until the block ends; tools_changed: of its Tools, what is not as usual."""
        tools = replace(self.tools(self.folder / name, grace=grace), **tools_changed)
        tools.scratch.claim()
        worker = Worker(
            tools,
            directory=self.directory,
            agent_id=name,
            pool=Pool.LINUX_CPU,
            slots=slots,
            receive_wait=timedelta(seconds=1),
            breaker=breaker,
        )
        thread = threading.Thread(target=worker.run, name=name)
        thread.start()
        try:
            yield worker
        finally:
            worker.request_stop()
            thread.join(30)
            assert not thread.is_alive()
            tools.scratch.release()

    def await_state(self, job: Job, *states: JobState, seconds: float = 30) -> Job:
        """Return the job once it is in one of the states."""
        return self.await_job(job, lambda found: found.state in states, seconds=seconds)

    def await_job(self, job: Job, is_so: Callable[[Job], bool], *, seconds: float = 30) -> Job:
        """Return the job once the condition holds."""
        deadline = time.monotonic() + seconds
        while not is_so(found := self.store.get(job.job_id)):
            assert time.monotonic() < deadline, f"still {found}"
            time.sleep(0.02)
        return found

    def published(self, job: Job) -> dict[str, str]:
        """Return what a reader of the target folder sees: file name -> text."""
        target = S3Uri.parse_folder(job.target_uri, field="target")
        return {
            found.relative: self.objects.get_bytes(target.child(found.relative)).decode()
            for found in self.objects.list_folder(target)
        }

    def artifacts(self, prefix: str) -> list[str]:
        """Return the artifact bucket's keys under a prefix."""
        return [found.key for found in self.objects.list_folder(S3Uri(ARTIFACTS, prefix))]
