"""The end of an idle machine by itself, so that the fleet gets smaller by it.

It stops receiving first and looks again when the last poll has come back: if that brought a message, there is
work, and it goes on. Scale-in by alarm does the same for a whole fleet (docs/scaling.md); this is for fleets
whose machines should go sooner or later than that, each by its own clock.
"""

import logging
from collections.abc import Callable
from datetime import timedelta

from scanfleet.agent.drainable import Drainable
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.errors import Unavailable

log = logging.getLogger(__name__)

CAUSE = "idle"
ENDS_WITHIN = timedelta(minutes=2)
"""After Auto Scaling has agreed: an instance whose end does not come by then goes on."""


class IdleEnd:
    """Ends the instance once it has had no job for `after`; None: never. clock: seconds."""

    def __init__(
        self, member: FleetMember, worker: Drainable, *, after: timedelta | None, clock: Callable[[], float]
    ) -> None:
        self._member = member
        self._worker = worker
        self._after = after
        self._clock = clock
        self._idle_since = clock()
        self._seen_given_back = 0
        self._is_resting = False
        self._ends_by: float | None = None
        self._has_said_minimum = False

    def look(self, *, is_serving: bool) -> None:
        """Do what is due; called every few seconds. is_serving: it is in service and stays so."""
        if self._after is None:
            return
        if self._worker.busy or not is_serving:
            self._go_on()
        elif self._ends_by is not None:
            if self._clock() >= self._ends_by:
                self._go_on()
        elif self._is_resting:
            self._end_if_quiet()
        elif self._clock() - self._idle_since >= self._after.total_seconds():
            self._rest()

    def _rest(self) -> None:
        self._is_resting = True
        self._seen_given_back = self._worker.given_back
        self._worker.suspend(CAUSE, "idle for long: the instance is about to end", is_healthy=True)

    def _end_if_quiet(self) -> None:
        if self._worker.given_back != self._seen_given_back:
            self._go_on()
        elif self._worker.is_quiet:
            self._end()

    def _end(self) -> None:
        try:
            is_agreed = self._member.end_instance()
        except Unavailable as error:
            log.warning("idle, not ended: %s", error, extra={"action": "lifecycle_call_failed"})
            self._go_on()
            return
        if is_agreed:
            self._ends_by = self._clock() + ENDS_WITHIN.total_seconds()
            log.info("instance ends: no job for %s", self._after, extra={"action": "instance_ends_idle"})
            return
        if not self._has_said_minimum:
            log.info("idle, but the group is at its minimum", extra={"action": "instance_idle_at_minimum"})
        self._has_said_minimum = True
        self._go_on()

    def _go_on(self) -> None:
        """Take jobs again; the idle time begins anew."""
        self._idle_since = self._clock()
        self._ends_by = None
        if self._is_resting:
            self._is_resting = False
            self._worker.suspend(CAUSE, None)
