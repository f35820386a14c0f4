"""A machine's copies of releases, and which one programs are started from.

<folder>/<version>/            one whole, verified release
<folder>/.partial-<version>/   a download that has not ended; what has come is kept for the next try
<folder>/.removed-<number>/    what is being removed; no version's folder is ever half there
<folder>/.active               the version to use; replaced in one step
<folder>/.previous             the version that was active before, kept for a rollback
"""

import itertools
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from scanfleet.errors import Conflict
from scanfleet.releases import Release, ReleaseStore, check_version
from scanfleet.releases_download import Fetch, local_copies, missing_bytes, place, wrong_files

ACTIVE = ".active"
PREVIOUS = ".previous"
PARTIAL = ".partial-"
REMOVED = ".removed-"
FREE_AFTER_BYTES = 1024**3
"""What must be free after a release has come: Windows and the logs live on the same disk."""


class NoRoom(Conflict):
    """The disk cannot hold one release more."""


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder is on."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class LocalReleases:
    """The folder of releases on this machine. No version begins with a dot, so names never clash."""

    folder: Path
    free: Callable[[Path], int] = free_bytes

    def active(self) -> Path | None:
        """Return the folder of the active release, or None. Raises Conflict when it is not there."""
        version = self._pointer(ACTIVE)
        if version is None:
            return None
        found = self.folder / version
        if not found.is_dir():
            raise Conflict(f"{self.folder / ACTIVE} names {version}, and there is no {found}")
        return found

    def previous(self) -> str | None:
        """Return the version that was active before the present one, or None."""
        return self._pointer(PREVIOUS)

    def versions(self) -> list[str]:
        """Return the versions that are here whole."""
        return [path.name for path in self._folders() if not path.name.startswith(".")]

    def fetch(
        self,
        store: ReleaseStore,
        release: Release,
        *,
        on_bytes: Callable[[int], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        may_replace: bool = True,
    ) -> Path:
        """Bring a release here, whole and verified, and return its folder; it is not active yet.

        A copy that is here already is read again and replaced when a file of it is wrong, unless
        `may_replace` is false. Files that other releases here have are copied. Raises as `Fetch.bring`
        does, and NoRoom.
        """
        target = self.folder / release.version
        if target.is_dir():
            if not wrong_files(target, release):
                on_bytes(release.size_bytes)
                return target
            if not may_replace:
                raise Conflict(f"{target} is damaged, and a job uses it: it is replaced after that job")
        partial = self.folder / f"{PARTIAL}{release.version}"
        partial.mkdir(parents=True, exist_ok=True)
        wrong = wrong_files(partial, release)
        missing = missing_bytes(wrong, partial)
        self._require_room(missing, release.version)
        on_bytes(release.size_bytes - missing)
        others = {version: self.folder / version for version in self.versions()}
        copies = local_copies(store, others, wrong)
        Fetch(store=store, copies=copies, on_bytes=on_bytes, should_stop=should_stop).bring(wrong, partial)
        _remove_strangers(partial, release)
        if target.exists():
            self._set_aside(target)
        partial.replace(target)
        self.remove_set_aside()
        return target

    def activate(self, version: str) -> None:
        """Let programs start from this version from now on. Raises Conflict when it is not here."""
        if not (self.folder / check_version(version)).is_dir():
            raise Conflict(f"release {version} is not in {self.folder}")
        before = self._pointer(ACTIVE)
        if before not in {None, version}:
            self._point(PREVIOUS, str(before))
        self._point(ACTIVE, version)

    def set_aside(self, keep: Collection[str]) -> list[str]:
        """Take all releases but these out of use, and unfinished downloads of others; return the versions.

        What a program still has open stays as it is on Windows: the next call tries again.
        """
        kept = {*keep, *(f"{PARTIAL}{version}" for version in keep)}
        found = [path for path in self._folders() if path.name not in kept and not _is_aside(path)]
        return [path.name for path in found if self._set_aside(path) and not path.name.startswith(".")]

    def remove_set_aside(self) -> None:
        """Remove what was taken out of use. What is still open on Windows goes with a later call."""
        for path in filter(_is_aside, self._folders()):
            shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.is_dir()) if self.folder.is_dir() else []

    def _require_room(self, size_bytes: int, version: str) -> None:
        free = self.free(self.folder)
        if free < size_bytes + FREE_AFTER_BYTES:
            raise NoRoom(
                f"no room for release {version} in {self.folder}: {size_bytes:,} bytes have to come and"
                f" {FREE_AFTER_BYTES:,} must stay free, and {free:,} are free"
            )

    def _set_aside(self, folder: Path) -> bool:
        """Rename a folder, so that no release is ever half there; False when something in it is in use."""
        names = (self.folder / f"{REMOVED}{number}" for number in itertools.count())
        try:
            folder.replace(next(name for name in names if not name.exists()))
        except PermissionError:  # Windows, while a file in it is open
            return False
        return True

    def _pointer(self, name: str) -> str | None:
        try:
            version = (self.folder / name).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        try:
            return check_version(version)
        except ValueError as error:
            raise Conflict(f"{self.folder / name} names no release: {error}") from error

    def _point(self, name: str, version: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(version + "\n", encoding="ascii")
        os.replace(new, self.folder / name)  # noqa: PTH105 - the one call that replaces on Windows, too


def _is_aside(folder: Path) -> bool:
    return folder.name.startswith(REMOVED)


def _remove_strangers(folder: Path, release: Release) -> None:
    """Remove what an earlier try under the same version left and the manifest does not name."""
    known = {place(folder, file) for file in release.files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in known:
            path.unlink()
