"""From segments to points of a curve, and the smallest slot count that is as good as the best. Pure.

Throughput of a segment: by Little's law, slots / mean seconds of a job. Unlike a count of ends it is not
bent by where a stretch begins and ends. Source: J. D. C. Little, "A Proof for the Queuing Formula L = λW",
Operations Research 9 (1961).

Intervals and certainties come from resampling (bootstrap): whole rounds first, the same for every
concurrency, then jobs within each. So what drifts from round to round is in every concurrency alike, and
falls out of the comparison. Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993),
chapter 8.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanfleet.calibration.fit import ScalabilityFit, fit_scalability
from scanfleet.calibration.measurement import Segment

RESAMPLES = 1000
INTERVAL = 0.90
"""Share of the resamples that an interval holds."""

Jobs = Mapping[int, Mapping[int, Sequence[float]]]
"""Slots -> round -> seconds of each job."""
Resampled = Mapping[int, Sequence[float]]
"""Slots -> throughput in each resample."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One concurrency. low, high: the throughput's interval.

    beaten: other slots -> the share of the resamples in which they are better by more than the tolerance.
    """

    slots: int
    jobs: int
    rounds: int
    jobs_per_hour: float
    low: float
    high: float
    p50_seconds: float
    p95_seconds: float
    memory_bytes: int
    gpu_memory_bytes: int | None
    beaten: Mapping[int, float]


@dataclass(frozen=True)
class Curve:
    """All concurrencies, fewest slots first, and the law through them."""

    points: tuple[Point, ...]
    fit: ScalabilityFit | None

    @property
    def best(self) -> Point:
        """Return the point with the highest throughput. There must be one."""
        return max(self.points, key=lambda point: point.jobs_per_hour)


def analyse(segments: Sequence[Segment], *, tolerance: float, seed: int = 0) -> Curve:
    """Return the curve. tolerance: the share of the best throughput that may be missing, such as 0.05."""
    by_slots: dict[int, list[Segment]] = {}
    for segment in segments:
        if segment.seconds:
            by_slots.setdefault(segment.slots, []).append(segment)
    jobs = {slots: {s.round_number: s.seconds for s in found} for slots, found in sorted(by_slots.items())}
    resampled = _resample(jobs, random.Random(seed))
    throughputs = {slots: throughput(slots, rounds) for slots, rounds in jobs.items()}
    points = []
    for slots, found in sorted(by_slots.items()):
        seconds = [value for segment in found for value in segment.seconds]
        values = resampled[slots]
        gpu = [s.gpu_memory_bytes for s in found if s.gpu_memory_bytes is not None]
        points.append(
            Point(
                slots=slots,
                jobs=len(seconds),
                rounds=len(found),
                jobs_per_hour=throughputs[slots],
                low=quantile(values, (1 - INTERVAL) / 2),
                high=quantile(values, (1 + INTERVAL) / 2),
                p50_seconds=quantile(seconds, 0.5),
                p95_seconds=quantile(seconds, 0.95),
                memory_bytes=max(s.memory_bytes for s in found),
                gpu_memory_bytes=max(gpu, default=None),
                beaten=_beaten(slots, resampled, tolerance),
            )
        )
    return Curve(tuple(points), fit_scalability(throughputs))


def throughput(slots: int, rounds: Mapping[int, Sequence[float]]) -> float:
    """Return jobs an hour: the geometric mean of the rounds, a slow one as heavy as a fast one."""
    logs = [math.log(3600 * slots * len(seconds) / sum(seconds)) for seconds in rounds.values()]
    return math.exp(sum(logs) / len(logs))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile, by straight lines between the values. There must be some."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _beaten(slots: int, resampled: Resampled, tolerance: float) -> dict[int, float]:
    """Return how surely each other concurrency is better by more than the tolerance.

    Pair by pair. A comparison with the best of each resample would ask for more slots the more of them are
    equally good: one of many equals is always the luckiest.
    """
    return {
        other: sum(
            (1 - tolerance) * theirs > ours for ours, theirs in zip(resampled[slots], values, strict=True)
        )
        / len(values)
        for other, values in resampled.items()
        if other != slots
    }


def _resample(jobs: Jobs, rng: random.Random) -> dict[int, list[float]]:
    """Return slots -> throughput in each resample."""
    rounds = sorted({number for found in jobs.values() for number in found})
    made: dict[int, list[float]] = {slots: [] for slots in jobs}
    for _ in range(RESAMPLES):
        drawn = rng.choices(rounds, k=len(rounds))
        for slots, found in jobs.items():
            # A concurrency that was not in a round that was drawn answers with one of those it was in.
            own = [number if number in found else rng.choice(list(found)) for number in drawn]
            again = {i: rng.choices(found[number], k=len(found[number])) for i, number in enumerate(own)}
            made[slots].append(throughput(slots, again))
    return made
