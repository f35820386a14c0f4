"""The port between processors and the releases of their programs.

A run holds its release from before its program starts until after it has ended. So a source may switch at any
time: what runs keeps what it began with, and what is held is never removed.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class InstalledRelease:
    """One release on this machine: its version, and the folder that holds its files."""

    version: str
    folder: Path


class ReleaseSource(Protocol):
    """Gives the release that a program is started from."""

    def pin(self) -> AbstractContextManager[InstalledRelease]:
        """Give the active release, and keep its folder as it is until the block ends.

        Raises ConfigurationError when there is none.
        """
        ...


@dataclass(frozen=True)
class FixedRelease:
    """One folder for ever, whose name counts as the version."""

    folder: Path

    @contextmanager
    def pin(self) -> Iterator[InstalledRelease]:
        """Give the folder, whether or not anything is in it."""
        yield InstalledRelease(version=self.folder.name, folder=self.folder)
