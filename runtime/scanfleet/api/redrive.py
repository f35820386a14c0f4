"""Dead letters as operators handle them: looked at, sent back, or deleted for good.

What is due is always done first, and the letter deleted last: a crash in between leaves a letter whose job
waits already, and the next redrive only sends one message more.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from scanfleet.api.queueing import enqueue
from scanfleet.api.services import Services
from scanfleet.contract import Pool
from scanfleet.dead_letters import DeadLetter
from scanfleet.errors import Conflict, NotFound, ScanfleetError
from scanfleet.jobs import Job, JobState
from scanfleet.messages import UnreadableMessage

log = logging.getLogger(__name__)

HIDDEN = timedelta(seconds=60)
"""A letter is away from other readers this long at most, should this call die."""
BUDGET_SECONDS = 15.0
"""A call begins nothing new after this: well below what load balancer, HTTP API and Lambda wait for."""
MOST_LETTERS = 200
TRIES = 3
"""A job may change between our look and our write; then look again."""


class Outcome(StrEnum):
    """What became of a letter."""

    RETRIED = "retried"
    """Its failed or cancelled job is queued again, earlier failures forgiven; the letter is gone."""
    SENT = "sent"
    """Its job waits or runs; the message was sent once more, and the letter is gone."""
    DROPPED = "dropped"
    """Its job has completed, or has no record any more: there was nothing to do, and the letter is gone."""
    PURGED = "purged"
    """It was to be deleted, and is gone."""
    KEPT = "kept"
    """It stays; the detail says why."""


@dataclass(frozen=True)
class Seen:
    """A letter and what it names. `job` is None for a letter that names none that exists."""

    letter: DeadLetter
    job_id: str | None
    job: Job | None
    problem: str | None
    """Why it cannot be redriven, or None."""


@dataclass(frozen=True)
class Handled:
    """A letter and what became of it."""

    seen: Seen
    outcome: Outcome
    detail: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to redrive: everything in these pools, or only what is named.

    purge: ids of letters to delete for good, unless their jobs still wait for them.
    """

    pools: tuple[Pool, ...]
    job_ids: frozenset[str] = frozenset()
    purge: frozenset[str] = frozenset()
    is_dry_run: bool = False

    def names(self, seen: Seen) -> bool:
        """Say whether this letter is meant."""
        is_everything = not self.job_ids and not self.purge
        return is_everything or seen.job_id in self.job_ids or seen.letter.letter_id in self.purge


@dataclass
class _Round:
    """One call's way through the queues: how far it may go, and what it holds."""

    deadline: float
    limit: int
    held: list[DeadLetter] = field(default_factory=list)
    unfinished: list[Pool] = field(default_factory=list)


