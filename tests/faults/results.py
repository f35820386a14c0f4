"""What is published, against the manifest and against what programs write; and touches outside."""

import hashlib
from collections import defaultdict

from scanfleet.contract import MANIFEST_NAME
from scanfleet.jobs import Job, Manifest
from tests.faults.journal import Journal, ObjectTouch
from tests.faults.plan import PlannedJob
from tests.faults.problems import Problems
from tests.faults.watcher import Watcher
from tests.faults.world import ARTIFACTS, DATA, INPUTS, OUTPUTS, RELEASES, World

OK = 200
PROBE = "self-check"
ARTIFACT_PREFIXES = ("staging", "logs", "manifests", "evidence")


def input_bytes(job: int, number: int, size: int) -> bytes:
    """Return the content of a planned job's input file."""
    line = f"input {number} of job {job}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def input_name(number: int) -> str:
    """Return the key of an input file under the job's source folder."""
    return f"scans/{number}.txt" if number % 2 else f"{number}.txt"


def inputs_digest(planned: PlannedJob) -> str:
    """Return what the program makes of whole inputs."""
    found = hashlib.sha256()
    contents = {input_name(n): input_bytes(planned.number, n, size) for n, size in enumerate(planned.inputs)}
    for name in sorted(contents, key=lambda name: name.split("/")):
        found.update(name.encode() + b"\0" + contents[name])
    return found.hexdigest()


