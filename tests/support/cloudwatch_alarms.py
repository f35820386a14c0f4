"""CloudWatch's alarms, evaluated as documented: from a template's alarms and samples of metrics to states.

Sources, all of the CloudWatch user guide: "Using Amazon CloudWatch alarms" (periods, datapoints to alarm,
when actions are invoked), "Configuring how CloudWatch alarms treat missing data" (its two tables are tests of
this module), "Using math expressions with CloudWatch metrics" (FILL, IF and the operators).

One thing is not documented: how many datapoints beyond the evaluation periods an alarm retrieves. The guide's
tables retrieve two more, so this does.
"""

import ast
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from statistics import median
from typing import Any

from tests.support.template import Resource

EXTRA_DATAPOINTS = 2
FINEST_PERIOD = 10
"""Seconds: the shortest period of an alarm, and what samples are kept by."""
MINUTE = 60


class State(StrEnum):
    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True)
class MetricId:
    """A metric: samples of different dimensions are different metrics."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()
    """(name, value), sorted; a value that is a token of the template is its JSON."""


class Samples:
    """What was published: metric -> {tens of seconds: values}."""

    def __init__(self) -> None:
        self._samples: dict[MetricId, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def publish(self, metric: MetricId, *, at: float, value: float) -> None:
        """Add one sample."""
        self._samples[metric][int(at // FINEST_PERIOD)].append(value)

    def datapoint(self, metric: MetricId, *, statistic: str, start: float, period: int) -> float | None:
        """Return the statistic of the samples of one period, its start included; None when there are none."""
        by_time, first = self._samples[metric], int(start // FINEST_PERIOD)
        found = [v for tens in range(first, first + period // FINEST_PERIOD) for v in by_time.get(tens, ())]
        return _STATISTICS[statistic](found) if found else None


_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Maximum": max,
    "Minimum": min,
    "Sum": sum,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": len,
    "p50": median,
}


@dataclass(frozen=True)
class Watched:
    """One metric as an alarm watches it."""

    metric: MetricId
    statistic: str
    period: int


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One metric alarm of a template."""

    logical_id: str
    name: str
    watched: Mapping[str, Watched]
    """By their ids in the expression; a plain alarm's only metric has the id "m"."""
    expression: str
    period: int
    evaluation_periods: int
    datapoints_to_alarm: int
    threshold: float
    comparison: str
    missing: str
    """missing, notBreaching, breaching or ignore."""
    actions: tuple[str, ...]
    """Logical ids of the policies that it invokes."""

    @property
    def interval(self) -> int:
        """Return the seconds between two evaluations: a high-resolution alarm's period, else a minute."""
        return min(self.period, MINUTE)

    def datapoints(self, samples: Samples, *, now: float) -> list[float | None]:
        """Return the values of the evaluation range, the oldest first, each over one period that is over."""
        count = self.evaluation_periods + EXTRA_DATAPOINTS
        return [self._value(samples, now - n * self.period) for n in range(count, 0, -1)]

    def breaches(self, value: float) -> bool:
        """Return whether a value is on the threshold's bad side."""
        return _COMPARISONS[self.comparison](value, self.threshold)

    def evaluate(self, datapoints: Sequence[float | None], *, before: State) -> State:
        """Return the state that the evaluation range leads to."""
        existing = [value for value in datapoints if value is not None]
        real = [self.breaches(value) for value in existing[-self.evaluation_periods :]]
        lacking = self.evaluation_periods - len(real)
        if lacking and self.missing == "breaching":
            return self._state(sum(real) + lacking)
        if not lacking or self.missing == "notBreaching" or sum(real) >= self.datapoints_to_alarm:
            return self._state(sum(real))
        if not all(real):
            return State.OK
        # Nothing but breaches, and too few of them: kept, unknown, or believed when nothing newer can decide.
        if self.missing == "ignore":
            return before
        return State.ALARM if real and datapoints[0] is not None else State.INSUFFICIENT_DATA

    def _state(self, breaching: int) -> State:
        return State.ALARM if breaching >= self.datapoints_to_alarm else State.OK

    def _value(self, samples: Samples, start: float) -> float | None:
        values = {
            name: samples.datapoint(
                watched.metric, statistic=watched.statistic, start=start, period=watched.period
            )
            for name, watched in self.watched.items()
        }
        return metric_math(self.expression, values)


_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


