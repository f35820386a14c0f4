"""PLY: text and both byte orders, with any further elements and properties.

Source: Greg Turk, "The PLY Polygon File Format", 1994.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanfleet.reference_processor.readers.base import BadScan, Faces, Points, RawCloud, check_faces
from scanfleet.reference_processor.readers.ply_header import Element, Header, read_header
from scanfleet.reference_processor.readers.text import Numbers, is_cut, parse_all

FACE_LISTS = ("vertex_indices", "vertex_index")
NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
TAIL_BYTES = 65_536

Lists = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Lists of different lengths: the length of each, and all values one after the other."""


def read_ply(path: Path) -> RawCloud:
    """Return points, normals (nx ny nz) and faces of a PLY file.

    Raises BadScan when it is not PLY, has no points, is cut off, or states more than it holds.
    """
    header = read_header(path)
    vertex = next((element for element in header.elements if element.name == "vertex"), None)
    if vertex is None or vertex.count == 0:
        raise BadScan("there are no vertices", allowed='a header line such as "element vertex 1000"')
    names = [prop.name for prop in vertex.properties if prop.count_type is None]
    if not {"x", "y", "z"} <= set(names):
        raise BadScan(f"the vertices have no x, y and z, but: {', '.join(names[:20])}"[:300])
    columns, lists = (_read_text if header.is_text else _read_binary)(path, header)
    points = np.stack([columns[name] for name in ("x", "y", "z")], axis=1)
    normals = next(
        (np.stack([columns[n] for n in group], axis=1) for group in NORMALS if set(group) <= set(columns)),
        None,
    )
    faces = None if lists is None or not len(lists[0]) else check_faces(_fans(lists), len(points))
    return RawCloud(points=points, normals=normals, faces=faces)


def _fans(lists: Lists) -> Faces:
    """Return polygons as fans of triangles."""
    counts, values = lists
    index = values.astype(np.int64)
    starts = np.cumsum(counts) - counts
    each = np.maximum(counts - 2, 0)
    first = np.repeat(starts, each)
    step = np.arange(len(first)) - np.repeat(np.cumsum(each) - each, each)
    faces: Faces = np.stack([index[first], index[first + step + 1], index[first + step + 2]], axis=1)
    return faces


# --- Text --------------------------------------------------------------------------------------------------


def _read_text(path: Path, header: Header) -> tuple[dict[str, Points], Lists | None]:
    with path.open("rb") as handle:
        handle.seek(max(header.size, path.stat().st_size - TAIL_BYTES))
        if is_cut(b"\n" + handle.read()):
            raise BadScan("the text ends in the middle of a number: it is cut off")
        handle.seek(header.size)
        numbers = parse_all(handle, first_line=header.lines + 1)
    columns: dict[str, Points] = {}
    lists: Lists | None = None
    row = 0
    ends = np.cumsum(numbers.counts)
    for element in header.elements:
        if row + element.count > len(numbers.counts):
            raise BadScan(
                f'the header states {element.count} of "{element.name}", but the file ends after '
                f"{len(numbers.counts) - row}: it is cut off"
            )
        rows = slice(row, row + element.count)
        first = int(ends[row - 1]) if row else 0
        last = int(ends[row + element.count - 1]) if row + element.count else 0
        part = Numbers(numbers.values[first:last], numbers.counts[rows], numbers.lines[rows])
        found, found_lists = _text_element(element, part)
        if element.name == "vertex":
            columns = found
        elif element.name == "face":
            lists = found_lists
        row += element.count
    return columns, lists


def _text_element(element: Element, numbers: Numbers) -> tuple[dict[str, Points], Lists | None]:
    """Return an element's scalar columns and its list of vertex indices, if it has one."""
    columns: dict[str, Points] = {}
    lists: Lists | None = None
    start = np.cumsum(numbers.counts) - numbers.counts
    used = np.zeros(element.count, dtype=np.int64)
    for prop in element.properties:
        if (used >= numbers.counts).any():
            _refuse_row(element, numbers, used >= numbers.counts)
        value = numbers.values[start + used]
        used = used + 1
        if prop.count_type is None:
            columns[prop.name] = value
            continue
        wrong = ~((value >= 0) & (value <= numbers.counts - used) & (value == np.floor(value)))
        if wrong.any():
            _refuse_row(element, numbers, wrong)
        counts = value.astype(np.int64)
        if prop.name in FACE_LISTS:
            lists = (counts, _gather(numbers.values, start + used, counts))
        used = used + counts
    if (used != numbers.counts).any():
        _refuse_row(element, numbers, used != numbers.counts)
    return columns, lists


def _refuse_row(element: Element, numbers: Numbers, wrong: NDArray[np.bool_]) -> None:
    k = int(np.argmax(wrong))
    names = " ".join(prop.name for prop in element.properties)[:100]
    raise BadScan(
        f'a line of "{element.name}" has {numbers.counts[k]} values, not those of its properties ({names})',
        where=f"line {numbers.lines[k]}",
    )


