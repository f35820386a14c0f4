"""What an attempt checks of the target folder before it commits: nobody's files may be written over."""

from collections.abc import Callable, Collection, Iterable
from itertools import islice

from scanfleet.contract import MANIFEST_NAME
from scanfleet.errors import JobFailure, NotFound
from scanfleet.jobs import FailureClass, Job, Manifest, PublishedFile
from scanfleet.objects import ObjectStore
from scanfleet.s3_uri import MAX_KEY_BYTES, S3Uri

MOST_REPLACED = 100
"""Jobs whose results were replaced one after the other that are looked at."""
FILES_NAMED = 3


class TargetFolder:
    """Checks one job's target folder. read_job, read_manifest: raise NotFound."""

    def __init__(
        self,
        job: Job,
        objects: ObjectStore,
        *,
        read_job: Callable[[str], Job],
        read_manifest: Callable[[Job], Manifest],
    ) -> None:
        self._job = job
        self._objects = objects
        self._read_job = read_job
        self._read_manifest = read_manifest
        self._folder = S3Uri.parse_folder(job.target_uri, field="target_uri")

    def check(self, files: Collection[PublishedFile]) -> None:
        """Raise JobFailure (bad input) for what could not or must not be published.

        A copy that S3 refuses after the commit would be refused for ever, so all of it is known before.
        """
        for file in files:
            self._check_key(file)
        self._check_free({MANIFEST_NAME, *(file.key for file in files)})

    def _check_key(self, file: PublishedFile) -> None:
        published = self._folder.child(file.key)
        if published.is_inside(S3Uri.parse_folder(self._job.source_uri, field="source_uri")):
            # The source may lie inside the target, where the next job would read it.
            raise _refused(f"{file.key} would be written into the source folder; choose a target beside it")
        if len(published.key.encode()) > MAX_KEY_BYTES:
            raise _refused(f"{file.key} in the target folder: the key is over {MAX_KEY_BYTES} bytes long")

    def _check_free(self, keys: set[str]) -> None:
        there = {found.relative for found in self._objects.list_folder(self._folder)} & keys
        if there and (foreign := there - set(self._replaceable())):
            named = ", ".join(islice(sorted(foreign), FILES_NAMED))
            more = f" and {len(foreign) - FILES_NAMED} more" if len(foreign) > FILES_NAMED else ""
            raise _refused(
                f"{named}{more} would be written over in the target folder {self._folder}, where it is no"
                " result that this job replaces; choose another folder"
            )

    def _replaceable(self) -> Iterable[str]:
        """Yield the keys of the results that this job replaces, and of those that these had replaced."""
        earlier = self._job.replaces
        for _ in range(MOST_REPLACED):
            if earlier is None:
                return
            yield MANIFEST_NAME
            try:
                job = self._read_job(earlier)
                yield from (file.key for file in self._read_manifest(job).files)
            except NotFound:
                return
            earlier = job.replaces


def _refused(reason: str) -> JobFailure:
    return JobFailure(FailureClass.BAD_INPUT, reason)
