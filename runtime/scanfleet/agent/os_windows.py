"""Starting and ending programs on Windows, in a Job Object that kills on close.

Every Win32 call is here, in os_windows_dialogs.py and in os_windows_service.py. By ctypes rather than
pywin32: some functions with fixed, documented signatures, and no DLLs that a service account has to find
before anything of ours can run or log.

Not run by our tests, which have no Windows: docs/unproven.md says how to prove it.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
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
CLOSE_SECONDS = 10.0
"""A process that a driver holds cannot be killed; its job must go on after some 10 s."""

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
        self._job: Any | None = job
        # A closed handle's number may soon be another program's Job Object: nobody may end that one.
        self._ending = threading.Lock()

    def process_ids(self) -> tuple[int, ...]:
        """Return the processes of the Job Object; the first MAX_PROCESS_IDS of more."""
        if (job := self._job) is None:
            return ()
        found = _ProcessIds()
        # With more processes than fit the call fails, but has filled the list.
        self._kernel32.QueryInformationJobObject(
            job, JOB_OBJECT_BASIC_PROCESS_ID_LIST, ctypes.byref(found), ctypes.sizeof(found), None
        )
        return tuple(found.ids[: found.listed])

    def totals(self) -> "Totals":
        """Return what the Job Object has used since its start, ended processes included. Raises OSError.

        Other bytes are left out: requests to drivers, which a program that waits for its GPU goes on making.
        """
        from scanfleet.agent.usage import Totals  # noqa: PLC0415 - psutil is not needed to connect

        if (job := self._job) is None:
            raise OSError("the program has been closed")
        found = _Accounting()
        told = self._kernel32.QueryInformationJobObject(
            job,
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
        with self._ending:
            if self._job is not None:
                self._kernel32.TerminateJobObject(self._job, KILLED_EXIT_CODE)

    def close(self) -> None:
        """Close the Job Object, which kills what is left, and the pipes."""
        with self._ending:
            job, self._job = self._job, None
            if job is not None:
                self._kernel32.CloseHandle(job)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("a program cannot be killed", extra={"action": "program_not_killed", "pid": self.pid})
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
