"""The message of an attempt: kept invisible while the attempt lasts, let go once it is settled.

SQS hides a message for 12 hours from its receive at most, however often it is extended; the extension that
would exceed that is refused. Before that a fresh message takes its place. From then on the attempt has none
to let go: whoever reads the fresh one finds the job held, and replaces it again, or ended, and deletes it.
Source: SQS developer guide, "Amazon SQS visibility timeout".
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from scanfleet import contract
from scanfleet.errors import Unavailable
from scanfleet.jobs import Job
from scanfleet.queue import JobQueues, Message
from scanfleet.sqs import DeliveryOver

log = logging.getLogger(__name__)


class HeldMessage:
    """One delivery, held from its receive on. The heartbeat and the attempt share it; each has its clients.

    clock: seconds.
    """

    def __init__(
        self,
        message: Message,
        job: Job,
        *,
        visibility_seconds: int,
        replaced_after: timedelta = contract.MESSAGE_REPLACED_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._message = message
        self._job = job
        self._visibility_seconds = visibility_seconds
        self._clock = clock
        self._replace_at = clock() + replaced_after.total_seconds()
        self._is_gone = False
        self._lock = threading.Lock()

    def extend(self, queues: JobQueues) -> None:
        """Keep it invisible, or put a fresh one in its place. Raises Unavailable; then call again soon."""
        with self._lock:
            if self._is_gone:
                return
            if self._clock() >= self._replace_at:
                self._replace(queues)
                return
            try:
                queues.extend(self._message, visibility_seconds=self._visibility_seconds)
            except DeliveryOver as error:
                log.warning("message is no longer ours: %s", error, extra=self._facts("message_lost"))
                self._replace(queues)

    def let_go(self, put_away: Callable[[Message], None]) -> None:
        """Have the message put away, unless a fresh one has taken its place.

        The record is settled by then. So a message that cannot be put away comes back, or has already, and
        its reader does what is due.
        """
        with self._lock:
            if self._is_gone:
                return
            try:
                put_away(self._message)
            except Unavailable as error:
                log.warning("message is left: %s", error, extra=self._facts("message_left"))
            self._is_gone = True

    def _replace(self, queues: JobQueues) -> None:
        # As far away as a look at a living lease: should this agent die now, the job waits no longer for it.
        queues.send(self._job, delay=timedelta(seconds=self._visibility_seconds))
        self._is_gone = True
        log.info("message replaced", extra=self._facts("message_replaced"))
        try:
            queues.delete(self._message)
        except Unavailable as error:
            # It comes back, and its reader finds the job held or ended.
            log.warning("replaced message is left: %s", error, extra=self._facts("message_left"))

    def _facts(self, action: str) -> dict[str, object]:
        return {"action": action, "job_id": self._job.job_id}
