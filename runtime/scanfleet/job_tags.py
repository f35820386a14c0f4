"""Which jobs have a tag: one small item for each tag of a job, written with the job, never changed.

item: {"pk": "TAG#<key>:<value>", "sk": job id, "owner": the job's, "expires_at": epoch seconds}

It has no attribute `job_id`, so it stays out of the indexes, which all sort by it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.contract import TableKey
from scanfleet.dynamo import answering
from scanfleet.errors import Unavailable
from scanfleet.jobs import Job
from scanfleet.store_items import Item, attribute, job_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Tag = tuple[str, str]

BATCH_SIZE = 100
"""Source: DynamoDB API reference, BatchGetItem."""
BATCH_TRIES = 5
"""A batch that DynamoDB answers in part is asked for the rest; each answer has something."""


def tag_entries(job: Job, now: float) -> list[dict[str, Any]]:
    """Return the items that name the job by its tags, to be written with it."""
    expires = attribute(int(now + contract.TAGS_KEPT.total_seconds()))
    return [
        {
            TableKey.PARTITION: attribute(_partition(tag)),
            TableKey.SORT: attribute(job.job_id),
            TableKey.OWNER: attribute(job.owner),
            TableKey.EXPIRES_AT: expires,
        }
        for tag in job.tags.items()
    ]


def tag_text(tag: Tag) -> str:
    """Return how the tag is written inside the JSON text of a job's tags; nothing else there looks the same,
    since quotes inside of keys and values are escaped."""
    return json.dumps({tag[0]: tag[1]}, separators=(",", ":"))[1:-1]


def _partition(tag: Tag) -> str:
    return f"{contract.TAG_PARTITIONS}{tag[0]}:{tag[1]}"


class TagIndex:
    """Reads the entries, and the jobs that they name."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def entries(self, tag: Tag, *, owner: str | None, before: str | None, at_most: int) -> "TagEntries":
        """Return the entries of a tag, of one owner or all, older than job id `before`."""
        values = {":tag": attribute(_partition(tag))}
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :tag",
            "ExpressionAttributeValues": values,
            "ScanIndexForward": False,
        }
        if before is not None:
            query["KeyConditionExpression"] += " AND sk < :before"
            values[":before"] = attribute(before)
        if owner is not None:
            query["FilterExpression"] = "#owner = :owner"
            query["ExpressionAttributeNames"] = {"#owner": TableKey.OWNER}
            values[":owner"] = attribute(owner)
        return TagEntries(self._client, query, at_most)

    def records(self, job_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Item]:
        """Return job id -> these fields of its record; those that are gone are left out."""
        found: dict[str, Item] = {}
        for start in range(0, len(job_ids), BATCH_SIZE):
            self._read(job_ids[start : start + BATCH_SIZE], fields, found)
        return found

    def _read(self, job_ids: Sequence[str], fields: Sequence[str], found: dict[str, Item]) -> None:
        wanted: Mapping[str, Any] = {
            self._table: {
                "Keys": [job_key(job_id) for job_id in job_ids],
                "ProjectionExpression": ", ".join(f"#{name}" for name in fields),
                "ExpressionAttributeNames": {f"#{name}": name for name in fields},
            }
        }
        for _ in range(BATCH_TRIES):
            with answering("list jobs"):
                answer = self._client.batch_get_item(RequestItems=wanted)
            for item in answer["Responses"].get(self._table, []):
                found[item["job_id"]["S"]] = item
            wanted = answer.get("UnprocessedKeys", {})
            if not wanted:
                return
        raise Unavailable("list jobs: the job table is busy; try again")


class TagEntries:
    """One tag's entries, newest first, as far as one request may read them.

    stopped_at: the last job id that was looked at, once no more may be; None while there may be more, or when
    the tag's end was reached.
    """

    def __init__(self, client: "DynamoDBClient", query: dict[str, Any], at_most: int) -> None:
        self._client = client
        self._query = query
        self._left = at_most
        self._is_done = False
        self.stopped_at: str | None = None

    def next(self, count: int) -> list[str]:
        """Return some more job ids, `count` or so; none when there are no more, or no more may be read."""
        size = count
        while not self._is_done and self._left > 0:
            with answering("list jobs"):
                answer = self._client.query(**self._query, Limit=min(size, self._left))
            self._left -= answer["ScannedCount"]
            last = answer.get("LastEvaluatedKey")
            self._is_done = last is None
            if last is not None:
                self._query["ExclusiveStartKey"] = last
                self.stopped_at = last[TableKey.SORT]["S"] if self._left <= 0 else None
            if ids := [item[TableKey.SORT]["S"] for item in answer["Items"]]:
                return ids
            size *= 4
        return []
