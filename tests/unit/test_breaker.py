"""A machine's breaker: when it stops, whom it asks, and that poison jobs do not stop a fleet."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanfleet.agent.breaker import Breaker, BreakerRules, Fate, Peers, Phase, fate_of
from scanfleet.contract import Pool
from scanfleet.errors import JobFailure
from scanfleet.jobs import Failure, FailureClass, Job, JobState, new_job_id, retry_delay, utc

RULES = BreakerRules()
ME, OTHER = "i-me", "i-other"
CRASH, HANG, BAD_INPUT = FailureClass.CRASH, FailureClass.HANG, FailureClass.BAD_INPUT
NOBODY, SOMEBODY, ALL_ILL = Peers(0, 0), Peers(serving=9, suspended=0), Peers(serving=0, suspended=9)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now

    def pass_by(self, time: timedelta):
        self.now += time.total_seconds()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(ME, is_in_fleet=True, clock=clock)


def new_job(**facts) -> Job:
    folder = "s3://data/x/"
    times = {"created_at": 0.0, "queued_at": 0.0, "state_changed_at": 0.0}
    return Job(
        job_id=new_job_id(),
        owner="ann",
        processor="scripted",
        pool=Pool.WINDOWS_GPU,
        source_uri=folder,
        target_uri=folder,
        **(times | facts),
    )


def failed_on(job: Job, agent_id: str, failure_class: FailureClass = CRASH) -> Job:
    failure = Failure(
        failure_class=failure_class, reason="x", attempt=job.attempt, agent_id=agent_id, at=utc(0)
    )
    return job.model_copy(update={"failures": (*job.failures, failure)})


def fail(breaker: Breaker, count: int = RULES.failures, failure_class: FailureClass = CRASH) -> list[Job]:
    """Let so many different jobs fail here, and return them as their records are then."""
    jobs = [new_job() for _ in range(count)]
    for job in jobs:
        breaker.ended(job, JobFailure(failure_class, "the GPU is gone"))
    return [failed_on(job, ME, failure_class) for job in jobs]


def by_id(jobs: list[Job]) -> dict[str, Job]:
    return {job.job_id: job for job in jobs}


def completed_by(agent_id: str, job: Job) -> Job:
    return job.model_copy(update={"state": JobState.COMPLETED, "agent_id": agent_id})


# --- When a machine is suspected ---------------------------------------------------------------------------


def test_different_jobs_that_fail_in_a_row_make_the_machine_suspected(breaker):
    fail(breaker, RULES.failures - 1)
    assert breaker.phase is Phase.CLOSED

    fail(breaker, 1)

    assert breaker.phase is Phase.SUSPECTED
    assert breaker.reason == "3 different jobs in a row failed here (crash): the GPU is gone"


def test_one_job_that_fails_again_and_again_tells_nothing_of_the_machine(breaker):
    job = new_job()
    for _ in range(10):
        breaker.ended(job, JobFailure(CRASH, "x"))

    assert breaker.phase is Phase.CLOSED


def test_a_success_ends_the_row(breaker):
    fail(breaker, RULES.failures - 1)
    breaker.ended(new_job(), None)
    fail(breaker, RULES.failures - 1)

    assert breaker.phase is Phase.CLOSED


def test_publishing_what_another_machine_computed_is_no_success_of_this_one(breaker):
    fail(breaker, RULES.failures - 1)
    breaker.ended(new_job(attempt=2, committed_attempt=1), None)
    fail(breaker, 1)

    assert breaker.phase is Phase.SUSPECTED


@pytest.mark.parametrize("failure_class", [FailureClass.BAD_INPUT, FailureClass.LOST_MACHINE])
def test_failures_that_no_machine_causes_neither_count_nor_end_the_row(breaker, failure_class):
    fail(breaker, 20, failure_class)
    assert breaker.phase is Phase.CLOSED

    fail(breaker, RULES.failures - 1)
    fail(breaker, 1, failure_class)
    fail(breaker, 1)

    assert breaker.phase is Phase.SUSPECTED


def test_a_job_that_failed_alike_elsewhere_is_suspect_itself(breaker):
    for _ in range(20):
        breaker.ended(failed_on(new_job(), OTHER), JobFailure(CRASH, "x"))

    assert breaker.phase is Phase.CLOSED


def test_a_job_that_failed_otherwise_elsewhere_still_counts(breaker):
    for _ in range(RULES.failures):
        breaker.ended(failed_on(new_job(), OTHER, HANG), JobFailure(CRASH, "x"))

    assert breaker.phase is Phase.SUSPECTED


def test_poison_jobs_make_the_machine_harder_to_suspect_until_one_succeeds(breaker):
    breaker.ended(failed_on(new_job(), OTHER), JobFailure(CRASH, "x"))
    fail(breaker, RULES.failures + 1)
    assert breaker.phase is Phase.CLOSED
    fail(breaker, 1)
    assert breaker.phase is Phase.SUSPECTED

    breaker.ended(new_job(), None)
    fail(breaker)

    assert breaker.phase is Phase.SUSPECTED


def test_a_program_that_cannot_be_killed_condemns_the_machine_at_once(breaker):
    breaker.ended(new_job(), JobFailure(HANG, "process 7 does not end", condemns_machine=True))

    assert (breaker.phase, breaker.reason) == (Phase.CONDEMNED, "process 7 does not end")


# --- How it is judged --------------------------------------------------------------------------------------


def test_a_machine_is_guilty_when_others_completed_most_of_what_it_failed(breaker):
    jobs = fail(breaker)
    jobs[0] = completed_by(OTHER, jobs[0])
    breaker.look(by_id(jobs), SOMEBODY)
    assert breaker.phase is Phase.SUSPECTED, "one job may fail now and then"

    jobs[1] = completed_by(OTHER, jobs[1])
    breaker.look(by_id(jobs), SOMEBODY)

    assert breaker.phase is Phase.CONDEMNED
    assert breaker.reason.endswith("the GPU is gone; 2 of them were completed by other machines")


def test_a_machine_is_innocent_when_most_jobs_fail_alike_elsewhere(breaker):
    jobs = fail(breaker)
    jobs[:2] = [failed_on(job, OTHER) for job in jobs[:2]]

    breaker.look(by_id(jobs), SOMEBODY)

    assert (breaker.phase, breaker.reason, breaker.suspects) == (Phase.CLOSED, "", {})


def test_a_job_that_is_gone_says_nothing(breaker, clock):
    jobs = fail(breaker)

    breaker.look(by_id(jobs[1:]), SOMEBODY)

    assert breaker.phase is Phase.SUSPECTED


def test_a_condemned_machine_stays_so(breaker):
    jobs = [completed_by(OTHER, job) for job in fail(breaker)]
    breaker.look(by_id(jobs), SOMEBODY)

    breaker.ended(new_job(), None)
    breaker.condemn("another reason")
    breaker.look({}, NOBODY)

    assert breaker.phase is Phase.CONDEMNED
    assert "another reason" not in breaker.reason


def test_while_others_serve_their_word_is_awaited(breaker, clock):
    jobs = fail(breaker)
    clock.pass_by(RULES.decide_within - timedelta(seconds=1))
    breaker.look(by_id(jobs), SOMEBODY)
    assert breaker.phase is Phase.SUSPECTED

    clock.pass_by(timedelta(seconds=1))
    breaker.look(by_id(jobs), SOMEBODY)

    assert breaker.phase is Phase.PROBING


def test_a_machine_that_nobody_can_judge_takes_one_job_and_goes_on_if_it_succeeds(breaker, clock):
    jobs = fail(breaker)
    breaker.look(by_id(jobs), NOBODY)
    assert breaker.phase is Phase.SUSPECTED
    clock.pass_by(RULES.pause)
    breaker.look(by_id(jobs), NOBODY)
    assert breaker.phase is Phase.PROBING

    breaker.ended(new_job(), None)

    assert breaker.phase is Phase.CLOSED


def test_the_only_machine_of_a_fleet_is_replaced_when_its_probes_fail_for_too_long(breaker, clock):
    jobs, probes = fail(breaker), 0
    for _ in range(10_000):
        clock.pass_by(RULES.look)
        breaker.look(by_id(jobs), NOBODY)
        if breaker.phase is Phase.PROBING:
            probes += 1
            jobs += fail(breaker, 1)
        if breaker.phase is Phase.CONDEMNED:
            break

    assert breaker.phase is Phase.CONDEMNED
    assert RULES.decide_within.total_seconds() <= clock.now < 2 * RULES.decide_within.total_seconds()
    assert probes <= 6


def test_without_a_fleet_nobody_would_replace_it_so_it_goes_on_trying(clock):
    breaker = Breaker(ME, is_in_fleet=False, clock=clock)
    jobs = [completed_by(OTHER, job) for job in fail(breaker)]
    for _ in range(5_000):
        clock.pass_by(RULES.look)
        breaker.look(by_id(jobs), SOMEBODY)
        if breaker.phase is Phase.PROBING:
            jobs += fail(breaker, 1)
    assert breaker.phase is Phase.SUSPECTED

    clock.pass_by(RULES.longest_pause)
    breaker.look(by_id(jobs), SOMEBODY)
    breaker.ended(new_job(), None)

    assert breaker.phase is Phase.CLOSED


def test_what_troubled_many_machines_condemns_none_of_them_when_it_has_passed(breaker, clock):
    jobs = fail(breaker)
    breaker.look(by_id(jobs), ALL_ILL)

    breaker.look(by_id([completed_by(OTHER, job) for job in jobs]), SOMEBODY)
    assert breaker.phase is Phase.SUSPECTED
    clock.pass_by(RULES.pause)
    breaker.look(by_id(jobs), SOMEBODY)
    breaker.ended(new_job(), None)

    assert breaker.phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("job", "fate"),
    [
        (new_job(), Fate.UNKNOWN),
        (failed_on(new_job(), ME), Fate.UNKNOWN),
        (failed_on(new_job(), OTHER, HANG), Fate.UNKNOWN),
        (failed_on(new_job(), OTHER), Fate.FAILED_ALIKE),
        (completed_by(ME, new_job()), Fate.UNKNOWN),
        (completed_by(OTHER, new_job()), Fate.COMPLETED),
    ],
)
def test_a_jobs_fate_is_told_by_other_machines_only(job, fate):
    assert fate_of(job, CRASH, ME) is fate


# --- A simulated fleet -------------------------------------------------------------------------------------

TICK = timedelta(seconds=5)
ATTEMPT_TICKS = 4


@dataclass
class Machine:
    name: str
    breaker: Breaker
    is_bad: bool = False
    running: Job | None = None
    ends_at: int = 0
    failed: set[str] = field(default_factory=set)


class SimulatedFleet:
    """Machines of one slot that pull jobs from one queue, by the rules for retries and other machines."""

    def __init__(self, machines: int, *, bad: int, seed: int):
        self.clock = Clock()
        self.random = random.Random(seed)
        self.machines = []
        for number in range(machines):
            breaker = Breaker(f"i-{number}", is_in_fleet=True, clock=self.clock)
            self.machines.append(Machine(f"i-{number}", breaker, is_bad=number < bad))
        self.queue: list[tuple[float, Job]] = []
        self.table: dict[str, Job] = {}
        self.poison: set[str] = set()

    def submit(self, count: int, *, poison: bool = False):
        for _ in range(count):
            job = new_job()
            self.table[job.job_id] = job
            self.queue.append((0.0, job))
            if poison:
                self.poison.add(job.job_id)

    def run(self, ticks: int = 50_000):
        self.random.shuffle(self.queue)
        for tick in range(ticks):
            for machine in self.random.sample(self.machines, len(self.machines)):
                self._step(machine, tick)
            if not self.queue and not any(m.running for m in self.machines):
                break
            self.clock.pass_by(TICK)
        for machine in self.machines:  # what is left to look at
            jobs = {job_id: self.table[job_id] for job_id in machine.breaker.suspects}
            machine.breaker.look(jobs, self._peers(machine))

    def _step(self, machine: Machine, tick: int):
        if machine.running is not None and tick >= machine.ends_at:
            self._end(machine, machine.running)
        if machine.breaker.phase is not Phase.CLOSED:
            jobs = {job_id: self.table[job_id] for job_id in machine.breaker.suspects}
            machine.breaker.look(jobs, self._peers(machine))
        if machine.running is None and machine.breaker.phase in (Phase.CLOSED, Phase.PROBING):
            self._take(machine, tick)

    def _peers(self, machine: Machine) -> Peers:
        phases = Counter(m.breaker.phase for m in self.machines if m is not machine)
        serving = phases[Phase.CLOSED]
        return Peers(serving=serving, suspended=sum(phases.values()) - serving)

    def _take(self, machine: Machine, tick: int):
        others_serve = self._peers(machine).serving > 0
        for entry in self.queue:
            due_at, job = entry
            is_left = others_serve and job.failure is not None and job.failure.agent_id == machine.name
            if due_at > self.clock.now or (is_left and self.clock.now < due_at + 60):
                continue
            self.queue.remove(entry)
            machine.running = job.model_copy(update={"attempt": job.attempt + 1, "agent_id": machine.name})
            machine.ends_at = tick + ATTEMPT_TICKS
            return

    def _end(self, machine: Machine, job: Job):
        machine.running = None
        if not machine.is_bad and job.job_id not in self.poison:
            machine.breaker.ended(job, None)
            self.table[job.job_id] = job.model_copy(update={"state": JobState.COMPLETED})
            return
        machine.failed.add(job.job_id)
        machine.breaker.ended(job, JobFailure(CRASH, "x"))
        delay = retry_delay(job, CRASH)
        after = failed_on(job, machine.name)
        self.table[job.job_id] = after
        if delay is None:
            self.table[job.job_id] = after.model_copy(update={"state": JobState.FAILED})
        else:
            self.queue.append((self.clock.now + delay.total_seconds(), after))

    def removed(self) -> list[Machine]:
        return [m for m in self.machines if m.breaker.phase is Phase.CONDEMNED]

    def good_jobs(self) -> list[JobState]:
        return [job.state for job_id, job in self.table.items() if job_id not in self.poison]


SEEDS = st.integers(min_value=0, max_value=2**32)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_bad_machine_among_ten_fails_few_attempts_is_removed_and_costs_no_job(seed):
    fleet = SimulatedFleet(10, bad=1, seed=seed)
    fleet.submit(200)
    fleet.run()

    assert [m.name for m in fleet.removed()] == ["i-0"]
    assert len(fleet.machines[0].failed) <= RULES.failures + 1
    assert set(fleet.good_jobs()) == {JobState.COMPLETED}


@given(seed=SEEDS, good=st.sampled_from([0, 20, 200]))
@settings(max_examples=10, deadline=None)
def test_a_batch_of_poison_jobs_removes_no_good_machine_and_stops_no_good_job(seed, good):
    fleet = SimulatedFleet(10, bad=0, seed=seed)
    fleet.submit(200, poison=True)
    fleet.submit(good)
    fleet.run()

    assert len(fleet.removed()) <= 1
    assert set(fleet.good_jobs()) <= {JobState.COMPLETED}
    assert {fleet.table[job_id].state for job_id in fleet.poison} == {JobState.FAILED}


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_bad_machine_is_found_among_poison_jobs_too(seed):
    fleet = SimulatedFleet(10, bad=1, seed=seed)
    fleet.submit(40, poison=True)
    fleet.submit(400)
    fleet.run()

    assert "i-0" in [m.name for m in fleet.removed()]
    assert len(fleet.removed()) <= 2
    lost = fleet.good_jobs().count(JobState.FAILED)
    assert lost <= RULES.failures


def test_an_outage_that_every_machine_sees_removes_none():
    fleet = SimulatedFleet(10, bad=10, seed=1)
    fleet.submit(300)
    fleet.run(ticks=12 * 10)  # ten minutes
    assert {m.breaker.phase for m in fleet.machines} & {Phase.SUSPECTED, Phase.PROBING}

    for machine in fleet.machines:
        machine.is_bad = False
    fleet.run()

    assert fleet.removed() == []
    assert fleet.good_jobs().count(JobState.FAILED) <= 10 * (RULES.failures + 5)
