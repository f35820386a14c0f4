"""What serves in the benchmark of events: our hub, or a plain Starlette application, over the same changes.

    python -m benchmarks.events_server ours|plain CHANGES_A_SECOND

Prints its address, then serves until it is ended. Each change says in its stage when it was made.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from threading import Lock
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from scanfleet.api.event_stream import EventStream
from scanfleet.api.schemas import summary
from scanfleet.callers import Caller
from scanfleet.contract import Pool
from scanfleet.events.hub import Hub
from scanfleet.events.reading import Reading
from scanfleet.events.topics import ALL_JOBS
from scanfleet.jobs import Job, JobState, new_job_id

JOBS = 100
OPERATOR = Caller("olga", True)


class Changes:
    """So many changes a second, of jobs in turn, once begun; those since the last reading at each."""

    def __init__(self, a_second: int) -> None:
        now = time.time()
        self._jobs = [
            Job(
                job_id=new_job_id(),
                owner="ann",
                processor="reference",
                pool=Pool.LINUX_CPU,
                source_uri=f"s3://scans/uploads/ann/case-{number}/",
                target_uri=f"s3://scans/uploads/ann/case-{number}-result/",
                state=JobState.PROCESSING,
                attempt=1,
                created_at=now,
                queued_at=now,
                state_changed_at=now,
                started_at=now,
            )
            for number in range(JOBS)
        ]
        self._a_second = a_second
        self._made = 0
        self._begun: float | None = None
        self._lock = Lock()

    def begin(self) -> None:
        """Let the first change be due now."""
        self._begun = time.time()

    def read(self) -> Reading:
        """Return what changed since the last call, each change stamped with the moment that it was due."""
        with self._lock:
            if self._begun is None:
                return Reading()
            due = int((time.time() - self._begun) * self._a_second)
            changed = [self._change(number) for number in range(self._made, due)]
            self._made = due
            return Reading(tuple(changed))

    def _change(self, number: int) -> Job:
        assert self._begun is not None
        at = self._begun + number / self._a_second
        facts = {"stage": f"{at:.4f}", "progress_percent": float(number % 100)}
        return self._jobs[number % JOBS].model_copy(update=facts)


def ours(changes: Changes) -> FastAPI:
    """Return an application over our hub."""
    app, hub = FastAPI(), Hub(lambda: changes)
    app.state.events = hub

    async def nothing() -> list[object]:
        return []

    @app.get("/events")
    async def events() -> EventStream:
        return EventStream(hub, OPERATOR, ALL_JOBS, nothing)  # type: ignore[arg-type]

    return app


def plain(changes: Changes) -> FastAPI:
    """Return one as it is written by hand: a queue for each listener, and an answer that streams from it."""
    app, state = FastAPI(), SimpleNamespace(queues=set(), task=None)

    async def tell() -> None:
        while True:
            for job in changes.read().jobs:
                shown = summary(job).model_dump(mode="json")
                for queue in state.queues:
                    queue.put_nowait(shown)
            await asyncio.sleep(0.2)

    async def stream(queue: "asyncio.Queue[object]") -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        while True:
            yield f"event: job\ndata: {json.dumps(await queue.get())}\n\n"

    @app.get("/events")
    async def events() -> StreamingResponse:
        queue: asyncio.Queue[object] = asyncio.Queue()
        state.queues.add(queue)
        state.task = state.task or asyncio.create_task(tell())
        return StreamingResponse(stream(queue), media_type="text/event-stream")

    return app


def main() -> None:
    """Serve."""
    kind, a_second = sys.argv[1], int(sys.argv[2])
    changes = Changes(a_second)
    app = {"ours": ours, "plain": plain}[kind](changes)
    app.add_api_route("/begin", changes.begin, methods=["POST"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
