"""The lines that tell the agent where the program is; see DESIGN section 2 and processors/base.py."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARES = {
    "read": 10.0,
    "register": 45.0,
    "merge": 12.0,
    "clean": 6.0,
    "smooth": 6.0,
    "mesh": 8.0,
    "write": 13.0,
}
"""Percent of the whole that each stage takes; they run in this order."""
SMALLEST_STEP = 0.5


class Progress:
    """Prints stage and progress lines and keeps each stage's seconds. Percentages never go back."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write if write is not None else _print_line
        self._printed = -1.0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Announce a stage; the value is a function that takes 0 to 100 of the stage."""
        names = list(SHARES)
        start = sum(SHARES[earlier] for earlier in names[: names.index(name)])
        self._write(f"scanfleet_stage: {name}")
        began = time.monotonic()
        self._show(start)
        yield lambda percent: self._show(start + SHARES[name] * min(max(percent, 0.0), 100.0) / 100.0)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        self._show(start + SHARES[name])

    def _show(self, percent: float) -> None:
        if percent >= self._printed + SMALLEST_STEP or (percent >= 100.0 > self._printed):
            self._printed = percent
            self._write(f"scanfleet_progress: {percent:.1f}")


def fail_line(reason: str) -> str:
    """Return the line that tells why the program fails; whatever the reason holds, it is one line."""
    return "scanfleet_fail: " + " ".join(reason.split())[:1000]


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
