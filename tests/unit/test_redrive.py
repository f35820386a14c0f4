"""Dead letters as operators handle them: nothing is lost, whatever dies in between."""

import json
from datetime import timedelta

import httpx
import pytest

from scanfleet.api import redrive
from scanfleet.api.redrive import Order, Outcome, Redrive
from scanfleet.client import Scanfleet
from scanfleet.contract import Pool
from scanfleet.dead_letters import Burial, Cause
from scanfleet.errors import ConfigurationError, InvalidRequest, Unavailable
from scanfleet.jobs import FailureClass, JobState, new_job_id
from scanfleet.messages import body_for
from tests.support.api import OPERATOR, OWNER_HEADER, RunningApi, running_api

POOL = Pool.LINUX_CPU


@pytest.fixture(scope="module")
def api_of_module():
    with running_api() as running:
        yield running


@pytest.fixture
def api(api_of_module, monkeypatch):
    monkeypatch.setattr("scanfleet.dead_letters.LONG_POLL_SECONDS", 0)  # moto has one server: none is missed
    api_of_module.reset()
    return api_of_module


def bury(api: RunningApi, body: str, *, cause: Cause = Cause.UNREADABLE, pool: Pool = POOL) -> None:
    burial = Burial(cause=cause, reason="because", agent_id="i-1", at=api.clock())
    api.services.queues.dead_letters.put(pool, body, burial)


def buried_job(api: RunningApi, name: str, state: JobState) -> str:
    """Return the id of a job in this state whose message is a dead letter."""
    job_id = api.submit(name)
    take_message(api)
    if state is JobState.CANCELLED:
        api.services.store.request_cancel(api.services.store.get(job_id))
    elif state is not JobState.QUEUED:
        lease = api.take(job_id)
        if state is JobState.FAILED:
            api.leases.fail(lease, api.leases.failure(lease, FailureClass.HANG, "it hung"))
        elif state is JobState.COMPLETED:
            end_well(api, lease)
    bury(api, body_for(job_id), cause=Cause.QUARANTINED)
    return job_id


def end_well(api, lease):
    from scanfleet.jobs import ResultSummary

    for state in (JobState.PROCESSING, JobState.UPLOADING):
        lease = api.leases.advance(lease, state)
    api.leases.complete(api.leases.commit(lease), ResultSummary(attempt=1, files=0, size_bytes=0))


def take_message(api: RunningApi) -> None:
    """Take the job's own message out of its queue: it has become the dead letter."""
    from scanfleet.contract import Priority

    message = api.services.queues.receive(POOL, Priority.NORMAL, wait=timedelta(), visibility_seconds=60)
    api.services.queues.delete(message)


def redriven(api: RunningApi, **body) -> dict:
    answer = api.http.post("/dead-letters/redrive", json=body, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()


def letters(api: RunningApi) -> list[dict]:
    answer = api.http.get("/dead-letters", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    return answer.json()["letters"]


# --- Looking -----------------------------------------------------------------------------------------------


def test_letters_are_shown_with_their_jobs_and_stay(api):
    failed = buried_job(api, "a", JobState.FAILED)
    bury(api, "x" * 5000)

    first, second = letters(api), letters(api)

    by_job = {letter["job_id"]: letter for letter in first}
    assert by_job[failed]["job_status"] == "failed"
    assert by_job[failed]["quarantined"] is not None
    assert (by_job[failed]["cause"], by_job[failed]["reason"]) == ("quarantined", "because")
    assert (by_job[None]["agent_id"], by_job[None]["job_status"]) == ("i-1", None)
    assert len(by_job[None]["body"]) == 1000
    assert sorted(one["letter_id"] for one in first) == sorted(one["letter_id"] for one in second)


def test_a_look_says_how_many_more_there_are(api):
    for number in range(12):
        bury(api, f"garbage {number}")

    answer = api.http.get("/dead-letters", params={"limit": 5}, headers=OPERATOR).json()

    assert len(answer["letters"]) == 5
    assert answer["remaining"] >= 1
    assert len(letters(api)) == 12


def test_only_one_pool_s_letters_are_shown_on_request(api):
    bury(api, "linux")
    bury(api, "windows", pool=Pool.WINDOWS_GPU)

    answer = api.http.get("/dead-letters", params={"pool": "windows-gpu"}, headers=OPERATOR).json()

    assert [letter["body"] for letter in answer["letters"]] == ["windows"]
    assert len(letters(api)) == 2


@pytest.mark.parametrize(("method", "path"), [("GET", "/dead-letters"), ("POST", "/dead-letters/redrive")])
def test_only_operators_handle_dead_letters(api, method, path):
    answer = api.http.request(method, path, json={})

    assert answer.status_code == 403
    assert answer.json()["detail"] == "only operators handle dead letters"


# --- Redriving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_an_ended_job_is_queued_again_and_its_failures_are_forgiven(api, state):
    job_id = buried_job(api, "a", state)

    report = redriven(api)

    job = api.services.store.get(job_id)
    assert [(one["job_id"], one["outcome"]) for one in report["letters"]] == [(job_id, "retried")]
    assert report["remaining"] == 0
    assert (job.state, job.quarantined_at) == (JobState.QUEUED, None)
    assert job.failures_forgiven == len(job.failures)
    assert api.messages() == 1
    assert letters(api) == []


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.DOWNLOADING])
def test_an_unfinished_job_s_message_is_sent_once_more(api, state):
    job_id = buried_job(api, "a", state)

    report = redriven(api)

    assert [one["outcome"] for one in report["letters"]] == ["sent"]
    assert api.services.store.get(job_id).state is state
    assert api.messages() == 1
    assert letters(api) == []


