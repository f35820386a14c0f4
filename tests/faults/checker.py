"""The invariants, checked once more when everything has come to rest."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from scanfleet.contract import MAX_ATTEMPTS
from scanfleet.jobs import RETRY_RULES, FailureClass, Job, JobState
from scanfleet.store_items import job_from_item
from tests.faults.client_faults import ACCEPTED, ClientFaults
from tests.faults.journal import Journal
from tests.faults.plan import PlannedJob
from tests.faults.problems import Problems
from tests.faults.program import DISK_FULL_CODE
from tests.faults.results import Results
from tests.faults.world import TABLE, World

TERMINAL = {"completed", "failed", "cancelled"}
LEGAL: dict[str, set[str]] = {
    "queued": {"downloading", "uploading", "cancelled", "failed"},
    "downloading": {"processing", "queued", "failed", "cancelled", "downloading", "uploading"},
    "processing": {"uploading", "queued", "failed", "cancelled", "downloading"},
    "uploading": {"completed", "queued", "failed", "cancelled", "downloading", "uploading"},
    "completed": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
"""docs/job-lifecycle.md, with the take-overs of silent owners."""
CLASS_OF_MODE: dict[str, FailureClass] = {
    "hang_start": FailureClass.HANG,
    "hang_middle": FailureClass.HANG,
    "hang_end": FailureClass.HANG,
    "memory": FailureClass.OUT_OF_MEMORY,
    "disk": FailureClass.PROGRAM_ERROR,
    "partial": FailureClass.PROGRAM_ERROR,
    "link": FailureClass.PROGRAM_ERROR,
}
INJECTED = {FailureClass.TRANSFER, FailureClass.LOST_MACHINE}
"""Classes that faults of the surroundings may bring to any job."""


@dataclass(frozen=True)
class Accepted:
    """One job that the API took."""

    job_id: str
    planned: PlannedJob
    folder: str
    """Key prefix of its target."""


class Checker:
    """Looks at the table, the buckets and the journal; every broken invariant goes to `problems`."""

    def __init__(
        self, world: World, journal: Journal, results: Results, clients: ClientFaults, problems: Problems
    ) -> None:
        self._world = world
        self._journal = journal
        self._results = results
        self._clients = clients
        self._problems = problems

    def records(self) -> dict[str, Job]:
        """Return every job of the table, by id."""
        pages = self._world.dynamodb.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        items = [item for page in pages for item in page["Items"] if item["pk"]["S"].startswith("JOB#")]
        return {job.job_id: job for job in map(job_from_item, items)}

    def check(self, accepted: list[Accepted]) -> dict[str, Job]:
        """Check all; return the jobs as they are."""
        jobs = self.records()
        known = {each.job_id: each for each in accepted}
        for job_id, job in jobs.items():
            if job_id not in known and not job.state.is_terminal:
                self._problems.add("stuck", job_id, f"recorded, never answered, and {job.state}")
        for each in accepted:
            job_or_none = jobs.get(each.job_id)
            if job_or_none is None:
                self._problems.add("lost", each.job_id, "accepted, and there is no record")
                continue
            self._check_job(each, job_or_none)
        poison = sum(each.planned.is_doomed for each in accepted)
        self._problems.checked("poison jobs beside which the others were looked at", poison)
        for right, wrong in self._clients.other_jobs:
            self._problems.add("doubled", right, f"the same Idempotency-Key made {wrong}, too")
        return jobs

    def _check_job(self, each: Accepted, job: Job) -> None:
        self._problems.checked("exactly one end")
        if not job.state.is_terminal:
            self._problems.add("stuck", job.job_id, f"{job.state}, attempt {job.attempt}, of {job.agent_id}")
            return
        self._check_states(job)
        self._check_failures(each, job)
        if job.state is JobState.COMPLETED:
            self._results.check_completed(each.folder, job, each.planned)
            self._check_cancels(job)
        else:
            self._results.check_unfinished(each.folder, job)
            self._check_end(each, job)

    # --- States --------------------------------------------------------------------------------------------

    def _check_states(self, job: Job) -> None:
        """Every change was a legal one, and each generation (up to an owner's retry) has one end."""
        writes = self._journal.states(job.job_id)
        ends = [write for write in writes if write.state in TERMINAL]
        retries = [write for write in writes if write.is_retry]
        self._problems.checked("one end for each generation")
        if len(ends) != len(retries) + 1:
            told = [f"{write.state} by {write.who}" for write in writes]
            self._problems.add("doubled", job.job_id, f"{len(ends)} ends, {len(retries)} retries: {told}")
        now = "queued"
        for write in writes:
            if write.state not in LEGAL[now]:
                text = f"{now} -> {write.state} by {write.who}, attempt {write.attempt}"
                self._problems.add("doubled", job.job_id, text)
            now = write.state
            self._problems.checked("legal change of state")
        if ends and now != job.state:
            self._problems.add(
                "doubled", job.job_id, f"the journal ends with {now}, the record says {job.state}"
            )

    # --- Ends ----------------------------------------------------------------------------------------------

    def _check_failures(self, each: Accepted, job: Job) -> None:
        """No healthy program was taken for a broken one."""
        allowed = INJECTED | self._own_classes(each.planned)
        self._problems.checked("failures have the right class", len(job.failures))
        for failure in job.failures:
            is_full = failure.exit_code == DISK_FULL_CODE  # programs end with it for no other reason
            if failure.failure_class not in allowed and not is_full:
                text = f"{each.planned.mode} program: {failure.failure_class}: {failure.reason}"
                self._problems.add("lost", job.job_id, text)

    def _own_classes(self, planned: PlannedJob) -> set[FailureClass]:
        if planned.mode == "crash":
            how = planned.settings["how"]
            if how == -9:
                return {FailureClass.OUT_OF_MEMORY}
            return {FailureClass.CRASH if how < 0 else FailureClass.PROGRAM_ERROR}
        own = CLASS_OF_MODE.get(planned.mode)
        return {own} if own else set()

    def _check_end(self, each: Accepted, job: Job) -> None:
        """A job failed only when its retries were used up, and was cancelled only when somebody asked."""
        if job.state is JobState.CANCELLED:
            if not self._clients.cancels[job.job_id]:  # whatever the answer: the one that counted may be lost
                self._problems.add("lost", job.job_id, "cancelled, and nobody asked for it")
            return
        counted = Counter(failure.failure_class for failure in job.failures[job.failures_forgiven :])
        used_up = [name for name, count in counted.items() if count > RETRY_RULES[name].max_retries]
        attempts = sum(count for name, count in counted.items() if name is not FailureClass.LOST_MACHINE)
        if not used_up and attempts < MAX_ATTEMPTS:
            self._problems.add("lost", job.job_id, f"failed with retries left: {dict(counted)}")

    def _check_cancels(self, job: Job) -> None:
        is_cancelled = ACCEPTED in self._clients.cancels[job.job_id]
        is_retried = ACCEPTED in self._clients.retries[job.job_id]
        if is_cancelled and not is_retried:
            self._problems.add("lost", job.job_id, "its cancel was accepted, and it completed")

    # --- Work repeated -------------------------------------------------------------------------------------

    def seconds_repeated(self) -> float:
        """Return how long the attempts took that did not become the result."""
        total = 0.0
        for job_id, job in self.records().items():
            began: dict[int, float] = {}
            ended: dict[int, float] = defaultdict(float)
            attempt = 0
            for write in self._journal.states(job_id):
                if write.state in ("downloading", "uploading") and write.attempt not in (None, attempt):
                    attempt = write.attempt or 0
                    began[attempt] = write.at
                ended[attempt] = write.at
            total += sum(
                ended[number] - at for number, at in began.items() if number != job.committed_attempt
            )
        return total
