"""From an attempt's output folder to the target folder, so that a reader sees one attempt's results or none.

1. stage:   upload everything to staging/<job>/<attempt>/, which no other attempt writes to
2. record:  write the manifest to manifests/<job>/<attempt>.json
3. commit:  one conditional write of the job's record names this attempt's results the job's results
4. publish: copy from staging to the target folder, the manifest last

The commit is the only decision. Before it, nothing outside this attempt's own prefixes was written, and an
attempt that has lost its lease cannot commit. After it, the program never runs again: whoever holds the
lease copies the committed attempt's files, so a zombie that copies late writes the same bytes again.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from scanfleet.agent.transfer import Transfer
from scanfleet.contract import MANIFEST_NAME, MANIFESTS_PREFIX, STAGING_PREFIX
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, Job, Manifest, PublishedFile, ResultSummary
from scanfleet.objects import Copy, ObjectStore
from scanfleet.s3_uri import MAX_KEY_BYTES, S3Uri

log = logging.getLogger(__name__)

OnBytes = Callable[[int, int], None]


class Publication:
    """Stages and publishes results. Deciding (the commit) is the store's."""

    def __init__(self, objects: ObjectStore, transfer: Transfer, *, artifacts_bucket: str) -> None:
        self._objects = objects
        self._transfer = transfer
        self._bucket = artifacts_bucket

    def stage(
        self, job: Job, output: Path, *, on_bytes: OnBytes, should_stop: Callable[[], bool]
    ) -> Manifest:
        """Upload the output folder to the attempt's staging prefix, record the manifest and return it."""
        staging = self._staging(job.job_id, job.attempt)
        files = self._transfer.upload(output, staging, on_bytes=on_bytes, should_stop=should_stop)
        _check_targets(job, files)
        manifest = Manifest(
            job_id=job.job_id,
            attempt=job.attempt,
            processor=job.processor,
            target_uri=job.target_uri,
            files=files,
        )
        self._objects.put_bytes(
            manifest_uri(self._bucket, job.job_id, job.attempt),
            _content(manifest),
            content_type="application/json",
        )
        return manifest

    def recorded(self, job: Job) -> Manifest:
        """Return the committed attempt's manifest."""
        assert job.committed_attempt is not None, "published before the commit"
        uri = manifest_uri(self._bucket, job.job_id, job.committed_attempt)
        return Manifest.model_validate_json(self._objects.get_bytes(uri))

    def publish(self, manifest: Manifest) -> ResultSummary:
        """Copy the committed attempt's files to the target folder, the manifest last."""
        staging = self._staging(manifest.job_id, manifest.attempt)
        target = S3Uri.parse_folder(manifest.target_uri, field="target_uri")
        self._objects.copy_all(
            Copy(staging.child(file.key), target.child(file.key), file.size_bytes) for file in manifest.files
        )
        self._objects.put_bytes(
            target.child(MANIFEST_NAME), _content(manifest), content_type="application/json"
        )
        size_bytes = sum(file.size_bytes for file in manifest.files)
        return ResultSummary(attempt=manifest.attempt, files=len(manifest.files), size_bytes=size_bytes)

    def clean_up(self, manifest: Manifest) -> None:
        """Delete the staged files. Leftovers of lost attempts go by the bucket's lifecycle rule."""
        staging = self._staging(manifest.job_id, manifest.attempt)
        self._objects.delete_all(staging.child(file.key) for file in manifest.files)

    def _staging(self, job_id: str, attempt: int) -> S3Uri:
        return S3Uri(self._bucket, f"{STAGING_PREFIX}{job_id}/{attempt}/")


def manifest_uri(bucket: str, job_id: str, attempt: int) -> S3Uri:
    """Return where an attempt's manifest is kept, whatever happens to the target folder later."""
    return S3Uri(bucket, f"{MANIFESTS_PREFIX}{job_id}/{attempt}.json")


def _check_targets(job: Job, files: Iterable[PublishedFile]) -> None:
    """Refuse, before the commit, what could not or must not be published. Raises JobFailure (bad input).

    An output may not land among the job's own inputs (the source may lie inside the target), where the next
    job would read it; and its key may not be longer than S3 allows: a copy that S3 refuses after the commit
    would be refused for ever.
    """
    source = S3Uri.parse_folder(job.source_uri, field="source_uri")
    target = S3Uri.parse_folder(job.target_uri, field="target_uri")
    for file in files:
        published = target.child(file.key)
        if published.is_inside(source):
            reason = f"{file.key} would be written into the source folder; choose a target beside the source"
            raise JobFailure(FailureClass.BAD_INPUT, reason)
        if len(published.key.encode()) > MAX_KEY_BYTES:
            reason = f"{file.key} in the target folder: the key is over {MAX_KEY_BYTES} bytes long"
            raise JobFailure(FailureClass.BAD_INPUT, reason)


def _content(manifest: Manifest) -> bytes:
    return manifest.model_dump_json(indent=1).encode()
