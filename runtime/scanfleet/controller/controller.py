"""The controller: samples every pool, and once a minute looks after its rollout.

One pool's failure is logged and leaves the others alone; its ControllerSamples are then missing, which
alarms.
"""

import logging
from collections.abc import Callable, Mapping

from scanfleet.agent_reports import AgentDirectory
from scanfleet.contract import Metric, Pool
from scanfleet.controller.decision import decide, fleet_cost_per_hour, fleet_report
from scanfleet.controller.facts import PoolFacts
from scanfleet.controller.images import Image, Images
from scanfleet.controller.publish import Publisher, Sample
from scanfleet.controller.rollout import Outcome, Rollout
from scanfleet.controller.snapshot import Snapshots
from scanfleet.errors import Unavailable
from scanfleet.fleet_reports import FleetDirectory
from scanfleet.settings import FleetSettings

log = logging.getLogger(__name__)


class Controller:
    """Everything that the fleets of one stage need to be scaled and rolled out."""

    def __init__(
        self,
        *,
        fleets: Mapping[Pool, FleetSettings],
        prices: Mapping[str, float],
        agents: AgentDirectory,
        snapshots: Snapshots,
        images: Images,
        rollout: Rollout,
        publisher: Publisher,
        reports: FleetDirectory,
        clock: Callable[[], float],
    ) -> None:
        self._fleets = fleets
        self._prices = prices
        self._agents = agents
        self._snapshots = snapshots
        self._images = images
        self._rollout = rollout
        self._publisher = publisher
        self._reports = reports
        self._clock = clock
        self._built: dict[Pool, bool] = {}
        self._unpriced: set[str] = set()

    def sample(self) -> None:
        """Publish one sample of each pool. Logs what fails; raises nothing."""
        taken = [facts for pool in self._fleets if (facts := self._facts_of(pool)) is not None]
        samples = [sample for facts in taken if (sample := self._sample_of(facts)) is not None]
        try:
            self._publisher.publish(samples)
        except Unavailable as error:
            log.error("samples not published: %s", error, extra={"action": "publish_failed"})
        for facts in taken:  # afterwards: scaling waits for nobody who only wants to know
            self._report(facts)

    def roll_out(self) -> None:
        """Look at each pool's image and rollout, and publish how it stands.

        Logs what fails; raises nothing.
        """
        samples = []
        for pool, fleet in self._fleets.items():
            try:
                outcome = self._rollout.advance(pool, fleet, self._image(pool), now=self._clock())
            except Unavailable as error:
                log.error("no rollout: %s", error, extra={"action": "rollout_not_checked", "pool": pool})
            except Exception:
                log.exception("no rollout", extra={"action": "rollout_not_checked", "pool": pool})
            else:
                if outcome is Outcome.BLOCKED:
                    log.warning("no image was built yet", extra={"action": "fleet_blocked", "pool": pool})
                values = {Metric.ROLLOUT_FAILED: float(outcome is Outcome.FAILED)}
                samples.append(Sample(pool=pool, taken_at=self._clock(), values=values))
        try:
            self._publisher.publish(samples)
        except Unavailable as error:
            log.error("rollouts not published: %s", error, extra={"action": "publish_failed"})

    def _facts_of(self, pool: Pool) -> PoolFacts | None:
        try:
            return self._snapshots.take(
                pool,
                self._fleets[pool],
                agents=self._agents.in_service(),
                now=self._clock(),
                is_blocked=self._is_blocked(pool),
            )
        except Unavailable as error:
            log.error("pool not sampled: %s", error, extra={"action": "sample_failed", "pool": pool})
        except Exception:
            log.exception("pool not sampled", extra={"action": "sample_failed", "pool": pool})
        return None

    def _sample_of(self, facts: PoolFacts) -> Sample | None:
        try:
            values = decide(facts) | self._price(facts)
        except Exception:
            log.exception("pool not sampled", extra={"action": "sample_failed", "pool": facts.pool})
            return None
        return Sample(pool=facts.pool, taken_at=facts.taken_at, values=values)

    def _report(self, facts: PoolFacts) -> None:
        """Write how the fleet stands, for whoever waits. What fails is logged: scaling does not need it."""
        try:
            self._reports.put(fleet_report(facts))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next sample must come
            told = {"action": "fleet_not_reported", "pool": facts.pool}
            log.warning("fleet not reported: %r", error, extra=told)

    def _is_blocked(self, pool: Pool) -> bool:
        """Return whether the pool's machines could not serve. Once an image is there, one always is."""
        if not self._built.get(pool):
            self._image(pool)
        return not self._built[pool]

    def _image(self, pool: Pool) -> Image | None:
        image = self._images.of(pool)
        self._built[pool] = image is None or image.is_built
        return image

    def _price(self, facts: PoolFacts) -> dict[Metric, float]:
        cost = fleet_cost_per_hour(facts.instances, self._prices)
        if cost is not None:
            return {Metric.FLEET_COST_PER_HOUR: cost}
        unknown = {i.instance_type for i in facts.instances if i.is_paid} - set(self._prices) - self._unpriced
        for kind in sorted(unknown):
            log.warning("no price of %s", kind, extra={"action": "price_unknown", "instance_type": kind})
        self._unpriced |= unknown
        return {}
