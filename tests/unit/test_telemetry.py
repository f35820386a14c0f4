"""What the runtime tells CloudWatch: embedded metrics of the contract's names, units and dimensions."""

import asyncio
import io
import json
import logging
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI

from scanfleet.api.guard import Guard
from scanfleet.attempts import AttemptRecord, Usage
from scanfleet.contract import ALL_ROUTES, METRIC_FACTS, Component, Dimension, Metric, Pool
from scanfleet.jobs import Failure, FailureClass, Job, JobState
from scanfleet.log_setup import JsonFormatter
from scanfleet.processors.reference import ReferenceProcessor
from scanfleet.reference_processor.progress import SHARES
from scanfleet.telemetry import (
    Transition,
    metrics,
    record_bytes,
    record_stages,
    record_transition,
)

NOW = 1_800_000_000.0


class Lines(logging.Handler):
    """Collects log lines as CloudWatch would get them."""

    def __init__(self):
        super().__init__(logging.INFO)
        self._stream = io.StringIO()
        self.setFormatter(JsonFormatter(Component.AGENT, stage="dev"))

    def emit(self, record):
        self._stream.write(self.format(record) + "\n")

    @property
    def documents(self):
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def values(self, metric):
        """The metric's values as (dimension values..., value), in the contract's order of dimensions."""
        found = []
        for line in self.documents:
            for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
                assert directive["Namespace"] == "Scanfleet/dev"
                for definition in directive["Metrics"]:
                    name = Metric(definition["Name"])
                    unit, wanted = METRIC_FACTS[name]
                    assert definition["Unit"] == unit
                    assert directive["Dimensions"] == [[str(d) for d in wanted]]
                    if name is metric:
                        found.append((*(line[d] for d in wanted), line[name]))
        return found


@pytest.fixture
def lines():
    handler = Lines()
    logger = logging.getLogger("scanfleet")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def job(state, *failures):
    return Job(
        job_id="01J00000000000000000000000",
        owner="ann",
        processor="reference",
        pool=Pool.LINUX_CPU,
        source_uri="s3://scans/in/",
        target_uri="s3://scans/out/",
        state=state,
        created_at=NOW,
        queued_at=NOW,
        state_changed_at=NOW,
        attempt=len(failures),
        failures=tuple(
            Failure(failure_class=f, reason="why", attempt=n, at=datetime.fromtimestamp(NOW, tz=UTC))
            for n, f in enumerate(failures, start=1)
        ),
    )


def record(state, previous, *failures):
    record_transition(Transition(job(state, *failures), previous, 12.5))


# --- Jobs --------------------------------------------------------------------------------------------------


def test_a_change_of_state_measures_the_time_in_the_state_that_was_left(lines):
    record(JobState.PROCESSING, JobState.DOWNLOADING)

    assert lines.values(Metric.STATE_DURATION) == [("linux-cpu", "downloading", 12.5)]
    assert lines.values(Metric.JOB_FINISHED) == []


def test_a_new_job_has_left_no_state(lines):
    record(JobState.QUEUED, None)

    assert lines.values(Metric.STATE_DURATION) == []


@pytest.mark.parametrize("failure_class", FailureClass)
def test_a_job_that_fails_counts_once_under_its_last_failure(lines, failure_class):
    record(JobState.FAILED, JobState.PROCESSING, FailureClass.CRASH, failure_class)

    assert lines.values(Metric.JOB_FAILED) == [("linux-cpu", failure_class, 1)]
    assert lines.values(Metric.JOB_FINISHED) == [("linux-cpu", "failed", 1)]
    assert lines.values(Metric.JOB_RETRIED) == []


def test_a_hang_that_is_retried_counts_as_a_retry_and_not_as_a_failed_job(lines):
    record(JobState.QUEUED, JobState.PROCESSING, FailureClass.HANG)

    assert lines.values(Metric.JOB_RETRIED) == [("linux-cpu", "hang", 1)]
    assert lines.values(Metric.JOB_FAILED) == []


def test_an_owners_retry_of_a_failed_job_is_no_retry_of_an_attempt(lines):
    record(JobState.QUEUED, JobState.FAILED, FailureClass.BAD_INPUT)

    assert lines.values(Metric.JOB_RETRIED) == []
    assert lines.values(Metric.JOB_FAILED) == []


@pytest.mark.parametrize(
    ("state", "previous"),
    [
        (JobState.DOWNLOADING, JobState.DOWNLOADING),
        (JobState.DOWNLOADING, JobState.PROCESSING),
        (JobState.UPLOADING, JobState.UPLOADING),
    ],
)
def test_a_job_taken_over_from_a_silent_agent_counts_as_lost_machine(lines, state, previous):
    record(state, previous, FailureClass.LOST_MACHINE)

    assert lines.values(Metric.JOB_RETRIED) == [("linux-cpu", "lost_machine", 1)]


@pytest.mark.parametrize(
    ("state", "previous"),
    [
        (JobState.DOWNLOADING, JobState.QUEUED),
        (JobState.PROCESSING, JobState.DOWNLOADING),
        (JobState.UPLOADING, JobState.PROCESSING),
        (JobState.COMPLETED, JobState.UPLOADING),
        (JobState.CANCELLED, JobState.PROCESSING),
    ],
)
def test_a_second_attempt_does_not_count_its_predecessors_failure_again(lines, state, previous):
    record(state, previous, FailureClass.LOST_MACHINE)

    assert lines.values(Metric.JOB_RETRIED) == []
    assert lines.values(Metric.JOB_FAILED) == []


