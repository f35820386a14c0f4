"""The emulated cloud of a campaign, and ways into it that no fault touches.

The parts are created from the contract instead of by the CDK: they are the same table, queues and buckets, a
minute sooner, and their names are the campaign's own.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from scanfleet.contract import MAX_RECEIVE_COUNT, Pool, Priority
from scanfleet.local.deploy import REGION, DeployedSystem
from tests.support.cloud import create_job_table

TABLE, DATA, ARTIFACTS = "faults-jobs", "faults-data", "faults-artifacts"
RELEASES = "faults-releases"
STAGE = "local"
INPUTS, OUTPUTS = "in/", "out/"
ALLOWED = (f"s3://{DATA}/{INPUTS}", f"s3://{DATA}/{OUTPUTS}")
POOL = Pool.LINUX_CPU
CONNECTIONS = 16


@dataclass(frozen=True, kw_only=True)
class World:
    """The emulator's endpoint, the clients of the harness, and the queues' paths."""

    endpoint_url: str
    s3: Any
    sqs: Any
    dynamodb: Any
    queues: dict[Priority, str]
    dead_letters: str
    """The dead-letter queue of both priorities."""

    @property
    def port(self) -> int:
        """Return the emulator's port."""
        return int(urlsplit(self.endpoint_url).port or 0)

    def system_at(self, endpoint_url: str) -> DeployedSystem:
        """Return the system as a process behind a proxy finds it."""
        return DeployedSystem(
            endpoint_url=endpoint_url,
            stage=STAGE,
            job_table=TABLE,
            data_bucket=DATA,
            artifacts_bucket=ARTIFACTS,
            queues={POOL: {p: endpoint_url + urlsplit(url).path for p, url in self.queues.items()}},
            dead_letters={POOL: endpoint_url + urlsplit(self.dead_letters).path},
            allowed_prefixes=ALLOWED,
        )


def client(service: str, endpoint_url: str) -> Any:
    """Return a boto3 client that goes straight to the emulator."""
    style = {"addressing_style": "path"} if service == "s3" else {}
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=CONNECTIONS, s3=style, read_timeout=30, proxies={}),
    )


def create_world(endpoint_url: str) -> World:
    """Create table, queues and buckets on a fresh emulator."""
    s3, sqs, dynamodb = (client(name, endpoint_url) for name in ("s3", "sqs", "dynamodb"))
    create_job_table(dynamodb, TABLE)
    for bucket in (DATA, ARTIFACTS, RELEASES):
        s3.create_bucket(Bucket=bucket)
    dead = sqs.create_queue(QueueName="faults-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVE_COUNT})
    queues = {
        priority: sqs.create_queue(QueueName=f"faults-{priority}", Attributes={"RedrivePolicy": redrive})[
            "QueueUrl"
        ]
        for priority in Priority
    }
    return World(
        endpoint_url=endpoint_url, s3=s3, sqs=sqs, dynamodb=dynamodb, queues=queues, dead_letters=dead
    )
