"""When a program hangs, decided over scripted samples and a scripted clock."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent.budgets import Budget, Budgets, StageBudget
from scanfleet.agent.verdict import (
    BEGUN_CPU_SECONDS,
    IDLE_CORES,
    IDLE_GPU_PERCENT,
    IDLE_GROWTH_BYTES,
    IDLE_IO_BYTES,
    Judge,
    Look,
    Verdict,
)
from scanfleet.agent.watch import Sample

STEP = 2.0
BUDGETS = Budgets(
    total=timedelta(seconds=3600),
    startup=timedelta(seconds=180),
    idle=timedelta(seconds=120),
    finish=timedelta(seconds=60),
)
BUSY = {"cpu_seconds": STEP}
QUIET: dict[str, float] = {}


class Tape:
    """A program's looks, one after the other, until a verdict."""

    def __init__(self, budgets: Budgets = BUDGETS) -> None:
        self.judge = Judge(budgets)
        self.at = 0.0
        self.verdict: Verdict | None = None
        self.percent = 0.0
        self.stage: str | None = None

    def play(self, seconds: float, signs: dict[str, float] = QUIET, *, step: float = STEP) -> "Tape":
        """Go on like this for so long, or until the verdict. signs: of every look."""
        end = self.at + seconds
        while self.at < end and self.verdict is None:
            self.at += step
            self.look(signs)
        return self

    def look(self, signs: dict[str, float] | None) -> None:
        sample = None if signs is None else sample_of(self.at, signs)
        look = Look(at=self.at, sample=sample, percent=self.percent, stage=self.stage)
        self.verdict = self.judge.take(look)


def sample_of(at: float, signs: dict[str, float]) -> Sample:
    nothing = {
        "cpu_seconds": 0.0,
        "io_bytes": 0,
        "printed_bytes": 0,
        "output_growth_bytes": 0,
        "resident_bytes": 0,
        "processes": 1,
    }
    return Sample(at=at, **(nothing | signs))


def begun(budgets: Budgets = BUDGETS) -> Tape:
    """Return the tape of a program that worked for a minute."""
    return Tape(budgets).play(60, BUSY)


def test_a_program_that_does_nothing_after_its_start_is_ended_by_the_start_up_budget():
    tape = Tape().play(1000)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.STARTUP
    assert tape.at == 180
    assert "no sign of life since its start" in tape.verdict.reason


def test_loading_alone_does_not_count_as_a_beginning():
    tape = Tape().play(4, {"cpu_seconds": 1.5}).play(1000)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.STARTUP
    assert 180 <= tape.at <= 190


@pytest.mark.parametrize("signs", [{"printed_bytes": 1}, {"output_growth_bytes": 10_000}, BUSY])
def test_a_program_that_has_begun_has_the_idle_budget(signs):
    tape = Tape().play(BEGUN_CPU_SECONDS + STEP, signs).play(1000)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.IDLE


def test_a_program_that_stands_still_is_ended_when_the_window_is_over():
    tape = begun().play(1000)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.IDLE
    assert tape.at == 60 + 120


def test_the_reason_is_one_sentence_with_the_numbers_and_the_last_sign_of_life():
    tape = begun()
    tape.stage = "align"
    tape.play(1000, {"io_bytes": 100, "cpu_seconds": 0.001, "gpu_percent": 1.0})

    assert tape.verdict is not None
    assert tape.verdict.reason == (
        "the program stood still in stage 'align' for 120 s: nothing printed, 0.06 CPU seconds,"
        " 6000 bytes read or written, output grew by 0 bytes, GPU at 1.0 %;"
        " its last sign of life was 120 s ago, 60 s after its start"
    )


@pytest.mark.parametrize(
    "sign",
    [
        {"cpu_seconds": 1.5 * IDLE_CORES * STEP},
        {"io_bytes": int(1.5 * IDLE_IO_BYTES * STEP)},
        {"output_growth_bytes": int(1.5 * IDLE_GROWTH_BYTES * STEP)},
        {"gpu_percent": 1.5 * IDLE_GPU_PERCENT},
        {"printed_bytes": 1},
    ],
    ids=lambda sign: next(iter(sign)),
)
def test_one_signal_is_enough_to_be_healthy(sign):
    assert begun().play(3000, sign).verdict is None


def test_a_trickle_of_everything_but_words_is_standing_still():
    trickle = {
        "cpu_seconds": 0.5 * IDLE_CORES * STEP,
        "io_bytes": int(0.5 * IDLE_IO_BYTES * STEP),
        "output_growth_bytes": int(0.5 * IDLE_GROWTH_BYTES * STEP),
        "gpu_percent": 0.5 * IDLE_GPU_PERCENT,
    }
    tape = begun().play(3000, trickle)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.IDLE
    assert tape.at <= 60 + 120 + STEP


