"""The job table: every job's record, and who may write to it now.

Items:
    job:         {"pk": "JOB#<id>", "sk": "JOB", "active_key"? and the fields of `jobs.Job`}
    idempotency: {"pk": "KEY#<length>#<owner>#<key>", "sk": "KEY", "record_id", "fingerprint", "expires_at"}
    agents' reports: agent_reports.py

Every write to a leased job carries the fencing condition: this agent, this attempt. That condition is the
whole protection against zombies; no clock is compared when an owner writes, only when a lease is taken.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.contract import INDEX_PARTITION_KEYS, Pool, TableIndex, TableKey
from scanfleet.dynamo import answering
from scanfleet.errors import CancelRequested, Conflict, LeaseLost, NotFound, Unavailable
from scanfleet.jobs import (
    ACTIVE_STATES,
    LEASED_STATES,
    Failure,
    FailureClass,
    Job,
    JobState,
    ResultSummary,
    retry_delay,
    utc,
)
from scanfleet.store_items import (
    ACTIVE,
    attribute,
    idempotency_key,
    item_from_job,
    job_from_item,
    job_key,
    update_arguments,
)
from scanfleet.telemetry import Transition, record_transition

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

QUERY_PAGE = 100


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, and the record as it was when last written."""

    job: Job
    agent_id: str
    attempt: int


@dataclass(frozen=True)
class HeldElsewhere:
    """Another agent's lease is alive until this moment (epoch seconds)."""

    until: float


