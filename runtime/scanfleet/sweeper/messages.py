"""Sends the messages that unfinished jobs have lost.

Two sweepers at once do no harm: each reads a job afresh before it sends, and a second message is one that
finds its job held or ended.
"""

import logging
from collections.abc import Callable
from datetime import timedelta

from scanfleet.contract import Dimension, Metric, Pool
from scanfleet.errors import Conflict, NotFound, ScanfleetError
from scanfleet.jobs import LEASED_STATES, Job
from scanfleet.queue import JobQueues
from scanfleet.repairs import Repair, record_repair
from scanfleet.store import JobStore
from scanfleet.sweeper.decision import Taken, is_drained, repair_of, taken_of, waits_for_message
from scanfleet.telemetry import metrics

log = logging.getLogger(__name__)

MOST_CANDIDATES = 2000
"""So many jobs without an agent one run looks at closely, the oldest first: as many whose message was sent as
others. It bounds a run's time and memory."""
LOOKS_APART = timedelta(seconds=30)
"""Two looks at a pool's queues that are closer count as one."""
NOT_AGAIN_WITHIN = timedelta(minutes=10)
"""A job whose mark cannot be written gets no further message of this process for this long."""

IsTimeUp = Callable[[], bool]


class MessageSweep:
    """Looks at every unfinished job. What it remembers from run to run only makes it repair less often."""

    def __init__(self, store: JobStore, queues: JobQueues, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._queues = queues
        self._clock = clock
        self._drained_since: dict[Pool, float] = {}
        self._sent: dict[str, float] = {}

    def run(self, is_time_up: IsTimeUp) -> int:
        """Repair what is found; return how much. Logs what fails; raises nothing that Scanfleet foresees."""
        try:
            running, candidates, is_complete = self._look(is_time_up)
        except ScanfleetError as error:
            log.error("jobs cannot be listed: %s", error, extra={"action": "sweep_failed"})
            return 0
        now = self._clock()
        self._sent = {k: at for k, at in self._sent.items() if now - at < NOT_AGAIN_WITHIN.total_seconds()}
        taken = taken_of(running, now)
        repairs = 0
        for pool in self._queues.pools:
            own = [job for job in candidates if job.pool is pool]
            repairs += self._sweep_pool(pool, own, taken.get(pool, Taken()), is_complete, is_time_up)
        return repairs

    def _look(self, is_time_up: IsTimeUp) -> tuple[list[Job], list[Job], bool]:
        """Return the leased jobs, those that may have no message, and whether these are all."""
        running: list[Job] = []
        candidates: list[Job] = []
        for job in self._store.running_or_unsent():
            if job.state in LEASED_STATES:
                running.append(job)
            if self._may_wait(job) and len(candidates) < MOST_CANDIDATES:
                candidates.append(job)
            if is_time_up():
                return running, candidates, False
        most = len(candidates) + MOST_CANDIDATES  # however many of the others there are
        for job in self._store.waiting():
            if self._may_wait(job):
                candidates.append(job)
            if is_time_up():
                return running, candidates, False
            if len(candidates) >= most:
                break
        return running, candidates, True

    def _may_wait(self, job: Job) -> bool:
        return waits_for_message(job, self._clock()) is not None

    def _sweep_pool(
        self, pool: Pool, candidates: list[Job], taken: Taken, is_complete: bool, is_time_up: IsTimeUp
    ) -> int:
        try:
            is_pool_drained = self._is_drained(pool, taken)
        except ScanfleetError as error:
            log.error("queues not counted: %s", error, extra={"action": "sweep_failed", "pool": pool})
            return 0
        repairs = 0
        for job in candidates:
            if is_time_up():
                is_complete = False
                break
            repairs += self._sweep_job(job, is_pool_drained=is_pool_drained, taken=taken)
        if is_complete:
            counted = metrics({Metric.SWEEPER_RUNS: 1}, {Dimension.POOL: pool.value})
            facts = {"action": "swept", "candidates": len(candidates), "repairs": repairs}
            log.info("pool was swept", extra=facts | counted)
        else:
            log.warning("the sweep's time is up", extra={"action": "sweep_cut_short", "pool": pool})
        return repairs

    def _is_drained(self, pool: Pool, taken: Taken) -> bool:
        """Return whether the pool's queues hold nothing for waiting jobs, and did not at an earlier look."""
        if not is_drained(self._queues.backlog(pool), taken):
            self._drained_since.pop(pool, None)
            return False
        now = self._clock()
        return now - self._drained_since.setdefault(pool, now) >= LOOKS_APART.total_seconds()

    def _sweep_job(self, job: Job, *, is_pool_drained: bool, taken: Taken) -> bool:
        """Send the job's message if it has none; return whether it was sent."""
        try:
            return self._send_if_lost(job, is_pool_drained=is_pool_drained, taken=taken)
        except ScanfleetError as error:
            facts = {"action": "repair_failed", "job_id": job.job_id}
            log.error("job not repaired: %s", error, extra=facts)
        except Exception:
            log.exception("job not repaired", extra={"action": "repair_failed", "job_id": job.job_id})
        return False

    def _send_if_lost(self, listed: Job, *, is_pool_drained: bool, taken: Taken) -> bool:
        def repair_now(job: Job) -> Repair | None:
            return repair_of(job, is_pool_drained=is_pool_drained, taken=taken, now=self._clock())

        if repair_now(listed) is None or listed.job_id in self._sent:
            return False
        try:
            job = self._store.get(listed.job_id)  # the index may be seconds old
        except NotFound:
            return False
        repair = repair_now(job)
        if repair is None:
            return False
        self._queues.send(job)
        self._sent[job.job_id] = self._clock()
        record_repair(repair, job.pool, job_id=job.job_id, state=job.state, attempt=job.attempt)
        try:
            self._store.mark_enqueued(job)
        except Conflict:
            return True  # it has been taken meanwhile
        del self._sent[job.job_id]  # the record itself remembers
        return True
