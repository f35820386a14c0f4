"""What a job is: its states, its record, its failures and the rule for each failure class.

A job is one request to run one processor over one source folder. An attempt is one try of it; its number
is the fencing token of the lease. docs/job-lifecycle.md draws the states.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from ulid import ULID

from scanfleet import contract
from scanfleet.attempts import AttemptRecord, Usage
from scanfleet.contract import Pool, Priority


class JobState(StrEnum):
    """Where a job is. Terminal states never change again, except by an owner's explicit retry."""

    QUEUED = "queued"
    """Accepted and waiting for a slot. Next: downloading, cancelled."""
    DOWNLOADING = "downloading"
    """An agent holds the lease and fetches the inputs. Next: processing, queued, failed, cancelled."""
    PROCESSING = "processing"
    """The program runs. Next: uploading, queued, failed, cancelled."""
    UPLOADING = "uploading"
    """Results are staged, committed and published. Next: completed, queued, failed, cancelled (until the
    commit)."""
    COMPLETED = "completed"
    """The results and their manifest are in the target folder. Terminal."""
    FAILED = "failed"
    """No further attempt is made; the failure is on the job. Terminal; an owner may retry."""
    CANCELLED = "cancelled"
    """The owner cancelled it. Terminal; an owner may retry."""

    @property
    def is_terminal(self) -> bool:
        """Say whether the job has ended."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
ACTIVE_STATES = tuple(state for state in JobState if state not in TERMINAL_STATES)
LEASED_STATES = (JobState.DOWNLOADING, JobState.PROCESSING, JobState.UPLOADING)


class FailureClass(StrEnum):
    """Why an attempt ended without a result. `RETRY_RULES` says what follows."""

    BAD_INPUT = "bad_input"
    """The source folder or a file in it is wrong; the same input fails again."""
    PROGRAM_ERROR = "program_error"
    """The program ended by itself with a non-zero exit code."""
    CRASH = "crash"
    """The program was ended by a signal or an NTSTATUS exception."""
    HANG = "hang"
    """The program ran past its time limit or stood still."""
    OUT_OF_MEMORY = "out_of_memory"
    """The program was ended for lack of memory."""
    TRANSFER = "transfer"
    """Inputs could not be fetched or results not stored."""
    LOST_MACHINE = "lost_machine"
    """The machine or its agent went away, or handed the job back."""


MACHINE_CLASSES = frozenset(
    {
        FailureClass.PROGRAM_ERROR,
        FailureClass.CRASH,
        FailureClass.HANG,
        FailureClass.OUT_OF_MEMORY,
        FailureClass.TRANSFER,
    }
)
"""What a broken machine may cause as well as the job: a lost GPU, a full disk, a torn release, no network."""

QUARANTINED_CLASSES = frozenset(
    {FailureClass.CRASH, FailureClass.HANG, FailureClass.OUT_OF_MEMORY, FailureClass.LOST_MACHINE}
)
"""A job that uses up its retries in one of these may hurt machines: it fails and is quarantined."""


@dataclass(frozen=True)
class RetryRule:
    """How often a failure class is retried, and the wait before the first retry (doubled each time)."""

    max_retries: int
    first_delay: timedelta


RETRY_RULES: dict[FailureClass, RetryRule] = {
    FailureClass.BAD_INPUT: RetryRule(0, timedelta()),
    FailureClass.PROGRAM_ERROR: RetryRule(1, timedelta(seconds=2)),
    FailureClass.CRASH: RetryRule(2, timedelta(seconds=2)),
    FailureClass.HANG: RetryRule(2, timedelta()),
    FailureClass.OUT_OF_MEMORY: RetryRule(2, timedelta(seconds=10)),
    FailureClass.TRANSFER: RetryRule(3, timedelta(seconds=5)),
    FailureClass.LOST_MACHINE: RetryRule(contract.MAX_LOST_MACHINES, timedelta()),
}


class Failure(BaseModel):
    """One attempt's failure, as the job shows it."""

    model_config = ConfigDict(frozen=True)

    failure_class: FailureClass
    reason: str = Field(max_length=2000, description="A sentence that says what went wrong.")
    attempt: int
    exit_code: int | None = None
    agent_id: str | None = None
    at: datetime
    has_evidence: bool = False
    """Whether an evidence bundle of this attempt was saved: `GET /job/{id}/evidence`."""


class PublishedFile(BaseModel):
    """One published output."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="Path under the target folder, with forward slashes.")
    size_bytes: int
    sha256: str = Field(description="Lower-case hexadecimal.")


class Manifest(BaseModel):
    """What an attempt publishes; also the content of the manifest file in the target folder.

    It may name thousands of files, so it lives in S3 and the record holds only its summary.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    processor: str
    target_uri: str
    release: str | None = None
    """Of the program, for those that have releases; also None in manifests from before it was written."""
    files: tuple[PublishedFile, ...]


