"""One job per target folder: who gets a folder, who loses it, and what a commit makes sure of."""

from types import SimpleNamespace

import boto3
import pytest
from moto import mock_aws

from scanfleet.contract import Pool
from scanfleet.errors import TargetLost
from scanfleet.jobs import FailureClass, Job, JobState, ResultSummary, new_job_id
from scanfleet.leases import Lease, Leases
from scanfleet.store import JobStore
from scanfleet.store_items import job_key
from scanfleet.target_claims import TargetTaken, target_key
from tests.support.cloud import create_job_table

TARGET = "s3://data/out/"
TABLE = "jobs"


class Table:
    """A job table, its owners' side and its agents' side."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.client = boto3.client("dynamodb")
        create_job_table(self.client, TABLE)
        self.store = JobStore(self.client, TABLE, clock=lambda: self.now, on_transition=lambda _: None)
        self.leases = Leases(self.client, TABLE, clock=lambda: self.now, on_transition=lambda _: None)

    def create(self, *, replace: bool = False, idempotency: str | None = None, **facts) -> Job:
        times = {"created_at": self.now, "queued_at": self.now, "state_changed_at": self.now}
        job = Job(
            job_id=new_job_id(),
            processor="p",
            pool=Pool.LINUX_CPU,
            source_uri="s3://data/in/",
            target_uri=TARGET,
            **times,
            **({"owner": "ann"} | facts),
        )
        return self.store.create(job, replace=replace, idempotency=idempotency)

    def take(self, job: Job) -> Lease:
        lease = self.leases.take(job.job_id, "a1")
        assert isinstance(lease, Lease)
        return lease

    def complete(self, job: Job) -> Job:
        lease = self.leases.published(self.leases.commit(self.take(job)))
        return self.leases.complete(lease, ResultSummary(attempt=lease.attempt, files=1, size_bytes=1))

    def fail(self, job: Job, *, commit: bool = False) -> Job:
        lease = self.leases.commit(self.take(job)) if commit else self.take(job)
        return self.leases.fail(lease, self.leases.failure(lease, FailureClass.BAD_INPUT, "no scan"))

    def holder(self) -> str:
        return str(self.client.get_item(TableName=TABLE, Key=target_key(TARGET))["Item"]["job_id"]["S"])

    def forget(self, job: Job) -> None:
        """Let the record go, as its time to live does."""
        self.client.delete_item(TableName=TABLE, Key=job_key(job.job_id))


@pytest.fixture
def table(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield Table()


def test_a_folder_that_an_unfinished_job_has_is_refused_and_nothing_is_recorded(table):
    first = table.create()

    with pytest.raises(TargetTaken) as refused:
        table.create(replace=True)

    assert refused.value.holder == first
    assert first.job_id in refused.value.told()
    assert first.job_id not in str(refused.value)
    assert table.holder() == first.job_id
    assert table.complete(first).state is JobState.COMPLETED


def test_a_folder_with_published_results_is_refused_unless_its_owner_asks_to_replace_them(table):
    first = table.complete(table.create())

    with pytest.raises(TargetTaken, match="another job's"):
        table.create()
    with pytest.raises(TargetTaken):
        table.create(replace=True, owner="bob")
    second = table.create(replace=True)

    assert second.replaces == first.job_id
    assert table.store.get(first.job_id).superseded_by is None, "its results are still there"
    table.complete(second)
    assert table.store.get(first.job_id).superseded_by == second.job_id


def test_a_folder_of_a_failed_a_cancelled_or_a_vanished_job_is_free(table):
    table.fail(table.create())
    table.store.request_cancel(table.create(owner="bob"))
    gone = table.create()
    table.forget(gone)

    last = table.create(owner="cid")

    assert (table.holder(), last.replaces) == (last.job_id, None)


def test_a_job_that_failed_while_it_published_keeps_its_folder(table):
    failed = table.fail(table.create(), commit=True)

    with pytest.raises(TargetTaken) as refused:
        table.create(replace=True)

    assert "retry it" in refused.value.told()
    again = table.store.retry(failed)
    lease = table.take(again)
    assert (lease.job.state, lease.job.committed_attempt) == (JobState.UPLOADING, 1)


def test_results_stay_protected_when_the_job_that_was_to_replace_them_fails(table):
    first = table.complete(table.create())
    second = table.fail(table.create(replace=True))

    with pytest.raises(TargetTaken) as refused:
        table.create()
    third = table.create(replace=True)

    assert refused.value.holder.job_id == first.job_id
    assert (second.replaces, third.replaces) == (first.job_id, first.job_id)
    table.complete(third)
    assert table.store.get(first.job_id).superseded_by == third.job_id


def test_a_retry_takes_its_folder_again_or_is_refused(table):
    failed = table.fail(table.create())
    other = table.create()

    with pytest.raises(TargetTaken) as refused:
        table.store.retry(failed)
    assert refused.value.holder.job_id == other.job_id
    assert table.store.get(failed.job_id).state is JobState.FAILED

    table.store.request_cancel(other)
    assert table.store.retry(failed).state is JobState.QUEUED
    assert table.holder() == failed.job_id


def test_a_folder_is_not_taken_from_a_job_that_its_owner_retries_at_this_moment(table, monkeypatch):
    failed = table.fail(table.create())
    seen = table.store.get(failed.job_id)
    table.store.retry(failed)
    stale = iter([seen])  # read before the retry; afterwards the truth
    real = table.store._claims._read
    monkeypatch.setattr(table.store._claims, "_read", lambda job_id: next(stale, None) or real(job_id))

    with pytest.raises(TargetTaken):
        table.create()

    assert table.holder() == failed.job_id


def test_no_results_are_committed_into_a_folder_that_has_become_anothers(table):
    job = table.create()
    lease = table.take(job)
    key = target_key(TARGET)
    table.client.put_item(TableName=TABLE, Item={**key, "job_id": {"S": "another"}})

    with pytest.raises(TargetLost):
        table.leases.commit(lease)

    assert table.store.get(job.job_id).committed_attempt is None


def test_a_job_whose_claim_or_replaced_record_has_expired_still_commits(table):
    first = table.complete(table.create())
    second = table.create(replace=True)
    table.forget(first)
    table.client.delete_item(TableName=TABLE, Key=target_key(TARGET))

    table.complete(second)

    assert table.holder() == second.job_id
    assert "Item" not in table.client.get_item(TableName=TABLE, Key=job_key(first.job_id))


def test_the_same_request_twice_at_once_gives_the_same_job(table):
    first = table.create(idempotency="k")

    assert table.create(idempotency="k").job_id == first.job_id


def test_a_write_that_meets_a_transaction_is_tried_again(table):
    """As DynamoDB answers a heartbeat or a cancel at the instant of a commit; moto has no such instants."""
    lease = table.take(table.create())
    met = []

    def refuse(**_):
        if len(met) < 2:
            met.append("conflict")
            error = {"Code": "TransactionConflictException", "Message": "a transaction has the item"}
            return SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {}}
        return None

    table.client.meta.events.register("before-call.dynamodb.UpdateItem", refuse)

    assert table.store.request_cancel(lease.job).cancel_requested_at is not None
    assert len(met) == 2
