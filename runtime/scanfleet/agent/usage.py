"""What a program's whole process tree uses: CPU, IO, memory; and how its folders grow."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import psutil

from scanfleet.agent.program import RunningProgram

MAX_ENTRIES = 20_000
"""Files and folders that a walk looks at. A program with more of them is judged by its other signals."""
WALK_SHARE = 0.002
"""Of one core: after a walk that took a millisecond, the next one waits half a second."""


@dataclass(frozen=True, kw_only=True)
class TreeUsage:
    """What a tree used since it was measured last, and its size now."""

    cpu_seconds: float
    io_bytes: int
    resident_bytes: int
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Totals:
    """What a program has used since its start, processes that have ended included."""

    cpu_seconds: float
    io_bytes: int = 0
    peak_process_bytes: int | None = None
    """The most that one process had in memory."""


@runtime_checkable
class Reaped(Protocol):
    """A program whose account comes with its end (a guardian's)."""

    account: Totals | None


@runtime_checkable
class Accounted(Protocol):
    """A running program whose operating system keeps its accounts (a Windows Job Object)."""

    def totals(self) -> Totals:
        """Return what all its processes have used so far. Raises OSError."""


def account_of(program: RunningProgram) -> Totals | None:
    """Return what a program that has ended used altogether; None when the system does not tell."""
    if isinstance(program, Reaped):
        return program.account
    if isinstance(program, Accounted):
        with suppress(OSError):
            return program.totals()
    return None


@dataclass(frozen=True)
class _Account:
    """What one process has used so far. children_cpu: of those of its children that it has waited for."""

    cpu: float
    children_cpu: float
    io: int


class TreeMeter:
    """Measures one program, again and again. The first measurement counts from the program's start."""

    def __init__(self, program: RunningProgram) -> None:
        self._program = program
        self._processes: dict[int, psutil.Process] = {}
        self._accounts: dict[int, _Account] = {}
        self._totals = Totals(0.0, 0)

    def measure(self) -> TreeUsage:
        """Return the usage since the last measurement. Raises psutil.Error or OSError."""
        accounts, resident = self._read(self._program.process_ids())
        if isinstance(self._program, Accounted):
            totals = self._program.totals()
            cpu = totals.cpu_seconds - self._totals.cpu_seconds
            io = totals.io_bytes - self._totals.io_bytes
            self._totals = totals
        else:
            cpu, io = self._grown(accounts)
        self._accounts = accounts
        return TreeUsage(
            cpu_seconds=max(0.0, cpu),
            io_bytes=max(0, io),
            resident_bytes=resident,
            pids=tuple(accounts),
        )

    def _read(self, pids: Iterable[int]) -> tuple[dict[int, _Account], int]:
        accounts: dict[int, _Account] = {}
        resident = 0
        known = self._processes
        self._processes = {}
        for pid in pids:
            with suppress(psutil.Error):  # it has ended since
                process = known.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    accounts[pid] = _Account(
                        cpu=times.user + times.system,
                        children_cpu=times.children_user + times.children_system,
                        io=_io_bytes(process),
                    )
                    resident += process.memory_info().rss
                self._processes[pid] = process
        return accounts, resident

    def _grown(self, accounts: dict[int, _Account]) -> tuple[float, int]:
        """Return CPU seconds and IO bytes since the last measurement.

        Children that came and went between two measurements are in their parent's children_cpu, from which
        those that were measured while they lived are taken off.
        """
        cpu, io, of_children = 0.0, 0, 0.0
        for pid, now in accounts.items():
            before = self._accounts.get(pid)
            if before is None or now.cpu < before.cpu:  # a new process, perhaps under an old one's id
                before = _Account(0.0, 0.0, 0)
            cpu += now.cpu - before.cpu
            io += max(0, now.io - before.io)
            of_children += max(0.0, now.children_cpu - before.children_cpu)
        gone = sum(
            account.cpu + account.children_cpu
            for pid, account in self._accounts.items()
            if pid not in accounts
        )
        return cpu + max(0.0, of_children - gone), io


def _io_bytes(process: psutil.Process) -> int:
    """Return bytes read and written, whichever is more: asked of the system, or done by a device.

    The first counts pipes and cached files, the second pages of mapped files. Where the system does not say,
    0: other signals decide. Source: proc_pid_io(5).
    """
    try:
        counters = process.io_counters()
    except (AttributeError, psutil.AccessDenied):
        return 0
    asked = getattr(counters, "read_chars", 0) + getattr(counters, "write_chars", 0)
    return int(max(asked, counters.read_bytes + counters.write_bytes))


class FolderGrowth:
    """How much the sizes of folders' files change. Walks seldom enough to cost next to nothing."""

    def __init__(
        self,
        *folders: Path,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._max_entries = max_entries
        self._clock = clock
        self._next_walk = clock()
        self._size = self._walk()

    @property
    def size(self) -> int | None:
        """Return the size at the last walk; None when there was too much to look at."""
        return self._size

    def measure(self) -> int:
        """Return the bytes by which the size has changed since the last walk; 0 where none was due."""
        now = self._clock()
        if now < self._next_walk or self._size is None:
            return 0
        before, self._size = self._size, self._walk()
        self._next_walk = now + (self._clock() - now) / WALK_SHARE
        # Files that are removed are a sign of life, too.
        return 0 if self._size is None else abs(self._size - before)

    def _walk(self) -> int | None:
        """Return the size of all files; None when there are too many to look at."""
        total, entries = 0, 0
        waiting = [str(folder) for folder in self._folders]
        while waiting:
            # A folder or file may be removed while it is looked at.
            with suppress(OSError), os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > self._max_entries:
                        return None
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        return total
