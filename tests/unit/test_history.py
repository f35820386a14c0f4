"""Past runs in the job table: kept, capped, read; and no failure of it is anybody else's."""

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from scanfleet import contract
from scanfleet.history import RUNS_KEPT, RunHistory, bucket_of, high_quantile, history_key, slot_of
from scanfleet.jobs import new_job_id
from scanfleet.past_runs import (
    STAGES_KEPT,
    Expected,
    PastRun,
    Place,
    read_run,
    settings_fingerprint,
    text_of,
)
from tests.support.cloud import moto_job_table

GB = 1024**3
RUN = PastRun(400.0, {"align": 100.0, "merge": 300.0}, input_bytes=GB)
WHOLE = PastRun(
    400.0,
    {"align": 100.0, "merge": 300.0},
    input_bytes=GB,
    settings=settings_fingerprint({"Reduce Roughness": 1}),
    download_seconds=12.5,
    upload_seconds=0.125,
    marks={10: 20.0, 50: 180.5},
    place=Place(
        agent_id="a1",
        instance_id="i-0123456789abcdef0",
        instance_type="g4dn.xlarge",
        ami_id="ami-0123456789abcdef0",
        driver="537.70",
        release="4.2.1",
        busy=0,
    ),
    finished_at=1_800_000_000.0,
    expected=Expected(300.0, 380.5, 500.0),
)


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


def test_everything_that_is_known_of_a_run_comes_back(history):
    add(history, 1, run=WHOLE)

    assert history.near("medit", input_bytes=GB) == (WHOLE,)
    assert history.of("medit") == (WHOLE,)


def test_runs_from_before_more_was_kept_are_read(history, client):
    client.put_item(
        TableName="jobs",
        Item={**history_key("medit", GB), "run07": {"S": '[400.0, {"align": 100.0, "merge": 300.0}]'}},
    )

    (old,) = history.near("medit", input_bytes=GB)

    assert bucket_of(old.input_bytes) == bucket_of(GB), "its size class is all that is known of its size"
    assert replace(old, input_bytes=GB) == RUN
    assert history.of("medit") == (old,)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"what": "ever"}', "[1.0]", '[1.0, {"align": "x"}]', "[1, 2, 3]"]
)
def test_a_run_that_cannot_be_read_is_none(text):
    assert read_run(text) is None


def test_one_run_that_cannot_be_read_costs_none_of_the_others(history, client):
    add(history, 3)
    before = history.near("medit", input_bytes=GB)
    free = next(name for name in (f"run{n:02d}" for n in range(RUNS_KEPT)) if name not in _places(client))
    client.update_item(
        TableName="jobs",
        Key=history_key("medit", GB),
        UpdateExpression="SET #run = :run",
        ExpressionAttributeNames={"#run": free},
        ExpressionAttributeValues={":run": {"S": '{"of": "a later version"}'}},
    )

    assert sorted(history.near("medit", input_bytes=GB), key=str) == sorted(before, key=str)


def _places(client):
    return client.get_item(TableName="jobs", Key=history_key("medit", GB))["Item"]


def test_of_a_run_with_very_many_stages_the_longest_are_kept():
    run = PastRun(400.0, {f"file {n}" * 20: float(n) for n in range(500)})

    kept = read_run(text_of(run))

    assert sorted(kept.stages.values()) == [float(n) for n in range(500 - STAGES_KEPT, 500)]
    assert len(text_of(run)) < 4000, "a hundred of them are as much as an item may have"


def test_the_same_settings_have_the_same_fingerprint_in_any_order():
    assert settings_fingerprint({"a": 1, "b": [2]}) == settings_fingerprint({"b": [2], "a": 1})
    assert settings_fingerprint({"a": 1}) != settings_fingerprint({"a": True})
    assert json.loads(text_of(WHOLE))[2]["s"] == WHOLE.settings


def test_runs_of_every_size_come_by_one_query(history, client):
    asked = []
    client.meta.events.register("before-call.dynamodb", lambda model, **_: asked.append(model.name))
    for size in (GB, 4 * GB, GB // 8):
        add(history, 2, input_bytes=size)
    asked.clear()

    assert sorted(run.input_bytes for run in history.of("medit")) == sorted([GB, 4 * GB, GB // 8] * 2)
    assert asked == ["Query"]


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
    small = PastRun(400.0, {"align": 100.0}, input_bytes=GB // 2)
    assert small in found, "smaller inputs count as if they had been larger"
    as_they_were = sorted(run.seconds for run in history.near("medit", input_bytes=GB))
    assert as_they_were == [200.0, 400.0, 700.0]


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


def test_few_runs_are_read_again_sooner_if_asked_for(client):
    now = [1000.0]
    history = RunHistory(client, "jobs", reread_few=timedelta(seconds=15), clock=lambda: now[0])
    assert history.of("medit") == ()
    add(history, 20)
    now[0] += 16
    many = history.of("medit")
    add(history, 30)
    now[0] += 16

    assert len(many) > 10
    assert history.of("medit") == many


def test_while_one_reads_anew_others_go_on_with_what_was_read(client):
    now = [0.0]
    history = RunHistory(client, "jobs", reread=timedelta(minutes=5), clock=lambda: now[0])
    add(history, 1)
    first = history.of("medit")
    found = []
    client.meta.events.register("before-call.dynamodb.Query", lambda **_: found.append(history.of("medit")))
    add(history, 20)
    now[0] += 301

    assert len(history.of("medit")) > 1
    assert found == [first]


def test_a_table_that_did_not_answer_is_not_asked_by_everybody(client):
    now, asked = [1000.0], []
    history = RunHistory(client, "no-such-table", clock=lambda: now[0])
    client.meta.events.register("before-call.dynamodb", lambda **_: asked.append(1))

    for _ in range(5):
        assert history.of("medit") == ()
    once = len(asked)
    now[0] += 16
    history.of("medit")

    assert once == 1
    assert len(asked) == 2


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
