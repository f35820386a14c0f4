"""What this process has counted, as Prometheus' text: every metric that it logs for CloudWatch, once more.

Counting is a sum in a dictionary, so that it costs next to nothing where nobody scrapes; prometheus_client
writes the text when somebody does. Sources: Prometheus documentation, "Metric and label naming",
"Exposition formats", "Histograms and summaries".
"""

import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from scanfleet.contract import METRIC_FACTS, PRODUCT, Dimension, Metric

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WHERE = "docs/logging-and-metrics.md says what counts"

_DURATIONS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200)
"""Seconds: a job takes between a moment and the 12 h that SQS hides its message."""
_ANSWERS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.5, 2, 4, 8, 16, 32, 64)
"""Of one core, of one GPU, of a prediction."""
_SIZES = tuple(float(2**power) for power in range(20, 41, 2))
"""1 MiB to 1 TiB."""
_BUCKETS: Mapping[str, Sequence[float]] = {
    "Seconds": _DURATIONS,
    "Percent": _RATIOS,
    "None": _RATIOS,
    "Bytes": _SIZES,
}
_OWN_BUCKETS: Mapping[Metric, Sequence[float]] = {Metric.API_REQUEST_DURATION: _ANSWERS}
_ADDED_UP = {"Count", "Bytes"}
_SIZES_OF_ONE_RUN = {
    Metric.JOB_MEMORY_PEAK,
    Metric.JOB_GPU_MEMORY_PEAK,
    Metric.JOB_IO,
    Metric.JOB_DISK_PEAK,
}
"""Bytes whose spread tells more than their sum."""
_SUFFIX = {"Seconds": "_seconds", "Bytes": "_bytes", "Percent": "_ratio", "None": "_ratio", "Count": ""}


@dataclass(frozen=True)
class Series:
    """How Prometheus sees a metric of the contract. Counters have no buckets; `scale` makes base units."""

    name: str
    labels: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    buckets: tuple[float, ...]
    scale: float


@dataclass(frozen=True)
class Gauge:
    """A number as it is now. name: without the product's prefix. values: by the values of the labels."""

    name: str
    help: str
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()

    @classmethod
    def plain(cls, name: str, help_text: str, value: float) -> "Gauge":
        """Return a gauge without labels."""
        return cls(name, help_text, {(): value})


@dataclass
class _Histogram:
    counts: list[float]
    total: float = 0.0


@dataclass
class _Counts:
    """One metric's state, by the values of its labels."""

    series: Series
    counters: dict[tuple[str, ...], float] = field(default_factory=dict)
    histograms: dict[tuple[str, ...], _Histogram] = field(default_factory=dict)


def series_of(metric: Metric) -> Series:
    """Return the metric's name, labels and buckets. Example: StateDuration ->
    scanfleet_state_duration_seconds{pool, state}.
    """
    unit, dimensions = METRIC_FACTS[metric]
    is_counter = unit in _ADDED_UP and metric not in _SIZES_OF_ONE_RUN
    name = f"{PRODUCT}_{_snake(metric).removeprefix('bytes_').removesuffix(_SUFFIX[unit])}{_SUFFIX[unit]}"
    return Series(
        name=name,
        labels=tuple(_snake(dimension) for dimension in dimensions),
        dimensions=dimensions,
        buckets=() if is_counter else tuple(_OWN_BUCKETS.get(metric, _BUCKETS[unit])),
        scale=0.01 if unit == "Percent" else 1.0,
    )


class Tally:
    """Counts of one process. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._metrics: dict[Metric, _Counts] = {}

    def add(self, values: Mapping[Metric, float], dimensions: Mapping[Dimension, str]) -> None:
        """Count what a log line carries. Dimensions are the contract's, as telemetry has checked."""
        with self._lock:
            for metric, value in values.items():
                counts = self._metrics.get(metric)
                if counts is None:
                    counts = self._metrics[metric] = _Counts(series_of(metric))
                _count(counts, value, dimensions)

    def families(self) -> Iterator["Family"]:
        """Yield each metric with all its values, as prometheus_client wants them."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415 - slow

        with self._lock:
            for metric, counts in self._metrics.items():
                series, text = counts.series, f"{metric} of CloudWatch; {WHERE}."
                if not series.buckets:
                    counter = CounterMetricFamily(series.name, text, labels=series.labels)
                    for labels, value in counts.counters.items():
                        counter.add_metric(labels, value)
                    yield counter
                    continue
                spread = HistogramMetricFamily(series.name, text, labels=series.labels)
                for labels, histogram in counts.histograms.items():
                    ends = (*map(_spelled, series.buckets), "+Inf")
                    buckets = list(zip(ends, accumulate(histogram.counts), strict=True))
                    spread.add_metric(labels, buckets, sum_value=histogram.total)
                yield spread


PROCESS = Tally()
"""What telemetry counts into."""


def exposition(gauges: Iterable[Gauge] = (), tally: Tally | None = PROCESS) -> bytes:
    """Return Prometheus' text: what `tally` has counted, these gauges, and the process's own numbers.

    tally None: a process that does not live on from call to call, whose counts would mean nothing.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # noqa: PLC0415 - slow
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    class Collected:
        def collect(self) -> Iterator["Family"]:
            if tally is not None:
                yield from tally.families()
            for gauge in gauges:
                family = GaugeMetricFamily(f"{PRODUCT}_{gauge.name}", gauge.help, labels=gauge.labels)
                for labels, value in gauge.values.items():
                    family.add_metric(labels, value)
                yield family

    registry = CollectorRegistry()
    registry.register(Collected())
    if tally is not None:
        ProcessCollector(registry=registry)
    return generate_latest(registry)


def _count(counts: _Counts, value: float, dimensions: Mapping[Dimension, str]) -> None:
    series = counts.series
    labels = tuple(dimensions[name] for name in series.dimensions)
    if not series.buckets:
        counts.counters[labels] = counts.counters.get(labels, 0.0) + value
        return
    histogram = counts.histograms.get(labels)
    if histogram is None:
        histogram = counts.histograms[labels] = _Histogram([0.0] * (len(series.buckets) + 1))
    scaled = value * series.scale
    histogram.counts[bisect_left(series.buckets, scaled)] += 1
    histogram.total += scaled


def _snake(name: str) -> str:
    """Return a name in lower case with underscores. Example: "FailureClass" -> "failure_class"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _spelled(bucket: float) -> str:
    """Return a bucket's end as Prometheus' own libraries write it. Example: 5 -> "5.0"."""
    assert bucket < inf
    return str(float(bucket))
