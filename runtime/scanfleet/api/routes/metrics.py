"""`GET /metrics`: Prometheus' text. docs/logging-and-metrics.md says what is in it, and what not on AWS."""

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response

from scanfleet.agent_reports import AgentReport
from scanfleet.api.identity import CallerDep
from scanfleet.api.problems import HttpProblem, documented
from scanfleet.api.services import Services, ServicesDep
from scanfleet.contract import Pool, Route
from scanfleet.metrics import CONTENT_TYPE, PROCESS, Gauge, exposition

router = APIRouter(tags=["operations"])


@router.get(
    Route.METRICS.value,
    summary="Counters and gauges for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(403),
    },
)
def get_metrics(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Return what this process has counted since its start, where one process serves on, and how every pool
    stands now. On AWS, where a function answers, only the latter. For operators.
    """
    if not caller.is_operator:
        raise HttpProblem(403, "only operators read metrics")
    lives_on = bool(getattr(request.app.state, "lives_on", False))
    text = exposition(pool_gauges(services), PROCESS if lives_on else None)
    return Response(text, media_type=CONTENT_TYPE)


def pool_gauges(services: Services) -> list[Gauge]:
    """Return how the pools stand now: one query of the agents, two reads a queue. Raises Unavailable."""
    agents = services.agents.in_service()
    pools = services.queues.pools
    backlogs = {pool: services.queues.backlog(pool) for pool in pools}

    def of(name: str, text: str, value: Callable[[Pool, Sequence[AgentReport]], float]) -> Gauge:
        values: dict[tuple[str, ...], float] = {
            (pool.value,): value(pool, [agent for agent in agents if agent.pool is pool]) for pool in pools
        }
        return Gauge(name, text, values, labels=("pool",))

    return [
        of("backlog", "Messages that wait in the pool's queues.", lambda p, _: backlogs[p].waiting),
        of("in_flight", "Messages that agents hold.", lambda p, _: backlogs[p].in_flight),
        of("slots", "Slots of agents in service.", lambda _, mine: sum(a.slots for a in mine)),
        of(
            "slots_taking_jobs",
            "Slots of agents that take jobs: they neither drain nor suspect their machine.",
            lambda _, mine: sum(a.slots for a in mine if a.takes_jobs),
        ),
        of("slots_busy", "Slots that run a job.", lambda _, mine: sum(a.busy for a in mine)),
        of("agents", "Agents whose report is fresh.", lambda _, mine: len(mine)),
    ]
