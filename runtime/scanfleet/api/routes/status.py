"""`/status`: what health checks, routing and scaling read."""

from fastapi import APIRouter, Request

from scanfleet.agent_reports import AgentReport
from scanfleet.api.identity import Caller, CallerDep
from scanfleet.api.readiness import Readiness
from scanfleet.api.schemas import FleetLoad, InstanceLoad, Load, PoolLoad, Ready
from scanfleet.api.services import Services, ServicesDep
from scanfleet.contract import Pool, Route
from scanfleet.fleet_reports import FleetReport
from scanfleet.jobs import utc

router = APIRouter(tags=["status"])


@router.get(Route.HEALTH.value, summary="Whether the API can do its work")
def get_health(request: Request) -> Ready:
    """Return ready when job table, queues and buckets answer within 2 s; 503 says what does not."""
    readiness: Readiness = request.app.state.readiness
    readiness.check()
    return Ready()


@router.get(Route.LOAD.value, summary="Slots, busy, backlog, per pool and per agent")
def get_load(services: ServicesDep, caller: CallerDep) -> Load:
    """Return the load of every pool of the deployment and of every agent in service."""
    agents = services.agents.in_service()
    fleets = services.fleets.fresh()
    pools = {
        pool.value: _pool_load(pool, services, agents, fleets.get(pool)) for pool in services.queues.pools
    }
    return Load(pools=pools, instances=[_instance(agent, caller) for agent in agents])


def _pool_load(
    pool: Pool, services: Services, agents: tuple[AgentReport, ...], fleet: FleetReport | None
) -> PoolLoad:
    mine = [agent for agent in agents if agent.pool == pool]
    backlog = services.queues.backlog(pool)
    return PoolLoad(
        slots=sum(agent.slots for agent in mine if agent.takes_jobs),
        busy=sum(agent.busy for agent in mine),
        backlog=backlog.waiting,
        in_flight=backlog.in_flight,
        agents=len(mine),
        fleet=None if fleet is None else _fleet_load(fleet),
    )


def _fleet_load(fleet: FleetReport) -> FleetLoad:
    return FleetLoad(
        desired=fleet.desired,
        minimum=fleet.minimum,
        maximum=fleet.maximum,
        in_service=fleet.in_service,
        booting=fleet.booting,
        sampled=utc(fleet.sampled_at),
    )


def _instance(agent: AgentReport, caller: Caller) -> InstanceLoad:
    return InstanceLoad(
        agent_id=agent.agent_id,
        pool=agent.pool,
        instance_id=agent.instance_id,
        instance_type=agent.instance_type,
        ami_id=agent.ami_id,
        driver=agent.driver,
        booted=None if agent.booted_at is None else utc(agent.booted_at),
        slots=agent.slots,
        slots_from=agent.slots_from,
        busy=agent.busy,
        # Other callers' jobs are none of a caller's business, neither their ids nor how they failed.
        job_ids=agent.job_ids if caller.is_operator else (),
        started=utc(agent.started_at),
        seen=utc(agent.seen_at),
        takes_jobs=agent.takes_jobs,
        is_on_hold=agent.is_on_hold,
        is_stopping=agent.is_stopping,
        is_suspended=agent.is_suspended,
        why_suspended=agent.why_suspended if caller.is_operator else "",
        release=agent.release,
    )
