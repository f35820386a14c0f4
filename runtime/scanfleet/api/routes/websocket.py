"""`/ws`: the same changes over a WebSocket, several topics on one connection."""

import asyncio
import logging
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool

from scanfleet.api.event_stream import GATHER_SECONDS, HEARTBEAT_SECONDS
from scanfleet.api.identity import CallerDep
from scanfleet.api.lookup import visible_job
from scanfleet.api.present import present_jobs
from scanfleet.api.services import Services
from scanfleet.errors import InvalidRequest, ScanfleetError, Unavailable
from scanfleet.events.hub import Hub
from scanfleet.events.listener import Listener
from scanfleet.events.messages import PONG, Message, error_message, subscribed
from scanfleet.events.topics import MAX_TOPICS, Topic, Verb, parse_request

log = logging.getLogger(__name__)

router = APIRouter()

GOING_AWAY, TRY_AGAIN, FELL_BEHIND = 1001, 1013, 1008
"""Source: RFC 6455 and the IANA WebSocket Close Code Number Registry."""


@router.websocket("/ws")
async def events_by_websocket(websocket: WebSocket, caller: CallerDep) -> None:
    """Tell the subscribed topics' changes until the client goes or the server stops."""
    hub: Hub | None = websocket.app.state.events
    if hub is None:
        await websocket.close(TRY_AGAIN)
        return
    try:
        async with hub.listening(caller) as listener:
            await websocket.accept()
            await _Conversation(websocket, hub, listener, websocket.app.state.services).run()
    except Unavailable as error:
        log.info("no listener: %s", error, extra={"action": "websocket_refused"})
        await websocket.close(TRY_AGAIN)


class _Conversation:
    """One accepted connection."""

    def __init__(self, websocket: WebSocket, hub: Hub, listener: Listener, services: Services) -> None:
        self._websocket = websocket
        self._hub = hub
        self._listener = listener
        self._services = services

    async def run(self) -> None:
        hearing = asyncio.create_task(self._hear())
        try:
            with suppress(WebSocketDisconnect):
                await self._tell()
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing

    # --- What it says --------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        try:
            while True:
                await self._answer(await self._websocket.receive_text())
        except (WebSocketDisconnect, KeyError):
            return  # gone; or a binary message, which nothing of ours is
        finally:
            self._listener.close()

    async def _answer(self, text: str) -> None:
        try:
            verb, topic = parse_request(text)
            if verb is Verb.PING:
                self._listener.put(PONG)
            elif verb is Verb.UNSUBSCRIBE:
                self._hub.leave(self._listener, topic)
            else:
                await self._subscribe(topic)
        except ScanfleetError as error:
            self._listener.put(error_message(str(error)))

    async def _subscribe(self, topic: Topic) -> None:
        if topic.job_id is not None:
            await run_in_threadpool(visible_job, self._services, self._listener.caller, topic.job_id)
        if not self._hub.follow(self._listener, topic):
            raise InvalidRequest.of(
                "message", "subscribes to too much", value=topic.shown, allowed=f"{MAX_TOPICS} topics"
            )
        # Read after following: a change in between is told twice, never missed.
        self._listener.put_first(await self._present(topic))
        self._listener.put(subscribed(topic.shown, present=True))

    async def _present(self, topic: Topic) -> list[Message]:
        return await run_in_threadpool(self._read_present, topic)

    def _read_present(self, topic: Topic) -> list[Message]:
        store = self._services.store
        one = topic.job_id
        jobs = present_jobs(store, self._listener.caller) if one is None else (store.get(one),)
        return [self._hub.encode(job) for job in jobs]

    # --- What it is told -----------------------------------------------------------------------------------

    async def _tell(self) -> None:
        listener = self._listener
        while True:
            messages = await listener.take(seconds=HEARTBEAT_SECONDS)
            if listener.is_closed:
                with suppress(RuntimeError):  # it was the client who closed
                    await self._websocket.close(FELL_BEHIND if listener.fell_behind else GOING_AWAY)
                return
            for message in messages:
                await self._websocket.send_text(message.as_frame)
            if listener.must_be_told_all:
                listener.must_be_told_all = False
                for topic in tuple(listener.topics):
                    listener.put_first(await self._present(topic))
            await asyncio.sleep(GATHER_SECONDS)
