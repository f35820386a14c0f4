"""The API's function: what it is told, and what it may do."""

import json
from datetime import timedelta

from aws_cdk import ArnFormat, Stack
from aws_cdk.aws_iam import Role
from aws_cdk.aws_lambda import Function
from constructs import Construct

from cdk.config import ConfigError
from cdk.grants import allow, allow_own_key
from cdk.lambda_function import DependenciesLayer, scanfleet_function
from cdk.system import System
from scanfleet.contract import (
    EVIDENCE_PREFIX,
    LOGS_PREFIX,
    MANIFESTS_PREFIX,
    UPLOADS_PREFIX,
    Auth,
    Component,
    Env,
    TableIndex,
    log_group_name,
)

HANDLER = "scanfleet.api.lambda_entry.handler"
MEMORY_MIB = 1024
"""More than the code needs: Lambda gives processor time by memory, and a cold start is all processing."""
TIMEOUT = timedelta(seconds=28)
"""Below the HTTP API's own 30 s, so that the caller gets our answer or its own. Source: API Gateway developer
guide, "Quotas for configuring and running an HTTP API"."""
MOST_TENANTS_BYTES = 2500
"""Of 4 KB that Lambda takes for all environment variables; the others need the rest."""
_OBJECTS = "objects come and go"


class ApiFunction(Construct):
    """The same app as on one machine, over the data stack; it never reads what a job's files contain.

    Through presigned URLs its callers may do what it may do: read objects of the allowed prefixes, and write
    under uploads/.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, system: System, layer: DependenciesLayer
    ) -> None:
        super().__init__(scope, construct_id)
        self._system = system
        self.function: Function = scanfleet_function(
            self,
            "Function",
            config=system.config,
            component=Component.API,
            layer=layer,
            handler=HANDLER,
            environment=self._environment(),
            timeout=TIMEOUT,
            memory_mib=MEMORY_MIB,
            reserved_concurrency=system.config.api.reserved_concurrency or None,
        )
        role = self.function.role
        assert isinstance(role, Role)  # the factory made it
        self._let_keep_jobs(role)
        self._let_tell_of_jobs(role)
        self._let_see_files(role)

    def _environment(self) -> dict[str, str]:
        system, config = self._system, self._system.config
        whole = system.environment(self)
        # A caller has its own folder of the data bucket, the deployment's prefixes and its tenant's.
        whole[Env.ALLOWED_PREFIXES] = ",".join((whole[Env.UPLOADS_URI], *config.allowed_prefixes))
        whole[Env.JOBS_LOG_GROUP] = log_group_name(config.stage, Component.JOBS)
        whole[Env.AUTH_MODE] = Auth(config.api.auth.value)
        if config.medit.release_bucket is None:
            whole[Env.DEFAULT_PROCESSOR] = "reference"
        if config.api.operators:
            whole[Env.OPERATORS] = ",".join(config.api.operators)
        if config.api.jwt_issuer is not None:
            whole[Env.JWT_ISSUER] = config.api.jwt_issuer
            whole[Env.JWT_AUDIENCE] = ",".join(config.api.jwt_audience)
        if config.hourly_prices_usd:
            whole[Env.HOURLY_PRICES] = json.dumps(dict(config.hourly_prices_usd))
        if config.tenants:
            whole[Env.TENANTS] = self._tenants()
        return whole

    def _tenants(self) -> str:
        tenants = self._system.config.tenants
        text = json.dumps(
            {
                name: {"callers": list(tenant.callers), "allowed_prefixes": list(tenant.allowed_prefixes)}
                for name, tenant in tenants.items()
            },
            separators=(",", ":"),
        )
        if len(text) > MOST_TENANTS_BYTES:
            raise ConfigError(
                field_name="tenants",
                got=f"{len(tenants)} tenants in {len(text)} bytes of JSON",
                allowed=f"at most {MOST_TENANTS_BYTES} bytes: they reach the function as an environment"
                " variable; name roles instead of users, or give large tenants a stage of their own",
            )
        return text

    # --- What it may do ------------------------------------------------------------------------------------

    def _let_keep_jobs(self, role: Role) -> None:
        table = self._system.jobs.table
        indexes = [f"{table.table_arn}/index/{index}" for index in TableIndex]
        # ConditionCheckItem: a target folder passes to a job only while its old holder is as it was seen.
        keeping = ["GetItem", "PutItem", "UpdateItem", "ConditionCheckItem", "Query"]
        allow(role, "KeepJobs", [f"dynamodb:{action}" for action in keeping], [table.table_arn])
        allow(role, "FindJobs", ["dynamodb:Query"], indexes)
        queues = [queue.queue_arn for pool in self._system.queues.values() for queue in pool.queues.values()]
        allow(role, "QueueJobs", ["sqs:SendMessage", "sqs:GetQueueAttributes"], queues)
        handling = ("ReceiveMessage", "ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes")
        dead_letters = [pool.dead_letters.queue_arn for pool in self._system.queues.values()]
        allow(role, "HandleDeadLetters", [f"sqs:{action}" for action in handling], dead_letters)

    def _let_tell_of_jobs(self, role: Role) -> None:
        """Let changes of jobs' states go where the agents' go, not to the API's own log."""
        group = Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"{log_group_name(self._system.config.stage, Component.JOBS)}:*",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )
        actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
        allow(role, "WriteJobEvents", actions, [group], wildcard="each process has a stream of its own")

    def _let_see_files(self, role: Role) -> None:
        data, artifacts = self._system.buckets.data, self._system.buckets.artifacts
        uploads = data.arn_for_objects(f"{UPLOADS_PREFIX}*")
        allow(role, "SignUploads", ["s3:PutObject"], [uploads], wildcard=_OBJECTS)
        allow(role, "SignDownloads", ["s3:GetObject"], [uploads], wildcard=_OBJECTS)
        shown = (LOGS_PREFIX, MANIFESTS_PREFIX, EVIDENCE_PREFIX)
        kept = [artifacts.arn_for_objects(f"{prefix}*") for prefix in shown]
        allow(role, "ReadLogsAndManifests", ["s3:GetObject"], kept, wildcard=_OBJECTS)
        # Without a condition on the prefix: a job's folder is asked for by its exact name, and HeadBucket,
        # which readiness asks, needs the same permission.
        allow(role, "ListFiles", ["s3:ListBucket"], [data.bucket_arn, artifacts.bucket_arn])
        for number, prefix in enumerate(self._system.config.prefixes):
            self._let_see_foreign_files(role, f"{number}", prefix)
        allow_own_key(role, "UseKey", data.encryption_key, "dynamodb", "s3")

    def _let_see_foreign_files(self, role: Role, number: str, prefix: str) -> None:
        """Let the function list and sign downloads below an allowed prefix outside the data bucket."""
        bucket, _, folder = prefix.removeprefix("s3://").partition("/")
        arn = Stack.of(self).format_arn(service="s3", region="", account="", resource=bucket)
        allow(role, f"SignDownloadsOf{number}", ["s3:GetObject"], [f"{arn}/{folder}*"], wildcard=_OBJECTS)
        allow(
            role,
            f"ListFilesOf{number}",
            ["s3:ListBucket"],
            [arn],
            conditions={"StringLike": {"s3:prefix": [f"{folder}*"]}} if folder else None,
        )
