"""The agent as a Windows service, under a service control manager that keeps Windows' rules."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import boto3
import httpx
import pytest

from scanfleet import contract, log_setup
from scanfleet.agent.log_files import BoundedFile, log_files
from scanfleet.agent.service import program, read_environment
from scanfleet.agent.service_host import (
    ERROR_CALL_NOT_IMPLEMENTED,
    ERROR_SERVICE_SPECIFIC_ERROR,
    FAILED_EXIT_CODE,
    NO_ERROR,
    REPORT_EVERY,
    WAIT_HINT,
    Control,
    ServiceState,
)
from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.clients import build_autoscaling_client, build_clients
from scanfleet.contract import Component, Pool, Priority
from scanfleet.errors import ConfigurationError
from scanfleet.log_setup import configure_logging
from tests.support.cloud import create_job_table
from tests.support.instance_metadata import FakeMetadata, fake_metadata
from tests.support.lifecycle_hooks import LifecycleActions, create_group
from tests.support.moto_fleet import moto_server
from tests.support.service_manager import Refused, ServiceManager

FAST = timedelta(seconds=0.01)


class Serving:
    """A program that serves until a stop was asked for and `may_end` is set."""

    def __init__(self):
        self.may_serve, self.asked, self.may_end = (threading.Event() for _ in range(3))
        self.error = None

    def __call__(self, *, on_serving, on_stop):
        on_stop(self.asked.set)
        assert self.may_serve.wait(20)
        if self.error:
            raise self.error
        on_serving()
        assert self.asked.wait(20)
        assert self.may_end.wait(20)


@pytest.fixture
def serving():
    return Serving()


@pytest.fixture
def manager(serving):
    found = ServiceManager()
    found.start(serving, every=FAST)
    yield found
    for event in (serving.may_serve, serving.asked, serving.may_end):
        event.set()
    found.end()


def test_a_slow_start_shows_progress_until_the_agent_serves(manager, serving):
    manager.await_status(lambda status: status.check_point >= 3)
    with pytest.raises(Refused):
        manager.ask(Control.STOP)

    serving.may_serve.set()

    assert manager.await_state(ServiceState.RUNNING).wait_hint == timedelta()


@pytest.mark.parametrize("control", [Control.STOP, Control.PRESHUTDOWN])
def test_a_stop_shows_progress_while_the_agent_drains_and_then_ends_well(manager, serving, control):
    serving.may_serve.set()
    manager.await_state(ServiceState.RUNNING)

    assert manager.ask(control) == NO_ERROR
    draining = manager.await_status(lambda status: status.check_point >= 3)
    assert (draining.state, draining.wait_hint) == (ServiceState.STOP_PENDING, WAIT_HINT)
    assert serving.asked.wait(20)
    serving.may_end.set()

    assert manager.await_state(ServiceState.STOPPED).exit_code == NO_ERROR
    assert not manager.would_restart()


def test_an_agent_that_ends_by_itself_stops_without_an_error(manager, serving):
    serving.may_serve.set()
    manager.await_state(ServiceState.RUNNING)

    serving.asked.set()  # as when Auto Scaling takes the machine
    serving.may_end.set()

    assert manager.await_state(ServiceState.STOPPED).exit_code == NO_ERROR


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("broken"), FAILED_EXIT_CODE), (SystemExit(78), 78), (SystemExit("no"), 1)],
)
def test_a_crash_is_reported_with_a_code_of_ours_so_that_windows_starts_the_service_again(
    manager, serving, error, code
):
    serving.error = error
    serving.may_serve.set()

    ended = manager.await_state(ServiceState.STOPPED)

    assert (ended.exit_code, ended.specific_code) == (ERROR_SERVICE_SPECIFIC_ERROR, code)
    assert manager.would_restart()
    assert manager.host.control(Control.STOP) == NO_ERROR  # too late, and harmless


def test_reports_come_well_within_the_wait_hint():
    assert REPORT_EVERY * 5 <= WAIT_HINT


def test_a_stop_that_comes_with_the_end_is_never_reported_after_it(manager, serving):
    serving.may_serve.set()
    manager.await_state(ServiceState.RUNNING)
    serving.asked.set()
    serving.may_end.set()
    manager.await_state(ServiceState.STOPPED)

    manager.host.control(Control.STOP)

    assert manager.statuses[-1].state is ServiceState.STOPPED


def test_controls_that_were_not_asked_for_are_answered_as_windows_expects(manager, serving):
    serving.may_serve.set()
    manager.await_state(ServiceState.RUNNING)

    assert manager.ask(Control.INTERROGATE) == NO_ERROR
    assert manager.ask(2) == ERROR_CALL_NOT_IMPLEMENTED  # pause
    assert manager.statuses[-1].state is ServiceState.RUNNING


def test_the_manager_of_these_tests_sees_a_broken_rule(manager, serving):
    serving.may_serve.set()
    manager.await_state(ServiceState.RUNNING)

    manager.host._enter(ServiceState.START_PENDING)

    assert manager.broken == [f"{ServiceState.RUNNING} -> {ServiceState.START_PENDING}"]
    manager.broken.clear()
    manager.host._enter(ServiceState.RUNNING)


def test_nothing_slow_is_imported_before_the_service_connects():
    code = "import sys, scanfleet.agent.service; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"boto3", "botocore", "pydantic", "httpx"} & set(loaded.stdout.split())


def test_the_environment_file_is_read_as_user_data_writes_it(tmp_path):
    file = tmp_path / "agent.env"
    text = '\ufeff# written at boot\r\n\r\nSCANFLEET_QUEUES={"a": {"b": "c=d"}}\r\nAWS_REGION = us-east-1\r\n'
    file.write_text(text, encoding="utf-8")

    assert read_environment(file) == {"SCANFLEET_QUEUES": '{"a": {"b": "c=d"}}', "AWS_REGION": "us-east-1"}


def test_a_line_that_is_no_setting_is_named_with_its_number(tmp_path):
    file = tmp_path / "agent.env"
    file.write_text("A=1\nnonsense\n")

    with pytest.raises(ValueError, match=r"line 2: KEY=VALUE is needed, not 'nonsense'"):
        read_environment(file)


def test_a_service_without_its_settings_says_so_in_the_log_file_and_to_windows(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("SCANFLEET_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    file = tmp_path / "agent.env"
    file.write_text(f"SCANFLEET_LOG_FOLDER={tmp_path / 'logs'}\nSCANFLEET_POOL=windows-gpu\n")
    manager = ServiceManager()

    manager.start(program(file), every=FAST)
    manager.end()

    assert manager.statuses[-1].specific_code == 78
    (line,) = (tmp_path / "logs" / "agent.jsonl").read_text().splitlines()
    assert "SCANFLEET_JOB_TABLE" in json.loads(line)["message"]
    for handler in logging.getLogger().handlers:
        handler.close()


# --- The whole agent as a service --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def machine(endpoint, tmp_path, monkeypatch):
    """An instance of a fleet: what user-data wrote for it, and its metadata."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    account = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    os.environ.update(account)
    fleet = f"fleet-{tmp_path.name}"
    instance_id = create_group(boto3.Session(), fleet)
    clients = build_clients()
    create_job_table(clients.dynamodb, fleet)
    for bucket in ("artifacts", "data"):
        clients.s3.create_bucket(Bucket=bucket)
    urls = {
        priority.value: clients.sqs.create_queue(QueueName=f"{priority}-{tmp_path.name}")["QueueUrl"]
        for priority in Priority
    }
    with fake_metadata(
        instanceId=instance_id,
        instanceType="g4dn.xlarge",
        imageId="ami-1",
        availabilityZone="us-east-1a",
        region="us-east-1",
    ) as metadata:
        metadata.want("InService")
        found = Machine(
            fleet=fleet,
            instance_id=instance_id,
            metadata=metadata,
            directory=AgentDirectory(clients.dynamodb, fleet),
            logs=tmp_path / "logs",
            file=tmp_path / "agent.env",
            settings={
                **account,
                "SCANFLEET_STAGE": "dev",
                "SCANFLEET_JOB_TABLE": fleet,
                "SCANFLEET_ARTIFACTS_BUCKET": "artifacts",
                "SCANFLEET_QUEUES": json.dumps({"linux-cpu": urls, "windows-gpu": urls}),
                "SCANFLEET_DEAD_LETTERS": json.dumps(dict.fromkeys(Pool, "https://dead")),
                "SCANFLEET_ALLOWED_PREFIXES": "s3://data/",
                "SCANFLEET_POOL": "linux-cpu",
                "SCANFLEET_SCRATCH": str(tmp_path / "scratch"),
                "SCANFLEET_LOG_FOLDER": str(tmp_path / "logs"),
                "SCANFLEET_STATUS_PORT": "0",
                "SCANFLEET_RECEIVE_WAIT_SECONDS": "1",
                "SCANFLEET_FLEET": fleet,
                "SCANFLEET_METADATA_URL": metadata.url,
            },
        )
        yield found
        for manager in found.managers:
            manager.host.control(Control.STOP)
            manager.end()
    for handler in logging.getLogger().handlers:
        handler.close()


