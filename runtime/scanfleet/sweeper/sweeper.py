"""One run of the sweeper: the messages first, because jobs wait for them, then the staging area."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues
from scanfleet.settings import SweeperSettings
from scanfleet.store import JobStore
from scanfleet.sweeper.leftovers import StagingSweep
from scanfleet.sweeper.messages import MessageSweep
from scanfleet.sweeper.staging import StagingArea

if TYPE_CHECKING:
    from scanfleet.clients import Clients

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweeper:
    """What each run does. One object lives as long as its process: it remembers earlier runs' looks."""

    messages: MessageSweep
    staging: StagingSweep

    def run(self, *, is_time_up: Callable[[], bool]) -> int:
        """Repair what is found until the time is up; return how much. Logs what fails; raises nothing."""
        repairs = 0
        for sweep in (self.messages.run, self.staging.run):
            try:
                repairs += sweep(is_time_up)
            except Exception:
                log.exception("a sweep failed", extra={"action": "sweep_failed"})
        return repairs


def build_sweeper(clients: "Clients", settings: SweeperSettings, *, clock: Callable[[], float]) -> Sweeper:
    """Return a sweeper over these clients."""
    store = JobStore(clients.dynamodb, settings.job_table, clock=clock)
    area = StagingArea(ObjectStore(clients.s3), settings.artifacts_bucket)
    return Sweeper(
        messages=MessageSweep(store, JobQueues(clients.sqs, settings.queues), clock=clock),
        staging=StagingSweep(store, area, clock=clock),
    )
