"""What CloudWatch Logs does with a line in embedded metric format: it becomes points of metrics.

Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

MARK = '"_aws"'
MAX_DIMENSIONS = 30


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric. at: epoch seconds. resolution: 1 or 60 seconds, as it is stored."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    unit: str
    resolution: int
    at: float
    value: float


def points(line: str) -> list[Point]:
    """Return what a log line carries; nothing for lines without metrics and for those that are no JSON."""
    if MARK not in line:
        return []
    try:
        document = json.loads(line)
    except ValueError:  # a program's own words
        return []
    metadata = document.get("_aws") if isinstance(document, dict) else None
    if not isinstance(metadata, dict):
        return []
    try:
        return list(_points(document, metadata))
    except (KeyError, TypeError, ValueError, AttributeError):  # CloudWatch ignores what is not as specified
        return []


def _points(document: dict[str, Any], metadata: dict[str, Any]) -> Iterator[Point]:
    at = float(metadata["Timestamp"]) / 1000
    for directive in metadata["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = tuple((name, str(document[name])) for name in names[:MAX_DIMENSIONS])
            for metric in directive["Metrics"]:
                for value in _values(document[metric["Name"]]):
                    yield Point(
                        namespace=directive["Namespace"],
                        name=metric["Name"],
                        dimensions=dimensions,
                        unit=metric.get("Unit", "None"),
                        resolution=int(metric.get("StorageResolution", 60)),
                        at=at,
                        value=value,
                    )


def _values(found: Any) -> Iterable[float]:
    return [float(value) for value in (found if isinstance(found, list) else [found])]
