"""How many slots a machine has when nobody has set a number: the one rule for agents and for scaling."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from scanfleet.calibration.records import Calibration, CalibrationStore
from scanfleet.contract import DEFAULT_SLOTS, Pool
from scanfleet.errors import Unavailable

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.85
"""Of a machine's memory, programs may use this; the rest is the system's, the agent's and the cache's."""
REREAD_SECONDS = 60.0


@dataclass(frozen=True)
class SlotChoice:
    """slots, and in words which calibration or default they follow."""

    slots: int
    why: str


def calibrated(calibrations: Iterable[Calibration], machine: str) -> Calibration | None:
    """Return the calibration that this kind of machine follows: of the pool's processors, the most modest.

    Any slot may get any of the pool's processors, so the one that takes fewest side by side decides.
    """
    mine = [found for found in calibrations if found.machine == machine]
    return min(mine, key=lambda found: (found.slots, found.processor), default=None)


def choose_slots(
    calibrations: Iterable[Calibration], machine: str, *, memory_bytes: int | None = None
) -> SlotChoice:
    """Return the slots of a machine of this kind.

    memory_bytes: what the machine really has, where that is known: never more slots than fit into it.
    """
    found = calibrated(calibrations, machine)
    if found is None:
        return SlotChoice(DEFAULT_SLOTS, f"default: no calibration for {machine}")
    day = datetime.fromtimestamp(found.measured_at, tz=UTC).date().isoformat()
    why = f"calibration of {found.processor} on {machine}, {day}: {found.slots}"
    fitting = _fitting(found, memory_bytes)
    if fitting < found.slots:
        return SlotChoice(fitting, f"{why}; memory for {fitting} only")
    return SlotChoice(found.slots, why)


def _fitting(found: Calibration, memory_bytes: int | None) -> int:
    """Return how many of its slots the memory holds, at least one."""
    if memory_bytes is None or not found.memory_per_slot:
        return found.slots
    return max(1, min(found.slots, math.floor(MEMORY_SHARE * memory_bytes / found.memory_per_slot)))


class PoolSlots:
    """What scaling knows of the calibrations: read anew each minute. clock: seconds."""

    def __init__(self, store: CalibrationStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._read: dict[Pool, tuple[float, tuple[Calibration, ...]]] = {}

    def by_machine(self, pool: Pool) -> dict[str, int]:
        """Return kind of machine -> slots; what was read last while the table does not answer."""
        read_at, found = self._read.get(pool, (-math.inf, ()))
        if self._clock() - read_at >= REREAD_SECONDS:
            try:
                found = self._store.of(pool)
            except Unavailable as error:
                facts = {"action": "calibrations_not_read", "pool": pool}
                log.warning("calibrations not read: %s", error, extra=facts)
            self._read[pool] = self._clock(), found
        return {machine: choose_slots(found, machine).slots for machine in {c.machine for c in found}}
