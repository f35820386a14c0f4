"""Why a queued job waits, in a sentence that tells its owner whether to act."""

from scanfleet.api.services import Services
from scanfleet.errors import Unavailable
from scanfleet.jobs import Job, retry_delay


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
    serving = [agent for agent in staying if not agent.is_suspended]
    if not serving:
        return f"no agent of pool {job.pool} takes jobs now: their machines are suspected or being checked"
    slots = sum(agent.slots for agent in serving)
    busy = sum(min(agent.busy, agent.slots) for agent in serving)
    if busy < slots:
        return f"{slots - busy} of {slots} slots of pool {job.pool} are free; an agent is about to take it"
    return f"all {slots} slots of pool {job.pool} are busy{_others(job, services)}"


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
