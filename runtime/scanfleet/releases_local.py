"""A machine's copies of releases, and which one programs are started from.

<folder>/<version>/            one whole, verified release
<folder>/.partial-<version>/   a download that has not ended; its good files are kept for the next try
<folder>/.active               the version to use; replaced in one step
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scanfleet.errors import Conflict
from scanfleet.releases import Release, ReleaseFile, ReleaseStore, check_version, in_parallel, sha256_of

ACTIVE = ".active"
PARTIAL = ".partial-"


@dataclass(frozen=True)
class LocalReleases:
    """The folder of releases on this machine. No version begins with a dot, so names never clash."""

    folder: Path

    def active(self) -> Path | None:
        """Return the folder of the active release, or None. Raises Conflict when it is not there."""
        try:
            version = (self.folder / ACTIVE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        try:
            found = self.folder / check_version(version)
        except ValueError as error:
            raise Conflict(f"{self.folder / ACTIVE} names no release: {error}") from error
        if not found.is_dir():
            raise Conflict(f"{self.folder / ACTIVE} names {version}, and there is no {found}")
        return found

    def fetch(self, store: ReleaseStore, release: Release) -> Path:
        """Bring a release here, whole and verified, and return its folder; it is not active yet.

        A copy that is here already is read again and replaced when a file of it is wrong.
        Raises Conflict when an object's content is not what the manifest says, NotFound when it is gone.
        """
        target = self.folder / release.version
        if target.is_dir() and not _wrong_files(target, release):
            return target
        partial = self.folder / f"{PARTIAL}{release.version}"
        partial.mkdir(parents=True, exist_ok=True)
        wrong = _wrong_files(partial, release)
        in_parallel(lambda file: _download(store, file, partial), wrong)
        _remove_strangers(partial, release)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
        return target

    def activate(self, version: str) -> None:
        """Let programs start from this version from now on. Raises Conflict when it is not here."""
        if not (self.folder / check_version(version)).is_dir():
            raise Conflict(f"release {version} is not in {self.folder}")
        new = self.folder / f"{ACTIVE}.new"
        new.write_text(version + "\n", encoding="ascii")
        os.replace(new, self.folder / ACTIVE)  # noqa: PTH105 - the one call that replaces on Windows, too


def _place(folder: Path, file: ReleaseFile) -> Path:
    """The manifest's paths were checked when it was read: none leaves the folder."""
    return folder.joinpath(*file.path.split("/"))


def _wrong_files(folder: Path, release: Release) -> list[ReleaseFile]:
    """Return the files that are missing here or differ from the manifest."""

    def is_wrong(file: ReleaseFile) -> bool:
        path = _place(folder, file)
        return not path.is_file() or path.stat().st_size != file.size_bytes or sha256_of(path) != file.sha256

    return [file for file in release.files if is_wrong(file)]


def _download(store: ReleaseStore, file: ReleaseFile, folder: Path) -> None:
    path = _place(folder, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for chunk in store.open(file):
            size += len(chunk)
            if size > file.size_bytes:
                break  # never fill the disk with what is wrong anyway
            digest.update(chunk)
            out.write(chunk)
    if size != file.size_bytes or digest.hexdigest() != file.sha256:
        path.unlink()
        raise Conflict(
            f"{file.path}: the object's content is not what the manifest says; nothing was changed"
        )


def _remove_strangers(folder: Path, release: Release) -> None:
    """Remove what an earlier try under the same version left and the manifest does not name."""
    known = {_place(folder, file) for file in release.files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in known:
            path.unlink()
