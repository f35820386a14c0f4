"""A job's receipt: where its time went, what it used, why each attempt was made, and what that costs.

The machine's time is divided by agent/machine_time.py; here it is only multiplied by the price.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scanfleet.attempts import AttemptRecord, Machine, Usage
from scanfleet.jobs import Failure, Job, JobState, utc
from scanfleet.prices import Price, price_of

HOUR_SECONDS = 3600.0
CENTS_DIGITS = 6
"""Of a dollar. A short job costs less than a cent, and sums of rounded cents would not add up to a bill."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MachineFacts(_Facts):
    """The machine that an attempt ran on. Empty: not known, as for everything of EC2 outside of it."""

    instance_id: str = ""
    instance_type: str = ""
    ami_id: str = ""
    region: str = ""
    system: str = Field(default="", description="windows or linux.")
    driver: str = Field(default="", description="Version of the GPU's driver.")
    slots: int = 1
    booted_at: datetime | None = Field(default=None, description="When EC2 launched the instance.")


class AttemptFacts(_Facts):
    """One attempt: where it ran, how long, what it used."""

    attempt: int
    agent_id: str
    machine: MachineFacts
    release: str | None = None
    queued_at: datetime = Field(description="When the job last began to wait for it.")
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = Field(description="completed, cancelled, or the failure class; null while it runs.")
    state_seconds: dict[str, float] = Field(description="Per state, those that it has left.")
    stage_seconds: dict[str, float] = Field(
        description="Per stage of the program, once the attempt has ended."
    )
    bytes_downloaded: int
    bytes_published: int
    usage: Usage | None = Field(description="Of the program's processes; null when it did not run.")
    boot_seconds: float = Field(description="Of the machine's boot, if it was its first attempt.")
    idle_seconds: float = Field(
        description="Of the machine: in which nothing ran before it, and free slots beside it."
    )


class Cost(_Facts):
    """An estimate in US dollars. usd is the sum of the other three."""

    usd: float
    busy_usd: float = Field(description="For its slots while its attempts ran.")
    boot_usd: float
    idle_usd: float
    hourly_usd: float = Field(description="What an hour of the last attempt's machine costs.")
    price_as_of: str | None = Field(description="Date of the list price; null: the operator's own price.")
    is_estimate: bool = True


class ReceiptAttempt(AttemptFacts):
    """One attempt, why it was made and what it cost."""

    why: str
    run_seconds: float = Field(description="From its lease to its end, or until now.")
    busy_seconds: float = Field(description="Of the whole machine: run_seconds divided by its slots.")
    cost_usd: float | None
    why_no_cost: str | None = None


class Receipt(_Facts):
    """A job's receipt; of a job that has not ended, as far as it has come."""

    job_id: str
    processor: str
    status: JobState
    queue_seconds: float = Field(description="In the queue, waits before retries included.")
    run_seconds: float = Field(description="Sum over the attempts.")
    state_seconds: dict[str, float]
    stage_seconds: dict[str, float] = Field(description="Of the last attempt that ran the program.")
    bytes_downloaded: int
    bytes_published: int
    attempts: tuple[ReceiptAttempt, ...]
    attempts_left_out: int = Field(description="The oldest of many attempts are not kept.")
    usage: Usage | None = Field(description="Of the last attempt that ran the program.")
    release: str | None
    machine: MachineFacts | None = Field(description="Of the last attempt.")
    busy_share_seconds: float = Field(description="The job's own, in seconds of whole machines.")
    boot_share_seconds: float
    idle_share_seconds: float
    cost: Cost | None
    why_no_cost: str | None = None


def machine_facts(machine: Machine) -> MachineFacts:
    """Return the machine as answers have it."""
    booted = None if machine.booted_at is None else utc(machine.booted_at)
    return MachineFacts(**{**machine.model_dump(), "booted_at": booted})


def attempt_facts(record: AttemptRecord) -> AttemptFacts:
    """Return the record as answers have it."""
    return AttemptFacts(**_attempt_fields(record))


