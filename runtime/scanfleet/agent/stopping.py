"""Why an attempt has to stop, said by whoever knows first and heard by everything that runs for it."""

import threading
from collections.abc import Callable
from enum import StrEnum

from scanfleet.errors import JobFailure


class StopReason(StrEnum):
    """Why an attempt stops before its end."""

    CANCELLED = "cancelled"
    """The owner cancelled the job: stop the program politely, settle as cancelled."""
    LEASE_LOST = "lease_lost"
    """Another owner may have the job: kill at once, write nothing."""
    AGENT_STOPPING = "agent_stopping"
    """This agent goes away: stop the program and hand the job back."""
    STALLED = "stalled"
    """The attempt gave no sign of life for too long: stop, and settle as the stall's failure."""


class StopRequest:
    """One attempt's stop. The first reason stays; a lost lease alone overrides others, as it allows least."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: StopReason | None = None
        self._failure: JobFailure | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def reason(self) -> StopReason | None:
        """Return why to stop, or None to go on."""
        return self._reason

    def is_set(self) -> bool:
        """Say whether to stop."""
        return self._reason is not None

    @property
    def failure(self) -> JobFailure | None:
        """Return what the attempt fails with, where the reason is a failure."""
        return self._failure

    def set(self, reason: StopReason, failure: JobFailure | None = None) -> None:
        """Ask to stop, and wake everybody who listens."""
        with self._lock:
            if self._reason is None or reason is StopReason.LEASE_LOST:
                self._reason, self._failure = reason, failure
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each `set`, and now if it was set already."""
        with self._lock:
            self._listeners.append(listener)
            is_late = self._reason is not None
        if is_late:
            listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Stop calling `listener`."""
        with self._lock:
            self._listeners.remove(listener)
