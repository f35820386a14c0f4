"""What lines of a piece of work say besides, and traces."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet import log_context
from scanfleet.contract import Component
from scanfleet.log_context import ContextThread, bound, carried, trace_id_of
from scanfleet.log_setup import JsonFormatter


@pytest.fixture(autouse=True)
def _no_process_facts():
    yield
    log_context.set_process_facts()


def line(**extra):
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "hello", **extra})
    return json.loads(JsonFormatter(Component.AGENT, stage="dev").format(record))


def in_thread(kind, call):
    found = []
    thread = kind(target=lambda: found.append(call()))
    thread.start()
    thread.join(30)
    return found[0]


def test_a_line_says_what_is_bound_around_it_and_nothing_afterwards():
    with bound(job_id="j"), bound(attempt=2):
        assert line().items() >= {"job_id": "j", "attempt": 2}.items()

    assert not line().keys() & {"job_id", "attempt"}


def test_a_records_own_facts_go_before_what_is_bound():
    with bound(job_id="j", attempt=2):
        assert line(attempt=3)["attempt"] == 3


def test_what_is_true_of_the_process_is_on_every_line():
    log_context.set_process_facts(agent_id="a1")

    assert line()["agent_id"] == "a1"
    with bound(agent_id="a2"):
        assert line()["agent_id"] == "a2"


def test_a_thread_of_the_work_says_what_the_work_says_and_another_does_not():
    with bound(job_id="j"):
        assert in_thread(ContextThread, line)["job_id"] == "j"
        assert "job_id" not in in_thread(threading.Thread, line)


def test_what_becomes_known_later_is_on_the_lines_of_threads_that_run_already():
    known, may_end = threading.Event(), threading.Event()
    found = []

    def work():
        known.wait(30)
        found.append(line())
        may_end.set()

    with bound(job_id="j", release=None):
        thread = ContextThread(target=work)
        thread.start()
        log_context.add(release="7.1")
        known.set()
        assert may_end.wait(30)
    thread.join(30)

    assert found[0]["release"] == "7.1"


def test_work_side_by_side_in_a_pool_belongs_to_whoever_asked_for_it():
    together = threading.Barrier(2)

    def say(_):
        together.wait(30)  # both inside of the same context at once
        return line()["job_id"]

    with bound(job_id="j"), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(carried(say), range(2))) == ["j", "j"]


def test_facts_that_nobody_bound_a_place_for_are_dropped():
    log_context.add(job_id="j")

    assert "job_id" not in line()


# --- Traces ------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-00f067aa0ba902b7-01",
        f" 00-{TRACE}-00f067aa0ba902b7-00 ",
        f"cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-holds",
    ],
)
def test_a_valid_traceparent_names_its_trace(header):
    assert trace_id_of(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",
        f"00-{TRACE}-00f067aa0ba902b7",
        f"00-{TRACE}-00f067aa0ba902b7-01\nX: y",
        f"00-{TRACE[:-1]}-00f067aa0ba902b7-01",
    ],
)
def test_an_invalid_traceparent_names_none(header):
    assert trace_id_of(header) is None


@given(st.text(max_size=80))
def test_whatever_is_sent_is_a_trace_id_or_nothing(header):
    found = trace_id_of(header)

    assert found is None or log_context.is_trace_id(found)


def test_a_call_of_a_trace_names_it_with_another_parent_each_time():
    first, second = log_context.traceparent(TRACE), log_context.traceparent(TRACE)

    assert trace_id_of(first) == trace_id_of(second) == TRACE
    assert first != second
    assert log_context.is_trace_id(log_context.new_trace_id())
