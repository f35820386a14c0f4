"""The controller's Lambda function: EventBridge Scheduler starts it each minute, and it stays that long.

Clients and what was learned stay from invocation to invocation; reserved concurrency 1 makes that one
process.
"""

import logging
import time
from datetime import timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

from scanfleet.agent_reports import AgentDirectory
from scanfleet.calibration.records import CalibrationStore
from scanfleet.calibration.slots import PoolSlots
from scanfleet.clients import build_log_levels_client
from scanfleet.contract import Component
from scanfleet.controller.controller import Controller
from scanfleet.controller.images import Images
from scanfleet.controller.minute import Minutes
from scanfleet.controller.publish import Publisher
from scanfleet.controller.rollout import Rollout
from scanfleet.controller.snapshot import Snapshots
from scanfleet.controller.templates import Templates
from scanfleet.fleet_reports import FleetDirectory
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import configure_logging
from scanfleet.prices import windows_prices
from scanfleet.queue import JobQueues
from scanfleet.settings import ControllerSettings, load

log = logging.getLogger(__name__)

CALLS = Config(
    connect_timeout=2,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 2},
    tcp_keepalive=True,
)
"""A sample that waits long is no sample: the next one is due in ten seconds."""


def handler(_event: object, context: Any) -> dict[str, int]:
    """Run one minute; return {"samples": how many}. context: Lambda's, which knows the time left."""
    controller, minutes = _process()
    count = minutes.run(
        remaining_seconds=lambda: context.get_remaining_time_in_millis() / 1000,
        after_first=controller.roll_out,
    )
    log.info("minute is over", extra={"action": "controller_minute", "samples": count})
    return {"samples": count}


def build_controller(settings: ControllerSettings, session: boto3.Session) -> Controller:
    """Return the controller with clients of its own."""
    autoscaling = session.client("autoscaling", config=CALLS)
    cloudwatch = session.client("cloudwatch", config=CALLS)
    ec2 = session.client("ec2", config=CALLS)
    queues = JobQueues(session.client("sqs", config=CALLS), settings.queues)
    dynamodb = session.client("dynamodb", config=CALLS)
    calibrated = PoolSlots(CalibrationStore(dynamodb, settings.job_table))
    snapshots = Snapshots(queues=queues, autoscaling=autoscaling, ec2=ec2, calibrated=calibrated)
    return Controller(
        fleets=settings.fleets,
        prices=windows_prices(autoscaling.meta.region_name, own=settings.hourly_prices),
        agents=AgentDirectory(dynamodb, settings.job_table),
        snapshots=snapshots,
        images=Images(session.client("ssm", config=CALLS), stage=settings.stage),
        rollout=Rollout(
            autoscaling=autoscaling, cloudwatch=cloudwatch, snapshots=snapshots, templates=Templates(ec2)
        ),
        publisher=Publisher(cloudwatch, stage=settings.stage),
        reports=FleetDirectory(dynamodb, settings.job_table),
        clock=time.time,
    )


@cache
def _process() -> tuple[Controller, Minutes]:
    settings = load(ControllerSettings)
    verbosity = configure_logging(Component.CONTROLLER, settings.log_level, stage=settings.stage)
    session = boto3.Session()
    controller = build_controller(settings, session)
    levels = LevelKeeper(
        LogLevelRules(lambda: build_log_levels_client(session=session), settings.stage),
        verbosity,
        component=Component.CONTROLLER,
        look_every=timedelta(seconds=settings.log_level_look_seconds),
    )

    def sample() -> None:
        controller.sample()
        levels.look_if_due()  # afterwards: scaling waits for nothing

    return controller, Minutes(sample, clock=time.time, sleep=time.sleep)
