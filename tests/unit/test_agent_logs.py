"""What a running agent logs: a real process over moto's server, with two jobs side by side."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from scanfleet.contract import (
    NO_LOG_LEVELS,
    Component,
    Parameter,
    Pool,
    log_group_name,
    parameter_name,
    program_log_stream,
)
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.log_context import new_trace_id
from scanfleet.log_levels import Rule, Scope
from scanfleet.log_levels_store import LogLevelRules
from scanfleet.objects import ObjectStore
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import S3Uri
from scanfleet.store import JobStore
from tests.support.api import ARTIFACTS, DATA, SESSION, clients_of, emulated_aws, make_resources

ROOT = Path(__file__).resolve().parents[2]
STAGE = "dev"
GROUP = log_group_name(STAGE, Component.PROCESSOR)
OF_AN_ATTEMPT = {"job_id", "attempt", "owner", "agent_id", "instance_id", "release", "trace_id"}
GUARD_SECONDS = 120


class Running:
    """An agent that runs, and what it is given to do."""

    def __init__(self, endpoint, clients, resources, folder):
        self.folder = folder
        self.log = folder / "agent.log"
        self.store = JobStore(clients.dynamodb, resources["job_table"])
        self.queues = JobQueues(clients.sqs, resources["queues"], resources["dead_letters"])
        self.objects = ObjectStore(clients.s3)
        session = boto3.Session(**SESSION)
        self.logs = session.client("logs", endpoint_url=endpoint)
        self.ssm = session.client("ssm", endpoint_url=endpoint)
        self.rules = LogLevelRules(lambda: self.ssm, STAGE)

    def submit(self, **settings):
        job_id, now = new_job_id(), time.time()
        self.objects.put_bytes(S3Uri(DATA, f"in/{job_id}/a.txt"), b"input")
        hold = self.folder / f"{job_id}.end"
        job = Job(
            job_id=job_id,
            owner="ann",
            processor="scripted",
            pool=Pool.LINUX_CPU,
            source_uri=f"s3://{DATA}/in/{job_id}/",
            target_uri=f"s3://{DATA}/out/{job_id}/",
            settings={"hold": str(hold), **settings},
            trace_id=new_trace_id(),
            created_at=now,
            queued_at=now,
            state_changed_at=now,
        )
        self.store.create(job)
        self.queues.send(job)
        self.await_state(job, JobState.PROCESSING)
        return job

    def finish(self, job):
        (self.folder / f"{job.job_id}.end").touch()
        return self.await_state(job, JobState.COMPLETED)

    def await_state(self, job, state):
        self.until(lambda: self.store.get(job.job_id).state is state)
        return self.store.get(job.job_id)

    def lines(self, job=None, level=None):
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [
            line
            for line in found
            if (job is None or line.get("job_id") == job.job_id) and (level is None or line["level"] == level)
        ]

    def levels_applied(self):
        return [line for line in self.lines() if line["action"] == "log_levels_changed"]

    def until(self, is_so):
        deadline = time.monotonic() + GUARD_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, self.log.read_text()[-5000:]
            time.sleep(0.05)

    def set_level(self, scope, name, *, seconds):
        now = time.time()
        self.rules.put([Rule(scope, name, "DEBUG", until=now + seconds, at=now)])
        return now + seconds


@pytest.fixture(scope="module")
def agent(tmp_path_factory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("agent")
    with emulated_aws() as endpoint, clients_of(endpoint) as clients:
        resources = make_resources(clients)
        running = Running(endpoint, clients, resources, folder)
        running.ssm.put_parameter(
            Name=parameter_name(STAGE, Parameter.LOG_LEVELS), Value=NO_LOG_LEVELS, Type="String"
        )
        running.logs.create_log_group(logGroupName=GROUP)
        settings = {
            "STAGE": STAGE,
            "JOB_TABLE": resources["job_table"],
            "ARTIFACTS_BUCKET": ARTIFACTS,
            "ALLOWED_PREFIXES": f"s3://{DATA}/",
            "QUEUES": json.dumps(resources["queues"]),
            "DEAD_LETTERS": json.dumps(resources["dead_letters"]),
            "POOL": Pool.LINUX_CPU.value,
            "AGENT_ID": "agent-7",
            "SLOTS": "2",
            "SCRATCH": str(folder / "scratch"),
            "STATUS_PORT": "0",
            "HEARTBEAT_SECONDS": "0.5",
            "RECEIVE_WAIT_SECONDS": "1",
            "LOG_LEVEL_LOOK_SECONDS": "1",
            "PROCESSOR_LOG_GROUP": GROUP,
        }
        environment = {
            **os.environ,
            **{f"SCANFLEET_{name}": value for name, value in settings.items()},
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": SESSION["region_name"],
        }
        with running.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.scripted_agent"],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        try:
            yield running
        finally:
            process.terminate()
            process.wait(60)


def test_each_line_of_an_attempt_says_which_and_whose_it_is_where_it_runs_and_its_trace(agent):
    job = agent.submit()
    agent.finish(job)
    agent.until(lambda: any(line.get("action") == "job_finished" for line in agent.lines(job)))

    every = agent.lines()
    times = [line["time"] for line in agent.lines(job)]
    meanwhile = [line for line in every if times[0] <= line["time"] <= times[-1]]
    # Nothing else was going on, so each line meanwhile was the attempt's.
    assert [line for line in meanwhile if line.get("job_id") != job.job_id] == []
    assert {"job_state_changed", "bytes_moved", "program_started", "program_ended"} <= {
        line["action"] for line in meanwhile
    }
    for line in meanwhile:
        assert line.keys() >= OF_AN_ATTEMPT, line
        assert (line["attempt"], line["owner"], line["agent_id"]) == (1, "ann", "agent-7")
        assert line["trace_id"] == job.trace_id


def test_what_a_program_prints_is_in_a_stream_of_its_job_and_attempt(agent):
    job = agent.submit()
    agent.finish(job)

    def shown():
        found = agent.logs.get_log_events(
            logGroupName=GROUP, logStreamName=program_log_stream(job.job_id, 1), startFromHead=True
        )
        return [event["message"] for event in found["events"]]

    assert shown() == [
        "scanfleet_stage: work",
        "scanfleet_progress: 10",
        "inputs ['a.txt']",
        "scanfleet_progress: 100",
    ]


def test_one_jobs_lines_become_verbose_while_it_runs_and_stop_being_so(agent):
    loud, quiet = agent.submit(), agent.submit()
    agent.set_level(Scope.JOB, loud.job_id, seconds=300)
    agent.until(lambda: {"lease_renewed", "program_seen"} <= actions(agent.lines(loud, "DEBUG")))

    until = agent.set_level(Scope.JOB, loud.job_id, seconds=2)
    agent.until(lambda: agent.levels_applied()[-1]["jobs"] == {})
    assert time.time() >= round(until), "rules are kept in whole seconds"
    last = agent.lines(loud, "DEBUG")[-1]["time"]
    for job in (loud, quiet):
        agent.finish(job)

    assert agent.lines(loud, "DEBUG")[-1]["time"] == last
    assert agent.lines(quiet, "DEBUG") == []
    assert len(agent.lines(None, "DEBUG")) == len(agent.lines(loud, "DEBUG"))
    assert all(line.keys() >= OF_AN_ATTEMPT for line in agent.lines(loud, "DEBUG"))


def test_one_machine_becomes_verbose_while_it_runs(agent):
    before = len(agent.lines(None, "DEBUG"))
    agent.set_level(Scope.MACHINE, "another", seconds=60)
    job = agent.submit()
    assert len(agent.lines(None, "DEBUG")) == before

    agent.set_level(Scope.MACHINE, "agent-7", seconds=60)
    agent.until(lambda: "lease_renewed" in actions(agent.lines(job, "DEBUG")))
    agent.finish(job)


def actions(lines):
    return {line["action"] for line in lines}
