"""Ranges that hold eight of ten of what comes next, from what came before. Pure functions.

A value (seconds) is predicted from the values before it: with the size of its inputs, by a power of it; with
its settings, from values of the same settings once there are some; with time, because only the last ones tell
where values are now. How far such predictions were off, each made from earlier values only, is what the next
one may be off: the range is cut from those errors. This is split conformal prediction on log scale, with the
errors of a rolling origin in place of a held-out set, and recent errors weighing more, because values drift.
Sources: Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-Free Predictive Inference for Regression"
(JASA 2018); Barber, Candes, Ramdas, Tibshirani, "Conformal prediction beyond exchangeability" (Annals of
Statistics 2023), for the weights; Gibbs, Candes, "Adaptive Conformal Inference Under Distribution Shift"
(NeurIPS 2021), for cutting more or less off when the last ranges held too often or too seldom. With fewer
than FEW values the errors alone say too little: the range is then a Student t interval whose spread is shrunk
towards PRIOR_SPREAD, so a single run gives a range at once, a wide one.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

SHARE = 0.8
"""Of the values that come next, so many shall lie in the range."""
TAIL = (1 - SHARE) / 2
FEW = 10
WINDOW = 31
"""Where values are now is the median of so many last ones."""
ENOUGH_SAME = 8
"""From so many values of the same settings on, those of other settings are left out."""
HALF_LIFE = 60
"""An error weighs half as much as one that is so many values younger."""
CAUTION = 0.02
"""By so much a range that held, or did not, moves the share that the next one cuts off."""
LEAST_TAIL, MOST_TAIL = 0.02, 0.3
PRIOR_SPREAD = 0.5
"""Standard deviation of log seconds that is assumed before anything is known: a third more or less."""
PRIOR_WEIGHT = 3.0
"""So many values' worth of it."""
PRIOR_SLOPE = 0.6
"""Seconds grow as this power of the inputs' size, before anything is known."""
SLOPE_WEIGHT = 4.0
MAX_SLOPE = 1.5
SHORTEST = 0.01
"""Seconds below are as these: logarithms need something."""


@dataclass(frozen=True)
class Range:
    """Seconds that hold `SHARE` of what is to be expected, and the likeliest. runs: learned from so many."""

    low: float
    likely: float
    high: float
    runs: int

    def holds(self, seconds: float) -> bool:
        """Say whether it came so."""
        return self.low <= seconds <= self.high


@dataclass(frozen=True)
class Value:
    """One value of the past. size: of the inputs, bytes; None: not known. settings: a fingerprint."""

    seconds: float
    size: int | None = None
    settings: str = ""


@dataclass(frozen=True)
class Weighed:
    """What the next value may be: log seconds and weight. at: its place among the values it came from."""

    log_seconds: float
    weight: float
    at: int


