"""Every Win32 call: programs in a Job Object that kills on close, their message boxes, and this process as a
Windows service.

By ctypes rather than pywin32: a dozen functions with fixed, documented signatures, and no DLLs that a service
account has to find before anything of ours can run or log.

Not run by our tests, which have no Windows: docs/unproven.md says how to prove it.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any

import psutil

from scanfleet import contract
from scanfleet.agent.dialogs import Dialog, is_message, reported_process
from scanfleet.agent.service_host import Program, ServiceHost, ServiceStatus

if TYPE_CHECKING:  # its package is slow to import, and a service has to connect soon
    from scanfleet.agent.usage import Totals
    from scanfleet.processors.base import Invocation

assert sys.platform == "win32", "only imported on Windows"

from ctypes import wintypes  # noqa: E402

JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
"""Source: Win32 API reference, JOBOBJECT_BASIC_LIMIT_INFORMATION."""
JOB_OBJECT_BASIC_PROCESS_ID_LIST = 3
JOB_OBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION = 8
MAX_PROCESS_IDS = 4096
KILLED_EXIT_CODE = 1
CREATE_SUSPENDED = 0x4
"""Source: Win32 API reference, "Process Creation Flags"."""
KILL_ROUND_SECONDS = 0.02
KILL_ROUNDS = 500
"""Some 10 s: a process that a driver holds cannot be killed, and its job must go on."""

DIALOG_CLASS = "#32770"
"""Of dialogs and message boxes. Source: Win32 API reference, "About Window Classes"."""
MAX_TEXT = 1024
WM_GETTEXT = 0xD
SMTO_ABORTIFHUNG = 0x2
TEXT_MILLISECONDS = 100
"""How long a window of another process may take to tell its text. Source: SendMessageTimeoutW."""

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

log = logging.getLogger(__name__)


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time_limit", wintypes.LARGE_INTEGER),
        ("per_job_user_time_limit", wintypes.LARGE_INTEGER),
        ("limit_flags", wintypes.DWORD),
        ("minimum_working_set_size", ctypes.c_size_t),
        ("maximum_working_set_size", ctypes.c_size_t),
        ("active_process_limit", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority_class", wintypes.DWORD),
        ("scheduling_class", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_ulonglong * 6),
        ("process_memory_limit", ctypes.c_size_t),
        ("job_memory_limit", ctypes.c_size_t),
        ("peak_process_memory_used", ctypes.c_size_t),
        ("peak_job_memory_used", ctypes.c_size_t),
    )


class _ProcessIds(ctypes.Structure):
    """Source: Win32 API reference, JOBOBJECT_BASIC_PROCESS_ID_LIST."""

    _fields_ = (
        ("assigned", wintypes.DWORD),
        ("listed", wintypes.DWORD),
        ("ids", ctypes.c_size_t * MAX_PROCESS_IDS),
    )


class _Accounting(ctypes.Structure):
    """Times are in units of 100 ns.

    Source: Win32 API reference, JOBOBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION.
    """

    _fields_ = (
        ("user_time", wintypes.LARGE_INTEGER),
        ("kernel_time", wintypes.LARGE_INTEGER),
        ("period_times", wintypes.LARGE_INTEGER * 2),
        ("page_faults", wintypes.DWORD),
        ("process_counts", wintypes.DWORD * 3),
        ("operations", ctypes.c_ulonglong * 3),
        ("read_bytes", ctypes.c_ulonglong),
        ("written_bytes", ctypes.c_ulonglong),
        ("other_bytes", ctypes.c_ulonglong),
    )


def _kernel32() -> Any:
    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateJobObjectW.restype = wintypes.HANDLE
    library.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
    library.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    library.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
    library.CloseHandle.argtypes = (wintypes.HANDLE,)
    library.SetInformationJobObject.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.DWORD,
    )
    library.QueryInformationJobObject.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.DWORD,
        ctypes.c_void_p,
    )
    return library


class WindowsProgram:
    """A program in its own Job Object. See `RunningProgram`."""

    def __init__(self, process: "subprocess.Popen[bytes]", kernel32: Any, job: Any) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr
        self._process = process
        self._kernel32 = kernel32
        self._job = job

    def process_ids(self) -> tuple[int, ...]:
        """Return the processes of the Job Object; the first MAX_PROCESS_IDS of more."""
        found = _ProcessIds()
        # With more processes than fit the call fails, but has filled the list.
        self._kernel32.QueryInformationJobObject(
            self._job, JOB_OBJECT_BASIC_PROCESS_ID_LIST, ctypes.byref(found), ctypes.sizeof(found), None
        )
        return tuple(found.ids[: found.listed])

    def totals(self) -> "Totals":
        """Return what the Job Object has used since its start, ended processes included. Raises OSError.

        Other bytes are left out: requests to drivers, which a program that waits for its GPU goes on making.
        """
        from scanfleet.agent.usage import Totals  # noqa: PLC0415 - psutil is not needed to connect

        found = _Accounting()
        told = self._kernel32.QueryInformationJobObject(
            self._job,
            JOB_OBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION,
            ctypes.byref(found),
            ctypes.sizeof(found),
            None,
        )
        if not told:
            raise ctypes.WinError(ctypes.get_last_error())
        return Totals(
            cpu_seconds=(found.user_time + found.kernel_time) / 1e7,
            io_bytes=found.read_bytes + found.written_bytes,
        )

    def wait(self) -> int:
        """Return the exit code, unsigned as Windows gives it, after ending what the program left running."""
        exit_code = self._process.wait()
        for _ in range(KILL_ROUNDS):  # Windows only begins to end processes when it is told to
            self.kill()
            if not self.process_ids():
                break
            time.sleep(KILL_ROUND_SECONDS)
        return exit_code

    def ask_to_stop(self) -> None:
        """Send CTRL_BREAK to the program's process group."""
        with suppress(OSError):
            self._process.send_signal(signal.CTRL_BREAK_EVENT)

    def kill(self) -> None:
        """Terminate every process of the Job Object."""
        self._kernel32.TerminateJobObject(self._job, KILLED_EXIT_CODE)

    def close(self) -> None:
        """Close the Job Object, which kills what is left, and the pipes."""
        self._kernel32.CloseHandle(self._job)
        self._process.wait()
        self.stdout.close()
        self.stderr.close()


