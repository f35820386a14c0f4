"""What the data stack promises, read from the template that AWS gets."""

import json

import pytest
from aws_cdk import App, Stack
from aws_cdk.aws_iam import Role, ServicePrincipal
from aws_cdk.aws_s3 import Bucket

from app import build
from cdk.config import ConfigError
from cdk.job_queue import JobQueue
from cdk.job_table import JobTable
from cdk.parameters import output_name
from scanfleet import contract
from scanfleet.contract import (
    DATA_PARAMETERS,
    INDEX_PARTITION_KEYS,
    Component,
    Parameter,
    Pool,
    Priority,
    TableKey,
    parameter_name,
)
from scanfleet.settings import SystemSettings
from tests.support.template import Resource, StackTemplate, flat

TABLE = "AWS::DynamoDB::Table"
QUEUE = "AWS::SQS::Queue"
BUCKET = "AWS::S3::Bucket"


def rules(bucket: Resource) -> list[dict]:
    return bucket.properties["LifecycleConfiguration"]["Rules"]


def expiry_days(bucket: Resource, prefix: str) -> int:
    (days,) = [r["ExpirationInDays"] for r in rules(bucket) if r.get("Prefix") == prefix]
    return days


# --- The job table -----------------------------------------------------------------------------------------


def test_the_table_has_the_contracts_keys(dev):
    schema = {key["AttributeName"]: key["KeyType"] for key in dev.only(TABLE).properties["KeySchema"]}

    assert schema == {TableKey.PARTITION: "HASH", TableKey.SORT: "RANGE"}


@pytest.mark.parametrize(("index", "partition"), INDEX_PARTITION_KEYS.items())
def test_every_index_of_the_contract_sorts_its_partition_by_job_id_and_has_whole_jobs(dev, index, partition):
    (found,) = [
        gsi for gsi in dev.only(TABLE).properties["GlobalSecondaryIndexes"] if gsi["IndexName"] == index
    ]

    schema = {key["AttributeName"]: key["KeyType"] for key in found["KeySchema"]}
    assert schema == {partition: "HASH", TableKey.JOB_ID: "RANGE"}
    assert found["Projection"] == {"ProjectionType": "ALL"}


def test_the_table_has_no_index_that_the_contract_does_not_name(dev):
    indexes = {gsi["IndexName"] for gsi in dev.only(TABLE).properties["GlobalSecondaryIndexes"]}

    assert indexes == set(INDEX_PARTITION_KEYS)


def test_every_key_is_a_text(dev):
    types = {a["AttributeType"] for a in dev.only(TABLE).properties["AttributeDefinitions"]}

    assert types == {"S"}


def test_the_table_deletes_expired_jobs(dev):
    expiry = dev.only(TABLE).properties["TimeToLiveSpecification"]

    assert expiry == {"AttributeName": TableKey.EXPIRES_AT, "Enabled": True}


def test_the_table_can_be_restored_to_any_second_and_is_paid_by_request(dev):
    table = dev.only(TABLE).properties

    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["BillingMode"] == "PAY_PER_REQUEST"


# --- Queues ------------------------------------------------------------------------------------------------


def test_every_pool_has_a_queue_for_each_priority_and_no_two_share_one(local):
    queues = local.queues()
    ids = [queue.logical_id for by_priority in queues.values() for queue in by_priority.values()]

    assert {pool: set(by_priority) for pool, by_priority in queues.items()} == {
        pool: set(Priority) for pool in Pool
    }
    assert len(set(ids)) == len(ids)


def test_a_message_stays_hidden_longer_than_a_lease_lasts(dev):
    for by_priority in dev.queues().values():
        for queue in by_priority.values():
            hidden = queue.properties["VisibilityTimeout"]
            assert hidden == contract.VISIBILITY_TIMEOUT.total_seconds()
            assert contract.HEARTBEAT_INTERVAL < contract.LEASE_DURATION
            assert contract.LEASE_DURATION.total_seconds() < hidden


def test_each_pool_has_a_dead_letter_queue_of_its_own_for_both_priorities(dev):
    dead_letters = {
        pool: {dev.dead_letters_of(queue).logical_id for queue in by_priority.values()}
        for pool, by_priority in dev.queues().items()
    }

    assert all(len(ids) == 1 for ids in dead_letters.values())
    assert len(set.union(*dead_letters.values())) == len(dead_letters)


def test_a_message_reaches_the_dead_letters_after_the_contracts_deliveries(dev):
    for by_priority in dev.queues().values():
        for queue in by_priority.values():
            assert queue.properties["RedrivePolicy"]["maxReceiveCount"] == contract.MAX_RECEIVE_COUNT


def test_queues_keep_messages_as_long_as_the_contract_says_and_encrypt_them(dev):
    for queue in dev.all(QUEUE):
        assert queue.properties["MessageRetentionPeriod"] == contract.MESSAGE_RETENTION.total_seconds()
        assert queue.properties["SqsManagedSseEnabled"] is True


def test_every_queue_refuses_plain_http(dev):
    assert all(dev.refuses_plain_http(queue) for queue in dev.all(QUEUE))


