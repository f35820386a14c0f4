"""One campaign from an empty emulator to its report."""

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scanfleet.local.emulator import start_emulator
from scanfleet.local.processes import Processes
from tests.faults.agents import Agents
from tests.faults.api import Api
from tests.faults.checker import TERMINAL, Accepted, Checker
from tests.faults.client_faults import ClientFaults
from tests.faults.injector import API, Injector
from tests.faults.journal import Journal, ObjectTouch, StateWrite
from tests.faults.kept import ROOT, Kept
from tests.faults.machine_faults import MachineFaults
from tests.faults.plan import Plan, PlannedJob
from tests.faults.problems import Problems
from tests.faults.processes_left import ProcessRegister
from tests.faults.processor import NAME
from tests.faults.proxy import Proxies
from tests.faults.release_switches import ReleaseSwitches
from tests.faults.report import Outcome
from tests.faults.results import Results, input_bytes, input_name
from tests.faults.watcher import Watcher
from tests.faults.world import DATA, INPUTS, OUTPUTS, World, create_world

TICK_SECONDS = 0.1
SUBMITTERS = 3
IN_FLIGHT = 24
"""Jobs that wait or run at once at most: faults are to meet running jobs, not a queue of hours."""
REST_SECONDS = 150.0
"""After the last fault every job has to end within this; retries of memory failures alone wait for 30 s."""


