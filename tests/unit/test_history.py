"""Past runs in the job table: kept, capped, read; and no failure of it is anybody else's."""

import threading
from datetime import timedelta

import pytest

from scanfleet import contract
from scanfleet.history import RUNS_KEPT, PastRun, RunHistory, bucket_of, high_quantile, history_key, slot_of
from scanfleet.jobs import new_job_id
from tests.support.cloud import moto_job_table

GB = 1024**3
RUN = PastRun(400.0, {"align": 100.0, "merge": 300.0})


@pytest.fixture
def client(monkeypatch):
    with moto_job_table(monkeypatch) as client:
        yield client


@pytest.fixture
def history(client):
    return RunHistory(client, "jobs", reread=timedelta(), clock=lambda: 1000.0)


def add(history: RunHistory, count: int, *, input_bytes: int = GB, run: PastRun = RUN) -> None:
    for _ in range(count):
        history.add("medit", input_bytes=input_bytes, job_id=new_job_id(), run=run)


def test_a_run_comes_back_as_it_was(history):
    add(history, 1)

    assert history.like("medit", input_bytes=GB) == (RUN,)


def test_a_run_that_is_written_twice_counts_once(history):
    for _ in range(2):
        history.add("medit", input_bytes=GB, job_id="01JOB", run=RUN)

    assert history.like("medit", input_bytes=GB) == (RUN,)


def test_processors_do_not_learn_from_each_other(history):
    add(history, 3)

    assert history.like("other", input_bytes=GB) == ()


def test_inputs_of_twice_and_half_the_size_help_while_there_are_few(history):
    add(history, 1, input_bytes=GB, run=PastRun(400.0))
    add(history, 1, input_bytes=2 * GB, run=PastRun(700.0))
    add(history, 1, input_bytes=GB // 2, run=PastRun(200.0, {"align": 50.0}))
    add(history, 1, input_bytes=16 * GB, run=PastRun(9000.0))

    found = history.like("medit", input_bytes=GB)

    assert sorted(run.seconds for run in found) == [400.0, 400.0, 700.0]
    assert PastRun(400.0, {"align": 100.0}) in found, "smaller inputs count as if they had been larger"


def test_with_many_runs_of_its_own_a_size_needs_no_others(history):
    add(history, 4 * RUNS_KEPT, input_bytes=GB)
    add(history, 5, input_bytes=2 * GB, run=PastRun(700.0))

    assert {run.seconds for run in history.like("medit", input_bytes=GB)} == {400.0}


def test_what_was_read_is_read_again_after_a_while(client):
    now = [1000.0]
    history = RunHistory(client, "jobs", reread=timedelta(minutes=5), clock=lambda: now[0])

    assert history.like("medit", input_bytes=GB) == ()
    add(history, 1)
    assert history.like("medit", input_bytes=GB) == ()
    now[0] += 301
    assert history.like("medit", input_bytes=GB) == (RUN,)


def test_an_item_never_holds_more_than_its_places(history, client):
    add(history, 6 * RUNS_KEPT)

    item = client.get_item(TableName="jobs", Key=history_key("medit", GB))["Item"]
    assert len(item) <= RUNS_KEPT + 3
    assert len(history.like("medit", input_bytes=GB)) <= RUNS_KEPT


def test_the_item_is_forgotten_some_time_after_its_last_run(history, client):
    add(history, 1)

    item = client.get_item(TableName="jobs", Key=history_key("medit", GB))["Item"]
    assert int(item["expires_at"]["N"]) == 1000 + contract.HISTORY_KEPT.total_seconds()


def test_agents_that_write_at_once_lose_nothing(history):
    job_ids = {slot_of(job_id): job_id for job_id in (new_job_id() for _ in range(500))}
    writers = [
        threading.Thread(
            target=history.add, args=("medit",), kwargs={"input_bytes": GB, "job_id": job_id, "run": RUN}
        )
        for job_id in list(job_ids.values())[:12]
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert len(history.like("medit", input_bytes=GB)) == 12


def test_a_table_that_does_not_answer_hurts_nobody(client, caplog):
    history = RunHistory(client, "no-such-table")

    history.add("medit", input_bytes=GB, job_id="01JOB", run=RUN)

    assert history.like("medit", input_bytes=GB) == ()
    assert {record.action for record in caplog.records} == {"history_not_written", "history_not_read"}


def test_an_item_of_another_version_hurts_nobody(history, client):
    client.put_item(TableName="jobs", Item={**history_key("medit", GB), "run00": {"S": '{"what": "ever"}'}})

    assert history.like("medit", input_bytes=GB) == ()


@pytest.mark.parametrize(("size", "bucket"), [(0, 0), (1, 1), (1023, 10), (1024, 11), (4 * GB, 33)])
def test_a_size_bucket_is_the_number_of_binary_digits(size, bucket):
    assert bucket_of(size) == bucket


def test_the_sort_key_puts_sizes_in_order():
    keys = [history_key("medit", 2**power)["sk"]["S"] for power in range(40)]

    assert keys == sorted(keys)


def test_a_high_quantile_is_one_of_the_values():
    assert high_quantile([5.0], 0.95) == 5.0
    assert high_quantile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert high_quantile([3.0, 1.0, 2.0], 1.0) == 3.0
