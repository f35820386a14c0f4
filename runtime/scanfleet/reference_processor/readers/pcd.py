"""PCD, the format of the Point Cloud Library: text, binary and binary_compressed.

Source: PCL documentation, "The PCD (Point Cloud Data) file format".
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanfleet.reference_processor.readers.base import BadScan, Points, RawCloud, shown
from scanfleet.reference_processor.readers.lzf import decompress
from scanfleet.reference_processor.readers.text import is_cut, parse_all

MAX_HEADER_BYTES = 65_536
KINDS = {
    "F": {4: "<f4", 8: "<f8"},
    "I": {1: "i1", 2: "<i2", 4: "<i4", 8: "<i8"},
    "U": {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"},
}
ENTRIES = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
NORMALS = ("normal_x", "normal_y", "normal_z")
TAIL_BYTES = 65_536


@dataclass(frozen=True)
class Field:
    """One field: `count` numbers of type `kind` per point."""

    name: str
    kind: str
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class Header:
    """`size` bytes and `lines` lines are the header's own."""

    fields: tuple[Field, ...]
    points: int
    data: str
    size: int
    lines: int

    @property
    def row_bytes(self) -> int:
        return sum(field.size for field in self.fields)


def read_pcd(path: Path) -> RawCloud:
    """Return points and normals (normal_x ...) of a PCD file; points without depth are NaN there.

    Raises BadScan when it is not PCD, is cut off, or states more than it holds.
    """
    header = _read_header(path)
    names = [field.name for field in header.fields]
    if not {"x", "y", "z"} <= set(names):
        raise BadScan(f"the fields have no x, y and z, but: {', '.join(names[:20])}"[:300])
    reader = {"ascii": _read_text, "binary": _read_binary, "binary_compressed": _read_compressed}[header.data]
    columns = reader(path, header)
    points = np.stack([columns[name] for name in ("x", "y", "z")], axis=1)
    has_normals = set(NORMALS) <= set(names)
    return RawCloud(points, np.stack([columns[name] for name in NORMALS], axis=1) if has_normals else None)


def _read_header(path: Path) -> Header:
    entries, size, lines = _header_entries(path)
    fields = _fields(entries)
    width, height = _integers(entries, "WIDTH", 1)[0], _integers(entries, "HEIGHT", 1)[0]
    points = _integers(entries, "POINTS", 1)[0] if "POINTS" in entries else width * height
    if points != width * height or points == 0:
        raise BadScan(
            f"POINTS is {points}, WIDTH x HEIGHT is {width} x {height}", allowed="equal and above 0"
        )
    data = " ".join(entries["DATA"]).lower()
    if data not in ("ascii", "binary", "binary_compressed"):
        raise BadScan(f"DATA is {shown(data)}", allowed="ascii, binary, binary_compressed")
    header = Header(fields, points, data, size, lines)
    least = header.row_bytes if data == "binary" else 2 * len(fields) if data == "ascii" else 0
    left = path.stat().st_size - size + (data == "ascii")
    if points * least > left:
        raise BadScan(
            f"the header states {points} points, at least {points * least} bytes: the file is cut off",
            where=f"ends at byte {path.stat().st_size}",
        )
    return header


def _header_entries(path: Path) -> tuple[dict[str, list[str]], int, int]:
    """Return the header's lines by their first word, and the bytes and lines that it takes."""
    with path.open("rb") as handle:
        stream = io.BytesIO(handle.read(MAX_HEADER_BYTES))
    entries: dict[str, list[str]] = {}
    number = 0
    while raw := stream.readline():
        number += 1
        words = raw.decode("ascii", errors="replace").split()
        if not words or words[0].startswith("#"):
            continue
        key = words[0].upper()
        if key not in ENTRIES:
            raise BadScan(
                f"{shown(words[0])} is not a header line of PCD: the header is missing or damaged",
                where=f"line {number}",
                allowed=", ".join(ENTRIES),
            )
        entries[key] = words[1:]
        if key == "DATA":
            return entries, stream.tell(), number
    raise BadScan("the header has no DATA line: the file is cut off or is not PCD", where=f"line {number}")


