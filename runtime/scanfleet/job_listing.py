"""Lists of jobs, newest first, with a bounded amount of work for each page.

A page is read from the index partitions that hold every match and the least else (docs/decisions/0057-*.md
has the table). What no index serves is filtered by DynamoDB, which counts all that it looked at: a request
looks at EXAMINED_AT_MOST records and answers with what it found, so a page may be short or empty and still
have a cursor. There is no scan.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Any

from scanfleet.contract import INDEX_PARTITION_KEYS, Pool, TableIndex, TableKey
from scanfleet.dynamo import answering
from scanfleet.job_tags import TagIndex, tag_text
from scanfleet.jobs import ACTIVE_STATES, Job, JobState
from scanfleet.store_items import ACTIVE, Item, attribute, job_from_item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

EXAMINED_AT_MOST = 500
"""Records that one request looks at, those that its filter leaves out included: some 1 MB, one read."""
GROWTH = 4
"""Of the records that a filtered reading looks at in one call, while it finds too few."""
UNLISTED = frozenset({"attempts", "usage", "lease_token", "lease_expires_at", "enqueued_at"})
"""Fields that no list shows: the bulk of a record that has seen many attempts."""
LISTED = tuple(name for name in Job.model_fields if name not in UNLISTED)


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None means any. Without `states`, unfinished jobs only."""

    owner: str | None = None
    states: tuple[JobState, ...] | None = None
    tag: tuple[str, str] | None = None
    pool: Pool | None = None

    def matches(self, job: Job) -> bool:
        """Say whether the job is one of these."""
        return (
            (self.owner is None or job.owner == self.owner)
            and job.state in (self.states or ACTIVE_STATES)
            and (self.tag is None or job.tags.get(self.tag[0]) == self.tag[1])
            and (self.pool is None or job.pool == self.pool)
        )

    @property
    def is_active_only(self) -> bool:
        """Say whether only unfinished jobs are wanted."""
        return set(self.states or ACTIVE_STATES) <= set(ACTIVE_STATES)

    def partitions(self) -> list[tuple[TableIndex, str]]:
        """Return the index partitions that together hold every match, those with the least else.

        The active one comes first: a job that ends while they are read is then seen in one of them at least.
        """
        states = self.states or ACTIVE_STATES
        if len(states) == 1 and self.owner is None:
            return [(TableIndex.STATE, states[0])]
        if self.is_active_only:
            return [(TableIndex.ACTIVE, ACTIVE)]
        if self.owner is not None:
            return [(TableIndex.OWNER, self.owner)]
        ended = [(TableIndex.STATE, state.value) for state in states if state not in ACTIVE_STATES]
        return [(TableIndex.ACTIVE, ACTIVE), *ended] if set(states) & set(ACTIVE_STATES) else ended

    def beyond(self, index: TableIndex) -> Mapping[str, Sequence[str]]:
        """Return attribute -> allowed values of what a partition of this index does not select by itself."""
        wanted: dict[str, Sequence[str]] = {}
        if self.owner is not None and index is not TableIndex.OWNER:
            wanted[TableKey.OWNER] = (self.owner,)
        if self.pool is not None:
            wanted["pool"] = (self.pool,)
        states = set(self.states or ACTIVE_STATES)
        whole = {TableIndex.ACTIVE: set(ACTIVE_STATES), TableIndex.OWNER: set(JobState)}.get(index)
        if whole is not None and not whole <= states:
            wanted[TableKey.STATE] = tuple(state for state in JobState if state in states & whole)
        return wanted


@dataclass(frozen=True)
class Page:
    """Jobs, newest first, without their UNLISTED fields, and the cursor of the next page (None at the end).

    With a cursor there may be more, whether or not the page is full.
    """

    jobs: tuple[Job, ...]
    next_cursor: str | None


Found = tuple[str, Job | None]
"""A job id and its job; or the last id that a reading came to, and None: it may look at no more."""


