"""The Lambda function behind its two doors: real events in, the door's exact shape out, over moto."""

import asyncio
import base64
import gzip
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cdk import lambda_layer
from cdk.lambda_package import code_zip
from scanfleet.api import lambda_entry
from scanfleet.api.lambda_entry import MAX_ANSWER_BYTES, Doors
from scanfleet.api.page_files import BUILT
from tests.support.api import SESSION, clients_of, emulated_aws, make_resources

EVENTS = Path(os.environ.get("SCANFLEET_TEST_EVENTS", Path(__file__).parents[3] / "shared/data/events"))
CONTEXT = SimpleNamespace(aws_request_id="request-1")
USER = "arn:aws:iam::1234567890:user/Admin"


@pytest.fixture(scope="module", autouse=True)
def _event_loop() -> Iterator[None]:
    """The loop that Mangum runs the app in: Lambda's process ends with it, this one has to close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(scope="module")
def cloud() -> Iterator[dict[str, str]]:
    """The environment of a function over moto's table, queues and buckets."""
    with emulated_aws() as endpoint, clients_of(endpoint) as clients:
        facts = make_resources(clients)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": SESSION["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": SESSION["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": SESSION["region_name"],
            "SCANFLEET_JOB_TABLE": facts["job_table"],
            "SCANFLEET_ARTIFACTS_BUCKET": facts["artifacts_bucket"],
            "SCANFLEET_QUEUES": json.dumps(facts["queues"]),
            "SCANFLEET_DEAD_LETTERS": json.dumps(facts["dead_letters"]),
            "SCANFLEET_ALLOWED_PREFIXES": facts["uploads_uri"],
            "SCANFLEET_UPLOADS_URI": facts["uploads_uri"],
            "SCANFLEET_DEFAULT_PROCESSOR": "reference",
            "SCANFLEET_AUTH_MODE": "iam",
        }


@pytest.fixture
def function(cloud, monkeypatch, quiet_logging):
    """A cold function: what Lambda calls."""
    for name, value in cloud.items():
        monkeypatch.setenv(name, value)
    lambda_entry._process.cache_clear()
    yield lambda event: lambda_entry.handler(event, CONTEXT)
    lambda_entry._process.cache_clear()


@pytest.fixture
def quiet_logging():
    """Give the root logger back what the function replaces."""
    import logging

    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = kept, level


def balanced(method: str, path: str, **facts: Any) -> dict[str, Any]:
    """Return the event of a target group with multi-value headers, as ours is."""
    headers = {"host": ["internal-scans.elb.amazonaws.com"], **facts.pop("headers", {})}
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:::targetgroup/t/1"}},
        "httpMethod": method,
        "path": path,
        "multiValueQueryStringParameters": facts.pop("query", {}),
        "multiValueHeaders": headers,
        "body": "",
        "isBase64Encoded": False,
        **facts,
    }


