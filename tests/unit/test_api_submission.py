"""Submitting jobs: what is accepted, what comes back, and what a bad request is told."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from scanfleet.contract import MAX_BODY_BYTES, Pool
from scanfleet.errors import Unavailable
from scanfleet.jobs import JobState, ResultSummary, new_job_id
from tests.support.api import DATA, as_owner, running_api, served_with

SOURCE, TARGET = "Source Folder Path", "Target Folder Path"
SPELLED = {
    "Force Global Align": True,
    "Save Source To Result Folder": False,
    "Use GPU": True,
    "Use GPU For Voxel Regeneration": False,
    "Compensate Occlusion Align": True,
    "Apply High Resolution to Prep": False,
    "Complete Type": 1,
    "File Size": 2,
    "Compensate Occlusion Level": 3,
    "Reduce Roughness": 4,
    "High Resolution Merge Type": 5,
}


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        running.put("good/scan.ply")
        yield running


@pytest.fixture
def good(api):
    """A body of POST /process that is accepted."""
    return {SOURCE: f"s3://{DATA}/good/", TARGET: f"s3://{DATA}/good-out/{new_job_id()}/"}


def problem(answer, status):
    """Check that the answer is a problem document and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:scanfleet:problem:")
    assert document["title"]
    assert document["detail"]
    assert document["instance"] == answer.request.url.path
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def fields(answer):
    """Return field -> error of a 422."""
    return {error["field"]: error for error in problem(answer, 422)["errors"]}


# --- Accepted --------------------------------------------------------------------------------------------


def test_process_takes_every_key_of_the_program_and_answers_started(api, good):
    answer = api.http.post("/process", json=good | SPELLED)

    assert answer.status_code == 202
    assert set(answer.json()) == {"job_id", "status"}
    assert answer.json()["status"] == "started"
    job = api.services.store.get(answer.json()["job_id"])
    assert job.settings == SPELLED
    assert (job.state, job.processor, job.owner) == (JobState.QUEUED, "ply", "ann")
    assert (job.source_uri, job.target_uri) == (good[SOURCE], good[TARGET])


def test_the_general_form_takes_processor_priority_limit_and_tags(api):
    body = {
        "processor": "windows_ply",
        "source": f"s3://{DATA}/good",
        "target": f"s3://{DATA}/elsewhere",
        "settings": {"File Size": 7},
        "priority": "high",
        "time_limit_seconds": 60,
        "tags": {"case": "Übung 7", "team/x": ""},
    }
    before = api.messages(Pool.WINDOWS_GPU)

    answer = api.http.post("/jobs", json=body)

    assert answer.status_code == 202, answer.text
    job = api.services.store.get(answer.json()["job_id"])
    assert (job.processor, job.pool, job.priority) == ("windows_ply", Pool.WINDOWS_GPU, "high")
    assert (job.time_limit_seconds, job.tags) == (60, body["tags"])
    assert job.settings["File Size"] == 7
    assert job.source_uri == f"s3://{DATA}/good/"
    assert api.messages(Pool.WINDOWS_GPU) == before + 1


