"""Where the spread of run times comes from. Pure functions over past runs.

A run's ratio is its seconds divided by what its inputs' size let expect. Each factor (machine, image, driver,
release, instance type, settings, neighbours) divides the runs into groups; it explains the part of the
ratios' variance that lies between its groups. Noise explains some as well, and more of it the more groups
there are: that part is taken off (omega squared. Source: Hays, "Statistics", 1963). A factor counts only when
shuffled groups hardly ever explain as much, in ALPHA of all cases at most. Source of the sequential test:
Besag, Clifford, "Sequential Monte Carlo p-values" (Biometrika 1991); all factors are tested, so ALPHA is
divided by their number (Bonferroni). The factor that explains most is named, its groups' medians are taken
out of the ratios, and the rest is looked at again: so a machine is not blamed for the release that it runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median, pvariance

from scanfleet.conformal import MAX_SLOPE, SHORTEST
from scanfleet.past_runs import PastRun

ALPHA = 0.02
"""So seldom noise alone may have a factor named."""
SHUFFLES = 499
"""Just enough: one in so many is rarer than ALPHA divided by the number of factors."""
EXCEEDED = 5
"""After so many shuffles that explain as much, a factor's test ends: it is noise."""
FEWEST_RUNS = 20
FEWEST_OF_GROUP = 3
"""Groups with fewer runs are put together: they tell nothing of their own."""
LEAST_SHARE = 0.02
"""A factor that explains less is not worth a word."""
COARSE = 0.9
"""A factor with fewer groups that explains nearly as much as a finer one is the better explanation."""
OUTLIERS = 0.02
"""At either end, ratios beyond those of this share count as these: a single hang is no group's fault."""
MOST_RUNS = 600
"""The youngest."""
GROUPS_SHOWN = 8


def _neighbours(run: PastRun) -> str:
    busy = run.place.busy
    if busy is None:
        return ""
    return "3 or more" if busy >= 3 else str(busy)


FACTORS: dict[str, Callable[[PastRun], str]] = {
    "machine": lambda run: run.place.machine,
    "instance_type": lambda run: run.place.instance_type,
    "ami": lambda run: run.place.ami_id,
    "driver": lambda run: run.place.driver,
    "release": lambda run: run.place.release,
    "settings": lambda run: run.settings,
    "neighbours": _neighbours,
}
"""Each factor's group of a run; empty: not known. Neighbours: other jobs on the machine when it began."""


@dataclass(frozen=True)
class Group:
    """Runs of one group. ratio: how long they take against all runs, what was named before taken out."""

    name: str
    ratio: float
    runs: int


@dataclass(frozen=True)
class Explained:
    """A factor that explains spread. share: of the variance; p: how often noise explains as much."""

    factor: str
    share: float
    p: float
    groups: tuple[Group, ...]
    """The slowest first."""


@dataclass(frozen=True)
class AgainstPredictions:
    """How runs ended that had a prediction when they began.

    held: share of them that ended within its range. ratio: median of how long they took against its median.
    """

    runs: int
    held: float
    ratio: float


@dataclass(frozen=True)
class Variance:
    """What spreads run times. Shares are of the variance of log ratios and add up to 1 with the unexplained.

    spread: so many times as long as the tenth percentile is the ninetieth; inputs' sizes do not count.
    looked_at: factors with at least two groups.
    """

    runs: int
    spread: float
    explained: tuple[Explained, ...]
    unexplained: float
    unexplained_spread: float
    against_predictions: AgainstPredictions | None
    worst_machines: tuple[Group, ...]
    looked_at: tuple[str, ...]


def analyse(runs: Sequence[PastRun], *, seed: int = 1) -> Variance | None:
    """Return where the spread comes from; None with too few runs to say anything. seed: of the shuffles."""
    runs = sorted(runs, key=lambda run: run.finished_at)[-MOST_RUNS:]
    if len(runs) < FEWEST_RUNS:
        return None
    ratios = _ratios(runs)
    groups = {name: labels for name in FACTORS if len(set(labels := _groups(runs, FACTORS[name]))) > 1}
    total = pvariance(ratios) or 1e-12
    rest, explained, random = list(ratios), [], Random(seed)
    open_factors = dict(groups)
    while open_factors:
        found = _best(open_factors, rest, random, tests=len(groups))
        if found is None:
            break
        name, p = found
        share = _omega_squared(open_factors[name], rest) * pvariance(rest) / total
        if share < LEAST_SHARE:
            break
        medians = _medians(open_factors[name], rest)
        rest = [value - medians[label] for value, label in zip(rest, open_factors.pop(name), strict=True)]
        explained.append((name, share, p, medians))
    return Variance(
        runs=len(runs),
        spread=_spread(ratios),
        explained=tuple(
            Explained(name, share, p, _shown(medians, groups[name])) for name, share, p, medians in explained
        ),
        unexplained=max(0.0, 1 - sum(share for _, share, _, _ in explained)),
        unexplained_spread=_spread(rest),
        looked_at=tuple(groups),
        worst_machines=_worst_machines(runs, ratios, explained, groups),
        against_predictions=_against_predictions(runs),
    )


