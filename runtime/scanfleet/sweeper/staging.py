"""The staging area as the sweeper sees it: jobs, their attempts, objects and unfinished uploads.

Every call may raise what objects.py says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from scanfleet.contract import STAGING_PREFIX
from scanfleet.jobs import is_job_id
from scanfleet.objects import KEYS_PER_CALL, ObjectStore, explained
from scanfleet.s3_uri import S3Uri


@dataclass(frozen=True)
class Staged:
    """What one attempt has in the staging area. written_at: its newest object's, epoch seconds."""

    attempt: int
    keys: tuple[str, ...]
    written_at: float


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was begun and neither completed nor aborted."""

    job_id: str
    attempt: int
    key: str
    upload_id: str
    begun_at: float


class StagingArea:
    """The folder `staging/` of the artifacts bucket."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._client = objects.client
        self._root = S3Uri(bucket, STAGING_PREFIX)

    def jobs(self, *, after: str, limit: int) -> list[str]:
        """Return at most `limit` names of jobs that have something staged, in order, from after `after`."""
        assert limit <= KEYS_PER_CALL
        # "0" follows "/": so the key is behind everything of that job, and before the next one.
        start = f"{STAGING_PREFIX}{after}0" if after else ""
        with explained(self._root):
            page = self._client.list_objects_v2(
                Bucket=self._root.bucket,
                Prefix=STAGING_PREFIX,
                Delimiter="/",
                MaxKeys=limit,
                StartAfter=start,
            )
        folders = [found["Prefix"] for found in page.get("CommonPrefixes", [])]
        return [folder.removeprefix(STAGING_PREFIX).rstrip("/") for folder in folders]

    def attempts(self, job_id: str) -> list[Staged]:
        """Return what each attempt of the job has staged."""
        found: dict[int, list[tuple[str, float]]] = {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._root.bucket, Prefix=f"{STAGING_PREFIX}{job_id}/"
        )
        with explained(self._root):
            for page in pages:
                for item in page.get("Contents", []):
                    place = _place(item["Key"])
                    if place is not None:
                        entry = (item["Key"], item["LastModified"].timestamp())
                        found.setdefault(place[1], []).append(entry)
        return [
            Staged(attempt, tuple(key for key, _ in entries), max(at for _, at in entries))
            for attempt, entries in sorted(found.items())
        ]

    def uploads(self) -> Iterator[Upload]:
        """Yield the unfinished uploads of attempts."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._root.bucket, Prefix=STAGING_PREFIX
        )
        with explained(self._root):
            for page in pages:
                for item in page.get("Uploads", []):
                    place = _place(item["Key"])
                    if place is not None:
                        begun = item["Initiated"].timestamp()
                        yield Upload(*place, item["Key"], item["UploadId"], begun)

    def delete(self, keys: tuple[str, ...]) -> None:
        """Delete these objects; what is not there counts as deleted."""
        self._objects.delete_all(S3Uri(self._root.bucket, key) for key in keys)

    def abort(self, upload: Upload) -> None:
        """Give up an unfinished upload and its parts."""
        with explained(self._root):
            self._client.abort_multipart_upload(
                Bucket=self._root.bucket, Key=upload.key, UploadId=upload.upload_id
            )


def _place(key: str) -> tuple[str, int] | None:
    """Return (job id, attempt) of staging/<job id>/<attempt>/<file>, or None for any other key."""
    job_id, _, rest = key.removeprefix(STAGING_PREFIX).partition("/")
    attempt, slash, _ = rest.partition("/")
    if not slash or not is_job_id(job_id) or not attempt.isascii() or not attempt.isdigit():
        return None
    return job_id, int(attempt)
