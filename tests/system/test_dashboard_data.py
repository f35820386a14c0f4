"""Every metric of the dashboards gets data: fifty jobs that end in every way, on the system of `make up`.

The pictures stay in build/dashboards, for whoever wants to see what an operator sees.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import build
from scanfleet.contract import Pool, Priority
from scanfleet.dashboards.body import Dashboard
from scanfleet.dashboards.gaps import ON_ONE_MACHINE, reason_on_one_machine
from scanfleet.dashboards.render import Report, render, reported
from scanfleet.dashboards.sources import chosen, synthesized
from scanfleet.jobs import TERMINAL_STATES, Job, JobState, new_job_id
from scanfleet.local.deploy import LOCAL_STAGE
from scanfleet.local.system import LocalSystem, Plan
from scanfleet.store import JobStore
from tests.support import mixed_jobs
from tests.support.moto_cloud import app_for_moto

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build" / "dashboards"
PERIOD = 10
"""Seconds: the run is shorter than the dashboards' own periods."""
AGENTS, SLOTS = 2, 2


class Run:
    """A local system, and what the tests do with it."""

    def __init__(self, system: LocalSystem, dashboards: list[Dashboard], started: datetime) -> None:
        self.system = system
        self.dashboards = dashboards
        self.started = started
        self.scraped = ""

    def client(self, service: Any) -> Any:
        """Return a client of the emulator."""
        return emulator_client(service, self.system.deployed.endpoint_url)

    def missing(self) -> set[tuple[str, str]]:
        """Return widget and metric of each line that should have data and has none yet."""
        lines = reported(
            self.dashboards,
            self.client("cloudwatch"),
            start=self.started,
            end=datetime.now(tz=UTC) + timedelta(seconds=PERIOD),
            period=PERIOD,
            reason=reason_on_one_machine,
        )
        return {(line.widget, line.metric) for line in Report({}, tuple(lines)).without_data}


