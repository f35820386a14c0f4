"""Starting and ending programs on POSIX, through the guardian."""

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from scanfleet.agent import guardian
from scanfleet.agent.usage import Totals
from scanfleet.processors.base import Invocation

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""A program on a disk that does not answer never starts, and nobody watches it yet."""
CLOSE_SECONDS = 10.0
"""A process that is stuck in the kernel (a driver, a dead mount) cannot be killed; its job must go on."""
NICENESS = 5
"""Programs use every core for minutes; heartbeats, the health check and whoever ends them must not wait."""
GUARDIAN_SCRIPT = str(Path(guardian.__file__))


class PosixProgram:
    """A program under its guardian. See `RunningProgram`."""

    def __init__(self, guardian_process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
        assert guardian_process.stdout is not None
        assert guardian_process.stderr is not None
        self.stdout: IO[bytes] = guardian_process.stdout
        self.stderr: IO[bytes] = guardian_process.stderr
        self._guardian = guardian_process
        self._control = control
        self._lines = control.makefile("r", encoding="utf-8")
        self._sending = threading.Lock()
        self.account: Totals | None = None
        """Of the whole tree, once it has ended."""
        self.pid = self._await_start()

    def process_ids(self) -> tuple[int, ...]:
        """Return the guardian's descendants: those that the program left behind are its children."""
        with suppress(psutil.Error):
            return tuple(
                process.pid for process in psutil.Process(self._guardian.pid).children(recursive=True)
            )
        return ()

    def wait(self) -> int:
        """Return the program's exit code. A guardian that was itself killed counts as SIGKILL."""
        # A guardian that ends with a word of ours unread resets the connection.
        with suppress(ConnectionError):
            for line in self._lines:
                word, _, rest = line.strip().partition(" ")
                if word == "used":
                    cpu_seconds, peak = rest.split()
                    self.account = Totals(float(cpu_seconds), peak_process_bytes=int(peak))
                if word == "exit":
                    self._guardian.wait()
                    return int(rest)
        self._guardian.wait()
        return -9

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the program's process group."""
        self._tell(b"stop\n")

    def kill(self) -> None:
        """Have the guardian kill the whole tree."""
        self._tell(b"kill\n")

    def close(self) -> None:
        """Close the control socket, at which the guardian kills what is left, and the pipes."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._guardian.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("a program cannot be killed", extra={"action": "program_not_killed", "pid": self.pid})
        for handle in (self._lines, self._control, self.stdout, self.stderr):
            handle.close()

    def _await_start(self) -> int:
        self._control.settimeout(START_SECONDS)
        try:
            word, _, rest = self._lines.readline().strip().partition(" ")
        except OSError as error:
            self.close()
            raise OSError(f"it did not start within {START_SECONDS:.0f} s") from error
        if word != "started":
            self.close()
            raise OSError(rest or "the guardian ended before it started the program")
        self._control.settimeout(None)
        return int(rest)

    def _tell(self, message: bytes) -> None:
        with self._sending, suppress(OSError):  # it has ended already
            self._control.sendall(message)


def start_program(invocation: Invocation) -> PosixProgram:
    """Start the program with closed standard input and piped output. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                GUARDIAN_SCRIPT,
                str(theirs.fileno()),
                str(NICENESS),
                *invocation.argv,
            ],
            cwd=invocation.cwd,
            env={**os.environ, **invocation.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            # Unbuffered: the readers take large blocks themselves.
            bufsize=0,
        )
    except (OSError, ValueError):
        ours.close()
        raise
    finally:
        theirs.close()
    return PosixProgram(process, ours)
