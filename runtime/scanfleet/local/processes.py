"""The processes of the local mode: started by name, watched, and ended together whatever happens.

Every child runs under the agent's guardian (agent/guardian.py) in a session of its own. So a Ctrl-C in the
terminal reaches the supervisor alone, which then stops the children in order; and when the supervisor itself
is killed, even by SIGKILL, the guardians kill their trees.
"""

import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from scanfleet.agent import guardian
from scanfleet.errors import ScanfleetError

STOP_GRACE = timedelta(seconds=10)
"""A child that was asked to stop has this long before its whole tree is killed."""
SHOWN_LOG_LINES = 15


class LocalModeError(ScanfleetError):
    """The local system cannot start, or lost a part; the message holds the part's last log lines."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """A child that ended although nobody asked it to."""

    name: str
    exit_code: int
    """As of the program; negative: the signal that ended it."""
    log_file: Path

    def __str__(self) -> str:
        how = f"was killed by signal {-self.exit_code}" if self.exit_code < 0 else f"ended ({self.exit_code})"
        return f"{self.name} {how}; the end of {self.log_file}:\n{last_lines(self.log_file)}"


class Child:
    """One running child. `ended` is set once it and everything it started are gone."""

    def __init__(self, name: str, *, log_file: Path, control: socket.socket, guarded: "Guarded") -> None:
        self.name = name
        self.log_file = log_file
        self.ended = threading.Event()
        self.exit_code: int | None = None
        self.is_stopping = False
        self._control = control
        self._guarded = guarded
        self._lines = control.makefile("r", encoding="utf-8")
        self.pid = self._await_start()

    def _await_start(self) -> int:
        word, _, rest = self._lines.readline().strip().partition(" ")
        if word == "started":
            return int(rest)
        self._close()
        raise LocalModeError(f"{self.name} could not be started: {rest or 'its guardian ended'}")

    def watch(self, on_end: Callable[["Child"], None]) -> None:
        """Wait for the end, then call `on_end`. Runs on a thread of its own."""
        self.exit_code = -9  # a guardian that was itself killed takes the program with it
        # A guardian that ends with a word of ours unread resets the connection.
        with suppress(ConnectionError):
            for line in self._lines:
                word, _, rest = line.strip().partition(" ")
                if word == "exit":
                    self.exit_code = int(rest)
                    break
        self._close()
        self.ended.set()
        on_end(self)

    def tell(self, message: bytes) -> None:
        """Tell the guardian "stop" or "kill"; does nothing once the child has ended."""
        with suppress(OSError):
            self._control.sendall(message + b"\n")

    def _close(self) -> None:
        self._guarded.wait()
        self._lines.close()
        self._control.close()


Guarded = subprocess.Popen[bytes]


class Processes:
    """The children of one local system, ended in reverse order of their start.

    A context manager: leaving it stops them all. `on_death` is called, on another thread, for each child
    that ends unasked; `wait_for_death` waits for the first such.
    """

    def __init__(
        self, *, on_death: Callable[[Death], None] | None = None, stop_grace: timedelta = STOP_GRACE
    ) -> None:
        self._on_death = on_death
        self._grace_seconds = stop_grace.total_seconds()
        self._children: list[Child] = []
        self._deaths: deque[Death] = deque()
        self._died = threading.Event()

    def start(
        self, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str], log_file: Path
    ) -> Child:
        """Start a program whose output goes to the end of `log_file`; `env` is its whole environment.

        Raises LocalModeError when the program cannot be started.
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs, log_file.open("ab") as log:
            guarded = Guarded(
                [sys.executable, "-I", "-S", guardian.__file__, str(theirs.fileno()), "0", *map(str, argv)],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        child = Child(name, log_file=log_file, control=ours, guarded=guarded)
        self._children.append(child)
        threading.Thread(target=child.watch, args=(self._ended,), name=f"watch-{name}", daemon=True).start()
        return child

    def _ended(self, child: Child) -> None:
        if child.is_stopping:
            return
        death = Death(name=child.name, exit_code=child.exit_code or 0, log_file=child.log_file)
        self._deaths.append(death)
        self._died.set()
        if self._on_death:
            self._on_death(death)

    def running(self) -> tuple[Child, ...]:
        """Return the children that have not ended, in the order of their start."""
        return tuple(child for child in self._children if not child.ended.is_set())

    def wait_for_death(self, timeout: timedelta | None = None) -> Death | None:
        """Return the first child that ended unasked, or None after the timeout (None waits for ever)."""
        self._died.wait(timeout.total_seconds() if timeout else None)
        return self._deaths[0] if self._deaths else None

    def raise_if_dead(self) -> None:
        """Raise LocalModeError when any child has ended unasked."""
        if self._deaths:
            raise LocalModeError(str(self._deaths[0]))

    def stop(self, *names: str) -> None:
        """Stop the named children side by side: ask, wait for the grace period, then kill their trees.

        An interrupt meanwhile (a second Ctrl-C) kills every child at once and is raised on.
        """
        children = [child for child in self._children if child.name in names and not child.ended.is_set()]
        try:
            for child in children:
                child.is_stopping = True
                child.tell(b"stop")
            for child in children:
                if not child.ended.wait(self._grace_seconds):
                    child.tell(b"kill")
            for child in children:
                child.ended.wait()
        except BaseException:
            self.kill_all()
            raise
        self._children = [child for child in self._children if child not in children]

    def stop_all(self) -> None:
        """Stop every child, the last started first. A second call does nothing."""
        for child in reversed(list(self._children)):
            self.stop(child.name)

    def kill_all(self) -> None:
        """Kill every child's whole tree, now, and wait until they are gone."""
        for child in self._children:
            child.is_stopping = True
            child.tell(b"kill")
        for child in self._children:
            child.ended.wait()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()


def last_lines(log_file: Path, count: int = SHOWN_LOG_LINES) -> str:
    """Return the last lines of a log, or a remark that there are none."""
    try:
        with log_file.open(errors="replace") as log:
            lines = "".join(deque(log, maxlen=count)).rstrip()
    except OSError as error:
        return f"(no log: {error.strerror})"
    return lines or "(the log is empty)"
