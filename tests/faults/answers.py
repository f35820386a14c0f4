"""Answers that the emulator did not give."""

import json

from tests.faults.http1 import Call, Message


def _answer(status: int, body: bytes, content_type: str, *more: tuple[str, str]) -> Message:
    headers = [("content-type", content_type), ("content-length", str(len(body))), *more]
    return Message(f"HTTP/1.1 {status} Fault", headers, body)


def error_answer(call: Call, status: int, code: str) -> Message:
    """Return a service's error as that service says it."""
    if call.service == "s3":
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
        return _answer(status, b"" if call.action == "HEAD" else body.encode(), "application/xml")
    content = json.dumps({"__type": f"com.amazonaws.{call.service}#{code}", "message": "injected"})
    return _answer(status, content.encode(), "application/x-amz-json-1.0")


def fleet_answer(call: Call) -> Message:
    """Return Auto Scaling's answer to a call that the emulator does not know."""
    body = f"<{call.action}Response><{call.action}Result/></{call.action}Response>"
    return _answer(200, body.encode(), "text/xml")
