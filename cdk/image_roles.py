"""Who does what around an image: the machine that it is built on, its clean-up, and who starts it."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from aws_cdk import Acknowledgment, ArnFormat, Stack, Validations
from aws_cdk.aws_iam import ManagedPolicy, Role, ServicePrincipal
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.grants import allow
from scanfleet.contract import (
    PRODUCT,
    RELEASE_OBJECTS_PREFIX,
    RELEASES_PREFIX,
    Parameter,
    parameter_name,
)

_NO_RESOURCE = "these actions take no resource"


def build_role(
    scope: Construct, construct_id: str, *, config: DeploymentConfig, log_group_arn: str, files: Sequence[str]
) -> Role:
    """Return the role of the machine that an image is built and tested on.

    It reads its components, the agent's `files`, the release bucket and the golden set, and writes its log.
    It cannot see jobs or their files, and cannot change anything in AWS.
    Source: AWS managed policy reference, EC2InstanceProfileForImageBuilder, without its wildcards.
    """
    stack, stage = Stack.of(scope), config.stage
    role = _role(scope, construct_id, "ec2", f"Scanfleet {stage}: machines that images are built on")
    allow(
        role,
        "TalkToSystemsManager",
        [
            "ssm:UpdateInstanceInformation",
            "ssm:ListAssociations",
            "ssm:ListInstanceAssociations",
            "ssm:UpdateInstanceAssociationStatus",
            "ssm:PutInventory",
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
            "ec2messages:AcknowledgeMessage",
            "ec2messages:DeleteMessage",
            "ec2messages:FailMessage",
            "ec2messages:GetEndpoint",
            "ec2messages:GetMessages",
            "ec2messages:SendReply",
        ],
        ["*"],
        wildcard=_NO_RESOURCE,
    )
    allow(
        role,
        "ReadComponents",
        ["imagebuilder:GetComponent"],
        [_arn(stack, "imagebuilder", "component", f"{PRODUCT}-{stage}-*")],
        wildcard="a changed component has a new version",
    )
    allow(
        role,
        "DecryptComponents",
        ["kms:Decrypt"],
        ["*"],
        conditions={
            "ForAnyValue:StringEquals": {
                "kms:EncryptionContextKeys": "aws:imagebuilder:arn",
                "aws:CalledVia": ["imagebuilder.amazonaws.com"],
            }
        },
        wildcard="the key is Image Builder's own",
    )
    allow(
        role,
        "FetchTheComponentRunner",
        ["s3:GetObject"],
        [f"arn:{stack.partition}:s3:::ec2imagebuilder-*/*"],
        wildcard="AWS owns these buckets, one for each region",
    )
    allow(
        role,
        "WriteItsLog",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [f"{log_group_arn}:*"],
        wildcard="each build has streams of its own",
    )
    allow(role, "ReadTheAgent", ["s3:GetObject"], list(files))
    _read_releases(role, config)
    _read_golden_set(role, config)
    return role


def _read_releases(role: Role, config: DeploymentConfig) -> None:
    stack, bucket = Stack.of(role), config.medit.release_bucket
    if bucket is None:
        return
    folders = (RELEASES_PREFIX, RELEASE_OBJECTS_PREFIX)
    objects = [f"arn:{stack.partition}:s3:::{bucket}/{folder}*" for folder in folders]
    allow(role, "ReadReleases", ["s3:GetObject"], objects, wildcard="releases come and go")
    # With it, S3 answers 404 for what is missing; without it, 403, which says nothing.
    allow(role, "ListReleases", ["s3:ListBucket"], [f"arn:{stack.partition}:s3:::{bucket}"])
    name = parameter_name(config.stage, Parameter.MEDIT_RELEASE)
    allow(role, "ReadTheActiveVersion", ["ssm:GetParameter"], [_arn(stack, "ssm", "parameter", name[1:])])


def _read_golden_set(role: Role, config: DeploymentConfig) -> None:
    if config.image.golden_prefix is None:
        return
    place = urlsplit(config.image.golden_prefix)
    bucket, key = f"arn:{Stack.of(role).partition}:s3:::{place.netloc}", place.path.removeprefix("/")
    allow(role, "ReadGoldenSet", ["s3:GetObject"], [f"{bucket}/{key}*"], wildcard="a set has many scans")
    conditions = {"StringLike": {"s3:prefix": [f"{key}*"]}} if key else None
    allow(role, "ListGoldenSet", ["s3:ListBucket"], [bucket], conditions=conditions)


def starter_role(scope: Construct, construct_id: str, *, pipeline_arn: str) -> Role:
    """Return the role by which EventBridge starts the pipeline, and does nothing else."""
    role = _role(scope, construct_id, "events", "Starts the image pipeline when a release is activated")
    allow(role, "StartThePipeline", ["imagebuilder:StartImagePipelineExecution"], [pipeline_arn])
    return role


def cleaning_role(scope: Construct, construct_id: str) -> Role:
    """Return the role that removes old images, their AMIs and their snapshots."""
    role = _role(scope, construct_id, "imagebuilder", "Removes old machine images")
    role.add_managed_policy(
        ManagedPolicy.from_aws_managed_policy_name("service-role/EC2ImageBuilderLifecycleExecutionPolicy")
    )
    finding = (
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
        "EC2ImageBuilderLifecycleExecutionPolicy]"
    )
    Validations.of(role).acknowledge(
        Acknowledgment(
            id=finding,
            reason="AWS keeps this policy in step with its service; it deletes only what Image Builder made.",
        )
    )
    return role


def _role(scope: Construct, construct_id: str, service: str, description: str) -> Role:
    return Role(
        scope, construct_id, assumed_by=ServicePrincipal(f"{service}.amazonaws.com"), description=description
    )


def _arn(stack: Stack, service: str, resource: str, name: str) -> str:
    return stack.format_arn(
        service=service, resource=resource, resource_name=name, arn_format=ArnFormat.SLASH_RESOURCE_NAME
    )