class JobListing:
    """Reads pages of jobs."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table
        self._tags = TagIndex(client, table)

    def page(self, wanted: JobFilter, *, limit: int, before: str | None) -> Page:
        """Return at most `limit` matching jobs, newest first, that are older than job id `before`."""
        jobs: list[Job] = []
        for job_id, job in merge(
            *self._readings(wanted, limit, before), key=lambda one: one[0], reverse=True
        ):
            if job is None:
                return Page(tuple(jobs), job_id)
            if not wanted.matches(job) or (jobs and jobs[-1].job_id == job_id):
                continue  # it ended between two reads, and was found in both
            if len(jobs) == limit:
                return Page(tuple(jobs), jobs[-1].job_id)
            jobs.append(job)
        return Page(tuple(jobs), None)

    def _readings(self, wanted: JobFilter, limit: int, before: str | None) -> list[Iterator[Found]]:
        if wanted.tag is not None and not wanted.is_active_only:
            return [self._tagged(wanted, wanted.tag, limit, before)]
        partitions = wanted.partitions()
        share = EXAMINED_AT_MOST // len(partitions)
        return [
            self._indexed(wanted, partition, limit=limit, before=before, share=share)
            for partition in partitions
        ]

    def _tagged(
        self, wanted: JobFilter, tag: tuple[str, str], limit: int, before: str | None
    ) -> Iterator[Found]:
        """Yield the jobs with a tag: their ids from the tag's own partition, then their records."""
        entries = self._tags.entries(tag, owner=wanted.owner, before=before, at_most=EXAMINED_AT_MOST)
        while ids := entries.next(limit + 1):
            records = self._tags.records(ids, LISTED)
            yield from ((job_id, job) for job_id in ids if (job := _readable(records.get(job_id))))
        if entries.stopped_at is not None:
            yield entries.stopped_at, None

    def _indexed(
        self,
        wanted: JobFilter,
        partition: tuple[TableIndex, str],
        *,
        limit: int,
        before: str | None,
        share: int,
    ) -> Iterator[Found]:
        """Yield the matches of one index partition, looking at `share` of its records."""
        query = _query(wanted, *partition, before) | {"TableName": self._table, **_listed()}
        query["ExpressionAttributeNames"] |= {f"#{name}": name for name in LISTED}
        left, size = share, limit + 1
        while left > 0:
            with answering("list jobs"):
                answer = self._client.query(**query, Limit=min(size, left))
            for item in answer["Items"]:
                if job := _readable(item):
                    yield job.job_id, job
            stopped = answer.get("LastEvaluatedKey")
            if stopped is None:
                return
            left -= answer["ScannedCount"]
            query["ExclusiveStartKey"] = stopped
            size *= GROWTH if "FilterExpression" in query else 1
        yield query["ExclusiveStartKey"][TableKey.JOB_ID]["S"], None


def _query(wanted: JobFilter, index: TableIndex, value: str, before: str | None) -> dict[str, Any]:
    """Return what a query of the partition needs, less table, fields and limit."""
    names = {"#partition": str(INDEX_PARTITION_KEYS[index])}
    values: dict[str, Any] = {":partition": attribute(value)}
    key = "#partition = :partition"
    if before is not None:
        key += " AND job_id < :before"
        values[":before"] = attribute(before)
    filters = []
    for name, allowed in wanted.beyond(index).items():
        names[f"#{name}"] = name
        values |= {f":{name}{number}": attribute(one) for number, one in enumerate(allowed)}
        filters.append(f"#{name} IN ({', '.join(f':{name}{number}' for number in range(len(allowed)))})")
    if wanted.tag is not None:
        names["#tags"] = "tags"
        values[":tag"] = attribute(tag_text(wanted.tag))
        filters.append("contains(#tags, :tag)")
    return {
        "IndexName": index,
        "KeyConditionExpression": key,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": False,
        **({"FilterExpression": " AND ".join(filters)} if filters else {}),
    }


def _listed() -> dict[str, str]:
    return {"ProjectionExpression": ", ".join(f"#{name}" for name in LISTED)}


def _readable(item: Item | None) -> Job | None:
    """Return the item's job; None without an item, or for a record that cannot be read, which is told."""
    if item is None:
        return None
    try:
        return job_from_item(item)
    except ValueError as error:  # pydantic's and json's
        facts = {"action": "job_not_understood", "job_id": item.get("job_id", {}).get("S")}
        log.error("a job's record cannot be read: %s", error, extra=facts)
        return None
