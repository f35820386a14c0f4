"""The API as a client meets it: uvicorn on a free port, over moto's table, queues and buckets."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
import httpx
import uvicorn
from fastapi import Request
from moto.server import ThreadedMotoServer

from scanfleet.agent_reports import AgentReport
from scanfleet.api.app import create_app
from scanfleet.api.identity import Caller
from scanfleet.api.services import Services, services_over
from scanfleet.clients import Clients, build_clients
from scanfleet.contract import Pool, Priority
from scanfleet.events.feed import open_feed
from scanfleet.events.hub import Hub
from scanfleet.jobs import Job
from scanfleet.leases import Lease, Leases
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, Invocation, Processor
from scanfleet.settings import ApiSettings
from tests.support.cloud import create_job_table

SESSION = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-west-1"}
DATA, ARTIFACTS, FOREIGN = "scan-data", "scan-artifacts", "foreign-data"
OWNER_HEADER, OPERATOR_HEADER = "X-Test-Owner", "X-Test-Operator"


_RESETS = itertools.count(1)


class Clock:
    """Time that tests move; epoch seconds."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class PlyProcessor(Processor):
    """A processor of the Linux pool that reads PLY files and takes the Medit keys."""

    name = "ply"
    pool = Pool.LINUX_CPU
    input_kinds = "PLY files (*.ply)"

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return medit_settings.validate(raw, allow_unknown=False)

    def accepts(self, key: str) -> bool:
        return PurePosixPath(key).suffix == ".ply"

    def check_ready(self) -> None:
        pass

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        raise NotImplementedError("the API runs no programs")


class WindowsProcessor(PlyProcessor):
    """The same on the other pool."""

    name = "windows_ply"
    pool = Pool.WINDOWS_GPU


class HeaderIdentity:
    """Believes the test's headers: an owner each, operators by choice."""

    def identify(self, request: Request) -> Caller:
        return Caller(
            owner=request.headers.get(OWNER_HEADER, "ann"), is_operator=OPERATOR_HEADER in request.headers
        )


