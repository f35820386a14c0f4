"""What the Python client hands out: frozen facts about jobs, and the errors of waiting for one.

The shapes are those of docs/api.md. Fields that a newer service adds are ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scanfleet.attempts import Usage
from scanfleet.errors import ScanfleetError
from scanfleet.jobs import Failure, JobState, PublishedFile
from scanfleet.receipt import AttemptFacts


class Answer(BaseModel):
    """Base of everything that is read from the service."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Timestamps(Answer):
    """Moments of a job's life, UTC; None means not yet."""

    created: datetime | None = None
    queued: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None


class ManifestPage(Answer):
    """The first published files, and whether there are more."""

    files: tuple[PublishedFile, ...]
    is_truncated: bool = False


class JobResult(Answer):
    """What a completed job published."""

    files: int
    size_bytes: int
    attempt: int
    manifest_uri: str | None = Field(default=None, description="The whole manifest, in the target folder.")
    manifest: ManifestPage | None = None


class Eta(Answer):
    """A range of seconds that holds `share` of jobs like this one, learned from so many past runs."""

    low_seconds: float
    likely_seconds: float
    high_seconds: float
    share: float = 0.8
    runs: int = 0


class JobInfo(Answer):
    """A job as the service saw it at one moment.

    Lists leave out the fields from `settings` on; they have their defaults there.
    """

    job_id: str
    status: JobState
    processor: str
    pool: str
    priority: str
    owner: str
    source: str
    target: str
    tags: dict[str, str] = Field(default_factory=dict)
    stage: str | None = None
    progress_percent: float = Field(default=0.0, description="0 to 100, of the whole program.")
    attempt: int = Field(default=0, description="0 until the first attempt starts.")
    release: str | None = Field(default=None, description="The program's release that the last attempt ran.")
    cancel_requested: bool = False
    timestamps: Timestamps = Timestamps()
    eta: Eta | None = Field(default=None, description="Until it ends; of a queued job: from its start.")
    failure: Failure | None = Field(default=None, description="The last one, also of retried attempts.")
    quarantined: datetime | None = Field(default=None, description="When it failed as a danger to machines.")
    settings: dict[str, Any] = Field(default_factory=dict)
    time_limit_seconds: int | None = None
    durations_seconds: dict[str, float] = Field(default_factory=dict)
    stage_since: datetime | None = None
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    input_bytes: int | None = None
    usage: Usage | None = None
    attempts: tuple[AttemptFacts, ...] = ()
    failures: tuple[Failure, ...] = ()
    result: JobResult | None = None
    replaces: str | None = None
    superseded_by: str | None = None
    trace_id: str | None = None
    why_waiting: str | None = None
    queue_position: int | None = Field(default=None, description="How many jobs go before it.")

    @property
    def is_finished(self) -> bool:
        """Say whether the job has ended."""
        return self.status.is_terminal

    @property
    def visible_state(self) -> tuple[object, ...]:
        """Return what a person watching the job would notice changing."""
        progress = (self.stage, self.progress_percent, self.attempt, self.why_waiting)
        return (self.status, self.cancel_requested, *progress)


class JobPage(Answer):
    """One page of `GET /jobs`."""

    jobs: tuple[JobInfo, ...]
    next_cursor: str | None = None


class LogPage(Answer):
    """Lines of a job's log; `next` is where the following page goes on."""

    attempt: int
    lines: tuple[str, ...]
    next: str | None = None

    @property
    def text(self) -> str:
        """Return the lines as they were printed."""
        return "".join(f"{line}\n" for line in self.lines)


class Accepted(Answer):
    """The answer to a submission."""

    job_id: str
    status: str


class EventWays(Answer):
    """How the service tells of changes."""

    websocket: str | None = None
    server_sent_events: bool = False
    poll_seconds: float = 2.0
    expires_in_seconds: int = 0


class Health(Answer):
    """The service answers and can take jobs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    status: str


class DeadLetter(Answer):
    """A message that nobody could run, or whose job is quarantined."""

    letter_id: str
    pool: str
    body: str = ""
    job_id: str | None = None
    cause: str
    reason: str
    agent_id: str | None = None
    at: datetime
    job_status: JobState | None = None
    quarantined: datetime | None = None


class DeadLetterPage(Answer):
    """Dead letters, and about how many more there are."""

    letters: tuple[DeadLetter, ...]
    remaining: int = 0


class RedrivenLetter(DeadLetter):
    """A dead letter and what became of it: retried, sent, dropped, purged or kept."""

    outcome: str
    detail: str


class RedriveReport(Answer):
    """What became of dead letters, and about how many were not come to."""

    letters: tuple[RedrivenLetter, ...]
    remaining: int = 0
    dry_run: bool = False


class Load(Answer):
    """Slots, busy slots and backlog per pool, and the agents that reported lately."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pools: dict[str, dict[str, Any]] = Field(default_factory=dict)
    instances: tuple[dict[str, Any], ...] = ()


class VarianceGroup(Answer):
    """Runs of one machine, release, ...; ratio: how long they take against all."""

    name: str
    ratio: float
    runs: int


class VarianceFactor(Answer):
    """What explains a share of the spread; p: how often chance explains as much."""

    factor: str
    share: float
    p: float
    groups: tuple[VarianceGroup, ...] = ()


class VarianceReport(Answer):
    """Where the spread of a processor's run times comes from."""

    model_config = ConfigDict(frozen=True, extra="allow")

    processor: str
    days: int
    runs: int
    spread: float | None = None
    explained: tuple[VarianceFactor, ...] = ()
    unexplained: float | None = None
    worst_machines: tuple[VarianceGroup, ...] = ()
    sentences: tuple[str, ...] = ()


class Presigned(Answer):
    """A URL that works for a while without credentials. It carries a signature: never log it."""

    url: str
    method: str
    headers: dict[str, str] = Field(default_factory=dict)


class Uploads(Answer):
    """Where the caller may upload to: `s3://bucket/uploads/<owner>/`."""

    uri: str


@dataclass(frozen=True)
class TransferProgress:
    """How far an upload or download has come."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


OnChange = Callable[[JobInfo], None]
"""Called with the job as first seen and whenever something visible changed."""
OnProgress = Callable[[TransferProgress], None]
"""Called from one thread at a time, though not always the same one."""


class UnexpectedAnswer(ScanfleetError):
    """Something answers at the address, but not as Scanfleet does."""


class JobFailed(ScanfleetError):
    """The job ended without a result: `job.status` is failed or cancelled."""

    def __init__(self, job: JobInfo) -> None:
        self.job = job
        reason = f": {job.failure.failure_class}: {job.failure.reason}" if job.failure is not None else ""
        super().__init__(f"job {job.job_id} {job.status}{reason if job.status == JobState.FAILED else ''}")


class WaitTimedOut(ScanfleetError):
    """The job had not ended when the caller's patience did; it goes on running."""

    def __init__(self, job: JobInfo) -> None:
        self.job = job
        super().__init__(f"job {job.job_id} is still {job.status}")


class DownloadRefused(ScanfleetError):
    """A result file is not what its manifest says, or its name would leave the folder."""