@dataclass(frozen=True, kw_only=True)
class Machine:
    fleet: str
    instance_id: str
    metadata: FakeMetadata
    directory: AgentDirectory
    logs: Path
    file: Path
    settings: dict[str, str]
    managers: list[ServiceManager] = field(default_factory=list)

    def start(self, **changed: str) -> ServiceManager:
        self.file.write_text(
            "".join(f"{name}={text}\n" for name, text in {**self.settings, **changed}.items())
        )
        manager = ServiceManager()
        self.managers.append(manager)
        manager.start(program(self.file), every=FAST)
        return manager

    def lines(self) -> list[dict[str, object]]:
        """What the agent did; moto's server logs through this process, too."""
        found = map(json.loads, (self.logs / "agent.jsonl").read_text().splitlines())
        return [line for line in found if "action" in line]

    def await_report(self) -> AgentReport:
        deadline = time.monotonic() + 20
        while not (reports := self.directory.in_service()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return reports[0]

    def health(self) -> tuple[int, str]:
        (port,) = (line["status_port"] for line in self.lines() if line["action"] == "agent_started")
        answer = httpx.get(f"http://127.0.0.1:{port}{contract.Route.HEALTH}")
        return answer.status_code, answer.text

    def await_health(self, is_so: Callable[[int, str], bool]) -> None:
        deadline = time.monotonic() + 60
        while not is_so(*(found := self.health())):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def instance(self) -> dict[str, object]:
        groups = boto3.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[self.fleet])
        return groups["AutoScalingGroups"][0]["Instances"][0]


