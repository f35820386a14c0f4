"""The monitoring stack: metrics that are shown are emitted, and who is told of what."""

import ast
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from cdk.config import DeploymentConfig
from cdk.metrics import scanfleet_metric, scanfleet_search
from scanfleet.contract import (
    METRIC_FACTS,
    Component,
    Dimension,
    Metric,
    Pool,
    fleet_name,
    log_group_name,
    metric_namespace,
)
from tests.support.dashboards import ShownMetric, check_dashboard
from tests.support.metrics_in_use import alarm_metrics, exists
from tests.support.monitoring import SETTINGS, bodies
from tests.support.template import StackTemplate

STACKS = ("network", "data", "image", "api", "fleet", "monitoring")
POOL = Pool.WINDOWS_GPU


@pytest.fixture(scope="session")
def monitoring(stack) -> StackTemplate:
    return stack("dev", "monitoring", **SETTINGS)


@pytest.fixture(scope="session")
def stacks(stack) -> list[StackTemplate]:
    return [stack("dev", name, **SETTINGS) for name in STACKS]


# --- Metrics: shown is emitted, emitted is shown -----------------------------------------------------------


def used_metrics(stacks: list[StackTemplate]) -> list[ShownMetric]:
    """Every metric of every dashboard, alarm and scaling policy."""
    shown = [m for s in stacks for body in bodies(s).values() for m in check_dashboard(body)]
    rung = [m for s in stacks for a in s.all("AWS::CloudWatch::Alarm") for m, _, _ in alarm_metrics(a)]
    return shown + rung


def emitted_by_runtime(repo_root: Path) -> set[Metric]:
    """The metrics that runtime code names in order to emit them; the contract only lists them."""
    runtime = repo_root / "runtime" / "scanfleet"
    sources = [path for path in runtime.rglob("*.py") if path.name != "contract.py"]
    return {
        Metric[node.attr]
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Metric"
    }


def emitted_by_machines(fleet: StackTemplate) -> set[Metric]:
    """The metrics that user-data spells out."""
    scripts = json.dumps([t.properties for t in fleet.all("AWS::EC2::LaunchTemplate")])
    return {metric for metric in Metric if re.search(rf"\b{metric}\b", scripts)}


def test_every_metric_of_the_contract_is_emitted(repo_root, stack):
    emitted = emitted_by_runtime(repo_root) | emitted_by_machines(stack("dev", "fleet"))

    assert set(Metric) - emitted == set()


def test_every_metric_of_the_contract_is_on_a_dashboard(monitoring):
    shown = {m.name for body in bodies(monitoring).values() for m in check_dashboard(body)}

    assert set(Metric) - shown == set()


def test_every_metric_in_use_exists_with_these_dimensions(stacks):
    used = used_metrics(stacks)

    assert len(used) > 100
    assert [metric for metric in used if not exists(metric, stage="dev")] == []


@pytest.mark.parametrize(
    "wrong",
    [
        ShownMetric("Scanfleet/dev", "JobsFinished", {"Pool": "p", "State": "failed"}),
        ShownMetric("Scanfleet/prod", "JobFinished", {"Pool": "p", "State": "failed"}),
        ShownMetric("Scanfleet/dev", "JobFinished", {"Pool": "p"}),
        ShownMetric("AWS/SQS", "OldestMessage", {"QueueName": "q"}),
        ShownMetric("AWS/SQS", "ApproximateAgeOfOldestMessage", {"Queue": "q"}),
        ShownMetric("AWS/Sqs", "ApproximateAgeOfOldestMessage", {"QueueName": "q"}),
    ],
)
def test_a_typo_in_a_metric_is_seen(wrong):
    assert not exists(wrong, stage="dev")


def test_no_alarm_asks_for_another_unit_than_the_emitted_one(stacks):
    for template in stacks:
        for alarm in template.all("AWS::CloudWatch::Alarm"):
            for metric, unit, _ in alarm_metrics(alarm):
                if metric.namespace == metric_namespace("dev"):
                    assert unit == METRIC_FACTS[Metric(metric.name)][0], (
                        alarm.properties["AlarmName"],
                        metric,
                    )


