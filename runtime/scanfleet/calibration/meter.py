"""The memory that all programs of a calibration have together, and the GPUs'. Says when it is too much."""

import threading
from collections.abc import Callable
from typing import Any

GPU_LOOK_SECONDS = 0.5


class MemoryMeter:
    """The peak since `begin`.

    limit_bytes: of all programs together. available: what the machine has left; below reserve_bytes it would
    begin to swap. on_too_much is called at each look that finds either.
    """

    def __init__(self, *, limit_bytes: float, available: Callable[[], int], reserve_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._available = available
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._now: dict[object, int] = {}
        self._peak = 0
        self._cpu_seconds = 0.0
        self._on_too_much: Callable[[], None] | None = None

    def begin(self, on_too_much: Callable[[], None]) -> None:
        """Forget what was measured; from now on tell this one."""
        with self._lock:
            self._now.clear()
            self._peak = 0
            self._on_too_much = on_too_much

    def note(self, program: object, resident_bytes: int) -> None:
        """Take note of what a program uses now. program: tells it apart from the others."""
        with self._lock:
            self._now[program] = resident_bytes
            total = sum(self._now.values())
            self._peak = max(self._peak, total)
            tell = self._on_too_much
        if tell is not None and (total > self._limit_bytes or self._available() < self._reserve_bytes):
            tell()

    def used_cpu(self, seconds: float) -> None:
        """Take note of CPU time that a program has used since its last look."""
        with self._lock:
            self._cpu_seconds += seconds

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU time of all programs since the meter was made."""
        with self._lock:
            return self._cpu_seconds

    def ended(self, program: object) -> None:
        """Take an ended program out of the sum."""
        with self._lock:
            self._now.pop(program, None)

    @property
    def peak_bytes(self) -> int:
        """Return the most that all had together."""
        with self._lock:
            return self._peak


class GpuMemoryMeter:
    """The most that the machine's GPUs had in use, beyond what they had at `start`.

    state: see `gpu.Gpus.state`. Asked in a thread of its own: a driver that does not answer must not hold up
    the measurement.
    """

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state
        self._over = threading.Event()
        self._base: int | None = None
        self._peak: int | None = None
        self.total_bytes: int | None = None

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._look_on, name="gpu-memory", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def begin(self) -> None:
        """Forget the peak."""
        self._peak = None

    @property
    def peak_bytes(self) -> int | None:
        """Return the peak since `begin`; None when no GPU has told."""
        return None if self._peak is None or self._base is None else max(0, self._peak - self._base)

    def _look_on(self) -> None:
        while True:
            used, total = self._look()
            if used is not None:
                self._base = used if self._base is None else self._base
                self._peak = max(used, self._peak or 0)
                self.total_bytes = total
            if self._over.wait(GPU_LOOK_SECONDS):
                return

    def _look(self) -> tuple[int | None, int | None]:
        devices = self._state()["devices"]
        used = [d["memory_used_bytes"] for d in devices if d["memory_used_bytes"] is not None]
        total = [d["memory_total_bytes"] for d in devices if d["memory_total_bytes"] is not None]
        return (sum(used) if used else None), (sum(total) if total else None)
