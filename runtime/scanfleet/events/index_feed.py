"""Changes of jobs for a table without a stream: its index of unfinished jobs, read again and again."""

from scanfleet.errors import NotFound
from scanfleet.events.changes import UNSEEN
from scanfleet.events.reading import Reading
from scanfleet.jobs import Job
from scanfleet.store import JobStore


class IndexFeed:
    """Compares the unfinished jobs with those of the reading before.

    Costs a read of the whole index each time; it serves tables that were made without a stream.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._seen: dict[str, Job] | None = None

    def read(self) -> Reading:
        """Return the visible changes since the last reading. See Feed."""
        present = {job.job_id: job for job in self._store.unfinished()}
        before, self._seen = self._seen, present
        if before is None:
            return Reading()
        changed = [job for job in present.values() if _differs(before.get(job.job_id), job)]
        gone = [self._read(job_id) for job_id in before.keys() - present.keys()]
        return Reading((*changed, *(job for job in gone if job is not None)))

    def _read(self, job_id: str) -> Job | None:
        try:
            return self._store.get(job_id)
        except NotFound:
            return None


def _differs(before: Job | None, after: Job) -> bool:
    if before is None:
        return True
    return before.model_dump(exclude=set(UNSEEN)) != after.model_dump(exclude=set(UNSEEN))