class ResultSummary(BaseModel):
    """What a completed job published, in a few numbers; the manifest has the rest."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    files: int
    size_bytes: int


Tags = Annotated[dict[str, str], Field(max_length=20)]


class Job(BaseModel):
    """A job's record. Times are epoch seconds (UTC); `None` means not yet."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    owner: str
    processor: str
    pool: Pool
    source_uri: str = Field(description="s3://bucket/folder/, always with the closing slash.")
    target_uri: str = Field(description="s3://bucket/folder/, always with the closing slash.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The processor's validated settings.")
    priority: Priority = Priority.NORMAL
    time_limit_seconds: int | None = Field(default=None, description="The program's running time at most.")
    tags: Tags = Field(default_factory=dict)

    state: JobState = JobState.QUEUED
    stage: str | None = None
    progress_percent: float = 0.0
    attempt: int = 0
    """0 until the first lease is taken."""
    agent_id: str | None = None
    lease_expires_at: float | None = None
    lease_token: str | None = None
    """Names one taking of the lease: two slots of one agent may try for the same attempt at once."""
    cancel_requested_at: float | None = None
    committed_attempt: int | None = None
    """Set once, by the attempt whose staged results are the job's results."""
    published_at: float | None = None
    """When the committed results were all in the target folder: from here on only cleaning up is left."""

    created_at: float
    queued_at: float
    state_changed_at: float
    started_at: float | None = None
    """When the current or last attempt took its lease."""
    finished_at: float | None = None
    durations_seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds spent per state, summed over attempts."""
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds per stage of the program: of the running attempt so far (stages that have ended), then of the
    last attempt that ran it."""
    stage_since: float | None = None
    """When the running program entered its present stage, by the job table's clock."""
    input_bytes: int | None = None
    """Size of the inputs that the current or last attempt fetched; None until they are fetched."""
    usage: Usage | None = None
    """What the running program has used so far, some seconds old at most; of the last attempt afterwards."""
    attempts: tuple[AttemptRecord, ...] = ()
    """Each attempt, oldest first; the oldest are dropped when there are many."""
    trace_id: str | None = None
    """The trace that the job belongs to: 32 hexadecimal digits, the caller's own if it sent a `traceparent`.
    Source: W3C Trace Context."""
    failures: tuple[Failure, ...] = ()
    """Each attempt's failure, oldest first."""
    failures_forgiven: int = 0
    """How many of them an owner's explicit retry has forgiven: they no longer use up retries."""
    result: ResultSummary | None = None
    release: str | None = None
    """The release of the program that the current or last attempt ran; None for programs without any."""
    enqueued_at: float | None = None
    """When the job's message was sent after its creation or its owner's retry; without it the sweeper sends
    it."""
    quarantined_at: float | None = None
    """When the job failed for good in a way that may hurt machines: its message is a dead letter."""
    replaces: str | None = None
    """The completed job whose results in the same target folder its owner asked this one to replace."""
    superseded_by: str | None = None
    """The job that has replaced this one's published results."""

    @property
    def failure(self) -> Failure | None:
        """Return the last failure, or None."""
        return self.failures[-1] if self.failures else None


def new_job_id() -> str:
    """Return a fresh job id: a ULID, 26 characters, sorted by creation time (ms), 80 random bits.

    Source: https://github.com/ulid/spec.
    """
    return str(ULID())


def is_job_id(text: str) -> bool:
    """Say whether `text` has the form of a job id."""
    try:
        return str(ULID.from_str(text)) == text
    except ValueError:
        return False


def retry_delay(job: Job, latest: FailureClass) -> timedelta | None:
    """Return how long to wait before the next attempt, or None when the job has failed for good.

    `job` knows the earlier attempts' failures, `latest` is the one just seen. A class's delay doubles with
    each earlier failure of that class and ends at SQS's limit for a delayed message.
    """
    failures = job.failures[job.failures_forgiven :]
    earlier = sum(1 for failure in failures if failure.failure_class == latest)
    rule = RETRY_RULES[latest]
    if earlier >= rule.max_retries:
        return None
    counted = [f for f in failures if f.failure_class != FailureClass.LOST_MACHINE]
    if latest != FailureClass.LOST_MACHINE and len(counted) + 1 >= contract.MAX_ATTEMPTS:
        return None
    return min(rule.first_delay * float(2**earlier), contract.MAX_SEND_DELAY)


def machine_to_avoid(job: Job, now: float) -> str | None:
    """Return the agent that leaves the queued job to others for now: its last failure was there.

    Lost machines and forgiven failures tell nothing. now: epoch seconds.
    """
    if job.state is not JobState.QUEUED or job.committed_attempt is not None:
        return None
    if now - job.queued_at >= contract.OTHER_MACHINE_WAIT.total_seconds():
        return None
    last = last_telling_failure(job)
    return last.agent_id if last is not None and last.failure_class in MACHINE_CLASSES else None


def last_telling_failure(job: Job) -> Failure | None:
    """Return the last failure that tells of job or machine: forgiven ones and lost machines tell nothing."""
    for failure in reversed(job.failures[job.failures_forgiven :]):
        if failure.failure_class is not FailureClass.LOST_MACHINE:
            return failure
    return None


def utc(epoch_seconds: float) -> datetime:
    """Return the moment as an aware UTC datetime."""
    return datetime.fromtimestamp(epoch_seconds, tz=UTC)
