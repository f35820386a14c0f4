"""A job table with a long history in it, quickly: records as the store writes them, without its checks."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from ulid import ULID

from scanfleet.contract import FINISHED_JOBS_KEPT, Pool
from scanfleet.job_tags import tag_entries
from scanfleet.jobs import ACTIVE_STATES, Job, JobState
from scanfleet.store_items import item_from_job

OWNERS = ("ann", "bob", "cleo", "dora", "emil")
RARE_OWNER = "zoe"
RARE_TAG = ("campaign", "pilot")
COMMON_TAG = ("plan", "standard")
WRITES_A_CALL = 25
"""Source: DynamoDB API reference, BatchWriteItem."""


def past_jobs(count: int, *, now: float, active: int = 300, rare_every: int = 10_000) -> Iterator[Job]:
    """Yield `count` jobs of the last 90 days, oldest first; the last `active` of them have not ended.

    One in 20 failed, one in 50 was cancelled. Every fourth one has COMMON_TAG, every twentieth a tag of its
    own, one in `rare_every` RARE_TAG and RARE_OWNER.
    """
    kept = FINISHED_JOBS_KEPT.total_seconds() - timedelta(days=1).total_seconds()
    for number in range(count):
        at = round(now - kept * (count - number) / count, 3)
        is_rare = number % rare_every == rare_every // 2
        tags = {"case": str(number)} if number % 20 == 0 else {}
        tags |= dict([COMMON_TAG] if number % 4 == 0 else [])
        tags |= dict([RARE_TAG] if is_rare else [])
        state = ACTIVE_STATES[number % 4] if number >= count - active else _end(number)
        yield Job(
            job_id=str(ULID.from_timestamp(at)),
            owner=RARE_OWNER if is_rare else OWNERS[number % len(OWNERS)],
            processor="reference",
            pool=Pool.LINUX_CPU,
            source_uri=f"s3://scans/uploads/case-{number}/source/",
            target_uri=f"s3://scans/uploads/case-{number}/result/",
            settings={"Complete Type": 1, "Use GPU": False, "Reduce Roughness": 1},
            tags=tags,
            state=state,
            stage="register" if state is JobState.PROCESSING else None,
            progress_percent=100.0 if state is JobState.COMPLETED else 0.0,
            attempt=0 if state is JobState.QUEUED else 1,
            created_at=at,
            queued_at=at,
            state_changed_at=at,
            enqueued_at=at,
            finished_at=at + 300.0 if state.is_terminal else None,
            durations_seconds={"queued": 12.5, "downloading": 20.25, "processing": 250.5, "uploading": 16.75},
        )


def _end(number: int) -> JobState:
    if number % 20 == 7:
        return JobState.FAILED
    return JobState.CANCELLED if number % 50 == 9 else JobState.COMPLETED


def write_jobs(client: Any, table: str, jobs: Sequence[Job], *, now: float) -> None:
    """Write the jobs' records and tags with this client."""
    items = [item for job in jobs for item in (item_from_job(job), *tag_entries(job, now))]
    for start in range(0, len(items), WRITES_A_CALL):
        puts = [{"PutRequest": {"Item": item}} for item in items[start : start + WRITES_A_CALL]]
        answer = client.batch_write_item(RequestItems={table: puts})
        assert not answer.get("UnprocessedItems"), "the emulator has no limits"