def receipt_of(
    job: Job, *, durations: Mapping[str, float], prices: Mapping[str, float], now: float
) -> Receipt:
    """Return the receipt. durations: seconds per state until now; prices: the operator's own."""
    attempts = tuple(_attempt(job, index, prices, now) for index in range(len(job.attempts)))
    cost, why_no_cost = _cost(job, attempts, prices)
    return Receipt(
        job_id=job.job_id,
        processor=job.processor,
        status=job.state,
        queue_seconds=round(durations.get(JobState.QUEUED, 0.0), 3),
        run_seconds=_total(attempts, "run_seconds"),
        state_seconds=dict(durations),
        stage_seconds=job.stage_seconds,
        bytes_downloaded=sum(attempt.bytes_downloaded for attempt in attempts),
        bytes_published=sum(attempt.bytes_published for attempt in attempts),
        attempts=attempts,
        attempts_left_out=max(0, job.attempt - len(attempts)),
        usage=job.usage,
        release=job.release,
        machine=attempts[-1].machine if attempts else None,
        busy_share_seconds=_total(attempts, "busy_seconds"),
        boot_share_seconds=_total(attempts, "boot_seconds"),
        idle_share_seconds=_total(attempts, "idle_seconds"),
        cost=cost,
        why_no_cost=why_no_cost,
    )


def _attempt(job: Job, index: int, prices: Mapping[str, float], now: float) -> ReceiptAttempt:
    record = job.attempts[index]
    ended_at = now if record.ended_at is None else record.ended_at
    run = max(0.0, ended_at - record.started_at)
    busy = run / max(1, record.machine.slots)
    price = price_of(record.machine, prices)
    is_priced = isinstance(price, Price)
    seconds = busy + record.boot_seconds + record.idle_seconds
    return ReceiptAttempt(
        **_attempt_fields(record),
        why=_why(job, index),
        run_seconds=round(run, 3),
        busy_seconds=round(busy, 3),
        cost_usd=_dollars(seconds, price.hourly_usd) if isinstance(price, Price) else None,
        why_no_cost=None if is_priced else str(price),
    )


def _attempt_fields(record: AttemptRecord) -> dict[str, Any]:
    return {
        **dict(record),
        "machine": machine_facts(record.machine),
        "queued_at": utc(record.queued_at),
        "started_at": utc(record.started_at),
        "ended_at": None if record.ended_at is None else utc(record.ended_at),
    }


def _cost(
    job: Job, attempts: tuple[ReceiptAttempt, ...], own: Mapping[str, float]
) -> tuple[Cost | None, str | None]:
    """Return the cost of all attempts, or None and why: a sum that leaves some out would look like a cost."""
    if not attempts:
        return None, "no attempt has started"
    busy = boot = idle = 0.0
    last: Price | None = None
    for record, attempt in zip(job.attempts, attempts, strict=True):
        price = price_of(record.machine, own)
        if not isinstance(price, Price):
            return None, f"attempt {record.attempt}: {price}"
        busy += _dollars(attempt.busy_seconds, price.hourly_usd)
        boot += _dollars(attempt.boot_seconds, price.hourly_usd)
        idle += _dollars(attempt.idle_seconds, price.hourly_usd)
        last = price
    assert last is not None
    return Cost(
        usd=round(busy + boot + idle, CENTS_DIGITS),
        busy_usd=round(busy, CENTS_DIGITS),
        boot_usd=round(boot, CENTS_DIGITS),
        idle_usd=round(idle, CENTS_DIGITS),
        hourly_usd=last.hourly_usd,
        price_as_of=last.as_of,
    ), None


def _dollars(seconds: float, hourly_usd: float) -> float:
    return round(seconds * hourly_usd / HOUR_SECONDS, CENTS_DIGITS)


def _total(attempts: tuple[ReceiptAttempt, ...], name: str) -> float:
    total: float = sum(getattr(attempt, name) for attempt in attempts)
    return round(total, 3)


def _why(job: Job, index: int) -> str:
    """Return why the attempt was made."""
    record = job.attempts[index]
    if record.attempt == 1:
        return "the job was submitted"
    before = job.attempts[index - 1] if index else None
    failure = _failure_of(job, record.attempt - 1)
    if failure is None:
        is_cancelled = before is not None and before.outcome == JobState.CANCELLED
        return "its owner retried the cancelled job" if is_cancelled else "its owner retried the job"
    what = f"{failure.failure_class}: {failure.reason}"
    is_forgiven = job.failures.index(failure) == job.failures_forgiven - 1
    return (
        f"its owner retried it after {what}" if is_forgiven else f"attempt {record.attempt - 1} ended: {what}"
    )


def _failure_of(job: Job, attempt: int) -> Failure | None:
    return next((failure for failure in job.failures if failure.attempt == attempt), None)