@pytest.mark.parametrize("metric", [Metric.BYTES_DOWNLOADED, Metric.BYTES_PUBLISHED])
def test_bytes_are_counted_per_pool(lines, metric):
    record_bytes(metric, job(JobState.PROCESSING), 4096)

    assert lines.values(metric) == [("linux-cpu", 4096)]


# --- Stages ------------------------------------------------------------------------------------------------


def test_each_known_stage_is_timed_and_unknown_ones_are_timed_together(lines):
    seconds = {"read": 1.5, "file 17": 2.0, "file 18": 3.0, "merge": 4.0}

    record_stages(job(JobState.PROCESSING), seconds, known=ReferenceProcessor.stages)

    timed = {stage: spent for _, stage, spent in lines.values(Metric.STAGE_DURATION)}
    assert timed == {"read": 1.5, "other": 5.0, "merge": 4.0}


def test_the_reference_programs_stages_are_those_that_it_announces():
    assert ReferenceProcessor.stages == set(SHARES)


# --- The API -----------------------------------------------------------------------------------------------


@pytest.fixture
def api():
    app = FastAPI()

    @app.get("/job/{job_id}")
    def get_job(job_id: str):
        if job_id == "broken":
            raise RuntimeError("the secret")
        return {}

    @app.get("/status/health")
    def get_health():
        return {}

    app.add_middleware(Guard, hosts=None)
    return app


async def _get(app, path):
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        return await client.get(path)


def get(app, path):
    return asyncio.run(_get(app, path))


def test_requests_are_measured_by_route_template_and_never_by_path(lines, api):
    get(api, "/job/17")
    get(api, "/job/18?token=secret")

    assert [route for route, _ in lines.values(Metric.API_REQUEST_DURATION)] == ["/job/{job_id}"] * 2
    assert lines.values(Metric.API_SERVER_ERROR) == []


def test_paths_that_do_not_exist_are_one_route(lines, api):
    get(api, "/wp-admin.php")
    get(api, "/job/1/2/3")

    assert [route for route, _ in lines.values(Metric.API_REQUEST_DURATION)] == ["unknown"] * 2


def test_a_server_error_counts_for_its_route_and_for_all(lines, api):
    assert get(api, "/job/broken").status_code == 500

    assert lines.values(Metric.API_SERVER_ERROR) == [("/job/{job_id}", 1), (ALL_ROUTES, 1)]


def test_health_checks_that_succeed_are_not_counted(lines, api):
    get(api, "/status/health")

    assert lines.documents == []


# --- What an attempt used, and hangs ----------------------------------------------------------------------


def ended_job(state, *failures, usage, ended_at=NOW):
    record = AttemptRecord(
        attempt=1, agent_id="a", queued_at=NOW, started_at=NOW, ended_at=ended_at, usage=usage
    )
    return job(state, *failures).model_copy(update={"attempts": (record,)})


USED = Usage(
    seconds=60.0,
    cpu_percent_mean=180.0,
    cpu_percent_peak=390.0,
    memory_bytes_peak=2_000_000_000,
    io_bytes=5_000,
    disk_bytes_peak=7_000,
)


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.QUEUED, JobState.CANCELLED, JobState.FAILED])
def test_what_a_program_used_is_told_once_its_attempt_has_ended(lines, state):
    record_transition(Transition(ended_job(state, usage=USED), JobState.PROCESSING, 60.0))

    assert lines.values(Metric.JOB_CPU_MEAN) == [("linux-cpu", 180.0)]
    assert lines.values(Metric.JOB_CPU_PEAK) == [("linux-cpu", 390.0)]
    assert lines.values(Metric.JOB_MEMORY_PEAK) == [("linux-cpu", 2_000_000_000)]
    assert lines.values(Metric.JOB_IO) == [("linux-cpu", 5_000)]
    assert lines.values(Metric.JOB_DISK_PEAK) == [("linux-cpu", 7_000)]
    assert lines.values(Metric.JOB_GPU_MEAN) == lines.values(Metric.JOB_GPU_MEMORY_PEAK) == []


def test_nothing_is_told_of_an_attempt_that_goes_on_or_was_never_measured(lines):
    going_on = ended_job(JobState.UPLOADING, usage=USED, ended_at=None)
    record_transition(Transition(going_on, JobState.PROCESSING, 60.0))
    record_transition(Transition(ended_job(JobState.QUEUED, usage=None), JobState.PROCESSING, 60.0))
    record_transition(Transition(ended_job(JobState.CANCELLED, usage=USED), JobState.QUEUED, 60.0))

    assert not [line for line in lines.documents if line.get("action") == "attempt_measured"]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FAILED])
def test_a_hang_is_counted_whatever_it_leads_to(lines, state):
    record(state, JobState.PROCESSING, FailureClass.HANG)
    record(state, JobState.PROCESSING, FailureClass.CRASH)

    assert lines.values(Metric.HANGS_DETECTED) == [("linux-cpu", 1)]


# --- The contract ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", Metric)
def test_a_metric_with_other_dimensions_than_the_contracts_is_refused(metric):
    _, wanted = METRIC_FACTS[metric]

    with pytest.raises(ValueError, match=metric):
        metrics({metric: 1}, {d: "x" for d in Dimension if d not in wanted})


def test_every_metric_has_a_unit_that_cloudwatch_knows():
    assert {unit for unit, _ in METRIC_FACTS.values()} <= {"Seconds", "Count", "Bytes", "Percent", "None"}
