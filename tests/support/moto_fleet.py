"""A `TestFleet` over moto's server, with a table, buckets and queues of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from scanfleet.clients import build_clients
from scanfleet.contract import Pool, Priority
from tests.support.cloud import create_job_table
from tests.support.fleet import ARTIFACTS, DATA, TABLE, TestFleet


@contextmanager
def moto_server() -> Iterator[str]:
    """Serve moto on a free port of this machine until the block ends; give its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment by which boto3 finds a cloud at this address."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


@contextmanager
def moto_fleet(endpoint: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestFleet]:
    """Give a fleet until the block ends; the server is empty again afterwards."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    clients = build_clients()
    create_job_table(clients.dynamodb, TABLE)
    for bucket in (DATA, ARTIFACTS):
        clients.s3.create_bucket(Bucket=bucket)
    suffix = time.monotonic_ns()
    urls = {
        priority: clients.sqs.create_queue(QueueName=f"{priority}-{suffix}")["QueueUrl"]
        for priority in Priority
    }
    yield TestFleet(clients, {Pool.LINUX_CPU: urls}, folder)
    clients.dynamodb.delete_table(TableName=TABLE)
    for url in urls.values():
        clients.sqs.delete_queue(QueueUrl=url)
    for bucket in (DATA, ARTIFACTS):
        for found in clients.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            clients.s3.delete_object(Bucket=bucket, Key=found["Key"])
        clients.s3.delete_bucket(Bucket=bucket)
    for client in (clients.dynamodb, clients.sqs, clients.s3):
        client.close()
