"""This machine's calls to Auto Scaling about itself: protection, health, lifecycle hooks.

Every call raises Unavailable when Auto Scaling does not answer or refuses.
Source: Amazon EC2 Auto Scaling API reference.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from scanfleet.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient

NO_ACTION = "No active Lifecycle Action"
"""Part of the message of the ValidationError for a hook at which nothing waits."""
AT_MINIMUM = "min size constraint"
"""Part of the message of the ValidationError for an end that would make the group too small."""


class FleetMember:
    """One instance of one Auto Scaling group."""

    def __init__(self, client: "AutoScalingClient", *, fleet: str, instance_id: str) -> None:
        self._client = client
        self._fleet = fleet
        self._instance_id = instance_id

    def protect(self, is_protected: bool) -> None:
        """Switch protection from scale-in on or off; it works on instances in service only."""
        with _answering("scale-in protection"):
            self._client.set_instance_protection(
                AutoScalingGroupName=self._fleet,
                InstanceIds=[self._instance_id],
                ProtectedFromScaleIn=is_protected,
            )

    def set_unhealthy(self) -> None:
        """Have the group replace this instance now, whatever its health check grace period."""
        with _answering("instance health"):
            self._client.set_instance_health(
                InstanceId=self._instance_id, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False
            )

    def end_instance(self) -> bool:
        """End this instance and make the group smaller by it. False: the group is at its minimum size.

        The terminate hook applies, scale-in protection does not.
        Source: Amazon EC2 Auto Scaling API reference, TerminateInstanceInAutoScalingGroup.
        """
        with _answering("end of the instance", refusals=(AT_MINIMUM,)) as answer:
            self._client.terminate_instance_in_auto_scaling_group(
                InstanceId=self._instance_id, ShouldDecrementDesiredCapacity=True
            )
        return answer.was_accepted

    def heartbeat(self, hook: str) -> bool:
        """Start a waiting hook's time-out anew. False: nothing waits."""
        with _answering(f"heartbeat of hook {hook}") as answer:
            self._client.record_lifecycle_action_heartbeat(
                AutoScalingGroupName=self._fleet, LifecycleHookName=hook, InstanceId=self._instance_id
            )
        return answer.was_accepted

    def complete(self, hook: str) -> bool:
        """Let Auto Scaling go on after a hook. False: nothing waits, as somebody did it already."""
        with _answering(f"completion of hook {hook}") as answer:
            self._client.complete_lifecycle_action(
                AutoScalingGroupName=self._fleet,
                LifecycleHookName=hook,
                InstanceId=self._instance_id,
                LifecycleActionResult="CONTINUE",
            )
        return answer.was_accepted


class _Answer:
    was_accepted = True


@contextmanager
def _answering(what: str, refusals: tuple[str, ...] = (NO_ACTION,)) -> Iterator[_Answer]:
    """Turn silence and errors into Unavailable, but ValidationErrors with one of these texts into a no."""
    answer = _Answer()
    try:
        yield answer
    except ClientError as error:
        message = error.response.get("Error", {}).get("Message", "")
        if not any(refusal in message for refusal in refusals):
            raise Unavailable(f"{what}: {error}") from error
        answer.was_accepted = False
    except (BotoCoreError, ResponseParserError) as error:
        raise Unavailable(f"{what}: {error}") from error
