"""The controller's function, schedule and role, as CloudFormation gets them."""

import json
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.aws_iam import Role, ServicePrincipal

from cdk.config import read_config
from cdk.controller import HANDLER, TIMEOUT, ControlledFleet, Controller
from cdk.lambda_function import DependenciesLayer
from scanfleet.contract import (
    AGENTS_PARTITION,
    CALIBRATION_PARTITIONS,
    CONTROLLER_PERIOD,
    FLEETS_PARTITION,
    Component,
    Env,
    Pool,
    function_name,
)
from scanfleet.controller import entry
from scanfleet.controller.minute import HAND_OVER, SAMPLE_LIMIT
from scanfleet.settings import ControllerSettings, load
from stacks.data import DataStack
from tests.support.template import Resource, StackTemplate

ROLE, FUNCTION, SCHEDULE = "AWS::IAM::Role", "AWS::Lambda::Function", "AWS::Scheduler::Schedule"
TAKES_NO_RESOURCE = {
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeInstanceRefreshes",
    "autoscaling:DescribeWarmPool",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "cloudwatch:PutMetricData",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
}
"""Source: service authorization reference."""


@pytest.fixture(scope="module")
def made(context) -> StackTemplate:
    app = App(context=context, analytics_reporting=False)
    config = read_config(stage="dev", context=context["scanfleet"])
    system = DataStack(app, "Data", config=config).system
    stack = Stack(app, "Fleet", env={"region": config.region})
    role = Role(stack, "Agent", assumed_by=ServicePrincipal("ec2.amazonaws.com"))
    fleet = ControlledFleet(
        pool=Pool.WINDOWS_GPU,
        launch_template_id="lt-0123",
        agent_role=role,
        subnet_ids=["subnet-0a", "subnet-0b"],
        security_group_id="sg-0123",
    )
    layer = DependenciesLayer(stack, "Packages", config=config)
    Controller(stack, "Controller", system=system, layer=layer, fleets=[fleet])
    return StackTemplate(app.synth().get_stack_by_name("Fleet").template)


def function(made: StackTemplate) -> Resource:
    return next(f for f in made.all(FUNCTION) if f.properties.get("Handler") == HANDLER)


