"""Our quick queries answer as MiniStack's own do."""

import random
import string
from pathlib import Path
from typing import Any

import boto3
import pytest

from scanfleet.contract import INDEX_PARTITION_KEYS
from scanfleet.local import emulator
from tests.support.cloud import create_job_table
from tests.support.emulated import running_emulator

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

OWNERS, STATES = ("ann", "bob"), ("queued", "completed", "failed")


@pytest.fixture
def both(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Clients of our emulator and of MiniStack as it comes."""
    with running_emulator(repo_root=repo_root, folder=tmp_path / "ours") as ours:
        plain = tmp_path / "plain.py"
        plain.write_text("from ministack.app import main\nmain()\n")
        monkeypatch.setattr(emulator, "ENTRY", plain)
        with running_emulator(repo_root=repo_root, folder=tmp_path / "theirs") as theirs:
            yield [client_of(one.endpoint_url) for one in (ours, theirs)]


def client_of(endpoint_url: str) -> Any:
    return boto3.Session().client(
        "dynamodb",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def test_pages_of_random_queries_between_random_writes_are_the_same(both):
    chance = random.Random(5)
    for client in both:
        create_job_table(client, "same")
    known: list[str] = []
    for _ in range(60):
        for _ in range(6):
            write = a_write(chance, known)
            for client in both:
                getattr(client, write[0])(TableName="same", **write[1])
        query = a_query(chance)
        for _ in range(4):  # a page, and those after it
            ours, theirs = (client.query(TableName="same", **query) for client in both)
            for answer in (ours, theirs):
                answer.pop("ResponseMetadata")
            assert ours == theirs
            if "LastEvaluatedKey" not in ours:
                break
            query["ExclusiveStartKey"] = ours["LastEvaluatedKey"]


def a_write(chance: random.Random, known: list[str]) -> tuple[str, dict[str, Any]]:
    if known and chance.random() < 0.2:
        gone = known.pop(chance.randrange(len(known)))
        return "delete_item", {"Key": {"pk": {"S": f"JOB#{gone}"}, "sk": {"S": "JOB"}}}
    if known and chance.random() < 0.4:
        job_id = chance.choice(known)  # in other partitions from now on
    else:
        job_id = "".join(chance.choices(string.ascii_uppercase, k=4))
        known.append(job_id)
    item = {"pk": f"JOB#{job_id}", "sk": "JOB", "job_id": job_id, "state": chance.choice(STATES)}
    item |= {"owner": chance.choice(OWNERS)} | ({"active_key": "ACTIVE"} if chance.random() < 0.5 else {})
    if chance.random() < 0.3:
        item = {"pk": f"TAG#{chance.choice(OWNERS)}", "sk": job_id, "owner": chance.choice(OWNERS)}
        known.pop() if known[-1] == job_id else None
    return "put_item", {"Item": {name: {"S": value} for name, value in item.items()}}


def a_query(chance: random.Random) -> dict[str, Any]:
    index = chance.choice([None, *INDEX_PARTITION_KEYS])
    hash_name, sort_name = (INDEX_PARTITION_KEYS[index], "job_id") if index else ("pk", "sk")
    values = {None: "TAG#ann", "active": "ACTIVE", "owner": "ann", "state": "completed"}
    query: dict[str, Any] = {
        "KeyConditionExpression": "#hash = :hash",
        "ExpressionAttributeNames": {"#hash": str(hash_name)},
        "ExpressionAttributeValues": {":hash": {"S": values[index]}},
        "ScanIndexForward": chance.random() < 0.4,
        "Limit": chance.choice([1, 3, 10, 100]),
    }
    if index:
        query["IndexName"] = str(index)
    if chance.random() < 0.4:
        query["KeyConditionExpression"] += f" AND {sort_name} < :before"
        query["ExpressionAttributeValues"][":before"] = {"S": chance.choice(string.ascii_uppercase)}
    if chance.random() < 0.4:
        query["FilterExpression"] = "#owner IN (:owner)"
        query["ExpressionAttributeNames"]["#owner"] = "owner"
        query["ExpressionAttributeValues"][":owner"] = {"S": "bob"}
        if hash_name == "owner":
            query.pop("FilterExpression")
            query["ExpressionAttributeNames"].pop("#owner")
            query["ExpressionAttributeValues"].pop(":owner")
    if chance.random() < 0.5:
        query["ProjectionExpression"] = "#one, #two"
        query["ExpressionAttributeNames"] |= {"#one": "sk", "#two": "state"}
    return query
