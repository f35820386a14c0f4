"""What an agent does about its own machine: other machines' jobs, being alone, a breaker, its end."""

import logging
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta

import psutil
import pytest

from scanfleet.agent import worker as worker_module
from scanfleet.agent.breaker import Breaker, BreakerRules
from scanfleet.contract import Pool, Priority
from scanfleet.jobs import Failure, FailureClass, JobState, utc
from scanfleet.queue import Backlog, JobQueues
from tests.support.moto_fleet import environment, moto_fleet, moto_server
from tests.support.scripted_program import ScriptedProcessor

COMPLETED, FAILED, QUEUED = JobState.COMPLETED, JobState.FAILED, JobState.QUEUED
FAST_RULES = BreakerRules(
    failures=2, look=timedelta(seconds=0.05), pause=timedelta(seconds=0.2), decide_within=timedelta(minutes=5)
)


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def fleet(endpoint, monkeypatch, tmp_path):
    with moto_fleet(endpoint, tmp_path, monkeypatch) as found:
        yield found


class BrokenMachine(ScriptedProcessor):
    """No program works here."""

    def prepare(self, job, folders):
        broken = job.model_copy(update={"settings": {**job.settings, "exit_code": 3}})
        return super().prepare(broken, folders)


BROKEN = {"scripted": BrokenMachine()}


def in_fleet(name: str) -> Breaker:
    return Breaker(name, is_in_fleet=True, rules=FAST_RULES)


