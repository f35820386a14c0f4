"""Where a job that has failed before should run, and what an agent knows of the others."""

from datetime import timedelta

import pytest

from scanfleet.agent.breaker import Peers
from scanfleet.agent.placement import MOST_STEPS_BACK, Neighbours, Place, StepBack, place
from scanfleet.agent_reports import AgentReport
from scanfleet.contract import OTHER_MACHINE_WAIT, Pool
from scanfleet.errors import Unavailable
from scanfleet.jobs import Failure, FailureClass, Job, JobState, new_job_id, utc

ME, OTHER = "i-me", "i-other"
CRASH, MEMORY, LOST = FailureClass.CRASH, FailureClass.OUT_OF_MEMORY, FailureClass.LOST_MACHINE
QUEUED_AT = 1_800_000_000.0
WAIT = OTHER_MACHINE_WAIT.total_seconds()


def failed(*failures: tuple[FailureClass, str], **facts) -> Job:
    """A queued job with these failures, each as (class, machine)."""
    return Job(
        job_id=new_job_id(),
        owner="ann",
        processor="scripted",
        pool=Pool.LINUX_CPU,
        source_uri="s3://data/in/",
        target_uri="s3://data/out/",
        created_at=0.0,
        queued_at=QUEUED_AT,
        state_changed_at=QUEUED_AT,
        failures=tuple(
            Failure(failure_class=kind, reason="x", attempt=n, agent_id=machine, at=utc(0))
            for n, (kind, machine) in enumerate(failures, start=1)
        ),
        **facts,
    )


def place_of(job: Job, *, waited: float = 0.0, others_serve: bool = True) -> Place:
    return place(job, agent_id=ME, now=QUEUED_AT + waited, others_serve=lambda: others_serve)


@pytest.mark.parametrize(
    "kind", [CRASH, FailureClass.HANG, MEMORY, FailureClass.PROGRAM_ERROR, FailureClass.TRANSFER]
)
def test_a_job_that_failed_here_is_left_to_other_machines(kind):
    assert place_of(failed((kind, ME))) is Place.ELSEWHERE


@pytest.mark.parametrize(
    "job",
    [
        failed(),
        failed((CRASH, OTHER)),
        failed((CRASH, ME), (CRASH, OTHER)),
        failed((LOST, ME)),
        failed((CRASH, ME), failures_forgiven=1),
        failed((CRASH, ME), state=JobState.PROCESSING),
        failed((CRASH, ME), committed_attempt=1),
    ],
    ids=["new", "elsewhere", "elsewhere last", "handed back", "forgiven", "silent owner", "to publish only"],
)
def test_other_jobs_run_here(job):
    assert place_of(job) is Place.HERE


def test_a_lost_machine_since_does_not_hide_the_failure_before():
    assert place_of(failed((CRASH, ME), (LOST, OTHER))) is Place.ELSEWHERE


def test_others_are_waited_for_no_longer_than_the_limit():
    job = failed((CRASH, ME))

    assert place_of(job, waited=WAIT - 1) is Place.ELSEWHERE
    assert place_of(job, waited=WAIT) is Place.HERE


def test_without_others_the_job_runs_here_at_once():
    assert place_of(failed((CRASH, ME)), others_serve=False) is Place.HERE


def test_others_are_not_asked_for_when_it_does_not_matter():
    def nobody_asks() -> bool:
        raise AssertionError("asked")

    assert place(failed((CRASH, OTHER)), agent_id=ME, now=QUEUED_AT, others_serve=nobody_asks) is Place.HERE


def test_a_job_that_ran_out_of_memory_runs_alone():
    assert place_of(failed((MEMORY, OTHER))) is Place.ALONE
    assert place_of(failed((MEMORY, ME)), waited=WAIT) is Place.ALONE
    assert place_of(failed((MEMORY, ME), (LOST, OTHER)), others_serve=False) is Place.ALONE
    assert place_of(failed((MEMORY, OTHER), (CRASH, OTHER))) is Place.HERE


# --- Neighbours --------------------------------------------------------------------------------------------


class Reports:
    """The directory's one question."""

    def __init__(self, *reports):
        self.reports = reports
        self.is_down = False
        self.questions = 0

    def in_service(self):
        self.questions += 1
        if self.is_down:
            raise Unavailable("the table does not answer")
        return self.reports


def report(agent_id: str, pool: Pool = Pool.LINUX_CPU, **facts) -> AgentReport:
    return AgentReport(agent_id=agent_id, pool=pool, slots=1, busy=0, started_at=0, seen_at=0, **facts)


def neighbours(*reports: AgentReport) -> tuple[Neighbours, Reports]:
    directory = Reports(report(ME), *reports)
    return Neighbours(directory, agent_id=ME, pool=Pool.LINUX_CPU, clock=lambda: 0.0), directory


def test_those_that_take_jobs_and_those_that_suspect_themselves_are_counted():
    found, _ = neighbours(
        report("serves"),
        report("drains", is_stopping=True),
        report("warm", is_on_hold=True),
        report("suspected", is_suspended=True),
        report("of another pool", Pool.WINDOWS_GPU),
    )

    assert found.look() == Peers(serving=1, suspended=1)


@pytest.mark.parametrize("fact", ["is_stopping", "is_on_hold", "is_suspended"])
def test_nobody_else_serves_while_none_takes_jobs(fact):
    found, _ = neighbours(report("other", **{fact: True}))

    assert not found.serve()


def test_many_questions_in_a_row_read_the_reports_once():
    found, directory = neighbours(report("other"))

    assert [found.serve() for _ in range(10)] == [True] * 10
    assert directory.questions == 1


def test_when_nobody_can_say_others_are_taken_to_serve():
    found, directory = neighbours()
    directory.is_down = True

    assert found.serve()


# --- Stepping back -----------------------------------------------------------------------------------------


def test_an_agent_that_leaves_a_job_to_others_asks_for_nothing_for_a_while():
    now = [100.0]
    step_back = StepBack(timedelta(seconds=3), clock=lambda: now[0])
    before = step_back.seconds_left

    step_back.begin("A")
    at_once = step_back.seconds_left
    now[0] += 3

    assert (before, at_once, step_back.seconds_left) == (0, 3, 0)


def test_a_job_that_nobody_takes_does_not_keep_the_others_waiting():
    now = [100.0]
    step_back = StepBack(timedelta(seconds=3), clock=lambda: now[0])
    waits = []
    for job_id in [*["A"] * (MOST_STEPS_BACK + 2), "B"]:
        step_back.begin(job_id)
        waits.append(step_back.seconds_left)
        now[0] += 10

    assert waits == [*[3] * MOST_STEPS_BACK, 0, 0, 3]
