"""Checks of what keeps state: queues, table, buckets, keys, log groups."""

from collections.abc import Iterator

from scanfleet import contract
from tests.support.deployment import Deployment
from tests.support.findings import Finding

TABLE, BUCKET, QUEUE = "AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue"


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="state", rule=rule, where=where, detail=detail)


def queues(deployment: Deployment) -> Iterator[Finding]:
    """A pool's messages outlive a lease, are tried as often as agreed, and end with the dead letters."""
    data = deployment.stack("data")
    for by_priority in data.queues().values():
        for queue in by_priority.values():
            where, properties = f"data/{queue.logical_id}", queue.properties
            redrive = properties.get("RedrivePolicy", {})
            target = redrive.get("deadLetterTargetArn", {}).get("Fn::GetAtt", [None])[0]
            if target not in data.body["Resources"]:
                yield _found("NO_DEAD_LETTERS", where)
            if redrive.get("maxReceiveCount") != contract.MAX_RECEIVE_COUNT:
                yield _found("RECEIVE_COUNT", where, str(redrive.get("maxReceiveCount")))
            hidden, lease = properties.get("VisibilityTimeout", 0), contract.LEASE_DURATION.total_seconds()
            if not isinstance(hidden, int) or hidden <= lease:
                yield _found("VISIBLE_TOO_SOON", where, f"{hidden} s, a lease lasts {lease} s")
            if properties.get("MessageRetentionPeriod") != contract.MESSAGE_RETENTION.total_seconds():
                yield _found("FORGETS", where, str(properties.get("MessageRetentionPeriod")))


def at_rest(deployment: Deployment) -> Iterator[Finding]:
    """What is stored is encrypted, closed to the public, can be restored, and outlives its stack."""
    for where, resource in deployment.everywhere(TABLE, BUCKET, QUEUE, "AWS::KMS::Key", "AWS::SNS::Topic"):
        properties = resource.properties
        if resource.kind in {TABLE, BUCKET} and deployment.config.retain_data and not resource.is_retained:
            yield _found("NOT_RETAINED", where)
        if resource.kind == TABLE:
            restore = properties.get("PointInTimeRecoverySpecification", {})
            if restore.get("PointInTimeRecoveryEnabled") is not True:
                yield _found("NO_RESTORE", where)
            if properties.get("DeletionProtectionEnabled") is not deployment.config.retain_data:
                yield _found("DELETABLE", where)
        if resource.kind == BUCKET:
            closed = properties.get("PublicAccessBlockConfiguration", {})
            if len(closed) != 4 or not all(closed.values()):
                yield _found("PUBLIC", where)
            if not properties.get("BucketEncryption"):
                yield _found("PLAIN", where)
        if resource.kind == QUEUE and not (
            properties.get("SqsManagedSseEnabled") or properties.get("KmsMasterKeyId")
        ):
            yield _found("PLAIN", where)
        if resource.kind == "AWS::KMS::Key" and properties.get("EnableKeyRotation") is not True:
            yield _found("NO_ROTATION", where)
        if resource.kind == "AWS::SNS::Topic" and not properties.get("KmsMasterKeyId"):
            yield _found("PLAIN", where)


def in_transit(deployment: Deployment) -> Iterator[Finding]:
    """Buckets and queues refuse everyone who comes over plain HTTP."""
    for where, resource in deployment.everywhere(BUCKET, QUEUE):
        if not deployment.stack(where.split("/")[0]).refuses_plain_http(resource):
            yield _found("PLAIN_HTTP", where)


def log_groups(deployment: Deployment) -> Iterator[Finding]:
    """Every component of the contract has its log group; all keep lines as long as configured."""
    names = set()
    for where, group in deployment.everywhere("AWS::Logs::LogGroup"):
        names.add(str(group.properties.get("LogGroupName")))
        if group.properties.get("RetentionInDays") != deployment.config.log_retention_days:
            yield _found("RETENTION", where, str(group.properties.get("RetentionInDays")))
    for component in contract.Component:
        name = contract.log_group_name(deployment.config.stage, component)
        if name not in names:
            yield _found("NO_LOG_GROUP", "data", name)
