"""Progress on stderr: live bars on a terminal, a line per change elsewhere, nothing with --json."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from scanfleet.cli_output import Output, printable, time_left

if TYPE_CHECKING:
    from scanfleet.client_models import JobInfo, OnChange, OnProgress, TransferProgress


@contextmanager
def job_progress(out: Output) -> Iterator["OnChange"]:
    """Give a listener for a job's changes that shows its state, stage and progress."""
    if out.as_json or not out.notes.is_terminal:
        yield _line_per_step(out)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out.notes) as bar:
        task = bar.add_task("queued", total=100)

        def show(job: "JobInfo") -> None:
            left = time_left(job)
            shown = f"{_step(job)} ({left})" if left else _step(job)
            bar.update(task, description=shown, completed=job.progress_percent, refresh=True)

        yield show


@contextmanager
def transfer_progress(out: Output, label: str) -> Iterator["OnProgress"]:
    """Give a listener for an upload or download; a transfer that moves nothing shows nothing."""
    if out.as_json or not out.notes.is_terminal:
        yield _line_per_transfer(out, label)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=out.notes) as bar:
        task = bar.add_task(label, total=None, visible=False)

        def show(seen: "TransferProgress") -> None:
            bar.update(
                task,
                description=f"{label} {seen.files_done}/{seen.files_total} files",
                completed=seen.bytes_done,
                total=seen.bytes_total,
                visible=True,
            )

        yield show


def _line_per_step(out: Output) -> "OnChange":
    shown: list[str] = []

    def show(job: "JobInfo") -> None:
        step = _step(job)
        if shown[-1:] != [step]:
            shown.append(step)
            out.note(step)

    return show


def _line_per_transfer(out: Output, label: str) -> "OnProgress":
    def show(seen: "TransferProgress") -> None:
        if seen.files_done == seen.files_total:
            out.note(f"{label}: {seen.files_total} files, {seen.bytes_total:,} bytes")

    return show


def _step(job: "JobInfo") -> str:
    parts = [str(job.status)]
    if not job.is_finished:
        parts += [job.stage or "", f"attempt {job.attempt}" if job.attempt > 1 else ""]
        parts += ["cancelling" if job.cancel_requested else ""]
    if job.why_waiting:
        parts.append(job.why_waiting)
    return printable(", ".join(part for part in parts if part))
