"""What a dashboard's lines show: asked of CloudWatch by ListMetrics and GetMetricData."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.dashboards.body import Dashboard, Line
from scanfleet.dashboards.search import parse_search
from scanfleet.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDataQueryTypeDef

QUERIES_A_CALL = 500
"""Source: CloudWatch API reference, GetMetricData."""


@dataclass(frozen=True)
class Series:
    """The values of one metric, oldest first. times: epoch seconds, each the beginning of a period."""

    label: str
    period: int
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Shown:
    """What became of one line: a series of each metric that it names or finds. problem: why it has none."""

    line: Line
    series: tuple[Series, ...]
    problem: str = ""

    @property
    def has_data(self) -> bool:
        """Return whether any metric got a value in the time that was asked for."""
        return any(series.values for series in self.series)


class MetricSource:
    """CloudWatch, asked for a stretch of time. period: instead of the lines' own, in seconds."""

    def __init__(
        self, client: "CloudWatchClient", *, start: datetime, end: datetime, period: int | None = None
    ) -> None:
        self._client = client
        self._start = start
        self._end = end
        self._period = period
        self._listed: dict[tuple[str, str], list[dict[str, str]]] = {}

    def show(self, dashboard: Dashboard) -> dict[Line, Shown]:
        """Return what each line of the dashboard shows. Raises Unavailable."""
        lines = {line for widget in dashboard.widgets for line in widget.lines}
        found = {line: self._metrics(line) for line in lines}
        asked = [metric for metrics in found.values() for metric in metrics]
        answers = self._values(asked)
        return {line: self._shown(line, metrics, answers) for line, metrics in found.items()}

    def _shown(self, line: Line, metrics: Sequence[Line], answers: Mapping[Line, Series]) -> Shown:
        problem = ""
        if line.expression and parse_search(line.expression) is None:
            problem = "" if answers[metrics[0]].values else "not evaluated here"
        return Shown(line, tuple(answers[metric] for metric in metrics), problem)

    def _metrics(self, line: Line) -> list[Line]:
        """Return the metrics that a line stands for; other expressions are left to CloudWatch itself."""
        search = parse_search(line.expression) if line.expression else None
        period = self._period or (search.period if search else line.period)
        if search is None:
            return [replace(line, period=period)]
        return [
            replace(
                line,
                expression="",
                namespace=search.namespace,
                name=search.name,
                dimensions=tuple(dimensions.items()),
                statistic=search.statistic,
                period=period,
                label=f"{line.label} {search.told_apart_by(dimensions)}".strip() or search.name,
            )
            for dimensions in self._list(search.namespace, search.name)
            if search.finds(dimensions)
        ]

    def _list(self, namespace: str, name: str) -> list[dict[str, str]]:
        key = (namespace, name)
        if key not in self._listed:
            with answering(f"list {name}"):
                pages = self._client.get_paginator("list_metrics").paginate(
                    Namespace=namespace, MetricName=name
                )
                found = [
                    {d["Name"]: d["Value"] for d in m["Dimensions"]} for p in pages for m in p["Metrics"]
                ]
            self._listed[key] = sorted(found, key=lambda dimensions: tuple(dimensions.values()))
        return self._listed[key]

    def _values(self, metrics: Iterable[Line]) -> dict[Line, Series]:
        wanted = list(dict.fromkeys(metrics))
        answers: dict[Line, Series] = {}
        for first in range(0, len(wanted), QUERIES_A_CALL):
            some = wanted[first : first + QUERIES_A_CALL]
            values: list[dict[float, float]] = [{} for _ in some]
            with answering("read metrics"):
                pages = self._client.get_paginator("get_metric_data").paginate(
                    MetricDataQueries=[_query(number, line) for number, line in enumerate(some)],
                    StartTime=self._start,
                    EndTime=self._end,
                    ScanBy="TimestampAscending",
                )
                for page in pages:
                    for result in page["MetricDataResults"]:
                        its = values[int(result["Id"].removeprefix("q"))]
                        moments = (moment.timestamp() for moment in result["Timestamps"])
                        its.update(zip(moments, result["Values"], strict=True))
            for line, its in zip(some, values, strict=True):
                label = line.label or line.name
                times = tuple(sorted(its))
                answers[line] = Series(label, line.period, times, tuple(its[at] for at in times))
        return answers


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn CloudWatch's refusal or silence into Unavailable that says what was asked for."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise Unavailable(f"CloudWatch, {what}: {error}") from error


def _query(number: int, line: Line) -> "MetricDataQueryTypeDef":
    if line.expression:
        return {"Id": f"q{number}", "Expression": line.expression, "Period": line.period}
    metric: Any = {
        "Namespace": line.namespace,
        "MetricName": line.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in line.dimensions],
    }
    stat: Any = {"Metric": metric, "Period": line.period, "Stat": line.statistic}
    return {"Id": f"q{number}", "MetricStat": stat}
