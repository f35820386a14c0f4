"""The API as a process: it starts, says where, serves, and stops when told; or says why it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.api import SESSION, clients_of, emulated_aws, make_resources


@pytest.fixture
def environment():
    with emulated_aws() as endpoint, clients_of(endpoint) as clients:
        facts = make_resources(clients)
        yield {
            **os.environ,
            "AWS_ENDPOINT_URL": endpoint,
            **{name.upper(): value for name, value in SESSION.items() if name != "region_name"},
            "AWS_DEFAULT_REGION": SESSION["region_name"],
            "SCANFLEET_PORT": "0",
            "SCANFLEET_JOB_TABLE": facts["job_table"],
            "SCANFLEET_ARTIFACTS_BUCKET": facts["artifacts_bucket"],
            "SCANFLEET_QUEUES": json.dumps(facts["queues"]),
            "SCANFLEET_DEAD_LETTERS": json.dumps(facts["dead_letters"]),
            "SCANFLEET_ALLOWED_PREFIXES": ",".join(facts["allowed_prefixes"]),
            "SCANFLEET_UPLOADS_URI": facts["uploads_uri"],
            "SCANFLEET_ALLOWED_HOSTS": "scans.example.org, api.example.org",
        }


def start(environment):
    return subprocess.Popen(
        [sys.executable, "-m", "scanfleet.api.main"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_server_prints_its_address_serves_and_stops_on_sigterm(environment):
    with start(environment) as server:
        try:
            line = server.stdout.readline()
            url = line.removeprefix("listening on ").strip()
            health = httpx.get(f"{url}/status/health", timeout=30)
            named = httpx.get(f"{url}/uploads", headers={"Host": "api.example.org"}, timeout=30)
        finally:
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=30)

    assert url.startswith("http://127.0.0.1:")
    assert health.json() == {"status": "ready"}, errors
    assert named.status_code == 200
    assert "server" not in health.headers
    assert all(json.loads(log_line)["component"] == "api" for log_line in errors.splitlines())


def test_a_missing_setting_is_a_sentence_and_exit_code_2(environment):
    del environment["SCANFLEET_JOB_TABLE"]

    with start(environment) as server:
        _, errors = server.communicate(timeout=60)

    assert server.returncode == 2
    assert "SCANFLEET_JOB_TABLE" in errors
    assert "Traceback" not in errors


def test_a_taken_port_is_a_sentence_and_exit_code_2(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment["SCANFLEET_PORT"] = str(taken.getsockname()[1])
        with start(environment) as server:
            _, errors = server.communicate(timeout=60)

    assert server.returncode == 2
    assert "SCANFLEET_PORT" in errors
    assert "Traceback" not in errors


def test_the_server_ends_its_streams_and_stops_within_the_grace(environment):
    with start(environment) as server:
        try:
            url = server.stdout.readline().removeprefix("listening on ").strip()
            with (
                httpx.stream("GET", f"{url}/events", timeout=60) as stream,
                connect(url.replace("http", "ws") + "/ws", proxy=None) as websocket,
            ):
                lines = stream.iter_lines()
                first = next(lines)
                websocket.send('{"ping": true}')
                answer = websocket.recv(timeout=60)
                server.send_signal(signal.SIGINT)
                rest = list(lines)
                with pytest.raises(ConnectionClosed) as closed:
                    websocket.recv(timeout=60)
        finally:
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=60)

    assert first == "retry: 1000"
    assert "event: subscribed" in rest  # and the stream's end was a clean one, or iterating had raised
    assert answer == '{"type":"pong"}'
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code in {1001, 1012}, "going away, or the service restarts"
    logged = [json.loads(line) for line in errors.splitlines()]
    assert not [line for line in logged if line["level"] in {"ERROR", "CRITICAL"}], errors


def test_a_websockets_message_that_is_too_long_ends_its_connection(environment):
    with start(environment) as server:
        try:
            url = server.stdout.readline().removeprefix("listening on ").strip()
            with connect(url.replace("http", "ws") + "/ws", proxy=None) as websocket:
                websocket.send("x" * 100_000)
                with pytest.raises(ConnectionClosed) as closed:
                    websocket.recv(timeout=60)
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009, "message too big"
