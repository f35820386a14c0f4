"""Which agents are in service: each writes a report, everybody may read them all.

Item: {"pk": "AGENTS", "sk": "AGENT#<id>", "report": <json>, "expires_at": epoch seconds}
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from scanfleet import contract
from scanfleet.contract import AGENTS_PARTITION, Pool, TableKey
from scanfleet.dynamo import answering
from scanfleet.store_items import agent_key, attribute

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


log = logging.getLogger(__name__)


class AgentReport(BaseModel):
    """What an agent says of itself every few seconds. Times are epoch seconds.

    is_stopping: it drains: its jobs may go on, new ones it does not take.
    is_on_hold: it takes no jobs for now: its instance is in the warm pool or stands by.
    is_suspended: it takes no jobs for now, or one to prove itself: a check of the machine fails, too many
        jobs have failed on it, or EC2 has advised against it.
    why_suspended: the reasons, or what the machine has to prove; empty while it takes jobs.
    instance_id, instance_type, ami_id: of the EC2 instance that it runs on; empty elsewhere.
    driver: version of the GPU's driver, empty without one. booted_at: when EC2 launched the instance.
    release: the version that its next program is started from; empty for programs without releases.
    slots_from: what its number of slots follows: a setting, a calibration or the default, in words.
    """

    model_config = ConfigDict(frozen=True)

    agent_id: str
    pool: Pool
    slots: int
    busy: int
    job_ids: tuple[str, ...] = ()
    started_at: float
    seen_at: float
    is_stopping: bool = False
    is_on_hold: bool = False
    is_suspended: bool = False
    why_suspended: str = ""
    instance_id: str = ""
    instance_type: str = ""
    ami_id: str = ""
    driver: str = ""
    booted_at: float | None = None
    release: str = ""
    slots_from: str = ""

    @property
    def takes_jobs(self) -> bool:
        """Return whether new jobs go to the agent."""
        return not (self.is_stopping or self.is_on_hold or self.is_suspended)


class AgentDirectory:
    """Reads and writes the agents' reports in the job table."""

    def __init__(
        self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def put(self, report: AgentReport) -> None:
        """Write an agent's report over its last one."""
        item = {
            **agent_key(report.agent_id),
            "report": attribute(report.model_dump_json()),
            TableKey.EXPIRES_AT: attribute(int(report.seen_at + contract.AGENT_REPORTS_KEPT.total_seconds())),
        }
        with answering("write agent report"):
            self._client.put_item(TableName=self._table, Item=item)

    def remove(self, agent_id: str) -> None:
        """Forget an agent that has stopped."""
        with answering("remove agent report"):
            self._client.delete_item(TableName=self._table, Key=agent_key(agent_id))

    def in_service(self) -> tuple[AgentReport, ...]:
        """Return the agents that reported within `contract.AGENT_SILENT_AFTER`."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": AGENTS_PARTITION}},
        )
        with answering("list agents"):
            texts = [item["report"]["S"] for page in pages for item in page["Items"]]
        oldest = self._clock() - contract.AGENT_SILENT_AFTER.total_seconds()
        reports = (_read(text) for text in texts)
        return tuple(report for report in reports if report is not None and report.seen_at >= oldest)


def _read(text: str) -> AgentReport | None:
    """Return the report, or None for one of another version's agent."""
    try:
        return AgentReport.model_validate_json(text)
    except ValidationError as error:
        log.warning("agent report not understood: %s", error, extra={"action": "report_not_understood"})
        return None
