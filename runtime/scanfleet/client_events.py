"""Hearing of a job's changes: the best way that the server has, again and again, in a thread of its own.

Nothing of it is an error to whoever waits: while no way is open, the waiter asks from time to time.
"""

import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue

import httpx

from scanfleet.client_http import HttpApi
from scanfleet.client_models import EventWays, JobInfo, UnexpectedAnswer
from scanfleet.client_streams import Stream, server_sent_events, websocket_events
from scanfleet.errors import ScanfleetError, Unavailable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
WEBSOCKET_TRIES = 2
"""A WebSocket that did not open so often is left alone: a proxy in between may not let any through."""

CLOSING_SECONDS = 1.0
"""Closing waits so long for the thread, which may just be calling; it then ends by itself."""

Opening = Callable[[], AbstractContextManager[Stream]]


class JobChanges:
    """Pushed states of one job. Start it once; close it when nobody waits any more."""

    def __init__(self, api: HttpApi, client: httpx.Client, job_id: str) -> None:
        self._api = api
        self._client = client
        self._job_id = job_id
        self._pushed: SimpleQueue[JobInfo | None] = SimpleQueue()
        self._closed = threading.Event()
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._websocket_tries = WEBSOCKET_TRIES
        self._thread = threading.Thread(target=self._listen, name=f"events of {job_id}", daemon=True)
        self._is_live = threading.Event()

    def start(self) -> None:
        """Begin to listen, if that has not begun."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def is_live(self) -> bool:
        """Say whether a connection tells the changes now, so that asking would only repeat them."""
        return self._is_live.is_set()

    def wait(self, seconds: float) -> JobInfo | None:
        """Return the next pushed state; None after `seconds`, or when the connection came or went."""
        try:
            return self._pushed.get(timeout=seconds)
        except Empty:
            return None

    def close(self) -> None:
        """End the connection and the thread."""
        self._closed.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.ident is not None:
            self._thread.join(CLOSING_SECONDS)

    # --- In the thread -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closed.is_set():
            try:
                openings = self._openings()
            except Unavailable:
                openings = []
            except (ScanfleetError, RuntimeError):
                # An older service, or one that refuses us, and whoever asks hears why; or a closed client.
                return
            else:
                if not openings:
                    return  # there is no such way
            if any(self._heard(opening) for opening in openings):
                pause = FIRST_PAUSE_SECONDS
            self._closed.wait(random.uniform(0.5, 1.0) * pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _openings(self) -> list[Opening]:
        """Ask for the ways; return how to open each, the best first. Raises what HttpApi raises."""
        answer = self._api.call("POST", "/events/ticket", attempts=1)
        try:
            ways = EventWays.model_validate_json(answer.content)
        except ValueError as error:
            raise UnexpectedAnswer("the service's ways to events are not understood") from error
        openings: list[Opening] = []
        if ways.websocket is not None and self._websocket_tries and self._is_no_weaker(ways.websocket):
            url = ways.websocket
            openings.append(lambda: websocket_events(url, self._job_id))
        if ways.server_sent_events:
            openings.append(lambda: server_sent_events(self._client, self._job_id))
        return openings

    def _is_no_weaker(self, url: str) -> bool:
        """Say whether the WebSocket is encrypted where the API is."""
        return httpx.URL(url).scheme == "wss" or self._client.base_url.scheme == "http"

    def _heard(self, opening: Opening) -> bool:
        """Pass on what one connection tells, until it ends; return whether it told anything."""
        told = False
        try:
            with opening() as stream:
                with self._lock:
                    self._stream = stream
                if self._closed.is_set():
                    return True
                for job in stream.changes():
                    told = True
                    self._is_live.set()
                    self._pushed.put(job)
        except (OSError, EOFError, ValueError, RuntimeError, ImportError, httpx.HTTPError, httpx.StreamError):
            pass  # whatever it was: the next way, or the next try, or asking
        finally:
            with self._lock:
                self._stream = None
            if self._is_live.is_set():
                self._is_live.clear()
                self._pushed.put(None)  # whoever waits begins to ask
        if not told and self._websocket_tries:
            self._websocket_tries -= 1
        return told