@pytest.mark.parametrize("metric", Metric)
def test_a_metric_with_other_dimensions_cannot_be_made(metric):
    wrong = {Dimension.STAGE.name.lower(): "x", Dimension.ROUTE.name.lower(): "y"}

    with pytest.raises(ValueError, match=metric):
        scanfleet_metric("dev", metric, statistic="Sum", **wrong)
    with pytest.raises(ValueError, match=metric):
        scanfleet_search("dev", metric, statistic="Sum", fixed={Dimension.STAGE: "x", Dimension.ROUTE: "y"})


# --- Events, topic, budget ---------------------------------------------------------------------------------


def test_events_are_counted_by_the_rules_that_alarms_watch(monitoring):
    rules = {rule.properties["Name"] for rule in monitoring.all("AWS::Events::Rule")}
    watched = {
        m.dimensions["RuleName"]
        for a in monitoring.all("AWS::CloudWatch::Alarm")
        for m, _, _ in alarm_metrics(a)
        if m.namespace == "AWS/Events"
    }

    assert watched
    assert watched <= rules


def test_failed_launches_of_this_fleet_alone_are_told(monitoring):
    (rule,) = [
        r
        for r in monitoring.all("AWS::Events::Rule")
        if r.properties["EventPattern"]["source"] == ["aws.autoscaling"]
    ]

    assert rule.properties["EventPattern"]["detail"] == {"AutoScalingGroupName": [fleet_name("dev", POOL)]}


def test_images_of_the_image_stack_are_the_ones_that_are_watched(stacks, monitoring):
    recipes = [r for s in stacks for r in s.all("AWS::ImageBuilder::ImageRecipe")]
    patterns = [
        r.properties["EventPattern"]["resources"][0]["wildcard"]
        for r in monitoring.all("AWS::Events::Rule")
        if r.properties["EventPattern"]["source"] == ["aws.imagebuilder"]
    ]

    assert recipes
    for recipe in recipes:
        # An image's ARN has its recipe's name in lower case.
        arn = f"arn:aws:imagebuilder:us-east-1:123456789012:image/{recipe.properties['Name'].lower()}/1.0.0/1"
        for pattern in patterns:
            assert re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), arn), (pattern, arn)


def test_images_of_another_stage_are_not_told(stack, monitoring):
    others = stack("dev-2", "image").only("AWS::ImageBuilder::ImageRecipe").properties["Name"]
    arn = f"arn:aws:imagebuilder:us-east-1:123456789012:image/{others}/1.0.0/1"

    for rule in monitoring.all("AWS::Events::Rule"):
        for pattern in rule.properties["EventPattern"].get("resources", ()):
            assert not fnmatchcase(arn, pattern["wildcard"])


def test_nothing_of_the_stack_outlives_it(monitoring):
    assert not [r.logical_id for r in monitoring.resources() if r.is_retained]


