"""The Python client against a service over real HTTP; time is moved by the tests."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from scanfleet.client import Clock, JobFailed, JobInfo, Scanfleet, UnexpectedAnswer, WaitTimedOut
from scanfleet.errors import ConfigurationError, Conflict, InvalidRequest, NotFound, Unavailable
from scanfleet.jobs import new_job_id
from tests.support.standin import FAILING, STEPS, Standin, running_standin

SOURCE, TARGET = "s3://data/scans/", "s3://data/result/"


class FakeClock(Clock):
    """Sleeping moves this clock and takes no time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []
        self.before_sleep: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.before_sleep()
        self.sleeps.append(seconds)
        self.seconds += seconds


@pytest.fixture
def service() -> Iterator[Standin]:
    with running_standin() as service:
        service.objects[SOURCE + "a.ply"] = b"ply"
        yield service


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fleet(service: Standin, clock: FakeClock) -> Iterator[Scanfleet]:
    with Scanfleet(service.url, clock=clock, live=False) as fleet:
        yield fleet


def answering(status: int, *, text: str = "", clock: Clock | None = None) -> Scanfleet:
    """Return a client whose every call gets this answer."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=text))
    return Scanfleet("http://fleet.test", transport=transport, clock=clock or FakeClock())


# --- Submitting and waiting ------------------------------------------------------------------------------


def test_a_submitted_job_is_waited_for_until_it_has_completed(fleet: Scanfleet) -> None:
    seen: list[JobInfo] = []

    handle = fleet.submit(
        SOURCE,
        TARGET,
        processor="reference",
        settings={"Use GPU": False},
        priority="high",
        time_limit=timedelta(minutes=15),
        tags={"patient": "12"},
    )
    job = handle.wait(on_change=seen.append)

    assert job.status == "completed"
    assert job.is_finished
    assert job.result is not None
    assert job.result.files == 1
    assert [one.status for one in seen] == [step["status"] for step in STEPS]
    assert seen[2].stage == "align"
    assert (job.settings, job.priority, job.tags) == ({"Use GPU": False}, "high", {"patient": "12"})


def test_what_is_left_out_is_left_to_the_service(fleet: Scanfleet, service: Standin) -> None:
    job_id = fleet.submit(SOURCE, TARGET).job_id

    assert service.jobs[job_id]["body"] == {"source": SOURCE, "target": TARGET, "settings": {}, "tags": {}}


def test_the_same_idempotency_key_gives_the_same_job(fleet: Scanfleet, service: Standin) -> None:
    first = fleet.submit(SOURCE, TARGET, idempotency_key="nightly-7")
    second = fleet.submit(SOURCE, TARGET, idempotency_key="nightly-7")

    assert first.job_id == second.job_id
    with pytest.raises(Conflict, match="another request"):
        fleet.submit(SOURCE, "s3://data/elsewhere/", idempotency_key="nightly-7")
    assert len(service.jobs) == 1


@pytest.mark.parametrize("key", ["", "schlüssel", "a\nb", "k" * 256])
def test_a_key_that_no_header_can_carry_is_refused(fleet: Scanfleet, key: str) -> None:
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        fleet.submit(SOURCE, TARGET, idempotency_key=key)


def test_a_submission_whose_answer_was_lost_is_repeated_without_making_a_second_job(
    service: Standin, clock: FakeClock
) -> None:
    lost = [httpx.ReadError("connection reset")]

    class LosesFirstAnswer(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.method == "POST" and lost:
                answer.close()
                raise lost.pop()
            return answer

    with Scanfleet(service.url, transport=LosesFirstAnswer(), clock=clock) as fleet:
        job_id = fleet.submit(SOURCE, TARGET).job_id

    assert list(service.jobs) == [job_id]
    assert [path for method, path in service.calls if method == "POST"] == ["/jobs", "/jobs"]


def test_waiting_asks_often_after_a_change_and_rarely_while_nothing_happens(
    fleet: Scanfleet, service: Standin, clock: FakeClock
) -> None:
    service.steps = (*[STEPS[0]] * 12, STEPS[2], *[STEPS[2]] * 2, STEPS[4])
    fleet.submit(SOURCE, TARGET).wait()

    assert clock.sleeps[0] == pytest.approx(0.2)
    assert clock.sleeps[:12] == sorted(clock.sleeps[:12])
    assert clock.sleeps[11] == pytest.approx(2.0)
    assert clock.sleeps[12] == pytest.approx(0.2)


def test_a_failed_job_is_returned_or_raised_as_the_caller_asks(fleet: Scanfleet, service: Standin) -> None:
    service.steps = FAILING
    handle = fleet.submit(SOURCE, TARGET)

    assert handle.wait().status == "failed"
    with pytest.raises(JobFailed, match=r"bad_input: scan_03\.ply is truncated") as caught:
        handle.wait(raise_on_failure=True)
    assert caught.value.job.job_id == handle.job_id


def test_a_wait_with_a_timeout_ends_then_and_carries_the_job(
    fleet: Scanfleet, service: Standin, clock: FakeClock
) -> None:
    service.steps = (STEPS[0],)

    with pytest.raises(WaitTimedOut) as caught:
        fleet.submit(SOURCE, TARGET).wait(timeout=timedelta(seconds=10))

    assert caught.value.job.status == "queued"
    assert clock.seconds == pytest.approx(10)


def test_a_wait_lives_through_a_short_outage_and_ends_in_a_long_one(
    fleet: Scanfleet, service: Standin, clock: FakeClock
) -> None:
    service.steps = (STEPS[0], STEPS[4])
    handle = fleet.submit(SOURCE, TARGET)
    service.broken[f"/job/{handle.job_id}"] = [503] * 10
    assert handle.wait().status == "completed"

    service.steps = (STEPS[0],)
    handle = fleet.submit(SOURCE, TARGET)
    service.broken[f"/job/{handle.job_id}"] = [503] * 1000
    before = clock.seconds
    with pytest.raises(Unavailable, match="the table did not answer"):
        handle.wait()
    assert clock.seconds - before >= 30


# --- The other verbs -------------------------------------------------------------------------------------


def test_jobs_come_page_by_page_and_no_more_than_asked_for(fleet: Scanfleet, service: Standin) -> None:
    ids = [fleet.submit(SOURCE, TARGET, tags={"all": "yes", "n": str(n % 2)}).job_id for n in range(5)]

    assert [job.job_id for job in fleet.jobs()] == ids[::-1]
    assert [job.job_id for job in fleet.jobs(limit=3)] == ids[:1:-1]
    assert [job.job_id for job in fleet.jobs(tags={"n": "1"})] == [ids[3], ids[1]]
    assert [job.job_id for job in fleet.jobs(tags={"all": "yes", "n": "1"}, limit=1)] == [ids[3]]
    assert list(fleet.jobs(status="failed")) == []
    assert service.calls.count(("GET", "/jobs")) == 3 + 2 + 2 + 1 + 1


def test_jobs_are_looked_for_past_pages_that_are_empty(fleet: Scanfleet, service: Standin) -> None:
    ids = [fleet.submit(SOURCE, TARGET, tags={"n": str(n)}).job_id for n in range(6)]
    service.examined_at_most = 1

    assert [job.job_id for job in fleet.jobs(tags={"n": "0"}, limit=1)] == [ids[0]]
    assert service.calls.count(("GET", "/jobs")) == 6


def test_cancel_and_retry_follow_the_jobs_state(fleet: Scanfleet) -> None:
    handle = fleet.submit(SOURCE, TARGET)

    assert handle.cancel().status == "cancelled"
    with pytest.raises(Conflict, match="is cancelled"):
        handle.cancel()
    assert handle.retry().status == "queued"
    assert handle.wait().status == "completed"
    with pytest.raises(Conflict, match="is completed"):
        handle.retry()


def test_the_log_comes_whole_or_from_its_end(fleet: Scanfleet) -> None:
    handle = fleet.submit(SOURCE, TARGET)

    assert handle.log() == "line 0\nline 1\nline 2\nline 3\nline 4\n"
    assert handle.log(attempt=1, tail_lines=2) == "line 3\nline 4\n"


def test_health_and_load_are_typed(fleet: Scanfleet, service: Standin, clock: FakeClock) -> None:
    assert fleet.health().status == "ready"
    assert fleet.load().pools["linux-cpu"]["backlog"] == 3
    assert fleet.load().instances[0]["agent_id"] == "agent-1"

    service.broken["/status/health"] = [503]
    with pytest.raises(Unavailable, match="the table did not answer"):
        fleet.health()
    assert clock.sleeps == [], "health is told as it is at that moment"


# --- Errors ----------------------------------------------------------------------------------------------


def test_a_refused_request_names_field_value_and_what_is_allowed(fleet: Scanfleet) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fleet.submit(SOURCE, TARGET, settings={"Use GPUs": 1})

    (error,) = caught.value.errors
    assert (error.field, error.message) == ("settings.Use GPUs", "unknown setting")
    assert (error.value, error.allowed) == ("1", "Use GPU, Complete Type")


def test_an_unknown_job_is_not_found(fleet: Scanfleet, service: Standin) -> None:
    with pytest.raises(NotFound, match="there is no job"):
        fleet.get(new_job_id())
    calls = len(service.calls)
    for text in ("", "..", "a/b", "x" * 65, "job id"):
        with pytest.raises(NotFound, match="is not a job id"):
            fleet.get(text)
    assert len(service.calls) == calls


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_problems_without_fields_are_invalid_requests(status: int) -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(
            status,
            json={"title": "No", "detail": "the body is too large"},
            headers={"Content-Type": "application/problem+json"},
        )
    )
    with (
        Scanfleet("http://fleet.test", transport=transport) as fleet,
        pytest.raises(InvalidRequest, match="the body is too large"),
    ):
        fleet.load()


def test_a_caller_that_is_refused_learns_that_it_is_the_configuration() -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(403, json={"title": "No", "detail": "who?"})
    )

    with (
        Scanfleet("http://fleet.test", transport=transport) as fleet,
        pytest.raises(ConfigurationError, match=r"who\?"),
    ):
        fleet.load()


@pytest.mark.parametrize(
    ("status", "text"), [(404, "<html>"), (200, "<html>"), (302, ""), (200, '{"jobs": 3}')]
)
def test_something_else_at_the_address_is_said_to_be_that(status: int, text: str) -> None:
    with answering(status, text=text) as fleet, pytest.raises(UnexpectedAnswer, match=r"fleet\.test"):
        list(fleet.jobs())


def test_nobody_at_the_address_is_unavailable_after_a_few_tries(clock: FakeClock) -> None:
    with (
        Scanfleet("http://127.0.0.1:9", clock=clock) as fleet,
        pytest.raises(Unavailable, match=r"no answer from http://127\.0\.0\.1:9"),
    ):
        fleet.load()

    assert len(clock.sleeps) == 3
    assert all(0.1 <= pause <= 0.8 for pause in clock.sleeps)


def test_the_service_may_say_how_long_to_wait_before_the_next_try() -> None:
    clock = FakeClock()
    answers = [
        httpx.Response(503, headers={"Retry-After": "3"}),
        httpx.Response(429, headers={"Retry-After": "900"}),
        httpx.Response(200, json={"pools": {}, "instances": []}),
    ]
    transport = httpx.MockTransport(lambda request: answers.pop(0))

    with Scanfleet("http://fleet.test", transport=transport, clock=clock) as fleet:
        fleet.load()

    assert clock.sleeps == [3.0, 5.0]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://fleet.test", "http://", "", "http://:8080", "s3://b/"]
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="url"):
        Scanfleet(url)


def test_an_address_with_a_path_is_kept_before_every_call() -> None:
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"status": "ready"})

    with Scanfleet("https://fleet.test/prod", transport=httpx.MockTransport(answer)) as fleet:
        fleet.health()

    assert paths == ["/prod/status/health"]


# --- Local folders ---------------------------------------------------------------------------------------


def test_local_folders_are_uploaded_and_their_result_is_downloaded(
    fleet: Scanfleet, service: Standin, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ply").write_bytes(b"scan")

    handle = fleet.submit(tmp_path / "in", str(tmp_path / "out"))
    job = handle.wait()

    assert job.source.startswith("s3://data/uploads/local/")
    assert not job.target.startswith(job.source)
    assert (tmp_path / "out" / "a.ply").read_bytes() == b"scan"


def test_a_key_with_a_local_folder_means_the_same_names_and_content(fleet: Scanfleet, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"scan")

    first = fleet.submit(tmp_path, TARGET, idempotency_key="k")
    second = fleet.submit(tmp_path, TARGET, idempotency_key="k")
    assert first.job_id == second.job_id

    (tmp_path / "a.ply").write_bytes(b"SCAN")
    with pytest.raises(Conflict):
        fleet.submit(tmp_path, TARGET, idempotency_key="k")


def test_folders_that_cannot_be_used_are_refused_before_anything_is_sent(
    fleet: Scanfleet, service: Standin, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.ply").write_bytes(b"scan")
    file = tmp_path / "full" / "a.ply"
    for source, target, message in (
        (tmp_path / "missing", TARGET, "source: does not exist"),
        (tmp_path / "empty", TARGET, "source: holds no file"),
        (file, TARGET, "source: is a file"),
        (tmp_path / "full", file, "target: is a file"),
        (tmp_path / "full", tmp_path / "full" / "result", "target: lies inside the source folder"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            fleet.submit(source, target)

    assert service.calls == []


def test_threads_may_share_a_client(fleet: Scanfleet, service: Standin) -> None:
    handles = [fleet.submit(SOURCE, TARGET) for _ in range(8)]
    found: list[JobInfo] = []
    threads = [threading.Thread(target=lambda h=handle: found.append(h.refresh())) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {job.job_id for job in found} == {handle.job_id for handle in handles}


def test_an_empty_folder_name_is_refused_instead_of_meaning_the_current_folder(fleet: Scanfleet) -> None:
    with pytest.raises(InvalidRequest, match="source: is empty"):
        fleet.submit("", TARGET)
    with pytest.raises(InvalidRequest, match="target: is empty"):
        fleet.submit(SOURCE, "")


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_setting_that_no_request_can_carry_is_refused_with_its_name(
    fleet: Scanfleet, value: object
) -> None:
    with pytest.raises(InvalidRequest, match=r"settings\.Complete Type"):
        fleet.submit(SOURCE, TARGET, settings={"Complete Type": value})
