"""The scans of a folder, and the files beside them that are none."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scanfleet.reference_processor.readers import SUFFIXES, BadScan, LoadedScan, NotAScan, read_scan

MAX_NAMED = 200
"""Ignored files that the report names; of more only the number is told."""


@dataclass(frozen=True)
class Ignored:
    """A file that was not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Folder:
    """What was read: the scans by name, and what was not used."""

    scans: tuple[LoadedScan, ...]
    ignored: tuple[Ignored, ...]


def read_folder(
    source: Path, *, exclude: tuple[Path, ...] = (), on_progress: Callable[[float], None] = lambda _: None
) -> Folder:
    """Return every scan under `source`, at any depth, by name; `exclude` are files and folders to pass over.

    Raises BadScan naming the first broken file, or saying that there is nothing to read and why.
    """
    scans: list[LoadedScan] = []
    ignored: list[Ignored] = []
    files = [path for path in sorted(source.rglob("*")) if not _is_excluded(path, exclude)]
    total = sum(path.stat().st_size for path in files if not path.is_symlink()) or 1
    done = 0
    for path in files:
        name = path.relative_to(source).as_posix()
        reason = _not_for_us(path)
        if reason is not None:
            ignored.append(Ignored(name, reason))
            continue
        try:
            scans.append(read_scan(path, name))
        except NotAScan as error:
            ignored.append(Ignored(name, str(error)))
        except OSError as error:
            raise BadScan(f"cannot be read: {error.strerror or error}", file=name) from None
        done += path.stat().st_size
        on_progress(100.0 * done / total)
    if not scans:
        listed = "; ".join(f"{item.file}: {item.reason}" for item in ignored[:5]) or "it is empty"
        kinds = ", ".join(sorted(SUFFIXES))
        raise BadScan(
            f"it holds no scan ({listed})", allowed=f"at least one of {kinds}", file="the source folder"
        )
    return Folder(tuple(scans), tuple(ignored))


def _is_excluded(path: Path, exclude: tuple[Path, ...]) -> bool:
    if path.is_dir():
        return True
    resolved = Path(os.path.abspath(path))  # noqa: PTH100 Path.resolve would follow links
    return any(resolved == other or other in resolved.parents for other in exclude)


def _not_for_us(path: Path) -> str | None:
    """Return why a file is not even opened, or None."""
    if path.is_symlink():
        return "it is a link"
    if path.name.startswith("."):
        return "its name begins with a dot"
    if path.suffix.lower() not in SUFFIXES:
        return "it is of another kind"
    return None
