"""What the API answers: response models, and how a job's record becomes one."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scanfleet.api.estimates import Eta
from scanfleet.attempts import Usage
from scanfleet.contract import Pool, Priority
from scanfleet.jobs import Failure, Job, JobState, PublishedFile, utc
from scanfleet.receipt import AttemptFacts

EXAMPLE_JOB_ID = "01JD5Z9W4T8Q2V6K3M7N1P5R9S"


class Started(BaseModel):
    """A job was accepted."""

    model_config = ConfigDict(json_schema_extra={"example": {"job_id": EXAMPLE_JOB_ID, "status": "started"}})

    job_id: str
    status: str = Field(default="started", json_schema_extra={"const": "started"})


class Timestamps(BaseModel):
    """ISO 8601 in UTC; null means not yet."""

    created: datetime
    queued: datetime = Field(description="When it last entered the queue.")
    started: datetime | None = Field(description="When the current or last attempt started.")
    finished: datetime | None


class JobSummary(BaseModel):
    """A job as lists show it."""

    job_id: str
    status: JobState
    processor: str
    pool: Pool
    priority: Priority
    owner: str
    source: str
    target: str
    tags: dict[str, str]
    stage: str | None
    progress_percent: float = Field(description="0 to 100, of the whole program.")
    attempt: int = Field(description="0 until the first attempt starts.")
    release: str | None = Field(
        description="The program's release that the last attempt ran; null for programs without any."
    )
    cancel_requested: bool = Field(
        description="The job ends as cancelled as soon as its agent has stopped it."
    )
    timestamps: Timestamps
    eta: Eta | None = Field(
        description="How long until it ends, of a queued one from its start; null: nothing is known."
    )
    failure: Failure | None = Field(description="The last failure, also of attempts that are retried.")
    quarantined: datetime | None = Field(
        description="When the job failed for good in a way that may hurt machines; it is a dead letter."
    )


class ManifestPage(BaseModel):
    """What was published, the first files of it."""

    files: tuple[PublishedFile, ...]
    is_truncated: bool = Field(description="Whether the manifest file names more files than these.")


class Result(BaseModel):
    """What a completed job published."""

    attempt: int
    files: int
    size_bytes: int
    manifest_uri: str = Field(description="The whole manifest, in the target folder.")
    manifest: ManifestPage | None = Field(description="null when the manifest is no longer kept.")


class JobDetail(JobSummary):
    """Everything about a job."""

    settings: dict[str, Any]
    time_limit_seconds: int | None
    durations_seconds: dict[str, float] = Field(
        description="Seconds per state so far, summed over attempts, the present state included."
    )
    stage_since: datetime | None = Field(description="When the running program entered its present stage.")
    stage_seconds: dict[str, float] = Field(
        description="Seconds per stage that has ended: of the running attempt, or of the last that ran."
    )
    input_bytes: int | None = Field(description="Of the last attempt's inputs; null until they are fetched.")
    usage: Usage | None = Field(
        description="What the program's processes use so far, some seconds old; then of the last attempt."
    )
    attempts: tuple[AttemptFacts, ...] = Field(description="Oldest first; of many, the oldest are not kept.")
    failures: tuple[Failure, ...] = Field(description="Each attempt's failure, oldest first.")
    result: Result | None
    replaces: str | None = Field(description="The completed job whose results this one was to replace.")
    superseded_by: str | None = Field(description="The job that has replaced this one's results.")
    why_waiting: str | None = Field(description="For queued jobs: what it waits for.")
    queue_position: int | None = Field(
        description="For queued jobs: how many go before it; null beyond the oldest thousand."
    )
    trace_id: str | None = Field(default=None, description="Its submission's trace; also in every log line.")


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null at the end.")


class LogPage(BaseModel):
    """Lines of a job's log."""

    attempt: int
    lines: list[str]
    next: str | None = Field(description="Pass as `after` for what follows; null before the first attempt.")


class Ready(BaseModel):
    """The API can do its work."""

    status: str = Field(default="ready", json_schema_extra={"const": "ready"})


class FleetLoad(BaseModel):
    """A pool's machines: desired, minimum and maximum are the Auto Scaling group's."""

    desired: int
    minimum: int
    maximum: int
    in_service: int = Field(description="Machines whose agent reports.")
    booting: int = Field(description="Machines that were launched and whose agent has not reported yet.")
    sampled: datetime


