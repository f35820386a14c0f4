"""The API at 200 requests a second on one core, against a bare FastAPI route in the same run.

The costlier calls come at the rates that their rows name: 200 lists of 50 jobs a second are more than one
core has. AWS is answered from memory.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from benchmarks.harness import Row

A_SECOND = 200
SECONDS = 8.0
CONNECTIONS = 32
JOB = "/job/01JD5Z9W4T8Q2V6K3M7N1P5R9S"
BODY = json.dumps(
    {"source": "s3://scans/uploads/local/case/", "target": "s3://scans/uploads/local/case-result/"}
).encode()


@dataclass(frozen=True)
class Served:
    """Milliseconds from when each request was due to its answer; the server's CPU milliseconds for one."""

    times: list[float]
    cpu: float

    def quantile(self, percent: int) -> float:
        """Return a percentile of the times."""
        return statistics.quantiles(self.times, n=100, method="inclusive")[percent - 1]


def api_rows() -> list[Row]:
    """Return p50 and p99 of each call, beside those of the bare route."""
    get, post = request("GET", JOB), request("POST", "/jobs", BODY)
    bare = measure("bare", get)
    calls = {
        "GET /job/{id}": (get, A_SECOND),
        "GET /jobs, 50 jobs (20 a second)": (request("GET", "/jobs?limit=50"), A_SECOND // 10),
        "POST /jobs (50 a second)": (post, A_SECOND // 4),
    }
    found = [
        Row.fact(f"bare FastAPI route, {A_SECOND} requests a second: p50", bare.quantile(50), "ms"),
        Row.fact(f"bare FastAPI route, {A_SECOND} requests a second: p99", bare.quantile(99), "ms"),
    ]
    for name, (raw, rate) in calls.items():
        ours = measure("ours", raw, a_second=rate)
        beside = {50: bare.quantile(50), 99: bare.quantile(99)}
        for percent, peer in beside.items():
            found.append(
                Row.against(
                    f"{name}: p{percent}", ours.quantile(percent), "ms", peer="bare route", peer_value=peer
                )
            )
        found.append(Row.against(f"{name}: CPU", ours.cpu, "ms", peer="bare route", peer_value=bare.cpu))
    return found


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Return the request as it goes over the connection."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def measure(kind: str, raw: bytes, *, a_second: int = A_SECOND) -> Served:
    """Return how a fresh server answers that many of these requests a second."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.events_api_server", kind], stdout=subprocess.PIPE, text=True
    )
    mine = os.sched_getaffinity(0)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        if len(mine) > 1:
            os.sched_setaffinity(0, mine - {max(mine)})  # that one is the server's
        return asyncio.run(_send(port, raw, a_second, psutil.Process(server.pid).cpu_times))
    finally:
        os.sched_setaffinity(0, mine)
        server.kill()
        server.wait()


async def _send(port: int, raw: bytes, a_second: int, cpu: Callable[[], object]) -> Served:
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port, limit=2**21))
    for _ in range(CONNECTIONS):
        await _one(free, raw, time.perf_counter(), [])  # imports, connections, caches
    times: list[float] = []
    count = int(a_second * SECONDS)
    before, begun = _spent(cpu()), time.perf_counter() + 0.1
    tasks = []
    for number in range(count):
        due = begun + number / a_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(free, raw, due, times)))
    await asyncio.gather(*tasks)
    return Served(times, 1000 * (_spent(cpu()) - before) / count)


def _spent(times: object) -> float:
    return float(getattr(times, "user") + getattr(times, "system"))  # noqa: B009 - differs between systems


async def _one(
    free: "asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]",
    raw: bytes,
    due: float,
    times: list[float],
) -> None:
    reader, writer = await free.get()
    writer.write(raw)
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    answer = await reader.readexactly(length)
    if status >= 300:
        raise RuntimeError(f"the server answered {status}: {answer[:500]!r}")
    times.append(1000 * (time.perf_counter() - due))
    free.put_nowait((reader, writer))
