"""What the processes of a program are doing, as people read it after the program was ended."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

from scanfleet.evidence import ProcessFacts

T = TypeVar("T")

MAX_PROCESSES = 200
MAX_COMMAND_CHARACTERS = 400


def describe(pids: Iterable[int]) -> tuple[ProcessFacts, ...]:
    """Return the facts of these processes, MAX_PROCESSES at most; those that have ended are left out."""
    found = (_facts(pid) for pid in list(pids)[:MAX_PROCESSES])
    return tuple(facts for facts in found if facts is not None)


def _facts(pid: int) -> ProcessFacts | None:
    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return None
    with process.oneshot():
        times = _or_none(process.cpu_times)
        memory = _or_none(process.memory_info)
        command = _or_none(process.cmdline)
        return ProcessFacts(
            pid=pid,
            parent=_or_none(process.ppid),
            name=clean(_or_none(process.name)),
            command=clean(None if command is None else " ".join(command)[:MAX_COMMAND_CHARACTERS]),
            state=_or_none(process.status),
            cpu_seconds=None if times is None else round(times.user + times.system, 3),
            resident_bytes=None if memory is None else memory.rss,
            threads=_or_none(process.num_threads),
            waits_in=_waits_in(pid),
        )


def _or_none(ask: Callable[[], T]) -> T | None:
    # It may end, or become a zombie, between two questions; the rest is still worth having.
    with suppress(psutil.Error, OSError):
        return ask()
    return None


def _waits_in(pid: int) -> str | None:
    """Return the kernel function that the process sleeps in. Source: proc_pid_wchan(5)."""
    if sys.platform == "linux":
        with suppress(OSError):
            text = Path(f"/proc/{pid}/wchan").read_text()
            return text if text not in {"", "0"} else None
    return None


def clean(text: str | None) -> str | None:
    """Return the text as JSON can hold it: names may be any bytes, which Python shows as lone surrogates."""
    return None if text is None else text.encode(errors="replace").decode()
