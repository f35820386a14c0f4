"""The sweeper's function, schedule and role, as CloudFormation gets them."""

import json
from typing import Any

import pytest

from cdk.sweeper import HANDLER, TIMEOUT
from scanfleet.contract import SWEEPER_PERIOD, Component, Env, Pool, function_name
from scanfleet.settings import SweeperSettings, load
from scanfleet.sweeper import entry
from tests.support.template import Resource, StackTemplate

STAGES = ("dev", "prod", "local")


@pytest.fixture(scope="module")
def made(stack) -> StackTemplate:
    return stack("dev", "fleet")


def function(made: StackTemplate) -> Resource:
    (found,) = [f for f in made.all("AWS::Lambda::Function") if f.properties.get("Handler") == HANDLER]
    return found


def schedule(made: StackTemplate) -> dict[str, Any]:
    name = function_name("dev", Component.SWEEPER)
    (found,) = [s for s in made.all("AWS::Scheduler::Schedule") if s.properties["Name"] == name]
    return found.properties


def statements(made: StackTemplate) -> dict[str, dict[str, Any]]:
    reference = function(made).properties["Role"]["Fn::GetAtt"][0]
    return {
        statement.get("Sid", "XRay"): statement
        for policy in made.all("AWS::IAM::Policy")
        if {"Ref": reference} in policy.properties["Roles"]
        for statement in policy.properties["PolicyDocument"]["Statement"]
    }


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_handler_is_the_runtimes():
    module, name = HANDLER.rsplit(".", 1)

    assert entry.__name__ == module
    assert callable(getattr(entry, name))


@pytest.mark.parametrize("stage", STAGES)
def test_every_kind_of_stage_has_one(stack, stage):
    assert function(stack(stage, "fleet")).properties["FunctionName"] == f"scanfleet-{stage}-sweeper"


def test_the_scheduler_starts_it_each_minute_and_forgets_starts_that_failed(made):
    facts = schedule(made)

    assert facts["ScheduleExpression"] == "rate(1 minute)"
    assert SWEEPER_PERIOD.total_seconds() == 60
    assert facts["Target"]["RetryPolicy"] == {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 0}
    assert facts["Target"]["Arn"] == {"Fn::GetAtt": [function(made).logical_id, "Arn"]}


def test_a_run_ends_by_itself_before_it_is_cut_off(made):
    assert function(made).properties["Timeout"] == TIMEOUT.total_seconds()
    assert TIMEOUT.total_seconds() / 2 > entry.KEPT_BACK_MS / 1000


def test_its_environment_is_what_its_settings_read(made, monkeypatch):
    environment = function(made).properties["Environment"]["Variables"]
    queues = {Pool.WINDOWS_GPU: {"high": "https://q/high", "normal": "https://q/normal"}}
    for name, value in environment.items():
        monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(queues))
    monkeypatch.setenv(Env.JOB_TABLE, "jobs")
    monkeypatch.setenv(Env.ARTIFACTS_BUCKET, "artifacts")

    assert load(SweeperSettings).artifacts_bucket == "artifacts"
    assert set(environment) == {Env.STAGE, Env.JOB_TABLE, Env.QUEUES, Env.ARTIFACTS_BUCKET}


def test_it_lists_unfinished_jobs_by_their_index_and_reads_no_other(made):
    statement = statements(made)["ListUnfinishedJobs"]

    (resource,) = [json.dumps(r) for r in listed(statement["Resource"])]
    assert resource.endswith('/index/active"]]}')
    assert [s for s in statements(made).values() if "dynamodb:Query" in listed(s["Action"])] == [statement]


def test_it_changes_jobs_and_no_other_record(made):
    statement = statements(made)["ReadAndMarkJobs"]

    assert statement["Condition"] == {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["JOB#*"]},
        "Null": {"dynamodb:LeadingKeys": "false"},
    }
    assert statement["Action"] == ["dynamodb:GetItem", "dynamodb:UpdateItem"]


def test_it_sends_to_every_pools_queues_and_receives_nothing(made, stack):
    sending = statements(made)["CountAndQueueJobs"]

    assert sorted(sending["Action"]) == ["sqs:GetQueueAttributes", "sqs:SendMessage"]
    assert len(listed(sending["Resource"])) == 2
    local = statements(stack("local", "fleet"))["CountAndQueueJobs"]
    assert len(listed(local["Resource"])) == 4, "the local stage has two pools"


def test_it_deletes_staged_results_and_reads_no_object(made):
    allowed = statements(made)

    assert allowed["ListStagedResults"]["Condition"] == {"StringLike": {"s3:prefix": ["staging/*"]}}
    assert json.dumps(allowed["DeleteStagedResults"]["Resource"]).endswith('/staging/*"]]}')
    objects = {a for s in allowed.values() for a in listed(s["Action"]) if a.startswith("s3:")}
    assert objects == {
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }


def test_with_a_key_of_its_own_it_uses_the_table_through_dynamodb_only(stack):
    statement = statements(stack("dev", "fleet", customer_managed_key=True))["UseTheTablesKey"]

    using = {"kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"}
    assert set(statement["Action"]) == using
    assert list(statement["Condition"]) == ["StringEquals"]
    assert "dynamodb." in json.dumps(statement["Condition"]["StringEquals"]["kms:ViaService"])


def test_every_star_is_of_tracing(made):
    anything = {
        a for s in statements(made).values() if "*" in listed(s["Resource"]) for a in listed(s["Action"])
    }

    assert anything == {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
