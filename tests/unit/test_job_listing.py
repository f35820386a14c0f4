"""Lists of jobs over a long history: what they hold, and how much is read for a page."""

from collections import Counter

import pytest

from scanfleet import job_listing
from scanfleet.jobs import ACTIVE_STATES, Job, JobState, new_job_id
from scanfleet.store import JobFilter, JobStore
from scanfleet.store_items import item_from_job
from tests.support.cloud import create_job_table, moto_job_table
from tests.support.many_jobs import COMMON_TAG, OWNERS, RARE_OWNER, RARE_TAG, past_jobs, write_jobs

NOW = 1_800_000_000.0
ALL = tuple(JobState)
BOUND = 40
"""Stands in for EXAMINED_AT_MOST: the history is shorter than a real one, too."""
FILTERS = {
    "active": JobFilter(),
    "all": JobFilter(states=ALL),
    **{state.value: JobFilter(states=(state,)) for state in JobState},
    "two ended states": JobFilter(states=(JobState.FAILED, JobState.CANCELLED)),
    "an owner's active ones": JobFilter(owner=OWNERS[1]),
    "an owner's": JobFilter(owner=OWNERS[1], states=ALL),
    "a rare owner's": JobFilter(owner=RARE_OWNER, states=ALL),
    "an owner's failed ones": JobFilter(owner=OWNERS[2], states=(JobState.FAILED,)),
    "an owner's queued ones": JobFilter(owner=OWNERS[0], states=(JobState.QUEUED,)),
    "a common tag": JobFilter(tag=COMMON_TAG, states=ALL),
    "a common tag, active": JobFilter(tag=COMMON_TAG),
    "a common tag, failed": JobFilter(tag=COMMON_TAG, states=(JobState.FAILED,)),
    "a common tag of a rare owner": JobFilter(owner=RARE_OWNER, tag=COMMON_TAG, states=ALL),
    "a rare tag": JobFilter(tag=RARE_TAG, states=ALL),
    "a tag of one job": JobFilter(tag=("case", "40"), states=ALL),
    "a tag of none": JobFilter(tag=("case", "none"), states=ALL),
    "a tag of none, active": JobFilter(tag=("case", "none")),
}


class Reads:
    """What was read of the table: the calls, and how many records they looked at."""

    def __init__(self, client) -> None:
        self.calls: Counter[str] = Counter()
        self.examined = 0
        client.meta.events.register("after-call.dynamodb", self._count)

    def _count(self, *, model, parsed, **_) -> None:
        self.calls[model.name] += 1
        self.examined += parsed.get("ScannedCount", 0)

    def reset(self) -> None:
        self.calls.clear()
        self.examined = 0


@pytest.fixture(scope="module")
def history():
    with pytest.MonkeyPatch.context() as patch, moto_job_table(patch) as client:
        jobs = list(past_jobs(240, now=NOW, active=40, rare_every=60))
        write_jobs(client, "jobs", jobs, now=NOW)
        yield client, jobs


@pytest.fixture
def reads(history):
    return Reads(history[0])


@pytest.fixture
def store(history, monkeypatch):
    monkeypatch.setattr(job_listing, "EXAMINED_AT_MOST", BOUND)
    return JobStore(history[0], "jobs", clock=lambda: NOW)


def pages_of(store: JobStore, wanted: JobFilter, limit: int) -> list[job_listing.Page]:
    pages = [store.list_jobs(wanted, limit=limit)]
    while (cursor := pages[-1].next_cursor) is not None:
        assert len(pages) < 1000, "the cursors lead nowhere"
        pages.append(store.list_jobs(wanted, limit=limit, before=cursor))
    return pages


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("limit", [7, 60])
def test_the_pages_together_hold_every_match_once_and_the_newest_first(store, history, name, limit):
    pages = pages_of(store, FILTERS[name], limit)

    expected = sorted((job.job_id for job in history[1] if FILTERS[name].matches(job)), reverse=True)
    assert [job.job_id for page in pages for job in page.jobs] == expected
    assert all(len(page.jobs) <= limit for page in pages)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("limit", [7, 60])
def test_no_page_looks_at_more_than_a_bounded_number_of_records_and_none_scans(
    store, reads, history, name, limit
):
    before: str | None = None
    while True:
        reads.reset()
        page = store.list_jobs(FILTERS[name], limit=limit, before=before)

        assert reads.examined <= BOUND
        assert set(reads.calls) <= {"Query", "BatchGetItem"}
        assert reads.calls["Query"] <= 8
        assert reads.calls["BatchGetItem"] <= BOUND // 7 + 1
        if page.next_cursor is None:
            return
        assert before is None or page.next_cursor < before, "each page comes further"
        before = page.next_cursor


