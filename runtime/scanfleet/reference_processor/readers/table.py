"""Points as tables: XYZ, CSV, TXT, ASC, PTS; with or without a header; comma, semicolon, tab or blanks."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanfleet.reference_processor.readers.base import MIN_POINTS, BadScan, NotAScan, Points, RawCloud, shown
from scanfleet.reference_processor.readers.poses import pose_kind
from scanfleet.reference_processor.readers.text import blocks, is_cut, join, parse_numbers, unix_lines

SNIFF_BYTES = 65_536
POINT_SUFFIXES = (".xyz", ".pts", ".asc")
"""Files of these kinds hold points or are wrong; a .csv or .txt may hold anything."""

_COMMENT = re.compile(rb"(?m)^[ \t]*(?:#|//|%|!).*$")
_UNIT = re.compile(r"[\[(].*?[\])]\s*$")
POSITION_NAMES = (
    ("x", "y", "z"),
    ("points:0", "points:1", "points:2"),
    ("points_0", "points_1", "points_2"),
    ("point_x", "point_y", "point_z"),
    ("pos_x", "pos_y", "pos_z"),
    ("px", "py", "pz"),
    ("x_coordinate", "y_coordinate", "z_coordinate"),
    ("easting", "northing", "height"),
    ("easting", "northing", "elevation"),
)
NORMAL_NAMES = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normals:0", "normals:1", "normals:2"),
    ("normalx", "normaly", "normalz"),
    ("n_x", "n_y", "n_z"),
)


@dataclass(frozen=True)
class _Layout:
    """How a table is written. `skip_lines` stand before the data; `stated` is what a count line says."""

    separator: str | None
    has_decimal_commas: bool
    skip_lines: int
    names: tuple[str, ...] | None
    columns: int
    stated: int | None = None


def read_table(path: Path) -> RawCloud:
    """Return the points of a table, and normals by their headings or where three columns are unit vectors.

    Raises NotAScan for a .csv or .txt that holds something else; BadScan for a table of points that is
    broken, and for anything but points in the other kinds.
    """
    try:
        return _read(path)
    except NotAScan as error:
        if path.suffix.lower() in POINT_SUFFIXES:
            raise BadScan(f"this is not a list of points: {error}", allowed="lines of x y z") from None
        raise


def _read(path: Path) -> RawCloud:
    with path.open("rb") as handle:
        head = handle.read(SNIFF_BYTES)
    if not head.strip():
        raise BadScan("the file is empty") if path.suffix.lower() != ".txt" else NotAScan("it is empty")
    if b"\0" in head:
        raise NotAScan("it is not text")
    layout = _layout(head)
    sample = _sample(head, layout)
    position, normal = _choose_columns(layout, sample)
    kind = pose_kind(sample) if len(head) < SNIFF_BYTES or len(sample) else None
    if kind is not None:
        raise NotAScan(f"it is {kind}")
    table, notes = _read_values(path, layout, [*position, *(normal or [])])
    if len(table) < MIN_POINTS and path.suffix.lower() == ".txt":
        raise NotAScan(f"it has only {len(table)} lines of numbers")
    if layout.stated is not None and len(table) < layout.stated:
        raise BadScan(
            f"the first line states {layout.stated} points, but {len(table)} follow: the file is cut off"
        )
    return RawCloud(table[:, :3], table[:, 3:6] if normal is not None else None, notes=notes)


# --- Layout ------------------------------------------------------------------------------------------------


def _layout(head: bytes) -> _Layout:
    """Return how the table that begins with `head` is written. Raises NotAScan when it is no such table."""
    lines = unix_lines(head.removeprefix(b"\xef\xbb\xbf")).split(b"\n")
    names: tuple[str, ...] | None = None
    stated: int | None = None
    for number, raw in enumerate(lines):
        line = raw.decode("utf-8", errors="replace").strip()
        if not line:
            continue
        separator = ";" if ";" in line else "," if "," in line else "\t" if "\t" in line else None
        words = _split(line, separator)
        if _COMMENT.match(raw):
            found = _names(line.lstrip("#/%! \t"))
            names = found if _find(found, POSITION_NAMES) else names
        elif all(_is_number(word) for word in words[:3]) and len(words) >= 2:
            is_decimal_comma = separator == ";" and "," in line
            fits = names is not None and len(names) == len(words)
            return _Layout(separator, is_decimal_comma, number, names if fits else None, len(words), stated)
        elif len(words) == 1 and words[0].isdigit() and stated is None and names is None:
            stated = int(words[0])
        elif names is None:
            names = _names(line)
            if _find(names, POSITION_NAMES) is None:
                raise NotAScan(
                    f"line {number + 1} is {shown(line)}, neither numbers nor a heading with x, y and z"
                )
            if any(name in names for name in ("qx", "qw", "quat_x", "qx_", "rot_x")):
                raise NotAScan("its heading names rotations: it is a list of poses")
        elif any(_is_number(word) for word in words) and len(names) - len(words) in (0, 1):
            return _Layout(separator, separator == ";" and "," in line, number, names, len(words), stated)
        else:
            raise BadScan(f"{shown(line)} is no line of numbers", where=f"line {number + 1}")
    raise (NotAScan if names is None else BadScan)("it has no lines of numbers")


def _split(line: str, separator: str | None) -> list[str]:
    words = [word.strip() for word in line.split(separator)]
    return words[:-1] if separator is not None and words[-1] == "" else words


def _names(line: str) -> tuple[str, ...]:
    separator = next((letter for letter in ";,\t" if letter in line), None)
    words = (word.strip().strip("\"'").strip().lower() for word in line.split(separator))
    return tuple(_UNIT.sub("", word).strip() for word in words)


def _is_number(word: str) -> bool:
    try:
        float(word.replace(",", "."))
    except ValueError:
        return False
    return True


def _find(names: tuple[str, ...], groups: tuple[tuple[str, ...], ...]) -> list[int] | None:
    for group in groups:
        if set(group) <= set(names):
            return [names.index(name) for name in group]
    return None


def _sample(head: bytes, layout: _Layout) -> Points:
    """Return the first rows, or none when columns hold words."""
    text = b"\n".join(unix_lines(head).split(b"\n")[layout.skip_lines :])
    text = text[: text.rfind(b"\n") + 1] if len(head) == SNIFF_BYTES else text
    try:
        return parse_numbers(_blanked(text, layout)).as_table(layout.columns)
    except BadScan:
        return np.zeros((0, layout.columns))


def _choose_columns(layout: _Layout, sample: Points) -> tuple[list[int], list[int] | None]:
    """Return the columns of positions and, if any, of normals."""
    if layout.names is not None:
        position = _find(layout.names, POSITION_NAMES)
        assert position is not None
        return position, _find(layout.names, NORMAL_NAMES)
    if layout.columns < 3:
        raise NotAScan(f"its lines have {layout.columns} numbers, and a point needs 3")
    for first in {3, layout.columns - 3}:
        columns = sample[:, first : first + 3]
        if first >= 3 and columns.shape[1] == 3 and len(sample) >= MIN_POINTS:
            length = np.linalg.norm(columns, axis=1)
            if (np.abs(length - 1.0) < 0.02).mean() > 0.95:
                return [0, 1, 2], [first, first + 1, first + 2]
    return [0, 1, 2], None


# --- Values ------------------------------------------------------------------------------------------------


def _read_values(path: Path, layout: _Layout, columns: list[int]) -> tuple[Points, tuple[str, ...]]:
    """Return the wanted columns of all rows, and notes for the report."""
    try:
        table = _read_fast(path, layout)[:, columns]
    except BadScan as error:
        if layout.separator is None:
            raise
        table = _read_with_words(path, layout, columns, error)
    if _ends_in_a_number(path) and len(table) > 1:
        return table[:-1], ("the last line seems to be cut in the middle of a number and was left out",)
    return table, ()


def _read_fast(path: Path, layout: _Layout) -> Points:
    parts, line, skip = [], 1, layout.skip_lines
    with path.open("rb") as handle:
        for raw in blocks(handle):
            block, lines = raw, raw.count(b"\n")
            if skip:
                skipped = min(skip, lines)
                block = block.split(b"\n", skipped)[-1]
                skip -= skipped
                parts.append(parse_numbers(_blanked(block, layout), first_line=line + skipped))
            else:
                parts.append(parse_numbers(_blanked(block, layout), first_line=line))
            line += lines
    return join(parts).as_table(layout.columns)


def _blanked(block: bytes, layout: _Layout) -> bytes:
    """Return the block with blanks between values, points in decimals, and comments removed."""
    if any(mark in block for mark in (b"#", b"//", b"%", b"!")):
        block = _COMMENT.sub(b"", block)
    if layout.has_decimal_commas:
        block = block.replace(b",", b".")
    return block.translate(bytes.maketrans(b";,\t", b"   "))


def _read_with_words(path: Path, layout: _Layout, columns: list[int], error: BadScan) -> Points:
    """Return the wanted columns of a table whose other columns hold words or nothing; else raise `error`."""
    if layout.has_decimal_commas:
        raise error
    try:
        with path.open("rb") as handle:
            return np.loadtxt(
                handle,
                delimiter=layout.separator,
                usecols=columns,
                skiprows=layout.skip_lines,
                comments=["#", "//", "%", "!"],
                ndmin=2,
                encoding="utf-8",
            )
    except (ValueError, UnicodeError):
        raise error from None


def _ends_in_a_number(path: Path) -> bool:
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(size - SNIFF_BYTES, 0))
        tail = handle.read()
    return is_cut(tail.translate(bytes.maketrans(b";,\t", b"   ")))
