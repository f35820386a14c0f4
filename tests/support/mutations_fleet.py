"""Faults of machines, of their group, of its scaling, of functions, and of the network."""

from typing import Any

from tests.support.mutations import Mutation, Properties, change, remove

TEMPLATE, GROUP = "fleet/WindowsGpuFleetLaunchTemplate", "fleet/WindowsGpuFleetGroup"
SCALING = "fleet/WindowsGpuFleetScaling"


def _data(**values: Any) -> Any:
    """Return a fault that sets values of the launch template's data."""
    return change(lambda p: p["LaunchTemplateData"].update(values))


def _hook(properties: Properties, transition: str) -> dict[str, Any]:
    hook: dict[str, Any]
    (hook,) = (
        h
        for h in properties["LifecycleHookSpecificationList"]
        if h["LifecycleTransition"] == f"autoscaling:EC2_INSTANCE_{transition}"
    )
    return hook


def _forbid(properties: Properties, action: str) -> None:
    for statement in properties["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        if isinstance(actions, list) and action in actions:
            actions.remove(action)


MACHINES = [
    Mutation(
        fault="machines answer IMDSv1",
        where=TEMPLATE,
        caught_by="guard rules",
        seed=change(lambda p: p["LaunchTemplateData"]["MetadataOptions"].update(HttpTokens="optional")),
    ),
    Mutation(
        fault="a container or a proxy on the machine reaches its credentials",
        where=TEMPLATE,
        caught_by="guard rules",
        seed=change(lambda p: p["LaunchTemplateData"]["MetadataOptions"].update(HttpPutResponseHopLimit=2)),
    ),
    Mutation(
        fault="machines get a public address",
        where=TEMPLATE,
        caught_by="guard rules",
        seed=change(
            lambda p: p["LaunchTemplateData"]["NetworkInterfaces"][0].update(AssociatePublicIpAddress=True)
        ),
    ),
    Mutation(
        fault="machines can be entered with a key pair",
        where=TEMPLATE,
        caught_by="guard rules",
        seed=_data(KeyName="ops"),
    ),
    Mutation(
        fault="the root volume is not encrypted",
        where=TEMPLATE,
        caught_by="guard rules",
        seed=change(
            lambda p: p["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"].update(Encrypted=False)
        ),
    ),
    Mutation(
        fault="machines boot another stage's image",
        where=TEMPLATE,
        caught_by="machine images",
        seed=_data(ImageId="resolve:ssm:/scanfleet/prod/ami/windows-gpu"),
    ),
    Mutation(
        fault="a machine whose agent never came is put in service",
        where=GROUP,
        caught_by="scaling rules",
        seed=change(lambda p: _hook(p, "LAUNCHING").update(DefaultResult="CONTINUE")),
    ),
    Mutation(
        fault="machines end while their agent still drains",
        where=GROUP,
        caught_by="scaling rules",
        seed=change(lambda p: _hook(p, "TERMINATING").update(HeartbeatTimeout=600)),
    ),
    Mutation(
        fault="the launch hook's name has a typo",
        where=GROUP,
        caught_by="scaling rules",
        seed=change(lambda p: _hook(p, "LAUNCHING").update(LifecycleHookName="agent-redy")),
    ),
    Mutation(
        fault="nobody asks the agents for their health",
        where=GROUP,
        caught_by="scaling rules",
        seed=change(lambda p: p.update(HealthCheckType="EC2")),
    ),
    Mutation(
        fault="each deploy sets the number of machines",
        where=GROUP,
        caught_by="scaling rules",
        seed=change(lambda p: p.update(DesiredCapacity="1")),
    ),
    Mutation(
        fault="a group is behind no load balancer",
        where=GROUP,
        caught_by="groups",
        seed=change(lambda p: p.pop("TargetGroupARNs")),
    ),
    Mutation(
        fault="machines are replaced while Windows still boots",
        where=GROUP,
        caught_by="groups",
        seed=change(lambda p: p.update(HealthCheckGracePeriod=0)),
    ),
]

STEPS = [
    Mutation(
        fault="between two steps nothing happens",
        where=f"{SCALING}OutByCount",
        caught_by="scaling rules",
        seed=change(lambda p: p["StepAdjustments"][1].update(MetricIntervalLowerBound=1.5)),
    ),
    Mutation(
        fault="two steps overlap",
        where=f"{SCALING}OutByShare",
        caught_by="scaling rules",
        seed=change(lambda p: p["StepAdjustments"][0].update(MetricIntervalUpperBound=2)),
    ),
    Mutation(
        fault="beyond the last step nothing happens",
        where=f"{SCALING}OutByCount",
        caught_by="scaling rules",
        seed=change(lambda p: p["StepAdjustments"][-1].update(MetricIntervalUpperBound=100)),
    ),
    Mutation(
        fault="a step adds a share of no machine, so that nothing starts from zero",
        where=f"{SCALING}OutByCount",
        caught_by="scaling moves",
        says="scanfleet-dev-windows-gpu",
        seed=change(lambda p: p.update(AdjustmentType="PercentChangeInCapacity")),
    ),
    Mutation(
        fault="a step adds machines that no job waits for",
        where=f"{SCALING}OutByCount",
        caught_by="scaling moves",
        seed=change(lambda p: p["StepAdjustments"][-1].update(ScalingAdjustment=40)),
    ),
    Mutation(
        fault="scale-in takes more machines than are idle",
        where=f"{SCALING}InByIdle",
        caught_by="scaling rules",
        seed=change(lambda p: p["StepAdjustments"][-1].update(ScalingAdjustment=-5)),
    ),
    Mutation(
        fault="scale-in takes a share of the fleet",
        where=f"{SCALING}InByIdle",
        caught_by="scaling rules",
        seed=change(lambda p: p.update(AdjustmentType="PercentChangeInCapacity")),
    ),
    Mutation(
        fault="scale-out adds nothing: its steps remove",
        where=f"{SCALING}OutByOne",
        caught_by="scaling rules",
        seed=change(
            lambda p: p["StepAdjustments"].append({"MetricIntervalLowerBound": 1, "ScalingAdjustment": -1})
        ),
    ),
    Mutation(
        fault="scale-out looks at minutes, though samples come every ten seconds",
        where=f"{SCALING}Out",
        caught_by="scaling moves",
        seed=change(lambda p: p.update(Period=60)),
    ),
    Mutation(
        fault="scale-in takes a machine that was idle for a moment",
        where=f"{SCALING}In",
        caught_by="scaling moves",
        seed=change(lambda p: p.update(DatapointsToAlarm=1, EvaluationPeriods=1)),
    ),
    Mutation(
        fault="nothing scales out while the controller is silent",
        where=f"{SCALING}Fallback",
        caught_by="scaling moves",
        says="while the controller is silent",
        seed=remove,
    ),
]

ROLE = [
    Mutation(
        fault="agents cannot send the message of a retry",
        where="fleet/WindowsGpuFleetAgentRoleDefaultPolicy",
        caught_by="takers of messages",
        seed=change(lambda p: _forbid(p, "sqs:SendMessage")),
    ),
]

FUNCTIONS = [
    Mutation(
        fault="a function runs another Python than its packages are for",
        where="fleet/ControllerFunction",
        caught_by="functions",
        seed=change(lambda p: p.update(Runtime="python3.12")),
    ),
    Mutation(
        fault="a function can use up the account's concurrency",
        where="fleet/ControllerFunction",
        caught_by="functions",
        seed=change(lambda p: p.pop("ReservedConcurrentExecutions")),
    ),
    Mutation(
        fault="a function writes to a log group of its own",
        where="fleet/ControllerFunction",
        caught_by="functions",
        seed=change(lambda p: p.pop("LoggingConfig")),
    ),
    Mutation(
        fault="two controllers sample at once",
        where="fleet/ControllerFunction",
        caught_by="controller",
        seed=change(lambda p: p.update(ReservedConcurrentExecutions=2)),
    ),
    Mutation(
        fault="the controller's schedule is off",
        where="fleet/ControllerSchedule",
        caught_by="controller",
        seed=change(lambda p: p.update(State="DISABLED")),
    ),
    Mutation(
        fault="the sweeper's schedule is off",
        where="fleet/SweeperSchedule",
        caught_by="sweeper",
        seed=change(lambda p: p.update(State="DISABLED")),
    ),
]

NETWORK = [
    Mutation(
        fault="agents answer everyone",
        where="network/NetworkAgents",
        caught_by="guard rules",
        seed=change(
            lambda p: p.update(
                SecurityGroupIngress=[
                    {"CidrIp": "0.0.0.0/0", "IpProtocol": "tcp", "FromPort": 3389, "ToPort": 3389}
                ]
            )
        ),
    ),
    Mutation(
        fault="a subnet gives public addresses",
        where="network/NetworkVpcpublicSubnet1Subnet",
        caught_by="guard rules",
        seed=change(lambda p: p.update(MapPublicIpOnLaunch=True)),
    ),
]

MUTATIONS = [*MACHINES, *STEPS, *ROLE, *FUNCTIONS, *NETWORK]