def test_a_service_on_an_instance_reports_it_and_stops_when_windows_asks(machine):
    manager = machine.start()
    manager.await_state(ServiceState.RUNNING)
    report = machine.await_report()
    manager.ask(Control.PRESHUTDOWN)
    manager.end()

    assert (report.agent_id, report.instance_id) == (machine.instance_id, machine.instance_id)
    assert (report.instance_type, report.ami_id) == ("g4dn.xlarge", "ami-1")
    assert manager.statuses[-1].exit_code == NO_ERROR
    actions = [line["action"] for line in machine.lines()]
    assert {"agent_started", "service_stopping", "agent_stopped"} <= set(actions)
    assert machine.directory.in_service() == ()


def test_a_service_ends_by_itself_when_the_group_terminates_its_instance(machine, monkeypatch):
    def with_hooks(region):
        client = build_autoscaling_client(region)
        calls.append(LifecycleActions(client))
        calls[0].waiting.add(drain)
        return client

    calls: list[LifecycleActions] = []
    drain = (machine.fleet, contract.TERMINATE_HOOK, machine.instance_id)
    monkeypatch.setattr("scanfleet.agent.main.build_autoscaling_client", with_hooks)
    manager = machine.start()
    manager.await_state(ServiceState.RUNNING)
    machine.await_report()

    machine.metadata.want("Terminated")
    manager.end()

    assert manager.statuses[-1].exit_code == NO_ERROR
    assert calls[0].completed == [drain]
    assert machine.directory.in_service() == ()


def test_a_wrong_setting_gives_the_instance_up(machine):
    manager = machine.start(SCANFLEET_ALLOWED_PREFIXES="s3://Data_/")
    manager.end()

    assert manager.statuses[-1].specific_code == 78
    assert machine.instance()["HealthStatus"] == "Unhealthy"
    (given_up,) = [line for line in machine.lines() if line["action"] == "instance_unhealthy"]
    assert "s3://Data_/" in given_up["reason"]