@pytest.mark.parametrize("name", ["active", "all", "completed", "an owner's", "a common tag"])
def test_a_page_whose_index_serves_the_filter_reads_little_more_than_it_shows(store, reads, name):
    page = store.list_jobs(FILTERS[name], limit=9)

    assert len(page.jobs) == 9
    partitions = 4 if name == "all" else 1
    assert reads.examined <= partitions * 10


def test_a_rare_tag_is_found_without_looking_at_other_jobs(store, reads, history):
    page = store.list_jobs(JobFilter(tag=RARE_TAG, states=ALL), limit=50)

    assert (len(page.jobs), page.next_cursor) == (4, None)
    assert reads.examined == 4


def test_a_page_may_be_empty_and_still_lead_on(store):
    nobody = JobFilter(owner="nobody", states=(JobState.QUEUED,), tag=("case", "none"))
    everybody = JobFilter(owner=OWNERS[0], states=(JobState.CANCELLED,), tag=None)

    assert store.list_jobs(nobody, limit=5) == job_listing.Page((), None)
    pages = pages_of(store, everybody, 5)
    assert any(len(page.jobs) < 5 and page.next_cursor for page in pages)


def test_a_job_that_is_seen_in_two_partitions_is_listed_once(history):
    client, jobs = history
    ended = next(job for job in reversed(jobs) if job.state is JobState.COMPLETED)
    store = JobStore(LateIndex(client, ended), "jobs", clock=lambda: NOW)

    page = store.list_jobs(JobFilter(states=ALL), limit=200)

    assert Counter(job.job_id for job in page.jobs).most_common(1)[0][1] == 1
    assert ended.job_id in {job.job_id for job in page.jobs}


class LateIndex:
    """A client whose active index still has a job that has ended: indexes follow the table a little later."""

    def __init__(self, client, ended: Job) -> None:
        self._client = client
        self._ended = ended

    def __getattr__(self, name: str):
        return getattr(self._client, name)

    def query(self, **arguments):
        answer = self._client.query(**arguments)
        if arguments["IndexName"] == "active" and "ExclusiveStartKey" not in arguments:
            stale = item_from_job(self._ended.model_copy(update={"state": JobState.UPLOADING}))
            answer["Items"] = sorted(
                [*answer["Items"], stale], key=lambda item: item["job_id"]["S"], reverse=True
            )
        return answer


def test_a_record_that_cannot_be_read_is_left_out_and_told(store, history, caplog):
    client, jobs = history
    broken = next(job for job in reversed(jobs) if job.state is JobState.FAILED)
    damaged = item_from_job(broken) | {"priority": {"S": "odd"}}
    client.put_item(TableName="jobs", Item=damaged)

    page = store.list_jobs(JobFilter(states=(JobState.FAILED,)), limit=3)

    client.put_item(TableName="jobs", Item=item_from_job(broken))
    assert broken.job_id not in {job.job_id for job in page.jobs}
    assert len(page.jobs) == 3
    assert [record.action for record in caplog.records] == ["job_not_understood"]


@pytest.mark.parametrize(
    "tags",
    [
        {"case": '7"'},
        {"a": '"case":"7"'},
        {"case": "7\\"},
        {"xcase": "7"},
        {"case": "77"},
        {"case": "ü7"},
    ],
)
def test_a_tag_is_not_mistaken_for_another_that_is_written_alike(history, tags):
    client, _ = history
    create_job_table(client, table := f"tags-{new_job_id()}")
    store = JobStore(client, table, clock=lambda: NOW)
    job = next(past_jobs(1, now=NOW, active=1)).model_copy(update={"tags": tags})
    store.create(job)
    (own,) = tags.items()

    for states in (None, ALL):
        assert store.list_jobs(JobFilter(tag=("case", "7"), states=states), limit=5).jobs == ()
        found = store.list_jobs(JobFilter(tag=own, states=states), limit=5).jobs
        assert [one.job_id for one in found] == [job.job_id]


def test_lists_leave_out_what_grows_with_each_attempt(store):
    job = store.list_jobs(JobFilter(states=(JobState.COMPLETED,)), limit=1).jobs[0]

    assert not job_listing.UNLISTED & job.model_fields_set
    assert {"settings", "durations_seconds", "tags"} <= job.model_fields_set
    assert set(ACTIVE_STATES).isdisjoint({job.state})
