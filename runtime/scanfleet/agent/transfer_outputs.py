"""What a program wrote: every file below its output folder, or why that cannot be published."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scanfleet.agent.safe_paths import check_keys
from scanfleet.contract import MANIFEST_NAME
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass

_REPARSE_POINT = 0x400
"""Windows: junctions and links. Source: [MS-FSCC] 2.6, FILE_ATTRIBUTE_REPARSE_POINT."""


@dataclass(frozen=True)
class LocalFile:
    """One file to upload. `relative` has forward slashes."""

    path: Path
    relative: str
    size_bytes: int


def files_below(folder: Path) -> list[LocalFile]:
    """Return every file below the folder, by name.

    Raises JobFailure (program error) for what cannot be published: links that lead out of the folder or to
    folders, pipes, sockets, devices, names that no workspace can hold, and when there is no file at all.
    """
    try:
        found = sorted(_walk(folder, folder.resolve(strict=True)), key=lambda file: file.relative)
    except OSError as error:
        raise JobFailure(FailureClass.TRANSFER, f"the output folder cannot be read: {error}") from error
    if not found:
        raise JobFailure(FailureClass.PROGRAM_ERROR, "the program wrote no output")
    if any(file.relative.casefold() == MANIFEST_NAME for file in found):
        raise cannot_publish(MANIFEST_NAME, "is the name of the manifest that Scanfleet writes")
    check_keys((file.relative for file in found), failure_class=FailureClass.PROGRAM_ERROR)
    return found


def _walk(folder: Path, root: Path, prefix: str = "") -> Iterator[LocalFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            relative = prefix + entry.name
            if _is_link(entry):
                _check_link(Path(entry.path), relative, root)
            if entry.is_dir():
                yield from _walk(Path(entry.path), root, relative + "/")
            elif entry.is_file():
                yield LocalFile(Path(entry.path), relative, entry.stat().st_size)
            else:
                raise cannot_publish(relative, "is neither a file nor a folder")


def _is_link(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return True
    return bool(getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0) & _REPARSE_POINT)


def _check_link(path: Path, relative: str, root: Path) -> None:
    try:
        leads_to = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise cannot_publish(relative, "is a link that leads nowhere") from error
    if not leads_to.is_relative_to(root):
        raise cannot_publish(relative, "is a link that leads out of the output folder")
    if stat.S_ISDIR(leads_to.stat().st_mode):
        raise cannot_publish(relative, "is a link to a folder")


def cannot_publish(relative: str, why: str) -> JobFailure:
    """Return the failure of a program whose output cannot be published as it is."""
    return JobFailure(FailureClass.PROGRAM_ERROR, f"the program's output {relative!r} {why}")