def test_a_body_with_a_byte_order_mark_is_read(api, good):
    body = b"\xef\xbb\xbf" + json.dumps(good).encode()

    answer = api.http.post("/process", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 202


# --- One job per target folder ----------------------------------------------------------------------------


def test_a_second_job_with_the_same_target_is_a_conflict_that_names_the_first(api, good):
    first = api.http.post("/process", json=good).json()["job_id"]

    answer = api.http.post("/process", json=good)

    assert first in problem(answer, 409)["detail"]


def test_another_owners_job_is_not_named_to_those_who_may_not_see_it(api, good):
    first = api.http.post("/process", json=good).json()["job_id"]

    answer = api.http.post("/process", json=good, headers=as_owner("bob"))

    assert "another job's" in problem(answer, 409)["detail"]
    assert first not in answer.text
    assert '"ann"' not in answer.text


@pytest.mark.parametrize("path", ["/process", "/jobs"])
def test_completed_results_are_replaced_when_their_owner_asks_for_it(api, good, path):
    jobs = {"source": good[SOURCE], "target": good[TARGET]}
    body = good if path == "/process" else jobs
    first = api.http.post(path, json=body).json()["job_id"]
    lease = api.take(first)
    api.leases.complete(api.leases.commit(lease), ResultSummary(attempt=1, files=0, size_bytes=0))
    assert "replace_results" in problem(api.http.post(path, json=body), 409)["detail"]

    if path == "/process":
        answer = api.http.post("/process?replace=true", json=body)
    else:
        answer = api.http.post("/jobs", json=body | {"replace_results": True})

    second = answer.json()["job_id"]
    api.leases.commit(api.take(second))
    assert api.http.get(f"/job/{second}").json()["replaces"] == first
    assert api.http.get(f"/job/{first}").json()["superseded_by"] == second


def test_a_retry_is_refused_while_another_job_has_the_target(api, good):
    first = api.http.post("/process", json=good).json()["job_id"]
    api.http.post(f"/job/{first}/cancel")
    second = api.http.post("/process", json=good).json()["job_id"]

    answer = api.http.post(f"/job/{first}/retry")

    assert second in problem(answer, 409)["detail"]


# --- Idempotency -------------------------------------------------------------------------------------------


def test_the_same_key_and_request_give_the_same_job(api, good):
    headers = {"Idempotency-Key": "same"}

    first = api.http.post("/process", json=good, headers=headers)
    second = api.http.post("/process", json=dict(reversed(good.items())), headers=headers)

    assert "idempotent-replayed" not in first.headers
    assert second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["idempotent-replayed"] == "true"


def test_the_same_key_for_another_request_is_a_conflict(api, good):
    headers = {"Idempotency-Key": "other"}
    api.http.post("/process", json=good, headers=headers)

    answer = api.http.post("/process", json=good | {"File Size": 1}, headers=headers)

    assert "different request" in problem(answer, 409)["detail"]


def test_two_owners_may_use_the_same_key(api, good):
    headers = {"Idempotency-Key": "shared"}

    mine = api.http.post("/process", json=good, headers=headers)
    bobs = good | {TARGET: good[TARGET] + "bob/"}
    theirs = api.http.post("/process", json=bobs, headers=headers | as_owner("bob"))

    assert theirs.status_code == 202
    assert theirs.json()["job_id"] != mine.json()["job_id"]


def test_a_replay_answers_the_same_after_the_source_folder_is_gone(api):
    body = {SOURCE: api.folder("fleeting"), TARGET: f"s3://{DATA}/fleeting-out/"}
    headers = {"Idempotency-Key": "fleeting"}
    first = api.http.post("/process", json=body, headers=headers)
    api.clients.s3.delete_object(Bucket=DATA, Key="fleeting/scan.ply")

    again = api.http.post("/process", json=body, headers=headers)

    assert again.status_code == 202
    assert again.json() == first.json()


def test_a_replay_repairs_a_crash_between_record_and_message(api, good, monkeypatch):
    headers = {"Idempotency-Key": "crash"}
    with monkeypatch.context() as broken:
        broken.setattr(api.services.queues, "_client", QueueThatRefuses())
        answer = api.http.post("/process", json=good, headers=headers)
    assert "same Idempotency-Key" in problem(answer, 503)["detail"]
    before = api.messages()

    again = api.http.post("/process", json=good, headers=headers)

    assert again.status_code == 202
    assert api.messages() == before + 1
    assert api.services.store.get(again.json()["job_id"]).state is JobState.QUEUED


def test_a_job_is_marked_once_its_message_was_sent_and_not_before(api, good, monkeypatch):
    store, headers = api.services.store, {"Idempotency-Key": "marked"}
    with monkeypatch.context() as broken:
        broken.setattr(api.services.queues, "_client", QueueThatRefuses())
        api.http.post("/process", json=good, headers=headers)
    (unsent,) = [job for job in store.unfinished() if job.target_uri == good[TARGET]]
    assert unsent.enqueued_at is None

    again = api.http.post("/process", json=good, headers=headers).json()["job_id"]

    assert again == unsent.job_id
    assert store.get(again).enqueued_at == api.clock.now


def test_a_job_whose_mark_is_lost_is_accepted_all_the_same(api, good, monkeypatch):
    before = api.messages()
    with monkeypatch.context() as broken:
        broken.setattr(api.services.store, "mark_enqueued", lambda _job: refuse())
        answer = api.http.post("/process", json=good)

    assert answer.status_code == 202, answer.text
    assert api.messages() == before + 1


def refuse():
    raise Unavailable("the job table answered ProvisionedThroughputExceededException")


def test_without_a_key_a_job_that_cannot_be_queued_does_not_stay_behind(api, monkeypatch):
    body = {"source": f"s3://{DATA}/good", "target": f"s3://{DATA}/t"}
    with monkeypatch.context() as broken:
        broken.setattr(api.services.queues, "_client", QueueThatRefuses())
        answer = api.http.post("/jobs", json=body, headers=as_owner("unlucky"))

    assert problem(answer, 503)
    assert answer.headers["retry-after"]
    assert api.http.get("/jobs", headers=as_owner("unlucky")).json()["jobs"] == []


class QueueThatRefuses:
    """An SQS client without a service behind it."""

    def send_message(self, **request):
        raise Unavailable("the queue did not answer")


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "tab\there"])
def test_an_idempotency_key_that_is_not_short_printable_ascii_is_refused(api, good, key):
    answer = api.http.post("/process", json=good, headers={"Idempotency-Key": key.encode()})

    assert "Idempotency-Key" in fields(answer)


