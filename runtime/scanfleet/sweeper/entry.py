"""The sweeper's Lambda function: EventBridge Scheduler starts it each minute.

Clients and what was seen stay from invocation to invocation while the process lives.
"""

import time
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from scanfleet.clients import build_clients, build_heartbeat_clients, build_log_levels_client
from scanfleet.contract import Component
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import configure_logging
from scanfleet.settings import SweeperSettings, load
from scanfleet.sweeper.sweeper import Sweeper, build_sweeper

KEPT_BACK_MS = 15_000
"""No further repair begins with less time left: enough for one whose services answer late."""


def handler(_event: object, context: Any) -> dict[str, int]:
    """Sweep once; return {"repairs": how many}. context: Lambda's, which knows the time left."""
    sweeper, levels = _process()
    levels.look_if_due()
    repairs = sweeper.run(is_time_up=lambda: context.get_remaining_time_in_millis() < KEPT_BACK_MS)
    return {"repairs": repairs}


@cache
def _process() -> tuple[Sweeper, LevelKeeper]:
    settings = load(SweeperSettings)
    verbosity = configure_logging(Component.SWEEPER, settings.log_level, stage=settings.stage)
    # The heartbeat's clients give up soon: one service that is silent must not use up the others' time.
    quick = build_heartbeat_clients()
    clients = replace(build_clients(max_connections=4), sqs=quick.sqs, dynamodb=quick.dynamodb)
    levels = LevelKeeper(
        LogLevelRules(build_log_levels_client, settings.stage),
        verbosity,
        component=Component.SWEEPER,
        look_every=timedelta(seconds=settings.log_level_look_seconds),
    )
    return build_sweeper(clients, settings, clock=time.time), levels
