"""How long programs took before: what limits and predictions are learned from, and spread is explained by.

Items: {"pk": "HISTORY#<processor>", "sk": "<size bucket>", "run00".."run99": JSON, "expires_at"}. A bucket
holds the runs whose inputs' sizes have the same number of binary digits, so it spans a factor of two. A
run's place among the hundred is a hash of its job's id: one write, without a condition, puts it there, over
what was in that place. So the item cannot grow, two agents cannot hurt each other, and a run that is written
twice counts once. past_runs.py knows what a run is and how it is written.
"""

import logging
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.contract import TableKey
from scanfleet.dynamo import answering
from scanfleet.past_runs import Expected, PastRun, read_run, settings_fingerprint, text_of
from scanfleet.store_items import Key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Expected", "PastRun", "RunHistory", "settings_fingerprint"]

log = logging.getLogger(__name__)

RUNS_KEPT = 100
"""Of a processor and size bucket."""
RUN = "run"
"""Attributes that hold runs begin with this."""
REREAD = timedelta(minutes=5)
FEW_RUNS = 10
RETRY_SECONDS = 15.0
"""After a reading that failed; until then what was read before counts on."""
BUCKET_SPAN = 2.0
"""Inputs of a bucket are at most so many times as large as those of the one below."""


class RunHistory:
    """Reads and writes past runs in the job table. A failure of it is logged and hurts no job.

    reread: what was read counts for this long. Runs change what they teach slowly, and jobs may be short.
    reread_few: the same while fewer than FEW_RUNS were found: each more then tells much. None: as reread.
    clock: epoch seconds.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        reread: timedelta = REREAD,
        reread_few: timedelta | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._reread_seconds = reread.total_seconds()
        self._reread_few_seconds = (reread if reread_few is None else reread_few).total_seconds()
        self._clock = clock
        self._read: dict[tuple[str, int | None], tuple[float, tuple[PastRun, ...]]] = {}

    def add(self, processor: str, *, input_bytes: int, job_id: str, run: PastRun) -> None:
        """Keep a run on inputs of this size."""
        run = replace(run, input_bytes=input_bytes)
        expires_at = int(self._clock() + contract.HISTORY_KEPT.total_seconds())
        try:
            with answering("write run history"):
                self._client.update_item(
                    TableName=self._table,
                    Key=history_key(processor, input_bytes),
                    UpdateExpression="SET #run = :run, #expires = :expires",
                    ExpressionAttributeNames={"#run": slot_of(job_id), "#expires": TableKey.EXPIRES_AT},
                    ExpressionAttributeValues={
                        ":run": {"S": text_of(run)},
                        ":expires": {"N": str(expires_at)},
                    },
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the job goes on
            facts = {"action": "history_not_written", "job_id": job_id}
            log.warning("run not remembered: %r", error, extra=facts)

    def like(self, processor: str, *, input_bytes: int) -> tuple[PastRun, ...]:
        """Return runs of the processor on inputs of about this size, for limits that must not be too short.

        Runs on inputs of a smaller size class come as if these had been larger.
        """
        own = bucket_of(input_bytes)
        return tuple(
            run if bucket_of(run.input_bytes or input_bytes) >= own else run.times(BUCKET_SPAN)
            for run in self.near(processor, input_bytes=input_bytes)
        )

    def near(self, processor: str, *, input_bytes: int) -> tuple[PastRun, ...]:
        """Return runs of the processor on inputs of about this size, as they were.

        Of the own size class if it has many; otherwise also of those beside it.
        """
        own = bucket_of(input_bytes)

        def read() -> list[PastRun]:
            found = self._runs(processor, own)
            if len(found) < RUNS_KEPT // 2:
                found += self._runs(processor, own + 1) + self._runs(processor, own - 1)
            return found

        return self._remembered((processor, own), read)

    def of(self, processor: str) -> tuple[PastRun, ...]:
        """Return the processor's runs on inputs of any size, by one query. Machines may not ask this."""
        return self._remembered((processor, None), lambda: self._all_runs(processor))

    def _remembered(
        self, key: tuple[str, int | None], read: Callable[[], list[PastRun]]
    ) -> tuple[PastRun, ...]:
        read_at, runs = self._read.get(key, (-math.inf, ()))
        valid = self._reread_seconds if len(runs) >= FEW_RUNS else self._reread_few_seconds
        if abs(self._clock() - read_at) < valid:
            return runs
        if runs:
            self._read[key] = self._clock(), runs  # others go on with these meanwhile
        try:
            with answering("read run history"):
                found = tuple(read())
        except Exception as error:  # noqa: BLE001 - whatever it is, the job goes on
            facts = {"action": "history_not_read", "processor": key[0]}
            log.warning("past runs not read: %r", error, extra=facts)
            # Asked again soon, but not by everybody who asks meanwhile.
            self._read[key] = self._clock() - max(0.0, valid - RETRY_SECONDS), runs
            return runs
        self._read[key] = self._clock(), found
        return found

    def _runs(self, processor: str, bucket: int) -> list[PastRun]:
        item = self._client.get_item(TableName=self._table, Key=_key(processor, bucket)).get("Item", {})
        return _runs_in(item, bucket)

    def _all_runs(self, processor: str) -> list[PastRun]:
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"{contract.HISTORY_PARTITIONS}{processor}"}},
        )
        items = [item for page in pages for item in page["Items"]]
        return [run for item in items for run in _runs_in(item, int(item[TableKey.SORT]["S"]))]


def _runs_in(item: Any, bucket: int) -> list[PastRun]:
    """Return the item's runs; one that cannot be read, as of a later version, is left out."""
    # Runs from before sizes were kept count as of the middle of their size class.
    middle = int(0.75 * 2**bucket)
    texts = [value["S"] for name, value in item.items() if name.startswith(RUN)]
    return [run for text in texts if (run := read_run(text, input_bytes=middle)) is not None]


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
