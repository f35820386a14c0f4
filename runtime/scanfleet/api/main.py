"""The API on one machine: builds the clients, then serves the app with uvicorn."""

import logging
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

import boto3
import uvicorn

from scanfleet.api.app import create_app
from scanfleet.api.process_logs import begin_logging
from scanfleet.api.services import services_over
from scanfleet.clients import build_clients, build_streams_client
from scanfleet.errors import ConfigurationError
from scanfleet.events.feed import open_feed
from scanfleet.events.hub import Hub
from scanfleet.events.messages import job_message
from scanfleet.processors.registry import known_processors
from scanfleet.settings import ApiSettings, load

log = logging.getLogger(__name__)

EXIT_MISCONFIGURED = 2
GRACE_SECONDS = 5
WEBSOCKET_MESSAGE_BYTES = 8 * 1024
"""Of what clients send: they subscribe, and say nothing else."""
WEBSOCKET_QUEUE = 16
"""So many messages of one client wait to be read, then its connection does."""
REQUEST_THREADS = 40
"""Handlers run in this many threads at most. Source: AnyIO documentation, "Working with threads"."""


def main() -> None:
    """Serve until stopped by SIGTERM or SIGINT.

    Prints `listening on http://<host>:<port>` to standard output once connections are accepted. Exits with 2
    and a sentence when a setting is missing or wrong, or the port is taken.
    """
    try:
        settings = load(ApiSettings)
        listener = _listen(settings.host, settings.port)
    except ConfigurationError as error:
        sys.stderr.write(f"scanfleet-api: {error}\n")
        raise SystemExit(EXIT_MISCONFIGURED) from error
    levels = begin_logging(settings, boto3.Session())
    levels.start()
    processors = known_processors(settings)
    clients = build_clients(max_connections=REQUEST_THREADS)
    services = services_over(clients, settings, processors=processors, clock=time.time)
    streams = build_streams_client()
    hub = Hub(
        lambda: open_feed(clients.dynamodb, streams, services.store, settings.job_table),
        encode=partial(job_message, estimate=services.estimates),
    )
    app = create_app(services, settings, hub=hub)
    app.state.lives_on = True  # what it counts from request to request means something: GET /metrics
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the app logs each request itself, without query strings
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws_max_size=WEBSOCKET_MESSAGE_BYTES,
        ws_max_queue=WEBSOCKET_QUEUE,
        ws_per_message_deflate=False,
    )
    address = _address(listener)
    sys.stdout.write(f"listening on {address}\n")
    sys.stdout.flush()
    log.info("listening", extra={"action": "api_listening", "address": address})
    Server(config, before_shutdown=hub.close).run(sockets=[listener])


class Server(uvicorn.Server):
    """uvicorn's, which waits for answers that go on for ever unless somebody ends them first."""

    def __init__(self, config: uvicorn.Config, *, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, end the streams, wait for the other answers, at most the grace period."""
        self._before_shutdown()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that queues connections already: whoever reads our line may connect at once."""
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        return socket.create_server((name, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"SCANFLEET_HOST, SCANFLEET_PORT: cannot listen on {host}:{port}: {error}"
        ) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    main()
