"""Tells listeners of changes: one feed for all of them, read only while somebody listens."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from scanfleet.callers import Caller
from scanfleet.errors import Unavailable
from scanfleet.events.listener import Listener
from scanfleet.events.messages import JobMessage, job_message
from scanfleet.events.reading import Feed, Reading
from scanfleet.events.topics import MAX_TOPICS, Topic
from scanfleet.jobs import Job

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""Between two readings of the feed."""
OPENING_SECONDS = 5.0
"""A first listener waits so long for the feed; then it is refused, and asks by itself."""
MAX_PAUSE_SECONDS = 5.0
"""Between two tries while the feed fails; doubled from one look's."""
MAX_LISTENERS = 5000

Encode = Callable[[Job], JobMessage]


class Hub:
    """The listeners of one server process, on one event loop."""

    def __init__(
        self,
        open_feed: Callable[[], Feed],
        *,
        encode: Encode = job_message,
        look_seconds: float = LOOK_SECONDS,
        max_listeners: int = MAX_LISTENERS,
    ) -> None:
        """`open_feed` and the feed are called in a thread of their own, one call at a time."""
        self.encode = encode
        self._open_feed = open_feed
        self._look_seconds = look_seconds
        self._max_listeners = max_listeners
        self._listeners: set[Listener] = set()
        self._by_job: dict[str, set[Listener]] = defaultdict(set)
        self._of_all: dict[str | None, set[Listener]] = defaultdict(set)
        """By owner; None: operators."""
        self._reading: asyncio.Task[None] | None = None
        self._is_open = asyncio.Event()
        self._is_closing = False

    @property
    def listeners(self) -> frozenset[Listener]:
        """Return who listens now."""
        return frozenset(self._listeners)

    @asynccontextmanager
    async def listening(self, caller: Caller) -> AsyncIterator[Listener]:
        """Give a new listener without a topic; every change after this moment reaches it.

        Raises Unavailable when there are too many, when the feed does not open, and while closing.
        """
        if self._is_closing or len(self._listeners) >= self._max_listeners:
            why = "the server is stopping" if self._is_closing else f"{self._max_listeners} others listen"
            raise Unavailable(f"no more listeners: {why}")
        listener = Listener(caller)
        self._listeners.add(listener)
        try:
            await self._wait_for_feed()
            yield listener
        finally:
            self._forget(listener)

    def follow(self, listener: Listener, topic: Topic) -> bool:
        """Let the listener hear of the topic; return False when it has too many.

        Whether it may see the job is the caller's to know.
        """
        if topic not in listener.topics and len(listener.topics) >= MAX_TOPICS:
            return False
        listener.topics.add(topic)
        self._audience(listener, topic).add(listener)
        return True

    def leave(self, listener: Listener, topic: Topic) -> None:
        """Let the listener hear of the topic no more."""
        listener.topics.discard(topic)
        self._audience(listener, topic).discard(listener)
        if topic.job_id is not None and not self._by_job[topic.job_id]:
            del self._by_job[topic.job_id]

    def close(self) -> None:
        """End every connection and the reading; new listeners are refused."""
        self._is_closing = True
        for listener in self._listeners:
            listener.close()

    # --- Listeners -----------------------------------------------------------------------------------------

    def _audience(self, listener: Listener, topic: Topic) -> set[Listener]:
        if topic.job_id is not None:
            return self._by_job[topic.job_id]
        return self._of_all[None if listener.caller.is_operator else listener.caller.owner]

    def _forget(self, listener: Listener) -> None:
        for topic in tuple(listener.topics):
            self.leave(listener, topic)
        self._listeners.discard(listener)

    def _listeners_of(self, job: Job) -> set[Listener]:
        watching = {
            one for one in self._by_job.get(job.job_id, ()) if one.caller.may_see(job.owner)
        }  # asked again here: nothing of a job may reach anybody else, whoever subscribed
        return watching | self._of_all.get(job.owner, set()) | self._of_all.get(None, set())

    # --- Reading -------------------------------------------------------------------------------------------

    async def _wait_for_feed(self) -> None:
        if self._reading is None:
            self._is_open.clear()
            self._reading = asyncio.create_task(self._read_while_somebody_listens())
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                await self._is_open.wait()
        except TimeoutError:
            raise Unavailable("the changes of jobs cannot be read now") from None

    async def _read_while_somebody_listens(self) -> None:
        # A thread of its own: those of the requests may all be busy.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        try:
            await self._read(thread)
        finally:
            self._reading = None
            thread.shutdown(wait=False, cancel_futures=True)

    async def _read(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        feed: Feed | None = None
        had_gap = False
        pause = self._look_seconds
        while self._listeners and not self._is_closing:
            try:
                if feed is None:
                    feed = await loop.run_in_executor(thread, self._open_feed)
                    reading = await loop.run_in_executor(thread, feed.read)
                    reading = Reading(reading.jobs, has_gap=had_gap)
                else:
                    reading = await loop.run_in_executor(thread, feed.read)
                self._is_open.set()
                await self._publish(reading, thread)
            except Exception as error:  # noqa: BLE001 - listening goes on, whatever it was
                if not had_gap:
                    log.warning("changes cannot be read: %r", error, extra={"action": "events_interrupted"})
                feed, had_gap = None, True
                pause = min(pause * 2, MAX_PAUSE_SECONDS)
            else:
                had_gap, pause = False, self._look_seconds
            await asyncio.sleep(pause)

    async def _publish(self, reading: Reading, thread: ThreadPoolExecutor) -> None:
        wanted = [job for job in reading.jobs if self._listeners_of(job)]
        if wanted:
            loop = asyncio.get_running_loop()
            messages = await loop.run_in_executor(thread, self._encoded, wanted)
            for job, message in zip(wanted, messages, strict=True):
                for listener in self._listeners_of(job):
                    listener.put(message)
        if reading.has_gap:
            for listener in self._listeners:
                listener.tell_all_again()

    def _encoded(self, jobs: Iterable[Job]) -> list[JobMessage]:
        return [self.encode(job) for job in jobs]
