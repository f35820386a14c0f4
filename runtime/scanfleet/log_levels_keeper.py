"""Keeps one process's log levels what the rules say: by a thread, or by looks in passing."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Protocol

from scanfleet.contract import Component
from scanfleet.errors import NotFound
from scanfleet.log_levels import Levels, Rule, levels_for
from scanfleet.log_setup import Verbosity

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=15)
STOP_SECONDS = 1.0
"""A look that is under way holds no process's end up for longer."""
_AS_STARTED = Levels(own=None, jobs={}, expires=None)


class Source(Protocol):
    """Where rules are read."""

    def read(self) -> tuple[Rule, ...]:
        """Return all rules. Raises NotFound where there are none to be had."""
        ...


class LevelKeeper:
    """Looks at the rules and applies those of this process. clock: epoch seconds.

    A look never raises. While the rules cannot be read those last seen hold, until they expire; that they
    cannot be read is logged once. look_every of zero: never looks.
    """

    def __init__(
        self,
        source: Source,
        verbosity: Verbosity,
        *,
        component: Component,
        machines: Collection[str] = (),
        look_every: timedelta = LOOK_EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._verbosity = verbosity
        self._component = component
        self._machines = machines
        self._every = look_every.total_seconds()
        self._clock = clock
        self._rules: tuple[Rule, ...] = ()
        self._levels = _AS_STARTED
        self._problem = ""
        self._due_at = float("-inf")
        self._looking = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-levels", daemon=True)

    def look(self) -> None:
        """Read the rules and apply them."""
        try:
            self._rules = self._source.read()
            self._problem = ""
        except NotFound as error:  # a deployment that is older than this, or a test's
            self._say(logging.INFO, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not touch the work
            self._say(logging.WARNING, str(error) or repr(error))
        self._apply()

    def look_if_due(self) -> None:
        """Look when the last look is some time ago and no other thread is looking."""
        if not self._every or time.monotonic() < self._due_at or not self._looking.acquire(blocking=False):
            return
        try:
            self._due_at = time.monotonic() + self._every
            self.look()
        finally:
            self._looking.release()

    def start(self) -> None:
        """Look from time to time, in a thread of its own."""
        if self._every:
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._end.is_set():
            self.look()
            self._await_next_look()

    def _await_next_look(self) -> None:
        look_at = time.monotonic() + self._every
        while (left := look_at - time.monotonic()) > 0:
            expires = self._levels.expires
            until_expiry = float("inf") if expires is None else max(0.0, expires - self._clock())
            if self._end.wait(min(left, until_expiry)):
                return
            if until_expiry < left:
                self._apply()

    def _apply(self) -> None:
        levels = levels_for(
            self._rules, component=self._component, machines=self._machines, now=self._clock()
        )
        if (levels.own, levels.jobs) != (self._levels.own, self._levels.jobs):
            self._verbosity.set(levels.own, levels.jobs)
            facts = {
                "action": "log_levels_changed",
                "own_level": levels.own or self._verbosity.base,
                "jobs": dict(levels.jobs),
            }
            log.warning("log levels are changed", extra=facts)
        self._levels = levels

    def _say(self, level: int, problem: str) -> None:
        if not self._problem:
            log.log(level, "no log levels: %s", problem, extra={"action": "log_levels_not_read"})
        self._problem = problem