class PoolLoad(BaseModel):
    """One pool's load. Queue counts are SQS's approximate ones."""

    slots: int = Field(description="Of agents that take jobs now.")
    busy: int = Field(description="Slots that run a job, also of agents that take no new ones.")
    backlog: int = Field(description="Messages that wait, delayed retries included.")
    in_flight: int = Field(description="Messages that agents hold.")
    agents: int = Field(description="All that report, also those that take no jobs now.")
    fleet: FleetLoad | None = Field(description="null without an Auto Scaling group, or while none reports.")


class InstanceLoad(BaseModel):
    """One agent in service."""

    agent_id: str
    pool: Pool
    instance_id: str = Field(description="Empty outside of EC2, like the next three.")
    instance_type: str
    ami_id: str
    driver: str = Field(description="Version of the GPU's driver; empty without one.")
    booted: datetime | None = Field(description="When EC2 launched the instance.")
    slots: int
    slots_from: str = Field(description="What the number follows: a setting, a calibration, the default.")
    busy: int
    job_ids: tuple[str, ...] = Field(description="For operators; empty for other callers.")
    started: datetime
    seen: datetime
    takes_jobs: bool = Field(description="New jobs go to it.")
    is_on_hold: bool = Field(description="It takes no jobs for now: it waits in the warm pool or stands by.")
    is_stopping: bool = Field(description="It drains: its jobs may go on, new ones it does not take.")
    is_suspended: bool = Field(
        description="It takes no jobs for now, or one to prove itself: its machine is suspected."
    )
    why_suspended: str = Field(description="The reasons, for operators; empty for other callers.")
    release: str = Field(description="What its next program is started from; empty for programs without any.")


class Load(BaseModel):
    """What routing and scaling use."""

    pools: dict[str, PoolLoad]
    instances: list[InstanceLoad]


class Presigned(BaseModel):
    """A URL that works for a while without credentials: keep it secret."""

    url: str
    method: str = Field(description="GET or PUT.")
    expires_in_seconds: int
    headers: dict[str, str] = Field(description="Send exactly these with the request.")
    uri: str = Field(description="The same object as an S3 URI, as jobs name it.")


class EventWays(BaseModel):
    """How this server tells of changes, the best way first."""

    websocket: str | None = Field(
        description="Open this address soon; it may hold a ticket, so keep it secret. null: there is none."
    )
    server_sent_events: bool = Field(description="Whether /events and /job/{job_id}/events stream.")
    poll_seconds: float = Field(description="Who asks from time to time instead keeps this pause.")
    expires_in_seconds: int = Field(description="The address works this long; 0: always.")


class Uploads(BaseModel):
    """Where the caller's uploads go."""

    uri: str = Field(description="s3://bucket/folder/; `file` of /presign is relative to it.")
    max_file_bytes: int
    expires_in_seconds: int = Field(description="How long a presigned URL works.")


Estimate = Callable[[Job], Eta | None]
"""Gives how long a job still needs: `estimates.Estimates`."""


def summary_fields(job: Job, estimate: Estimate | None = None) -> dict[str, Any]:
    """Return the fields of `JobSummary`. estimate: None where nobody predicts."""
    return {
        "job_id": job.job_id,
        "status": job.state,
        "processor": job.processor,
        "pool": job.pool,
        "priority": job.priority,
        "owner": job.owner,
        "source": job.source_uri,
        "target": job.target_uri,
        "tags": job.tags,
        "stage": job.stage,
        "progress_percent": job.progress_percent,
        "attempt": job.attempt,
        "release": job.release,
        "cancel_requested": job.cancel_requested_at is not None,
        "timestamps": _timestamps(job),
        "eta": None if estimate is None else estimate(job),
        "failure": job.failure,
        "quarantined": None if job.quarantined_at is None else utc(job.quarantined_at),
    }


def summary(job: Job, estimate: Estimate | None = None) -> JobSummary:
    """Return the job as lists show it. estimate: None where nobody predicts."""
    return JobSummary(**summary_fields(job, estimate))


def durations_so_far(job: Job, now: float) -> Mapping[str, float]:
    """Return seconds per state including the present one, which the record does not count yet."""
    durations = dict(job.durations_seconds)
    if not job.state.is_terminal:
        running = max(0.0, now - job.state_changed_at)
        durations[job.state.value] = round(durations.get(job.state.value, 0.0) + running, 3)
    return durations


def _timestamps(job: Job) -> Timestamps:
    return Timestamps(
        created=utc(job.created_at),
        queued=utc(job.queued_at),
        started=None if job.started_at is None else utc(job.started_at),
        finished=None if job.finished_at is None else utc(job.finished_at),
    )
