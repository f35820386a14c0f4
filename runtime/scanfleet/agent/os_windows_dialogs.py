"""Finding the message boxes and crash reports of programs on Windows.

Not run by our tests, which have no Windows: docs/unproven.md says how to prove it.
"""

import ctypes
import sys
from typing import Any

import psutil

from scanfleet.agent.dialogs import Dialog, is_message, reported_process

assert sys.platform == "win32", "only imported on Windows"

from ctypes import wintypes  # noqa: E402

DIALOG_CLASS = "#32770"
"""Of dialogs and message boxes. Source: Win32 API reference, "About Window Classes"."""
MAX_TEXT = 1024
WM_GETTEXT = 0xD
SMTO_ABORTIFHUNG = 0x2
TEXT_MILLISECONDS = 100
"""How long a window of another process may take to tell its text. Source: SendMessageTimeoutW."""

_OnWindow = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.HWND, wintypes.LPARAM)


def _user32() -> Any:
    library = ctypes.WinDLL("user32", use_last_error=True)
    library.EnumWindows.argtypes = (_OnWindow, wintypes.LPARAM)
    library.EnumChildWindows.argtypes = (wintypes.HWND, _OnWindow, wintypes.LPARAM)
    library.IsWindowVisible.argtypes = (wintypes.HWND,)
    library.GetClassNameW.argtypes = (wintypes.HWND, wintypes.LPWSTR, ctypes.c_int)
    library.GetWindowThreadProcessId.argtypes = (wintypes.HWND, wintypes.LPDWORD)
    library.SendMessageTimeoutW.argtypes = (
        wintypes.HWND,
        wintypes.UINT,
        wintypes.WPARAM,
        wintypes.LPVOID,
        wintypes.UINT,
        wintypes.UINT,
        wintypes.LPVOID,
    )
    return library


def find_dialogs(pids: frozenset[int]) -> tuple[Dialog, ...]:
    """Return the message boxes of these processes, and what Windows Error Reporting shows for them.

    Windows on other desktops than the agent's are not seen, so error reports are found by their process.
    Raises OSError.
    """
    user32 = _user32()
    boxes = [_message_box(user32, window, pids) for window in _windows(user32.EnumWindows)]
    return (*(box for box in boxes if box is not None), *_error_reports(pids))


def _windows(enumerate_windows: Any, *of: Any) -> list[Any]:
    found: list[Any] = []

    def keep(window: Any, _: Any) -> bool:
        found.append(window)
        return True

    # EnumChildWindows returns nothing of meaning; a failed EnumWindows is an empty desktop or no access.
    enumerate_windows(*of, _OnWindow(keep), 0)
    return found


def _message_box(user32: Any, window: Any, pids: frozenset[int]) -> Dialog | None:
    pid = wintypes.DWORD()
    user32.GetWindowThreadProcessId(window, ctypes.byref(pid))
    if pid.value not in pids or not user32.IsWindowVisible(window):
        return None
    if _class_name(user32, window) != DIALOG_CLASS:
        return None
    parts = [(_class_name(user32, part), part) for part in _windows(user32.EnumChildWindows, window)]
    if not is_message(name for name, _ in parts):
        return None
    said = (_text(user32, part) for name, part in parts if name == "Static")
    return Dialog(pid.value, _text(user32, window), " ".join(filter(None, said)))


def _class_name(user32: Any, window: Any) -> str:
    name = ctypes.create_unicode_buffer(MAX_TEXT)
    user32.GetClassNameW(window, name, MAX_TEXT)
    return name.value


def _text(user32: Any, window: Any) -> str:
    """Return the window's text, or nothing when its process does not answer in time."""
    text = ctypes.create_unicode_buffer(MAX_TEXT)
    user32.SendMessageTimeoutW(window, WM_GETTEXT, MAX_TEXT, text, SMTO_ABORTIFHUNG, TEXT_MILLISECONDS, None)
    return text.value


def _error_reports(pids: frozenset[int]) -> list[Dialog]:
    reports = (
        reported_process(process.info["cmdline"] or [])
        for process in psutil.process_iter(["name", "cmdline"])
        if (process.info["name"] or "").lower() == "werfault.exe"
    )
    return [Dialog(pid, "Windows Error Reporting (WerFault.exe)") for pid in reports if pid in pids]
