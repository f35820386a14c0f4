"""The cloud's resources for tests, made from the contract on any endpoint."""

from typing import Any

from scanfleet.contract import INDEX_PARTITION_KEYS, TableKey


def create_job_table(client: Any, name: str) -> None:
    """Create the job table with the contract's keys and indexes."""
    attributes = {TableKey.PARTITION, TableKey.SORT, TableKey.JOB_ID, *INDEX_PARTITION_KEYS.values()}
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
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
