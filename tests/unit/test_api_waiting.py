"""What those who wait are told: how long still, how many before them, what the fleet does about it."""

from dataclasses import replace

import pytest

from scanfleet.contract import Pool
from scanfleet.fleet_reports import FleetReport
from scanfleet.history import RunHistory
from scanfleet.jobs import JobState
from scanfleet.past_runs import settings_fingerprint
from scanfleet.queue_positions import EXAMINED
from tests.support.api import OPERATOR, RunningApi, running_api
from tests.support.past_jobs import GB, LAWS, jobs_of


@pytest.fixture(scope="module")
def _api():
    with running_api() as api:
        yield api


@pytest.fixture
def api(_api):
    _api.reset()
    return _api


def get(api: RunningApi, job_id: str) -> dict:
    answer = api.http.get(f"/job/{job_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def remember(api: RunningApi, count: int = 120) -> None:
    """Let so many jobs with the default settings have ended before."""
    history = RunHistory(api.clients.dynamodb, "jobs", clock=api.clock)
    processor = api.services.processors["ply"]
    same = settings_fingerprint(processor.validate_settings({}))
    for number, run in enumerate(jobs_of(LAWS[0], count, seed=1)):
        job_id = f"{number}-{run.input_bytes}"
        history.add("ply", input_bytes=run.input_bytes, job_id=job_id, run=replace(run, settings=same))


def report_fleet(api: RunningApi, **facts) -> None:
    usual = {
        "pool": Pool.LINUX_CPU,
        "desired": 1,
        "minimum": 0,
        "maximum": 4,
        "in_service": 0,
        "booting": 0,
        "sampled_at": api.clock.now,
    }
    api.services.fleets.put(FleetReport(**(usual | facts)))


# --- How long still ----------------------------------------------------------------------------------------


def test_of_a_program_that_never_ran_nothing_is_predicted(api):
    assert get(api, api.submit("a"))["eta"] is None


def test_a_queued_job_says_how_long_it_takes_once_it_runs(api):
    remember(api)

    eta = get(api, api.submit("a"))["eta"]

    assert eta["low_seconds"] < eta["likely_seconds"] < eta["high_seconds"]
    assert 100 < eta["likely_seconds"] < 1500
    assert eta["share"] == 0.8
    assert 60 <= eta["runs"] <= 120, "some have taken the place of another"


def test_a_running_job_says_how_long_it_still_needs_and_less_later(api):
    remember(api)
    lease = api.take(api.submit("a"))
    lease = api.leases.advance(lease, JobState.PROCESSING, input_bytes=GB)
    lease = api.leases.renew(lease, progress_percent=2.0, stage="load")
    first = get(api, lease.job.job_id)["eta"]
    api.clock.now += 5
    soon = get(api, lease.job.job_id)["eta"]
    api.clock.now += 160
    api.leases.renew(lease, progress_percent=60.0, stage="merge")
    later = get(api, lease.job.job_id)["eta"]

    assert first["likely_seconds"] == pytest.approx(300, rel=0.25)
    assert soon["likely_seconds"] == pytest.approx(first["likely_seconds"] - 5, abs=1)
    assert later["likely_seconds"] < first["likely_seconds"] / 2


def test_a_job_that_has_ended_needs_no_time(api):
    remember(api)
    job_id = api.submit("a")
    api.http.post(f"/job/{job_id}/cancel")

    assert get(api, job_id)["eta"] is None


def test_a_job_of_which_nothing_can_be_told_is_shown_without(api, monkeypatch):
    def fail(*_facts, **_more):
        raise ZeroDivisionError

    remember(api)
    monkeypatch.setattr("scanfleet.api.estimates.Forecast", fail)

    assert get(api, api.submit("scans"))["eta"] is None


def test_a_list_shows_it_too_and_reads_the_history_once(api):
    remember(api)
    for name in "abcde":
        api.submit(name)
    asked = []
    hook = "before-call.dynamodb.Query"
    api.clients.dynamodb.meta.events.register(hook, lambda params, **_: asked.append(str(params)))
    try:
        for _ in range(3):
            jobs = api.http.get("/jobs").json()["jobs"]
    finally:
        api.clients.dynamodb.meta.events.unregister(hook)

    assert len({job["eta"]["likely_seconds"] for job in jobs}) == 1
    assert len(jobs) == 5
    assert sum("HISTORY#" in params for params in asked) <= 1


# --- How many before it ------------------------------------------------------------------------------------


def test_jobs_are_counted_in_the_order_of_the_queue(api):
    first, second, third = (api.submit(name) for name in "abc")
    api.clock.now += 10

    positions = [get(api, job_id)["queue_position"] for job_id in (first, second, third)]

    assert positions == [0, 1, 2]
    assert get(api, third)["why_waiting"] == "no agent serves pool linux-cpu"


def test_urgent_jobs_go_before_others_and_other_pools_do_not_count(api):
    normal = api.submit("a")
    api.submit("b", processor="windows_ply")
    urgent = api.submit("c", priority="high")

    assert get(api, normal)["queue_position"] == 1
    assert get(api, urgent)["queue_position"] == 0


def test_running_and_ended_jobs_are_not_before_anybody(api):
    running, cancelled, waiting = (api.submit(name) for name in "abc")
    api.take(running)
    api.http.post(f"/job/{cancelled}/cancel")

    assert get(api, waiting)["queue_position"] == 0
    assert get(api, running)["queue_position"] is None


def test_a_job_that_returns_to_the_queue_goes_behind_those_that_wait(api):
    first, second = api.submit("a"), api.submit("b")
    lease = api.take(first)
    api.clock.now += 10
    api.leases.requeue(lease, api.leases.failure(lease, "lost_machine", "gone"))
    api.clock.now += 10

    assert (get(api, second)["queue_position"], get(api, first)["queue_position"]) == (0, 1)


def test_whoever_is_beyond_what_is_counted_has_no_number(api, monkeypatch):
    monkeypatch.setattr("scanfleet.queue_positions.EXAMINED", 2)
    jobs = [api.submit(name) for name in "abc"]

    assert [get(api, job_id)["queue_position"] for job_id in jobs] == [0, 1, None]
    assert EXAMINED >= 1000


def test_the_sentence_says_how_many(api):
    api.report_agent(slots=1, busy=1)
    jobs = [api.submit(name) for name in "abc"]

    whys = [get(api, job_id)["why_waiting"] for job_id in jobs]

    assert [why.partition("; ")[2] for why in whys] == [
        "it is the next",
        "1 job goes before it",
        "2 jobs go before it",
    ]


# --- What the fleet does -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"booting": 2, "booting_since": -180}, "2 machines boot, since 3 min"),
        ({"booting": 1, "booting_since": -20}, "1 machine boots, since less than a minute"),
        ({"is_blocked": True}, "no image was built yet that its machines could start from"),
        ({"maximum": 0}, "its fleet may have no machine: its maximum is 0"),
        ({"desired": 4}, "its fleet has reached its maximum of 4 machines"),
        ({"desired": 0}, "a machine is started for it within a minute or two"),
    ],
)
def test_a_job_without_an_agent_says_what_the_fleet_does(api, facts, said):
    if "booting_since" in facts:
        facts = facts | {"booting_since": api.clock.now + facts["booting_since"]}
    report_fleet(api, **facts)

    assert get(api, api.submit("a"))["why_waiting"] == f"no agent serves pool linux-cpu; {said}"


