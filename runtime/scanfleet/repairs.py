"""What is repaired when something died between two steps, told the same way whoever repairs it."""

import logging
from enum import StrEnum

from scanfleet.contract import Dimension, Metric, Pool
from scanfleet.telemetry import metrics

log = logging.getLogger(__name__)


class Repair(StrEnum):
    """Kinds of repairs. docs/sweeper.md says what each finds, and how."""

    NEVER_QUEUED = "never_queued"
    """The API recorded the job and died before it sent its message: the message is sent."""
    MESSAGE_LOST = "message_lost"
    """A queued job's message is gone (purged, expired, dead-lettered): another one is sent."""
    OWNER_DEAD = "owner_dead"
    """A job's agent is dead and its message is gone, too: another one is sent, and whoever takes it counts a
    lost machine."""
    STAGING_ORPHANED = "staging_orphaned"
    """An attempt that is over left staged results that nobody will publish: they are deleted."""
    UPLOAD_ORPHANED = "upload_orphaned"
    """An attempt that is over left an upload in parts that nobody will complete: it is aborted."""
    WORKSPACE_STALE = "workspace_stale"
    """An attempt that no longer runs left its folder on a machine: it is removed."""


def record_repair(repair: Repair, pool: Pool, **facts: object) -> None:
    """Log one repair, with its metric. facts: what was repaired, by the names that other lines use."""
    counted = metrics(
        {Metric.SWEEPER_REPAIRS: 1}, {Dimension.POOL: pool.value, Dimension.REPAIR: repair.value}
    )
    log.warning(
        "repaired: %s", repair, extra={"action": "repaired", "repair": repair.value, **facts, **counted}
    )
