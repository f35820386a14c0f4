"""The port between the runner and whatever watches a running program."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from scanfleet.agent.program import RunningProgram
from scanfleet.errors import JobFailure


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a program's whole process tree did since the sample before.

    at: seconds since the program's start. gpu_percent: of the busiest device that the tree uses; None without
    a GPU that can be asked.
    """

    at: float
    cpu_seconds: float
    io_bytes: int
    printed_bytes: int
    output_growth_bytes: int
    resident_bytes: int
    processes: int
    gpu_percent: float | None = None


class Watch(Protocol):
    """Watches one run of one program, from the thread that runs it."""

    @property
    def interval(self) -> timedelta:
        """Return how long to wait between two looks."""
        ...

    def look(self, program: RunningProgram) -> JobFailure | None:
        """Return why the program has to be ended now, or None. It is called once more right after the start.

        Whatever has to be learned from the living program (evidence) is learned before this returns.
        """
        ...

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Take note of a run whose job has been completed, with the seconds of each stage. Never raises.

        since_end: seconds from the program's end until now: how long the upload took.
        """
        ...
