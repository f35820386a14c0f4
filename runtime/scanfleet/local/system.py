"""One machine's whole Scanfleet: the emulated cloud, the API, the agents and the sweeper, started and stopped
together.

<state>/emulator/      the emulator's state
        agents/<name>/ each agent's scratch folder
        shipped.json   how far the logs' metrics were shipped
<logs>/<name>.log      what each process logs
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from scanfleet.client import Clock, Scanfleet
from scanfleet.contract import SWEEPER_PERIOD, Component, Env, Pool, log_group_name
from scanfleet.errors import Unavailable
from scanfleet.local.deploy import Cloud, DeployedSystem, start_cloud
from scanfleet.local.emulator import LOOPBACK, free_port
from scanfleet.local.emulator import NAME as EMULATOR
from scanfleet.local.monitoring import LocalMonitoring
from scanfleet.local.processes import Death, LocalModeError, Processes
from scanfleet.local.sweeping import LocalSweeper
from scanfleet.settings import ENV_PREFIX

START_LIMIT = timedelta(seconds=60)
START_POLL_SECONDS = 0.05
POOL = Pool.LINUX_CPU
PROCESSOR = "reference"
TUNING = ("SLOTS", "TIME_LIMIT_", "WATCHDOG_", "BREAKER_", "STOP_GRACE_", "DRAIN_", "MIN_FREE_", "LOG_LEVEL")
"""How settings begin that agents here take from this environment; the others say where things are."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start and where. Port 0 takes a free one."""

    repo_root: Path
    state: Path
    logs: Path
    agents: int = 2
    port: int = 0
    emulator_port: int = 0
    is_monitored: bool = False
    """Whether metrics are put into the emulator's CloudWatch, for dashboards."""
    sweep_every: timedelta = SWEEPER_PERIOD
    agent_module: str = "scanfleet.agent.main"
    api_module: str = "scanfleet.api.main"
    processor: str = PROCESSOR
    """The default one; tests start agents and an API that know another."""


def tuning(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the agents' settings that a person chose in this environment, without their prefix."""
    begin = tuple(ENV_PREFIX + name for name in TUNING)
    return {
        name.removeprefix(ENV_PREFIX): value for name, value in environment.items() if name.startswith(begin)
    }


class WatchfulClock(Clock):
    """The client's clock, whose sleep ends with an error as soon as a part of the system has died."""

    def __init__(self, processes: Processes, died: threading.Event) -> None:
        self._processes = processes
        self._died = died

    def sleep(self, seconds: float) -> None:
        """Return after this long. Raises LocalModeError when a part has died."""
        self._died.wait(seconds)
        self._processes.raise_if_dead()


class LocalSystem:
    """Starts everything on entering and stops everything on leaving, whatever happened in between."""

    def __init__(self, plan: Plan, *, on_step: Callable[[str], None]) -> None:
        self._plan = plan
        self._on_step = on_step
        self._died = threading.Event()
        self.processes = Processes(on_death=self._on_death)
        self._cloud: Cloud | None = None
        self._sweeper: LocalSweeper | None = None
        self._monitoring: LocalMonitoring | None = None
        self.url = ""

    @property
    def deployed(self) -> DeployedSystem:
        """Return where the deployed parts are."""
        assert self._cloud is not None, "not started"
        return self._cloud.system

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if isinstance(error, Unavailable):
            # A part that died is the better explanation of why something did not answer.
            self.processes.raise_if_dead()

    def client(self) -> Scanfleet:
        """Return a client of the API that notices at once when a part of the system dies."""
        return Scanfleet(self.url, clock=WatchfulClock(self.processes, self._died))

    def _stop(self) -> None:
        """Stop the agents and the API side by side, then what ships their last lines, then the emulator."""
        if self._sweeper is not None:
            self._sweeper.stop()
        self.processes.stop(*(child.name for child in self.processes.running() if child.name != EMULATOR))
        if self._monitoring is not None:
            self._monitoring.stop()
        self.processes.stop_all()
        if self._cloud is not None:
            self._cloud.emulator.release()

    def _on_death(self, _death: Death) -> None:
        self._died.set()

    def _start(self) -> None:
        plan = self._plan
        self._on_step("emulated cloud and data stack")
        self._cloud = start_cloud(
            processes=self.processes,
            repo_root=plan.repo_root,
            state_folder=plan.state / "emulator",
            log_file=plan.logs / "emulator.log",
            port=plan.emulator_port,
        )
        self._on_step("API and agents")
        port = plan.port or free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        for number in range(1, plan.agents + 1):
            self._start_agent(f"agent-{number}")
        self._start_program("api", plan.api_module, {"HOST": LOOPBACK, "PORT": str(port)})
        self._await_ready()
        self._sweeper = LocalSweeper(
            self.deployed, log_file=plan.logs / "sweeper.log", every=plan.sweep_every
        )
        self._sweeper.start()
        if plan.is_monitored:
            self._monitoring = LocalMonitoring(self.deployed, logs=plan.logs, state=plan.state)
            self._monitoring.start()

    def _start_agent(self, name: str) -> None:
        settings = tuning(os.environ) | {
            "POOL": POOL.value,
            "AGENT_ID": name,
            "SCRATCH": str(self._plan.state / "agents" / name),
            "STATUS_PORT": "0",
            "PROCESSOR_LOG_GROUP": log_group_name(self.deployed.stage, Component.PROCESSOR),
            # A poll under way delays the stop by this much; on one machine polls cost nothing.
            "RECEIVE_WAIT_SECONDS": "1",
        }
        self._start_program(name, self._plan.agent_module, settings)

    def _start_program(self, name: str, module: str, settings: dict[str, str]) -> None:
        own = {ENV_PREFIX + key: value for key, value in settings.items()}
        environment = {
            **self.deployed.process_environment(),
            Env.DEFAULT_PROCESSOR.value: self._plan.processor,
            "PYTHONUNBUFFERED": "1",
            **own,
        }
        self.processes.start(
            name,
            [sys.executable, "-m", module],
            env=environment,
            log_file=self._plan.logs / f"{name}.log",
        )

    def _await_ready(self) -> None:
        """Return once the API answers and sees every agent."""
        give_up = monotonic() + START_LIMIT.total_seconds()
        with self.client() as client:
            while monotonic() < give_up:
                with suppress(Unavailable):  # not listening yet
                    if len(client.load().instances) >= self._plan.agents:
                        client.health()
                        return
                self._died.wait(START_POLL_SECONDS)
                self.processes.raise_if_dead()
        raise LocalModeError(
            f"the API and {self._plan.agents} agents were not ready within"
            f" {START_LIMIT.total_seconds():.0f} s; their logs are in {self._plan.logs}"
        )
