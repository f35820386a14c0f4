"""The sweeper of one machine: the code of the function on AWS, each minute, in a thread of the local process.

A thread, because most runs of `make run` end before its first look, and until then it costs nothing.
"""

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.credentials import Credentials

from scanfleet.clients import Clients
from scanfleet.contract import SWEEPER_PERIOD, Component
from scanfleet.local.background import Background
from scanfleet.local.deploy import DeployedSystem, emulator_client
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import JsonFormatter, Verbosity
from scanfleet.settings import SweeperSettings
from scanfleet.sweeper.sweeper import Sweeper, build_sweeper

LOGGERS = ("scanfleet.sweeper", "scanfleet.repairs", "scanfleet.store", "scanfleet.log_levels_keeper")
"""Whose lines go to the sweeper's log; the rest of this process talks to a terminal."""
CALLS = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2}, proxies={})


class LocalSweeper(Background):
    """Sweeps from `start` to `stop`, the first time after a period."""

    def __init__(
        self, deployed: DeployedSystem, *, log_file: Path, every: timedelta = SWEEPER_PERIOD
    ) -> None:
        super().__init__(name="sweeper", every=every)
        self._deployed = deployed
        self._log_file = log_file

    def _run(self) -> None:
        if self._end.wait(self._every_seconds):
            return
        handler = self._open_log()
        try:
            sweeper, levels = self._build(), self._level_keeper(handler)
            while True:
                levels.look_if_due()
                sweeper.run(is_time_up=self._end.is_set)
                if self._end.wait(self._every_seconds):
                    return
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(handler)
            handler.close()

    def _open_log(self) -> logging.Handler:
        handler = logging.FileHandler(self._log_file, encoding="utf-8")
        handler.setFormatter(JsonFormatter(Component.SWEEPER, stage=self._deployed.stage))
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(handler)
        return handler

    def _level_keeper(self, handler: logging.Handler) -> LevelKeeper:
        verbosity = Verbosity("INFO", loggers=LOGGERS)
        handler.addFilter(verbosity)
        rules = LogLevelRules(lambda: self._client("ssm"), self._deployed.stage)
        return LevelKeeper(rules, verbosity, component=Component.SWEEPER)

    def _build(self) -> Sweeper:
        deployed = self._deployed
        settings = SweeperSettings(
            stage=deployed.stage,
            job_table=deployed.job_table,
            queues={pool: dict(urls) for pool, urls in deployed.queues.items()},
            artifacts_bucket=deployed.artifacts_bucket,
        )
        clients = Clients(
            s3=self._client("s3"),
            sqs=self._client("sqs"),
            dynamodb=self._client("dynamodb"),
            credentials=Credentials("test", "test"),
        )
        return build_sweeper(clients, settings, clock=time.time)

    def _client(self, service: Any) -> Any:
        return emulator_client(service, self._deployed.endpoint_url, config=CALLS)
