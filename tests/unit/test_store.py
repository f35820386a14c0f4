"""The job table's rules, against moto's DynamoDB."""

import boto3
import pytest
from moto import mock_aws

from scanfleet import contract
from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import Pool
from scanfleet.errors import CancelRequested, Conflict, LeaseLost, NotFound
from scanfleet.jobs import FailureClass, Job, JobState, ResultSummary, new_job_id
from scanfleet.leases import HeldElsewhere, Lease, Leases, NothingToDo
from scanfleet.store import JobFilter, JobStore
from tests.support.cloud import create_job_table

LEASE_SECONDS = 25.0


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def dynamodb(monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        client = boto3.client("dynamodb")
        create_job_table(client, "jobs")
        yield client


@pytest.fixture
def transitions():
    return []


@pytest.fixture
def store(dynamodb, clock, transitions):
    return JobStore(dynamodb, "jobs", clock=clock, on_transition=transitions.append)


@pytest.fixture
def leases(dynamodb, clock, transitions):
    return Leases(
        dynamodb, "jobs", lease_seconds=LEASE_SECONDS, clock=clock, on_transition=transitions.append
    )


@pytest.fixture
def new_job(clock):
    def make(**facts) -> Job:
        job_id = facts.get("job_id") or new_job_id()
        defaults = {
            "job_id": job_id,
            "owner": "ann",
            "processor": "reference",
            "pool": Pool.LINUX_CPU,
            "source_uri": "s3://data/in/",
            "target_uri": f"s3://data/out/{job_id}/",
            "created_at": clock.now,
            "queued_at": clock.now,
            "state_changed_at": clock.now,
        }
        return Job(**(defaults | facts))

    return make


def take(leases: Leases, job: Job, agent: str = "a1") -> Lease:
    lease = leases.take(job.job_id, agent)
    assert isinstance(lease, Lease)
    return lease


def test_a_created_job_is_read_back_exactly(store, new_job):
    job = new_job(settings={"File Size": 3, "Use GPU": True, "x": 1.5}, tags={"case": "ü#1"})

    store.create(job)

    assert store.get(job.job_id) == job


def test_an_unknown_job_is_not_found(store):
    with pytest.raises(NotFound):
        store.get(new_job_id())


def test_the_same_idempotency_key_gives_the_same_job(store, new_job):
    first = store.create(new_job(), idempotency="k", fingerprint="f")

    second = store.create(new_job(), idempotency="k", fingerprint="f")

    assert second.job_id == first.job_id
    assert len(store.list_jobs(JobFilter(), limit=10).jobs) == 1


def test_the_same_idempotency_key_for_another_request_is_a_conflict(store, new_job):
    store.create(new_job(), idempotency="k", fingerprint="f")

    with pytest.raises(Conflict, match="different request"):
        store.create(new_job(), idempotency="k", fingerprint="g")


def test_owners_do_not_share_idempotency_keys(store, new_job):
    mine = store.create(new_job(owner="a#b"), idempotency="c", fingerprint="f")

    theirs = store.create(new_job(owner="a"), idempotency="b#c", fingerprint="f")

    assert mine.job_id != theirs.job_id


def test_a_lease_gives_the_job_a_new_attempt_and_keeps_others_out(store, leases, new_job, clock):
    job = store.create(new_job())

    lease = take(leases, job)

    assert (lease.attempt, lease.job.state) == (1, JobState.DOWNLOADING)
    assert leases.take(job.job_id, "a2") == HeldElsewhere(lease.job)


def test_an_expired_lease_lets_another_agent_take_the_job(store, leases, new_job, clock):
    job = store.create(new_job())
    old = take(leases, job)
    clock.now += LEASE_SECONDS + 1

    new = take(leases, job, "a2")

    assert new.attempt == 2
    assert new.job.failures[0].failure_class is FailureClass.LOST_MACHINE
    for write in (
        lambda: leases.renew(old, progress_percent=1, stage=None),
        lambda: leases.advance(old, JobState.PROCESSING),
        lambda: leases.commit(old),
        lambda: leases.complete(old, ResultSummary(attempt=1, files=0, size_bytes=0)),
        lambda: leases.cancel(old),
    ):
        with pytest.raises(LeaseLost):
            write()


def test_a_renewed_lease_does_not_expire(store, leases, new_job, clock):
    job = store.create(new_job())
    lease = take(leases, job)
    clock.now += LEASE_SECONDS - 1

    leases.renew(lease, progress_percent=12.345, stage="align")
    clock.now += LEASE_SECONDS - 1

    assert isinstance(leases.take(job.job_id, "a2"), HeldElsewhere)
    assert (store.get(job.job_id).progress_percent, store.get(job.job_id).stage) == (12.35, "align")


def test_of_two_agents_that_take_at_once_only_one_gets_the_lease(store, leases, new_job, monkeypatch):
    job = store.create(new_job())
    seen = store.get(job.job_id)
    take(leases, job, "quicker")
    answers = iter([seen])  # read before the quicker one wrote; afterwards the truth
    real = leases.get
    monkeypatch.setattr(leases, "get", lambda job_id: next(answers, None) or real(job_id))

    assert isinstance(leases.take(job.job_id, "slower"), HeldElsewhere)


def test_a_lease_whose_answer_was_lost_is_ours_at_the_second_try(
    store, leases, new_job, monkeypatch, dynamodb
):
    job = store.create(new_job())
    write = dynamodb.update_item

    def write_twice(**request):  # as the client does when the first answer is lost
        write(**request)
        return write(**request)

    monkeypatch.setattr(dynamodb, "update_item", write_twice)

    assert take(leases, job).attempt == 1


def test_of_two_slots_of_one_agent_that_take_at_once_only_one_gets_the_lease(
    store, leases, new_job, monkeypatch
):
    job = store.create(new_job())
    seen = store.get(job.job_id)
    take(leases, job, "a1")
    answers = iter([seen])  # the other slot read before the first one wrote
    real = leases.get
    monkeypatch.setattr(leases, "get", lambda job_id: next(answers, None) or real(job_id))

    assert isinstance(leases.take(job.job_id, "a1"), HeldElsewhere)


def test_a_commit_whose_answer_was_lost_is_a_commit_at_the_second_try(store, leases, new_job):
    job = store.create(new_job())
    lease = take(leases, job)

    assert leases.commit(lease) == leases.commit(lease)


def test_an_end_whose_answer_was_lost_is_an_end_at_the_second_try_and_told_once(
    store, leases, new_job, monkeypatch, dynamodb, transitions
):
    lease = take(leases, store.create(new_job()))
    other = take(leases, store.create(new_job()))
    write = dynamodb.update_item

    def write_twice(**request):  # as the client does when the first answer is lost
        write(**request)
        return write(**request)

    monkeypatch.setattr(dynamodb, "update_item", write_twice)
    transitions.clear()

    assert leases.cancel(lease).state is JobState.CANCELLED
    failure = leases.failure(other, FailureClass.CRASH, "signal 11")
    assert leases.requeue(other, failure).state is JobState.QUEUED
    assert [one.job.state for one in transitions] == [JobState.CANCELLED, JobState.QUEUED]


def test_a_silent_owner_that_commits_after_all_is_not_overruled(store, leases, new_job, clock):
    job = store.create(new_job())
    for _ in range(contract.MAX_LOST_MACHINES):
        take(leases, job)
        clock.now += LEASE_SECONDS + 1
    slow = take(leases, job)
    clock.now += LEASE_SECONDS + 1
    read_before = store.get(job.job_id)

    leases.commit(slow)

    with pytest.raises(Conflict):
        leases._end_unowned(read_before, JobState.FAILED, read_before.failures)


def test_a_job_that_loses_too_many_machines_fails(store, leases, new_job, clock):
    job = store.create(new_job())
    for _ in range(contract.MAX_LOST_MACHINES + 1):
        take(leases, job)
        clock.now += LEASE_SECONDS + 1

    ended = leases.take(job.job_id, "last")

    assert isinstance(ended, NothingToDo)
    assert ended.job.state is JobState.FAILED


def test_a_completed_job_keeps_its_times_and_leaves_the_active_index(store, leases, new_job, clock):
    job = store.create(new_job())
    clock.now += 3
    lease = take(leases, job)
    clock.now += 5
    lease = leases.advance(lease, JobState.PROCESSING)
    clock.now += 7
    lease = leases.commit(leases.advance(lease, JobState.UPLOADING))
    done = leases.complete(lease, ResultSummary(attempt=1, files=2, size_bytes=9))

    assert done.durations_seconds == {"queued": 3, "downloading": 5, "processing": 7, "uploading": 0}
    assert done.result == ResultSummary(attempt=1, files=2, size_bytes=9)
    assert store.list_jobs(JobFilter(), limit=10).jobs == ()
    (listed,) = store.list_jobs(JobFilter(states=(JobState.COMPLETED,)), limit=10).jobs
    assert (listed.job_id, listed.state) == (done.job_id, JobState.COMPLETED)
    assert leases.take(job.job_id, "a2") == NothingToDo(done)


def test_every_change_of_state_is_told_once_with_its_duration(store, leases, new_job, clock, transitions):
    job = store.create(new_job())
    clock.now += 3
    lease = take(leases, job)
    leases.renew(lease, progress_percent=1, stage=None)
    clock.now += 2
    leases.cancel(lease)

    told = [(t.previous, t.job.state, t.seconds) for t in transitions]
    assert told == [
        (None, JobState.QUEUED, 0),
        (JobState.QUEUED, JobState.DOWNLOADING, 3),
        (JobState.DOWNLOADING, JobState.CANCELLED, 2),
    ]


def test_a_queued_job_is_cancelled_at_once(store, leases, new_job):
    job = store.create(new_job())

    assert store.request_cancel(job).state is JobState.CANCELLED
    assert isinstance(leases.take(job.job_id, "a1"), NothingToDo)


def test_a_running_job_hears_of_the_cancel_with_its_next_renewal(store, leases, new_job):
    job = store.create(new_job())
    lease = take(leases, job)

    store.request_cancel(lease.job)

    assert leases.renew(lease, progress_percent=1, stage=None).job.cancel_requested_at is not None


def test_cancel_and_commit_exclude_each_other(store, leases, new_job):
    job = store.create(new_job())
    lease = take(leases, job)

    store.request_cancel(lease.job)
    with pytest.raises(CancelRequested):
        leases.commit(lease)

    other = store.create(new_job())
    committed = leases.commit(take(leases, other))
    with pytest.raises(Conflict):
        store.request_cancel(committed.job)


def test_a_cancelled_job_of_a_dead_agent_is_cancelled_by_the_next_one(store, leases, new_job, clock):
    job = store.create(new_job())
    store.request_cancel(take(leases, job).job)
    clock.now += LEASE_SECONDS + 1

    ended = leases.take(job.job_id, "a2")

    assert isinstance(ended, NothingToDo)
    assert ended.job.state is JobState.CANCELLED


def test_a_finished_job_cannot_be_cancelled(store, leases, new_job):
    job = store.create(new_job())
    ended = leases.cancel(take(leases, job))

    with pytest.raises(Conflict):
        store.request_cancel(ended)


def test_a_committed_job_is_taken_for_publication_only(store, leases, new_job, clock):
    job = store.create(new_job())
    leases.commit(take(leases, job))
    clock.now += LEASE_SECONDS + 1

    lease = take(leases, job, "a2")

    assert lease.job.state is JobState.UPLOADING
    assert lease.job.committed_attempt == 1
    with pytest.raises(LeaseLost):
        leases.commit(lease)


def test_a_retried_job_starts_with_a_clean_count(store, leases, new_job):
    job = store.create(new_job())
    lease = take(leases, job)
    failed = leases.fail(lease, leases.failure(lease, FailureClass.BAD_INPUT, "empty file a.ply"))
    assert failed.failure is not None

    again = store.retry(failed)

    assert (again.state, again.failures_forgiven) == (JobState.QUEUED, 1)
    assert take(leases, again).attempt == 2
    with pytest.raises(Conflict):
        store.retry(failed)


def test_a_job_that_is_retried_for_ever_stays_small_enough_for_its_table(store, leases, new_job):
    job = store.create(new_job())
    for _ in range(40):
        lease = take(leases, job)
        reason = "\N{SKULL}" * 1000  # 12,000 bytes as JSON; an item has 400 KB
        job = store.retry(leases.fail(lease, leases.failure(lease, FailureClass.PROGRAM_ERROR, reason)))

    assert job.failures_forgiven == len(job.failures)
    assert job.failures[-1].attempt == 40


def test_a_requeued_job_keeps_its_failure(store, leases, new_job):
    job = store.create(new_job())
    lease = take(leases, job)

    waiting = leases.requeue(lease, leases.failure(lease, FailureClass.CRASH, "signal 11", -11))

    assert (waiting.state, waiting.agent_id, waiting.lease_expires_at) == (JobState.QUEUED, None, None)
    assert waiting.failure is not None
    assert (waiting.failure.exit_code, waiting.failure.agent_id) == (-11, "a1")


def test_jobs_are_listed_newest_first_page_by_page(store, new_job):
    jobs = [store.create(new_job(owner=("ann", "bob")[i % 2])) for i in range(7)]
    newest_first = sorted((j.job_id for j in jobs), reverse=True)

    seen, before = [], None
    while True:
        page = store.list_jobs(JobFilter(), limit=3, before=before)
        seen += [job.job_id for job in page.jobs]
        before = page.next_cursor
        if before is None:
            break

    assert seen == newest_first


def test_a_listing_is_filtered_by_owner_state_and_tag(store, new_job):
    mine = store.create(new_job(tags={"case": "7"}))
    store.create(new_job(owner="bob", tags={"case": "7"}))
    ended = store.request_cancel(store.create(new_job(tags={"case": "7"})))
    store.create(new_job())

    tagged = JobFilter(owner="ann", tag=("case", "7"))
    assert store.list_jobs(tagged, limit=10).jobs == (mine,)
    both = JobFilter(owner="ann", states=tuple(JobState), tag=("case", "7"))
    assert {job.job_id for job in store.list_jobs(both, limit=10).jobs} == {mine.job_id, ended.job_id}
    everyone = JobFilter(states=(JobState.QUEUED, JobState.CANCELLED))
    assert len(store.list_jobs(everyone, limit=10).jobs) == 4


def test_an_agent_that_went_silent_is_not_in_service(dynamodb, clock):
    directory = AgentDirectory(dynamodb, "jobs", clock=clock)
    report = AgentReport(
        agent_id="a1", pool=Pool.LINUX_CPU, slots=2, busy=1, started_at=clock.now, seen_at=clock.now
    )
    directory.put(report)
    assert directory.in_service() == (report,)

    clock.now += contract.AGENT_SILENT_AFTER.total_seconds() + 1
    assert directory.in_service() == ()

    directory.remove("a1")
