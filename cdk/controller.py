"""The fleet controller: a function that EventBridge Scheduler starts each minute, and what it may do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from aws_cdk import ArnFormat, Stack
from aws_cdk.aws_iam import IRole, Role
from aws_cdk.aws_lambda import Function
from constructs import Construct

from cdk.function_schedule import start_every
from cdk.grants import allow, allow_own_key
from cdk.lambda_function import DependenciesLayer, scanfleet_function
from cdk.system import System
from scanfleet.contract import (
    AGENTS_PARTITION,
    CALIBRATION_PARTITIONS,
    CONTROLLER_PERIOD,
    FLEETS_PARTITION,
    Alarm,
    Component,
    Env,
    Parameter,
    Pool,
    alarm_name,
    fleet_name,
    metric_namespace,
    parameter_name,
)

HANDLER = "scanfleet.controller.entry.handler"
MEMORY_MIB = 256
"""Six SDK clients and their answers take about half of it; twice the memory costs twice."""
TIMEOUT = CONTROLLER_PERIOD + timedelta(seconds=15)
"""An invocation ends by itself within its minute; this is for one whose last sample meets silent services."""
ROLLBACK_ALARMS = (Alarm.BOOT_FAILURES, Alarm.FAILURE_RATE, Alarm.HANG_RATE)
"""What takes a rollout back."""
_TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")
"""What a launch makes."""


@dataclass(frozen=True, kw_only=True)
class ControlledFleet:
    """One pool's machines, as the stack that makes them knows them. agent_role: what they run as."""

    pool: Pool
    launch_template_id: str
    agent_role: IRole
    subnet_ids: Sequence[str]
    security_group_id: str


