"""Checksums of transferred files: which one to expect, and how to take it while parts come in any order."""

import base64
import binascii
import hashlib
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_MD5_ETAG = re.compile(r'^"?([0-9a-f]{32})"?$')
_DIRECTORY_BUCKET = "--x-s3"
"""Ends the names of buckets whose ETags are no MD5. Source: S3 user guide, "Directory buckets"."""


class Digest(Protocol):
    """What hashlib's objects do, as far as it is needed here."""

    def update(self, data: memoryview, /) -> None:
        """Take in more data."""

    def hexdigest(self) -> str:
        """Return the digest of all data so far."""


class Crc32:
    """CRC-32 in the shape of hashlib's objects."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        """Take in more data."""
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        """Return eight hexadecimal digits."""
        return f"{self._value:08x}"


class NoDigest:
    """Takes the place of a digest where S3 tells none: then size and ETag have to do."""

    def update(self, data: memoryview, /) -> None:
        """Take nothing in."""

    def hexdigest(self) -> str:
        """Return the empty text."""
        return ""


@dataclass(frozen=True)
class Expected:
    """What a file's content must give: `new()` makes the digest, `hexdigest` is its right value."""

    new: Callable[[], Digest]
    hexdigest: str


NOTHING_KNOWN = Expected(NoDigest, "")


def _md5() -> Digest:
    return hashlib.md5(usedforsecurity=False)


def _sha1() -> Digest:
    return hashlib.sha1(usedforsecurity=False)


_CHECKSUMS: tuple[tuple[str, Callable[[], Digest]], ...] = (
    ("x-amz-checksum-crc32", Crc32),
    ("x-amz-checksum-sha256", hashlib.sha256),
    ("x-amz-checksum-sha1", _sha1),
)
"""By cost, cheapest first. Others that S3 knows (CRC-32C, CRC-64/NVME) are in no library that we have."""


def expected_of(headers: Mapping[str, str], bucket: str) -> Expected:
    """Return what the headers of an object's answer promise about its whole content.

    First choice is a checksum of the full object, then the ETag where it is the MD5: not for uploads in
    parts (their ETag ends in "-<parts>"), not under KMS or customer keys, not in directory buckets.
    Source: S3 user guide, "Checking object integrity".
    """
    for name, new in _CHECKSUMS:
        value = headers.get(name, "")
        if value and "-" not in value and headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            try:
                return Expected(new, base64.b64decode(value, validate=True).hex())
            except binascii.Error:
                continue
    etag = _MD5_ETAG.match(headers.get("etag", ""))
    is_plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    is_plain = is_plain and "x-amz-server-side-encryption-customer-algorithm" not in headers
    if etag is None or not is_plain or bucket.endswith(_DIRECTORY_BUCKET):
        return NOTHING_KNOWN
    return Expected(_md5, etag[1])


class OrderedDigest:
    """The digest of a file on disk whose parts get ready in any order. Threads share one."""

    def __init__(self, digest: Digest, path: Path, part_bytes: int, part_count: int) -> None:
        self._digest = digest
        self._path = path
        self._part_bytes = part_bytes
        self._part_count = part_count
        self._ready: set[int] = set()
        self._next = 0
        self._is_busy = False
        self._lock = threading.Lock()

    def part_ready(self, index: int, buffer: memoryview, check_stop: Callable[[], None]) -> str | None:
        """Take in the part and those that waited for it.

        Returns the whole file's digest to the one thread that took in the last part, None to the others.
        A thread whose part is not yet in turn returns at once.
        """
        with self._lock:
            self._ready.add(index)
            if self._is_busy:
                return None
            self._is_busy = True
        while True:
            with self._lock:
                if self._next not in self._ready:
                    self._is_busy = False
                    return self._digest.hexdigest() if self._next == self._part_count else None
                taken, self._next = self._next, self._next + 1
            self._take(taken, buffer, check_stop)

    def _take(self, index: int, buffer: memoryview, check_stop: Callable[[], None]) -> None:
        if isinstance(self._digest, NoDigest):
            return
        left = self._part_bytes
        with self._path.open("rb", buffering=0) as file:
            file.seek(index * self._part_bytes)
            while left and (count := file.readinto(buffer[:left])):
                check_stop()
                self._digest.update(buffer[:count])
                left -= count
