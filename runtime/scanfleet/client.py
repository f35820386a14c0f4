"""The Python client: `with Scanfleet(url) as fleet: fleet.submit("scans", "result").wait()`.

Every verb of the command line is a method here. docs/python-client.md shows them at work.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from scanfleet.client_files import LocalFile, fingerprint, list_files
from scanfleet.client_http import Clock, HttpApi, checked_url, job_path, open_client
from scanfleet.client_models import (
    Accepted,
    DownloadRefused,
    Health,
    JobFailed,
    JobInfo,
    JobPage,
    JobResult,
    Load,
    OnChange,
    OnProgress,
    TransferProgress,
    UnexpectedAnswer,
    UploadsFolder,
    WaitTimedOut,
)
from scanfleet.client_transfer import Transfers
from scanfleet.errors import Conflict, InvalidRequest, Unavailable
from scanfleet.jobs import Manifest, new_job_id
from scanfleet.s3_uri import S3Uri

__all__ = [
    "Clock",
    "DownloadRefused",
    "Health",
    "JobFailed",
    "JobHandle",
    "JobInfo",
    "JobResult",
    "Load",
    "Scanfleet",
    "TransferProgress",
    "UnexpectedAnswer",
    "WaitTimedOut",
]

DEFAULT_URL = "http://127.0.0.1:8080"
FIRST_POLL_SECONDS = 0.2
SLOWEST_POLL_SECONDS = 2.0
POLL_GROWTH = 1.5
OUTAGE_PATIENCE = timedelta(seconds=30)
"""A wait goes on through an outage of the service that is no longer than this."""
PAGE_SIZE = 100


@dataclass(frozen=True)
class JobHandle:
    """A submitted job. `download_to` is the local folder that its result goes to, if one was named."""

    job_id: str
    fleet: "Scanfleet" = field(repr=False)
    download_to: Path | None = None

    def refresh(self) -> JobInfo:
        """Return the job as it is now."""
        return self.fleet.get(self.job_id)

    def wait(
        self,
        *,
        timeout: timedelta | None = None,
        on_change: OnChange | None = None,
        on_progress: OnProgress | None = None,
        raise_on_failure: bool = False,
    ) -> JobInfo:
        """Return the ended job, its result downloaded if a local target was named at submission.

        `on_progress` hears the download; for the rest see Scanfleet.wait.
        """
        job = self.fleet.wait(
            self.job_id, timeout=timeout, on_change=on_change, raise_on_failure=raise_on_failure
        )
        if self.download_to is not None and job.result is not None:
            self.fleet.download_result(job, self.download_to, on_progress=on_progress)
        return job

    def cancel(self) -> JobInfo:
        """Ask for the job to be cancelled; return it as it is then."""
        return self.fleet.cancel(self.job_id)

    def retry(self) -> JobInfo:
        """Queue the ended job once more; return it."""
        return self.fleet.retry(self.job_id)

    def log(self, *, attempt: int | None = None, tail_lines: int | None = None) -> str:
        """Return what the job's program printed."""
        return self.fleet.log(self.job_id, attempt=attempt, tail_lines=tail_lines)

    def download(self, folder: Path | str, *, on_progress: OnProgress | None = None) -> Manifest:
        """Write the completed job's result into the folder; return its manifest."""
        return self.fleet.download_result(self.job_id, folder, on_progress=on_progress)


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
    ) -> None:
        """Connects on the first call. `auth` signs calls to the API, never those to S3.

        `transport` and `clock` are for tests. Raises InvalidRequest when `url` is no http(s) address.
        """
        self._clock = clock or Clock()
        self._calls = open_client(checked_url(url), auth=auth, transport=transport)
        self._storage = open_client(transport=transport)
        self._api = HttpApi(self._calls, self._clock)
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
        on_progress: OnProgress | None = None,
    ) -> JobHandle:
        """Submit a job over a folder of scans; return its handle at once.

        source, target: `s3://bucket/folder/` URIs or local folders. A local source is uploaded first
        (`on_progress` hears it); with a local target the result goes to a folder of the caller's uploads,
        and `wait` on the handle downloads it.
        processor, settings, priority, time_limit, tags: left out, the service's defaults hold.
        idempotency_key: submitting twice with the same key gives the same job. With a local source "the
        same" means the same names and content, which are read once for it.
        """
        local_source, local_target = _local_folder(source), _local_folder(target)
        _check_folders(local_source, local_target)
        files = list_files(local_source) if local_source else []
        if local_source or local_target:
            name = fingerprint(idempotency_key, files) if idempotency_key else new_job_id()
            home = self.uploads_folder().child(f"{name}/")
        source_uri = str(home.child("source/") if local_source else source)
        target_uri = str(home.child("result/") if local_target else target)
        if files:
            self._transfers.upload(files, home.child("source/"), on_progress)
        body = {
            "processor": processor,
            "source": source_uri,
            "target": target_uri,
            "settings": dict(settings or {}),
            "priority": priority,
            "time_limit_seconds": None if time_limit is None else round(time_limit.total_seconds()),
            "tags": dict(tags or {}),
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
        deadline = None if timeout is None else self._clock.now() + timeout.total_seconds()
        pause, answered_at = FIRST_POLL_SECONDS, self._clock.now()
        job: JobInfo | None = None
        seen: JobInfo | None = None
        while True:
            try:
                job = self.get(job_id)
                answered_at = self._clock.now()
            except Unavailable:
                if self._clock.now() - answered_at >= outage_patience.total_seconds():
                    raise
            if job is not None and (seen is None or job.visible_state != seen.visible_state):
                pause = FIRST_POLL_SECONDS
                if on_change is not None:
                    on_change(job)
            seen = job
            if job is not None and job.is_finished:
                if raise_on_failure and job.result is None:
                    raise JobFailed(job)
                return job
            pause = self._pause(pause, deadline, job)

    def _pause(self, seconds: float, deadline: float | None, job: JobInfo | None) -> float:
        """Sleep, but not past the deadline; return the next pause. Raises WaitTimedOut at the deadline."""
        left = float("inf") if deadline is None else deadline - self._clock.now()
        if left <= 0:
            if job is None:
                raise Unavailable("the service did not answer within the time to wait")
            raise WaitTimedOut(job)
        self._clock.sleep(min(seconds, left))
        return min(seconds * POLL_GROWTH, SLOWEST_POLL_SECONDS)

    def jobs(
        self,
        *,
        status: str = "active",
        owner: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[JobInfo]:
        """Yield jobs, page by page, `limit` at most.

        status: "active" (not ended), "all", or one state. tags: jobs that carry all of these.
        """
        cursor, left = None, limit
        while left is None or left > 0:
            page = self._api.get(
                "/jobs",
                JobPage,
                status=status,
                owner=owner,
                tag=[f"{name}:{value}" for name, value in (tags or {}).items()],
                limit=PAGE_SIZE if left is None else min(left, PAGE_SIZE),
                cursor=cursor,
            )
            yield from page.jobs if left is None else page.jobs[:left]
            left = None if left is None else left - len(page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel(self, job_id: str) -> JobInfo:
        """Ask for the job to be cancelled; return it as it is then. Raises Conflict when it has ended."""
        return self._api.post(job_path(job_id, "/cancel"), JobInfo, may_repeat=True)

    def retry(self, job_id: str) -> JobInfo:
        """Queue the failed or cancelled job once more; return it. Raises Conflict in any other state."""
        # Not repeated after a lost answer: the second try would find the job queued and call that a conflict.
        return self._api.post(job_path(job_id, "/retry"), JobInfo, may_repeat=False)

    def log(self, job_id: str, *, attempt: int | None = None, tail_lines: int | None = None) -> str:
        """Return what the program printed: of the last attempt unless one is named, whole unless cut."""
        return self._api.get_text(job_path(job_id, "/log"), attempt=attempt, tail_lines=tail_lines)

    # --- The service ---------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Return the service's health. Raises Unavailable, with the reason, when it cannot take jobs."""
        return Health.model_validate_json(self._api.call("GET", "/status/health", attempts=1).content)

    def load(self) -> Load:
        """Return slots, busy slots and backlog per pool and per agent."""
        return self._api.get("/status/load", Load)

    # --- Files ---------------------------------------------------------------------------------------------

    def uploads_folder(self) -> S3Uri:
        """Return the S3 folder that this caller may upload to."""
        return S3Uri.parse_folder(self._api.get("/uploads", UploadsFolder).uri, field="uri")

    def upload_folder(self, folder: Path | str, *, on_progress: OnProgress | None = None) -> str:
        """Upload a local folder; return the new S3 folder's URI, to be used as a job's source."""
        files: list[LocalFile] = list_files(Path(folder))
        uri = self.uploads_folder().child(f"{new_job_id()}/source/")
        self._transfers.upload(files, uri, on_progress)
        return str(uri)

    def download_result(
        self, job: JobInfo | str, folder: Path | str, *, on_progress: OnProgress | None = None
    ) -> Manifest:
        """Write a completed job's files into the local folder; return their manifest.

        Each file appears whole and verified (size, SHA-256) or not at all; the manifest is written last.
        Raises Conflict when the job has no result, DownloadRefused when a file is not what was published or
        its name would leave the folder.
        """
        info = job if isinstance(job, JobInfo) and job.result and job.result.manifest else None
        info = info or self.get(job if isinstance(job, str) else job.job_id)
        if info.result is None:
            raise Conflict(f"job {info.job_id} is {info.status}: it has no result to download")
        if info.result.manifest is None:
            raise UnexpectedAnswer(f"job {info.job_id} is completed, but its manifest cannot be read")
        self._transfers.download(info.result.manifest, Path(folder), on_progress)
        return info.result.manifest


def _local_folder(place: Path | str) -> Path | None:
    """Return the local folder that is meant, or None for a URI (of any scheme: the service judges it)."""
    return None if isinstance(place, str) and "://" in place else Path(place)


def _check_folders(source: Path | None, target: Path | None) -> None:
    if target is None:
        return
    if target.exists() and not target.is_dir():
        raise InvalidRequest.of("target", "is a file", value=target, allowed="a folder")
    if source is not None and target.resolve().is_relative_to(source.resolve()):
        raise InvalidRequest.of("target", "lies inside the source folder", value=target)
