"""Whether an agent is fit to take work, as its health check tells it.

A load balancer's failed checks have the machine replaced, and every machine asks the same queue. So an agent
that has served stays well while the queue is silent for a while: to replace the whole fleet would repair
nothing and cost the running jobs their machines. A new agent is not ready before the queue has answered once.
"""

import time
from collections.abc import Callable
from datetime import timedelta

QUEUE_SILENCE_TOLERATED = timedelta(minutes=15)
"""Above most outages of a service; a machine that alone has lost its network is replaced after this."""


class Readiness:
    """What the agent's loop has found. `problem` is why it takes no work, or None. clock: seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_since: float | None = None
        self.problem: str | None = "not started yet"

    def serves(self) -> None:
        """Note that the queue has answered, or that nobody asks it for now."""
        self._silent_since = None
        self.problem = None

    def queue_failed(self, error: Exception) -> None:
        """Note that the queue did not answer."""
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        is_long = now - self._silent_since >= QUEUE_SILENCE_TOLERATED.total_seconds()
        if is_long or self.problem is not None:
            self.problem = f"the queue does not answer: {error}"
