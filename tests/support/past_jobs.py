"""Jobs that never ran: durations by known laws, so that a prediction's honesty can be counted.

Every law knows its own true range (the oracle's): what somebody would say who knows the law, the job's size
and settings and how fast the fleet is on that day, but not its luck.
"""

import csv
import gzip
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median, quantiles

from scanfleet.conformal import Range
from scanfleet.history import RUNS_KEPT, bucket_of, slot_of
from scanfleet.past_runs import PastRun
from scanfleet.prediction import MARKS, Forecast

GB = 1024**3
ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "philly_2017_jobs.csv.gz"
SHARES = {"load": 0.1, "align": 0.45, "merge": 0.3, "export": 0.15}
CURVE = {"load": 5.0, "align": 30.0, "merge": 80.0, "export": 100.0}
"""Percent at each stage's end: nothing like its share of the time."""


@dataclass(frozen=True)
class Law:
    """How long jobs take. typical: seconds by (size, settings, number of the job). luck: log factor."""

    name: str
    typical: Callable[[int, str, int], float]
    luck: Callable[[Random], float]
    settings: tuple[str, ...] = ("usual",)

    def oracle(self) -> tuple[float, float]:
        """Return the true 10 % and 90 % quantiles of the luck, as factors."""
        drawn = sorted(self.luck(Random(n)) for n in range(4000))
        return math.exp(drawn[400]), math.exp(drawn[3600])


def plain(random: Random) -> float:
    return random.gauss(0, 0.25)


def heavy(random: Random) -> float:
    """Mostly near; one in ten far longer, by a Pareto tail."""
    return random.gauss(0, 0.15) + (math.log(random.paretovariate(1.5)) if random.random() < 0.1 else 0.0)


def by_size(size: int, _settings: str, _number: int) -> float:
    return float(300 * (size / GB) ** 0.8)


LAWS = (
    Law("size", by_size, plain),
    Law("heavy tail", by_size, heavy),
    Law(
        "drift",
        lambda size, settings, n: by_size(size, settings, n) * math.exp(0.4 * math.sin(n / 150)),
        plain,
    ),
    Law("slower release", lambda size, s, n: by_size(size, s, n) * (1.3 if n % 500 >= 250 else 1.0), plain),
    Law(
        "settings",
        lambda size, settings, n: (
            by_size(size, settings, n) * {"fast": 0.5, "usual": 1.0, "fine": 2.5}[settings]
        ),
        plain,
        ("fast", "usual", "usual", "fine"),
    ),
    Law(
        "all of it",
        lambda size, settings, n: (
            by_size(size, settings, n)
            * {"fast": 0.5, "usual": 1.0, "fine": 2.5}[settings]
            * math.exp(0.3 * math.sin(n / 200))
        ),
        heavy,
        ("fast", "usual", "usual", "fine"),
    ),
)


def jobs_of(law: Law, count: int, *, seed: int, step: int = 1) -> Iterator[PastRun]:
    """Yield jobs in the order of their ends. Their stages share one luck and have some of their own.

    step: they tell their progress in steps of so many percent.
    """
    random = Random(seed)
    for number in range(count):
        size = int(GB * math.exp(random.uniform(math.log(0.5), math.log(4))))
        settings = random.choice(law.settings)
        own = law.typical(size, settings, number) * math.exp(law.luck(random))
        parts = {name: share * random.lognormvariate(0, 0.2) for name, share in SHARES.items()}
        whole = sum(parts.values())
        stages = {name: own * part / whole for name, part in parts.items()}
        yield PastRun(
            own,
            stages,
            input_bytes=size,
            settings=settings,
            download_seconds=size / GB * 10 * random.lognormvariate(0, 0.3),
            upload_seconds=size / GB * 5 * random.lognormvariate(0, 0.3),
            marks={mark: when(stages, math.ceil(mark / step) * step) for mark in MARKS},
            finished_at=float(number + 1),
        )


def when(stages: dict[str, float], percent: float) -> float:
    """Return when a program with these stages is at a percentage."""
    began, low = 0.0, 0.0
    for name, seconds in stages.items():
        high = CURVE[name]
        if percent <= high:
            return began + seconds * (percent - low) / (high - low)
        began, low = began + seconds, high
    return began


class Kept:
    """The runs that the job table would hold: a hundred places a size class, by a hash."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str], PastRun] = {}
        self._number = 0

    def add(self, run: PastRun) -> None:
        """Keep a run in its place."""
        self._number += 1
        self._places[bucket_of(run.input_bytes or 0), slot_of(f"job {self._number}")] = run

    @property
    def runs(self) -> list[PastRun]:
        """Return what is kept."""
        assert len(self._places) <= RUNS_KEPT * len({size for size, _ in self._places})
        return list(self._places.values())


@dataclass
class Score:
    """How often a range held what came, and how wide ranges were: the ratio of its ends."""

    held: int = 0
    asked: int = 0
    widths: tuple[float, ...] = ()

    def count(self, said: Range | None, came: float) -> None:
        """Count one prediction; none at all counts as asked and not held."""
        self.asked += 1
        if said is not None:
            self.held += said.holds(came)
            self.widths += (said.high / said.low,)

    @property
    def coverage(self) -> float:
        """Return the share of predictions that held."""
        return self.held / self.asked

    @property
    def width(self) -> float:
        """Return the median ratio of a range's ends."""
        return median(self.widths)


def replay(
    jobs: Iterator[PastRun],
    *,
    ask: Callable[[Forecast, PastRun], tuple[Range | None, float]],
    warm_up: int = 100,
    knows_size: bool = True,
    every: int = 1,
) -> Score:
    """Predict each job from those before it, as the job table would have kept them."""
    kept, score = Kept(), Score()
    for number, job in enumerate(jobs):
        if number >= warm_up and number % every == 0:
            size = job.input_bytes if knows_size else None
            forecast = Forecast(kept.runs, input_bytes=size, settings=job.settings)
            score.count(*ask(forecast, job))
        kept.add(job)
    return score


def trace_jobs(path: Path = TRACE, *, tenants: int = 6, most: int = 4000) -> dict[str, list[PastRun]]:
    """Return the trace's busiest tenants and their jobs; GPUs stand for the size of the input.

    A job counts as ended when the next ones are submitted; its real end is not in the trace's order.
    """
    found: dict[str, list[PastRun]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            run = PastRun(
                float(row["duration_s"]),
                input_bytes=int(row["gpus"]) * GB,
                finished_at=float(row["submit_s"]) + 1.0,
            )
            found.setdefault(row["tenant"], []).append(run)
    busiest = sorted(found, key=lambda tenant: -len(found[tenant]))[:tenants]
    return {tenant: found[tenant][:most] for tenant in busiest}


def luckless_width(law: Law) -> float:
    """Return how wide the oracle's range is: the ratio of its ends."""
    low, high = law.oracle()
    return high / low


__all__ = ["LAWS", "Law", "Score", "jobs_of", "luckless_width", "quantiles", "replay", "trace_jobs", "when"]
