"""Messages that lead to no attempt: away with them, or to the dead-letter queue with the reason.

At once, not after the last delivery: a message that stays would be received again and again, and each time
take a slot from a job.
"""

import time

from scanfleet.contract import Pool
from scanfleet.dead_letters import Burial, Cause
from scanfleet.jobs import Job
from scanfleet.queue import JobQueues, Message
from scanfleet.telemetry import record_dead_letter


def bury(
    queues: JobQueues, message: Message, pool: Pool, *, cause: Cause, reason: str, agent_id: str
) -> None:
    """Make the message a dead letter of its pool."""
    burial = Burial(cause=cause, reason=reason, agent_id=agent_id, at=time.time())
    queues.bury(message, pool, burial)
    record_dead_letter(pool, message.body, burial)


def put_away(queues: JobQueues, message: Message, job: Job, *, agent_id: str) -> None:
    """Take an ended job's message out of its queue: a quarantined job's becomes a dead letter.

    The record says already that the job is quarantined. Should this not happen, the message comes back, and
    its next reader comes here again.
    """
    if job.quarantined_at is None:
        queues.delete(message)
        return
    last = job.failure
    reason = "quarantined" if last is None else f"quarantined after attempt {last.attempt}: {last.reason}"
    bury(queues, message, job.pool, cause=Cause.QUARANTINED, reason=reason, agent_id=agent_id)
