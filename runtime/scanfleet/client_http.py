"""Calls to the Scanfleet API: retries where repeating is safe, problem documents as typed errors."""

import random
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from scanfleet import log_context
from scanfleet.client_models import UnexpectedAnswer
from scanfleet.errors import (
    ConfigurationError,
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    ScanfleetError,
    Unavailable,
    shorten,
)

MAX_CALL_ATTEMPTS = 4
FIRST_RETRY_DELAY = timedelta(seconds=0.2)
LONGEST_RETRY_DELAY = timedelta(seconds=5)
TRY_AGAIN_STATUSES = frozenset({429, 500, 502, 503, 504})
CALL_TIMEOUT = httpx.Timeout(30.0, connect=5.0)

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
"""The request never reached the service, so repeating it is safe whatever it asks for."""

Model = TypeVar("Model", bound=BaseModel)


class Clock:
    """Time as waiting code sees it; tests put their own in its place."""

    def now(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after this long."""
        time.sleep(seconds)


def open_client(
    url: str = "", *, auth: httpx.Auth | None = None, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """Return an HTTP client; this machine's own addresses are never reached through a proxy."""
    own: Mapping[str, None] = {} if transport else {"all://127.0.0.1": None, "all://localhost": None}
    client = httpx.Client(base_url=url, auth=auth, timeout=CALL_TIMEOUT, transport=transport, mounts=own)
    client.headers["Accept"] = "application/json" if url else "*/*"
    return client


def checked_url(url: str) -> str:
    """Return the service's address. Raises InvalidRequest unless it is an http(s) URL with a host."""
    allowed = "http://host:port or https://host/path"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequest.of("url", str(error), value=url, allowed=allowed) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest.of("url", "is not the address of a service", value=url, allowed=allowed)
    return url


def job_path(job_id: str, action: str = "") -> str:
    """Return the path of a job's call. Raises NotFound for text that cannot be a job id."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound(f"{shorten(job_id)!r} is not a job id")
    return f"/job/{quote(job_id)}{action}"


class HttpApi:
    """The API's calls over one HTTP client, which threads may share."""

    def __init__(self, client: httpx.Client, clock: Clock, *, trace_id: str | None = None) -> None:
        """trace_id: of every call; by default each call begins a trace, which its retries go on with."""
        self._client = client
        self._trace_id = trace_id
        self._clock = clock

    def get(self, path: str, kind: type[Model], **params: Any) -> Model:
        """Return the answer to a GET; parameters that are None are left out."""
        return self._read(self.call("GET", path, params=params), kind)

    def post(
        self,
        path: str,
        kind: type[Model],
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        may_repeat: bool,
    ) -> Model:
        """Return the answer to a POST. `may_repeat` says whether doing it twice is like doing it once."""
        answer = self.call("POST", path, body=body, headers=headers, may_repeat=may_repeat)
        return self._read(answer, kind)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        may_repeat: bool = True,
        attempts: int = MAX_CALL_ATTEMPTS,
    ) -> httpx.Response:
        """Return the successful answer, retried where that is safe. Raises the typed error otherwise."""
        request = self._client.build_request(
            method,
            path,
            params={name: value for name, value in (params or {}).items() if value is not None},
            json=body,
            headers={"traceparent": log_context.traceparent(self._trace_id or log_context.new_trace_id())}
            | dict(headers or {}),
        )
        for attempt in range(1, attempts + 1):
            is_last = attempt == attempts
            try:
                answer = self._client.send(request)
            except httpx.TransportError as error:
                if is_last or not (may_repeat or isinstance(error, _NOT_SENT)):
                    raise self._no_answer(error) from error
                self._clock.sleep(retry_delay_seconds(attempt))
                continue
            if answer.is_success:
                return answer
            if is_last or not may_repeat or answer.status_code not in TRY_AGAIN_STATUSES:
                raise error_of(answer)
            self._clock.sleep(retry_delay_seconds(attempt, answer))
        raise AssertionError("the last attempt returns or raises")

    def _no_answer(self, error: httpx.TransportError) -> Unavailable:
        what = str(error) or type(error).__name__
        return Unavailable(f"no answer from {self._client.base_url}: {what}")

    def _read(self, answer: httpx.Response, kind: type[Model]) -> Model:
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise UnexpectedAnswer(
                f"{answer.request.url.copy_with(query=None)} answered something that is not "
                f"{kind.__name__}: {shorten(answer.text)}"
            ) from error


def retry_delay_seconds(attempt: int, answer: httpx.Response | None = None) -> float:
    """Return how long to wait after the attempt of this number (from 1): full jitter, or what was asked.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """
    asked = answer.headers.get("retry-after", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), LONGEST_RETRY_DELAY.total_seconds())
    highest = FIRST_RETRY_DELAY.total_seconds() * 2.0 ** (attempt - 1)
    return random.uniform(0.5, 1.0) * min(highest, LONGEST_RETRY_DELAY.total_seconds())


def error_of(answer: httpx.Response) -> ScanfleetError:
    """Return the error that an unsuccessful answer means. Source: RFC 9457 for the document's members."""
    status = answer.status_code
    problem = _problem(answer)
    text = str(problem.get("detail") or problem.get("title") or f"HTTP {status} {answer.reason_phrase}")
    if status in TRY_AGAIN_STATUSES:
        return Unavailable(text)
    if not problem:
        where = answer.request.url.copy_with(query=None)
        return UnexpectedAnswer(f"{where} answered HTTP {status}, not as Scanfleet does")
    if status == 404:
        return NotFound(text)
    if status == 409:
        return Conflict(text)
    if status in (401, 403):
        return ConfigurationError(f"the service refuses this caller: {text}")
    return InvalidRequest(_field_errors(problem) or [FieldError(field="request", message=text)])


def _problem(answer: httpx.Response) -> dict[str, Any]:
    if "json" not in answer.headers.get("content-type", ""):
        return {}
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) and {"title", "detail"} & document.keys() else {}


def _field_errors(problem: Mapping[str, Any]) -> list[FieldError]:
    def text_of(value: object) -> str | None:
        return None if value is None else str(value)

    return [
        FieldError(
            field=str(error.get("field", "request")),
            message=str(error.get("message", "")),
            value=text_of(error.get("value")),
            allowed=text_of(error.get("allowed")),
        )
        for error in problem.get("errors") or []
        if isinstance(error, dict)
    ]
