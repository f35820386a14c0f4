"""Runs one program so that nothing of it outlives its job or its agent (POSIX).

    python -I -S guardian.py <control fd> <niceness> <program> [argument ...]

The guardian is the program's parent and the adoptive parent of every process that the program leaves behind
(Linux: PR_SET_CHILD_SUBREAPER). It speaks over the control socket, one line a message:
    to the agent:    "started <pid>", "failed <reason>", "exit <code>"   (code < 0: the signal that ended it),
                     and right before it "used <CPU seconds> <bytes>": of the whole tree; the most memory that
                     one process had
    from the agent:  "stop" asks the process group to end (SIGTERM), "kill" kills the whole tree
When the socket closes, the agent has died, even by SIGKILL: the whole tree is killed. When the program ends,
whatever it left running is killed too, before "exit" is sent.

It is a program of its own, not a thread of the agent, because a dead agent cannot clean up; and it imports
the standard library only and starts with -I -S, so it costs some 10 ms and 9 MB. On Windows a Job Object that
kills on close does all of this (os_windows.py).
"""

import ctypes
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

assert sys.platform != "win32", "Windows has Job Objects instead"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Source: prctl(2)."""
KILL_ROUND_SECONDS = 0.01
"""Pause between rounds of killing; each round also reaps what the last one killed."""
FREEZE_LOOKS = 500
"""Looks for more processes before those that were found are killed: a bound, usually there are two."""
EASILY_KILLED = "500"
"""Out of -1000..1000: when memory runs out, the kernel is to kill the program, not the agent beside it.
Source: proc_pid_oom_score_adj(5)."""


def control_process(option: int, value: int) -> None:
    """Call prctl(2) where there is one (Linux); elsewhere the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def start(argv: list[str], niceness: int) -> int:
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
            if niceness:
                step_back(niceness)
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


def step_back(niceness: int) -> None:
    """Give this process less of the machine than the agent has, where the system has such a thing."""
    with suppress(OSError):
        os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(EASILY_KILLED)


class Tree:
    """The processes below this one, stopped as they are found: what is stopped starts no others."""

    def __init__(self) -> None:
        self.pids: dict[int, None] = {}  # in the order of finding: parents before children
        self._strangers: set[int] = set()

    def freeze(self) -> None:
        """Stop every process below this one (nothing without a /proc).

        A process that forks and ends for ever has another id each time somebody looks. So whoever is found is
        stopped at once, and only who is new is asked for its parent: a look takes less time than a fork.
        """
        for _ in range(FREEZE_LOOKS):
            if not self._look():
                return

    def kill(self) -> None:
        """Kill what was found. Children first: at its parent's end, a stopped process may be woken up.

        Source: _exit(2), on process groups that become orphaned.
        """
        for pid in reversed(self.pids):
            send(pid, signal.SIGKILL)

    def _look(self) -> bool:
        """Stop who is new; say whether another look may find more."""
        found = False
        for ended in reaped():  # or the list of the dead grows until a look is slower than a fork
            self.pids.pop(ended, None)
        listed = sorted(map(int, filter(str.isdigit, list_proc())))
        seen = set(listed)
        for pid in listed:
            if pid in self.pids or pid in self._strangers:
                continue
            parent = parent_of(pid)
            if parent == os.getpid() or parent in self.pids:
                send(pid, signal.SIGSTOP)
                self.pids[pid] = None
                found = True
            elif parent in self._strangers or (parent is not None and parent not in seen):
                self._strangers.add(pid)  # also the first process, and those whose parents we may not see
            else:
                found = True  # it has gone, perhaps with children by now; or its parent comes later
        return found


def list_proc() -> list[str]:
    """Return the names in /proc, or nothing without one."""
    with suppress(OSError):
        return os.listdir("/proc")  # noqa: PTH208 - as fast as it gets
    return []


def parent_of(pid: int) -> int | None:
    """Return the parent's id, or None when the process has gone. Source: proc_pid_stat(5)."""
    with suppress(OSError, ValueError, IndexError), Path(f"/proc/{pid}/stat").open("rb", buffering=0) as file:
        # The name is in brackets and may hold anything; the parent's id is the second field after it.
        return int(file.read(4096).rpartition(b")")[2].split()[1])
    return None


def send(pid: int, number: int) -> None:
    """Send the signal; a process that has gone needs none."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_tree(program: int) -> None:
    """Kill every process below this one, and reap them all; returns when none is left.

    Without a /proc it is the program's process group alone.
    """
    with suppress(ChildProcessError):  # which says that none is left
        while True:
            tree = Tree()
            tree.freeze()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program, signal.SIGKILL)
            tree.kill()
            select.select([], [], [], KILL_ROUND_SECONDS)


def reaped() -> Iterator[int]:
    """Reap every child that has ended, and yield its id. Raises ChildProcessError once no child is left."""
    while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
        yield pid


def reap_program(program: int) -> int | None:
    """Return the program's exit code if it has ended, reaping adopted orphans on the way."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == program:
                return os.waitstatus_to_exitcode(status)
            if pid == 0:
                return None
    return None


def used() -> str:
    """Return what all processes below this one, which have ended, have used. Source: getrusage(2)."""
    account = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{account.ru_utime + account.ru_stime:.3f} {account.ru_maxrss * unit}"


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

    def run(self, argv: list[str], niceness: int) -> None:
        """Run the program to its end; niceness above 0 also makes it step back behind the agent."""
        try:
            program = start(argv, niceness)
        except OSError as error:
            self._tell(f"failed {error.strerror}: {argv[0]}")
            return
        self._tell(f"started {program}")
        exit_code = self._watch(program)
        kill_tree(program)
        self._tell(f"used {used()}\nexit {exit_code}")

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
    Guardian(control).run(sys.argv[3:], niceness=int(sys.argv[2]))


if __name__ == "__main__":
    main()
