"""Tickets: what opens one WebSocket on AWS, in the name of whoever asked for it.

A browser cannot sign a WebSocket's opening, nor send a token with it; so the API, which knows its caller,
writes a ticket that the address carries. It works once and for a minute, and the table holds its digest only.

    {"pk": "LIVE#TICKET#<SHA-256>", "sk": "TICKET", "holder", "is_operator": 0 or 1, "expires_at"}
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from scanfleet.callers import Caller
from scanfleet.contract import LIVE_PARTITIONS, TICKET_VALID, TableKey
from scanfleet.dynamo import answering
from scanfleet.store_items import Key, attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TICKET_BYTES = 32


class Tickets:
    """Gives tickets out and takes them in."""

    def __init__(self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def issue(self, caller: Caller) -> str:
        """Return a new ticket of this caller. Raises Unavailable."""
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        expires = int(self._clock() + TICKET_VALID.total_seconds())
        item = {**_key(ticket), **facts_of(caller), TableKey.EXPIRES_AT: attribute(expires)}
        with answering("write ticket"):
            self._client.put_item(TableName=self._table, Item=item)
        return ticket

    def redeem(self, ticket: str) -> Caller | None:
        """Return whose ticket it was; None for one that is unknown, used or too old. Raises Unavailable."""
        try:
            with answering("take ticket"):
                taken = self._client.delete_item(
                    TableName=self._table,
                    Key=_key(ticket),
                    ConditionExpression="attribute_exists(pk) AND expires_at > :now",
                    ExpressionAttributeValues={":now": attribute(int(self._clock()))},
                    ReturnValues="ALL_OLD",
                )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return caller_from(taken["Attributes"])


def facts_of(caller: Caller) -> dict[str, Any]:
    """Return the attributes that keep a caller. Not called owner: they must stay out of the index."""
    return {"holder": attribute(caller.owner), "is_operator": attribute(int(caller.is_operator))}


def caller_from(item: Mapping[str, Any]) -> Caller:
    """Return the caller that an item keeps."""
    return Caller(owner=item["holder"]["S"], is_operator=item["is_operator"]["N"] == "1")


def _key(ticket: str) -> Key:
    digest = hashlib.sha256(ticket.encode()).hexdigest()
    return {TableKey.PARTITION: {"S": f"{LIVE_PARTITIONS}TICKET#{digest}"}, TableKey.SORT: {"S": "TICKET"}}
