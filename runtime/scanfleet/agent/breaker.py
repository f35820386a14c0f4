"""Whether this machine may go on taking jobs: a decision from what became of those that it failed.

    closed      takes jobs
       | k different jobs in a row failed here in a way that a broken machine may cause
    suspected   takes none, and looks at what became of them
       |-- most failed the same way on another machine: the jobs are to blame -> closed
       |-- most were completed by another machine, in a fleet -> condemned
       | nobody else can tell: no other machine serves, many are suspected as well, or it took too long
    probing     takes one job at a time
       |-- it succeeds -> closed
       |-- it fails as well -> suspected again, and longer; in a fleet condemned in the end
    condemned   takes none ever again: the machine has to be replaced

A batch of poison jobs must not take a fleet down. So a failure that the same job had elsewhere before tells
of the job and not of the machine, and a machine that has met such jobs needs more failures to be suspected;
and while a third of the other machines are suspected too, whatever it is, it is not this machine.
Pure: no service, no thread. docs/decisions/0043-*.md has the reasons.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from scanfleet.errors import JobFailure
from scanfleet.jobs import MACHINE_CLASSES, FailureClass, Job, JobState

MORE_FAILURES_PER_POISON_JOB = 2
"""Each poison job met since the last success raises the failures needed by this: a long batch of them makes
fewer and fewer machines stop."""


class Phase(StrEnum):
    """Where a breaker is; the module's text draws what follows what."""

    CLOSED = "closed"
    SUSPECTED = "suspected"
    PROBING = "probing"
    CONDEMNED = "condemned"


class Fate(StrEnum):
    """What became, elsewhere, of a job that failed here."""

    UNKNOWN = "unknown"
    COMPLETED = "completed"
    FAILED_ALIKE = "failed_alike"


@dataclass(frozen=True)
class Peers:
    """The pool's other agents in service: those that take jobs, and those that suspect themselves."""

    serving: int
    suspended: int

    @property
    def are_ailing(self) -> bool:
        """Return whether so many are suspected that one machine's fault cannot be the reason."""
        return self.suspended > 0 and 3 * self.suspended >= self.serving + self.suspended


@dataclass(frozen=True, kw_only=True)
class BreakerRules:
    """How many failures, and how long."""

    failures: int = 3
    """Different jobs in a row; 0: no number of them is enough."""
    look: timedelta = timedelta(seconds=5)
    """Between two looks at what became of them."""
    pause: timedelta = timedelta(seconds=30)
    """Before the first probe; doubled after each that fails."""
    longest_pause: timedelta = timedelta(minutes=10)
    decide_within: timedelta = timedelta(minutes=20)
    """Others are waited for as long: above the common length of a job."""


