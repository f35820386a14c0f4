"""Jobs that have ended, put straight into a running system: among them texts that are no friend of a page."""

import base64
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3

from scanfleet import contract
from scanfleet.contract import Pool
from scanfleet.evidence import Evidence, MachineFacts, ProcessFacts, evidence_uri, to_json
from scanfleet.jobs import (
    Failure,
    FailureClass,
    Job,
    JobState,
    Manifest,
    PublishedFile,
    ResultSummary,
    new_job_id,
)
from scanfleet.local.deploy import DeployedSystem
from tests.support.many_jobs import write_jobs

HOSTILE = "<img src=x onerror=\"alert('img')\"><script>alert('script')</script>"
HOSTILE_NAME = "\"><svg onload=alert(1)> ' javascript:alert(2).png"
"""A file's name: also attributes and addresses are made of these."""
ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Facts:
    """Ids of the jobs that were put."""

    hostile_failed: str
    hostile_completed: str


def put_facts(system: DeployedSystem) -> Facts:
    """Write a failed and a completed job whose every text is hostile, with all that belongs to them."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    s3 = session.client("s3", endpoint_url=system.endpoint_url)
    now = time.time()
    failed, completed = _failed(system, now), _completed(system, now)
    dynamodb = session.client("dynamodb", endpoint_url=system.endpoint_url)
    write_jobs(dynamodb, system.job_table, [failed, completed], now=now)
    for job in (failed, completed):
        lines = "".join(f"{line}\n" for line in (HOSTILE, "\x1b[31mred\x1b[0m", "a" * 3000))
        key = f"{contract.LOGS_PREFIX}{job.job_id}/1/1.log"
        s3.put_object(Bucket=system.artifacts_bucket, Key=key, Body=lines.encode())
    _put_evidence(s3, system, failed)
    _put_result(s3, system, completed)
    return Facts(hostile_failed=failed.job_id, hostile_completed=completed.job_id)


def _job(system: DeployedSystem, now: float, **facts: Any) -> Job:
    folder = f"s3://{system.data_bucket}/{contract.UPLOADS_PREFIX}local/{HOSTILE}"
    defaults = {
        "job_id": new_job_id(),
        "owner": "local",
        "processor": "reference",
        "pool": Pool.LINUX_CPU,
        "source_uri": f"{folder}/source/",
        "target_uri": f"{folder}/result/",
        "settings": {HOSTILE: HOSTILE, "Use GPU": True},
        "tags": {"case": HOSTILE, HOSTILE_NAME: HOSTILE_NAME},
        "stage": HOSTILE,
        "stage_seconds": {HOSTILE: 12.0},
        "agent_id": HOSTILE,
        "release": HOSTILE,
        "attempt": 1,
        "created_at": now - 400,
        "queued_at": now - 400,
        "started_at": now - 390,
        "state_changed_at": now - 60,
        "finished_at": now - 60,
        "durations_seconds": {"queued": 10.0, "downloading": 5.0, "processing": 300.0, "uploading": 15.0},
    }
    return Job(**(defaults | facts))


def _failed(system: DeployedSystem, now: float) -> Job:
    failure = Failure(
        failure_class=FailureClass.HANG,
        reason=f"no sign of life: {HOSTILE}",
        attempt=1,
        agent_id=HOSTILE,
        at=datetime.fromtimestamp(now - 60, UTC),
        has_evidence=True,
    )
    return _job(system, now, state=JobState.FAILED, failures=(failure,))


def _completed(system: DeployedSystem, now: float) -> Job:
    result = ResultSummary(attempt=1, files=2, size_bytes=2 * len(ONE_PIXEL))
    return _job(system, now, state=JobState.COMPLETED, result=result, progress_percent=100.0)


def _put_evidence(s3: Any, system: DeployedSystem, job: Job) -> None:
    bundle = Evidence(
        job_id=job.job_id,
        attempt=1,
        saved_at=datetime.now(UTC),
        reason=HOSTILE,
        pid=1,
        last_lines=(HOSTILE,),
        processes=(ProcessFacts(pid=1, name=HOSTILE, command=HOSTILE, state=HOSTILE, waits_in=HOSTILE),),
        samples=({"at": 1.0, "cpu_seconds": 0.0, HOSTILE: HOSTILE},),
        gpu={"driver": HOSTILE},
        machine=MachineFacts(
            memory_bytes=1, memory_available_bytes=1, swap_used_bytes=0, disk_bytes=1, disk_free_bytes=1
        ),
        missing={HOSTILE: HOSTILE},
    )
    place = evidence_uri(system.artifacts_bucket, job.job_id, 1)
    s3.put_object(Bucket=place.bucket, Key=place.key, Body=to_json(bundle))


def _put_result(s3: Any, system: DeployedSystem, job: Job) -> None:
    names = (HOSTILE_NAME, f"{HOSTILE}.ply")
    files = tuple(PublishedFile(key=name, size_bytes=len(ONE_PIXEL), sha256="0" * 64) for name in names)
    manifest = Manifest(
        job_id=job.job_id, attempt=1, processor=job.processor, target_uri=job.target_uri, files=files
    )
    key = f"{contract.MANIFESTS_PREFIX}{job.job_id}/1.json"
    body = json.dumps(manifest.model_dump(mode="json")).encode()
    s3.put_object(Bucket=system.artifacts_bucket, Key=key, Body=body)
    folder = job.target_uri.removeprefix(f"s3://{system.data_bucket}/")
    for name in names:
        s3.put_object(Bucket=system.data_bucket, Key=folder + name, Body=ONE_PIXEL)