# --- Bodies that are no JSON object ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
@pytest.mark.parametrize("path", ["/process", "/jobs"])
def test_a_malformed_body_is_a_400_that_says_why(api, path, body, said):
    answer = api.http.post(path, content=body, headers={"content-type": "application/json"})

    assert said in problem(answer, 400)["detail"]


@pytest.mark.parametrize("body", ["[]", '"text"', "1", "null", "true"])
def test_a_body_that_is_no_object_is_refused(api, body):
    answer = api.http.post("/process", content=body, headers={"content-type": "application/json"})

    assert "object" in fields(answer)["body"]["message"]


def test_a_body_over_one_mebibyte_is_refused(api):
    body = b'{"a": "' + b"x" * MAX_BODY_BYTES + b'"}'

    answer = api.http.post("/process", content=body, headers={"content-type": "application/json"})

    assert str(MAX_BODY_BYTES) in problem(answer, 413)["detail"]


def test_a_chunked_body_over_one_mebibyte_is_refused(api):
    chunks = (b"x" * 65536 for _ in range(17))

    answer = api.http.post("/process", content=chunks, headers={"content-type": "application/json"})

    problem(answer, 413)


@pytest.mark.parametrize(
    "media_type", ["multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded", None]
)
def test_a_body_of_another_media_type_is_told_that_json_is_expected(api, media_type):
    headers = {} if media_type is None else {"content-type": media_type}

    answer = api.http.post("/process", content=b"{}", headers=headers)

    assert "application/json" in problem(answer, 415)["detail"]


def test_json_in_another_encoding_is_refused(api):
    headers = {"content-type": "application/json; charset=utf-16"}

    problem(api.http.post("/process", content="{}".encode("utf-16"), headers=headers), 415)


# --- Fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [SOURCE, TARGET])
def test_a_missing_folder_key_is_named(api, good, key):
    del good[key]

    assert "missing" in fields(api.http.post("/process", json=good))[key]["message"]


def test_a_misspelled_folder_key_is_recognised(api, good):
    good["Source Folder"] = good.pop(SOURCE)

    assert "Source Folder" in fields(api.http.post("/process", json=good))[SOURCE]["message"]