def test_letters_without_purpose_are_dropped_and_unreadable_ones_stay(api):
    buried_job(api, "a", JobState.COMPLETED)
    bury(api, body_for(new_job_id()), cause=Cause.NO_SUCH_JOB)
    bury(api, "garbage")

    report = redriven(api)

    assert sorted(one["outcome"] for one in report["letters"]) == ["dropped", "dropped", "kept"]
    assert api.messages() == 0
    assert [letter["body"] for letter in letters(api)] == ["garbage"]


def test_a_purge_deletes_the_letters_that_it_names_and_touches_no_others(api):
    job_id = buried_job(api, "a", JobState.FAILED)
    bury(api, "garbage")
    bury(api, "other garbage")
    named = next(letter["letter_id"] for letter in letters(api) if letter["body"] == "garbage")

    report = redriven(api, purge=[named])

    assert [(one["letter_id"], one["outcome"]) for one in report["letters"]] == [(named, "purged")]
    assert {letter["body"] for letter in letters(api)} == {"other garbage", body_for(job_id)}
    assert api.services.store.get(job_id).state is JobState.FAILED


def test_a_purge_does_not_take_a_waiting_job_s_message(api):
    buried_job(api, "a", JobState.QUEUED)
    (letter,) = letters(api)

    report = redriven(api, purge=[letter["letter_id"]])

    assert [one["outcome"] for one in report["letters"]] == ["sent"]
    assert api.messages() == 1


def test_only_the_named_jobs_are_redriven(api):
    wanted = buried_job(api, "a", JobState.FAILED)
    other = buried_job(api, "b", JobState.FAILED)

    report = redriven(api, job_ids=[wanted])

    assert [one["job_id"] for one in report["letters"]] == [wanted]
    assert api.services.store.get(other).state is JobState.FAILED
    assert [letter["job_id"] for letter in letters(api)] == [other]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(api):
    failed = buried_job(api, "a", JobState.FAILED)
    bury(api, "garbage")

    report = redriven(api, dry_run=True)

    assert report["dry_run"] is True
    assert sorted(one["outcome"] for one in report["letters"]) == ["kept", "retried"]
    assert api.services.store.get(failed).state is JobState.FAILED
    assert api.messages() == 0
    assert len(letters(api)) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"pool": "moon"}, "pool"),
        ({"job_ids": ["../../etc"]}, "job_ids.0"),
        ({"jobs": []}, "jobs"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"purge": ["x"] * 101}, "purge"),
    ],
)
def test_a_wrong_order_is_refused_by_name(api, body, field):
    answer = api.http.post("/dead-letters/redrive", json=body, headers=OPERATOR)

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


# --- What dies in between ----------------------------------------------------------------------------------


class Died(BaseException):
    """The function was killed."""


@pytest.mark.parametrize("place", ["retry", "send", "delete"])
def test_a_redrive_that_dies_anywhere_is_finished_by_the_next_one(api, monkeypatch, place):
    job_id = buried_job(api, "a", JobState.FAILED)
    services = api.services
    owner, name = {
        "retry": (services.store, "retry"),
        "send": (services.queues, "send"),
        "delete": (services.queues.dead_letters, "delete"),
    }[place]

    def die(*_, **__):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Died):
            Redrive(services).run(Order(pools=(POOL,)))
    assert [letter["job_id"] for letter in letters(api)] == [job_id]

    redriven(api)

    assert services.store.get(job_id).state is JobState.QUEUED
    assert api.messages() >= 1
    assert letters(api) == []