def test_an_agent_may_consume_its_pool_but_not_send_to_it():
    stack = Stack(App(), "Test")
    agent = Role(stack, "Agent", assumed_by=ServicePrincipal("ec2.amazonaws.com"))
    JobQueue(stack, "Queue", pool=Pool.LINUX_CPU).grant_consume(agent)

    actions = granted_actions(stack)
    assert {"sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage"} <= actions
    assert "sqs:SendMessage" not in actions


def test_the_api_may_send_but_not_consume():
    stack = Stack(App(), "Test")
    api = Role(stack, "Api", assumed_by=ServicePrincipal("lambda.amazonaws.com"))
    JobQueue(stack, "Queue", pool=Pool.LINUX_CPU).grant_send(api)

    actions = granted_actions(stack)
    assert "sqs:SendMessage" in actions
    assert actions.isdisjoint({"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:PurgeQueue"})


def test_who_reads_and_writes_jobs_cannot_change_the_table():
    stack = Stack(App(), "Test")
    api = Role(stack, "Api", assumed_by=ServicePrincipal("lambda.amazonaws.com"))
    JobTable(stack, "Jobs").grant_read_write(api)

    actions = granted_actions(stack)
    assert {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:Query"} <= actions
    assert actions.isdisjoint({"dynamodb:*", "dynamodb:DeleteTable", "dynamodb:UpdateTable"})


def granted_actions(stack: Stack) -> set[str]:
    policy = StackTemplate(App.of(stack).synth().get_stack_by_name("Test").template).only("AWS::IAM::Policy")
    statements = policy.properties["PolicyDocument"]["Statement"]
    return {a for s in statements for a in (s["Action"] if isinstance(s["Action"], list) else [s["Action"]])}


# --- Buckets -----------------------------------------------------------------------------------------------


def test_every_bucket_refuses_plain_http(dev):
    assert all(dev.refuses_plain_http(bucket) for bucket in dev.all(BUCKET))


def test_every_bucket_is_closed_to_the_public_and_encrypted(dev):
    for bucket in dev.all(BUCKET):
        assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket.properties["BucketEncryption"]


@pytest.mark.parametrize("parameter", [Parameter.DATA_BUCKET, Parameter.ARTIFACTS_BUCKET])
def test_both_buckets_keep_overwritten_files_for_a_while(dev, parameter):
    bucket = dev.named(parameter)

    assert bucket.properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert [
        r["NoncurrentVersionExpiration"] for r in rules(bucket) if "NoncurrentVersionExpiration" in r
    ] == [{"NoncurrentDays": 30}]


@pytest.mark.parametrize("parameter", [Parameter.DATA_BUCKET, Parameter.ARTIFACTS_BUCKET])
def test_uploads_that_nobody_completed_go_away(dev, parameter):
    assert any("AbortIncompleteMultipartUpload" in rule for rule in rules(dev.named(parameter)))


@pytest.mark.parametrize("parameter", [Parameter.DATA_BUCKET, Parameter.ARTIFACTS_BUCKET])
def test_who_read_and_wrote_a_bucket_is_recorded_in_a_bucket_of_its_own(dev, parameter):
    bucket = dev.named(parameter)
    logs = bucket.properties["LoggingConfiguration"]["DestinationBucketName"]["Ref"]

    assert logs not in {dev.named(p).logical_id for p in (Parameter.DATA_BUCKET, Parameter.ARTIFACTS_BUCKET)}


def test_staged_results_program_logs_and_evidence_expire_as_the_contract_says(dev):
    artifacts = dev.named(Parameter.ARTIFACTS_BUCKET)

    assert expiry_days(artifacts, contract.STAGING_PREFIX) == contract.STAGING_KEPT.days
    assert expiry_days(artifacts, contract.LOGS_PREFIX) == contract.LOGS_KEPT.days
    assert expiry_days(artifacts, contract.EVIDENCE_PREFIX) == contract.EVIDENCE_KEPT.days


def test_what_clients_store_never_expires(dev):
    data = dev.named(Parameter.DATA_BUCKET)

    assert not [rule for rule in rules(data) if "ExpirationInDays" in rule]


# --- Where machines find it --------------------------------------------------------------------------------


def test_every_parameter_of_the_contract_is_written_and_has_an_output_of_the_same_value(dev):
    names = {p.properties["Name"] for p in dev.all("AWS::SSM::Parameter")}

    written = {*DATA_PARAMETERS, Parameter.LOG_LEVELS}
    assert names == {parameter_name("dev", parameter) for parameter in written}
    for parameter in DATA_PARAMETERS:
        output = dev.body["Outputs"][output_name(parameter)]["Value"]
        assert flat(output) == dev.parameter_text(parameter)


def test_the_parameters_are_what_the_runtimes_settings_read(local):
    loaded = SystemSettings(
        job_table=local.parameter_text(Parameter.JOB_TABLE),
        artifacts_bucket=local.parameter_text(Parameter.ARTIFACTS_BUCKET),
        queues=json.loads(local.parameter_text(Parameter.QUEUES)),
        dead_letters=json.loads(local.parameter_text(Parameter.DEAD_LETTERS)),
        allowed_prefixes=local.parameter_text(Parameter.ALLOWED_PREFIXES),
    )

    assert set(loaded.queues) == set(Pool)
    assert loaded.allowed_prefixes == (f"s3://{local.named(Parameter.DATA_BUCKET).logical_id}/",)


def test_further_prefixes_of_the_configuration_are_allowed_besides_the_data_bucket(stack):
    tenants = {
        "clinic": {"allowed_prefixes": ["s3://clinic-scans/a/"], "callers": ["arn:aws:iam::1:role/clinic"]}
    }
    template = stack("dev", "data", allowed_prefixes=["s3://shared-scans/"], tenants=tenants)

    own, shared, of_a_tenant = template.parameter_text(Parameter.ALLOWED_PREFIXES).split(",")
    assert own == f"s3://{template.named(Parameter.DATA_BUCKET).logical_id}/"
    assert (shared, of_a_tenant) == ("s3://shared-scans/", "s3://clinic-scans/a/")


def test_pages_of_no_origin_may_use_the_buckets_until_the_console_has_one(dev, stack):
    assert all("CorsConfiguration" not in bucket.properties for bucket in dev.all(BUCKET))

    template = stack("dev", "data", api={"console_origins": ["https://scans.example.com"]})

    with_rules = [one for one in template.all(BUCKET) if "CorsConfiguration" in one.properties]
    assert [one.logical_id for one in with_rules] == [template.named(Parameter.DATA_BUCKET).logical_id]
    (rule,) = with_rules[0].properties["CorsConfiguration"]["CorsRules"]
    assert rule["AllowedOrigins"] == ["https://scans.example.com"]
    assert set(rule["AllowedMethods"]) == {"GET", "PUT"}
    assert rule["AllowedHeaders"] == ["content-type"]


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.com", "https://a.example/path", "ftp://a.example"]
)
def test_an_origin_that_means_more_than_one_place_is_refused(stack, origin):
    with pytest.raises(ConfigError, match="console_origins"):
        stack("dev", "data", api={"console_origins": [origin]})


