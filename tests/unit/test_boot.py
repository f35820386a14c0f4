"""From an installed agent to one in service: what user-data leaves to Python."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto import mock_aws

from scanfleet import contract
from scanfleet.agent import boot, main
from scanfleet.agent.boot import Boot, BootRules
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.instance import IDENTITY_PATH, InstanceMetadata
from scanfleet.agent.service_registration import ServiceRegistration, State
from scanfleet.contract import Env, Metric
from scanfleet.errors import ConfigurationError, Unavailable
from scanfleet.settings import AgentSettings
from tests.support.instance_metadata import fake_metadata
from tests.support.lifecycle_hooks import LifecycleActions
from tests.support.service_control import ServiceControl

FLEET = "scanfleet-dev-windows-gpu"
NAME = contract.AGENT_SERVICE
INSTANCE = "i-0abc"
LAUNCH = (FLEET, contract.LAUNCH_HOOK, INSTANCE)
QUICK = BootRules(look=timedelta(), ready=timedelta(seconds=30))
COMMAND = [r"C:\Program Files\Scanfleet\python\python.exe", "-I", "-m", "it", r"C:\ProgramData\it.env"]


class Agent:
    """An agent's status page: `answers`, one a question, the last for ever."""

    def __init__(self) -> None:
        self.answers = [(200, {"status": "ready"})]
        self.asked = 0
        self.port = 0

    def answer(self) -> tuple[int, dict[str, str]]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def agent():
    found = Agent()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = found.answer() if self.path == "/status/health" else (404, {})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.port = server.server_address[1]
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def control():
    return ServiceControl()


@pytest.fixture
def service(control):
    return ServiceRegistration(NAME, sc=control)


