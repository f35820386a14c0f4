"""The boto3 clients' behaviour while services and clocks misbehave."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from scanfleet.clients import build_clients, build_heartbeat_clients, new_session

THROTTLED = b'{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}'


@pytest.fixture
def throttling_table(monkeypatch):
    """A DynamoDB that throttles the first call; yields the answers that it gave."""
    answers = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answers.append(400 if not answers else 200)
            body = THROTTLED if answers[-1] == 400 else b"{}"
            self.send_response(answers[-1])
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_wall_clock_that_goes_back_after_throttling_holds_no_call_up(throttling_table, monkeypatch):
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    table = build_clients(session=session).dynamodb
    for _ in range(20):
        table.get_item(TableName="jobs", Key={"pk": {"S": "a"}})
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 600)
    done = threading.Event()

    def call() -> None:
        table.get_item(TableName="jobs", Key={"pk": {"S": "a"}})
        done.set()

    threading.Thread(target=call, daemon=True).start()

    assert done.wait(30)
    assert throttling_table.count(400) == 1


def test_clients_of_several_sessions_read_a_services_description_once(monkeypatch):
    """Descriptions were a fifth of the memory of an idle agent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    one, other = build_clients().dynamodb, build_heartbeat_clients().dynamodb

    # botocore hands a parsed description on as it is.
    assert one.meta.service_model._service_description is other.meta.service_model._service_description


def test_sessions_have_settings_and_credentials_of_their_own(monkeypatch):
    found = []
    for name, region in (("first", "us-east-1"), ("second", "eu-west-1")):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        session = new_session()
        found.append((session.get_credentials().access_key, session.client("sqs").meta.region_name))

    assert found == [("first", "us-east-1"), ("second", "eu-west-1")]
