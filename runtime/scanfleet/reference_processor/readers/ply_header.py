"""The header of a PLY file, checked against the file's size before anything is read by it."""

import io
from dataclasses import dataclass
from pathlib import Path

from scanfleet.reference_processor.readers.base import BadScan, shown

MAX_HEADER_BYTES = 1024 * 1024
TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    """One property; `count_type` is None unless it is a list. Types are numpy's, without byte order."""

    name: str
    value_type: str
    count_type: str | None = None

    @property
    def least_bytes(self) -> int:
        return int((self.count_type or self.value_type)[1])


@dataclass(frozen=True)
class Element:
    """One element: `count` rows of `properties`."""

    name: str
    count: int
    properties: tuple[Property, ...]

    @property
    def least_row_bytes(self) -> int:
        return sum(prop.least_bytes for prop in self.properties)


@dataclass(frozen=True)
class Header:
    """`byte_order` is "<", ">" or "" for text; `size` bytes and `lines` lines are the header's own."""

    byte_order: str
    elements: tuple[Element, ...]
    size: int
    lines: int

    @property
    def is_text(self) -> bool:
        return not self.byte_order


def read_header(path: Path) -> Header:
    """Return the header of a PLY file. Raises BadScan naming the line that is wrong."""
    lines, size = _header_lines(path)
    if not lines or lines[0].strip() != b"ply":
        first = shown(lines[0][:40]) if lines else "nothing"
        raise BadScan(f"the file begins with {first}", where="line 1", allowed='"ply"')
    if lines[-1].strip() != b"end_header":
        raise BadScan(
            'the header has no "end_header": the file is cut off or is not PLY', where=f"line {len(lines)}"
        )
    byte_order: str | None = None
    elements: list[tuple[str, int, list[Property]]] = []
    for number, line in enumerate(lines[1:-1], start=2):
        words = _words(line, number)
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            byte_order = _byte_order(words, number)
        elif words[0] == "element":
            elements.append((*_element(words, number), []))
        elif words[0] == "property" and elements:
            elements[-1][2].append(_property(words, number))
        else:
            raise BadScan(f"{shown(words[0])} is not a header line of PLY", where=f"line {number}")
    if byte_order is None:
        raise BadScan("the header has no format line", allowed=", ".join(FORMATS))
    built = tuple(Element(name, count, tuple(properties)) for name, count, properties in elements)
    header = Header(byte_order, built, size, len(lines))
    _check_size(header, path.stat().st_size)
    return header


def _header_lines(path: Path) -> tuple[list[bytes], int]:
    """Return the lines up to "end_header", without line ends, and the bytes that they take."""
    with path.open("rb") as handle:
        start = handle.read(MAX_HEADER_BYTES)
    lines: list[bytes] = []
    stream = io.BytesIO(start)
    while raw := stream.readline():
        # Old writers end lines with "\r" alone: readline then returns several at once.
        pieces = raw.removesuffix(b"\n").removesuffix(b"\r").split(b"\r")
        for k, piece in enumerate(pieces):
            lines.append(piece)
            if piece.strip() == b"end_header":
                rest = sum(len(later) + 1 for later in pieces[k + 1 :])
                ended = stream.tell() - (rest + (len(raw) - len(raw.removesuffix(b"\n"))) if rest else 0)
                return lines, ended
        if len(lines) == 1 and lines[0].strip() != b"ply":
            break
    return lines, len(start)


def _words(line: bytes, number: int) -> list[str]:
    try:
        text = line.decode("ascii") if not line.startswith((b"comment", b"obj_info")) else "comment"
    except UnicodeDecodeError:
        text = "\0"
    if any(ord(letter) < 32 and letter != "\t" for letter in text):
        raise BadScan("the header holds bytes that are not text", where=f"line {number}")
    return text.split()


def _byte_order(words: list[str], number: int) -> str:
    if len(words) != 3 or words[1] not in FORMATS:
        raise BadScan(
            f"unknown format {shown(' '.join(words[1:]))}", where=f"line {number}", allowed=", ".join(FORMATS)
        )
    return FORMATS[words[1]]


def _element(words: list[str], number: int) -> tuple[str, int]:
    if len(words) != 3 or not words[2].isdigit() or len(words[2]) > 15:
        raise BadScan(
            "an element line is malformed", where=f"line {number}", allowed='such as "element vertex 100"'
        )
    return words[1], int(words[2])


def _property(words: list[str], number: int) -> Property:
    if len(words) == 3 and words[1] in TYPES:
        return Property(words[2], TYPES[words[1]])
    is_list = len(words) == 5 and words[1] == "list" and words[2] in TYPES and words[3] in TYPES
    if is_list and TYPES[words[2]][0] != "f":
        return Property(words[4], TYPES[words[3]], TYPES[words[2]])
    raise BadScan(
        "a property line is malformed", where=f"line {number}", allowed='such as "property float x"'
    )


def _check_size(header: Header, file_bytes: int) -> None:
    """Refuse counts that the file cannot hold, before memory is taken for them."""
    left = file_bytes - header.size
    for element in header.elements:
        if element.count and not element.properties:
            raise BadScan(f"element {shown(element.name)} has no properties")
        # As text a value takes a digit and a separator; the last separator may be missing.
        least = element.least_row_bytes if not header.is_text else 2 * len(element.properties)
        left -= element.count * least
        if left < (-1 if header.is_text else 0):
            raise BadScan(
                f"the header states {element.count} of {shown(element.name)}, "
                f"which take at least {element.count * least} bytes: the file is cut off",
                where=f"ends at byte {file_bytes}",
            )
