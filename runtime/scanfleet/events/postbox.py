"""Writes to open WebSockets of API Gateway, and finds out which are gone."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.events.connections import Connections
from scanfleet.events.messages import Message

log = logging.getLogger(__name__)

GONE = "GoneException"


class ManagementClient(Protocol):
    """What is called of boto3's client of API Gateway's management API."""

    def post_to_connection(self, **arguments: Any) -> Any:
        """Send a message."""
        ...

    def delete_connection(self, **arguments: Any) -> Any:
        """End a connection."""
        ...


class Postbox:
    """Sends messages to connections."""

    def __init__(self, client: ManagementClient, connections: Connections) -> None:
        self._client = client
        self._connections = connections

    def send(self, connection_id: str, messages: Sequence[Message]) -> int:
        """Send these in their order; return how many went out.

        A connection that is gone is forgotten. One that cannot be written to is ended: its client comes again
        and is told the present state, so that it never waits for a change that was lost. Raises Unavailable
        when the table does not answer.
        """
        for sent, message in enumerate(messages):
            try:
                self._client.post_to_connection(ConnectionId=connection_id, Data=message.as_frame.encode())
            except (ClientError, BotoCoreError) as error:
                if not _is_gone(error):
                    self._end(connection_id, error)
                self._connections.close(connection_id)
                return sent
        return len(messages)

    def _end(self, connection_id: str, error: Exception) -> None:
        facts = {"action": "push_failed", "connection_id": connection_id}
        log.warning("a connection cannot be written to: %s", error, extra=facts)
        try:
            self._client.delete_connection(ConnectionId=connection_id)
        except (ClientError, BotoCoreError) as refused:
            if not _is_gone(refused):
                log.warning("a connection cannot be ended: %s", refused, extra=facts)


def _is_gone(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == GONE
