"""Who pays for a machine's time: every second belongs to some attempt, so that receipts add up to the bill.

    some attempts run    each of them has an equal part of the second: a slot's worth is its own work, the
                         rest is the idle slots beside it
    none runs            the second waits for the attempt that begins next
    the boot             waits like that, too, and is told apart

So only what comes after a machine's last attempt is nobody's. docs/receipt.md has an example.
"""

import threading
import time
from collections.abc import Callable

from scanfleet import contract
from scanfleet.attempts import Machine


class Share:
    """One attempt's part of the machine's time, in seconds of the whole machine. See `MachineTime.begin`."""

    def __init__(self, machine: "MachineTime", *, boot_seconds: float, idle_seconds: float) -> None:
        self.boot_seconds = boot_seconds
        """Of the boot, if it waited for this attempt."""
        self.idle_seconds = idle_seconds
        """In which nothing ran before this attempt."""
        self.part_seconds = 0.0
        """Since it began: its own work and what was idle beside it."""
        self.began_at = 0.0
        self.ended_at: float | None = None
        self._machine = machine

    @property
    def beside(self) -> int:
        """Return how many other attempts run on the machine now."""
        return self._machine.beside(self)

    def end(self) -> float:
        """End it, unless it has ended; return what was idle beside it, in seconds of the whole machine."""
        return self._machine.end(self)

    def undo(self) -> None:
        """Leave the whole share to whoever begins next: there was nothing to do."""
        self._machine.undo(self)


class MachineTime:
    """Divides the time of one machine. For several threads. clock: seconds."""

    def __init__(
        self, slots: int, *, boot_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = max(1, slots)
        self._clock = clock
        self._lock = threading.Lock()
        self._running: set[Share] = set()
        self._boot_seconds = boot_seconds
        self._idle_seconds = 0.0
        self._counted_until = clock()

    def begin(self) -> Share:
        """Return the share of an attempt that begins now; it has what has waited."""
        with self._lock:
            now = self._count()
            share = Share(self, boot_seconds=self._boot_seconds, idle_seconds=self._idle_seconds)
            share.began_at = now
            self._boot_seconds = self._idle_seconds = 0.0
            self._running.add(share)
            return share

    def beside(self, share: Share) -> int:
        """See `Share.beside`."""
        with self._lock:
            return len(self._running - {share})

    def end(self, share: Share) -> float:
        """See `Share.end`."""
        with self._lock:
            now = self._count()
            if share in self._running:
                self._running.remove(share)
                share.ended_at = now
            ended_at = now if share.ended_at is None else share.ended_at
            return max(0.0, share.part_seconds - (ended_at - share.began_at) / self._slots)

    def undo(self, share: Share) -> None:
        """See `Share.undo`."""
        with self._lock:
            self._count()
            if share in self._running:
                self._running.remove(share)
                self._boot_seconds += share.boot_seconds
                self._idle_seconds += share.idle_seconds + share.part_seconds

    def _count(self) -> float:
        """Divide the time since the last change, and return the time now."""
        now = self._clock()
        seconds = max(0.0, now - self._counted_until)
        self._counted_until = max(now, self._counted_until)
        for share in self._running:
            share.part_seconds += seconds / len(self._running)
        if not self._running:
            self._idle_seconds += seconds
        return now


def boot_seconds(machine: Machine, now: float) -> float:
    """Return how long the machine's boot took, if an agent that starts now ends it; else 0.

    An agent that starts long after the launch was started again: the one before it has counted the boot.
    now: epoch seconds.
    """
    if machine.booted_at is None:
        return 0.0
    seconds = now - machine.booted_at
    return seconds if 0 <= seconds <= contract.LAUNCH_HOOK_TIMEOUT.total_seconds() else 0.0
