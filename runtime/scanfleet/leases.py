"""What agents do to jobs: take the lease, renew it, move the job on, end it.

Every write to a leased job carries the fencing condition: this agent, this attempt. That condition is the
whole protection against zombies; no clock is compared when an owner writes, only when a lease is taken.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ulid import ULID

from scanfleet import contract
from scanfleet.attempt_records import Closing, Opening, closed, dumped, lost, moved_on, open_record, opened
from scanfleet.attempts import Usage, Work
from scanfleet.contract import TableKey
from scanfleet.dynamo import TransactionRefused
from scanfleet.errors import CancelRequested, Conflict, LeaseLost, NotFound, TargetLost
from scanfleet.job_table import JobTable, dump, placeholders, values_of
from scanfleet.jobs import LEASED_STATES, Failure, FailureClass, Job, JobState, ResultSummary, retry_delay
from scanfleet.store_items import attribute
from scanfleet.telemetry import Transition, record_transition

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


CLAIM_AT = 1
"""Where the claim stands among the writes of a commit."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, and the record as it was when last written."""

    job: Job
    agent_id: str
    attempt: int


@dataclass(frozen=True)
class HeldElsewhere:
    """Another lease on the job is alive, or was taken just now."""

    job: Job


@dataclass(frozen=True)
class NothingToDo:
    """The job has ended or never existed; its message can go."""

    job: Job | None