class Results:
    """Reads the data bucket past every fault."""

    def __init__(self, world: World, journal: Journal, watcher: Watcher, problems: Problems) -> None:
        self._world = world
        self._watcher = watcher
        self._problems = problems
        self._journal = journal
        self._touches: dict[str, list[ObjectTouch]] | None = None

    def check_completed(self, folder: str, job: Job, planned: PlannedJob) -> None:
        """The outputs are exactly one attempt's, whole, as the manifest says, and the manifest was last."""
        there = self._watcher.compare(job.job_id, folder)
        self._problems.checked("outputs of exactly one attempt, as the manifest says")
        if folder + MANIFEST_NAME not in there:
            self._problems.add("lost", job.job_id, "completed without a manifest")
            return
        manifest = Manifest.model_validate_json(self._read(folder + MANIFEST_NAME))
        result = job.result.attempt if job.result else None
        if not manifest.attempt == job.committed_attempt == result or manifest.job_id != job.job_id:
            text = f"manifest of {manifest.attempt}, committed {job.committed_attempt}, result {result}"
            self._problems.add("doubled", job.job_id, text)
        named = {folder + file.key: file.sha256 for file in manifest.files}
        for key in there.keys() - named.keys() - {folder + MANIFEST_NAME}:
            self._problems.add("doubled", job.job_id, f"{key} is in no manifest")
        words = set()
        for key, sha256 in named.items():
            if key not in there:
                self._problems.add("lost", job.job_id, f"{key} is missing")
                continue
            words.add(self._check_file(key, sha256, job, planned))
        if len(words) > 1:
            self._problems.add("doubled", job.job_id, f"files of {len(words)} runs of the program")
        self._check_order(folder, job, set(named))

    def _check_file(self, key: str, sha256: str, job: Job, planned: PlannedJob) -> bytes:
        content = self._read(key)
        if hashlib.sha256(content).hexdigest() != sha256:
            self._problems.add("doubled", job.job_id, f"{key} is not what the manifest says")
        head, body = content.split(b"\n")[:2]
        job_id, attempt, _, *release = head.decode().split()
        if job_id != job.job_id or int(float(attempt)) != job.committed_attempt:
            self._problems.add("doubled", job.job_id, f"{key} is of attempt {attempt} of {job_id}")
        self._problems.checked("the release that ran is the recorded one")
        if release != ["release", job.release]:
            text = f"{key} was made by {release}, and the record says {job.release}"
            self._problems.add("doubled", job.job_id, text)
        if body.decode() != inputs_digest(planned):
            self._problems.add("lost", job.job_id, f"{key} was made of inputs that were not whole")
        return head

    def _check_order(self, folder: str, job: Job, keys: set[str]) -> None:
        """Whoever sees the manifest sees every file of it."""
        touches = [t for t in self._by_folder().get(folder, []) if t.method != "GET" and t.status == OK]
        manifests = [t for t in touches if t.key == folder + MANIFEST_NAME]
        self._problems.checked("the manifest is last")
        if not manifests:
            self._problems.add("lost", job.job_id, "nobody was seen writing the manifest")
            return
        first = min(touch.began for touch in manifests)
        for key in sorted(keys):
            if not any(t.key == key and t.ended <= first for t in touches):
                self._problems.add("doubled", job.job_id, f"{key} came after the manifest")
        staged = f"{ARTIFACTS}/staging/{job.job_id}/{job.committed_attempt}/"
        for touch in touches:
            if touch.method == "DELETE" and touch.began > first:
                self._problems.add("doubled", job.job_id, f"{touch.who} deleted {touch.key} from the results")
            if touch.copy_source and not touch.copy_source.startswith(staged):
                text = f"{touch.who} published {touch.copy_source}, not attempt {job.committed_attempt}"
                self._problems.add("doubled", job.job_id, text)

    def check_unfinished(self, folder: str, job: Job) -> None:
        """A job that did not complete has no manifest, by which readers know results."""
        self._problems.checked("no manifest without completion")
        if folder + MANIFEST_NAME in self._watcher.listed(folder):
            self._problems.add("doubled", job.job_id, f"{job.state}, and there is a manifest")

    # --- Outside -------------------------------------------------------------------------------------------

    def check_escapes(self, job_ids: set[str], inputs: dict[str, str]) -> None:
        """Nothing was touched outside the allowed prefixes, and inputs are what they were.

        inputs: ETag by key.
        """
        for touch in self._journal.touches():
            self._problems.checked("touches stay inside")
            if not self._is_inside(touch, job_ids):
                text = f"{touch.who}: {touch.method} {touch.bucket}/{touch.key} {' '.join(touch.query)}"
                self._problems.add("escapes", "", text)
        there = self._watcher.listed("")
        for key in sorted(there.keys() | inputs.keys()):
            is_output = key.startswith(OUTPUTS)
            if not is_output and there.get(key) != inputs.get(key):
                self._problems.add("escapes", "", f"{key} was written, changed or deleted")
            self._problems.checked("inputs stay as they are")

    def _is_inside(self, touch: ObjectTouch, job_ids: set[str]) -> bool:
        prefix = next((q.removeprefix("prefix=") for q in touch.query if q.startswith("prefix=")), "")
        key = touch.key or prefix
        if touch.bucket == DATA:
            if touch.method in ("GET", "HEAD"):
                return key.startswith((INPUTS, OUTPUTS)) or (not key and touch.method == "HEAD")
            return key.startswith(OUTPUTS) or (touch.method == "POST" and "delete=" in touch.query)
        if touch.bucket == RELEASES:
            return touch.method in ("GET", "HEAD")
        first, _, rest = key.partition("/")
        is_known = first in ARTIFACT_PREFIXES and rest.partition("/")[0] in job_ids | {PROBE}
        is_bulk = touch.method == "POST" and "delete=" in touch.query
        is_listing = touch.method in ("GET", "HEAD") and key in ("", "staging/")
        return touch.bucket == ARTIFACTS and (is_known or is_bulk or is_listing)

    def _by_folder(self) -> dict[str, list[ObjectTouch]]:
        if self._touches is None:
            self._touches = defaultdict(list)
            for touch in self._journal.touches():
                if touch.bucket == DATA and touch.key.startswith(OUTPUTS):
                    self._touches["/".join(touch.key.split("/")[:2]) + "/"].append(touch)
        return self._touches

    def _read(self, key: str) -> bytes:
        content: bytes = self._world.s3.get_object(Bucket=DATA, Key=key)["Body"].read()
        return content