@dataclass(frozen=True)
class NothingToDo:
    """The job has ended or never existed; its message can go."""

    job: Job | None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None means any. Without `states`, unfinished jobs only."""

    owner: str | None = None
    states: tuple[JobState, ...] | None = None
    tag: tuple[str, str] | None = None
    pool: Pool | None = None

    def matches(self, job: Job) -> bool:
        """Say whether the job passes the parts that no index serves."""
        return (
            (self.owner is None or job.owner == self.owner)
            and job.state in (self.states or ACTIVE_STATES)
            and (self.tag is None or job.tags.get(self.tag[0]) == self.tag[1])
            and (self.pool is None or job.pool == self.pool)
        )

    def partitions(self) -> list[tuple[TableIndex, str]]:
        """Return the index partitions that together hold every match, the fewest possible."""
        if self.states is None:
            return [(TableIndex.ACTIVE, ACTIVE)]
        if self.owner is not None:
            return [(TableIndex.OWNER, self.owner)]
        return [(TableIndex.STATE, state) for state in self.states]


@dataclass(frozen=True)
class Page:
    """Jobs, newest first, and the cursor of the next page (None at the end)."""

    jobs: tuple[Job, ...]
    next_cursor: str | None


class JobStore:
    """Reads and writes the job table."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        lease_seconds: float = contract.LEASE_DURATION.total_seconds(),
        clock: Callable[[], float] = time.time,
        on_transition: Callable[[Transition], None] = record_transition,
    ) -> None:
        self._on_transition = on_transition
        self._client = client
        self._table = table
        self._lease_seconds = lease_seconds
        self._clock = clock

    # --- Creating and reading ------------------------------------------------------------------------------

    def create(self, job: Job, *, idempotency: str | None = None, fingerprint: str = "") -> Job:
        """Write a new job and return it, or the job that the same idempotency key made before.

        Raises Conflict when the key was used for a different request (`fingerprint` differs).
        """
        puts: list[Any] = [self._put_new(item_from_job(job))]
        if idempotency is not None:
            expires = int(self._clock() + contract.IDEMPOTENCY_KEYS_KEPT.total_seconds())
            marker = {
                **idempotency_key(job.owner, idempotency),
                # Not called job_id: the marker must stay out of the indexes, which all sort by job_id.
                "record_id": attribute(job.job_id),
                "fingerprint": attribute(fingerprint),
                TableKey.EXPIRES_AT: attribute(expires),
            }
            puts.append(self._put_new(marker))
        try:
            with answering("create job"):
                self._client.transact_write_items(TransactItems=puts)
        except self._client.exceptions.TransactionCanceledException:
            if idempotency is None:
                raise
            return self._existing(job.owner, idempotency, fingerprint)
        self._on_transition(Transition(job, None, 0.0))
        return job

    def created_before(self, owner: str, idempotency: str, fingerprint: str) -> Job | None:
        """Return the job that this idempotency key made, or None.

        Raises Conflict when the key was used for a different request (`fingerprint` differs).
        """
        with answering("read idempotency key"):
            found = self._client.get_item(
                TableName=self._table, Key=idempotency_key(owner, idempotency), ConsistentRead=True
            )
        marker = found.get("Item")
        if marker is None:
            return None
        if marker["fingerprint"]["S"] != fingerprint:
            raise Conflict(f"Idempotency-Key {idempotency!r} was used for a different request")
        return self.get(marker["record_id"]["S"])

    def get(self, job_id: str) -> Job:
        """Return the job as last written. Raises NotFound."""
        with answering("read job"):
            found = self._client.get_item(TableName=self._table, Key=job_key(job_id), ConsistentRead=True)
        if "Item" not in found:
            raise NotFound(f"no job {job_id}")
        return job_from_item(found["Item"])

    def list_jobs(self, wanted: JobFilter, *, limit: int, before: str | None = None) -> Page:
        """Return at most `limit` matching jobs, newest first, that are older than job id `before`."""
        streams = [self._query(index, value, before) for index, value in wanted.partitions()]
        newest_first = merge(*streams, key=lambda job: job.job_id, reverse=True)
        jobs = tuple(islice((job for job in newest_first if wanted.matches(job)), limit + 1))
        return Page(jobs[:limit], jobs[limit - 1].job_id if len(jobs) > limit else None)

    # --- The lease -----------------------------------------------------------------------------------------

    def take_lease(self, job_id: str, agent_id: str) -> Lease | HeldElsewhere | NothingToDo:
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
            return HeldElsewhere(job.lease_expires_at or now)
        try:
            return self._take_free(job, agent_id, now)
        except Conflict:
            # Somebody was quicker; the next delivery of the message will tell what became of it.
            return HeldElsewhere(now + self._lease_seconds)

    def _take_free(self, job: Job, agent_id: str, now: float) -> Lease | NothingToDo:
        failures = job.failures
        if job.state in LEASED_STATES:
            lost = self._failure(job, FailureClass.LOST_MACHINE, f"agent {job.agent_id} went silent")
            failures = (*failures, lost)
            if retry_delay(job, FailureClass.LOST_MACHINE) is None:
                return NothingToDo(self._end_unowned(job, JobState.FAILED, failures))
        if job.cancel_requested_at is not None and job.committed_attempt is None:
            return NothingToDo(self._end_unowned(job, JobState.CANCELLED, failures))
        state = JobState.DOWNLOADING if job.committed_attempt is None else JobState.UPLOADING
        changes = {
            **self._entering(job, state, now),
            "attempt": job.attempt + 1,
            "agent_id": agent_id,
            "lease_expires_at": now + self._lease_seconds,
            "started_at": now,
            "stage": None,
            "progress_percent": 0.0,
            "failures": _dump(failures),
        }
        taken = self._update_unowned(job, changes)
        return Lease(taken, agent_id, taken.attempt)

    def renew(self, lease: Lease, *, progress_percent: float, stage: str | None) -> Lease:
        """Prolong the lease and carry progress up; the returned job carries a cancel request down.

        Raises LeaseLost.
        """
        changes = {
            "lease_expires_at": self._clock() + self._lease_seconds,
            "progress_percent": round(progress_percent, 2),
            "stage": stage,
        }
        return self._update_leased(lease, changes)

    def advance(self, lease: Lease, state: JobState, **facts: Any) -> Lease:
        """Move a leased job to its next state. Raises LeaseLost."""
        return self._update_leased(lease, {**self._entering(lease.job, state, self._clock()), **facts})

    def commit(self, lease: Lease) -> Lease:
        """Make this attempt's staged results the job's results, once and for ever.

        From here on nobody runs the program again: whoever holds the lease publishes these results. A cancel
        request and a commit exclude each other. Raises LeaseLost, or CancelRequested when that came first.
        """
        condition = "attribute_not_exists(committed_attempt) AND attribute_not_exists(cancel_requested_at)"
        return self._update_leased(lease, {"committed_attempt": lease.attempt}, condition)

    def complete(self, lease: Lease, result: ResultSummary) -> Job:
        """End the job as completed. Raises LeaseLost."""
        changes = {**self._ending(lease.job, JobState.COMPLETED), "result": result.model_dump(mode="json")}
        return self._update_leased(lease, {**changes, "progress_percent": 100.0}).job

    def fail(self, lease: Lease, failure: Failure) -> Job:
        """End the job as failed. Raises LeaseLost."""
        failures = _dump((*lease.job.failures, failure))
        return self._update_leased(
            lease, {**self._ending(lease.job, JobState.FAILED), "failures": failures}
        ).job

    def cancel(self, lease: Lease) -> Job:
        """End the job as cancelled. Raises LeaseLost."""
        return self._update_leased(lease, self._ending(lease.job, JobState.CANCELLED)).job

    def requeue(self, lease: Lease, failure: Failure) -> Job:
        """Give the lease back and the job to the queue, for another attempt. Raises LeaseLost."""
        failures = _dump((*lease.job.failures, failure))
        return self._update_leased(
            lease, {**self._waiting(lease.job, self._clock()), "failures": failures}
        ).job

    def failure(
        self, lease: Lease, failure_class: FailureClass, reason: str, exit_code: int | None = None
    ) -> Failure:
        """Return the failure record of this attempt, stamped with the store's clock."""
        return self._failure(lease.job, failure_class, reason, exit_code)

    # --- What owners may do --------------------------------------------------------------------------------

    def request_cancel(self, job: Job) -> Job:
        """Cancel a queued job at once, or ask the agent of a running one to.

        Raises Conflict when the job has ended or its results are committed.
        """
        if job.state is JobState.QUEUED and job.committed_attempt is None:
            return self._end_unowned(job, JobState.CANCELLED, job.failures)
        changes = {"cancel_requested_at": job.cancel_requested_at or self._clock()}
        condition = f"#state IN ({_placeholders(LEASED_STATES)}) AND attribute_not_exists(committed_attempt)"
        return self._update(job, changes, condition, _values(LEASED_STATES), {"#state": TableKey.STATE})

    def retry(self, job: Job) -> Job:
        """Put a failed or cancelled job back into the queue; its earlier failures no longer count.

        Raises Conflict when the job is in any other state.
        """
        states = (JobState.FAILED, JobState.CANCELLED)
        changes = {
            **self._waiting(job, self._clock()),
            "cancel_requested_at": None,
            "finished_at": None,
            TableKey.EXPIRES_AT: None,
            TableKey.ACTIVE: ACTIVE,
            "failures_forgiven": len(job.failures),
        }
        condition = f"#state IN ({_placeholders(states)}) AND #attempt = :seen_attempt"
        values = {**_values(states), ":seen_attempt": attribute(job.attempt)}
        return self._update(job, changes, condition, values, {"#attempt": "attempt"})

    def check(self) -> None:
        """Raise Unavailable when the table cannot be read."""
        with answering("read table"):
            self._client.get_item(TableName=self._table, Key=job_key("none"))

    # --- Inside --------------------------------------------------------------------------------------------

    def _put_new(self, item: Mapping[str, Any]) -> dict[str, Any]:
        put = {"TableName": self._table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        return {"Put": put}

    def _existing(self, owner: str, idempotency: str, fingerprint: str) -> Job:
        job = self.created_before(owner, idempotency, fingerprint)
        if job is None:
            raise Unavailable("the idempotency key's record vanished; send the request again")
        return job

    def _query(self, index: TableIndex, value: str, before: str | None) -> Iterator[Job]:
        condition, values = "#partition = :partition", {":partition": attribute(value)}
        if before is not None:
            condition += " AND job_id < :before"
            values[":before"] = attribute(before)
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            IndexName=index,
            KeyConditionExpression=condition,
            ExpressionAttributeNames={"#partition": INDEX_PARTITION_KEYS[index]},
            ExpressionAttributeValues=values,
            ScanIndexForward=False,
            PaginationConfig={"PageSize": QUERY_PAGE},
        )
        with answering("list jobs"):
            for page in pages:
                yield from (job_from_item(item) for item in page["Items"])

    def _entering(self, job: Job, state: JobState, now: float) -> dict[str, Any]:
        spent = {**job.durations_seconds}
        spent[job.state] = round(spent.get(job.state, 0.0) + max(0.0, now - job.state_changed_at), 3)
        return {TableKey.STATE: state, "state_changed_at": now, "durations_seconds": spent}

    def _ending(self, job: Job, state: JobState) -> dict[str, Any]:
        now = self._clock()
        return {
            **self._entering(job, state, now),
            "finished_at": now,
            "lease_expires_at": None,
            TableKey.ACTIVE: None,
            TableKey.EXPIRES_AT: int(now + contract.FINISHED_JOBS_KEPT.total_seconds()),
        }

    def _waiting(self, job: Job, now: float) -> dict[str, Any]:
        return {
            **self._entering(job, JobState.QUEUED, now),
            "queued_at": now,
            "lease_expires_at": None,
            "agent_id": None,
            "stage": None,
            "progress_percent": 0.0,
        }

    def _failure(
        self, job: Job, failure_class: FailureClass, reason: str, exit_code: int | None = None
    ) -> Failure:
        return Failure(
            failure_class=failure_class,
            reason=reason[:2000],
            attempt=job.attempt,
            exit_code=exit_code,
            agent_id=job.agent_id,
            at=utc(self._clock()),
        )

    def _end_unowned(self, job: Job, state: JobState, failures: tuple[Failure, ...]) -> Job:
        return self._update_unowned(job, {**self._ending(job, state), "failures": _dump(failures)})

    def _update_unowned(self, job: Job, changes: Mapping[str, Any]) -> Job:
        """Update a job that nobody holds, if it still is as it was read. Raises Conflict."""
        condition = (
            "#attempt = :seen_attempt AND #state = :seen_state"
            " AND (attribute_not_exists(lease_expires_at) OR lease_expires_at <= :now)"
        )
        values = {
            ":seen_attempt": attribute(job.attempt),
            ":seen_state": attribute(job.state),
            ":now": attribute(self._clock()),
        }
        names = {"#attempt": "attempt", "#state": TableKey.STATE}
        return self._update(job, changes, condition, values, names)

    def _update_leased(self, lease: Lease, changes: Mapping[str, Any], condition: str = "") -> Lease:
        fencing = f"#attempt = :fence AND agent_id = :agent AND #state IN ({_placeholders(LEASED_STATES)})"
        values = {
            ":fence": attribute(lease.attempt),
            ":agent": attribute(lease.agent_id),
            **_values(LEASED_STATES),
        }
        names = {"#attempt": "attempt", "#state": TableKey.STATE}
        full = f"{fencing} AND {condition}" if condition else fencing
        try:
            job = self._update(lease.job, changes, full, values, names)
        except Conflict as conflict:
            now_held = self.get(lease.job.job_id)
            is_ours = now_held.attempt == lease.attempt and now_held.agent_id == lease.agent_id
            if is_ours and now_held.state in LEASED_STATES and now_held.cancel_requested_at is not None:
                raise CancelRequested(f"job {lease.job.job_id} was cancelled") from conflict
            raise LeaseLost(
                f"job {lease.job.job_id}: attempt {lease.attempt} no longer holds the lease"
            ) from conflict
        return Lease(job, lease.agent_id, lease.attempt)

    def _update(
        self,
        before: Job,
        changes: Mapping[str, Any],
        condition: str,
        values: Mapping[str, Any],
        names: Mapping[str, str],
    ) -> Job:
        """Write the changes if the condition holds, and tell of a change of state. Raises Conflict."""
        arguments = update_arguments(changes)
        arguments["ExpressionAttributeNames"] |= names
        arguments["ExpressionAttributeValues"] |= values
        try:
            with answering("update job"):
                updated = self._client.update_item(
                    TableName=self._table,
                    Key=job_key(before.job_id),
                    ConditionExpression=condition,
                    ReturnValues="ALL_NEW",
                    **arguments,
                )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise Conflict(f"job {before.job_id} is in another state") from error
        job = job_from_item(updated["Attributes"])
        if TableKey.STATE in changes:
            seconds = job.state_changed_at - before.state_changed_at
            self._on_transition(Transition(job, before.state, max(0.0, seconds)))
        return job


def _dump(failures: tuple[Failure, ...]) -> list[dict[str, Any]]:
    return [failure.model_dump(mode="json") for failure in failures]


def _placeholders(states: tuple[JobState, ...]) -> str:
    return ", ".join(f":is_{state}" for state in states)


def _values(states: tuple[JobState, ...]) -> dict[str, Any]:
    return {f":is_{state}": attribute(state) for state in states}
