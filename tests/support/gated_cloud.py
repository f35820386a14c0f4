"""moto's S3, SQS and DynamoDB in this process, with a gate before each caller: it can be stopped at any call.

A caller is told by its access key. Stopping happens where a machine's packets go in and out, so it covers
every client that an agent has, and its threads: once stopped, nothing of that caller gets through.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
HANG_GUARD_SECONDS = 60.0


class When(StrEnum):
    """On which side of a call its caller is stopped."""

    BEFORE = "before"
    """The request has not been sent."""
    AFTER = "after"
    """It has been carried out, and the answer has not come."""


@dataclass(frozen=True)
class Instant:
    """A point between two calls of one caller; the first call is 1."""

    call: int
    when: When


class Gate:
    """One caller's way to the cloud."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._at: Instant | None = None
        self._loses: int | None = None
        self._is_dead = False
        self._stopped = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()

    def stop_at(self, instant: Instant) -> None:
        """Stop the caller at this instant; calls are counted from now."""
        self.__init__()  # type: ignore[misc]
        self._at = instant

    def lose_answer_to(self, call: int) -> None:
        """Carry this call out and tell its caller that the service is busy."""
        self.__init__()  # type: ignore[misc]
        self._loses = call

    def await_stopped(self, thread: threading.Thread) -> bool:
        """Return whether the caller was stopped; False when its thread ended before it came to that."""
        give_up_at = time.monotonic() + HANG_GUARD_SECONDS
        while not self._stopped.wait(0.005):
            if not thread.is_alive():
                return self._stopped.is_set()
            assert time.monotonic() < give_up_at, self.calls[-3:]
        return True

    def go_on(self) -> None:
        """Let the stopped caller go on, as if nothing had been."""
        self._open.set()

    def kill(self) -> None:
        """Let nothing of the caller get through ever again."""
        self._is_dead = True
        self._open.set()

    @contextmanager
    def passing(self, name: str) -> Iterator[str]:
        """Pass a call; yields what becomes of it: "", "dead" or "lost"."""
        with self._lock:
            self.calls.append(name)
            number = len(self.calls)
        self._stop_if(Instant(number, When.BEFORE))
        self._open.wait()
        yield "dead" if self._is_dead else "lost" if number == self._loses else ""
        self._stop_if(Instant(number, When.AFTER))
        self._open.wait()

    def _stop_if(self, here: Instant) -> None:
        if here == self._at:
            self._open.clear()
            self._stopped.set()


class GatedCloud:
    """The cloud, and its gates by access key. Callers without a gate pass."""

    def __init__(self) -> None:
        self.gates: dict[str, Gate] = {}
        self._app: Wsgi = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint_url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "GatedCloud":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        gate = self.gates.get(_access_key(environ))
        if gate is None:
            return self._app(environ, start_response)
        with gate.passing(_name(environ)) as fate:
            if fate == "dead":
                start_response("403 Forbidden", [("Content-Length", "0")])
                return [b""]
            answer = _Answer()
            body = b"".join(self._app(environ, answer))
        if fate == "lost":
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        start_response(answer.status, answer.headers)
        return [body]


class _Answer:
    status = ""
    headers: list[tuple[str, str]]

    def __call__(self, status: str, headers: list[tuple[str, str]], *_: object) -> None:
        self.status, self.headers = status, headers


def _access_key(environ: dict[str, Any]) -> str:
    _, _, credential = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")
    return credential.partition("/")[0]


def _name(environ: dict[str, Any]) -> str:
    operation = environ.get("HTTP_X_AMZ_TARGET")
    if operation:
        return str(operation).rpartition(".")[2]
    query = environ.get("QUERY_STRING")
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}" + (f"?{query}" if query else "")
