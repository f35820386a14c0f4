"""The API as an HTTP server: problem documents everywhere, foreign hosts and origins, health, load, docs."""

import json
import logging
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scanfleet.api import readiness
from scanfleet.api.problems import BY_STATUS, ProblemType
from scanfleet.contract import Pool
from tests.support.api import DATA, OPERATOR, running_api, served_with

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert (document["type"], document["title"]) == BY_STATUS[status]
    assert document["instance"] == answer.request.url.path
    return document


# --- Problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/nothing", "/job", "/jobs/", "/docs/static/x.js", "/docs/static/..%2fcore.py"]
)
def test_an_unknown_path_is_a_404_problem(api, path):
    problem(api.http.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/process", "POST"),
        ("DELETE", "/jobs", "GET, HEAD, POST"),
        ("PUT", "/job/x", "GET, HEAD"),
        ("GET", "/job/x/cancel", "POST"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_an_unknown_method_is_a_405_problem_that_names_all_the_allowed(api, method, path, allowed):
    answer = api.http.request(method, path)

    problem(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "name", "said"),
    [
        ("/jobs?state=failed", "state", 'did you mean "status"?'),
        ("/jobs?limit=5&ownr=ann", "ownr", 'did you mean "owner"?'),
        ("/status/load?x=1", "x", "unknown parameter"),
        ("/job/01JD5Z9W4T8Q2V6K3M7N1P5R9S?x=1", "x", "unknown parameter"),
        ("/job/01JD5Z9W4T8Q2V6K3M7N1P5R9S/log?tail=5", "tail", 'did you mean "tail_lines"?'),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_nearest_known_name(api, path, name, said):
    answer = api.http.get(path)

    (error,) = problem(answer, 422)["errors"]
    assert error["field"] == name
    assert said in error["message"]


def test_a_length_header_over_the_limit_is_refused_without_reading_the_body(api):
    with _connected(api.url) as raw:
        head = "POST /process HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 9999999999\r\n\r\n{{}}".encode())

        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_unforeseen_failure_tells_nothing_but_the_request_id(api, monkeypatch, caplog):
    def explode(*_, **__):
        raise RuntimeError("the secret")

    monkeypatch.setattr(api.services.store, "list_jobs", explode)
    with caplog.at_level(logging.ERROR, "scanfleet"):
        answer = api.http.get("/jobs")

    document = problem(answer, 500)
    assert "secret" not in answer.text
    (record,) = [r for r in caplog.records if getattr(r, "action", "") == "request_failed"]
    assert record.request_id == document["request_id"] == answer.headers["x-request-id"]
    assert "the secret" in str(record.exc_info[1])


def test_a_service_that_does_not_answer_is_a_503_that_says_when_to_try_again(api, monkeypatch):
    with served_with(api, job_table="no-such-table") as other:
        answer = other.http.get("/jobs")

    assert "ResourceNotFoundException" in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "1"


class Awaited(logging.Handler):
    """Catches the first record of an action; the server writes it after the answer has left."""

    def __init__(self, action):
        super().__init__()
        self._action = action
        self._came = threading.Event()
        self._record = None

    def emit(self, record):
        if getattr(record, "action", "") == self._action and not self._came.is_set():
            self._record = record
            self._came.set()

    def record(self):
        assert self._came.wait(30)
        return self._record


def test_logs_have_one_line_a_request_and_no_query(api, caplog):
    awaited = Awaited("http_request")
    logger = logging.getLogger("scanfleet.telemetry")
    logger.addHandler(awaited)
    try:
        with caplog.at_level(logging.INFO, "scanfleet"):
            api.http.get("/jobs?tag=secret")
            record = awaited.record()
    finally:
        logger.removeHandler(awaited)

    assert (record.method, record.path, record.status) == ("GET", "/jobs", 422)
    assert record.emf["values"]["Route"] == "/jobs"
    assert "secret" not in record.getMessage()


def test_answers_carry_the_headers_that_keep_browsers_safe(api):
    headers = api.http.get("/jobs").headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "server" not in headers or "uvicorn" in headers["server"]  # main.py turns uvicorn's own off


# --- Hosts and origins -------------------------------------------------------------------------------------


def _connected(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:80"])
def test_local_host_names_are_answered(api, host):
    assert api.http.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "localhost.", "", "[::1", "a:b:c"])
def test_foreign_host_names_are_refused_on_the_loopback_address(api, host):
    problem(api.http.get("/jobs", headers={"Host": host}), 421)


def test_configured_host_names_are_answered_too(api):
    with served_with(api, allowed_hosts=("scans.example.org",)) as other:
        assert other.http.get("/jobs", headers={"Host": "scans.example.org"}).status_code == 200
        assert other.http.get("/jobs", headers={"Host": "example.org"}).status_code == 421


def test_bound_to_another_address_any_name_is_answered_until_names_are_configured(api):
    with served_with(api, host="10.0.0.7") as other:
        assert other.http.get("/jobs", headers={"Host": "10.0.0.7"}).status_code == 200
    with served_with(api, host="10.0.0.7", allowed_hosts=("api.example.org",)) as other:
        assert other.http.get("/jobs", headers={"Host": "10.0.0.7"}).status_code == 421


@pytest.mark.parametrize(
    "origin", ["https://example.org", "null", "http://127.0.0.1:1", "file://", "http://[", ""]
)
def test_pages_of_other_origins_change_nothing(api, origin):
    problem(api.http.post("/process", json={}, headers={"Origin": origin}), 403)
    assert api.http.get("/jobs", headers={"Origin": origin}).status_code == 200


def test_our_own_pages_may_change_things(api):
    body = {"source": api.folder("own"), "target": f"s3://{DATA}/own-out/"}

    assert api.http.post("/jobs", json=body, headers={"Origin": api.url}).status_code == 202


# --- Health and load ---------------------------------------------------------------------------------------


def test_health_is_ready_when_table_queues_and_buckets_answer(api):
    answer = api.http.get("/status/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"job_table": "gone"}, "job table"),
        ({"artifacts_bucket": "gone-bucket"}, "bucket gone-bucket"),
        ({"uploads_uri": "s3://gone-bucket/uploads/"}, "bucket gone-bucket"),
    ],
)
def test_health_names_what_is_missing(api, change, named):
    with served_with(api, **change) as other:
        assert named in problem(other.http.get("/status/health"), 503)["detail"]