def start_program(invocation: "Invocation") -> WindowsProgram:
    """Start the program with closed standard input and piped output. Raises OSError.

    It begins to run only once it is in its Job Object: none of its children can be outside.
    """
    kernel32 = _kernel32()
    job = _kill_on_close_job(kernel32)
    try:
        process = subprocess.Popen(
            list(invocation.argv),
            cwd=invocation.cwd,
            env={**os.environ, **invocation.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Programs use every core for minutes; heartbeats and the health check must not wait for them.
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP
            | subprocess.BELOW_NORMAL_PRIORITY_CLASS
            | CREATE_SUSPENDED,
            bufsize=0,
        )
    except OSError:
        kernel32.CloseHandle(job)
        raise
    program = WindowsProgram(process, kernel32, job)
    try:
        if not kernel32.AssignProcessToJobObject(job, int(process._handle)):  # type: ignore[attr-defined]
            raise ctypes.WinError(ctypes.get_last_error())
        psutil.Process(process.pid).resume()
    except (OSError, psutil.Error) as error:
        process.kill()
        program.close()
        raise OSError(f"{invocation.argv[0]} was not started: {error}") from error
    return program


def _kill_on_close_job(kernel32: Any) -> Any:
    job = kernel32.CreateJobObjectW(None, None)
    limits = _ExtendedLimits()
    limits.basic.limit_flags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    done = job and kernel32.SetInformationJobObject(
        job, JOB_OBJECT_EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
    )
    if not done:
        raise ctypes.WinError(ctypes.get_last_error())
    return job


# --- Windows of programs -----------------------------------------------------------------------------------

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


# --- This process as a service -----------------------------------------------------------------------------


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
    return codes[0] if codes else KILLED_EXIT_CODE


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
