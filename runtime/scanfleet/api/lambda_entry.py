"""The API on Lambda: the app behind a load balancer and an HTTP API.

Lambda calls `handler` with the door's event. Clients and the app are built once for each process and kept;
nothing of a request is.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.types import ASGI, LambdaContext
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from scanfleet.api.app import create_app
from scanfleet.api.problems import MEDIA_TYPE, REQUEST_ID_KEY, problem_response
from scanfleet.api.process_logs import begin_logging
from scanfleet.api.services import services_over
from scanfleet.clients import build_clients
from scanfleet.contract import MAX_BODY_BYTES
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.processors.registry import known_processors
from scanfleet.settings import ApiSettings, load

log = logging.getLogger(__name__)

COMPRESSED_FROM_BYTES = 1024
MAX_ANSWER_BYTES = MAX_BODY_BYTES
"""Of the whole JSON that a function answers a load balancer with. Source: ELB guide, "Lambda functions as
targets"."""
REQUEST_THREADS = 10
"""One process serves one request at a time; readiness asks its services side by side."""
_HOST = re.compile(r"[^:]*(:\d{1,5})?", re.ASCII)
"""What the adapter can take apart. Both doors have names: neither is called by an IPv6 address."""

Event = dict[str, Any]
Answer = dict[str, Any]


def handler(event: Event, context: LambdaContext) -> Answer:
    """Return the app's answer in the shape that the event's door wants."""
    doors, levels = _process()
    levels.look_if_due()
    return doors(event, context)


@cache
def _process() -> tuple["Doors", LevelKeeper]:
    settings = load(ApiSettings)
    session = boto3.Session()
    levels = begin_logging(settings, session)
    logging.getLogger("mangum").setLevel(logging.WARNING)  # the app logs each request itself
    services = services_over(
        build_clients(max_connections=REQUEST_THREADS, session=session),
        settings,
        processors=known_processors(settings),
        clock=time.time,
    )
    return Doors(create_app(services, settings)), levels


class Doors:
    """The app as a function that takes events."""

    def __init__(self, app: ASGIApp) -> None:
        self._answer = _adapter(GZipMiddleware(app, minimum_size=COMPRESSED_FROM_BYTES))

    def __call__(self, event: Event, context: LambdaContext) -> Answer:
        """Return the answer. Raises RuntimeError for an event of something else than the two doors."""
        if not _HOST.fullmatch(_host(event)):
            return _problem(
                _with_host(event, "invalid"), context, 421, "the Host header is no host name and port"
            )
        answer = self._answer(event, context)
        if not _is_load_balancers(event):
            return answer
        if _is_too_large(answer):
            facts = {"path": event["path"], "request_id": context.aws_request_id}
            log.error("answer is too large", extra={"action": "answer_too_large"} | facts)
            advice = "the answer is too large for the load balancer; ask with Accept-Encoding: gzip"
            return _problem(event, context, 500, advice)
        return _described(answer)


def _adapter(app: ASGI) -> Mangum:
    return Mangum(
        app, lifespan="off", text_mime_types=[*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE, "image/svg+xml"]
    )


def _problem(event: Event, context: LambdaContext, status: int, detail: str) -> Answer:
    """Return a problem in the door's shape, without asking the app."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        scope[REQUEST_ID_KEY] = context.aws_request_id
        await problem_response(scope, status, detail)(scope, receive, send)

    answer: Answer = _adapter(refuse)(event, context)
    return _described(answer) if _is_load_balancers(event) else answer


def _described(answer: Answer) -> Answer:
    """Add what a load balancer's answer says besides."""
    status = answer["statusCode"]
    return {**answer, "statusDescription": f"{status} {HTTPStatus(status).phrase}"}


def _is_load_balancers(event: Event) -> bool:
    return "elb" in event.get("requestContext", {})


def _is_too_large(answer: Mapping[str, Any]) -> bool:
    # JSON makes at most six bytes of a character: most answers need not be written out twice.
    return len(answer["body"]) * 6 > MAX_ANSWER_BYTES and len(json.dumps(answer)) > MAX_ANSWER_BYTES


# --- The Host header ---------------------------------------------------------------------------------------


def _host(event: Event) -> str:
    """Return the Host header that the adapter takes: the last one."""
    single = event.get("headers") or {}
    several = event.get("multiValueHeaders") or {}
    pairs = (*single.items(), *((name, value) for name, values in several.items() for value in values))
    return next((str(value) for name, value in reversed(pairs) if name.lower() == "host"), "")


def _with_host(event: Event, host: str) -> Event:
    """Return the event with another host."""
    changed = dict(event)
    for headers, value in (("headers", host), ("multiValueHeaders", [host])):
        if headers in event:
            others = {n: v for n, v in (event[headers] or {}).items() if n.lower() != "host"}
            changed[headers] = others | {"host": value}
    return changed
