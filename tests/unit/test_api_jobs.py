"""Seeing, listing, cancelling and retrying jobs; and that owners see their own jobs only."""

from datetime import UTC, datetime

import pytest

from scanfleet import contract
from scanfleet.contract import Pool
from scanfleet.jobs import FailureClass, JobState, Manifest, PublishedFile, ResultSummary, new_job_id
from scanfleet.store import JobStore
from tests.support.api import ARTIFACTS, DATA, OPERATOR, RunningApi, as_owner, running_api


@pytest.fixture(scope="module")
def api_of_module():
    with running_api() as running:
        yield running


@pytest.fixture
def api(api_of_module):
    api_of_module.reset()
    return api_of_module


def get(api: RunningApi, job_id: str, **headers: str) -> dict:
    answer = api.http.get(f"/job/{job_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def detail_of(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def fail(api: RunningApi, job_id: str, failure_class=FailureClass.BAD_INPUT, reason="no scan"):
    lease = api.take(job_id)
    return api.leases.fail(lease, api.leases.failure(lease, failure_class, reason, 3))


def complete(api: RunningApi, job_id: str, files: int = 2, folder: str = "") -> None:
    lease = api.take(job_id)
    for state in (JobState.PROCESSING, JobState.UPLOADING):
        lease = api.leases.advance(lease, state)
    published = tuple(
        PublishedFile(key=f"{folder}{n}.ply", size_bytes=n, sha256="0" * 64) for n in range(files)
    )
    manifest = Manifest(
        job_id=job_id, attempt=1, processor="ply", target_uri=lease.job.target_uri, files=published
    )
    key = f"{contract.MANIFESTS_PREFIX}{job_id}/1.json"
    api.put(key, manifest.model_dump_json().encode(), bucket=ARTIFACTS)
    lease = api.leases.commit(lease)
    api.leases.complete(lease, ResultSummary(attempt=1, files=files, size_bytes=1))


# --- One job -----------------------------------------------------------------------------------------------


def test_a_queued_job_shows_all_that_was_asked_for(api):
    job_id = api.submit("a", settings={"File Size": 3}, tags={"case": "7"}, time_limit_seconds=9)

    job = get(api, job_id)

    assert set(job) == {
        *("job_id", "status", "processor", "pool", "priority", "owner", "source", "target", "settings"),
        *("tags", "stage", "progress_percent", "attempt", "timestamps", "durations_seconds"),
        *("stage_seconds", "eta", "queue_position", "failure", "failures", "result", "why_waiting"),
        *("cancel_requested", "quarantined", "time_limit_seconds", "replaces", "superseded_by", "release"),
        *("input_bytes", "attempts", "stage_since", "usage", "trace_id"),
    }
    assert (job["job_id"], job["status"], job["owner"]) == (job_id, "queued", "ann")
    assert (job["processor"], job["pool"], job["priority"]) == ("ply", "linux-cpu", "normal")
    assert (job["source"], job["target"]) == (f"s3://{DATA}/a/", f"s3://{DATA}/a-out/")
    assert (job["settings"]["File Size"], job["tags"], job["time_limit_seconds"]) == (3, {"case": "7"}, 9)
    assert (job["attempt"], job["progress_percent"], job["failures"]) == (0, 0.0, [])
    assert job["stage"] is job["failure"] is job["result"] is job["eta"] is None


def test_timestamps_are_iso_8601_in_utc_and_null_until_they_happen(api):
    job_id = api.submit("a")

    times = get(api, job_id)["timestamps"]

    now = datetime.fromtimestamp(api.clock.now, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert times == {
        "created": now,
        "queued": now,
        "started": None,
        "finished": None,
    }
    assert datetime.fromisoformat(times["created"]).timestamp() == api.clock.now


def test_a_running_job_shows_stage_and_progress_and_its_present_states_seconds(api):
    job_id = api.submit("a")
    api.clock.now += 5
    lease = api.leases.advance(api.take(job_id), JobState.PROCESSING)
    api.leases.renew(lease, progress_percent=42.5, stage="align")
    api.clock.now += 3

    job = get(api, job_id)

    assert (job["status"], job["stage"], job["progress_percent"]) == ("processing", "align", 42.5)
    assert job["durations_seconds"] == {"queued": 5.0, "downloading": 0.0, "processing": 3.0}
    assert (job["attempt"], job["why_waiting"]) == (1, None)


def test_a_completed_job_shows_its_result_and_manifest(api):
    job_id = api.submit("a")
    complete(api, job_id)

    result = get(api, job_id)["result"]

    assert (result["files"], result["attempt"]) == (2, 1)
    assert result["manifest_uri"] == f"s3://{DATA}/a-out/{contract.MANIFEST_NAME}"
    assert [file["key"] for file in result["manifest"]["files"]] == ["0.ply", "1.ply"]
    assert result["manifest"]["is_truncated"] is False


def test_a_long_manifest_is_cut_and_says_so(api):
    job_id = api.submit("a")
    complete(api, job_id, files=1001)

    result = get(api, job_id)["result"]

    assert result["files"] == 1001
    assert len(result["manifest"]["files"]) == 1000
    assert result["manifest"]["is_truncated"] is True


def test_a_manifest_of_long_names_is_cut_to_what_lambda_can_answer(api):
    job_id = api.submit("a")
    complete(api, job_id, files=1000, folder="x" * 1000 + "/")

    answer = api.http.get(f"/job/{job_id}")

    assert len(answer.content) < 600_000
    assert answer.json()["result"]["manifest"]["is_truncated"] is True


def test_a_result_whose_manifest_is_no_longer_kept_is_still_shown(api):
    job_id = api.submit("a")
    complete(api, job_id)
    api.clients.s3.delete_object(Bucket=ARTIFACTS, Key=f"{contract.MANIFESTS_PREFIX}{job_id}/1.json")

    assert get(api, job_id)["result"]["manifest"] is None


def test_a_failed_job_shows_every_attempts_failure(api):
    job_id = api.submit("a")
    fail(api, job_id, FailureClass.BAD_INPUT, "scan.ply is empty")

    job = get(api, job_id)

    assert job["status"] == "failed"
    assert job["failure"] == job["failures"][-1]
    assert (job["failure"]["failure_class"], job["failure"]["reason"]) == ("bad_input", "scan.ply is empty")
    assert (job["failure"]["attempt"], job["failure"]["exit_code"]) == (1, 3)


@pytest.mark.parametrize("job_id", ["x", "0" * 26, "01jd5z9w4t8q2v6k3m7n1p5r9s", "..%2f..", "%00", "8" * 26])
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("GET", "/log"), ("POST", "/cancel"), ("POST", "/retry")]
)
def test_an_unknown_or_malformed_job_id_is_not_found(api_of_module, method, rest, job_id):
    detail_of(api_of_module.http.request(method, f"/job/{job_id}{rest}"), 404)


