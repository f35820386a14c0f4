"""Starting and ending programs on Windows, in a Job Object that kills on close.

Not run by our tests, which have no Windows: docs/unproven.md says how to prove it.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, Any

from scanfleet.processors.base import Invocation

assert sys.platform == "win32", "only imported on Windows"

from ctypes import wintypes  # noqa: E402

JOB_OBJECT_EXTENDED_LIMIT_INFORMATION = 9
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
"""Source: Win32 API reference, JOBOBJECT_BASIC_LIMIT_INFORMATION."""
KILLED_EXIT_CODE = 1


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

    def wait(self) -> int:
        """Return the exit code, unsigned as Windows gives it, after ending what the program left running."""
        exit_code = self._process.wait()
        self.kill()
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


def start_program(invocation: Invocation) -> WindowsProgram:
    """Start the program with closed standard input and piped output. Raises OSError."""
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
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
            bufsize=0,
        )
    except OSError:
        kernel32.CloseHandle(job)
        raise
    if not kernel32.AssignProcessToJobObject(job, int(process._handle)):  # type: ignore[attr-defined]
        process.kill()
        raise ctypes.WinError(ctypes.get_last_error())
    return WindowsProgram(process, kernel32, job)


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
