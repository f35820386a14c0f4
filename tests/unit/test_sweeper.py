"""The sweeper: what died between two steps is found and repaired, and what lives is left alone."""

import json
import logging
from datetime import timedelta

import pytest
from moto import mock_aws

from scanfleet.contract import Dimension, Env, Metric, Pool, Priority
from scanfleet.errors import Conflict
from scanfleet.jobs import FailureClass, JobState, ResultSummary
from scanfleet.leases import HeldElsewhere, Lease
from scanfleet.repairs import Repair
from scanfleet.store import JobFilter, JobStore
from scanfleet.sweeper import entry, messages
from scanfleet.telemetry import METRIC_EXTRA
from tests.support.swept import ARTIFACTS, HOUR, MINUTE, TABLE, SweptSystem, in_time, refuse


@pytest.fixture
def system():
    with mock_aws():
        yield SweptSystem()


@pytest.fixture
def repaired(caplog):
    """The repairs told so far: (repair, job id)."""
    caplog.set_level(logging.INFO)

    def told() -> list[tuple[str, str]]:
        lines = [r for r in caplog.records if getattr(r, "action", "") == "repaired"]
        return [(line.repair, line.job_id) for line in lines]

    return told


def counted(caplog, metric: Metric) -> list[dict[str, object]]:
    """The values that log lines carried for a metric, with their dimensions."""
    carried = [getattr(record, METRIC_EXTRA, {"values": {}})["values"] for record in caplog.records]
    return [values for values in carried if metric in values]


# --- Jobs that were recorded and never queued --------------------------------------------------------------


def test_a_job_whose_api_died_before_its_message_is_queued_within_two_minutes(system, repaired):
    job = system.record()

    assert system.sweep(after=30) == 0, "the API may still be about to send"
    assert system.sweep(after=MINUTE) == 1

    assert system.messages() == [job.job_id]
    assert repaired() == [(Repair.NEVER_QUEUED, job.job_id)]
    assert system.store.get(job.job_id).enqueued_at == system.now


def test_a_job_without_a_message_is_found_behind_any_backlog(system, repaired, monkeypatch):
    monkeypatch.setattr(messages, "MOST_CANDIDATES", 2)
    waiting = [system.submit() for _ in range(4)]
    lost = system.record()

    system.sweep(after=4 * MINUTE)

    assert repaired() == [(Repair.NEVER_QUEUED, lost.job_id)]
    assert system.messages() == sorted(job.job_id for job in [*waiting, lost])


def test_a_backlog_is_read_only_as_far_as_it_is_looked_at(system, monkeypatch):
    monkeypatch.setattr(messages, "MOST_CANDIDATES", 2)
    for _ in range(5):
        system.submit()
    read = []
    whole = JobStore.waiting

    def counted(store):
        for job in whole(store):
            read.append(job.job_id)
            yield job

    monkeypatch.setattr(JobStore, "waiting", counted)
    system.sweep(after=4 * MINUTE)

    assert len(read) == 2


def test_a_repaired_job_is_not_repaired_again(system):
    job = system.record()

    system.sweep(after=2 * MINUTE)

    assert system.sweep_for(10 * MINUTE) == 0, "its message waits"
    assert system.messages() == [job.job_id]


def test_jobs_that_the_api_queued_are_left_alone(system):
    job = system.submit()

    assert system.sweep_for(HOUR) == 0
    assert system.messages() == [job.job_id]


def test_an_owners_retry_whose_message_was_never_sent_is_queued(system):
    lease = system.take(system.submit())
    system.messages()
    failure = system.leases.failure(lease, FailureClass.BAD_INPUT, "empty")
    again = system.store.retry(system.leases.fail(lease, failure))

    assert again.enqueued_at is None
    assert system.sweep(after=2 * MINUTE) == 1
    assert system.messages() == [again.job_id]


def test_two_sweepers_at_once_send_one_message_each_at_most_and_then_no_more(system):
    job = system.record()
    other = system.new_sweeper()
    system.now += 2 * MINUTE

    repairs = system.sweep() + other.run(is_time_up=in_time)

    assert repairs == 1, "the second reads the first one's mark"
    assert system.messages() == [job.job_id]


def test_two_sweepers_at_the_very_same_instant_send_two_messages_and_one_agent_gets_the_job(system):
    job, other = system.record(), system.new_sweeper()
    system.now += 2 * MINUTE
    meanwhile = iter([lambda: other.run(is_time_up=in_time)])
    events = system.sweeper.messages._queues._client.meta.events
    events.register("before-call.sqs.SendMessage", lambda **_: next(meanwhile, lambda: None)() and None)

    assert system.sweep() == 1

    assert system.messages() == [job.job_id, job.job_id]
    system.take(job)
    assert isinstance(system.leases.take(job.job_id, "a2"), HeldElsewhere)


