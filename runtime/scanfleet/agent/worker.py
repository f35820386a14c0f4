"""The agent's loop: takes messages while it has free slots, and runs each attempt in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from scanfleet import log_context
from scanfleet.agent.breaker import Breaker
from scanfleet.agent.delivery import Deliveries
from scanfleet.agent.inquiry import Inquiry
from scanfleet.agent.machine_time import MachineTime, boot_seconds
from scanfleet.agent.placement import Neighbours
from scanfleet.agent.readiness import Readiness
from scanfleet.agent.reporting import Reporter
from scanfleet.agent.slots import Slots
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent.tools import Tools
from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import Pool, Priority
from scanfleet.errors import ScanfleetError, Unavailable, shorten
from scanfleet.queue import Message

log = logging.getLogger(__name__)

NORMAL_FIRST_EVERY = 4
"""Every fourth look takes normal priority first, so that a stream of high-priority jobs cannot starve it."""
MAX_BACK_OFF_SECONDS = 30.0
WHY_SHOWN = 500
"""Characters of the reasons that a report gives."""
NO_WAIT = timedelta()
SETTLED_WITHIN = timedelta(minutes=4)
"""After jobs were handed back: what has not ended by then never will, and must not hold the machine."""


@dataclass(frozen=True)
class Suspension:
    """Why nothing new is taken for now. is_healthy: the machine need not be replaced for it."""

    reason: str
    is_healthy: bool


class Worker:
    """One agent: `run` serves the pool's queues until `drain` or `request_stop`.

    machine: what its reports say of the machine: instance_id, instance_type, ami_id, slots_from.
    release: tells the version that its programs are started from, "" for none.
    breaker: of a machine in a fleet; by default that of a machine that nobody replaces.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        directory: AgentDirectory,
        agent_id: str,
        pool: Pool,
        slots: int,
        receive_wait: timedelta,
        machine: Mapping[str, str] | None = None,
        release: Callable[[], str] = str,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tools = tools
        self._release = release
        self._agent_id = agent_id
        self._pool = pool
        self._receive_wait = receive_wait
        self._machine = dict(machine or {})
        self._clock = clock
        self._started_at = clock()
        self._looks = 0
        self._readiness = Readiness()
        self._changed = threading.Condition()
        self._slots = Slots(slots, self._changed)
        self._is_resting = False
        self._given_back = 0
        self._is_on_hold = False
        self._suspensions: dict[str, Suspension] = {}
        self._listeners: list[Callable[[], None]] = []
        self._hand_back_at: float | None = None
        self._drain_reason = ""
        self._stopping = threading.Event()
        self._handing_back = threading.Event()
        self._reporter = Reporter(directory, agent_id, self.report)
        neighbours = Neighbours(directory, agent_id=agent_id, pool=pool)
        self._inquiry = Inquiry(
            breaker or Breaker(agent_id, is_in_fleet=False),
            leases=tools.leases,
            neighbours=neighbours,
            pool=pool,
            worker=self,
        )
        self._deliveries = Deliveries(
            tools,
            slots=self._slots,
            neighbours=neighbours,
            agent_id=agent_id,
            pool=pool,
            on_end=self._inquiry.ended,
            on_start=self._reporter.wake,
            machine_time=MachineTime(slots, boot_seconds=boot_seconds(tools.machine, self._started_at)),
            clock=clock,
        )

    def run(self) -> None:
        """Take and run jobs until `drain` or `request_stop`; returns when every attempt has settled."""
        self._reporter.start()
        self._inquiry.start()
        try:
            self._serve()
            self._await_drained()
        finally:
            self.request_stop()
            self._await_attempts()
            self._inquiry.stop()
            self._reporter.end()

    def request_stop(self) -> None:
        """Stop taking messages, stop the running programs and hand their jobs back."""
        self.drain(NO_WAIT)
        self._handing_back.set()
        for request in self._slots.stops:
            request.set(StopReason.AGENT_STOPPING)

    def drain(self, grace: timedelta, *, reason: str = "") -> None:
        """Take nothing new; `run` lets the running jobs finish within `grace`, then hands them back.

        Returns at once. Of several drains the one that ends first counts. reason: for the health check.
        """
        hand_back_at = time.monotonic() + grace.total_seconds()
        with self._changed:
            self._drain_reason = self._drain_reason or reason
            if self._hand_back_at is None or hand_back_at < self._hand_back_at:
                self._hand_back_at = hand_back_at
            self._stopping.set()
            self._take_no_more()

    def hold(self, is_on_hold: bool) -> None:
        """Take nothing new until this is called with False; running jobs go on."""
        with self._changed:
            self._is_on_hold = is_on_hold
            self._take_no_more()

    def suspend(self, cause: str, reason: str | None, *, is_healthy: bool = False) -> None:
        """Take nothing new while any cause has a reason; running jobs go on. None: this cause is over.

        is_healthy: the health check leaves this reason out, so that nobody has the machine replaced for it.
        """
        with self._changed:
            if reason is None:
                self._suspensions.pop(cause, None)
            else:
                self._suspensions[cause] = Suspension(reason, is_healthy)
            self._take_no_more()

    def _take_no_more(self) -> None:
        """Tell everybody, also the job that has not begun because it waits to be alone here."""
        self._slots.is_closed = self._stopping.is_set() or self._takes_none
        if self._slots.is_closed and (waiting := self._slots.waiting) is not None:
            waiting.set(StopReason.AGENT_STOPPING)
        self._reporter.wake()
        self._changed.notify_all()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, which must not wait, after each change of the running jobs."""
        self._listeners.append(listener)

    @property
    def busy(self) -> int:
        """Return how many slots are taken."""
        return self._slots.busy

    @property
    def condemned(self) -> str | None:
        """Return why this machine has to be replaced, or None."""
        return self._inquiry.condemned

    def condemn(self, reason: str) -> None:
        """Take nothing ever again on this machine; running jobs go on."""
        self._inquiry.condemn(reason)

    @property
    def is_quiet(self) -> bool:
        """Return whether nothing runs, nothing is asked for, and no answer of a queue is under way."""
        with self._changed:
            return self._is_resting and self._takes_none and not self._slots.busy

    @property
    def given_back(self) -> int:
        """Return how many messages came too late to be taken: they wait for somebody else."""
        return self._given_back

    def problem(self) -> str | None:
        """Return why this agent takes no work now, or None when it does or stands by."""
        if self._handing_back.is_set():
            return "the agent is stopping"
        if self._stopping.is_set():
            return f"the agent is draining: {self._drain_reason}".removesuffix(": ")
        unfit = [found.reason for found in tuple(self._suspensions.values()) if not found.is_healthy]
        return "; ".join(unfit) or self._readiness.problem

    def report(self) -> AgentReport:
        """Return what this agent does now."""
        suspended = [found.reason for found in tuple(self._suspensions.values())]
        suspended += ["it takes one job to prove itself"] if self._inquiry.is_probing else []
        return AgentReport(
            agent_id=self._agent_id,
            pool=self._pool,
            slots=self._slots.count,
            busy=self._slots.busy,
            job_ids=self._slots.job_ids,
            started_at=self._started_at,
            seen_at=self._clock(),
            is_stopping=self._stopping.is_set(),
            is_on_hold=self._is_on_hold,
            is_suspended=bool(suspended),
            why_suspended=shorten("; ".join(suspended), WHY_SHOWN),
            driver=self._tools.machine.driver,
            booted_at=self._tools.machine.booted_at,
            release=self._release(),
            **self._machine,
        )

    # --- Receiving -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        failures_in_a_row = 0
        while self._await_free_slot():
            try:
                message = self._next_message()
            except Unavailable as error:
                failures_in_a_row += 1
                self._readiness.queue_failed(error)
                log.warning("no message: %s", error, extra={"action": "receive_failed"})
                self._stopping.wait(min(2.0 ** min(failures_in_a_row, 10), MAX_BACK_OFF_SECONDS))
                continue
            failures_in_a_row = 0
            self._readiness.serves()
            if message is None:
                continue
            if self._stopping.is_set() or self._takes_none:
                self._given_back += 1
                self._deliveries.give_back(message)
                continue
            self._start_attempt(message)

    def _await_free_slot(self) -> bool:
        """Wait for a free slot and the end of a hold; False when the agent is stopping."""
        with self._changed:
            self._is_resting = True
            while not self._stopping.is_set():
                back = self._deliveries.step_back.seconds_left
                if back <= 0 and self._has_room():
                    break
                self._changed.wait(back if back > 0 else None)
            self._is_resting = False
        return not self._stopping.is_set()

    def _has_room(self) -> bool:
        if self._is_on_hold:
            self._readiness.serves()  # it could; health checks must not replace it
        return not self._takes_none and self._slots.has_room(self._inquiry.most_jobs)

    @property
    def _takes_none(self) -> bool:
        return self._is_on_hold or bool(self._suspensions)

    def _next_message(self) -> Message | None:
        """Look at the high-priority queue, then wait at the normal one; see NORMAL_FIRST_EVERY."""
        self._looks += 1
        if self._looks % NORMAL_FIRST_EVERY == 0:
            # Without waiting at either: only the queue where most jobs arrive is worth a wait.
            return self._receive(Priority.NORMAL, NO_WAIT) or self._receive(Priority.HIGH, NO_WAIT)
        return self._receive(Priority.HIGH, NO_WAIT) or self._receive(Priority.NORMAL, self._receive_wait)

    def _receive(self, priority: Priority, wait: timedelta) -> Message | None:
        return self._tools.queues.receive(
            self._pool,
            priority,
            wait=wait,
            visibility_seconds=self._tools.pulse.rules.visibility_seconds,
        )

    # --- Attempts ------------------------------------------------------------------------------------------

    def _start_attempt(self, message: Message) -> None:
        stop = StopRequest()
        # A daemon: an attempt that cannot end must not keep the process from its end.
        thread = threading.Thread(target=self._handle, args=(message, stop), name="attempt", daemon=True)
        self._slots.take(stop, thread)
        if self._handing_back.is_set():
            stop.set(StopReason.AGENT_STOPPING)
        thread.start()
        self._tell_listeners()

    def _handle(self, message: Message, stop: StopRequest) -> None:
        with log_context.bound(agent_id=self._agent_id):
            self._handle_bound(message, stop)

    def _handle_bound(self, message: Message, stop: StopRequest) -> None:
        try:
            self._deliveries.handle(message, stop)
        except ScanfleetError as error:
            log.warning("message left: %s", error, extra={"action": "message_left", "body": message.body})
        except Exception:
            log.exception("message left", extra={"action": "message_left", "body": message.body})
        finally:
            self._slots.free(stop)
            self._reporter.wake()
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _await_drained(self) -> None:
        """Wait until nothing runs or the drain's grace is over; a shorter drain may come meanwhile."""
        with self._changed:
            while self._slots.busy and (left := (self._hand_back_at or 0.0) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _await_attempts(self) -> None:
        """Wait for the attempts' ends; what does not end is left behind, and its job's lease runs out."""
        give_up_at = time.monotonic() + SETTLED_WITHIN.total_seconds()
        for thread in self._slots.threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        if stuck := self._slots.job_ids:
            log.error("attempts do not end", extra={"action": "attempts_left_behind", "job_ids": stuck})
