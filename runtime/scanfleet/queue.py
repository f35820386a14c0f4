"""The job queues: one SQS queue per pool and priority, carrying job ids and nothing else.

The job table has the facts; a message only says "look at this job". So a message may come twice, late or
after the job has ended, and nothing is harmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from scanfleet.contract import Pool, Priority
from scanfleet.dead_letters import Burial, DeadLetterQueues
from scanfleet.errors import ConfigurationError
from scanfleet.jobs import Job
from scanfleet.messages import UnreadableMessage, body_for, job_id_of
from scanfleet.sqs import answering

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

__all__ = ["Backlog", "JobQueues", "Message", "UnreadableMessage"]


@dataclass(frozen=True)
class Message:
    """One delivery. `receipt` is good for this delivery only."""

    queue_url: str
    receipt: str
    body: str
    receive_count: int

    def job_id(self) -> str:
        """Return the job id that the message carries. Raises UnreadableMessage."""
        return job_id_of(self.body)


@dataclass(frozen=True)
class Backlog:
    """SQS's approximate counts over a pool's queues; delayed messages (retries) count as waiting."""

    waiting: int
    in_flight: int


class JobQueues:
    """Sends to and receives from the queues of all pools.

    dead_letters: URLs of the pools' dead-letter queues; those who never bury a message need none.
    """

    def __init__(
        self,
        client: "SQSClient",
        urls: Mapping[Pool, Mapping[Priority, str]],
        dead_letters: Mapping[Pool, str] | None = None,
    ) -> None:
        self._client = client
        self._urls = urls
        self.dead_letters = DeadLetterQueues(client, dead_letters or {})

    def send(self, job: Job, *, delay: timedelta = timedelta()) -> None:
        """Send the job's id to its pool's queue, deliverable after `delay` (15 minutes at most)."""
        with answering("send message"):
            self._client.send_message(
                QueueUrl=self._url(job.pool, job.priority),
                MessageBody=body_for(job.job_id),
                DelaySeconds=int(delay.total_seconds()),
            )

    def receive(
        self, pool: Pool, priority: Priority, *, wait: timedelta, visibility_seconds: int
    ) -> Message | None:
        """Return one message, waiting for it as long as `wait` (20 s at most), or None."""
        url = self._url(pool, priority)
        with answering("receive message"):
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
        with answering("change message visibility"):
            self._client.change_message_visibility(
                QueueUrl=message.queue_url,
                ReceiptHandle=message.receipt,
                VisibilityTimeout=visibility_seconds,
            )

    def delete(self, message: Message) -> None:
        """Delete the message for good."""
        with answering("delete message"):
            self._client.delete_message(QueueUrl=message.queue_url, ReceiptHandle=message.receipt)

    def bury(self, message: Message, pool: Pool, burial: Burial) -> None:
        """Move the message to the pool's dead-letter queue; a crash in between only makes two of it."""
        self.dead_letters.put(pool, message.body, burial)
        self.delete(message)

    def backlog(self, pool: Pool) -> Backlog:
        """Return how many messages wait and how many are with agents."""
        waiting = in_flight = 0
        for url in self._urls[pool].values():
            with answering("read queue attributes"):
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