class Leases(JobTable):
    """Gives out leases and writes on behalf of their holders."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        lease_seconds: float = contract.LEASE_DURATION.total_seconds(),
        clock: Callable[[], float] = time.time,
        on_transition: Callable[[Transition], None] = record_transition,
    ) -> None:
        super().__init__(client, table, clock=clock, on_transition=on_transition)
        self._lease_seconds = lease_seconds

    def take(
        self, job_id: str, agent_id: str, opening: Opening | None = None
    ) -> Lease | HeldElsewhere | NothingToDo:
        """Take the lease of a queued job, or of one whose owner went silent, with a new attempt number.

        An attempt whose lease ran out counts as a lost machine, and the job fails when it has lost too many.
        A job whose results were committed goes straight to uploading: publication is rolled forward.
        """
        try:
            job = self.get(job_id)
        except NotFound:
            return NothingToDo(None)
        if job.state.is_terminal:
            return NothingToDo(job)
        now = self._clock()
        if job.state in LEASED_STATES and (job.lease_expires_at or 0) > now:
            return HeldElsewhere(job)
        token = str(ULID())
        try:
            return self._take_free(job, agent_id, token, now, opening or Opening())
        except Conflict:
            return self._taken_meanwhile(job_id, agent_id, token)

    def _taken_meanwhile(self, job_id: str, agent_id: str, token: str) -> Lease | HeldElsewhere:
        """Tell a quicker taker's lease from our own, whose answer was lost before the client tried again."""
        job = self.get(job_id)
        if job.lease_token == token and job.state in LEASED_STATES:
            return Lease(job, agent_id, job.attempt)
        return HeldElsewhere(job)

    def _take_free(
        self, job: Job, agent_id: str, token: str, now: float, opening: Opening
    ) -> Lease | NothingToDo:
        failures = job.failures
        if job.state in LEASED_STATES:
            silent = self._failure(job, FailureClass.LOST_MACHINE, f"agent {job.agent_id} went silent")
            failures = (*failures, silent)
            if retry_delay(job, FailureClass.LOST_MACHINE) is None:
                return NothingToDo(self._end_unowned(job, JobState.FAILED, failures))
        if job.cancel_requested_at is not None and job.committed_attempt is None:
            return NothingToDo(self._end_unowned(job, JobState.CANCELLED, failures))
        state = JobState.DOWNLOADING if job.committed_attempt is None else JobState.UPLOADING
        earlier = closed(job, lost(job, now))
        records = opened(job, earlier, agent_id=agent_id, now=now, opening=opening)
        # What the attempt that committed has found stays.
        anew: dict[str, Any] = {"stage_seconds": {}, "usage": None, "input_bytes": None}
        changes = {
            **self._entering(job, state, now),
            **(anew if job.committed_attempt is None else {}),
            "attempts": dumped(records),
            "attempt": job.attempt + 1,
            "agent_id": agent_id,
            "lease_token": token,
            "lease_expires_at": now + self._lease_seconds,
            "started_at": now,
            "stage": None,
            "stage_since": None,
            "progress_percent": 0.0,
            "failures": dump(failures),
        }
        taken = self._update_unowned(job, changes)
        return Lease(taken, agent_id, taken.attempt)

    def now(self) -> float:
        """Return the time by the clock that leases are timed by, epoch seconds."""
        return self._clock()

    def renew(
        self,
        lease: Lease,
        *,
        progress_percent: float,
        stage: str | None,
        stage_since: float | None = None,
        stage_seconds: Mapping[str, float] | None = None,
        usage: Usage | None = None,
    ) -> Lease:
        """Prolong the lease and carry progress up; the returned job carries a cancel request down.

        stage_since: by `now`'s clock. stage_seconds, usage: None leaves what is there. Raises LeaseLost.
        """
        changes: dict[str, Any] = {
            "lease_expires_at": self._clock() + self._lease_seconds,
            "progress_percent": round(progress_percent, 2),
            "stage": stage,
            "stage_since": stage_since,
        }
        if stage_seconds is not None:
            changes["stage_seconds"] = dict(stage_seconds)
        if usage is not None:
            changes["usage"] = usage.model_dump(mode="json", exclude_none=True)
        return self._update_leased(lease, changes)

    def advance(self, lease: Lease, state: JobState, **facts: Any) -> Lease:
        """Move a leased job to its next state, with other facts of its record. Raises LeaseLost."""
        now = self._clock()
        changes = {**self._entering(lease.job, state, now), **facts}
        if open_record(lease.job) is not None:
            known = {name: facts.get(name) for name in ("release", "input_bytes")}
            changes["attempts"] = dumped(moved_on(lease.job, now, **known))
        return self._update_leased(lease, changes)

    def commit(self, lease: Lease) -> Lease:
        """Make this attempt's staged results the job's results, once and for ever.

        From here on nobody runs the program again: whoever holds the lease publishes these results. A cancel
        request and a commit exclude each other. The target folder must be the job's still; a job whose
        results this one replaces is marked in the same moment.

        Raises LeaseLost, CancelRequested when that came first, TargetLost when the folder is another's.
        """
        condition = "attribute_not_exists(committed_attempt) AND attribute_not_exists(cancel_requested_at)"
        changes = {"committed_attempt": lease.attempt}
        claim, *marks = self._claims.confirming(lease.job)
        try:
            try:
                self._update_leased_together(lease, changes, condition, [claim, *marks])
            except TransactionRefused as refused:
                if CLAIM_AT in refused.failed:
                    raise TargetLost(f"{lease.job.target_uri} has become another job's folder") from refused
                # The replaced job's record is gone, which is not ours to mourn.
                self._update_leased_together(lease, changes, condition, [claim])
            return replace(lease, job=lease.job.model_copy(update=changes))
        except LeaseLost:
            job = self.get(lease.job.job_id)
            is_ours = (job.attempt, job.agent_id) == (lease.attempt, lease.agent_id)
            if is_ours and job.committed_attempt == lease.attempt and job.state in LEASED_STATES:
                # The first try's answer was lost; it had committed.
                return Lease(job, lease.agent_id, lease.attempt)
            raise

    def published(self, lease: Lease) -> Lease:
        """Note that the committed results are in the target folder, all of them. Raises LeaseLost."""
        return self._update_leased(lease, {"published_at": self._clock()})

    # What gives the lease up closes the attempt's record with the same write. work: what the attempt did.

    def complete(self, lease: Lease, result: ResultSummary, work: Work | None = None) -> Job:
        """End the job as completed. Raises LeaseLost."""
        closing = self._closing_as(JobState.COMPLETED, work)
        changes = {**self._ending(lease.job, JobState.COMPLETED, closing), "progress_percent": 100.0}
        return self._update_leased(lease, {**changes, "result": result.model_dump(mode="json")}).job

    def fail(self, lease: Lease, failure: Failure, work: Work | None = None) -> Job:
        """End the job as failed. Raises LeaseLost."""
        closing = self._closing_as(failure.failure_class, work)
        return self._update_leased(
            lease, self._failing(lease.job, (*lease.job.failures, failure), closing)
        ).job

    def cancel(self, lease: Lease, work: Work | None = None) -> Job:
        """End the job as cancelled. Raises LeaseLost."""
        closing = self._closing_as(JobState.CANCELLED, work)
        return self._update_leased(lease, self._ending(lease.job, JobState.CANCELLED, closing)).job

    def requeue(self, lease: Lease, failure: Failure, work: Work | None = None) -> Job:
        """Give the lease back and the job to the queue, for another attempt. Raises LeaseLost."""
        closing = self._closing_as(failure.failure_class, work)
        changes = self._waiting(lease.job, self._clock(), closing)
        return self._update_leased(lease, {**changes, "failures": dump((*lease.job.failures, failure))}).job

    def _closing_as(self, outcome: str, work: Work | None) -> Closing:
        return Closing(outcome=outcome, ended_at=self._clock(), work=work)

    def failure(
        self,
        lease: Lease,
        failure_class: FailureClass,
        reason: str,
        exit_code: int | None = None,
        *,
        has_evidence: bool = False,
    ) -> Failure:
        """Return the failure record of this attempt, stamped with the store's clock."""
        return self._failure(lease.job, failure_class, reason, exit_code, has_evidence=has_evidence)

    def _update_leased(self, lease: Lease, changes: Mapping[str, Any]) -> Lease:
        condition, values, names = _fencing(lease)
        with self._telling_lease_lost(lease):
            try:
                job = self._update(lease.job, changes, condition, values, names)
            except Conflict:
                job = self.get(lease.job.job_id)
                if not _is_after(job, lease, changes):
                    raise
                # The first try's answer was lost; it had ended the job, or given it back.
                self._tell(lease.job, job)
        return replace(lease, job=job)

    def _update_leased_together(
        self, lease: Lease, changes: Mapping[str, Any], condition: str, others: Sequence[Any]
    ) -> None:
        fencing, values, names = _fencing(lease)
        write = self._write(lease.job, changes, f"{fencing} AND {condition}", values, names)
        with self._telling_lease_lost(lease):
            self._update_together(lease.job, write, others)

    @contextmanager
    def _telling_lease_lost(self, lease: Lease) -> Iterator[None]:
        """Turn a fencing condition that did not hold into what it means for the holder."""
        try:
            yield
        except Conflict as conflict:
            now_held = self.get(lease.job.job_id)
            is_ours = now_held.attempt == lease.attempt and now_held.agent_id == lease.agent_id
            if is_ours and now_held.state in LEASED_STATES and now_held.cancel_requested_at is not None:
                raise CancelRequested(f"job {lease.job.job_id} was cancelled") from conflict
            raise LeaseLost(
                f"job {lease.job.job_id}: attempt {lease.attempt} no longer holds the lease"
            ) from conflict


def _is_after(job: Job, lease: Lease, changes: Mapping[str, Any]) -> bool:
    """Say whether the record is as these changes of state, and no others', have left it."""
    return (
        job.attempt == lease.attempt
        and job.state == changes.get(TableKey.STATE)
        and job.state_changed_at == changes["state_changed_at"]
    )


def _fencing(lease: Lease) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return the condition that the lease is still ours, its values and its names."""
    condition = f"#attempt = :fence AND agent_id = :agent AND #state IN ({placeholders(LEASED_STATES)})"
    values = {
        ":fence": attribute(lease.attempt),
        ":agent": attribute(lease.agent_id),
        **values_of(LEASED_STATES),
    }
    return condition, values, {"#attempt": "attempt", "#state": TableKey.STATE}
