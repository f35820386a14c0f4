"""The heartbeat of one attempt: renews lease and message together, carries progress up and stops down."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from scanfleet import contract
from scanfleet.agent.output import ProgressBoard
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.errors import LeaseLost, NotFound, Unavailable
from scanfleet.jobs import Job
from scanfleet.leases import Lease, Leases
from scanfleet.queue import JobQueues, Message

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_SECONDS = 1.0
"""Changed progress is written this often at most."""


@dataclass(frozen=True)
class HeartbeatRules:
    """The heartbeat's timing. A test keeps heartbeat < lease < visibility for the defaults."""

    every: timedelta
    lease: timedelta
    visibility_seconds: int
    look: timedelta = contract.CANCEL_POLL_INTERVAL
    """How often to look for a cancel request between renewals."""


@dataclass(frozen=True)
class Pulse:
    """What the heartbeats of one agent work with. The clients behind it give up soon."""

    leases: Leases
    queues: JobQueues
    rules: HeartbeatRules


class Heartbeat:
    """Beats in a thread of its own from `start` to `stop`."""

    def __init__(
        self,
        *,
        pulse: Pulse,
        lease: Lease,
        message: Message,
        board: ProgressBoard,
        stop: StopRequest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = pulse.leases
        self._queues = pulse.queues
        self._rules = pulse.rules
        self._lease = lease
        self._message = message
        self._board = board
        self._stop = stop
        self._clock = clock
        self._renewed_at = self._extended_at = clock()
        self._written = board.current()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{lease.job.job_id}", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; returns when the last beat is over."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._rules.look.total_seconds()):
            try:
                self.beat()
            except LeaseLost as lost:
                log.warning("lease lost: %s", lost, extra=self._facts("lease_lost"))
                self._stop.set(StopReason.LEASE_LOST)
                return
            except Unavailable as error:
                log.warning("heartbeat failed: %s", error, extra=self._facts("heartbeat_failed"))
            except Exception:
                # Whatever it was, the next beat must come: a silent end would let the program run on.
                log.exception("heartbeat failed", extra=self._facts("heartbeat_failed"))

    def beat(self) -> None:
        """Renew if it is time, or only look for a cancel request.

        Raises LeaseLost when the lease is another's, or when it could not be renewed for so long that it
        must be taken for another's; Unavailable when a service did not answer.
        """
        silent = self._clock() - self._renewed_at
        if silent >= self._rules.lease.total_seconds():
            raise LeaseLost(f"not renewed for {silent:.0f} s")
        progress = self._board.current()
        is_changed = progress != self._written and silent >= PROGRESS_INTERVAL_SECONDS
        is_due = silent >= self._rules.every.total_seconds()
        job = self._renew(*progress) if is_changed or is_due else self._look()
        if job.cancel_requested_at is not None and job.committed_attempt is None:
            self._stop.set(StopReason.CANCELLED)

    def _renew(self, percent: float, stage: str | None) -> Job:
        # Measured from before the call: the lease may not end later than this agent believes it does.
        sent_at = self._clock()
        renewed = self._leases.renew(self._lease, progress_percent=percent, stage=stage)
        self._renewed_at = sent_at
        self._written = (percent, stage)
        if sent_at - self._extended_at >= self._rules.every.total_seconds():
            self._queues.extend(self._message, visibility_seconds=self._rules.visibility_seconds)
            self._extended_at = sent_at
        return renewed.job

    def _look(self) -> Job:
        try:
            job = self._leases.get(self._lease.job.job_id)
        except NotFound as error:
            raise LeaseLost("the job's record is gone") from error
        if (job.attempt, job.agent_id) != (self._lease.attempt, self._lease.agent_id):
            raise LeaseLost(f"attempt {job.attempt} of {job.agent_id} has it")
        return job

    def _facts(self, action: str) -> dict[str, object]:
        return {"action": action, "job_id": self._lease.job.job_id, "attempt": self._lease.attempt}
