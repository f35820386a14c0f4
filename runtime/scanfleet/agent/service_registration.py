"""The agent's entry in Windows' service control manager, by sc.exe: made at each boot, started, asked for.

Start mode is `demand`: user-data starts it, after it formatted the disk for workspaces. A service that
started by itself would race with that, and take jobs on a machine that failed to boot well.
Source: Windows commands reference, "sc.exe create", "sc.exe failure", "sc.exe query".
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from scanfleet.errors import Unavailable

RESTART_AFTER = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2))
"""After the first, the second and each later failure: a crash is often a passing one, a crash loop is not."""
FAILURES_FORGOTTEN_AFTER = timedelta(hours=1)
CALL_SECONDS = 60.0
SC = r"C:\Windows\System32\sc.exe"

ERROR_SERVICE_ALREADY_RUNNING = 1056
ERROR_SERVICE_DOES_NOT_EXIST = 1060
"""sc.exe exits with these. Source: Win32 API reference, "System Error Codes"."""


class State(IntEnum):
    """What the manager says of a service. Source: Win32 API reference, SERVICE_STATUS."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4


@dataclass(frozen=True)
class Status:
    """One answer. exit_code: the service's own, of its last end; 0 while it runs for the first time."""

    state: int
    exit_code: int

    def __str__(self) -> str:
        name = State(self.state).name if self.state in list(State) else str(self.state)
        return f"{name}, exit code {self.exit_code}" if self.exit_code else name


RunSc = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs sc.exe with these words. Raises OSError and TimeoutExpired."""


def run_sc(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run Windows' own. Its words are in a code page of Windows'; what counts in them is ASCII."""
    return subprocess.run(
        [SC, *words],
        capture_output=True,
        encoding="ascii",
        errors="replace",
        check=False,
        timeout=CALL_SECONDS,
    )


class ServiceRegistration:
    """One service, by name. Every method raises Unavailable with sc.exe's words when it refuses."""

    def __init__(self, name: str, *, sc: RunSc | None = None) -> None:
        self._name = name
        self._sc = sc or run_sc

    def register(self, command: Sequence[str], *, display_name: str) -> None:
        """Leave the service registered with this command and the restart rules, whatever it was before."""
        settings = ("binPath=", subprocess.list2cmdline(command), "start=", "demand")
        # Each option and its value are words apart, the "=" included.
        verb = "config" if self._exists() else "create"
        self._call(verb, *settings, "DisplayName=", display_name)
        actions = "/".join(f"restart/{after // timedelta(milliseconds=1)}" for after in RESTART_AFTER)
        reset = str(FAILURES_FORGOTTEN_AFTER // timedelta(seconds=1))
        self._call("failure", "reset=", reset, "actions=", actions)
        # An exit with an error counts as a failure, too, not only a process that vanishes.
        self._call("failureflag", "1")

    def start(self) -> None:
        """Start the service, unless it runs."""
        self._call("start", allowed=ERROR_SERVICE_ALREADY_RUNNING)

    def status(self) -> Status:
        """Return what the manager says of the service."""
        text = self._call("query")
        state = re.search(r"STATE\s*:\s*(\d+)", text)
        code = re.search(r"SERVICE_EXIT_CODE\s*:\s*(\d+)", text)
        if state is None:
            raise Unavailable(f"sc.exe query {self._name} names no state: {text.strip()!r}")
        return Status(state=int(state[1]), exit_code=int(code[1]) if code else 0)

    def _exists(self) -> bool:
        return bool(self._call("query", allowed=ERROR_SERVICE_DOES_NOT_EXIST))

    def _call(self, verb: str, *words: str, allowed: int = 0) -> str:
        """Return what sc.exe printed; "" when it ended with the exit code that is allowed besides 0."""
        try:
            done = self._sc((verb, self._name, *words))
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"sc.exe {verb} {self._name}: {error}") from error
        if done.returncode == 0:
            return done.stdout
        if done.returncode == allowed:
            return ""
        said = " ".join((done.stdout + done.stderr).split())
        raise Unavailable(f"sc.exe {verb} {self._name} failed with exit code {done.returncode}: {said}")
