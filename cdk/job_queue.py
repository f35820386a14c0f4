"""A pool's queues: one for each priority, and one dead-letter queue that all of them share."""

from aws_cdk import Duration
from aws_cdk.aws_iam import IGrantable
from aws_cdk.aws_sqs import DeadLetterQueue, Queue, QueueEncryption
from constructs import Construct

from scanfleet.contract import (
    MAX_RECEIVE_COUNT,
    MESSAGE_RETENTION,
    RECEIVE_WAIT,
    VISIBILITY_TIMEOUT,
    Pool,
    Priority,
)


class JobQueue(Construct):
    """The queues of one pool.

    Messages are encrypted with keys of SQS, refused over plain HTTP, hidden for the contract's visibility
    timeout once received, and moved to the dead-letter queue after the contract's number of deliveries.
    """

    def __init__(self, scope: Construct, construct_id: str, *, pool: Pool) -> None:
        super().__init__(scope, construct_id)
        self.pool = pool
        self.dead_letters = self._queue("DeadLetters")
        self.queues = {priority: self._queue(priority.title(), redrive=True) for priority in Priority}

    def _queue(self, construct_id: str, *, redrive: bool = False) -> Queue:
        return Queue(
            self,
            construct_id,
            encryption=QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.seconds(int(MESSAGE_RETENTION.total_seconds())),
            receive_message_wait_time=Duration.seconds(int(RECEIVE_WAIT.total_seconds())),
            visibility_timeout=Duration.seconds(int(VISIBILITY_TIMEOUT.total_seconds())),
            dead_letter_queue=(
                DeadLetterQueue(queue=self.dead_letters, max_receive_count=MAX_RECEIVE_COUNT)
                if redrive
                else None
            ),
        )

    @property
    def urls(self) -> dict[Priority, str]:
        """Return each priority's queue URL."""
        return {priority: queue.queue_url for priority, queue in self.queues.items()}

    def grant_send(self, grantee: IGrantable) -> None:
        """Let the grantee put jobs into this pool."""
        for queue in self.queues.values():
            queue.grant_send_messages(grantee)

    def grant_consume(self, grantee: IGrantable) -> None:
        """Let the grantee receive this pool's jobs, keep them hidden while they run, and delete them."""
        for queue in self.queues.values():
            queue.grant_consume_messages(grantee)
