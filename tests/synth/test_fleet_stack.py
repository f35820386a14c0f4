"""What the fleet stack promises, read from the template that AWS gets."""

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.aws_iam import Role, ServicePrincipal
from aws_cdk.aws_s3 import Bucket

from cdk.grants import allow
from cdk.launch_template import ROOT_DEVICE, SCRATCH_DEVICE
from scanfleet import contract
from scanfleet.contract import Component, Env, Parameter, Pool, Priority, fleet_name, parameter_name
from scanfleet.controller.templates import PIN_MARK
from tests.support.scaling_rules import faults
from tests.support.template import StackTemplate

GROUP = "AWS::AutoScaling::AutoScalingGroup"
TEMPLATE = "AWS::EC2::LaunchTemplate"
POLICY = "AWS::AutoScaling::ScalingPolicy"
DEV = fleet_name("dev", Pool.WINDOWS_GPU)

LARGE = {
    "scale_to_zero": False,
    "min_instances": 1,
    "max_instances": 9,
    "slots_per_instance": 3,
    "root_volume_gib": 300,
    "root_volume_throughput_mibps": 1000,
    "scratch_volume_gib": 200,
    "instance_types": ["g5.2xlarge", "g4dn.2xlarge"],
}
"""A pool whose settings are all others than by default."""

Fleet = Callable[..., StackTemplate]


@pytest.fixture
def fleet(stack) -> Fleet:
    """The dev stage's fleet stack; keywords are settings of its pool."""
    return lambda **pool: stack("dev", "fleet", **({"pools": {"windows-gpu": pool}} if pool else {}))


@pytest.fixture
def outward(stack) -> StackTemplate:
    """A deployment with prefixes and releases in others' buckets, and a schedule."""
    schedule = {"pool": "windows-gpu", "at": "0 7 * * MON-FRI", "time_zone": "Europe/Berlin"}
    template: StackTemplate = stack(
        "dev",
        "fleet",
        allowed_prefixes=["s3://clinic-scans/incoming/"],
        medit={"release_bucket": "medit-releases"},
        schedules=[{**schedule, "min_instances": 2, "max_instances": 8}],
    )
    return template


def machine(template: StackTemplate) -> dict[str, Any]:
    """The launch template's data."""
    return dict(template.only(TEMPLATE).properties["LaunchTemplateData"])


def volumes(template: StackTemplate) -> dict[str, dict[str, Any]]:
    return {v["DeviceName"]: v["Ebs"] for v in machine(template)["BlockDeviceMappings"]}


def text_of(value: Any) -> str:
    """A value of a template in one piece, each reference written as the name that it refers to."""
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(text_of(part) for part in parts)
        case {"Fn::ImportValue": name} | {"Ref": name} | {"Fn::GetAtt": [name, *_]} | {"Fn::Sub": name}:
            return text_of(name)
        case {"Fn::Base64": content}:
            return text_of(content)
    raise AssertionError(f"no text: {value}")


# --- Machines ----------------------------------------------------------------------------------------------


def test_a_machine_boots_the_image_that_the_contracts_parameter_names_when_it_is_launched(fleet):
    wanted = parameter_name("dev", Parameter.AMI_WINDOWS_GPU)

    assert machine(fleet())["ImageId"] == f"resolve:ssm:{wanted}"


