"""Every metric that dashboards and alarms ask for, and whether somebody emits it."""

from collections.abc import Iterator
from typing import Any

from scanfleet.contract import METRIC_FACTS, Metric, metric_namespace
from tests.support.aws_metrics import DOCUMENTED
from tests.support.dashboards import ShownMetric
from tests.support.deployment import spelled
from tests.support.template import Resource

HIGH_RESOLUTION = (10, 20, 30)
"""Periods below a minute that alarms may have, on custom metrics. Source: CloudWatch user guide, "Evaluating
an alarm"."""


def alarm_metrics(alarm: Resource) -> Iterator[tuple[ShownMetric, str | None, int]]:
    """Yield (metric, the unit that the alarm asks for, period in seconds) of each metric that it watches."""
    properties = alarm.properties
    stats = [m["MetricStat"] for m in properties.get("Metrics", []) if "MetricStat" in m]
    if "MetricName" in properties:
        stats.append({"Metric": properties, "Unit": properties.get("Unit"), "Period": properties["Period"]})
    for stat in stats:
        yield _metric(stat["Metric"]), stat.get("Unit"), stat["Period"]


def _metric(metric: dict[str, Any]) -> ShownMetric:
    dimensions = {d["Name"]: spelled(d["Value"]) for d in metric.get("Dimensions", [])}
    return ShownMetric(metric["Namespace"], metric["MetricName"], dimensions)


def exists(metric: ShownMetric, *, stage: str) -> bool:
    """Return whether somebody emits the metric with exactly these dimensions."""
    if metric.namespace == metric_namespace(stage):
        known = metric.name in set(Metric)
        return known and set(metric.dimensions) == {str(d) for d in METRIC_FACTS[Metric(metric.name)][1]}
    return DOCUMENTED.get(metric.namespace, {}).get(metric.name) == frozenset(metric.dimensions)


def unit_is_emitted(metric: ShownMetric, unit: str | None, *, stage: str) -> bool:
    """Return whether the alarm's unit is the emitted one: with another it never sees data."""
    if metric.namespace != metric_namespace(stage) or metric.name not in set(Metric):
        return True
    return unit == METRIC_FACTS[Metric(metric.name)][0]


def period_is_allowed(metric: ShownMetric, period: int) -> bool:
    """Return whether an alarm may have the period: finer than a minute only where that is published."""
    return (period % 60 == 0 and period > 0) or (
        period in HIGH_RESOLUTION and not metric.namespace.startswith("AWS/")
    )
