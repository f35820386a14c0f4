"""What the machines of one pool may do, written out action by action. docs/security.md has it as a table."""

from urllib.parse import urlsplit

from aws_cdk import ArnFormat, Stack
from aws_cdk.aws_iam import InstanceProfile, Role, ServicePrincipal
from constructs import Construct

from cdk.agent_bundle import AgentBundle
from cdk.grants import allow, allow_own_key
from cdk.system import System
from scanfleet.contract import (
    AGENTS_PARTITION,
    CALIBRATION_PARTITIONS,
    DATA_PARAMETERS,
    EVIDENCE_PREFIX,
    HISTORY_PARTITIONS,
    JOB_PARTITIONS,
    LOGS_PREFIX,
    MANIFESTS_PREFIX,
    RELEASE_OBJECTS_PREFIX,
    RELEASES_PREFIX,
    STAGING_PREFIX,
    TARGET_PARTITIONS,
    Component,
    Parameter,
    Pool,
    fleet_name,
    log_group_name,
    parameter_name,
)

WRITTEN_GROUPS = (Component.AGENT, Component.JOBS, Component.PROCESSOR, Component.USERDATA)
READ_PARAMETERS = (*DATA_PARAMETERS, Parameter.MEDIT_RELEASE, Parameter.LOG_LEVELS)

_READ = ("s3:GetObject",)
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")
_TAKE = ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage")
_FIND_UPLOADS = "s3:ListBucketMultipartUploads"
"""A large result's copy that another machine began and did not finish is aborted before the job is completed.
It has no condition on the prefix. Source: service authorization reference, Amazon S3."""
_OBJECTS = "objects under a prefix come and go"


