"""Folders between a client's disk and S3, through presigned URLs: streaming, in parallel, verified."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import ValidationError

from scanfleet import contract
from scanfleet.client_files import (
    CHUNK_BYTES,
    LocalFile,
    disk_errors,
    is_already_there,
    local_path,
    part_file,
    read_chunks,
)
from scanfleet.client_http import (
    MAX_CALL_ATTEMPTS,
    TRY_AGAIN_STATUSES,
    Clock,
    HttpApi,
    retry_delay_seconds,
)
from scanfleet.client_models import (
    DownloadRefused,
    OnProgress,
    Presigned,
    TransferProgress,
    UnexpectedAnswer,
)
from scanfleet.errors import NotFound, Unavailable
from scanfleet.jobs import Manifest, PublishedFile
from scanfleet.s3_uri import S3Uri

Item = TypeVar("Item")

PARALLEL_FILES = 8
WAIT_SLICE_SECONDS = 0.5
_SIGNATURE_REFUSED = 403
"""S3's answer to an expired signature; a fresh URL helps."""


class _Stopped(Exception):  # private: never leaves this module
    """Another file failed or the caller interrupted, so this one stops half-way."""


class _Meter:
    """Counts bytes and files of one transfer and tells the caller; threads share it."""

    def __init__(self, sizes: Iterable[int], on_progress: OnProgress | None) -> None:
        all_sizes = list(sizes)
        self.stop = threading.Event()
        self._files_total, self._bytes_total = len(all_sizes), sum(all_sizes)
        self._files_done = self._bytes_done = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._tell()

    def add(self, size_bytes: int, *, files: int = 0) -> None:
        """Count; negative takes a failed try back. Raises _Stopped when the transfer is to end."""
        with self._lock:
            self._bytes_done += size_bytes
            self._files_done += files
            self._tell()
        if size_bytes >= 0 and self.stop.is_set():
            raise _Stopped

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                TransferProgress(self._files_done, self._files_total, self._bytes_done, self._bytes_total)
            )


class _Try:
    """One try of one file: what it counted is taken back if it fails."""

    def __init__(self, meter: _Meter) -> None:
        self._meter = meter
        self._counted = 0

    def add(self, size_bytes: int) -> None:
        """Count these bytes."""
        self._counted += size_bytes
        self._meter.add(size_bytes)

    def take_back(self) -> None:
        """Forget what this try counted."""
        self._meter.add(-self._counted)
        self._counted = 0


class Transfers:
    """Uploads and downloads of one client. `storage` must carry none of the API's credentials."""

    def __init__(self, api: HttpApi, storage: httpx.Client, clock: Clock) -> None:
        self._api = api
        self._storage = storage
        self._clock = clock

    def upload(self, files: Sequence[LocalFile], folder: S3Uri, on_progress: OnProgress | None) -> None:
        """Put the files into the S3 folder; S3 refuses any whose length is not the announced one."""
        meter = _Meter((file.size_bytes for file in files), on_progress)

        def one(file: LocalFile) -> None:
            self._repeat(lambda a_try: self._put(file, folder.child(file.relative), a_try), meter)
            meter.add(0, files=1)

        _in_parallel(one, files, meter.stop)

    def download(self, manifest: Manifest, folder: Path, on_progress: OnProgress | None) -> None:
        """Write the manifest's files into the folder, and the manifest itself last.

        Every name is checked before the first byte is fetched. A file that is already there, right in size
        and SHA-256, is kept. Raises DownloadRefused for a name that would leave the folder and for content
        that is not what the manifest says; nothing of such a file stays.
        """
        source = S3Uri.parse_folder(manifest.target_uri, field="target_uri")
        with disk_errors("target", folder):
            folder.mkdir(parents=True, exist_ok=True)
            places = [(file, local_path(folder, file.key)) for file in manifest.files]
        meter = _Meter((file.size_bytes for file in manifest.files), on_progress)

        def one(place: tuple[PublishedFile, Path]) -> None:
            file, path = place
            with disk_errors("target", path):
                if is_already_there(path, file):
                    meter.add(file.size_bytes)
                else:
                    self._repeat(lambda a_try: self._get(source.child(file.key), file, path, a_try), meter)
            meter.add(0, files=1)

        _in_parallel(one, places, meter.stop)
        with disk_errors("target", folder), part_file(folder / contract.MANIFEST_NAME) as part:
            part.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")

    def read_manifest(self, uri: str) -> Manifest:
        """Return the manifest that a job wrote into its target folder."""
        read: list[bytes] = []

        def fetch(_: _Try) -> None:
            signed = self._presign(uri, mode="download")
            answer = self._storage.request(signed.method, signed.url, headers=signed.headers)
            _require_success(answer, uri)
            read.append(answer.content)

        self._repeat(fetch, _Meter((), None))
        try:
            return Manifest.model_validate_json(read[0])
        except ValidationError as error:
            raise DownloadRefused(f"{uri} is not a job's manifest") from error

    def _repeat(self, work: Callable[[_Try], None], meter: _Meter) -> None:
        """Do the work, and again after a failure that may pass."""
        for attempt in range(1, MAX_CALL_ATTEMPTS + 1):
            a_try = _Try(meter)
            try:
                return work(a_try)
            except (httpx.TransportError, Unavailable) as error:
                a_try.take_back()
                if attempt == MAX_CALL_ATTEMPTS:
                    raise Unavailable(f"storage did not answer: {error or type(error).__name__}") from error
                self._clock.sleep(retry_delay_seconds(attempt))
        return None

    def _presign(self, uri: S3Uri | str, *, mode: str, size_bytes: int | None = None) -> Presigned:
        return self._api.get("/presign", Presigned, file=str(uri), mode=mode, size_bytes=size_bytes)

    def _put(self, file: LocalFile, uri: S3Uri, a_try: _Try) -> None:
        signed = self._presign(uri, mode="upload", size_bytes=file.size_bytes)
        # S3 takes no chunked transfer encoding, which httpx would choose for a stream of unknown length.
        headers = httpx.Headers({"Content-Length": str(file.size_bytes), **signed.headers})
        answer = self._storage.request(
            signed.method, signed.url, headers=headers, content=read_chunks(file, a_try.add)
        )
        _require_success(answer, uri)

    def _get(self, uri: S3Uri, file: PublishedFile, path: Path, a_try: _Try) -> None:
        signed = self._presign(uri, mode="download")
        # Not compressed on the way: the checksum is of the stored bytes.
        headers = httpx.Headers({"Accept-Encoding": "identity", **signed.headers})
        with (
            self._storage.stream(signed.method, signed.url, headers=headers) as answer,
            part_file(path) as part,
        ):
            _require_success(answer, uri)
            digest, size = hashlib.sha256(), 0
            with part.open("wb") as stream:
                for chunk in answer.iter_raw(CHUNK_BYTES):
                    size += len(chunk)
                    if size > file.size_bytes:
                        break
                    stream.write(chunk)
                    digest.update(chunk)
                    a_try.add(len(chunk))
            if size != file.size_bytes or digest.hexdigest() != file.sha256:
                raise DownloadRefused(f"{uri} is not what the job published: size or SHA-256 differs")


def _require_success(answer: httpx.Response, uri: S3Uri | str) -> None:
    """Raise what the caller does about storage's refusal; its text may hold the signed URL, so it is left."""
    if answer.is_success:
        return
    status = answer.status_code
    if status == 404:
        raise NotFound(f"{uri}: there is no such object")
    if status in TRY_AGAIN_STATUSES or status == _SIGNATURE_REFUSED:
        raise Unavailable(f"{uri}: storage answered HTTP {status}")
    raise UnexpectedAnswer(f"{uri}: storage answered HTTP {status}")


def _in_parallel(work: Callable[[Item], None], items: Sequence[Item], stop: threading.Event) -> None:
    """Do the work for all items in a few threads; a failure or Ctrl-C stops the rest and is raised."""
    with ThreadPoolExecutor(PARALLEL_FILES, "transfer") as threads:
        pending = {threads.submit(work, item) for item in items}
        try:
            while pending:
                # In short waits: Windows delivers Ctrl-C to the main thread only between them.
                done, pending = wait(pending, WAIT_SLICE_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
