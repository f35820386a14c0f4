"""On AWS: tells whoever listens of each change that the job table's stream brings."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scanfleet.events.changes import changed_jobs
from scanfleet.events.connections import Connections
from scanfleet.events.messages import JobMessage
from scanfleet.events.postbox import Postbox
from scanfleet.jobs import Job

SENDERS = 16
"""Connections that are written to side by side; each gets its messages in order."""


class Push:
    """From records to open connections."""

    def __init__(
        self, connections: Connections, postbox: Postbox, *, encode: Callable[[Job], JobMessage]
    ) -> None:
        self._connections = connections
        self._postbox = postbox
        self._encode = encode

    def __call__(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Tell of these changes, each job once, as it is last; return how many messages went out.

        Raises Unavailable when the table does not answer; telling a change twice is harmless.
        """
        listeners_of = self._connections.audience()
        letters: dict[str, list[JobMessage]] = defaultdict(list)
        for job in changed_jobs(records).values():
            listeners = listeners_of(job)
            if listeners:
                message = self._encode(job)
                for connection_id in listeners:
                    letters[connection_id].append(message)
        if not letters:
            return 0
        with ThreadPoolExecutor(max_workers=min(SENDERS, len(letters))) as threads:
            return sum(threads.map(self._postbox.send, letters.keys(), letters.values()))
