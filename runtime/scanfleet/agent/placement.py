"""Where a job that has failed before should run: here, on another machine, or here and alone.

A failure of the machine's kind is retried elsewhere, if there is an elsewhere: else a broken machine, which
is always idle because it fails so fast, would use up a job's retries alone.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from scanfleet.agent.breaker import Peers
from scanfleet.agent_reports import AgentDirectory
from scanfleet.contract import Pool
from scanfleet.errors import Unavailable
from scanfleet.jobs import FailureClass, Job, JobState, last_telling_failure, machine_to_avoid

log = logging.getLogger(__name__)

REPORTS_REMEMBERED_SECONDS = 3.0
MOST_STEPS_BACK = 3
"""For one job. Afterwards nobody else is free, and other jobs must not wait for this one."""


class Place(StrEnum):
    """What this machine should do with a job."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    """Leave it to another machine for a while."""
    ALONE = "alone"
    """Run it here, with no other job beside it."""


def place(job: Job, *, agent_id: str, now: float, others_serve: Callable[[], bool]) -> Place:
    """Return where the job should run; `others_serve` is asked only when it matters. now: epoch seconds."""
    if job.state is not JobState.QUEUED or job.committed_attempt is not None:
        return Place.HERE
    if machine_to_avoid(job, now) == agent_id and others_serve():
        return Place.ELSEWHERE
    last = last_telling_failure(job)
    is_large = last is not None and last.failure_class is FailureClass.OUT_OF_MEMORY
    return Place.ALONE if is_large else Place.HERE


class StepBack:
    """How long an agent asks for no message after it has left a job to others. clock: seconds.

    A queue chooses by chance among those who ask, and others may ask for a while in vain beside the one that
    must not have the job.
    """

    def __init__(self, pause: timedelta, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_seconds = pause.total_seconds()
        self._clock = clock
        self._until = float("-inf")
        self._job_id = ""
        self._times = 0

    def begin(self, job_id: str) -> None:
        """Step back for a job, MOST_STEPS_BACK times in a row at most."""
        self._times = self._times + 1 if job_id == self._job_id else 1
        self._job_id = job_id
        if self._times <= MOST_STEPS_BACK:
            self._until = self._clock() + self._pause_seconds

    @property
    def seconds_left(self) -> float:
        """Return how long not to ask; 0: ask."""
        return max(0.0, self._until - self._clock())


class Neighbours:
    """The other agents of this agent's pool, by their reports. clock: seconds."""

    def __init__(
        self,
        directory: AgentDirectory,
        *,
        agent_id: str,
        pool: Pool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._agent_id = agent_id
        self._pool = pool
        self._clock = clock
        self._seen: Peers | None = None
        self._seen_at = float("-inf")

    def look(self) -> Peers:
        """Return them as they are now. Raises Unavailable."""
        reports = self._directory.in_service()
        others = [r for r in reports if r.pool is self._pool and r.agent_id != self._agent_id]
        serving = sum(other.takes_jobs for other in others)
        self._seen = Peers(serving=serving, suspended=sum(other.is_suspended for other in others))
        self._seen_at = self._clock()
        return self._seen

    def serve(self) -> bool:
        """Return whether any of them takes jobs; yes when nobody can say: what waits for them is bounded."""
        try:
            is_fresh = self._clock() - self._seen_at < REPORTS_REMEMBERED_SECONDS
            peers = self._seen if self._seen is not None and is_fresh else self.look()
        except Unavailable as error:
            log.warning("no reports: %s", error, extra={"action": "reports_not_read"})
            return True
        return peers.serving > 0
