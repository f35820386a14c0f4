"""Who calls: signatures are checked by AWS's published algorithm, worked out here a second time."""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote_plus

import httpx
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from typer.testing import CliRunner

from scanfleet.cli import app
from scanfleet.client import Scanfleet
from scanfleet.client_auth import BearerToken, auth_for, region_of
from scanfleet.client_signing import SigV4
from scanfleet.errors import ConfigurationError
from tests.support.standin import Standin, running_standin

URL = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a token")


@pytest.fixture
def service() -> Iterator[Standin]:
    with running_standin() as service:
        yield service


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", str(KEY.token))


def signature(request: httpx.Request, names: list[str]) -> str:
    """What AWS works out for a request. Source: IAM user guide, "Create a signed AWS API request"."""
    pairs = sorted(part.partition("=")[::2] for part in request.url.query.decode().split("&") if part)
    # AWS decodes a query as forms are encoded, and encodes it its own way.
    query = "&".join("=".join(quote(unquote_plus(text), safe="-_.~") for text in pair) for pair in pairs)
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in names)
    body = hashlib.sha256(request.content).hexdigest()
    canonical = "\n".join([request.method, request.url.path, query, headers, ";".join(names), body])
    time = request.headers["x-amz-date"]
    scope = f"{time[:8]}/eu-central-1/execute-api/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{KEY.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/jobs", {"params": {"tag": "case=7 b+c", "limit": 5, "owner": "arn:aws:iam::1:role/a*~"}}),
        ("POST", "/jobs", {"json": {"source": "s3://scans/Zähne/", "target": "s3://scans/out/"}}),
        ("POST", "/job/01JD5Z9W4T8Q2V6K3M7N1P5R9S/cancel", {}),
    ],
)
def test_calls_to_an_http_api_carry_the_signature_that_aws_works_out(
    method: str, path: str, more: dict[str, Any]
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    with httpx.Client(base_url=URL, auth=auth_for(URL, token=None), transport=transport) as client:
        client.request(method, path, **more)

    (request,) = seen
    words = dict(word.split("=", 1) for word in request.headers["authorization"].split(" ", 1)[1].split(", "))
    names = words["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    assert words["Credential"].startswith(f"{KEY.access_key}/")
    assert words["Signature"] == signature(request, names)


def test_credentials_that_cannot_be_renewed_are_told() -> None:
    class Expired:
        def get_frozen_credentials(self) -> Any:
            raise BotoCoreError

    with (
        Scanfleet(URL, auth=SigV4(Expired(), "eu-central-1")) as fleet,
        pytest.raises(ConfigurationError, match="AWS credentials"),
    ):
        fleet.health()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "https://scans.example.com",
        "http://a1b2.execute-api.eu-central-1.amazonaws.com",
        "https://a1b2.execute-api.eu-central-1.amazonaws.com.example.com",
    ],
)
def test_other_services_get_no_signature(url: str) -> None:
    assert region_of(url) is None
    assert auth_for(url, token=None) is None


def test_a_token_takes_the_place_of_a_signature() -> None:
    assert isinstance(auth_for(URL, token="abc"), BearerToken)


def test_the_command_line_sends_the_token_of_its_environment(
    service: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANFLEET_URL", service.url)
    monkeypatch.setenv("SCANFLEET_TOKEN", "abc.def")
    seen: list[str | None] = []
    send = httpx.Client.send

    def watched(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        answer = send(client, request, **options)
        seen.append(answer.request.headers.get("authorization"))
        return answer

    monkeypatch.setattr(httpx.Client, "send", watched)

    assert CliRunner().invoke(app, ["health"]).exit_code == 0
    assert seen == ["Bearer abc.def"]
