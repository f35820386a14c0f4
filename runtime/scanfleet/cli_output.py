"""What the command line prints: results to stdout, everything else to stderr, colours on terminals only."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scanfleet import errors

if TYPE_CHECKING:
    from scanfleet.client_models import JobInfo
    from scanfleet.jobs import Failure

PLAIN_WIDTH = 240
"""Columns where output is no terminal: lines are for other programs then, so they do not wrap early."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_STATE_STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}


class ExitCode(IntEnum):
    """What the shell sees. docs/cli.md has the same table."""

    OK = 0
    JOB_FAILED = 1
    """The awaited job failed, or its result is not what it published."""
    INVALID = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    JOB_CANCELLED = 6
    INTERRUPTED = 130


_EXIT_CODES: tuple[tuple[str, ExitCode], ...] = (
    ("JobFailed", ExitCode.JOB_FAILED),
    ("JobFailure", ExitCode.JOB_FAILED),
    ("DownloadRefused", ExitCode.JOB_FAILED),
    ("InvalidRequest", ExitCode.INVALID),
    ("ConfigurationError", ExitCode.INVALID),
    ("NotFound", ExitCode.NOT_FOUND),
    ("Conflict", ExitCode.CONFLICT),
)
"""By name, because the client's own errors are not imported until a verb needs the client."""


def exit_code_of(error: errors.ScanfleetError) -> ExitCode:
    """Return the exit code that this error means; whatever has no row says the service is unavailable."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return next((code for name, code in _EXIT_CODES if name in names), ExitCode.UNAVAILABLE)


def printable(text: str) -> str:
    """Return the text without control characters, which could steer a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


