"""How soon a job goes on elsewhere: its agent killed, or stopped, with the default timings.

Two agent processes with one slot each, over the emulator. The job's program waits for a file, so the attempt
lasts as long as it has to. Timed from the signal to the next attempt's start, as its lease says.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.harness import Row
from benchmarks.noop_agent import NoOp
from scanfleet.agent.main import serve
from scanfleet.agent_reports import AgentDirectory
from scanfleet.clients import build_clients
from scanfleet.contract import Component, Pool, Priority
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.local.deploy import start_cloud
from scanfleet.local.processes import Child, Processes
from scanfleet.log_setup import configure_logging
from scanfleet.processors.base import AttemptFolders, Invocation
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import S3Uri
from scanfleet.settings import AgentSettings, load
from scanfleet.store import JobStore

ROOT = Path(__file__).resolve().parent.parent
KILLS = 4
HAND_BACKS = 6
LOOK_SECONDS = 0.02
GIVE_UP_SECONDS = 180.0
PROGRAM = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
pathlib.Path(sys.argv[2], "done.txt").write_text("done")
"""


class Waiting(NoOp):
    """Waits for the file that the setting `until` names."""

    name = "waiting"

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Return the command line."""
        argv = (sys.executable, "-c", PROGRAM, str(job.settings["until"]), str(folders.output))
        return Invocation(argv=argv, cwd=folders.work)


class Bench:
    """The emulator, and agents that come and go."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder, self._processes = folder, processes
        cloud = start_cloud(
            processes=processes,
            repo_root=ROOT,
            state_folder=folder / "state",
            log_file=folder / "emulator.log",
        )
        self._system = cloud.system
        environment = cloud.system.environment()
        os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
        clients = build_clients()
        clients.s3.put_object(Bucket=self._system.data_bucket, Key="in/a.txt", Body=b"x")
        self._store = JobStore(clients.dynamodb, environment["SCANFLEET_JOB_TABLE"], on_transition=_ignore)
        urls = {
            Pool(pool): {Priority(priority): url for priority, url in by_priority.items()}
            for pool, by_priority in json.loads(environment["SCANFLEET_QUEUES"]).items()
        }
        self._queues = JobQueues(clients.sqs, urls)
        self._directory = AgentDirectory(clients.dynamodb, environment["SCANFLEET_JOB_TABLE"])
        self._numbers = count(1)
        self._agents: dict[str, Child] = {}
        for _ in range(2):
            self._start_agent()

    def _start_agent(self) -> None:
        name = f"agent-{next(self._numbers)}"
        own = {
            "SCANFLEET_POOL": Pool.LINUX_CPU.value,
            "SCANFLEET_SCRATCH": str(self._folder / name),
            "SCANFLEET_STATUS_PORT": "0",
            "SCANFLEET_AGENT_ID": name,
        }
        self._agents[name] = self._processes.start(
            name,
            [sys.executable, "-m", "benchmarks.recovery"],
            env={**self._system.process_environment(), **own, "PYTHONPATH": str(ROOT)},
            log_file=self._folder / f"{name}.log",
        )

    def seconds_to_go_on(self, number: signal.Signals) -> float:
        """Return the seconds from this signal to a running job's agent to its next attempt elsewhere."""
        self._await_agents()
        go_on = self._folder / f"go-on-{next(self._numbers)}"
        job = self._submit(go_on)
        running = self._await(job, lambda found: found.state is JobState.PROCESSING)
        time.sleep(0.1 * (next(self._numbers) % 50))  # at another point of the heartbeat each time
        sent_at = time.time()
        os.kill(self._agents.pop(str(running.agent_id)).pid, number)
        again = self._await(job, lambda found: found.attempt == 2 and found.state is not JobState.QUEUED)
        go_on.touch()
        self._start_agent()
        self._await(job, lambda found: found.state is JobState.COMPLETED)
        return (again.started_at or 0.0) - sent_at

    def _await_agents(self) -> None:
        """Wait until both agents serve: the time in which one starts is no part of this."""
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        while not set(self._agents) <= {report.agent_id for report in self._directory.in_service()}:
            if time.monotonic() > give_up_at:
                raise TimeoutError("the agents do not come into service")
            time.sleep(LOOK_SECONDS)

    def _submit(self, go_on: Path) -> Job:
        job_id, now = new_job_id(), time.time()
        prefix = self._system.allowed_prefixes[0]
        job = self._store.create(
            Job(
                job_id=job_id,
                owner="bench",
                processor=Waiting.name,
                pool=Pool.LINUX_CPU,
                source_uri=str(S3Uri.parse_folder(f"{prefix}in/", field="source")),
                target_uri=str(S3Uri.parse_folder(f"{prefix}out/{job_id}/", field="target")),
                settings={"until": str(go_on)},
                created_at=now,
                queued_at=now,
                state_changed_at=now,
            )
        )
        self._queues.send(job)
        return job

    def _await(self, job: Job, is_so: Callable[[Job], bool]) -> Job:
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        while not is_so(found := self._store.get(job.job_id)):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"still {found.state}, attempt {found.attempt}")
            time.sleep(LOOK_SECONDS)
        return found


def rows() -> list[Row]:
    """Return how soon jobs go on."""
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        bench = Bench(Path(folder), processes)
        killed = [bench.seconds_to_go_on(signal.SIGKILL) for _ in range(KILLS)]
        stopped = [bench.seconds_to_go_on(signal.SIGTERM) for _ in range(HAND_BACKS)]
    return [
        Row.limit("killed agent's job starts elsewhere (worst)", max(killed), "s", at_most=60),
        Row.fact("killed agent's job starts elsewhere (median)", median(killed), "s"),
        Row.limit("handed-back job starts elsewhere (worst)", max(stopped), "s", at_most=2),
        Row.fact("handed-back job starts elsewhere (median)", median(stopped), "s"),
    ]


def _ignore(_transition: object) -> None:
    """Say nothing of each change of state."""


if __name__ == "__main__":
    agent_settings = load(AgentSettings)
    configure_logging(Component.AGENT, agent_settings.log_level, stage=agent_settings.stage)
    serve(agent_settings, {Waiting.name: Waiting()})
