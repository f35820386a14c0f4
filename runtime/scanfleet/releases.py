"""Releases of the closed program in S3: published once, never changed, each file stored once.

    releases/<version>/manifest.json   {"version", "created", "files": [{"path", "size_bytes", "sha256"}]}
    objects/sha256/<hex digest>        the files of all releases

The manifest is written last, so a release that can be read is whole. Which release is active is the SSM
parameter MEDIT_RELEASE's business (releases_active.py); a machine's copy is releases_local.py's.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from botocore.exceptions import ClientError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from scanfleet.agent.safe_paths import check_keys, key_problem
from scanfleet.contract import NO_RELEASE, RELEASE_OBJECTS_PREFIX, RELEASES_PREFIX
from scanfleet.errors import Conflict, InvalidRequest, JobFailure, NotFound, shorten

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 32 * 1024 * 1024
PARALLEL = 8
"""Objects that travel at once."""
CHUNK_BYTES = 1024 * 1024
Item = TypeVar("Item")
Result = TypeVar("Result")

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_version(text: str) -> str:
    """Return the version. Raises ValueError for one that no folder can be named for, and for "none"."""
    if not _VERSION.fullmatch(text):
        raise ValueError(f"1 to 64 of letters, digits, '.', '_' and '-' are allowed, not {shorten(text)!r}")
    if text == NO_RELEASE:
        raise ValueError(f"{NO_RELEASE!r} means that no release is active")
    if (problem := key_problem(text)) is not None:
        raise ValueError(f"the name {text!r} {problem}")
    return text


class ReleaseFile(BaseModel):
    """One file: its path under the release's folder, with forward slashes."""

    model_config = ConfigDict(frozen=True)

    path: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def key(self) -> str:
        """Return the object's key in the release bucket."""
        return RELEASE_OBJECTS_PREFIX + self.sha256


class Release(BaseModel):
    """A release's manifest."""

    model_config = ConfigDict(frozen=True)

    version: Annotated[str, AfterValidator(check_version)]
    created: datetime
    files: tuple[ReleaseFile, ...] = Field(min_length=1)

    @property
    def size_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a publication did: of the release's files, how many objects travelled."""

    release: Release
    uploaded: int
    uploaded_bytes: int


