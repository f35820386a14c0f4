"""Rolls a new image or a new launch template out to running machines, by instance refresh.

What is done when, and why: docs/decisions/0034-rollouts-by-numbered-image.md.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from scanfleet.contract import INSTANCE_WARM_UP, Pool
from scanfleet.controller.facts import Instance
from scanfleet.controller.images import Image
from scanfleet.controller.snapshot import Snapshots, answering
from scanfleet.controller.templates import Templates, TemplateVersion, template_of
from scanfleet.errors import Unavailable
from scanfleet.settings import FleetSettings

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_autoscaling.type_defs import DesiredConfigurationTypeDef, RefreshPreferencesTypeDef
    from mypy_boto3_cloudwatch import CloudWatchClient

log = logging.getLogger(__name__)

RUNNING = frozenset({"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"})
UNSUCCESSFUL = frozenset({"Failed", "Cancelled", "RollbackFailed", "RollbackSuccessful"})
"""Source: EC2 Auto Scaling API reference, InstanceRefresh: Status."""
MIN_HEALTHY_PERCENT = 100
MAX_HEALTHY_PERCENT = 110
"""A new machine is ready before an old one goes, and a tenth of the fleet at a time: GPU quotas are small."""
BAKE_TIME = timedelta(minutes=10)
"""After the last replacement the alarms are watched this long before the rollout counts as done."""
REPEAT_AFTER = timedelta(minutes=15)
"""A successful refresh is not repeated sooner for machines that still do not match."""


class Outcome(StrEnum):
    """What one look at a pool's rollout came to."""

    BLOCKED = "blocked"
    """No image was built yet."""
    DONE = "done"
    """Group and machines are at what they should run."""
    RUNNING = "running"
    """A refresh runs, whoever started it."""
    WAITS = "waits"
    """The last refresh ended a moment ago: a new one would do nothing."""
    FAILED = "failed"
    """The last refresh to what the fleet should run did not succeed. Nothing starts until that changes."""
    STARTED = "started"


