"""What a listener may ask for, and how a WebSocket's client asks: see `ALLOWED`."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scanfleet.errors import InvalidRequest
from scanfleet.jobs import is_job_id

MAX_REQUEST_CHARACTERS = 4096
MAX_TOPICS = 100
"""Of one connection; who watches more jobs watches them all."""
ALLOWED = '{"subscribe": {"job": "<id>"}} or {"subscribe": {"jobs": true}}, "unsubscribe", or {"ping": true}'


@dataclass(frozen=True)
class Topic:
    """One job; or, without an id, every job that the listener may see."""

    job_id: str | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """Return the topic as messages spell it."""
        return {"jobs": True} if self.job_id is None else {"job": self.job_id}


ALL_JOBS = Topic()


class Verb(StrEnum):
    """What is asked."""

    SUBSCRIBE = "subscribe"
    """Tell the present state, then every change."""
    UNSUBSCRIBE = "unsubscribe"
    """Tell no more of it."""
    PING = "ping"
    """Answer: browsers cannot send pings of the protocol's own."""


def parse_request(text: str | bytes) -> tuple[Verb, Topic]:
    """Return what a client's message asks. Raises InvalidRequest."""
    if len(text) > MAX_REQUEST_CHARACTERS:
        raise _not_understood(f"{len(text)} characters", f"at most {MAX_REQUEST_CHARACTERS} characters")
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_understood(text, ALLOWED) from error
    match request:
        case {"ping": True, **rest} if not rest:
            return Verb.PING, ALL_JOBS
        case {"subscribe": wanted, **rest} if not rest:
            return Verb.SUBSCRIBE, _topic(wanted)
        case {"unsubscribe": wanted, **rest} if not rest:
            return Verb.UNSUBSCRIBE, _topic(wanted)
    raise _not_understood(text, ALLOWED)


def _topic(wanted: object) -> Topic:
    match wanted:
        case {"jobs": True, **rest} if not rest:
            return ALL_JOBS
        case {"job": str(job_id), **rest} if not rest and is_job_id(job_id):
            return Topic(job_id)
    raise _not_understood(json.dumps(wanted), ALLOWED)


def _not_understood(got: object, allowed: str) -> InvalidRequest:
    return InvalidRequest.of("message", "is not understood", value=got, allowed=allowed)
