"""How an attempt's end is written down: the record first, the message last.

Every write is conditional on the lease. The message goes last, because a crash before that only repeats
work: the message comes back, its reader finds the job ended or queued, and does what is due.
"""

from collections.abc import Callable

from scanfleet.agent.burial import put_away
from scanfleet.agent.message import HeldMessage
from scanfleet.attempts import Work
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, Job, ResultSummary, retry_delay
from scanfleet.leases import Lease, Leases
from scanfleet.queue import JobQueues

OnEnd = Callable[[Job, JobFailure | None], None]
"""Hears how an attempt ended, with the job as its lease knew it; None: it succeeded."""


class Settlement:
    """Settles one delivery of one job. Each method raises LeaseLost when the job is no longer ours.

    on_end hears of every success and failure before anything is written, even if nothing can be. work: tells
    what the attempt has done, for its record; it is asked right before the record is written.
    """

    def __init__(
        self,
        leases: Leases,
        queues: JobQueues,
        message: HeldMessage,
        on_end: OnEnd | None = None,
        *,
        work: Callable[[], Work] = Work,
    ) -> None:
        self._leases = leases
        self._queues = queues
        self._message = message
        self._work = work
        self._on_end: OnEnd = on_end or (lambda _job, _failure: None)

    def completed(self, lease: Lease, result: ResultSummary) -> None:
        """End the job as completed."""
        self._on_end(lease.job, None)
        self._leases.complete(lease, result, self._work())
        self._message.let_go(self._queues.delete)

    def cancelled(self, lease: Lease) -> None:
        """End the job as cancelled."""
        self._leases.cancel(lease, self._work())
        self._message.let_go(self._queues.delete)

    def failed(self, lease: Lease, error: JobFailure) -> None:
        """Retry the job as its failure class allows, or end it as failed."""
        self._on_end(lease.job, error)
        failure = self._leases.failure(
            lease, error.failure_class, error.reason, error.exit_code, has_evidence=error.has_evidence
        )
        delay = retry_delay(lease.job, error.failure_class)
        if delay is None:
            ended = self._leases.fail(lease, failure, self._work())
            self._message.let_go(
                lambda message: put_away(self._queues, message, ended, agent_id=lease.agent_id)
            )
            return
        # A fresh message: its delay is the back-off, and its receive count starts again.
        job = self._leases.requeue(lease, failure, self._work())
        self._queues.send(job, delay=delay)
        self._message.let_go(self._queues.delete)

    def handed_back(self, lease: Lease) -> None:
        """Give the job to another agent at once, by the rule for lost machines."""
        reason = f"agent {lease.agent_id} is stopping and handed the job back"
        self.failed(lease, JobFailure(FailureClass.LOST_MACHINE, reason))
