"""What a feed of changes gives."""

from dataclasses import dataclass
from typing import Protocol

from scanfleet.jobs import Job


@dataclass(frozen=True)
class Reading:
    """Jobs that visibly changed since the last reading, as they are now.

    has_gap: other changes may have been missed; whoever listens has to be told the present state again.
    """

    jobs: tuple[Job, ...] = ()
    has_gap: bool = False


class Feed(Protocol):
    """Changes of jobs, one reading after the other."""

    def read(self) -> Reading:
        """Return what changed since the last reading; the first one finds the place and returns nothing.

        Raises Unavailable: open another one then; what was missed meanwhile is a gap.
        """
        ...
