"""How an API process logs, on one machine and on Lambda."""

from datetime import timedelta

import boto3
from ulid import ULID

from scanfleet.clients import build_log_levels_client, build_logs_client
from scanfleet.contract import Component
from scanfleet.log_groups import LogStream, send_job_events
from scanfleet.log_levels_keeper import LevelKeeper
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.log_setup import configure_logging
from scanfleet.settings import ApiSettings


def begin_logging(settings: ApiSettings, session: boto3.Session) -> LevelKeeper:
    """Begin to log as the settings say; return what heeds levels from outside, once it is told to look."""
    verbosity = configure_logging(Component.API, settings.log_level, stage=settings.stage)
    if settings.jobs_log_group:
        logs = build_logs_client(session=session)
        stream = LogStream(logs, settings.jobs_log_group, f"{Component.API}-{ULID()}")
        send_job_events(stream, stage=settings.stage, verbosity=verbosity)
    return LevelKeeper(
        LogLevelRules(lambda: build_log_levels_client(session=session), settings.stage),
        verbosity,
        component=Component.API,
        look_every=timedelta(seconds=settings.log_level_look_seconds),
    )
