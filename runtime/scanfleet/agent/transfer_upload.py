"""Uploads: every file below a folder, each with its SHA-256 in the signature, so that S3 verifies it."""

import base64
import hashlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.agent.transfer_checks import OrderedDigest
from scanfleet.agent.transfer_crew import Task, Worker, as_job_failure, local_file
from scanfleet.agent.transfer_http import Answer
from scanfleet.agent.transfer_outputs import LocalFile, cannot_publish
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, PublishedFile
from scanfleet.objects import explained
from scanfleet.s3_uri import MAX_KEY_BYTES, S3Uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

log = logging.getLogger(__name__)

MIN_PART_BYTES = 64 * 1024**2
"""Files up to this go up in one request, larger ones in parts of at least this size."""
MAX_PARTS = 10_000
"""Source: S3 user guide, "Amazon S3 multipart upload limits"."""


class Upload:
    """Uploads the files of one folder; collects what was stored."""

    def __init__(self, client: "S3Client", to: S3Uri) -> None:
        self._client = client
        self._to = to
        self._stored: list[PublishedFile] = []
        self._open: set[_PartedFile] = set()
        self._lock = threading.Lock()

    @property
    def stored(self) -> tuple[PublishedFile, ...]:
        """Return what was stored so far, by key."""
        return tuple(sorted(self._stored, key=lambda file: file.key))

    def tasks_for(self, file: LocalFile) -> Iterator[Task]:
        """Yield the tasks that upload one file. Raises JobFailure when its key would be too long."""
        uri = self._to.child(file.relative)
        if len(uri.key.encode()) > MAX_KEY_BYTES:
            raise cannot_publish(file.relative, f"gets a key of over {MAX_KEY_BYTES} bytes")
        if file.size_bytes <= MIN_PART_BYTES:
            yield lambda worker: self._done(file, _put_whole(worker, file, uri))
            return
        parted = _PartedFile(self._client, file, uri)
        with self._lock:
            self._open.add(parted)
        for index in range(parted.part_count):
            yield lambda worker, index=index: self._put_part(worker, parted, index)  # type: ignore[misc]

    def abort(self) -> None:
        """Drop the parts of unfinished uploads, which S3 would keep and charge; best effort."""
        with self._lock:
            unfinished = list(self._open)
        for parted in unfinished:
            parted.abort()

    def _put_part(self, worker: Worker, parted: "_PartedFile", index: int) -> None:
        sha256 = parted.put_part(worker, index)
        if sha256 is not None:
            self._done(parted.file, sha256)
            with self._lock:
                self._open.discard(parted)

    def _done(self, file: LocalFile, sha256: str) -> None:
        published = PublishedFile(key=file.relative, size_bytes=file.size_bytes, sha256=sha256)
        with self._lock:
            self._stored.append(published)


def _put_whole(worker: Worker, file: LocalFile, uri: S3Uri) -> str:
    """Store a file by one request; return its SHA-256, which S3 checked."""
    with local_file(file.path):
        opened = file.path.open("rb", buffering=0)
    with opened:
        return _put(worker, _Section(uri, "", file, opened, 0, file.size_bytes)).sha256


@dataclass(frozen=True)
class _Section:
    """Bytes `first` to `first + size` of an open file, and where they go; `query` names a part."""

    uri: S3Uri
    query: str
    file: LocalFile
    opened: FileIO
    first: int
    size: int


@dataclass(frozen=True)
class _Put:
    sha256: str
    etag: str


def _put(worker: Worker, section: _Section) -> _Put:
    """Store the section; S3 compares its SHA-256 with what arrives."""
    if section.size <= len(worker.buffer):
        return _put_small(worker, section)
    digest = hashlib.sha256()
    for piece in _pieces(worker, section):
        digest.update(piece)
    headers = _headers(section, digest.digest())
    sha256 = digest.hexdigest()

    def attempt() -> str:
        sent = 0

        def pieces() -> Iterator[memoryview]:
            nonlocal sent
            for piece in _pieces(worker, section):
                yield piece
                sent += len(piece)
                worker.count(len(piece))

        try:
            return _answered_etag(
                worker.request(
                    "PUT", section.uri, query=section.query, headers=headers, sha256=sha256, more=pieces
                )
            )
        except BaseException:
            worker.count(-sent)
            raise

    return _Put(sha256, worker.retrying(section.uri, attempt))