# --- Owners ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("GET", "/log"), ("POST", "/cancel"), ("POST", "/retry")]
)
def test_another_owners_job_is_as_unknown_as_one_that_never_was(api, method, rest):
    job_id, never = api.submit("a"), new_job_id()

    theirs = api.http.request(method, f"/job/{job_id}{rest}", headers=as_owner("bob"))
    nobodys = api.http.request(method, f"/job/{never}{rest}", headers=as_owner("bob"))

    assert detail_of(theirs, 404) == detail_of(nobodys, 404).replace(never, job_id)
    assert get(api, job_id)["status"] == "queued"


def test_an_operator_sees_and_cancels_everybodys_jobs(api):
    job_id = api.submit("a")

    assert get(api, job_id, **OPERATOR)["owner"] == "ann"
    assert api.http.post(f"/job/{job_id}/cancel", headers=OPERATOR).status_code == 202


# --- Lists -------------------------------------------------------------------------------------------------


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [job["job_id"] for job in answer.json()["jobs"]]


def test_lists_show_unfinished_jobs_newest_first(api):
    first, second, third = (api.submit(name) for name in "abc")
    fail(api, second)

    assert ids(api.http.get("/jobs")) == [third, first]
    assert ids(api.http.get("/jobs?status=all")) == [third, second, first]
    assert ids(api.http.get("/jobs?status=failed")) == [second]
    assert ids(api.http.get("/jobs?status=completed")) == []


