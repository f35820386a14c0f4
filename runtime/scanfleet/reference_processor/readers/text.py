"""Numbers out of big text files: whole blocks at a time, with the line of whatever is wrong."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.readers.base import BadScan, Points, shown

BLOCK_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
NEWLINE = 10
_MSVC_NAN = re.compile(rb"[+-]?1\.#(?:QNAN|SNAN|IND|INF)\d*", re.IGNORECASE)
"""How Microsoft's C library printed not-a-number and infinity before 2015."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of some lines.

    `values` flat, in order; `counts` per line that has any; `lines` those lines' numbers, from 1.
    """

    values: Points
    counts: NDArray[np.int64]
    lines: NDArray[np.int64]

    def as_table(self, columns: int) -> Points:
        """Return the values as (rows, columns).

        Raises BadScan naming the first line with another number of values.
        """
        wrong = self.counts != columns
        if wrong.any():
            k = int(np.argmax(wrong))
            raise BadScan(
                f"a line has {self.counts[k]} values",
                where=f"line {self.lines[k]}",
                allowed=f"{columns} values",
            )
        return self.values.reshape(-1, columns)


def blocks(handle: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a text file in blocks that end with a line, line ends as "\\n".

    Only the last block may lack a line end. Raises BadScan when a line is longer than 1 MiB: that is not
    text.
    """
    carried = b""
    while chunk := handle.read(BLOCK_BYTES):
        chunk = carried + chunk
        # A "\r" at the very end may be half of "\r\n": it waits for the next chunk.
        cut = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, len(chunk) - 1)) + 1
        if len(chunk) - cut > MAX_LINE_BYTES:
            raise BadScan("a line is longer than 1 MiB, so this is not text")
        carried = chunk[cut:]
        if cut:
            yield unix_lines(chunk[:cut])
    if carried:
        yield unix_lines(carried)


def unix_lines(text: bytes) -> bytes:
    """Return `text` with every kind of line end as "\\n"."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def parse_numbers(block: bytes, *, first_line: int = 1) -> Numbers:
    """Return the numbers of a block whose values are separated by blanks and lines only.

    Raises BadScan naming the line of the first word that is not a number.
    """
    starts, ends = _words(block)
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    values = _parse(block)
    if values is None and b"#" in block:
        values = _parse(_MSVC_NAN.sub(lambda match: b"nan".ljust(len(match[0])), block))
    if values is None or len(values) != len(starts):
        start = int(starts[_first_wrong(block, starts)])
        word = block[start : start + 80].split(maxsplit=1)[0]
        line = first_line + int(np.searchsorted(ends, start))
        raise BadScan(f"{shown(word)} is not a number", where=f"line {line}")
    filled = np.flatnonzero(counts)
    return Numbers(values=values, counts=counts[filled], lines=filled + first_line)


def parse_all(handle: BinaryIO, *, first_line: int) -> Numbers:
    """Return the numbers of the rest of a file; see `parse_numbers`."""
    parts: list[Numbers] = []
    for block in blocks(handle):
        parts.append(parse_numbers(block, first_line=first_line))
        first_line += block.count(b"\n")
    return join(parts)


def join(parts: list[Numbers]) -> Numbers:
    """Return the parts as one."""
    return Numbers(
        values=np.concatenate([part.values for part in parts] or [np.zeros(0)]),
        counts=np.concatenate([part.counts for part in parts] or [np.zeros(0, np.int64)]),
        lines=np.concatenate([part.lines for part in parts] or [np.zeros(0, np.int64)]),
    )


def is_cut(tail: bytes) -> bool:
    """Say whether a file's last bytes look as if they end in the middle of a number.

    That is: no line end follows, and the last number has fewer decimals than any number which ends one of the
    lines before it. A value cut in two still reads as a number, but as a wrong one.
    """
    if not tail or tail.endswith((b"\n", b"\r")):
        return False
    lines = [line.split() for line in unix_lines(tail).split(b"\n")[1:]]
    filled = [words for words in lines if words]
    if len(filled) < 3:
        return False
    same = [words[-1] for words in filled[:-1] if len(words) == len(filled[-1])]
    decimals = [_decimals(word) for word in same]
    return bool(decimals) and _decimals(filled[-1][-1]) < min(decimals)


def _decimals(word: bytes) -> int:
    return len(word.partition(b".")[2])


def _words(block: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where words start, and where lines end (the last end is the block's)."""
    data = np.frombuffer(block, dtype=np.uint8)
    is_word = data > 32
    starts = is_word.copy()
    starts[1:] &= ~is_word[:-1]
    ends = np.flatnonzero(data == NEWLINE)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    return np.flatnonzero(starts), ends


def _parse(block: bytes) -> Points | None:
    """Return the numbers of the block, or None when it holds anything else."""
    if not block.strip():
        return np.zeros(0)
    with warnings.catch_warnings():
        # Before numpy 2.3 a wrong word was a warning.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values: Points = np.fromstring(block, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
    return values


def _first_wrong(block: bytes, starts: NDArray[np.int64]) -> int:
    """Return the index of the first word that is no number, by halving."""
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        values = _parse(block[: int(starts[middle + 1])])
        if values is None or len(values) != middle + 1:
            high = middle
        else:
            low = middle + 1
    return low
