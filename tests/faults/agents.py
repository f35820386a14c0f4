"""The agents of a campaign: real processes, killed, frozen, drained and started again.

Each has a proxy, an instance metadata service and a small disk of its own. A machine that is terminated comes
back as another one, with another name; an agent that dies is started again on the same machine.
"""

import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from tests.faults import agent_entry
from tests.faults.disk import Disk
from tests.faults.kept import start_module
from tests.faults.processor import REGISTER
from tests.faults.proxy import Proxies, Proxy
from tests.faults.world import POOL, RELEASES, World
from tests.support.instance_metadata import FakeMetadata, fake_metadata

SLOTS = 2
LEASE_SECONDS = 4.0
TIMING = {
    "SCANFLEET_HEARTBEAT_SECONDS": "0.5",
    "SCANFLEET_LEASE_SECONDS": str(LEASE_SECONDS),
    "SCANFLEET_VISIBILITY_SECONDS": "5",
    "SCANFLEET_STOP_GRACE_SECONDS": "0.5",
    "SCANFLEET_RECEIVE_WAIT_SECONDS": "1",
    "SCANFLEET_DRAIN_SECONDS": "1",
    "SCANFLEET_TIME_LIMIT_SECONDS": "60",
    "SCANFLEET_MIN_FREE_BYTES": str(4 * 1024**2),
}
RESTART_SECONDS = 0.5
STOP_SECONDS = 20.0
MAX_UNEXPECTED = 5


class Agent:
    """One machine's place in the fleet. `who` names the machine that is there now."""

    def __init__(self, number: int, proxy: Proxy, folder: Path) -> None:
        self.name = f"agent-{number}"
        self.proxy = proxy
        self.folder = folder
        self.machine = 0
        self.lock = threading.RLock()
        self.process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False
        self.started_at = 0.0
        self.died_at: float | None = None
        self.is_machine_lost = False
        self.frozen_times: list[tuple[float, float]] = []
        self.scratch = Disk(folder / "scratch")
        self.control = folder / "clock"
        self.control.write_bytes(struct.pack("<d", 0.0))
        self.metadata: FakeMetadata | None = None
        self._metadata_stack = ExitStack()
        self.new_machine()

    @property
    def who(self) -> str:
        """Return the instance's id."""
        return f"i-{self.name}-{self.machine}"

    def new_machine(self) -> None:
        """Become another instance."""
        self._metadata_stack.close()
        self.machine += 1
        self.is_machine_lost = False
        self.set_clock(0.0)
        self.metadata = self._metadata_stack.enter_context(
            fake_metadata(
                instanceId=self.who,
                instanceType="m7i.large",
                imageId="ami-faults",
                availabilityZone="us-east-1a",
                region="us-east-1",
            )
        )

    def set_clock(self, offset: float) -> None:
        """Move the agent's wall clock by so many seconds from the right time."""
        with self.control.open("r+b") as file:
            file.write(struct.pack("<d", offset))

    def tree(self) -> list[int]:
        """Return the agent's process id and those of everything below it, parents first."""
        if self.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [self.process.pid, *(child.pid for child in below)]
        return []

    @property
    def is_alive(self) -> bool:
        """Say whether it runs and can be hit."""
        return self.process is not None and self.process.poll() is None

    def close(self) -> None:
        """Give everything back."""
        self._metadata_stack.close()
        self.scratch.close()


class Agents:
    """The fleet. `tick` starts again what died; call it often, from the harness's main thread."""

    def __init__(self, *, count: int, world: World, proxies: Proxies, folder: Path, broken: str = "") -> None:
        self._world = world
        self._folder = folder
        self._broken = broken
        self.register = folder / "register"
        self.register.mkdir(parents=True)
        self.unexpected: list[str] = []
        """Ends of agents that nobody asked for."""
        self.members = []
        for n in range(1, count + 1):
            self.members.append(Agent(n, proxies.add(f"agent-{n}"), folder / "machines" / f"agent-{n}"))

    def by_who(self, who: str) -> Agent | None:
        """Return the agent that is this instance now."""
        return next((agent for agent in self.members if agent.who == who), None)

    def tick(self) -> None:
        """Start what is not running, some time after it died."""
        now = time.monotonic()
        for agent in self.members:
            with agent.lock:
                if agent.is_alive:
                    continue
                if agent.process is not None and agent.died_at is None:
                    agent.died_at = now
                    self._note_end(agent, agent.process.returncode)
                if agent.died_at is None or now - agent.died_at >= RESTART_SECONDS:
                    self._start(agent)

    def _note_end(self, agent: Agent, code: int) -> None:
        """An agent ends by SIGKILL or because it was told to; anything else it did by itself."""
        if code not in (0, -signal.SIGKILL):
            self.unexpected.append(f"{agent.who} ended by itself: {code}; see {agent.name}.log")
        if len(self.unexpected) > MAX_UNEXPECTED:
            raise RuntimeError(f"agents do not run: {self.unexpected}")

    def _start(self, agent: Agent) -> None:
        if agent.is_machine_lost:
            agent.new_machine()
        agent.died_at = None
        agent.is_frozen = False
        agent.proxy.who = agent.who
        environment = self._world.system_at(agent.proxy.url).process_environment() | TIMING
        assert agent.metadata is not None
        environment |= {
            "SCANFLEET_POOL": POOL.value,
            "SCANFLEET_SLOTS": str(SLOTS),
            "SCANFLEET_SCRATCH": str(agent.scratch.folder),
            "SCANFLEET_STATUS_PORT": "0",
            "SCANFLEET_FLEET": "faults",
            "SCANFLEET_MEDIT_RELEASES": str(agent.folder / "releases"),
            "SCANFLEET_RELEASE_BUCKET": RELEASES,
            "SCANFLEET_RELEASE_LOOK_SECONDS": "0.5",
            "SCANFLEET_METADATA_URL": agent.metadata.url,
            REGISTER: str(self.register),
            agent_entry.CONTROL: str(agent.control),
            agent_entry.BROKEN: self._broken,
        }
        agent.process = start_module(
            "agent_entry", environment=environment, log_file=self._folder / "logs" / f"{agent.name}.log"
        )
        agent.started_at = time.monotonic()

    def kill(self, agent: Agent) -> bool:
        """End the agent by SIGKILL; False when there is none to hit."""
        with agent.lock:
            if not agent.is_alive or agent.is_frozen:
                return False
            assert agent.process is not None
            agent.process.kill()
            return True

    def freeze(self, agent: Agent, *, whole_machine: bool) -> Callable[[], None] | None:
        """Stop the agent, or it and its programs, as they stand; return what wakes them."""
        with agent.lock:
            if not agent.is_alive or agent.is_frozen:
                return None
            assert agent.process is not None
            pids = agent.tree() if whole_machine else [agent.process.pid]
            for pid in pids:
                _signal(pid, signal.SIGSTOP)
            agent.is_frozen = True
            process, since = agent.process, time.monotonic()

        def wake() -> None:
            with agent.lock:
                for pid in reversed(pids):
                    _signal(pid, signal.SIGCONT)
                agent.frozen_times.append((since, time.monotonic()))
                if agent.process is process:
                    agent.is_frozen = False

        return wake

    def drain(self, agent: Agent) -> bool:
        """Ask the agent to stop, as a service manager does."""
        with agent.lock:
            if not agent.is_alive or agent.is_frozen:
                return False
            assert agent.process is not None
            agent.process.terminate()
            return True

    def lose_machine(self, agent: Agent, tell: Callable[[FakeMetadata], None]) -> bool:
        """Have the instance learn that it goes; another one takes its place once its agent has ended."""
        with agent.lock:
            if not agent.is_alive or agent.is_frozen or agent.is_machine_lost:
                return False
            assert agent.metadata is not None
            tell(agent.metadata)
            agent.is_machine_lost = True
            return True

    def stop(self) -> list[str]:
        """Ask all to stop, and return the names of those that had to be killed."""
        killed = []
        running = [agent for agent in self.members if agent.is_alive]
        for agent in running:
            assert agent.process is not None
            for pid in agent.tree():
                _signal(pid, signal.SIGCONT)
            agent.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for agent in running:
            assert agent.process is not None
            try:
                agent.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                agent.process.kill()
                agent.process.wait()
                killed.append(agent.name)
        return killed

    def left_over(self) -> list[str]:
        """Return the files that stopped agents left on their scratch disks."""
        found = []
        for agent in self.members:
            agent.scratch.free()
            found += [f"left behind: {path}" for path in agent.scratch.folder.rglob("*")]
        return found

    def close(self) -> None:
        """Kill what still runs and give the disks back."""
        for agent in self.members:
            for pid in agent.tree():
                _signal(pid, signal.SIGKILL)
            if agent.process is not None:
                agent.process.wait()
            agent.close()


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