def emulator_client(service: Any, endpoint_url: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def wait_until(is_so: Callable[[], Any], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.25)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage local, synthesized with all its stacks."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"stage": LOCAL_STAGE}
    app = app_for_moto(context=context, folder=tmp_path_factory.mktemp("assembly"))
    build(app)
    return Path(app.synth().directory)


@pytest.fixture(scope="module")
def run(assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("system")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(mixed_jobs.REGISTER, str(mixed_jobs.make_register(home / "register")))
        patch.setenv("SCANFLEET_SLOTS", str(SLOTS))
        plan = Plan(
            repo_root=ROOT,
            state=home / "state",
            logs=home / "logs",
            agents=AGENTS,
            is_monitored=True,
            sweep_every=timedelta(seconds=5),
            agent_module=mixed_jobs.AGENT,
            api_module=mixed_jobs.API,
            processor=mixed_jobs.NAME,
        )
        started = datetime.now(tz=UTC)
        with LocalSystem(plan, on_step=lambda _: None) as system:
            clients = [
                emulator_client(name, system.deployed.endpoint_url) for name in ("cloudformation", "sts")
            ]
            bodies = dict(synthesized(assembly, *clients, stage=LOCAL_STAGE))
            yield Run(system, chosen(bodies, LOCAL_STAGE, ()), started)


@pytest.fixture(scope="module")
def done(run: Run) -> Run:
    """All has happened that a system on one machine can meet."""
    forget_to_queue_a_job(run)
    send_nonsense(run)
    submit_and_await_all(run)
    run.scraped = httpx.get(f"{run.system.url}/metrics", timeout=60).raise_for_status().text
    break_the_api(run)
    return run


def submit_and_await_all(run: Run) -> None:
    s3, bucket = run.client("s3"), run.system.deployed.data_bucket
    s3.put_object(Bucket=bucket, Key="in/scan.txt", Body=b"points" * 2000)
    with run.system.client() as client:
        handles = [
            client.submit(
                f"s3://{bucket}/in/", f"s3://{bucket}/out/{kind}-{number}/", settings=settings, **facts
            )
            for kind, (count, settings, facts) in enumerate(mixed_jobs.FIFTY)
            for number in range(count)
        ]
        waiting = {handle.job_id for handle in handles}

        def all_ended() -> bool:
            for job_id in sorted(waiting):
                job = client.get(job_id)
                if job.tags.get(mixed_jobs.CANCELLED) and job.status is JobState.PROCESSING:
                    client.cancel(job_id)
                if job.status in TERMINAL_STATES:
                    waiting.discard(job_id)
            return not waiting

        wait_until(all_ended)


def forget_to_queue_a_job(run: Run) -> None:
    """Record a job whose message was never sent: the sweeper finds it."""
    deployed = run.system.deployed
    job_id, long_ago = new_job_id(), time.time() - 600
    JobStore(run.client("dynamodb"), deployed.job_table).create(
        Job(
            job_id=job_id,
            owner="local",
            processor=mixed_jobs.NAME,
            pool=Pool.LINUX_CPU,
            source_uri=f"s3://{deployed.data_bucket}/in/",
            target_uri=f"s3://{deployed.data_bucket}/out/{job_id}/",
            settings=mixed_jobs.DEFAULTS,
            created_at=long_ago,
            queued_at=long_ago,
            state_changed_at=long_ago,
        )
    )


def send_nonsense(run: Run) -> None:
    """Send a message that no agent understands: it becomes a dead letter."""
    url = run.system.deployed.queues[Pool.LINUX_CPU][Priority.NORMAL]
    run.client("sqs").send_message(QueueUrl=url, MessageBody="nonsense")


def break_the_api(run: Run) -> None:
    """Take away a queue that nobody serves: the load cannot be told any more, and that is a server error."""
    run.client("sqs").delete_queue(QueueUrl=run.system.deployed.queues[Pool.WINDOWS_GPU][Priority.HIGH])
    answer = httpx.get(f"{run.system.url}/status/load", timeout=60)
    assert answer.status_code >= 500, answer.text


def test_every_metric_of_the_dashboards_gets_data(done):
    wait_until(lambda: not done.missing(), seconds=60)


def test_every_metric_that_has_none_has_a_reason_and_every_reason_a_metric(done):
    lines = reported(
        done.dashboards,
        done.client("cloudwatch"),
        start=done.started,
        end=datetime.now(tz=UTC) + timedelta(seconds=PERIOD),
        period=PERIOD,
        reason=reason_on_one_machine,
    )

    used = {line.reason for line in Report({}, tuple(lines)).excused}
    gpu = {gap.reason for gap in ON_ONE_MACHINE if "GPU" in gap.reason}
    assert used | gpu == {gap.reason for gap in ON_ONE_MACHINE}


def test_jobs_ended_in_every_way(done):
    with done.system.client() as client:
        jobs = list(client.jobs(status="all"))
    ends = Counter(job.failure.failure_class if job.status is JobState.FAILED else job.status for job in jobs)

    assert ends == {"completed": 38, "cancelled": 4, "program_error": 6, "bad_input": 2, "hang": 1}


def test_the_pictures_show_the_run(done):
    report = render(
        done.dashboards,
        done.client("cloudwatch"),
        folder=PICTURES,
        start=done.started,
        end=datetime.now(tz=UTC),
        period=PERIOD,
        reason=reason_on_one_machine,
    )

    assert set(report.files) == {
        f"scanfleet-local-{topic}"
        for topic in ("fleet", "jobs", "releases", "api", "pool-linux-cpu", "pool-windows-gpu")
    }
    for file in report.files.values():
        assert Path(file).read_bytes().startswith(b"\x89PNG")
        assert Path(file).stat().st_size > 20_000


def test_prometheus_tells_of_the_same_requests_and_pools(done):
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(done.scraped)
        for sample in family.samples
    }

    assert found["scanfleet_api_request_duration_seconds_count", "/jobs"] == 50
    assert found["scanfleet_slots", Pool.LINUX_CPU.value] == AGENTS * SLOTS
