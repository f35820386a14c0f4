"""The life of a Windows service, without Windows: which status is reported when, and what each control does.

    START_PENDING -> RUNNING -> STOP_PENDING -> STOPPED
         `------------------------------------> STOPPED   (the program ended by itself, or failed)

While a change is pending, the check point grows with every report, and the wait hint promises the next one: a
service that breaks the promise counts as hung. Source: Win32 API reference, SERVICE_STATUS; "Service State
Transitions".
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, IntFlag
from typing import Protocol

log = logging.getLogger(__name__)

REPORT_EVERY = timedelta(seconds=3)
WAIT_HINT = timedelta(seconds=30)
"""Ten times as long as reports are apart: a machine under full load may be late."""

NO_ERROR = 0
ERROR_CALL_NOT_IMPLEMENTED = 120
ERROR_SERVICE_SPECIFIC_ERROR = 1066
"""Source: Win32 API reference, "System Error Codes"."""

FAILED_EXIT_CODE = 70
"""EX_SOFTWARE, for errors that name no code of their own. Source: sysexits.h."""


class ServiceState(IntEnum):
    """dwCurrentState."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4

    @property
    def is_pending(self) -> bool:
        """Return whether a change is under way."""
        return self in (ServiceState.START_PENDING, ServiceState.STOP_PENDING)


class Control(IntEnum):
    """What the service control manager asks."""

    STOP = 1
    INTERROGATE = 4
    PRESHUTDOWN = 15
    """Windows goes down; unlike SHUTDOWN it waits for the service."""


class Accepts(IntFlag):
    """dwControlsAccepted."""

    NOTHING = 0
    STOP = 0x1
    PRESHUTDOWN = 0x100


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """One report. exit_code: a Win32 error; specific_code: ours, with ERROR_SERVICE_SPECIFIC_ERROR only."""

    state: ServiceState
    accepts: Accepts = Accepts.NOTHING
    exit_code: int = NO_ERROR
    specific_code: int = 0
    check_point: int = 0
    wait_hint: timedelta = timedelta()


class Program(Protocol):
    """What the service runs, in the thread that calls it."""

    def __call__(
        self, *, on_serving: Callable[[], None], on_stop: Callable[[Callable[[], None]], None]
    ) -> None:
        """Serve until stopped, and return once everything is settled.

        on_serving: to be called when it serves. on_stop: to be called before that, with what begins a
        stop and returns at once.
        """
        ...


class ServiceHost:
    """Runs a program as a service: `run` from start to end, `control` for each of the manager's requests."""

    def __init__(self, report: Callable[[ServiceStatus], None], *, every: timedelta = REPORT_EVERY) -> None:
        self._report = report
        self._every = every
        self._lock = threading.Lock()
        self._state = ServiceState.START_PENDING
        self._check_point = 0
        self._begin_stop: Callable[[], None] | None = None
        self._ended = threading.Event()

    def run(self, program: Program) -> int:
        """Run the program to its end and report it; return the exit code that was reported.

        SystemExit's code is the program's own; any other error becomes FAILED_EXIT_CODE.
        """
        self._enter(ServiceState.START_PENDING)
        reporter = threading.Thread(target=self._report_while_pending, name="service", daemon=True)
        reporter.start()
        code = _run(program, self._serving, self._on_stop)
        self._ended.set()
        reporter.join()
        self._enter(ServiceState.STOPPED, code)
        return code

    def control(self, control: int) -> int:
        """Do what the manager asks; return at once with the Win32 code of the answer."""
        if control == Control.INTERROGATE:
            return NO_ERROR
        if control not in (Control.STOP, Control.PRESHUTDOWN):
            return ERROR_CALL_NOT_IMPLEMENTED
        if self._enter(ServiceState.STOP_PENDING, only_from=ServiceState.RUNNING):
            facts = {"action": "service_stopping", "control": control}
            log.info("service is asked to stop", extra=facts)
            # The handler must answer soon, and a drain takes locks.
            threading.Thread(target=self._stop, name="service-stop", daemon=True).start()
        return NO_ERROR

    def _stop(self) -> None:
        assert self._begin_stop is not None
        self._begin_stop()

    def _on_stop(self, begin_stop: Callable[[], None]) -> None:
        self._begin_stop = begin_stop

    def _serving(self) -> None:
        assert self._begin_stop is not None, "a service that runs can be stopped"
        self._enter(ServiceState.RUNNING)

    def _report_while_pending(self) -> None:
        while not self._ended.wait(self._every.total_seconds()):
            with self._lock:
                if self._state.is_pending:
                    self._send()

    def _enter(self, state: ServiceState, code: int = 0, *, only_from: ServiceState | None = None) -> bool:
        """Report a new state; False when the service is not in the state that must come before."""
        with self._lock:
            if only_from not in (None, self._state):
                return False
            self._state, self._check_point = state, 0
            self._send(code)
            return True

    def _send(self, code: int = 0) -> None:
        """Report the present state; the caller holds the lock, so that reports stay in order."""
        is_pending = self._state.is_pending
        self._check_point += is_pending
        is_running = self._state is ServiceState.RUNNING
        self._report(
            ServiceStatus(
                state=self._state,
                accepts=Accepts.STOP | Accepts.PRESHUTDOWN if is_running else Accepts.NOTHING,
                exit_code=ERROR_SERVICE_SPECIFIC_ERROR if code else NO_ERROR,
                specific_code=code,
                check_point=self._check_point,
                wait_hint=WAIT_HINT if is_pending else timedelta(),
            )
        )


def _run(
    program: Program, on_serving: Callable[[], None], on_stop: Callable[[Callable[[], None]], None]
) -> int:
    try:
        program(on_serving=on_serving, on_stop=on_stop)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        log.exception("service failed", extra={"action": "service_failed"})
        return FAILED_EXIT_CODE
    return 0
