"""Predictions are honest: of many replayed jobs the 80 % range holds about 80 %, and is not wide for nothing.

Every coverage is that of seeded replays: each job is predicted from those before it, as the job table keeps
them, and from nothing else.
"""

import math
import sys
from random import Random

import pytest

from scanfleet.conformal import FEW, Series, Value, range_of
from scanfleet.contract import Pool
from scanfleet.jobs import Job, JobState
from scanfleet.past_runs import PastRun, settings_fingerprint
from scanfleet.prediction import Forecast, Position, forecast, position_of
from tests.support.past_jobs import (
    GB,
    LAWS,
    TRACE,
    jobs_of,
    luckless_width,
    replay,
    trace_jobs,
    when,
)

LEAST, MOST = 0.75, 0.85
JOBS = 1200
BY_NAME = {law.name: law for law in LAWS}
every_law = pytest.mark.parametrize("law", LAWS, ids=[law.name for law in LAWS])


def say(line: str) -> None:
    """Print a figure: `pytest -rP` shows it."""
    sys.stdout.write(line + "\n")


def is_honest(score, *, oracle: float | None = None) -> None:
    beside = "" if oracle is None else f", the oracle's is {oracle:.2f}"
    say(f"holds {score.coverage:.1%} of {score.asked}; high / low is {score.width:.2f}{beside}")
    assert LEAST <= score.coverage <= MOST


def stage_at(job: PastRun, seconds: float) -> tuple[str, float]:
    """Return the stage that the program is in after so many seconds, and since when."""
    began = 0.0
    for name, took in job.stages.items():
        if seconds <= began + took:
            return name, seconds - began
        began += took
    raise AssertionError(seconds)


# --- Coverage ----------------------------------------------------------------------------------------------


@every_law
def test_the_range_of_a_program_holds_four_of_five_jobs_and_is_about_as_narrow_as_can_be(law):
    score = replay(jobs_of(law, JOBS, seed=1), ask=lambda f, job: (f.program(), job.seconds))

    is_honest(score, oracle=luckless_width(law))
    assert math.log(score.width) < 1.25 * math.log(luckless_width(law))


@every_law
def test_the_range_of_a_stage_holds_four_of_five(law):
    is_honest(
        replay(
            jobs_of(law, JOBS, seed=2), ask=lambda f, job: (f.stage("align"), job.stages["align"]), every=2
        )
    )


@every_law
def test_what_is_left_of_a_stage_and_all_after_it_is_held_four_times_of_five(law):
    random = Random(3)

    def ask(found: Forecast, job: PastRun):
        at = random.random() * job.seconds
        stage, since = stage_at(job, at)
        position = Position(JobState.PROCESSING, at, 0.0, stage, since)
        return found.remaining(position), job.seconds - at + job.upload_seconds

    is_honest(replay(jobs_of(law, JOBS, seed=3), ask=ask, every=3))


@pytest.mark.parametrize("step", [1, 25], ids=["fine", "in great steps"])
@every_law
def test_what_is_left_after_a_percentage_is_held_four_times_of_five(law, step):
    random = Random(4)

    def ask(found: Forecast, job: PastRun):
        at = random.random() * job.seconds
        told = max(percent for percent in range(0, 101, step) if when(job.stages, percent) <= at)
        position = Position(JobState.PROCESSING, at, float(told))
        return found.remaining(position), job.seconds - at + job.upload_seconds

    is_honest(replay(jobs_of(law, JOBS, seed=4, step=step), ask=ask, every=3))


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.DOWNLOADING, JobState.UPLOADING])
@every_law
def test_the_other_states_are_held_four_times_of_five(law, state):
    random = Random(5)

    def ask(found: Forecast, job: PastRun):
        lengths = {JobState.DOWNLOADING: job.download_seconds, JobState.UPLOADING: job.upload_seconds}
        at = random.random() * lengths.get(state, 0.0)
        whole = job.download_seconds + job.seconds + job.upload_seconds
        left = (job.upload_seconds if state is JobState.UPLOADING else whole) - at
        return found.remaining(Position(state, at)), left

    is_honest(replay(jobs_of(law, JOBS, seed=5), ask=ask, every=3))


@every_law
def test_inputs_of_unknown_size_are_of_any_size(law):
    jobs = jobs_of(law, JOBS, seed=6)

    score = replay(jobs, ask=lambda f, job: (f.program(), job.seconds), knows_size=False, every=2)

    is_honest(score)
    assert score.width > 2 * luckless_width(law) or law.name == "heavy tail"


@pytest.mark.skipif(not TRACE.exists(), reason=f"the shared workload trace is not here: {TRACE}")
def test_on_a_real_clusters_trace_the_range_holds_four_of_five_jobs():
    """By tenant, because a tenant's jobs are one program's rather than the cluster's; GPUs as the size."""
    scores = {
        tenant: replay(iter(jobs), ask=lambda f, job: (f.program(), job.seconds), every=4)
        for tenant, jobs in trace_jobs().items()
    }

    for tenant, score in scores.items():
        say(f"{tenant}: holds {score.coverage:.1%} of {score.asked}; high / low is {score.width:.1f}")
    asked = sum(score.asked for score in scores.values())
    assert LEAST <= sum(score.held for score in scores.values()) / asked <= MOST
    assert all(0.65 <= score.coverage <= 0.88 for score in scores.values())


# --- What it does with little ------------------------------------------------------------------------------


def test_of_nothing_nothing_is_said():
    nothing = Forecast([], input_bytes=GB, settings="")

    assert nothing.program() is nothing.stage("align") is nothing.whole() is None
    assert all(nothing.remaining(Position(state, 10.0, 20.0, "align", 5.0)) is None for state in JobState)