def test_the_topic_is_encrypted_and_takes_messages_from_aws_alone(monitoring):
    topic = monitoring.only("AWS::SNS::Topic")
    key = monitoring.only("AWS::KMS::Key")
    statements = monitoring.only("AWS::SNS::TopicPolicy").properties["PolicyDocument"]["Statement"]
    allowed = [s for s in statements if s["Effect"] == "Allow"]
    denied = [s for s in statements if s["Effect"] == "Deny"]

    assert topic.properties["KmsMasterKeyId"] == {"Fn::GetAtt": [key.logical_id, "Arn"]}
    assert key.properties["EnableKeyRotation"] is True
    assert {name for s in allowed for name in principals(s)} == services("events", "cloudwatch", "budgets")
    assert {s["Action"] for s in allowed} == {"sns:Publish"}
    assert [principals(s) for s in allowed if "Condition" not in s] == [["events.amazonaws.com"]]
    assert [s["Condition"] for s in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_whoever_publishes_to_the_topic_may_use_its_key(monitoring):
    statements = monitoring.only("AWS::KMS::Key").properties["KeyPolicy"]["Statement"]
    users = {name: s["Action"] for s in statements for name in principals(s)}

    assert set(users) == services("events", "cloudwatch", "budgets")
    assert all(actions == ["kms:Decrypt", "kms:GenerateDataKey*"] for actions in users.values())


def principals(statement: Mapping[str, Any]) -> list[str]:
    """The AWS services that a statement is about."""
    names = statement["Principal"].get("Service", [])
    return [names] if isinstance(names, str) else list(names)


def services(*names: str) -> set[str]:
    return {f"{name}.amazonaws.com" for name in names}


def test_the_configured_address_is_told_and_none_without_one(stack, monitoring):
    subscription = monitoring.only("AWS::SNS::Subscription").properties

    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")
    assert stack("dev", "monitoring").all("AWS::SNS::Subscription") == []


def test_the_budget_counts_the_stage_alone_and_tells_at_80_at_100_and_by_forecast(stack, monitoring):
    budget = monitoring.only("AWS::Budgets::Budget").properties
    tags = monitoring.only("AWS::SNS::Topic").tags
    told = {
        (n["Notification"]["NotificationType"], n["Notification"]["Threshold"])
        for n in budget["NotificationsWithSubscribers"]
    }

    assert budget["Budget"]["BudgetLimit"] == {"Amount": 1000, "Unit": "USD"}
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": ["user:scanfleet:stage$dev"]}
    assert tags["scanfleet:stage"] == "dev", "the tag that it filters by"
    assert told == {("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)}
    assert stack("dev", "monitoring").all("AWS::Budgets::Budget") == []


# --- Saved queries -----------------------------------------------------------------------------------------


def queries(template: StackTemplate) -> Mapping[str, dict[str, Any]]:
    return {q.properties["Name"]: q.properties for q in template.all("AWS::Logs::QueryDefinition")}


def test_saved_queries_read_log_groups_that_exist(monitoring):
    groups = {log_group_name("dev", component) for component in Component}

    for name, query in queries(monitoring).items():
        assert set(query["LogGroupNames"]) <= groups, name
        assert name.startswith("scanfleet-dev/")


def test_there_is_a_question_to_every_log_group_that_is_written(monitoring):
    asked = {group for query in queries(monitoring).values() for group in query["LogGroupNames"]}

    assert asked == {log_group_name("dev", component) for component in Component}


def test_saved_queries_filter_by_actions_and_metrics_that_are_logged(repo_root, monitoring):
    logged = (repo_root / "docs" / "logging-and-metrics.md").read_text(encoding="utf-8")
    asked: set[str] = set()
    for query in queries(monitoring).values():
        for command in re.findall(r"action (?:!?=|in) (\[[^\]]+\]|'[^']+')", query["QueryString"]):
            asked |= set(re.findall(r"'([a-z_]+)'", command))

    assert "job_state_changed" in asked
    assert {action for action in asked if f"`{action}`" not in logged} == set()


LOG_COMMANDS = {"fields", "filter", "stats", "sort", "limit", "parse", "display", "dedup"}


def test_saved_queries_are_made_of_commands_that_logs_insights_knows(monitoring):
    for name, query in queries(monitoring).items():
        for command in query["QueryString"].split("\n| "):
            assert command.split()[0] in LOG_COMMANDS, (name, command)


# --- References --------------------------------------------------------------------------------------------


def test_other_stacks_are_found_by_name_but_for_generated_ones(monitoring):
    text_of_all = json.dumps(monitoring.body)
    imports = set(re.findall(r'"Fn::ImportValue": "([^"]+)"', text_of_all))

    assert all(re.search(r"QueueName|LoadBalancerFullName|Jobs|HttpApi|Api", name) for name in imports), (
        imports
    )
    assert len(imports) <= 6


def test_a_metric_takes_the_whole_configuration_or_the_stages_name():
    config = DeploymentConfig(stage="dev", region="us-east-1")

    by_config = scanfleet_metric(config, Metric.BACKLOG, statistic="Sum", pool=POOL.value)
    assert (
        by_config.namespace
        == scanfleet_metric("dev", Metric.BACKLOG, statistic="Sum", pool=POOL.value).namespace
    )
