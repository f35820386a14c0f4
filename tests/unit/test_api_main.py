"""The API as a process: it starts, says where, serves, and stops when told; or says why it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

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
