"""Looks that may never end (a driver or a disk that does not answer), taken in a thread of their own.

Whoever looks goes on: with the answer, without it for now, or blind. There is one look at a time: while one
has no answer, no other begins, and its answer counts for the next look.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from scanfleet.log_context import ContextThread

T = TypeVar("T")

PATIENCE = timedelta(seconds=0.5)
"""A look is waited for this long: usually it takes some milliseconds, and a cancel waits as long."""
BLIND_AFTER = timedelta(seconds=10)


class StillLooking(Exception):
    """There is no answer yet; a machine that is very busy takes long."""


class Blind(Exception):
    """The look has failed, or there is no answer for so long that none is to be expected."""


class Eyes(Generic[T]):
    """Takes one kind of look, again and again. Not for several threads. clock: seconds."""

    def __init__(
        self,
        look: Callable[[], T],
        *,
        name: str,
        patience: timedelta = PATIENCE,
        blind_after: timedelta = BLIND_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._name = name
        self._patience, self._blind_after = patience, blind_after
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._begun_at = 0.0
        self._found: list[T] = []
        self._failed: list[Exception] = []

    def see(self) -> T:
        """Return what is seen. Raises StillLooking or Blind, both soon."""
        thread = self._thread
        if thread is None:
            thread = self._begin()
            thread.join(self._patience.total_seconds())
        if thread.is_alive():
            seconds = self._clock() - self._begun_at
            if seconds < self._blind_after.total_seconds():
                raise StillLooking
            raise Blind(f"there is no answer for {seconds:.0f} s")
        self._thread = None
        if self._failed:
            error = self._failed.pop()
            raise Blind(f"{type(error).__name__}: {error}") from error
        return self._found.pop()

    def _begin(self) -> threading.Thread:
        # A daemon: a look that never ends must not keep the process from its end.
        thread = ContextThread(target=self._take, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be had
            raise Blind(str(error)) from error
        self._thread, self._begun_at = thread, self._clock()
        return thread

    def _take(self) -> None:
        try:
            self._found.append(self._look())
        except Exception as error:  # noqa: BLE001 - told to whoever looks, whatever it is
            self._failed.append(error)
