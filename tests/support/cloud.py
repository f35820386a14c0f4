"""The cloud's resources for tests, made from the contract on any endpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws

from scanfleet.contract import INDEX_PARTITION_KEYS, TableKey


@contextmanager
def moto_job_table(patch: pytest.MonkeyPatch, name: str = "jobs") -> Iterator[Any]:
    """Give a client of an emulated DynamoDB that has the job table, within this process."""
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        create_job_table(client, name)
        yield client


def create_job_table(client: Any, name: str, *, has_stream: bool = True) -> None:
    """Create the job table with the contract's keys and indexes."""
    attributes = {TableKey.PARTITION, TableKey.SORT, TableKey.JOB_ID, *INDEX_PARTITION_KEYS.values()}
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification=(
            {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
            if has_stream
            else {"StreamEnabled": False}
        ),
        KeySchema=_keys(TableKey.PARTITION, TableKey.SORT),
        AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in sorted(attributes)],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": _keys(partition, TableKey.JOB_ID),
                "Projection": {"ProjectionType": "ALL"},
            }
            for index, partition in INDEX_PARTITION_KEYS.items()
        ],
    )


def _keys(partition: str, sort: str) -> list[dict[str, str]]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]
