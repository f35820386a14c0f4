"""Starts an agent from the environment: builds the clients, checks the machine, serves until told to stop."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta

from scanfleet import log_context
from scanfleet.agent.breaker import Breaker, BreakerRules
from scanfleet.agent.build import (
    build_pulse,
    build_releases,
    build_self_check,
    build_tools,
    find_slots,
)
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.instance import InstanceMetadata
from scanfleet.agent.log_files import log_files
from scanfleet.agent.membership import Membership, MembershipRules, give_up
from scanfleet.agent.place import Place, agent_id, machine_of
from scanfleet.agent.release_keeper import ReleaseKeeper
from scanfleet.agent.stale_workspaces import removing_stale_workspaces
from scanfleet.agent.status import StatusServer
from scanfleet.agent.tools import Tools
from scanfleet.agent.worker import Worker
from scanfleet.agent.workspace import Scratch, ScratchUnusable
from scanfleet.agent_reports import AgentDirectory
from scanfleet.clients import (
    Clients,
    build_autoscaling_client,
    build_clients,
    build_heartbeat_clients,
    build_logs_client,
    build_ssm_client,
)
from scanfleet.contract import Component
from scanfleet.errors import ConfigurationError, Unavailable
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import Verbosity, configure_logging
from scanfleet.processors.base import Processor
from scanfleet.processors.registry import pool_processors
from scanfleet.settings import AgentSettings, load

log = logging.getLogger(__name__)

CONFIGURATION_EXIT_CODE = 78
"""EX_CONFIG. Source: sysexits.h."""

OnStop = Callable[[Callable[[], None]], None]
"""Takes what begins a stop, and calls it when somebody asks for one."""


def find_place(settings: AgentSettings) -> Place | None:
    """Return the place in the fleet, or None without one. Raises Unavailable when the instance is silent."""
    if not settings.fleet:
        return None
    metadata = InstanceMetadata(settings.metadata_url)
    instance = metadata.instance()
    client = build_autoscaling_client(instance.region)
    member = FleetMember(client, fleet=settings.fleet, instance_id=instance.instance_id)
    launched_at = None
    with suppress(Unavailable):  # for receipts, which can do without
        launched_at = metadata.launched_at()
    return Place(instance=instance, metadata=metadata, member=member, launched_at=launched_at)


@contextmanager
def membership(settings: AgentSettings, place: Place | None, worker: Worker) -> Iterator[None]:
    """Live as a member of the fleet while the block runs; when it ends well, say that all is drained."""
    if place is None:
        yield
        return
    rules = MembershipRules(drain=settings.drain_grace, end_idle=settings.end_idle)
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
    releases: ReleaseKeeper | None = None,
    on_serving: Callable[[], None] | None = None,
    on_stop: OnStop = stop_on_signals,
) -> None:
    """Serve the pool until stopped. Raises ConfigurationError before anything was started.

    place: where it runs, in a fleet. releases: what keeps the processors' release up to date. on_stop is
    called with what begins a stop, then on_serving. What this machine lacks is on the status page, and no
    message is received, until it has it.
    """
    clients = build_clients()
    scratch = Scratch(settings.scratch)
    with ExitStack() as stack:
        stack.callback(scratch.release)
        claim(scratch)
        instance_type = place.instance.instance_type if place else ""
        slots = find_slots(settings, clients.dynamodb, instance_type=instance_type)
        settings = settings.model_copy(update={"slots": slots.slots})
        name = agent_id(settings, place)
        pulse = build_pulse(settings, build_heartbeat_clients())
        tools = build_tools(
            settings,
            clients,
            pulse,
            scratch,
            processors,
            machine=machine_of(settings, place),
            logs=build_logs_client() if settings.processor_log_group else None,
        )
        worker = new_worker(
            settings, clients, tools, agent_id=name, place=place, releases=releases, slots_from=slots.why
        )
        self_check = build_self_check(
            settings,
            clients,
            worker,
            agent_id=name,
            scratch=scratch,
            processors=processors,
            on_hopeless=lambda reason: give_up(place.member, reason) if place else None,
        )
        status = StatusServer(worker, host=settings.status_host, port=settings.status_port)
        status.start()
        stack.callback(status.stop)
        on_stop(Stop(worker, settings.drain_grace))
        facts: dict[str, object] = {
            "action": "agent_started",
            "pool": settings.pool,
            "status_port": status.port,
            "slots": slots.slots,
            "slots_from": slots.why,
        }
        if place is not None:
            facts |= asdict(place.instance)
        log.info("agent serves %s", settings.pool, extra=facts)
        if on_serving is not None:
            on_serving()
        for part in (releases, self_check):
            if part is not None:
                part.start()
                stack.callback(part.stop)
        with removing_stale_workspaces(scratch, settings.pool), membership(settings, place, worker):
            worker.run()
    log.info("agent stopped", extra={"action": "agent_stopped"})


def new_worker(
    settings: AgentSettings,
    clients: Clients,
    tools: Tools,
    *,
    agent_id: str,
    place: Place | None,
    releases: ReleaseKeeper | None,
    slots_from: str,
) -> Worker:
    """Return the agent's loop; nothing is started. slots_from: see AgentReport."""
    breaker_rules = BreakerRules(failures=settings.breaker_failures)
    return Worker(
        tools,
        directory=AgentDirectory(clients.dynamodb, settings.job_table),
        agent_id=agent_id,
        pool=settings.pool,
        slots=settings.slots,
        receive_wait=timedelta(seconds=settings.receive_wait_seconds),
        machine={"slots_from": slots_from, **(place.facts if place else {})},
        release=releases.version if releases else str,
        breaker=Breaker(agent_id, is_in_fleet=place is not None, rules=breaker_rules),
    )