def test_one_run_gives_a_wide_range_and_more_a_narrower_one():
    def width(count: int) -> float:
        found = Forecast([PastRun(400.0)] * count, input_bytes=None, settings="").program()
        assert found.likely == pytest.approx(400)
        assert found.runs == count
        return found.high / found.low

    assert width(1) > 4
    assert width(1) > width(3) > width(FEW - 1) > width(FEW)


@every_law
def test_ranges_from_few_runs_hold_their_share_or_more(law):
    held = asked = 0
    for seed in range(150):
        for number, job in enumerate(jobs := list(jobs_of(law, 9, seed=seed))[:9]):
            if number in (2, 5, 8):
                said = Forecast(jobs[:number], input_bytes=job.input_bytes, settings=job.settings).program()
                held += said.holds(job.seconds)
                asked += 1

    assert held / asked >= LEAST


def test_a_job_beyond_everything_that_was_gets_no_range():
    runs = [PastRun(100.0 + n) for n in range(30)]

    assert Forecast(runs, input_bytes=None, settings="").remaining(Position(JobState.PROCESSING, 1e6)) is None


def test_a_job_that_has_ended_has_nothing_left():
    runs = list(jobs_of(LAWS[0], 50, seed=1))

    for state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED):
        assert Forecast(runs, input_bytes=GB, settings="usual").remaining(Position(state, 1.0)) is None


# --- What it heeds -----------------------------------------------------------------------------------------


def test_larger_inputs_and_slower_settings_take_longer():
    runs = list(jobs_of(BY_NAME["settings"], 400, seed=1))

    def likely(size: int, settings: str) -> float:
        return Forecast(runs, input_bytes=size, settings=settings).program().likely

    assert likely(4 * GB, "usual") == pytest.approx(4**0.8 * 300, rel=0.2)
    assert likely(GB, "fine") == pytest.approx(750, rel=0.2)
    assert likely(GB, "fast") == pytest.approx(150, rel=0.2)


def test_settings_that_were_never_run_get_a_range_over_all_that_were():
    runs = list(jobs_of(BY_NAME["settings"], 400, seed=1))

    def found(settings: str):
        return Forecast(runs, input_bytes=GB, settings=settings).program()

    assert found("new").low < found("usual").low
    assert found("new").high > found("usual").high


def test_a_job_that_began_slowly_is_expected_to_go_on_so():
    runs = list(jobs_of(LAWS[0], 200, seed=1))
    merging = {"percent": 0.0, "stage": "merge", "stage_elapsed": 1.0}
    usual = 300 * 0.55

    slow, quick = (
        Forecast(runs, input_bytes=GB, settings="usual").remaining(
            Position(JobState.PROCESSING, factor * usual, **merging)
        )
        for factor in (1.5, 0.7)
    )

    assert slow.likely > 1.3 * quick.likely


def test_what_is_left_shrinks_as_the_job_goes_on():
    job = next(jobs_of(LAWS[0], 1, seed=77))
    found = Forecast(jobs_of(LAWS[0], 200, seed=1), input_bytes=job.input_bytes, settings="usual")
    left = []
    for share in (0.05, 0.3, 0.6, 0.9):
        stage, since = stage_at(job, share * job.seconds)
        left.append(found.remaining(Position(JobState.PROCESSING, share * job.seconds, 0.0, stage, since)))

    assert [at.likely for at in left] == sorted((at.likely for at in left), reverse=True)
    assert all(at.low <= at.likely <= at.high for at in left)


def test_runs_from_before_downloads_were_kept_still_tell_of_the_program():
    runs = [PastRun(400.0 + n, {"align": 100.0}) for n in range(20)]

    found = Forecast(runs, input_bytes=GB, settings="")

    assert found.whole().likely == pytest.approx(410, rel=0.02)
    assert found.remaining(Position(JobState.UPLOADING, 1.0)) is None
    assert list(found.stages()) == ["align"]


def test_a_jobs_place_is_read_from_its_record():
    job = Job(
        job_id="01J00000000000000000000000",
        owner="ann",
        processor="medit",
        pool=Pool.WINDOWS_GPU,
        source_uri="s3://scans/in/",
        target_uri="s3://scans/out/",
        settings={"Reduce Roughness": 1},
        state=JobState.PROCESSING,
        stage="align",
        progress_percent=30.0,
        input_bytes=GB,
        created_at=0.0,
        queued_at=0.0,
        state_changed_at=100.0,
        stage_since=160.0,
    )
    same = settings_fingerprint({"Reduce Roughness": 1})
    runs = [PastRun(200.0, input_bytes=GB, settings=same)] * 20 + [PastRun(900.0, input_bytes=GB)] * 20

    assert position_of(job, 190.0) == Position(JobState.PROCESSING, 90.0, 30.0, "align", 30.0)
    assert position_of(job, 50.0).elapsed == 0.0, "clocks may differ"
    assert forecast(job, runs).program().likely == pytest.approx(200.0)


def test_a_range_is_finite_and_in_order_whatever_the_past_was():
    random = Random(1)
    for count in (1, 2, 9, 10, 11, 40, 200):
        for _ in range(20):
            values = [
                Value(random.choice([0.0, 1e-6, 1.0, 400.0, 1e9]), random.choice([None, 0, 1, GB]), "s")
                for _ in range(count)
            ]
            for size in (None, 0, 1, 10**15):
                found = range_of(Series(values, settings="s").candidates(size))
                assert 0 < found.low <= found.likely <= found.high < math.inf
