"""What of the table's stream is news: changes of jobs that somebody could see.

A record of the stream: {"eventName", "dynamodb": {"Keys", "NewImage"?, "OldImage"?, "SequenceNumber"}}, its
images as items. Source: Amazon DynamoDB Streams API reference, "Record".
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from scanfleet.contract import JOB_PARTITIONS, TableKey
from scanfleet.jobs import Job
from scanfleet.store_items import Item, job_from_item

log = logging.getLogger(__name__)

UNSEEN = frozenset(
    {
        "lease_expires_at",
        "lease_token",
        "enqueued_at",
        "published_at",
        "stage_seconds",
        "usage",
        TableKey.EXPIRES_AT,
        TableKey.ACTIVE,
    }
)
"""Attributes that messages do not show. A heartbeat that found nothing new changes only these, and most
writes are such heartbeats. What is not named here counts as visible: a new field is never held back."""


def changed_jobs(records: Iterable[Mapping[str, Any]]) -> dict[str, Job]:
    """Return the jobs that visibly changed, each as the last of these records has it, by job id."""
    jobs: dict[str, Job] = {}
    for record in records:
        job = changed_job(record)
        if job is not None:
            jobs.pop(job.job_id, None)  # its place is that of its last change
            jobs[job.job_id] = job
    return jobs


def changed_job(record: Mapping[str, Any]) -> Job | None:
    """Return the job as the record leaves it; None for anything else than a visible change of a job.

    A record that cannot be read is told and left out.
    """
    images = record["dynamodb"]
    new: Item | None = images.get("NewImage")
    if new is None or not str(new[TableKey.PARTITION].get("S", "")).startswith(JOB_PARTITIONS):
        return None  # deleted by time, or no job's record
    old: Item | None = images.get("OldImage")
    if old is not None and not _differs(old, new):
        return None
    try:
        return job_from_item(new)
    except ValueError as error:  # pydantic's and json's
        facts = {"action": "job_not_understood", "job_id": new.get(TableKey.JOB_ID, {}).get("S")}
        log.error("a job's record cannot be read: %s", error, extra=facts)
        return None


def _differs(old: Item, new: Item) -> bool:
    names = (old.keys() | new.keys()) - UNSEEN
    return any(_value(old.get(name)) != _value(new.get(name)) for name in names)


def _value(stored: Mapping[str, Any] | None) -> object:
    """Return what compares: emulators keep a number's text as it was written, 0 or 0.0."""
    return float(stored["N"]) if stored and "N" in stored else stored
