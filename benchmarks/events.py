"""Live events: 1,000 listeners hear of 200 changes a second. How late, and at what cost of processor time?

Everybody listens to everything, the hardest case: 200,000 messages a second. The peer is the application that
one writes by hand: a queue for each listener and an encoding for each message. Both run on plain uvicorn.
"""

import asyncio
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import psutil

from benchmarks.harness import Row

LISTENERS = 1000
CHANGES_A_SECOND = 200
PEER_LISTENERS = 100
"""By hand, a thousand are beyond one core; the costs are compared at this many."""
WARM_UP_SECONDS, MEASURED_SECONDS = 4.0, 10.0
SAMPLED = 20
"""Listeners whose messages are looked at; the others only read."""
AT_MOST_P95_SECONDS = 1.0
MADE_AT = re.compile(rb'"stage": ?"(\d+\.\d+)"')
BESIDES = (("benchmarks.events_logs", "log_rows"), ("benchmarks.events_api", "api_rows"))
"""Of `make bench ONLY=events`, too: shipping of log lines, and the API at 200 requests a second."""


@dataclass(frozen=True)
class Heard:
    """Seconds from each change to its reading, cores that the server used, messages a second to one."""

    delays: list[float]
    cores: float
    messages_a_second: float

    @property
    def p95(self) -> float:
        """Return the 95th percentile of the delays."""
        return statistics.quantiles(self.delays, n=20)[-1]


def rows() -> list[Row]:
    """Measure the fan-out, then what else belongs to this benchmark."""
    many, few = fan_out("ours", LISTENERS), fan_out("ours", PEER_LISTENERS)
    peer = fan_out("plain", PEER_LISTENERS)
    name = f"{LISTENERS} listeners of all of {CHANGES_A_SECOND} changes a second"
    named = "a queue and an encoding each, by hand"
    few_name = f"{PEER_LISTENERS} listeners of all of {CHANGES_A_SECOND} changes a second"
    found = [
        Row.limit(f"{name}: p95 delay", many.p95, "s", at_most=AT_MOST_P95_SECONDS),
        Row.fact(f"{name}: median delay", statistics.median(many.delays), "s"),
        Row.fact(f"{name}: cores of the server", many.cores, "cores"),
        Row.fact(f"{name}: messages to each", many.messages_a_second, "/s"),
        Row.against(f"{few_name}: cores", few.cores, "cores", peer=named, peer_value=peer.cores, at_most=1.0),
        Row.against(f"{few_name}: p95 delay", few.p95, "s", peer=named, peer_value=peer.p95),
    ]
    for module, its_rows in BESIDES:
        if find_spec(module) is not None:
            found += getattr(import_module(module), its_rows)()
    return found


def fan_out(kind: str, listeners: int) -> Heard:
    """Return how it went with so many listeners of one server."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.events_server", kind, str(CHANGES_A_SECOND)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # uvicorn tells of each connection that breaks off at the end
        text=True,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        return asyncio.run(_listen(port, listeners, psutil.Process(server.pid)))
    finally:
        server.kill()
        server.wait()


async def _listen(port: int, listeners: int, server: psutil.Process) -> Heard:
    delays: list[float] = []
    measuring = asyncio.Event()
    tasks = []
    writers = []  # a stream without its writer is closed
    for number in range(listeners):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        writers.append(writer)
        sampled = delays if number % max(1, listeners // SAMPLED) == 0 else None
        tasks.append(asyncio.create_task(_read(reader, measuring, sampled)))
    _, begin = await asyncio.open_connection("127.0.0.1", port)
    begin.write(b"POST /begin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
    await asyncio.sleep(WARM_UP_SECONDS)
    measuring.set()
    before, begun = server.cpu_times(), time.perf_counter()
    await asyncio.sleep(MEASURED_SECONDS)
    after, seconds = server.cpu_times(), time.perf_counter() - begun
    for task, writer in zip(tasks, writers, strict=True):
        task.cancel()
        writer.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    used = (after.user - before.user) + (after.system - before.system)
    sampled_listeners = len(range(0, listeners, max(1, listeners // SAMPLED)))
    return Heard(delays, used / seconds, len(delays) / seconds / sampled_listeners)


async def _read(reader: asyncio.StreamReader, measuring: asyncio.Event, delays: list[float] | None) -> None:
    while data := await reader.read(2**20):
        if delays is not None and measuring.is_set():
            now = time.time()
            delays.extend(now - float(found[1]) for found in MADE_AT.finditer(data))
