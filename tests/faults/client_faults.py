"""Faults of queues and clients: messages twice, late, too often or made of garbage; cancels and retries."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from scanfleet.contract import MAX_RECEIVE_COUNT, QUEUE_MESSAGE_VERSION, Priority
from tests.faults.world import World

if TYPE_CHECKING:
    from tests.faults.agents import Agent
    from tests.faults.api import Api
    from tests.faults.machine_faults import At
    from tests.faults.plan import PlannedFault

GARBAGE = (
    " ",
    "not JSON",
    "[]",
    "null",
    '{"version": 99, "job_id": "x"}',
    '{"version": 1}',
    '{"version": 1, "job_id": 7}',
    '{"version": 1, "job_id": "../../etc/passwd"}',
    '{"version": 1, "job_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}',
    "\uffee\t\n",
    "x" * 100_000,
    '{"version": 1e999, "job_id": []}',
)
ACCEPTED = 202


class ClientFaults:
    """Carries out one fault; says whether it happened."""

    def __init__(self, world: World, api: "Api") -> None:
        self._world = world
        self._api = api
        self._lock = threading.Lock()
        self.errors: list[str] = []
        self.submit_again: Callable[[int], str] | None = None
        """Sends a planned job's request once more, and returns the id of the answer."""
        self.priorities: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.cancels: dict[str, list[int]] = defaultdict(list)
        """Statuses of the answers, by job."""
        self.retries: dict[str, list[int]] = defaultdict(list)
        self.other_jobs: list[tuple[str, str]] = []
        """Answers to repeated requests that named another job: (right, wrong)."""
        self.garbage_sent = 0
        self._acts: dict[str, Callable[[PlannedFault, str], bool]] = {
            "message_twice": lambda fault, job: self._send(job, fault.count, delay=0),
            "message_late": lambda fault, job: self._send(job, 1, delay=int(fault.seconds)),
            "message_exhausted": lambda fault, job: self._exhaust(job),
            "message_garbage": self._send_garbage,
            "cancel": self._cancel,
            "retry": self._retry,
            "submit_twice": self._submit_twice,
            "api_killed": lambda fault, job: self._api.server.kill(),
        }

    def __call__(self, fault: "PlannedFault", job_id: str, agent: "Agent", at: "At") -> bool:
        """Let it happen."""
        return self._acts[fault.kind](fault, job_id)

    def _queue(self, job_id: str) -> str:
        return self._world.queues[Priority(self.priorities[job_id])]

    def _send(self, job_id: str, count: int, *, delay: int) -> bool:
        body = json.dumps({"version": QUEUE_MESSAGE_VERSION, "job_id": job_id})
        for _ in range(count):
            self._world.sqs.send_message(QueueUrl=self._queue(job_id), MessageBody=body, DelaySeconds=delay)
        return True

    def _exhaust(self, job_id: str) -> bool:
        """Receive what waits again and again, until SQS moves it to the dead-letter queue."""
        received = 0
        for _ in range(MAX_RECEIVE_COUNT + 1):
            answer = self._world.sqs.receive_message(
                QueueUrl=self._queue(job_id), MaxNumberOfMessages=2, VisibilityTimeout=0
            )
            received += len(answer.get("Messages", []))
        return received > 0

    def _send_garbage(self, fault: "PlannedFault", job_id: str) -> bool:
        body = GARBAGE[int(fault.luck * len(GARBAGE))]
        self._world.sqs.send_message(QueueUrl=self._queue(job_id), MessageBody=body)
        with self._lock:
            self.garbage_sent += 1
        return True

    def garbage_buried(self) -> int:
        """Return how many messages of the dead-letter queue are garbage; it is emptied."""
        found = 0
        while messages := self._world.sqs.receive_message(
            QueueUrl=self._world.dead_letters, MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            found += sum(message["Body"] in GARBAGE for message in messages)
        return found

    def _cancel(self, fault: "PlannedFault", job_id: str) -> bool:
        for _ in range(fault.count):
            self.cancels[job_id].append(self._api.act(job_id, "cancel"))
        return True

    def _retry(self, fault: "PlannedFault", job_id: str) -> bool:
        """Retry, and one time in three cancel right after it."""
        self.retries[job_id].append(self._api.act(job_id, "retry"))
        if fault.luck < 1 / 3:
            self.cancels[job_id].append(self._api.act(job_id, "cancel"))
        return True

    def _submit_twice(self, fault: "PlannedFault", job_id: str) -> bool:
        assert self.submit_again is not None
        answered = self.submit_again(self.numbers[job_id])
        if answered != job_id:
            self.other_jobs.append((job_id, answered))
        return True
