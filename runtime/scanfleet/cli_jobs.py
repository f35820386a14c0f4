"""The command line's verbs about jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanfleet.cli_options import (
    JobArgument,
    JsonOption,
    UrlOption,
    parse_duration,
    parse_settings,
    parse_tags,
)
from scanfleet.cli_output import ExitCode, Output, printable
from scanfleet.cli_progress import job_progress, transfer_progress
from scanfleet.cli_session import connected
from scanfleet.contract import Priority

if TYPE_CHECKING:
    from scanfleet.client import JobHandle, JobInfo, Scanfleet

STATUS_FILTERS = (
    "active",
    "all",
    "queued",
    "downloading",
    "processing",
    "uploading",
    "completed",
    "failed",
    "cancelled",
)
"""For completion: jobs.JobState, spelled out so that a key press does not import it (a test compares)."""
REASONS_SHOWN = 5
"""Of waiting jobs in a list, the oldest ones."""


def submit(
    ctx: typer.Context,
    *,
    source: Annotated[str, typer.Argument(metavar="SRC", help="s3://bucket/folder/ or a local folder.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="s3://bucket/folder/ or a local folder (which implies --wait)."
        ),
    ],
    processor: Annotated[
        str | None, typer.Option(help="The program to run. Default: the deployment's.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the processor; may be repeated."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting twice with the same key gives the same job.")
    ] = None,
    priority: Annotated[Priority | None, typer.Option(help="High is looked at first.")] = None,
    time_limit: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="The program's running time: 90s, 15m, 1h30m."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A tag on the job; may be repeated.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the results that a completed job of yours has in TARGET."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job over a folder of scans; prints its id."""
    chosen, tags = parse_settings(settings or []), parse_tags(tag or [])
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        unconfirmed = "interrupted before the service confirmed a job"
        with _interruptible(out, unconfirmed), transfer_progress(out, "uploading") as on_progress:
            handle = fleet.submit(
                source,
                target,
                processor=processor,
                settings=chosen,
                priority=priority,
                time_limit=time_limit,
                tags=tags,
                idempotency_key=idempotency_key,
                replace_results=replace,
                on_progress=on_progress,
            )
        if wait or handle.download_to is not None:
            out.note(f"job {handle.job_id}")
            _follow(fleet, out, handle)
        elif out.as_json:
            out.json({"job_id": handle.job_id, "status": "started"})
        else:
            out.text(handle.job_id)
            out.note(f"watch it: scanfleet watch {handle.job_id}")


def status(ctx: typer.Context, job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show a job: state, stage, progress, times, failure, result."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        out.job(fleet.get(job))


def jobs(
    ctx: typer.Context,
    *,
    status: Annotated[
        str,
        typer.Option(
            metavar="STATUS",
            help="active (not ended), all, or one state.",
            autocompletion=lambda: list(STATUS_FILTERS),
        ),
    ] = "active",
    owner: Annotated[str | None, typer.Option(help="Only this owner's; for operators.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    tags = parse_tags(tag or [])
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = list(fleet.jobs(status=status, owner=owner, tags=tags, limit=limit))
        out.jobs(found if out.as_json else _with_reasons(fleet, found))


def _with_reasons(fleet: "Scanfleet", found: "list[JobInfo]") -> "list[JobInfo]":
    """Return the jobs, the oldest waiting ones with why they wait: each costs a call, as lists do not say."""
    waiting = [job.job_id for job in found if job.status == "queued"][-REASONS_SHOWN:]
    return [fleet.get(job.job_id) if job.job_id in waiting else job for job in found]


def watch(
    ctx: typer.Context,
    job: JobArgument,
    download: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="When it has completed, write its result here.", file_okay=False),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a job until it has ended, with a live bar; exit code 0, 1 (failed) or 6 (cancelled)."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        _follow(fleet, out, fleet.handle(job, download_to=download))


def cancel(ctx: typer.Context, job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job that has not ended."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        out.job(fleet.cancel(job))


def retry(ctx: typer.Context, job: JobArgument, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Queue a failed or cancelled job once more."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        out.job(fleet.retry(job))


def logs(
    ctx: typer.Context,
    *,
    job: JobArgument,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt. Default: the last.")] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended; with --json a line each.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a job's program printed."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        if follow:
            _follow_log(fleet, out, job, attempt=attempt, tail=tail)
            return
        log = fleet.log(job, attempt=attempt, tail_lines=tail)
        if out.as_json:
            out.json({"job_id": job, "log": log})
        elif log:
            # A file gets the bytes as they are; a terminal must not obey a program's control characters.
            out.text((printable(log) if out.results.is_terminal else log).removesuffix("\n"))


def _follow_log(fleet: "Scanfleet", out: Output, job: str, *, attempt: int | None, tail: int | None) -> None:
    """Print lines as they come; the exit code tells nothing of how the job ended."""
    shown: int | None = None
    with _interruptible(out, f"job {job} goes on; follow it again: scanfleet logs {job} --follow"):
        for line in fleet.follow_log(job, attempt=attempt, tail_lines=tail):
            if shown is not None and line.attempt != shown:
                out.note(f"attempt {line.attempt}")
            shown = line.attempt
            if out.as_json:
                out.line({"job_id": job, "attempt": line.attempt, "line": line.text})
            else:
                out.text(printable(line.text) if out.results.is_terminal else line.text, at_once=True)


def _follow(fleet: "Scanfleet", out: Output, handle: "JobHandle") -> None:
    """Wait for the job, download its result if asked to, print it, and exit with its code."""
    job_id, folder = handle.job_id, handle.download_to
    again = f"scanfleet watch {job_id}" + (f" --download {folder}" if folder is not None else "")
    left = f"job {job_id} goes on running; watch it: {again}; cancel it: scanfleet cancel {job_id}"
    with _interruptible(out, left), job_progress(out) as on_change:
        job = fleet.wait(job_id, on_change=on_change)
    if folder is None or job.result is None:
        out.job(job)
    else:
        stopped = f"job {job_id} has completed; fetch its result: {again}"
        with _interruptible(out, stopped), transfer_progress(out, "downloading") as on_progress:
            fleet.download_result(job, folder, on_progress=on_progress)
        out.job(job, downloaded_to=str(folder))
    raise typer.Exit(_exit_code(job))


def _exit_code(job: "JobInfo") -> ExitCode:
    return {
        "completed": ExitCode.OK,
        "failed": ExitCode.JOB_FAILED,
        "cancelled": ExitCode.JOB_CANCELLED,
    }[job.status]


@contextmanager
def _interruptible(out: Output, what_is_left: str) -> Iterator[None]:
    """Turn Ctrl-C inside into exit code 130 and a word on what is left behind."""
    try:
        yield
    except KeyboardInterrupt:
        out.error(what_is_left, kind="interrupted", code=ExitCode.INTERRUPTED)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
