"""How the client hears of changes: the best way that there is, and no error when there is none."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from scanfleet.client import Scanfleet
from scanfleet.client_events import JobChanges
from scanfleet.client_http import Clock, HttpApi, open_client
from scanfleet.client_models import JobInfo
from scanfleet.client_wait import OUTAGE_PATIENCE, follow
from scanfleet.jobs import JobState
from tests.support.api import RunningApi, running_api, served_with
from tests.support.waiting import until

PATIENCE = 60.0


class Counting(httpx.BaseTransport):
    """Sends requests on, keeps their paths, and may answer some of them itself."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response | None] = lambda _: None) -> None:
        self.paths: list[str] = []
        self._answer = answer
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(f"{request.method} {request.url.path}")
        return self._answer(request) or self._real.handle_request(request)

    def close(self) -> None:
        self._real.close()


def ways(**changed: Any) -> Callable[[httpx.Request], httpx.Response | None]:
    """Answer the question for the ways with these instead of the real ones."""
    told = {"websocket": None, "server_sent_events": False, "poll_seconds": 2} | changed

    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, json=told) if request.url.path == "/events/ticket" else None

    return answer


def no_such_path(request: httpx.Request) -> httpx.Response | None:
    if not request.url.path.startswith("/events"):
        return None
    problem = {"title": "There is no such thing", "detail": "there is nothing at /events/ticket"}
    return httpx.Response(404, json=problem, headers={"Content-Type": "application/problem+json"})


@pytest.fixture(scope="module")
def shared_api() -> Iterator[RunningApi]:
    with running_api() as api:
        yield api


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    shared_api.reset()
    return shared_api


@contextmanager
def changes_of(
    api: RunningApi, job_id: str, transport: httpx.BaseTransport | None = None
) -> Iterator[JobChanges]:
    with open_client(api.url, transport=transport) as client:
        changes = JobChanges(HttpApi(client, Clock()), client, job_id)
        changes.start()
        try:
            yield changes
        finally:
            changes.close()


def heard(changes: JobChanges, is_it: Callable[[JobInfo], bool]) -> JobInfo:
    while True:
        job = changes.wait(PATIENCE)
        if job is not None and is_it(job):
            return job


def websocket_url(api: RunningApi) -> str:
    return api.url.replace("http", "ws") + "/ws"


@pytest.mark.parametrize("way", ["websocket", "server_sent_events"])
def test_a_job_is_heard_of_from_its_present_state_to_its_end(api, way):
    job_id = api.submit("scans")
    told = {"websocket": websocket_url(api)} if way == "websocket" else {"server_sent_events": True}
    transport = Counting(ways(**told))
    with changes_of(api, job_id, transport) as changes:
        assert heard(changes, lambda job: job.status == "queued").job_id == job_id
        assert changes.is_live
        lease = api.leases.advance(api.take(job_id), JobState.PROCESSING)
        lease = api.leases.renew(lease, progress_percent=30, stage="align")
        assert heard(changes, lambda job: job.stage == "align").progress_percent == 30
        api.leases.cancel(lease)
        heard(changes, lambda job: job.is_finished)

    used_sse = f"GET /job/{job_id}/events" in transport.paths
    assert used_sse == (way == "server_sent_events")


