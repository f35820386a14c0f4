"""Reads what is added to a folder's log files, each byte once, also across restarts and rotations."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

BLOCK_BYTES = 1024 * 1024
"""Of one file in one look: a file that was long unread does not keep the others waiting."""


@dataclass(frozen=True)
class Place:
    """How far a file was read. inode: it is another file as soon as this differs."""

    inode: int
    offset: int


@dataclass(frozen=True)
class Reading:
    """Complete lines that were added, and where they end. `commit` them once they are dealt with."""

    lines: tuple[str, ...]
    places: dict[str, Place]
    is_all: bool


class FollowedLogs:
    """The log files of a folder, `*.log`. places_file: remembers how far each was read."""

    def __init__(self, folder: Path, places_file: Path) -> None:
        self._folder = folder
        self._places_file = places_file
        self._places = _load(places_file)

    def read(self) -> Reading:
        """Return the lines that were added since the last commit, a block of each file at most."""
        lines: list[str] = []
        places: dict[str, Place] = {}
        is_all = True
        for path in sorted(self._folder.glob("*.log")):
            with suppress(OSError):  # it is being replaced; the next look finds the new one
                found, place, is_at_end = _added(path, self._places.get(path.name))
                lines += found
                places[path.name] = place
                is_all = is_all and is_at_end
        return Reading(tuple(lines), places, is_all)

    def commit(self, reading: Reading) -> None:
        """Never return these lines again, not after a restart either."""
        if reading.places == self._places:
            return
        self._places = reading.places
        scratch = self._places_file.with_suffix(".new")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps({name: asdict(place) for name, place in self._places.items()}))
        scratch.replace(self._places_file)


def _added(path: Path, known: Place | None) -> tuple[Iterable[str], Place, bool]:
    """Return the complete lines after the known place, the new place, and whether nothing more is there."""
    with path.open("rb") as log:
        facts = os.fstat(log.fileno())
        is_same = known is not None and known.inode == facts.st_ino and known.offset <= facts.st_size
        offset = known.offset if known is not None and is_same else 0
        if offset == facts.st_size:
            return (), Place(facts.st_ino, offset), True
        log.seek(offset)
        block = log.read(BLOCK_BYTES)
    end = block.rfind(b"\n") + 1
    if end == 0 and len(block) == BLOCK_BYTES:
        end = len(block)  # no line is that long: leave it behind
    text = block[:end].decode("utf-8", errors="replace")
    place = Place(facts.st_ino, offset + end)
    return text.splitlines(), place, len(block) < BLOCK_BYTES


def _load(places_file: Path) -> dict[str, Place]:
    try:
        kept = json.loads(places_file.read_text())
        return {name: Place(**place) for name, place in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # the first start, or a write that was cut short
        return {}