def test_work_in_bursts_is_work():
    tape = begun()
    for _ in range(20):
        tape.play(100).play(STEP, {"cpu_seconds": 1.5})

    assert tape.verdict is None


def test_slow_work_around_a_pause_is_work():
    """Over the whole window its average is next to nothing."""
    slow = {"cpu_seconds": 1.5 * IDLE_CORES * STEP}

    tape = begun().play(40, slow).play(90).play(600, slow)

    assert tape.verdict is None


def test_a_word_now_and_then_keeps_an_idle_program_until_its_limits():
    tape = begun(Budgets(total=timedelta(seconds=900)))
    while tape.verdict is None:
        tape.play(100).play(STEP, {"printed_bytes": 3})

    assert tape.verdict.budget is Budget.TOTAL
    assert 900 <= tape.at <= 900 + STEP


def test_a_program_that_reported_100_percent_has_the_finish_budget():
    tape = begun()
    tape.percent = 100.0
    tape.play(1000)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.FINISH
    assert tape.at == 60 + 60


def test_a_program_that_still_writes_after_100_percent_is_healthy():
    tape = begun()
    tape.percent = 100.0

    assert tape.play(1800, {"output_growth_bytes": 1_000_000}).verdict is None


def test_a_stage_with_its_own_idle_budget_may_stand_still_longer():
    tape = begun(Budgets(total=timedelta(hours=1), stages={"wait": StageBudget(idle=timedelta(seconds=600))}))
    tape.stage = "wait"
    tape.play(1000)

    assert tape.verdict is not None
    assert 60 + 590 < tape.at <= 60 + 600


def test_a_stage_beyond_its_limit_is_ended_however_busy():
    tape = Tape(Budgets(total=timedelta(hours=1), stage=timedelta(seconds=300)))
    tape.stage = "load"
    tape.play(200, BUSY)
    tape.stage = "align"
    tape.play(1000, BUSY)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.STAGE
    assert 500 <= tape.at <= 500 + STEP
    assert "stage 'align' longer than that stage's limit of 300 s" in tape.verdict.reason


def test_a_program_beyond_its_limit_is_ended_however_busy():
    tape = Tape(Budgets(total=timedelta(seconds=600), learned_from=34)).play(2000, BUSY)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.TOTAL
    assert tape.at == 600
    assert "longer than its limit of 600 s, learned from 34 runs" in tape.verdict.reason


def test_a_machine_that_slept_ends_nothing():
    tape = begun().play(100)
    tape.play(8 * 3600, step=8 * 3600)

    assert tape.verdict is None
    assert tape.at > 8 * 3600


def test_looks_that_come_late_extend_every_window():
    tape = begun().play(2000, step=40)

    assert tape.verdict is not None
    assert tape.verdict.budget is Budget.IDLE
    assert tape.at >= 60 + 120 / (3 * STEP) * 40


def test_a_clock_that_goes_back_ends_nothing():
    tape = begun()
    tape.at -= 50
    tape.look(QUIET)

    assert tape.verdict is None


def test_who_cannot_see_does_not_say_that_nothing_happened():
    tape = begun().play(110)
    tape.at += STEP
    tape.look(None)

    assert tape.play(118).verdict is None
    assert tape.play(1000).verdict is not None


def test_who_never_sees_anything_still_keeps_the_total():
    tape = Tape(Budgets(total=timedelta(seconds=600)))
    while tape.verdict is None:
        tape.at += STEP
        tape.look(None)

    assert tape.verdict.budget is Budget.TOTAL
    assert tape.at == 600


def test_a_machine_without_a_gpu_is_judged_by_the_rest():
    tape = begun().play(1000, {"gpu_percent": None})

    assert tape.verdict is not None
    assert "no GPU could be asked" in tape.verdict.reason


signs = st.fixed_dictionaries(
    {},
    optional={
        "cpu_seconds": st.floats(0, 100),
        "io_bytes": st.integers(0, 10**9),
        "printed_bytes": st.integers(0, 1000),
        "output_growth_bytes": st.integers(0, 10**9),
        "gpu_percent": st.floats(0, 100),
    },
)


@given(st.lists(st.tuples(st.floats(0, 300), signs), max_size=80))
def test_no_program_is_ended_sooner_after_its_last_word_than_its_shortest_budget(tape_of):
    tape, last_word = Tape(), 0.0
    for step, sign in tape_of:
        tape.at += step
        tape.look(sign)
        if sign.get("printed_bytes"):
            last_word = tape.at
        if tape.verdict is not None and tape.verdict.budget is not Budget.TOTAL:
            assert tape.at - last_word >= BUDGETS.finish.total_seconds()
            return
