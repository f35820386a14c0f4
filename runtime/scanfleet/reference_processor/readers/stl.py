"""STL: triangles without shared vertices, as text or as 50 bytes each."""

import re
from itertools import islice
from pathlib import Path

import numpy as np

from scanfleet.reference_processor.readers.base import BadScan, Points, RawCloud
from scanfleet.reference_processor.readers.text import MAX_LINE_BYTES, blocks, parse_numbers

HEADER_BYTES, TRIANGLE_BYTES = 84, 50
_VERTEX = re.compile(rb"^[ \t]*vertex\b(.*)$", re.IGNORECASE | re.MULTILINE)
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read_stl(path: Path) -> RawCloud:
    """Return the mesh of an STL file, equal corners joined into one vertex.

    Whether it is text is decided by its bytes: many binary files begin with "solid", too.
    Raises BadScan when it is neither, or is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    count = int.from_bytes(head[80:84], "little")
    if len(head) == HEADER_BYTES and size == HEADER_BYTES + TRIANGLE_BYTES * count and count > 0:
        return _join_corners(_binary_corners(path, count))
    if head.lstrip().lower().startswith(b"solid") and _is_text(path):
        return _join_corners(_text_corners(path))
    return _join_corners(_binary_corners(path, _checked_count(head, size, count)))


def _checked_count(head: bytes, size: int, count: int) -> int:
    """Return the number of triangles that a binary header states, if the file is long enough for it."""
    if len(head) < HEADER_BYTES:
        raise BadScan(
            "too short to be STL",
            where=f"ends at byte {size}",
            allowed='text that begins with "solid", or 84 bytes',
        )
    needed = HEADER_BYTES + TRIANGLE_BYTES * count
    if count == 0:
        raise BadScan("the header states 0 triangles", where="byte 80")
    if size < needed:
        raise BadScan(
            f"the header states {count} triangles, {needed} bytes, but the file is cut off or is not STL",
            where=f"ends at byte {size}",
        )
    return count


def _binary_corners(path: Path, count: int) -> Points:
    triangles = np.memmap(path, dtype=_TRIANGLE, mode="r", offset=HEADER_BYTES, shape=(count,))
    return triangles["corners"].astype(np.float64).reshape(-1, 3)


def _is_text(path: Path) -> bool:
    with path.open("rb") as handle:
        start = handle.read(MAX_LINE_BYTES)
    return b"\0" not in start and (b"facet" in start.lower() or b"endsolid" in start.lower())


def _text_corners(path: Path) -> Points:
    parts: list[Points] = []
    line, last_word = 1, b""
    with path.open("rb") as handle:
        for block in blocks(handle):
            parts.append(_vertices(block, line))
            line += block.count(b"\n")
            words = block[-4096:].lower().split()
            last_word = next((word for word in reversed(words) if word.startswith(b"end")), last_word)
    corners = np.concatenate(parts) if parts else np.zeros((0, 3))
    if last_word != b"endsolid" or len(corners) % 3:
        raise BadScan('the text ends without "endsolid": it is cut off', where=f"line {line}")
    return corners


def _vertices(block: bytes, first_line: int) -> Points:
    """Return the numbers of the lines that begin with "vertex"."""
    try:
        return parse_numbers(b"\n".join(_VERTEX.findall(block))).as_table(3)
    except BadScan as error:
        wrong = int((error.where or "line 1").split()[-1])
        match = next(islice(_VERTEX.finditer(block), wrong - 1, None))
        line = first_line + block.count(b"\n", 0, match.start(1))
        raise BadScan(error.problem, where=f"line {line}", allowed=error.allowed) from None


def _join_corners(corners: Points) -> RawCloud:
    points, index = np.unique(corners, axis=0, return_inverse=True)
    return RawCloud(points=points, faces=index.reshape(-1, 3).astype(np.int64))
