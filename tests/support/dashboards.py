"""Dashboard bodies, checked as CloudWatch documents them; CloudFormation takes any text for one.

Sources: CloudWatch API reference, "Dashboard Body Structure and Syntax"; CloudWatch user guide, "CloudWatch
search expression syntax", "Metrics retention".
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS, MAX_HEIGHT, MAX_WIDGETS, MAX_METRICS, MAX_SEARCH = 24, 1000, 500, 500, 1024
VIEWS = {"timeSeries", "singleValue", "gauge", "bar", "pie", "table"}
LOG_VIEWS = {"table", "timeSeries", "bar", "pie"}
RENDERING = {
    "color", "expression", "id", "label", "period", "region", "stat", "visible", "yAxis", "accountId",
}  # fmt: skip
TOP = {"widgets", "start", "end", "periodOverride", "variables"}
STATISTIC = re.compile(r"(SampleCount|Average|Sum|Minimum|Maximum|p\d{1,2}(\.\d+)?|(tm|tc|ts|wm)\d{1,2})")
SEARCH = re.compile(r"SEARCH\('(?P<query>[^']+)', '(?P<stat>[^']+)', (?P<period>\d+)\)")
SCHEMA = re.compile(r"\{(?P<schema>[^{}]+)\} (?P<terms>.+)")
SCHEMA_PART = re.compile(r'"[^"]+"|[A-Za-z0-9_]+')
TERM = re.compile(r'(?P<negated>NOT )?(?P<name>[A-Za-z]+)="(?P<value>[^"]+)"')


class WrongDashboard(AssertionError):
    """Says which widget is wrong, and how."""


@dataclass(frozen=True)
class ShownMetric:
    """A metric on a dashboard. dimensions: name -> value; None where a search leaves it open."""

    namespace: str
    name: str
    dimensions: Mapping[str, str | None]


def check_dashboard(body: str) -> list[ShownMetric]:
    """Return every metric that the dashboard shows. Raises WrongDashboard."""
    tree = json.loads(body)
    _require(not set(tree) - TOP, f"unknown keys {set(tree) - TOP}")
    _require(re.fullmatch(r"-P(T\d+[MH]|\d+[DWM])", tree.get("start", "-PT3H")), "start")
    _require(tree.get("periodOverride", "auto") in {"auto", "inherit"}, "periodOverride")
    widgets = tree["widgets"]
    _require(0 < len(widgets) <= MAX_WIDGETS, "number of widgets")
    for widget in widgets:
        _check_place(widget)
    for one, other in itertools.combinations(widgets, 2):
        _require(not _overlap(one, other), f"{_title(one)} lies on {_title(other)}")
    return [shown for widget in widgets for shown in _CHECKS[_kind(widget)](widget)]


def _require(holds: object, what: str) -> None:
    if not holds:
        raise WrongDashboard(what)


def _title(widget: Mapping[str, Any]) -> str:
    properties = widget.get("properties", {})
    return str(properties.get("title") or properties.get("markdown") or widget)


def _kind(widget: Mapping[str, Any]) -> str:
    _require(widget.get("type") in _CHECKS, f"{_title(widget)}: type {widget.get('type')}")
    return str(widget["type"])


def _check_place(widget: Mapping[str, Any]) -> None:
    x, y, width, height = (widget.get(name) for name in ("x", "y", "width", "height"))
    for name, value, least, most in (
        ("x", x, 0, COLUMNS - 1),
        ("y", y, 0, 100_000),
        ("width", width, 1, COLUMNS),
        ("height", height, 1, MAX_HEIGHT),
    ):
        _require(isinstance(value, int) and least <= value <= most, f"{_title(widget)}: {name} {value}")
    assert isinstance(x, int)
    assert isinstance(width, int)
    _require(x + width <= COLUMNS, f"{_title(widget)} ends in column {x + width} of {COLUMNS}")


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def meet(start: str, size: str) -> bool:
        return bool(one[start] < other[start] + other[size] and other[start] < one[start] + one[size])

    return meet("x", "width") and meet("y", "height")


def _check_text(widget: Mapping[str, Any]) -> Iterator[ShownMetric]:
    _require(widget["properties"].get("markdown"), "a text widget without markdown")
    return iter(())


def _check_log(widget: Mapping[str, Any]) -> Iterator[ShownMetric]:
    properties = widget["properties"]
    _require(properties.get("region"), f"{_title(widget)}: region")
    _require(properties.get("view") in LOG_VIEWS, f"{_title(widget)}: view {properties.get('view')}")
    _require(properties.get("query", "").startswith("SOURCE '"), f"{_title(widget)}: no log group")
    return iter(())


def _check_alarms(widget: Mapping[str, Any]) -> Iterator[ShownMetric]:
    alarms = widget["properties"].get("alarms", [])
    _require(0 < len(alarms) <= 100, f"{_title(widget)}: {len(alarms)} alarms")
    return iter(())


def _check_metrics(widget: Mapping[str, Any]) -> Iterator[ShownMetric]:
    properties, title = widget["properties"], _title(widget)
    view = properties.get("view")
    _require(properties.get("region"), f"{title}: region")
    _require(view in VIEWS, f"{title}: view {view}")
    _require(not properties.get("stacked") or view == "timeSeries", f"{title}: only time series are stacked")
    metrics = properties.get("metrics", [])
    _require(0 < len(metrics) <= MAX_METRICS, f"{title}: {len(metrics)} metrics")
    if "period" in properties:
        _check_period(title, properties["period"])
    for metric in metrics:
        yield _check_metric(title, metric, properties)


def _check_metric(title: str, metric: list[Any], properties: Mapping[str, Any]) -> ShownMetric:
    *names, rendering = metric if isinstance(metric[-1], dict) else [*metric, {}]
    _require(not set(rendering) - RENDERING, f"{title}: {set(rendering) - RENDERING}")
    _require(rendering.get("yAxis", "left") in {"left", "right"}, f"{title}: yAxis")
    if "period" in rendering:
        _check_period(title, rendering["period"])
    if "expression" in rendering:
        _require(not names, f"{title}: an expression and a metric in one line")
        return check_search(rendering["expression"])
    _require(len(names) >= 2 and len(names) % 2 == 0, f"{title}: {names} are no namespace, name, dimensions")
    _require(all(isinstance(name, str) and name not in {".", "..."} for name in names), f"{title}: {names}")
    _check_statistic(rendering.get("stat", properties.get("stat", "Average")))
    return ShownMetric(names[0], names[1], dict(zip(names[2::2], names[3::2], strict=True)))


def _check_statistic(statistic: str) -> None:
    _require(STATISTIC.fullmatch(statistic), f"statistic {statistic}")


def _check_period(title: str, period: int) -> None:
    """Finer periods exist, but are kept for three hours only: a dashboard would lose its past."""
    _require(isinstance(period, int) and period >= 60 and period % 60 == 0, f"{title}: period {period}")


def check_search(expression: str) -> ShownMetric:
    """Return the metric that a SEARCH expression finds; its namespace and dimensions are all named."""
    found = SEARCH.fullmatch(expression)
    _require(found and len(found["query"]) <= MAX_SEARCH, f"not a search: {expression}")
    assert found
    _check_statistic(found["stat"])
    _check_period(expression, int(found["period"]))
    query = SCHEMA.fullmatch(found["query"])
    _require(query, f"no schema: {expression}")
    assert query
    parts = query["schema"].split(",")
    _require(
        all(SCHEMA_PART.fullmatch(part) for part in parts),
        f"names with other characters need quotes: {parts}",
    )
    namespace, *dimensions = (part.strip('"') for part in parts)
    terms = list(TERM.finditer(query["terms"]))
    _require(" ".join(term[0] for term in terms) == query["terms"], f"terms of {expression}")
    fixed = {term["name"]: term["value"] for term in terms if not term["negated"]}
    name = fixed.pop("MetricName", None)
    _require(name, f"no MetricName: {expression}")
    asked = {term["name"] for term in terms} - {"MetricName"}
    _require(asked <= set(dimensions), f"{asked - set(dimensions)} is no dimension of {expression}")
    return ShownMetric(namespace, str(name), {d: fixed.get(d) for d in dimensions})


_CHECKS = {
    "text": _check_text,
    "log": _check_log,
    "alarm": _check_alarms,
    "metric": _check_metrics,
}
