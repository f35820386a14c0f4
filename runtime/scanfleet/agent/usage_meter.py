"""What a program has used so far, summed up from the looks that its watch takes anyway."""

import threading

from scanfleet.attempts import Usage

PEAK_SECONDS = 0.5
"""Rates are peaks over at least this long: CPU time is counted in ticks of 10 ms and more."""


class _Mean:
    """A mean weighted by time, and the highest value."""

    def __init__(self) -> None:
        self._seconds = self._sum = 0.0
        self.peak: float | None = None

    def add(self, value: float, seconds: float) -> None:
        self._seconds += seconds
        self._sum += value * seconds
        self.peak = value if self.peak is None else max(self.peak, value)

    @property
    def value(self) -> float | None:
        if self.peak is None:
            return None
        return self._sum / self._seconds if self._seconds > 0 else self.peak


class UsageMeter:
    """Written by the run's watch, read by the heartbeat. Times are seconds since the program's start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: float | None = None
        self._cpu_seconds = 0.0
        self._cpu_peak: float | None = None
        self._io_bytes = 0
        self._memory, self._gpu = _Mean(), _Mean()
        self._gpu_memory: int | None = None
        self._disk: int | None = None
        self._peak_from = 0.0
        self._peak_cpu_seconds = 0.0

    def add(
        self,
        at: float,
        *,
        cpu_seconds: float,
        io_bytes: int,
        memory_bytes: int,
        gpu_percent: float | None = None,
        gpu_memory_bytes: int | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        """Take one look. cpu_seconds, io_bytes: since the look before; the others: at this moment."""
        with self._lock:
            seconds = max(0.0, at - (self._at or 0.0))
            self._at = at
            self._cpu_seconds += cpu_seconds
            self._io_bytes += io_bytes
            self._memory.add(memory_bytes, seconds)
            if gpu_percent is not None:
                self._gpu.add(gpu_percent, seconds)
            self._gpu_memory = _higher(self._gpu_memory, gpu_memory_bytes)
            self._disk = _higher(self._disk, disk_bytes)
            self._peak_cpu_seconds += cpu_seconds
            if at - self._peak_from >= PEAK_SECONDS:
                rate = 100 * self._peak_cpu_seconds / (at - self._peak_from)
                self._cpu_peak = max(rate, self._cpu_peak or 0.0)
                self._peak_from, self._peak_cpu_seconds = at, 0.0

    def ended(self, at: float, *, cpu_seconds: float, memory_bytes: int | None = None) -> None:
        """Take the system's own account of the whole run: what came after the last look is in it.

        memory_bytes: the most that one process had.
        """
        with self._lock:
            since = self._at or 0.0
            rest = max(0.0, cpu_seconds - self._cpu_seconds)
            self._at = max(at, since)
            self._cpu_seconds += rest
            if self._cpu_peak is None and self._at > 0:
                self._cpu_peak = 100 * self._cpu_seconds / self._at
            if memory_bytes is not None:
                mean = self._memory.value
                self._memory.add(memory_bytes if mean is None else max(memory_bytes, mean), 0.0)

    def usage(self) -> Usage | None:
        """Return what is known so far; None when nothing is, as where the system does not tell."""
        with self._lock:
            if self._at is None:
                return None
            mean = 100 * self._cpu_seconds / self._at if self._at > 0 else 0.0
            memory, memory_peak = self._memory.value, self._memory.peak
            return Usage(
                seconds=round(self._at, 2),
                cpu_percent_mean=round(mean, 1),
                cpu_percent_peak=round(max(mean, self._cpu_peak or 0.0), 1),
                memory_bytes_mean=None if memory is None else int(memory),
                memory_bytes_peak=None if memory_peak is None else int(memory_peak),
                gpu_percent_mean=_rounded(self._gpu.value),
                gpu_percent_peak=_rounded(self._gpu.peak),
                gpu_memory_bytes_peak=self._gpu_memory,
                io_bytes=self._io_bytes,
                disk_bytes_peak=self._disk,
            )


def _higher(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
