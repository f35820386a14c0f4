"""One listener: what it wants, and the messages that wait for it."""

import asyncio
from collections.abc import Iterable

from scanfleet.callers import Caller
from scanfleet.events.messages import Message
from scanfleet.events.topics import Topic

MAX_WAITING = 2000
"""Messages, one a job: whoever has fallen behind by more than this reconnects and is told the present."""


class Listener:
    """A connection, as the hub sees it. For one event loop; nothing here blocks.

    Only the last message of a job waits, so that a slow reader gets fewer messages and no old ones.
    """

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.topics: set[Topic] = set()
        self.must_be_told_all = False
        """Changes may have been missed: its topics' present state has to be sent again."""
        self.is_closed = False
        self.fell_behind = False
        self._waiting: dict[str, Message] = {}
        self._woken = asyncio.Event()

    def put(self, message: Message) -> None:
        """Let the message wait, in the place of an older one of the same key."""
        self._waiting.pop(message.key, None)
        if len(self._waiting) >= MAX_WAITING:
            self.fell_behind = True
            self.close()
            return
        self._waiting[message.key] = message
        self._woken.set()

    def put_first(self, messages: Iterable[Message]) -> None:
        """Let present states wait, except where something newer does already."""
        for message in messages:
            if message.key not in self._waiting:
                self.put(message)

    def tell_all_again(self) -> None:
        """Ask for the present state of its topics."""
        self.must_be_told_all = True
        self._woken.set()

    def close(self) -> None:
        """End the connection; what waits is dropped."""
        self.is_closed = True
        self._waiting.clear()
        self._woken.set()

    async def take(self, *, seconds: float) -> list[Message]:
        """Return what waits, oldest first; wait up to `seconds` for something, and then return nothing."""
        if not self._woken.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return []
        self._woken.clear()
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken
