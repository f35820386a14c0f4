"""A calibration as it is kept, and the store of them in the job table.

Item: {"pk": "CALIBRATION#<pool>", "sk": "<machine>#<processor>", "calibration": <json>}. A pool has
one partition, because agents and the controller want all of a pool's at once. It never expires: it holds
until it is replaced or taken back.
"""

import logging
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scanfleet.contract import CALIBRATION_PARTITIONS, MOST_SLOTS, Pool, TableKey
from scanfleet.dynamo import answering
from scanfleet.store_items import Key, attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)


class MeasuredPoint(BaseModel):
    """One concurrency. low, high: of 90 % of the resamples. Bytes: of all programs together, at most."""

    model_config = ConfigDict(frozen=True)

    slots: int
    jobs: int
    rounds: int
    jobs_per_hour: float
    low: float
    high: float
    p50_seconds: float
    p95_seconds: float
    memory_bytes: int
    gpu_memory_bytes: int | None = None


class Calibration(BaseModel):
    """What was measured of one processor on one kind of machine.

    machine: the EC2 instance type, or what `machine.kind_of_this_machine` says elsewhere. slots: the
    recommended ones. memory_limit_bytes: what all programs together were allowed. measured_at: epoch
    seconds. seconds: that the measurement took. is_complete: it was neither interrupted nor cut by its budget
    before each concurrency was measured once. foreign_cpu_share: of the machine's CPU, what others used
    meanwhile, 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    processor: str
    pool: Pool
    machine: str
    slots: int = Field(ge=1, le=MOST_SLOTS)
    is_sure: bool
    reasons: tuple[str, ...]
    sample: str
    sample_bytes: int
    release: str | None = None
    measured_at: float
    seconds: float
    is_complete: bool = True
    foreign_cpu_share: float = 0.0
    machine_memory_bytes: int
    memory_limit_bytes: int
    points: tuple[MeasuredPoint, ...]
    fit: dict[str, float] | None = None

    @property
    def memory_per_slot(self) -> float:
        """Return the bytes that one of the recommended slots used; 0 when they were not measured."""
        used = next((point.memory_bytes for point in self.points if point.slots == self.slots), 0)
        return used / self.slots


class CalibrationStore:
    """Reads and writes the calibrations in the job table. Each method raises Unavailable."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def put(self, calibration: Calibration) -> None:
        """Keep it, in place of the last one of this processor, pool and kind of machine."""
        key = _key(calibration.pool, calibration.machine, calibration.processor)
        item = {**key, "calibration": attribute(calibration.model_dump_json())}
        with answering("write calibration"):
            self._client.put_item(TableName=self._table, Item=item)

    def remove(self, pool: Pool, machine: str, processor: str) -> bool:
        """Take it back; return whether there was one."""
        with answering("remove calibration"):
            answer = self._client.delete_item(
                TableName=self._table, Key=_key(pool, machine, processor), ReturnValues="ALL_OLD"
            )
        return "Attributes" in answer

    def of(self, pool: Pool) -> tuple[Calibration, ...]:
        """Return the pool's calibrations; those of another version are left out."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"{CALIBRATION_PARTITIONS}{pool}"}},
        )
        with answering("read calibrations"):
            texts = [item["calibration"]["S"] for page in pages for item in page["Items"]]
        return tuple(found for text in texts if (found := _read(text)) is not None)


def _key(pool: Pool, machine: str, processor: str) -> Key:
    return {
        TableKey.PARTITION: {"S": f"{CALIBRATION_PARTITIONS}{pool}"},
        TableKey.SORT: {"S": f"{machine}#{processor}"},
    }


def _read(text: str) -> Calibration | None:
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        facts = {"action": "calibration_not_understood"}
        log.warning("calibration not understood: %s", error, extra=facts)
        return None
