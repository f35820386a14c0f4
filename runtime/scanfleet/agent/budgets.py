"""How long a program may do what: start up, stand still, spend in a stage, finish, run altogether."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from scanfleet.history import high_quantile
from scanfleet.past_runs import PastRun

LONGEST_INTERVAL = timedelta(seconds=2)
"""Between two looks: a look costs some milliseconds of CPU, and budgets are minutes."""
SHORTEST_INTERVAL = timedelta(seconds=0.05)
LOOKS_PER_BUDGET = 20

ENOUGH_RUNS = 20
"""Fewer past runs teach nothing: the slowest kind of job may not have been among them."""
HIGH_QUANTILE = 0.95
TOTAL_FACTOR, TOTAL_FLOOR = 3.0, timedelta(minutes=10)
STAGE_FACTOR, STAGE_FLOOR = 4.0, timedelta(minutes=5)
"""Docs/decisions/0041 has the reasons for these numbers; benchmarks/watchdog.py proves them."""


class Budget(StrEnum):
    """What a program can run out of. docs/watchdog.md has a row for each."""

    STARTUP = "startup"
    IDLE = "idle"
    FINISH = "finish"
    STAGE = "stage"
    TOTAL = "total"
    DIALOG = "dialog"


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """One stage's own budgets. None: the general one."""

    idle: timedelta | None = None
    total: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """The budgets of one run.

    total: from start to end, whatever it does. startup: without a sign of life before it has done anything.
    idle: without a sign of life since. finish: the same once it has reported 100 %. stage: within one stage,
    whatever it does; None: no limit but the total. stages: budgets of single stages.
    learned_from: how many past runs the total comes from; 0 when it was set.
    """

    total: timedelta
    startup: timedelta = timedelta(seconds=180)
    idle: timedelta = timedelta(seconds=120)
    finish: timedelta = timedelta(seconds=60)
    stage: timedelta | None = None
    stages: Mapping[str, StageBudget] = field(default_factory=dict)
    learned_from: int = 0

    def idle_in(self, stage: str | None) -> timedelta:
        """Return how long the program may stand still in a stage."""
        own = self.stages.get(stage) if stage else None
        return own.idle if own and own.idle is not None else self.idle

    def total_of(self, stage: str | None) -> timedelta | None:
        """Return how long a stage may take; None without a limit."""
        if stage is None:
            return None
        own = self.stages.get(stage)
        return own.total if own and own.total is not None else self.stage

    @property
    def interval(self) -> timedelta:
        """Return how long to wait between two looks: a small part of the shortest budget."""
        shortest = min(self._all()) / LOOKS_PER_BUDGET
        return max(SHORTEST_INTERVAL, min(LONGEST_INTERVAL, shortest))

    @property
    def longest_window(self) -> timedelta:
        """Return the longest time over which the program may have to be seen standing still."""
        idles = [own.idle for own in self.stages.values() if own.idle is not None]
        return max(self.startup, self.idle, self.finish, *idles)

    def _all(self) -> Iterator[timedelta]:
        yield from (self.total, self.startup, self.idle, self.finish)
        for own in (StageBudget(total=self.stage), *self.stages.values()):
            yield from (budget for budget in (own.idle, own.total) if budget is not None)


def learned(budgets: Budgets, runs: tuple[PastRun, ...]) -> Budgets:
    """Return the budgets tightened by what past runs of like inputs took; the same with too few of them.

    What was set stays: a learned total is never above the set one, and stages with a limit of their own (or a
    general one) keep it.
    """
    if len(runs) < ENOUGH_RUNS:
        return budgets
    total = _learned([run.seconds for run in runs], TOTAL_FACTOR, TOTAL_FLOOR)
    if total < budgets.total:
        budgets = replace(budgets, total=total, learned_from=len(runs))
    if budgets.stage is not None:
        return budgets
    stages = dict(budgets.stages)
    for stage in {name for run in runs for name in run.stages}:
        seconds = [run.stages[stage] for run in runs if stage in run.stages]
        own = stages.get(stage, StageBudget())
        if len(seconds) >= ENOUGH_RUNS and own.total is None:
            stages[stage] = replace(own, total=_learned(seconds, STAGE_FACTOR, STAGE_FLOOR))
    return replace(budgets, stages=stages)


def _learned(seconds: list[float], factor: float, floor: timedelta) -> timedelta:
    return max(floor, timedelta(seconds=factor * high_quantile(seconds, HIGH_QUANTILE)))