class Series:
    """Values in the order of their time, the oldest first; there must be one. settings: of the next value."""

    def __init__(self, values: Sequence[Value], *, settings: str = "") -> None:
        same = [value.settings == settings for value in values]
        is_enough = sum(same) >= ENOUGH_SAME
        self._places = [at for at in range(len(values)) if same[at] or not is_enough]
        self._values = [values[at] for at in self._places]
        self._logs = [math.log(max(SHORTEST, value.seconds)) for value in self._values]
        self._sizes = [None if not value.size else math.log(value.size) for value in self._values]

    def __len__(self) -> int:
        return len(self._values)

    def next(self, size: int | None = None) -> float:
        """Return the likeliest log seconds of the next value, on inputs of this size."""
        return self._level + self._slope * (self._log_size(size) - self._middle)

    def usual(self, size: int | None = None) -> float:
        """Return the middle of all values on inputs of this size, log seconds: slow to follow a drift."""
        return median(self._levels) + self._slope * (self._log_size(size) - self._middle)

    def errors(self) -> list[Weighed]:
        """Return how far each value was from what those before it let expect, in log seconds."""
        return self._errors

    def candidates(self, size: int | None = None) -> list[Weighed]:
        """Return what the next value on inputs of this size may be; of unknown size, of any size."""
        if size or not self._has_sizes:
            likeliest = self.next(size)
            return [Weighed(likeliest + error.log_seconds, error.weight, error.at) for error in self._errors]
        by_size = (self._slope * (log - self._middle) for log in self._known_sizes)
        return [
            Weighed(self._level + error.log_seconds + more, error.weight, error.at)
            for error, more in zip(self._errors, by_size, strict=True)
        ]

    @cached_property
    def tail(self) -> float:
        """Return the share to cut off at an end, so that the ranges of the last values would have held."""
        tail = TAIL
        before: list[float] = []
        for error in self._errors:
            if len(before) >= 2 * FEW:
                cut = max(1, int(tail * (len(before) + 1)))
                is_held = before[cut - 1] <= error.log_seconds <= before[-cut]
                tail += CAUTION * ((1 - SHARE) - (0.0 if is_held else 1.0))
                tail = min(MOST_TAIL, max(LEAST_TAIL, tail))
            insort(before, error.log_seconds)
        return tail

    # --- How ------------------------------------------------------------------------------------------------

    def _log_size(self, size: int | None) -> float:
        return math.log(size) if size else self._middle

    @cached_property
    def _has_sizes(self) -> bool:
        return any(size is not None for size in self._sizes)

    @cached_property
    def _middle(self) -> float:
        known = [size for size in self._sizes if size is not None]
        return median(known) if known else 0.0

    @cached_property
    def _known_sizes(self) -> list[float]:
        return [self._middle if size is None else size for size in self._sizes]

    @cached_property
    def _slope(self) -> float:
        """Return the power of the size by which seconds grow, within the same settings."""
        if not self._has_sizes:
            return 0.0
        groups: dict[str, list[int]] = {}
        for at, value in enumerate(self._values):
            if self._sizes[at] is not None:
                groups.setdefault(value.settings, []).append(at)
        across, along = SLOPE_WEIGHT, SLOPE_WEIGHT * PRIOR_SLOPE
        for places in groups.values():
            mean_x = sum(self._known_sizes[at] for at in places) / len(places)
            mean_y = sum(self._logs[at] for at in places) / len(places)
            for at in places:
                x = self._known_sizes[at] - mean_x
                across += x * x
                along += x * (self._logs[at] - mean_y)
        return min(MAX_SLOPE, max(0.0, along / across))

    @cached_property
    def _levels(self) -> list[float]:
        """Return log seconds as if all inputs had the middle size."""
        return [
            log - self._slope * (size - self._middle)
            for log, size in zip(self._logs, self._known_sizes, strict=True)
        ]

    @cached_property
    def _level(self) -> float:
        return median(self._levels[-WINDOW:])

    @cached_property
    def _errors(self) -> list[Weighed]:
        levels, count = self._levels, len(self._levels)
        first = sorted(levels[:WINDOW])
        window: list[float] = []
        found = []
        for at, level in enumerate(levels):
            # With too few before it: from all of the first ones but itself.
            expected = _median_without(first, level) if at < FEW else _middle_of(window)
            weight = 0.5 ** ((count - 1 - at) / HALF_LIFE)
            found.append(Weighed(level - expected, weight, self._places[at]))
            insort(window, level)
            if len(window) > WINDOW:
                window.pop(bisect_left(window, levels[at - WINDOW]))
        return found


def range_of(candidates: Sequence[Weighed], *, tail: float = TAIL) -> Range | None:
    """Return the range of what may come; None without any candidate. tail: the share to cut off at an end."""
    if not candidates:
        return None
    count = len(candidates)
    ordered = sorted(candidates, key=lambda one: one.log_seconds)
    logs = [one.log_seconds for one in ordered]
    middle = _middle_of(logs)
    if count < FEW:
        half = _student(PRIOR_WEIGHT + count - 1) * _spread(logs) * math.sqrt(1 + 1 / count)
        low, high = middle - half, middle + half
    else:
        # The one to come weighs as much as the youngest, and may lie beyond all: it counts at either end.
        whole = sum(one.weight for one in ordered) + 1
        low, high = _cut(ordered, tail * whole), -_cut(_mirrored(ordered), tail * whole)
    return Range(math.exp(low), math.exp(middle), math.exp(high), count)


def _cut(ordered: Sequence[Weighed], mass: float) -> float:
    """Return the greatest value below which, itself counted, no more than this weight lies."""
    total = 0.0
    best = ordered[0].log_seconds
    for one in ordered:
        total += one.weight
        if total > mass:
            return best
        best = one.log_seconds
    return best


def _mirrored(ordered: Sequence[Weighed]) -> list[Weighed]:
    return [Weighed(-one.log_seconds, one.weight, one.at) for one in reversed(ordered)]


def _spread(logs: Sequence[float]) -> float:
    """Return the standard deviation, shrunk towards the prior's."""
    mean = sum(logs) / len(logs)
    squares = sum((log - mean) ** 2 for log in logs)
    return math.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + squares) / (PRIOR_WEIGHT + len(logs) - 1))


def _student(freedom: float) -> float:
    """Return the 90 % quantile of Student's t, within 1 % from 3 degrees of freedom on.

    By Cornish and Fisher's expansion. Source: Abramowitz and Stegun, "Handbook of Mathematical Functions",
    26.7.5.
    """
    z = 1.2815515655446004
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _median_without(ordered: Sequence[float], value: float) -> float:
    if len(ordered) == 1:
        return value
    at = bisect_left(ordered, value)
    return _middle_of([*ordered[:at], *ordered[at + 1 :]]) if at < len(ordered) else _middle_of(ordered)


def _middle_of(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
