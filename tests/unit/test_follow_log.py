"""Following a job's log: each line once, across attempts and outages, until the job has ended."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scanfleet import cli, contract
from scanfleet.client import Clock, JobHandle, Scanfleet
from scanfleet.client_log import LogLine
from scanfleet.errors import NotFound, Unavailable
from scanfleet.jobs import FailureClass, ResultSummary, new_job_id
from scanfleet.log_context import is_trace_id
from tests.support.api import ARTIFACTS, running_api


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


class Play(Clock):
    """Each sleep of the client lets the next step happen; after the last one nobody may sleep again."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.seconds = 0.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        assert self.steps, "it sleeps although the job has ended"
        self.seconds += seconds
        self.steps.pop(0)()


class Stage:
    """A job, and what can happen to it."""

    def __init__(self, api):
        self.api = api
        self.job_id = api.submit(f"scans-{new_job_id()}")
        self.lease = None
        self.segment = 0

    def begin(self):
        self.lease = self.api.take(self.job_id)
        self.segment = 0

    def print(self, text):
        attempt = self.lease.job.attempt
        key = f"{contract.LOGS_PREFIX}{self.job_id}/{attempt}/{self.segment:06d}.log"
        self.api.put(key, text.encode(), bucket=ARTIFACTS)
        self.segment += 1

    def fail(self):
        failure = self.api.leases.failure(self.lease, FailureClass.CRASH, "it crashed")
        self.api.leases.requeue(self.lease, failure)

    def complete(self):
        result = ResultSummary(attempt=self.lease.job.attempt, files=0, size_bytes=0)
        leases = self.api.leases
        committed = leases.commit(self.lease)
        leases.complete(leases.published(committed), result)

    def cancel(self):
        self.api.http.post(f"/job/{self.job_id}/cancel").raise_for_status()

    def follow(self, *steps, transport=None, **chosen):
        with Scanfleet(self.api.url, clock=Play(*steps), transport=transport) as fleet:
            return list(fleet.follow_log(self.job_id, **chosen))


@pytest.fixture
def stage(api):
    return Stage(api)


def lines(attempt, *texts):
    return [LogLine(attempt, text) for text in texts]


def test_lines_come_as_they_are_printed_until_the_job_has_ended(stage):
    def end():
        stage.print("c\n")
        stage.complete()

    found = stage.follow(
        lambda: None,
        stage.begin,
        lambda: stage.print("a\nb"),
        lambda: None,
        lambda: stage.print("b\n"),
        end,
    )

    assert found == lines(1, "a", "bb", "c")


def test_a_retry_is_followed_and_nothing_of_the_first_attempt_is_lost(stage):
    stage.begin()

    def fail_and_begin_anew():
        stage.print("last of the first\n")
        stage.fail()
        stage.begin()
        stage.print("second\n")

    found = stage.follow(lambda: stage.print("first\n"), fail_and_begin_anew, stage.complete)

    assert found == [*lines(1, "first", "last of the first"), *lines(2, "second")]


def test_one_attempt_alone_is_followed_to_its_end_and_no_further(stage):
    stage.begin()
    stage.print("first\n")
    stage.fail()
    stage.begin()
    stage.print("second\n")

    assert stage.follow(attempt=1) == lines(1, "first")


def test_following_can_begin_with_the_last_lines(stage):
    stage.begin()
    stage.print("a\nb\nc\n")

    def end():
        stage.print("d\n")
        stage.complete()

    assert stage.follow(end, tail_lines=2) == lines(1, "b", "c", "d")


def test_a_job_that_never_began_has_no_lines(stage):
    assert stage.follow(stage.cancel) == []


def test_an_attempt_that_never_was_is_not_found(stage):
    stage.begin()
    stage.complete()
    with pytest.raises(NotFound, match="no attempt 2"):
        stage.follow(attempt=2)


class Gaps(httpx.BaseTransport):
    """Answers 503 instead of every third request."""

    def __init__(self, every=3):
        self.inner = httpx.HTTPTransport()
        self.every = every
        self.asked = 0

    def handle_request(self, request):
        self.asked += 1
        if self.asked % self.every == 0:
            return httpx.Response(503, request=request)
        return self.inner.handle_request(request)

    def close(self):
        self.inner.close()


