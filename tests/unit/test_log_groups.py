"""Lines that a process puts into CloudWatch Logs itself: programs' output, and jobs' events of the API."""

import io
import json
import logging
import threading
import time
from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from scanfleet.agent import log_shipping
from scanfleet.agent.log_shipping import LogShipper
from scanfleet.agent.output import ProgramLog
from scanfleet.agent.program_stream import ProgramStream, shown
from scanfleet.contract import Component, log_group_name, program_log_stream
from scanfleet.errors import Unavailable
from scanfleet.log_groups import (
    EVENT_OVERHEAD_BYTES,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    RETRY_SECONDS,
    JobEvents,
    LogStream,
    batches,
    send_job_events,
)
from scanfleet.log_setup import configure_logging

GROUP = log_group_name("dev", Component.PROCESSOR)
STREAM = program_log_stream("01J00000000000000000000000", 2)


# --- Batches -----------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=50),
    st.sampled_from(["x" * 300_000, "\N{PILE OF POO}" * 70_000, "\N{EURO SIGN}" * 90_000, "y" * 262_118]),
)


@given(st.lists(texts, max_size=12))
def test_batches_keep_the_limits_of_a_call_and_every_character(lines):
    made = list(batches(lines))

    for batch in made:
        assert 1 <= len(batch) <= MAX_BATCH_EVENTS
        sizes = [len(message.encode()) for message in batch]
        assert max(sizes) <= MAX_EVENT_BYTES
        assert sum(sizes) + EVENT_OVERHEAD_BYTES * len(batch) <= MAX_BATCH_BYTES
    assert "".join(message for batch in made for message in batch) == "".join(line or " " for line in lines)


def test_a_flood_of_short_lines_goes_in_batches_of_as_many_as_a_call_takes():
    assert [len(batch) for batch in batches(["x"] * (2 * MAX_BATCH_EVENTS + 1))] == [10_000, 10_000, 1]


# --- A stream ----------------------------------------------------------------------------------------------


@pytest.fixture
def logs():
    with mock_aws():
        client = boto3.client(
            "logs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        client.create_log_group(logGroupName=GROUP)
        yield client


def written(logs, stream=STREAM):
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)["events"]
    return [(event["timestamp"], event["message"]) for event in events]


@pytest.fixture
def now():
    """A moment that moto takes: near its own."""
    return [time.time()]


def test_lines_are_in_the_order_in_which_they_were_printed_although_the_clock_is_set_back(logs, now):
    stream = LogStream(logs, GROUP, STREAM, clock=lambda: now[0])
    first = int(now[0] * 1000)
    stream.put(["a", "b"])
    now[0] -= 60
    stream.put(["c"])

    assert written(logs) == [(first, "a"), (first, "b"), (first, "c")]


def test_a_stream_that_exists_goes_on(logs, now):
    for text in ("a", "b"):
        LogStream(logs, GROUP, STREAM, clock=lambda: now[0]).put([text])

    assert [message for _, message in written(logs)] == ["a", "b"]


def test_a_group_that_is_not_there_is_unavailable(logs):
    with pytest.raises(Unavailable, match="nowhere"):
        LogStream(logs, "nowhere", STREAM).put(["a"])


# --- Programs' output --------------------------------------------------------------------------------------


@pytest.fixture
def program_log(tmp_path):
    log = ProgramLog(tmp_path / "program.log")
    yield log
    log.close()


class Stream:
    def __init__(self, *failures):
        self.lines = []
        self.failures = list(failures)
        self.calls = 0

    def put(self, lines):
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.lines += lines


def test_what_would_steer_a_terminal_or_is_no_utf8_is_shown_as_such():
    assert (
        shown(b"\x1b[2J\ttab \xff\xfe caf\xc3\xa9 \x07\x9b")
        == "\ufffd[2J\ttab \ufffd\ufffd café \ufffd\ufffd"
    )
    assert shown("\x85\N{RIGHT-TO-LEFT OVERRIDE}".encode()) == "\ufffd\N{RIGHT-TO-LEFT OVERRIDE}"


