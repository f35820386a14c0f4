"""Structured logs and metrics: one JSON object a line.

A metric travels inside its log line in CloudWatch's embedded metric format, so whatever ships the log ships
the metric. Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from scanfleet.contract import METRIC_FACTS, Component, Dimension, Metric, metric_namespace
from scanfleet.jobs import Failure, Job, JobState

log = logging.getLogger(__name__)

METRIC_EXTRA = "emf"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", METRIC_EXTRA}


@dataclass(frozen=True)
class Transition:
    """A job's change of state. `previous` is None for a new job; `seconds` is the time spent in it."""

    job: Job
    previous: JobState | None
    seconds: float


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, action and the extra fields."""

    def __init__(self, component: Component, *, stage: str) -> None:
        super().__init__()
        self._component = component.value
        self._namespace = metric_namespace(stage)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Values that JSON does not know become text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        line |= self._metrics(getattr(record, METRIC_EXTRA, None))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)

    def _metrics(self, carried: dict[str, Any] | None) -> dict[str, Any]:
        if carried is None:
            return {}
        directive = {"Namespace": self._namespace, **carried["directive"]}
        metadata = {"Timestamp": carried["timestamp_ms"], "CloudWatchMetrics": [directive]}
        return {"_aws": metadata, **carried["values"]}


def configure_logging(component: Component, level: str, *, stage: str, stream: TextIO | None = None) -> None:
    """Send this process's log records to `stream` (standard error by default) as JSON lines.

    Metrics that they carry go to the stage's namespace.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(component, stage=stage))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # botocore's own INFO lines say which credentials it found, for every client.
    logging.getLogger("botocore").setLevel(max(logging.WARNING, root.level))


def metrics(values: Mapping[Metric, float], dimensions: Mapping[Dimension, str]) -> dict[str, Any]:
    """Return the `extra` of a log call that makes its line carry these metrics.

    Raises ValueError when a metric's dimensions are not the contract's: a dashboard would never find it.
    """
    for name in values:
        if set(dimensions) != set(METRIC_FACTS[name][1]):
            raise ValueError(f"{name} has the dimensions {METRIC_FACTS[name][1]}, not {tuple(dimensions)}")
    return {
        METRIC_EXTRA: {
            "timestamp_ms": int(time.time() * 1000),
            "directive": {
                "Dimensions": [[str(name) for name in dimensions]],
                "Metrics": [{"Name": str(name), "Unit": METRIC_FACTS[name][0]} for name in values],
            },
            "values": {str(name): value for name, value in (*dimensions.items(), *values.items())},
        }
    }


def record_transition(transition: Transition) -> None:
    """Log one change of state, with the metric of the time spent in the state that was left."""
    job = transition.job
    facts = {
        "action": "job_state_changed",
        "job_id": job.job_id,
        "owner": job.owner,
        "attempt": job.attempt,
        "agent_id": job.agent_id,
        "previous_state": transition.previous,
        "state": job.state,
    }
    metric: dict[str, Any] = {}
    if transition.previous is not None:
        dimensions = {Dimension.POOL: job.pool.value, Dimension.STATE: transition.previous.value}
        metric = metrics({Metric.STATE_DURATION: round(transition.seconds, 3)}, dimensions)
    log.info("job is %s", job.state, extra=facts | metric)
    if job.state.is_terminal:
        dimensions = {Dimension.POOL: job.pool.value, Dimension.STATE: job.state.value}
        counted = metrics({Metric.JOB_FINISHED: 1}, dimensions)
        log.info("job ended", extra={"action": "job_finished", "job_id": job.job_id} | counted)
    elif job.state is JobState.QUEUED and job.failure is not None and transition.previous is not None:
        _record_retry(job, job.failure)


def _record_retry(job: Job, failure: Failure) -> None:
    dimensions = {Dimension.POOL: job.pool.value, Dimension.FAILURE_CLASS: failure.failure_class.value}
    facts = {"action": "job_retried", "job_id": job.job_id, "reason": failure.reason}
    log.info("job goes back to the queue", extra=facts | metrics({Metric.JOB_RETRIED: 1}, dimensions))


def record_bytes(metric: Metric, job: Job, size_bytes: int) -> None:
    """Log how many bytes an attempt moved."""
    counted = metrics({metric: size_bytes}, {Dimension.POOL: job.pool.value})
    log.info("bytes moved", extra={"action": "bytes_moved", "job_id": job.job_id} | counted)