def test_without_the_websockets_package_server_sent_events_are_used(api, monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    job_id = api.submit("scans")
    transport = Counting()
    with changes_of(api, job_id, transport) as changes:
        heard(changes, lambda job: job.status == "queued")

    assert f"GET /job/{job_id}/events" in transport.paths


def test_a_websocket_that_does_not_open_is_no_hindrance(api):
    job_id = api.submit("scans")
    transport = Counting(ways(websocket="ws://127.0.0.1:9/ws", server_sent_events=True))
    with changes_of(api, job_id, transport) as changes:
        assert heard(changes, lambda job: job.status == "queued")


def test_a_websocket_without_encryption_is_not_opened_for_a_service_with_it():
    with open_client("https://fleet.test") as client:
        changes = JobChanges(HttpApi(client, Clock()), client, "any")

        assert not changes._is_no_weaker("ws://fleet.test/ws")
        assert changes._is_no_weaker("wss://elsewhere.test/ws")


@pytest.mark.parametrize(
    "answer", [no_such_path, ways(), lambda _: httpx.Response(501, text="<html>")], ids=["old", "none", "odd"]
)
def test_without_any_way_the_job_is_asked_for_and_nobody_hears_of_an_error(api, answer):
    job_id = api.submit("scans")

    def only_events(request: httpx.Request) -> httpx.Response | None:
        return answer(request) if request.url.path.startswith("/events") else None

    with Scanfleet(api.url, transport=Counting(only_events)) as fleet:
        watching = fleet.watch(job_id)
        assert next(watching).status == "queued"
        lease = api.take(job_id)
        assert next(watching).status == "downloading"
        api.leases.cancel(lease)

        assert [job.status for job in watching] == ["cancelled"]


def test_while_changes_are_told_the_job_is_not_asked_for(api):
    job_id = api.submit("scans")
    lease = api.leases.advance(api.take(job_id), JobState.PROCESSING)
    asked: list[str] = []

    def read() -> JobInfo:
        asked.append(job_id)
        return JobInfo.model_validate(api.http.get(f"/job/{job_id}").json())

    with changes_of(api, job_id) as changes:
        until(lambda: changes.is_live)
        watching = follow(read, clock=Clock(), timeout=None, outage_patience=OUTAGE_PATIENCE, changes=changes)
        next(watching)
        for percent in (60, 70, 80):
            lease = api.leases.renew(lease, progress_percent=percent, stage="a")
            assert next(watching).progress_percent == percent
        assert len(asked) == 1
        api.leases.cancel(lease)

        assert [job.status for job in watching] == ["cancelled"]
        assert len(asked) == 2, "the end is read, with the result"


def test_a_connection_that_breaks_off_is_opened_again_and_nothing_is_missed(api):
    job_id = api.submit("scans")
    lease = api.leases.advance(api.take(job_id), JobState.PROCESSING)
    with changes_of(api, job_id) as changes:
        heard(changes, lambda job: job.status == "processing")

        for listener in api.hub.listeners:
            api.in_loop(listener.close)
        until(lambda: not changes.is_live)
        api.leases.renew(lease, progress_percent=77, stage="merge")

        assert heard(changes, lambda job: job.progress_percent == 77).stage == "merge"


def test_who_waits_no_more_ends_its_connection(api):
    job_id = api.submit("scans")
    for told in ({"server_sent_events": True}, {"websocket": websocket_url(api)}):
        with changes_of(api, job_id, Counting(ways(**told))) as changes:
            heard(changes, lambda job: job.status == "queued")

        assert not any(t.name == f"events of {job_id}" for t in threading.enumerate())
        until(lambda: not api.hub.listeners)


def test_when_the_service_goes_whoever_waits_begins_to_ask(api):
    job_id = api.submit("scans")
    with served_with(api) as first:
        listening = changes_of(first, job_id)
        changes = listening.__enter__()
        heard(changes, lambda job: job.status == "queued")
    try:
        until(lambda: not changes.is_live)
        assert changes.wait(PATIENCE) is None
    finally:
        listening.__exit__(None, None, None)


class Pushed:
    """Messages, given out one after the other."""

    is_live = True

    def __init__(self, *jobs: JobInfo) -> None:
        self.jobs = list(jobs)

    def start(self) -> None:
        pass

    def wait(self, seconds: float) -> JobInfo | None:
        return self.jobs.pop(0)


def test_a_message_that_tells_what_was_before_takes_nobody_back():
    facts = {"job_id": "j", "processor": "p", "pool": "linux-cpu", "priority": "normal", "owner": "ann"}

    def job(status: str, percent: float, attempt: int = 1) -> JobInfo:
        moment = {"status": status, "progress_percent": percent, "attempt": attempt}
        return JobInfo(**facts, source="s", target="t", **moment)

    end = job("completed", 100, 2)
    answers = iter([job("processing", 60), end])
    told = Pushed(
        job("downloading", 0),
        job("processing", 55),
        job("queued", 0, 0),
        job("processing", 70),
        job("queued", 0),
        job("downloading", 0, 2),
        job("processing", 5, 2),
        end,
    )

    seen = follow(
        lambda: next(answers), clock=Clock(), timeout=None, outage_patience=OUTAGE_PATIENCE, changes=told
    )

    assert [(str(one.status), one.progress_percent) for one in seen] == [
        ("processing", 60),
        ("processing", 70),
        ("queued", 0),
        ("downloading", 0),
        ("processing", 5),
        ("completed", 100),
    ]
