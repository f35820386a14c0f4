"""Local files of a client: what an upload takes, and where a result file may be written."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from scanfleet.client_models import DownloadRefused
from scanfleet.errors import InvalidRequest, shorten
from scanfleet.jobs import PublishedFile, new_job_id

CHUNK_BYTES = 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True)
class LocalFile:
    """One file to upload. `relative` is its path under the folder, with forward slashes."""

    path: Path
    relative: str
    size_bytes: int


def list_files(folder: Path) -> list[LocalFile]:
    """Return every regular file under the folder, by name; links to folders are not followed.

    Raises InvalidRequest when there is no such folder, it cannot be read, holds no file, or a name is not
    valid Unicode (S3 keys are).
    """
    with disk_errors("source", folder):
        if not folder.is_dir():
            found = "is a file" if folder.exists() else "does not exist"
            raise InvalidRequest.of("source", found, value=folder, allowed="a folder, or s3://bucket/folder/")
        files = sorted(_walk(folder), key=lambda file: file.relative)
    if not files:
        raise InvalidRequest.of("source", "holds no file", value=folder, allowed="a folder with scans")
    return files


def _walk(folder: Path) -> Iterator[LocalFile]:
    for root, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            try:
                relative.encode()
            except UnicodeEncodeError as error:
                raise InvalidRequest.of(
                    "source", "holds a file whose name is not Unicode", value=ascii(relative)
                ) from error
            if path.is_file():
                yield LocalFile(path, relative, path.stat().st_size)


def _raise(error: OSError) -> None:
    raise error


def read_chunks(file: LocalFile, check: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the file's bytes; `check` hears each chunk's size and may raise to stop.

    Raises InvalidRequest when the file is no longer as long as it was when it was listed.
    """
    left = file.size_bytes
    with disk_errors("source", file.path), file.path.open("rb") as stream:
        chunk = stream.read(CHUNK_BYTES)
        while chunk:
            following = stream.read(CHUNK_BYTES)
            left -= len(chunk)
            # Judged before the last chunk goes out: storage keeps nothing of an upload that is cut short.
            if left < 0 or bool(following) != (left > 0):
                break
            check(len(chunk))
            yield chunk
            chunk = following
    if left or chunk:
        raise InvalidRequest.of("source", "a file changed while it was uploaded", value=file.path)


def fingerprint(key: str, files: Sequence[LocalFile]) -> str:
    """Return 26 characters that change whenever the key, a file's name or a file's content does."""
    digest = hashlib.sha256(key.encode())
    for file in files:
        with disk_errors("source", file.path), file.path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"\0{file.relative}\0{content}".encode())
    return digest.hexdigest()[:26]


def local_path(folder: Path, key: str) -> Path:
    """Return where a result file goes. Raises DownloadRefused when that would be outside the folder."""
    segments = key.split("/")
    is_bad = (
        bool({"", ".", ".."} & set(segments))
        or "\\" in key
        or _CONTROL.search(key) is not None
        or _DRIVE.match(key) is not None
        or (os.name == "nt" and (":" in key or PureWindowsPath(key).is_reserved()))
    )
    path = folder / key
    # A link in the folder could lead elsewhere although the name looks harmless.
    if is_bad or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadRefused(f"the result names a file that would leave {folder}: {shorten(key)!r}")
    return path


def is_already_there(path: Path, file: PublishedFile) -> bool:
    """Say whether the path holds exactly this result file, from an earlier download."""
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


@contextmanager
def part_file(path: Path) -> Iterator[Path]:
    """Give a `.part` path beside `path`, renamed to it if all goes well and removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: the result's own name plus ".part" may be taken, or too long for the file system.
    part = path.with_name(f".scanfleet-{new_job_id()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def disk_errors(field: str, path: Path) -> Iterator[None]:
    """Turn the file system's errors inside into InvalidRequest for this field."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest.of(field, error.strerror or str(error), value=error.filename or path) from error
