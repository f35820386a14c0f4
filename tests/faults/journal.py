"""What passed the proxies: every write of a job's state, every touch of an object, with time and doer.

An answer that a fault swallowed was still carried out, so the journal is the truth that logs cannot be.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.http1 import Call, Message

JOB_PREFIX = "JOB#"


@dataclass(frozen=True)
class StateWrite:
    """One change of a job's state that the table accepted. at: monotonic seconds; changed_at: as written."""

    at: float
    who: str
    job_id: str
    state: str
    attempt: int | None
    changed_at: str
    is_retry: bool
    was_leased: bool = False
    """Whether the write was conditional on holding the lease."""


@dataclass(frozen=True)
class ObjectTouch:
    """One S3 request that was carried out. began and ended: monotonic seconds."""

    began: float
    ended: float
    who: str
    method: str
    bucket: str
    key: str
    copy_source: str
    query: tuple[str, ...]
    status: int


class Journal:
    """Collects. Written by the proxies' loop, read by anybody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, list[StateWrite]] = defaultdict(list)
        self._seen: set[tuple[str, str, str]] = set()
        self._touches: list[ObjectTouch] = []
        self._fleet_calls: dict[str, int] = defaultdict(int)
        self._on_state: list[Callable[[StateWrite], None]] = []
        self._on_touch: list[Callable[[ObjectTouch], None]] = []
        self.on_fleet_call: Callable[[str, str], None] = lambda who, action: None
        """Called, on the proxies' loop, for each call of Auto Scaling: by whom, and which."""

    def listen(self, on_state: Callable[[StateWrite], None], on_touch: Callable[[ObjectTouch], None]) -> None:
        """Call back, on the proxies' loop, for each change of state and each touch of an object."""
        self._on_state.append(on_state)
        self._on_touch.append(on_touch)

    def record(self, who: str, call: Call, request: Message, answer: Message, began: float) -> None:
        """Take down an executed request."""
        if call.service == "s3":
            self._record_object(who, call, answer.status, began)
        elif call.service == "autoscaling":
            with self._lock:
                self._fleet_calls[call.action] += 1
            self.on_fleet_call(who, call.action)
        elif call.service == "dynamodb" and answer.status == 200:
            self._record_writes(who, call, request)

    def _record_object(self, who: str, call: Call, status: int, began: float) -> None:
        touch = ObjectTouch(
            began=began,
            ended=time.monotonic(),
            who=who,
            method=call.action,
            bucket=call.bucket,
            key=call.key,
            copy_source=call.copy_source,
            query=tuple(f"{name}={values[0]}" for name, values in call.query.items()),
            status=status,
        )
        with self._lock:
            self._touches.append(touch)
        for listener in self._on_touch:
            listener(touch)

    def _record_writes(self, who: str, call: Call, request: Message) -> None:
        if call.action not in {"UpdateItem", "TransactWriteItems"}:
            return
        content = json.loads(request.body)
        updates = (
            [content]
            if call.action == "UpdateItem"
            else [item["Update"] for item in content["TransactItems"] if "Update" in item]
        )
        for update in updates:
            self._record_update(who, update)

    def _record_update(self, who: str, update: dict[str, Any]) -> None:
        key = next(iter(update["Key"].values()), {}).get("S", "")
        values = update.get("ExpressionAttributeValues", {})
        if not key.startswith(JOB_PREFIX) or ":state" not in values:
            return
        attempt = values.get(":attempt") or values.get(":fence") or values.get(":seen_attempt")
        write = StateWrite(
            at=time.monotonic(),
            who=who,
            job_id=key.removeprefix(JOB_PREFIX),
            state=values[":state"]["S"],
            attempt=int(float(attempt["N"])) if attempt else None,
            changed_at=next(iter(values.get(":state_changed_at", {"N": ""}).values())),
            is_retry=":failures_forgiven" in values,
            was_leased=":fence" in values,
        )
        identity = (write.job_id, write.state, write.changed_at)
        with self._lock:
            if identity in self._seen:
                return
            self._seen.add(identity)
            self._states[write.job_id].append(write)
        for listener in self._on_state:
            listener(write)

    def states(self, job_id: str) -> list[StateWrite]:
        """Return a job's changes of state, in the order in which they were seen."""
        with self._lock:
            return list(self._states[job_id])

    def touches(self) -> list[ObjectTouch]:
        """Return every touch of an object."""
        with self._lock:
            return list(self._touches)

    def fleet_calls(self) -> dict[str, int]:
        """Return how often Auto Scaling was called, by action."""
        with self._lock:
            return dict(self._fleet_calls)
