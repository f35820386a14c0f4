"""Faults of machines: agents and clocks and disks, and what EC2 does to instances."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.faults.agents import Agent, Agents
from tests.faults.plan import PlannedFault
from tests.faults.release_switches import ReleaseSwitches

if TYPE_CHECKING:
    from tests.support.instance_metadata import FakeMetadata

At = Callable[[float, Callable[[], None]], None]
"""Does something so many seconds from now."""


class MachineFaults:
    """Carries out one fault at one agent; says whether anything was hit."""

    def __init__(self, agents: Agents, releases: ReleaseSwitches) -> None:
        self._agents = agents
        self._releases = releases
        self._acts: dict[str, Callable[[PlannedFault, Agent, At], bool]] = {
            "agent_killed": lambda fault, agent, at: agents.kill(agent),
            "agent_frozen": lambda fault, agent, at: self._freeze(fault, agent, at, whole=False),
            "machine_frozen": lambda fault, agent, at: self._freeze(fault, agent, at, whole=True),
            "service_stop": lambda fault, agent, at: agents.drain(agent),
            "spot_notice": self._spot_notice,
            "terminate": self._terminate,
            "clock_jump": self._clock_jump,
            "disk_full": self._disk_full,
            "release_switch": self._switch_release,
        }

    def __call__(self, fault: PlannedFault, job_id: str, agent: Agent, at: At) -> bool:
        """Let it happen."""
        return self._acts[fault.kind](fault, agent, at)

    def _freeze(self, fault: PlannedFault, agent: Agent, at: At, *, whole: bool) -> bool:
        wake = self._agents.freeze(agent, whole_machine=whole)
        if wake is None:
            return False
        at(fault.seconds, wake)
        return True

    def _spot_notice(self, fault: PlannedFault, agent: Agent, at: At) -> bool:
        when = datetime.now(UTC) + timedelta(seconds=2 + 3 * fault.luck)

        def tell(metadata: "FakeMetadata") -> None:
            metadata.take_back(when.strftime("%Y-%m-%dT%H:%M:%SZ"))

        return self._agents.lose_machine(agent, tell)

    def _terminate(self, fault: PlannedFault, agent: Agent, at: At) -> bool:
        return self._agents.lose_machine(agent, lambda metadata: metadata.want("Terminated"))

    def _clock_jump(self, fault: PlannedFault, agent: Agent, at: At) -> bool:
        """Jump by some seconds, and back after a while, as time servers make clocks do."""
        agent.set_clock(fault.seconds)
        at(3.0 + 5 * fault.luck, lambda: agent.set_clock(0.0))
        return True

    def _switch_release(self, fault: PlannedFault, agent: Agent, at: At) -> bool:
        """Activate another release; one time in three name a damaged one first."""
        if fault.luck < 1 / 3:
            self._releases.damage()
            at(2.0, self._releases.switch)
        else:
            self._releases.switch()
        return True

    def _disk_full(self, fault: PlannedFault, agent: Agent, at: At) -> bool:
        if not agent.scratch.is_small:
            return False
        agent.scratch.fill()
        at(1.0 + 2 * fault.luck, agent.scratch.free)
        return True
