"""What an agent does with one message: decides where its job belongs, takes the lease, runs the attempt.

    the message is not one of ours, or its job unknown   buried: a dead letter with its reason
    the job's last failure was of this machine's kind    left to another machine for a while
    the job ran out of memory                            waits in its slot until it is alone here
    the job has ended                                    deleted
    another lease on the job is alive                    replaced by a fresh message for later
    otherwise                                            an attempt

A message that is left or replaced goes on as a fresh one: its receive count starts again, else it would end
in the dead-letter queue.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from scanfleet import log_context
from scanfleet.agent.attempt import Attempt
from scanfleet.agent.burial import bury, put_away
from scanfleet.agent.machine_time import MachineTime, Share
from scanfleet.agent.placement import Neighbours, Place, StepBack, place
from scanfleet.agent.settling import OnEnd
from scanfleet.agent.slots import Slots
from scanfleet.agent.stopping import StopRequest
from scanfleet.agent.tools import Tools
from scanfleet.attempt_records import Opening
from scanfleet.contract import Pool
from scanfleet.dead_letters import Cause
from scanfleet.errors import NotFound, Unavailable
from scanfleet.jobs import Job
from scanfleet.leases import HeldElsewhere, Lease, NothingToDo
from scanfleet.queue import Message, UnreadableMessage

log = logging.getLogger(__name__)

LOOK_ELSEWHERE_AFTER = timedelta(seconds=2)
"""How long a job that is left to others is hidden from everybody."""
ALONE_WAIT = timedelta(minutes=20)
"""A job that wants to be alone waits for the others' ends this long, and then starts beside who is left."""


class Deliveries:
    """Handles the messages of one agent, several at once. clock: epoch seconds."""

    def __init__(
        self,
        tools: Tools,
        *,
        slots: Slots,
        neighbours: Neighbours,
        agent_id: str,
        pool: Pool,
        on_end: OnEnd,
        on_start: Callable[[], None],
        machine_time: MachineTime,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """on_start is called once the slot knows its job."""
        self._tools = tools
        self._slots = slots
        self._neighbours = neighbours
        self._agent_id = agent_id
        self._pool = pool
        self._on_end = on_end
        self._on_start = on_start
        self._machine_time = machine_time
        self._clock = clock
        self.step_back = StepBack(LOOK_ELSEWHERE_AFTER + timedelta(seconds=1))

    def handle(self, message: Message, stop: StopRequest) -> None:
        """Do what is due with the message, in the slot that `stop` has taken."""
        try:
            job_id = message.job_id()
        except UnreadableMessage as error:
            self._bury(message, Cause.UNREADABLE, str(error))
            return
        log_context.add(job_id=job_id)
        if not self._belongs_here(job_id, message, stop):
            return
        share = self._machine_time.begin()
        try:
            lease = self._take(job_id, message, share)
            if lease is not None:
                self._slots.name(stop, job_id)
                self._on_start()
                Attempt(self._tools, lease, message, stop, self._on_end, share=share).run()
                share.end()
        finally:
            share.undo()  # where no attempt has ended it

    def _take(self, job_id: str, message: Message, share: Share) -> Lease | None:
        """Return the lease, or None when the message is dealt with."""
        opening = Opening(
            machine=self._tools.machine,
            boot_seconds=share.boot_seconds,
            idle_seconds=share.idle_seconds,
        )
        match self._tools.leases.take(job_id, self._agent_id, opening):
            case NothingToDo(job):
                if job is None:
                    self._bury(message, Cause.NO_SUCH_JOB, f"no such job: {job_id}")
                else:
                    put_away(self._tools.queues, message, job, agent_id=self._agent_id)
            case HeldElsewhere(job):
                log.info("job is held elsewhere", extra=_facts("job_held_elsewhere", job))
                self._replace(message, job, timedelta(seconds=self._visibility_seconds))
            case Lease() as lease:
                return lease
        return None

    def give_back(self, message: Message) -> None:
        """Make a message deliverable again that nothing was done with."""
        try:
            self._tools.queues.extend(message, visibility_seconds=0)
        except Unavailable as error:
            log.warning("message comes back later: %s", error, extra={"action": "message_left"})

    # --- Where the job belongs -----------------------------------------------------------------------------

    def _belongs_here(self, job_id: str, message: Message, stop: StopRequest) -> bool:
        """Return whether to go on; if not, the message is dealt with."""
        try:
            job = self._tools.leases.get(job_id)
        except NotFound:
            return True
        where = place(job, agent_id=self._agent_id, now=self._clock(), others_serve=self._neighbours.serve)
        if where is Place.ELSEWHERE:
            log.info("job is left to other machines", extra=_facts("job_left_to_others", job))
            self.step_back.begin(job_id)
            self._replace(message, job, LOOK_ELSEWHERE_AFTER)
        elif where is Place.ALONE:
            return self._await_alone(job, message, stop)
        return where is Place.HERE

    def _await_alone(self, job: Job, message: Message, stop: StopRequest) -> bool:
        if not self._slots.want_alone(stop):
            if self._slots.is_closed:
                self.give_back(message)
                return False
            self._replace(message, job, timedelta(seconds=self._visibility_seconds))
            return False
        log.info("job waits to be alone", extra=_facts("job_waits_to_be_alone", job))
        give_up_at = time.monotonic() + ALONE_WAIT.total_seconds()
        while not self._slots.await_alone(stop, seconds=self._visibility_seconds / 3):
            if stop.is_set():
                break
            if time.monotonic() >= give_up_at:
                log.warning("job is not alone", extra=_facts("job_not_alone", job))
                break
            self._tools.queues.extend(message, visibility_seconds=self._visibility_seconds)
        if stop.is_set():
            self.give_back(message)
        return not stop.is_set()

    def _replace(self, message: Message, job: Job, delay: timedelta) -> None:
        self._tools.queues.send(job, delay=delay)
        self._tools.queues.delete(message)

    @property
    def _visibility_seconds(self) -> int:
        return self._tools.pulse.rules.visibility_seconds

    def _bury(self, message: Message, cause: Cause, reason: str) -> None:
        bury(self._tools.queues, message, self._pool, cause=cause, reason=reason, agent_id=self._agent_id)


def _facts(action: str, job: Job) -> dict[str, object]:
    return {"action": action, "job_id": job.job_id}
