"""What was seen of a program that its watch ended: the evidence bundle, as it is stored and handed out.

One JSON object per attempt, evidence/<job id>/<attempt>.json in the artifacts bucket.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from scanfleet import contract
from scanfleet.s3_uri import S3Uri


class Part(BaseModel):
    """Base of the bundle and its parts. What a newer agent adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ProcessFacts(Part):
    """One process of the program's tree; null: the system did not tell."""

    pid: int
    parent: int | None = None
    name: str | None = None
    command: str | None = Field(default=None, description="The command line, cut.")
    state: str | None = Field(
        default=None, description="As psutil calls it: running, sleeping, disk-sleep, ..."
    )
    cpu_seconds: float | None = Field(default=None, description="User and system time since its start.")
    resident_bytes: int | None = None
    threads: int | None = None
    waits_in: str | None = Field(
        default=None, description="The kernel function that it sleeps in (Linux, where the kernel tells)."
    )


class DialogFacts(Part):
    """A window of the program that waits for somebody's answer (Windows)."""

    pid: int
    title: str
    text: str = ""


class MachineFacts(Part):
    """The whole machine at that moment, in bytes."""

    memory_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    disk_bytes: int = Field(description="Of the scratch folder's disk.")
    disk_free_bytes: int


class Evidence(Part):
    """The bundle. A part that could not be read is empty, and `missing` says why."""

    version: int = 1
    job_id: str
    attempt: int
    saved_at: datetime
    reason: str = Field(description="The verdict: why the program was ended.")
    pid: int = Field(description="The program's first process.")
    last_lines: tuple[str, ...] = Field(default=(), description="What the program printed last.")
    processes: tuple[ProcessFacts, ...] = ()
    dialogs: tuple[DialogFacts, ...] = ()
    samples: tuple[dict[str, Any], ...] = Field(
        default=(), description="What the process tree did between two looks, oldest first."
    )
    gpu: dict[str, Any] | None = None
    machine: MachineFacts | None = None
    missing: dict[str, str] = Field(default_factory=dict, description="Part -> why it is not here.")


def evidence_uri(bucket: str, job_id: str, attempt: int) -> S3Uri:
    """Return where an attempt's bundle is."""
    return S3Uri(bucket, f"{contract.EVIDENCE_PREFIX}{job_id}/{attempt}.json")


def to_json(evidence: Evidence, *, max_bytes: int = contract.MAX_EVIDENCE_BYTES) -> bytes:
    """Return the bundle as JSON of `max_bytes` at most: what does not fit of the lines, oldest first, goes.

    The other parts are bounded where they are collected.
    """
    lines = evidence.last_lines
    data = evidence.model_dump_json().encode()
    while len(data) > max_bytes and lines:
        lines = lines[len(lines) // 4 + 1 :]
        missing = {**evidence.missing, "last_lines": f"only the last {len(lines)} lines fit"}
        data = (
            evidence.model_copy(update={"last_lines": lines, "missing": missing}).model_dump_json().encode()
        )
    return data
