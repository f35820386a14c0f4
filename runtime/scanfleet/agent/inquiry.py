"""Keeps a machine's breaker: tells it how attempts end, and what became of the jobs that failed here."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from scanfleet.agent.breaker import Breaker, Phase
from scanfleet.agent.placement import Neighbours
from scanfleet.contract import Dimension, Metric, Pool
from scanfleet.errors import JobFailure, NotFound, Unavailable
from scanfleet.jobs import Job
from scanfleet.leases import Leases
from scanfleet.telemetry import metrics

log = logging.getLogger(__name__)

NO_LIMIT = 1 << 16
STOP_SECONDS = 5.0


class Suspendable(Protocol):
    """What is needed of the worker."""

    def suspend(self, cause: str, reason: str | None, *, is_healthy: bool = False) -> None:
        """Take nothing new while there is a reason."""
        ...


class Inquiry:
    """Looks, in a thread of its own, while the breaker is not closed. Attempts' threads call `ended`."""

    def __init__(
        self, breaker: Breaker, *, leases: Leases, neighbours: Neighbours, pool: Pool, worker: Suspendable
    ) -> None:
        self._breaker = breaker
        self._leases = leases
        self._neighbours = neighbours
        self._pool = pool
        self._worker = worker
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inquiry", daemon=True)

    def start(self) -> None:
        """Begin to look whenever the machine is suspected."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A call without an answer yet is left alone."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(STOP_SECONDS)

    @property
    def most_jobs(self) -> int:
        """Return how many jobs may run side by side as far as the breaker is concerned."""
        return 1 if self._breaker.phase is Phase.PROBING else NO_LIMIT

    @property
    def is_probing(self) -> bool:
        """Return whether this machine has to prove itself."""
        return self._breaker.phase is Phase.PROBING

    @property
    def condemned(self) -> str | None:
        """Return why the machine has to be replaced, or None."""
        return self._breaker.reason if self._breaker.phase is Phase.CONDEMNED else None

    def ended(self, job: Job, failure: JobFailure | None) -> None:
        """Note how an attempt ended."""
        self._change(lambda: self._breaker.ended(job, failure))

    def condemn(self, reason: str) -> None:
        """Let the machine take nothing ever again."""
        self._change(lambda: self._breaker.condemn(reason))

    def look(self) -> None:
        """Look at what became of the jobs that failed here. Raises Unavailable."""
        with self._lock:
            suspects = tuple(self._breaker.suspects)
        jobs: dict[str, Job] = {}
        for job_id in suspects:
            try:
                jobs[job_id] = self._leases.get(job_id)
            except NotFound:
                continue
        peers = self._neighbours.look()
        self._change(lambda: self._breaker.look(jobs, peers))

    def _change(self, change: Callable[[], None]) -> None:
        with self._lock:
            before = self._breaker.phase
            change()
            after, reason = self._breaker.phase, self._breaker.reason
            if after is not before:
                self._tell(before, after, reason)
        if after is not Phase.CLOSED:
            self._wake.set()

    def _tell(self, before: Phase, after: Phase, reason: str) -> None:
        facts: dict[str, object] = {"reason": reason, "suspects": tuple(self._breaker.suspects)}
        match after:
            case Phase.SUSPECTED:
                opened = metrics({Metric.BREAKER_OPENED: 1}, {Dimension.POOL: self._pool.value})
                is_first = before is Phase.CLOSED
                counted = {"action": "breaker_opened", **opened} if is_first else {"action": "probe_failed"}
                log.error("machine is suspected: %s", reason, extra={**facts, **counted})
                self._worker.suspend("breaker", reason, is_healthy=self._breaker.is_in_fleet)
            case Phase.CONDEMNED:
                log.critical(
                    "machine is condemned: %s", reason, extra={"action": "machine_condemned", **facts}
                )
                self._worker.suspend("breaker", reason)
            case Phase.PROBING:
                log.warning("machine takes one job", extra={"action": "breaker_probes", **facts})
                self._worker.suspend("breaker", None)
            case Phase.CLOSED:
                log.info("machine is trusted again", extra={"action": "breaker_closed"})
                self._worker.suspend("breaker", None)

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._breaker.phase in (Phase.CLOSED, Phase.CONDEMNED):
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self.look()
            except Unavailable as error:
                log.warning("no look at suspects: %s", error, extra={"action": "inquiry_failed"})
            except Exception:
                log.exception("no look at suspects", extra={"action": "inquiry_failed"})
            self._stopped.wait(self._interval.total_seconds())

    @property
    def _interval(self) -> timedelta:
        return self._breaker.rules.look
