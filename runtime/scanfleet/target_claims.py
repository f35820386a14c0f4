"""Whose results belong into a target folder: one claim per folder, so that no job writes over another's.

item: {"pk": "TARGET#<uri>", "sk": "TARGET", "job_id": its holder, "replaces": a completed job whose results
are still there and whose owner wants them replaced, "expires_at": epoch seconds}.

A claim is made in the transaction that creates or retries its job, and confirmed in the one that commits its
results. docs/decisions/0042-one-job-per-target-folder.md says why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanfleet import contract
from scanfleet.contract import TARGET_PARTITIONS, TableKey
from scanfleet.dynamo import answering
from scanfleet.errors import Conflict, NotFound
from scanfleet.jobs import Job, JobState
from scanfleet.store_items import Key, attribute, job_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TargetTaken(Conflict):
    """Another job has the target folder. Its message names no job: the caller may not know of `holder`."""

    def __init__(self, target_uri: str, holder: Job) -> None:
        self.holder = holder
        super().__init__(f"the target folder {target_uri} is another job's; choose another folder")

    def told(self) -> str:
        """Return what to tell those who may see the holder."""
        holder = self.holder
        has = f"job {holder.job_id} ({holder.state}) has the target folder {holder.target_uri}"
        if holder.state is JobState.COMPLETED:
            return f"{has}; choose another folder, or replace its results (replace_results, submit --replace)"
        if holder.state is JobState.FAILED:
            return f"{has}: it failed while its results were published; retry it, or choose another folder"
        return f"{has}; wait for its end, cancel it, or choose another folder"


@dataclass(frozen=True)
class Taking:
    """The writes that make a claim, for the job's own transaction, and what the job then replaces."""

    writes: tuple[dict[str, Any], ...]
    replaces: str | None


class TargetClaims:
    """Reads claims and prepares the writes that make and confirm them.

    read: returns a job, or raises NotFound.
    """

    def __init__(
        self, client: "DynamoDBClient", table: str, *, clock: Callable[[], float], read: Callable[[str], Job]
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._read = read

    def taking(self, job: Job, *, replace: bool) -> Taking:
        """Return the writes by which `job` gets its target folder.

        Failed and cancelled jobs lose it silently, a completed one only when `replace` and to its own owner,
        an unfinished one never; nor one that failed while its results were published, for an attempt of it
        may still write. Raises TargetTaken. The writes are conditional on what was seen here.
        """
        key = target_key(job.target_uri)
        with answering("read target folder"):
            found = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")
        if found is None:
            return Taking((self._put(job, None, "attribute_not_exists(pk)", {}),), None)
        holder_id = found["job_id"]["S"]
        seen = {":seen": attribute(holder_id)}
        earlier = found.get("replaces", {}).get("S")
        if holder_id == job.job_id:
            return Taking((self._put(job, earlier, "job_id = :seen", seen),), job.replaces)
        holder = self._job(holder_id)
        published = holder if holder and holder.state is JobState.COMPLETED else self._job(earlier)
        if holder is not None and _may_still_publish(holder):
            raise TargetTaken(job.target_uri, holder)
        if published is not None and not (replace and published.owner == job.owner):
            raise TargetTaken(job.target_uri, published)
        replaces = published.job_id if published else None
        put = self._put(job, replaces, "job_id = :seen", seen)
        return Taking((put, self._as_seen(holder_id, holder)), replaces)

    def confirming(self, job: Job) -> tuple[dict[str, Any], ...]:
        """Return the writes for the transaction that commits the job's results.

        The first needs the claim to be the job's, or nobody's. The second, if any, marks the replaced job
        and needs its record to be there still.
        """
        claim = {
            "TableName": self._table,
            "Key": target_key(job.target_uri),
            "UpdateExpression": "SET job_id = :job, expires_at = :expires REMOVE replaces",
            "ConditionExpression": "attribute_not_exists(pk) OR job_id = :job",
            "ExpressionAttributeValues": {
                ":job": attribute(job.job_id),
                ":expires": attribute(self._expires_at()),
            },
        }
        if job.replaces is None:
            return ({"Update": claim},)
        replaced = {
            "TableName": self._table,
            "Key": job_key(job.replaces),
            "UpdateExpression": "SET superseded_by = :job",
            "ConditionExpression": "attribute_exists(pk)",
            "ExpressionAttributeValues": {":job": attribute(job.job_id)},
        }
        return ({"Update": claim}, {"Update": replaced})

    def _put(self, job: Job, replaces: str | None, condition: str, values: dict[str, Any]) -> dict[str, Any]:
        item = {
            **target_key(job.target_uri),
            "job_id": attribute(job.job_id),
            TableKey.EXPIRES_AT: attribute(self._expires_at()),
        }
        if replaces is not None:
            item["replaces"] = attribute(replaces)
        put = {"TableName": self._table, "Item": item, "ConditionExpression": condition}
        return {"Put": put | ({"ExpressionAttributeValues": values} if values else {})}

    def _as_seen(self, holder_id: str, holder: Job | None) -> dict[str, Any]:
        """Return the condition that the holder has not come to life again: its owner may retry it."""
        check: dict[str, Any] = {"TableName": self._table, "Key": job_key(holder_id)}
        if holder is None:
            return {"ConditionCheck": check | {"ConditionExpression": "attribute_not_exists(pk)"}}
        condition = {
            "ConditionExpression": "#state = :state AND #attempt = :attempt",
            "ExpressionAttributeNames": {"#state": TableKey.STATE, "#attempt": "attempt"},
            "ExpressionAttributeValues": {
                ":state": attribute(holder.state),
                ":attempt": attribute(holder.attempt),
            },
        }
        return {"ConditionCheck": check | condition}

    def _job(self, job_id: str | None) -> Job | None:
        try:
            return None if job_id is None else self._read(job_id)
        except NotFound:
            return None

    def _expires_at(self) -> int:
        return int(self._clock() + contract.CLAIMS_KEPT.total_seconds())


def _may_still_publish(holder: Job) -> bool:
    return not holder.state.is_terminal or (
        holder.state is JobState.FAILED and holder.committed_attempt is not None
    )


def target_key(target_uri: str) -> Key:
    """Return the primary key of a target folder's claim."""
    return {TableKey.PARTITION: {"S": f"{TARGET_PARTITIONS}{target_uri}"}, TableKey.SORT: {"S": "TARGET"}}
