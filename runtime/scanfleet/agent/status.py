"""The agent's status page: what load balancers and people ask one machine.

GET /status/health -> 200 {"status": "ready"} or 503 {"status": "not_ready", "reason": ...}
GET /status/load   -> the agent's report (slots, busy, job ids)
GET /metrics       -> Prometheus' text: what the agent has counted, its slots, what programs use; no job ids
"""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scanfleet.agent.running import PROGRAMS
from scanfleet.agent.worker import Worker
from scanfleet.agent_reports import AgentReport
from scanfleet.contract import Route
from scanfleet.errors import ConfigurationError
from scanfleet.metrics import CONTENT_TYPE, Gauge, exposition


class StatusServer:
    """Serves the paths from a thread of its own until `stop`."""

    def __init__(self, worker: Worker, *, host: str, port: int) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(worker))
        except OSError as error:
            raise ConfigurationError(f"the status page cannot listen on {host}:{port}: {error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(worker: Worker, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
    """Return status and body for a path."""
    if path == Route.HEALTH:
        problem = worker.problem()
        if problem is None:
            return HTTPStatus.OK, {"status": "ready"}
        return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not_ready", "reason": problem}
    if path == Route.LOAD:
        return HTTPStatus.OK, worker.report().model_dump(mode="json")
    allowed = ", ".join(Route)
    return HTTPStatus.NOT_FOUND, {"status": "not_found", "reason": f"there is {allowed}"}


def gauges(report: AgentReport) -> list[Gauge]:
    """Return how the agent stands now: numbers only, so that nobody learns of jobs from them."""
    return [
        Gauge.plain("agent_slots", "Jobs that this agent runs side by side at most.", report.slots),
        Gauge.plain("agent_slots_busy", "Slots that run a job.", report.busy),
        Gauge.plain("agent_takes_jobs", "1 while the agent takes new jobs.", float(report.takes_jobs)),
        Gauge.plain("agent_uptime_seconds", "Since the agent started.", report.seen_at - report.started_at),
        *PROGRAMS.gauges(),
    ]


def _handler(worker: Worker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a connection that says nothing must not hold its thread for ever

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == Route.METRICS:
                self._send(HTTPStatus.OK, CONTENT_TYPE, exposition(gauges(worker.report())))
                return
            status, body = answer(worker, path)
            self._send(status, "application/json", json.dumps(body).encode())

        def _send(self, status: HTTPStatus, content_type: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: health checks come every few seconds."""

    return Handler