def claim(scratch: Scratch) -> None:
    """Claim the scratch folder, or leave that to the self-check, which says what is wrong until it is right.

    Raises ConfigurationError when another agent has it.
    """
    try:
        scratch.claim()
    except ScratchUnusable as error:
        log.warning("scratch not claimed yet: %s", error, extra={"action": "scratch_unusable"})


def find_releases(settings: AgentSettings) -> ReleaseKeeper | None:
    """Return what keeps the closed program's release the active one; None where the settings want none."""
    if settings.medit_releases is None:
        return None
    return build_releases(settings, settings.medit_releases, build_clients().s3, build_ssm_client())


@contextmanager
def level_keeper(settings: AgentSettings, verbosity: Verbosity, machines: set[str]) -> Iterator[None]:
    """Heed log levels that are set from outside while the block runs.

    A thread looks, which nobody waits for; a machine whose programs use all of its CPU may answer late.
    """
    keeper = LevelKeeper(
        LogLevelRules(build_ssm_client, settings.stage),
        verbosity,
        component=Component.AGENT,
        machines=machines,
        look_every=timedelta(seconds=settings.log_level_look_seconds),
    )
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def run_agent(*, on_stop: OnStop, on_serving: Callable[[], None] | None = None) -> None:
    """Run an agent from the environment. SystemExit with code 78 means that a setting is wrong."""
    place: Place | None = None
    try:
        settings = load(AgentSettings)
        files = log_files(settings.log_folder) if settings.log_folder else None
        verbosity = configure_logging(Component.AGENT, settings.log_level, stage=settings.stage, files=files)
        place = find_place(settings)
        name = agent_id(settings, place)
        instance_id = place.instance.instance_id if place else None
        log_context.set_process_facts(agent_id=name, instance_id=instance_id)
        releases = find_releases(settings)
        processors = pool_processors(settings, settings.pool, releases)
        with level_keeper(settings, verbosity, machines={name, instance_id or name}):
            serve(
                settings, processors, place=place, releases=releases, on_serving=on_serving, on_stop=on_stop
            )
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
