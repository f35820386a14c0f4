"""What logging costs: lines of an attempt as JSON with all their facts, and a program's output on its way.

Per 10,000 lines: CPU seconds of this process, and bytes. Peers: `logging` with its plain text formatter, and
with the structured messages of Python's Logging Cookbook ("Implementing structured logging"), which put the
same facts into each call. Calls of AWS are made in full (serialized, signed), but answered before they reach
a socket.
"""

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from benchmarks.harness import Cost, Row, interleaved, timed
from scanfleet import log_context
from scanfleet.agent.log_shipping import LogShipper
from scanfleet.agent.output import ProgramLog
from scanfleet.agent.program_stream import ProgramStream
from scanfleet.contract import Component
from scanfleet.log_groups import LogStream
from scanfleet.log_setup import JsonFormatter, Verbosity
from scanfleet.objects import ObjectStore

LINES = 10_000
RUNS = 5
MOST_OF_PLAIN = 2.5
"""A line of ours holds about six times the bytes of a plain one."""
MOST_OF_STRUCTURED = 1.5
MOST_OF_A_FILE = 1.5
"""An output line that goes to two services may cost little more than a log line on the disk."""
FACTS: dict[str, Any] = {
    "job_id": "01J9ZK3V8M3Y6T2B5D7F9H1K3N",
    "attempt": 1,
    "owner": "arn:aws:iam::123456789012:role/scanners",
    "agent_id": "i-0123456789abcdef0",
    "instance_id": "i-0123456789abcdef0",
    "release": "7.2.1",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}
OUTPUT_LINE = b"scanfleet_progress: 42.5  aligned 123456 points of scan_000017.ply in 0.318 s"
KEYS: dict[str, Any] = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "eu-west-1"}


def log_rows() -> list[Row]:
    """Return the rows; benchmarks.events has them among its own."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_rows_of_lines(Path(folder)),
            *_rows_of_held_back(Path(folder)),
            *_rows_of_output(Path(folder)),
        ]


# --- The agent's own lines ---------------------------------------------------------------------------------


class _Structured:
    """A message that carries its facts, as the cookbook's."""

    def __init__(self, message: str, **facts: object) -> None:
        self._message, self._facts = message, facts

    def __str__(self) -> str:
        return f"{self._message} >>> {json.dumps(self._facts)}"


def _rows_of_lines(folder: Path) -> list[Row]:
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    ours, text, structured = folder / "ours", folder / "plain", folder / "structured"

    def say_ours(log: logging.Logger) -> None:
        with log_context.bound(**FACTS):
            for number in range(LINES):
                log.info("program looked at", extra={"action": "program_seen", "at": number})

    def say_plain(log: logging.Logger) -> None:
        for number in range(LINES):
            log.info("program looked at: %s", number)

    def say_structured(log: logging.Logger) -> None:
        for number in range(LINES):
            log.info(_Structured("program looked at", action="program_seen", at=number, **FACTS))

    found = interleaved(
        {
            "ours": lambda: _logged(
                ours, JsonFormatter(Component.AGENT, stage="prod"), say_ours, verbosity=True
            ),
            "plain": lambda: _logged(text, plain, say_plain),
            "structured": lambda: _logged(structured, plain, say_structured),
        },
        runs=RUNS,
    )
    cpu = found["ours"].cpu_seconds
    what = "CPU of 10,000 lines of an attempt, with all their facts"
    return [
        Row.against(
            what,
            cpu,
            "s",
            peer="logging, plain text, no facts",
            peer_value=found["plain"].cpu_seconds,
            at_most=MOST_OF_PLAIN,
        ),
        Row.against(
            what,
            cpu,
            "s",
            peer="Logging Cookbook's structured messages",
            peer_value=found["structured"].cpu_seconds,
            at_most=MOST_OF_STRUCTURED,
        ),
        Row.against(
            "bytes of a line",
            ours.stat().st_size / LINES,
            "B",
            peer="Logging Cookbook's structured messages",
            peer_value=structured.stat().st_size / LINES,
        ),
    ]


