"""`/metrics` of the API and of agents, read by Prometheus' own parser."""

from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scanfleet.agent.running import RunningPrograms
from scanfleet.agent.status import StatusServer
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.api.app import create_app
from scanfleet.contract import Dimension, Metric, Pool
from scanfleet.metrics import CONTENT_TYPE
from scanfleet.queue import JobQueues
from scanfleet.telemetry import metrics
from tests.support.api import OPERATOR, HeaderIdentity, running_api, serving
from tests.support.moto_fleet import moto_fleet


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


def samples(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == CONTENT_TYPE
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_api_tells_how_every_pool_stands(api):
    api.reset()
    api.report_agent(slots=2, busy=1, job_ids=("j1",))
    api.report_agent(agent_id="agent-2", slots=4, busy=0, is_suspended=True)
    api.submit("metrics")

    told = samples(api.http.get("/metrics", headers=OPERATOR))

    linux = ("pool", "linux-cpu")
    assert told == {
        ("scanfleet_backlog", linux): 1,
        ("scanfleet_in_flight", linux): 0,
        ("scanfleet_slots", linux): 6,
        ("scanfleet_slots_taking_jobs", linux): 2,
        ("scanfleet_slots_busy", linux): 1,
        ("scanfleet_agents", linux): 2,
    } | {
        (f"scanfleet_{name}", ("pool", "windows-gpu")): 0
        for name in ("backlog", "in_flight", "slots", "slots_taking_jobs", "slots_busy", "agents")
    }


def test_an_api_that_lives_on_tells_what_it_has_counted(api):
    api.reset()
    app = create_app(api.services, api.settings)
    app.state.identity, app.state.lives_on = HeaderIdentity(), True

    with serving(app) as url, httpx.Client(base_url=url) as http:
        http.get("/jobs")
        told = samples(http.get("/metrics", headers=OPERATOR))

    assert told["scanfleet_api_request_duration_seconds_count", ("route", "/jobs")] >= 1
    assert told["process_resident_memory_bytes",] > 0


def test_metrics_are_for_operators(api):
    answer = api.http.get("/metrics")

    assert answer.status_code == 403
    assert answer.json()["detail"] == "only operators read metrics"


def test_a_service_that_does_not_answer_is_a_503(api):
    api.reset()
    nowhere = {
        pool: dict.fromkeys(urls, "http://127.0.0.1:1/none") for pool, urls in api.settings.queues.items()
    }
    broken = JobQueues(api.clients.sqs, nowhere)
    app = create_app(replace(api.services, queues=broken), api.settings)
    app.state.identity = HeaderIdentity()

    with serving(app) as url:
        answer = httpx.get(f"{url}/metrics", headers=OPERATOR, timeout=60)

    assert answer.status_code == 503


@pytest.fixture
def fleet(api, monkeypatch, tmp_path):
    api.reset()  # moto has one cloud a process
    with moto_fleet(api.clients.s3.meta.endpoint_url, tmp_path, monkeypatch) as running:
        yield running


def test_an_agent_tells_its_slots_and_no_job(fleet):
    job = fleet.submit(settings={"hold": str(fleet.folder / "go on"), "marker": str(fleet.folder / "marker")})
    metrics({Metric.JOB_FINISHED: 1}, {Dimension.POOL: Pool.LINUX_CPU.value, Dimension.STATE: "completed"})

    with fleet.agent(slots=3) as worker:
        marked = fleet.folder / "marker"
        fleet.await_job(job, lambda _: marked.exists())
        server = StatusServer(worker, host="127.0.0.1", port=0)
        server.start()
        try:
            answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics")
        finally:
            server.stop()

    told = samples(answer)
    assert (told["scanfleet_agent_slots",], told["scanfleet_agent_slots_busy",]) == (3, 1)
    assert told["scanfleet_agent_takes_jobs",] == 1
    assert told["scanfleet_agent_uptime_seconds",] >= 0
    assert told["scanfleet_agent_programs",] == 1
    finished = ("scanfleet_job_finished_total", ("pool", "linux-cpu"), ("state", "completed"))
    assert told[finished] >= 1
    assert job.job_id not in answer.text
    assert job.owner not in {value for _, *labels in told for _, value in labels}


def test_programs_that_run_are_added_up_until_they_end():
    def metered(cpu_seconds, memory):
        meter = UsageMeter()
        meter.add(1.0, cpu_seconds=cpu_seconds, io_bytes=10, memory_bytes=memory)
        return meter

    programs = RunningPrograms()

    def told():
        return {gauge.name: gauge.values[()] for gauge in programs.gauges()}

    with (
        programs.running(metered(0.5, 100)),
        programs.running(metered(1.5, 300)),
        programs.running(UsageMeter()),
    ):
        both = told()
    assert both == {
        "agent_programs": 3,
        "agent_programs_cpu_ratio": 2.0,
        "agent_programs_memory_peak_bytes": 400,
        "agent_programs_gpu_memory_peak_bytes": 0,
        "agent_programs_io_bytes": 20,
    }
    assert set(told().values()) == {0}
