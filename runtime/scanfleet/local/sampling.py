"""The controller's samples of one machine: its rules and its publisher, each SAMPLE_PERIOD, in a thread.

Here is no Auto Scaling group, so each agent counts as one instance of its pool that is in service. What the
controller does beyond sampling (prices, rollouts, booting machines) has no meaning here.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import SAMPLE_PERIOD, Metric, Pool
from scanfleet.controller.decision import decide
from scanfleet.controller.facts import Instance, PoolFacts
from scanfleet.controller.publish import Publisher, Sample
from scanfleet.errors import Unavailable
from scanfleet.local.background import Background
from scanfleet.queue import JobQueues

log = logging.getLogger(__name__)


class LocalSampler(Background):
    """Samples every pool that has queues, from `start` to `stop`. connect: makes the clients, when needed."""

    def __init__(
        self,
        connect: Callable[[], tuple[JobQueues, AgentDirectory, Publisher]],
        *,
        every: timedelta = SAMPLE_PERIOD,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name="sampler", every=every)
        self._connect = connect
        self._clock = clock
        self._is_failing = False

    def _run(self) -> None:
        queues, agents, publisher = self._connect()
        while not self._end.wait(self._every_seconds - self._clock() % self._every_seconds):
            try:
                publisher.publish(self._samples(queues, agents.in_service()))
            except Unavailable as error:
                if not self._is_failing:  # once, not every ten seconds
                    log.warning("pools not sampled: %s", error, extra={"action": "sample_failed"})
                self._is_failing = True
            else:
                self._is_failing = False

    def _samples(self, queues: JobQueues, agents: Sequence[AgentReport]) -> list[Sample]:
        now = self._clock()
        return [
            Sample(pool=pool, taken_at=now, values=sampled(pool, queues, agents, now=now))
            for pool in queues.pools
        ]


def sampled(
    pool: Pool, queues: JobQueues, agents: Sequence[AgentReport], *, now: float
) -> dict[Metric, float]:
    """Return the controller's numbers of a pool whose agents are its instances. Raises Unavailable."""
    mine = tuple(_as_instance(agent) for agent in agents if agent.pool is pool)
    backlog = queues.backlog(pool)
    instances = tuple(
        Instance(instance_id=agent.instance_id, instance_type="", lifecycle_state="InService")
        for agent in mine
    )
    return decide(
        PoolFacts(
            pool=pool,
            taken_at=now,
            waiting=backlog.waiting,
            in_flight=backlog.in_flight,
            slots_per_instance=1,
            agents=mine,
            instances=instances,
        )
    )


def _as_instance(agent: AgentReport) -> AgentReport:
    return agent.model_copy(update={"instance_id": agent.agent_id})
