"""The boto3 clients of one process, built only by `agent/main`, `api` entries and `local`.

Region, credentials and endpoint are boto3's own to find (`AWS_*` variables, profiles, instance roles).
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials

from scanfleet.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

    from scanfleet.events.feed import StreamsClient
    from scanfleet.events.postbox import ManagementClient

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
SQS_READ_TIMEOUT_SECONDS = 30
"""Above the longest poll, 20 s: a poll that finds nothing is an answer, not a failure."""
HEARTBEAT_TIMEOUT_SECONDS = 3
"""Two tries of two waits each end well within a lease."""
MAX_CALL_ATTEMPTS = 5
"""One call is tried this often. Not in adaptive mode: its rate limiter counts by the wall clock, and a clock
that is set back by seconds after a throttled call holds every later call up for minutes.
Source: boto3 guide, "Retries"."""


def new_session() -> boto3.Session:
    """Return a session with credentials and settings of its own, and the descriptions of services of all.

    A description takes megabytes of memory once it is read, and each session would read it for itself.
    """
    own = botocore.session.get_session()
    own.register_component("data_loader", _descriptions())
    return boto3.Session(botocore_session=own)


@cache
def _descriptions() -> Any:
    return botocore.session.get_session().get_component("data_loader")


@dataclass(frozen=True)
class Clients:
    """One client a service. boto3 clients may be shared by threads.

    credentials: of the same session, for `agent/transfer.py`, which signs its own requests; they refresh
    themselves.
    """

    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"
    credentials: Credentials


def build_clients(*, max_connections: int = 32, session: boto3.Session | None = None) -> Clients:
    """Return the clients of this process.

    max_connections: kept open to one service at most; take at least the number of threads that call it.
    session: None takes a fresh one with boto3's defaults. Raises ConfigurationError without credentials.
    """
    session = session or new_session()
    credentials = session.get_credentials()
    if credentials is None:
        raise ConfigurationError("no AWS credentials: set AWS_ACCESS_KEY_ID, a profile or an instance role")
    return Clients(
        s3=_s3_client(session, max_connections),
        sqs=session.client("sqs", config=_config(max_connections, SQS_READ_TIMEOUT_SECONDS)),
        dynamodb=session.client("dynamodb", config=_config(max_connections, READ_TIMEOUT_SECONDS)),
        credentials=credentials,
    )


@dataclass(frozen=True)
class HeartbeatClients:
    """Clients that give up soon: a heartbeat that waits for an answer is no heartbeat."""

    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"


def build_heartbeat_clients(*, session: boto3.Session | None = None) -> HeartbeatClients:
    """Return the clients of this process's heartbeats."""
    session = session or new_session()
    config = Config(
        connect_timeout=HEARTBEAT_TIMEOUT_SECONDS,
        read_timeout=HEARTBEAT_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
        tcp_keepalive=True,
    )
    return HeartbeatClients(
        sqs=session.client("sqs", config=config), dynamodb=session.client("dynamodb", config=config)
    )


def build_autoscaling_client(region: str, *, session: boto3.Session | None = None) -> "AutoScalingClient":
    """Return the client by which an instance speaks about itself; it gives up soon, its callers try again."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=CONNECT_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    return (session or new_session()).client("autoscaling", region_name=region, config=config)


def build_streams_client(*, session: boto3.Session | None = None) -> "StreamsClient":
    """Return the client that reads the job table's stream; it gives up soon, its callers try again."""
    client: StreamsClient = (session or new_session()).client(
        "dynamodbstreams", config=_short_config(max_connections=2)
    )
    return client


def build_connections_client(url: str, *, session: boto3.Session | None = None) -> "ManagementClient":
    """Return the client that writes to the open WebSockets of the API at this address."""
    client: ManagementClient = (session or new_session()).client(
        "apigatewaymanagementapi", endpoint_url=url, config=_short_config(max_connections=16)
    )
    return client


def build_ssm_client(*, session: boto3.Session | None = None) -> "SSMClient":
    """Return the client that reads parameters; it gives up soon, its callers try again."""
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=CONNECT_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    return (session or new_session()).client("ssm", config=config)


def build_log_levels_client(*, session: boto3.Session | None = None) -> "SSMClient":
    """Return the client that looks at log levels in passing; it gives up at once: the next look is soon."""
    return (session or new_session()).client("ssm", config=_passing_config(seconds=1))


def build_logs_client(*, session: boto3.Session | None = None) -> "CloudWatchLogsClient":
    """Return the client that writes log lines; it gives up at once: nothing may wait long for them."""
    return (session or new_session()).client("logs", config=_passing_config(seconds=3))


def _passing_config(*, seconds: float) -> Config:
    return Config(
        connect_timeout=seconds,
        read_timeout=seconds,
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
    )


def _s3_client(session: boto3.Session, max_connections: int) -> "S3Client":
    """Return the S3 client; it puts the bucket into the path when the endpoint is not Amazon's.

    Emulators have no DNS name per bucket. Checksums are sent where S3 requires them; the callers that write
    objects add their own SHA-256 (objects.py), and transfer verifies what it reads.
    """
    config = _config(max_connections, READ_TIMEOUT_SECONDS).merge(
        Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
    )
    client = session.client("s3", config=config)
    if _is_amazon(client.meta.endpoint_url):
        return client
    return session.client("s3", config=config.merge(Config(s3={"addressing_style": "path"})))


def _is_amazon(endpoint_url: str) -> bool:
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _short_config(*, max_connections: int) -> Config:
    return Config(
        connect_timeout=HEARTBEAT_TIMEOUT_SECONDS,
        read_timeout=HEARTBEAT_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=max_connections,
        tcp_keepalive=True,
    )


def _config(max_connections: int, read_timeout_seconds: float) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": MAX_CALL_ATTEMPTS},
        max_pool_connections=max_connections,
        tcp_keepalive=True,
    )