def _gather(values: Points, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> Points:
    """Return the runs of `counts` values at `starts`, one after the other."""
    offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    gathered: Points = values[np.repeat(starts, counts) + offset]
    return gathered


# --- Binary ------------------------------------------------------------------------------------------------


def _read_binary(path: Path, header: Header) -> tuple[dict[str, Points], Lists | None]:
    data = np.memmap(path, dtype=np.uint8, mode="r")
    columns: dict[str, Points] = {}
    lists: Lists | None = None
    position = header.size
    for element in header.elements:
        if not element.count:
            continue
        stride = _common_stride(data, position, element, header.byte_order)
        if stride is None:
            rows, position = _walk(data, position, element, header.byte_order)
        else:
            rows = position + stride * np.arange(element.count + 1, dtype=np.int64)
            position = int(rows[-1])
        if element.name == "vertex":
            columns = _binary_columns(data, rows, element, header.byte_order, fixed=stride)
        elif element.name == "face":
            lists = _binary_lists(data, rows, element, header.byte_order)
    return columns, lists


def _common_stride(data: NDArray[np.uint8], position: int, element: Element, order: str) -> int | None:
    """Return the bytes of each row when all rows are alike: no lists, or all as long as the first row's."""
    stride, offsets = 0, []
    for prop in element.properties:
        stride += prop.least_bytes
        if prop.count_type is not None:
            count = _number_at(data, position + stride - prop.least_bytes, order + prop.count_type)
            offsets.append((stride - prop.least_bytes, prop, count))
            stride += count * int(prop.value_type[1])
    end = position + stride * element.count
    if not offsets:
        if end > len(data):
            _refuse_end(element, len(data))
        return stride
    if end > len(data) or any(count < 0 for _, _, count in offsets):
        return None
    table = data[position:end].reshape(element.count, stride)
    for offset, prop, count in offsets:
        assert prop.count_type is not None
        counts = np.ascontiguousarray(table[:, offset : offset + prop.least_bytes]).view(
            order + prop.count_type
        )
        if (counts != count).any():
            return None
    return stride


def _walk(
    data: NDArray[np.uint8], position: int, element: Element, order: str
) -> tuple[NDArray[np.int64], int]:
    """Return where each row starts, and where the last ends, by stepping from row to row."""
    starts = np.empty(element.count + 1, dtype=np.int64)
    end = len(data)
    flat = memoryview(data.data)
    steps: list[tuple[int, str | None, int]] = [
        (prop.least_bytes, prop.count_type, int(prop.value_type[1])) for prop in element.properties
    ]
    byte_order: Literal["big", "little"] = "big" if order == ">" else "little"
    for row in range(element.count):
        starts[row] = position
        for least, count_type, item in steps:
            if count_type is not None and position + least <= end:
                position += int.from_bytes(flat[position : position + least], byte_order) * item
            position += least
        if position > end:
            _refuse_end(element, end, row=row)
    starts[-1] = position
    return starts, position


def _refuse_end(element: Element, size: int, *, row: int | None = None) -> None:
    at = "" if row is None else f" in row {row + 1}"
    raise BadScan(
        f'the header states {element.count} of "{element.name}", but the file ends before them{at}: '
        "it is cut off or damaged",
        where=f"ends at byte {size}",
    )


def _binary_columns(
    data: NDArray[np.uint8], rows: NDArray[np.int64], element: Element, order: str, *, fixed: int | None
) -> dict[str, Points]:
    """Return the scalar columns of the vertices. Lists between them must all be alike."""
    if fixed is None:
        raise BadScan("the vertices hold lists of different lengths", allowed="lists in faces only")
    table = data[rows[0] : rows[-1]].reshape(element.count, fixed)
    columns: dict[str, Points] = {}
    offset = 0
    for prop in element.properties:
        kind = order + (prop.count_type or prop.value_type)
        column = np.ascontiguousarray(table[:, offset : offset + prop.least_bytes]).view(kind)[:, 0]
        offset += prop.least_bytes
        if prop.count_type is not None:
            offset += int(column[0]) * int(prop.value_type[1])
        elif prop.name in ("x", "y", "z", *NORMALS[0], *NORMALS[1]):
            columns[prop.name] = column.astype(np.float64)
    return columns


def _binary_lists(
    data: NDArray[np.uint8], rows: NDArray[np.int64], element: Element, order: str
) -> Lists | None:
    """Return the list of vertex indices of each face, or None when the faces have no such list."""
    starts = rows[:-1].copy()
    for prop in element.properties:
        if prop.count_type is None:
            starts += prop.least_bytes
            continue
        counts = _numbers_at(data, starts, order + prop.count_type).astype(np.int64)
        starts += prop.least_bytes
        if prop.name in FACE_LISTS:
            item = int(prop.value_type[1])
            offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
            at = np.repeat(starts, counts) + offset * item
            return counts, _numbers_at(data, at, order + prop.value_type).astype(np.float64)
        starts += counts * int(prop.value_type[1])
    return None


def _number_at(data: NDArray[np.uint8], position: int, kind: str) -> int:
    raw = data[position : position + int(kind[2])].tobytes()
    return int(np.frombuffer(raw, dtype=kind)[0]) if len(raw) == int(kind[2]) else -1


def _numbers_at(data: NDArray[np.uint8], positions: NDArray[np.int64], kind: str) -> NDArray[np.generic]:
    """Return the numbers of type `kind` that begin at `positions`."""
    raw = np.empty((len(positions), int(kind[2])), dtype=np.uint8)
    for byte in range(int(kind[2])):
        raw[:, byte] = data[positions + byte]
    numbers: NDArray[np.generic] = raw.view(kind)[:, 0]
    return numbers
