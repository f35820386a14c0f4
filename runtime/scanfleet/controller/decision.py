"""From a pool's facts to the numbers that scale it. Pure: no clock, no service, no memory.

The exact meaning of each number is beside its name in `contract.Metric`.
"""

from collections.abc import Iterable, Mapping
from math import ceil, inf

from scanfleet.agent_reports import AgentReport
from scanfleet.contract import LAUNCH_HOOK_TIMEOUT, Metric
from scanfleet.controller.facts import Instance, PoolFacts
from scanfleet.fleet_reports import FleetReport


def decide(facts: PoolFacts) -> dict[Metric, float]:
    """Return every controller metric of the pool but the price."""
    in_service, booting = slots_in_service(facts.agents), slots_booting(facts)
    return {
        Metric.BACKLOG: facts.waiting,
        Metric.IN_FLIGHT: facts.in_flight,
        Metric.BACKLOG_PER_SLOT: 0.0
        if facts.is_blocked
        else backlog_per_slot(facts.waiting, in_service, empty=facts.empty_slots),
        Metric.SLOTS_IN_SERVICE: in_service,
        Metric.SLOTS_BOOTING: booting,
        Metric.SLOTS_BUSY: slots_busy(facts.agents),
        Metric.IDLE_INSTANCES: idle_instances(facts),
        Metric.INSTANCES: sum(instance.is_paid for instance in facts.instances),
        Metric.CONTROLLER_SAMPLES: 1,
    }


def fleet_report(facts: PoolFacts) -> FleetReport:
    """Return how the pool's machines stand, for whoever waits for one."""
    silent = [instance for instance in _silent_instances(facts) if not _is_overdue(instance, facts.taken_at)]
    launched = [instance.launched_at for instance in silent if instance.launched_at is not None]
    serving = {agent.instance_id or agent.agent_id for agent in facts.agents if not _is_waiting(agent)}
    return FleetReport(
        pool=facts.pool,
        desired=facts.size.desired,
        minimum=facts.size.minimum,
        maximum=facts.size.maximum,
        in_service=len(serving),
        booting=len(silent),
        booting_since=min(launched, default=None),
        is_blocked=facts.is_blocked,
        sampled_at=facts.taken_at,
    )


def backlog_per_slot(waiting: int, slots: int, *, empty: int = 1) -> float:
    """Return waiting jobs per slot.

    An empty fleet counts as `empty` slots, rounded up, so that one job is enough to scale out: with the slots
    of one machine that is how many machines the jobs would fill. Example: 12 waiting, 4 slots -> 3.0.
    Source: EC2 Auto Scaling guide, "Scaling policy based on Amazon SQS".
    """
    return waiting / slots if slots else float(ceil(waiting / empty))


def slots_in_service(agents: Iterable[AgentReport]) -> int:
    """Return the slots of agents that take jobs: others' would hold back a machine that could work."""
    return sum(agent.slots for agent in agents if agent.takes_jobs)


def slots_busy(agents: Iterable[AgentReport]) -> int:
    """Return the slots that run a job, on draining agents, too."""
    return sum(agent.busy for agent in agents)


def slots_booting(facts: PoolFacts) -> int:
    """Return the slots of instances that were launched and whose agent has not reported yet.

    An instance that stays silent stops counting after the launch hook's limit: what never comes must not hold
    back a launch that would help.
    """
    return sum(
        facts.slots_of(instance)
        for instance in _silent_instances(facts)
        if (instance.is_pending or instance.is_in_service) and not _is_overdue(instance, facts.taken_at)
    )


def idle_instances(facts: PoolFacts) -> int:
    """Return how many in-service instances the fleet could lose at once.

    Instances with a busy slot stay, and as many idle ones as the backlog fills. Those whose agent never came
    count as idle: nobody knows of work there. Protected ones never count, whatever they do: Auto Scaling
    would lower the desired capacity without taking any, again each minute, and collect once they are free.
    Source: EC2 Auto Scaling guide, "Use instance scale-in protection to control instance termination".
    """
    by_instance = _agents_by_instance(facts.agents)
    serving = [i for i in facts.instances if i.is_in_service and i.instance_id in by_instance]
    free_on_staying, free_on_idle = 0, []
    for instance in serving:
        agents = by_instance[instance.instance_id]
        free = max(0, slots_in_service(agents) - slots_busy(agents))
        if slots_busy(agents) or instance.is_protected:
            free_on_staying += free
        else:
            free_on_idle.append(free)
    never_came = sum(
        instance.is_in_service and not instance.is_protected and _is_overdue(instance, facts.taken_at)
        for instance in _silent_instances(facts)
    )
    return len(free_on_idle) - _kept(free_on_idle, facts.waiting - free_on_staying) + never_came


def fleet_cost_per_hour(instances: Iterable[Instance], prices: Mapping[str, float]) -> float | None:
    """Return the US dollars per hour of the instances that are paid for; None when a type has no price."""
    paid = [instance.instance_type for instance in instances if instance.is_paid]
    if any(kind not in prices for kind in paid):
        return None
    return round(sum(prices[kind] for kind in paid), 4)


def _kept(free_slots: list[int], waiting: int) -> int:
    """Return how many idle instances the waiting jobs need: the smallest first, so rather one too many."""
    kept = 0
    for free in sorted(free_slots):
        if waiting <= 0:
            break
        waiting -= free
        kept += 1
    return kept


def _agents_by_instance(agents: Iterable[AgentReport]) -> dict[str, list[AgentReport]]:
    found: dict[str, list[AgentReport]] = {}
    for agent in agents:
        if agent.instance_id and not _is_waiting(agent):
            found.setdefault(agent.instance_id, []).append(agent)
    return found


def _silent_instances(facts: PoolFacts) -> list[Instance]:
    """Return the launched instances without a fresh report.

    An agent that does not name its instance (another version's) speaks for one of them, the oldest first:
    that one neither boots nor idles.
    """
    known = _agents_by_instance(facts.agents)
    nameless = sum(not agent.instance_id and not _is_waiting(agent) for agent in facts.agents)
    silent = [i for i in facts.instances if (i.is_pending or i.is_in_service) and i.instance_id not in known]
    return sorted(silent, key=lambda instance: (instance.launched_at or inf, instance.instance_id))[nameless:]


def _is_waiting(agent: AgentReport) -> bool:
    """Return whether the agent reports, but its machine is still on its way into the group."""
    return agent.is_on_hold and not agent.busy


def _is_overdue(instance: Instance, now: float) -> bool:
    """Return whether its agent should have come long ago; one of unknown age was launched a moment ago."""
    return (
        instance.launched_at is not None and now - instance.launched_at > LAUNCH_HOOK_TIMEOUT.total_seconds()
    )