# --- Stages ------------------------------------------------------------------------------------------------


def test_everything_with_state_outlives_its_stack(dev, prod):
    for template in (dev, prod):
        stateful = [r for r in template.resources() if r.kind in {TABLE, BUCKET, "AWS::KMS::Key"}]
        assert all(resource.is_retained for resource in stateful)
        assert template.only(TABLE).properties["DeletionProtectionEnabled"] is True


def test_log_groups_outlive_their_stack_and_do_not_block_the_attempt_after_a_failed_first_one(dev):
    groups = dev.all("AWS::Logs::LogGroup")

    assert len(groups) == len(Component)
    for group in groups:
        assert group.body["DeletionPolicy"] == "RetainExceptOnCreate"
        assert group.body["UpdateReplacePolicy"] == "Retain"


def test_the_local_stage_leaves_nothing_behind(local):
    assert not [resource for resource in local.resources() if resource.is_retained]
    assert local.only(TABLE).properties["DeletionProtectionEnabled"] is False


def test_the_local_stage_needs_no_custom_resources(local):
    kinds = {resource.kind for resource in local.resources()}

    assert not [k for k in kinds if k.startswith(("Custom::", "AWS::CloudFormation::", "AWS::Lambda::"))]


def test_nothing_with_state_has_a_fixed_name_so_that_it_can_be_replaced(dev):
    for resource in dev.resources():
        assert resource.properties.keys().isdisjoint({"TableName", "QueueName", "BucketName"})


def test_a_key_of_the_deployments_own_encrypts_table_and_buckets_and_is_rotated(prod):
    key = prod.only("AWS::KMS::Key")
    assert key.properties["EnableKeyRotation"] is True

    table = prod.only(TABLE).properties["SSESpecification"]
    assert table["KMSMasterKeyId"]["Fn::GetAtt"][0] == key.logical_id
    for parameter in (Parameter.DATA_BUCKET, Parameter.ARTIFACTS_BUCKET):
        (rule,) = prod.named(parameter).properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        used = rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]["Fn::GetAtt"][0]
        assert used == key.logical_id


def test_every_resource_that_can_be_tagged_says_its_product_and_stage(dev):
    for resource in dev.resources():
        if resource.kind in {TABLE, QUEUE, BUCKET, "AWS::SSM::Parameter"}:
            assert {"product": "scanfleet", "scanfleet:stage": "dev"}.items() <= resource.tags.items()


def test_a_finding_of_cdk_nag_that_nobody_acknowledged_fails_the_synth(context, monkeypatch):
    monkeypatch.delenv("CDK_VALIDATION")
    app = App(context=context | {"stage": "dev", "data_only": True}, analytics_reporting=False)
    build(app)
    Bucket(Stack(app, "Careless"), "OpenToPlainHttp")

    with pytest.raises(RuntimeError, match="AwsSolutions-S10"):
        app.synth()
