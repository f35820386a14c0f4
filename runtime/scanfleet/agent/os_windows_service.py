"""This process as a Windows service.

It imports little: Windows waits for a service to connect, and modules are slow to load right after a boot.

Not run by our tests, which have no Windows: docs/unproven.md says how to prove it.
"""

import ctypes
import logging
import sys
from datetime import timedelta
from typing import Any

from scanfleet import contract
from scanfleet.agent.service_host import Program, ServiceHost, ServiceStatus

assert sys.platform == "win32", "only imported on Windows"

from ctypes import wintypes  # noqa: E402

SERVICE_WIN32_OWN_PROCESS = 0x10
SC_MANAGER_CONNECT = 0x1
SERVICE_CHANGE_CONFIG = 0x2
SERVICE_CONFIG_PRESHUTDOWN_INFO = 7
"""Source: Win32 API reference, "Service Security and Access Rights", ChangeServiceConfig2W."""
ERROR_ACCESS_DENIED = 5
"""AllocConsole's answer to a process that has a console. Source: Win32 API reference, AllocConsole."""
SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX = 0x1, 0x2, 0x8000
"""Source: Win32 API reference, SetErrorMode."""
CTRL_LOGOFF_EVENT = 5
CTRL_SHUTDOWN_EVENT = 6
PRESHUTDOWN_LIMIT = contract.DRAIN_GRACE + timedelta(minutes=1)
"""How long Windows is to wait before it goes down; 10 s by default. Source: SERVICE_PRESHUTDOWN_INFO."""
FAILED_EXIT_CODE = 1

log = logging.getLogger(__name__)


class _Status(ctypes.Structure):
    _fields_ = (
        ("service_type", wintypes.DWORD),
        ("current_state", wintypes.DWORD),
        ("controls_accepted", wintypes.DWORD),
        ("win32_exit_code", wintypes.DWORD),
        ("service_specific_exit_code", wintypes.DWORD),
        ("check_point", wintypes.DWORD),
        ("wait_hint", wintypes.DWORD),
    )


_ServiceMain = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
_ControlHandler = ctypes.WINFUNCTYPE(
    wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p
)
_ConsoleHandler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)


class _TableEntry(ctypes.Structure):
    _fields_ = (("name", wintypes.LPWSTR), ("main", _ServiceMain))


def _advapi32() -> Any:
    library = ctypes.WinDLL("advapi32", use_last_error=True)
    library.StartServiceCtrlDispatcherW.argtypes = (ctypes.POINTER(_TableEntry),)
    library.RegisterServiceCtrlHandlerExW.restype = wintypes.HANDLE
    library.RegisterServiceCtrlHandlerExW.argtypes = (wintypes.LPCWSTR, _ControlHandler, ctypes.c_void_p)
    library.SetServiceStatus.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Status))
    library.OpenSCManagerW.restype = wintypes.HANDLE
    library.OpenSCManagerW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD)
    library.OpenServiceW.restype = wintypes.HANDLE
    library.OpenServiceW.argtypes = (wintypes.HANDLE, wintypes.LPCWSTR, wintypes.DWORD)
    library.ChangeServiceConfig2W.argtypes = (wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p)
    library.CloseServiceHandle.argtypes = (wintypes.HANDLE,)
    return library


def run_service(program: Program) -> int:
    """Serve the service control manager until the program has ended; return its exit code.

    Raises OSError when the manager did not start this process, such as at a prompt (error 1063).
    """
    advapi32 = _advapi32()
    codes: list[int] = []
    kept: list[Any] = []  # callbacks that Windows calls must not be collected

    def service_main(_count: int, arguments: Any) -> None:
        name = arguments[0]
        host = ServiceHost(lambda status: _set_status(advapi32, handle, status))
        on_control = _ControlHandler(lambda control, *_: host.control(control))
        kept.append(on_control)
        handle = advapi32.RegisterServiceCtrlHandlerExW(name, on_control, None)
        if not handle:
            raise ctypes.WinError(ctypes.get_last_error())
        _ask_for_time(advapi32, name)
        kept.append(_take_console())
        _show_no_dialogs()
        codes.append(host.run(program))

    entry = _ServiceMain(service_main)
    # The name of a process's only service is ignored; the second entry, empty, ends the table.
    table = (_TableEntry * 2)(_TableEntry("", entry))
    if not advapi32.StartServiceCtrlDispatcherW(table):
        raise ctypes.WinError(ctypes.get_last_error())
    return codes[0] if codes else FAILED_EXIT_CODE


def _set_status(advapi32: Any, handle: Any, status: ServiceStatus) -> None:
    told = _Status(
        SERVICE_WIN32_OWN_PROCESS,
        status.state,
        status.accepts,
        status.exit_code,
        status.specific_code,
        status.check_point,
        int(status.wait_hint / timedelta(milliseconds=1)),
    )
    if not advapi32.SetServiceStatus(handle, ctypes.byref(told)):
        error = ctypes.WinError(ctypes.get_last_error())
        log.error("service status not set: %s", error, extra={"action": "service_call_failed"})


def _ask_for_time(advapi32: Any, name: str) -> None:
    """Have Windows wait for a drain before it goes down. What fails is logged: the service works without."""
    limit = wintypes.DWORD(int(PRESHUTDOWN_LIMIT / timedelta(milliseconds=1)))
    manager = advapi32.OpenSCManagerW(None, None, SC_MANAGER_CONNECT)
    service = manager and advapi32.OpenServiceW(manager, name, SERVICE_CHANGE_CONFIG)
    done = service and advapi32.ChangeServiceConfig2W(
        service, SERVICE_CONFIG_PRESHUTDOWN_INFO, ctypes.byref(limit)
    )
    if not done:
        error = ctypes.WinError(ctypes.get_last_error())
        log.warning("Windows will not wait for a drain: %s", error, extra={"action": "service_call_failed"})
    for handle in (service, manager):
        if handle:
            advapi32.CloseServiceHandle(handle)


def _take_console() -> Any:
    """Give the service a console, which CTRL_BREAK to a program needs; return what must be kept.

    A process with a console hears of people who log off, and ends unless it says that it took care of that.
    Source: Win32 API reference, HandlerRoutine, GenerateConsoleCtrlEvent.
    """
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.SetConsoleCtrlHandler.argtypes = (_ConsoleHandler, wintypes.BOOL)
    handler = _ConsoleHandler(lambda event: event in (CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT))
    has_console = kernel32.AllocConsole() or ctypes.get_last_error() == ERROR_ACCESS_DENIED
    if not has_console or not kernel32.SetConsoleCtrlHandler(handler, True):
        error = ctypes.WinError(ctypes.get_last_error())
        log.warning("no console: %s", error, extra={"action": "service_call_failed"})
    return handler


def _show_no_dialogs() -> None:
    """Let programs that crash, or miss a DLL, end at once: nobody could close Windows' message about it.

    Programs inherit this. Source: Win32 API reference, SetErrorMode.
    """
    ctypes.WinDLL("kernel32").SetErrorMode(
        SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX
    )
