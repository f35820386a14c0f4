"""What dashboards are put together from: a row of widgets, a graph, numbers, a table of log lines.

The grid is 24 columns wide. Source: CloudWatch API reference, "Dashboard Body Structure and Syntax".
"""

from collections.abc import Iterable, Mapping, Sequence

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import (
    GraphWidget,
    HorizontalAnnotation,
    IMetric,
    LogQueryVisualizationType,
    LogQueryWidget,
    MathExpression,
    SingleValueWidget,
    TextWidget,
    YAxisProps,
)

from cdk.config import DeploymentConfig
from cdk.metrics import FIVE_MINUTES, scanfleet_metric, scanfleet_search
from cdk.queries import Query
from scanfleet.contract import Dimension, Metric, Pool

COLUMNS = 24
HEIGHT = 6
ENDINGS = {"completed": "#2ca02c", "cancelled": "#7f7f7f", "failed": "#d62728"}
"""State -> colour; a test compares them with the runtime's."""


def heading(markdown: str) -> TextWidget:
    """Return a line of text over the whole width."""
    return TextWidget(markdown=markdown, width=COLUMNS, height=1)


def graph(
    title: str,
    *left: IMetric,
    width: int = 8,
    right: Sequence[IMetric] = (),
    unit: str = "",
    right_unit: str = "",
    stacked: bool = False,
    limit: tuple[float, str] | None = None,
    period: Duration = FIVE_MINUTES,
) -> GraphWidget:
    """Return a graph from zero up. `unit` labels the axis; `limit` draws an alarm's threshold."""
    return GraphWidget(
        title=title,
        left=list(left),
        right=list(right),
        width=width,
        height=HEIGHT,
        stacked=stacked,
        period=period,
        left_y_axis=YAxisProps(min=0, label=unit, show_units=False),
        right_y_axis=YAxisProps(min=0, label=right_unit, show_units=False) if right else None,
        left_annotations=[HorizontalAnnotation(value=limit[0], label=limit[1])] if limit else None,
    )


def numbers(title: str, *metrics: IMetric, width: int = 24, height: int = 3) -> SingleValueWidget:
    """Return the latest values as large numbers with a small line behind."""
    return SingleValueWidget(
        title=title, metrics=list(metrics), width=width, height=height, sparkline=True, full_precision=False
    )


def endings(config: DeploymentConfig, *pools: Pool) -> list[IMetric]:
    """Return the jobs that ended, each state in its colour: a search would give them any."""
    return [
        scanfleet_metric(
            config,
            Metric.JOB_FINISHED,
            statistic="Sum",
            label=state if len(pools) == 1 else f"{pool} {state}",
            color=colour,
            pool=pool.value,
            state=state,
        )
        for pool in pools
        for state, colour in ENDINGS.items()
    ]


def search(
    config: DeploymentConfig,
    metric: Metric,
    *,
    statistic: str,
    label: str = "",
    fixed: Mapping[Dimension, str] | None = None,
    without: Mapping[Dimension, str] | None = None,
    period: Duration = FIVE_MINUTES,
) -> MathExpression:
    """Return a line for each value of the dimensions that are not `fixed`, whatever the values are.

    CloudWatch puts `label` in front of each line's own name.
    """
    return MathExpression(
        expression=scanfleet_search(
            config, metric, statistic=statistic, period=period, fixed=fixed, without=without
        ),
        using_metrics={},
        label=label,
        period=period,
    )


def percentiles(
    config: DeploymentConfig,
    metric: Metric,
    *,
    fixed: Mapping[Dimension, str] | None = None,
    period: Duration = FIVE_MINUTES,
) -> Iterable[MathExpression]:
    """Return p50 and p95 of a metric, a line each for every value of its open dimensions."""
    return (
        search(config, metric, statistic=statistic, label=statistic, fixed=fixed, period=period)
        for statistic in ("p50", "p95")
    )


def log_table(config: DeploymentConfig, query: Query, *, width: int = COLUMNS) -> LogQueryWidget:
    """Return a saved query's answer as a table."""
    return LogQueryWidget(
        title=query.name.partition("/")[2].capitalize(),
        log_group_names=query.log_groups(config.stage),
        query_string="\n| ".join(query.lines),
        view=LogQueryVisualizationType.TABLE,
        width=width,
        height=HEIGHT,
    )
