"""Publishes samples to CloudWatch, at one second resolution: alarms may then have periods of 10 s."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from scanfleet.contract import METRIC_FACTS, Dimension, Metric, Pool, metric_namespace
from scanfleet.controller.snapshot import answering

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.literals import StandardUnitType
    from mypy_boto3_cloudwatch.type_defs import MetricDatumTypeDef

HIGH_RESOLUTION_SECONDS = 1
"""StorageResolution of a high-resolution metric. Source: CloudWatch API reference, MetricDatum."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The metrics of one pool at one moment. taken_at: epoch seconds."""

    pool: Pool
    taken_at: float
    values: Mapping[Metric, float]


class Publisher:
    """Writes to the stage's namespace, the only one that its role may write to."""

    def __init__(self, client: "CloudWatchClient", *, stage: str) -> None:
        self._client = client
        self._namespace = metric_namespace(stage)

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publish all samples in one request, which is what PutMetricData is paid by. Raises Unavailable."""
        data = [
            _datum(sample, metric, value) for sample in samples for metric, value in sample.values.items()
        ]
        if data:
            with answering("publish metrics"):
                self._client.put_metric_data(Namespace=self._namespace, MetricData=data)


def _datum(sample: Sample, metric: Metric, value: float) -> "MetricDatumTypeDef":
    return {
        "MetricName": metric.value,
        "Dimensions": [{"Name": Dimension.POOL.value, "Value": sample.pool.value}],
        "Timestamp": datetime.fromtimestamp(sample.taken_at, tz=UTC),
        "Value": float(value),
        "Unit": cast("StandardUnitType", METRIC_FACTS[metric][0]),
        "StorageResolution": HIGH_RESOLUTION_SECONDS,
    }