def test_an_outage_loses_and_repeats_nothing(stage):
    stage.begin()

    def say(number):
        return lambda: stage.print(f"line {number}\n")

    def end():
        stage.complete()

    steps = [say(number) for number in range(12)]
    clock = Play()
    clock.steps = [*steps, end, *[lambda: None] * 40]
    with Scanfleet(stage.api.url, clock=clock, transport=Gaps()) as fleet:
        found = list(fleet.follow_log(stage.job_id))

    assert found == lines(1, *(f"line {number}" for number in range(12)))


def test_an_outage_that_does_not_end_is_told(stage):
    clock = Play(*[lambda: None] * 200)
    with (
        Scanfleet(stage.api.url, clock=clock, transport=Gaps(every=1)) as fleet,
        pytest.raises(Unavailable),
    ):
        list(fleet.follow_log(stage.job_id))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text("ab\n", max_size=6), max_size=4), min_size=1, max_size=3))
def test_however_output_is_cut_every_line_comes_once_in_order(api, attempts):
    """Of each attempt: what its segments hold; between any two of them the client looks."""
    stage = Stage(api)
    steps = []
    for number, segments in enumerate(attempts):
        steps += [stage.begin, *(lambda text=text: text and stage.print(text) for text in segments)]
        steps.append(stage.complete if number == len(attempts) - 1 else stage.fail)
    printed = {number: "".join(segments) for number, segments in enumerate(attempts, start=1)}
    expected = [
        line
        for number, text in printed.items()
        if text
        for line in lines(number, *text.removesuffix("\n").split("\n"))
    ]

    assert stage.follow(*steps) == expected


# --- The command line --------------------------------------------------------------------------------------


def test_the_command_prints_lines_or_an_object_each(stage):
    stage.begin()
    stage.print("a\n\x1b[2Jb\n")
    stage.complete()
    run = CliRunner().invoke

    told = run(cli.app, ["--url", stage.api.url, "logs", stage.job_id, "--follow"])
    assert (told.exit_code, told.stdout) == (0, "a\n\x1b[2Jb\n")
    objects = run(cli.app, ["--url", stage.api.url, "logs", stage.job_id, "--follow", "--json"]).stdout
    assert [json.loads(line) for line in objects.splitlines()] == [
        {"job_id": stage.job_id, "attempt": 1, "line": text} for text in ("a", "\x1b[2Jb")
    ]


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_ends_the_following_and_leaves_the_job_alone(stage):
    stage.begin()
    stage.print("a\n")
    process = subprocess.Popen(
        [sys.executable, "-c", "from scanfleet.cli import main; main()", "logs", stage.job_id, "--follow"],
        env={**os.environ, "SCANFLEET_URL": stage.api.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    finally:
        guard.cancel()
        process.kill()

    assert (first, process.returncode, out) == ("a\n", 130, ""), err
    assert f"scanfleet logs {stage.job_id} --follow" in err
    assert "Traceback" not in err


# --- Traces ------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_callers_trace_goes_on_in_the_job_and_comes_back(api):
    sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = {"source": api.folder("traced"), "target": "s3://scan-data/traced-out/"}
    answer = api.http.post("/jobs", json=body, headers=sent)

    assert answer.headers["x-trace-id"] == TRACE
    assert api.http.get(f"/job/{answer.json()['job_id']}").json()["trace_id"] == TRACE


def test_a_caller_without_a_valid_trace_gets_a_fresh_one(api):
    bad = {"traceparent": "00-not-a-trace"}
    found = [api.http.get("/uploads", headers=h).headers["x-trace-id"] for h in (bad, bad, {})]

    assert len(set(found)) == 3
    assert all(map(is_trace_id, found))


def test_each_submission_of_the_client_has_a_trace_or_the_one_that_was_given(api):
    def submitted(fleet, name):
        handle = fleet.submit(api.folder(name), f"s3://scan-data/{name}-out/")
        assert isinstance(handle, JobHandle)
        return handle.refresh().trace_id

    with Scanfleet(api.url) as fleet, Scanfleet(api.url, trace_id=TRACE) as traced:
        first, second = submitted(fleet, "one"), submitted(fleet, "two")
        assert is_trace_id(first)
        assert is_trace_id(second)
        assert first != second
        assert submitted(traced, "three") == TRACE


@pytest.mark.parametrize("text", ["", "x", TRACE.upper(), "0" * 32, TRACE + "0"])
def test_a_text_that_is_no_trace_id_is_refused(text):
    with pytest.raises(Exception, match=re.escape("trace_id")):
        Scanfleet("http://127.0.0.1:1", trace_id=text)
