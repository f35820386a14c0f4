"""An answer that goes on: server-sent events to one listener, until it goes or its job has ended."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from scanfleet.api.guard import IS_HEAD_KEY
from scanfleet.api.identity import Caller
from scanfleet.events.hub import Hub
from scanfleet.events.listener import Listener
from scanfleet.events.messages import HEARTBEAT, OPENING, JobMessage, Message, ended, subscribed
from scanfleet.events.topics import Topic

HEARTBEAT_SECONDS = 15.0
GATHER_SECONDS = 0.1
"""Between two writes to one listener: what comes meanwhile is written together, each job once."""
MEDIA_TYPE = "text/event-stream"

Present = Callable[[], Awaitable[Iterable[Message]]]
"""Reads the present state of a topic."""


class EventStream(Response):
    """Changes of one topic, the present state first."""

    media_type = MEDIA_TYPE

    def __init__(self, hub: Hub, caller: Caller, topic: Topic, present: Present) -> None:
        # Proxies that hold answers back until they are whole would hold this one for ever.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._caller = caller
        self._topic = topic
        self._present = present

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until the client goes, the server stops or the job has ended.

        Raises Unavailable before the first byte, when nothing can be listened to.
        """
        async with self._hub.listening(self._caller) as listener:
            self._hub.follow(listener, self._topic)
            listener.put_first(await self._present())
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope.get(IS_HEAD_KEY):
                await _write(send, b"", more=False)
                return
            listener.put(subscribed(self._topic.shown, present=True))
            await _write(send, OPENING)
            leaving = asyncio.create_task(_close_when_gone(receive, listener))
            try:
                await self._write_events(listener, send)
            finally:
                leaving.cancel()
            await _write(send, b"", more=False)

    async def _write_events(self, listener: Listener, send: Send) -> None:
        while True:
            messages = await listener.take(seconds=HEARTBEAT_SECONDS)
            if listener.is_closed:
                return
            if listener.must_be_told_all:
                listener.must_be_told_all = False
                listener.put_first(await self._present())
            events = [message.as_event for message in messages]
            last = next((m for m in messages if isinstance(m, JobMessage) and m.is_end), None)
            if last is not None and self._topic.job_id is not None:
                await _write(send, b"".join((*events, ended(last.key).as_event)))
                return
            await _write(send, b"".join(events) or HEARTBEAT)
            await asyncio.sleep(GATHER_SECONDS)


async def _close_when_gone(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.close()


async def _write(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
