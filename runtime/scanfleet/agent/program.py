"""A running program, whatever the operating system: start, ask to stop, kill the whole tree, wait.

Each system's calls sit in one file (os_posix.py, os_windows.py); this module picks the right one.
"""

import sys
from collections.abc import Callable
from typing import IO, Protocol

from scanfleet.processors.base import Invocation


class RunningProgram(Protocol):
    """One program and everything that it starts."""

    pid: int
    stdout: IO[bytes]
    stderr: IO[bytes]

    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of every process that belongs to the program now, whoever its parent is."""

    def wait(self) -> int:
        """Return the exit code once the program and all its descendants are gone (negative: the signal)."""

    def ask_to_stop(self) -> None:
        """Ask the program to end by itself. Does nothing when it has ended."""

    def kill(self) -> None:
        """Kill the whole tree. Does nothing when it has ended."""

    def close(self) -> None:
        """Kill what is left and release the handles."""


def starter() -> Callable[[Invocation], RunningProgram]:
    """Return this operating system's way to start a program; it raises OSError when that fails."""
    if sys.platform == "win32":
        from scanfleet.agent.os_windows import start_program  # noqa: PLC0415 - imports Win32 calls
    else:
        from scanfleet.agent.os_posix import start_program  # noqa: PLC0415
    return start_program
