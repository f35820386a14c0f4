"""Carries out the planned faults, each some time after an event of its job."""

import heapq
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.faults.agents import Agent, Agents
from tests.faults.client_faults import ClientFaults
from tests.faults.machine_faults import MachineFaults
from tests.faults.plan import KINDS, Plan, PlannedFault
from tests.faults.proxy import Proxies, Rule

API = "api"
WORKERS = 12
AGAIN_SECONDS = 0.5
TRIES = 20
NETWORK_KINDS = {
    "s3_error": "error",
    "sqs_error": "error",
    "dynamodb_error": "error",
    "latency": "latency",
    "black_hole": "black_hole",
    "reset": "reset",
    "truncated": "truncated",
    "lost_answer": "lost_answer",
    "duplicate_request": "duplicate",
    "api_error": "error",
    "api_lost_answer": "lost_answer",
}


@dataclass
class Injection:
    """What became of a planned fault. happened_at: monotonic seconds; hit: the machine that it hit."""

    planned: PlannedFault
    job_id: str = ""
    happened_at: float | None = None
    hit: str = ""
    why_not: str = "its job's event never came"


class Injector:
    """Waits for events of jobs, and lets their faults happen. `event` may be called from any thread."""

    def __init__(
        self,
        plan: Plan,
        *,
        agents: Agents,
        proxies: Proxies,
        machines: MachineFaults,
        clients: ClientFaults,
    ) -> None:
        self.injections = {fault.number: Injection(fault) for fault in plan.faults}
        self._waiting: dict[tuple[int, str], list[PlannedFault]] = defaultdict(list)
        for fault in plan.faults:
            self._waiting[fault.job, fault.event].append(fault)
        self._agents = agents
        self._proxies = proxies
        self._machines = machines
        self._clients = clients
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._is_over = False
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="fault")
        self._thread = threading.Thread(target=self._run, name="injector", daemon=True)

    def start(self) -> None:
        """Begin to inject."""
        self._thread.start()

    def stop(self) -> None:
        """Inject nothing more; returns when what is under way is over."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown(wait=True)

    @property
    def pending(self) -> int:
        """Return how many faults are still to come by a time that is fixed."""
        with self._changed:
            return len(self._due)

    def event(self, number: int, job_id: str, name: str, who: str) -> None:
        """Tell that a planned job had an event. who: the instance that did it."""
        with self._changed:
            faults = self._waiting.pop((number, name), [])
        for fault in faults:
            self.injections[fault.number].job_id = job_id
            self.at(fault.delay, lambda fault=fault: self._inject(fault, job_id, who, TRIES))

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_over and (not self._due or self._due[0][0] > time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._is_over:
                    rest = [action for _, _, action in self._due]
                    self._due.clear()
                    break
                action = heapq.heappop(self._due)[2]
            self._pool.submit(self._guarded, action)
        del rest

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a fault that cannot be injected is reported as such
            self.errors.append(repr(error))

    @property
    def errors(self) -> list[str]:
        """Return what went wrong in the harness itself."""
        return self._clients.errors

    # --- One fault -----------------------------------------------------------------------------------------

    def _inject(self, fault: PlannedFault, job_id: str, who: str, tries: int) -> None:
        injection = self.injections[fault.number]
        agent = self._target(who, fault)
        injection.hit = agent.who
        if fault.kind in NETWORK_KINDS:
            is_api = fault.kind.startswith("api_")
            injection.hit = API if is_api else agent.who
            injection.why_not = "no request met it"
            self._proxies.fault(API if is_api else agent.name, self._rule(fault, injection))
            return
        happen = self._machines if KINDS[fault.kind][0] == "machine" else self._clients
        if happen(fault, job_id, agent, self.at):
            injection.happened_at = time.monotonic()
        elif tries:
            injection.why_not = "nothing could be hit"
            self.at(AGAIN_SECONDS, lambda: self._inject(fault, job_id, who, tries - 1))

    def _target(self, who: str, fault: PlannedFault) -> Agent:
        """Return the agent that worked on the job, or another one when that is gone or frozen."""
        agent = self._agents.by_who(who)
        if agent is not None and agent.is_alive and not agent.is_frozen:
            return agent
        alive = [a for a in self._agents.members if a.is_alive and not a.is_frozen] or self._agents.members
        return alive[int(fault.luck * len(alive)) % len(alive)]

    def _rule(self, fault: PlannedFault, injection: Injection) -> Rule:
        def applied() -> None:
            if injection.happened_at is None:
                injection.happened_at = time.monotonic()

        is_once = fault.kind in ("truncated", "black_hole")
        return Rule(
            kind=NETWORK_KINDS[fault.kind],
            service=fault.service,
            remaining=1 if is_once else fault.count,
            seconds=fault.seconds,
            error=fault.error,
            on_applied=applied,
        )