class Output:
    """Where one command prints. `as_json`: one JSON document on stdout, and no words beside it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.results = _console(sys.stdout)
        self.notes = _console(sys.stderr)

    def json(self, document: Mapping[str, Any]) -> None:
        """Print the result as JSON."""
        sys.stdout.write(json.dumps(document, indent=2) + "\n")

    def line(self, document: Mapping[str, Any]) -> None:
        """Print one of many results as one line of JSON, at once."""
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    def text(self, text: str, *, at_once: bool = False) -> None:
        """Print a result as it stands. at_once: it does not wait for the next ones."""
        sys.stdout.write(text + "\n")
        if at_once:
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something beside the result."""
        if not self.as_json:
            self.notes.print(Text(printable(text)), soft_wrap=True)

    def job(self, job: "JobInfo", **more: str) -> None:
        """Print a job; `more` are further facts about it."""
        if self.as_json:
            self.json({**job.model_dump(mode="json"), **more})
        else:
            self.results.print(_facts({**_job_facts(job), **more}))

    def jobs(self, jobs: Iterable["JobInfo"]) -> None:
        """Print jobs as a table."""
        if self.as_json:
            self.json({"jobs": [job.model_dump(mode="json") for job in jobs]})
            return
        found = list(jobs)
        if not found:
            self.note("no jobs")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("JOB", "STATUS", "%", "STAGE", "PROCESSOR", "OWNER", "CREATED", "NOTE"):
            table.add_column(
                heading, no_wrap=heading != "NOTE", justify="right" if heading == "%" else "left"
            )
        for job in found:
            table.add_row(*_job_row(job))
        self.results.print(table)

    def rows(self, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Print facts that share keys as a table; a nested value is shown as JSON."""
        found = list(rows)
        headings = list(dict.fromkeys(key for row in found for key in row))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading.upper().replace("_", " "))
        for row in found:
            table.add_row(*(Text(_cell(row.get(heading))) for heading in headings))
        self.results.print(Text(title, style="bold underline"))
        self.results.print(table if found else Text("none"))

    def error(self, message: str, *, kind: str, code: int, errors: Iterable[errors.FieldError] = ()) -> None:
        """Say on stderr what went wrong; as JSON: {"error": {kind, message, exit_code, errors}}."""
        if self.as_json:
            fields = [
                {"field": e.field, "value": e.value, "allowed": e.allowed, "message": e.message}
                for e in errors
            ]
            document = {"kind": kind, "message": message, "exit_code": int(code), "errors": fields}
            sys.stderr.write(json.dumps({"error": document}) + "\n")
            return
        lines = [message] if not (listed := list(errors)) else ["the request cannot be accepted"]
        for e in listed:
            lines.append(f"  {e.field}: {e.message}")
            lines += [f"    got: {e.value}"] if e.value is not None else []
            lines += [f"    allowed: {e.allowed}"] if e.allowed is not None else []
        text = Text("error: ", style="bold red").append(Text(printable("\n".join(lines)), style="default"))
        self.notes.print(text, soft_wrap=True)


def _console(stream: Any) -> Console:
    is_terminal = stream.isatty()
    return Console(file=stream, highlight=False, width=None if is_terminal else PLAIN_WIDTH)


def _facts(facts: Mapping[str, str | Text | None]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            shown = value if isinstance(value, Text) else Text(printable(value))
            table.add_row(name.replace("_", " "), shown)
    return table


def _job_facts(job: "JobInfo") -> dict[str, str | Text | None]:
    times = job.timestamps
    return {
        "job": job.job_id,
        "status": _status(job),
        "stage": job.stage,
        "progress": f"{job.progress_percent:.0f} %",
        "time_left": time_left(job),
        "waiting_because": job.why_waiting,
        "failure": _failure(job) if job.status == "failed" else None,
        "quarantined": _quarantine(job),
        "processor": f"{job.processor} (pool {job.pool}, priority {job.priority})",
        "release": job.release,
        "attempt": str(job.attempt),
        "source": job.source,
        "target": job.target,
        "result": _result(job),
        "replaces": job.replaces,
        "superseded_by": job.superseded_by,
        "tags": ", ".join(f"{name}={value}" for name, value in job.tags.items()),
        "owner": job.owner,
        "trace": job.trace_id,
        "created": _moment(times.created),
        "started": _moment(times.started),
        "finished": _moment(times.finished),
        "seconds": ", ".join(f"{name} {seconds:.1f}" for name, seconds in job.durations_seconds.items()),
        "stages": _stages(job),
        "failures": _failures(job),
    }


def _job_row(job: "JobInfo") -> tuple[Text, ...]:
    note = _took(job) if job.status == "completed" else _failure(job) or job.why_waiting or time_left(job)
    note = f"quarantined; {note}" if job.quarantined else note
    texts = (job.stage or "", job.processor, job.owner, _moment(job.timestamps.created), note)
    head = (Text(job.job_id), _status(job), Text(f"{job.progress_percent:.0f}"))
    return (*head, *(Text(printable(text)) for text in texts))


def time_left(job: "JobInfo") -> str:
    """Return how long the job still needs, as a person would say it: "4-7 min left"; empty: unknown."""
    if job.eta is None or job.is_finished:
        return ""
    after = "once it runs" if job.status == "queued" else "left"
    (low, low_unit), (high, unit) = _spoken(job.eta.low_seconds), _spoken(max(1.0, job.eta.high_seconds))
    if low_unit != unit:
        return f"{low} {low_unit} to {high} {unit} {after}"
    return f"{high} {unit} {after}" if low == high else f"{low}-{high} {unit} {after}"


def _spoken(seconds: float) -> tuple[str, str]:
    """Return a number and its unit, as exact as a guess deserves: nobody reads 0.3 min as 18 s."""
    if seconds < 90:
        return f"{seconds:.0f}", "s"
    value, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return (f"{value:.1f}".removesuffix(".0") if value < 3 else f"{value:.0f}"), unit


def _stages(job: "JobInfo") -> str:
    """Return the seconds of each stage; of the present one, since when it is."""
    parts = [f"{name} {seconds:.1f}" for name, seconds in job.stage_seconds.items()]
    if job.stage and job.stage_since is not None and not job.is_finished:
        parts.append(f"{job.stage} since {_moment(job.stage_since)}")
    return ", ".join(parts)


def _took(job: "JobInfo") -> str:
    """Return how long a completed job's last attempt ran."""
    times = job.timestamps
    if times.started is None or times.finished is None:
        return ""
    seconds = round((times.finished - times.started).total_seconds())
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"ran {hours} h {minutes} min"
    return f"ran {minutes} min {seconds % 60} s" if minutes else f"ran {seconds} s"


def _status(job: "JobInfo") -> Text:
    is_stopping = job.cancel_requested and not job.is_finished
    return Text(job.status + (" (cancelling)" if is_stopping else ""), _STATE_STYLES.get(job.status, "cyan"))


def _failure(job: "JobInfo") -> str:
    return f"{job.failure.failure_class}: {job.failure.reason}" if job.failure is not None else ""


def _failures(job: "JobInfo") -> str:
    """Return a line for each attempt that failed; nothing when the line "failure" says it all."""
    has_evidence = any(failure.has_evidence for failure in job.failures)
    if job.status == "failed" and len(job.failures) == 1 and not has_evidence:
        return ""
    return "\n".join(_failed_attempt(job, failure) for failure in job.failures)


def _failed_attempt(job: "JobInfo", failure: "Failure") -> str:
    more = f" (scanfleet evidence {job.job_id} --attempt {failure.attempt})" if failure.has_evidence else ""
    where = f" on {failure.agent_id}" if failure.agent_id else ""
    return f"attempt {failure.attempt}{where}: {failure.failure_class}: {failure.reason}{more}"


def _quarantine(job: "JobInfo") -> str:
    if job.quarantined is None:
        return ""
    return f"since {_moment(job.quarantined)}: nobody runs it again until you retry it"


def _result(job: "JobInfo") -> str:
    return f"{job.result.files} files, {job.result.size_bytes:,} bytes" if job.result is not None else ""


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        value = round(value, 3)
    if isinstance(value, str):
        return _moment(datetime.fromisoformat(value)) if _TIMESTAMP.fullmatch(value) else printable(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return printable(", ".join(value))
    return printable(json.dumps(value))