class Redrive:
    """Looks at dead letters and settles them, for one call each. `monotonic`: seconds, for the budget."""

    def __init__(self, services: Services, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._queues = services.queues.dead_letters
        self._monotonic = monotonic

    def look(self, pools: tuple[Pool, ...], *, limit: int) -> tuple[list[Seen], int]:
        """Return up to `limit` letters and about how many more there are; all stay where they are."""
        way = self._round(limit)
        try:
            found = [self._seen(letter) for letter in self._letters(pools, way)]
            return found, self._remaining(way)
        finally:
            self._release(way)

    def run(self, order: Order) -> tuple[list[Handled], int]:
        """Settle the letters that the order names; return what became of each, and about how many are left.

        Letters that stay are hidden until HIDDEN has passed while others are left, so that a next call comes
        to those.
        """
        way = self._round(MOST_LETTERS)
        handled: list[Handled] = []
        remaining = 0
        try:
            for letter in self._letters(order.pools, way):
                seen = self._seen(letter)
                if order.names(seen):
                    handled.append(self._handle(seen, order))
                    if handled[-1].outcome is not Outcome.KEPT and not order.is_dry_run:
                        way.held.remove(letter)
            remaining = self._remaining(way)
        finally:
            if order.is_dry_run or not remaining:
                self._release(way)
        return handled, remaining

    # --- The queues ----------------------------------------------------------------------------------------

    def _round(self, limit: int) -> _Round:
        return _Round(deadline=self._monotonic() + BUDGET_SECONDS, limit=limit)

    def _letters(self, pools: tuple[Pool, ...], way: _Round) -> Iterator[DeadLetter]:
        """Yield each letter once, hidden from others, until none, no time or no room is left."""
        for pool in pools:
            way.unfinished.append(pool)
            while way.limit > 0 and self._monotonic() < way.deadline:
                received = self._queues.receive(pool, visibility=HIDDEN)
                if not received:
                    way.unfinished.remove(pool)
                    break
                way.held.extend(received)
                for letter in received:
                    if way.limit <= 0 or self._monotonic() >= way.deadline:
                        return
                    way.limit -= 1
                    yield letter

    def _remaining(self, way: _Round) -> int:
        """Return about how many letters this round did not come to; at least 1 when it did not end."""
        if not way.unfinished:
            return 0
        return max(1, sum(self._queues.waiting(pool) for pool in way.unfinished))

    def _release(self, way: _Round) -> None:
        try:
            self._queues.release(tuple(way.held))
        except ScanfleetError as error:
            log.warning("dead letters stay hidden for a while: %s", error, extra={"action": "letters_hidden"})

    def _seen(self, letter: DeadLetter) -> Seen:
        try:
            job_id = letter.job_id()
        except UnreadableMessage as error:
            return Seen(letter, None, None, str(error))
        try:
            return Seen(letter, job_id, self._services.store.get(job_id), None)
        except NotFound:
            return Seen(letter, job_id, None, None)

    # --- One letter ----------------------------------------------------------------------------------------

    def _handle(self, seen: Seen, order: Order) -> Handled:
        try:
            outcome, detail = self._settle(seen, order)
        except ScanfleetError as error:
            outcome, detail = Outcome.KEPT, str(error)
        if not order.is_dry_run:
            facts = {"action": "dead_letter_handled", "outcome": outcome, "job_id": seen.job_id}
            log.info(
                "dead letter %s: %s", outcome, detail, extra=facts | {"letter_id": seen.letter.letter_id}
            )
        return Handled(seen, outcome, detail)

    def _settle(self, seen: Seen, order: Order) -> tuple[Outcome, str]:
        """Do what is due, or with a dry run only say it; then delete the letter."""
        is_purge = seen.letter.letter_id in order.purge
        if seen.problem is not None and not is_purge:
            return Outcome.KEPT, f"{seen.problem}; only a purge that names the letter deletes it"
        if is_purge and (seen.job is None or seen.job.state.is_terminal):
            outcome, detail = Outcome.PURGED, "deleted for good"
        elif seen.job is None:
            outcome, detail = Outcome.DROPPED, "the job has no record any more"
        else:
            outcome, detail = self._revive(seen.job, is_dry_run=order.is_dry_run)
        if not order.is_dry_run:
            self._queues.delete(seen.letter)
        return outcome, detail

    def _revive(self, job: Job, *, is_dry_run: bool) -> tuple[Outcome, str]:
        """See that a job that should run has its message."""
        if is_dry_run:
            return _due(job)
        for _ in range(TRIES):
            outcome, detail = _due(job)
            try:
                if outcome is Outcome.RETRIED:
                    job = self._services.store.retry(job)
                if outcome is not Outcome.DROPPED:
                    enqueue(job, self._services)
            except Conflict:
                job = self._services.store.get(job.job_id)
            else:
                return outcome, detail
        raise Conflict(f"job {job.job_id} is {job.state} and keeps changing; try again")


def _due(job: Job) -> tuple[Outcome, str]:
    """Return what a letter of this job leads to, and why."""
    if job.state is JobState.COMPLETED:
        return Outcome.DROPPED, "the job has completed"
    if job.state.is_terminal:
        return Outcome.RETRIED, f"the job was {job.state} and is queued again"
    return Outcome.SENT, f"the job is {job.state}; its message was sent once more"
