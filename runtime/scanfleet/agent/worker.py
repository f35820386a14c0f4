"""The agent's loop: takes messages while it has free slots, and runs each attempt in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from scanfleet.agent.attempt import Attempt, Tools
from scanfleet.agent.burial import bury, put_away
from scanfleet.agent.readiness import Readiness
from scanfleet.agent.reporting import Reporter
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.contract import Pool, Priority
from scanfleet.dead_letters import Cause
from scanfleet.errors import ScanfleetError, Unavailable
from scanfleet.leases import HeldElsewhere, NothingToDo
from scanfleet.queue import Message, UnreadableMessage

log = logging.getLogger(__name__)

NORMAL_FIRST_EVERY = 4
"""Every fourth look takes normal priority first, so that a stream of high-priority jobs cannot starve it."""
MAX_BACK_OFF_SECONDS = 30.0
NO_WAIT = timedelta()


@dataclass(frozen=True)
class Suspension:
    """Why nothing new is taken for now. is_healthy: the machine need not be replaced for it."""

    reason: str
    is_healthy: bool


class Worker:
    """One agent: `run` serves the pool's queues until `drain` or `request_stop`.

    machine: what its reports say of the EC2 instance: instance_id, instance_type, ami_id.
    release: tells the version that its programs are started from, "" for none.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tools = tools
        self._release = release
        self._agent_id = agent_id
        self._pool = pool
        self._slots = slots
        self._receive_wait = receive_wait
        self._machine = dict(machine or {})
        self._clock = clock
        self._started_at = clock()
        self._looks = 0
        self._readiness = Readiness()
        self._running: dict[StopRequest, str] = {}
        self._threads: set[threading.Thread] = set()
        self._changed = threading.Condition()
        self._is_on_hold = False
        self._suspensions: dict[str, Suspension] = {}
        self._listeners: list[Callable[[], None]] = []
        self._hand_back_at: float | None = None
        self._drain_reason = ""
        self._stopping = threading.Event()
        self._handing_back = threading.Event()
        self._reporter = Reporter(directory, agent_id, self.report)

    def run(self) -> None:
        """Take and run jobs until `drain` or `request_stop`; returns when every attempt has settled."""
        self._reporter.start()
        try:
            self._serve()
            self._await_drained()
        finally:
            self.request_stop()
            self._await_attempts()
            self._reporter.end()

    def request_stop(self) -> None:
        """Stop taking messages, stop the running programs and hand their jobs back."""
        self.drain(NO_WAIT)
        self._handing_back.set()
        with self._changed:
            requests = list(self._running)
        for request in requests:
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
            self._reporter.wake()
            self._changed.notify_all()

    def hold(self, is_on_hold: bool) -> None:
        """Take nothing new until this is called with False; running jobs go on."""
        with self._changed:
            self._is_on_hold = is_on_hold
            self._reporter.wake()
            self._changed.notify_all()

    def suspend(self, cause: str, reason: str | None, *, is_healthy: bool = False) -> None:
        """Take nothing new while any cause has a reason; running jobs go on. None: this cause is over.

        is_healthy: the health check leaves this reason out, so that nobody has the machine replaced for it.
        """
        with self._changed:
            if reason is None:
                self._suspensions.pop(cause, None)
            else:
                self._suspensions[cause] = Suspension(reason, is_healthy)
            self._reporter.wake()
            self._changed.notify_all()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, which must not wait, after each change of the running jobs."""
        self._listeners.append(listener)

    @property
    def busy(self) -> int:
        """Return how many slots are taken."""
        return len(self._running)

    @property
    def is_draining(self) -> bool:
        """Return whether it takes nothing new for ever."""
        return self._stopping.is_set()

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
        with self._changed:
            job_ids = tuple(job_id for job_id in self._running.values() if job_id)
            busy = len(self._running)
        return AgentReport(
            agent_id=self._agent_id,
            pool=self._pool,
            slots=self._slots,
            busy=busy,
            job_ids=job_ids,
            started_at=self._started_at,
            seen_at=self._clock(),
            is_stopping=self._stopping.is_set(),
            is_on_hold=self._is_on_hold or bool(self._suspensions),
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
            if self._stopping.is_set() or self._is_on_hold or self._suspensions:
                self._give_back(message)
                continue
            self._start_attempt(message)

    def _give_back(self, message: Message) -> None:
        """Make a message deliverable again that a poll brought after a stop or a hold."""
        try:
            self._tools.queues.extend(message, visibility_seconds=0)
        except Unavailable as error:
            log.warning("message comes back later: %s", error, extra={"action": "message_left"})

    def _await_free_slot(self) -> bool:
        """Wait for a free slot and the end of a hold; False when the agent is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or self._has_room())
        return not self._stopping.is_set()

    def _has_room(self) -> bool:
        if self._is_on_hold:
            self._readiness.serves()  # it could; health checks must not replace it
        takes_none = self._is_on_hold or bool(self._suspensions)
        return not takes_none and len(self._running) < self._slots

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
        thread = threading.Thread(target=self._handle, args=(message, stop), name="attempt")
        with self._changed:
            self._running[stop] = ""
            self._threads.add(thread)
        if self._handing_back.is_set():
            stop.set(StopReason.AGENT_STOPPING)
        thread.start()
        self._tell_listeners()

    def _handle(self, message: Message, stop: StopRequest) -> None:
        try:
            self._handle_message(message, stop)
        except ScanfleetError as error:
            log.warning("message left: %s", error, extra={"action": "message_left", "body": message.body})
        except Exception:
            log.exception("message left", extra={"action": "message_left", "body": message.body})
        finally:
            with self._changed:
                del self._running[stop]
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()
            self._reporter.wake()
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _handle_message(self, message: Message, stop: StopRequest) -> None:
        try:
            job_id = message.job_id()
        except UnreadableMessage as error:
            self._bury(message, Cause.UNREADABLE, str(error))
            return
        taken = self._tools.leases.take(job_id, self._agent_id)
        match taken:
            case NothingToDo(job):
                if job is None:
                    self._bury(message, Cause.NO_SUCH_JOB, f"no such job: {job_id}")
                else:
                    put_away(self._tools.queues, message, job, agent_id=self._agent_id)
            case HeldElsewhere(job):
                log.info("job is held elsewhere", extra={"action": "job_held_elsewhere", "job_id": job_id})
                # A fresh message instead of this one: a message that met the lease of a long job too often
                # would end in the dead-letter queue.
                later = timedelta(seconds=self._tools.pulse.rules.visibility_seconds)
                self._tools.queues.send(job, delay=later)
                self._tools.queues.delete(message)
            case lease:
                with self._changed:
                    self._running[stop] = job_id
                self._reporter.wake()
                Attempt(self._tools, lease, message, stop).run()

    def _bury(self, message: Message, cause: Cause, reason: str) -> None:
        bury(self._tools.queues, message, self._pool, cause=cause, reason=reason, agent_id=self._agent_id)

    def _await_drained(self) -> None:
        """Wait until nothing runs or the drain's grace is over; a shorter drain may come meanwhile."""
        with self._changed:
            while self._running and (left := (self._hand_back_at or 0.0) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _await_attempts(self) -> None:
        with self._changed:
            threads = list(self._threads)
        for thread in threads:
            thread.join()
