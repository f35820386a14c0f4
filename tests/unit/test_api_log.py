"""A job's log over HTTP: tails, what is new, attempts."""

import pytest

from scanfleet import contract
from scanfleet.api import log_reader
from scanfleet.jobs import FailureClass, new_job_id
from tests.support.api import ARTIFACTS, running_api

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


@pytest.fixture
def job_id(api):
    """A job whose first attempt runs."""
    job_id = api.submit(f"scans-{new_job_id()}")
    api.take(job_id)
    return job_id


def ship(api, job_id, segment, text, attempt=1):
    key = f"{contract.LOGS_PREFIX}{job_id}/{attempt}/{segment:06d}.log"
    api.put(key, text if isinstance(text, bytes) else text.encode(), bucket=ARTIFACTS)


def page(api, job_id, **params):
    answer = api.http.get(f"/job/{job_id}/log", params=params, headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_job_that_has_not_started_has_an_empty_log(api):
    job_id = api.submit("unstarted")

    assert page(api, job_id) == {"attempt": 0, "lines": [], "next": None}
    assert api.http.get(f"/job/{job_id}/log").text == ""


def test_the_log_is_its_segments_in_order(api, job_id):
    for segment in range(12):
        ship(api, job_id, segment, f"line {segment}\n")

    answer = api.http.get(f"/job/{job_id}/log")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "".join(f"line {n}\n" for n in range(12))
    assert answer.headers["scanfleet-log-next"]


def test_the_tail_is_the_last_lines(api, job_id):
    ship(api, job_id, 0, "a\nb\n")
    ship(api, job_id, 1, "c\r\n\nd\n")

    assert page(api, job_id, tail_lines=1)["lines"] == ["d"]
    assert page(api, job_id, tail_lines=4)["lines"] == ["b", "c", "", "d"]
    assert page(api, job_id, tail_lines=10_000)["lines"] == ["a", "b", "c", "", "d"]


def test_after_gives_only_what_is_new(api, job_id):
    ship(api, job_id, 0, "a\n")
    first = page(api, job_id)
    nothing = page(api, job_id, after=first["next"])
    ship(api, job_id, 1, "b\nc\n")

    second = page(api, job_id, after=nothing["next"])

    assert (first["lines"], nothing["lines"], second["lines"]) == (["a"], [], ["b", "c"])
    assert page(api, job_id, after=second["next"])["lines"] == []


def test_reading_on_from_the_beginning_of_an_empty_log_misses_nothing(api, job_id):
    first = page(api, job_id)
    ship(api, job_id, 0, "a\n")

    assert first["lines"] == []
    assert page(api, job_id, after=first["next"])["lines"] == ["a"]


def test_an_unfinished_line_is_given_out_once_it_is_whole_or_the_attempt_is_over(api, job_id):
    ship(api, job_id, 0, "a\nhalf")
    first = page(api, job_id)
    ship(api, job_id, 1, " done\nlast")

    assert first["lines"] == ["a"]
    second = page(api, job_id, after=first["next"])
    assert second["lines"] == ["half done"]
    lease_holder = api.services.store.get(job_id)
    assert lease_holder.attempt == 1
    api.http.post(f"/job/{job_id}/cancel")
    api.clock.now += 60
    api.leases.take(job_id, "agent-2")  # finds the cancel request and ends the job
    assert page(api, job_id, after=second["next"])["lines"] == ["last"]


def test_a_long_log_is_read_to_its_end_in_bounded_answers(api, job_id, monkeypatch):
    monkeypatch.setattr(log_reader, "MAX_LOG_BYTES", 100)
    lines = [f"line {n} {'x' * (n % 37)}" for n in range(60)]
    for segment in range(6):
        ship(api, job_id, segment, "".join(f"{line}\n" for line in lines[segment * 10 : segment * 10 + 10]))

    seen, place = [], "0-0"
    while True:
        part = page(api, job_id, after=place)
        if not part["lines"]:
            break
        assert sum(len(line) + 1 for line in part["lines"]) <= 100
        seen += part["lines"]
        place = part["next"]

    assert seen == lines
    assert page(api, job_id)["lines"] == lines[-len(page(api, job_id)["lines"]) :]


def test_a_line_longer_than_an_answer_is_cut_and_does_not_stop_the_reader(api, job_id, monkeypatch):
    monkeypatch.setattr(log_reader, "MAX_LOG_BYTES", 10)
    ship(api, job_id, 0, "0123456789abcdef\nend\n")

    first = page(api, job_id, after="0-0")
    second = page(api, job_id, after=first["next"])

    assert "".join(first["lines"]) == "0123456789"
    assert second["lines"] == ["abcdef"]
    assert page(api, job_id, after=second["next"])["lines"] == ["end"]


def test_bytes_that_are_no_text_do_not_break_the_log(api, job_id):
    ship(api, job_id, 0, b"\xff\xfe ok\n")

    assert page(api, job_id)["lines"] == ["\ufffd\ufffd ok"]


def test_each_attempt_has_its_own_log(api, job_id):
    ship(api, job_id, 0, "first\n")
    leases = api.leases
    lease = leases.take(job_id, "x")
    api.clock.now += 60
    lease = leases.take(job_id, "agent-2")
    assert lease.attempt == 2
    assert lease.job.failure.failure_class is FailureClass.LOST_MACHINE
    ship(api, job_id, 0, "second\n", attempt=2)

    assert page(api, job_id) == {"attempt": 2, "lines": ["second"], "next": "0-7"}
    assert page(api, job_id, attempt=1)["lines"] == ["first"]
    missing = api.http.get(f"/job/{job_id}/log?attempt=3")
    assert missing.status_code == 404
    assert "attempt 3" in missing.json()["detail"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tail_lines", "0"),
        ("tail_lines", "10001"),
        ("attempt", "0"),
        ("after", "x"),
        ("after", "1-2-3"),
        ("after", ""),
    ],
)
def test_a_wrong_query_names_its_parameter(api, job_id, name, value):
    answer = api.http.get(f"/job/{job_id}/log", params={name: value})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == name