def test_an_unknown_key_is_refused_with_the_nearest_known_one(api, good):
    error = fields(api.http.post("/process", json=good | {"Use GPUs": True}))["Use GPUs"]

    assert 'did you mean "Use GPU"?' in error["message"]
    assert error["value"] == "true"
    assert "Reduce Roughness" in error["allowed"]


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("Use GPU", "yes", "true or false"),
        ("Use GPU", 1, "true or false"),
        ("File Size", True, "an integer"),
        ("File Size", 1.0, "an integer"),
        ("File Size", "1", "an integer"),
        ("File Size", -1, "an integer"),
        ("File Size", 2**31, "an integer"),
        ("File Size", None, "an integer"),
        (SOURCE, 5, "s3://"),
        (TARGET, None, "s3://"),
    ],
)
def test_a_mistyped_key_is_told_what_is_allowed(api, good, key, value, allowed):
    error = fields(api.http.post("/process", json=good | {key: value}))[key]

    assert allowed in error["allowed"]
    assert error["value"] == json.dumps(value)


def test_everything_wrong_is_told_at_once(api):
    body = {"source": "nowhere", "target": "ftp://x/y", "processor": "plz", "tags": {"": "x"}}

    assert set(fields(api.http.post("/jobs", json=body))) == {"source", "target", "processor", "tags"}


@pytest.mark.parametrize("key", [SOURCE, TARGET])
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "scheme"),
        (f"{DATA}/good", "scheme"),
        (f"/{DATA}/good", "scheme"),
        (f"https://{DATA}/good/", "another scheme"),
        (f"S3://{DATA}/good/", "another scheme"),
        (f"s3://{DATA}", "no folder"),
        (f"s3://{DATA}/", "no folder"),
        ("s3:///good/", "no bucket"),
        (f"s3://{DATA}/a/../../b/", '".."'),
        (f"s3://{DATA}/a//b/", "empty folder name"),
        (f"s3://{DATA}/a\nb/", "control character"),
        (f"s3://{DATA}/{'x' * 1100}/", "1024 bytes"),
        ("s3://foreign-data/good/", "not an allowed place"),
        ("s3://scan-data-2/good/", "not an allowed place"),
    ],
)
def test_a_uri_that_names_no_allowed_folder_is_refused(api, good, key, uri, said):
    error = fields(api.http.post("/process", json=good | {key: uri}))[key]

    assert said in error["message"]
    assert error["allowed"]


def test_a_prefix_that_is_not_allowed_is_refused_in_an_allowed_bucket(api):
    api.put("minefield/scan.ply")
    body = {"source": f"s3://{DATA}/minefield/", "target": f"s3://{DATA}/mine/out/"}
    with served_with(api, allowed_prefixes=(f"s3://{DATA}/mine/",)) as other:
        error = fields(other.http.post("/jobs", json=body))["source"]

    assert error["allowed"] == f"under s3://{DATA}/mine/"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "does not exist or is empty"),
        (["void/"], "does not exist or is empty"),
        (["void/readme.txt", "void/scan.ply.bak"], "holds nothing that ply reads"),
        (["voidance/scan.ply"], "does not exist or is empty"),
    ],
)
def test_a_source_folder_without_a_readable_file_is_refused(api, keys, said):
    for key in ("void/", "void/readme.txt", "void/scan.ply.bak", "voidance/scan.ply"):
        api.clients.s3.delete_object(Bucket=DATA, Key=key)
    for key in keys:
        api.put(key, b"" if key.endswith("/") else b"data")

    answer = api.http.post("/jobs", json={"source": f"s3://{DATA}/void", "target": f"s3://{DATA}/t/"})

    assert said in fields(answer)["source"]["message"]
    assert "PLY files" in fields(answer)["source"]["allowed"]


def test_a_source_bucket_that_does_not_exist_is_refused(api):
    answer = api.http.post("/jobs", json={"source": "s3://no-such-bucket/a/", "target": f"s3://{DATA}/t/"})

    assert "no such bucket" in fields(answer)["source"]["message"]


