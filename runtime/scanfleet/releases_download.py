"""Brings a release's files into a folder: copied where this machine has them already, downloaded otherwise.

Memory is bounded by PARALLEL times CHUNK_BYTES, whatever the files' sizes. A file that was cut short goes on
where it ended. Nothing counts before its SHA-256 was seen to be the manifest's.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from botocore.exceptions import BotoCoreError

from scanfleet.errors import Conflict, NotFound, ScanfleetError, Unavailable
from scanfleet.releases import CHUNK_BYTES, Release, ReleaseFile, ReleaseStore, in_parallel, sha256_of

if TYPE_CHECKING:
    from hashlib import _Hash

TRIES = 5
"""Of one file, each going on where the one before was cut short."""


class FetchStopped(ScanfleetError):
    """Nobody waits for the release any more; what has come so far stays for the next try."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """How files are brought here.

    copies: SHA-256 -> files of other releases on this machine that had this content when they came.
    on_bytes: called from several threads with what was added, negative where something has to come again.
    """

    store: ReleaseStore
    copies: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    on_bytes: Callable[[int], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False

    def bring(self, files: Iterable[ReleaseFile], folder: Path) -> None:
        """Have the files in the folder, whole and verified.

        Raises Conflict when an object's content is not what the manifest says, NotFound when it is gone,
        Unavailable when S3 does not answer, FetchStopped, and OSError for what the disk refuses.
        """
        in_parallel(lambda file: self._bring_one(file, place(folder, file)), files)

    def _bring_one(self, file: ReleaseFile, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not any(self._copy(copy, file, path) for copy in self.copies.get(file.sha256, ())):
            self._download(file, path)

    def _copy(self, source: Path, file: ReleaseFile, path: Path) -> bool:
        """Return whether the source still had the content. Copied, not linked: programs may write into it."""
        if path.is_file():
            return False  # the beginning of a download, which goes on
        try:
            with source.open("rb") as content:
                digest, size = self._write(path, iter(lambda: content.read(CHUNK_BYTES), b""), file, "wb")
        except OSError as error:
            self._discard(path)
            if error.errno == errno.ENOSPC:
                raise
            return False
        if _is_it(file, digest, size):
            return True
        self._discard(path)
        return False

    def _download(self, file: ReleaseFile, path: Path) -> None:
        silence: Exception | None = None
        for _ in range(TRIES):
            digest, start = _beginning(path, file)
            try:
                chunks = self.store.open(file, start=start)
                digest, size = self._write(path, chunks, file, "ab", digest=digest, start=start)
            except (BotoCoreError, Unavailable) as error:
                silence = error  # what came is kept
                continue
            except Conflict:  # shorter than what is here
                digest, size = hashlib.sha256(), start
            if _is_it(file, digest, size):
                return
            self._discard(path)
            if start == 0:
                raise Conflict(
                    f"{file.path}: the object's content is not what the manifest says; nothing was changed"
                )
        raise Unavailable(f"{file.path}: did not come whole in {TRIES} tries: {silence}")

    def _write(
        self,
        path: Path,
        chunks: Iterable[bytes],
        file: ReleaseFile,
        mode: str,
        *,
        digest: "_Hash | None" = None,
        start: int = 0,
    ) -> tuple["_Hash", int]:
        """Return digest and size of what the file holds then; content that is too long is not written out."""
        digest, size = digest or hashlib.sha256(), start
        with path.open(mode) as out:
            for chunk in chunks:
                if self.should_stop():
                    raise FetchStopped(f"stopped in {file.path}")
                size += len(chunk)
                if size > file.size_bytes:
                    break  # never fill the disk with what is wrong anyway
                digest.update(chunk)
                out.write(chunk)
                self.on_bytes(len(chunk))
            _flush(out)
        return digest, size

    def _discard(self, path: Path) -> None:
        if path.is_file():
            self.on_bytes(-path.stat().st_size)
            path.unlink()


def place(folder: Path, file: ReleaseFile) -> Path:
    """Return where a file lies. Manifests' paths were checked when they were read: none leaves the folder."""
    return folder.joinpath(*file.path.split("/"))


def wrong_files(folder: Path, release: Release) -> list[ReleaseFile]:
    """Return the files that are missing in a folder or differ from the manifest."""

    def is_wrong(file: ReleaseFile) -> bool:
        path = place(folder, file)
        return not path.is_file() or path.stat().st_size != file.size_bytes or sha256_of(path) != file.sha256

    checked = in_parallel(is_wrong, release.files)
    return [file for file, wrong in zip(release.files, checked, strict=True) if wrong]


def missing_bytes(files: Iterable[ReleaseFile], folder: Path) -> int:
    """Return how much has to be written until these files are whole, beginnings that are here left out."""
    return sum(file.size_bytes - _size(place(folder, file), at_most=file.size_bytes) for file in files)


def local_copies(
    store: ReleaseStore, folders: Mapping[str, Path], wanted: Iterable[ReleaseFile]
) -> dict[str, list[Path]]:
    """Return where wanted content may lie: SHA-256 -> files. folders: version -> where it is on this machine.

    A manifest that is gone from the bucket costs nothing but a download.
    """
    digests = {file.sha256 for file in wanted}
    found: dict[str, list[Path]] = {}
    for version, folder in folders.items():
        try:
            files = store.read(version).files
        except (NotFound, Conflict):
            continue
        for file in files:
            if file.sha256 in digests:
                found.setdefault(file.sha256, []).append(place(folder, file))
    return found


def _beginning(path: Path, file: ReleaseFile) -> tuple["_Hash", int]:
    """Return digest and size of what is here of a file; what cannot be its beginning is removed."""
    size = _size(path, at_most=file.size_bytes)
    if size == 0:
        path.unlink(missing_ok=True)
        return hashlib.sha256(), 0
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256"), size


def _size(path: Path, *, at_most: int) -> int:
    """Return a file's size; 0 for none, and for one that is whole or longer and still was found wrong."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    return size if size < at_most else 0


def _is_it(file: ReleaseFile, digest: "_Hash", size: int) -> bool:
    return size == file.size_bytes and digest.hexdigest() == file.sha256


def _flush(out: IO[bytes]) -> None:
    """Have it on the disk: a machine that loses power must not find an active release with holes."""
    out.flush()
    os.fsync(out.fileno())
