"""The one table that holds every job: DynamoDB, on demand, with the indexes that the contract names."""

from aws_cdk import RemovalPolicy
from aws_cdk.aws_dynamodb import (
    Attribute,
    AttributeType,
    BillingMode,
    PointInTimeRecoverySpecification,
    ProjectionType,
    StreamViewType,
    Table,
    TableEncryption,
)
from aws_cdk.aws_iam import Grant, IGrantable
from aws_cdk.aws_kms import IKey
from constructs import Construct

from scanfleet.contract import INDEX_PARTITION_KEYS, TableKey


class JobTable(Construct):
    """The job table.

    By default it is retained and refuses deletion, can be restored to any second of the last 35 days, and
    deletes jobs some time after their `expires_at`. It is a `Table`, not a `TableV2`: that one is a global
    table underneath, which the emulator of the local mode does not offer in full.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, retain: bool = True, key: IKey | None = None
    ) -> None:
        super().__init__(scope, construct_id)
        self.table = Table(
            self,
            "Table",
            partition_key=_text_attribute(TableKey.PARTITION),
            sort_key=_text_attribute(TableKey.SORT),
            billing_mode=BillingMode.PAY_PER_REQUEST,
            encryption=TableEncryption.CUSTOMER_MANAGED if key else TableEncryption.AWS_MANAGED,
            encryption_key=key,
            # Both images: who pushes changes drops the heartbeats that changed nothing anybody sees.
            stream=StreamViewType.NEW_AND_OLD_IMAGES,
            time_to_live_attribute=TableKey.EXPIRES_AT,
            point_in_time_recovery_specification=PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=retain,
            removal_policy=RemovalPolicy.RETAIN if retain else RemovalPolicy.DESTROY,
        )
        for index, partition in INDEX_PARTITION_KEYS.items():
            self.table.add_global_secondary_index(
                index_name=index,
                partition_key=_text_attribute(partition),
                sort_key=_text_attribute(TableKey.JOB_ID),
                projection_type=ProjectionType.ALL,
            )

    @property
    def name(self) -> str:
        """Return the table's name."""
        return self.table.table_name

    @property
    def stream_arn(self) -> str:
        """Return the stream of changes."""
        arn = self.table.table_stream_arn
        assert arn is not None  # it has one, above
        return arn

    def grant_read_write(self, grantee: IGrantable) -> Grant:
        """Let the grantee read and write jobs, but not change the table itself."""
        return self.table.grant_read_write_data(grantee)


def _text_attribute(key: TableKey) -> Attribute:
    return Attribute(name=key, type=AttributeType.STRING)
