"""A dashboard's body, read. Source: CloudWatch API reference, "Dashboard Body Structure and Syntax"."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanfleet.errors import InvalidRequest

DEFAULT_STATISTIC = "Average"
DEFAULT_PERIOD = 300


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a graph: a metric, or an expression that may become several. period: seconds."""

    namespace: str = ""
    name: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()
    expression: str = ""
    statistic: str = DEFAULT_STATISTIC
    period: int = DEFAULT_PERIOD
    label: str = ""
    is_right: bool = False
    colour: str = ""

    @property
    def shown_as(self) -> str:
        """Return how reports call it."""
        if self.expression:
            return self.expression
        where = ", ".join(f"{name}={value}" for name, value in self.dimensions)
        return f"{self.namespace} {self.name} {{{where}}} {self.statistic}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A vertical axis."""

    label: str = ""
    minimum: float | None = None


@dataclass(frozen=True, kw_only=True)
class Widget:
    """One widget; x, y, width and height in columns and rows of the grid.

    kind: "metric", "text", "alarm" or "log". view: of metrics: "timeSeries" or "singleValue".
    limits: thresholds that are drawn, (value, label). alarms: their names.
    """

    kind: str
    x: int
    y: int
    width: int
    height: int
    title: str = ""
    view: str = ""
    is_stacked: bool = False
    lines: tuple[Line, ...] = ()
    limits: tuple[tuple[float, str], ...] = ()
    left: Axis = Axis()
    right: Axis = Axis()
    text: str = ""
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dashboard:
    """A dashboard."""

    name: str
    widgets: tuple[Widget, ...]


def parse(name: str, body: str) -> Dashboard:
    """Return the dashboard. Raises InvalidRequest when the text is no dashboard's body."""
    try:
        widgets = json.loads(body)["widgets"]
        return Dashboard(name, tuple(_widget(widget) for widget in widgets))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidRequest.of("dashboard", f"{name} is no dashboard's body: {error!r}") from error


def _widget(widget: Mapping[str, Any]) -> Widget:
    properties = widget["properties"]
    axes = properties.get("yAxis", {})
    marks = properties.get("annotations", {}).get("horizontal", [])
    return Widget(
        kind=widget["type"],
        x=widget["x"],
        y=widget["y"],
        width=widget["width"],
        height=widget["height"],
        title=properties.get("title", ""),
        view=properties.get("view", ""),
        is_stacked=bool(properties.get("stacked")),
        lines=tuple(_line(entry, properties) for entry in properties.get("metrics", ())),
        limits=tuple((float(mark["value"]), mark.get("label", "")) for mark in marks),
        left=_axis(axes.get("left", {})),
        right=_axis(axes.get("right", {})),
        text=properties.get("markdown") or properties.get("query", ""),
        alarms=tuple(arn.rpartition(":alarm:")[2] for arn in properties.get("alarms", ())),
    )


def _axis(axis: Mapping[str, Any]) -> Axis:
    return Axis(label=axis.get("label", ""), minimum=axis.get("min"))


def _line(entry: Sequence[Any], properties: Mapping[str, Any]) -> Line:
    """Return one entry of `metrics`. Shorthands ("." and "...") are not understood; the CDK writes none."""
    *names, drawn = entry if isinstance(entry[-1], dict) else [*entry, {}]
    facts: dict[str, Any] = {
        "statistic": drawn.get("stat", properties.get("stat", DEFAULT_STATISTIC)),
        "period": drawn.get("period", properties.get("period", DEFAULT_PERIOD)),
        "label": drawn.get("label", ""),
        "is_right": drawn.get("yAxis") == "right",
        "colour": drawn.get("color", ""),
    }
    if "expression" in drawn:
        return Line(expression=drawn["expression"], **facts)
    namespace, name, *pairs = names
    return Line(
        namespace=namespace, name=name, dimensions=tuple(zip(pairs[::2], pairs[1::2], strict=True)), **facts
    )
