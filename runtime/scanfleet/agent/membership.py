"""The agent's life as a member of an Auto Scaling group: what the group wants, and what it is told.

    target lifecycle state   the agent
    InService, or unknown    serves
    Warmed:*, Standby,       takes nothing new until it is InService (again)
      Detached
    Terminated,              drains; once drained, completes the terminate hook
      Warmed:Terminated
    (spot notice)            drains within the time that is left
    (rebalance advice)       takes nothing new for a while: the group launches another machine and then
                             terminates this one; if it does not, this one goes on
    (no job for long)        stops taking jobs, sees that nothing came, and ends its instance
    (condemned machine)      says that it is unhealthy: the group replaces it

The ladder of ends is one stop with a grace: whatever asks for it, the drain that ends first counts.
A busy instance is protected from scale-in. Nothing here ever waits for, or is waited for by, a job: a machine
that scale-in chooses in the moment between a job's arrival and its protection drains like any other.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from scanfleet import contract
from scanfleet.agent.drainable import Drainable
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.idle_end import IdleEnd
from scanfleet.agent.instance import InstanceMetadata, SpotNotice
from scanfleet.errors import Unavailable

log = logging.getLogger(__name__)

LEAVING = frozenset({"Terminated", "Warmed:Terminated"})
ASIDE = frozenset({"Standby", "Detached"})
IN_SERVICE = "InService"
WARM = "Warmed:"
COMPLETION_TRIES = 5
CONDEMNED_SAID_EVERY = timedelta(minutes=1)
"""Until the group has understood: it may be suspended, or not have answered."""


@dataclass(frozen=True)
class MembershipRules:
    """How often and how long."""

    look: timedelta = timedelta(seconds=5)
    """Between two questions to the instance metadata."""
    idle: timedelta = timedelta(seconds=20)
    """Protection outlives the last job by this: a next one often follows at once, and calls are throttled."""
    retry: timedelta = timedelta(seconds=15)
    """After Auto Scaling did not answer."""
    heartbeat: timedelta = contract.TERMINATE_HOOK_TIMEOUT / 4
    ready: timedelta = contract.AGENT_READY_TIMEOUT
    drain: timedelta = contract.DRAIN_GRACE
    hand_back: timedelta = timedelta(seconds=30)
    """Before a spot instance goes: time to stop programs and hand their jobs back."""
    rebalance: timedelta = contract.LAUNCH_HOOK_TIMEOUT
    """After EC2's advice: the group has time to launch another machine and to end this one."""
    end_idle: timedelta | None = None
    """An instance without a job for so long ends itself; None: never."""