def test_a_mark_that_a_throttled_table_refuses_costs_one_more_message_and_no_flood(system, caplog):
    job = system.record()
    refuse(system.sweeper.messages._store._client, "UpdateItem", "ProvisionedThroughputExceededException")

    system.sweep_for(9 * MINUTE)

    assert system.messages() == [job.job_id]
    assert "repair_failed" in {getattr(record, "action", "") for record in caplog.records}


def test_a_job_that_cannot_be_repaired_stops_no_other(system, repaired):
    poor, fine = system.record(), system.record()
    client = system.sweeper.messages._queues._client
    refuse(client, "SendMessage", "InternalError", when=lambda body: poor.job_id in body)

    system.sweep(after=2 * MINUTE)

    assert repaired() == [(Repair.NEVER_QUEUED, fine.job_id)]
    assert system.messages() == [fine.job_id]


def test_a_record_that_cannot_be_read_stops_no_other(system, repaired):
    broken, fine = system.record(), system.record()
    system.clients.dynamodb.update_item(
        TableName="jobs",
        Key={"pk": {"S": f"JOB#{broken.job_id}"}, "sk": {"S": "JOB"}},
        UpdateExpression="SET failures = :broken",
        ExpressionAttributeValues={":broken": {"S": "not JSON"}},
    )

    system.sweep(after=2 * MINUTE)

    assert repaired() == [(Repair.NEVER_QUEUED, fine.job_id)]


def test_every_page_of_unfinished_jobs_is_looked_at(system):
    settings = {"note": "x" * 60_000}
    jobs = [system.record(settings=settings) for _ in range(40)]  # DynamoDB's pages end at 1 MB

    assert system.sweep(after=2 * MINUTE) == 40
    assert system.messages() == sorted(job.job_id for job in jobs)


# --- Messages that are gone --------------------------------------------------------------------------------


def purge(system: SweptSystem) -> None:
    for url in system.urls[Pool.LINUX_CPU].values():
        system.clients.sqs.purge_queue(QueueUrl=url)


def test_jobs_of_a_purged_queue_get_another_message_within_minutes(system, repaired):
    jobs = [system.submit(), system.submit(priority=Priority.HIGH)]
    purge(system)

    system.sweep_for(6 * MINUTE)

    assert system.messages() == sorted(job.job_id for job in jobs)
    assert sorted(repaired()) == sorted((Repair.MESSAGE_LOST, job.job_id) for job in jobs)


def test_one_look_at_empty_queues_is_not_enough(system):
    system.submit()
    purge(system)

    assert system.sweep(after=10 * MINUTE) == 0, "the counts may be of a moment ago"
    assert system.sweep() == 0, "nor is a second one at once"
    assert system.sweep(after=MINUTE) == 1


def test_a_lost_message_is_seen_although_other_jobs_of_the_pool_run(system, repaired):
    lost = system.submit()
    purge(system)
    running = system.submit()
    message = system.queues.receive(
        Pool.LINUX_CPU, Priority.NORMAL, wait=timedelta(), visibility_seconds=3600
    )
    lease = system.take(running)

    for _ in range(6):
        system.now += MINUTE
        lease = system.leases.renew(lease, progress_percent=1.0, stage=None)
        system.sweep()

    assert message is not None
    assert repaired() == [(Repair.MESSAGE_LOST, lost.job_id)]


def test_a_job_whose_message_waits_for_the_next_attempt_is_left_alone(system):
    job = system.record()
    system.queues.send(job, delay=timedelta(minutes=15))
    system.store.mark_enqueued(job)

    assert system.sweep_for(HOUR) == 0


def test_a_lost_message_under_load_is_seen_when_much_younger_jobs_are_taken(system, repaired):
    lost = system.submit()
    purge(system)
    system.sweep()
    system.now += 40 * MINUTE
    backlog = [system.submit() for _ in range(3)]  # their messages wait: the pool never looks empty
    system.take(backlog[-1])

    system.sweep(after=10 * MINUTE)

    assert repaired() == [(Repair.MESSAGE_LOST, lost.job_id)]


def test_a_long_backlog_alone_is_no_lost_message(system):
    for _ in range(3):
        system.submit()

    assert system.sweep_for(5 * HOUR) == 0


def test_after_six_hours_a_job_gets_one_more_message_however_the_queues_look(system):
    system.submit()

    assert system.sweep(after=6.1 * HOUR) == 1
    assert system.sweep_for(2 * HOUR) == 0


def test_one_pools_silent_queues_stop_no_other_pool(system, repaired, caplog):
    job = system.record()
    client = system.sweeper.messages._queues._client
    refuse(client, "GetQueueAttributes", "InternalError", when=lambda body: Pool.WINDOWS_GPU in body)

    system.sweep(after=2 * MINUTE)

    assert repaired() == [(Repair.NEVER_QUEUED, job.job_id)]
    assert [values[Dimension.POOL] for values in counted(caplog, Metric.SWEEPER_RUNS)] == [Pool.LINUX_CPU]


