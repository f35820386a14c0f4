"""The lifecycle calls that moto lacks, and a refusal, on a real boto3 client by the documented rules.

Rules, from the EC2 Auto Scaling API reference (CompleteLifecycleAction, RecordLifecycleActionHeartbeat): an
action that waits is known by group, hook and instance; its completion ends it; anything else is a
ValidationError. An instance whose end would make the group smaller than its minimum is not ended
(TerminateInstanceInAutoScalingGroup).
"""

from collections.abc import Callable
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse

Action = tuple[str, str, str]


class LifecycleActions:
    """waiting: actions as (group, hook, instance); completed, kept_alive: those that calls reached.

    is_down: Auto Scaling does not answer, these calls and those that moto knows.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.waiting: set[Action] = set()
        self.completed: list[Action] = []
        self.kept_alive: list[Action] = []
        self.is_down = False
        events = client.meta.events
        events.register("before-call.auto-scaling.CompleteLifecycleAction", self._answer(self._complete))
        events.register("before-call.auto-scaling.RecordLifecycleActionHeartbeat", self._answer(self._keep))

        for call in ("SetInstanceProtection", "SetInstanceHealth", "TerminateInstanceInAutoScalingGroup"):
            events.register(f"before-call.auto-scaling.{call}", self._pass_unless_down)
        end = "before-call.auto-scaling.TerminateInstanceInAutoScalingGroup"
        events.register(end, self._keep_minimum)

    def _keep_minimum(self, params: dict[str, Any], **_: Any) -> Any:
        if params["body"]["ShouldDecrementDesiredCapacity"] != "true":
            return None
        for group in self._client.describe_auto_scaling_groups()["AutoScalingGroups"]:
            ids = [instance["InstanceId"] for instance in group["Instances"]]
            if params["body"]["InstanceId"] in ids and group["DesiredCapacity"] <= group["MinSize"]:
                message = (
                    f"Currently, desiredSize equals minSize ({group['MinSize']})."
                    " Terminating instance without replacement will violate group's min size constraint."
                )
                return _refusal(400, "ValidationError", message)
        return None

    def _pass_unless_down(self, **_: Any) -> Any:
        return _refusal(500, "InternalFailure", "down") if self.is_down else None

    def _answer(self, act: Callable[[Action, dict[str, str]], None]) -> Callable[..., Any]:
        def before_call(params: dict[str, Any], **_: Any) -> Any:
            body = params["body"]
            action = (body["AutoScalingGroupName"], body["LifecycleHookName"], body["InstanceId"])
            if self.is_down:
                return _refusal(500, "InternalFailure", "down")
            if action not in self.waiting:
                message = f"No active Lifecycle Action found with instance ID {action[2]}"
                return _refusal(400, "ValidationError", message)
            act(action, body)
            return AWSResponse("", 200, {}, None), {"ResponseMetadata": {"HTTPStatusCode": 200}}

        return before_call

    def _complete(self, action: Action, body: dict[str, str]) -> None:
        assert body["LifecycleActionResult"] in ("CONTINUE", "ABANDON")
        self.waiting.remove(action)
        self.completed.append(action)

    def _keep(self, action: Action, body: dict[str, str]) -> None:
        self.kept_alive.append(action)


def _refusal(status: int, code: str, message: str) -> Any:
    error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return AWSResponse("", status, {}, None), error


def create_group(session: boto3.Session, name: str) -> str:
    """Create an Auto Scaling group of one instance in moto, and return the instance's id."""
    ec2, autoscaling = session.client("ec2"), session.client("autoscaling")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    facts = {"LaunchConfigurationName": name, "ImageId": image, "InstanceType": "g4dn.xlarge"}
    autoscaling.create_launch_configuration(**facts)
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=1,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
    )
    (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return str(group["Instances"][0]["InstanceId"])