def _ratios(runs: Sequence[PastRun]) -> list[float]:
    """Return the log of each run's seconds against what its inputs' size lets expect, without outliers."""
    logs = [math.log(max(SHORTEST, run.seconds)) for run in runs]
    sizes = [math.log(run.input_bytes) if run.input_bytes else None for run in runs]
    known = [size for size in sizes if size is not None]
    middle = median(known) if known else 0.0
    x = [0.0 if size is None else size - middle for size in sizes]
    across, mean = sum(value * value for value in x), median(logs)
    slope = sum(a * (b - mean) for a, b in zip(x, logs, strict=True)) / across if across > 1e-9 else 0.0
    slope = min(MAX_SLOPE, max(0.0, slope))
    values = [log - slope * size for log, size in zip(logs, x, strict=True)]
    middle = median(values)
    ordered = sorted(value - middle for value in values)
    cut = int(OUTLIERS * len(ordered))
    low, high = ordered[cut], ordered[-1 - cut]
    return [min(high, max(low, value - middle)) for value in values]


def _groups(runs: Sequence[PastRun], group_of: Callable[[PastRun], str]) -> list[str]:
    names = [group_of(run) for run in runs]
    return [name if names.count(name) >= FEWEST_OF_GROUP else "others" for name in names]


def _best(
    factors: Mapping[str, Sequence[str]], values: Sequence[float], random: Random, *, tests: int
) -> tuple[str, float] | None:
    """Return the factor that explains most, and how often noise does; None when none is more than noise."""
    shares = {name: _omega_squared(labels, values) for name, labels in factors.items()}
    real: dict[str, float] = {}
    for name in sorted(shares, key=lambda name: -shares[name]):
        if shares[name] < LEAST_SHARE / 2:
            break
        p = _chance(factors[name], values, random)
        if p <= ALPHA / tests:
            real[name] = p
    if not real:
        return None
    most = max(shares[name] for name in real)
    near = [name for name in real if shares[name] >= COARSE * most]
    best = min(near, key=lambda name: (len(set(factors[name])), -shares[name]))
    return best, real[best]


def _between(labels: Sequence[str], values: Sequence[float]) -> float:
    """Return the sum of squares between the groups. The values' mean is to be 0."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for label, value in zip(labels, values, strict=True):
        sums[label] = sums.get(label, 0.0) + value
        counts[label] = counts.get(label, 0) + 1
    return sum(total * total / counts[label] for label, total in sums.items())


def _centred(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def _omega_squared(labels: Sequence[str], values: Sequence[float]) -> float:
    centred, groups = _centred(values), len(set(labels))
    whole = sum(value * value for value in centred)
    if whole < 1e-12 or len(values) <= groups:
        return 0.0
    between = _between(labels, centred)
    within = (whole - between) / (len(values) - groups)
    return max(0.0, (between - (groups - 1) * within) / (whole + within))


def _chance(labels: Sequence[str], values: Sequence[float], random: Random) -> float:
    """Return how often shuffled values lie apart between these groups as much; an estimate from above.

    One value after the other, hundreds of times: what can be done once is done outside the loop.
    """
    centred = _centred(values)
    found = _between(labels, centred) * (1 - 1e-9)
    names = sorted(set(labels))
    places = [names.index(label) for label in labels]
    counts = [places.count(at) for at in range(len(names))]
    exceeded = 0
    for number in range(1, SHUFFLES + 1):
        keys = [random.random() for _ in centred]
        order = sorted(range(len(centred)), key=keys.__getitem__)  # several times as fast as shuffle
        sums = [0.0] * len(names)
        for place, at in zip(places, order, strict=True):
            sums[place] += centred[at]
        exceeded += sum(total * total / count for total, count in zip(sums, counts, strict=True)) >= found
        if exceeded == EXCEEDED:
            return exceeded / number
    return (exceeded + 1) / (SHUFFLES + 1)


def _medians(labels: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    members: dict[str, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        members.setdefault(label, []).append(value)
    return {label: median(own) for label, own in members.items()}


def _shown(medians: Mapping[str, float], labels: Sequence[str]) -> tuple[Group, ...]:
    groups = [
        Group(name or "not known", math.exp(value), labels.count(name)) for name, value in medians.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.ratio)[:GROUPS_SHOWN])


def _worst_machines(
    runs: Sequence[PastRun],
    ratios: Sequence[float],
    explained: Sequence[tuple[str, float, float, Mapping[str, float]]],
    groups: Mapping[str, Sequence[str]],
) -> tuple[Group, ...]:
    """Return the machines whose runs take longest, what other named factors explain taken out."""
    values = list(ratios)
    for name, _, _, medians in explained:
        if name != "machine":
            values = [value - medians[label] for value, label in zip(values, groups[name], strict=True)]
    labels = _groups(runs, FACTORS["machine"])
    medians = {name: value for name, value in _medians(labels, values).items() if name not in ("", "others")}
    return _shown(medians, labels)


def _against_predictions(runs: Sequence[PastRun]) -> AgainstPredictions | None:
    pairs = [(run.seconds, run.expected) for run in runs if run.expected is not None]
    if not pairs:
        return None
    held = sum(said.low <= seconds <= said.high for seconds, said in pairs)
    ratio = median(seconds / max(SHORTEST, said.likely) for seconds, said in pairs)
    return AgainstPredictions(len(pairs), held / len(pairs), ratio)


def _spread(logs: Sequence[float]) -> float:
    ordered = sorted(logs)
    tenth = len(ordered) // 10
    return math.exp(ordered[-1 - tenth] - ordered[tenth])