def await_so(is_so, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- Another machine ---------------------------------------------------------------------------------------


def test_a_job_that_failed_on_one_machine_runs_on_another_next(fleet):
    with fleet.agent("bad", processors=BROKEN):
        job = fleet.submit()
        fleet.await_job(job, lambda found: found.failure is not None)
        # Both are idle now, and the bad one would take it again.
        with fleet.agent("good"):
            done = fleet.await_state(job, COMPLETED, FAILED)

    assert (done.state, done.agent_id, done.attempt) == (COMPLETED, "good", 2)
    assert [failure.agent_id for failure in done.failures] == ["bad"]


def test_a_job_left_to_others_keeps_its_receive_count_low(fleet, caplog):
    caplog.set_level(logging.INFO)
    with fleet.agent("other"):
        # The other one reports that it serves, but is busy for as long as this takes.
        busy = fleet.submit(settings={"hold": str(fleet.folder / "go")})
        fleet.await_job(busy, lambda found: found.stage == "work")
        with fleet.agent("me", processors=BROKEN):
            job = fleet.submit()
            fleet.await_job(job, lambda found: found.failure is not None)
            await_so(lambda: caplog.text.count("left to other machines") >= 2)
            assert fleet.store.get(job.job_id).attempt == 1

            (fleet.folder / "go").write_text("")
            done = fleet.await_state(job, COMPLETED, FAILED)

    assert (done.state, done.agent_id) == (COMPLETED, "other")


# --- Alone -------------------------------------------------------------------------------------------------


def out_of_memory(fleet, **facts):
    """A job whose last attempt, on another machine, ran out of memory."""
    failure = Failure(
        failure_class=FailureClass.OUT_OF_MEMORY, reason="x", attempt=1, agent_id="gone", at=utc(time.time())
    )
    return fleet.submit(failures=(failure,), attempt=1, **facts)


def test_a_job_that_ran_out_of_memory_waits_for_the_others_and_then_has_all_slots(fleet):
    first_go, big_go = fleet.folder / "first", fleet.folder / "big"
    with fleet.agent(slots=2) as worker:
        first = fleet.submit(settings={"hold": str(first_go)})
        fleet.await_job(first, lambda found: found.stage == "work")
        big = out_of_memory(fleet, settings={"hold": str(big_go)})
        await_so(lambda: worker.busy == 2)
        assert worker.report().job_ids == (first.job_id,)
        assert fleet.store.get(big.job_id).state is QUEUED

        first_go.write_text("")
        fleet.await_job(big, lambda found: found.stage == "work")
        small = fleet.submit()
        assert (worker.report().busy, worker.report().job_ids) == (2, (big.job_id,))
        assert fleet.store.get(small.job_id).state is QUEUED

        big_go.write_text("")
        done = [fleet.await_state(job, COMPLETED, FAILED) for job in (first, big, small)]

    assert [job.state for job in done] == [COMPLETED] * 3
    assert done[2].started_at >= done[1].finished_at


def test_a_job_that_waits_to_be_alone_is_given_back_when_the_agent_drains(fleet):
    go = fleet.folder / "go"
    with fleet.agent(slots=2) as worker:
        first = fleet.submit(settings={"hold": str(go)})
        fleet.await_job(first, lambda found: found.stage == "work")
        big = out_of_memory(fleet)
        await_so(lambda: worker.busy == 2)

        worker.drain(timedelta(minutes=5))
        await_so(lambda: fleet.queues.backlog(Pool.LINUX_CPU) == Backlog(waiting=1, in_flight=1))
        assert fleet.store.get(big.job_id).attempt == 1
        go.write_text("")
        fleet.await_state(first, COMPLETED)


def test_a_drain_right_before_a_job_waits_to_be_alone_gives_it_back_too(fleet, monkeypatch):
    go = fleet.folder / "go"
    with fleet.agent(slots=2) as worker:
        first = fleet.submit(settings={"hold": str(go)})
        fleet.await_job(first, lambda found: found.stage == "work")
        want_alone = worker._slots.want_alone

        def drained_first(stop):
            worker.drain(timedelta(minutes=5))
            return want_alone(stop)

        monkeypatch.setattr(worker._slots, "want_alone", drained_first)
        big = out_of_memory(fleet)
        await_so(lambda: fleet.queues.backlog(Pool.LINUX_CPU) == Backlog(waiting=1, in_flight=1))
        assert fleet.store.get(big.job_id).attempt == 1
        go.write_text("")
        fleet.await_state(first, COMPLETED)


# --- The breaker -------------------------------------------------------------------------------------------


def test_a_bad_machine_stops_says_why_and_costs_no_job(fleet):
    with fleet.agent("bad", processors=BROKEN, breaker=in_fleet("bad")) as bad:
        jobs = [fleet.submit() for _ in range(8)]
        await_so(lambda: bad.report().is_suspended)
        assert "different jobs in a row failed here" in bad.report().why_suspended
        assert bad.problem() is None, "a load balancer would replace it before anybody has judged it"
        with fleet.agent("good", breaker=in_fleet("good")) as good:
            done = [fleet.await_state(job, COMPLETED, FAILED) for job in jobs]
            await_so(lambda: bad.condemned is not None)
            assert "2 of them were completed by other machines" in bad.problem()
            assert good.problem() is None

    assert {job.state for job in done} == {COMPLETED}
    assert sum(len(job.failures) for job in done) <= FAST_RULES.failures + 1


def test_poison_jobs_stop_neither_machines_nor_other_jobs(fleet):
    with (
        fleet.agent("a1", breaker=in_fleet("a1")) as a1,
        fleet.agent("a2", breaker=in_fleet("a2")) as a2,
    ):
        poison = [fleet.submit(settings={"exit_code": 3}) for _ in range(6)]
        good = [fleet.submit() for _ in range(4)]
        done = [fleet.await_state(job, COMPLETED, FAILED, seconds=60) for job in (*poison, *good)]

        assert [job.state for job in done] == [FAILED] * 6 + [COMPLETED] * 4
        assert (a1.condemned, a2.condemned) == (None, None)


def test_a_condemned_machine_lets_its_jobs_go_on_and_takes_no_other(fleet):
    go = fleet.folder / "go"
    with fleet.agent(slots=2) as worker:
        running = fleet.submit(settings={"hold": str(go)})
        fleet.await_job(running, lambda found: found.stage == "work")

        worker.condemn("process 7 does not end")
        assert worker.problem() == "process 7 does not end"
        waiting = fleet.submit()
        go.write_text("")
        assert fleet.await_state(running, COMPLETED, FAILED).state is COMPLETED

    assert fleet.store.get(waiting.job_id).state is QUEUED


# --- The agent's end ---------------------------------------------------------------------------------------


class WatchedQueues(JobQueues):
    """Says when a poll that waits begins."""

    def __init__(self, *args):
        super().__init__(*args)
        self.is_polling = threading.Event()

    def receive(self, pool, priority, *, wait, visibility_seconds):
        if wait:
            self.is_polling.set()
        return super().receive(pool, priority, wait=wait, visibility_seconds=visibility_seconds)


def test_a_message_that_the_last_poll_of_a_draining_agent_brings_is_for_others_at_once(fleet):
    queues = WatchedQueues(fleet.clients.sqs, fleet.queue_urls)
    with fleet.agent(queues=queues) as worker:
        assert queues.is_polling.wait(20)
        queues.is_polling.clear()
        assert queues.is_polling.wait(20)  # it begins just now
        worker.drain(timedelta())
        job = fleet.submit()

    assert worker.given_back == 1, "the message came with the last poll"
    found = fleet.queues.receive(Pool.LINUX_CPU, Priority.NORMAL, wait=timedelta(), visibility_seconds=60)
    assert found is not None
    assert (found.job_id(), found.receive_count) == (job.job_id, 2)


POLL = """
import sys, json
from datetime import timedelta
from scanfleet.clients import build_clients
from scanfleet.contract import Pool, Priority
from scanfleet.queue import JobQueues
queues = JobQueues(build_clients().sqs, {Pool.LINUX_CPU: {Priority.NORMAL: sys.argv[1]}})
print("polls", flush=True)
queues.receive(Pool.LINUX_CPU, Priority.NORMAL, wait=timedelta(seconds=20), visibility_seconds=2)
"""


def test_an_agent_killed_in_the_middle_of_a_poll_delays_a_job_by_the_visibility_at_most(fleet, endpoint):
    url = fleet.queue_urls[Pool.LINUX_CPU][Priority.NORMAL]
    program = subprocess.Popen(
        [sys.executable, "-c", POLL, url],
        env={**os.environ, **environment(endpoint)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "polls\n"
    job = None
    try:
        # The queue answers the poll, and nobody is there to read it.
        await_so(lambda: is_connected(program.pid))
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    job = fleet.submit()
    found = None
    deadline = time.monotonic() + 60
    while found is None:
        assert time.monotonic() < deadline
        found = fleet.queues.receive(
            Pool.LINUX_CPU, Priority.NORMAL, wait=timedelta(seconds=1), visibility_seconds=60
        )

    assert found.job_id() == job.job_id


def is_connected(pid: int) -> bool:
    return any(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process(pid).net_connections())


class StuckProcessor(ScriptedProcessor):
    """Blocks the attempt's thread where no stop reaches it."""

    def __init__(self):
        self.is_stuck = threading.Event()
        self.go_on = threading.Event()

    def prepare(self, job, folders):
        self.is_stuck.set()
        self.go_on.wait(60)
        return super().prepare(job, folders)


def test_an_attempt_that_does_not_end_does_not_keep_the_agent_from_its_end(fleet, monkeypatch, caplog):
    monkeypatch.setattr(worker_module, "SETTLED_WITHIN", timedelta(seconds=0.2))
    stuck = StuckProcessor()
    try:
        with fleet.agent(processors={"scripted": stuck}):
            job = fleet.submit()
            assert stuck.is_stuck.wait(20)
        assert [r.job_ids for r in caplog.records if getattr(r, "action", "") == "attempts_left_behind"] == [
            (job.job_id,)
        ]
    finally:
        stuck.go_on.set()
