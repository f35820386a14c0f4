"""Puts the metrics of the local processes' log lines into the emulator's CloudWatch, as AWS does by itself.

On AWS the CloudWatch agent and Lambda ship log lines, and CloudWatch Logs takes metrics out. Here a thread
follows the files, and PutMetricData takes them.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.local.background import Background
from scanfleet.local.emf import Point, points
from scanfleet.local.following import FollowedLogs

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDatumTypeDef

log = logging.getLogger(__name__)
Item = TypeVar("Item")

EVERY = timedelta(seconds=1)
METRICS_A_CALL = 500
"""CloudWatch takes 1,000 and 1 MB; half of them stay below that. Source: CloudWatch API, PutMetricData."""
VALUES_A_METRIC = 150
"""Source: CloudWatch API reference, MetricDatum."""
OLDEST = timedelta(days=14)
"""Points of before are refused. Source: as above."""


class MetricShipping(Background):
    """Ships from `start` to `stop`, which ships what is left. connect: makes the client, once needed."""

    def __init__(
        self, logs: FollowedLogs, connect: Callable[[], "CloudWatchClient"], *, every: timedelta = EVERY
    ) -> None:
        super().__init__(name="metrics", every=every)
        self._logs = logs
        self._connect = connect
        self._client: CloudWatchClient | None = None
        self._is_failing = False

    def _run(self) -> None:
        while not self._end.wait(self._every_seconds):
            self._ship_all()
        self._ship_all()

    def _ship_all(self) -> None:
        """Ship block after block. What is not taken is tried again at the next look."""
        is_all = False
        while not is_all:
            reading = self._logs.read()
            try:
                self._ship([point for line in reading.lines for point in points(line)])
                self._logs.commit(reading)
            except (ClientError, BotoCoreError, OSError) as error:
                if not self._is_failing:  # once, not each second
                    log.warning("metrics not shipped: %s", error, extra={"action": "metrics_not_shipped"})
                self._is_failing = True
                return
            self._is_failing = False
            is_all = reading.is_all

    def _ship(self, found: list[Point]) -> None:
        oldest = time.time() - OLDEST.total_seconds()
        by_namespace: dict[str, list[Point]] = defaultdict(list)
        for point in found:
            if point.at > oldest:
                by_namespace[point.namespace].append(point)
        for namespace, its in by_namespace.items():
            self._client = self._client or self._connect()
            for batch in _batches(list(data(its)), METRICS_A_CALL):
                self._client.put_metric_data(Namespace=namespace, MetricData=batch)


def data(found: Iterable[Point]) -> Iterator["MetricDatumTypeDef"]:
    """Yield PutMetricData's items: the values that a metric got within a second are one item."""
    groups: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for point in found:
        key = (point.name, point.dimensions, point.unit, point.resolution, int(point.at))
        groups[key].append(point.value)
    for (name, dimensions, unit, resolution, at), values in groups.items():
        for some in _batches(values, VALUES_A_METRIC):
            item = {
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
                "Timestamp": datetime.fromtimestamp(at, tz=UTC),
                "Values": some,
                "Unit": unit,
                "StorageResolution": resolution,
            }
            yield cast("MetricDatumTypeDef", item)


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    return (list(items[first : first + size]) for first in range(0, len(items), size))