def test_health_names_a_missing_queue(api):
    urls = {Pool.LINUX_CPU: {"normal": "http://127.0.0.1:1/none"}}
    with served_with(api, queues=api.settings.queues | urls) as other:
        assert "queue of linux-cpu" in problem(other.http.get("/status/health"), 503)["detail"]


def test_health_answers_in_bounded_time_when_a_service_hangs(api, monkeypatch):
    released, asked = threading.Event(), []

    def hang():
        asked.append(1)
        released.wait(60)

    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(api.services.store, "check", hang)
    with served_with(api) as other:
        monkeypatch.setattr(other.services.store, "check", hang)
        probes = readiness.Readiness(other.services, other.settings)
        for _ in range(3):
            with pytest.raises(Exception, match="job table did not answer"):
                probes.check()
    released.set()

    assert asked == [1]  # a hanging service does not pile up threads


def test_load_adds_up_slots_and_backlog_per_pool(api):
    api.reset()
    api.report_agent(slots=2, busy=1, job_ids=("j1",))
    api.report_agent(agent_id="agent-2", slots=1, busy=1)
    api.submit("load")

    load = api.http.get("/status/load", headers=OPERATOR).json()

    nothing = {"slots": 0, "busy": 0, "backlog": 0, "in_flight": 0, "agents": 0, "fleet": None}
    assert load["pools"]["linux-cpu"] == nothing | {"slots": 3, "busy": 2, "backlog": 1, "agents": 2}
    assert load["pools"]["windows-gpu"] == nothing
    first = next(one for one in load["instances"] if one["agent_id"] == "agent-1")
    assert (first["pool"], first["slots"], first["busy"], first["job_ids"]) == ("linux-cpu", 2, 1, ["j1"])


