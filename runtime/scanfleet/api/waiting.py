"""Why a queued job waits, in a sentence that tells its owner whether to act."""

from collections.abc import Sequence
from dataclasses import dataclass

from scanfleet import contract
from scanfleet.agent_reports import AgentReport
from scanfleet.api.services import Services
from scanfleet.errors import Unavailable
from scanfleet.fleet_reports import FleetReport
from scanfleet.jobs import Job, machine_to_avoid, retry_delay


@dataclass(frozen=True)
class Waiting:
    """Why a queued job waits; position: how many jobs go before it, None beyond what is counted."""

    why: str
    position: int | None


def waiting(job: Job, services: Services) -> Waiting:
    """Return what a queued job waits for, as the queue, the agents and the fleet tell it now."""
    position = _position(job, services)
    pause = _pause(job, services.clock())
    if pause is not None:
        return Waiting(pause, position)
    agents = [agent for agent in services.agents.in_service() if agent.pool == job.pool]
    serving = [agent for agent in agents if agent.takes_jobs]
    fleet = _fleet(job, services)
    if not serving:
        return Waiting(_nobody(job, agents, fleet, services.clock()), position)
    why = _busy_agents(job, serving, position, services)
    more = None if fleet is None or _free(serving) else _growth(fleet, services.clock())
    return Waiting(f"{why}; {more}" if more else why, position)


# --- Agents ------------------------------------------------------------------------------------------------


def _busy_agents(job: Job, serving: list[AgentReport], position: int | None, services: Services) -> str:
    avoided = machine_to_avoid(job, services.clock())
    others = [agent for agent in serving if agent.agent_id != avoided]
    if not others or len(others) == len(serving):
        return _slots(serving, f"of pool {job.pool}", position)
    left = job.queued_at + contract.OTHER_MACHINE_WAIT.total_seconds() - services.clock()
    wait = f"failed on {avoided}, so it waits up to {left:.0f} s for another machine"
    return f"{wait}: {_slots(others, 'there', position)}"


def _slots(agents: Sequence[AgentReport], where: str, position: int | None) -> str:
    slots, free = sum(agent.slots for agent in agents), _free(agents)
    if free:
        about = "an agent is about to take it" if not position else _before(position)
        return f"{free} of {slots} slots {where} are free; {about}"
    return f"all {slots} slots {where} are busy; {_before(position)}"


def _free(agents: Sequence[AgentReport]) -> int:
    return sum(max(0, agent.slots - agent.busy) for agent in agents)


def _before(position: int | None) -> str:
    if position is None:
        return "many jobs go before it"
    if position == 0:
        return "it is the next"
    return f"{_count(position, 'job goes', 'jobs go')} before it"


def _nobody(job: Job, agents: Sequence[AgentReport], fleet: FleetReport | None, now: float) -> str:
    """Return why no agent takes jobs: machines that are there, or that are not there yet."""
    why = _unwilling(job, agents)
    if fleet is None:
        return why
    return f"{why}; {_growth(fleet, now) or 'a machine is started for it within a minute or two'}"


def _unwilling(job: Job, agents: Sequence[AgentReport]) -> str:
    staying = [agent for agent in agents if not agent.is_stopping]
    if not agents:
        return f"no agent serves pool {job.pool}"
    if not staying:
        return f"every agent of pool {job.pool} is stopping"
    suspended = sum(agent.is_suspended for agent in staying)
    parts = []
    if suspended:
        parts.append(_count(suspended, "is suspected or being checked", "are suspected or being checked"))
    if suspended < len(staying):
        parts.append(_count(len(staying) - suspended, "is on hold", "are on hold"))
    return f"no agent of pool {job.pool} takes jobs now: {', '.join(parts)}"


# --- The fleet ---------------------------------------------------------------------------------------------


def _growth(fleet: FleetReport, now: float) -> str | None:
    """Return what the fleet does or cannot do about it; None: nothing that is worth a word."""
    if fleet.is_blocked:
        return "no image was built yet that its machines could start from"
    if fleet.booting:
        since = "" if fleet.booting_since is None else f", since {_minutes(now - fleet.booting_since)}"
        return f"{_count(fleet.booting, 'machine boots', 'machines boot')}{since}"
    if fleet.maximum == 0:
        return "its fleet may have no machine: its maximum is 0"
    if fleet.is_at_maximum:
        return f"its fleet has reached its maximum of {_count(fleet.maximum, 'machine', 'machines')}"
    return None


def _fleet(job: Job, services: Services) -> FleetReport | None:
    try:
        return services.fleets.fresh().get(job.pool)
    except Unavailable:
        return None  # the agents alone answer the question


def _minutes(seconds: float) -> str:
    return "less than a minute" if seconds < 60 else f"{seconds / 60:.0f} min"


# --- The job -----------------------------------------------------------------------------------------------


def _pause(job: Job, now: float) -> str | None:
    """Return that the job waits between two attempts, or None."""
    if job.failure is None or len(job.failures) <= job.failures_forgiven:
        return None
    before = job.model_copy(update={"failures": job.failures[:-1]})
    delay = retry_delay(before, job.failure.failure_class)
    left = 0.0 if delay is None else job.queued_at + delay.total_seconds() - now
    if left <= 0:
        return None
    return f"waits {left:.0f} s for its next attempt, after: {job.failure.reason}"


def _position(job: Job, services: Services) -> int | None:
    try:
        return services.positions.of(job)
    except Unavailable:
        return None  # the slots alone answer the question


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
