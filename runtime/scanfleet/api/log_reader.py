"""A job's log, put together from its segments.

Segments are objects `logs/<job id>/<attempt>/<segment>.log`. A cursor is "<segment>-<bytes>": everything
before that byte of that segment was given out. A line may go on in the next segment.
"""

import re
from dataclasses import dataclass

from scanfleet import contract
from scanfleet.errors import InvalidRequest
from scanfleet.objects import ObjectStore, S3Uri, StoredObject

MAX_LOG_BYTES = 512 * 1024
"""Of one answer: below what an ALB takes from a Lambda target (1 MB), even with JSON's escapes."""
MAX_CURSOR_DIGITS = 12

_SEGMENT = re.compile(r"^(\d+)\.log$")
_CURSOR = re.compile(rf"^(\d{{1,{MAX_CURSOR_DIGITS}}})-(\d{{1,{MAX_CURSOR_DIGITS}}})$")


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in a log."""

    segment: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor. Raises InvalidRequest."""
        match = _CURSOR.match(text)
        if match is None:
            raise InvalidRequest.of(
                "after", "is not a cursor", value=text, allowed="`next` of an answer before"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.segment}-{self.offset}"


@dataclass(frozen=True)
class LogChunk:
    """Lines without their line ends, and where the next call goes on."""

    lines: tuple[str, ...]
    next: Cursor


@dataclass(frozen=True)
class _Piece:
    number: int
    start: int
    data: bytes


class LogReader:
    """Reads one attempt's log."""

    def __init__(self, objects: ObjectStore, bucket: str, job_id: str, attempt: int) -> None:
        self._objects = objects
        self._folder = S3Uri(bucket, f"{contract.LOGS_PREFIX}{job_id}/{attempt}/")

    def tail(self, lines: int, *, is_over: bool) -> LogChunk:
        """Return the last `lines` lines, as far as they fit into one answer.

        is_over: nothing more is written, so a last line without an end is a line too.
        """
        pieces: list[_Piece] = []
        size = ends = 0
        for number, stored in reversed(self._segments()):
            if size >= MAX_LOG_BYTES or ends > lines:
                break
            data = self._read(stored)
            pieces.insert(0, _Piece(number, 0, data))
            size += len(data)
            ends += data.count(b"\n")
        chunk = _chunk(pieces, is_over=is_over)
        return LogChunk(_last_that_fit(chunk.lines[-lines:]), chunk.next)

    def after(self, cursor: Cursor, *, is_over: bool) -> LogChunk:
        """Return what follows the cursor, as far as it fits into one answer."""
        pieces: list[_Piece] = []
        size = 0
        for number, stored in self._segments():
            if number < cursor.segment:
                continue
            start = cursor.offset if number == cursor.segment else 0
            data = self._read(stored)[start : start + MAX_LOG_BYTES - size]
            pieces.append(_Piece(number, start, data))
            size += len(data)
            if size >= MAX_LOG_BYTES:
                # A line longer than a whole answer must not stop the reader for ever: it is cut here.
                return _chunk(pieces, is_over=b"\n" not in b"".join(p.data for p in pieces), at=cursor)
        return _chunk(pieces, is_over=is_over, at=cursor)

    def _segments(self) -> list[tuple[int, StoredObject]]:
        found = [
            (int(match[1]), stored)
            for stored in self._objects.list_folder(self._folder)
            if (match := _SEGMENT.match(stored.relative))
        ]
        return sorted(found, key=lambda pair: pair[0])

    def _read(self, stored: StoredObject) -> bytes:
        return self._objects.get_bytes(S3Uri(self._folder.bucket, stored.key))


def _chunk(pieces: list[_Piece], *, is_over: bool, at: Cursor | None = None) -> LogChunk:
    """Return the pieces' whole lines and the place behind them."""
    whole = b"".join(piece.data for piece in pieces)
    used = len(whole) if is_over else whole.rfind(b"\n") + 1
    text = whole[:used].decode("utf-8", errors="replace")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()  # what stands after the last line's end
    return LogChunk(
        tuple(line.removesuffix("\r") for line in lines), _place(pieces, used, at or Cursor(0, 0))
    )


def _place(pieces: list[_Piece], used: int, at: Cursor) -> Cursor:
    place = at
    for piece in pieces:
        if used < 0 or (used == 0 and place != at):
            break
        step = min(used, len(piece.data))
        place = Cursor(piece.number, piece.start + step)
        used -= step
        if step < len(piece.data):
            break
    return place


def _last_that_fit(lines: tuple[str, ...]) -> tuple[str, ...]:
    size = 0
    for index in range(len(lines) - 1, -1, -1):
        size += len(lines[index].encode()) + 1
        if size > MAX_LOG_BYTES:
            return lines[index + 1 :]
    return lines
