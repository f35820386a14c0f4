"""Why a queued job waits, in a sentence that tells its owner whether to act."""

from collections.abc import Sequence

from scanfleet import contract
from scanfleet.agent_reports import AgentReport
from scanfleet.api.services import Services
from scanfleet.errors import Unavailable
from scanfleet.jobs import Job, machine_to_avoid, retry_delay


def why_waiting(job: Job, services: Services) -> str:
    """Return what a queued job waits for, as the agents' reports and the queue tell it now."""
    pause = _pause(job, services.clock())
    if pause is not None:
        return pause
    agents = [agent for agent in services.agents.in_service() if agent.pool == job.pool]
    if not agents:
        return f"no agent serves pool {job.pool}"
    staying = [agent for agent in agents if not agent.is_stopping]
    if not staying:
        return f"every agent of pool {job.pool} is stopping"
    serving = [agent for agent in staying if agent.takes_jobs]
    if not serving:
        why = "their machines are suspected, on hold or being checked"
        return f"no agent of pool {job.pool} takes jobs now: {why}"
    avoided = machine_to_avoid(job, services.clock())
    others = [agent for agent in serving if agent.agent_id != avoided]
    if not others or len(others) == len(serving):
        return _slots(serving, f"of pool {job.pool}", job, services)
    left = job.queued_at + contract.OTHER_MACHINE_WAIT.total_seconds() - services.clock()
    wait = f"failed on {avoided}, so it waits up to {left:.0f} s for another machine"
    return f"{wait}: {_slots(others, 'there', job, services)}"


def _slots(agents: Sequence[AgentReport], where: str, job: Job, services: Services) -> str:
    slots = sum(agent.slots for agent in agents)
    busy = sum(min(agent.busy, agent.slots) for agent in agents)
    if busy < slots:
        return f"{slots - busy} of {slots} slots {where} are free; an agent is about to take it"
    return f"all {slots} slots {where} are busy{_others(job, services)}"


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


def _others(job: Job, services: Services) -> str:
    try:
        waiting = services.queues.backlog(job.pool).waiting
    except Unavailable:
        return ""  # the slots alone answer the question
    return f"; {waiting} {'job is' if waiting == 1 else 'jobs are'} waiting"
