"""Reading a JSON body strictly: bounded, UTF-8, every key once, only numbers that JSON has."""

import json
import math
from typing import Annotated, Any

from fastapi import Depends, Request

from scanfleet.api.problems import HttpProblem
from scanfleet.api.validation import shown
from scanfleet.contract import MAX_BODY_BYTES
from scanfleet.errors import InvalidRequest


async def _json_object(request: Request) -> dict[str, Any]:
    _require_json(request)
    parsed = parse_json(await _read_bounded(request))
    if not isinstance(parsed, dict):
        raise InvalidRequest.of("body", "must be a JSON object", value=shown(parsed), allowed="{...}")
    return parsed


JsonObject = Annotated[dict[str, Any], Depends(_json_object)]


def _require_json(request: Request) -> None:
    """Raise the 415 unless the body is declared as JSON in UTF-8.

    It also keeps other sites' forms out: a browser sends this type only after asking (CORS preflight).
    """
    declared = request.headers.get("content-type", "")
    media_type, _, parameters = declared.partition(";")
    media_type = media_type.strip().lower()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    charset = parameters.partition("charset=")[2].strip().strip('"').lower()
    if not is_json or charset not in {"", "utf-8", "utf8"}:
        got = declared or "none"
        raise HttpProblem(415, f"send JSON in UTF-8 with Content-Type: application/json (got {got[:200]!r})")


async def _read_bounded(request: Request) -> bytes:
    """Return the body; stop reading as soon as it is too large, whatever its length header claims."""
    too_large = HttpProblem(413, f"the body must not exceed {MAX_BODY_BYTES} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Return the parsed body. Raises the 400 that says what is not JSON about it."""
    try:
        # PowerShell and some Windows libraries put a byte order mark first; RFC 8259 lets us ignore it.
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HttpProblem(400, f"the body is not UTF-8: byte {error.start} is invalid") from error
    if not text.strip():
        raise HttpProblem(400, "the body is empty")
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HttpProblem(400, "the body has an unpaired surrogate escape, which is no character") from error
    except RecursionError as error:
        raise HttpProblem(400, "the body is nested too deeply") from error
    except ValueError as error:
        raise HttpProblem(400, f"the body is not valid JSON: {error}") from error
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object. Which of two equal keys counts differs between parsers, so neither does here."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(repeated)} comes twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
