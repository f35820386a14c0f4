"""Draws every dashboard of a stage and reports which of their metrics have no data."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scanfleet.dashboards.body import Dashboard, Line
from scanfleet.dashboards.data import MetricSource, Shown, answering
from scanfleet.dashboards.graphs import Look, Reason
from scanfleet.dashboards.picture import Alarm, Picture

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

ALARMS_A_CALL = 100
"""Source: CloudWatch API reference, DescribeAlarms."""


@dataclass(frozen=True)
class ReportedLine:
    """One line of one widget. points: of all its series. reason: why it can have none here."""

    dashboard: str
    widget: str
    metric: str
    series: int
    points: int
    reason: str | None


@dataclass(frozen=True)
class Report:
    """What was drawn. files: dashboard -> picture."""

    files: Mapping[str, str]
    lines: tuple[ReportedLine, ...]

    @property
    def without_data(self) -> tuple[ReportedLine, ...]:
        """Return the lines without data that should have some."""
        return tuple(line for line in self.lines if not line.points and line.reason is None)

    @property
    def excused(self) -> tuple[ReportedLine, ...]:
        """Return the lines without data that can have none here."""
        return tuple(line for line in self.lines if not line.points and line.reason is not None)

    def document(self) -> dict[str, object]:
        """Return the report for --json."""
        return {
            "files": dict(self.files),
            "without_data": [asdict(line) for line in self.without_data],
            "excused": [asdict(line) for line in self.excused],
            "lines": [asdict(line) for line in self.lines],
        }


def render(
    dashboards: Iterable[Dashboard],
    client: "CloudWatchClient",
    *,
    folder: Path,
    start: datetime,
    end: datetime,
    period: int | None = None,
    reason: Reason = lambda _: None,
) -> Report:
    """Draw each dashboard into the folder as <name>.png; return what has data. Raises Unavailable.

    period: seconds, instead of the dashboards' own. reason: why a line can have no data here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = MetricSource(client, start=start, end=end, period=period)
    files: dict[str, str] = {}
    lines: list[ReportedLine] = []
    for dashboard in dashboards:
        shown = source.show(dashboard)
        alarms = alarm_states(client, {name for w in dashboard.widgets for name in w.alarms})
        file = folder / f"{dashboard.name}.png"
        Picture(dashboard, Look(shown, start, end, reason), alarms).save(file)
        files[dashboard.name] = str(file)
        lines += _lines(dashboard, shown, reason)
    return Report(files, tuple(lines))


def reported(
    dashboards: Iterable[Dashboard],
    client: "CloudWatchClient",
    *,
    start: datetime,
    end: datetime,
    period: int | None = None,
    reason: Reason = lambda _: None,
) -> list[ReportedLine]:
    """Return what each line of the dashboards shows, without drawing. Raises Unavailable."""
    source = MetricSource(client, start=start, end=end, period=period)
    return [line for dashboard in dashboards for line in _lines(dashboard, source.show(dashboard), reason)]


def _lines(dashboard: Dashboard, shown: Mapping[Line, Shown], reason: Reason) -> list[ReportedLine]:
    return [
        ReportedLine(
            dashboard=dashboard.name,
            widget=widget.title,
            metric=line.shown_as,
            series=len(shown[line].series),
            points=sum(len(series.values) for series in shown[line].series),
            reason=None if shown[line].has_data else reason(line),
        )
        for widget in dashboard.widgets
        for line in widget.lines
    ]


def alarm_states(client: "CloudWatchClient", names: set[str]) -> dict[str, Alarm]:
    """Return each alarm's state by its name; those that are not deployed are left out. Raises Unavailable."""
    found: dict[str, Alarm] = {}
    wanted = sorted(names)
    for first in range(0, len(wanted), ALARMS_A_CALL):
        with answering("describe alarms"):
            answer = client.describe_alarms(AlarmNames=wanted[first : first + ALARMS_A_CALL])
        for alarm in answer["MetricAlarms"]:
            found[alarm["AlarmName"]] = Alarm(alarm["StateValue"], alarm.get("StateReason", ""))
    return found
