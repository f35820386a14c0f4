"""Downloads: each object to a `.part` file, verified, then renamed; large ones in parallel ranges."""

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from scanfleet.agent.transfer_checks import (
    NOTHING_KNOWN,
    Digest,
    Expected,
    NoDigest,
    OrderedDigest,
    expected_of,
)
from scanfleet.agent.transfer_crew import Task, Worker, local_file
from scanfleet.agent.transfer_http import Answer
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.objects import StoredObject
from scanfleet.s3_uri import S3Uri

log = logging.getLogger(__name__)

PART_BYTES = 64 * 1024**2
"""Objects up to this come over one connection, larger ones in ranges of this size."""


@dataclass(frozen=True)
class Wanted:
    """One object to fetch: what the listing said about it, where it goes, and where it grows meanwhile."""

    uri: S3Uri
    stored: StoredObject
    path: Path
    part_path: Path


def tasks_for(wanted: Wanted) -> Iterator[Task]:
    """Yield the tasks that fetch one object; any thread may do any of them, in about this order."""
    if wanted.stored.size_bytes <= PART_BYTES:
        yield lambda worker: _fetch_whole(worker, wanted)
        return
    ranged = _RangedFile(wanted)
    for index in range(ranged.part_count):
        yield lambda worker, index=index: ranged.fetch_part(worker, index)  # type: ignore[misc]


def _fetch_whole(worker: Worker, wanted: Wanted) -> None:
    """Fetch an object in one stream; a wrong checksum is tried once more."""
    for is_last_try in (False, True):
        with local_file(wanted.path), worker.files_lock:
            file = wanted.part_path.open("wb", buffering=0)
        with file:
            got, expected = _stream(worker, wanted, file, first=0, size=wanted.stored.size_bytes)
        if got == expected.hexdigest:
            _put_in_place(worker, wanted)
            return
        worker.count(-wanted.stored.size_bytes)
        if is_last_try:
            raise _wrong_checksum(wanted, got, expected)


def _stream(
    worker: Worker, wanted: Wanted, file: FileIO, *, first: int, size: int, is_ranged: bool = False
) -> tuple[str, Expected]:
    """Write `size` bytes of the object from byte `first` to the file's position; return digest and promise.

    A broken connection is resumed where it broke. Ranges are not digested here.
    """
    position = first
    digest: Digest = NoDigest()
    expected = NOTHING_KNOWN

    def attempt() -> None:
        nonlocal position, digest, expected
        answer = _ask(worker, wanted, position, first + size, is_part=is_ranged or position > first)
        if position == first and not is_ranged:
            expected = expected_of(answer.headers, wanted.uri.bucket)
            digest = expected.new()
        while count := answer.read_into(worker.buffer):
            piece = worker.buffer[:count]
            digest.update(piece)
            with local_file(wanted.path):
                left = piece
                while left:  # a nearly full disk takes a part; the next write says that it is full
                    left = left[file.write(left) :]
            position += count
            worker.count(count)
            worker.check_stop()

    worker.retrying(wanted.uri, attempt)
    return digest.hexdigest(), expected


def _ask(worker: Worker, wanted: Wanted, start: int, end: int, *, is_part: bool) -> Answer:
    """Return the answer that carries exactly the bytes from `start` up to `end` of the listed object."""
    headers = {"if-match": f'"{wanted.stored.etag}"'} if wanted.stored.etag else {}
    if is_part:
        headers["range"] = f"bytes={start}-{end - 1}"
    else:
        headers["x-amz-checksum-mode"] = "ENABLED"
    answer = worker.request("GET", wanted.uri, headers=headers)
    etag = answer.headers.get("etag", "").strip('"')
    # Not every server honours If-Match, so the answer is looked at as well.
    if (wanted.stored.etag and etag != wanted.stored.etag) or answer.body_bytes != end - start:
        raise JobFailure(
            FailureClass.TRANSFER,
            f"{wanted.uri}: the object changed while it was downloaded: listed with"
            f" {wanted.stored.size_bytes} bytes and ETag {wanted.stored.etag}, got ETag {etag} and"
            f" {answer.body_bytes} bytes for {end - start}",
        )
    return answer


def _put_in_place(worker: Worker, wanted: Wanted) -> None:
    with local_file(wanted.path), worker.files_lock:
        wanted.part_path.replace(wanted.path)
    log.debug("file fetched", extra={"action": "file_fetched", "uri": str(wanted.uri)})


def _wrong_checksum(wanted: Wanted, got: str, expected: Expected) -> JobFailure:
    return JobFailure(
        FailureClass.TRANSFER,
        f"{wanted.uri}: the content does not match its checksum, twice:"
        f" expected {expected.hexdigest}, got {got}",
    )


class _RangedFile:
    """An object that several threads fetch, each another range."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._size = wanted.stored.size_bytes
        self.part_count = -(-self._size // PART_BYTES)
        self._lock = threading.Lock()
        self._expected: Expected | None = None
        self._digest: OrderedDigest | None = None

    def fetch_part(self, worker: Worker, index: int) -> None:
        """Fetch one range; whoever digests the last one verifies the file and puts it in place."""
        digest, expected = self._prepare(worker)
        first = index * PART_BYTES
        with local_file(self._wanted.path):
            file = self._wanted.part_path.open("r+b", buffering=0)
        with file:
            file.seek(first)
            size = min(PART_BYTES, self._size - first)
            _stream(worker, self._wanted, file, first=first, size=size, is_ranged=True)
        with local_file(self._wanted.path):
            got = digest.part_ready(index, worker.buffer, worker.check_stop)
        if got is None:
            return
        if got == expected.hexdigest:
            _put_in_place(worker, self._wanted)
        else:
            self._fetch_again(worker, expected)

    def _prepare(self, worker: Worker) -> tuple[OrderedDigest, Expected]:
        """Make the file and learn its checksum, once; the other threads wait for it."""
        with self._lock:
            if self._digest is None or self._expected is None:
                self._expected = worker.retrying(self._wanted.uri, lambda: self._learn_checksum(worker))
                with local_file(self._wanted.path), self._wanted.part_path.open("wb") as file:
                    file.truncate(self._size)
                self._digest = OrderedDigest(
                    self._expected.new(), self._wanted.part_path, PART_BYTES, self.part_count
                )
            return self._digest, self._expected

    def _learn_checksum(self, worker: Worker) -> Expected:
        answer = worker.request("HEAD", self._wanted.uri, headers={"x-amz-checksum-mode": "ENABLED"})
        return expected_of(answer.headers, self._wanted.uri.bucket)

    def _fetch_again(self, worker: Worker, expected: Expected) -> None:
        """Fetch the whole object once more, in one stream: rare, so simple rather than fast."""
        worker.count(-self._size)
        with local_file(self._wanted.path):
            file = self._wanted.part_path.open("wb", buffering=0)
        with file:
            got, promised = _stream(worker, self._wanted, file, first=0, size=self._size)
        if got != promised.hexdigest:
            raise _wrong_checksum(self._wanted, got, expected)
        _put_in_place(worker, self._wanted)


def remove_parts(folder: Path) -> None:
    """Remove the folder of unfinished files; a file that is still open stays for the workspace's removal."""
    for path in folder.iterdir():
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