# --- Leases of dead owners ---------------------------------------------------------------------------------


def test_a_dead_agents_job_whose_message_is_gone_too_is_taken_by_another(system, repaired):
    job = system.submit()
    system.take(job, "dead")
    purge(system)

    system.sweep_for(4 * MINUTE)

    assert system.messages() == [job.job_id]
    assert repaired() == [(Repair.OWNER_DEAD, job.job_id)]
    second = system.leases.take(job.job_id, "alive")
    assert isinstance(second, Lease)
    assert [failure.failure_class for failure in second.job.failures] == [FailureClass.LOST_MACHINE]


def test_a_dead_agents_message_that_came_back_by_itself_is_enough(system):
    job = system.submit()
    system.take(job, "dead")

    assert system.sweep_for(HOUR) == 0, "its message waits for a free slot"
    assert system.messages() == [job.job_id]


def test_a_running_job_is_left_alone(system):
    lease = system.take(system.submit())
    system.messages()

    for _ in range(30):
        system.now += 20
        lease = system.leases.renew(lease, progress_percent=1.0, stage=None)
        assert system.sweep() == 0


def test_ended_jobs_are_left_alone(system):
    system.store.request_cancel(system.record())
    lease = system.take(system.record())
    system.leases.fail(lease, system.leases.failure(lease, FailureClass.CRASH, "signal 11"))

    assert system.store.list_jobs(JobFilter(), limit=5).jobs == ()
    assert system.sweep_for(10 * MINUTE) == 0


# --- Staged results of attempts that are over --------------------------------------------------------------


def lost_machine(system: SweptSystem, lease: Lease) -> None:
    system.leases.requeue(lease, system.leases.failure(lease, FailureClass.LOST_MACHINE, "gone"))


def test_staged_results_of_attempts_that_are_over_are_deleted_after_an_hour(system, repaired):
    job = system.submit()
    lost_machine(system, system.take(job))
    system.stage(job, 1, "a.ply", "deep/b.ply")

    system.sweep(after=30 * MINUTE)
    assert len(system.staged()) == 2, "a frozen agent may be about to wake"
    system.sweep(after=2 * HOUR)

    assert system.staged() == []
    assert (Repair.STAGING_ORPHANED, job.job_id) in repaired()


def test_a_running_attempts_staging_stays_and_its_predecessors_goes(system):
    job = system.submit()
    lost_machine(system, system.take(job))
    system.stage(job, 1)
    lease = system.take(job)
    system.stage(job, 2)
    system.now += 3 * HOUR
    system.leases.renew(lease, progress_percent=99.0, stage=None)

    system.sweep()

    assert system.staged() == [f"{job.job_id}/2/a.ply"]


def test_the_attempt_of_a_silent_agent_stays_because_it_may_wake(system):
    job = system.submit()
    system.take(job)
    system.stage(job, 1)

    system.sweep(after=3 * HOUR)

    assert system.staged() == [f"{job.job_id}/1/a.ply"]


def test_the_committed_attempts_staging_of_an_unfinished_job_stays(system):
    lease = committed(system)
    lost_machine(system, lease)

    system.sweep(after=3 * HOUR)

    assert system.staged() == [f"{lease.job.job_id}/1/a.ply"]


def committed(system: SweptSystem) -> Lease:
    lease = system.leases.advance(system.take(system.submit()), JobState.PROCESSING)
    lease = system.leases.commit(system.leases.advance(lease, JobState.UPLOADING))
    system.stage(lease.job, 1)
    return lease


def test_results_that_were_committed_and_not_published_stay_for_the_owners_retry(system):
    lease = committed(system)
    system.leases.fail(lease, system.leases.failure(lease, FailureClass.TRANSFER, "no room"))

    system.sweep(after=3 * HOUR)

    assert system.staged() == [f"{lease.job.job_id}/1/a.ply"]


def test_results_that_were_published_are_deleted_if_their_agent_died_before_it_did(system):
    lease = committed(system)
    system.leases.complete(lease, ResultSummary(attempt=1, files=1, size_bytes=1))

    system.sweep(after=3 * HOUR)

    assert system.staged() == []


def test_what_ended_jobs_left_is_deleted(system):
    job = system.submit()
    system.stage(job, 1)
    lease = system.take(job)
    system.leases.fail(lease, system.leases.failure(lease, FailureClass.CRASH, "signal 11"))

    system.sweep(after=3 * HOUR)

    assert system.staged() == []