def test_a_full_fleet_at_its_maximum_says_so(api):
    api.report_agent(slots=2, busy=2)
    report_fleet(api, desired=1, maximum=1)

    why = get(api, api.submit("a"))["why_waiting"]

    assert why == (
        "all 2 slots of pool linux-cpu are busy; it is the next;"
        " its fleet has reached its maximum of 1 machine"
    )


def test_a_free_slot_needs_no_word_on_the_fleet(api):
    api.report_agent(slots=2, busy=1)
    report_fleet(api, desired=1, maximum=1)

    assert "fleet" not in get(api, api.submit("a"))["why_waiting"]


def test_an_old_report_of_the_fleet_tells_nothing(api):
    report_fleet(api, booting=1, sampled_at=api.clock.now - 600)

    assert get(api, api.submit("a"))["why_waiting"] == "no agent serves pool linux-cpu"


def test_suspected_machines_and_those_on_hold_are_counted(api):
    api.report_agent(is_suspended=True, why_suspended="three jobs failed")
    api.report_agent(agent_id="agent-2", is_on_hold=True)
    api.report_agent(agent_id="agent-3", is_on_hold=True)

    assert get(api, api.submit("a"))["why_waiting"] == (
        "no agent of pool linux-cpu takes jobs now: 1 is suspected or being checked, 2 are on hold"
    )


# --- /status/load ------------------------------------------------------------------------------------------


def load(api: RunningApi) -> dict:
    return api.http.get("/status/load", headers=OPERATOR).json()


def test_slots_are_those_that_take_jobs_and_every_machine_is_listed(api):
    api.report_agent(slots=2, busy=1)
    api.report_agent(agent_id="agent-2", slots=4, busy=1, is_stopping=True)
    api.report_agent(agent_id="agent-3", slots=8, is_on_hold=True)

    found = load(api)

    pool = found["pools"]["linux-cpu"]
    assert (pool["slots"], pool["busy"], pool["agents"]) == (2, 2, 3)
    listed = {agent["agent_id"]: agent for agent in found["instances"]}
    assert [listed[name]["takes_jobs"] for name in sorted(listed)] == [True, False, False]
    assert [listed[name]["is_on_hold"] for name in sorted(listed)] == [False, False, True]


def test_a_machine_says_what_it_is(api):
    facts = {"instance_id": "i-1", "instance_type": "g4dn.xlarge", "ami_id": "ami-1", "driver": "537.70"}
    api.report_agent(**facts, booted_at=api.clock.now - 300)
    api.report_agent(agent_id="agent-2")

    machine, other = sorted(load(api)["instances"], key=lambda found: found["agent_id"])

    assert {name: machine[name] for name in facts} == facts
    assert machine["booted"] < machine["started"]
    assert (other["instance_id"], other["driver"], other["booted"]) == ("", "", None)


def test_a_pools_fleet_is_shown_while_it_reports(api):
    report_fleet(api, desired=3, in_service=2, booting=1)
    fresh = load(api)["pools"]
    api.clock.now += 600

    fleet = fresh["linux-cpu"]["fleet"]
    assert {name: fleet[name] for name in ("desired", "minimum", "maximum", "in_service", "booting")} == {
        "desired": 3,
        "minimum": 0,
        "maximum": 4,
        "in_service": 2,
        "booting": 1,
    }
    assert fresh["windows-gpu"]["fleet"] is load(api)["pools"]["linux-cpu"]["fleet"] is None