def read_alarm(resource: Resource) -> Alarm:
    """Return an `AWS::CloudWatch::Alarm` of a template."""
    p = resource.properties
    if "Metrics" in p:
        watched = {q["Id"]: _watched(q["MetricStat"]) for q in p["Metrics"] if "MetricStat" in q}
        (expression,) = [q["Expression"] for q in p["Metrics"] if q.get("ReturnData", True)]
    else:
        plain = {"Metric": p, "Stat": p["Statistic"], "Period": p["Period"]}
        watched, expression = {"m": _watched(plain)}, "m"
    (period,) = {w.period for w in watched.values()}  # CloudWatch wants one period for all
    return Alarm(
        logical_id=resource.logical_id,
        name=p["AlarmName"],
        watched=watched,
        expression=expression,
        period=period,
        evaluation_periods=p["EvaluationPeriods"],
        datapoints_to_alarm=p.get("DatapointsToAlarm", p["EvaluationPeriods"]),
        threshold=p["Threshold"],
        comparison=p["ComparisonOperator"],
        missing=p.get("TreatMissingData", "missing"),
        actions=tuple(action["Ref"] for action in p.get("AlarmActions", [])),
    )


def _watched(stat: Mapping[str, Any]) -> Watched:
    metric = stat["Metric"]
    dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions", [])}
    return Watched(
        MetricId(
            metric["Namespace"],
            metric["MetricName"],
            tuple(sorted((name, _plain(value)) for name, value in dimensions.items())),
        ),
        stat["Stat"],
        stat["Period"],
    )


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


@dataclass
class AlarmClock:
    """One alarm over time: its state, and when it invokes its actions.

    An alarm invokes its actions when it changes to ALARM, and those of Auto Scaling once more in each minute
    that it stays there.
    """

    alarm: Alarm
    state: State = State.INSUFFICIENT_DATA
    _invoked_at: float | None = field(default=None, repr=False)

    def tick(self, samples: Samples, *, now: float) -> list[float] | None:
        """Evaluate, if it is time; return the values that its actions get, None when it invokes none.

        Those are the datapoints of the evaluation periods, the oldest first.
        """
        if now % self.alarm.interval:
            return None
        datapoints = self.alarm.datapoints(samples, now=now)
        before, self.state = self.state, self.alarm.evaluate(datapoints, before=self.state)
        if self.state is not State.ALARM:
            return None
        is_new = before is not State.ALARM or self._invoked_at is None
        if not is_new and self._invoked_at is not None and now - self._invoked_at < MINUTE:
            return None
        self._invoked_at = now
        return [value for value in datapoints if value is not None][-self.alarm.evaluation_periods :]


# --- Metric math -------------------------------------------------------------------------------------------


def metric_math(expression: str, values: Mapping[str, float | None]) -> float | None:
    """Return the expression's value for one period; None when it has none.

    A metric without a sample has no value, nor has anything computed from it but by FILL. A comparison is 1
    or 0. Knows metrics' ids, numbers, + - * /, comparisons, FILL(id, number), IF(a, b, c), MAX and MIN of
    several; raises ValueError for anything else, rather than guess.
    """
    return _compute(_parsed(expression), values)


@cache
def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _compute(node: ast.expr, values: Mapping[str, float | None]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _both(_OPERATORS[type(op)], _compute(left, values), _compute(right, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return _both(_OPERATORS[type(op)], _compute(left, values), _compute(right, values))
        case ast.Call(func=ast.Name(id="FILL"), args=[ast.Name() as metric, ast.Constant(value=number)]):
            value = _compute(metric, values)
            return number if value is None else value  # type: ignore[return-value]
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            decided = _compute(condition, values)
            return None if decided is None else _compute(then if decided else otherwise, values)
        case ast.Call(func=ast.Name(id="MAX" | "MIN" as name), args=[ast.List(elts=parts)]):
            numbers = [v for part in parts if (v := _compute(part, values)) is not None]
            return (max if name == "MAX" else min)(numbers) if numbers else None
    raise ValueError(f"metric math that this interpreter does not know: {ast.unparse(node)}")


_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Lt: lambda a, b: float(a < b),
    ast.LtE: lambda a, b: float(a <= b),
    ast.Gt: lambda a, b: float(a > b),
    ast.GtE: lambda a, b: float(a >= b),
    ast.Eq: lambda a, b: float(a == b),
}


def _both(operator: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else operator(left, right)
