"""The two ways on which a server tells of a job's changes: each yields the job, until the connection ends."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import httpx
from pydantic import ValidationError

from scanfleet.client_http import job_path
from scanfleet.client_models import JobInfo

SILENCE_SECONDS = 60.0
"""A server says something every 15 s; one that is silent for so long is gone."""
CONNECT_SECONDS = 5.0
PING_SECONDS = 240.0
"""API Gateway ends a WebSocket that was idle for ten minutes. Source: API Gateway
developer guide, "Quotas for WebSocket APIs"."""
MAX_MESSAGE_BYTES = 1024 * 1024


class Stream(Protocol):
    """An open connection that tells one job's changes, the present state first."""

    def changes(self) -> Iterator[JobInfo]:
        """Yield the job at each change. Ends, or raises OSError or httpx.HTTPError, with the connection."""
        ...

    def close(self) -> None:
        """End the connection, from another thread too."""
        ...


class ServerSentEvents:
    """`GET /job/{id}/events` by httpx."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    def changes(self) -> Iterator[JobInfo]:
        """Yield the job at each change. See Stream."""
        kind = ""
        for line in self._answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "job" and (job := _job(value)) is not None:
                yield job
            elif name == "data" and kind == "end":
                return

    def close(self) -> None:
        """End the connection: a thread that waits for its next line then waits no more."""
        stream: Any = self._answer.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def server_sent_events(client: httpx.Client, job_id: str) -> Iterator[ServerSentEvents]:
    """Open the job's server-sent events. Raises httpx.HTTPError, also for an answer that is none."""
    request = client.build_request(
        "GET",
        job_path(job_id, "/events"),
        headers={"Accept": "text/event-stream"},
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
    )
    answer = client.send(request, stream=True)
    try:
        if answer.status_code != httpx.codes.OK:
            raise httpx.HTTPStatusError("no events", request=request, response=answer)
        yield ServerSentEvents(answer)
    finally:
        answer.close()


class WebSocketEvents:
    """The same over a WebSocket."""

    def __init__(self, connection: Any, job_id: str) -> None:
        self._connection = connection
        self._job_id = job_id
        self._is_closed = False

    def changes(self) -> Iterator[JobInfo]:
        """Yield the job at each change. See Stream."""
        self._connection.send(json.dumps({"subscribe": {"job": self._job_id}}))
        while not self._is_closed:
            try:
                text = self._connection.recv(timeout=PING_SECONDS)
            except TimeoutError:
                self._connection.send(json.dumps({"ping": True}))
                continue
            message = json.loads(text)
            if message.get("type") == "error":
                raise ConnectionError(str(message.get("detail")))
            if message.get("type") == "job" and (job := _job(json.dumps(message["job"]))) is not None:
                yield job

    def close(self) -> None:
        """End the connection; whoever waits for its next message then waits no more."""
        self._is_closed = True
        with suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)


@contextmanager
def websocket_events(url: str, job_id: str) -> Iterator[WebSocketEvents]:
    """Open a WebSocket that tells the job.

    Raises ImportError without the package `websockets`, OSError when it does not open or breaks off.
    """
    from websockets.exceptions import WebSocketException  # noqa: PLC0415 - not everybody has it
    from websockets.sync.client import connect  # noqa: PLC0415

    is_local = httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    try:
        with connect(
            url,
            open_timeout=CONNECT_SECONDS,
            close_timeout=1,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None if is_local else True,
        ) as connection:
            yield WebSocketEvents(connection, job_id)
    except WebSocketException as error:
        raise ConnectionError(f"the WebSocket ended: {error}") from error


def _job(text: str) -> JobInfo | None:
    """Return the job that a message tells; None for one that another version of the service wrote."""
    try:
        return JobInfo.model_validate_json(text)
    except ValidationError:
        return None
