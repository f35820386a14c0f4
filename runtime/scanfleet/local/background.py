"""Work that goes on beside everything else in the local process, in a thread of its own."""

import threading
from abc import ABC, abstractmethod
from datetime import timedelta


class Background(ABC):
    """Runs from `start` to `stop`. `_run` does the work; it ends soon once `_end` is set."""

    def __init__(self, *, name: str, every: timedelta) -> None:
        self._every_seconds = every.total_seconds()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    @abstractmethod
    def _run(self) -> None: ...
