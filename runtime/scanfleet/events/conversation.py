"""On AWS: what a WebSocket's client says, and the answers. The same words as `/ws` of one machine.

API Gateway calls with one event each for $connect, each message and $disconnect. Source: API Gateway
developer guide, "Set up a route response selection expression" and "Lambda integrations for WebSocket APIs".
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from scanfleet.callers import Caller
from scanfleet.errors import InvalidRequest, NotFound, ScanfleetError
from scanfleet.events.connections import Connections
from scanfleet.events.messages import PONG, JobMessage, Message, error_message, subscribed
from scanfleet.events.postbox import Postbox
from scanfleet.events.tickets import Tickets
from scanfleet.events.topics import MAX_TOPICS, Topic, Verb, parse_request
from scanfleet.jobs import Job

log = logging.getLogger(__name__)

CONNECT, DISCONNECT = "CONNECT", "DISCONNECT"
Answer = dict[str, int]


class Conversation:
    """Answers API Gateway's events."""

    def __init__(
        self,
        tickets: Tickets,
        connections: Connections,
        postbox: Postbox,
        *,
        read: Callable[[str], Job],
        encode: Callable[[Job], JobMessage],
    ) -> None:
        """`read` gives a job by its id and raises NotFound."""
        self._tickets = tickets
        self._connections = connections
        self._postbox = postbox
        self._read = read
        self._encode = encode

    def __call__(self, event: Mapping[str, Any]) -> Answer:
        """Return the status that API Gateway wants. Raises Unavailable: API Gateway then answers 500."""
        context = event["requestContext"]
        connection_id = str(context["connectionId"])
        match context["eventType"]:
            case "CONNECT":
                return self._connect(connection_id, event)
            case "DISCONNECT":
                self._connections.close(connection_id)
            case _:
                self._hear(connection_id, str(event.get("body") or ""))
        return {"statusCode": HTTPStatus.OK}

    def _connect(self, connection_id: str, event: Mapping[str, Any]) -> Answer:
        ticket = (event.get("queryStringParameters") or {}).get("ticket", "")
        caller = self._tickets.redeem(ticket) if ticket else None
        if caller is None:
            log.info("a WebSocket without a valid ticket", extra={"action": "websocket_refused"})
            return {"statusCode": HTTPStatus.FORBIDDEN}
        self._connections.open(connection_id, caller)
        log.info("websocket opened", extra={"action": "websocket_opened", "owner": caller.owner})
        return {"statusCode": HTTPStatus.OK}

    def _hear(self, connection_id: str, text: str) -> None:
        caller = self._connections.holder(connection_id)
        if caller is None:
            return  # it was ended meanwhile
        try:
            answers = self._answers(connection_id, caller, text)
        except ScanfleetError as error:
            answers = [error_message(str(error))]
        self._postbox.send(connection_id, answers)

    def _answers(self, connection_id: str, caller: Caller, text: str) -> list[Message]:
        verb, topic = parse_request(text)
        if verb is Verb.PING:
            return [PONG]
        if verb is Verb.UNSUBSCRIBE:
            self._connections.unsubscribe(connection_id, caller, topic)
            return []
        if topic.job_id is not None:
            self._visible(caller, topic.job_id)
        if not self._connections.subscribe(connection_id, caller, topic):
            allowed = f"{MAX_TOPICS} topics"
            raise InvalidRequest.of("message", "subscribes to too much", value=topic.shown, allowed=allowed)
        return self._present(caller, topic)

    def _present(self, caller: Caller, topic: Topic) -> list[Message]:
        """Return the present state of one job; that of all jobs is asked from the API."""
        if topic.job_id is None:
            return [subscribed(topic.shown, present=False)]
        # Read after subscribing: a change in between is told twice, never missed.
        now = self._encode(self._visible(caller, topic.job_id))
        return [now, subscribed(topic.shown, present=True)]

    def _visible(self, caller: Caller, job_id: str) -> Job:
        """Return the job. Raises NotFound, the same for a job of another owner as for one that never was."""
        job = self._read(job_id)
        if not caller.may_see(job.owner):
            raise NotFound(f"no job {job_id}")
        return job
