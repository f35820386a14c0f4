"""Live events on AWS: the table's stream, the function that it feeds, and the WebSocket API."""

import json
from typing import Any

import pytest

from cdk.events_function import HANDLER
from scanfleet.contract import Component, Env, function_name
from scanfleet.events import entry
from scanfleet.settings import EventsSettings, load
from tests.support.template import Resource, StackTemplate, flat

TABLE = "AWS::DynamoDB::Table"


@pytest.fixture(scope="module")
def made(stack) -> StackTemplate:
    return stack("dev", "api")


def function(made: StackTemplate) -> Resource:
    (found,) = [f for f in made.all("AWS::Lambda::Function") if f.properties.get("Handler") == HANDLER]
    return found


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


def leading_keys(statement: dict[str, Any]) -> list[str]:
    assert statement["Condition"]["Null"] == {"dynamodb:LeadingKeys": "false"}
    return list(statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"])


def test_the_table_tells_its_changes_with_what_was_before(stack):
    table = stack("dev", "data").only(TABLE).properties

    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}


def test_the_handler_is_the_runtimes():
    module, name = HANDLER.rsplit(".", 1)

    assert entry.__name__ == module
    assert callable(getattr(entry, name))


def test_its_environment_is_what_its_settings_read(made, monkeypatch):
    environment = function(made).properties["Environment"]["Variables"]
    for name, value in environment.items():
        monkeypatch.setenv(name, flat(value))

    settings = load(EventsSettings)

    assert set(environment) == {Env.STAGE, Env.JOB_TABLE, Env.CONNECTIONS_URL}
    assert settings.connections_url.startswith("https://")
    assert settings.connections_url.endswith("/live")


def test_the_api_gives_out_tickets_for_the_websocket_apis_address(made):
    name = function_name("dev", Component.API)
    (api,) = [f for f in made.all("AWS::Lambda::Function") if f.properties["FunctionName"] == name]

    url = flat(api.properties["Environment"]["Variables"][Env.EVENTS_URL])

    assert url.startswith("wss://")
    assert url.endswith("/live")


def test_every_event_of_the_websocket_api_calls_the_function(made):
    apis = [a for a in made.all("AWS::ApiGatewayV2::Api") if a.properties["ProtocolType"] == "WEBSOCKET"]
    routes = [r.properties for r in made.all("AWS::ApiGatewayV2::Route")]
    mine = [r for r in routes if r["ApiId"] == {"Ref": apis[0].logical_id}]

    assert len(apis) == 1
    assert {r["RouteKey"] for r in mine} == {"$connect", "$disconnect", "$default"}
    assert {r["AuthorizationType"] for r in mine} == {"NONE"}, "tickets, which the function takes"


def test_the_websocket_api_is_throttled_and_its_log_holds_no_ticket(made):
    (stage,) = [s for s in made.all("AWS::ApiGatewayV2::Stage") if s.properties["StageName"] == "live"]

    assert stage.properties["DefaultRouteSettings"]["ThrottlingRateLimit"] == 100
    written = stage.properties["AccessLogSettings"]["Format"]
    assert "query" not in written.lower()
    assert json.loads(written)["connection"] == "$context.connectionId"


def test_only_jobs_changes_reach_the_function_and_a_batch_that_fails_is_set_aside(made):
    mapping = made.only("AWS::Lambda::EventSourceMapping").properties

    (pattern,) = [json.loads(f["Pattern"]) for f in mapping["FilterCriteria"]["Filters"]]
    assert pattern == {
        "eventName": ["INSERT", "MODIFY"],
        "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "JOB#"}]}}},
    }
    assert mapping["MaximumBatchingWindowInSeconds"] == 0
    assert mapping["BisectBatchOnFunctionError"] is True
    assert (mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == (3, 60)
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"]
    assert mapping["StartingPosition"] == "LATEST"


def test_it_reads_jobs_and_past_runs_and_writes_records_of_connections_only(made):
    allowed = statements(made)

    assert leading_keys(allowed["KeepConnections"]) == ["LIVE#*"]
    assert (leading_keys(allowed["ReadJobs"]), allowed["ReadJobs"]["Action"]) == (
        ["JOB#*"],
        "dynamodb:GetItem",
    )
    assert (leading_keys(allowed["ReadPastRuns"]), allowed["ReadPastRuns"]["Action"]) == (
        ["HISTORY#*"],
        "dynamodb:Query",
    )
    writing = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"}
    assert [s for s, facts in allowed.items() if writing & set(listed(facts["Action"]))] == [
        "KeepConnections"
    ]
    assert not [a for facts in allowed.values() for a in listed(facts["Action"]) if a.startswith("s3:")]


def test_it_writes_to_connections_of_its_own_api_only(made):
    statement = statements(made)["WriteToConnections"]

    assert statement["Action"] == "execute-api:ManageConnections"
    assert flat(statement["Resource"]).endswith("/live/*/@connections/*")


def test_what_names_no_resource_is_tracing_and_the_list_of_streams(made):
    anything = {
        a for s in statements(made).values() if "*" in listed(s["Resource"]) for a in listed(s["Action"])
    }

    assert anything == {"xray:PutTraceSegments", "xray:PutTelemetryRecords", "dynamodb:ListStreams"}


def test_with_a_key_of_its_own_it_uses_the_table_through_dynamodb_only(stack):
    statement = statements(stack("dev", "api", customer_managed_key=True))["UseTheTablesKey"]

    using = {"kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"}
    assert set(statement["Action"]) == using
    assert "dynamodb." in json.dumps(statement["Condition"]["StringEquals"]["kms:ViaService"])


def test_it_can_be_switched_off(stack):
    without = stack("dev", "api", api={"live_events": False})

    assert not without.all("AWS::Lambda::EventSourceMapping")
    names = [f.properties["FunctionName"] for f in without.all("AWS::Lambda::Function")]
    assert names == [function_name("dev", Component.API)]
    alarms = stack("dev", "monitoring", api={"live_events": False}).all("AWS::CloudWatch::Alarm")
    assert not [a for a in alarms if a.properties["AlarmName"].endswith("events-late")]
