"""Lines for CloudWatch Logs, put there by this process itself: what no log file and no console brings there.

Source of the limits: CloudWatch Logs API reference, PutLogEvents.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.contract import Component
from scanfleet.errors import Unavailable
from scanfleet.log_setup import JsonFormatter, Verbosity, is_of_jobs

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import InputLogEventTypeDef

log = logging.getLogger(__name__)

EVENT_OVERHEAD_BYTES = 26
"""What each event counts besides its text."""
MAX_EVENT_BYTES = 256 * 1024 - EVENT_OVERHEAD_BYTES
MAX_BATCH_BYTES = 1024 * 1024
MAX_BATCH_EVENTS = 10_000
RETRY_SECONDS = 30.0
"""A service that failed is not asked for this long: each question may take seconds."""


class LogStream:
    """One stream of a log group, created with its first line. clock: epoch seconds."""

    def __init__(
        self,
        client: "CloudWatchLogsClient",
        group: str,
        stream: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._group, self._stream = group, stream
        self._clock = clock
        self._exists = False
        self._latest_ms = 0

    def put(self, lines: Iterable[str]) -> None:
        """Write the lines, all of this moment, in as many calls as it takes. Raises Unavailable."""
        # Never before what was written earlier: a clock may be set back, and the order must stay.
        self._latest_ms = max(self._latest_ms, int(self._clock() * 1000))
        try:
            self._create()
            for batch in batches(lines):
                events: list[InputLogEventTypeDef] = [
                    {"timestamp": self._latest_ms, "message": message} for message in batch
                ]
                answer = self._client.put_log_events(
                    logGroupName=self._group, logStreamName=self._stream, logEvents=events
                )
                if refused := answer.get("rejectedLogEventsInfo"):  # this machine's clock is far off
                    facts = {"action": "log_events_refused", "stream": self._stream, "why": dict(refused)}
                    log.warning("log events were refused", extra=facts)
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"{self._group} cannot be written: {error}") from error

    def _create(self) -> None:
        if not self._exists:
            try:
                self._client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
            except self._client.exceptions.ResourceAlreadyExistsException:
                log.debug("the stream goes on", extra={"action": "log_stream_found", "stream": self._stream})
            self._exists = True


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """Return the lines in order in batches that one call takes: long ones in pieces, empty ones as blanks."""
    batch: list[str] = []
    size = 0
    for message in (piece for line in lines for piece in _pieces(line)):
        event = len(message.encode()) + EVENT_OVERHEAD_BYTES
        if size + event > MAX_BATCH_BYTES or len(batch) == MAX_BATCH_EVENTS:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += event
    if batch:
        yield batch


def _pieces(line: str) -> Iterator[str]:
    if len(line) * 4 <= MAX_EVENT_BYTES or len(line.encode()) <= MAX_EVENT_BYTES:
        yield line or " "  # an event without text is refused
        return
    step = MAX_EVENT_BYTES // 4  # no character takes more bytes
    yield from (line[start : start + step] for start in range(0, len(line), step))


class JobEvents(logging.Handler):
    """Puts changes of jobs' states into their own log group, and elsewhere while that fails.

    clock: seconds. A service that failed is left alone for a while: each try would hold a request up.
    """

    def __init__(
        self,
        stream: LogStream,
        *,
        otherwise: logging.Handler,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._stream = stream
        self._otherwise = otherwise
        self._clock = clock
        self._not_before = float("-inf")
        self.addFilter(is_of_jobs)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, at once: the process may be frozen after the answer that it belongs to."""
        if self._clock() < self._not_before:
            self._otherwise.emit(record)
            return
        try:
            self._stream.put([self.format(record)])
        except Exception as error:  # noqa: BLE001 - whatever it is, the job is not to suffer from it
            self._not_before = self._clock() + RETRY_SECONDS
            self._otherwise.emit(record)
            log.warning("jobs' events are here: %r", error, extra={"action": "job_event_not_apart"})


def send_job_events(stream: LogStream, *, stage: str, verbosity: Verbosity) -> None:
    """From now on write events of jobs to the stream, and no longer to this process's own log."""
    root = logging.getLogger()
    console = root.handlers[-1]
    handler = JobEvents(stream, otherwise=console)
    handler.setFormatter(JsonFormatter(Component.JOBS, stage=stage))
    handler.addFilter(verbosity)
    console.addFilter(lambda record: not is_of_jobs(record))
    root.addHandler(handler)
