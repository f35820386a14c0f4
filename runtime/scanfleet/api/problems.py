"""Errors as RFC 9457 problem documents: one shape for every answer that is not a success."""

import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from scanfleet.api.validation import field_errors
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

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
REQUEST_ID_KEY = "scanfleet.request_id"
RETRY_AFTER_SECONDS = 1
MAX_ERRORS_SHOWN = 50
"""Of one problem: a body may hold 100,000 unknown keys, and its answer must stay small."""
MAX_DETAIL_LENGTH = 1000


class ProblemType(StrEnum):
    """What kind of problem; docs/api.md explains each. The names are stable."""

    MALFORMED_BODY = "urn:scanfleet:problem:malformed-body"
    FORBIDDEN = "urn:scanfleet:problem:forbidden"
    NOT_FOUND = "urn:scanfleet:problem:not-found"
    METHOD_NOT_ALLOWED = "urn:scanfleet:problem:method-not-allowed"
    CONFLICT = "urn:scanfleet:problem:conflict"
    BODY_TOO_LARGE = "urn:scanfleet:problem:body-too-large"
    UNSUPPORTED_MEDIA_TYPE = "urn:scanfleet:problem:unsupported-media-type"
    MISDIRECTED = "urn:scanfleet:problem:misdirected-request"
    INVALID_REQUEST = "urn:scanfleet:problem:invalid-request"
    NOT_STREAMED = "urn:scanfleet:problem:not-streamed"
    INTERNAL_ERROR = "urn:scanfleet:problem:internal-error"
    UNAVAILABLE = "urn:scanfleet:problem:unavailable"


BY_STATUS: dict[int, tuple[ProblemType, str]] = {
    400: (ProblemType.MALFORMED_BODY, "The body is not valid JSON"),
    403: (ProblemType.FORBIDDEN, "This caller may not do that"),
    404: (ProblemType.NOT_FOUND, "There is no such thing"),
    405: (ProblemType.METHOD_NOT_ALLOWED, "This path does not take that method"),
    409: (ProblemType.CONFLICT, "The present state does not allow this"),
    413: (ProblemType.BODY_TOO_LARGE, "The body is too large"),
    415: (ProblemType.UNSUPPORTED_MEDIA_TYPE, "The body has another media type than JSON"),
    421: (ProblemType.MISDIRECTED, "This server does not answer for that host"),
    422: (ProblemType.INVALID_REQUEST, "The request cannot be accepted as it is"),
    500: (ProblemType.INTERNAL_ERROR, "The server failed"),
    501: (ProblemType.NOT_STREAMED, "This server does not stream"),
    503: (ProblemType.UNAVAILABLE, "A service that the call needs did not answer"),
}


class FieldProblem(BaseModel):
    """One thing wrong with a request."""

    field: str = Field(description="The field, query parameter or header, as the request spells it.")
    message: str
    value: str | None = Field(default=None, description="What was got, cut to 200 characters.")
    allowed: str | None = Field(default=None, description="What would be accepted.")


class Problem(BaseModel):
    """An RFC 9457 problem document, sent as application/problem+json."""

    type: str = Field(description="A stable URN; docs/api.md explains each.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was called.")
    request_id: str = Field(description="Also in the X-Request-Id header and in the server's log.")
    errors: list[FieldProblem] = Field(default_factory=list)


@dataclass
class HttpProblem(ScanfleetError):
    """An answer that the HTTP layer itself decides: 400, 403, 413, 415, 421, 501."""

    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()

    def __str__(self) -> str:
        return self.detail


def problem_response(
    scope: Scope,
    status: int,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return the problem document for a request."""
    kind, title = BY_STATUS.get(status, ("about:blank", HTTPStatus(status).phrase))
    problem = Problem(
        type=str(kind),
        title=title,
        status=status,
        detail=shorten(detail, MAX_DETAIL_LENGTH),
        instance=scope.get("path", ""),
        request_id=scope.get(REQUEST_ID_KEY, ""),
        errors=[_shown(error) for error in (errors or [])[:MAX_ERRORS_SHOWN]],
    )
    # ASCII escapes: a lone surrogate in a value that a problem repeats has no UTF-8 form.
    body = json.dumps(problem.model_dump()).encode()
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _shown(error: FieldError) -> FieldProblem:
    return FieldProblem(
        field=shorten(error.field), message=shorten(error.message), value=error.value, allowed=error.allowed
    )


async def _on_scanfleet_error(request: Request, error: Exception) -> Response:
    match error:
        case HttpProblem():
            return problem_response(request.scope, error.status, error.detail, errors=list(error.errors))
        case InvalidRequest():
            return problem_response(request.scope, 422, str(error), errors=error.errors)
        case NotFound():
            return problem_response(request.scope, 404, str(error))
        case Conflict():
            return problem_response(request.scope, 409, str(error))
        case Unavailable():
            log.warning(
                "a service did not answer: %s",
                error,
                extra={"action": "service_unavailable"} | _facts(request),
            )
            retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return problem_response(request.scope, 503, str(error), headers=retry)
        case ConfigurationError():
            log.error("misconfigured: %s", error, extra={"action": "misconfigured"} | _facts(request))
            return internal_error(request.scope)
        case _:
            raise error


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error.errors(), drop_first=True)
    return problem_response(request.scope, 422, str(InvalidRequest(errors)), errors=errors)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} does not take {request.method}",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = dict(error.headers) if error.headers else {}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request)) or headers.get("Allow", "")
    return problem_response(request.scope, error.status_code, detail, headers=headers or None)


def _methods_of(request: Request) -> list[str]:
    """Return every method that the path takes: the router itself names those of one handler only.

    HEAD is answered as GET.
    """
    path = request.url.path
    routes = [route for route in request.app.state.routes if route.path_regex.match(path)]
    methods = {method for route in routes for method in route.methods}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def internal_error(scope: Scope) -> Response:
    """Return the 500 that tells nothing but the request id; the log has the rest."""
    return problem_response(scope, 500, "The server failed; its log has the details under this request id.")


def _facts(request: Request) -> dict[str, str]:
    return {"path": request.url.path, "request_id": request.scope.get(REQUEST_ID_KEY, "")}


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""
    app.add_exception_handler(ScanfleetError, _on_scanfleet_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's `responses` for these problem statuses."""
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": BY_STATUS[status][1], "content": {MEDIA_TYPE: {"schema": reference}}}
        for status in statuses
    }