def test_lists_are_paged_without_gaps_or_repetitions(api):
    made = [api.submit(f"f{n}") for n in range(5)]
    seen, cursor = [], None

    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/jobs", params=params)
        seen += ids(page)
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break

    assert seen == made[::-1]


def test_lists_are_filtered_by_tag(api):
    api.submit("a", tags={"case": "6"})
    wanted = api.submit("b", tags={"case": "7:a"})

    assert ids(api.http.get("/jobs", params={"tag": "case:7:a"})) == [wanted]


def test_callers_list_their_own_jobs_and_operators_anybodys(api):
    mine = api.submit("a")
    theirs = api.http.post(
        "/jobs", json={"source": api.folder("b"), "target": f"s3://{DATA}/c"}, headers=as_owner("bob")
    ).json()["job_id"]

    assert ids(api.http.get("/jobs")) == [mine]
    assert ids(api.http.get("/jobs?owner=ann")) == [mine]
    assert ids(api.http.get("/jobs?status=all", headers=OPERATOR)) == [theirs, mine]
    assert ids(api.http.get("/jobs?owner=bob", headers=OPERATOR)) == [theirs]
    detail_of(api.http.get("/jobs?owner=bob"), 403)


@pytest.mark.parametrize(
    "query", ["status=done", "limit=0", "limit=201", "limit=x", "cursor=zz", "tag=case", "tag=:7"]
)
def test_a_wrong_query_names_its_parameter(api_of_module, query):
    answer = api_of_module.http.get(f"/jobs?{query}")

    detail_of(answer, 422)
    assert answer.json()["errors"][0]["field"] == query.split("=")[0]


# --- Cancel ------------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(api):
    job_id = api.submit("a")

    answer = api.http.post(f"/job/{job_id}/cancel")

    assert answer.status_code == 202
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["timestamps"]["finished"]


def test_a_running_job_is_asked_to_stop_and_asking_again_is_harmless(api):
    job_id = api.submit("a")
    api.take(job_id)

    for _ in range(2):
        answer = api.http.post(f"/job/{job_id}/cancel")
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("downloading", True)

    assert api.services.store.get(job_id).cancel_requested_at is not None


def test_a_cancel_whose_first_answer_was_lost_is_told_as_done(api, monkeypatch):
    job_id = api.submit("a")
    real = JobStore.request_cancel

    def carried_out_and_tried_again(store, job):
        real(store, job)
        return real(store, job)

    monkeypatch.setattr(JobStore, "request_cancel", carried_out_and_tried_again)
    answer = api.http.post(f"/job/{job_id}/cancel")

    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")


@pytest.mark.parametrize("end", [fail, complete, lambda api, job: api.http.post(f"/job/{job}/cancel")])
def test_a_finished_job_cannot_be_cancelled(api, end):
    job_id = api.submit("a")
    end(api, job_id)
    state = api.services.store.get(job_id).state

    assert state in detail_of(api.http.post(f"/job/{job_id}/cancel"), 409)
    assert api.services.store.get(job_id).state is state


def test_a_job_whose_results_are_being_published_cannot_be_cancelled(api):
    job_id = api.submit("a")
    api.leases.commit(api.leases.advance(api.take(job_id), JobState.UPLOADING))

    assert "uploading" in detail_of(api.http.post(f"/job/{job_id}/cancel"), 409)


# --- Retry -------------------------------------------------------------------------------------------------


def test_a_failed_job_goes_back_to_the_queue(api):
    job_id = api.submit("a")
    fail(api, job_id)
    before = api.messages()

    answer = api.http.post(f"/job/{job_id}/retry")

    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["attempt"]) == ("queued", 1)
    assert len(answer.json()["failures"]) == 1
    assert api.messages() == before + 1
    assert api.services.store.get(job_id).enqueued_at == api.clock.now


