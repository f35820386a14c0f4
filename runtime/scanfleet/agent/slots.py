"""Which slots of this machine are taken, and whether a job has asked for all of them."""

import threading

from scanfleet.agent.stopping import StopRequest


class Slots:
    """The messages that are being worked on, each known by its stop. `changed` is notified of every change.

    A message that wants to be alone waits inside its slot until the others have ended, and nobody else gets
    in meanwhile; then all slots are its own.
    """

    def __init__(self, count: int, changed: threading.Condition) -> None:
        self._count = count
        self._changed = changed
        self._taken: dict[StopRequest, str] = {}
        self._threads: dict[StopRequest, threading.Thread] = {}
        self._loner: StopRequest | None = None
        self.is_closed = False
        """Whether the machine takes nothing new: written and read with `changed` held."""

    @property
    def count(self) -> int:
        """Return how many there are."""
        return self._count

    @property
    def busy(self) -> int:
        """Return how many are taken; all of them by a job that is alone."""
        is_alone = self._loner is not None and len(self._taken) == 1
        return self._count if is_alone else len(self._taken)

    @property
    def job_ids(self) -> tuple[str, ...]:
        """Return the jobs that run."""
        with self._changed:
            return tuple(job_id for job_id in self._taken.values() if job_id)

    @property
    def stops(self) -> tuple[StopRequest, ...]:
        """Return the stops of all that is being worked on."""
        with self._changed:
            return tuple(self._taken)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """Return the threads that work."""
        with self._changed:
            return tuple(self._threads.values())

    @property
    def waiting(self) -> StopRequest | None:
        """Return the stop of the message that waits to be alone, if its job has not begun yet."""
        with self._changed:
            return None if self._loner is None or self._taken.get(self._loner) else self._loner

    def has_room(self, most: int) -> bool:
        """Return whether another message may come in, with `most` side by side at most."""
        return self._loner is None and len(self._taken) < min(most, self._count)

    def take(self, stop: StopRequest, thread: threading.Thread) -> None:
        """Take a slot for a message whose job is not known yet."""
        with self._changed:
            self._taken[stop] = ""
            self._threads[stop] = thread
            self._changed.notify_all()

    def name(self, stop: StopRequest, job_id: str) -> None:
        """Say which job a slot runs."""
        with self._changed:
            self._taken[stop] = job_id

    def free(self, stop: StopRequest) -> None:
        """Give the slot back, and all the others to those who come next."""
        with self._changed:
            del self._taken[stop]
            del self._threads[stop]
            if self._loner is stop:
                self._loner = None
            self._changed.notify_all()

    def want_alone(self, stop: StopRequest) -> bool:
        """Let nobody else in from now on. False: another one is alone or waits for it, or none may begin."""
        with self._changed:
            if self.is_closed or self._loner not in (None, stop):
                return False
            self._loner = stop
            return True

    def await_alone(self, stop: StopRequest, *, seconds: float) -> bool:
        """Wait until the others have ended, or this one has to stop; return whether it is alone."""
        with self._changed:
            stop.listen(self._wake)
            try:
                self._changed.wait_for(lambda: len(self._taken) == 1 or stop.is_set(), seconds)
            finally:
                stop.forget(self._wake)
            return len(self._taken) == 1

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