def test_each_line_is_shown_once_and_a_line_that_has_not_ended_later(program_log):
    stream = Stream()
    ships = ProgramStream(program_log, stream)
    program_log.write(b"one")
    ships.ship()
    program_log.write(b"")
    program_log.write(b"three")
    ships.ship()
    ships.ship()

    assert stream.lines == ["one", "", "three"]


@pytest.mark.parametrize("failure", [Unavailable("away"), RuntimeError("?"), OSError("gone")])
def test_a_service_that_failed_is_left_alone_for_a_while_and_gets_every_line_then(
    program_log, caplog, failure
):
    now = [0.0]
    stream = Stream(failure)
    ships = ProgramStream(program_log, stream, clock=lambda: now[0])
    program_log.write(b"one")
    for _ in range(5):
        ships.ship()
    assert (stream.calls, [record.action for record in caplog.records]) == (1, ["log_not_shown"])

    now[0] += RETRY_SECONDS
    ships.ship()
    assert stream.lines == ["one"]


class Shelf:
    def __init__(self):
        self.stored = []

    def put_bytes(self, uri, data, *, content_type=None):
        self.stored.append(data)


def test_an_attempt_waits_a_moment_for_its_log_to_be_shown_and_no_longer(program_log, monkeypatch):
    monkeypatch.setattr(log_shipping, "SHOWN_WITHIN", timedelta(seconds=0.1))
    answer = threading.Event()
    shelf = Shelf()
    ships = LogShipper(
        shelf, bucket="b", job_id="j", attempt=1, source=program_log, also=lambda: answer.wait(60) and None
    )
    ships.start()
    program_log.write(b"done")
    stopping = threading.Thread(target=ships.stop, daemon=True)
    stopping.start()
    stopping.join(30)
    answer.set()

    assert not stopping.is_alive()
    assert shelf.stored == [b"done\n"]


# --- Jobs' events of the API -------------------------------------------------------------------------------


def record(action):
    logging.getLogger("scanfleet.x").info("it happened", extra={"action": action})


def test_the_apis_jobs_events_are_apart_and_only_there(logs):
    console = io.StringIO()
    verbosity = configure_logging(Component.API, "INFO", stage="dev", stream=console)
    send_job_events(LogStream(logs, GROUP, "api-1"), stage="dev", verbosity=verbosity)
    record("job_state_changed")
    record("http_request")

    (event,) = [json.loads(message) for _, message in written(logs, "api-1")]
    (line,) = [json.loads(text) for text in console.getvalue().splitlines()]
    assert (event["component"], event["action"]) == ("jobs", "job_state_changed")
    assert (line["component"], line["action"]) == ("api", "http_request")


def test_an_event_that_cannot_be_put_apart_is_among_the_other_lines():
    class Away:
        def create_log_stream(self, **_):
            raise EndpointConnectionError(endpoint_url="https://logs.example")

        class exceptions:  # noqa: N801 - as boto3 spells it
            class ResourceAlreadyExistsException(Exception):
                pass

    console = io.StringIO()
    verbosity = configure_logging(Component.API, "INFO", stage="dev", stream=console)
    send_job_events(LogStream(Away(), GROUP, "api-1"), stage="dev", verbosity=verbosity)
    record("job_state_changed")

    lines = [json.loads(text) for text in console.getvalue().splitlines()]
    assert [line["action"] for line in lines] == ["job_state_changed", "job_event_not_apart"]


@pytest.mark.parametrize("failure", [Unavailable("away"), RuntimeError("?")])
def test_a_log_group_that_failed_is_left_alone_for_a_while_and_holds_no_request_up(failure):
    now = [0.0]
    console = io.StringIO()
    otherwise = logging.StreamHandler(console)
    stream = Stream(failure)
    handler = JobEvents(stream, otherwise=otherwise, clock=lambda: now[0])
    for number in range(3):
        handler.handle(
            logging.makeLogRecord({"msg": f"event {number}", "action": "job_finished", "levelno": 20})
        )
    assert stream.calls == 1
    assert console.getvalue().split("\n") == ["event 0", "event 1", "event 2", ""]

    now[0] += RETRY_SECONDS
    handler.handle(logging.makeLogRecord({"msg": "event 3", "action": "job_finished", "levelno": 20}))
    assert stream.lines == ["event 3"]
