"""The heartbeat: what it renews when, and when it makes the attempt stop."""

import itertools
import time
from datetime import timedelta
from typing import Any

import pytest

from scanfleet.agent.lease import Heartbeat, HeartbeatRules, Pulse
from scanfleet.agent.message import HeldMessage
from scanfleet.agent.output import ProgressBoard
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.vitals import Allowances, Phase, Vitals
from scanfleet.contract import Pool
from scanfleet.errors import JobFailure, LeaseLost, Unavailable
from scanfleet.jobs import FailureClass, Job, JobState, new_job_id
from scanfleet.leases import Lease
from scanfleet.processors.base import Progress
from scanfleet.queue import Message

RULES = HeartbeatRules(
    every=timedelta(seconds=5),
    lease=timedelta(seconds=25),
    visibility_seconds=35,
    look=timedelta(seconds=0.01),
)


class Table:
    """One job's record that keeps the lease's rules, and may be out of reach."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.renewals: list[tuple[float, str | None]] = []
        self.error: Exception | None = None
        self.looks = 0
        self.live: dict[str, Any] = {}
        self.drift = itertools.count()  # of the table's clock against the machine's

    def get(self, _job_id: str) -> Job:
        self.looks += 1
        if self.error:
            raise self.error
        return self.job

    def now(self) -> float:
        return 1_000_000.0 + next(self.drift)

    def renew(self, lease: Lease, *, progress_percent: float, stage: str | None, **live: Any) -> Lease:
        if self.error:
            raise self.error
        self.live = live
        if (self.job.attempt, self.job.agent_id) != (lease.attempt, lease.agent_id):
            raise LeaseLost("another has it")
        self.renewals.append((progress_percent, stage))
        return Lease(self.job, lease.agent_id, lease.attempt)

    def change(self, **facts) -> None:
        self.job = self.job.model_copy(update=facts)


class Queue:
    def __init__(self) -> None:
        self.extensions: list[int] = []

    def extend(self, _message: Message, *, visibility_seconds: int) -> None:
        self.extensions.append(visibility_seconds)


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        job = Job(
            job_id=new_job_id(),
            owner="ann",
            processor="p",
            pool=Pool.LINUX_CPU,
            source_uri="s3://b/in/",
            target_uri="s3://b/out/",
            state=JobState.PROCESSING,
            attempt=1,
            agent_id="a1",
            created_at=0,
            queued_at=0,
            state_changed_at=0,
        )
        self.table, self.queue = Table(job), Queue()
        self.board = ProgressBoard(lambda: self.now)
        self.stop = StopRequest()
        self.vitals = Vitals(Allowances(), lambda: self.now)
        self.usage = UsageMeter()
        self.stuck: list[JobFailure] = []
        self.heartbeat = Heartbeat(
            pulse=Pulse(self.table, self.queue, RULES),
            lease=Lease(job, "a1", 1),
            message=HeldMessage(Message("url", "receipt", "{}", 1), job, visibility_seconds=35),
            board=self.board,
            vitals=self.vitals,
            stop=self.stop,
            on_stuck=self.stuck.append,
            usage=self.usage,
            clock=lambda: self.now,
        )

    @property
    def beats(self) -> int:
        return self.table.looks + len(self.table.renewals)


def await_true(is_so) -> None:
    give_up_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.002)


@pytest.fixture
def bench():
    return Bench()


def test_lease_and_message_are_renewed_together_when_it_is_time(bench):
    bench.now += 4.9
    bench.heartbeat.beat()
    assert (bench.table.renewals, bench.queue.extensions) == ([], [])

    bench.now += 0.1
    bench.heartbeat.beat()
    assert (bench.table.renewals, bench.queue.extensions) == ([(0.0, None)], [35])


def test_changed_progress_is_written_once_a_second_at_most(bench):
    bench.board.update(Progress(percent=10, stage="align"))
    bench.now += 0.9
    bench.heartbeat.beat()
    assert bench.table.renewals == []

    bench.now += 0.2
    bench.heartbeat.beat()
    bench.heartbeat.beat()
    assert bench.table.renewals == [(10, "align")]


def test_a_cancel_request_is_heard_between_renewals(bench):
    bench.table.change(cancel_requested_at=1.0)

    bench.heartbeat.beat()

    assert bench.stop.reason is StopReason.CANCELLED


def test_a_cancel_request_after_the_commit_is_ignored(bench):
    bench.table.change(cancel_requested_at=1.0, committed_attempt=1)

    bench.heartbeat.beat()

    assert bench.stop.reason is None


@pytest.mark.parametrize("waited", [0.0, 5.0])
def test_another_owner_means_that_the_lease_is_lost(bench, waited):
    bench.table.change(attempt=2, agent_id="a2")
    bench.now += waited

    with pytest.raises(LeaseLost):
        bench.heartbeat.beat()


def test_a_lease_that_could_not_be_renewed_in_time_counts_as_lost(bench):
    bench.table.error = Unavailable("throttled")
    for _ in range(4):
        bench.now += 6
        with pytest.raises(Unavailable):
            bench.heartbeat.beat()

    bench.now += 1
    with pytest.raises(LeaseLost, match="not renewed for 25 s"):
        bench.heartbeat.beat()


def test_an_attempt_without_a_sign_of_life_is_asked_to_stop_and_still_renewed(bench):
    bench.vitals.begin(Phase.DOWNLOAD)
    bench.now += 299
    bench.heartbeat._renewed_at = bench.now  # it beat all the while
    bench.heartbeat.beat()
    assert bench.stop.reason is None

    bench.now += 5
    bench.heartbeat.beat()

    assert bench.stop.reason is StopReason.STALLED
    assert bench.stop.failure.failure_class is FailureClass.TRANSFER
    assert bench.stop.failure.reason == "the download stood still for 304 s"
    assert bench.table.renewals == [(0.0, None)]


def test_an_attempt_that_does_not_settle_either_is_renewed_no_more_and_its_machine_is_told_of(bench):
    bench.vitals.begin(Phase.RUN)
    bench.heartbeat.start()
    try:
        for _ in range(19):  # 190 s: asked to stop after 120 s, given up 60 s later
            bench.now += 10
            bench.heartbeat._renewed_at = bench.now
            seen = bench.beats
            await_true(lambda seen=seen: bench.beats > seen or bench.stuck)
    finally:
        bench.heartbeat.stop()

    [stuck] = bench.stuck
    assert stuck.condemns_machine
    assert "the program's watch stood still" in stuck.reason
    assert bench.stop.reason is StopReason.LEASE_LOST


def test_a_slow_transfer_that_moves_bytes_is_left_alone(bench):
    bench.vitals.begin(Phase.STAGE)
    for minute in range(60):
        bench.now += 240
        bench.vitals.moved(minute + 1, 10**12)
        bench.heartbeat._renewed_at = bench.now
        bench.heartbeat.beat()

    bench.now += 300
    bench.vitals.moved(60, 10**12)  # it is asked ten times a second, and tells the same
    bench.heartbeat._renewed_at = bench.now
    bench.heartbeat.beat()

    assert bench.stop.reason is StopReason.STALLED


def test_an_unforeseen_error_does_not_end_the_heartbeat(bench):
    bench.table.error = KeyError("what nobody thought of")
    heard = []
    bench.stop.listen(lambda: heard.append(bench.stop.reason))
    bench.heartbeat.start()
    try:
        bench.now += 26  # only a heartbeat that still beats can notice
        bench.heartbeat._thread.join(20)
    finally:
        bench.heartbeat.stop()

    assert heard == [StopReason.LEASE_LOST]


def test_a_lost_lease_overrides_a_cancel(bench):
    bench.stop.set(StopReason.CANCELLED)
    bench.stop.set(StopReason.LEASE_LOST)
    bench.stop.set(StopReason.AGENT_STOPPING)

    assert bench.stop.reason is StopReason.LEASE_LOST


def test_a_beat_carries_what_the_program_has_done_so_far(bench):
    bench.board.update(Progress(stage="align"))
    bench.now += 3
    bench.board.update(Progress(stage="merge", percent=40))
    bench.now += 4
    bench.usage.add(6.0, cpu_seconds=12.0, io_bytes=10, memory_bytes=500)

    bench.heartbeat.beat()

    assert bench.table.live["stage_seconds"] == {"align": 3.0}
    assert bench.table.live["stage_since"] == 1_000_000 - 4
    assert bench.table.live["usage"].cpu_percent_mean == 200


def test_the_beginning_of_a_stage_stays_where_it_is_though_clocks_drift(bench):
    bench.board.update(Progress(stage="merge"))
    begun = []
    for _ in range(3):
        bench.now += 5
        bench.heartbeat.beat()
        begun.append(bench.table.live["stage_since"])

    assert begun == [1_000_000 - 5] * 3


def test_a_stage_that_comes_again_begins_anew(bench):
    for stage in ("align", "merge", "align"):
        bench.board.update(Progress(stage=stage))
        bench.now += 5
        bench.heartbeat.beat()

    assert bench.table.live["stage_since"] == 1_000_000 + 2 - 5
    assert bench.table.live["stage_seconds"] == {"align": 5.0, "merge": 5.0}
