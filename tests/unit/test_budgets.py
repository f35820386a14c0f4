"""Budgets: what was set, what past runs teach, and that healthy jobs keep clear of both."""

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent.budgets import (
    ENOUGH_RUNS,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    STAGE_FLOOR,
    TOTAL_FLOOR,
    Budgets,
    StageBudget,
    learned,
)
from scanfleet.history import PastRun

HOUR = timedelta(hours=1)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def runs(*durations: float) -> tuple[PastRun, ...]:
    return tuple(PastRun(duration, {"align": duration / 2}) for duration in durations)


def test_a_stage_of_its_own_has_its_own_budgets_and_others_the_general_ones():
    budgets = Budgets(
        total=HOUR,
        idle=seconds(100),
        stage=seconds(500),
        stages={"export": StageBudget(idle=seconds(300)), "align": StageBudget(total=seconds(50))},
    )

    assert budgets.idle_in("export") == seconds(300)
    assert budgets.total_of("export") == seconds(500)
    assert budgets.idle_in("align") == seconds(100)
    assert budgets.total_of("align") == seconds(50)
    assert budgets.idle_in(None) == seconds(100)
    assert budgets.total_of(None) is None


def test_the_interval_is_a_small_part_of_the_shortest_budget_within_bounds():
    assert Budgets(total=HOUR).interval == LONGEST_INTERVAL
    assert Budgets(total=HOUR, idle=seconds(10)).interval == seconds(0.5)
    assert Budgets(total=HOUR, stages={"a": StageBudget(total=seconds(4))}).interval == seconds(0.2)
    assert Budgets(total=seconds(0.1)).interval == SHORTEST_INTERVAL


def test_the_longest_window_counts_single_stages_too():
    assert Budgets(total=HOUR).longest_window == seconds(180)
    stages = {"export": StageBudget(idle=seconds(400))}
    assert Budgets(total=HOUR, stages=stages).longest_window == seconds(400)


def test_few_runs_teach_nothing():
    budgets = Budgets(total=HOUR)

    assert learned(budgets, runs(*[400.0] * (ENOUGH_RUNS - 1))) == budgets


def test_enough_runs_shorten_total_and_stages():
    taught = learned(Budgets(total=HOUR), runs(*[400.0] * ENOUGH_RUNS))

    assert taught.total == seconds(1200)
    assert taught.learned_from == ENOUGH_RUNS
    assert taught.total_of("align") == seconds(800)
    assert taught.total_of("merge") is None


def test_what_past_runs_teach_is_never_above_what_was_set():
    budgets = Budgets(total=seconds(900), stages={"align": StageBudget(total=seconds(2000))})

    taught = learned(budgets, runs(*[400.0] * ENOUGH_RUNS))

    assert taught.total == seconds(900)
    assert taught.learned_from == 0
    assert taught.total_of("align") == seconds(2000), "a set stage budget stays"


def test_a_set_general_stage_budget_is_not_learned_over():
    taught = learned(Budgets(total=HOUR, stage=seconds(1000)), runs(*[400.0] * ENOUGH_RUNS))

    assert taught.total_of("align") == seconds(1000)


def test_a_set_idle_budget_of_a_stage_survives_learning():
    budgets = Budgets(total=HOUR, stages={"align": StageBudget(idle=seconds(300))})

    taught = learned(budgets, runs(*[400.0] * ENOUGH_RUNS))

    assert taught.idle_in("align") == seconds(300)
    assert taught.total_of("align") == seconds(800)


def test_quick_runs_do_not_teach_less_than_the_floors():
    taught = learned(Budgets(total=HOUR), runs(*[2.0] * ENOUGH_RUNS))

    assert taught.total == TOTAL_FLOOR
    assert taught.total_of("align") == STAGE_FLOOR


def test_a_stage_that_few_runs_had_is_not_learned():
    rare = tuple(PastRun(400.0, {"repair": 10.0}) for _ in range(ENOUGH_RUNS - 1))

    assert learned(Budgets(total=HOUR), runs(400.0) + rare).total_of("repair") is None


@given(st.lists(st.floats(0, 1e6), min_size=ENOUGH_RUNS, max_size=150))
def test_learning_never_lengthens_and_never_goes_below_the_floor(durations):
    taught = learned(Budgets(total=HOUR), runs(*durations))

    assert TOTAL_FLOOR <= taught.total <= HOUR


def test_no_healthy_run_of_290_to_900_s_exceeds_what_twenty_others_taught():
    """Simulated: the hardest case is the fewest runs, all of them by chance quick."""
    chance = random.Random(7)
    for _ in range(2_000):
        taught = learned(Budgets(total=HOUR), runs(*(chance.uniform(290, 900) for _ in range(ENOUGH_RUNS))))
        assert taught.total > seconds(900)
        assert taught.total_of("align") > seconds(450)
