"""The one table's rules, whoever writes: what a change of state writes, and how a write is conditional.

Items:
    job:         {"pk": "JOB#<id>", "sk": "JOB", "active_key"? and the fields of `jobs.Job`}
    idempotency: {"pk": "KEY#<length>#<owner>#<key>", "sk": "KEY", "record_id", "fingerprint", "expires_at"}
    agents' reports: agent_reports.py

What owners do to jobs is in store.py, what agents do in leases.py.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.attempt_records import Closing, closed, dumped, lost, moved_on, open_record
from scanfleet.contract import TableKey
from scanfleet.dynamo import TransactionRefused, answering, transact, write_when_free
from scanfleet.errors import Conflict, NotFound
from scanfleet.jobs import QUARANTINED_CLASSES, Failure, FailureClass, Job, JobState, utc
from scanfleet.store_items import attribute, job_from_item, job_key, update_arguments
from scanfleet.target_claims import TargetClaims
from scanfleet.telemetry import Transition, record_transition

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class JobTable:
    """Reads job records and writes changes of them."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        clock: Callable[[], float] = time.time,
        on_transition: Callable[[Transition], None] = record_transition,
    ) -> None:
        self._on_transition = on_transition
        self._client = client
        self._name = table
        self._clock = clock
        self._claims = TargetClaims(client, table, clock=clock, read=self.get)

    def get(self, job_id: str) -> Job:
        """Return the job as last written. Raises NotFound."""
        with answering("read job"):
            found = self._client.get_item(TableName=self._name, Key=job_key(job_id), ConsistentRead=True)
        if "Item" not in found:
            raise NotFound(f"no job {job_id}")
        return job_from_item(found["Item"])

    def check(self) -> None:
        """Raise Unavailable when the table cannot be read."""
        with answering("read table"):
            self._client.get_item(TableName=self._name, Key=job_key("none"))

    # --- What changes write ---------------------------------------------------------------------------------

    def _entering(self, job: Job, state: JobState, now: float) -> dict[str, Any]:
        spent = {**job.durations_seconds}
        spent[job.state] = round(spent.get(job.state, 0.0) + max(0.0, now - job.state_changed_at), 3)
        changes = {TableKey.STATE: state, "state_changed_at": now, "durations_seconds": spent}
        if open_record(job) is not None:
            changes["attempts"] = dumped(moved_on(job, now))
        return changes

    def _ending(self, job: Job, state: JobState, closing: Closing | None = None) -> dict[str, Any]:
        """Return the end. closing: of the running attempt, if there may be one."""
        now = self._clock()
        return {
            **self._entering(job, state, now),
            **(self._closing(job, closing) if closing else {}),
            "finished_at": now,
            "lease_expires_at": None,
            TableKey.ACTIVE: None,
            TableKey.EXPIRES_AT: int(now + contract.FINISHED_JOBS_KEPT.total_seconds()),
        }

    def _closing(self, job: Job, closing: Closing) -> dict[str, Any]:
        """Return the end of the running attempt's record; nothing when none is open."""
        if open_record(job) is None:
            return {}
        changes: dict[str, Any] = {"attempts": dumped(closed(job, closing))}
        if closing.work is not None:
            # The last heartbeat may have written less.
            usage = closing.work.usage
            changes["stage_seconds"] = dict(closing.work.stage_seconds)
            changes["usage"] = usage and usage.model_dump(mode="json", exclude_none=True)
        return changes

    def _failing(
        self, job: Job, failures: tuple[Failure, ...], closing: Closing | None = None
    ) -> dict[str, Any]:
        """Return the end as failed; a job that may hurt machines is quarantined with the same write."""
        changes = {**self._ending(job, JobState.FAILED, closing), "failures": dump(failures)}
        if failures and failures[-1].failure_class in QUARANTINED_CLASSES:
            changes["quarantined_at"] = changes["finished_at"]
        return changes

    def _waiting(self, job: Job, now: float, closing: Closing | None = None) -> dict[str, Any]:
        return {
            **self._entering(job, JobState.QUEUED, now),
            **(self._closing(job, closing) if closing else {}),
            "queued_at": now,
            "lease_expires_at": None,
            "agent_id": None,
            "stage": None,
            "stage_since": None,
            "progress_percent": 0.0,
        }

    def _failure(
        self,
        job: Job,
        failure_class: FailureClass,
        reason: str,
        exit_code: int | None = None,
        *,
        has_evidence: bool = False,
    ) -> Failure:
        return Failure(
            failure_class=failure_class,
            reason=reason[:2000],
            attempt=job.attempt,
            exit_code=exit_code,
            agent_id=job.agent_id,
            at=utc(self._clock()),
            has_evidence=has_evidence,
        )

    # --- Conditional writes ---------------------------------------------------------------------------------

    def _end_unowned(self, job: Job, state: JobState, failures: tuple[Failure, ...]) -> Job:
        closing = lost(job, self._clock())
        changes = (
            self._failing(job, failures, closing)
            if state is JobState.FAILED
            else {**self._ending(job, state, closing), "failures": dump(failures)}
        )
        return self._update_unowned(job, changes)

    def _update_unowned(self, job: Job, changes: Mapping[str, Any]) -> Job:
        """Update a job that nobody holds, if it still is as it was read. Raises Conflict."""
        condition = (
            "#attempt = :seen_attempt AND #state = :seen_state"
            " AND (attribute_not_exists(lease_expires_at) OR lease_expires_at <= :now)"
        )
        if job.committed_attempt is None:
            # Its silent owner may have committed since; what is then due is another decision.
            condition += " AND attribute_not_exists(committed_attempt)"
        values = {
            ":seen_attempt": attribute(job.attempt),
            ":seen_state": attribute(job.state),
            ":now": attribute(self._clock()),
        }
        names = {"#attempt": "attempt", "#state": TableKey.STATE}
        return self._update(job, changes, condition, values, names)

    def _update(
        self,
        before: Job,
        changes: Mapping[str, Any],
        condition: str,
        values: Mapping[str, Any],
        names: Mapping[str, str],
    ) -> Job:
        """Write the changes if the condition holds, and tell of a change of state. Raises Conflict."""
        write = self._write(before, changes, condition, values, names)
        try:
            updated = write_when_free(
                "update job", lambda: self._client.update_item(**write, ReturnValues="ALL_NEW")
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise Conflict(f"job {before.job_id} is in another state") from error
        job = job_from_item(updated["Attributes"])
        if TableKey.STATE in changes:
            self._tell(before, job)
        return job

    def _update_together(self, before: Job, write: Mapping[str, Any], others: Sequence[Any]) -> None:
        """Make `write`, of this job's record, and the others, all or none.

        Raises Conflict when the record's condition does not hold, TransactionRefused when another's does not.
        """
        try:
            transact(self._client, "update job", [{"Update": write}, *others])
        except TransactionRefused as refused:
            if 0 in refused.failed:
                raise Conflict(f"job {before.job_id} is in another state") from refused
            raise

    def _write(
        self,
        before: Job,
        changes: Mapping[str, Any],
        condition: str,
        values: Mapping[str, Any],
        names: Mapping[str, str],
    ) -> dict[str, Any]:
        arguments = update_arguments(changes)
        arguments["ExpressionAttributeNames"] |= names
        arguments["ExpressionAttributeValues"] |= values
        key = {"TableName": self._name, "Key": job_key(before.job_id)}
        return {**key, "ConditionExpression": condition, **arguments}

    def _tell(self, before: Job, after: Job) -> None:
        seconds = after.state_changed_at - before.state_changed_at
        self._on_transition(Transition(after, before.state, max(0.0, seconds)))


def dump(failures: tuple[Failure, ...]) -> list[dict[str, Any]]:
    return [failure.model_dump(mode="json") for failure in failures]


def placeholders(states: tuple[JobState, ...]) -> str:
    return ", ".join(f":is_{state}" for state in states)


def values_of(states: tuple[JobState, ...]) -> dict[str, Any]:
    return {f":is_{state}": attribute(state) for state in states}
