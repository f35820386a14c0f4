"""The Python client: `with Scanfleet(url) as fleet: fleet.submit("scans", "result").wait()`.

Every verb of the command line is a method here. docs/python-client.md shows them at work.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from scanfleet import log_context
from scanfleet.client_events import JobChanges
from scanfleet.client_files import LocalFile, fingerprint, list_files
from scanfleet.client_handle import JobHandle
from scanfleet.client_http import Clock, HttpApi, checked_url, job_path, open_client
from scanfleet.client_log import LOG_START, LogFollower, LogLine
from scanfleet.client_models import (
    Accepted,
    DeadLetterPage,
    DownloadRefused,
    Health,
    JobFailed,
    JobInfo,
    JobPage,
    JobResult,
    Load,
    LogPage,
    OnChange,
    OnProgress,
    RedriveReport,
    TransferProgress,
    UnexpectedAnswer,
    Uploads,
    VarianceReport,
    WaitTimedOut,
)
from scanfleet.client_redrive import redrive
from scanfleet.client_transfer import Transfers
from scanfleet.client_wait import OUTAGE_PATIENCE, follow, wait_until_finished
from scanfleet.errors import Conflict, InvalidRequest
from scanfleet.evidence import Evidence
from scanfleet.jobs import Manifest, new_job_id
from scanfleet.receipt import Receipt
from scanfleet.s3_uri import S3Uri

__all__ = [
    "Clock",
    "DownloadRefused",
    "Evidence",
    "Health",
    "JobFailed",
    "JobHandle",
    "JobInfo",
    "JobResult",
    "Load",
    "LogLine",
    "Receipt",
    "Scanfleet",
    "TransferProgress",
    "UnexpectedAnswer",
    "VarianceReport",
    "WaitTimedOut",
]

DEFAULT_URL = "http://127.0.0.1:8080"
PAGE_SIZE = 100
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Scanfleet:
    """A Scanfleet service. Use it as a context manager, or close it; threads may share one.

    Every call may raise Unavailable (no answer, after retries where repeating is safe), InvalidRequest (with
    the fields that are wrong), NotFound, Conflict, ConfigurationError (the service refuses this caller) and
    UnexpectedAnswer (something else answers at the address).
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        auth: httpx.Auth | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        live: bool = True,
        trace_id: str | None = None,
    ) -> None:
        """Connects on the first call. `auth` signs calls to the API, never those to S3.

        trace_id: the trace (W3C Trace Context) that every call belongs to, and so every job: 32 hexadecimal
        digits, in lower case. By default each call begins one.

        live: waiting for a job hears of its changes by WebSocket or server-sent events where the service has
        them; False only asks from time to time.

        `transport` and `clock` are for tests. Raises InvalidRequest when `url` is no http(s) address.
        """
        self._clock = clock or Clock()
        self._is_live = live
        self._calls = open_client(checked_url(url), auth=auth, transport=transport)
        self._storage = open_client(transport=transport)
        if trace_id is not None and not log_context.is_trace_id(trace_id):
            allowed = "32 lower-case hexadecimal digits, not all of them 0"
            raise InvalidRequest.of("trace_id", "is no trace id", value=trace_id, allowed=allowed)
        self._api = HttpApi(self._calls, self._clock, trace_id=trace_id)
        self._transfers = Transfers(self._api, self._storage, self._clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._storage.close()

    # --- Jobs ----------------------------------------------------------------------------------------------

    def submit(
        self,
        source: Path | str,
        target: Path | str,
        *,
        processor: str | None = None,
        settings: Mapping[str, Any] | None = None,
        priority: str | None = None,
        time_limit: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        replace_results: bool = False,
        on_progress: OnProgress | None = None,
    ) -> JobHandle:
        """Submit a job over a folder of scans; return its handle at once.

        source, target: `s3://bucket/folder/` URIs or local folders. A local source is uploaded first
        (`on_progress` hears it); with a local target the result goes to a folder of the caller's uploads,
        and `wait` on the handle downloads it.
        processor, settings, priority, time_limit, tags: left out, the service's defaults hold.
        idempotency_key: submitting twice with the same key gives the same job. With a local source "the
        same" means the same names and content, which are read once for it.
        replace_results: a completed job of yours has the target folder; replace its results.
        """
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise InvalidRequest.of(
                "idempotency_key",
                "is not a key",
                value=idempotency_key,
                allowed="1 to 255 printable ASCII characters",
            )
        local_source = _local_folder(source, field="source")
        local_target = _local_folder(target, field="target")
        _check_settings(settings or {})
        _check_folders(local_source, local_target)
        files = list_files(local_source) if local_source else []
        if local_source is not None or local_target is not None:
            home = self._new_folder(fingerprint(idempotency_key, files) if idempotency_key else None)
            source = self._upload(files, home, on_progress) if local_source is not None else source
            target = str(home.child("result/")) if local_target is not None else target
        body = {
            "processor": processor,
            "source": source,
            "target": target,
            "settings": dict(settings or {}),
            "priority": priority,
            "time_limit_seconds": None if time_limit is None else round(time_limit.total_seconds()),
            "tags": dict(tags or {}),
            "replace_results": replace_results or None,
        }
        accepted = self._api.post(
            "/jobs",
            Accepted,
            body={name: value for name, value in body.items() if value is not None},
            headers={"Idempotency-Key": idempotency_key or new_job_id()},
            may_repeat=True,
        )
        return JobHandle(accepted.job_id, self, local_target)

    def handle(self, job_id: str, *, download_to: Path | str | None = None) -> JobHandle:
        """Return the handle of an existing job, without a call."""
        return JobHandle(job_id, self, None if download_to is None else Path(download_to))

    def get(self, job_id: str) -> JobInfo:
        """Return the job as it is now."""
        return self._api.get(job_path(job_id), JobInfo)

    def wait(
        self,
        job_id: str,
        *,
        timeout: timedelta | None = None,
        on_change: OnChange | None = None,
        raise_on_failure: bool = False,
        outage_patience: timedelta = OUTAGE_PATIENCE,
    ) -> JobInfo:
        """Return the job once it has ended, well or not.

        on_change: hears the job as first seen and at every visible change.
        Raises JobFailed for a failed or cancelled job if `raise_on_failure`, WaitTimedOut when `timeout` has
        passed, Unavailable when the service was away longer than `outage_patience`.
        """
        with self._changes(job_id) as changes:
            return wait_until_finished(
                lambda: self.get(job_id),
                clock=self._clock,
                timeout=timeout,
                on_change=on_change,
                raise_on_failure=raise_on_failure,
                outage_patience=outage_patience,
                changes=changes,
            )

    def watch(
        self,
        job_id: str,
        *,
        timeout: timedelta | None = None,
        outage_patience: timedelta = OUTAGE_PATIENCE,
    ) -> Iterator[JobInfo]:
        """Yield the job as it is, then at every visible change; the ended job is the last.

        Raises as `wait` does.
        """
        with self._changes(job_id) as changes:
            yield from follow(
                lambda: self.get(job_id),
                clock=self._clock,
                timeout=timeout,
                outage_patience=outage_patience,
                changes=changes,
            )

    @contextmanager
    def _changes(self, job_id: str) -> Iterator[JobChanges | None]:
        if not self._is_live:
            yield None
            return
        changes = JobChanges(self._api, self._calls, job_id)
        try:
            yield changes
        finally:
            changes.close()

    def jobs(
        self,
        *,
        status: str = "active",
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[JobInfo]:
        """Return jobs, newest first, `limit` at most; pages are fetched as they are needed.

        status: "active" (not ended), "all", or one state. tags: jobs that carry all of these.
        """
        wanted = dict(tags or {})
        first_tag = next((f"{name}:{value}" for name, value in wanted.items()), None)
        page_limit = limit if len(wanted) < 2 else None
        # The service looks for one tag; whatever else is wanted is looked for here.
        found = (
            job
            for page in self._job_pages(status=status, owner=owner, tag=first_tag, limit=page_limit)
            for job in page.jobs
            if wanted.items() <= job.tags.items()
        )
        return islice(found, limit)

    def _job_pages(self, *, limit: int | None, **chosen: str | None) -> Iterator[JobPage]:
        cursor: str | None = None
        size = PAGE_SIZE if limit is None else max(1, min(limit, PAGE_SIZE))
        while True:
            page = self._api.get("/jobs", JobPage, **chosen, limit=size, cursor=cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, job_id: str) -> JobInfo:
        """Ask for the job to be cancelled; return it as it is then. Raises Conflict when it has ended."""
        return self._api.post(job_path(job_id, "/cancel"), JobInfo, may_repeat=True)

    def retry(self, job_id: str) -> JobInfo:
        """Queue the failed or cancelled job once more; return it. Raises Conflict in other states."""
        return self._api.post(job_path(job_id, "/retry"), JobInfo, may_repeat=True)

    def log(self, job_id: str, *, attempt: int | None = None, tail_lines: int | None = None) -> str:
        """Return what the program printed so far, in the last attempt unless one is named.

        tail_lines: only the last lines, 10,000 at most; None gives the whole log.
        """
        path = job_path(job_id, "/log")
        if tail_lines is not None:
            return self._api.get(path, LogPage, attempt=attempt, tail_lines=tail_lines).text
        parts: list[str] = []
        page = self._api.get(path, LogPage, attempt=attempt, after=LOG_START)
        while page.lines:
            parts.append(page.text)
            # By number from now on: a retry meanwhile must not splice two attempts' logs.
            page = self._api.get(path, LogPage, attempt=page.attempt, after=page.next)
        return "".join(parts)

    def follow_log(
        self, job_id: str, *, attempt: int | None = None, tail_lines: int | None = None
    ) -> Iterator[LogLine]:
        """Yield what the program prints, each line once, until the job has ended; retries are followed, too.

        attempt: this one only. tail_lines: begin with the last lines of what was printed before, 10,000 at
        most; None: with its first line. Raises Unavailable when the service is away for half a minute.
        """
        path = job_path(job_id, "/log")
        follower = LogFollower(
            lambda: self.get(job_id),
            lambda number, place: self._api.get(path, LogPage, attempt=number, after=place),
            clock=self._clock,
        )
        job = self.get(job_id)
        first, place = attempt or job.attempt or None, None
        if tail_lines is not None and first is not None:
            page = self._api.get(path, LogPage, attempt=first, tail_lines=tail_lines)
            place = page.next
            yield from (LogLine(first, text) for text in page.lines)
        yield from follower.lines(attempt=first, only=attempt is not None, after=place)

    def evidence(self, job_id: str, *, attempt: int | None = None) -> Evidence:
        """Return what was seen of the job's program before its watch ended it.

        attempt: by default the last one with evidence. Raises NotFound, which says which attempts have some.
        """
        return self._api.get(job_path(job_id, "/evidence"), Evidence, attempt=attempt)

    def receipt(self, job_id: str) -> Receipt:
        """Return where the job's time went, what it used and what it costs; so far, of one that runs."""
        return self._api.get(job_path(job_id, "/receipt"), Receipt)

    # --- The service ---------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Return the service's health. Raises Unavailable, with the reason, when it cannot take jobs."""
        return Health.model_validate_json(self._api.call("GET", "/status/health", attempts=1).content)

    def load(self) -> Load:
        """Return slots, busy slots and backlog per pool and per agent."""
        return self._api.get("/status/load", Load)

    def variance(self, *, processor: str | None = None, days: int | None = None) -> VarianceReport:
        """Return where the spread of a processor's run times comes from. For operators."""
        return self._api.get("/variance", VarianceReport, processor=processor, days=days)

    # --- Dead letters --------------------------------------------------------------------------------------

    def dead_letters(self, *, pool: str | None = None, limit: int | None = None) -> DeadLetterPage:
        """Return up to `limit` (200 at most) dead letters, which stay where they are. For operators."""
        return self._api.get("/dead-letters", DeadLetterPage, pool=pool, limit=limit)

    def redrive(
        self,
        *,
        pool: str | None = None,
        job_ids: Sequence[str] = (),
        purge: Sequence[str] = (),
        dry_run: bool = False,
    ) -> RedriveReport:
        """Send dead letters back, all or those named; return what became of each. For operators.

        purge: ids of letters to delete for good. dry_run: only say what would be done. It goes on until the
        service has come to every letter, or finds none that it can do anything about.
        """
        return redrive(self._api, pool=pool, job_ids=job_ids, purge=purge, dry_run=dry_run)

    # --- Files ---------------------------------------------------------------------------------------------

    def upload_folder(self, folder: Path | str, *, on_progress: OnProgress | None = None) -> str:
        """Upload a local folder; return the new S3 folder's URI, to be used as a job's source."""
        files = list_files(Path(folder))
        return self._upload(files, self._new_folder(), on_progress)

    def _new_folder(self, name: str | None = None) -> S3Uri:
        """Return a folder among the caller's uploads that nobody has used, unless `name` was."""
        uploads = S3Uri.parse_folder(self._api.get("/uploads", Uploads).uri, field="uri")
        return uploads.child(f"{name or new_job_id()}/")

    def _upload(self, files: Sequence[LocalFile], home: S3Uri, on_progress: OnProgress | None) -> str:
        folder = home.child("source/")
        self._transfers.upload(files, folder, on_progress)
        return str(folder)

    def download_result(
        self, job: JobInfo | str, folder: Path | str, *, on_progress: OnProgress | None = None
    ) -> Manifest:
        """Write a completed job's files into the local folder; return their manifest.

        Each file appears whole and verified (size, SHA-256) or not at all; the manifest is written last.
        Raises Conflict when the job has no result, DownloadRefused when a file is not what was published or
        its name would leave the folder.
        """
        info = job if isinstance(job, JobInfo) else self.get(job)
        if info.result is None:
            raise Conflict(f"job {info.job_id} is {info.status}: it has no result to download")
        manifest = self._manifest(info, info.result)
        self._transfers.download(manifest, Path(folder), on_progress)
        return manifest

    def _manifest(self, job: JobInfo, result: JobResult) -> Manifest:
        """Return the whole manifest: the answer holds the first files only, and lists of jobs none."""
        page = result.manifest
        if page is not None and not page.is_truncated:
            files = page.files
        elif result.manifest_uri is not None:
            files = self._transfers.read_manifest(result.manifest_uri).files
        else:
            raise UnexpectedAnswer(f"job {job.job_id} is completed, but its manifest is not named")
        # The job's own facts, not the file's: whoever can write to the target folder can change that one.
        return Manifest(
            job_id=job.job_id,
            attempt=result.attempt,
            processor=job.processor,
            target_uri=job.target,
            release=job.release,
            files=files,
        )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values that no request can carry. Raises InvalidRequest."""
    for name, value in settings.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidRequest.of(
                f"settings.{name}", "cannot be sent", value=value, allowed="what JSON knows"
            ) from error


def _local_folder(place: Path | str, *, field: str) -> Path | None:
    """Return the local folder that is meant, or None for a URI (of any scheme: the service judges it)."""
    if place == "":
        # Path("") is the current folder: a script's unset variable must not upload that.
        raise InvalidRequest.of(field, "is empty", allowed="a folder, or s3://bucket/folder/")
    return None if isinstance(place, str) and "://" in place else Path(place)


def _check_folders(source: Path | None, target: Path | None) -> None:
    if target is None:
        return
    if target.exists() and not target.is_dir():
        raise InvalidRequest.of("target", "is a file", value=target, allowed="a folder")
    if source is not None and target.resolve().is_relative_to(source.resolve()):
        raise InvalidRequest.of("target", "lies inside the source folder", value=target)