@pytest.fixture
def imds():
    identity = {
        "instanceId": INSTANCE,
        "instanceType": "g4dn.xlarge",
        "imageId": "ami-1",
        "availabilityZone": "us-east-1a",
        "region": "us-east-1",
        "pendingTime": (datetime.now(UTC) - timedelta(seconds=200)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    with fake_metadata(**identity) as found:
        yield found


@pytest.fixture
def actions(monkeypatch):
    """Auto Scaling, waiting for this instance's launch hook; the agent's code gets its client."""
    with mock_aws():
        client = boto3.client("autoscaling", region_name="us-east-1")
        found = LifecycleActions(client)
        found.waiting.add(LAUNCH)
        found.member = FleetMember(client, fleet=FLEET, instance_id=INSTANCE)
        monkeypatch.setattr(main, "build_autoscaling_client", lambda region: client)
        yield found


@pytest.fixture
def environment_file(tmp_path, agent, imds, monkeypatch):
    """What user-data writes; its variables are gone after the test."""
    lines = {
        Env.STAGE: "dev",
        Env.JOB_TABLE: "jobs",
        Env.ARTIFACTS_BUCKET: "artifacts",
        Env.ALLOWED_PREFIXES: "s3://data/",
        Env.QUEUES: '{"windows-gpu":{"high":"https://high","normal":"https://normal"}}',
        Env.DEAD_LETTERS: '{"windows-gpu":"https://dead"}',
        Env.POOL: "windows-gpu",
        Env.FLEET: FLEET,
        Env.SCRATCH: str(tmp_path / "scratch"),
        Env.STATUS_HOST: "127.0.0.1",
        "SCANFLEET_STATUS_PORT": str(agent.port),
        "SCANFLEET_METADATA_URL": imds.url,
    }
    for name in lines:
        monkeypatch.setenv(name, "")
    path = tmp_path / "agent.env"
    path.write_text("\n".join(f"{name}={value}" for name, value in lines.items()))
    return path


def settings(agent: Agent) -> AgentSettings:
    return AgentSettings(
        job_table="jobs",
        queues="{}",
        artifacts_bucket="artifacts",
        allowed_prefixes="s3://data/",
        pool="windows-gpu",
        scratch="scratch",
        fleet=FLEET,
        status_port=agent.port,
    )


# --- The service's registration ----------------------------------------------------------------------------


def test_the_service_is_registered_with_a_quoted_command_and_restarts_with_back_off(service, control):
    service.register(COMMAND, display_name="It")

    registered = control.services[NAME]
    assert registered["binPath="] == (
        r'"C:\Program Files\Scanfleet\python\python.exe" -I -m it C:\ProgramData\it.env'
    )
    assert registered["start="] == "demand"
    assert registered["actions="] == "restart/5000/restart/30000/restart/120000"
    assert (registered["reset="], registered["failureflag"]) == ("3600", "1")


def test_a_service_that_exists_is_changed(service, control):
    service.register(COMMAND, display_name="It")
    service.register(["C:\\new.exe"], display_name="It")

    assert control.services[NAME]["binPath="] == "C:\\new.exe"


def test_a_service_that_runs_is_left_running(service, control):
    service.register(COMMAND, display_name="It")
    service.start()
    service.start()

    assert service.status().state == State.RUNNING


def test_a_refusal_says_what_was_asked_and_what_was_answered(service):
    with pytest.raises(Unavailable, match=rf"start {NAME} failed with exit code 1060: .* Why, in words"):
        service.start()


def test_a_machine_without_sc_says_so():
    with pytest.raises(Unavailable, match=r"sc\.exe query it"):
        ServiceRegistration("it").status()


# --- Readiness ---------------------------------------------------------------------------------------------


def test_the_boot_waits_until_the_agent_is_ready(agent, service):
    starting = (503, {"status": "not_ready", "reason": "starting"})
    agent.answers = [starting, starting, (200, {"status": "ready"})]
    one = Boot(settings(agent), service, rules=QUICK)
    one.start_service(COMMAND)

    one.await_ready()

    assert agent.asked == 3


def test_an_agent_that_never_gets_ready_is_given_up_with_its_own_reason(agent, service):
    agent.answers = [(503, {"status": "not_ready", "reason": "no queue answers"})]
    one = Boot(settings(agent), service, rules=BootRules(look=timedelta(), ready=timedelta()))
    one.start_service(COMMAND)

    with pytest.raises(Unavailable, match="not ready after 0 s: no queue answers; its service is RUNNING"):
        one.await_ready()


def test_an_agent_that_does_not_even_answer_is_given_up_with_its_service_exit_code(agent, service, control):
    silent = settings(agent).model_copy(update={"status_port": 1})
    one = Boot(silent, service, rules=BootRules(look=timedelta(), ready=timedelta()))
    one.start_service(COMMAND)
    control.end(NAME, exit_code=70)

    with pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1:1: .* STOPPED, exit code 70"):
        one.await_ready()


def test_a_wrong_setting_ends_the_wait_at_once(agent, service, control):
    agent.answers = [(503, {"reason": "?"})]
    one = Boot(settings(agent), service, rules=QUICK)
    one.start_service(COMMAND)
    control.end(NAME, exit_code=78)

    with pytest.raises(ConfigurationError, match="refuses its settings"):
        one.await_ready()


# --- The launch hook ---------------------------------------------------------------------------------------


def test_a_hook_that_nobody_waits_for_is_no_failure(agent, service, actions):
    actions.waiting.clear()

    Boot(settings(agent), service, rules=QUICK).complete(actions.member)

    assert actions.completed == []


def test_auto_scaling_that_does_not_answer_is_asked_again_and_then_given_up(agent, service, actions):
    actions.is_down = True
    waits = []

    def wait(seconds):
        waits.append(seconds)
        actions.is_down = len(waits) < 2

    Boot(settings(agent), service, rules=QUICK, wait=wait).complete(actions.member)
    assert (waits, actions.completed) == ([5.0, 5.0], [LAUNCH])

    actions.is_down = True
    with pytest.raises(Unavailable):
        Boot(settings(agent), service, rules=QUICK, wait=lambda seconds: None).complete(actions.member)


# --- All of it ---------------------------------------------------------------------------------------------


def test_a_boot_ends_with_an_agent_in_service_and_says_how_long_it_took(
    environment_file, service, control, actions, capfd
):
    boot.run(environment_file, service, rules=QUICK)

    assert control.services[NAME]["state"] == State.RUNNING
    assert control.services[NAME]["binPath="].endswith(
        f"-I -X utf8 -m scanfleet.agent.service {environment_file}"
    )
    assert actions.completed == [LAUNCH]
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (timed,) = [line for line in lines if Metric.BOOT_DURATION in line]
    assert 199 <= timed[Metric.BOOT_DURATION] <= 260
    assert timed["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Scanfleet/dev"
    assert {line["component"] for line in lines} == {"userdata"}


def test_a_metadata_service_that_is_silent_for_a_moment_costs_no_machine(
    environment_file, service, control, actions, imds
):
    imds.is_broken = True

    def wait(seconds):
        imds.is_broken = False

    boot.run(environment_file, service, rules=QUICK, wait=wait)

    assert actions.completed == [LAUNCH]


def test_a_restart_of_windows_long_after_the_launch_counts_as_no_boot(
    environment_file, service, actions, imds, capfd
):
    identity = json.loads(imds.documents[IDENTITY_PATH])
    imds.documents[IDENTITY_PATH] = json.dumps(identity | {"pendingTime": "2026-01-01T00:00:00Z"})

    boot.run(environment_file, service, rules=QUICK)

    assert Metric.BOOT_DURATION not in capfd.readouterr().out


def test_the_launch_time_must_be_readable(imds):
    imds.documents[IDENTITY_PATH] = "{}"

    with pytest.raises(Unavailable, match="launch time"):
        InstanceMetadata(imds.url).launched_at()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SCANFLEET_POOL=mars", "SCANFLEET_POOL"),
        ("SCANFLEET_FLEET=", "SCANFLEET_FLEET"),
        ("no line", "KEY=VALUE"),
    ],
)
def test_a_wrong_environment_ends_the_boot_before_a_service_starts(
    environment_file, service, control, monkeypatch, line, said
):
    environment_file.write_text(f"{environment_file.read_text()}\n{line}\n")
    monkeypatch.setattr("sys.argv", ["boot", str(environment_file)])

    with pytest.raises(SystemExit, match=said):
        boot.main(service=service)

    assert control.services == {}