class Controller(Construct):
    """Samples the queues, the agents and the machines of every fleet, and rolls images out.

    One invocation at a time (reserved concurrency 1): two would publish each sample twice, and one process
    keeps its connections. A start that fails is not tried again: the next one comes within a minute, and
    silence has an alarm.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        system: System,
        layer: DependenciesLayer,
        fleets: Sequence[ControlledFleet],
    ) -> None:
        super().__init__(scope, construct_id)
        self._system = system
        self._stage = system.config.stage
        self.function: Function = scanfleet_function(
            self,
            "Function",
            config=system.config,
            component=Component.CONTROLLER,
            layer=layer,
            handler=HANDLER,
            environment=self._environment(fleets),
            timeout=TIMEOUT,
            memory_mib=MEMORY_MIB,
            reserved_concurrency=1 if system.config.api.reserved_concurrency else None,
        )
        role = self.function.role
        assert isinstance(role, Role)  # the factory made it
        self._let_read(role, fleets)
        self._let_publish(role)
        self._let_roll_out(role, fleets)
        start_every(
            self,
            CONTROLLER_PERIOD,
            function=self.function,
            stage=self._stage,
            component=Component.CONTROLLER,
            what="the fleet controller",
        )

    def _environment(self, fleets: Sequence[ControlledFleet]) -> dict[str, str]:
        whole = self._system.environment(self)
        return {
            **{name: whole[name] for name in (Env.STAGE, Env.JOB_TABLE, Env.QUEUES)},
            Env.HOURLY_PRICES: json.dumps(dict(self._system.config.hourly_prices_usd)),
            Env.FLEETS: json.dumps({fleet.pool.value: self._settings(fleet.pool) for fleet in fleets}),
        }

    def _settings(self, pool: Pool) -> Mapping[str, object]:
        return {
            "group": fleet_name(self._stage, pool),
            "slots": self._system.config.pools[pool].slots_per_instance,
            "rollback_alarms": [alarm_name(self._stage, alarm, pool) for alarm in ROLLBACK_ALARMS],
        }

    # --- What it may do ------------------------------------------------------------------------------------

    def _let_read(self, role: Role, fleets: Sequence[ControlledFleet]) -> None:
        queues = [queue for fleet in fleets for queue in self._system.queues[fleet.pool].queues.values()]
        allow(role, "CountJobs", ["sqs:GetQueueAttributes"], [queue.queue_arn for queue in queues])
        allow(
            role,
            "ReadAgentsReportsAndCalibrations",
            ["dynamodb:Query"],
            [self._system.jobs.table.table_arn],
            conditions={
                "ForAllValues:StringEquals": {
                    "dynamodb:LeadingKeys": [
                        AGENTS_PARTITION,
                        *(f"{CALIBRATION_PARTITIONS}{fleet.pool}" for fleet in fleets),
                    ]
                },
                "Null": {"dynamodb:LeadingKeys": "false"},  # or no key at all would match, too
            },
        )
        allow(
            role,
            "ReportFleets",
            ["dynamodb:PutItem"],
            [self._system.jobs.table.table_arn],
            conditions={
                "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [FLEETS_PARTITION]},
                "Null": {"dynamodb:LeadingKeys": "false"},
            },
        )
        allow_own_key(role, "UseTheTablesKey", self._system.jobs.table.encryption_key, "dynamodb")
        image = self._arn("ssm", "parameter", parameter_name(self._stage, Parameter.AMI_WINDOWS_GPU)[1:])
        allow(role, "ReadTheImagesId", ["ssm:GetParameter", "ssm:GetParameters"], [image])
        allow(
            role,
            "SeeMachines",
            [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeInstanceRefreshes",
                "autoscaling:DescribeWarmPool",
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
            ],
            ["*"],
            # Source: service authorization reference, EC2 and EC2 Auto Scaling.
            wildcard="describing takes no resource",
        )

    def _let_publish(self, role: Role) -> None:
        allow(
            role,
            "PublishMetrics",
            ["cloudwatch:PutMetricData"],
            ["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": metric_namespace(self._stage)}},
            wildcard="it takes no resource; the namespace is the limit",
        )

    def _let_roll_out(self, role: Role, fleets: Sequence[ControlledFleet]) -> None:
        """Allow what starting a refresh to another configuration takes: AWS checks that we may launch it.

        Source: EC2 Auto Scaling guide, "Control Amazon EC2 launch template usage in Auto Scaling groups".
        """
        templates = [
            self._arn("ec2", "launch-template", fleet.launch_template_id, separator="/") for fleet in fleets
        ]
        names = [f"*:autoScalingGroupName/{fleet_name(self._stage, fleet.pool)}" for fleet in fleets]
        allow(
            role,
            "StartRefreshes",
            ["autoscaling:StartInstanceRefresh"],
            [self._arn("autoscaling", "autoScalingGroup", name) for name in names],
            wildcard="the ARN of a group has a generated id before its name",
        )
        allow(
            role,
            "WatchRollbackAlarms",
            ["cloudwatch:DescribeAlarms"],
            [self._arn("cloudwatch", "alarm", "*")],
            wildcard="a list of alarms is allowed for all alarms or refused, whatever names are asked for",
        )
        allow(role, "NumberImages", ["ec2:CreateLaunchTemplateVersion"], templates)
        # Whatever is launched comes from these templates, and stays where the fleets are.
        allow(
            role,
            "LaunchFromTheTemplates",
            ["ec2:RunInstances"],
            [*templates, *self._launched(fleets)],
            conditions={"ArnEquals": {"ec2:LaunchTemplate": templates}},
            wildcard="machines and volumes have no id before they are launched",
        )
        allow(
            role,
            "TagWhatIsLaunched",
            ["ec2:CreateTags"],
            [self._arn("ec2", kind, "*", separator="/") for kind in _TAGGED],
            conditions={"StringEquals": {"ec2:CreateAction": "RunInstances"}},
            wildcard="machines and volumes have no id before they are launched",
        )
        allow(
            role,
            "PassTheMachinesRole",
            ["iam:PassRole"],
            [fleet.agent_role.role_arn for fleet in fleets],
            conditions={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        )

    def _launched(self, fleets: Sequence[ControlledFleet]) -> list[str]:
        """Return what a launch makes, of any image, and where it may be. Fleets share subnets and groups."""
        places = [
            *(("subnet", subnet) for fleet in fleets for subnet in fleet.subnet_ids),
            *(("security-group", fleet.security_group_id) for fleet in fleets),
            *((kind, "*") for kind in _TAGGED),
        ]
        image = Stack.of(self).format_arn(service="ec2", account="", resource="image", resource_name="*")
        return [*(self._arn("ec2", kind, name, separator="/") for kind, name in dict.fromkeys(places)), image]

    def _arn(self, service: str, resource: str, name: str, *, separator: str = ":") -> str:
        by_slash = separator == "/" or service == "ssm"
        return Stack.of(self).format_arn(
            service=service,
            resource=resource,
            resource_name=name,
            arn_format=ArnFormat.SLASH_RESOURCE_NAME if by_slash else ArnFormat.COLON_RESOURCE_NAME,
        )
