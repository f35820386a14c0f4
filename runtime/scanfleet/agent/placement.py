"""Where a job that has failed before should run: here, on another machine, or here and alone.

A failure of the machine's kind is retried elsewhere, if there is an elsewhere: else a broken machine, which
is always idle because it fails so fast, would use up a job's retries alone.
"""

import logging
import time
from collections.abc import Callable
from enum import StrEnum

from scanfleet.agent.breaker import SUSPICIOUS, Peers
from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import OTHER_MACHINE_WAIT, Pool
from scanfleet.errors import Unavailable
from scanfleet.jobs import Failure, FailureClass, Job, JobState

log = logging.getLogger(__name__)

REPORTS_REMEMBERED_SECONDS = 3.0


class Place(StrEnum):
    """What this machine should do with a job."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    """Leave it to another machine for a while."""
    ALONE = "alone"
    """Run it here, with no other job beside it."""


def place(job: Job, *, agent_id: str, now: float, others_serve: Callable[[], bool]) -> Place:
    """Return where the job should run; `others_serve` is asked only when it matters. now: epoch seconds."""
    last = last_failure(job)
    if last is None or job.state is not JobState.QUEUED or job.committed_attempt is not None:
        return Place.HERE
    has_waited = now - job.queued_at >= OTHER_MACHINE_WAIT.total_seconds()
    was_here = last.agent_id == agent_id and last.failure_class in SUSPICIOUS
    if was_here and not has_waited and others_serve():
        return Place.ELSEWHERE
    return Place.ALONE if last.failure_class is FailureClass.OUT_OF_MEMORY else Place.HERE


def last_failure(job: Job) -> Failure | None:
    """Return the last failure that tells of job or machine: forgiven ones and lost machines tell nothing."""
    for failure in reversed(job.failures[job.failures_forgiven :]):
        if failure.failure_class is not FailureClass.LOST_MACHINE:
            return failure
    return None


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
        serving = sum(map(_takes_jobs, others))
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


def _takes_jobs(agent: AgentReport) -> bool:
    return not (agent.is_stopping or agent.is_on_hold or agent.is_suspended)
