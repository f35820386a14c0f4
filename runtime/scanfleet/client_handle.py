"""The handle of a submitted job: the client's calls with the job's id filled in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from scanfleet.client_log import LogLine
from scanfleet.client_models import JobInfo, OnChange, OnProgress
from scanfleet.jobs import Manifest

if TYPE_CHECKING:
    from scanfleet.client import Scanfleet
    from scanfleet.evidence import Evidence
    from scanfleet.receipt import Receipt


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

    def follow_log(self, *, attempt: int | None = None, tail_lines: int | None = None) -> Iterator[LogLine]:
        """Yield what the job's program prints until the job has ended; see Scanfleet.follow_log."""
        return self.fleet.follow_log(self.job_id, attempt=attempt, tail_lines=tail_lines)

    def evidence(self, *, attempt: int | None = None) -> "Evidence":
        """Return what was seen of the job's program before its watch ended it."""
        return self.fleet.evidence(self.job_id, attempt=attempt)

    def receipt(self) -> "Receipt":
        """Return where the job's time went, what it used and what it costs."""
        return self.fleet.receipt(self.job_id)

    def download(self, folder: Path | str, *, on_progress: OnProgress | None = None) -> Manifest:
        """Write the completed job's result into the folder; return its manifest."""
        return self.fleet.download_result(self.job_id, folder, on_progress=on_progress)
