"""The contract's metrics as CloudWatch metrics: the only place that makes them.

Namespace, unit and dimensions are the contract's, so that no dashboard, alarm or scaling policy can ask for a
metric that nothing emits.
"""

from collections.abc import Mapping

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import Metric as CloudWatchMetric
from aws_cdk.aws_cloudwatch import Unit

from cdk.config import DeploymentConfig
from scanfleet.contract import METRIC_FACTS, Dimension, Metric, metric_namespace

FIVE_MINUTES = Duration.minutes(5)

_UNITS = {
    "Seconds": Unit.SECONDS,
    "Count": Unit.COUNT,
    "Bytes": Unit.BYTES,
    "Percent": Unit.PERCENT,
    "None": Unit.NONE,
}


def scanfleet_metric(
    config_or_stage: DeploymentConfig | str,
    metric: Metric,
    *,
    statistic: str,
    period: Duration = FIVE_MINUTES,
    label: str | None = None,
    color: str | None = None,
    **dimensions: str,
) -> CloudWatchMetric:
    """Return a metric of the stage.

    `dimensions`: the contract's, in lower case: `pool=Pool.WINDOWS_GPU`, `failure_class=FailureClass.HANG`.
    Statistic: CloudWatch's spelling ("Sum", "p95"). Raises ValueError unless exactly the metric's dimensions
    are given: CloudWatch does not add up over a dimension that is left out, it finds nothing.
    """
    _, wanted = METRIC_FACTS[metric]
    given = {Dimension[name.upper()]: value for name, value in dimensions.items()}
    if set(given) != set(wanted):
        raise ValueError(f"{metric} has the dimensions {tuple(wanted)}, not {tuple(given)}")
    return CloudWatchMetric(
        namespace=metric_namespace(_stage(config_or_stage)),
        metric_name=metric.value,
        unit=unit_of(metric),
        dimensions_map={name.value: str(given[name]) for name in wanted},
        statistic=statistic,
        period=period,
        label=label,
        color=color,
    )


def unit_of(metric: Metric) -> Unit:
    """Return the unit that the runtime emits the metric with. An alarm with another one never sees data."""
    return _UNITS[METRIC_FACTS[metric][0]]


def scanfleet_search(
    config_or_stage: DeploymentConfig | str,
    metric: Metric,
    *,
    statistic: str,
    period: Duration = FIVE_MINUTES,
    fixed: Mapping[Dimension, str] | None = None,
    without: Mapping[Dimension, str] | None = None,
) -> str:
    """Return a SEARCH expression: one line per value of the dimensions that `fixed` leaves open.

    `without`: values that get no line.
    For dashboards only: alarms cannot use it. It finds metrics that got data within the last two weeks.
    Source: CloudWatch user guide, "CloudWatch search expression syntax".
    """
    _, wanted = METRIC_FACTS[metric]
    fixed, without = fixed or {}, without or {}
    unknown = {*fixed, *without} - set(wanted)
    if unknown:
        raise ValueError(f"{metric} has the dimensions {tuple(wanted)}, not {tuple(unknown)}")
    schema = ",".join([f'"{metric_namespace(_stage(config_or_stage))}"', *(name.value for name in wanted)])
    terms = [f'MetricName="{metric}"', *(f'{name}="{value}"' for name, value in fixed.items())]
    terms += [f'NOT {name}="{value}"' for name, value in without.items()]
    return f"SEARCH('{{{schema}}} {' '.join(terms)}', '{statistic}', {int(period.to_seconds())})"


def _stage(config_or_stage: DeploymentConfig | str) -> str:
    return config_or_stage if isinstance(config_or_stage, str) else config_or_stage.stage
