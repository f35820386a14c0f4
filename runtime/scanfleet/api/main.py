"""The API on one machine: builds the clients, then serves the app with uvicorn."""

import logging
import socket
import sys
import time

import uvicorn

from scanfleet.api.app import create_app
from scanfleet.api.services import services_over
from scanfleet.clients import build_clients
from scanfleet.contract import Component
from scanfleet.errors import ConfigurationError
from scanfleet.log_setup import configure_logging
from scanfleet.processors.registry import known_processors
from scanfleet.settings import ApiSettings, load

log = logging.getLogger(__name__)

EXIT_MISCONFIGURED = 2
GRACE_SECONDS = 5
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
    configure_logging(Component.API, settings.log_level, stage=settings.stage)
    processors = known_processors(settings)
    services = services_over(
        build_clients(max_connections=REQUEST_THREADS), settings, processors=processors, clock=time.time
    )
    app = create_app(services, settings)
    app.state.lives_on = True  # what it counts from request to request means something: GET /metrics
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the app logs each request itself, without query strings
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    address = _address(listener)
    sys.stdout.write(f"listening on {address}\n")
    sys.stdout.flush()
    log.info("listening", extra={"action": "api_listening", "address": address})
    uvicorn.Server(config).run(sockets=[listener])


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
