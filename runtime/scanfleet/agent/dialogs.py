"""Windows of programs that wait for somebody's answer, which on a server nobody gives."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

MESSAGE_PARTS = frozenset({"Static", "Button", "DirectUIHWND", "CtrlNotifySink", "SysLink"})
"""Classes of the windows inside a message box or a task dialog. Programs whose main window is a dialog have
others as well: lists, edit fields, progress bars."""


@dataclass(frozen=True)
class Dialog:
    """One such window. pid: of the program, also where another process shows the window for it."""

    pid: int
    title: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.title}: {self.text}" if self.text else self.title


def dialogs_of(pids: Iterable[int]) -> tuple[Dialog, ...]:
    """Return the message boxes and crash reports of these processes; without Windows there are none.

    A dialog that is more than a message (`is_message`) is no sign of trouble: some programs are dialogs.

    Raises OSError when Windows does not tell.
    """
    if sys.platform == "win32":
        from scanfleet.agent.os_windows_dialogs import find_dialogs  # noqa: PLC0415 - Win32 calls

        return find_dialogs(frozenset(pids))
    return ()


def is_message(parts: Iterable[str]) -> bool:
    """Say whether a dialog whose windows are of these classes only says something and waits for a click."""
    found = set(parts)
    return bool(found & {"Button", "DirectUIHWND"}) and found <= MESSAGE_PARTS


def reported_process(command: list[str]) -> int | None:
    """Return the process that a WerFault.exe of this command line reports on: `... -p <process id> ...`."""
    for option, value in pairwise(command):
        if option == "-p" and value.isdigit():
            return int(value)
    return None
