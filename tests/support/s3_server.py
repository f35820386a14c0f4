"""A real S3 server in this process (moto), and a way to go wrong between it and its client."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import botocore.loaders
import botocore.session
from moto.server import ThreadedMotoServer

from scanfleet.clients import Clients, build_clients

BUCKET = "scans"
SERVICE_MODELS = botocore.loaders.create_loader()
"""Shared by all sessions: reading them takes longer than most tests."""


@contextmanager
def moto_s3() -> Iterator[str]:
    """Yield the address of an S3 server on a free port of this machine."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def clients_for(monkeypatch, url: str, **environment: str) -> Clients:
    """Return the product's own clients, as the environment would make them for this server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        **environment,
    }.items():
        monkeypatch.setenv(name, value)
    core = botocore.session.Session()
    core.register_component("data_loader", SERVICE_MODELS)
    return build_clients(session=boto3.Session(botocore_session=core))


@dataclass
class Passing:
    """A request on its way through the proxy, and the answer once it is there; a fault may change it."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    """Send so many bytes of the body, then hang up."""

    @property
    def is_object(self) -> bool:
        """Say whether it asks for one object's content."""
        return self.method == "GET" and "list-type" not in self.path


class FaultyS3:
    """A proxy before an S3 server. Tests set `before` and `after` to change what passes."""

    def __init__(self) -> None:
        self.before: Callable[[Passing], None] = lambda passing: None
        self.after: Callable[[Passing], None] = lambda passing: None
        self.seen: list[Passing] = []
        self.url = ""


@contextmanager
def faulty(upstream_url: str) -> Iterator[FaultyS3]:
    """Yield a proxy to the server at `upstream_url`."""
    proxy = FaultyS3()
    upstream = upstream_url.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            passing = Passing(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            data = self.rfile.read(int(self.headers.get("content-length", 0)))
            proxy.seen.append(passing)
            proxy.before(passing)
            if not passing.status:
                ask(passing, data)
            proxy.after(passing)
            self.reply(passing)

        def reply(self, passing: Passing) -> None:
            self.send_response_only(passing.status)
            for name, value in passing.answer.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("content-length", str(len(passing.body)))
            self.end_headers()
            if passing.cut_at is not None:
                self.wfile.write(passing.body[: passing.cut_at])
                self.close_connection = True
            elif self.command != "HEAD":
                self.wfile.write(passing.body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean; `proxy.seen` has it all."""

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.pass_on)

    def ask(passing: Passing, data: bytes) -> None:
        connection = http.client.HTTPConnection(upstream)
        try:
            connection.request(passing.method, passing.path, body=data, headers=passing.headers)
            answer = connection.getresponse()
            passing.status, passing.body = answer.status, answer.read()
            kept = {"content-length", "transfer-encoding", "connection"}
            if passing.method == "HEAD":
                kept.discard("content-length")
            passing.answer = {k: v for k, v in answer.getheaders() if k.lower() not in kept}
        finally:
            connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
