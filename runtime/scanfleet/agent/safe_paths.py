r"""Which object keys may become files, and where.

One rule for every pool: a key is refused wherever Windows or Linux could not hold it, so that a job never
depends on the machine that it meets.
Source: "Naming Files, Paths, and Namespaces", learn.microsoft.com/windows/win32/fileio/naming-a-file.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from scanfleet.errors import JobFailure, shorten
from scanfleet.jobs import FailureClass

MAX_SEGMENT = 255
"""Of UTF-8 bytes (ext4) and of UTF-16 units (NTFS), for one file or folder name."""
MAX_RELATIVE_UNITS = 180
"""Of UTF-16 units, for the path under the workspace's folder. Windows programs take 259 in all; the
workspace's own folders take up to 79 of them."""

_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f-\x9f\u2028\u2029]')
_DRIVE = re.compile(r"^[A-Za-z]:")
_RESERVED = re.compile(
    r"^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(?:\.|$)", re.IGNORECASE
)
"""Devices, with any extension; the superscript digits count as digits."""


def local_path(folder: Path, relative_key: str) -> Path:
    """Return where the object of this key lies under `folder`.

    Raises JobFailure (bad input) that names the key, when it could leave the folder or cannot be a file.
    """
    problem = key_problem(relative_key)
    if problem is not None:
        raise JobFailure(FailureClass.BAD_INPUT, _sentence(relative_key, problem))
    return folder.joinpath(*relative_key.split("/"))


def check_keys(relative_keys: Iterable[str], *, failure_class: FailureClass = FailureClass.BAD_INPUT) -> None:
    """Raise JobFailure that names the first key that cannot be a file beside all the others.

    Besides what each key is by itself: two keys must not be one file on a file system that ignores case or
    Unicode normalisation, and no key may be a file and a folder.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for key in relative_keys:
        problem = key_problem(key) or _clash(key, files, folders)
        if problem is not None:
            raise JobFailure(failure_class, _sentence(key, problem))


def key_problem(key: str) -> str | None:
    """Return what keeps this one key from being a file under any workspace, or None."""
    if key.startswith(("/", "\\")):
        return "is an absolute path"
    if _DRIVE.match(key):
        return "begins with a drive letter"
    forbidden = _FORBIDDEN.search(key)
    if forbidden is not None:
        return f"contains {_shown(forbidden[0])}, which file names cannot hold"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    for segment in key.split("/"):
        problem = _segment_problem(segment)
        if problem is not None:
            return problem
    return f"is over {MAX_RELATIVE_UNITS} characters long" if _units(key) > MAX_RELATIVE_UNITS else None


def _segment_problem(segment: str) -> str | None:  # noqa: PLR0911 - a list of rules, one return each
    if segment == "":
        return "contains an empty folder or file name"
    if segment in (".", ".."):
        return f'contains "{segment}", which could leave the folder'
    if segment[-1] in ". ":
        return "contains a name that ends with a dot or a blank"
    if segment[0] == " ":
        return "contains a name that begins with a blank"
    if _RESERVED.match(segment):
        return f"contains {shorten(segment, 40)!r}, a name that Windows reserves for a device"
    if max(len(segment.encode()), _units(segment)) > MAX_SEGMENT:
        return f"contains a name over {MAX_SEGMENT} bytes long"
    return None


def _clash(key: str, files: dict[str, str], folders: dict[str, str]) -> str | None:
    """Return how `key` clashes with the keys seen before, or None; remembers it."""
    folded = fold(key)
    if folded in files:
        return f"differs from {shorten(files[folded])!r} only in case or Unicode form"
    if folded in folders:
        return f"is also a folder: {shorten(folders[folded])!r}"
    files[folded] = key
    end = key.rfind("/")
    while end > 0:
        parent = key[:end]
        folded = fold(parent)
        known = folders.setdefault(folded, parent)
        if known != parent:
            return f"lies in a folder that differs from {shorten(known)!r} only in case or Unicode form"
        if folded in files:
            return f"lies in a folder that is also a file: {shorten(files[folded])!r}"
        end = key.rfind("/", 0, end)
    return None


def fold(name: str) -> str:
    """Return what two names share when some file system takes them for one."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _units(text: str) -> int:
    return len(text) + sum(1 for character in text if ord(character) > 0xFFFF)


def _shown(character: str) -> str:
    return repr(character) if character.isprintable() else f"the control character U+{ord(character):04X}"


def _sentence(key: str, problem: str) -> str:
    return f"the name {shorten(key, 120)!r} {problem}"
