"""The Lambda function of live events: API Gateway calls it for WebSockets, the table's stream for changes.

Clients are built once for each process and kept.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from typing import Any

from scanfleet.api.estimates import Estimates
from scanfleet.clients import (
    build_connections_client,
    build_heartbeat_clients,
    build_log_levels_client,
)
from scanfleet.contract import Component
from scanfleet.events.connections import Connections
from scanfleet.events.conversation import Conversation
from scanfleet.events.messages import job_message
from scanfleet.events.postbox import Postbox
from scanfleet.events.push import Push
from scanfleet.events.tickets import Tickets
from scanfleet.history import RunHistory
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import configure_logging
from scanfleet.settings import EventsSettings, load
from scanfleet.store import JobStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the function is made of."""

    converse: Conversation
    push: Push
    look_at_levels: Callable[[], object]


def handler(event: Mapping[str, Any], _context: object) -> dict[str, int]:
    """Answer a WebSocket's event, or push a batch of the stream's records."""
    parts = _process()
    parts.look_at_levels()
    if "Records" not in event:
        return parts.converse(event)
    pushed = parts.push(event["Records"])
    facts = {"action": "events_pushed", "records": len(event["Records"]), "messages": pushed}
    log.log(logging.INFO if pushed else logging.DEBUG, "pushed", extra=facts)
    return {"messages": pushed}


@cache
def _process() -> Parts:
    settings = load(EventsSettings)
    verbosity = configure_logging(Component.EVENTS, settings.log_level, stage=settings.stage)
    levels = LevelKeeper(
        LogLevelRules(build_log_levels_client, settings.stage),
        verbosity,
        component=Component.EVENTS,
        look_every=timedelta(seconds=settings.log_level_look_seconds),
    )
    # Clients that give up soon: a change that is late is worth little, and the batch is tried again.
    table = build_heartbeat_clients().dynamodb
    client = build_connections_client(settings.connections_url)
    connections = Connections(table, settings.job_table, clock=time.time)
    encode = partial(job_message, estimate=Estimates(RunHistory(table, settings.job_table)))
    postbox = Postbox(client, connections)
    converse = Conversation(
        Tickets(table, settings.job_table, clock=time.time),
        connections,
        postbox,
        read=JobStore(table, settings.job_table).get,
        encode=encode,
    )
    return Parts(converse, Push(connections, postbox, encode=encode), levels.look_if_due)