def _fields(entries: dict[str, list[str]]) -> tuple[Field, ...]:
    names = entries.get("FIELDS", [])
    if not names:
        raise BadScan("the header has no FIELDS line")
    sizes = _integers(entries, "SIZE", len(names))
    counts = _integers(entries, "COUNT", len(names)) if "COUNT" in entries else [1] * len(names)
    types = entries.get("TYPE", [])
    if len(types) != len(names):
        raise BadScan(f"TYPE has {len(types)} values", allowed=f"{len(names)}, one for each field")
    fields = []
    for name, kind, size, count in zip(names, types, sizes, counts, strict=True):
        if size not in KINDS.get(kind.upper(), {}) or not 0 < count < 100_000:
            raise BadScan(
                f"field {shown(name)} has TYPE {shown(kind)}, SIZE {size}, COUNT {count}",
                allowed="such as F 4 1",
            )
        fields.append(Field(name, KINDS[kind.upper()][size], count))
    return tuple(fields)


def _integers(entries: dict[str, list[str]], key: str, count: int) -> list[int]:
    words = entries.get(key, [])
    if len(words) != count or not all(word.isdigit() and len(word) < 16 for word in words):
        raise BadScan(f"{key} is {shown(' '.join(words))}", allowed=f"{count} whole numbers")
    return [int(word) for word in words]


def _read_text(path: Path, header: Header) -> dict[str, Points]:
    with path.open("rb") as handle:
        handle.seek(max(header.size, path.stat().st_size - TAIL_BYTES))
        if is_cut(b"\n" + handle.read()):
            raise BadScan("the text ends in the middle of a number: it is cut off")
        handle.seek(header.size)
        table = parse_all(handle, first_line=header.lines + 1).as_table(
            sum(field.count for field in header.fields)
        )
    if len(table) != header.points:
        raise BadScan(
            f"the header states {header.points} points, but {len(table)} lines follow: the file is cut off"
        )
    columns, at = {}, 0
    for field in header.fields:
        columns[field.name] = table[:, at]
        at += field.count
    return columns


def _read_binary(path: Path, header: Header) -> dict[str, Points]:
    rows = np.memmap(path, np.uint8, "r", header.size, (header.points, header.row_bytes))
    columns, at = {}, 0
    for field in header.fields:
        width = np.dtype(field.kind).itemsize
        if field.name in ("x", "y", "z", *NORMALS):
            columns[field.name] = (
                np.ascontiguousarray(rows[:, at : at + width]).view(field.kind)[:, 0].astype(np.float64)
            )
        at += field.size
    return columns


def _read_compressed(path: Path, header: Header) -> dict[str, Points]:
    """Return the columns of compressed data, which holds field after field instead of point after point."""
    with path.open("rb") as handle:
        handle.seek(header.size)
        sizes = handle.read(8)
        compressed, size = int.from_bytes(sizes[:4], "little"), int.from_bytes(sizes[4:], "little")
        left = path.stat().st_size - header.size - 8
        if len(sizes) < 8 or compressed > left:
            raise BadScan(
                f"{compressed} compressed bytes are stated, {max(left, 0)} follow: the file is cut off",
                where=f"byte {header.size}",
            )
        if size != header.points * header.row_bytes:
            raise BadScan(
                f"the data states {size} bytes for {header.points} points",
                where=f"byte {header.size + 4}",
                allowed=f"{header.points * header.row_bytes}",
            )
        data = handle.read(compressed)
    try:
        plain = decompress(data, size=size)
    except ValueError as error:
        raise BadScan(str(error), where=f"data from byte {header.size + 8}") from None
    columns, at = {}, 0
    for field in header.fields:
        if field.name in ("x", "y", "z", *NORMALS):
            column = np.frombuffer(plain, field.kind, header.points * field.count, at)
            columns[field.name] = column[:: field.count].astype(np.float64)
        at += field.size * header.points
    return columns