def _put_small(worker: Worker, section: _Section) -> _Put:
    """Store what fits the worker's buffer: read once, digested and sent from there."""
    body = worker.buffer[: section.size]
    section.opened.seek(section.first)
    _fill(body, section)
    digest = hashlib.sha256(body)
    headers = _headers(section, digest.digest())
    sha256 = digest.hexdigest()

    def attempt() -> str:
        return _answered_etag(
            worker.request("PUT", section.uri, query=section.query, headers=headers, sha256=sha256, body=body)
        )

    put = _Put(sha256, worker.retrying(section.uri, attempt))
    worker.count(section.size)
    return put


def _headers(section: _Section, sha256: bytes) -> dict[str, str]:
    headers = {"content-length": str(section.size)}
    if not section.query:
        headers["content-type"] = "application/octet-stream"
        headers["x-amz-checksum-sha256"] = base64.b64encode(sha256).decode()
    return headers


def _answered_etag(answer: Answer) -> str:
    answer.read_all()
    return answer.headers.get("etag", "")


def _pieces(worker: Worker, section: _Section) -> Iterator[memoryview]:
    """Yield the section's bytes, each piece in the worker's buffer."""
    section.opened.seek(section.first)
    left = section.size
    while left:
        worker.check_stop()
        piece = worker.buffer[: min(left, len(worker.buffer))]
        _fill(piece, section)
        left -= len(piece)
        yield piece


def _fill(piece: memoryview, section: _Section) -> None:
    filled = 0
    while filled < len(piece):
        with local_file(section.file.path):
            count = section.opened.readinto(piece[filled:])
        if not count:
            reason = f"{section.file.relative!r} shrank while it was uploaded"
            raise JobFailure(FailureClass.PROGRAM_ERROR, reason)
        filled += count


class _PartedFile:
    """A file that several threads upload, each another part."""

    def __init__(self, client: "S3Client", file: LocalFile, uri: S3Uri) -> None:
        self.file = file
        self._client = client
        self._uri = uri
        self._part_bytes = max(MIN_PART_BYTES, -(-file.size_bytes // MAX_PARTS))
        self.part_count = -(-file.size_bytes // self._part_bytes)
        self._digest = OrderedDigest(hashlib.sha256(), file.path, self._part_bytes, self.part_count)
        self._lock = threading.Lock()
        self._upload_id: str | None = None
        self._parts: dict[int, str] = {}

    def put_part(self, worker: Worker, index: int) -> str | None:
        """Store one part. Whoever digests the last one completes the upload and gets the file's SHA-256."""
        upload_id = self._begin()
        first = index * self._part_bytes
        size = min(self._part_bytes, self.file.size_bytes - first)
        query = f"partNumber={index + 1}&uploadId={quote(upload_id, safe='')}"
        with local_file(self.file.path):
            opened = self.file.path.open("rb", buffering=0)
        with opened:
            put = _put(worker, _Section(self._uri, query, self.file, opened, first, size))
        with self._lock:
            self._parts[index + 1] = put.etag
        with local_file(self.file.path):
            sha256 = self._digest.part_ready(index, worker.buffer, worker.check_stop)
        if sha256 is not None:
            self._complete(upload_id)
        return sha256

    def abort(self) -> None:
        """Drop the parts stored so far."""
        if self._upload_id is None:
            return
        try:
            self._client.abort_multipart_upload(
                Bucket=self._uri.bucket, Key=self._uri.key, UploadId=self._upload_id
            )
        except (BotoCoreError, ClientError) as error:
            extra = {"action": "upload_abort_failed", "uri": str(self._uri), "reason": str(error)}
            log.warning("parts of an unfinished upload stay until the bucket's lifecycle rule", extra=extra)

    def _begin(self) -> str:
        with self._lock:
            if self._upload_id is None:
                with as_job_failure(), explained(self._uri):
                    answer = self._client.create_multipart_upload(Bucket=self._uri.bucket, Key=self._uri.key)
                self._upload_id = answer["UploadId"]
            return self._upload_id

    def _complete(self, upload_id: str) -> None:
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in sorted(self._parts.items())
        ]
        with as_job_failure(), explained(self._uri):
            self._client.complete_multipart_upload(
                Bucket=self._uri.bucket,
                Key=self._uri.key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
