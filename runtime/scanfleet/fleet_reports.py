"""How each pool's fleet stands: the controller writes a report with each sample, the API reads them.

Item: {"pk": "FLEETS", "sk": "FLEET#<pool>", "report": <json>, "expires_at": epoch seconds}. A deployment
without a controller, such as one machine, has none.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from scanfleet import contract
from scanfleet.contract import FLEETS_PARTITION, Pool, TableKey
from scanfleet.dynamo import answering
from scanfleet.store_items import attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)


class FleetReport(BaseModel):
    """One pool's machines at one moment. Times are epoch seconds.

    desired, minimum, maximum: of the Auto Scaling group. in_service: machines whose agent reports.
    booting: machines that were launched and whose agent has not reported yet; booting_since: when the one
    that boots longest was launched. is_blocked: no image was built yet, so no machine could serve.
    """

    model_config = ConfigDict(frozen=True)

    pool: Pool
    desired: int
    minimum: int
    maximum: int
    in_service: int
    booting: int
    booting_since: float | None = None
    is_blocked: bool = False
    sampled_at: float

    @property
    def is_at_maximum(self) -> bool:
        """Say whether the group cannot grow."""
        return self.desired >= self.maximum


class FleetDirectory:
    """Reads and writes the fleets' reports in the job table."""

    def __init__(
        self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def put(self, report: FleetReport) -> None:
        """Write a fleet's report over its last one. Raises Unavailable."""
        expires_at = int(report.sampled_at + contract.FLEET_REPORTS_KEPT.total_seconds())
        item = {
            TableKey.PARTITION: attribute(FLEETS_PARTITION),
            TableKey.SORT: attribute(f"FLEET#{report.pool.value}"),
            "report": attribute(report.model_dump_json()),
            TableKey.EXPIRES_AT: attribute(expires_at),
        }
        with answering("write fleet report"):
            self._client.put_item(TableName=self._table, Item=item)

    def fresh(self) -> Mapping[Pool, FleetReport]:
        """Return the reports of the last `contract.FLEET_SILENT_AFTER`. Raises Unavailable."""
        with answering("list fleets"):
            found = self._client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": FLEETS_PARTITION}},
            )
        oldest = self._clock() - contract.FLEET_SILENT_AFTER.total_seconds()
        reports = [_read(item["report"]["S"]) for item in found["Items"]]
        return {report.pool: report for report in reports if report and report.sampled_at >= oldest}


def _read(text: str) -> FleetReport | None:
    """Return the report, or None for one of another version's controller."""
    try:
        return FleetReport.model_validate_json(text)
    except ValidationError as error:
        log.warning("fleet report not understood: %s", error, extra={"action": "report_not_understood"})
        return None
