"""S3 objects: list, read, write, copy, delete, presign. Thin, over a boto3 client.

Every call may raise NotFound (no such bucket or object), Conflict (the object changed meanwhile),
ConfigurationError (S3 refuses us) or Unavailable (no answer, or throttled), each naming the URI.
Bulk transfer between S3 and a disk is `agent/transfer.py`.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from scanfleet.errors import ConfigurationError, Conflict, NotFound, ScanfleetError, Unavailable
from scanfleet.log_context import carried
from scanfleet.s3_uri import AllowedPrefixes, S3Uri

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, CopySourceTypeDef, ObjectIdentifierTypeDef

log = logging.getLogger(__name__)

__all__ = ["AllowedPrefixes", "Copy", "ObjectStore", "PresignedUrl", "S3Uri", "StoredObject", "explain"]

MAX_SINGLE_COPY_BYTES = COPY_PART_BYTES = 512 * 1024**2
"""So much one call copies within its time limit, whatever S3 sends meanwhile. CopyObject would take 5 GiB,
but a call that is given up begins anew, and never ends. Source: S3 API reference, CopyObject."""
PARALLEL_COPIES = 16

_MISSING = frozenset({"NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound", "404"})
_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_TRY_LATER = frozenset(
    {"SlowDown", "RequestTimeout", "OperationAborted", "ExpiredToken", "RequestLimitExceeded"}
)

KEYS_PER_CALL = 1000
"""What one call lists or deletes. Source: S3 API reference, ListObjectsV2 and DeleteObjects."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a folder. `key` is whole, `relative` is under the folder, `etag` without quotes."""

    key: str
    relative: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class PresignedUrl:
    """A URL that works for a while without credentials; `headers` must be sent exactly so."""

    url: str
    method: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """One server-side copy to make."""

    source: S3Uri
    target: S3Uri
    size_bytes: int


