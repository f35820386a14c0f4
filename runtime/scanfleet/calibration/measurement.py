"""What was measured: plain facts, which `analysis.py` reads and `bench.py` gathers."""

from dataclasses import dataclass
from enum import StrEnum


class Stopped(StrEnum):
    """Why a concurrency was not measured to its end."""

    MEMORY = "memory"
    """It would have used, or began to use, more memory than it may."""
    SLOWER = "slower"
    """Fewer slots had already finished clearly more jobs an hour."""
    FAILED = "failed"
    """The program fails when so many run."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One stretch with a fixed number of programs running, none counted that began before all of them ran.

    round_number: segments of one round lie close together in time, so what drifts hits them alike.
    seconds: of each counted job, from the making of its workspace to its removal.
    memory_bytes: the most that all programs' whole trees had together. gpu_memory_bytes: the most that the
    machine's GPUs had in use above what they had before; None where no GPU answers.
    """

    slots: int
    round_number: int
    seconds: tuple[float, ...]
    memory_bytes: int
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the recommended slots must keep to. None: no limit.

    memory_bytes: of all programs together. gpu_memory_bytes: the same on the GPU. p95_seconds: of one job.
    """

    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    p95_seconds: float | None = None
