"""An account of moto's with one Windows pool: queues, job table, image parameter, launch template, group."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from moto import mock_aws
from moto.autoscaling.models import autoscaling_backends

from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import Metric, Parameter, Pool, Priority, fleet_name, metric_namespace, parameter_name
from scanfleet.controller.controller import Controller
from scanfleet.controller.images import Images
from scanfleet.controller.publish import Publisher
from scanfleet.controller.rollout import Rollout
from scanfleet.controller.snapshot import Snapshots
from scanfleet.controller.templates import Templates
from scanfleet.fleet_reports import FleetDirectory
from scanfleet.prices import windows_prices
from scanfleet.queue import JobQueues
from scanfleet.settings import FleetSettings
from tests.support.cloud import create_job_table
from tests.support.refreshes import Refreshes

STAGE, REGION, ACCOUNT = "dev", "us-east-1", "123456789012"
GROUP = fleet_name(STAGE, Pool.WINDOWS_GPU)
IMAGE = parameter_name(STAGE, Parameter.AMI_WINDOWS_GPU)
_PUBLISHED = list(Metric)[list(Metric).index(Metric.BACKLOG) :]
"""The controller's group of the contract's metrics."""
ALARM = "scanfleet-dev-boot-failures"
POOLS = (Pool.WINDOWS_GPU, Pool.LINUX_CPU)


class Clock:
    """Time that tests move. It starts at the present: moto stamps launches with the real time."""

    def __init__(self) -> None:
        self.now = datetime.now(tz=UTC).timestamp()

    def __call__(self) -> float:
        return self.now

    def forward(self, by: timedelta) -> None:
        """Let time pass."""
        self.now += by.total_seconds()


class FleetAccount:
    """The account, the real controller on it, and short ways to change what it sees."""

    def __init__(self) -> None:
        self.clock = Clock()
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self.client = {
            name: session.client(name)
            for name in ("sqs", "dynamodb", "ssm", "ec2", "autoscaling", "cloudwatch", "sts")
        }
        create_job_table(self.client["dynamodb"], "jobs")
        self.urls = {
            pool: {
                priority: self.client["sqs"].create_queue(QueueName=f"{pool}-{priority}")["QueueUrl"]
                for priority in Priority
            }
            for pool in POOLS
        }
        self.agents = AgentDirectory(self.client["dynamodb"], "jobs", clock=self.clock)
        self.fleet_reports = FleetDirectory(self.client["dynamodb"], "jobs", clock=self.clock)
        self.refreshes = Refreshes(self.client["autoscaling"], self.client["ec2"], clock=self.clock)
        self.write_image("ami-00000000000000001")  # what the stack seeds
        self.template_id = self._make_template()
        self._make_group()
        self.fleets = {
            Pool.WINDOWS_GPU: FleetSettings(group=GROUP, slots=1, rollback_alarms=(ALARM,)),
        }
        self.controller = self.make_controller()

    def make_controller(self, *, region: str = REGION) -> Controller:
        """Return a controller as a fresh process would have it; `region`: whose prices it knows."""
        autoscaling, ec2, cloudwatch = (self.client[name] for name in ("autoscaling", "ec2", "cloudwatch"))
        snapshots = Snapshots(
            queues=JobQueues(self.client["sqs"], self.urls), autoscaling=autoscaling, ec2=ec2
        )
        self.rollout = Rollout(
            autoscaling=autoscaling, cloudwatch=cloudwatch, snapshots=snapshots, templates=Templates(ec2)
        )
        return Controller(
            fleets=self.fleets,
            prices=windows_prices(region),
            agents=self.agents,
            snapshots=snapshots,
            images=Images(self.client["ssm"], stage=STAGE),
            rollout=self.rollout,
            publisher=Publisher(cloudwatch, stage=STAGE),
            reports=self.fleet_reports,
            clock=self.clock,
        )

    # --- What happens in the account -----------------------------------------------------------------------

    def write_image(self, ami_id: str) -> None:
        """Write the image parameter, as a build does."""
        self.client["ssm"].put_parameter(Name=IMAGE, Value=ami_id, Type="String", Overwrite=True)

    def deploy_template(self, instance_type: str = "g4dn.xlarge") -> str:
        """Create the stack's next launch template version; return its number."""
        made = self.client["ec2"].create_launch_template_version(
            LaunchTemplateId=self.template_id,
            LaunchTemplateData={"ImageId": f"resolve:ssm:{IMAGE}", "InstanceType": instance_type},
        )
        return str(made["LaunchTemplateVersion"]["VersionNumber"])

    def submit(self, count: int, priority: Priority = Priority.NORMAL, *, delay_seconds: int = 0) -> None:
        """Queue this many jobs."""
        for number in range(count):
            self.client["sqs"].send_message(
                QueueUrl=self.urls[Pool.WINDOWS_GPU][priority],
                MessageBody=json.dumps({"version": 1, "job_id": str(number)}),
                DelaySeconds=delay_seconds,
            )

    def receive(self, count: int) -> None:
        """Let agents receive this many messages."""
        for _ in range(count):
            self.client["sqs"].receive_message(QueueUrl=self.urls[Pool.WINDOWS_GPU][Priority.NORMAL])

    def scale(self, desired: int) -> list[str]:
        """Let the group have this many machines; return their ids."""
        self.client["autoscaling"].set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=desired)
        return self.instance_ids()

    def instance_ids(self) -> list[str]:
        return [member["InstanceId"] for member in self.group()["Instances"]]

    def group(self) -> dict[str, Any]:
        found = self.client["autoscaling"].describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        return dict(found["AutoScalingGroups"][0])

    def set_state(self, instance_id: str, lifecycle_state: str) -> None:
        """Put a machine into a lifecycle state: moto's are in service from their launch on."""
        states = autoscaling_backends[ACCOUNT][REGION].autoscaling_groups[GROUP].instance_states
        next(s for s in states if s.instance.id == instance_id).lifecycle_state = lifecycle_state

    def report(self, instance_id: str, *, busy: int = 0, is_stopping: bool = False) -> None:
        """Let an agent report now."""
        self.agents.put(
            AgentReport(
                agent_id=instance_id,
                pool=Pool.WINDOWS_GPU,
                slots=1,
                busy=busy,
                started_at=self.clock(),
                seen_at=self.clock(),
                is_stopping=is_stopping,
                instance_id=instance_id,
            )
        )

    def set_alarm(self, state: str) -> None:
        """Have the rollback alarm in this state."""
        self.client["cloudwatch"].put_metric_alarm(
            AlarmName=ALARM,
            Namespace=metric_namespace(STAGE),
            MetricName=Metric.BOOT_FAILED,
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            Statistic="Sum",
        )
        self.client["cloudwatch"].set_alarm_state(AlarmName=ALARM, StateValue=state, StateReason="test")

    # --- What the controller published ---------------------------------------------------------------------

    def sample(self) -> dict[str, float]:
        """Sample a moment later; return the newest value of each metric of the Windows pool."""
        self.clock.forward(timedelta(seconds=10))
        self.controller.sample()
        return self.published()

    def published(self, pool: Pool = Pool.WINDOWS_GPU) -> dict[str, float]:
        """Return the value of each metric that CloudWatch has of the present second."""
        moment = datetime.fromtimestamp(int(self.clock()), tz=UTC)
        values: dict[str, float] = {}
        for metric in _PUBLISHED:
            points = self.client["cloudwatch"].get_metric_statistics(
                Namespace=metric_namespace(STAGE),
                MetricName=metric,
                Dimensions=[{"Name": "Pool", "Value": pool}],
                StartTime=moment,
                EndTime=moment + timedelta(seconds=1),
                Period=1,
                Statistics=["Sum"],
            )["Datapoints"]
            if points:
                values[metric.value] = points[0]["Sum"]
        return values

    # --- Making it -----------------------------------------------------------------------------------------

    def _make_template(self) -> str:
        made = self.client["ec2"].create_launch_template(
            LaunchTemplateName=GROUP,
            LaunchTemplateData={"ImageId": f"resolve:ssm:{IMAGE}", "InstanceType": "g4dn.xlarge"},
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def _make_group(self) -> None:
        subnets = self.client["ec2"].describe_subnets()["Subnets"]
        self.client["autoscaling"].create_auto_scaling_group(
            AutoScalingGroupName=GROUP,
            MinSize=0,
            MaxSize=4,
            DesiredCapacity=0,
            VPCZoneIdentifier=subnets[0]["SubnetId"],
            LaunchTemplate={"LaunchTemplateId": self.template_id, "Version": "1"},
        )


@contextmanager
def fleet_account() -> Iterator[FleetAccount]:
    """Run moto in this process, with one fleet in it."""
    with mock_aws():
        yield FleetAccount()
