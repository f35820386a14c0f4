"""Inputs from S3 to a folder, outputs from a folder to S3: in parallel, verified, stoppable.

Failures are JobFailure (bad input, program error or transfer), so that the job's owner reads why; a stop that
the caller asked for is TransferStopped. docs/decisions/0020-transfer.md says why this is not a tool's work.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from botocore.credentials import Credentials

from scanfleet.agent.safe_paths import check_keys, local_path
from scanfleet.agent.transfer_crew import Crew, OnBytes, ShouldStop, TransferStopped
from scanfleet.agent.transfer_download import Wanted, remove_parts, tasks_for
from scanfleet.agent.transfer_http import Endpoint, Signer, tls_context
from scanfleet.agent.transfer_list import list_folder
from scanfleet.agent.transfer_outputs import files_below
from scanfleet.agent.transfer_upload import Upload
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, PublishedFile
from scanfleet.log_context import ContextThread
from scanfleet.objects import ObjectStore, StoredObject
from scanfleet.s3_uri import S3Uri

__all__ = ["DownloadSummary", "OnBytes", "ShouldStop", "Transfer", "TransferStopped"]

FREE_SPACE_RESERVE_BYTES = 256 * 1024**2
"""Left free on the disk beside the inputs: the operating system and the program need some at once."""
ABORT_WAIT_SECONDS = 0.3


@dataclass(frozen=True)
class DownloadSummary:
    """What a download brought."""

    files: int
    size_bytes: int


class Transfer:
    """Bulk transfer with one S3. Jobs of one agent share it; each call has its own threads."""

    def __init__(self, store: ObjectStore, credentials: Credentials) -> None:
        self._store = store
        self._credentials = credentials

    def download(
        self, source: S3Uri, into: Path, *, on_bytes: OnBytes, should_stop: ShouldStop
    ) -> DownloadSummary:
        """Fetch exactly the objects under `source` into the folder `into`, which is made if need be.

        Nothing is written unless every key is safe and the disk has room. Files grow in `<into>.part` beside
        it and appear in `into` when their size and checksum are right. `on_bytes(done, total)` and
        `should_stop()` are called by this thread about ten times a second.

        Raises JobFailure: bad input for an empty or missing folder, an unsafe key or an object that vanished,
        transfer for the rest. Raises TransferStopped within a second of `should_stop()` being true.
        """
        objects = self._list(source, should_stop)
        check_keys(one.relative for one in objects)
        total = sum(one.size_bytes for one in objects)
        into.mkdir(parents=True, exist_ok=True)
        _require_space(into, total)
        parts = into.with_name(into.name + ".part")
        parts.mkdir(exist_ok=True)
        wanted = [
            Wanted(source.child(one.relative), one, local_path(into, one.relative), parts / str(number))
            for number, one in enumerate(objects)
        ]
        for folder in {one.path.parent for one in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
        # Large ones first: a large one that comes last would run alone.
        wanted.sort(key=lambda one: -one.stored.size_bytes)
        try:
            self._crew(source).run(
                [task for one in wanted for task in tasks_for(one)],
                total_bytes=total,
                on_bytes=on_bytes,
                should_stop=should_stop,
            )
        finally:
            remove_parts(parts)
        return DownloadSummary(files=len(objects), size_bytes=total)

    def upload(
        self, folder: Path, to: S3Uri, *, on_bytes: OnBytes, should_stop: ShouldStop
    ) -> tuple[PublishedFile, ...]:
        """Store every file below `folder` under `to`; return what was stored, by key.

        S3 verifies each file's SHA-256, which is also what is returned. Empty folders have no place in S3.

        Raises JobFailure: program error for an empty folder, a link that leads out, or a name that cannot be
        published; transfer for the rest. Raises TransferStopped as `download` does.
        """
        files = files_below(folder)
        files.sort(key=lambda file: -file.size_bytes)
        upload = Upload(self._store.client, to)
        try:
            self._crew(to).run(
                [task for file in files for task in upload.tasks_for(file)],
                total_bytes=sum(file.size_bytes for file in files),
                on_bytes=on_bytes,
                should_stop=should_stop,
            )
        finally:
            _abort_soon(upload)
        return upload.stored

    def _list(self, source: S3Uri, should_stop: ShouldStop) -> list[StoredObject]:
        objects: list[StoredObject] = []
        self._crew(source).run(
            [lambda worker: objects.extend(list_folder(worker, source))],
            total_bytes=0,
            on_bytes=lambda *_: None,
            should_stop=should_stop,
        )
        if not objects:
            raise JobFailure(FailureClass.BAD_INPUT, f"the source folder {source} is empty or does not exist")
        return objects

    def _crew(self, folder: S3Uri) -> Crew:
        endpoint = Endpoint.of(self._store.client, folder.bucket)
        return Crew(endpoint, Signer(self._credentials, endpoint), tls_context(endpoint))


def _require_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + FREE_SPACE_RESERVE_BYTES:
        raise JobFailure(
            FailureClass.TRANSFER,
            f"the inputs take {needed_bytes / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free and keeps"
            f" {FREE_SPACE_RESERVE_BYTES / 1e9:.2f} GB",
        )


def _abort_soon(upload: Upload) -> None:
    """Drop unfinished uploads, without waiting for an S3 that does not answer."""
    aborting = ContextThread(target=upload.abort, name="abort-uploads", daemon=True)
    aborting.start()
    aborting.join(ABORT_WAIT_SECONDS)
