"""Reads the job table's changes as they happen, on one machine: from the table's stream.

A stream is read by shards. A shard that has been closed gives no next iterator; what follows it is in its
children. Source: DynamoDB developer guide, "Change data capture for DynamoDB Streams".
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.dynamo import answering
from scanfleet.errors import Unavailable
from scanfleet.events.changes import changed_jobs
from scanfleet.events.index_feed import IndexFeed
from scanfleet.events.reading import Feed, Reading
from scanfleet.store import JobStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

RECORDS_A_CALL = 1000
"""The most that GetRecords gives."""
CALLS_A_READING = 20
"""Of a shard: what a burst left behind is read at once, and a stream that never ends still lets others in."""
FROM_NOW, FROM_START, AFTER = "LATEST", "TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER"
EXPIRED = "ExpiredIteratorException"


class StreamsClient(Protocol):
    """What is called of boto3's client of DynamoDB Streams."""

    def describe_stream(self, **arguments: Any) -> Mapping[str, Any]:
        """Return the stream's shards, a page of them."""
        ...

    def get_shard_iterator(self, **arguments: Any) -> Mapping[str, Any]:
        """Return where to read a shard from."""
        ...

    def get_records(self, **arguments: Any) -> Mapping[str, Any]:
        """Return records, and where to go on."""
        ...


def open_feed(client: "DynamoDBClient", streams: StreamsClient, store: JobStore, table: str) -> Feed:
    """Return a feed of the table's changes from its first reading on; by index where it has no stream.

    Raises Unavailable.
    """
    with answering("find the job table's stream"):
        stream = client.describe_table(TableName=table)["Table"].get("LatestStreamArn")
    if stream is None:
        log.warning("the job table has no stream; its index is read instead", extra={"action": "no_stream"})
        return IndexFeed(store)
    return StreamFeed(streams, stream)


@dataclass
class _Shard:
    iterator: str
    last: str | None = None
    """Sequence number of the last record read."""


class StreamFeed:
    """Follows every open shard of one stream, and their children after them."""

    def __init__(self, client: StreamsClient, stream: str) -> None:
        self._client = client
        self._stream = stream
        self._open: dict[str, _Shard] = {}
        self._known: set[str] = set()

    def read(self) -> Reading:
        """Return the visible changes since the last reading. See Feed."""
        with _answering():
            if not self._known:
                self._start()
                return Reading()
            records: list[Mapping[str, Any]] = []
            has_gap = False
            for shard_id, shard in list(self._open.items()):
                has_gap |= self._read_shard(shard_id, shard, records.append)
            return Reading(tuple(changed_jobs(records).values()), has_gap)

    def _start(self) -> None:
        """Stand at the end of every open shard."""
        shards = list(self._shards())
        for shard in shards:
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]:
                self._open[shard["ShardId"]] = _Shard(self._iterator(shard["ShardId"], FROM_NOW))
        self._known = {shard["ShardId"] for shard in shards}

    def _read_shard(self, shard_id: str, shard: _Shard, keep: Callable[[Mapping[str, Any]], None]) -> bool:
        """Hand the shard's new records on; return whether some were lost."""
        for _ in range(CALLS_A_READING):
            try:
                page = self._client.get_records(ShardIterator=shard.iterator, Limit=RECORDS_A_CALL)
            except ClientError as error:
                return self._found_again(shard_id, shard, error)
            for record in page["Records"]:
                keep(record)
                shard.last = record["dynamodb"]["SequenceNumber"]
            if page.get("NextShardIterator") is None:
                del self._open[shard_id]
                self._follow_children()
                return False
            shard.iterator = page["NextShardIterator"]
            if not page["Records"]:
                return False
        return False

    def _found_again(self, shard_id: str, shard: _Shard, error: ClientError) -> bool:
        """Take a new iterator after the last record; return whether what lay between may be lost."""
        code = error.response.get("Error", {}).get("Code", "")
        if code == EXPIRED and shard.last is not None:
            shard.iterator = self._iterator(shard_id, AFTER, shard.last)
            return False
        if code in (EXPIRED, "TrimmedDataAccessException"):
            shard.iterator = self._iterator(shard_id, FROM_NOW)
            return True
        raise error

    def _follow_children(self) -> None:
        """Read the shards that have come since, from their first record."""
        for shard in self._shards():
            if shard["ShardId"] not in self._known:
                self._open[shard["ShardId"]] = _Shard(self._iterator(shard["ShardId"], FROM_START))
                self._known.add(shard["ShardId"])

    def _shards(self) -> Iterator[Mapping[str, Any]]:
        start: dict[str, str] = {}
        while True:
            page = self._client.describe_stream(StreamArn=self._stream, **start)["StreamDescription"]
            yield from page["Shards"]
            if page.get("LastEvaluatedShardId") is None:
                return
            start = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}

    def _iterator(self, shard_id: str, kind: str, sequence_number: str | None = None) -> str:
        place = {} if sequence_number is None else {"SequenceNumber": sequence_number}
        found = self._client.get_shard_iterator(
            StreamArn=self._stream, ShardId=shard_id, ShardIteratorType=kind, **place
        )
        return str(found["ShardIterator"])


@contextmanager
def _answering() -> Iterator[None]:
    """Turn every failure of the stream into Unavailable."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise Unavailable(f"read the job table's stream: {error}") from error
