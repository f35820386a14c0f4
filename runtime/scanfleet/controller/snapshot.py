"""Gathers the facts of one pool: from SQS, the job table, Auto Scaling and EC2.

All or nothing: a pool whose facts are not complete is not decided on; its missing ControllerSamples say so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.agent_reports import AgentReport
from scanfleet.calibration.slots import PoolSlots
from scanfleet.contract import AUTO_SLOTS, DEFAULT_SLOTS, Pool
from scanfleet.controller.facts import GroupSize, Instance, PoolFacts
from scanfleet.errors import Unavailable
from scanfleet.queue import JobQueues
from scanfleet.settings import FleetSettings

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client

INSTANCES_A_CALL = 200
"""A filter takes at most 200 values. Source: EC2 API reference, "Filtering"."""


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn an AWS service's refusal or silence into Unavailable that says what was asked for."""
    try:
        yield
    except ClientError as error:
        raise Unavailable(f"{what}: {error.response.get('Error', {}).get('Code', '')}: {error}") from error
    except BotoCoreError as error:
        raise Unavailable(f"{what}: no answer: {error}") from error


class Snapshots:
    """Looks at pools. calibrated: what pools without a number of slots follow."""

    def __init__(
        self,
        *,
        queues: JobQueues,
        autoscaling: "AutoScalingClient",
        ec2: "EC2Client",
        calibrated: PoolSlots | None = None,
    ) -> None:
        self._calibrated = calibrated
        self._queues = queues
        self._autoscaling = autoscaling
        self._ec2 = ec2

    def take(
        self, pool: Pool, fleet: FleetSettings, *, agents: Sequence[AgentReport], now: float, is_blocked: bool
    ) -> PoolFacts:
        """Return the pool's facts. `agents`: the fresh reports of all pools. Raises Unavailable."""
        backlog = self._queues.backlog(pool)
        group = self.group(fleet.group)
        is_auto = fleet.slots == AUTO_SLOTS
        by_type = self._calibrated.by_machine(pool) if is_auto and self._calibrated is not None else {}
        return PoolFacts(
            pool=pool,
            taken_at=now,
            waiting=backlog.waiting,
            in_flight=backlog.in_flight,
            slots_per_instance=DEFAULT_SLOTS if is_auto else fleet.slots,
            slots_by_type=by_type,
            # The most that one may have: rather a machine too few, which the next look adds, than too many.
            empty_slots=max(by_type.values(), default=1),
            agents=tuple(agent for agent in agents if agent.pool is pool),
            size=GroupSize(
                desired=group["DesiredCapacity"], minimum=group["MinSize"], maximum=group["MaxSize"]
            ),
            instances=self._instances(group),
            is_blocked=is_blocked,
        )

    def group(self, name: str) -> dict[str, Any]:
        """Return the Auto Scaling group as AWS describes it. Raises Unavailable, also when there is none."""
        with answering(f"describe the group {name}"):
            found = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        if not found["AutoScalingGroups"]:
            raise Unavailable(f"there is no Auto Scaling group {name}")
        return dict(found["AutoScalingGroups"][0])

    def instances(self, name: str) -> tuple[Instance, ...]:
        """Return the machines of the group and of its warm pool. Raises Unavailable."""
        return self._instances(self.group(name))

    def _instances(self, group: dict[str, Any]) -> tuple[Instance, ...]:
        members = [*group.get("Instances", []), *self._warm(group)]
        starting = [
            m["InstanceId"] for m in members if m["LifecycleState"].startswith(("Pending", "InService"))
        ]
        launched = self._launch_times(starting)
        return tuple(_instance(member, launched.get(member["InstanceId"])) for member in members)

    def _warm(self, group: dict[str, Any]) -> list[Any]:
        if "WarmPoolConfiguration" not in group:
            return []
        name = group["AutoScalingGroupName"]
        with answering(f"describe the warm pool of {name}"):
            pages = self._autoscaling.get_paginator("describe_warm_pool").paginate(AutoScalingGroupName=name)
            return [member for page in pages for member in page["Instances"]]

    def _launch_times(self, ids: list[str]) -> dict[str, float]:
        """Return when each was last started: Auto Scaling does not say it, and a warm one starts anew.

        By filter, not by id: an id that EC2 does not know yet would fail the whole call.
        """
        found: dict[str, float] = {}
        for first in range(0, len(ids), INSTANCES_A_CALL):
            some = ids[first : first + INSTANCES_A_CALL]
            with answering("describe instances"):
                pages = self._ec2.get_paginator("describe_instances").paginate(
                    Filters=[{"Name": "instance-id", "Values": some}]
                )
                for page in pages:
                    for reservation in page["Reservations"]:
                        for machine in reservation["Instances"]:
                            found[machine["InstanceId"]] = machine["LaunchTime"].timestamp()
        return found


def _instance(member: dict[str, Any], launched_at: float | None) -> Instance:
    template = member.get("LaunchTemplate", {})
    version = template.get("Version")
    return Instance(
        instance_id=member["InstanceId"],
        instance_type=member.get("InstanceType", ""),
        lifecycle_state=member["LifecycleState"],
        launched_at=launched_at,
        template_id=template.get("LaunchTemplateId"),
        template_version=None if version is None else str(version),
        is_protected=member.get("ProtectedFromScaleIn", False),
    )
