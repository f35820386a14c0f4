"""A service control manager that keeps the documented rules, for `ServiceHost` without Windows.

Rules, from the Win32 API reference (SERVICE_STATUS, SetServiceStatus, ControlService, HandlerEx, "Service
State Transitions", SERVICE_FAILURE_ACTIONS_FLAG):
- states follow TRANSITIONS; after STOPPED nothing more may be reported;
- a check point is 0 outside of pending states, and grows within one;
- a pending status says how long to wait for the next; one that is not pending does not;
- a control that the last status does not accept is refused, and so is any while a change is pending;
- with the failure flag set, a service that stops with an error is restarted.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from scanfleet.agent.service_host import NO_ERROR, Accepts, Control, ServiceHost, ServiceState, ServiceStatus

START, RUNNING = ServiceState.START_PENDING, ServiceState.RUNNING
STOPPING, STOPPED = ServiceState.STOP_PENDING, ServiceState.STOPPED
TRANSITIONS = {
    None: {START},
    START: {START, RUNNING, STOPPED},
    RUNNING: {STOPPING, STOPPED},
    STOPPING: {STOPPING, STOPPED},
    STOPPED: set(),
}
NEEDED = {Control.STOP: Accepts.STOP, Control.PRESHUTDOWN: Accepts.PRESHUTDOWN}
LONGEST_HANDLER_SECONDS = 30.0


class Refused(Exception):
    """The manager does not pass the control on."""


class ServiceManager:
    """Starts one service and talks to it.

    statuses: all that it was told; broken: the rules that were not kept.
    """

    def __init__(self) -> None:
        self.statuses: list[ServiceStatus] = []
        self.broken: list[str] = []
        self._told = threading.Condition()
        self._last_at = 0.0

    def start(self, program: Callable[..., None], *, every: timedelta) -> None:
        """Run the program as a service in a thread of its own."""
        self.host = ServiceHost(self._report, every=every)
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, args=(program,))
        self._thread.start()

    def _run(self, program: Callable[..., None]) -> None:
        self.code = self.host.run(program)

    def ask(self, control: int) -> int:
        """Send a control as `sc.exe` or a shutdown does. Raises Refused."""
        status = self.statuses[-1]
        if status.state.is_pending or status.state is STOPPED:
            raise Refused(f"{status.state.name} takes no control")
        if control in NEEDED and not status.accepts & NEEDED[Control(control)]:
            raise Refused(f"{control} is not accepted")
        began = time.monotonic()
        answer = self.host.control(control)
        if time.monotonic() - began > LONGEST_HANDLER_SECONDS:
            self.broken.append("the handler took too long")
        return answer

    def await_status(self, is_so: Callable[[ServiceStatus], bool], *, seconds: float = 20) -> ServiceStatus:
        """Return the last status once the condition holds for it."""
        with self._told:
            self._told.wait_for(
                lambda: self.statuses and (is_so(self.last) or self.last.state is STOPPED), seconds
            )
            assert is_so(self.last), self.statuses[-2:]
            return self.last

    @property
    def last(self) -> ServiceStatus:
        """Return what was reported last."""
        return self.statuses[-1]

    def await_state(self, state: ServiceState) -> ServiceStatus:
        """Return the status by which the service reached the state."""
        return self.await_status(lambda status: status.state is state)

    def end(self) -> None:
        """Wait for the service's end, and demand that it kept the rules."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert self.broken == []
        assert self.statuses[-1].state is STOPPED

    def would_restart(self) -> bool:
        """Say whether the restart rules act, the failure flag being set."""
        return self.statuses[-1].exit_code != NO_ERROR

    def _report(self, status: ServiceStatus) -> None:
        with self._told:
            self.broken += self._wrong(status)
            self.statuses.append(status)
            self._last_at = time.monotonic()
            self._told.notify_all()

    def _wrong(self, new: ServiceStatus) -> list[str]:
        old = self.statuses[-1] if self.statuses else None
        before = old.state if old else None
        wrong = [] if new.state in TRANSITIONS[before] else [f"{before} -> {new.state}"]
        if old and old.state.is_pending and time.monotonic() - self._last_at > old.wait_hint.total_seconds():
            wrong.append("the wait hint passed without a report")
        if not new.state.is_pending and (new.check_point or new.wait_hint):
            wrong.append(f"{new.state.name} has a check point or a wait hint")
        if new.state.is_pending and not new.wait_hint:
            wrong.append(f"{new.state.name} gives no wait hint")
        if old and new.state.is_pending and new.state is old.state and new.check_point <= old.check_point:
            wrong.append("the check point did not grow")
        if new.state.is_pending and new.accepts:
            wrong.append(f"{new.state.name} accepts controls")
        return wrong