def signed(method: str, path: str, **facts: Any) -> dict[str, Any]:
    """Return the event of the HTTP API for a caller with an AWS signature."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": facts.pop("query", ""),
        "headers": {"host": "id.execute-api.eu-west-1.amazonaws.com", **facts.pop("headers", {})},
        "requestContext": {
            "http": {"method": method, "path": path, "sourceIp": "192.0.2.7", "protocol": "HTTP/1.1"},
            "authorizer": {"iam": {"userArn": USER}},
            "stage": "$default",
        },
        "isBase64Encoded": False,
        **facts,
    }


DOORS = [balanced, signed]


def header(answer: Mapping[str, Any], name: str) -> str | None:
    if "multiValueHeaders" in answer:
        return next(iter(answer["multiValueHeaders"].get(name, [])), None)
    return answer["headers"].get(name)


def body(answer: Mapping[str, Any]) -> bytes:
    return base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"].encode()


def require_shape_of_load_balancer(event: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    kind = "multiValueHeaders" if "multiValueHeaders" in event else "headers"
    assert set(answer) == {"statusCode", "statusDescription", "isBase64Encoded", "body", kind}
    assert answer["statusDescription"].startswith(f"{answer['statusCode']} ")
    values = answer[kind].values()
    assert all(isinstance(value, list if kind == "multiValueHeaders" else str) for value in values)
    assert len(json.dumps(answer)) <= MAX_ANSWER_BYTES


def require_shape_of_http_api(answer: Mapping[str, Any]) -> None:
    assert {"statusCode", "headers", "body", "isBase64Encoded"} <= set(answer)
    assert set(answer) <= {"statusCode", "headers", "body", "isBase64Encoded", "cookies"}
    assert all(isinstance(value, str) for value in answer["headers"].values())


# --- Events of others --------------------------------------------------------------------------------------

PATTERNS = (
    "powertools/alb*.json",
    "powertools/apiGatewayProxyV2*.json",
    "lambda-go/alb-*-request-*.json",
    "lambda-go/apigw-v2-request-*.json",
)
SAMPLES = sorted(path for pattern in PATTERNS for path in EVENTS.glob(pattern))


@pytest.mark.skipif(not SAMPLES, reason=f"no sample events in {EVENTS} (SCANFLEET_TEST_EVENTS names them)")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_of_the_doors_events_gets_an_answer_of_its_shape(function, path):
    event = json.loads(path.read_text())

    answer = function(event)

    if "elb" in event["requestContext"]:
        require_shape_of_load_balancer(event, answer)
    else:
        require_shape_of_http_api(answer)
    # "/" is the console; the samples' own paths do not exist here
    expected = 200 if event.get("path", event.get("rawPath")) == "/" else 404
    assert answer["statusCode"] == expected, answer["body"]
    if expected == 404:
        assert header(answer, "content-type") == "application/problem+json"


@pytest.mark.parametrize("event_of", DOORS)
def test_the_consoles_scripts_pass_both_doors_as_they_are_stored(function, event_of):
    page = body(function(event_of("GET", "/"))).decode()
    (path,) = re.findall(r'src="(/pages/main-[^"]+)"', page)
    takes_gzip = {"accept-encoding": ["gzip"] if event_of is balanced else "gzip"}

    answer = function(event_of("GET", path, headers=takes_gzip))

    assert answer["statusCode"] == 200
    assert answer["isBase64Encoded"]
    assert header(answer, "content-encoding") == "gzip"
    assert header(answer, "content-type") == "text/javascript; charset=utf-8"
    assert len(gzip.decompress(body(answer))) > len(body(answer))  # packed once, not twice
    assert body(answer) == (BUILT / f"{path.rpartition('/')[2]}.gz").read_bytes()


@pytest.mark.skipif(not SAMPLES, reason=f"no sample events in {EVENTS} (SCANFLEET_TEST_EVENTS names them)")
@pytest.mark.parametrize("name", ["apigw-v2-request-jwt-authorizer", "apigw-v2-request-no-authorizer"])
def test_a_sample_without_a_signature_reads_no_jobs(function, name):
    event = json.loads((EVENTS / "lambda-go" / f"{name}.json").read_text())
    event["requestContext"]["http"] |= {"method": "GET", "path": "/jobs"}
    event["rawQueryString"] = ""

    answer = function(event)

    assert answer["statusCode"] == 403
    assert json.loads(answer["body"])["type"] == "urn:scanfleet:problem:forbidden"


def test_an_event_of_something_else_fails_loudly(function):
    with pytest.raises(RuntimeError):
        function({"Records": []})


# --- Both doors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_a_job_submitted_through_a_door_belongs_to_its_caller(function, door):
    folder = json.loads(function(door("GET", "/uploads"))["body"])["uri"]
    text = json.dumps(
        {"source": f"{folder}no-scans/", "target": f"{folder}result/", "processor": "reference"}
    )
    encoded = {"body": base64.b64encode(text.encode()).decode(), "isBase64Encoded": True}
    kind = {"content-type": "application/json"}
    headers = {n: [v] for n, v in kind.items()} if door is balanced else kind

    plain = function(door("POST", "/jobs", headers=headers, body=text))
    as_base64 = function(door("POST", "/jobs", headers=headers, **encoded))

    # There are no scans in the folder: both were understood, and refused for the same reason.
    assert plain["statusCode"] == as_base64["statusCode"] == 422
    [problem] = json.loads(plain["body"])["errors"]
    assert problem["field"] == "source"
    owner = "network" if door is balanced else "arn%3Aaws%3Aiam%3A%3A1234567890%3Auser%2FAdmin"
    assert folder == f"s3://scan-data/uploads/{owner}/"


@pytest.mark.parametrize("door", DOORS)
def test_problems_look_the_same_through_every_door(function, door):
    answer = function(door("GET", "/job/01ARZ3NDEKTSV4RRFFQ69G5FAV"))

    problem = json.loads(answer["body"])
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (404, False)
    assert header(answer, "content-type") == "application/problem+json"
    assert problem["request_id"] == header(answer, "x-request-id")


@pytest.mark.parametrize("door", DOORS)
def test_head_is_get_without_the_body(function, door):
    get, head = function(door("GET", "/status/health")), function(door("HEAD", "/status/health"))

    assert (get["statusCode"], head["statusCode"]) == (200, 200)
    assert (json.loads(get["body"]), head["body"]) == ({"status": "ready"}, "")
    assert header(head, "content-length") == header(get, "content-length")


@pytest.mark.parametrize("door", DOORS)
def test_other_origins_are_told_nothing(function, door):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    headers = {n: [v] for n, v in asked.items()} if door is balanced else asked

    answer = function(door("OPTIONS", "/jobs", headers=headers))

    assert answer["statusCode"] == 405
    names = answer.get("multiValueHeaders") or answer["headers"]
    assert not any(name.startswith("access-control-") for name in names)
    assert header(answer, "allow")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", ["/jobs/", "//jobs", "/job/%2e%2e/jobs", "/nope/ä", "/job/a%2Fb"])
def test_odd_paths_are_not_found(function, door, path):
    assert function(door("GET", path))["statusCode"] == 404


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (balanced("GET", "/jobs", query={"status": ["qu%65ued", "bro%6ben"]}), "broken"),
        (signed("GET", "/jobs", query="status=qu%65ued&status=bro%6ben"), "broken"),
        (balanced("GET", "/jobs", query={"status": ["a%2Bb%26c"]}), "a+b&c"),
        (signed("GET", "/jobs", query="status=a%2Bb%26c"), "a+b&c"),
    ],
)
def test_repeated_and_encoded_query_values_arrive_whole(function, event, shown):
    answer = function(event)

    [problem] = json.loads(answer["body"])["errors"]
    assert (answer["statusCode"], json.loads(problem["value"])) == (422, shown)


@pytest.mark.parametrize("host", ["a:b:c", "[::1]:80", "host:port", "host:99999999"])
@pytest.mark.parametrize("door", DOORS)
def test_a_host_that_is_none_is_refused(function, door, host):
    headers = {"Host" if door is signed else "host": host if door is signed else [host]}

    answer = function(door("GET", "/jobs", headers=headers))

    assert answer["statusCode"] == 421
    assert json.loads(answer["body"])["request_id"] == "request-1"


def test_a_failing_service_is_a_problem_not_a_failed_function(function, monkeypatch):
    monkeypatch.setenv("SCANFLEET_JOB_TABLE", "no-such-table")

    answer = function(balanced("GET", "/status/health"))

    assert answer["statusCode"] == 503
    assert "no-such-table" not in header(answer, "content-type")


# --- Sizes -------------------------------------------------------------------------------------------------


def test_the_largest_page_fits_through_the_load_balancer_compressed(function):
    page = "/docs/static/swagger-ui-bundle.js"

    answer = function(balanced("GET", page, headers={"accept-encoding": ["gzip, br"]}))

    require_shape_of_load_balancer(balanced("GET", page), answer)
    assert (answer["statusCode"], header(answer, "content-encoding")) == (200, "gzip")
    assert header(answer, "vary") == "Accept-Encoding"
    assert len(gzip.decompress(body(answer))) > MAX_ANSWER_BYTES


def test_what_does_not_fit_says_how_it_would(function):
    answer = function(balanced("GET", "/docs/static/swagger-ui-bundle.js"))

    require_shape_of_load_balancer(balanced("GET", "/"), answer)
    assert answer["statusCode"] == 500
    assert "Accept-Encoding: gzip" in json.loads(answer["body"])["detail"]


def test_the_http_api_takes_larger_answers(function):
    answer = function(signed("GET", "/docs/static/swagger-ui-bundle.js"))

    assert answer["statusCode"] == 200
    assert len(body(answer)) > MAX_ANSWER_BYTES


# --- The process -------------------------------------------------------------------------------------------


def test_nothing_of_a_request_stays_for_the_next(function):
    first, second = (function(signed("GET", "/uploads")) for _ in range(2))
    anybody = function(balanced("GET", "/uploads"))

    assert first["body"] == second["body"] != anybody["body"]
    assert header(first, "x-request-id") != header(second, "x-request-id")


def test_the_app_is_built_once_for_a_process(function):
    function(signed("GET", "/uploads"))
    built = lambda_entry._process()
    function(balanced("GET", "/uploads"))

    assert isinstance(built[0], Doors)
    assert lambda_entry._process() is built


# --- The package -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["scanfleet.api.lambda_entry", "scanfleet.controller.entry"])
def test_the_package_alone_is_enough(tmp_path, cloud, entry):
    """In a process without this repository: only the two zips, as Lambda lays them out."""
    if not lambda_layer.HOST_LAYER.is_file():
        pytest.skip("build/lambda/layer-host.zip is missing: run make setup")
    zipfile.ZipFile(code_zip(tmp_path / "zips")).extractall(tmp_path / "task")
    zipfile.ZipFile(lambda_layer.HOST_LAYER).extractall(tmp_path / "opt")
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'task')!r}, {str(tmp_path / 'opt/python')!r}];"
        f"import {entry} as entry;"
        "from scanfleet.clients import build_clients; build_clients();"
        f"import boto3; [boto3.client(s) for s in {lambda_layer.SERVICES}];"
        "from scanfleet.api.app import version; print(version('scanfleet'))"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program],
        env=cloud,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.1.0"


def test_functions_get_the_versions_that_are_tested():
    def pins(name: str) -> dict[str, str]:
        text = (lambda_layer.ROOT / name).read_text()
        return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE))

    tested = pins("requirements.txt")
    assert {name: tested.get(name) for name in pins("requirements-lambda.txt")} == pins(
        "requirements-lambda.txt"
    )


def test_every_service_that_is_called_is_in_the_layer():
    sources = (lambda_layer.ROOT / "runtime" / "scanfleet").rglob("*.py")
    called = {
        service
        for source in sources
        if "local" not in source.parts
        for service in re.findall(r'\.client\(\s*"([a-z0-9]+)"', source.read_text("utf-8"))
    }

    # Streams are read by servers that live on: functions are called by their stream.
    assert called - {"dynamodbstreams"} <= set(lambda_layer.SERVICES)
    assert called >= {"apigatewaymanagementapi", "dynamodb", "logs"}


def test_the_same_source_makes_the_same_bytes(tmp_path):
    one, other = code_zip(tmp_path / "one"), code_zip(tmp_path / "other")

    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_code_and_packages_stay_far_below_what_lambda_takes():
    if not lambda_layer.LAYER.is_file():
        pytest.skip("build/lambda/layer.zip is missing: run make setup")
    code, layer = code_zip(), lambda_layer.LAYER

    with zipfile.ZipFile(code) as one, zipfile.ZipFile(layer) as other:
        unpacked = sum(entry.file_size for zipped in (one, other) for entry in zipped.infolist())
        names = {*one.namelist(), *other.namelist()}
    assert code.stat().st_size + layer.stat().st_size < 50 * 2**20
    assert unpacked < 250 * 2**20
    assert not any(part in name for name in names for part in ("scanfleet/agent/", "/local/", "registration"))
    assert any("aarch64" in name for name in names), "compiled packages are for arm64"
    assert not any("x86_64" in name for name in names)
