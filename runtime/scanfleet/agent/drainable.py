"""What the fleet's side of an agent needs of its worker."""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol


class Drainable(Protocol):
    """What is needed of the worker."""

    @property
    def busy(self) -> int:
        """Return how many slots are taken."""
        ...

    @property
    def is_quiet(self) -> bool:
        """Return whether nothing runs and nothing is under way, as it takes nothing new."""
        ...

    @property
    def given_back(self) -> int:
        """Return how many messages came too late to be taken."""
        ...

    @property
    def condemned(self) -> str | None:
        """Return why the machine has to be replaced, or None."""
        ...

    def problem(self) -> str | None:
        """Return why it takes no work, or None."""
        ...

    def hold(self, is_on_hold: bool) -> None:
        """Take nothing new for now, or go on."""
        ...

    def suspend(self, cause: str, reason: str | None, *, is_healthy: bool = False) -> None:
        """Take nothing new while there is a reason."""
        ...

    def drain(self, grace: timedelta, *, reason: str) -> None:
        """Take nothing new for ever."""
        ...

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back after each change of what runs."""
        ...
