"""Starts an agent from the environment: builds the clients, checks the machine, serves until told to stop."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta

from scanfleet.agent.attempt import Tools
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.instance import Instance, InstanceMetadata
from scanfleet.agent.lease import HeartbeatRules, Pulse
from scanfleet.agent.log_files import log_files
from scanfleet.agent.membership import Membership, MembershipRules, give_up
from scanfleet.agent.publication import Publication
from scanfleet.agent.runner import Runner
from scanfleet.agent.stale_workspaces import removing_stale_workspaces
from scanfleet.agent.status import StatusServer
from scanfleet.agent.transfer import Transfer
from scanfleet.agent.watches import Watches
from scanfleet.agent.worker import Worker
from scanfleet.agent.workspace import Scratch
from scanfleet.agent_reports import AgentDirectory
from scanfleet.clients import Clients, build_autoscaling_client, build_clients, build_heartbeat_clients
from scanfleet.contract import Component
from scanfleet.errors import ConfigurationError
from scanfleet.history import RunHistory
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

OnStop = Callable[[Callable[[], None]], None]
"""Takes what begins a stop, and calls it when somebody asks for one."""


def build_tools(
    settings: AgentSettings, clients: Clients, scratch: Scratch, processors: Mapping[str, Processor]
) -> Tools:
    """Return what attempts work with."""
    objects = ObjectStore(clients.s3)
    transfer = Transfer(objects, clients.credentials)
    return Tools(
        leases=Leases(clients.dynamodb, settings.job_table, lease_seconds=settings.lease_seconds),
        queues=JobQueues(clients.sqs, settings.queues, settings.dead_letters),
        objects=objects,
        transfer=transfer,
        publication=Publication(objects, transfer, artifacts_bucket=settings.artifacts_bucket),
        scratch=scratch,
        runner=Runner(grace=settings.stop_grace),
        processors=processors,
        allowed_prefixes=AllowedPrefixes(settings.allowed_prefixes),
        artifacts_bucket=settings.artifacts_bucket,
        pulse=build_pulse(settings),
        new_watch=Watches(settings, objects, RunHistory(clients.dynamodb, settings.job_table)),
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


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an agent of a fleet runs."""

    instance: Instance
    metadata: InstanceMetadata
    member: FleetMember

    @property
    def facts(self) -> dict[str, str]:
        """Return what reports say of the instance."""
        at = self.instance
        return {"instance_id": at.instance_id, "instance_type": at.instance_type, "ami_id": at.ami_id}


def find_place(settings: AgentSettings) -> Place | None:
    """Return the place in the fleet, or None without one. Raises Unavailable when the instance is silent."""
    if not settings.fleet:
        return None
    metadata = InstanceMetadata(settings.metadata_url)
    instance = metadata.instance()
    client = build_autoscaling_client(instance.region)
    member = FleetMember(client, fleet=settings.fleet, instance_id=instance.instance_id)
    return Place(instance=instance, metadata=metadata, member=member)


@contextmanager
def membership(settings: AgentSettings, place: Place | None, worker: Worker) -> Iterator[None]:
    """Live as a member of the fleet while the block runs; when it ends well, say that all is drained."""
    if place is None:
        yield
        return
    rules = MembershipRules(drain=settings.drain_grace)
    member = Membership(place.member, place.metadata, worker, rules=rules)
    member.start()
    try:
        yield
        member.leave()
    finally:
        member.stop()


class Stop:
    """Begins a drain when called; called again, it has running jobs handed back at once."""

    def __init__(self, worker: Worker, grace: timedelta) -> None:
        self._worker = worker
        self._graces = [grace]

    def __call__(self) -> None:
        """Return at once.

        A thread of its own does it: a signal handler runs in the middle of whatever the main thread does, and
        would wait for ever for a lock that the main thread holds.
        """
        grace = self._graces.pop() if self._graces else timedelta()
        threading.Thread(target=self._worker.drain, args=(grace,), name="stop").start()


def stop_on_signals(begin_stop: Callable[[], None]) -> None:
    """Stop at SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: begin_stop())


def serve(
    settings: AgentSettings,
    processors: Mapping[str, Processor],
    *,
    place: Place | None = None,
    on_serving: Callable[[], None] | None = None,
    on_stop: OnStop = stop_on_signals,
) -> None:
    """Serve the pool until stopped. Raises ConfigurationError before anything was started.

    place: where it runs, in a fleet. on_stop is called with what begins a stop, then on_serving.
    """
    clients = build_clients()
    scratch = Scratch(settings.scratch)
    scratch.claim()
    try:
        worker = Worker(
            build_tools(settings, clients, scratch, processors),
            directory=AgentDirectory(clients.dynamodb, settings.job_table),
            agent_id=agent_id(settings, place),
            pool=settings.pool,
            slots=settings.slots,
            receive_wait=timedelta(seconds=settings.receive_wait_seconds),
            machine=place.facts if place else None,
        )
        status = StatusServer(worker, host=settings.status_host, port=settings.status_port)
        status.start()
        try:
            on_stop(Stop(worker, settings.drain_grace))
            facts: dict[str, object] = {
                "action": "agent_started",
                "pool": settings.pool,
                "status_port": status.port,
            }
            if place is not None:
                facts |= asdict(place.instance)
            log.info("agent serves %s", settings.pool, extra=facts)
            if on_serving is not None:
                on_serving()
            with removing_stale_workspaces(scratch, settings.pool), membership(settings, place, worker):
                worker.run()
        finally:
            status.stop()
    finally:
        scratch.release()
    log.info("agent stopped", extra={"action": "agent_stopped"})


def agent_id(settings: AgentSettings, place: Place | None) -> str:
    """Return the agent's name: in a fleet the instance's, so that reports and instances meet."""
    if settings.agent_id:
        return settings.agent_id
    return place.instance.instance_id if place else f"{socket.gethostname()}-{os.getpid()}"


def run_agent(*, on_stop: OnStop, on_serving: Callable[[], None] | None = None) -> None:
    """Run an agent from the environment. SystemExit with code 78 means that a setting is wrong."""
    place: Place | None = None
    try:
        settings = load(AgentSettings)
        files = log_files(settings.log_folder) if settings.log_folder else None
        configure_logging(Component.AGENT, settings.log_level, stage=settings.stage, files=files)
        place = find_place(settings)
        # A missing program is an error now, not at the first job.
        processors = ready_processors(settings, settings.pool)
        serve(settings, processors, place=place, on_serving=on_serving, on_stop=on_stop)
    except ConfigurationError as error:
        if place is not None:  # starting again would not help
            give_up(place.member, str(error))
        log.critical("agent does not start: %s", error, extra={"action": "agent_misconfigured"})
        sys.exit(CONFIGURATION_EXIT_CODE)


def main() -> None:
    """Run an agent as a program; exit code 78 means that a setting is wrong."""
    run_agent(on_stop=stop_on_signals)


if __name__ == "__main__":
    main()
