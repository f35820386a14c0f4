"""Faults of what keeps state, and of who may do what."""

from tests.support.mutations import Mutation, Properties, change, change_resource, remove

ROLE = "fleet/WindowsGpuFleetAgentRoleDefaultPolicy"
ALLOW = {"Effect": "Allow", "Resource": "*"}


def _allow(properties: Properties, **statement: object) -> None:
    properties["PolicyDocument"]["Statement"].append({**ALLOW, **statement})


STATE = [
    Mutation(
        fault="a queue has no dead-letter queue",
        where="data/WindowsGpuQueueNormal",
        caught_by="queues",
        seed=change(lambda p: p.pop("RedrivePolicy")),
    ),
    Mutation(
        fault="a message is visible again before its lease has ended",
        where="data/WindowsGpuQueueHigh",
        caught_by="queues",
        seed=change(lambda p: p.update(VisibilityTimeout=20)),
    ),
    Mutation(
        fault="a message goes to the dead letters after its first delivery",
        where="data/WindowsGpuQueueNormal",
        caught_by="queues",
        seed=change(lambda p: p["RedrivePolicy"].update(maxReceiveCount=1)),
    ),
    Mutation(
        fault="the job table cannot be restored to a point in time",
        where="data/JobsTable",
        caught_by="at rest",
        seed=change(lambda p: p.pop("PointInTimeRecoverySpecification")),
    ),
    Mutation(
        fault="the data bucket goes with its stack",
        where="data/BucketsData",
        caught_by="at rest",
        seed=change_resource(lambda r: r.update(DeletionPolicy="Delete")),
    ),
    Mutation(
        fault="a bucket may be made public",
        where="data/BucketsArtifacts",
        caught_by="at rest",
        seed=change(lambda p: p["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False)),
    ),
    Mutation(
        fault="a key is never rotated",
        where="monitoring/AlarmTopicKey",
        caught_by="at rest",
        seed=change(lambda p: p.update(EnableKeyRotation=False)),
    ),
    Mutation(
        fault="a bucket's policy lets plain HTTP in",
        where="data/BucketsDataPolicy",
        caught_by="in transit",
        says="data/BucketsData",
        seed=change(lambda p: p["PolicyDocument"]["Statement"].pop(0)),
    ),
    Mutation(
        fault="a queue has no policy",
        where="data/WindowsGpuQueueHighPolicy",
        caught_by="in transit",
        says="data/WindowsGpuQueueHigh",
        seed=remove,
    ),
    Mutation(
        fault="a log group keeps its lines for ever",
        where="data/LogsAgent",
        caught_by="log groups",
        seed=change(lambda p: p.pop("RetentionInDays")),
    ),
    Mutation(
        fault="a log group has another name than its writers know",
        where="data/LogsUserdata",
        caught_by="log groups",
        says="/scanfleet/dev/userdata",
        seed=change(lambda p: p.update(LogGroupName="/scanfleet/dev/user-data")),
    ),
]

POLICIES = [
    Mutation(
        fault="a role may do everything",
        where=ROLE,
        caught_by="policies",
        seed=change(lambda p: _allow(p, Action="*")),
    ),
    Mutation(
        fault="a role may do everything with S3",
        where=ROLE,
        caught_by="policies",
        seed=change(lambda p: _allow(p, Action="s3:*")),
    ),
    Mutation(
        fault="a role may delete every object of the account",
        where=ROLE,
        caught_by="policy resources",
        seed=change(lambda p: _allow(p, Action="s3:DeleteObject")),
    ),
    Mutation(
        fault="a role may do something that does not exist",
        where=ROLE,
        caught_by="policy resources",
        seed=change(lambda p: _allow(p, Action="autoscaling:CompleteLifecycle")),
    ),
    Mutation(
        fault="another account may take a role",
        where="fleet/WindowsGpuFleetAgentRole",
        caught_by="policies",
        seed=change(
            lambda p: p["AssumeRolePolicyDocument"]["Statement"][0].update(
                Principal={"AWS": "arn:aws:iam::999999999999:root"}
            )
        ),
    ),
]

MUTATIONS = [*STATE, *POLICIES]
