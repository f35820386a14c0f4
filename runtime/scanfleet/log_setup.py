"""How this process logs: one JSON object a line, and from which level up.

Levels can change while the process runs (log_levels.py): of everything it does, or of single jobs.
"""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from scanfleet import log_context
from scanfleet.contract import PRODUCT, Component, metric_namespace

METRIC_EXTRA = "emf"
METRICS_FROM = logging.INFO
"""The lowest level of lines that carry metrics."""
JOB_ACTIONS = frozenset({"job_state_changed", "job_finished", "job_retried", "job_failed"})
"""Events of jobs, by the records' `action`; all others are the component's own."""
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", METRIC_EXTRA}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, what the work at hand has bound
    (log_context.py), and the record's own action and fields.

    A change of a job's state names the component JOBS, wherever it is written.
    """

    def __init__(self, component: Component, *, stage: str) -> None:
        super().__init__()
        self._component = component.value
        self._namespace = metric_namespace(stage)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Values that JSON does not know become text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "component": Component.JOBS.value if is_of_jobs(record) else self._component,
            "logger": record.name,
            "message": record.getMessage(),
            **log_context.facts(),
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


def is_of_jobs(record: logging.LogRecord) -> bool:
    """Say whether a record is an event of a job's state."""
    return getattr(record, "action", None) in JOB_ACTIONS


class Verbosity(logging.Filter):
    """From which level up lines are written now; a filter of every handler.

    Only our own loggers are ever made more talkative than the process was started: what libraries say at
    DEBUG holds signatures and tokens. Lines that carry metrics are never held back: dashboards and alarms
    live on them.
    """

    def __init__(self, base: str, *, loggers: Iterable[str] = (PRODUCT,)) -> None:
        super().__init__()
        self._base = self._own = logging.getLevelNamesMapping()[base]
        self._jobs: Mapping[str, int] = {}
        self._loggers = tuple(logging.getLogger(name) for name in loggers)
        self._inherited = tuple(logger.level for logger in self._loggers)
        self.set(None, {})

    @property
    def base(self) -> str:
        """Return the level that the process was started with."""
        return logging.getLevelName(self._base)

    def set(self, own: str | None, jobs: Mapping[str, str]) -> None:
        """Write lines from `own` up (None: as started), and those of these jobs from theirs up."""
        levels = logging.getLevelNamesMapping()
        wanted = {job_id: levels[name] for job_id, name in jobs.items()}
        lowest = min(self._base, METRICS_FROM, levels[own] if own else self._base, *wanted.values())
        self._own = levels[own] if own else self._base
        self._jobs = wanted
        for logger, inherited in zip(self._loggers, self._inherited, strict=True):
            logger.setLevel(lowest if lowest < self._base else inherited)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is written."""
        level = self._own
        if self._jobs:
            job_id = getattr(record, "job_id", None) or log_context.bound_fact("job_id")
            level = self._jobs.get(job_id, level) if isinstance(job_id, str) else level
        return record.levelno >= level or hasattr(record, METRIC_EXTRA)


def configure_logging(
    component: Component,
    level: str,
    *,
    stage: str,
    stream: TextIO | None = None,
    files: Mapping[Component, logging.Handler] | None = None,
) -> Verbosity:
    """Send this process's log records to `stream` (standard error by default) as JSON lines.

    Return what changes their level from now on. Metrics that they carry go to the stage's namespace. files:
    more places, each with the component that its lines name. A process without a console, such as a Windows
    service, has no standard error.
    """
    handlers: list[logging.Handler] = []
    for name, handler in (files or {}).items():
        handler.setFormatter(JsonFormatter(name, stage=stage))
        handlers.append(handler)
    console: TextIO | None = stream or sys.stderr
    if console is not None:
        on_console = logging.StreamHandler(console)
        on_console.setFormatter(JsonFormatter(component, stage=stage))
        handlers.append(on_console)
    logging.getLogger(PRODUCT).setLevel(logging.NOTSET)  # whatever was set before
    verbosity = Verbosity(level)
    for handler in handlers:
        handler.addFilter(verbosity)
    root = logging.getLogger()
    for replaced in root.handlers:
        if isinstance(replaced, logging.FileHandler):
            replaced.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    # botocore's own INFO lines say which credentials it found, for every client.
    logging.getLogger("botocore").setLevel(max(logging.WARNING, root.level))
    return verbosity