GIVEN_UP = {"SetInstanceHealth", "TerminateInstanceInAutoScalingGroup"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a campaign."""

    plan: Plan
    folder: Path
    agents: int = 5
    broken: str = ""


class Campaign:
    """Runs one plan. `run` may be called once."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._plan = options.plan
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._accepted: dict[int, Accepted] = {}
        self._numbers: dict[str, int] = {}
        self._early: dict[str, list[StateWrite]] = defaultdict(list)
        self._active: set[int] = set()
        self._ended = threading.Event()
        self._inputs: dict[str, str] = {}
        self.problems = Problems()
        self.journal = Journal()

    def run(self) -> Outcome:
        """Run it and check everything. Whatever happens, nothing that was started is left."""
        began = time.monotonic()
        with self._stack:
            self._build()
            self._work()
            return self._conclude(began)

    # --- Building ------------------------------------------------------------------------------------------

    def _build(self) -> None:
        options, enter = self._options, self._stack
        folder = options.folder
        processes = enter.enter_context(Processes())
        emulator = start_emulator(
            processes=processes,
            repo_root=ROOT,
            state_folder=folder / "emulator",
            log_file=folder / "logs" / "emulator.log",
        )
        enter.callback(emulator.release)
        self.world: World = create_world(emulator.endpoint_url)
        proxies = self._proxies = Proxies(self.world.port, self.journal)
        proxies.start()
        enter.callback(proxies.stop)
        self._api = Api(world=self.world, proxy=proxies.add(API), folder=folder)
        enter.callback(self._api.close)
        self._sweeper = self._new_sweeper(folder)
        enter.callback(self._sweeper.close)
        self._agents = Agents(
            count=options.agents, world=self.world, proxies=proxies, folder=folder, broken=options.broken
        )
        enter.callback(self._agents.close)
        (self._agents.register / "canary.txt").write_text("nobody may publish this\n")
        self._register = ProcessRegister(self._agents.register / "processes.txt")
        enter.callback(self._register.kill_all)
        self._watcher = Watcher(self.world, self._register, self.problems)
        self._clients = ClientFaults(self.world, self._api)
        self._clients.submit_again = lambda number: self._submit(self._plan.jobs[number])
        self._injector = Injector(
            self._plan,
            agents=self._agents,
            proxies=proxies,
            machines=MachineFaults(self._agents, ReleaseSwitches(self.world)),
            clients=self._clients,
        )
        self.journal.listen(self._on_state, self._on_touch)
        self.journal.on_fleet_call = self._on_fleet_call
        self._watcher.start()
        enter.callback(self._watcher.stop)
        self._injector.start()
        enter.callback(self._injector.stop)

    def _new_sweeper(self, folder: Path) -> Kept:
        proxy = self._proxies.add("sweeper")
        return Kept(
            "sweeper_entry",
            environment=self.world.system_at(proxy.url).process_environment(),
            log_file=folder / "logs" / "sweeper.log",
        )

    # --- Running -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Submit everything, and go on until every job has ended and every fault is over."""
        queue = iter(self._plan.jobs)
        queue_lock = threading.Lock()

        def feed() -> None:
            while True:
                with queue_lock:
                    planned = next(queue, None)
                if planned is None:
                    return
                self._await_room()
                if self._ended.is_set():
                    return
                self._begin(planned)

        with ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="submit") as pool:
            feeders = [pool.submit(feed) for _ in range(SUBMITTERS)]
            try:
                while not all(feeder.done() for feeder in feeders):
                    self._tick()
            finally:
                self._ended.set()  # agents that do not run must not leave the feeders waiting for room
            for feeder in feeders:
                feeder.result()
        self._await_rest()

    def _tick(self) -> None:
        self._agents.tick()
        self._api.server.tick()
        self._sweeper.tick()
        time.sleep(TICK_SECONDS)

    def _await_rest(self) -> None:
        deadline = time.monotonic() + REST_SECONDS
        while time.monotonic() < deadline:
            if not self._active and not self._injector.pending:
                return
            self._tick()

    def _await_room(self) -> None:
        while len(self._active) >= IN_FLIGHT and not self._ended.wait(TICK_SECONDS):
            continue

    def _begin(self, planned: PlannedJob) -> None:
        for number, size in enumerate(planned.inputs):
            key = f"{INPUTS}{planned.number}/{input_name(number)}"
            answer = self.world.s3.put_object(
                Bucket=DATA, Key=key, Body=input_bytes(planned.number, number, size)
            )
            self._inputs[key] = answer["ETag"]
        with self._lock:
            self._active.add(planned.number)
        job_id = self._submit(planned)
        self._clients.priorities[job_id] = planned.priority
        self._clients.numbers[job_id] = planned.number
        with self._lock:
            self._accepted[planned.number] = Accepted(job_id, planned, f"{OUTPUTS}{planned.number}/")
            self._numbers[job_id] = planned.number
            early = self._early.pop(job_id, [])
        self._injector.event(planned.number, job_id, "accepted", API)
        for write in early:
            self._on_state(write)

    def _submit(self, planned: PlannedJob) -> str:
        request = {
            "source": f"s3://{DATA}/{INPUTS}{planned.number}/",
            "target": f"s3://{DATA}/{OUTPUTS}{planned.number}/",
            "processor": NAME,
            "settings": planned.settings,
            "priority": planned.priority,
        }
        if planned.time_limit_seconds is not None:
            request["time_limit_seconds"] = planned.time_limit_seconds
        return self._api.submit(request, f"job-{planned.number}")

    # --- What the journal tells ----------------------------------------------------------------------------

    def _on_state(self, write: StateWrite) -> None:
        with self._lock:
            number = self._numbers.get(write.job_id)
            if number is None:
                self._early[write.job_id].append(write)
                return
            if write.state in TERMINAL:
                self._active.discard(number)
            else:
                self._active.add(number)
        self._watcher.job_changed(write, f"{OUTPUTS}{number}/")
        name = "ended" if write.state in TERMINAL else write.state
        self._injector.event(number, write.job_id, name, write.who)

    def _on_touch(self, touch: ObjectTouch) -> None:
        if touch.method != "PUT":
            return
        first, _, rest = touch.key.partition("/")
        if first == "staging":
            self._tell(self._numbers.get(rest.partition("/")[0]), "staging", touch.who)
        elif touch.bucket == DATA and touch.key.startswith(OUTPUTS):
            is_manifest = touch.key.endswith("scanfleet-manifest.json")
            self._tell(int(rest.partition("/")[0]), "manifest" if is_manifest else "publishing", touch.who)

    def _tell(self, number: int | None, name: str, who: str) -> None:
        accepted = self._accepted.get(number) if number is not None else None
        if accepted is not None:
            self._injector.event(accepted.planned.number, accepted.job_id, name, who)

    def _on_fleet_call(self, who: str, action: str) -> None:
        """Replace an instance that its agent gave up, as Auto Scaling does."""
        agent = self._agents.by_who(who)
        if agent is None or action not in GIVEN_UP:
            return
        self._injector.at(
            0.0, lambda: self._agents.lose_machine(agent, lambda metadata: metadata.want("Terminated"))
        )

    # --- Checking ------------------------------------------------------------------------------------------

    def _conclude(self, began: float) -> Outcome:
        self._proxies.clear()
        self._injector.stop()
        self._sweeper.close()
        for name in self._agents.stop():
            self.problems.add("stuck", "", f"{name} did not stop")
        for text in self._agents.unexpected:
            self.problems.add("stuck", "", text)
        self._watcher.stop()
        self._register.read()
        for process in self._register.all:
            self.problems.checked("no process at the end")
            if process.is_alive:
                text = f"{process.role} {process.pid} of attempt {process.attempt} lives at the end"
                self.problems.add("orphans", process.job_id, text)
        for left in self._agents.left_over():
            self.problems.add("orphans", "", left)
        results = Results(self.world, self.journal, self._watcher, self.problems)
        checker = Checker(self.world, self.journal, results, self._clients, self.problems)
        jobs = checker.check(list(self._accepted.values()))
        results.check_escapes(set(jobs), self._inputs)
        sent, buried = self._clients.garbage_sent, self._clients.garbage_buried()
        self.problems.checked("garbage is a dead letter", sent)
        if buried < sent:
            self.problems.add(
                "lost", "", f"{sent - buried} garbage messages are not in the dead-letter queue"
            )
        return Outcome(
            plan=self._plan,
            broken=self._options.broken,
            jobs=jobs,
            injections=list(self._injector.injections.values()),
            problems=self.problems,
            journal=self.journal,
            harness_errors=list(self._injector.errors),
            seconds=time.monotonic() - began,
            seconds_repeated=checker.seconds_repeated(),
            garbage=(sent, buried),
        )