def test_a_machine_answers_metadata_to_itself_alone_and_with_a_token(fleet):
    options = machine(fleet())["MetadataOptions"]

    assert options == {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_nobody_reaches_a_machine_by_key_pair_or_public_address(fleet):
    data = machine(fleet())

    assert "KeyName" not in data
    assert [card["AssociatePublicIpAddress"] for card in data["NetworkInterfaces"]] == [False]
    assert "Agents" in text_of(data["NetworkInterfaces"][0]["Groups"][0])


def test_every_disk_is_encrypted_and_goes_with_its_machine(fleet):
    for disk in volumes(fleet(**LARGE)).values():
        assert disk["Encrypted"] is True
        assert disk["DeleteOnTermination"] is True


@pytest.mark.parametrize(("pool", "size", "speed"), [({}, 100, (250, 3000)), (LARGE, 300, (1000, 4000))])
def test_the_root_disk_has_the_size_and_the_speed_that_the_configuration_says(fleet, pool, size, speed):
    root = volumes(fleet(**pool))[ROOT_DEVICE]

    assert (root["VolumeType"], root["VolumeSize"]) == ("gp3", size)
    assert (root["Throughput"], root["Iops"]) == speed  # gp3: four operations for each MiB/s, 3000 at least


def test_workspaces_are_on_the_machines_own_disk_unless_a_volume_is_configured(fleet):
    assert set(volumes(fleet())) == {ROOT_DEVICE}
    assert volumes(fleet(**LARGE))[SCRATCH_DEVICE]["VolumeSize"] == 200


def test_machines_are_watched_each_minute(fleet):
    assert machine(fleet())["Monitoring"] == {"Enabled": True}


def test_machines_and_their_disks_say_whose_they_are(fleet):
    template = fleet()
    tags = {tag["Key"]: tag for tag in template.only(GROUP).properties["Tags"]}
    (disks,) = machine(template)["TagSpecifications"]

    assert (tags["scanfleet:stage"]["Value"], tags["scanfleet:stage"]["PropagateAtLaunch"]) == ("dev", True)
    assert disks["ResourceType"] == "volume"
    assert {"Key": "scanfleet:stage", "Value": "dev"} in disks["Tags"]


def test_an_agent_without_a_number_of_slots_is_told_to_follow_its_calibration(fleet):
    assert f"{Env.SLOTS}=auto" in text_of(machine(fleet(slots_per_instance="auto"))["UserData"])


def test_an_agent_is_told_its_pool_its_slots_and_its_group(fleet):
    script = text_of(machine(fleet(**LARGE))["UserData"])

    for line in (f"{Env.POOL}=windows-gpu", f"{Env.SLOTS}=3", f"{Env.FLEET}={DEV}", f"{Env.STAGE}=dev"):
        assert line in script.splitlines()


def test_machines_end_themselves_when_they_are_idle_only_if_so_configured(fleet):
    by_default = text_of(machine(fleet())["UserData"])
    configured = text_of(machine(fleet(idle_minutes=30))["UserData"])

    assert Env.IDLE_MINUTES not in by_default
    assert f"{Env.IDLE_MINUTES}=30" in configured.splitlines()


def test_a_version_of_the_stacks_is_never_taken_for_the_controllers(fleet):
    assert not fleet().only(TEMPLATE).properties["VersionDescription"].startswith(PIN_MARK)


# --- The group ---------------------------------------------------------------------------------------------


def test_a_fleet_has_its_pools_name_and_bounds(fleet):
    group = fleet(**LARGE).only(GROUP).properties

    assert group["AutoScalingGroupName"] == DEV
    assert (group["MinSize"], group["MaxSize"]) == ("1", "9")


def test_a_deploy_leaves_the_fleets_size_and_its_rollout_alone(fleet):
    resource = fleet().only(GROUP)

    assert "DesiredCapacity" not in resource.properties
    assert resource.properties["LaunchTemplate"]["Version"] == contract.FIRST_TEMPLATE_VERSION
    # No policy that replaces machines: of the kinds that there are, only the one that leaves sizes alone.
    assert resource.body["UpdatePolicy"].keys() == {"AutoScalingScheduledAction"}


def test_the_load_balancer_and_ec2_say_whether_a_machine_is_healthy(fleet, stack):
    group = fleet().only(GROUP).properties
    api = stack("dev", "api").body
    (imported,) = [text_of(arn).partition(":")[2] for arn in group["TargetGroupARNs"]]
    target_group = api["Resources"][api["Outputs"][imported]["Value"]["Ref"]]["Properties"]

    assert group["HealthCheckType"] == "ELB"
    assert group["HealthCheckGracePeriod"] == contract.HEALTH_CHECK_GRACE.total_seconds()
    assert (target_group["TargetType"], target_group["Port"]) == ("instance", contract.AGENT_STATUS_PORT)
    assert target_group["HealthCheckPath"] == contract.Route.HEALTH


def test_machines_live_in_the_private_subnets_of_every_zone(fleet):
    subnets = [text_of(subnet) for subnet in fleet().only(GROUP).properties["VPCZoneIdentifier"]]

    assert len(subnets) == 2
    assert all("private" in subnet.lower() for subnet in subnets)


def test_an_existing_vpcs_subnets_hold_the_machines(stack):
    network = {
        "vpc_id": "vpc-0123456789abcdef0",
        "private_subnet_ids": ["subnet-0000000000000000a", "subnet-0000000000000000b"],
        "zones": ["us-east-1a", "us-east-1b"],
    }

    group = stack("dev", "fleet", network=network).only(GROUP).properties

    assert group["VPCZoneIdentifier"] == network["private_subnet_ids"]


def test_the_first_machine_already_meets_the_hooks(fleet):
    hooks = {
        h["LifecycleHookName"]: h for h in fleet().only(GROUP).properties["LifecycleHookSpecificationList"]
    }

    launch, drain = hooks[contract.LAUNCH_HOOK], hooks[contract.TERMINATE_HOOK]
    assert launch["LifecycleTransition"].endswith("LAUNCHING")
    assert launch["DefaultResult"] == "ABANDON"
    assert launch["HeartbeatTimeout"] > contract.AGENT_READY_TIMEOUT.total_seconds()
    assert drain["LifecycleTransition"].endswith("TERMINATING")
    assert drain["DefaultResult"] == "CONTINUE"
    assert drain["HeartbeatTimeout"] > contract.DRAIN_GRACE.total_seconds()


def test_a_new_machine_may_go_until_its_agent_is_busy_and_older_versions_go_first(fleet):
    group = fleet().only(GROUP).properties

    assert group["NewInstancesProtectedFromScaleIn"] is False
    assert group["TerminationPolicies"][0] == "OldestLaunchTemplate"


# --- Spot, warm pools, schedules ---------------------------------------------------------------------------


def test_one_on_demand_type_needs_no_mixed_policy(fleet):
    group = fleet().only(GROUP).properties

    assert "MixedInstancesPolicy" not in group
    assert group["CapacityRebalance"] is False


def test_a_spot_pool_mixes_types_above_an_on_demand_base(fleet):
    pool = {"spot_percent": 70, "instance_types": ["g4dn.xlarge", "g5.xlarge"], "min_instances": 2}
    group = fleet(**pool, scale_to_zero=False).only(GROUP).properties

    policy = group["MixedInstancesPolicy"]
    assert policy["InstancesDistribution"] == {
        "OnDemandBaseCapacity": 2,
        "OnDemandPercentageAboveBaseCapacity": 30,
        "OnDemandAllocationStrategy": "prioritized",
        "SpotAllocationStrategy": "price-capacity-optimized",
    }
    assert [o["InstanceType"] for o in policy["LaunchTemplate"]["Overrides"]] == ["g4dn.xlarge", "g5.xlarge"]
    assert group["CapacityRebalance"] is True
    assert "LaunchTemplate" not in group


def test_several_on_demand_types_are_taken_in_their_order(fleet):
    group = fleet(**LARGE).only(GROUP).properties

    kinds = [o["InstanceType"] for o in group["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]]
    mix = group["MixedInstancesPolicy"]["InstancesDistribution"]
    assert kinds == LARGE["instance_types"]
    assert mix["OnDemandPercentageAboveBaseCapacity"] == 100
    assert mix["OnDemandAllocationStrategy"] == "prioritized"
    assert group["CapacityRebalance"] is False


def test_there_is_no_warm_pool_unless_one_is_configured(fleet):
    assert not fleet().all("AWS::AutoScaling::WarmPool")


def test_a_warm_pool_keeps_so_many_stopped_machines_and_takes_none_back(fleet):
    warm = fleet(warm_instances=3, max_instances=10).only("AWS::AutoScaling::WarmPool").properties

    assert warm["PoolState"] == "Stopped"
    assert (warm["MinSize"], warm["MaxGroupPreparedCapacity"]) == (3, 3)
    assert warm["InstanceReusePolicy"] == {"ReuseOnScaleIn": False}


def test_schedules_change_the_bounds_and_never_the_size(outward):
    action = outward.only("AWS::AutoScaling::ScheduledAction").properties
    assert (action["Recurrence"], action["TimeZone"]) == ("0 7 * * MON-FRI", "Europe/Berlin")
    assert (action["MinSize"], action["MaxSize"]) == (2, 8)
    assert "DesiredCapacity" not in action


# --- What machines may do ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Allowed:
    """One permission."""

    action: str
    resource: str
    conditions: dict[str, Any]


def permissions(template: StackTemplate) -> Iterator[Allowed]:
    """Everything that the machines' role may do."""
    (profile,) = template.all("AWS::IAM::InstanceProfile")
    (role,) = profile.properties["Roles"]
    for policy in template.all("AWS::IAM::Policy"):
        if role not in policy.properties["Roles"]:
            continue
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            actions, resources = statement["Action"], statement["Resource"]
            for action in actions if isinstance(actions, list) else [actions]:
                for resource in resources if isinstance(resources, list) else [resources]:
                    yield Allowed(action, text_of(resource), statement.get("Condition", {}))


def allowed(template: StackTemplate, service: str) -> set[str]:
    return {p.action for p in permissions(template) if p.action.startswith(f"{service}:")}


def test_machines_have_no_managed_policy_and_no_wildcard_in_an_action(fleet):
    template = fleet()

    roles = [r for r in template.all("AWS::IAM::Role") if "machines" in str(r.properties.get("Description"))]
    assert [role.properties.get("ManagedPolicyArns", []) for role in roles] == [[]]
    assert not [p for p in permissions(template) if "*" in p.action]


def test_only_session_manager_is_allowed_on_everything(fleet):
    on_everything = {p.action.partition(":")[0] for p in permissions(fleet()) if p.resource == "*"}

    assert on_everything == {"ssm", "ssmmessages"}
    assert [p.action for p in permissions(fleet()) if p.resource == "*" and p.action.startswith("ssm:")] == [
        "ssm:UpdateInstanceInformation"
    ]


def test_machines_take_and_retry_their_own_pools_jobs_alone(stack):
    template = stack("dev", "fleet")
    taken_from = {p.resource for p in permissions(template) if p.action == "sqs:ReceiveMessage"}
    sent_to = {p.resource for p in permissions(template) if p.action == "sqs:SendMessage"}
    dead_letters = sent_to - taken_from

    assert allowed(template, "sqs") == {
        "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:SendMessage",
        "sqs:GetQueueAttributes",
    }
    assert len(taken_from) == len(Priority)
    assert all("WindowsGpuQueue" in queue and "DeadLetters" not in queue for queue in taken_from)
    assert taken_from < sent_to
    assert ["DeadLetters" in queue for queue in dead_letters] == [True]


def test_of_the_job_table_machines_create_and_delete_their_reports_only(fleet):
    found = [p for p in permissions(fleet()) if p.action.startswith("dynamodb:")]
    calibrations = {"dynamodb:LeadingKeys": [f"{contract.CALIBRATION_PARTITIONS}windows-gpu"]}
    read_only = [p for p in found if p.conditions.get("ForAllValues:StringEquals") == calibrations]
    by_action = {p.action: p for p in found if p not in read_only}

    assert [p.action for p in read_only] == ["dynamodb:Query"]
    assert set(by_action) == {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "dynamodb:PutItem",
        "dynamodb:DeleteItem",
        "dynamodb:Query",
    }
    for action in ("dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Query"):
        limits = by_action[action].conditions["ForAllValues:StringEquals"]
        assert limits == {"dynamodb:LeadingKeys": [contract.AGENTS_PARTITION]}
    for action in ("dynamodb:GetItem", "dynamodb:UpdateItem"):
        limits = by_action[action].conditions["ForAllValues:StringLike"]
        partitions = (contract.JOB_PARTITIONS, contract.TARGET_PARTITIONS, contract.HISTORY_PARTITIONS)
        readable = [f"{partition}*" for partition in partitions]
        assert limits == {"dynamodb:LeadingKeys": readable}


def test_machines_delete_nothing_but_what_they_staged(fleet):
    deletable = [p.resource for p in permissions(fleet()) if p.action.startswith("s3:Delete")]

    assert [resource.partition("/")[2] for resource in deletable] == [f"{contract.STAGING_PREFIX}*"]


def test_a_deploy_leaves_bounds_alone_that_a_schedule_or_an_operator_has_set(outward):
    policy = outward.only(GROUP).body["UpdatePolicy"]

    assert policy == {"AutoScalingScheduledAction": {"IgnoreUnmodifiedGroupSizeProperties": True}}


def test_machines_read_and_write_the_configured_prefixes_and_nothing_beside_them(outward):
    here = [p for p in permissions(outward) if "clinic-scans" in p.resource]

    objects = {p.action: p.resource for p in here if not p.action.startswith("s3:ListBucket")}
    assert set(objects) == {"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"}
    assert set(objects.values()) == {"arn:aws:s3:::clinic-scans/incoming/*"}
    (listing,) = [p for p in here if p.action == "s3:ListBucket"]
    assert listing.conditions == {"StringLike": {"s3:prefix": ["incoming/*"]}}


@pytest.mark.parametrize("folders", [1, 4, 14])
def test_a_role_with_as_many_prefixes_as_the_configuration_takes_fits_into_iams_quota(stack, folders):
    names = [f"s3://clinic-{n}/{'x' * 11}/" for n in range(14)]
    names = names if folders == 14 else [f"s3://clinic/{'x' * (250 // folders)}{n}/" for n in range(folders)]
    settings = {
        "allowed_prefixes": names,
        "customer_managed_key": True,
        "medit": {"release_bucket": "r" * 63},
    }

    for template in (stack("a" * 16, name, **settings) for name in ("fleet", "api")):
        sizes = Counter()
        for policy in template.all("AWS::IAM::Policy"):
            for role in policy.properties["Roles"]:
                sizes[json.dumps(role)] += policy_size(policy.properties["PolicyDocument"])
        assert max(sizes.values()) <= 10_240
        # What the CDK takes for too much: it counts references as longer than they are.
        overflow = [policy.properties["PolicyDocument"] for policy in template.all("AWS::IAM::ManagedPolicy")]
        assert all(policy_size(document) <= 6_144 for document in overflow)


def policy_size(document: Any) -> int:
    """The characters that IAM counts, each reference taken for a long ARN."""

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "Fn::Join" in value:
            return "".join(str(text(part)) for part in value["Fn::Join"][1])
        if value.keys() & {"Ref", "Fn::GetAtt", "Fn::ImportValue", "Fn::Select"}:
            return "x" * (12 if str(value.get("Ref", "")).startswith("AWS::") else 110)
        return {key: text(item) for key, item in value.items()}

    return len(json.dumps(text(document), separators=(",", ":")))


def test_machines_read_releases_and_cannot_change_them(outward):
    here = {(p.action, p.resource) for p in permissions(outward) if "medit-releases" in p.resource}

    assert here == {
        ("s3:ListBucket", "arn:aws:s3:::medit-releases"),
        ("s3:GetObject", f"arn:aws:s3:::medit-releases/{contract.RELEASES_PREFIX}*"),
        ("s3:GetObject", f"arn:aws:s3:::medit-releases/{contract.RELEASE_OBJECTS_PREFIX}*"),
    }


def test_machines_act_on_their_own_group_alone(fleet):
    own = [p for p in permissions(fleet()) if p.action.startswith("autoscaling:")]

    assert {p.action.partition(":")[2] for p in own} == {
        "CompleteLifecycleAction",
        "RecordLifecycleActionHeartbeat",
        "SetInstanceHealth",
        "SetInstanceProtection",
        "TerminateInstanceInAutoScalingGroup",
    }
    assert all(p.resource.endswith(f":autoScalingGroupName/{DEV}") for p in own)


def test_machines_write_their_own_log_groups_and_read_none(fleet):
    own = [p for p in permissions(fleet()) if p.action.startswith("logs:")]
    groups = {p.resource.partition("log-group:")[2].removesuffix(":*") for p in own}

    assert groups == {
        contract.log_group_name("dev", c)
        for c in (Component.AGENT, Component.JOBS, Component.PROCESSOR, Component.USERDATA)
    }
    assert not {p.action for p in own} & {"logs:GetLogEvents", "logs:DeleteLogStream", "logs:CreateLogGroup"}


def test_machines_read_this_stages_parameters_and_write_none(fleet):
    own = [p for p in permissions(fleet()) if ":parameter/" in p.resource]

    assert {p.action for p in own} == {"ssm:GetParameter", "ssm:GetParameters"}
    assert all("/scanfleet/dev/" in p.resource and "*" not in p.resource for p in own)


def test_the_deployments_own_key_serves_machines_through_its_services_only(stack):
    uses = [p for p in permissions(stack("prod", "fleet")) if p.action.startswith("kms:")]

    assert {p.conditions["StringEquals"]["kms:ViaService"].partition(".")[0] for p in uses} == {
        "s3",
        "dynamodb",
    }
    assert not [p for p in permissions(stack("dev", "fleet")) if p.action.startswith("kms:")]


def test_machines_launch_nothing_and_pass_no_role(fleet):
    assert not allowed(fleet(), "ec2") | allowed(fleet(), "iam") | allowed(fleet(), "sts")


# --- Permissions are written out ---------------------------------------------------------------------------


def new_role() -> Role:
    return Role(Stack(App(), "Test"), "Role", assumed_by=ServicePrincipal("ec2.amazonaws.com"))


def test_a_wildcard_in_an_action_is_refused():
    with pytest.raises(ValueError, match="write the actions out"):
        allow(new_role(), "Everything", ["s3:*"], ["arn:aws:s3:::one"])


def test_a_wildcard_in_a_resource_needs_a_reason():
    role = new_role()

    with pytest.raises(ValueError, match="say why"):
        allow(role, "Objects", ["s3:GetObject"], ["arn:aws:s3:::one/*"])
    allow(role, "Objects", ["s3:GetObject"], ["arn:aws:s3:::one/*"], wildcard="objects come and go")


def test_a_reason_covers_its_own_wildcard_and_no_other():
    app = App()
    bucket = Bucket(Stack(app, "Data"), "Bucket")
    role = Role(Stack(app, "Test"), "Role", assumed_by=ServicePrincipal("ec2.amazonaws.com"))
    allow(role, "Objects", ["s3:GetObject"], [bucket.arn_for_objects("*")], wildcard="objects come and go")

    made = app.synth().get_stack_by_name("Test").template
    (statement,) = StackTemplate(made).only("AWS::IAM::Policy").properties["PolicyDocument"]["Statement"]
    name = statement["Resource"]["Fn::Join"][1][0]["Fn::ImportValue"]
    covered = [key for entry in role.node.metadata if isinstance(entry.data, dict) for key in entry.data]
    assert [key.split("::", 1)[1] for key in covered] == [f"AwsSolutions-IAM5[Resource::{name}/*]"]


# --- The rules notice ---------------------------------------------------------------------------------------


def resource(template: StackTemplate, kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in template.all(kind) if name in r.logical_id]
    properties: dict[str, Any] = found.body["Properties"]
    return properties


def steps(template: StackTemplate, name: str) -> list[dict[str, Any]]:
    return list(resource(template, POLICY, name)["StepAdjustments"])


SEEDED: dict[str, tuple[Callable[[StackTemplate], object], str]] = {
    "a gap": (lambda t: steps(t, "OutByCount")[1].update(MetricIntervalLowerBound=1.5), "no step from"),
    "an overlap": (lambda t: steps(t, "OutByCount")[1].update(MetricIntervalLowerBound=0.5), "two steps for"),
    "no step at the threshold": (
        lambda t: steps(t, "OutByShare")[0].update(MetricIntervalLowerBound=0.2),
        "no step for the threshold",
    ),
    "a closed end": (
        lambda t: steps(t, "OutByShare")[-1].update(MetricIntervalUpperBound=90),
        "above the threshold on",
    ),
    "an exact capacity": (
        lambda t: resource(t, POLICY, "OutByCount").update(AdjustmentType="ExactCapacity"),
        "adjustment type is 'ExactCapacity'",
    ),
    "a misspelt adjustment": (
        lambda t: resource(t, POLICY, "OutByOne").update(AdjustmentType="ChangeInCapacityy"),
        "adjustment type is 'ChangeInCapacityy'",
    ),
    "a share of the fleet removed": (
        lambda t: resource(t, POLICY, "InByIdle").update(AdjustmentType="PercentChangeInCapacity"),
        "more than are idle",
    ),
    "more removed than idle": (
        lambda t: steps(t, "InByIdle")[0].update(ScalingAdjustment=-2),
        "removes 2 when 1 are idle",
    ),
    "in where out was meant": (
        lambda t: steps(t, "OutByCount")[0].update(ScalingAdjustment=-1),
        "do not all change the capacity one way",
    ),
    "too many steps": (
        lambda t: (
            steps(t, "OutByCount")
            and resource(t, POLICY, "OutByCount").update(
                StepAdjustments=[
                    {"MetricIntervalLowerBound": n, "MetricIntervalUpperBound": n + 1, "ScalingAdjustment": 1}
                    for n in range(21)
                ]
            )
        ),
        "21 steps",
    ),
    "an undecided silence": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "ScalingOut").pop("TreatMissingData"),
        "nobody decided",
    ),
    "a metric that nobody emits": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "ScalingOut").update(MetricName="BacklogPerSlots"),
        "nothing emits BacklogPerSlots",
    ),
    "another unit": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "ScalingOut").update(Unit="Seconds"),
        "is emitted in Count",
    ),
    "another dimension": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "ScalingOut").update(
            Dimensions=[{"Name": "pool", "Value": "windows-gpu"}]
        ),
        "has the dimensions ['Pool']",
    ),
    "average idle machines": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "ScalingIn7").update(Statistic="Average"),
        "more than the fewest idle",
    ),
    "an alarm that invokes nothing": (
        lambda t: resource(t, "AWS::CloudWatch::Alarm", "Fallback").update(AlarmActions=[]),
        "no alarm invokes it",
    ),
    "a drain longer than its hook": (
        lambda t: (
            t.only(GROUP)
            .body["Properties"]["LifecycleHookSpecificationList"][1]
            .update(HeartbeatTimeout=int(contract.DRAIN_GRACE.total_seconds()))
        ),
        "end before the drain",
    ),
    "a launch that goes on without its agent": (
        lambda t: (
            t.only(GROUP)
            .body["Properties"]["LifecycleHookSpecificationList"][0]
            .update(DefaultResult="CONTINUE")
        ),
        "whose agent never came",
    ),
    "a missing hook": (
        lambda t: t.only(GROUP).body["Properties"]["LifecycleHookSpecificationList"].pop(),
        "no hook for autoscaling:EC2_INSTANCE_TERMINATING",
    ),
    "a deploy that resets the size": (
        lambda t: t.only(GROUP).body["Properties"].update(DesiredCapacity="0"),
        "reset the desired capacity",
    ),
    "a deploy that ends rollouts": (
        lambda t: t.only(GROUP).body["Properties"]["LaunchTemplate"].update(Version="$Latest"),
        "version from the rollout",
    ),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_fault_is_noticed(fleet, name):
    seed, noticed = SEEDED[name]
    template = StackTemplate(copy.deepcopy(fleet().body))
    assert faults(template) == []

    seed(template)

    assert any(noticed in fault for fault in faults(template))
