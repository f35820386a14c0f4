"""The sweeper over the emulated cloud: its thread in the local mode, and its calls of S3."""

import json
import time
from datetime import timedelta

from scanfleet.clients import Clients
from scanfleet.contract import STAGING_PREFIX, Pool, Priority
from scanfleet.jobs import Job, new_job_id
from scanfleet.local.sweeping import LocalSweeper
from scanfleet.objects import ObjectStore
from scanfleet.s3_uri import S3Uri
from scanfleet.settings import SweeperSettings
from scanfleet.store import JobStore
from scanfleet.sweeper.staging import StagingArea
from scanfleet.sweeper.sweeper import build_sweeper

HOUR = 3600.0


def a_job(**facts) -> Job:
    now = time.time()
    job_id = new_job_id()
    defaults = {
        "job_id": job_id,
        "owner": "ann",
        "processor": "reference",
        "pool": Pool.WINDOWS_GPU,  # nobody serves it here
        "source_uri": "s3://data/in/",
        "target_uri": f"s3://data/out/{job_id}/",
        "created_at": now,
        "queued_at": now,
        "state_changed_at": now,
    }
    return Job(**(defaults | facts))


def received(cloud) -> list[str]:
    url = cloud.system.queues[Pool.WINDOWS_GPU][Priority.NORMAL]
    found = []
    while batch := cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        found += [json.loads(message["Body"])["job_id"] for message in batch]
    return found


def test_the_local_modes_sweeper_queues_a_job_whose_api_died(cloud, tmp_path):
    store = JobStore(cloud.dynamodb, cloud.system.job_table)
    long_ago = time.time() - 300
    job = store.create(a_job(created_at=long_ago, queued_at=long_ago, state_changed_at=long_ago))
    log_file = tmp_path / "sweeper.log"
    sweeper = LocalSweeper(cloud.system, log_file=log_file, every=timedelta(seconds=0.2))

    sweeper.start()
    try:
        deadline = time.monotonic() + 60
        while store.get(job.job_id).enqueued_at is None:
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
    finally:
        sweeper.stop()

    assert job.job_id in received(cloud)
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    (told,) = [line for line in lines if line["action"] == "repaired" and line["job_id"] == job.job_id]
    assert (told["component"], told["repair"], told["SweeperRepairs"]) == ("sweeper", "never_queued", 1)
    assert {line["Pool"] for line in lines if "SweeperRuns" in line} == {"windows-gpu", "linux-cpu"}
    store.request_cancel(job)


def test_a_sweeper_that_is_stopped_before_its_first_look_has_done_nothing(cloud, tmp_path):
    log_file = tmp_path / "sweeper.log"
    sweeper = LocalSweeper(cloud.system, log_file=log_file)

    sweeper.start()
    sweeper.stop()

    assert not log_file.exists()


def test_staged_leftovers_are_listed_job_by_job_and_deleted(cloud):
    store = JobStore(cloud.dynamodb, cloud.system.job_table)
    bucket = cloud.system.artifacts_bucket
    objects = ObjectStore(cloud.s3)
    over, waiting = (store.create(a_job()) for _ in range(2))
    store.request_cancel(over)
    for job in (over, waiting):
        for name in ("0/a.ply", "0/deep/b.ply", "1/c.ply"):
            objects.put_bytes(S3Uri(bucket, f"{STAGING_PREFIX}{job.job_id}/{name}"), b"x")
    upload = cloud.s3.create_multipart_upload(Bucket=bucket, Key=f"{STAGING_PREFIX}{over.job_id}/0/big")
    area = StagingArea(objects, bucket)

    assert area.jobs(after="", limit=1000) == sorted(area.jobs(after="", limit=1000))
    first = sorted([over.job_id, waiting.job_id])[0]
    assert first not in area.jobs(after=first, limit=1000)
    assert len(area.jobs(after="", limit=1)) == 1
    assert [(s.attempt, len(s.keys)) for s in area.attempts(over.job_id)] == [(0, 2), (1, 1)]

    settings = SweeperSettings(
        job_table=cloud.system.job_table, queues=cloud.system.queues, artifacts_bucket=bucket
    )
    clients = Clients(s3=cloud.s3, sqs=cloud.sqs, dynamodb=cloud.dynamodb, credentials=None)
    sweeper = build_sweeper(clients, settings, clock=lambda: time.time() + 3 * HOUR)
    assert sweeper.staging.run(lambda: False) >= 2

    assert [staged.attempt for staged in area.attempts(over.job_id)] == [1], (
        "an attempt that nobody knows stays"
    )
    assert [staged.attempt for staged in area.attempts(waiting.job_id)] == [1]
    assert upload["UploadId"] not in {found.upload_id for found in area.uploads()}
    store.request_cancel(waiting)
