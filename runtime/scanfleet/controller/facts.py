"""What one look at a pool has found. Plain facts: `snapshot.py` gathers them, `decision.py` reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scanfleet.agent_reports import AgentReport
from scanfleet.contract import Pool

WARM_PREFIX = "Warmed:"
_STOPPED = ("Warmed:Stopped", "Warmed:Hibernated", "Warmed:Terminated", "Terminated", "Detached")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One machine of an Auto Scaling group or of its warm pool.

    lifecycle_state: as Auto Scaling spells it: "Pending:Wait", "InService", "Warmed:Stopped", ...
    launched_at: epoch seconds of its last start; None when it is not known.
    is_protected: scale-in cannot take it.
    Source: EC2 Auto Scaling guide, "Amazon EC2 Auto Scaling instance lifecycle".
    """

    instance_id: str
    instance_type: str
    lifecycle_state: str
    launched_at: float | None = None
    template_id: str | None = None
    template_version: str | None = None
    is_protected: bool = False

    @property
    def is_pending(self) -> bool:
        """Return whether it boots for the group; those that boot for the warm pool do not."""
        return self.lifecycle_state.startswith("Pending")

    @property
    def is_in_service(self) -> bool:
        """Return whether the group counts it as serving."""
        return self.lifecycle_state == "InService"

    @property
    def is_warm(self) -> bool:
        """Return whether it is in the warm pool and stays there."""
        return self.lifecycle_state.startswith(WARM_PREFIX) and "Terminat" not in self.lifecycle_state

    @property
    def is_paid(self) -> bool:
        """Return whether it costs its price by the hour; a stopped one costs its volumes only."""
        return self.lifecycle_state not in _STOPPED


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """How many machines an Auto Scaling group wants, and may have."""

    desired: int
    minimum: int
    maximum: int


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """One pool at one moment.

    waiting, in_flight: messages, over both priorities; delayed ones wait.
    agents: those whose report is fresh. slots_per_instance: what an instance will have once its agent runs;
    slots_by_type: the same for instance types that have a number of their own.
    empty_slots: what an empty fleet counts as: one slot where the steps know how many a machine has, else a
    machine's slots.
    size: of the pool's group. is_blocked: no image was built yet, so that a new machine could never serve.
    """

    pool: Pool
    taken_at: float
    waiting: int
    in_flight: int
    slots_per_instance: int
    size: GroupSize = GroupSize(desired=0, minimum=0, maximum=0)
    agents: tuple[AgentReport, ...] = ()
    instances: tuple[Instance, ...] = ()
    is_blocked: bool = False
    slots_by_type: Mapping[str, int] = field(default_factory=dict)
    empty_slots: int = 1

    def slots_of(self, instance: Instance) -> int:
        """Return the slots that an instance has once its agent runs."""
        return self.slots_by_type.get(instance.instance_type, self.slots_per_instance)
