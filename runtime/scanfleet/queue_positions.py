"""How many jobs are before a waiting one: counted among the oldest unfinished jobs, which the index knows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from scanfleet.contract import INDEX_PARTITION_KEYS, Priority, TableIndex, TableKey
from scanfleet.dynamo import answering
from scanfleet.jobs import Job, JobState
from scanfleet.store_items import ACTIVE, attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

EXAMINED = 1000
"""Unfinished jobs that are looked at, the oldest ones: whoever is behind them has no number yet."""
REREAD = timedelta(seconds=3)
"""What was read counts so long, whoever asks."""


@dataclass(frozen=True)
class _Waiting:
    job_id: str
    pool: str
    is_urgent: bool
    queued_at: float


@dataclass(frozen=True)
class _Oldest:
    """at: when it was read. is_all: nobody else waits."""

    at: float
    waiting: tuple[_Waiting, ...]
    is_all: bool


class QueuePositions:
    """Counts waiting jobs. SQS does not keep an exact order, so this is about how many go first."""

    def __init__(
        self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._read = _Oldest(float("-inf"), (), is_all=True)

    def of(self, job: Job) -> int | None:
        """Return how many waiting jobs go before this one; None if it is not among those that are counted.

        In its pool those of high priority go before those of normal, each in the order of entering the queue.
        Raises Unavailable.
        """
        oldest = self._oldest()
        mine = next((one for one in oldest.waiting if one.job_id == job.job_id), None)
        if mine is None and oldest.is_all:  # it has come since then
            mine = _Waiting(job.job_id, job.pool, job.priority is Priority.HIGH, job.queued_at)
        if mine is None:
            return None
        return sum(_goes_before(one, mine) for one in oldest.waiting if one.pool == mine.pool)

    def _oldest(self) -> "_Oldest":
        if abs(self._clock() - self._read.at) >= REREAD.total_seconds():
            self._read = self._query()
        return self._read

    def _query(self) -> "_Oldest":
        """Return the waiting ones of the oldest unfinished jobs, by one call: a megabyte at most."""
        with answering("read the queue"):
            found = self._client.query(
                TableName=self._table,
                IndexName=TableIndex.ACTIVE,
                KeyConditionExpression="#partition = :partition",
                FilterExpression="#state = :queued",
                ProjectionExpression="job_id, #pool, #priority, queued_at",
                ExpressionAttributeNames={
                    "#partition": INDEX_PARTITION_KEYS[TableIndex.ACTIVE],
                    "#state": TableKey.STATE,
                    "#pool": "pool",
                    "#priority": "priority",
                },
                ExpressionAttributeValues={
                    ":partition": attribute(ACTIVE),
                    ":queued": attribute(JobState.QUEUED),
                },
                Limit=EXAMINED,
            )
        waiting = tuple(
            _Waiting(
                item["job_id"]["S"],
                item["pool"]["S"],
                item["priority"]["S"] == Priority.HIGH,
                float(item["queued_at"]["N"]),
            )
            for item in found["Items"]
        )
        return _Oldest(self._clock(), waiting, is_all="LastEvaluatedKey" not in found)


def _goes_before(one: _Waiting, other: _Waiting) -> bool:
    if one.is_urgent != other.is_urgent:
        return one.is_urgent
    return (one.queued_at, one.job_id) < (other.queued_at, other.job_id)
