"""The function of live events: fed by the job table's stream, called by the WebSocket API; what it may do."""

from collections.abc import Mapping
from datetime import timedelta

from aws_cdk import Duration
from aws_cdk.aws_iam import Role
from aws_cdk.aws_lambda import CfnEventSourceMapping, Function
from aws_cdk.aws_sqs import Queue, QueueEncryption
from constructs import Construct

from cdk.grants import allow, allow_own_key
from cdk.lambda_function import DependenciesLayer, acknowledge, scanfleet_function
from cdk.system import System
from scanfleet.contract import HISTORY_PARTITIONS, JOB_PARTITIONS, LIVE_PARTITIONS, Component, Env

HANDLER = "scanfleet.events.entry.handler"
MEMORY_MIB = 1024
"""For its share of a processor: a cold start is all processing, and changes wait for it."""
TIMEOUT = timedelta(seconds=20)
CONCURRENCY = 20
"""One run a shard of the stream, and events of WebSockets beside them."""
BATCH_RECORDS = 100
BATCH_WINDOW_SECONDS = 0
"""A batch is handed over as soon as Lambda sees a record; it looks four times a second.
Source: Lambda developer guide, "Using AWS Lambda with Amazon DynamoDB"."""
RETRIES = 3
OLDEST_RECORD = timedelta(seconds=60)
"""What is older is dropped: the job has moved on, and clients ask from time to time besides. The least that
Lambda takes."""
FAILED_KEPT = timedelta(days=4)
STREAM_FILTER = (
    '{"eventName":["INSERT","MODIFY"],"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"' + JOB_PARTITIONS + '"}]}}}}'
)
"""Of the table's records only jobs', and no deletions by time."""


class EventsFunction(Construct):
    """Tells open WebSockets of changes. It reads jobs, and writes records of connections and nothing else."""

    def __init__(
        self, scope: Construct, construct_id: str, *, system: System, layer: DependenciesLayer
    ) -> None:
        super().__init__(scope, construct_id)
        self._system = system
        self.function: Function = scanfleet_function(
            self,
            "Function",
            config=system.config,
            component=Component.EVENTS,
            layer=layer,
            handler=HANDLER,
            environment={Env.STAGE: system.config.stage, Env.JOB_TABLE: system.jobs.name},
            timeout=TIMEOUT,
            memory_mib=MEMORY_MIB,
            reserved_concurrency=CONCURRENCY if system.config.api.reserved_concurrency else None,
        )
        role = self.function.role
        assert isinstance(role, Role)  # the factory made it
        self._role = role
        self._let_use_the_table()
        self._feed()

    def serve(self, *, connections_url: str, connections_arn: str) -> None:
        """Tell it the WebSocket API's address, and let it write to the connections of this ARN."""
        self.function.add_environment(Env.CONNECTIONS_URL, connections_url)
        allow(
            self._role,
            "WriteToConnections",
            ["execute-api:ManageConnections"],
            [connections_arn],
            wildcard="connections come and go",
        )

    def _let_use_the_table(self) -> None:
        table = self._system.jobs.table
        keeping = ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query")
        for sid, actions, partitions in (
            ("KeepConnections", keeping, LIVE_PARTITIONS),
            ("ReadJobs", ("GetItem",), JOB_PARTITIONS),
            ("ReadPastRuns", ("Query",), HISTORY_PARTITIONS),
        ):
            calls = [f"dynamodb:{action}" for action in actions]
            allow(self._role, sid, calls, [table.table_arn], conditions=_only(partitions))
        allow_own_key(self._role, "UseTheTablesKey", table.encryption_key, "dynamodb")

    def _feed(self) -> None:
        """Hand the stream's records over; a batch that fails is halved, tried again, then set aside."""
        stream = self._system.jobs.stream_arn
        reading = ("DescribeStream", "GetRecords", "GetShardIterator")
        allow(self._role, "ReadChanges", [f"dynamodb:{action}" for action in reading], [stream])
        nameless = "Lambda lists streams without naming one"
        allow(self._role, "FindStream", ["dynamodb:ListStreams"], ["*"], wildcard=nameless)
        failed = Queue(
            self,
            "Failed",
            encryption=QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.seconds(int(FAILED_KEPT.total_seconds())),
        )
        acknowledge(failed, "AwsSolutions-SQS3", "It is itself where batches go that failed.")
        allow(self._role, "SetFailedBatchesAside", ["sqs:SendMessage"], [failed.queue_arn])
        mapping = CfnEventSourceMapping(
            self,
            "Changes",
            function_name=self.function.function_arn,
            event_source_arn=stream,
            starting_position="LATEST",
            batch_size=BATCH_RECORDS,
            maximum_batching_window_in_seconds=BATCH_WINDOW_SECONDS,
            bisect_batch_on_function_error=True,
            maximum_retry_attempts=RETRIES,
            maximum_record_age_in_seconds=int(OLDEST_RECORD.total_seconds()),
            filter_criteria=CfnEventSourceMapping.FilterCriteriaProperty(
                filters=[CfnEventSourceMapping.FilterProperty(pattern=STREAM_FILTER)]
            ),
            destination_config=CfnEventSourceMapping.DestinationConfigProperty(
                on_failure=CfnEventSourceMapping.OnFailureProperty(destination=failed.queue_arn)
            ),
        )
        # Lambda tries the role's permissions when the mapping is made.
        mapping.node.add_dependency(self._role)


def _only(partitions: str) -> Mapping[str, Mapping[str, str | list[str]]]:
    return {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{partitions}*"]},
        "Null": {"dynamodb:LeadingKeys": "false"},  # or no key at all would match, too
    }