def test_an_agent_without_its_pools_program_says_so_and_serves_once_it_is_there(machine, tmp_path):
    folder = tmp_path / "Medit"
    folder.mkdir()
    manager = machine.start(
        SCANFLEET_POOL="windows-gpu", SCANFLEET_MEDIT_RELEASE_FOLDER=str(folder), SCANFLEET_NEEDS_GPU="false"
    )
    manager.await_state(ServiceState.RUNNING)
    machine.await_health(lambda status, body: status == 503 and "Medit_AutoTest.exe" in body)
    assert machine.await_report().is_suspended

    (folder / "Medit_AutoTest.exe").write_bytes(b"MZ")

    machine.await_health(lambda status, _: status == 200)
    (failed,) = [line for line in machine.lines() if line["action"] == "check_failed"]
    assert failed["to_do"]


def test_the_health_page_says_ready_once_the_agent_serves(machine):
    manager = machine.start()
    manager.await_state(ServiceState.RUNNING)
    machine.await_report()
    machine.await_health(lambda status, body: (status, body) == (200, '{"status": "ready"}'))
    manager.ask(Control.STOP)
    manager.end()


# --- Log files ---------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    monkeypatch.setattr(sys, "stderr", None)  # as in a service
    configure_logging(Component.AGENT, "INFO", stage="dev", files=log_files(tmp_path / "logs"))
    yield tmp_path / "logs"
    for handler in logging.getLogger().handlers:
        handler.close()


def test_events_of_jobs_and_the_agents_own_are_in_files_of_their_own(logs):
    logging.getLogger("x").info("job is queued", extra={"action": "job_state_changed"})
    logging.getLogger("x").info("agent serves", extra={"action": "agent_started"})

    (job,) = map(json.loads, (logs / "jobs.jsonl").read_text().splitlines())
    (own,) = map(json.loads, (logs / "agent.jsonl").read_text().splitlines())
    assert (job["component"], job["action"]) == ("jobs", "job_state_changed")
    assert (own["component"], own["action"]) == ("agent", "agent_started")


def test_every_job_action_is_one_that_the_runtime_logs():
    source = (Path(log_setup.__file__).with_name("telemetry.py")).read_text()

    assert [action for action in log_setup.JOB_ACTIONS if f'"{action}"' not in source] == []


def test_log_files_take_bounded_space(tmp_path):
    file = BoundedFile(tmp_path / "x.jsonl", file_bytes=1000, older_files=2)
    for number in range(200):
        file.emit(logging.makeLogRecord({"msg": f"line {number:04}" + "." * 80}))
    file.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl", "x.jsonl.1", "x.jsonl.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * 1000
    assert "line 0199" in (tmp_path / "x.jsonl").read_text()


def test_a_file_that_cannot_be_renamed_goes_on_and_stays_bounded(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, "the process cannot access the file")

    path = tmp_path / "x.jsonl"
    file = BoundedFile(path, file_bytes=1000, older_files=2)
    with monkeypatch.context() as while_open:
        while_open.setattr(os, "rename", refuse)
        sizes = []
        for number in range(100):
            file.emit(logging.makeLogRecord({"msg": f"line {number:04}" + "." * 80}))
            sizes.append(path.stat().st_size)
            assert path.read_text().endswith(f"line {number:04}" + "." * 80 + "\n")
    assert 1000 < max(sizes) <= 2250

    for _ in range(30):
        file.emit(logging.makeLogRecord({"msg": "." * 80}))
    file.close()
    assert (tmp_path / "x.jsonl.1").exists()


def test_a_log_folder_that_cannot_be_written_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="log files cannot be written"):
        log_files(tmp_path / "file")


# --- Stopping on POSIX -------------------------------------------------------------------------------------


def test_a_second_signal_hands_running_jobs_back_at_once():
    from scanfleet.agent.main import Stop, stop_on_signals

    graces, seen = [], threading.Semaphore(0)

    class Worker:
        def drain(self, grace):
            graces.append(grace)
            seen.release()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop_on_signals(Stop(Worker(), contract.DRAIN_GRACE))
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen.acquire(timeout=20)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert graces == [contract.DRAIN_GRACE, timedelta(), timedelta()]