def _rows_of_held_back(folder: Path) -> list[Row]:
    """DEBUG lines of one job while another one is verbose: what a rule of log levels costs everybody else."""

    def say(log: logging.Logger) -> None:
        with log_context.bound(**FACTS):
            for number in range(LINES):
                log.debug("program looked at", extra={"action": "program_seen", "at": number})

    formatter = JsonFormatter(Component.AGENT, stage="prod")
    found = interleaved(
        {
            "held": lambda: _logged(
                folder / "held", formatter, say, verbosity=True, jobs={"01J00000000000000000000000": "DEBUG"}
            ),
            "off": lambda: _logged(folder / "off", formatter, say, verbosity=True),
        },
        runs=RUNS,
    )
    return [
        Row.fact("CPU of 10,000 DEBUG lines while no level is set", found["off"].cpu_seconds, "s"),
        Row.fact("the same while another job is at DEBUG: none is written", found["held"].cpu_seconds, "s"),
    ]


def _logged(
    path: Path,
    formatter: logging.Formatter,
    say: Callable[[logging.Logger], None],
    *,
    verbosity: bool = False,
    jobs: dict[str, str] | None = None,
) -> Cost:
    log = logging.getLogger("benchmarked")
    log.propagate = False
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(formatter)
    log.addHandler(handler)
    if verbosity:
        levels = Verbosity("INFO", loggers=("benchmarked",))
        levels.set(None, jobs or {})
        handler.addFilter(levels)
    try:
        return timed(lambda: say(log))
    finally:
        log.removeHandler(handler)
        handler.close()


# --- A program's output ------------------------------------------------------------------------------------


class _Sent:
    """Answers every call of a client at once, and counts what would have been sent."""

    def __init__(self, client: Any) -> None:
        self.bytes = 0
        client.meta.events.register("before-send", self._answer)

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        body = request.body or b""
        self.bytes += len(body) if isinstance(body, bytes | bytearray | str) else len(body.read())
        return _Answer(request.url, 200, HTTPHeaders(), None)


class _Answer(AWSResponse):
    @property
    def content(self) -> bytes:
        return b""


def _rows_of_output(folder: Path) -> list[Row]:
    s3, logs = boto3.client("s3", **KEYS), boto3.client("logs", **KEYS)
    to_bucket, to_logs = _Sent(s3), _Sent(logs)
    counts = {"both": 0}

    def ship(*, shown: bool) -> None:
        source = ProgramLog(folder / "program.log")
        for _ in range(LINES):
            source.write(OUTPUT_LINE)
        stream = ProgramStream(source, LogStream(logs, "/scanfleet/prod/processor", "job/1"))
        ships = LogShipper(ObjectStore(s3), bucket="artifacts", job_id="job", attempt=1, source=source)
        ships.ship()
        if shown:
            counts["both"] += 1
            stream.ship()
        source.close()

    def say(log: logging.Logger) -> None:
        text = OUTPUT_LINE.decode()
        for _ in range(LINES):
            log.info(text)

    plain = logging.Formatter("%(message)s")
    found = interleaved(
        {
            "bucket": lambda: timed(lambda: ship(shown=False)),
            "both": lambda: timed(lambda: ship(shown=True)),
            "plain": lambda: _logged(folder / "text", plain, say),
        },
        runs=RUNS,
    )
    sent = to_logs.bytes / counts["both"] if counts["both"] else 0.0
    kept, both = found["bucket"].cpu_seconds, found["both"].cpu_seconds
    return [
        Row.fact("CPU of 10,000 output lines, kept and stored in the bucket", kept, "s"),
        Row.against(
            "CPU of 10,000 output lines, kept, stored, and shown in CloudWatch Logs",
            both,
            "s",
            peer="the same lines through logging into a file, plain text",
            peer_value=found["plain"].cpu_seconds,
            at_most=MOST_OF_A_FILE,
        ),
        Row.fact("bytes of an output line in the bucket", to_bucket.bytes / (2 * RUNS * LINES), "B"),
        Row.fact("bytes sent of an output line to CloudWatch Logs", sent / LINES, "B"),
    ]
