"""Live events as a client meets them: server-sent events and the WebSocket, over a real server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_connection

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from scanfleet.contract import TableKey
from scanfleet.jobs import JobState
from scanfleet.store_items import job_key
from tests.support.api import OPERATOR, RunningApi, as_owner, running_api, served_with
from tests.support.cloud import create_job_table
from tests.support.sse import Event, events

PATIENCE = 60
"""Seconds; only a server that says nothing needs them."""


@pytest.fixture(scope="module")
def shared_api() -> Iterator[RunningApi]:
    with running_api() as api:
        yield api


@pytest.fixture
def api(shared_api: RunningApi) -> RunningApi:
    shared_api.reset()
    return shared_api


@contextmanager
def listening(api: RunningApi, path: str, **headers: str) -> Iterator[Iterator[Event]]:
    with api.http.stream("GET", path, headers=headers, timeout=PATIENCE) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def next_job(stream: Iterator[Event]) -> dict:
    return next(event.data for event in stream if event.kind == "job")


@contextmanager
def socket(api: RunningApi, **headers: str) -> Iterator[ClientConnection]:
    url = api.url.replace("http", "ws") + "/ws"
    with connect(url, additional_headers=headers, open_timeout=PATIENCE, proxy=None) as connection:
        yield connection


def say(connection: ClientConnection, **request: object) -> None:
    connection.send(json.dumps(request))


def hear(connection: ClientConnection, kind: str = "job") -> dict:
    while True:
        message = json.loads(connection.recv(timeout=PATIENCE))
        if message["type"] == kind:
            return message.get("job", message)


# --- Server-sent events ------------------------------------------------------------------------------------


def test_a_jobs_events_begin_with_its_present_state_and_end_with_the_job(api):
    job_id = api.submit("scans")
    with listening(api, f"/job/{job_id}/events") as stream:
        assert next_job(stream)["status"] == "queued"
        lease = api.take(job_id)
        assert next_job(stream)["status"] == "downloading"
        lease = api.leases.advance(lease, JobState.PROCESSING)
        api.leases.renew(lease, progress_percent=40, stage="align")

        seen = [next_job(stream)]
        while seen[-1]["stage"] is None:
            seen.append(next_job(stream))
        assert (seen[-1]["status"], seen[-1]["stage"], seen[-1]["progress_percent"]) == (
            "processing",
            "align",
            40,
        )

        api.leases.cancel(lease)
        rest = list(stream)

    assert [event.kind for event in rest] == ["job", "end"]
    assert rest[0].data["status"] == "cancelled"
    assert rest[1].data == {"job_id": job_id}


def test_a_stream_of_an_ended_job_is_its_state_and_the_end(api):
    job_id = api.submit("scans")
    api.http.post(f"/job/{job_id}/cancel")
    with listening(api, f"/job/{job_id}/events") as stream:
        kinds = [event.kind for event in stream]

    assert kinds == ["job", "subscribed", "end"] or kinds == ["job", "end"]


def test_a_browser_that_comes_again_after_the_end_is_told_to_stay_away(api):
    job_id = api.submit("scans")
    api.http.post(f"/job/{job_id}/cancel")

    answer = api.http.get(f"/job/{job_id}/events", headers={"Last-Event-ID": "end"})

    assert (answer.status_code, answer.content) == (204, b"")


def test_a_renewal_that_changes_nothing_visible_is_not_told(api):
    job_id = api.submit("scans")
    lease = api.take(job_id)
    with listening(api, f"/job/{job_id}/events") as stream:
        next_job(stream)
        for _ in range(3):
            lease = api.leases.renew(lease, progress_percent=0, stage=None)
        api.leases.renew(lease, progress_percent=10, stage="load")

        assert next_job(stream)["progress_percent"] == 10


def test_the_events_of_all_jobs_are_the_callers_own(api):
    with listening(api, "/events", **as_owner("bob")) as bobs, listening(api, "/events", **OPERATOR) as all_:
        anns = api.submit("a")
        api.http.headers.update(as_owner("bob"))
        try:
            bobs_job = api.submit("b")
        finally:
            del api.http.headers["X-Test-Owner"]

        assert next_job(bobs)["job_id"] == bobs_job
        assert {next_job(all_)["job_id"], next_job(all_)["job_id"]} == {anns, bobs_job}


def test_present_jobs_come_before_the_word_that_changes_follow(api):
    first, second = api.submit("a"), api.submit("b")
    with listening(api, "/events") as stream:
        seen = [next(stream) for _ in range(3)]

    assert [event.kind for event in seen] == ["job", "job", "subscribed"]
    assert {event.data["job_id"] for event in seen[:2]} == {first, second}
    assert seen[2].data == {"to": {"jobs": True}, "present": True}


def test_another_owners_job_has_no_events(api):
    job_id = api.submit("scans")

    answer = api.http.get(f"/job/{job_id}/events", headers=as_owner("eve"))

    assert answer.status_code == 404


def test_asking_for_the_head_of_a_stream_does_not_open_one(api):
    job_id = api.submit("scans")

    answer = api.http.head(f"/job/{job_id}/events")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_deleted_record_and_a_record_that_cannot_be_read_are_no_events(api):
    broken, good = api.submit("a"), api.submit("b")
    with listening(api, "/events") as stream:
        next(event for event in stream if event.kind == "subscribed")
        api.clients.dynamodb.update_item(
            TableName="jobs",
            Key=job_key(broken),
            UpdateExpression="SET #state = :odd",
            ExpressionAttributeNames={"#state": TableKey.STATE},
            ExpressionAttributeValues={":odd": {"S": "exploded"}},
        )
        api.clients.dynamodb.delete_item(TableName="jobs", Key=job_key(broken))
        api.take(good)

        assert next_job(stream)["job_id"] == good


def test_a_table_without_a_stream_is_watched_by_its_index(api):
    api.clients.dynamodb.delete_table(TableName="jobs")
    create_job_table(api.clients.dynamodb, "jobs", has_stream=False)
    job_id = api.submit("scans")
    with served_with(api) as other, listening(other, f"/job/{job_id}/events") as stream:
        assert next_job(stream)["status"] == "queued"
        lease = api.take(job_id)
        assert next_job(stream)["status"] == "downloading"
        api.leases.cancel(lease)
        assert next_job(stream)["status"] == "cancelled"


# --- WebSocket ---------------------------------------------------------------------------------------------


def test_a_websocket_tells_the_jobs_that_it_was_asked_for(api):
    first, second = api.submit("a"), api.submit("b")
    with socket(api) as connection:
        say(connection, subscribe={"job": first})
        assert hear(connection)["job_id"] == first
        assert hear(connection, "subscribed") == {
            "type": "subscribed", "to": {"job": first}, "present": True
        }  # fmt: skip
        api.take(second)
        api.take(first)

        job = hear(connection)
        assert (job["job_id"], job["status"]) == (first, "downloading")


def test_unsubscribing_ends_the_telling(api):
    first, second = api.submit("a"), api.submit("b")
    with socket(api) as connection:
        for job_id in (first, second):
            say(connection, subscribe={"job": job_id})
            hear(connection, "subscribed")
        say(connection, unsubscribe={"job": first})
        say(connection, ping=True)
        hear(connection, "pong")
        api.take(first)
        api.take(second)

        assert hear(connection)["job_id"] == second


def test_a_websocket_tells_nothing_of_another_owners_job(api):
    job_id = api.submit("a")
    with socket(api, **as_owner("eve")) as connection:
        say(connection, subscribe={"job": job_id})
        assert hear(connection, "error")["detail"] == f"no job {job_id}"
        say(connection, subscribe={"jobs": True})
        hear(connection, "subscribed")
        api.take(job_id)
        api.http.headers.update(as_owner("eve"))
        try:
            own = api.submit("e")
        finally:
            del api.http.headers["X-Test-Owner"]

        assert hear(connection)["job_id"] == own


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[" * 3000,
        "{}",
        '{"subscribe": {"job": 7}}',
        '{"subscribe": {"job": "01JD5Z9W4T8Q2V6K3M7N1P5R9S", "jobs": true}}',
        '{"subscribe": {"jobs": false}}',
        '{"subscribe": {"jobs": true}, "ping": true}',
        " " * 5000,
    ],
)
def test_a_message_that_is_not_understood_is_told_and_the_connection_lives(api, text):
    with socket(api) as connection:
        connection.send(text)
        assert "message: is not understood" in hear(connection, "error")["detail"]
        say(connection, ping=True)

        assert hear(connection, "pong")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
def test_a_page_of_another_origin_opens_no_websocket(api, origin):
    with pytest.raises(InvalidStatus) as refused, socket(api, Origin=origin):
        pass

    assert refused.value.response.status_code == 403


def test_the_servers_own_page_opens_a_websocket(api):
    with socket(api, Origin=api.url) as connection:
        say(connection, ping=True)

        assert hear(connection, "pong")


def test_a_websocket_for_another_host_is_refused(api):
    port = httpx.URL(api.url).port
    with (
        create_connection(("127.0.0.1", port)) as to_us,
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://rebound.example:{port}/ws", sock=to_us, proxy=None),
    ):
        pass

    assert refused.value.response.status_code == 403


# --- The ways ----------------------------------------------------------------------------------------------


def test_the_ticket_names_the_ways(api):
    ways = api.http.post("/events/ticket").json()

    assert ways == {
        "websocket": api.url.replace("http", "ws") + "/ws",
        "server_sent_events": True,
        "poll_seconds": 2.0,
        "expires_in_seconds": 0,
    }
