"""Starts an agent from the environment: builds the clients, checks the machine, serves until told to stop."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta

from scanfleet.agent.attempt import Tools
from scanfleet.agent.lease import HeartbeatRules, Pulse
from scanfleet.agent.publication import Publication
from scanfleet.agent.runner import Runner
from scanfleet.agent.status import StatusServer
from scanfleet.agent.transfer import Transfer
from scanfleet.agent.worker import Worker
from scanfleet.agent.workspace import Scratch
from scanfleet.agent_reports import AgentDirectory
from scanfleet.clients import Clients, build_clients, build_heartbeat_clients
from scanfleet.contract import Component
from scanfleet.errors import ConfigurationError
from scanfleet.leases import Leases
from scanfleet.objects import ObjectStore
from scanfleet.processors.base import Processor
from scanfleet.processors.registry import ready_processors
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import AllowedPrefixes
from scanfleet.settings import AgentSettings, load
from scanfleet.telemetry import configure_logging

log = logging.getLogger(__name__)

CONFIGURATION_EXIT_CODE = 78
"""EX_CONFIG. Source: sysexits.h."""


def build_tools(
    settings: AgentSettings, clients: Clients, scratch: Scratch, processors: Mapping[str, Processor]
) -> Tools:
    """Return what attempts work with."""
    objects = ObjectStore(clients.s3)
    transfer = Transfer(objects, clients.credentials)
    return Tools(
        leases=Leases(clients.dynamodb, settings.job_table, lease_seconds=settings.lease_seconds),
        queues=JobQueues(clients.sqs, settings.queues),
        objects=objects,
        transfer=transfer,
        publication=Publication(objects, transfer, artifacts_bucket=settings.artifacts_bucket),
        scratch=scratch,
        runner=Runner(grace=settings.stop_grace),
        processors=processors,
        allowed_prefixes=AllowedPrefixes(settings.allowed_prefixes),
        artifacts_bucket=settings.artifacts_bucket,
        pulse=build_pulse(settings),
        default_time_limit=timedelta(seconds=settings.time_limit_seconds),
    )


def build_pulse(settings: AgentSettings) -> Pulse:
    """Return what heartbeats work with: their own clients, which give up soon."""
    clients = build_heartbeat_clients()
    return Pulse(
        leases=Leases(clients.dynamodb, settings.job_table, lease_seconds=settings.lease_seconds),
        queues=JobQueues(clients.sqs, settings.queues),
        rules=HeartbeatRules(
            every=timedelta(seconds=settings.heartbeat_seconds),
            lease=timedelta(seconds=settings.lease_seconds),
            visibility_seconds=settings.visibility_seconds,
        ),
    )


def serve(settings: AgentSettings, processors: Mapping[str, Processor]) -> None:
    """Serve the pool until SIGTERM or SIGINT. Raises ConfigurationError before anything was started."""
    clients = build_clients()
    scratch = Scratch(settings.scratch)
    scratch.claim()
    try:
        worker = Worker(
            build_tools(settings, clients, scratch, processors),
            directory=AgentDirectory(clients.dynamodb, settings.job_table),
            agent_id=settings.agent_id or f"{socket.gethostname()}-{os.getpid()}",
            pool=settings.pool,
            slots=settings.slots,
            receive_wait=timedelta(seconds=settings.receive_wait_seconds),
        )
        status = StatusServer(worker, host=settings.status_host, port=settings.status_port)
        status.start()
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop_soon(worker))
            facts = {"action": "agent_started", "pool": settings.pool, "status_port": status.port}
            log.info("agent serves %s", settings.pool, extra=facts)
            worker.run()
        finally:
            status.stop()
    finally:
        scratch.release()
    log.info("agent stopped", extra={"action": "agent_stopped"})


def stop_soon(worker: Worker) -> None:
    """Stop the worker from a thread of its own: a signal handler runs in the middle of whatever the main
    thread does, and would wait for ever for a lock that the main thread holds."""
    threading.Thread(target=worker.request_stop, name="stop").start()


def main() -> None:
    """Run an agent as a program; exit code 78 means that a setting is wrong."""
    try:
        settings = load(AgentSettings)
        configure_logging(Component.AGENT, settings.log_level, stage=settings.stage)
        # A missing program is an error now, not at the first job.
        serve(settings, ready_processors(settings, settings.pool))
    except ConfigurationError as error:
        print(f"scanfleet-agent: {error}", file=sys.stderr)  # noqa: T201 - the one line for whoever started it
        sys.exit(CONFIGURATION_EXIT_CODE)


if __name__ == "__main__":
    main()