class Breaker:
    """One machine's breaker. The caller serializes the calls. clock: seconds.

    is_in_fleet: somebody replaces a condemned machine; without, only `condemn` condemns.
    """

    def __init__(
        self,
        agent_id: str,
        *,
        is_in_fleet: bool,
        rules: BreakerRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent_id = agent_id
        self.is_in_fleet = is_in_fleet
        self.rules = rules or BreakerRules()
        self._clock = clock
        self.phase = Phase.CLOSED
        self.reason = ""
        """Why it is not closed, for people."""
        self._poison_jobs = 0
        self._suspects: dict[str, FailureClass] = {}
        self._pause = self.rules.pause
        self._probe_at = self._decide_at = 0.0
        self._failed_probes = 0
        self._were_ailing = False
        self._last_reason = ""

    @property
    def suspects(self) -> Mapping[str, FailureClass]:
        """Return the jobs that failed here in a row, and how: job id -> class of the last failure."""
        return dict(self._suspects)

    def ended(self, job: Job, failure: JobFailure | None) -> None:
        """Note how an attempt ended here; None: it succeeded. `job` knows the attempts before it."""
        if self.phase is Phase.CONDEMNED:
            return
        if failure is None:
            if job.committed_attempt in (None, job.attempt):  # else nothing ran here but the publication
                self._poison_jobs = 0
                self._close()
        elif failure.condemns_machine:
            self.condemn(failure.reason)
        elif failure.failure_class in MACHINE_CLASSES:
            self._failed(job, failure)

    def _failed(self, job: Job, failure: JobFailure) -> None:
        if fate_of(job, failure.failure_class, self._agent_id) is Fate.FAILED_ALIKE:
            self._poison_jobs += 1
            self._suspects.pop(job.job_id, None)
            return
        if self.rules.failures == 0:
            return
        self._suspects[job.job_id] = failure.failure_class
        if self.phase is Phase.PROBING:
            self._failed_probes += 1
            self._pause = min(self._pause * 2, self.rules.longest_pause)
            self._suspect(failure)
        elif self.phase is Phase.CLOSED and len(self._suspects) >= self._needed:
            self._decide_at = self._clock() + self.rules.decide_within.total_seconds()
            self._suspect(failure)

    @property
    def _needed(self) -> int:
        return self.rules.failures + MORE_FAILURES_PER_POISON_JOB * self._poison_jobs

    def condemn(self, reason: str) -> None:
        """Take nothing ever again."""
        if self.phase is not Phase.CONDEMNED:
            self.phase, self.reason = Phase.CONDEMNED, reason

    def look(self, jobs: Mapping[str, Job], peers: Peers) -> None:
        """Decide again. jobs: the present records of `suspects`; those that are gone may be left out."""
        if self.phase not in (Phase.SUSPECTED, Phase.PROBING):
            return
        fates = [
            fate_of(jobs[job_id], failure_class, self._agent_id)
            for job_id, failure_class in self._suspects.items()
            if job_id in jobs
        ]
        self._were_ailing = self._were_ailing or peers.are_ailing
        if 2 * fates.count(Fate.FAILED_ALIKE) > len(self._suspects) or not self._suspects:
            self._poison_jobs += fates.count(Fate.FAILED_ALIKE)
            self._close()
        elif self._is_guilty(fates, peers):
            completed = fates.count(Fate.COMPLETED)
            self.condemn(f"{self._story()}; {completed} of them were completed by other machines")
        elif self.phase is Phase.SUSPECTED and self._may_probe(peers):
            self.phase = Phase.PROBING

    def _is_guilty(self, fates: list[Fate], peers: Peers) -> bool:
        if not self.is_in_fleet or peers.are_ailing:
            return False
        others_succeed = 2 * fates.count(Fate.COMPLETED) > len(self._suspects)
        if self._were_ailing:
            # Perhaps something troubled all of them and has passed: more of its own failures are wanted.
            return others_succeed and self._failed_probes >= self.rules.failures
        is_over = self.phase is Phase.SUSPECTED and self._is_overdue and self._failed_probes > 0
        return others_succeed or is_over

    def _may_probe(self, peers: Peers) -> bool:
        if self._clock() < self._probe_at:
            return False
        return not self.is_in_fleet or self._were_ailing or not peers.serving or self._is_overdue

    @property
    def _is_overdue(self) -> bool:
        return self._clock() >= self._decide_at

    def _suspect(self, failure: JobFailure) -> None:
        self.phase = Phase.SUSPECTED
        self._probe_at = self._clock() + self._pause.total_seconds()
        self._last_reason = failure.reason
        self.reason = self._story()

    def _story(self) -> str:
        kinds = ", ".join(sorted(set(self._suspects.values())))
        return f"{len(self._suspects)} different jobs in a row failed here ({kinds}): {self._last_reason}"

    def _close(self) -> None:
        self.phase, self.reason = Phase.CLOSED, ""
        self._suspects.clear()
        self._pause = self.rules.pause
        self._failed_probes = 0
        self._were_ailing = False


def fate_of(job: Job, failure_class: FailureClass, agent_id: str) -> Fate:
    """Return what other machines' attempts say of a failure of this class on this machine."""
    others = [failure for failure in job.failures if failure.agent_id not in (None, agent_id)]
    if any(failure.failure_class == failure_class for failure in others):
        return Fate.FAILED_ALIKE
    is_done = job.state is JobState.COMPLETED and job.agent_id != agent_id
    return Fate.COMPLETED if is_done else Fate.UNKNOWN
