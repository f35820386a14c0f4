"""A proxy between one process and the emulator, where the network and the services fail on command.

One thread runs the loop of all proxies. A fault is a rule that waits for its next matching requests; its
`on_applied` is called when the first of them met it.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.answers import error_answer, fleet_answer
from tests.faults.http1 import Call, Message, call_of, read_body, read_head
from tests.faults.journal import Journal
from tests.faults.upstream import BUFFER_BYTES, LOOPBACK, Upstream


class Cut(Exception):
    """The connection to the client has to end here."""


@dataclass
class Rule:
    """One fault of the network or of a service.

    kind: error, latency, black_hole, reset, truncated, lost_answer, duplicate. remaining: requests that it
    still hits; seconds: how long it waits or lasts. error: status and code of the answer.
    """

    kind: str
    service: str
    remaining: int = 1
    seconds: float = 0.0
    error: tuple[int, str] = (500, "InternalError")
    on_applied: Callable[[], None] = lambda: None
    until: float = field(default=0.0)

    def matches(self, call: Call) -> bool:
        """Say whether the next request is hit."""
        if self.service not in ("any", call.service) or call.service == "autoscaling":
            return False
        if self.kind in ("lost_answer", "duplicate"):
            return call.is_write
        if self.kind == "truncated":
            return call.service == "s3" and call.action == "GET" and bool(call.key)
        return True


class Proxy:
    """One listening port in front of the emulator."""

    def __init__(self, name: str, upstream_port: int, journal: Journal) -> None:
        self.name = name
        self.who = name
        """Who is behind it now: changes when another life of the process begins."""
        self._upstream_port = upstream_port
        self._journal = journal
        self._rules: list[Rule] = []
        self._server: asyncio.Server | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=BUFFER_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Return the endpoint that the process behind has to use."""
        return f"http://{LOOPBACK}:{self.port}"

    def add(self, rule: Rule) -> None:
        """Begin a fault."""
        self._rules.append(rule)

    def clear(self) -> None:
        """End every fault."""
        self._rules.clear()

    # --- Connections ---------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Upstream(self._upstream_port)
        try:
            while (request := await read_head(reader)) is not None:
                if request.header("expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await read_body(reader, request)
                request.headers = request.without("expect")
                await self._handle(request, connection, writer)
        except (Cut, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            connection.close()
            with suppress(OSError):
                writer.close()

    async def _handle(self, request: Message, up: "Upstream", writer: asyncio.StreamWriter) -> None:
        call = call_of(request)
        if call.service == "autoscaling":
            answer = fleet_answer(call)
            self._journal.record(self.who, call, request, answer, time.monotonic())
        else:
            answer = await self._through_faults(call, request, up, writer)
        writer.write(answer.head() + answer.body)
        await writer.drain()

    async def _through_faults(
        self, call: Call, request: Message, up: "Upstream", writer: asyncio.StreamWriter
    ) -> Message:
        rule = self._rule_for(call)
        kind = rule.kind if rule else ""
        if rule is not None and kind == "error":
            return error_answer(call, *rule.error)
        if rule is not None and kind == "black_hole":
            await asyncio.sleep(max(0.0, rule.until - time.monotonic()))
            raise Cut
        if kind == "reset":
            raise Cut
        if rule is not None and kind == "latency":
            await asyncio.sleep(rule.seconds)
        answer = await self._forward(call, request, up)
        if kind == "duplicate":
            answer = await self._forward(call, request, up)
        if kind == "lost_answer":
            raise Cut
        if kind == "truncated":
            writer.write(answer.head() + answer.body[: len(answer.body) // 2])
            await writer.drain()
            raise Cut
        return answer

    async def _forward(self, call: Call, request: Message, up: "Upstream") -> Message:
        began = time.monotonic()
        who = self.who
        answer = await up.ask(request)
        self._journal.record(who, call, request, answer, began)
        return answer

    def _rule_for(self, call: Call) -> Rule | None:
        now = time.monotonic()
        self._rules = [r for r in self._rules if r.remaining > 0 and not (r.until and r.until < now)]
        for rule in self._rules:
            if not rule.matches(call):
                continue
            if rule.kind == "black_hole":
                rule.until = rule.until or now + rule.seconds
            else:
                rule.remaining -= 1
            rule.on_applied()
            return rule
        return None


class Proxies:
    """All proxies, and the thread that runs them."""

    def __init__(self, upstream_port: int, journal: Journal) -> None:
        self._upstream_port = upstream_port
        self._journal = journal
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._proxies: dict[str, Proxy] = {}

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def add(self, name: str) -> Proxy:
        """Return a new proxy that listens."""
        proxy = Proxy(name, self._upstream_port, self._journal)
        asyncio.run_coroutine_threadsafe(proxy.start(), self._loop).result(10)
        self._proxies[name] = proxy
        return proxy

    def fault(self, name: str, rule: Rule) -> None:
        """Begin a fault at a proxy."""
        self._loop.call_soon_threadsafe(self._proxies[name].add, rule)

    def clear(self) -> None:
        """End every fault of the network."""
        for proxy in self._proxies.values():
            self._loop.call_soon_threadsafe(proxy.clear)

    def stop(self) -> None:
        """End all connections and the thread."""
        for proxy in self._proxies.values():
            asyncio.run_coroutine_threadsafe(proxy.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
