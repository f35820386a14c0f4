"""The job queues: one SQS queue per pool and priority, carrying job ids and nothing else.

The job table has the facts; a message only says "look at this job". So a message may come twice, late or
after the job has ended, and nothing is harmed.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.contract import QUEUE_MESSAGE_VERSION, Pool, Priority
from scanfleet.errors import ConfigurationError, ScanfleetError, Unavailable, shorten
from scanfleet.jobs import Job, is_job_id

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class UnreadableMessage(ScanfleetError):
    """A message that no version of this program has sent."""


@dataclass(frozen=True)
class Message:
    """One delivery. `receipt` is good for this delivery only."""

    queue_url: str
    receipt: str
    body: str
    receive_count: int

    def job_id(self) -> str:
        """Return the job id that the message carries. Raises UnreadableMessage."""
        try:
            content = json.loads(self.body)
        except ValueError as error:
            raise UnreadableMessage(f"not JSON: {shorten(self.body)}") from error
        if not isinstance(content, dict) or content.get("version") != QUEUE_MESSAGE_VERSION:
            raise UnreadableMessage(f"version {QUEUE_MESSAGE_VERSION} expected: {shorten(self.body)}")
        job_id = content.get("job_id")
        if not isinstance(job_id, str) or not is_job_id(job_id):
            raise UnreadableMessage(f"no job id: {shorten(self.body)}")
        return job_id


@dataclass(frozen=True)
class Backlog:
    """SQS's approximate counts over a pool's queues; delayed messages (retries) count as waiting."""

    waiting: int
    in_flight: int


class JobQueues:
    """Sends to and receives from the queues of all pools."""

    def __init__(self, client: "SQSClient", urls: Mapping[Pool, Mapping[Priority, str]]) -> None:
        self._client = client
        self._urls = urls

    def send(self, job: Job, *, delay: timedelta = timedelta()) -> None:
        """Send the job's id to its pool's queue, deliverable after `delay` (15 minutes at most)."""
        body = json.dumps({"version": QUEUE_MESSAGE_VERSION, "job_id": job.job_id})
        with _answering("send message"):
            self._client.send_message(
                QueueUrl=self._url(job.pool, job.priority),
                MessageBody=body,
                DelaySeconds=int(delay.total_seconds()),
            )

    def receive(
        self, pool: Pool, priority: Priority, *, wait: timedelta, visibility_seconds: int
    ) -> Message | None:
        """Return one message, waiting for it as long as `wait` (20 s at most), or None."""
        url = self._url(pool, priority)
        with _answering("receive message"):
            answer = self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=int(wait.total_seconds()),
                VisibilityTimeout=visibility_seconds,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        for message in answer.get("Messages", []):
            count = int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
            return Message(url, message["ReceiptHandle"], message["Body"], count)
        return None

    def extend(self, message: Message, *, visibility_seconds: int) -> None:
        """Keep the message invisible for this long from now; 0 makes it deliverable at once."""
        with _answering("change message visibility"):
            self._client.change_message_visibility(
                QueueUrl=message.queue_url,
                ReceiptHandle=message.receipt,
                VisibilityTimeout=visibility_seconds,
            )

    def delete(self, message: Message) -> None:
        """Delete the message for good."""
        with _answering("delete message"):
            self._client.delete_message(QueueUrl=message.queue_url, ReceiptHandle=message.receipt)

    def backlog(self, pool: Pool) -> Backlog:
        """Return how many messages wait and how many are with agents."""
        waiting = in_flight = 0
        for url in self._urls[pool].values():
            with _answering("read queue attributes"):
                answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            counts = answer.get("Attributes", {})
            waiting += int(counts.get("ApproximateNumberOfMessages", 0))
            waiting += int(counts.get("ApproximateNumberOfMessagesDelayed", 0))
            in_flight += int(counts.get("ApproximateNumberOfMessagesNotVisible", 0))
        return Backlog(waiting, in_flight)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Return the pools that have queues."""
        return tuple(self._urls)

    def _url(self, pool: Pool, priority: Priority) -> str:
        try:
            return self._urls[pool][priority]
        except KeyError as error:
            known = ", ".join(f"{p}/{q}" for p, urls in self._urls.items() for q in urls)
            raise ConfigurationError(f"no queue for {pool}/{priority}; there are: {known}") from error


@contextmanager
def _answering(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise Unavailable(f"{what}: the queue answered {code}") from error
    except BotoCoreError as error:
        raise Unavailable(f"{what}: the queue did not answer: {error}") from error
