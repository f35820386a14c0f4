"""What serves in the benchmark of the API: ours, with AWS answered from memory, or a bare FastAPI route.

    python -m benchmarks.events_api_server ours|bare

Serves on one core and prints its port. Ours does all that it does for a request, boto3's part included:
requests to AWS are made and signed, then answered right before they would leave. So no emulator's time is in
the figures.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from fastapi import FastAPI

from scanfleet.contract import Pool, Priority
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.store_items import item_from_job

LISTED = 50
S3_FOLDER = b"""<?xml version="1.0"?><ListBucketResult><Name>scans</Name><KeyCount>1</KeyCount>
<IsTruncated>false</IsTruncated><Contents><Key>uploads/local/case/scan.ply</Key><Size>1000</Size>
<ETag>"1"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"""


def a_job() -> Job:
    """Return a running job as the table has many."""
    now = time.time()
    return Job(
        job_id=new_job_id(),
        owner="local",
        processor="reference",
        pool=Pool.LINUX_CPU,
        source_uri="s3://scans/uploads/local/case/",
        target_uri="s3://scans/uploads/local/case-result/",
        settings={"Complete Type": 1, "Use GPU": False},
        tags={"case": "7"},
        state=JobState.PROCESSING,
        stage="register",
        progress_percent=42.5,
        attempt=1,
        created_at=now,
        queued_at=now,
        state_changed_at=now,
        started_at=now,
        enqueued_at=now,
    )


class Raw:
    """A body as urllib3 would give it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """Yield all of it."""
        yield self._body

    def read(self, *_: Any, **__: Any) -> bytes:
        """Return all of it."""
        return self._body


class Memory:
    """Answers requests to AWS."""

    def __init__(self) -> None:
        self._one = item_from_job(a_job())
        self._page = [item_from_job(a_job()) for _ in range(LISTED + 1)]

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Return the answer, instead of sending the request."""
        target = request.headers.get("X-Amz-Target", b"")
        name = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        body = json.dumps(self._answer(name, request)).encode() if name else S3_FOLDER
        headers: Any = HeadersDict()
        return AWSResponse(request.url, 200, headers, Raw(body))

    def _answer(self, name: str, request: AWSPreparedRequest) -> dict[str, Any]:
        body: Any = request.body or "{}"
        asked = json.loads(body)
        if name == "GetItem":
            return {"Item": self._one} if asked["Key"]["pk"]["S"].startswith("JOB#") else {}
        if name == "Query":
            found = self._page if asked.get("IndexName") else []
            return {"Items": found, "Count": len(found), "ScannedCount": len(found)}
        if name == "UpdateItem":
            return {"Attributes": self._one}
        if name == "SendMessage":
            return {"MessageId": "1"}
        if name == "GetQueueAttributes":
            return {"Attributes": {}}
        return {}


def ours() -> Any:
    """Return our application over that."""
    from scanfleet.api.app import create_app
    from scanfleet.api.services import services_over
    from scanfleet.clients import build_clients
    from scanfleet.processors.registry import known_processors
    from scanfleet.settings import ApiSettings

    urls = {
        pool: {priority: f"http://sqs.invalid/1/{pool}-{priority}" for priority in Priority} for pool in Pool
    }
    settings = ApiSettings(
        job_table="jobs",
        artifacts_bucket="artifacts",
        queues=urls,
        dead_letters={pool: f"http://sqs.invalid/1/{pool}-dead" for pool in Pool},
        allowed_prefixes=("s3://scans/",),
        uploads_uri="s3://scans/uploads/",
        default_processor="reference",
    )
    clients = build_clients()
    memory: Any = Memory()  # an answer instead of None is what botocore's own mocks give here, too
    for client in (clients.dynamodb, clients.s3, clients.sqs):
        client.meta.events.register("before-send", memory)
    services = services_over(clients, settings, processors=known_processors(settings), clock=time.time)
    return create_app(services, settings)


def bare() -> Any:
    """Return the least that answers a job with FastAPI."""
    app = FastAPI()
    job = a_job().model_dump(mode="json")

    @app.get("/job/{job_id}")
    def read(job_id: str) -> dict[str, Any]:
        return {**job, "job_id": job_id}

    return app


def main() -> None:
    """Serve until ended."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name, value in {"ID": "test", "KEY": "test"}.items():
        os.environ["AWS_SECRET_ACCESS_KEY" if name == "KEY" else "AWS_ACCESS_KEY_ID"] = value
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "SCANFLEET_STAGE": "local"}
    app = {"ours": ours, "bare": bare}[sys.argv[1]]()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main()