@pytest.mark.parametrize("target", ["good", "good/", "good/out/", "good/a/b"])
def test_a_target_inside_the_source_is_refused(api, good, target):
    error = fields(api.http.post("/process", json=good | {TARGET: f"s3://{DATA}/{target}"}))[TARGET]

    assert "inside" in error["message"]


def test_a_target_whose_name_only_begins_like_the_source_is_accepted(api, good):
    answer = api.http.post("/process", json=good | {TARGET: f"s3://{DATA}/good2/"})

    assert answer.status_code == 202


def test_an_unknown_processor_is_told_the_known_ones(api):
    body = {"source": f"s3://{DATA}/good", "target": f"s3://{DATA}/t", "processor": "plyy"}

    error = fields(api.http.post("/jobs", json=body))["processor"]

    assert 'did you mean "ply"?' in error["message"]
    assert error["allowed"] == "ply, windows_ply"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"callback": "https://example.org/"}, "callback"),
        ({"prority": "high"}, "prority"),
        ({"priority": "urgent"}, "priority"),
        ({"time_limit_seconds": 0}, "time_limit_seconds"),
        ({"time_limit_seconds": "60"}, "time_limit_seconds"),
        ({"time_limit_seconds": 10**9}, "time_limit_seconds"),
        ({"settings": []}, "settings"),
        ({"settings": {"Use GPU": 3}}, "settings.Use GPU"),
        ({"settings": {"x": "y" * 70_000}}, "settings"),
        ({"tags": []}, "tags"),
        ({"tags": {"a:b": "x"}}, "tags"),
        ({"tags": {"k" * 65: "x"}}, "tags"),
        ({"tags": {"case": 7}}, "tags.case"),
        ({"tags": {"case": "x" * 257}}, "tags.case"),
        ({"tags": {"case": "a\u0000b"}}, "tags.case"),
        ({"tags": {f"t{n}": "" for n in range(21)}}, "tags"),
        ({"source": None}, "source"),
    ],
)
def test_a_wrong_field_of_the_general_form_is_named(api, changes, field):
    body = {"source": f"s3://{DATA}/good", "target": f"s3://{DATA}/t"} | changes

    assert field in fields(api.http.post("/jobs", json=body))


def test_a_refused_request_leaves_no_job_and_no_message(api):
    before = api.messages()

    api.http.post("/jobs", json={"source": "x", "target": "y"}, headers=as_owner("nobody"))

    assert api.http.get("/jobs?status=all", headers=as_owner("nobody")).json()["jobs"] == []
    assert api.messages() == before


@pytest.mark.parametrize("path", ["/process", "/jobs"])
@pytest.mark.parametrize("where", ["top", "settings", "tags"])
def test_a_body_full_of_unknown_keys_gets_a_short_answer(api, good, path, where):
    many = {f"key {n}": n for n in range(40_000)}
    body = many if where == "top" else {where: many}

    folders = good if path == "/process" else {"source": good[SOURCE], "target": good[TARGET]}

    answer = api.http.post(path, json=folders | body)

    assert problem(answer, 422)["errors"]
    assert len(answer.content) < 64_000


def test_an_endless_key_is_cut_in_the_answer(api):
    answer = api.http.post("/jobs", json={"k" * 900_000: 1})

    problem(answer, 422)
    assert len(answer.content) < 10_000


def test_many_requests_with_one_key_at_the_same_time_make_one_job(api, good):
    headers = {"Idempotency-Key": "storm"} | as_owner("stormy")

    def post(_):
        return api.http.post("/process", json=good, headers=headers)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(post, range(16)))

    # A 503 asks the client to come again: the other request's write was just under way.
    assert {answer.status_code for answer in answers} <= {202, 503}
    made = {answer.json()["job_id"] for answer in answers if answer.status_code == 202}
    listed = api.http.get("/jobs", headers=as_owner("stormy")).json()["jobs"]
    assert [job["job_id"] for job in listed] == list(made)
    assert len(made) == 1
