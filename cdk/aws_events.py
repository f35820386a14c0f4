"""AWS's own events that operators are told about, each by a rule whose matches EventBridge counts."""

from typing import Any

from aws_cdk.aws_events import EventField, EventPattern, Match, Rule, RuleTargetInput
from aws_cdk.aws_events_targets import SnsTopic
from aws_cdk.aws_sns import ITopic
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import PRODUCT, Alarm, Pool, alarm_name, fleet_name


def image_failed_rule_name(stage: str) -> str:
    """Return the rule's name, by which its metric is found. Example: "scanfleet-dev-image-build-failed"."""
    return alarm_name(stage, Alarm.IMAGE_BUILD_FAILED)


def image_ready_rule_name(stage: str) -> str:
    """Return the rule's name. Example: "scanfleet-dev-image-ready"."""
    return f"{PRODUCT}-{stage}-image-ready"


def launch_failed_rule_name(stage: str, pool: Pool) -> str:
    """Return the rule's name. Example: "scanfleet-dev-windows-gpu-launch-failures"."""
    return alarm_name(stage, Alarm.LAUNCH_FAILURES, pool)


class AwsEvents(Construct):
    """Rules for image builds that end and for launches that fail; they tell the topic, with AWS's reason."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: DeploymentConfig, topic: ITopic
    ) -> None:
        super().__init__(scope, construct_id)
        self._stage, self._pools = config.stage, tuple(config.pools)
        self._topic = topic
        self._image_rule(
            "ImageFailed",
            name=image_failed_rule_name(config.stage),
            status="FAILED",
            says="failed",
            runbook=Alarm.IMAGE_BUILD_FAILED,
        )
        self._image_rule(
            "ImageReady",
            name=image_ready_rule_name(config.stage),
            status="AVAILABLE",
            says="is ready and rolls out",
            runbook=Alarm.ROLLOUT_FAILED,
        )
        for pool in config.pools:
            self._launch_rule(pool)

    def _image_rule(self, construct_id: str, *, name: str, status: str, says: str, runbook: Alarm) -> None:
        """Source: EventBridge reference, "EC2 Image Builder events"; Image Builder API, ImageState."""
        self._rule(
            construct_id,
            name=name,
            description=f"An image of {PRODUCT} {self._stage} {says}",
            pattern=EventPattern(
                source=["aws.imagebuilder"],
                detail_type=["EC2 Image Builder Image State Change"],
                # Recipes are named for the fleet that boots their images, and images for their recipe. By the
                # whole name: the stage dev must not hear of dev-2.
                resources=Match.any_of(
                    *(
                        Match.wildcard(f"arn:*:imagebuilder:*:image/{fleet_name(self._stage, pool)}/*")
                        for pool in self._pools
                    )
                ),
                detail={"state": {"status": [status]}},
            ),
            message=(
                f"{PRODUCT} {self._stage}: the image {EventField.from_path('$.resources[0]')} {says}. "
                f"See docs/runbook.md#{runbook}."
            ),
        )

    def _launch_rule(self, pool: Pool) -> None:
        """Source: EC2 Auto Scaling user guide, "Amazon EC2 Auto Scaling event reference"."""
        reason = EventField.from_path("$.detail.StatusMessage")
        self._rule(
            f"{pool}-LaunchFailed",
            name=launch_failed_rule_name(self._stage, pool),
            description=f"{fleet_name(self._stage, pool)} could not start an instance",
            pattern=EventPattern(
                source=["aws.autoscaling"],
                detail_type=["EC2 Instance Launch Unsuccessful"],
                detail={"AutoScalingGroupName": [fleet_name(self._stage, pool)]},
            ),
            message=(
                f"{fleet_name(self._stage, pool)}: an instance was not started: {reason} "
                f"See docs/runbook.md#{Alarm.LAUNCH_FAILURES}."
            ),
        )

    def _rule(
        self, construct_id: str, *, name: str, description: str, pattern: EventPattern, message: Any
    ) -> None:
        rule = Rule(self, construct_id, rule_name=name, description=description, event_pattern=pattern)
        rule.add_target(SnsTopic(self._topic, message=RuleTargetInput.from_text(message)))
