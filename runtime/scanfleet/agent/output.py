"""What a program prints: read without ever blocking it, cut, kept in a file, read for progress."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scanfleet.processors.base import Progress
from scanfleet.telemetry import OTHER_STAGES

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 8 * 1024
"""Longer lines are cut into pieces of this size: a program that never prints a newline is still shown."""
MAX_LOG_BYTES = 64 * 1024 * 1024
"""What is kept of one attempt's output; the program may print on, and progress is still read."""
LAST_LINES = 200
"""Lines that are at hand while the program runs, also once the file takes no more."""
MAX_STAGES = 50
"""Stages that are timed apart: a program that names each of its files a stage must not outgrow the record."""
READ_BYTES = 64 * 1024
MAX_STUMBLES_LOGGED = 10
CUT_NOTICE = f"[scanfleet: output beyond {MAX_LOG_BYTES // 2**20} MiB is not kept]\n".encode()


class ProgramLog:
    """One file that both pipes' lines go to, in the order in which they came."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self.path = path
        self._file = path.open("wb")
        self._left = max_bytes
        self._last: deque[bytes] = deque(maxlen=LAST_LINES)
        self._printed_bytes = 0
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Append one line (its newline is added); beyond the limit, append one notice and then nothing."""
        # NUL bytes would make the log a binary file for every tool that shows it.
        line = line.replace(b"\0", b"?")
        with self._lock:
            self._last.append(line)
            if self._left <= 0:
                return
            self._left -= len(line) + 1
            kept = line + b"\n" if self._left > 0 else CUT_NOTICE
            try:
                self._file.write(kept)
            except OSError as error:
                # A full disk must not stop the reader: the program would block on its pipe for ever.
                self._left = 0
                log.error("program log cut", extra={"action": "program_log_cut", "error": str(error)})

    @property
    def printed_bytes(self) -> int:
        """Return how many bytes the program has printed, lines that have not ended included."""
        with self._lock:
            return self._printed_bytes

    def count(self, printed_bytes: int) -> None:
        """Take note of bytes that were read, before anybody knows of lines."""
        with self._lock:
            self._printed_bytes += printed_bytes

    def last_lines(self) -> tuple[str, ...]:
        """Return what the program printed last, oldest first: LAST_LINES lines at most."""
        with self._lock:
            last = tuple(self._last)
        return tuple(line.decode("utf-8", errors="replace") for line in last)

    def flush(self) -> None:
        """Make what was written readable through the path."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        """Close the file; the path stays readable. A full disk cuts the log and is no error here."""
        with self._lock:
            try:
                self._file.close()
            except OSError as error:
                log.error("program log cut", extra={"action": "program_log_cut", "error": str(error)})


@dataclass(frozen=True)
class Standing:
    """How far a program is. began_at: when its stage began, by the board's clock."""

    percent: float
    stage: str | None
    began_at: float
    stage_seconds: Mapping[str, float]
    """Of the stages that have ended."""


class ProgressBoard:
    """The latest progress of one attempt, written by the pipe readers and read by the heartbeat."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._stage_since = clock()
        self._percent = 0.0
        self._stage: str | None = None
        self._stage_seconds: dict[str, float] = {}
        self._failure_reason: str | None = None
        self._marks: dict[int, float] = {}

    def update(self, progress: Progress) -> None:
        """Take over what a line told. Percentages only grow: programs restart their counts per stage."""
        with self._lock:
            if progress.percent is not None:
                self._mark(progress.percent)
                self._percent = max(self._percent, progress.percent)
            if progress.stage is not None and progress.stage != self._stage:
                self._end_stage()
                self._stage = progress.stage
            if progress.failure_reason is not None:
                self._failure_reason = progress.failure_reason

    def current(self) -> tuple[float, str | None]:
        """Return percent and stage."""
        with self._lock:
            return self._percent, self._stage

    def standing(self) -> Standing:
        """Return all that there is to tell."""
        with self._lock:
            return Standing(self._percent, self._stage, self._stage_since, self._rounded())

    @property
    def now(self) -> float:
        """Return the time by the board's clock."""
        return self._clock()

    @property
    def marks(self) -> dict[int, float]:
        """Return when the program first was at 10, 20, ... 90 percent, by the board's clock."""
        with self._lock:
            return dict(self._marks)

    def finish(self) -> dict[str, float]:
        """Return the seconds spent per stage, the last one ending now."""
        with self._lock:
            self._end_stage()
            self._stage = None
            return self._rounded()

    @property
    def failure_reason(self) -> str | None:
        """Return the reason that the program gave for its failure, if it did."""
        with self._lock:
            return self._failure_reason

    def _rounded(self) -> dict[str, float]:
        return {stage: round(seconds, 3) for stage, seconds in self._stage_seconds.items()}

    def _mark(self, percent: float) -> None:
        for mark in range(10 * (int(self._percent) // 10 + 1), min(90, int(percent)) + 1, 10):
            self._marks.setdefault(mark, self._clock())

    def _end_stage(self) -> None:
        now = self._clock()
        if self._stage is not None:
            is_one_too_many = (
                len(self._stage_seconds) >= MAX_STAGES and self._stage not in self._stage_seconds
            )
            stage = OTHER_STAGES if is_one_too_many else self._stage
            self._stage_seconds[stage] = self._stage_seconds.get(stage, 0.0) + now - self._stage_since
        self._stage_since = now


def pump(pipe: IO[bytes], program_log: ProgramLog, on_line: Callable[[str], None]) -> None:
    """Read a pipe to its end: every line goes to the log and, decoded, to `on_line`.

    Invalid UTF-8 becomes replacement characters; carriage returns end lines too, as progress bars use them.
    """
    on_line = _never_raising(on_line)
    rest = b""
    is_inside_line_end = False  # a block may end between a carriage return and its newline
    while block := _read(pipe):
        program_log.count(len(block))
        if is_inside_line_end:
            block = block.removeprefix(b"\n")
        is_inside_line_end = block.endswith(b"\r")
        *lines, rest = (rest + block).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        for line in lines:
            _take(line, program_log, on_line)
    if rest:
        _take(rest, program_log, on_line)


def _read(pipe: IO[bytes]) -> bytes:
    try:
        return pipe.read(READ_BYTES)
    except (OSError, ValueError) as error:
        # Closed by us: a process that cannot be killed holds the other end, and nobody waits for it.
        log.warning("pipe given up", extra={"action": "pipe_given_up", "error": str(error)})
        return b""


def _take(line: bytes, program_log: ProgramLog, on_line: Callable[[str], None]) -> None:
    for start in range(0, max(len(line), 1), MAX_LINE_BYTES):
        piece = line[start : start + MAX_LINE_BYTES]
        program_log.write(piece)
        on_line(piece.decode("utf-8", errors="replace"))


def _never_raising(on_line: Callable[[str], None]) -> Callable[[str], None]:
    """Return the same, but for what it raises: an adapter that stumbles must not stop the reading.

    The program would block. One that stumbles over every line is logged a few times only.
    """
    stumbles = 0

    def take(line: str) -> None:
        nonlocal stumbles
        try:
            on_line(line)
        except Exception:
            stumbles += 1
            if stumbles <= MAX_STUMBLES_LOGGED:
                log.exception("line not understood", extra={"action": "line_not_understood"})

    return take
