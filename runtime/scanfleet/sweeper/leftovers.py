"""Deletes what attempts that are over have left in the staging area.

Once an hour it begins a pass through the area, a limited number of jobs in each run. Where it is, and when
the last pass ended, it remembers only as long as its process lives: a new process begins a new pass, which
finds what is left. (The bucket's own rule deletes what is older than a week, whoever wrote it.)
"""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from scanfleet.errors import NotFound, ScanfleetError
from scanfleet.jobs import Job, is_job_id
from scanfleet.objects import KEYS_PER_CALL
from scanfleet.repairs import Repair, record_repair
from scanfleet.store import JobStore
from scanfleet.sweeper.orphans import is_orphaned
from scanfleet.sweeper.staging import Staged, StagingArea, Upload

log = logging.getLogger(__name__)

PASS_EVERY = timedelta(hours=1)
JOBS_PER_RUN = 100

IsTimeUp = Callable[[], bool]


class StagingSweep:
    """Goes through the staging area, a part in each run."""

    def __init__(self, store: JobStore, area: StagingArea, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._area = area
        self._clock = clock
        self._next_pass_at = 0.0
        self._after = ""

    def run(self, is_time_up: IsTimeUp) -> int:
        """Do the next part of a pass that is due; return how many repairs. Logs what fails, and goes on."""
        if self._clock() < self._next_pass_at:
            return 0
        try:
            repairs = 0 if self._after else self._abort_uploads(is_time_up)
            return repairs + self._delete_results(is_time_up)
        except ScanfleetError as error:
            log.error("staging area not swept: %s", error, extra={"action": "sweep_failed"})
            return 0

    def _delete_results(self, is_time_up: IsTimeUp) -> int:
        repairs = 0
        names = self._area.jobs(after=self._after, limit=JOBS_PER_RUN)
        for name in names:
            if is_time_up():
                return repairs
            if is_job_id(name):
                repairs += self._careful(name, self._delete_results_of, name, is_time_up)
            if is_time_up():
                return repairs  # it comes once more: this job may not be done
            self._after = name
        if len(names) < JOBS_PER_RUN:
            self._after = ""
            self._next_pass_at = self._clock() + PASS_EVERY.total_seconds()
        return repairs

    def _delete_results_of(self, job_id: str, is_time_up: IsTimeUp) -> int:
        # The attempts first: what is committed while we look is then seen in the record.
        staged = self._area.attempts(job_id)
        job = self._store.get(job_id)
        return sum(
            self._delete_attempt(job, found, is_time_up) for found in staged if self._is_left(job, found)
        )

    def _is_left(self, job: Job, found: Staged) -> bool:
        return is_orphaned(job, found.attempt, written_at=found.written_at, now=self._clock())

    def _delete_attempt(self, job: Job, found: Staged, is_time_up: IsTimeUp) -> bool:
        for batch in _batches(found.keys):
            if is_time_up():
                return False
            self._area.delete(batch)
        facts = {"job_id": job.job_id, "attempt": found.attempt, "files": len(found.keys)}
        record_repair(Repair.STAGING_ORPHANED, job.pool, **facts)
        return True

    def _abort_uploads(self, is_time_up: IsTimeUp) -> int:
        repairs = 0
        for upload in self._area.uploads():
            if is_time_up():
                break
            repairs += self._careful(upload.job_id, self._abort_upload, upload)
        return repairs

    def _abort_upload(self, upload: Upload) -> bool:
        job = self._store.get(upload.job_id)
        if not is_orphaned(job, upload.attempt, written_at=upload.begun_at, now=self._clock()):
            return False
        self._area.abort(upload)
        facts = {"job_id": job.job_id, "attempt": upload.attempt}
        record_repair(Repair.UPLOAD_ORPHANED, job.pool, **facts)
        return True

    def _careful(self, job_id: str, repair: Callable[..., int], *arguments: object) -> int:
        """Return how many repairs were made; a failure at this job is logged and stops nothing else."""
        try:
            return repair(*arguments)
        except NotFound:
            return 0  # the record has expired, or the upload is gone; the bucket's rule takes the rest
        except ScanfleetError as error:
            log.error("job not repaired: %s", error, extra={"action": "repair_failed", "job_id": job_id})
        except Exception:
            log.exception("job not repaired", extra={"action": "repair_failed", "job_id": job_id})
        return 0


def _batches(keys: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(keys[first : first + KEYS_PER_CALL]) for first in range(0, len(keys), KEYS_PER_CALL)]
