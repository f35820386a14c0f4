"""What is read back: job records, manifests, messages, for anything that may stand there."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from scanfleet.contract import QUEUE_MESSAGE_VERSION, Pool, Priority
from scanfleet.errors import Conflict
from scanfleet.jobs import (
    Failure,
    FailureClass,
    Job,
    JobState,
    Manifest,
    PublishedFile,
    ResultSummary,
    is_job_id,
    new_job_id,
    utc,
)
from scanfleet.messages import UnreadableMessage, body_for, job_id_of
from scanfleet.releases import _parse
from scanfleet.store_items import item_from_job, job_from_item
from tests.support.outcomes import outcome

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
SECONDS = st.floats(min_value=0, max_value=4e9)
COUNTS = st.integers(min_value=0, max_value=2**53)
MOMENTS = SECONDS.map(utc)
JOB_IDS = st.builds(new_job_id)
FAILURES = st.builds(
    Failure,
    failure_class=st.sampled_from(FailureClass),
    reason=TEXT,
    attempt=COUNTS,
    exit_code=st.none() | st.integers(-(2**31), 2**32),
    agent_id=st.none() | TEXT,
    at=MOMENTS,
    has_evidence=st.booleans(),
)
OPTIONAL = {
    name: st.none() | SECONDS for name, field in Job.model_fields.items() if field.annotation == float | None
} | {name: st.none() | TEXT for name, field in Job.model_fields.items() if field.annotation == str | None}
JOBS = st.builds(
    Job,
    job_id=JOB_IDS,
    owner=TEXT,
    processor=TEXT,
    pool=st.sampled_from(Pool),
    source_uri=TEXT,
    target_uri=TEXT,
    settings=st.dictionaries(TEXT, JSON, max_size=4),
    priority=st.sampled_from(Priority),
    time_limit_seconds=st.none() | COUNTS,
    tags=st.dictionaries(TEXT, TEXT, max_size=4),
    state=st.sampled_from(JobState),
    progress_percent=st.floats(0, 100),
    attempt=COUNTS,
    committed_attempt=st.none() | COUNTS,
    created_at=SECONDS,
    queued_at=SECONDS,
    state_changed_at=SECONDS,
    durations_seconds=st.dictionaries(TEXT, SECONDS, max_size=3),
    stage_seconds=st.dictionaries(TEXT, SECONDS, max_size=3),
    failures=st.lists(FAILURES, max_size=3).map(tuple),
    failures_forgiven=COUNTS,
    result=st.none() | st.builds(ResultSummary, attempt=COUNTS, files=COUNTS, size_bytes=COUNTS),
    **OPTIONAL,
)


# --- Job records -------------------------------------------------------------------------------------------


@given(JOBS)
def test_a_job_comes_back_from_its_item_as_it_was(job):
    assert job_from_item(item_from_job(job)) == job


@given(JOBS, st.dictionaries(st.text("xyz_", min_size=1, max_size=8).map("new_".__add__), TEXT, max_size=3))
def test_attributes_of_a_newer_version_are_no_obstacle(job, newer):
    item = item_from_job(job) | {name: {"S": text} for name, text in newer.items()}

    assert job_from_item(item) == job


@given(JOBS, st.data())
def test_a_damaged_record_is_refused_as_a_value_and_never_half_read(job, data):
    """`ValueError` is what callers take for a record that they cannot read; pydantic's is one."""
    item = item_from_job(job)
    name = data.draw(st.sampled_from([name for name in item if name in Job.model_fields]))
    attribute = data.draw(
        st.one_of(
            TEXT.map(lambda text: {"S": text}), SECONDS.map(lambda n: {"N": repr(n)}), st.just({"NULL": True})
        )
    )
    try:
        read = job_from_item(item | {name: attribute})
    except ValueError:
        return
    assert read.model_copy(update={name: getattr(job, name)}) == job


# --- Manifests ---------------------------------------------------------------------------------------------

FILES = st.builds(
    PublishedFile, key=TEXT, size_bytes=COUNTS, sha256=st.text("0123456789abcdef", min_size=64, max_size=64)
)


@given(
    st.builds(
        Manifest,
        job_id=JOB_IDS,
        attempt=COUNTS,
        processor=TEXT,
        target_uri=TEXT,
        files=st.lists(FILES, max_size=3).map(tuple),
    )
)
def test_a_job_s_manifest_comes_back_as_it_was(manifest):
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@given(st.one_of(JSON.map(json.dumps).map(str.encode), st.binary(max_size=60)))
def test_what_is_no_manifest_is_refused_as_one(data):
    with pytest.raises(ValidationError):
        Manifest.model_validate_json(data)


RELEASE_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "version": st.one_of(st.just("1.2.3"), JSON),
        "created": st.one_of(st.just("2026-01-01T00:00:00Z"), JSON),
        "files": st.one_of(
            JSON,
            st.lists(
                st.fixed_dictionaries(
                    {
                        "path": st.one_of(st.sampled_from(["a.exe", "../a", "A.exe", "b/c", "b"]), TEXT),
                        "size_bytes": st.integers(-1, 5),
                        "sha256": st.sampled_from(["0" * 64, "x", "A" * 64]),
                    }
                ),
                max_size=3,
            ),
        ),
    },
)


@given(
    st.one_of(
        st.binary(max_size=60),
        JSON.map(json.dumps).map(str.encode),
        RELEASE_LIKE.map(json.dumps).map(str.encode),
    )
)
@example(b"[" * 100_000)
def test_a_release_s_manifest_is_whole_and_safe_or_refused_with_its_place(data):
    where = "s3://releases/manifest.json"
    release, refused = outcome(Conflict, lambda: _parse(data, version="1.2.3", where=where))
    if refused:
        assert where in str(refused)
        return
    assert release.version == "1.2.3"
    assert release.files
    assert all(".." not in file.path.split("/") for file in release.files)


# --- Messages ----------------------------------------------------------------------------------------------

MESSAGE_LIKE = st.fixed_dictionaries(
    {},
    optional={"version": st.one_of(st.just(QUEUE_MESSAGE_VERSION), JSON), "job_id": st.one_of(JOB_IDS, JSON)},
)


@given(JOB_IDS)
def test_a_message_names_its_job(job_id):
    assert job_id_of(body_for(job_id)) == job_id


@given(st.one_of(st.text(max_size=60), JSON.map(json.dumps), MESSAGE_LIKE.map(json.dumps)))
@example("[" * 100_000)
@example("9" * 5000)
@example('{"version": true, "job_id": "01JD5Z9W4T8Q2V6K3M7N1P5R9S"}')
def test_any_body_names_a_job_or_is_unreadable_and_says_why(body):
    job_id, refused = outcome(UnreadableMessage, lambda: job_id_of(body))
    if refused:
        assert str(refused).startswith(("not JSON", "version 1 expected", "no job id"))
        assert len(str(refused)) < 300
        return
    content = json.loads(body)
    assert (content["version"], content["job_id"]) == (QUEUE_MESSAGE_VERSION, job_id)
    assert not isinstance(content["version"], bool)
    assert is_job_id(job_id)