class Rollout:
    """Starts instance refreshes. Reads everything anew each time: Auto Scaling remembers, not this."""

    def __init__(
        self,
        *,
        autoscaling: "AutoScalingClient",
        cloudwatch: "CloudWatchClient",
        snapshots: Snapshots,
        templates: Templates,
    ) -> None:
        self._autoscaling = autoscaling
        self._cloudwatch = cloudwatch
        self._snapshots = snapshots
        self._templates = templates

    def advance(self, pool: Pool, fleet: FleetSettings, image: Image | None, *, now: float) -> Outcome:
        """Start the refresh that the pool needs, if any, and return how things stand. Raises Unavailable."""
        if image is None or not image.is_built:
            return Outcome.BLOCKED
        group = self._snapshots.group(fleet.group)
        present = template_of(group)
        wanted = self._templates.wanted(present.template_id, ami_id=image.ami_id, now=now)
        instances = self._snapshots.instances(fleet.group)
        if present == wanted and not _stale(instances, wanted):
            return Outcome.DONE
        refreshes = self._refreshes(fleet.group)
        facts = {
            "pool": pool,
            "group": fleet.group,
            "template_version": wanted.version,
            "ami_id": image.ami_id,
        }
        if (reason := _reason_not_to_start(refreshes, wanted, now=now)) is not None:
            if reason is Outcome.FAILED:
                log.error("the last rollout failed", extra={"action": "rollout_failed", **facts})
            return reason
        ringing, quiet = self._alarms(fleet.rollback_alarms)
        if ringing:  # they tell of what runs now, perhaps of the very fault that the new version repairs
            unwatched = {"action": "rollout_unwatched", "alarms": ringing}
            log.warning("alarms ring already: they cannot judge the rollout", extra={**unwatched, **facts})
        can_roll_back = present != wanted and self._templates.has_numbered_image(present)
        refresh_id = self._start(
            group,
            wanted,
            _preferences(can_roll_back=can_roll_back, alarms=quiet, has_instances=bool(instances)),
        )
        log.info(
            "rollout started",
            extra={
                "action": "rollout_started",
                "refresh_id": refresh_id,
                "can_roll_back": can_roll_back,
                **facts,
            },
        )
        return Outcome.STARTED

    def _start(
        self, group: Mapping[str, Any], wanted: TemplateVersion, preferences: "RefreshPreferencesTypeDef"
    ) -> str:
        with answering(f"start an instance refresh of {group['AutoScalingGroupName']}"):
            return self._autoscaling.start_instance_refresh(
                AutoScalingGroupName=group["AutoScalingGroupName"],
                Strategy="Rolling",
                DesiredConfiguration=desired_configuration(group, wanted),
                Preferences=preferences,
            )["InstanceRefreshId"]

    def _refreshes(self, group: str) -> list[Mapping[str, Any]]:
        """Return the group's refreshes of the last weeks, newest first."""
        with answering(f"describe the instance refreshes of {group}"):
            found = self._autoscaling.describe_instance_refreshes(AutoScalingGroupName=group, MaxRecords=100)
        never = datetime.max.replace(tzinfo=UTC)  # one that has not begun yet is the newest
        return sorted(found["InstanceRefreshes"], key=lambda r: r.get("StartTime", never), reverse=True)

    def _alarms(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the alarms that ring and those that do not; those that do not exist are in neither.

        Metric alarms only: composite ones are shown to those alone who may see every alarm of every region.
        Source: CloudWatch API reference, DescribeAlarms.
        """
        if not names:
            return [], []
        with answering("describe the rollback alarms"):
            found = self._cloudwatch.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm"])
        states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in found.get("MetricAlarms", [])}
        if missing := sorted(set(names) - set(states)):
            log.warning("no such alarm", extra={"action": "rollback_alarm_missing", "alarms": missing})
        ringing = sorted(name for name, state in states.items() if state == "ALARM")
        return ringing, sorted(set(states) - set(ringing))


def desired_configuration(group: Mapping[str, Any], wanted: TemplateVersion) -> "DesiredConfigurationTypeDef":
    """Return the group's own configuration with `wanted` as its launch template."""
    chosen = {"LaunchTemplateId": wanted.template_id, "Version": wanted.version}
    policy = group.get("MixedInstancesPolicy")
    if policy is None:
        return cast("DesiredConfigurationTypeDef", {"LaunchTemplate": chosen})
    template = {**policy["LaunchTemplate"], "LaunchTemplateSpecification": chosen}
    return cast(
        "DesiredConfigurationTypeDef", {"MixedInstancesPolicy": {**policy, "LaunchTemplate": template}}
    )


def _preferences(
    *, can_roll_back: bool, alarms: list[str], has_instances: bool
) -> "RefreshPreferencesTypeDef":
    preferences: RefreshPreferencesTypeDef = {
        "MinHealthyPercentage": MIN_HEALTHY_PERCENT,
        "MaxHealthyPercentage": MAX_HEALTHY_PERCENT,
        "InstanceWarmup": int(INSTANCE_WARM_UP.total_seconds()),
        "SkipMatching": True,
        "ScaleInProtectedInstances": "Refresh",
        "StandbyInstances": "Ignore",
        "AutoRollback": can_roll_back,
    }
    if alarms:
        preferences["AlarmSpecification"] = {"Alarms": alarms}
    if (
        has_instances
    ):  # an empty fleet shows nothing that could be watched, and its next machine should be new
        preferences["BakeTime"] = int(BAKE_TIME.total_seconds())
    return preferences


def _stale(instances: Iterable[Instance], wanted: TemplateVersion) -> bool:
    return any(
        (instance.is_in_service or instance.is_warm)
        and TemplateVersion(instance.template_id or "", instance.template_version or "") != wanted
        for instance in instances
    )


def _reason_not_to_start(
    refreshes: Sequence[Mapping[str, Any]], wanted: TemplateVersion, *, now: float
) -> Outcome | None:
    """Return why no refresh to `wanted` may start now; None when one may. `refreshes`: newest first."""
    if any(refresh["Status"] in RUNNING for refresh in refreshes):
        return Outcome.RUNNING
    last = next((refresh for refresh in refreshes if _target(refresh) == wanted), None)
    if last is None:
        return None
    if last["Status"] in UNSUCCESSFUL:
        return Outcome.FAILED
    ended = last.get("EndTime")
    is_recent = ended is not None and now - ended.timestamp() < REPEAT_AFTER.total_seconds()
    return Outcome.WAITS if is_recent else None


def _target(refresh: Mapping[str, Any]) -> TemplateVersion | None:
    try:
        return template_of(refresh.get("DesiredConfiguration") or {})
    except Unavailable:
        return None  # an operator's refresh without a desired configuration
