"""What a listener is told, written once for all: as a server-sent event and as a WebSocket's frame.

    type         as a server-sent event        as a frame
    job          data: JobSummary              {"type": "job", "job": JobSummary}
    subscribed   data: {"to", "present"}       {"type": "subscribed", "to", "present"}
    end          data: {"job_id"}              -
    pong         -                             {"type": "pong"}
    error        -                             {"type": "error", "detail"}

Source for server-sent events: WHATWG HTML, "Server-sent events".
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scanfleet.api.schemas import Estimate, summary
from scanfleet.jobs import Job

RETRY_MILLISECONDS = 1000
OPENING = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
HEARTBEAT = b": heartbeat\n\n"
"""A comment, which clients drop: it keeps the connection, and shows a server that its client is gone."""


@dataclass(frozen=True)
class Message:
    """One message. `key`: a later message of the same key takes its place while it waits."""

    key: str
    kind: str
    body: dict[str, Any]
    event_id: str | None = None

    @cached_property
    def as_frame(self) -> str:
        """Return the text of a WebSocket's frame."""
        return _json({"type": self.kind, **self.body})

    @cached_property
    def as_event(self) -> bytes:
        """Return the server-sent event."""
        return _event(self.kind, _json(self.body), self.event_id)


@dataclass(frozen=True)
class JobMessage(Message):
    """How a job is now."""

    is_end: bool = False
    text: str = ""
    """The JobSummary as JSON."""

    @cached_property
    def as_frame(self) -> str:
        """Return the text of a WebSocket's frame."""
        return f'{{"type":"job","job":{self.text}}}'

    @cached_property
    def as_event(self) -> bytes:
        """Return the server-sent event."""
        return _event(self.kind, self.text, self.event_id)


def job_message(job: Job, estimate: Estimate | None = None) -> JobMessage:
    """Return what tells how the job is, as lists show it. estimate: None where nobody predicts."""
    shown = summary(job, estimate)
    is_end = shown.status.is_terminal
    return JobMessage(shown.job_id, "job", {}, is_end=is_end, text=shown.model_dump_json())


def ended(job_id: str) -> Message:
    """Return what closes the stream of one job: nothing follows."""
    return Message(f"end {job_id}", "end", {"job_id": job_id}, event_id=END_ID)


END_ID = "end"
"""The last event's id, which a browser sends back when it comes again although all was said."""


def subscribed(topic: dict[str, Any], *, present: bool) -> Message:
    """Return that changes come from now on. present: the present state was told; else ask for it."""
    return Message(f"subscribed {_json(topic)}", "subscribed", {"to": topic, "present": present})


def error_message(detail: str) -> Message:
    """Return what was wrong with the listener's message."""
    return Message(f"error {detail}", "error", {"detail": detail})


PONG = Message("pong", "pong", {})


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


def _event(kind: str, data: str, event_id: str | None) -> bytes:
    # JSON has its line breaks escaped, so the data is one line.
    lines = [f"event: {kind}", *([f"id: {event_id}"] if event_id else []), f"data: {data}"]
    return ("\n".join(lines) + "\n\n").encode()
