"""How the API puts a job into its queue: the message first, then the mark that it was sent."""

import logging
from contextlib import suppress

from scanfleet.api.services import Services
from scanfleet.errors import Conflict, Unavailable
from scanfleet.jobs import Job

log = logging.getLogger(__name__)


def enqueue(job: Job, services: Services) -> None:
    """Send the job's message and mark the job. Raises Unavailable when the message was not sent."""
    services.queues.send(job)
    try:
        with suppress(Conflict):  # an agent was quicker; a job that has begun needs no mark
            services.store.mark_enqueued(job)
    except Unavailable as error:
        # The job is in its queue; for want of the mark the sweeper sends a second message.
        facts = {"action": "enqueued_not_marked", "job_id": job.job_id}
        log.warning("not marked as queued: %s", error, extra=facts)
