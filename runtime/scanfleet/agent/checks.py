"""What an agent checks about its machine: program, GPU, disk, clock, and what its role permits.

Nothing here receives a message or writes where jobs read. What each check needs is part of the agent's role
(cdk/fleet_role.py), so a check that fails finds what a job would have found.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.agent.eyes import Blind, Eyes, StillLooking
from scanfleet.agent.gpu import Gpus, open_gpus
from scanfleet.agent.self_check import Check, CheckFailed
from scanfleet.agent.workspace import Scratch
from scanfleet.contract import AGENT_SILENT_AFTER, STAGING_PREFIX, Pool
from scanfleet.errors import ConfigurationError, ScanfleetError
from scanfleet.objects import ObjectStore, explained
from scanfleet.processors.base import Processor
from scanfleet.queue import JobQueues
from scanfleet.releases_local import free_bytes
from scanfleet.s3_uri import S3Uri
from scanfleet.store_items import job_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_SKEW_SECONDS = AGENT_SILENT_AFTER.total_seconds() / 2
"""A machine further behind would look silent to scaling although it reports. AWS refuses signatures that are
five minutes off. Source: IAM user guide, "Create a signed AWS API request"."""
OFTEN = timedelta(seconds=15)
SELDOM = timedelta(minutes=1)
GPU_PATIENCE = timedelta(seconds=10)
"""A driver that is started anew after an error answers after some seconds."""
PROBE = "self-check"
"""Stands where a job's id would: no job has it."""
SEE_ROLE = "compare the machine's role with docs/security.md, and the deployment's names with its settings"


def program(processor: Processor) -> Check:
    """Return the check that a program can be started here."""

    def look() -> None:
        try:
            processor.check_ready()
        except ConfigurationError as error:
            raise CheckFailed(str(error), "docs/releases.md says how a machine gets its program") from error

    return Check(f"program {processor.name}", look, every=SELDOM)


def gpu(find: Callable[[], Gpus | None] = open_gpus, *, patience: timedelta = GPU_PATIENCE) -> Check:
    """Return the check that a GPU is there and answers."""
    found: list[Gpus] = []

    def ask() -> Any:
        if not found and (gpus := find()) is not None:
            found.append(gpus)
        return found[0].state()["devices"] if found else []

    # A driver may also never answer, and hold up whoever asks it.
    eyes = Eyes(ask, name="gpu-check", patience=patience, blind_after=patience)

    def look() -> None:
        try:
            devices = eyes.see()
            reason = "the GPU does not answer" if devices else "there is no GPU, or no driver for it"
        except (Blind, StillLooking):
            devices, reason = [], "the GPU does not answer"
        if not any(device["memory_total_bytes"] for device in devices):
            to_do = "look at `nvidia-smi` on the machine, its instance type and its image"
            found.clear()
            raise CheckFailed(reason, to_do, can_heal=False)

    return Check("gpu", look, every=SELDOM)


def disk(folder: Path, *, min_free_bytes: int, free: Callable[[Path], int] = free_bytes) -> Check:
    """Return the check that the disk for workspaces has room."""

    def look() -> None:
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        left = free(there)
        if left < min_free_bytes:
            raise CheckFailed(
                f"{left:,} bytes are free on the disk of {folder}, {min_free_bytes:,} are needed",
                "free space there, or give the pool's machines a larger scratch_volume_gib",
            )

    return Check("disk", look, every=OFTEN)


def scratch(place: Scratch) -> Check:
    """Return the check that workspaces can be written; it claims a folder that could not be claimed yet."""

    def look() -> None:
        probe = place.folder / f".{PROBE}"
        try:
            if not place.is_claimed:
                place.claim()
            probe.write_bytes(b"self-check")
            content = probe.read_bytes()
            probe.unlink()
        except (ConfigurationError, OSError) as error:
            raise CheckFailed(
                f"workspaces cannot be written in {place.folder}: {error}",
                "let the agent's account write there, or set SCANFLEET_SCRATCH to another folder",
            ) from error
        if content != b"self-check":
            raise CheckFailed(f"{probe} does not hold what was written", "replace the disk", can_heal=False)

    return Check("scratch", look, every=OFTEN)


def clock(client: "DynamoDBClient", table: str, *, now: Callable[[], float] = time.time) -> Check:
    """Return the check that this machine's clock agrees with AWS's, by the date of an answer."""

    def look() -> None:
        before = now()
        date = _date_of(_answer(client, table))
        after = now()
        if date is None:
            return  # no answer, or one without a date: other checks tell what is wrong
        ahead = (before + after) / 2 - (date + 0.5)  # a date's second began at most one second before
        if abs(ahead) > MAX_SKEW_SECONDS + (after - before) / 2:
            word = "ahead of" if ahead > 0 else "behind"
            raise CheckFailed(
                f"this machine's clock is {abs(ahead):.0f} s {word} AWS's",
                "set it: `w32tm /resync`; on EC2 the time comes from 169.254.169.123",
            )

    return Check("clock", look, every=SELDOM)


def _answer(client: "DynamoDBClient", table: str) -> Mapping[str, Any]:
    """Return an answer, were it a refusal; nothing without one."""
    try:
        return client.get_item(TableName=table, Key=job_key(PROBE), ProjectionExpression="pk")
    except ClientError as error:
        return error.response
    except BotoCoreError:
        return {}


def _date_of(answer: Mapping[str, Any]) -> float | None:
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(str(told)).timestamp()
    except ValueError:
        return None


def job_table(client: "DynamoDBClient", table: str) -> Check:
    """Return the check that jobs' records can be read and changed; the change's condition never holds."""

    def look() -> None:
        with _permitted(f"the job table {table}"):
            client.get_item(TableName=table, Key=job_key(PROBE), ProjectionExpression="pk")
            try:
                client.update_item(
                    TableName=table,
                    Key=job_key(PROBE),
                    UpdateExpression="REMOVE self_check",
                    ConditionExpression="attribute_exists(pk)",
                )
            except client.exceptions.ConditionalCheckFailedException:
                pass  # permitted, and nothing was changed
            else:
                raise CheckFailed(f"the job table {table} holds a job {PROBE}", "delete it")

    return Check("job table", look)


def queue(queues: JobQueues, pool: Pool) -> Check:
    """Return the check that the pool's queues answer; it reads attributes and receives nothing."""

    def look() -> None:
        with _permitted(f"the queues of {pool}"):
            queues.backlog(pool)

    return Check("queue", look)


def artifacts(objects: ObjectStore, bucket: str, agent_id: str) -> Check:
    """Return the check that results can be staged: an object of its own is written, read and deleted."""
    probe = S3Uri(bucket, f"{STAGING_PREFIX}{PROBE}/{agent_id}")

    def look() -> None:
        with _permitted(f"the artifacts bucket {bucket}"):
            objects.put_bytes(probe, b"self-check")
            objects.get_bytes(probe)
            objects.delete_all([probe])

    return Check("artifacts", look)


def inputs(objects: ObjectStore, folder: S3Uri) -> Check:
    """Return the check that an allowed prefix can be listed.

    Of several only the deployment's own, the first: another account's bucket that closes its door must not
    take the fleet out of service for everybody else.
    """

    def look() -> None:
        with _permitted("the allowed prefix"), explained(folder):
            objects.client.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key, MaxKeys=1)

    return Check("inputs", look)


@contextmanager
def _permitted(what: str) -> Iterator[None]:
    try:
        yield
    except (ScanfleetError, ClientError, BotoCoreError) as error:
        raise CheckFailed(f"{what}: {error}", SEE_ROLE) from error
