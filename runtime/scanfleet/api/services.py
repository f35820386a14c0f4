"""What the API needs from the rest of the system: built by an entry, handed in, never global."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from scanfleet.agent_reports import AgentDirectory
from scanfleet.api.estimates import Estimates
from scanfleet.events.tickets import Tickets
from scanfleet.fleet_reports import FleetDirectory
from scanfleet.history import RunHistory
from scanfleet.objects import ObjectStore
from scanfleet.processors.base import Processor
from scanfleet.queue import JobQueues
from scanfleet.queue_positions import QueuePositions
from scanfleet.settings import ApiSettings
from scanfleet.store import JobStore

if TYPE_CHECKING:
    from scanfleet.clients import Clients


@dataclass(frozen=True)
class Services:
    """The system behind the API. `clock` gives epoch seconds."""

    store: JobStore
    queues: JobQueues
    objects: ObjectStore
    agents: AgentDirectory
    tickets: Tickets
    processors: Mapping[str, Processor]
    clock: Callable[[], float]
    estimates: Estimates
    positions: QueuePositions
    fleets: FleetDirectory
    history: RunHistory


def services_over(
    clients: "Clients",
    settings: ApiSettings,
    *,
    processors: Mapping[str, Processor],
    clock: Callable[[], float],
) -> Services:
    """Return the services that talk to AWS through these clients."""
    table, dynamodb = settings.job_table, clients.dynamodb
    history = RunHistory(dynamodb, table, reread_few=timedelta(seconds=15), clock=clock)
    return Services(
        store=JobStore(clients.dynamodb, settings.job_table, clock=clock),
        queues=JobQueues(clients.sqs, settings.queues, settings.dead_letters),
        objects=ObjectStore(clients.s3),
        agents=AgentDirectory(clients.dynamodb, settings.job_table, clock=clock),
        tickets=Tickets(clients.dynamodb, settings.job_table, clock=clock),
        processors=processors,
        clock=clock,
        estimates=Estimates(history, clock=clock),
        positions=QueuePositions(dynamodb, table, clock=clock),
        fleets=FleetDirectory(dynamodb, table, clock=clock),
        history=history,
    )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _settings(request: Request) -> ApiSettings:
    settings: ApiSettings = request.app.state.settings
    return settings


ServicesDep = Annotated[Services, Depends(_services)]
SettingsDep = Annotated[ApiSettings, Depends(_settings)]
