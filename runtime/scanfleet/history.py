"""How long programs took before: what the watchdog learns its budgets from.

Items: {"pk": "HISTORY#<processor>", "sk": "<size bucket>", "run00".."run49": JSON, "expires_at"}. A bucket
holds the runs whose inputs' sizes have the same number of binary digits, so it spans a factor of two. A run's
place among the fifty is a hash of its job's id: one write, without a condition, puts it there, over whatever
was in that place. So the item cannot grow, two agents cannot hurt each other, and a run that is written twice
counts once.
"""

import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from scanfleet import contract
from scanfleet.contract import TableKey
from scanfleet.dynamo import answering
from scanfleet.store_items import Key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger(__name__)

RUNS_KEPT = 50
"""Of a processor and size bucket."""
RUN = "run"
"""Attributes that hold runs begin with this."""
REREAD = timedelta(minutes=5)
BUCKET_SPAN = 2.0
"""Inputs of a bucket are at most so many times as large as those of the one below."""


@dataclass(frozen=True)
class PastRun:
    """A run that ended well: seconds from the program's start to its end, and of each stage."""

    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)

    def times(self, factor: float) -> "PastRun":
        """Return the run as if everything had taken so many times as long."""
        return PastRun(self.seconds * factor, {name: value * factor for name, value in self.stages.items()})


class RunHistory:
    """Reads and writes past runs in the job table. A failure of it is logged and hurts no job.

    reread: what was read counts for this long. Runs change what they teach slowly, and jobs may be short.
    clock: epoch seconds.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        reread: timedelta = REREAD,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._reread_seconds = reread.total_seconds()
        self._clock = clock
        self._read: dict[tuple[str, int], tuple[float, tuple[PastRun, ...]]] = {}

    def add(self, processor: str, *, input_bytes: int, job_id: str, run: PastRun) -> None:
        """Keep a run."""
        expires_at = int(self._clock() + contract.HISTORY_KEPT.total_seconds())
        text = json.dumps([round(run.seconds, 1), {k: round(v, 1) for k, v in run.stages.items()}])
        try:
            with answering("write run history"):
                self._client.update_item(
                    TableName=self._table,
                    Key=history_key(processor, input_bytes),
                    UpdateExpression="SET #run = :run, #expires = :expires",
                    ExpressionAttributeNames={"#run": slot_of(job_id), "#expires": TableKey.EXPIRES_AT},
                    ExpressionAttributeValues={":run": {"S": text}, ":expires": {"N": str(expires_at)}},
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the job goes on
            facts = {"action": "history_not_written", "job_id": job_id}
            log.warning("run not remembered: %r", error, extra=facts)

    def like(self, processor: str, *, input_bytes: int) -> tuple[PastRun, ...]:
        """Return runs of the processor on inputs of about this size.

        Of the own bucket if it has many; otherwise also of those beside it: runs on smaller inputs as if
        these had been larger.
        """
        own = bucket_of(input_bytes)
        read_at, runs = self._read.get((processor, own), (-math.inf, ()))
        if abs(self._clock() - read_at) < self._reread_seconds:
            return runs
        try:
            with answering("read run history"):
                found = self._runs(processor, own)
                if len(found) < RUNS_KEPT // 2:
                    smaller = self._runs(processor, own - 1)
                    found += self._runs(processor, own + 1)
                    found += [run.times(BUCKET_SPAN) for run in smaller]
        except Exception as error:  # noqa: BLE001 - whatever it is, the job goes on
            facts = {"action": "history_not_read", "processor": processor}
            log.warning("past runs not read: %r", error, extra=facts)
            return ()
        self._read[processor, own] = self._clock(), tuple(found)
        return tuple(found)

    def _runs(self, processor: str, bucket: int) -> list[PastRun]:
        item = self._client.get_item(TableName=self._table, Key=_key(processor, bucket)).get("Item", {})
        texts = [value["S"] for name, value in item.items() if name.startswith(RUN)]
        return [PastRun(float(seconds), dict(stages)) for seconds, stages in map(json.loads, texts)]


def bucket_of(input_bytes: int) -> int:
    """Return the size bucket: the number of binary digits of the inputs' size."""
    return max(0, input_bytes).bit_length()


def history_key(processor: str, input_bytes: int) -> Key:
    """Return the primary key of a processor's runs on inputs of this size."""
    return _key(processor, bucket_of(input_bytes))


def slot_of(job_id: str) -> str:
    """Return the attribute that holds a job's run. Example: "run07"."""
    return f"{RUN}{zlib.crc32(job_id.encode()) % RUNS_KEPT:02d}"


def high_quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least `share` of them do not exceed. There must be some."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _key(processor: str, bucket: int) -> Key:
    return {
        TableKey.PARTITION: {"S": f"{contract.HISTORY_PARTITIONS}{processor}"},
        TableKey.SORT: {"S": f"{bucket:02d}"},
    }
