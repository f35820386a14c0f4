"""Around every request: an id, who it was meant for, safe headers, one log line, no leaked traceback."""

import logging
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from scanfleet import log_context
from scanfleet.api.problems import REQUEST_ID_KEY, internal_error, problem_response
from scanfleet.contract import Auth, Route
from scanfleet.settings import ApiSettings
from scanfleet.telemetry import record_request

log = logging.getLogger(__name__)

POLICY_VIOLATION = 1008
"""Close code of a WebSocket that is not wanted. Source: RFC 6455, 7.4.1."""
TRACE_HEADER = "X-Trace-Id"
"""The request's trace: the caller's own if it sent a valid `traceparent`, else a fresh one."""
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
IS_HEAD_KEY = "scanfleet.is_head"
"""In the scope of a request that wants no body: what never ends must not begin."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": 80, "https": 443}

DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def answered_hosts(settings: ApiSettings) -> frozenset[str] | None:
    """Return the Host names that the server answers for; None means any.

    Bound to the loopback address, foreign names are refused: a web page whose name resolves to 127.0.0.1
    (DNS rebinding) would otherwise act as the local operator. Behind a door that knows its callers there is
    no such operator, and the address is the door's.
    """
    configured = frozenset(name.lower() for name in settings.allowed_hosts)
    if settings.auth_mode is not Auth.LOCAL:
        return configured or None
    if settings.host.strip("[]").lower() in LOCAL_HOSTS or settings.host.startswith("127."):
        return LOCAL_HOSTS | configured
    return configured or None


class Guard:
    """ASGI middleware, outermost of the app's own."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or one WebSocket; the server's own life signs pass."""
        match scope["type"]:
            case "http":
                await _Exchange(scope, send).run(self._app, self._hosts, receive)
            case "websocket":
                await self._converse(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a WebSocket in that was meant for this server, and that no foreign page opens.

        Browsers let every page open one to any host, and its page may then read all that comes; only the
        server's look at Origin is in the way. Source: RFC 6455, 10.2.
        """
        scope[REQUEST_ID_KEY] = str(ULID())
        facts = {"path": scope["path"], "request_id": scope[REQUEST_ID_KEY]}
        refusal = _refusal(scope, self._hosts)
        if refusal is not None:
            log.warning("websocket refused: %s", refusal[1], extra={"action": "websocket_refused"} | facts)
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})  # before accept: HTTP 403
            return
        log.info("websocket opened", extra={"action": "websocket_opened"} | facts)
        try:
            await self._app(scope, receive, send)
        except Exception:
            log.exception("websocket failed", extra={"action": "websocket_failed"} | facts)
            raise


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._status = 0
        self._method: str = scope["method"]
        self._request_id = str(ULID())
        sent = Headers(scope=scope).get("traceparent")
        self._trace_id = log_context.trace_id_of(sent) or log_context.new_trace_id()
        self._started = time.monotonic()
        self._answered: float | None = None
        scope[REQUEST_ID_KEY] = self._request_id

    async def run(self, app: ASGIApp, hosts: frozenset[str] | None, receive: Receive) -> None:
        with log_context.bound(request_id=self._request_id, trace_id=self._trace_id):
            await self._run(app, hosts, receive)

    async def _run(self, app: ASGIApp, hosts: frozenset[str] | None, receive: Receive) -> None:
        try:
            refusal = _refusal(self._scope, hosts)
            if refusal is None:
                await app(self._as_get(), receive, self._answer)
            else:
                await problem_response(self._scope, *refusal)(self._scope, receive, self._answer)
        except Exception:
            log.exception(
                "request failed",
                extra={"action": "request_failed", "request_id": self._request_id, "path": self._path},
            )
            if self._status:
                raise  # the answer has begun: only breaking the connection tells the caller
            await internal_error(self._scope)(self._scope, receive, self._answer)
        finally:
            self._record()

    def _as_get(self) -> Scope:
        """Return the scope that the app sees: HEAD is answered as GET, without the body (RFC 9110, 9.3.2)."""
        if self._scope["method"] == "HEAD":
            self._scope["method"] = "GET"
            self._scope[IS_HEAD_KEY] = True
        return self._scope

    @property
    def _path(self) -> str:
        path: str = self._scope["path"]
        return path

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._answered = time.monotonic()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers[TRACE_HEADER] = self._trace_id
            for name, value in DEFAULT_HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body" and self._method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)

    def _record(self) -> None:
        """Log the request, timed until its answer began: a stream of events lasts as long as its reader."""
        seconds = (self._answered or time.monotonic()) - self._started
        # The path only: a query string may carry what must stay out of logs.
        facts = {
            "action": "http_request",
            "method": self._method,
            "path": self._path,
            "status": self._status,
            "duration_ms": round(seconds * 1000, 1),
            "request_id": self._request_id,
        }
        if self._path == Route.HEALTH and self._status == HTTPStatus.OK:
            # Load balancers ask every few seconds: their successes are for debugging only.
            log.debug("GET %s -> 200", self._path, extra=facts)
        else:
            route = getattr(self._scope.get("route"), "path", None)
            record_request(facts, route=route, status=self._status, seconds=seconds)


def _refusal(scope: Scope, hosts: frozenset[str] | None) -> tuple[int, str] | None:
    """Return status and detail when the request or WebSocket was not meant for this server, or None."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if hosts is not None and _host_name(host) not in hosts:
        allowed = ", ".join(sorted(hosts))
        return 421, f"this server does not answer for host {host[:200]!r}; it does for: {allowed}"
    origin = headers.get("origin")
    is_safe = scope["type"] == "http" and scope["method"] in _SAFE_METHODS
    if not is_safe and origin is not None and not _is_same_site(origin, host):
        return 403, f"requests from the origin {origin[:200]!r} may not change anything here"
    return None


def _host_name(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _is_same_site(origin: str, host: str) -> bool:
    """Say whether a page of `origin` came from the `host` that it calls now.

    Schemes are not compared: TLS may have ended at a load balancer in front.
    """
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        pair = (page.port or default, server.port or default)
    except (ValueError, KeyError):
        return False
    return page.hostname == server.hostname and pair[0] == pair[1]
