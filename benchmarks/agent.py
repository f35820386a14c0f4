"""What the agent itself costs: time from submission to program start, CPU time a job, idle memory, and how
soon a cancelled program is gone (cancel.py).

An API in this process and one agent process with one slot, over the emulator. Jobs go in one at a time, so
there always is a free slot.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
import uvicorn

from benchmarks import cancel
from benchmarks.harness import Row, children_cpu
from benchmarks.noop_agent import STARTED_NAME, NoOp, command
from scanfleet.api.app import create_app
from scanfleet.api.services import services_over
from scanfleet.client import Scanfleet
from scanfleet.clients import Clients, build_clients
from scanfleet.contract import MANIFEST_NAME, Pool
from scanfleet.local.deploy import start_cloud
from scanfleet.local.emulator import LOOPBACK, free_port
from scanfleet.local.processes import Processes
from scanfleet.settings import ApiSettings

ROOT = Path(__file__).resolve().parent.parent
JOBS = 40
WARM_UP_JOBS = 5
SERVER_START_SECONDS = 0.05


def rows() -> list[Row]:
    """Return the agent's figures."""
    with tempfile.TemporaryDirectory() as folder, Processes() as processes:
        return _measure(Path(folder), processes)


def _measure(folder: Path, processes: Processes) -> list[Row]:
    cloud = start_cloud(
        processes=processes, repo_root=ROOT, state_folder=folder / "state", log_file=folder / "emulator.log"
    )
    environment = cloud.system.environment()
    own = {
        "SCANFLEET_POOL": Pool.LINUX_CPU.value,
        "SCANFLEET_SCRATCH": str(folder / "scratch"),
        "SCANFLEET_STATUS_PORT": "0",
        "SCANFLEET_AGENT_ID": "bench",
    }
    agent = processes.start(
        "agent",
        [sys.executable, "-m", "benchmarks.noop_agent"],
        env={**cloud.system.process_environment(), **own, "PYTHONPATH": str(ROOT)},
        log_file=folder / "agent.log",
    )
    session = _session(environment)
    settings = ApiSettings.model_validate(_values(environment) | {"default_processor": NoOp.name})
    with _api(session, settings) as client:
        while not client.load().instances:
            agent.ended.wait(SERVER_START_SECONDS)
            processes.raise_if_dead()
        process = psutil.Process(agent.pid)
        idle_bytes = process.memory_info().rss
        source = f"{cloud.system.allowed_prefixes[0]}in/"
        session.s3.put_object(Bucket=cloud.system.data_bucket, Key="in/a.txt", Body=b"x")
        latencies = [_run_job(client, session, source, number) for number in range(WARM_UP_JOBS)]
        before = _own_cpu(process)
        latencies = [
            _run_job(client, session, source, number) for number in range(WARM_UP_JOBS, WARM_UP_JOBS + JOBS)
        ]
        cpu = (_own_cpu(process) - before) / JOBS
    bare = _bare_cpu(folder)
    return [
        Row.limit("submit to program start, free slot (median)", 1000 * median(latencies), "ms", at_most=300),
        Row.fact("submit to program start, free slot (worst)", 1000 * max(latencies), "ms"),
        Row.against(
            "agent's own CPU time per no-op job",
            1000 * cpu,
            "ms",
            peer="subprocess.run",
            peer_value=1000 * bare,
            at_most=3.0,
        ),
        Row.limit("agent's resident memory, idle", idle_bytes / 2**20, "MiB", at_most=100),
        *cancel.rows(),
    ]


def _run_job(client: Scanfleet, clients: Clients, source: str, number: int) -> float:
    """Return the seconds from before the request to the program's first line."""
    target = source.replace("/in/", f"/out/{number}/")
    submitted = time.time()
    job = client.submit(source, target, processor=NoOp.name).wait(raise_on_failure=True)
    bucket, _, prefix = job.target.removeprefix("s3://").partition("/")
    assert clients.s3.head_object(Bucket=bucket, Key=prefix + MANIFEST_NAME)
    started = clients.s3.get_object(Bucket=bucket, Key=prefix + STARTED_NAME)["Body"].read()
    return float(started) - submitted


def _own_cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _bare_cpu(folder: Path) -> float:
    """Return the CPU seconds of one bare run of the same program, starting it included."""
    argv = command(folder)
    before = time.process_time() + children_cpu()
    for _ in range(JOBS):
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return (time.process_time() + children_cpu() - before) / JOBS


def _values(environment: dict[str, str]) -> dict[str, str]:
    prefix = "SCANFLEET_"
    return {n.removeprefix(prefix).lower(): v for n, v in environment.items() if n.startswith(prefix)}


def _session(environment: dict[str, str]) -> Clients:
    import os

    os.environ.update({n: v for n, v in environment.items() if n.startswith("AWS_")})
    return build_clients()


@contextmanager
def _api(clients: Clients, settings: ApiSettings) -> Iterator[Scanfleet]:
    services = services_over(clients, settings, processors={NoOp.name: NoOp()}, clock=time.time)
    port = free_port()
    config = uvicorn.Config(create_app(services, settings), host=LOOPBACK, port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with Scanfleet(f"http://{LOOPBACK}:{port}") as client:
            while not server.started:
                time.sleep(SERVER_START_SECONDS)
            yield client
    finally:
        server.should_exit = True
        thread.join()
