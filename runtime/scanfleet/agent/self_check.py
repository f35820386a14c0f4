"""Looks whether this machine can do a job, before the first one and while it serves.

Until every check has passed the agent takes no message, and its health check tells all reasons. A machine
that serves and then fails a check takes nothing new until it passes again; its health check stays well for a
while, as in `readiness.py`: running jobs may end, and often the cause is one of them (a full disk).
What cannot heal is told to the fleet. `checks.py` has the checks themselves.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from scanfleet.agent.readiness import QUEUE_SILENCE_TOLERATED

log = logging.getLogger(__name__)

CAUSE = "self-check"


class CheckFailed(Exception):
    """A machine that cannot do jobs now. to_do: what people can do about it."""

    def __init__(self, reason: str, to_do: str, *, can_heal: bool = True) -> None:
        self.reason = reason
        self.to_do = to_do
        self.can_heal = can_heal
        super().__init__(reason)


@dataclass(frozen=True)
class Check:
    """One thing to look at. `look` raises CheckFailed. every: while the machine serves; None: not then."""

    name: str
    look: Callable[[], None]
    every: timedelta | None = None


class Suspendable(Protocol):
    """What is needed of the worker."""

    @property
    def busy(self) -> int:
        """Return how many slots are taken."""
        ...

    def suspend(self, cause: str, reason: str | None, *, is_healthy: bool = False) -> None:
        """Take nothing new for this reason; None: for this cause no more."""
        ...


@dataclass(frozen=True)
class CheckRules:
    """How often and how long."""

    look: timedelta = timedelta(seconds=5)
    """Between two rounds: a failing check is repeated in each."""
    tolerated: timedelta = QUEUE_SILENCE_TOLERATED
    """A machine that has served stays well in its health check for this long, and while a job runs."""
    hopeless: timedelta = timedelta(seconds=30)
    """What cannot heal is told to the fleet after this: drivers may still be starting."""


@dataclass(frozen=True)
class _Failing:
    since: float
    error: CheckFailed


class SelfCheck:
    """The checks of one machine. A thread looks between `start` and `stop`; `look` is one round.

    on_hopeless: told once why this machine will never be ready. clock: seconds.
    """

    def __init__(
        self,
        worker: Suspendable,
        checks: Sequence[Check],
        *,
        on_hopeless: Callable[[str], None] = lambda _: None,
        rules: CheckRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker = worker
        self._checks = checks
        self._on_hopeless = on_hopeless
        self._rules = rules or CheckRules()
        self._clock = clock
        self._failing: dict[str, _Failing] = {}
        self._looked_at: dict[str, float] = {}
        self._has_served = False
        self._is_given_up = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="self-check", daemon=True)
        worker.suspend(CAUSE, "the machine is being checked")  # from the very first: nothing is received

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End looking. A check that waits for an answer is left alone."""
        self._stopped.set()
        self._thread.join(self._rules.look.total_seconds())

    def look(self) -> None:
        """Make the checks that are due, and tell worker, log and fleet what changed."""
        for check in self._checks:
            if self._is_due(check) and not self._stopped.is_set():
                self._make(check)
        self._tell_worker()
        self._tell_fleet()

    def _is_due(self, check: Check) -> bool:
        last = self._looked_at.get(check.name)
        if last is None or check.name in self._failing:
            return True
        return check.every is not None and self._clock() - last >= check.every.total_seconds()

    def _make(self, check: Check) -> None:
        try:
            check.look()
        except CheckFailed as error:
            self._failed(check, error)
        except Exception as error:
            log.exception("check broken", extra={"action": "check_broken", "check": check.name})
            self._failed(check, CheckFailed(f"the check itself failed: {error!r}", "tell the developers"))
        else:
            if self._failing.pop(check.name, None):
                log.info("%s is well", check.name, extra={"action": "check_healed", "check": check.name})
        self._looked_at[check.name] = self._clock()

    def _failed(self, check: Check, error: CheckFailed) -> None:
        """Keep the failure; a reason is logged once."""
        before = self._failing.get(check.name)
        if before is None or before.error.reason != error.reason:
            facts = {
                "action": "check_failed",
                "check": check.name,
                "reason": error.reason,
                "to_do": error.to_do,
                "can_heal": error.can_heal,
            }
            log.error("%s: %s. %s", check.name, error.reason, error.to_do, extra=facts)
        self._failing[check.name] = _Failing(before.since if before else self._clock(), error)

    def _tell_worker(self) -> None:
        if not self._failing:
            if not self._has_served:
                log.info("this machine can do jobs", extra={"action": "self_check_passed"})
            self._has_served = True
            self._worker.suspend(CAUSE, None)
            return
        since = min(failing.since for failing in self._failing.values())
        # A job that runs may be the cause, for as long as it takes: the disk is its own to fill.
        is_new = self._worker.busy > 0 or self._clock() - since < self._rules.tolerated.total_seconds()
        reasons = (f"{name}: {failing.error.reason}" for name, failing in self._failing.items())
        self._worker.suspend(CAUSE, "; ".join(reasons), is_healthy=self._has_served and is_new)

    def _tell_fleet(self) -> None:
        now, patience = self._clock(), self._rules.hopeless.total_seconds()
        hopeless = [
            f"{name}: {failing.error.reason}"
            for name, failing in self._failing.items()
            if not failing.error.can_heal and now - failing.since >= patience
        ]
        if hopeless and not self._is_given_up:
            self._on_hopeless("; ".join(hopeless))
        self._is_given_up = bool(hopeless)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self.look()
            self._stopped.wait(self._rules.look.total_seconds())
