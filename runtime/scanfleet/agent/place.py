"""Where an agent runs: what its name, its reports and its attempts' records say of the machine."""

import os
import socket
import sys
from dataclasses import dataclass

from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.gpu import driver_version
from scanfleet.agent.instance import Instance, InstanceMetadata
from scanfleet.attempts import Machine
from scanfleet.settings import AgentSettings


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an agent of a fleet runs. launched_at: epoch seconds, if it could be learned."""

    instance: Instance
    metadata: InstanceMetadata
    member: FleetMember
    launched_at: float | None = None

    @property
    def facts(self) -> dict[str, str]:
        """Return what reports say of the instance."""
        at = self.instance
        return {"instance_id": at.instance_id, "instance_type": at.instance_type, "ami_id": at.ami_id}


def machine_of(settings: AgentSettings, place: Place | None) -> Machine:
    """Return what attempts' records say of this machine."""
    system = "windows" if sys.platform == "win32" else sys.platform
    known = Machine(system=system, driver=driver_version(), slots=settings.slots)
    if place is None:
        return known
    at = place.instance
    of_fleet = {**place.facts, "region": at.region, "booted_at": place.launched_at}
    return known.model_copy(update=of_fleet)


def agent_id(settings: AgentSettings, place: Place | None) -> str:
    """Return the agent's name: in a fleet the instance's, so that reports and instances meet."""
    if settings.agent_id:
        return settings.agent_id
    return place.instance.instance_id if place else f"{socket.gethostname()}-{os.getpid()}"
