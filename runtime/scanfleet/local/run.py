"""`make run`: the main job once, start to finish, with everything it needs started and stopped around it."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scanfleet import sample
from scanfleet.client import JobInfo, Scanfleet
from scanfleet.client_http import error_of
from scanfleet.errors import ScanfleetError
from scanfleet.jobs import JobState
from scanfleet.local.system import LocalSystem, Plan
from scanfleet.processors.medit_settings import SOURCE_KEY, TARGET_KEY, MeditSettings

SETTINGS: dict[str, Any] = MeditSettings().model_dump(by_alias=True)
"""Every key of the request, at its default."""
REPORT_NAME = "report.json"


def run(console: Console, *, repo_root: Path, scans: Path | None) -> int:
    """Do the main job on the user's scans, or on a made sample; return the exit code."""
    folder = _new_folder(repo_root / "build" / "run")
    truth = None
    with _timed(console, "scans"):
        if scans is None:
            truth = sample.make_sample(folder / "sample")
            scans = truth.scans_folder
        elif not scans.is_dir():
            raise ScanfleetError(f"SCANS: {scans} is not a folder; name a folder of scans")
    plan = Plan(repo_root=repo_root, state=folder / "state", logs=folder / "logs")
    steps = _Steps(console)
    try:
        with LocalSystem(plan, on_step=steps.begin) as system, system.client() as client:
            steps.end()
            job = _do_job(console, client, system.url, scans)
            if job.status is JobState.COMPLETED:
                client.download_result(job, folder / "result")
            log = client.log(job.job_id, tail_lines=15) if job.status is JobState.FAILED else ""
    finally:
        steps.end()
        # The result, the sample and the logs stay; the emulated cloud's copy of them is only in the way.
        shutil.rmtree(plan.state, ignore_errors=True)
    return _show(console, job, folder, truth, log)


def _new_folder(parent: Path) -> Path:
    """Return a fresh folder named by the time; runs that start in one second get one each."""
    parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return Path(tempfile.mkdtemp(prefix=f"{now}-", dir=parent))


def _do_job(console: Console, client: Scanfleet, url: str, scans: Path) -> JobInfo:
    with _bar(console, "upload") as bar:
        source = client.upload_folder(
            scans,
            on_progress=lambda p: bar(100.0 * p.bytes_done / max(1, p.bytes_total), f"{p.files_total} files"),
        )
    target = source.removesuffix("source/") + "result/"
    body = {SOURCE_KEY: source, TARGET_KEY: target, **SETTINGS}
    console.print(f"POST {url}/process", json.dumps(body), soft_wrap=True, highlight=False)
    answer = httpx.post(f"{url}/process", json=body, timeout=30)
    console.print(answer.status_code, answer.text, soft_wrap=True, highlight=False)
    if answer.status_code != httpx.codes.ACCEPTED:
        raise error_of(answer)
    with _bar(console, "job") as bar:
        return client.wait(
            answer.json()["job_id"],
            on_change=lambda job: bar(job.progress_percent, f"{job.status} {job.stage or ''}"),
        )


def _show(console: Console, job: JobInfo, folder: Path, truth: sample.SampleTruth | None, log: str) -> int:
    result: dict[str, Any] = {"job_id": job.job_id, "status": job.status}
    result["seconds_by_stage"] = job.durations_seconds | job.stage_seconds
    if job.status is JobState.COMPLETED:
        report = json.loads((folder / "result" / REPORT_NAME).read_text(encoding="utf-8"))
        error = asdict(sample.alignment_error(report, truth)) if truth else None
        console.print(_table(job, report, error, folder / "result"))
        result["verdict"] = report["verdict"]
        if error:
            result["error_against_truth"] = error
        result["result_folder"] = str(folder / "result")
    else:
        reason = job.failure.reason if job.failure else "no reason was recorded"
        console.print(f"[bold red]The job is {job.status}:[/] {reason}", highlight=False)
        if log:
            console.print("The end of the program's output:", log, sep="\n", markup=False, highlight=False)
        result["failure"] = reason
    result["logs_folder"] = str(folder / "logs")
    print("RESULT " + json.dumps(result), flush=True)  # noqa: T201 - the one line for machines
    return 0 if job.status is JobState.COMPLETED else 1


def _table(job: JobInfo, report: dict[str, Any], error: dict[str, Any] | None, result: Path) -> Table:
    table = Table(title=f"Job {job.job_id}: {job.status}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("verdict", f"{report['verdict']}: {report['summary']}")
    if error:
        table.add_row(
            "error against the truth",
            f"points off by {error['point_rmse_median_mm']:.4f} mm (median pair),"
            f" {error['point_rmse_max_mm']:.4f} mm (worst pair);"
            f" rotation {error['rotation_median_deg']:.4f}° / {error['rotation_max_deg']:.4f}°;"
            f" {error['scans_aligned']} of {error['scans']} scans together",
        )
    table.add_row("points", f"{report['points_in']:,} in, {report['points_out']:,} out")
    for state, seconds in job.durations_seconds.items():
        table.add_row(f"{state}", f"{seconds:.2f} s")
    for stage, seconds in job.stage_seconds.items():
        table.add_row(f"  stage {stage}", f"{seconds:.2f} s")
    for path in sorted(path for path in result.rglob("*") if path.is_file()):
        kind = "preview" if path.suffix == ".png" else "file"
        table.add_row(kind, f"{path} ({path.stat().st_size:,} bytes)")
    return table


class _Steps:
    """Prints each step of the start with the seconds that it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._step = ""
        self._since = 0.0

    def begin(self, step: str) -> None:
        self.end()
        self._step, self._since = step, time.monotonic()

    def end(self) -> None:
        if self._step:
            _say_done(self._console, self._step, time.monotonic() - self._since)
        self._step = ""


@contextmanager
def _timed(console: Console, step: str) -> Iterator[None]:
    since = time.monotonic()
    yield
    _say_done(console, step, time.monotonic() - since)


def _say_done(console: Console, step: str, seconds: float) -> None:
    console.print(f"[green]✓[/] {step} [dim]{seconds:.1f} s[/]", highlight=False)


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Any]:
    """Show a progress bar; yields a function of percent and text."""
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} % {task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=100.0, text="")

        def update(percent: float, text: str) -> None:
            progress.update(task, completed=percent, text=text)

        yield update
        progress.update(task, completed=100.0)
