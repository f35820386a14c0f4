"""A long history: 100,000 jobs on the emulator, and every kind of page of them."""

import statistics
import sys
import time
from collections import Counter

import boto3
import pytest
from botocore.config import Config

from scanfleet.job_listing import EXAMINED_AT_MOST
from scanfleet.jobs import JobState
from scanfleet.store import JobFilter, JobStore
from tests.support.cloud import create_job_table
from tests.support.emulated import EmulatedCloud
from tests.support.many_jobs import COMMON_TAG, OWNERS, RARE_OWNER, RARE_TAG, past_jobs, write_jobs

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

JOBS = 100_000
ALL = tuple(JobState)
PAGES = {
    "active": JobFilter(),
    "all": JobFilter(states=ALL),
    **{state.value: JobFilter(states=(state,)) for state in JobState},
    "an owner's active ones": JobFilter(owner=OWNERS[1]),
    "an owner's": JobFilter(owner=OWNERS[1], states=ALL),
    "a rare owner's": JobFilter(owner=RARE_OWNER, states=ALL),
    "an owner's failed ones": JobFilter(owner=OWNERS[2], states=(JobState.FAILED,)),
    "a common tag": JobFilter(tag=COMMON_TAG, states=ALL),
    "a rare tag": JobFilter(tag=RARE_TAG, states=ALL),
    "a tag of one job": JobFilter(tag=("case", "41240"), states=ALL),
    "a rare tag, active": JobFilter(tag=RARE_TAG),
}


class Waiting:
    """How long calls of a client wait for the emulator, and which calls they are."""

    def __init__(self, client) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds = 0.0
        self.examined = 0
        self._since = 0.0
        client.meta.events.register("before-send.dynamodb", self._begin)
        client.meta.events.register("response-received.dynamodb", self._end)
        client.meta.events.register("after-call.dynamodb", self._count)

    def _begin(self, **_) -> None:
        self._since = time.perf_counter()

    def _end(self, **_) -> None:
        self.seconds += time.perf_counter() - self._since

    def _count(self, *, model, parsed, **_) -> None:
        self.calls[model.name] += 1
        self.examined += parsed.get("ScannedCount", 0)


@pytest.fixture(scope="module")
def history(cloud: EmulatedCloud):
    """A client of a table that holds them all, and the id of a job in the middle."""
    client = boto3.Session().client(
        "dynamodb",
        endpoint_url=cloud.system.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(parameter_validation=False),
    )
    create_job_table(client, "many-jobs")
    now = time.time()
    jobs = list(past_jobs(JOBS, now=now))
    write_jobs(client, "many-jobs", jobs, now=now)
    yield client, jobs[JOBS // 2].job_id
    client.delete_table(TableName="many-jobs")


def test_every_page_of_a_hundred_thousand_jobs_is_bounded_and_none_scans(history):
    client, middle = history
    store = JobStore(client, "many-jobs")
    ours: list[float] = []
    whole: list[float] = []
    told = [""]
    for wanted in PAGES.values():
        store.list_jobs(wanted, limit=1)  # the emulator sorts a partition once, when it is first asked for
    for name, wanted in PAGES.items():
        for place, before in (("first", None), ("middle", middle)):
            waiting = Waiting(client)
            began = time.perf_counter()
            page = store.list_jobs(wanted, limit=50, before=before)
            seconds = time.perf_counter() - began
            ours.append(seconds - waiting.seconds)
            whole.append(seconds)
            told.append(
                f"{name}, {place} page: {len(page.jobs)} jobs of {waiting.examined} examined in"
                f" {sum(waiting.calls.values())} calls; {1000 * ours[-1]:.0f} ms, and"
                f" {1000 * waiting.seconds:.0f} ms of the emulator"
            )

            assert set(waiting.calls) <= {"Query", "BatchGetItem"}
            assert waiting.examined <= EXAMINED_AT_MOST
            assert sum(waiting.calls.values()) <= 10
            assert all(wanted.matches(job) for job in page.jobs)
    for name, seconds_of in (("in all", whole), ("without the emulator", ours)):
        told.append(f"p95 {name}: {1000 * statistics.quantiles(seconds_of, n=20)[-1]:.0f} ms")
    sys.stderr.write("\n".join([*told, ""]))


def test_a_rare_tag_is_found_in_one_page(history):
    store = JobStore(history[0], "many-jobs")

    page = store.list_jobs(JobFilter(tag=RARE_TAG, states=ALL), limit=50)

    assert (len(page.jobs), page.next_cursor) == (JOBS // 10_000, None)