def test_the_load_says_what_an_agents_slots_follow(api):
    api.reset()
    api.report_agent(slots_from="calibration of reference on g4dn.xlarge, 2026-09-21: 2")

    (only,) = api.http.get("/status/load").json()["instances"]

    assert only["slots_from"] == "calibration of reference on g4dn.xlarge, 2026-09-21: 2"


def test_what_tells_of_other_callers_jobs_is_not_in_the_load(api):
    api.reset()
    api.report_agent(job_ids=("j1",), is_suspended=True, why_suspended="it crashed on tooth.ply")

    (theirs,) = api.http.get("/status/load").json()["instances"]
    (operators,) = api.http.get("/status/load", headers=OPERATOR).json()["instances"]

    assert (theirs["job_ids"], theirs["is_suspended"], theirs["why_suspended"]) == ([], True, "")
    assert (operators["job_ids"], operators["why_suspended"]) == (["j1"], "it crashed on tooth.ply")


# --- Documentation -----------------------------------------------------------------------------------------

LINK = re.compile(r"""(?:src|href|spec-url)="([^"]+)\"""")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/"])
def test_pages_load_everything_from_this_host_and_run_no_inline_script(api, path):
    answer = api.http.get(path)

    assert answer.status_code == 200
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]* src=)", answer.text)
    links = [link for link in LINK.findall(answer.text) if not link.startswith("#")]
    assert links
    for link in links:
        assert link.startswith("/")
        assert api.http.get(link).status_code == 200, link


@pytest.fixture(scope="module")
def document(api):
    return api.http.get("/openapi.json").json()


def operations(document):
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_openapi_describes_every_call_with_its_answers_and_problems(document):
    found = operations(document)

    assert set(found) == {
        ("POST", "/process"),
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/job/{job_id}"),
        ("POST", "/job/{job_id}/cancel"),
        ("POST", "/job/{job_id}/retry"),
        ("GET", "/job/{job_id}/log"),
        ("GET", "/job/{job_id}/evidence"),
        ("GET", "/job/{job_id}/receipt"),
        ("GET", "/job/{job_id}/events"),
        ("GET", "/metrics"),
        ("GET", "/variance"),
        ("GET", "/events"),
        ("POST", "/events/ticket"),
        ("GET", "/status/health"),
        ("GET", "/processors"),
        ("GET", "/status/load"),
        ("GET", "/presign"),
        ("GET", "/uploads"),
        ("GET", "/dead-letters"),
        ("POST", "/dead-letters/redrive"),
    }
    for call, operation in found.items():
        success = operation["responses"].get("200") or operation["responses"]["202"]
        assert success["content"], call
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (call, status)
    assert set(found["POST", "/process"]["responses"]) >= {"202", "400", "409", "413", "415", "422"}


def test_openapi_bodies_list_every_key_with_an_example(document):
    body = operations(document)["POST", "/process"]["requestBody"]["content"]["application/json"]

    assert {"Source Folder Path", "Use GPU", "High Resolution Merge Type"} <= set(
        body["schema"]["properties"]
    )
    assert set(body["example"]) <= set(body["schema"]["properties"])
    general = operations(document)["POST", "/jobs"]["requestBody"]["content"]["application/json"]
    assert set(general["example"]) == set(general["schema"]["properties"])


def test_every_reference_in_openapi_leads_somewhere(document):
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert names <= set(document["components"]["schemas"])
    assert {"Problem", "FieldProblem", "LogPage", "JobDetail"} <= set(document["components"]["schemas"])


def test_the_written_documentation_has_every_call_and_every_problem(document):
    text = DOCS.read_text(encoding="utf-8")

    for method, path in operations(document):
        assert f"{method} {path}" in text
    for kind in ProblemType:
        assert f"`{kind}`" in text
    for name in document["components"]["schemas"]["JobDetail"]["properties"]:
        assert f"`{name}`" in text, name