def statements(made: StackTemplate) -> list[dict[str, Any]]:
    reference = function(made).properties["Role"]["Fn::GetAtt"][0]
    return [
        statement
        for policy in made.all("AWS::IAM::Policy")
        if {"Ref": reference} in policy.properties["Roles"]
        for statement in policy.properties["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowing(made: StackTemplate, action: str) -> dict[str, Any]:
    (found,) = [s for s in statements(made) if action in listed(s["Action"])]
    return found


def test_the_handler_is_the_runtimes():
    module, name = HANDLER.rsplit(".", 1)

    assert entry.__name__ == module
    assert callable(getattr(entry, name))


def test_only_one_invocation_runs_and_none_is_tried_again(made):
    assert function(made).properties["ReservedConcurrentExecutions"] == 1
    assert function(made).properties["FunctionName"] == function_name("dev", Component.CONTROLLER)
    asynchronous = made.only("AWS::Lambda::EventInvokeConfig").properties
    assert (asynchronous["MaximumRetryAttempts"], asynchronous["MaximumEventAgeInSeconds"]) == (0, 60)


def test_an_invocation_has_the_time_of_its_minute_and_of_its_last_sample(made):
    assert function(made).properties["Timeout"] == TIMEOUT.total_seconds()
    assert TIMEOUT >= CONTROLLER_PERIOD - HAND_OVER + SAMPLE_LIMIT


def test_the_scheduler_starts_it_each_minute_and_forgets_starts_that_failed(made):
    schedule = made.only(SCHEDULE).properties

    assert schedule["ScheduleExpression"] == "rate(1 minute)"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert schedule["Target"]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    assert schedule["Target"]["Arn"] == {"Fn::GetAtt": [function(made).logical_id, "Arn"]}


def test_the_scheduler_may_start_this_function_and_nothing_else(made):
    reference = made.only(SCHEDULE).properties["Target"]["RoleArn"]["Fn::GetAtt"][0]
    (policy,) = [p for p in made.all("AWS::IAM::Policy") if {"Ref": reference} in p.properties["Roles"]]

    (statement,) = policy.properties["PolicyDocument"]["Statement"]
    assert statement["Action"] == "lambda:InvokeFunction"
    assert statement["Resource"] == {"Fn::GetAtt": [function(made).logical_id, "Arn"]}


def test_its_environment_is_what_its_settings_read(made, monkeypatch):
    environment = function(made).properties["Environment"]["Variables"]
    queues = {Pool.WINDOWS_GPU: {"high": "https://q/high", "normal": "https://q/normal"}}
    for name, value in environment.items():
        monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(queues))
    monkeypatch.setenv(Env.JOB_TABLE, "jobs")

    settings = load(ControllerSettings)

    assert settings.fleets[Pool.WINDOWS_GPU].group == "scanfleet-dev-windows-gpu"
    assert "scanfleet-dev-windows-gpu-boot-failures" in settings.fleets[Pool.WINDOWS_GPU].rollback_alarms


def test_every_star_is_of_an_action_that_takes_no_resource(made):
    anything = {a for s in statements(made) if "*" in listed(s["Resource"]) for a in listed(s["Action"])}

    assert anything <= TAKES_NO_RESOURCE


def test_it_may_publish_into_its_stages_namespace_only(made):
    condition = allowing(made, "cloudwatch:PutMetricData")["Condition"]

    assert condition == {"StringEquals": {"cloudwatch:namespace": "Scanfleet/dev"}}


def test_it_reads_the_agents_reports_and_its_pools_calibrations_and_no_job(made):
    statement = allowing(made, "dynamodb:Query")

    assert statement["Condition"] == {
        "ForAllValues:StringEquals": {
            "dynamodb:LeadingKeys": [AGENTS_PARTITION, f"{CALIBRATION_PARTITIONS}windows-gpu"]
        },
        "Null": {"dynamodb:LeadingKeys": "false"},
    }
    assert {a for s in statements(made) for a in listed(s["Action"]) if a.startswith("dynamodb:")} == {
        "dynamodb:Query",
        "dynamodb:PutItem",
    }


def test_it_writes_the_fleets_reports_and_nothing_else(made):
    assert allowing(made, "dynamodb:PutItem")["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [FLEETS_PARTITION]},
        "Null": {"dynamodb:LeadingKeys": "false"},
    }


def test_it_may_list_alarms_which_is_allowed_for_all_or_refused(made):
    resource = json.dumps(allowing(made, "cloudwatch:DescribeAlarms")["Resource"])

    assert ":alarm:*" in resource


def test_it_refreshes_its_own_group_only(made):
    resource = json.dumps(allowing(made, "autoscaling:StartInstanceRefresh")["Resource"])

    assert "autoScalingGroupName/scanfleet-dev-windows-gpu" in resource


def test_whatever_it_launches_comes_from_the_fleets_template(made):
    statement = allowing(made, "ec2:RunInstances")

    assert "launch-template/lt-0123" in json.dumps(statement["Condition"]["ArnEquals"]["ec2:LaunchTemplate"])


def test_what_it_launches_stays_in_the_fleets_subnets_and_security_group(made):
    resources = [json.dumps(r) for r in listed(allowing(made, "ec2:RunInstances")["Resource"])]
    places = {r.strip('"').rpartition("/")[2] for r in resources if "subnet/" in r or "security-group/" in r}

    assert {place.rstrip('"]}') for place in places} == {"subnet-0a", "subnet-0b", "sg-0123"}


def test_it_hands_machines_the_agents_role_and_no_other(made):
    statement = allowing(made, "iam:PassRole")

    assert "Agent" in json.dumps(statement["Resource"])
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_it_can_neither_end_machines_nor_set_their_number(made):
    allowed = {a for s in statements(made) for a in listed(s["Action"])}

    assert not {a for a in allowed if "*" in a}
    assert {a for a in allowed if a.startswith("autoscaling:") and "Describe" not in a} == {
        "autoscaling:StartInstanceRefresh"
    }
