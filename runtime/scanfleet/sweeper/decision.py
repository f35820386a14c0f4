"""Which unfinished jobs have no message any more. Pure: the facts are gathered in sweeper.py.

Every unfinished job needs one message, in a queue or in flight, or nobody will ever look at it again. A
message cannot be looked for, because queues only tell counts. So its loss is concluded:

- the job never got the mark that its message was sent;
- its pool's queues hold nothing beyond the messages of the jobs that run;
- jobs that were queued long after it have been taken;
- or it has waited so long that a second message is the lesser evil. A second message harms nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from scanfleet.contract import MAX_SEND_DELAY, VISIBILITY_TIMEOUT, Pool, Priority
from scanfleet.jobs import LEASED_STATES, Job, JobState
from scanfleet.queue import Backlog
from scanfleet.repairs import Repair

NEVER_QUEUED_AFTER = timedelta(seconds=60)
"""A job that is older and has no mark: the API sends and marks within its own 28 s, or never."""
MESSAGE_LOST_AFTER = timedelta(minutes=3)
"""SQS's counts settle within about a minute. Source: SQS API reference, GetQueueAttributes."""
OWNER_DEAD_AFTER = 2 * VISIBILITY_TIMEOUT
"""By then a dead agent's message has come back by itself, if there is one."""
OVERTAKEN_BY = 2 * MAX_SEND_DELAY
"""Queues keep no strict order, and a retry's message may be delayed; neither explains this much."""
SENT_AGAIN_AFTER = timedelta(hours=6)
"""However the queues look. In a backlog that is this long, each job gets one more message in this time."""


@dataclass(frozen=True)
class Taken:
    """What a pool's running jobs tell of its queues."""

    live_leases: int = 0
    """Each holds one message in flight."""
    newest: Mapping[Priority, float] = field(default_factory=dict)
    """When the youngest running job of each priority was queued, epoch seconds."""


def taken_of(jobs: Iterable[Job], now: float) -> dict[Pool, Taken]:
    """Return what each pool's running jobs tell; pools without any are left out."""
    found: dict[Pool, Taken] = {}
    for job in jobs:
        if job.state in LEASED_STATES:
            found[job.pool] = _and_job(found.get(job.pool, Taken()), job, now)
    return found


def _and_job(taken: Taken, job: Job, now: float) -> Taken:
    newest = max(job.queued_at, taken.newest.get(job.priority, 0.0))
    is_live = (job.lease_expires_at or 0.0) > now
    return Taken(taken.live_leases + is_live, {**taken.newest, job.priority: newest})


def is_drained(backlog: Backlog, taken: Taken) -> bool:
    """Return whether the queues hold no message but those of running jobs."""
    return backlog.waiting == 0 and backlog.in_flight <= taken.live_leases


def waits_for_message(job: Job, now: float) -> Repair | None:
    """Return what it would be if the job's message were lost; None when it is too early to wonder."""
    if job.state is JobState.QUEUED:
        if job.enqueued_at is None:
            return Repair.NEVER_QUEUED if _is_older(job.queued_at, NEVER_QUEUED_AFTER, now) else None
        return Repair.MESSAGE_LOST if _is_older(_sent_at(job), MESSAGE_LOST_AFTER, now) else None
    if job.state in LEASED_STATES and _is_older(_sent_at(job), OWNER_DEAD_AFTER, now):
        return Repair.OWNER_DEAD
    return None


def repair_of(job: Job, *, is_pool_drained: bool, taken: Taken, now: float) -> Repair | None:
    """Return why another message is to be sent for the job, or None.

    is_pool_drained: for two looks at least; one alone may have met counts of a moment ago.
    """
    repair = waits_for_message(job, now)
    if repair is None or repair is Repair.NEVER_QUEUED:
        return repair
    sent = _sent_at(job)
    is_overtaken = taken.newest.get(job.priority, 0.0) > sent + OVERTAKEN_BY.total_seconds()
    is_lost = is_pool_drained or is_overtaken or _is_older(sent, SENT_AGAIN_AFTER, now)
    return repair if is_lost else None


def _sent_at(job: Job) -> float:
    """Return since when a message should be waiting for an agent."""
    if job.state is JobState.QUEUED:
        return max(job.queued_at, job.enqueued_at or 0.0)
    return max(job.lease_expires_at or 0.0, job.enqueued_at or 0.0)


def _is_older(moment: float, than: timedelta, now: float) -> bool:
    return now - moment > than.total_seconds()
