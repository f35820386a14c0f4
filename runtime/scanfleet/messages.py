"""What a queue's message says: the id of a job, and nothing else."""

import json

from scanfleet.contract import QUEUE_MESSAGE_VERSION
from scanfleet.errors import ScanfleetError, shorten
from scanfleet.jobs import is_job_id


class UnreadableMessage(ScanfleetError):
    """A message that no version of this program has sent."""


def body_for(job_id: str) -> str:
    """Return the body of the message that names a job."""
    return json.dumps({"version": QUEUE_MESSAGE_VERSION, "job_id": job_id})


def job_id_of(body: str) -> str:
    """Return the job id that a message's body carries. Raises UnreadableMessage."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage(f"not JSON: {shorten(body)}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != QUEUE_MESSAGE_VERSION or isinstance(version, bool):
        raise UnreadableMessage(f"version {QUEUE_MESSAGE_VERSION} expected: {shorten(body)}")
    job_id = content.get("job_id")
    if not isinstance(job_id, str) or not is_job_id(job_id):
        raise UnreadableMessage(f"no job id: {shorten(body)}")
    return job_id