class Membership:
    """Watches and tells from a thread of its own between `start` and `stop`; `look` is one round.

    clock: seconds, of a clock that nobody sets: Windows corrects the wall clock by hours after some boots.
    wall: epoch seconds, for what EC2 announces.
    """

    def __init__(
        self,
        member: FleetMember,
        metadata: InstanceMetadata,
        worker: Drainable,
        *,
        rules: MembershipRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._member = member
        self._metadata = metadata
        self._worker = worker
        self._rules = rules or MembershipRules()
        self._clock = clock
        self._wall = wall
        self._target: str | None = None
        self._is_awaited = False
        self._was_ready = False
        self._give_up_at = clock() + self._rules.ready.total_seconds()
        self._notice: SpotNotice | None = None
        self._is_leaving = False
        self._advised_at: float | None = None
        self._hold_back_until: float | None = None
        self._idle_end = IdleEnd(member, worker, after=self._rules.end_idle, clock=clock)
        self._is_protected: bool | None = None
        self._busy_at = float("-inf")
        self._not_before: dict[str, float] = {}
        self._is_metadata_silent = False
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="membership", daemon=True)
        worker.listen(self._wake.set)

    def start(self) -> None:
        """Begin to watch, after a first look: a machine of the warm pool must not take a job first."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()

    def leave(self) -> None:
        """Say that all is drained, if the group waits for it: the machine may go."""
        if not self._is_leaving:
            return
        for _ in range(COMPLETION_TRIES):
            try:
                done = self._member.complete(contract.TERMINATE_HOOK)
            except Unavailable as error:
                log.warning("drained, not said: %s", error, extra={"action": "lifecycle_call_failed"})
                self._stopped.wait(1)
                continue
            log.info("drained", extra={"action": "instance_left", "hook_waited": done})
            return

    def look(self) -> None:
        """Look at target state, notices and running jobs, and do what follows."""
        self._see_target()
        self._see_spot_notice()
        self._see_rebalance_advice()
        self._tell_ready()
        self._tell_condemned()
        self._tell_busy()
        self._idle_end.look(is_serving=self._is_serving)
        if self._is_leaving and self._is_due("heartbeat", self._rules.heartbeat):
            self._call("heartbeat", lambda: self._member.heartbeat(contract.TERMINATE_HOOK))

    # --- What the group wants ------------------------------------------------------------------------------

    def _see_target(self) -> None:
        try:
            target = self._metadata.target_state()
        except Unavailable as error:
            if not self._is_metadata_silent:
                log.warning("no instance metadata: %s", error, extra={"action": "metadata_failed"})
            self._is_metadata_silent = True
            return
        self._is_metadata_silent = False
        if target == self._target:
            return
        facts = {"action": "lifecycle_target_changed", "previous_target": self._target, "target": target}
        log.info("Auto Scaling wants %s", target, extra=facts)
        self._target = target
        if target in LEAVING:
            self._begin_to_leave(self._rules.drain, "Auto Scaling terminates the instance")
        is_warm = target is not None and target.startswith(WARM)
        self._is_awaited = self._is_awaited or is_warm
        self._worker.hold(is_warm or target in ASIDE)

    def _see_spot_notice(self) -> None:
        notice: SpotNotice | None = None
        with suppress(Unavailable):  # said by _see_target
            notice = self._metadata.spot_notice()
        if notice is not None and notice != self._notice:
            self._notice = notice
            left = timedelta(seconds=max(0.0, notice.at - self._wall())) - self._rules.hand_back
            log.warning("EC2 takes the instance back", extra={"action": "spot_notice", "at": notice.at})
            self._begin_to_leave(max(timedelta(), min(left, self._rules.drain)), f"spot {notice.action}")

    def _see_rebalance_advice(self) -> None:
        """Hold back after EC2's advice, but not for ever: without capacity elsewhere this machine stays."""
        advised_at: float | None = None
        with suppress(Unavailable):  # said by _see_target
            advised_at = self._metadata.rebalance_advised_at()
        if advised_at is not None and advised_at != self._advised_at:
            self._advised_at = advised_at
            log.warning("EC2 advises to replace the instance", extra={"action": "rebalance_advised"})
            self._worker.suspend("rebalance", "EC2 may take the instance back soon", is_healthy=True)
            since = max(0.0, self._wall() - advised_at)
            self._hold_back_until = self._clock() + self._rules.rebalance.total_seconds() - since
        if self._hold_back_until is not None and self._clock() >= self._hold_back_until:
            self._hold_back_until = None
            self._worker.suspend("rebalance", None)

    @property
    def _is_serving(self) -> bool:
        return self._was_ready and not self._is_leaving and self._target in (IN_SERVICE, None)

    def _begin_to_leave(self, grace: timedelta, reason: str) -> None:
        facts = {"action": "drain_started", "reason": reason, "grace_seconds": grace.total_seconds()}
        log.info("drains: %s", reason, extra=facts)
        self._is_leaving = True
        self._worker.drain(grace, reason=reason)

    # --- What the group is told ----------------------------------------------------------------------------

    def _tell_ready(self) -> None:
        """Complete the launch hook after a wait in the warm pool; give the machine up if it never gets ready.

        After a boot user-data completes the hook. One that waited running or hibernated does not boot.
        """
        problem = self._worker.problem()
        if self._is_leaving:
            return
        if problem is None:
            self._was_ready = True
            is_due = self._is_awaited and self._target == IN_SERVICE and self._is_due("ready", timedelta())
            if is_due and self._call("ready", lambda: self._member.complete(contract.LAUNCH_HOOK)):
                self._is_awaited = False
        elif not self._was_ready and self._clock() >= self._give_up_at:
            self._give_up_at = self._clock() + self._rules.ready.total_seconds()
            give_up(self._member, f"not ready after {self._rules.ready}: {problem}")

    def _tell_condemned(self) -> None:
        reason = self._worker.condemned
        if reason is not None and not self._is_leaving and self._is_due("condemned", CONDEMNED_SAID_EVERY):
            give_up(self._member, reason)

    def _tell_busy(self) -> None:
        """Have a busy instance protected from scale-in; a leaving one cannot be any more."""
        now = self._clock()
        if self._worker.busy:
            self._busy_at = now
        is_busy = now - self._busy_at < self._rules.idle.total_seconds()
        # Before it is in service it cannot be protected, and need not be.
        is_settled = self._is_leaving or is_busy == self._is_protected
        if is_settled or not self._was_ready or not self._is_due("protect", timedelta()):
            return
        if self._call("protect", lambda: self._member.protect(is_busy)):
            self._is_protected = is_busy
            action = "instance_protected" if is_busy else "instance_unprotected"
            log.info("scale-in protection %s", "on" if is_busy else "off", extra={"action": action})

    # --- Time ----------------------------------------------------------------------------------------------

    def _is_due(self, name: str, every: timedelta) -> bool:
        now = self._clock()
        if now < self._not_before.get(name, now):
            return False
        self._not_before[name] = now + every.total_seconds()
        return True

    def _call(self, name: str, call: Callable[[], object]) -> bool:
        """Return whether Auto Scaling answered; if not, `name` is due again after `rules.retry`."""
        try:
            call()
        except Unavailable as error:
            log.warning("%s not said: %s", name, error, extra={"action": "lifecycle_call_failed"})
            self._not_before[name] = self._clock() + self._rules.retry.total_seconds()
            return False
        return True

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait(self._rules.look.total_seconds())
            self._wake.clear()
            try:
                self.look()
            except Exception:
                log.exception("look failed", extra={"action": "lifecycle_call_failed"})


def give_up(member: FleetMember, reason: str) -> None:
    """Have the group replace this machine; the reason is in the log, as Auto Scaling keeps none."""
    log.error("instance given up: %s", reason, extra={"action": "instance_unhealthy", "reason": reason})
    try:
        member.set_unhealthy()
    except Unavailable as error:
        log.warning("not given up: %s", error, extra={"action": "lifecycle_call_failed"})