class ReleaseStore:
    """The releases of one bucket."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def read(self, version: str) -> Release:
        """Return a release. Raises NotFound, and Conflict for a manifest that is none or has unsafe paths."""
        key = _manifest_key(version)
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _code(error) in {"NoSuchKey", "404"}:
                raise NotFound(f"there is no release {version} in the bucket {self._bucket}") from error
            raise
        if answer["ContentLength"] > MAX_MANIFEST_BYTES:
            raise Conflict(f"s3://{self._bucket}/{key}: larger than {MAX_MANIFEST_BYTES} bytes")
        return _parse(answer["Body"].read(), version=version, where=f"s3://{self._bucket}/{key}")

    def versions(self) -> list[str]:
        """Return the versions of the bucket, sorted as text."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=RELEASES_PREFIX, Delimiter="/"
        )
        found = [prefix["Prefix"] for page in pages for prefix in page.get("CommonPrefixes", [])]
        return sorted(prefix.removeprefix(RELEASES_PREFIX).rstrip("/") for prefix in found)

    def publish(
        self, folder: Path, version: str, *, progress: Callable[[ReleaseFile], None] = lambda _: None
    ) -> Published:
        """Upload the objects that are missing, then the manifest; return what travelled.

        The same content under the same version again changes nothing and repairs missing objects. `progress`
        is called for each object that was uploaded. Raises InvalidRequest for a folder that cannot be a
        release, and Conflict when the version holds other content.
        """
        release = describe(folder, version)
        known = self._read_if_there(version)
        if known is not None and set(known.files) != set(release.files):
            raise Conflict(
                f"release {version} is published with other content; releases never change:"
                " choose another version"
            )
        missing = self._missing(release.files)

        def upload(file: ReleaseFile) -> None:
            path = folder.joinpath(*file.path.split("/"))
            extra = {"ChecksumAlgorithm": "SHA256", "ContentType": "application/octet-stream"}
            self._s3.upload_file(str(path), self._bucket, file.key, ExtraArgs=extra)
            progress(file)

        in_parallel(upload, missing)
        if known is None:
            self._write_manifest(release)
        return Published(
            release=known or release,
            uploaded=len(missing),
            uploaded_bytes=sum(file.size_bytes for file in missing),
        )

    def verify(self, release: Release) -> None:
        """Raise Conflict that names the first objects which are missing or have another size."""
        missing = self._missing(release.files)
        if missing:
            named = ", ".join(file.path for file in missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise Conflict(
                f"release {release.version}: {len(missing)} of {len(release.files)} files are missing or have"
                f" another size in the bucket {self._bucket}: {named}; publish it once more"
            )

    def open(self, file: ReleaseFile, *, start: int = 0) -> Iterable[bytes]:
        """Return the file's content from byte `start` on, in chunks.

        Raises NotFound when the object is gone, Conflict when it has no byte `start`.
        """
        extra = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=file.key, **extra)  # type: ignore[arg-type]
        except ClientError as error:
            where = f"s3://{self._bucket}/{file.key}, the file {file.path},"
            if _code(error) in {"NoSuchKey", "404"}:
                raise NotFound(f"{where} is not there") from error
            if _code(error) in {"InvalidRange", "416"}:
                raise Conflict(f"{where} is shorter than {start} bytes") from error
            raise
        return answer["Body"].iter_chunks(CHUNK_BYTES)

    def _missing(self, files: Iterable[ReleaseFile]) -> list[ReleaseFile]:
        """Return one file for each object that is not there with its size."""
        once = {file.key: file for file in files}
        is_there = in_parallel(self._is_there, once.values())
        return [file for file, there in zip(once.values(), is_there, strict=True) if not there]

    def _is_there(self, file: ReleaseFile) -> bool:
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=file.key)
        except ClientError as error:
            if _code(error) in {"404", "NoSuchKey", "NotFound"}:
                return False
            raise
        return head["ContentLength"] == file.size_bytes

    def _read_if_there(self, version: str) -> Release | None:
        try:
            return self.read(version)
        except NotFound:
            return None

    def _write_manifest(self, release: Release) -> None:
        """Write it unless somebody else has meanwhile: two publishers never make one version together."""
        body = json.dumps(release.model_dump(mode="json"), indent=1).encode()
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=_manifest_key(release.version),
                Body=body,
                ContentType="application/json",
                IfNoneMatch="*",
            )
        except ClientError as error:
            if _code(error) in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
                raise Conflict(f"release {release.version} was just published by somebody else") from error
            raise


def describe(folder: Path, version: str) -> Release:
    """Return the manifest of a folder's files. Raises InvalidRequest that names what cannot be released."""
    try:
        check_version(version)
    except ValueError as error:
        raise InvalidRequest.of("version", str(error), value=version) from error
    if not folder.is_dir():
        raise InvalidRequest.of("FOLDER", "is not a folder", value=folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    if not paths:
        raise InvalidRequest.of("FOLDER", "holds no files", value=folder)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise InvalidRequest.of("FOLDER", "holds a link or a device, not a file", value=path)
    names = [path.relative_to(folder).as_posix() for path in paths]
    try:
        check_keys(names)
    except JobFailure as error:
        raise InvalidRequest.of("FOLDER", error.reason, value=folder) from error
    files = tuple(
        ReleaseFile(path=name, size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for name, path in zip(names, paths, strict=True)
    )
    return Release(version=version, created=datetime.now(UTC).replace(microsecond=0), files=files)


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(content: bytes, *, version: str, where: str) -> Release:
    try:
        release = Release.model_validate_json(content)
        check_keys(file.path for file in release.files)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise Conflict(f"{where} is no manifest: {place}: {first['msg']}") from error
    except JobFailure as error:
        raise Conflict(f"{where}: {error.reason}") from error
    if release.version != version:
        raise Conflict(f"{where} says that it is release {release.version}")
    return release


def _manifest_key(version: str) -> str:
    try:
        return f"{RELEASES_PREFIX}{check_version(version)}/{MANIFEST}"
    except ValueError as error:
        raise InvalidRequest.of("version", str(error), value=version) from error


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return the results in order; the first error ends it, once what runs has ended."""
    with ThreadPoolExecutor(max_workers=PARALLEL, thread_name_prefix="release") as pool:
        return list(pool.map(work, items))


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
