"""How records look in DynamoDB: items to models and back, and update expressions from plain mappings.

Scalars become attributes of their own ("S", "N"); nested facts become JSON text, so that they come back with
exactly the types they had (DynamoDB numbers would turn every float into a Decimal).
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scanfleet.contract import AGENTS_PARTITION, JOB_PARTITIONS, TableKey
from scanfleet.jobs import Job

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

Item = Mapping[str, Any]
Key = dict[str, "AttributeValueTypeDef"]

JSON_FIELDS = (
    "settings",
    "tags",
    "durations_seconds",
    "stage_seconds",
    "failures",
    "result",
    "usage",
    "attempts",
)
ACTIVE = "ACTIVE"
"""Value of the active index's partition: one small partition, since finished jobs leave it."""


def job_key(job_id: str) -> Key:
    """Return the primary key of a job's record."""
    return {TableKey.PARTITION: {"S": f"{JOB_PARTITIONS}{job_id}"}, TableKey.SORT: {"S": "JOB"}}


def idempotency_key(owner: str, key: str) -> Key:
    """Return the primary key of an idempotency record; the owner's length keeps "a#b" + "c" and "a" + "b#c"
    apart."""
    return {TableKey.PARTITION: {"S": f"KEY#{len(owner)}#{owner}#{key}"}, TableKey.SORT: {"S": "KEY"}}


def agent_key(agent_id: str) -> Key:
    """Return the primary key of an agent's report."""
    return {TableKey.PARTITION: {"S": AGENTS_PARTITION}, TableKey.SORT: {"S": f"AGENT#{agent_id}"}}


def attribute(value: Any) -> "AttributeValueTypeDef":
    """Return the DynamoDB form of a string, a number or (as JSON text) anything else."""
    if isinstance(value, str):
        return {"S": str(value)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"N": repr(value)}
    return {"S": json.dumps(value, separators=(",", ":"))}


def item_from_job(job: Job) -> dict[str, "AttributeValueTypeDef"]:
    """Return the whole item of a job, keys included."""
    fields = {name: value for name, value in job.model_dump(mode="json").items() if value is not None}
    item = {**job_key(job.job_id), **{name: attribute(value) for name, value in fields.items()}}
    if not job.state.is_terminal:
        item[TableKey.ACTIVE] = {"S": ACTIVE}
    return item


def job_from_item(item: Item) -> Job:
    """Return the job that an item holds; attributes that it does not know are left out.

    Raises ValueError for a record that it cannot read: a damaged one, or one of another version.
    """
    return Job.model_validate({name: _value(name, item[name]) for name in Job.model_fields if name in item})


def _value(name: str, stored: Mapping[str, Any]) -> Any:
    kind, text = next(iter(stored.items()))
    if kind not in ("S", "N"):
        raise ValueError(f"the attribute {name} is of DynamoDB's type {kind}")
    if name in JSON_FIELDS:
        return json.loads(text)
    return float(text) if kind == "N" else text


def update_arguments(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return UpdateExpression and its names and values: None removes the attribute, anything else sets it."""
    sets = [name for name, value in changes.items() if value is not None]
    removes = [name for name, value in changes.items() if value is None]
    parts = []
    if sets:
        parts.append("SET " + ", ".join(f"#{name} = :{name}" for name in sets))
    if removes:
        parts.append("REMOVE " + ", ".join(f"#{name}" for name in removes))
    return {
        "UpdateExpression": " ".join(parts),
        "ExpressionAttributeNames": {f"#{name}": name for name in changes},
        "ExpressionAttributeValues": {f":{name}": attribute(changes[name]) for name in sets},
    }