def test_retrying_a_queued_job_only_sends_another_message(api):
    job_id = api.submit("a")
    before = api.messages()

    answer = api.http.post(f"/job/{job_id}/retry")

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert api.messages() == before + 1


def test_a_running_or_completed_job_cannot_be_retried(api):
    running, done = api.submit("a"), api.submit("b")
    api.take(running)
    complete(api, done)

    assert "downloading" in detail_of(api.http.post(f"/job/{running}/retry"), 409)
    assert "completed" in detail_of(api.http.post(f"/job/{done}/retry"), 409)


# --- Why a job waits ---------------------------------------------------------------------------------------


def test_a_job_waits_because_no_agent_serves_its_pool(api):
    api.report_agent(pool=Pool.WINDOWS_GPU)

    assert get(api, api.submit("a"))["why_waiting"] == "no agent serves pool linux-cpu"


def test_a_silent_agent_serves_nothing(api):
    api.report_agent(seen_at=api.clock.now - 31)

    assert "no agent" in get(api, api.submit("a"))["why_waiting"]


def test_a_job_waits_because_every_slot_is_busy(api):
    api.report_agent(slots=2, busy=2)
    api.report_agent(agent_id="agent-2", slots=1, busy=1)
    job_id = api.submit("a")
    api.submit("b")

    why = get(api, job_id)["why_waiting"]

    assert why == "all 3 slots of pool linux-cpu are busy; it is the next"


def test_a_job_that_a_free_slot_is_about_to_take_says_so(api):
    api.report_agent(slots=2, busy=1)

    assert "1 of 2 slots" in get(api, api.submit("a"))["why_waiting"]


def test_stopping_agents_take_no_jobs(api):
    api.report_agent(is_stopping=True)

    assert "stopping" in get(api, api.submit("a"))["why_waiting"]


def test_agents_on_hold_take_no_jobs(api):
    api.report_agent(is_on_hold=True)
    api.report_agent(agent_id="agent-2", slots=1, busy=1)

    assert "all 1 slots" in get(api, api.submit("a"))["why_waiting"]


def failed_on(api: RunningApi, machine: str) -> str:
    """Return a queued job whose last attempt crashed on that machine, after the pause that follows."""
    job_id = api.submit("a")
    lease = api.take(job_id, machine)
    api.leases.requeue(lease, api.leases.failure(lease, FailureClass.CRASH, "it fell", -11))
    api.clock.now += 5
    return job_id


def test_a_job_that_waits_for_another_machine_does_not_count_on_the_one_that_failed_it(api):
    api.report_agent(agent_id="i-broken", slots=2, busy=0)
    api.report_agent(agent_id="i-other", slots=1, busy=1)
    job_id = failed_on(api, "i-broken")

    why = get(api, job_id)["why_waiting"]

    assert why == (
        "failed on i-broken, so it waits up to 55 s for another machine: all 1 slots there are busy;"
        " it is the next"
    )


def test_a_job_that_failed_on_the_only_machine_is_about_to_run_there_again(api):
    api.report_agent(agent_id="i-broken", slots=2, busy=0)

    assert "2 of 2 slots" in get(api, failed_on(api, "i-broken"))["why_waiting"]


def test_a_job_that_waits_for_another_machine_runs_on_any_after_a_minute(api):
    job_id = failed_on(api, "i-broken")
    api.clock.now += 60
    api.report_agent(agent_id="i-broken", slots=2, busy=0)
    api.report_agent(agent_id="i-other", slots=1, busy=1)

    assert "2 of 3 slots" in get(api, job_id)["why_waiting"]


def test_a_job_between_two_attempts_waits_for_the_next(api):
    job_id = api.submit("a")
    lease = api.take(job_id)
    leases = api.leases
    leases.requeue(lease, leases.failure(lease, FailureClass.TRANSFER, "S3 was away", None))
    api.clock.now += 1

    why = get(api, job_id)["why_waiting"]
    api.clock.now += 5

    assert why == "waits 4 s for its next attempt, after: S3 was away"
    assert "no agent" in get(api, job_id)["why_waiting"]
