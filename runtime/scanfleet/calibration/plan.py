"""What a calibration will do within its budget: how many rounds, and how many jobs in each stretch. Pure."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scanfleet.contract import MOST_SLOTS
from scanfleet.errors import InvalidRequest

MOST_JOBS_A_SLOT = 10
"""In one stretch. More rounds tell more than longer ones."""
_TAIL = 0.5
"""Jobs that each worker has begun, on average, when the last counted one ends."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """slots: the concurrencies, fewest first. budget_seconds: of all, from the first program's start."""

    slots: tuple[int, ...]
    rounds: int
    budget_seconds: float
    seed: int = 0

    def order(self, number: int, slots: Sequence[int]) -> list[int]:
        """Return the order of a round: the first one upwards, for safety; others by chance, against drift."""
        if number == 0:
            return sorted(slots)
        return random.Random(f"{self.seed}-{number}").sample(list(slots), len(slots))

    def least_seconds(self, job_seconds: float) -> float:
        """Return what one round takes if more programs side by side were not slower than one."""
        return sum(stretch_seconds(slots, 1, job_seconds) for slots in self.slots)


def stretch_seconds(slots: int, jobs_a_slot: int, job_seconds: float) -> float:
    """Return how long a stretch takes: the workers begin one after the other, count jobs, and end."""
    return job_seconds * ((slots - 1) / slots + jobs_a_slot + _TAIL * (slots > 1))


def jobs_a_slot(slots: int, job_seconds: float, *, seconds: float) -> int:
    """Return how many jobs of each worker fit into a stretch of so many seconds: 1 to MOST_JOBS_A_SLOT."""
    ramp = stretch_seconds(slots, 0, job_seconds)
    return max(1, min(MOST_JOBS_A_SLOT, int((seconds - ramp) / job_seconds)))


def parse_slots(text: str) -> tuple[int, ...]:
    """Return the concurrencies that "1..4", "4" (the same) or "1,2,4,8" names; one is always among them."""
    if match := re.fullmatch(r"(?:1\.\.)?(\d{1,3})", text.strip()):
        found = set(range(1, int(match[1]) + 1))
    elif re.fullmatch(r"\d{1,3}(,\d{1,3})*", text.strip()):
        found = {1, *map(int, text.split(","))}
    else:
        found = set()
    if not found or min(found) < 1 or max(found) > MOST_SLOTS:
        raise InvalidRequest.of(
            "--slots", f"allowed: 1..N or numbers such as 1,2,4, each from 1 to {MOST_SLOTS}", value=text
        )
    return tuple(sorted(found))
