"""How the records of a job's attempts grow: opened with the lease, timed with each state, closed at the end.

Who may write them is job_table.py's and leases.py's to say: the holder of the lease, and whoever ends or
takes over a job whose holder went silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanfleet.attempts import AttemptRecord, Machine, Work
from scanfleet.jobs import FailureClass, Job, JobState

ATTEMPTS_KEPT = 16
"""More than a job has before its owner retries it; DynamoDB's items have 400 KB at most."""

Records = tuple[AttemptRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What is known of an attempt before it begins. See `AttemptRecord` for the seconds."""

    machine: Machine = field(default_factory=Machine)
    boot_seconds: float = 0.0
    idle_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Closing:
    """How an attempt ended. work: None: its holder cannot be asked; what it wrote last counts."""

    outcome: str
    ended_at: float
    work: Work | None = None


def open_record(job: Job) -> AttemptRecord | None:
    """Return the record of the attempt that runs, or None."""
    last = job.attempts[-1] if job.attempts else None
    return last if last is not None and last.ended_at is None and last.attempt == job.attempt else None


def opened(job: Job, records: Records, *, agent_id: str, now: float, opening: Opening) -> Records:
    """Return the records with that of the next attempt. records: the job's, none of them open."""
    lost = records[-1] if records and job.state is not JobState.QUEUED else None
    record = AttemptRecord(
        attempt=job.attempt + 1,
        agent_id=agent_id,
        machine=opening.machine,
        queued_at=(lost.ended_at if lost is not None else None) or job.queued_at,
        started_at=now,
        boot_seconds=round(opening.boot_seconds, 3),
        idle_seconds=round(opening.idle_seconds, 3),
    )
    return (*records, record)[-ATTEMPTS_KEPT:]


def moved_on(job: Job, now: float, *, release: str | None = None, input_bytes: int | None = None) -> Records:
    """Return the records after the running attempt left the job's state for the next one."""
    record = open_record(job)
    if record is None:
        return job.attempts
    changes: dict[str, Any] = {"state_seconds": _spent(job, record, now)}
    if release is not None:
        changes["release"] = release
    if input_bytes is not None:
        changes["bytes_downloaded"] = input_bytes
    return (*job.attempts[:-1], record.model_copy(update=changes))


def closed(job: Job, closing: Closing) -> Records:
    """Return the records after the running attempt's end; the same when none runs."""
    record = open_record(job)
    if record is None:
        return job.attempts
    work = closing.work or Work(
        stage_seconds=job.stage_seconds,
        bytes_downloaded=record.bytes_downloaded,
        usage=job.usage,
    )
    ended = record.model_copy(
        update={
            **dict(work),
            "ended_at": max(record.started_at, closing.ended_at),
            "outcome": closing.outcome,
            "state_seconds": _spent(job, record, closing.ended_at),
            "idle_seconds": round(record.idle_seconds + work.idle_seconds, 3),
        }
    )
    return (*job.attempts[:-1], ended)


def lost_at(job: Job, now: float) -> float:
    """Return when a silent holder's attempt was over: with its lease, however late that was noticed."""
    return min(now, job.lease_expires_at or now)


def lost(job: Job, now: float) -> Closing:
    """Return the end of an attempt whose holder went silent."""
    return Closing(outcome=FailureClass.LOST_MACHINE, ended_at=lost_at(job, now))


def dumped(records: Records) -> list[dict[str, Any]]:
    """Return the records as JSON has them, without what is not known: the table bills by size."""
    return [record.model_dump(mode="json", exclude_defaults=True) for record in records]


def _spent(job: Job, record: AttemptRecord, now: float) -> Mapping[str, float]:
    here = record.state_seconds.get(job.state, 0.0) + max(
        0.0, now - max(job.state_changed_at, record.started_at)
    )
    return {**record.state_seconds, str(job.state): round(here, 3)}