def test_results_whose_job_nobody_knows_are_left_to_the_buckets_own_rule(system):
    stranger = system.record().model_copy(update={"job_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"})
    system.stage(stranger, 1)
    system.clients.s3.put_object(Bucket=ARTIFACTS, Key="staging/notes/1/readme.txt", Body=b"x")

    system.sweep(after=3 * HOUR)

    assert len(system.staged()) == 2


def test_an_upload_that_nobody_will_complete_is_aborted(system, repaired):
    job = system.submit()
    lost_machine(system, system.take(job))
    over, running = (f"staging/{job.job_id}/{attempt}/big.ply" for attempt in (1, 2))
    for key in (over, running):
        system.clients.s3.create_multipart_upload(Bucket=ARTIFACTS, Key=key)
    system.take(job)

    system.sweep(after=3 * HOUR)

    assert system.uploads() == [running]
    assert (Repair.UPLOAD_ORPHANED, job.job_id) in repaired()


def test_a_large_staging_area_is_swept_in_parts_and_once_an_hour(system, monkeypatch):
    monkeypatch.setattr("scanfleet.sweeper.leftovers.JOBS_PER_RUN", 2)
    for _ in range(5):
        job = system.record()
        system.stage(job, 0)
        system.store.request_cancel(job)

    assert [system.sweep(after=2 * HOUR)] + [system.sweep() for _ in range(3)] == [2, 2, 1, 0]

    job = system.record()
    system.stage(job, 0)
    system.store.request_cancel(job)
    assert system.sweep(after=30 * MINUTE) == 0
    assert system.sweep(after=2 * HOUR) == 1


def test_a_run_whose_time_is_up_continues_the_next_time(system, monkeypatch, caplog):
    monkeypatch.setattr("scanfleet.sweeper.leftovers.JOBS_PER_RUN", 2)
    for _ in range(3):
        system.record()
    system.now += 2 * MINUTE

    assert system.sweeper.run(is_time_up=lambda: True) == 0
    assert counted(caplog, Metric.SWEEPER_RUNS) == [], "a run that was cut short is no run"
    assert system.sweep() == 3


# --- The function on AWS -----------------------------------------------------------------------------------


class Invocation:
    """What Lambda tells of an invocation."""

    def __init__(self, left_ms: int) -> None:
        self._left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._left_ms


@pytest.fixture
def function(system, monkeypatch):
    """The function's handler over the system, as a fresh process."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        Env.JOB_TABLE: TABLE,
        Env.ARTIFACTS_BUCKET: ARTIFACTS,
        Env.QUEUES: json.dumps(system.urls),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(entry, "configure_logging", lambda *_, **__: None)  # pytest's own stays
    entry._process.cache_clear()
    yield entry.handler
    entry._process.cache_clear()


def test_each_invocation_sweeps_once(system, function):
    job = system.record(queued_at=system.now - 120)

    assert function({}, Invocation(59_000)) == {"repairs": 1}
    assert function({}, Invocation(59_000)) == {"repairs": 0}
    assert system.messages() == [job.job_id]


def test_an_invocation_ends_by_itself_before_lambda_ends_it(system, function):
    system.record(queued_at=system.now - 120)

    assert function({}, Invocation(entry.KEPT_BACK_MS - 1)) == {"repairs": 0}
    assert system.messages() == []


# --- What is told ------------------------------------------------------------------------------------------


def test_each_repair_is_one_event_and_one_metric(system, caplog):
    job = system.record()

    system.sweep(after=2 * MINUTE)

    (values,) = counted(caplog, Metric.SWEEPER_REPAIRS)
    assert values == {
        Dimension.POOL: Pool.LINUX_CPU,
        Dimension.REPAIR: Repair.NEVER_QUEUED,
        Metric.SWEEPER_REPAIRS: 1,
    }
    (line,) = [r for r in caplog.records if getattr(r, "action", "") == "repaired"]
    assert (line.job_id, line.attempt, line.state) == (job.job_id, 0, "queued")


def test_each_run_is_counted_for_each_pool(system, caplog):
    caplog.set_level(logging.INFO)

    system.sweep()

    pools = {values[Dimension.POOL] for values in counted(caplog, Metric.SWEEPER_RUNS)}
    assert pools == {Pool.LINUX_CPU, Pool.WINDOWS_GPU}


def test_a_silent_table_is_told_and_counts_as_no_run(system, caplog):
    refuse(system.sweeper.messages._store._client, "Query", "InternalServerError")

    assert system.sweep() == 0
    assert counted(caplog, Metric.SWEEPER_RUNS) == []
    assert "sweep_failed" in {getattr(record, "action", "") for record in caplog.records}


def test_a_mark_on_a_job_that_was_taken_meanwhile_is_refused(system):
    job = system.record()
    system.take(job)

    with pytest.raises(Conflict):
        system.store.mark_enqueued(job)
