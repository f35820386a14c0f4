"""Which slot count to take, and why, in words. Pure."""

from dataclasses import dataclass
from math import inf

from scanfleet.calibration.analysis import Curve, Point
from scanfleet.calibration.measurement import Limits, Stopped

SURE = 0.90
"""Another concurrency has to be better in this share of the resamples, or it does not count as better."""
GIB = 2**30


@dataclass(frozen=True)
class Recommendation:
    """slots: the knee. reasons: sentences, the most important first. is_sure: no reason casts doubt on it."""

    slots: int
    reasons: tuple[str, ...]
    is_sure: bool


def recommend(
    curve: Curve, *, tolerance: float, limits: Limits, stopped: dict[int, Stopped], largest: int
) -> Recommendation:
    """Return the smallest slot count within the limits that no other such beats by more than the tolerance.

    stopped: concurrencies that were not measured to their end, and why. largest: the most that was asked for.
    """
    fit_in = [point for point in curve.points if _broken(point, limits) is None]
    if not fit_in:
        alone = curve.points[0]
        why = f"even with {_slots(alone.slots)} a limit is broken: {_broken(alone, limits)}"
        return Recommendation(alone.slots, (why,), is_sure=False)
    chosen = next((p for p in fit_in if _best_rival(p, fit_in) is None), fit_in[-1])
    best = max(fit_in, key=lambda point: point.jobs_per_hour)
    reasons = [_why(chosen, best, tolerance)]
    smaller = [point for point in fit_in if point.slots < chosen.slots]
    if smaller:
        last = smaller[-1]
        more = chosen.jobs_per_hour / last.jobs_per_hour - 1
        reasons.append(f"{last.jobs_per_hour:.1f} with {_slots(last.slots)}: the last one gains {more:.0%}")
    for point in curve.points:
        if (broken := _broken(point, limits)) is not None:
            reasons.append(f"with {_slots(point.slots)} a limit is broken: {broken}")
            break
    reasons += [_left_out(slots, why) for slots, why in sorted(stopped.items())[:1]]
    doubts = _doubts(curve, chosen, stopped, largest)
    return Recommendation(chosen.slots, tuple(reasons + doubts), is_sure=not doubts)


def _best_rival(point: Point, among: list[Point]) -> int | None:
    """Return the slots that surely beat the point, if they are among those that keep to the limits."""
    for slots, share in sorted(point.beaten.items()):
        if share >= SURE and any(other.slots == slots for other in among):
            return slots
    return None


def _why(chosen: Point, best: Point, tolerance: float) -> str:
    rate = f"{chosen.jobs_per_hour:.1f} jobs an hour with {_slots(chosen.slots)}"
    if chosen.slots == best.slots:
        return f"{rate}, the most of all that was measured"
    part = chosen.jobs_per_hour / best.jobs_per_hour
    return (
        f"{rate}, {part:.0%} of the most ({best.jobs_per_hour:.1f} with {best.slots});"
        f" no other is surely more than {tolerance:.0%} better"
    )


def _broken(point: Point, limits: Limits) -> str | None:
    """Return which limit the point breaks, in words."""
    for name, used, most, unit, divisor in (
        ("memory", point.memory_bytes, limits.memory_bytes, "GiB", GIB),
        ("GPU memory", point.gpu_memory_bytes, limits.gpu_memory_bytes, "GiB", GIB),
        ("the 95th percentile", point.p95_seconds, limits.p95_seconds, "s", 1),
    ):
        if used is not None and used > (inf if most is None else most):
            return f"{name} {used / divisor:.1f} {unit}, {(most or 0) / divisor:.1f} {unit} allowed"
    return None


def _left_out(slots: int, why: Stopped) -> str:
    said = {
        Stopped.MEMORY: "would have used more memory than allowed",
        Stopped.SLOWER: "were not tried: throughput had fallen before",
        Stopped.FAILED: "made the program fail",
    }[why]
    return f"{_slots(slots)} and more {said}"


def _doubts(curve: Curve, chosen: Point, stopped: dict[int, Stopped], largest: int) -> list[str]:
    doubts = []
    if chosen.slots == largest and len(curve.points) > 1 and not stopped:
        doubts.append(f"more than {largest} may be better still: ask for more with --slots")
    if len({point.rounds for point in curve.points} | {0, 1}) == 2:
        doubts.append("one round only: what changed on the machine meanwhile is part of the result")
    spread = (chosen.high - chosen.low) / chosen.jobs_per_hour
    if spread > 0.2:
        doubts.append(
            f"its throughput is known to {spread / 2:.0%} only: a longer --budget or a quiet machine helps"
        )
    return doubts


def _slots(count: int) -> str:
    return f"{count} slot" if count == 1 else f"{count} slots"
