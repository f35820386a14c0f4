"""Waiting in a test for what another thread or process brings about."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.02


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Return once the condition holds; fail when it does not within this time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(LOOK_SECONDS)
