"""What the programs that run now have used, added up for the agent's /metrics: no job is named there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.attempts import Usage
from scanfleet.metrics import Gauge


class RunningPrograms:
    """The meters of running programs. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meters: list[UsageMeter] = []

    @contextmanager
    def running(self, meter: UsageMeter) -> Iterator[None]:
        """Count the meter's program until the block ends."""
        with self._lock:
            self._meters.append(meter)
        try:
            yield
        finally:
            with self._lock:
                self._meters.remove(meter)

    def gauges(self) -> list[Gauge]:
        """Return how many run and what they have used; what this machine does not tell counts as nothing."""
        with self._lock:
            meters = list(self._meters)
        used = [usage for meter in meters if (usage := meter.usage()) is not None]
        return [
            Gauge.plain("agent_programs", "Programs that run.", len(meters)),
            Gauge.plain(
                "agent_programs_cpu_ratio",
                "Their mean CPU since each began, added up; 1 is one core.",
                sum(usage.cpu_percent_mean or 0.0 for usage in used) / 100,
            ),
            Gauge.plain(
                "agent_programs_memory_peak_bytes", "Their highest memory, added up.", _sum(used, "memory")
            ),
            Gauge.plain(
                "agent_programs_gpu_memory_peak_bytes", "The same of GPUs.", _sum(used, "gpu_memory")
            ),
            Gauge.plain("agent_programs_io_bytes", "Read and written by them.", _io(used)),
        ]


PROGRAMS = RunningPrograms()
"""Of this process."""


def _sum(used: list[Usage], what: str) -> int:
    return sum(getattr(usage, f"{what}_bytes_peak") or 0 for usage in used)


def _io(used: list[Usage]) -> int:
    return sum(usage.io_bytes or 0 for usage in used)
