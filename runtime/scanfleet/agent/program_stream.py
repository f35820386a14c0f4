"""Shows a program's output in CloudWatch Logs, too: a stream for each job and attempt.

The log in the artifacts bucket is the whole one. This one is for those who search many jobs at once; it never
holds a job up, and a line that could not be written in time is missing here only.
"""

import logging
import re
import time
from collections.abc import Callable

from scanfleet.agent.output import ProgramLog
from scanfleet.log_groups import RETRY_SECONDS, LogStream

log = logging.getLogger(__name__)

BLOCK_BYTES = 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class ProgramStream:
    """Writes the whole lines that a program has printed since the last time."""

    def __init__(
        self, source: ProgramLog, stream: LogStream, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._stream = stream
        self._clock = clock
        self._offset = 0
        self._not_before = float("-inf")

    def ship(self) -> None:
        """Write what is new, unless the service failed a moment ago. Never raises."""
        if self._clock() < self._not_before:
            return
        try:
            while self._ship_block():
                continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not touch the job
            self._not_before = self._clock() + RETRY_SECONDS
            facts = {"action": "log_not_shown"}
            log.warning("program output is not in CloudWatch Logs: %r", error, extra=facts)

    def _ship_block(self) -> bool:
        self._source.flush()
        with self._source.path.open("rb") as file:
            file.seek(self._offset)
            block = file.read(BLOCK_BYTES)
        whole = block[: block.rfind(b"\n") + 1]
        if not whole:
            return False
        self._stream.put(map(shown, whole.split(b"\n")[:-1]))
        self._offset += len(whole)
        return len(block) == BLOCK_BYTES


def shown(line: bytes) -> str:
    """Return a line as text that steers no terminal: invalid UTF-8 and control characters are replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.decode("utf-8", errors="replace"))