def test_a_letter_stays_when_its_job_cannot_be_queued_and_the_others_go_on(api, monkeypatch):
    stuck, fine = buried_job(api, "a", JobState.FAILED), buried_job(api, "b", JobState.FAILED)
    real = api.services.queues.send

    def send(job, **how):
        if job.job_id == stuck:
            raise Unavailable("the queue did not answer")
        real(job, **how)

    monkeypatch.setattr(api.services.queues, "send", send)
    report = redriven(api)

    by_job = {one["job_id"]: one for one in report["letters"]}
    assert (by_job[stuck]["outcome"], by_job[fine]["outcome"]) == ("kept", "retried")
    assert "did not answer" in by_job[stuck]["detail"]
    assert [letter["job_id"] for letter in letters(api)] == [stuck]


def test_a_job_that_changes_under_the_redrive_is_looked_at_again(api, monkeypatch):
    job_id = buried_job(api, "a", JobState.FAILED)
    real, store = api.services.store.get, api.services.store
    stale = real(job_id)
    store.retry(stale)  # somebody was quicker
    answers = iter([stale])
    monkeypatch.setattr(store, "get", lambda wanted: next(answers, None) or real(wanted))

    handled, _ = Redrive(api.services).run(Order(pools=(POOL,)))

    assert [one.outcome for one in handled] == [Outcome.SENT]
    assert api.messages() == 1


def test_a_call_ends_in_time_and_says_what_is_left(api):
    for number in range(25):
        bury(api, f"garbage {number}")
    seconds = iter(range(1000))

    handled, remaining = Redrive(api.services, monotonic=lambda: next(seconds)).run(Order(pools=(POOL,)))

    assert 0 < len(handled) < 25
    assert remaining >= 1


# --- The client and the command line -----------------------------------------------------------------------


class Operator(httpx.Auth):
    def auth_flow(self, request):
        request.headers.update(OPERATOR)
        yield request


def test_the_client_goes_on_until_it_has_come_to_every_letter(api, monkeypatch):
    monkeypatch.setattr(redrive, "MOST_LETTERS", 10)
    jobs = {buried_job(api, f"f{number}", JobState.FAILED) for number in range(13)}
    for number in range(4):
        bury(api, f"garbage {number}")

    with Scanfleet(api.url, auth=Operator()) as fleet:
        shown = fleet.dead_letters(limit=5)
        report = fleet.redrive()
        left = fleet.dead_letters()

    assert len(shown.letters) == 5
    assert {one.job_id for one in report.letters if one.outcome == "retried"} == jobs
    assert api.messages() == 13
    assert {letter.body for letter in left.letters} <= {f"garbage {number}" for number in range(4)}


def test_the_client_says_who_may_not(api):
    with Scanfleet(api.url) as fleet, pytest.raises(ConfigurationError, match="only operators"):
        fleet.redrive()
    with Scanfleet(api.url, auth=Operator()) as fleet, pytest.raises(InvalidRequest, match="job_ids"):
        fleet.redrive(job_ids=["no id"])


def test_the_command_line_shows_and_redrives(api, monkeypatch):
    from typer.testing import CliRunner

    from scanfleet.cli import app

    monkeypatch.setenv("SCANFLEET_URL", api.url)
    monkeypatch.setattr("scanfleet.client_auth.auth_for", lambda *_, **__: Operator())
    job_id = buried_job(api, "a", JobState.FAILED)
    bury(api, "garbage")
    run = lambda *words: CliRunner().invoke(app, words)  # noqa: E731

    shown = run("dead-letters", "--pool", "linux-cpu")
    planned = json.loads(run("redrive", "--dry-run", "--json").stdout)
    done = run("redrive", "--job", job_id)
    left = json.loads(run("dead-letters", "--json").stdout)

    assert job_id in shown.stdout
    assert "garbage" in shown.stdout or "because" in shown.stdout
    assert {one["outcome"] for one in planned["letters"]} == {"retried", "kept"}
    assert done.exit_code == 0, done.stderr
    assert "retried" in done.stdout
    assert [letter["body"] for letter in left["letters"]] == ["garbage"]
    assert OWNER_HEADER not in shown.stdout
