"""Makes an agent's parts from its settings and the clients that it is given."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scanfleet import contract
from scanfleet.agent import checks
from scanfleet.agent.lease import HeartbeatRules, Pulse
from scanfleet.agent.publication import Publication
from scanfleet.agent.release_keeper import KeeperRules, ReleaseKeeper
from scanfleet.agent.runner import Runner
from scanfleet.agent.self_check import SelfCheck, Suspendable
from scanfleet.agent.tools import Tools
from scanfleet.agent.transfer import Transfer
from scanfleet.agent.vitals import Allowances
from scanfleet.agent.watches import Watches
from scanfleet.agent.workspace import Scratch
from scanfleet.attempts import Machine
from scanfleet.calibration.machine import kind_of_machine, memory_bytes
from scanfleet.calibration.records import CalibrationStore
from scanfleet.calibration.slots import SlotChoice, choose_slots
from scanfleet.clients import Clients, HeartbeatClients
from scanfleet.dynamo import TableClock
from scanfleet.errors import Unavailable
from scanfleet.history import RunHistory
from scanfleet.jobs import Job
from scanfleet.leases import Leases
from scanfleet.log_groups import LogStream
from scanfleet.objects import ObjectStore
from scanfleet.processors.base import Processor
from scanfleet.processors.medit_autotest import PROGRAM
from scanfleet.queue import JobQueues
from scanfleet.releases import ReleaseStore
from scanfleet.releases_active import ActiveRelease
from scanfleet.releases_local import LocalReleases
from scanfleet.s3_uri import AllowedPrefixes
from scanfleet.settings import AgentSettings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient


def find_slots(settings: AgentSettings, client: "DynamoDBClient", *, instance_type: str) -> SlotChoice:
    """Return how many slots this machine has, and what says so. Read once: a start changes them.

    instance_type: empty outside of EC2. Without an answer from the table the default counts.
    """
    if settings.slots != contract.AUTO_SLOTS:
        return SlotChoice(settings.slots, "setting")
    kind = kind_of_machine(instance_type)
    try:
        known = CalibrationStore(client, settings.job_table).of(settings.pool)
    except Unavailable as error:
        return SlotChoice(contract.DEFAULT_SLOTS, f"default: no calibration could be read: {error}")
    return choose_slots(known, kind, memory_bytes=memory_bytes())


def build_tools(
    settings: AgentSettings,
    clients: Clients,
    pulse: Pulse,
    scratch: Scratch,
    processors: Mapping[str, Processor],
    *,
    machine: Machine | None = None,
    logs: "CloudWatchLogsClient | None" = None,
) -> Tools:
    """Return what attempts work with."""
    objects = ObjectStore(clients.s3)
    transfer = Transfer(objects, clients.credentials)
    return Tools(
        leases=build_leases(settings, clients.dynamodb),
        queues=JobQueues(clients.sqs, settings.queues, settings.dead_letters),
        objects=objects,
        transfer=transfer,
        publication=Publication(objects, transfer, artifacts_bucket=settings.artifacts_bucket),
        scratch=scratch,
        runner=Runner(grace=settings.stop_grace),
        processors=processors,
        allowed_prefixes=AllowedPrefixes(settings.allowed_prefixes),
        artifacts_bucket=settings.artifacts_bucket,
        pulse=pulse,
        new_watch=Watches(settings, objects, RunHistory(clients.dynamodb, settings.job_table)),
        machine=machine or Machine(slots=settings.slots),
        new_log_stream=partial(_log_stream, logs, settings.processor_log_group) if logs else None,
    )


def _log_stream(logs: "CloudWatchLogsClient", group: str, job: Job) -> LogStream:
    return LogStream(logs, group, contract.program_log_stream(job.job_id, job.attempt))


def build_pulse(settings: AgentSettings, clients: HeartbeatClients) -> Pulse:
    """Return what heartbeats work with: clients of their own, which give up soon."""
    return Pulse(
        leases=build_leases(settings, clients.dynamodb),
        queues=JobQueues(clients.sqs, settings.queues),
        rules=HeartbeatRules(
            every=timedelta(seconds=settings.heartbeat_seconds),
            lease=timedelta(seconds=settings.lease_seconds),
            visibility_seconds=settings.visibility_seconds,
            # A program that was asked to stop is not looked at during its grace.
            allowances=Allowances(look=contract.LOOK_STALL + settings.stop_grace),
        ),
    )


def build_leases(settings: AgentSettings, client: "DynamoDBClient") -> Leases:
    """Return the leases, timed by the table's clock: agents must agree on when one has run out."""
    return Leases(client, settings.job_table, lease_seconds=settings.lease_seconds, clock=TableClock(client))


def build_releases(settings: AgentSettings, folder: Path, s3: "S3Client", ssm: "SSMClient") -> ReleaseKeeper:
    """Return what keeps the release in the folder the stage's active one."""
    return ReleaseKeeper(
        LocalReleases(folder),
        ReleaseStore(s3, settings.release_bucket),
        ActiveRelease(ssm, settings.stage),
        pool=settings.pool,
        needed=(PROGRAM,),
        rules=KeeperRules(look=timedelta(seconds=settings.release_look_seconds)),
    )


def build_self_check(
    settings: AgentSettings,
    clients: Clients,
    worker: Suspendable,
    *,
    agent_id: str,
    scratch: Scratch,
    processors: Mapping[str, Processor],
    on_hopeless: Callable[[str], None],
) -> SelfCheck:
    """Return the checks of this machine; from now on the worker takes nothing before all have passed."""
    objects = ObjectStore(clients.s3)
    made = [
        checks.clock(clients.dynamodb, settings.job_table),
        checks.scratch(scratch),
        checks.disk(scratch.folder, min_free_bytes=settings.min_free_bytes),
        *([checks.gpu()] if settings.needs_gpu else []),
        *(checks.program(processor) for processor in processors.values()),
        checks.job_table(clients.dynamodb, settings.job_table),
        checks.queue(JobQueues(clients.sqs, settings.queues), settings.pool),
        checks.artifacts(objects, settings.artifacts_bucket, agent_id),
        checks.inputs(objects, AllowedPrefixes(settings.allowed_prefixes).folders[0]),
    ]
    return SelfCheck(worker, made, on_hopeless=on_hopeless)