class ObjectStore:
    """S3 as Scanfleet uses it. Threads may share one."""

    def __init__(
        self,
        client: "S3Client",
        *,
        max_single_copy_bytes: int = MAX_SINGLE_COPY_BYTES,
        copy_part_bytes: int = COPY_PART_BYTES,
    ) -> None:
        self._client = client
        self._max_single_copy_bytes = max_single_copy_bytes
        self._copy_part_bytes = copy_part_bytes

    @property
    def client(self) -> "S3Client":
        """Return the client, for bulk transfer, which signs its own requests like it."""
        return self._client

    def bucket_exists(self, bucket: str) -> bool:
        """Say whether the bucket exists and we may use it."""
        try:
            with explained(S3Uri(bucket, "")):
                self._client.head_bucket(Bucket=bucket)
        except NotFound:
            return False
        return True

    def list_folder(self, folder: S3Uri) -> Iterator[StoredObject]:
        """Yield exactly the objects under the folder, by key order, page by page.

        Zero-byte objects whose key ends with "/" are skipped: consoles make them to show empty folders.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=folder.bucket, Prefix=folder.key
        )
        with explained(folder):
            for page in pages:
                for item in page.get("Contents", []):
                    key, size = item["Key"], item["Size"]
                    if key.endswith("/") and size == 0:
                        continue
                    yield StoredObject(key, key[len(folder.key) :], size, item.get("ETag", "").strip('"'))

    def size_bytes(self, uri: S3Uri) -> int:
        """Return the object's size. Raises NotFound."""
        with explained(uri):
            return self._client.head_object(Bucket=uri.bucket, Key=uri.key)["ContentLength"]

    def get_bytes(self, uri: S3Uri) -> bytes:
        """Return a small object's content. Raises NotFound."""
        with explained(uri):
            return self._client.get_object(Bucket=uri.bucket, Key=uri.key)["Body"].read()

    def put_bytes(self, uri: S3Uri, data: bytes, *, content_type: str | None = None) -> None:
        """Write an object whole; S3 checks its SHA-256 and keeps it."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        with explained(uri):
            self._client.put_object(
                Bucket=uri.bucket,
                Key=uri.key,
                Body=data,
                ChecksumSHA256=digest,
                ContentType=content_type or "application/octet-stream",
            )

    def copy(
        self, source: S3Uri, target: S3Uri, size_bytes: int, *, on_part: Callable[[], None] = lambda: None
    ) -> None:
        """Copy an object inside S3; a large one in parallel parts, each told of. Raises NotFound."""
        if size_bytes > self._max_single_copy_bytes:
            self._copy_in_parts(source, target, size_bytes, on_part)
            return
        with explained(source):
            self._client.copy_object(Bucket=target.bucket, Key=target.key, CopySource=_copy_source(source))

    def copy_all(self, copies: Iterable[Copy], *, on_copied: Callable[[], None] = lambda: None) -> None:
        """Make these copies side by side; returns when all are done, raises the first failure.

        on_copied is called after each copy, and each part of a large one, by any thread. What it raises ends
        the copying: copies that have begun are finished, no others begin.
        """

        def copy(one: Copy) -> None:
            self.copy(one.source, one.target, one.size_bytes, on_part=on_copied)
            on_copied()

        with ThreadPoolExecutor(PARALLEL_COPIES, "copy") as threads:
            for _ in threads.map(carried(copy), copies):
                pass

    def abort_unfinished(self, copies: Iterable[Copy]) -> None:
        """Abort every multipart upload to the targets of those copies that are made in parts.

        Whoever began one and sleeps since cannot finish it then. Uploads to other keys are left alone.
        """
        for copy in copies:
            if copy.size_bytes > self._max_single_copy_bytes:
                self._abort_uploads_to(copy.target)

    def _abort_uploads_to(self, uri: S3Uri) -> None:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=uri.bucket, Prefix=uri.key
        )
        with explained(uri):
            found = [one for page in pages for one in page.get("Uploads", []) if one["Key"] == uri.key]
        for upload in found:
            with suppress(NotFound), explained(uri):  # its owner was quicker
                self._client.abort_multipart_upload(
                    Bucket=uri.bucket, Key=uri.key, UploadId=upload["UploadId"]
                )

    def _copy_in_parts(
        self, source: S3Uri, target: S3Uri, size_bytes: int, on_part: Callable[[], None]
    ) -> None:
        with explained(target):
            upload_id = self._client.create_multipart_upload(Bucket=target.bucket, Key=target.key)["UploadId"]
        ranges = [
            (number, start, min(start + self._copy_part_bytes, size_bytes) - 1)
            for number, start in enumerate(range(0, size_bytes, self._copy_part_bytes), start=1)
        ]

        def copy_part(part: tuple[int, int, int]) -> "CompletedPartTypeDef":
            number, first, last = part
            with explained(source):
                answer = self._client.upload_part_copy(
                    Bucket=target.bucket,
                    Key=target.key,
                    CopySource=_copy_source(source),
                    CopySourceRange=f"bytes={first}-{last}",
                    PartNumber=number,
                    UploadId=upload_id,
                )
            on_part()
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        try:
            with ThreadPoolExecutor(PARALLEL_COPIES, "copy-part") as threads:
                parts = list(threads.map(carried(copy_part), ranges))
            with explained(target):
                self._client.complete_multipart_upload(
                    Bucket=target.bucket, Key=target.key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
        except BaseException:
            # Parts of an upload that never completes are stored and paid for until it is aborted.
            self._abort(target, upload_id)
            raise

    def _abort(self, target: S3Uri, upload_id: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=target.bucket, Key=target.key, UploadId=upload_id)
        except (BotoCoreError, ClientError) as error:
            # The first error is the one to tell; the bucket's lifecycle rule removes the parts.
            facts = {"action": "upload_abort_failed", "uri": str(target), "reason": str(error)}
            log.warning("a copy's parts were left behind", extra=facts)

    def delete_all(self, uris: Iterable[S3Uri]) -> None:
        """Delete these objects of one bucket; what is not there counts as deleted."""
        left = list(uris)
        while left:
            batch, left = left[:KEYS_PER_CALL], left[KEYS_PER_CALL:]
            with explained(batch[0]):
                self._delete(batch[0], [uri.key for uri in batch])

    def _delete(self, folder: S3Uri, keys: Sequence[str]) -> None:
        if not keys:
            return
        identifiers: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys]
        answer = self._client.delete_objects(
            Bucket=folder.bucket, Delete={"Objects": identifiers, "Quiet": True}
        )
        for error in answer.get("Errors", []):
            uri = S3Uri(folder.bucket, error.get("Key", ""))
            raise _error_for(error.get("Code", ""), uri, error.get("Message", ""), status=0)

    def presign(
        self,
        uri: S3Uri,
        *,
        upload: bool,
        expires: timedelta,
        size_bytes: int | None = None,
        content_type: str | None = None,
        attachment: bool = False,
    ) -> PresignedUrl:
        """Return a URL that downloads (GET) or uploads (PUT) one object.

        attachment: of a download, browsers save the file, whatever it is, instead of showing it.

        For an upload, `size_bytes` and `content_type` become part of the signature: S3 refuses a body of
        another length. The URL carries a signature: do not log it.
        """
        params: dict[str, object] = {"Bucket": uri.bucket, "Key": uri.key}
        headers: dict[str, str] = {}
        if upload and size_bytes is not None:
            params["ContentLength"] = size_bytes
            headers["Content-Length"] = str(size_bytes)
        if attachment and not upload:
            params["ResponseContentDisposition"] = "attachment"
        if upload and content_type is not None:
            params["ContentType"] = content_type
            headers["Content-Type"] = content_type
        with explained(uri):
            url = self._client.generate_presigned_url(
                "put_object" if upload else "get_object",
                Params=params,
                ExpiresIn=int(expires.total_seconds()),
            )
        return PresignedUrl(url=url, method="PUT" if upload else "GET", headers=headers)


def _copy_source(uri: S3Uri) -> "CopySourceTypeDef":
    return {"Bucket": uri.bucket, "Key": uri.key}


@contextmanager
def explained(uri: S3Uri) -> Iterator[None]:
    """Turn botocore's errors inside into Scanfleet's, which name `uri`."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, uri) from error


def explain(error: BotoCoreError | ClientError, uri: S3Uri) -> ScanfleetError:
    """Return the error that says what a caller does about botocore's."""
    if isinstance(error, ClientError):
        answer = error.response
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return _error_for(
            answer["Error"].get("Code", ""), uri, answer["Error"].get("Message", ""), status=status
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigurationError(f"{uri}: no usable AWS credentials: {error}")
    return Unavailable(f"{uri}: S3 did not answer: {error}")


def _error_for(code: str, uri: S3Uri, message: str, *, status: int) -> ScanfleetError:
    if code in _MISSING:
        what = "bucket" if code == "NoSuchBucket" or not uri.key else "object"
        return NotFound(f"{uri}: there is no such {what}")
    if code in _CHANGED:
        return Conflict(f"{uri}: the object changed meanwhile")
    if status >= 500 or code in _TRY_LATER or "Throttl" in code or "InternalError" in code:
        return Unavailable(f"{uri}: S3 is not available now ({code}: {message})")
    return ConfigurationError(f"{uri}: S3 refused the call ({code}: {message})")
