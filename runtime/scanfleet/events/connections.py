"""Who listens, on AWS: open WebSockets and what each has subscribed to, in the job table.

    a connection:  {"pk": "LIVE#CONNECTION#<id>", "sk": "CONNECTION", "holder", "is_operator", "topics": 2}
    its topics:    {"pk": "LIVE#CONNECTION#<id>", "sk": "TOPIC#<topic>"}
    a topic's:     {"pk": "LIVE#<topic>", "sk": "CONNECTION#<id>", "holder", "is_operator"}

<topic> is JOB#<job id>, OWNER#<owner> or OPERATORS. All have `expires_at`: what a lost disconnect leaves
behind goes by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scanfleet.callers import Caller
from scanfleet.contract import CONNECTIONS_KEPT, LIVE_PARTITIONS, TableKey
from scanfleet.dynamo import TransactionRefused, answering, transact
from scanfleet.events.tickets import caller_from, facts_of
from scanfleet.events.topics import MAX_TOPICS, Topic
from scanfleet.jobs import Job
from scanfleet.store_items import Key, attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPERATORS = "OPERATORS"
_OF_CONNECTION = "CONNECTION#"
_OF_TOPIC = "TOPIC#"
COUNTED_AT = 0
"""Where the connection's own record stands among the writes of a subscription."""


class Connections:
    """The open connections of one deployment."""

    def __init__(self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def open(self, connection_id: str, caller: Caller) -> None:
        """Note a new connection. Raises Unavailable."""
        item = {**_key(connection_id), **facts_of(caller), "topics": attribute(0), **self._expiry()}
        with answering("write connection"):
            self._client.put_item(TableName=self._table, Item=item)

    def holder(self, connection_id: str) -> Caller | None:
        """Return whose connection it is; None for one that is not known. Raises Unavailable."""
        with answering("read connection"):
            found = self._client.get_item(
                TableName=self._table, Key=_key(connection_id), ConsistentRead=True
            ).get("Item")
        return None if found is None else caller_from(found)

    def subscribe(self, connection_id: str, caller: Caller, topic: Topic) -> bool:
        """Let the connection hear of the topic; return False when it has too many, or is gone.

        Raises Unavailable.
        """
        name = _name(topic, caller)
        count = self._count(connection_id, 1, "attribute_exists(pk) AND topics < :limit")
        count["Update"]["ExpressionAttributeValues"][":limit"] = attribute(MAX_TOPICS)
        is_new = "attribute_not_exists(pk)"
        mine = {**_key(connection_id, f"{_OF_TOPIC}{name}"), **self._expiry()}
        theirs = {**_topic_key(name, connection_id), **facts_of(caller), **self._expiry()}
        writes = [
            count,
            {"Put": {"TableName": self._table, "Item": mine, "ConditionExpression": is_new}},
            {"Put": {"TableName": self._table, "Item": theirs}},
        ]
        try:
            transact(self._client, "subscribe", writes)
        except TransactionRefused as refused:
            # Only the second condition: it hears of this topic already.
            return COUNTED_AT not in refused.failed
        return True

    def unsubscribe(self, connection_id: str, caller: Caller, topic: Topic) -> None:
        """Let the connection hear of the topic no more. Raises Unavailable."""
        name = _name(topic, caller)
        key = _key(connection_id, f"{_OF_TOPIC}{name}")
        is_there = "attribute_exists(pk)"
        writes = [
            self._count(connection_id, -1, is_there),
            {"Delete": {"TableName": self._table, "Key": key, "ConditionExpression": is_there}},
            {"Delete": {"TableName": self._table, "Key": _topic_key(name, connection_id)}},
        ]
        try:
            transact(self._client, "unsubscribe", writes)
        except TransactionRefused:
            return  # it did not hear of it

    def close(self, connection_id: str) -> None:
        """Forget a connection and all that it heard of. Raises Unavailable; doing it twice is harmless."""
        with answering("forget connection"):
            for item in self._query(f"{_OF_CONNECTION}{connection_id}"):
                sort = item[TableKey.SORT]["S"]
                if sort.startswith(_OF_TOPIC):
                    name = sort.removeprefix(_OF_TOPIC)
                    self._client.delete_item(TableName=self._table, Key=_topic_key(name, connection_id))
                key: Key = {name: item[name] for name in (TableKey.PARTITION, TableKey.SORT)}
                self._client.delete_item(TableName=self._table, Key=key)

    def audience(self) -> Callable[[Job], frozenset[str]]:
        """Return what tells the connections that hear of a job; it reads each topic once.

        Take a new one for each batch of changes. The function raises Unavailable.
        """
        read: dict[str, tuple[tuple[str, Caller], ...]] = {}

        def listeners(name: str) -> tuple[tuple[str, Caller], ...]:
            if name not in read:
                with answering("read listeners"):
                    read[name] = tuple(self._listeners(name))
            return read[name]

        def of(job: Job) -> frozenset[str]:
            names = (f"JOB#{job.job_id}", f"OWNER#{job.owner}", OPERATORS)
            # Asked again here: nothing of a job may reach anybody else, whoever subscribed.
            return frozenset(
                one for name in names for one, caller in listeners(name) if caller.may_see(job.owner)
            )

        return of

    def _listeners(self, name: str) -> Iterator[tuple[str, Caller]]:
        now = self._clock()
        for item in self._query(name):
            if float(item[TableKey.EXPIRES_AT]["N"]) > now:
                yield item[TableKey.SORT]["S"].removeprefix(_OF_CONNECTION), caller_from(item)

    def _query(self, partition: str) -> Iterator[Mapping[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :partition",
            ExpressionAttributeValues={":partition": {"S": f"{LIVE_PARTITIONS}{partition}"}},
        )
        for page in pages:
            yield from page["Items"]

    def _count(self, connection_id: str, change: int, condition: str) -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(connection_id),
                "UpdateExpression": "SET topics = topics + :change",
                "ConditionExpression": condition,
                "ExpressionAttributeValues": {":change": attribute(change)},
            }
        }

    def _expiry(self) -> dict[str, Any]:
        return {TableKey.EXPIRES_AT: attribute(int(self._clock() + CONNECTIONS_KEPT.total_seconds()))}


def _name(topic: Topic, caller: Caller) -> str:
    if topic.job_id is not None:
        return f"JOB#{topic.job_id}"
    return OPERATORS if caller.is_operator else f"OWNER#{caller.owner}"


def _key(connection_id: str, sort: str = "CONNECTION") -> Key:
    partition = f"{LIVE_PARTITIONS}{_OF_CONNECTION}{connection_id}"
    return {TableKey.PARTITION: {"S": partition}, TableKey.SORT: {"S": sort}}


def _topic_key(name: str, connection_id: str) -> Key:
    sort = f"{_OF_CONNECTION}{connection_id}"
    return {TableKey.PARTITION: {"S": f"{LIVE_PARTITIONS}{name}"}, TableKey.SORT: {"S": sort}}