class AgentRole(Construct):
    """The role of a pool's instances, and its instance profile.

    They work on jobs and files, and on their own membership in their own group. They send messages to their
    own pool's queues only (a retry is a fresh message, and what nobody can read becomes a dead letter). They
    cannot launch machines or delete what is published; of the job table they delete agents' reports only. An
    idle one may end itself, and so any machine of its own group: the action knows no smaller resource.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, system: System, pool: Pool, bundle: AgentBundle
    ) -> None:
        super().__init__(scope, construct_id)
        self._system, self._pool = system, pool
        self._stack, self._stage = Stack.of(self), system.config.stage
        self.role = Role(
            self,
            "Role",
            assumed_by=ServicePrincipal("ec2.amazonaws.com"),
            description=f"Scanfleet {self._stage}: machines of {pool}",
        )
        self.profile = InstanceProfile(self, "Profile", role=self.role)
        self._work_on_jobs()
        self._work_on_files()
        self._work_on_prefixes()
        self._read_releases()
        self._read_bundle(bundle)
        self._use_own_key()
        self._belong_to_the_fleet()
        self._read_parameters()
        self._write_logs()
        self._be_reached_by_session_manager()

    # --- Jobs ----------------------------------------------------------------------------------------------

    def _work_on_jobs(self) -> None:
        table = self._system.jobs.table.table_arn
        some = {"dynamodb:LeadingKeys": "false"}  # or no key at all would match, too
        allow(
            self.role,
            "ReadAndWriteJobs",
            ["dynamodb:GetItem", "dynamodb:UpdateItem"],
            [table],
            conditions={
                "ForAllValues:StringLike": {
                    "dynamodb:LeadingKeys": [
                        f"{JOB_PARTITIONS}*",
                        f"{TARGET_PARTITIONS}*",
                        f"{HISTORY_PARTITIONS}*",
                    ]
                },
                "Null": some,
            },
        )
        allow(
            self.role,
            "ReportItself",
            # Query: whether another machine serves that a job may be left to, and how the others are.
            ["dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Query"],
            [table],
            conditions={
                "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [AGENTS_PARTITION]},
                "Null": some,
            },
        )
        allow(
            self.role,
            "ReadCalibrations",
            ["dynamodb:Query"],
            [table],
            conditions={
                "ForAllValues:StringEquals": {
                    "dynamodb:LeadingKeys": [f"{CALIBRATION_PARTITIONS}{self._pool}"]
                },
                "Null": some,
            },
        )
        pool = self._system.queues[self._pool]
        allow(
            self.role,
            "TakeAndRetryJobs",
            [*_TAKE, "sqs:SendMessage", "sqs:GetQueueAttributes"],
            [queue.queue_arn for queue in pool.queues.values()],
        )
        allow(self.role, "SetDeadLettersAside", ["sqs:SendMessage"], [pool.dead_letters.queue_arn])

    # --- Files ---------------------------------------------------------------------------------------------

    def _work_on_files(self) -> None:
        data, artifacts = self._system.buckets.data, self._system.buckets.artifacts
        allow(self.role, "ListInputs", ["s3:ListBucket", _FIND_UPLOADS], [data.bucket_arn])
        allow(
            self.role,
            "ReadInputsWriteResults",
            [*_READ, *_WRITE],
            [data.arn_for_objects("*")],
            wildcard=_OBJECTS,
        )
        for sid, prefixes, actions in (
            ("StageResults", (STAGING_PREFIX,), (*_READ, *_WRITE, "s3:DeleteObject")),
            ("KeepManifests", (MANIFESTS_PREFIX,), (*_READ, *_WRITE)),
            ("KeepProgramLogs", (LOGS_PREFIX, EVIDENCE_PREFIX), _WRITE),
        ):
            objects = [artifacts.arn_for_objects(f"{prefix}*") for prefix in prefixes]
            allow(self.role, sid, actions, objects, wildcard=_OBJECTS)

    def _work_on_prefixes(self) -> None:
        """Read and write what the configuration names besides the data bucket.

        One statement for all objects and one for each bucket: a role's policies may have 10,240 characters
        together, and config_sizes.py counts on this.
        """
        folders: dict[str, list[str]] = {}
        for uri in self._system.config.prefixes:
            parts = urlsplit(uri)  # the path is "/", or ends with it
            folders.setdefault(self._bucket(parts.netloc), []).append(parts.path.removeprefix("/"))
        if not folders:
            return
        objects = [f"{bucket}/{key}*" for bucket, keys in folders.items() for key in keys]
        allow(self.role, "ReadAndWritePrefix", [*_READ, *_WRITE], objects, wildcard=_OBJECTS)
        allow(self.role, "FindUnfinishedCopies", [_FIND_UPLOADS], list(folders))
        for number, (bucket, keys) in enumerate(folders.items()):
            allow(
                self.role,
                f"ListPrefix{number}",
                ["s3:ListBucket"],
                [bucket],
                conditions={"StringLike": {"s3:prefix": [f"{key}*" for key in keys]}} if all(keys) else None,
            )

    def _read_releases(self) -> None:
        name = self._system.config.medit.release_bucket
        if name is not None:
            folders = (RELEASES_PREFIX, RELEASE_OBJECTS_PREFIX)
            objects = [f"{self._bucket(name)}/{folder}*" for folder in folders]
            allow(self.role, "ReadReleases", _READ, objects, wildcard="releases come and go")
            # Without it S3 answers 403, not 404, for what is missing, and nobody learns that it is.
            allow(
                self.role,
                "SeeWhetherAReleaseExists",
                ["s3:ListBucket"],
                [self._bucket(name)],
                conditions={"StringLike": {"s3:prefix": [f"{folder}*" for folder in folders]}},
            )

    def _read_bundle(self, bundle: AgentBundle) -> None:
        parts = (bundle.source, bundle.wheelhouse)
        objects = [f"{self._bucket(part.bucket_name)}/{part.object_key}" for part in parts]
        allow(self.role, "ReadAgent", _READ, objects)

    def _bucket(self, name: str) -> str:
        return f"arn:{self._stack.partition}:s3:::{name}"

    def _use_own_key(self) -> None:
        """Let table and buckets use the deployment's own key for these machines; alone they cannot."""
        for service, key in (
            ("s3", self._system.buckets.data.encryption_key),
            ("dynamodb", self._system.jobs.table.encryption_key),
        ):
            allow_own_key(self.role, f"UseKeyFor{service.title()}", key, service)

    # --- Itself --------------------------------------------------------------------------------------------

    def _belong_to_the_fleet(self) -> None:
        allow(
            self.role,
            "JoinAndLeaveTheFleet",
            [
                "autoscaling:CompleteLifecycleAction",
                "autoscaling:RecordLifecycleActionHeartbeat",
                "autoscaling:SetInstanceHealth",
                "autoscaling:SetInstanceProtection",
                "autoscaling:TerminateInstanceInAutoScalingGroup",
            ],
            [
                self._arn(
                    "autoscaling",
                    "autoScalingGroup",
                    f"*:autoScalingGroupName/{fleet_name(self._stage, self._pool)}",
                )
            ],
            wildcard="the ARN of a group has a generated id before its name",
        )

    def _read_parameters(self) -> None:
        names = [parameter_name(self._stage, parameter) for parameter in READ_PARAMETERS]
        allow(
            self.role,
            "ReadParameters",
            ["ssm:GetParameter", "ssm:GetParameters"],
            [
                self._stack.format_arn(service="ssm", resource="parameter", resource_name=name[1:])
                for name in names
            ],
        )

    def _write_logs(self) -> None:
        allow(
            self.role,
            "WriteLogs",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [
                self._arn("logs", "log-group", f"{log_group_name(self._stage, component)}:*")
                for component in WRITTEN_GROUPS
            ],
            wildcard="each machine and each attempt has streams of its own",
        )

    def _be_reached_by_session_manager(self) -> None:
        """Allow what Session Manager needs: the only way for people onto a machine.

        Source: Systems Manager user guide, "Add Session Manager permissions to an existing IAM role".
        """
        allow(
            self.role,
            "SessionManager",
            [
                "ssm:UpdateInstanceInformation",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
            wildcard="these actions take no resource",
        )

    def _arn(self, service: str, resource: str, name: str) -> str:
        return self._stack.format_arn(
            service=service,
            resource=resource,
            resource_name=name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
