"""A proxy's connection to the emulator."""

import asyncio
from contextlib import suppress

from tests.faults.http1 import Message, read_body, read_head

LOOPBACK = "127.0.0.1"
BUFFER_BYTES = 1024**2


class Upstream:
    """One connection to the emulator, opened at need."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Message) -> Message:
        """Return the emulator's whole answer."""
        is_kept = self._streams is not None
        try:
            return await self._ask(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            if not is_kept:
                raise
            return await self._ask(request)  # the emulator had closed the idle connection

    async def _ask(self, request: Message) -> Message:
        if self._streams is None:
            self._streams = await asyncio.open_connection(LOOPBACK, self._port, limit=BUFFER_BYTES)
        reader, writer = self._streams
        writer.write(request.head() + request.body)
        await writer.drain()
        answer = await read_head(reader)
        if answer is None:
            raise ConnectionError("the emulator closed the connection")
        is_bare = request.first.startswith("HEAD ") or answer.status in (204, 304)
        if not is_bare:
            await read_body(reader, answer)
        if answer.header("connection").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].close()
            self._streams = None
