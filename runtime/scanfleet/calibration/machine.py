"""What kind of machine this is, and how much memory programs may have on it."""

import os
import sys
from pathlib import Path

import psutil

GIB = 2**30
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def kind_of_machine(instance_type: str = "") -> str:
    """Return the EC2 instance type, or for any other machine its size. Example: "2-cores-16-gib"."""
    if instance_type:
        return instance_type
    return f"{cores()}-cores-{max(1, round(memory_bytes() / GIB))}-gib"


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory, or what its container may use of it."""
    return min(psutil.virtual_memory().total, *_container_limits())


def available_bytes() -> int:
    """Return what can still be used without swapping anything out."""
    return psutil.virtual_memory().available


def busy_cpu_seconds() -> float:
    """Return the CPU time that the whole machine has worked since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def foreign_share(*, busy_seconds: float, own_seconds: float, elapsed: float) -> float:
    """Return the share of the machine's CPU that others used meanwhile, 0 to 1.

    busy_seconds: what the machine worked in `elapsed` seconds; own_seconds: of that, our programs.
    """
    capacity = elapsed * (psutil.cpu_count() or 1)
    return min(1.0, max(0.0, (busy_seconds - own_seconds) / capacity)) if capacity else 0.0


def _container_limits() -> list[int]:
    """Return what a container may use, or no limit. Source: kernel.org, "Control Group v2"."""
    found = [sys.maxsize]
    for path in _CGROUP_LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            found.append(int(text))
    return found
