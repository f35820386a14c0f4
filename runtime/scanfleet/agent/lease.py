"""The heartbeat of one attempt: renews lease and message together, carries progress up and stops down."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from scanfleet import contract
from scanfleet.agent.message import HeldMessage
from scanfleet.agent.output import ProgressBoard, Standing
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.vitals import Allowances, Vitals
from scanfleet.errors import JobFailure, LeaseLost, NotFound, Unavailable
from scanfleet.jobs import FailureClass, Job
from scanfleet.leases import Lease, Leases
from scanfleet.log_context import ContextThread
from scanfleet.queue import JobQueues

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
    allowances: Allowances = field(default_factory=Allowances)


@dataclass(frozen=True)
class Pulse:
    """What the heartbeats of one agent work with. The clients behind it give up soon."""

    leases: Leases
    queues: JobQueues
    rules: HeartbeatRules


class AttemptStuck(Exception):
    """The attempt gives no sign of life and does not settle either: nothing is renewed for it any more."""


class Heartbeat:
    """Beats in a thread of its own from `start` to `stop`, as long as the attempt shows that it lives.

    on_stuck hears of an attempt that was asked to stop for want of progress and did not. Its thread may stay
    for ever, and with it the slot; lease and message go to another agent.
    """

    def __init__(
        self,
        *,
        pulse: Pulse,
        lease: Lease,
        message: HeldMessage,
        board: ProgressBoard,
        vitals: Vitals,
        stop: StopRequest,
        on_stuck: Callable[[JobFailure], None],
        usage: UsageMeter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = pulse.leases
        self._queues = pulse.queues
        self._rules = pulse.rules
        self._lease = lease
        self._message = message
        self._board = board
        self._usage = usage or UsageMeter()
        self._vitals = vitals
        self._stop = stop
        self._on_stuck = on_stuck
        self._clock = clock
        self._asked_at: float | None = None
        self._renewed_at = self._extended_at = clock()
        self._written = board.current()
        self._stage_since: tuple[float, float] | None = None
        self._ended = threading.Event()
        self._thread = ContextThread(target=self._run, name=f"heartbeat-{lease.job.job_id}", daemon=True)

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
            except AttemptStuck as stuck:
                log.exception("attempt is stuck", extra=self._facts("attempt_stuck"))
                self._stop.set(StopReason.LEASE_LOST)
                reason = f"an attempt could not be stopped: {stuck}"
                self._on_stuck(JobFailure(FailureClass.HANG, reason, condemns_machine=True))
                return
            except Unavailable as error:
                log.warning("heartbeat failed: %s", error, extra=self._facts("heartbeat_failed"))
            except Exception:
                # Whatever it was, the next beat must come: a silent end would let the program run on.
                log.exception("heartbeat failed", extra=self._facts("heartbeat_failed"))

    def beat(self) -> None:
        """Renew if it is time, or only look for a cancel request.

        Raises LeaseLost when the lease is another's, or when it could not be renewed for so long that it
        must be taken for another's; AttemptStuck; Unavailable when a service did not answer.
        """
        self._heed_vitals()
        silent = self._clock() - self._renewed_at
        if silent >= self._rules.lease.total_seconds():
            raise LeaseLost(f"not renewed for {silent:.0f} s")
        is_changed = self._board.current() != self._written and silent >= PROGRESS_INTERVAL_SECONDS
        is_due = silent >= self._rules.every.total_seconds()
        job = self._renew() if is_changed or is_due else self._look()
        if job.cancel_requested_at is not None and job.committed_attempt is None:
            self._stop.set(StopReason.CANCELLED)

    def _heed_vitals(self) -> None:
        """Ask an attempt without a sign of life to stop, and give it up when it does not."""
        stall = self._vitals.stall()
        if stall is None:
            return
        if self._asked_at is None:
            log.error("attempt stands still: %s", stall.reason, extra=self._facts("attempt_stalled"))
            self._asked_at = self._clock()
            self._stop.set(StopReason.STALLED, stall)
        elif self._clock() - self._asked_at >= self._rules.allowances.stop.total_seconds():
            raise AttemptStuck(stall.reason)

    def _renew(self) -> Job:
        standing = self._board.standing()
        # Measured from before the call: the lease may not end later than this agent believes it does.
        sent_at = self._clock()
        renewed = self._leases.renew(
            self._lease,
            progress_percent=standing.percent,
            stage=standing.stage,
            stage_since=self._since(standing),
            stage_seconds=standing.stage_seconds,
            usage=self._usage.usage(),
        )
        log.debug("lease renewed", extra={"action": "lease_renewed", "progress_percent": standing.percent})
        self._renewed_at = sent_at
        self._written = (standing.percent, standing.stage)
        if sent_at - self._extended_at >= self._rules.every.total_seconds():
            self._message.extend(self._queues)
            self._extended_at = sent_at
        return renewed.job

    def _since(self, standing: Standing) -> float | None:
        """Return when the stage began by the table's clock, the same at each beat; None without a stage."""
        if standing.stage is None:
            return None
        if self._stage_since is None or self._stage_since[0] != standing.began_at:
            age = max(0.0, self._board.now - standing.began_at)
            self._stage_since = standing.began_at, round(self._leases.now() - age, 3)
        return self._stage_since[1]

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
