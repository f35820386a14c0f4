"""What owners do to jobs: create, find, cancel, retry."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.contract import INDEX_PARTITION_KEYS, TableIndex, TableKey
from scanfleet.dynamo import TransactionRefused, answering, transact
from scanfleet.errors import Conflict, Unavailable
from scanfleet.job_listing import JobFilter, JobListing, Page
from scanfleet.job_table import JobTable, dump, placeholders, values_of
from scanfleet.job_tags import tag_entries
from scanfleet.jobs import LEASED_STATES, Job, JobState
from scanfleet.store_items import ACTIVE, attribute, idempotency_key, item_from_job, job_from_item
from scanfleet.target_claims import TargetTaken
from scanfleet.telemetry import Transition, record_transition

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["JobFilter", "JobStore", "Page"]

log = logging.getLogger(__name__)

FORGIVEN_KEPT = 8
"""So many failures from before an owner's retry stay on the record: DynamoDB's items have 400 KB at most, and
a record that is full could never be changed again."""
CLAIM_TRIES = 4
"""A target folder's claim may pass to another job between our look and our write; then look again."""


class JobStore(JobTable):
    """The jobs as owners and operators see them."""

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        clock: Callable[[], float] = time.time,
        on_transition: Callable[[Transition], None] = record_transition,
    ) -> None:
        super().__init__(client, table, clock=clock, on_transition=on_transition)
        self._listing = JobListing(client, table)

    def create(
        self, job: Job, *, idempotency: str | None = None, fingerprint: str = "", replace: bool = False
    ) -> Job:
        """Write a new job and return it, or the job that the same idempotency key made before.

        The job gets its target folder with it. replace: also from a completed job of the same owner, whose
        results its own then replace. Raises Conflict when the key was used for a different request
        (`fingerprint` differs), TargetTaken when another job has the folder.
        """
        for _ in range(CLAIM_TRIES):
            try:
                taking = self._claims.taking(job, replace=replace)
            except TargetTaken:
                if idempotency and (existing := self.created_before(job.owner, idempotency, fingerprint)):
                    return existing  # by the same request, sent twice at once
                raise
            job = job.model_copy(update={"replaces": taking.replaces})
            writes = [self._put_new(item_from_job(job)), *taking.writes, *self._tags_of(job)]
            if idempotency is not None:
                writes.append(self._put_new(self._marker(job, idempotency, fingerprint)))
            try:
                transact(self._client, "create job", writes)
            except TransactionRefused as refused:
                if idempotency is not None and len(writes) - 1 in refused.failed:
                    return self._existing(job.owner, idempotency, fingerprint)
                continue
            self._on_transition(Transition(job, None, 0.0))
            return job
        raise Unavailable("create job: the target folder is passing to another job; send the request again")

    def _tags_of(self, job: Job) -> list[dict[str, Any]]:
        entries = tag_entries(job, self._clock())
        return [{"Put": {"TableName": self._name, "Item": entry}} for entry in entries]

    def _marker(self, job: Job, idempotency: str, fingerprint: str) -> dict[str, Any]:
        expires = int(self._clock() + contract.IDEMPOTENCY_KEYS_KEPT.total_seconds())
        return {
            **idempotency_key(job.owner, idempotency),
            # Not called job_id: the marker must stay out of the indexes, which all sort by job_id.
            "record_id": attribute(job.job_id),
            "fingerprint": attribute(fingerprint),
            TableKey.EXPIRES_AT: attribute(expires),
        }

    def created_before(self, owner: str, idempotency: str, fingerprint: str) -> Job | None:
        """Return the job that this idempotency key made, or None.

        Raises Conflict when the key was used for a different request (`fingerprint` differs).
        """
        with answering("read idempotency key"):
            found = self._client.get_item(
                TableName=self._name, Key=idempotency_key(owner, idempotency), ConsistentRead=True
            )
        marker = found.get("Item")
        if marker is None:
            return None
        if marker["fingerprint"]["S"] != fingerprint:
            raise Conflict(f"Idempotency-Key {idempotency!r} was used for a different request")
        return self.get(marker["record_id"]["S"])

    def list_jobs(self, wanted: JobFilter, *, limit: int, before: str | None = None) -> Page:
        """Return at most `limit` matching jobs, newest first, that are older than job id `before`.

        A page may be short or empty and have a cursor: one call looks at a bounded number of records.
        """
        return self._listing.page(wanted, limit=limit, before=before)

    def request_cancel(self, job: Job) -> Job:
        """Cancel a queued job at once, or ask the agent of a running one to.

        Raises Conflict when the job has ended or its results are committed.
        """
        if job.state is JobState.QUEUED and job.committed_attempt is None:
            return self._end_unowned(job, JobState.CANCELLED, job.failures)
        changes = {"cancel_requested_at": job.cancel_requested_at or self._clock()}
        condition = f"#state IN ({placeholders(LEASED_STATES)}) AND attribute_not_exists(committed_attempt)"
        return self._update(job, changes, condition, values_of(LEASED_STATES), {"#state": TableKey.STATE})

    def retry(self, job: Job) -> Job:
        """Put a failed or cancelled job back into the queue; its earlier failures no longer count.

        It takes its target folder again, which may have become another job's: then TargetTaken is raised.
        Raises Conflict when the job is in any other state.
        """
        states = (JobState.FAILED, JobState.CANCELLED)
        kept = job.failures[-FORGIVEN_KEPT:]
        changes = {
            **self._waiting(job, self._clock()),
            "cancel_requested_at": None,
            "enqueued_at": None,
            "finished_at": None,
            "quarantined_at": None,
            TableKey.EXPIRES_AT: None,
            TableKey.ACTIVE: ACTIVE,
            "failures": dump(kept),
            "failures_forgiven": len(kept),
        }
        condition = f"#state IN ({placeholders(states)}) AND #attempt = :seen_attempt"
        values = {**values_of(states), ":seen_attempt": attribute(job.attempt)}
        for _ in range(CLAIM_TRIES):
            taking = self._claims.taking(job, replace=job.replaces is not None)
            changes["replaces"] = taking.replaces
            write = self._write(job, changes, condition, values, {"#attempt": "attempt"})
            try:
                self._update_together(job, write, taking.writes)
            except TransactionRefused:
                continue
            again = self.get(job.job_id)
            self._tell(job, again)
            return again
        raise Unavailable("retry job: the target folder is passing to another job; send the request again")

    def mark_enqueued(self, job: Job) -> Job:
        """Write that the job's message was sent just now, if the job still is where it was read.

        Losing this write is harmless: the sweeper then sends a second message. Raises Conflict when the job
        has moved on, which needs no mark.
        """
        condition = "#state = :seen_state AND #attempt = :seen_attempt"
        values = {":seen_state": attribute(job.state), ":seen_attempt": attribute(job.attempt)}
        names = {"#state": TableKey.STATE, "#attempt": "attempt"}
        return self._update(job, {"enqueued_at": self._clock()}, condition, values, names)

    def unfinished(self) -> Iterator[Job]:
        """Yield every unfinished job, the oldest first, as the active index has them: seconds old at most.

        A record that cannot be read is told and left out.
        """
        return self._unfinished()

    def running_or_unsent(self) -> Iterator[Job]:
        """Yield, as `unfinished` does, the jobs that agents have and those whose message was never marked.

        DynamoDB reads the whole index for it and sends these alone: of a long backlog next to nothing.
        """
        return self._unfinished("#state <> :queued OR attribute_not_exists(enqueued_at)")

    def waiting(self) -> Iterator[Job]:
        """Yield, as `unfinished` does, the queued jobs whose message was sent."""
        return self._unfinished("#state = :queued AND attribute_exists(enqueued_at)")

    def _unfinished(self, condition: str | None = None) -> Iterator[Job]:
        names = {"#partition": INDEX_PARTITION_KEYS[TableIndex.ACTIVE]}
        values = {":partition": attribute(ACTIVE)}
        filtering: dict[str, Any] = {}
        if condition is not None:
            filtering = {"FilterExpression": condition}
            names["#state"] = TableKey.STATE
            values[":queued"] = attribute(JobState.QUEUED)
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            IndexName=TableIndex.ACTIVE,
            KeyConditionExpression="#partition = :partition",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            **filtering,
        )
        with answering("list unfinished jobs"):
            for page in pages:
                for item in page["Items"]:
                    try:
                        yield job_from_item(item)
                    except ValueError as error:  # pydantic's and json's
                        facts = {"action": "job_not_understood", "job_id": item.get("job_id", {}).get("S")}
                        log.error("a job's record cannot be read: %s", error, extra=facts)

    def _put_new(self, item: Mapping[str, Any]) -> dict[str, Any]:
        put = {"TableName": self._name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        return {"Put": put}

    def _existing(self, owner: str, idempotency: str, fingerprint: str) -> Job:
        job = self.created_before(owner, idempotency, fingerprint)
        if job is None:
            raise Unavailable("the idempotency key's record vanished; send the request again")
        return job
