"""Runs one program so that nothing of it outlives its job or its agent (POSIX).

    python -I -S guardian.py <control fd> <program> [argument ...]

The guardian is the program's parent and the adoptive parent of every process that the program leaves behind
(Linux: PR_SET_CHILD_SUBREAPER). It speaks over the control socket, one line a message:
    to the agent:    "started <pid>", "failed <reason>", "exit <code>"   (code < 0: the signal that ended it)
    from the agent:  "stop" asks the process group to end (SIGTERM), "kill" kills the whole tree
When the socket closes, the agent has died, even by SIGKILL: the whole tree is killed. When the program ends,
whatever it left running is killed too, before "exit" is sent.

It is a program of its own, not a thread of the agent, because a dead agent cannot clean up; and it imports
the standard library only and starts with -I -S, so it costs some 10 ms and 9 MB. On Windows a Job Object that
kills on close does all of this (os_windows.py).
"""

import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

assert sys.platform != "win32", "Windows has Job Objects instead"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Source: prctl(2)."""
KILL_ROUND_SECONDS = 0.02
"""Pause between rounds of killing; each round also reaps what the last one killed."""


def control_process(option: int, value: int) -> None:
    """Call prctl(2) where there is one (Linux); elsewhere the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def start(argv: list[str]) -> int:
    """Start the program in its own session and return its process id. Raises OSError."""
    status_read, status_write = os.pipe()  # closes on a successful exec, else carries the errno
    pid = os.fork()
    if pid == 0:
        try:
            os.close(status_read)
            os.setsid()
            # Should the guardian itself be killed, the program at least goes with it.
            control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.execvp(argv[0], argv)  # noqa: S606 - there is no shell, which is the point
        except OSError as error:
            os.write(status_write, str(error.errno or 1).encode())
        os._exit(127)
    os.close(status_write)
    with os.fdopen(status_read, "rb") as status:
        failed = status.read()
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)), argv[0])
    return pid


def descendants(root: int) -> list[int]:
    """Return the process ids below `root`, parents before children, from /proc (empty without one)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name is in brackets and may hold anything; the parent's id is the second field after it.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, frontier = [], [root]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found += frontier
    return found


def kill_tree(program: int) -> None:
    """Kill the program's group and every descendant of this process, and reap them all.

    Each round stops parents before children, so that none can fork its way out, and then kills.
    """
    while True:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(program, signal.SIGKILL)
        victims = descendants(os.getpid())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        if not reap_all():
            return
        select.select([], [], [], KILL_ROUND_SECONDS)


def reap_all() -> bool:
    """Reap every child that has ended; say whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue
    except ChildProcessError:
        return False
    return True


def reap_program(program: int) -> int | None:
    """Return the program's exit code if it has ended, reaping adopted orphans on the way."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == program:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                return None
    except ChildProcessError:
        return None


class Guardian:
    """The loop: waits for the program's end and for the agent's word, whichever comes first."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending = b""
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A Ctrl-C in the agent's terminal, or a polite stop of everything, is the agent's to handle.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def run(self, argv: list[str]) -> None:
        """Run the program to its end."""
        try:
            program = start(argv)
        except OSError as error:
            self._tell(f"failed {error.strerror}: {argv[0]}")
            return
        self._tell(f"started {program}")
        exit_code = self._watch(program)
        kill_tree(program)
        self._tell(f"exit {exit_code}")

    def _watch(self, program: int) -> int:
        while True:
            exit_code = reap_program(program)
            if exit_code is not None:
                return exit_code
            readable, _, _ = select.select([self._control.fileno(), self._wake_read], [], [])
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            if self._control.fileno() in readable and not self._obey(program):
                kill_tree(program)
                return -signal.SIGKILL

    def _obey(self, program: int) -> bool:
        """Do what the agent says; False means: kill the tree now."""
        try:
            received = self._control.recv(4096)
        except ConnectionError:
            received = b""
        if not received:
            return False
        *lines, self._pending = (self._pending + received).split(b"\n")
        if b"kill" in lines:
            return False
        if b"stop" in lines:
            with suppress(ProcessLookupError):
                os.killpg(program, signal.SIGTERM)
        return True

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # the agent is gone; there is nobody to tell
            self._control.sendall(text.encode() + b"\n")


def main() -> None:
    """Run the program that the command line names."""
    # The program gets the standard streams alone: were the control socket inherited, a dead agent's end
    # would look alive.
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    Guardian(control).run(sys.argv[2:])


if __name__ == "__main__":
    main()
