"""The sweeper: a function that EventBridge Scheduler starts each minute, and what it may do."""

from datetime import timedelta

from aws_cdk.aws_iam import Role
from aws_cdk.aws_lambda import Function
from constructs import Construct

from cdk.function_schedule import start_every
from cdk.grants import allow, allow_own_key
from cdk.lambda_function import DependenciesLayer, scanfleet_function
from cdk.system import System
from scanfleet.contract import (
    JOB_PARTITIONS,
    STAGING_PREFIX,
    SWEEPER_PERIOD,
    Component,
    Env,
    TableIndex,
)

HANDLER = "scanfleet.sweeper.entry.handler"
MEMORY_MIB = 512
"""Of thousands of unfinished jobs each run keeps the running ones and 2,000 of the others in memory."""
TIMEOUT = timedelta(seconds=60)
"""A run ends by itself 15 s before; what it did not get to is the next run's."""
_OBJECTS = "attempts and their files come and go"


class Sweeper(Construct):
    """Sends the messages that jobs have lost, and deletes results that nobody will publish.

    It reads no file's content and ends no job. One at a time (reserved concurrency 1) is enough; two would do
    no harm.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, system: System, layer: DependenciesLayer
    ) -> None:
        super().__init__(scope, construct_id)
        self._system = system
        config = system.config
        whole = system.environment(self)
        known = (Env.STAGE, Env.JOB_TABLE, Env.QUEUES, Env.ARTIFACTS_BUCKET)
        self.function: Function = scanfleet_function(
            self,
            "Function",
            config=config,
            component=Component.SWEEPER,
            layer=layer,
            handler=HANDLER,
            environment={name: whole[name] for name in known},
            timeout=TIMEOUT,
            memory_mib=MEMORY_MIB,
            reserved_concurrency=1 if config.api.reserved_concurrency else None,
        )
        role = self.function.role
        assert isinstance(role, Role)  # the factory made it
        self._let_repair_jobs(role)
        self._let_clean_staging(role)
        start_every(
            self,
            SWEEPER_PERIOD,
            function=self.function,
            stage=config.stage,
            component=Component.SWEEPER,
            what="the sweeper",
        )

    def _let_repair_jobs(self, role: Role) -> None:
        table = self._system.jobs.table
        # The index holds unfinished jobs and nothing else.
        active = f"{table.table_arn}/index/{TableIndex.ACTIVE}"
        allow(role, "ListUnfinishedJobs", ["dynamodb:Query"], [active])
        allow(
            role,
            "ReadAndMarkJobs",
            ["dynamodb:GetItem", "dynamodb:UpdateItem"],
            [table.table_arn],
            conditions={
                "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{JOB_PARTITIONS}*"]},
                "Null": {"dynamodb:LeadingKeys": "false"},  # or no key at all would match, too
            },
        )
        allow_own_key(role, "UseTheTablesKey", table.encryption_key, "dynamodb")
        queues = [queue.queue_arn for pool in self._system.queues.values() for queue in pool.queues.values()]
        allow(role, "CountAndQueueJobs", ["sqs:SendMessage", "sqs:GetQueueAttributes"], queues)

    def _let_clean_staging(self, role: Role) -> None:
        artifacts = self._system.buckets.artifacts
        allow(
            role,
            "ListStagedResults",
            ["s3:ListBucket"],
            [artifacts.bucket_arn],
            conditions={"StringLike": {"s3:prefix": [f"{STAGING_PREFIX}*"]}},
        )
        # Source: service authorization reference, S3: this listing knows no condition on the prefix.
        allow(role, "ListUnfinishedUploads", ["s3:ListBucketMultipartUploads"], [artifacts.bucket_arn])
        allow(
            role,
            "DeleteStagedResults",
            ["s3:DeleteObject", "s3:AbortMultipartUpload"],
            [artifacts.arn_for_objects(f"{STAGING_PREFIX}*")],
            wildcard=_OBJECTS,
        )
