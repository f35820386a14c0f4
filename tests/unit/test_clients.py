"""The boto3 clients' behaviour while services and clocks misbehave."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from scanfleet.clients import build_clients

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
