"""Wavefront OBJ: v, vn and f lines; materials, groups and texture coordinates are passed over."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.readers.base import BadScan, Faces, Points, RawCloud, check_faces
from scanfleet.reference_processor.readers.text import Numbers, blocks, is_cut, join, parse_numbers

Bytes = NDArray[np.uint8]
BLANK, LINE_END, SLASH = ord(" "), ord("\n"), ord("/")
TAIL_BYTES = 65_536


@dataclass
class _Lines:
    """The numbers of each kind of line, block after block; `vertices_before` at each face line, for f -1."""

    vertices: list[Numbers] = field(default_factory=list)
    normals: list[Numbers] = field(default_factory=list)
    faces: list[Numbers] = field(default_factory=list)
    vertices_before: list[NDArray[np.int64]] = field(default_factory=list)
    vertex_count: int = 0


def read_obj(path: Path) -> RawCloud:
    """Return the vertices of an OBJ file, their normals if there is one for each, and its faces as triangles.

    Raises BadScan for words that are no numbers and for faces that refer to missing vertices.
    """
    lines = _Lines()
    number, tail = 1, b""
    with path.open("rb") as handle:
        for raw in blocks(handle):
            if b"\0" in raw:
                raise BadScan("this is not text", where=f"near line {number}", allowed="OBJ is text")
            block = raw.replace(b"\\\n", b"  ") if b"\\\n" in raw else raw
            _add_block(lines, block, number)
            number += raw.count(b"\n")
            tail = (tail + raw)[-TAIL_BYTES:]
    if is_cut(tail):
        raise BadScan("the text ends in the middle of a number: it is cut off", where=f"line {number}")
    vertices = join(lines.vertices)
    if not len(vertices.counts):
        raise BadScan("there are no vertices", allowed='lines such as "v 1.0 2.0 3.0"')
    points = _first_three(vertices)
    normals = _first_three(join(lines.normals)) if lines.normals else np.zeros((0, 3))
    faces = _triangles(join(lines.faces), np.concatenate(lines.vertices_before or [np.zeros(0, np.int64)]))
    return RawCloud(
        points=points,
        normals=normals if len(normals) == len(points) else None,
        faces=check_faces(faces, len(points), first=1) if len(faces) else None,
    )


def _add_block(lines: _Lines, block: bytes, first_line: int) -> None:
    data = np.frombuffer(block, dtype=np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(data == LINE_END) + 1])
    starts = starts[starts < len(data)]
    padded = np.concatenate([data, np.full(2, LINE_END, np.uint8)])
    first, second, third = padded[starts], padded[starts + 1], padded[starts + 2]
    is_vertex = (first == ord("v")) & (second <= BLANK)
    is_normal = (first == ord("v")) & (second == ord("n")) & (third <= BLANK)
    is_face = (first == ord("f")) & (second <= BLANK)
    lengths = np.diff(starts, append=len(data))
    vertices = _numbers_of(data, lengths, is_vertex, first_line)
    lines.vertices.append(vertices)
    if is_normal.any():
        lines.normals.append(_numbers_of(data, lengths, is_normal, first_line))
    if is_face.any():
        faces = _numbers_of(_without_slashes(data), lengths, is_face, first_line)
        lines.faces.append(faces)
        before = lines.vertex_count + np.cumsum(is_vertex)
        lines.vertices_before.append(before[faces.lines - first_line])
    lines.vertex_count += int(is_vertex.sum())


def _numbers_of(
    data: Bytes,
    lengths: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    first_line: int,
) -> Numbers:
    """Return the numbers of the wanted lines; their keyword is blanked out."""
    if not wanted.any():
        return join([])
    kept = data[np.repeat(wanted, lengths)]
    local = np.concatenate([[0], np.cumsum(lengths[wanted])[:-1]])
    for offset in range(2):
        at = local + offset
        at = at[at < len(kept)]
        kept[at] = np.where(kept[at] == LINE_END, LINE_END, BLANK)
    line_numbers = np.flatnonzero(wanted) + first_line
    try:
        numbers = parse_numbers(kept.tobytes())
    except BadScan as error:
        local_line = int((error.where or "line 1").split()[-1])
        raise BadScan(error.problem, where=f"line {line_numbers[local_line - 1]}") from None
    return Numbers(numbers.values, numbers.counts, line_numbers[numbers.lines - 1])


def _without_slashes(data: Bytes) -> Bytes:
    """Return the bytes with "7/1/3" as "7    ": of each corner only the vertex is wanted."""
    at = np.arange(len(data), dtype=np.int64)
    last_slash = np.maximum.accumulate(np.where(data == SLASH, at, -1))
    last_blank = np.maximum.accumulate(np.where(data <= BLANK, at, -1))
    return np.where(last_slash > last_blank, BLANK, data).astype(np.uint8)


def _first_three(numbers: Numbers) -> Points:
    """Return the first three values of each line; weights and colours may follow them."""
    if (numbers.counts == 3).all():
        return numbers.values.reshape(-1, 3)
    short = numbers.counts < 3
    if short.any():
        line = numbers.lines[int(np.argmax(short))]
        raise BadScan("a vertex has fewer than 3 values", where=f"line {line}")
    starts = np.cumsum(numbers.counts) - numbers.counts
    result: Points = numbers.values[starts[:, None] + np.arange(3)]
    return result


def _triangles(numbers: Numbers, vertices_before: NDArray[np.int64]) -> Faces:
    """Return polygons as fans of triangles, indices from 0; negative ones count back from the line."""
    if not len(numbers.counts):
        return np.zeros((0, 3), np.int64)
    is_index = (np.abs(numbers.values) < 2**53) & (numbers.values == np.floor(numbers.values))
    is_index &= numbers.values != 0
    if not is_index.all():
        bad = int(np.argmin(is_index))
        line = numbers.lines[int(np.searchsorted(np.cumsum(numbers.counts), bad, side="right"))]
        raise BadScan(
            f"a face refers to vertex {numbers.values[bad]:g}",
            where=f"line {line}",
            allowed="1, 2, ... or -1, -2, ...",
        )
    index = numbers.values.astype(np.int64)
    index = np.where(index > 0, index - 1, index + np.repeat(vertices_before, numbers.counts))
    starts = np.cumsum(numbers.counts) - numbers.counts
    triangles_each = np.maximum(numbers.counts - 2, 0)
    first = np.repeat(starts, triangles_each)
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles_each) - triangles_each, triangles_each)
    faces: Faces = np.stack([index[first], index[first + step + 1], index[first + step + 2]], axis=1)
    return faces