@dataclass(frozen=True)
class RunningApi:
    """A served API and the system behind it. `http` calls as "ann", who is no operator."""

    http: httpx.Client
    url: str
    services: Services
    settings: ApiSettings
    clients: Clients
    clock: Clock
    hub: Hub
    in_loop: Callable[[Callable[[], None]], object]
    """Runs a function in the server's event loop, soon."""

    def reset(self) -> None:
        """Make the cloud and the clock new again, far quicker than starting another API."""
        _forget_everything(self.clients.s3.meta.endpoint_url)
        make_resources(self.clients)
        # What the API keeps for minutes must not outlive the cloud that it was read from.
        self.clock.now = Clock().now + next(_RESETS) * 86_400

    def put(self, key: str, data: bytes = b"data", *, bucket: str = DATA) -> None:
        """Write an object."""
        self.clients.s3.put_object(Bucket=bucket, Key=key, Body=data)

    def folder(self, name: str) -> str:
        """Return the URI of a folder that holds one readable file."""
        self.put(f"{name}/scan.ply")
        return f"s3://{DATA}/{name}/"

    def submit(self, name: str, **facts: Any) -> str:
        """Submit a job from a fresh folder and return its id."""
        body = {"source": self.folder(name), "target": f"s3://{DATA}/{name}-out/"} | facts
        answer = self.http.post("/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    @property
    def leases(self) -> Leases:
        """Return what agents write with, on the same clock."""
        return Leases(self.clients.dynamodb, self.settings.job_table, clock=self.clock)

    def take(self, job_id: str, agent_id: str = "agent-1") -> Lease:
        """Take the job's lease, as an agent does."""
        lease = self.leases.take(job_id, agent_id)
        assert isinstance(lease, Lease)
        return lease

    def report_agent(self, **facts: Any) -> None:
        """Put an agent into service."""
        defaults = {"agent_id": "agent-1", "pool": Pool.LINUX_CPU, "slots": 2, "busy": 0}
        times = {"started_at": self.clock() - 60, "seen_at": self.clock()}
        self.services.agents.put(AgentReport(**(defaults | times | facts)))

    def messages(self, pool: Pool = Pool.LINUX_CPU) -> int:
        """Return how many messages wait in the pool's queues."""
        return self.services.queues.backlog(pool).waiting


def as_owner(name: str) -> dict[str, str]:
    """Return the headers that make a request somebody's."""
    return {OWNER_HEADER: name}


OPERATOR = {OWNER_HEADER: "olga", OPERATOR_HEADER: "yes"}


@contextmanager
def running_api(**changed_settings: Any) -> Iterator[RunningApi]:
    """Serve the API over a fresh emulated cloud, and stop both at the end."""
    with emulated_aws() as endpoint, clients_of(endpoint) as clients:
        settings = ApiSettings(**(make_resources(clients) | changed_settings))
        with _served(clients, settings, Clock()) as api:
            yield api


@contextmanager
def served_with(api: RunningApi, **changed_settings: Any) -> Iterator[RunningApi]:
    """Serve another API over the same cloud (moto has one a process), with other settings."""
    settings = api.settings.model_copy(update=changed_settings)
    with _served(api.clients, settings, api.clock) as other:
        yield other


@contextmanager
def _served(clients: Clients, settings: ApiSettings, clock: Clock) -> Iterator[RunningApi]:
    processors: dict[str, Processor] = {p.name: p for p in (PlyProcessor(), WindowsProcessor())}
    services = services_over(clients, settings, processors=processors, clock=clock)
    streams = boto3.Session(**SESSION).client(
        "dynamodbstreams", endpoint_url=clients.dynamodb.meta.endpoint_url
    )
    hub = Hub(lambda: open_feed(clients.dynamodb, streams, services.store, settings.job_table))
    app = create_app(services, settings, hub=hub)
    app.state.identity = HeaderIdentity()
    with served_in_a_thread(app, hub) as (url, in_loop), httpx.Client(base_url=url, timeout=30) as http:
        yield RunningApi(http, url, services, settings, clients, clock, hub, in_loop)


def make_resources(clients: Clients) -> dict[str, Any]:
    """Create table, queues and buckets; return the settings that name them."""
    create_job_table(clients.dynamodb, "jobs")
    for bucket in (DATA, ARTIFACTS, FOREIGN):
        clients.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    urls = {
        pool: {
            priority: clients.sqs.create_queue(QueueName=f"{pool}-{priority}")["QueueUrl"]
            for priority in Priority
        }
        for pool in Pool
    }
    dead_letters = {
        pool: clients.sqs.create_queue(QueueName=f"{pool}-dead-letters")["QueueUrl"] for pool in Pool
    }
    return {
        "job_table": "jobs",
        "artifacts_bucket": ARTIFACTS,
        "queues": urls,
        "dead_letters": dead_letters,
        "allowed_prefixes": (f"s3://{DATA}/", "s3://no-such-bucket/"),
        "uploads_uri": f"s3://{DATA}/uploads/",
        "default_processor": "ply",
    }


@contextmanager
def emulated_aws() -> Iterator[str]:
    """Run moto's server; yield its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    _forget_everything(url)  # moto keeps one cloud a process, and there may have been a server before
    try:
        yield url
    finally:
        server.stop()


def _forget_everything(url: str) -> None:
    httpx.post(f"{url}/moto-api/reset").raise_for_status()


@contextmanager
def clients_of(endpoint: str) -> Iterator[Clients]:
    """Yield the clients that a server process would build for this endpoint."""
    session = boto3.Session(**SESSION)
    with _environment(AWS_ENDPOINT_URL=endpoint):
        clients = build_clients(session=session)
    try:
        yield clients
    finally:
        for client in (clients.s3, clients.sqs, clients.dynamodb):
            client.close()


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI app with uvicorn in a thread; yield its address."""
    with served_in_a_thread(app, None) as (url, _):
        yield url


@contextmanager
def served_in_a_thread(app: Any, hub: Hub | None) -> Iterator[tuple[str, Callable[..., object]]]:
    """Serve an ASGI app with uvicorn in a thread; yield its address, and what runs things in its loop."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api under test")
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)  # uvicorn has no event to wait for
        port = server.servers[0].sockets[0].getsockname()[1]
        loop = server.servers[0].get_loop()
        yield f"http://127.0.0.1:{port}", loop.call_soon_threadsafe
    finally:
        if hub is not None:
            server.servers[0].get_loop().call_soon_threadsafe(hub.close)
        server.should_exit = True
        thread.join(timeout=30)
