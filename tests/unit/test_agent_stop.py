"""What an agent's stop waits for, and what not: a table that does not answer must hold no machine up."""

import threading

import pytest

from scanfleet.agent import inquiry, reporting
from scanfleet.agent.breaker import Breaker
from scanfleet.agent.inquiry import Inquiry
from scanfleet.agent.reporting import Reporter
from scanfleet.contract import Pool
from scanfleet.errors import JobFailure, Unavailable
from scanfleet.jobs import FailureClass, Job, new_job_id


class SilentTable:
    """Answers nothing before it is let go."""

    def __init__(self) -> None:
        self.was_asked, self.may_answer = threading.Event(), threading.Event()

    def _wait(self, *_):
        self.was_asked.set()
        self.may_answer.wait()
        raise Unavailable("nobody waits for this answer any more")

    get = put = remove = _wait


class Untold:
    def suspend(self, cause, reason, *, is_healthy=False):
        """Take note of nothing."""


@pytest.fixture
def table():
    table = SilentTable()
    yield table
    table.may_answer.set()


def ends(stop) -> bool:
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(30)
    return not thread.is_alive()


def test_the_report_is_left_to_expire_by_a_table_that_does_not_answer(table, monkeypatch):
    monkeypatch.setattr(reporting, "END_SECONDS", 0.1)
    reporter = Reporter(table, "a1", lambda: None)
    reporter.start()
    assert table.was_asked.wait(30)

    assert ends(reporter.end)


def test_an_inquiry_without_an_answer_holds_no_stop_up(table, monkeypatch):
    monkeypatch.setattr(inquiry, "STOP_SECONDS", 0.1)
    asks = Inquiry(
        Breaker("a1", is_in_fleet=True), leases=table, neighbours=None, pool=Pool.LINUX_CPU, worker=Untold()
    )
    asks.start()
    for _ in range(3):
        asks.ended(a_job(), JobFailure(FailureClass.CRASH, "it crashed"))
    assert table.was_asked.wait(30)

    assert ends(asks.stop)


def a_job() -> Job:
    return Job(
        job_id=new_job_id(),
        owner="ann",
        processor="p",
        pool=Pool.LINUX_CPU,
        source_uri="s3://b/in/",
        target_uri="s3://b/out/",
        created_at=0,
        queued_at=0,
        state_changed_at=0,
    )
