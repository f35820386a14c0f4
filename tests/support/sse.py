"""A reader of server-sent events, by the rules of WHATWG HTML."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event; `comments`: what came before it that clients drop."""

    kind: str
    data: Any
    event_id: str | None = None


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream's lines."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
