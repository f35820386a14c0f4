"""From an attempt's output folder to the target folder, so that a reader sees one attempt's results or none.

1. stage:    upload everything to staging/<job>/<attempt>/, which no other attempt writes to; the manifest
             too, and to manifests/<job>/<attempt>.json
2. commit:   one conditional write of the job's record names this attempt's results the job's results
3. publish:  copy from staging to the target folder, the manifest last
4. record:   a conditional write says that all is published
5. clean up: delete what is staged, abort copies that somebody began and did not finish
6. complete: a conditional write ends the job

The commit is the only decision. Before it, nothing outside this attempt's own prefixes was written, and an
attempt that has lost its lease cannot commit. After it, the program never runs again: whoever holds the
lease copies the committed attempt's files, so a zombie that copies late writes the same bytes again. Every
write to the target folder is a copy of something staged, and a job is completed only when nothing is staged
any more: from then on no zombie can write there, at whatever instant it slept.
"""

from collections.abc import Callable
from pathlib import Path

from scanfleet.agent.transfer import Transfer
from scanfleet.contract import MANIFEST_NAME, MANIFESTS_PREFIX, STAGING_PREFIX
from scanfleet.jobs import Job, Manifest, ResultSummary
from scanfleet.objects import Copy, ObjectStore
from scanfleet.s3_uri import S3Uri

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
        """Upload the output folder to the attempt's staging prefix, with its manifest, which is returned."""
        staging = self._staging(job.job_id, job.attempt)
        files = self._transfer.upload(output, staging, on_bytes=on_bytes, should_stop=should_stop)
        manifest = Manifest(
            job_id=job.job_id,
            attempt=job.attempt,
            processor=job.processor,
            target_uri=job.target_uri,
            release=job.release,
            files=files,
        )
        content = manifest.model_dump_json(indent=1).encode()
        for uri in (staging.child(MANIFEST_NAME), manifest_uri(self._bucket, job.job_id, job.attempt)):
            self._objects.put_bytes(uri, content, content_type="application/json")
        return manifest

    def recorded(self, job: Job) -> Manifest:
        """Return the committed attempt's manifest. Raises NotFound."""
        assert job.committed_attempt is not None, "published before the commit"
        uri = manifest_uri(self._bucket, job.job_id, job.committed_attempt)
        return Manifest.model_validate_json(self._objects.get_bytes(uri))

    def publish(self, manifest: Manifest, *, on_copied: Callable[[], None]) -> None:
        """Copy the committed attempt's files to the target folder, the manifest last.

        on_copied: see `ObjectStore.copy_all`.
        """
        *files, last = self._copies(manifest)
        self._objects.copy_all(files, on_copied=on_copied)
        self._objects.copy_all([last], on_copied=on_copied)

    def clean_up(self, manifest: Manifest) -> None:
        """Take away what a zombie could publish from: what is staged, then copies begun and not finished.

        In this order: a copy in parts needs the staged file for each part.
        """
        copies = self._copies(manifest)
        self._objects.delete_all(copy.source for copy in copies)
        self._objects.abort_unfinished(copies)

    def _copies(self, manifest: Manifest) -> list[Copy]:
        """Return the copies that publish the files, the manifest last."""
        staging = self._staging(manifest.job_id, manifest.attempt)
        target = S3Uri.parse_folder(manifest.target_uri, field="target_uri")
        sizes = [*((file.key, file.size_bytes) for file in manifest.files), (MANIFEST_NAME, 0)]
        return [Copy(staging.child(key), target.child(key), size) for key, size in sizes]

    def _staging(self, job_id: str, attempt: int) -> S3Uri:
        return S3Uri(self._bucket, f"{STAGING_PREFIX}{job_id}/{attempt}/")


def manifest_uri(bucket: str, job_id: str, attempt: int) -> S3Uri:
    """Return where an attempt's manifest is kept, whatever happens to the target folder later."""
    return S3Uri(bucket, f"{MANIFESTS_PREFIX}{job_id}/{attempt}.json")


def summary(manifest: Manifest) -> ResultSummary:
    """Return what a completed job's record says of its manifest."""
    size_bytes = sum(file.size_bytes for file in manifest.files)
    return ResultSummary(attempt=manifest.attempt, files=len(manifest.files), size_bytes=size_bytes)
