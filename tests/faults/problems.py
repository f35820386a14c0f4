"""What a campaign can find wrong."""

import threading
from collections import Counter
from dataclasses import dataclass

KINDS = ("lost", "doubled", "orphans", "escapes", "stuck")
"""lost: an accepted job without the end that is due to it. doubled: results of more than one attempt, or an
end that changed. orphans: processes or workspaces left. escapes: touches outside. stuck: no end at all."""


@dataclass(frozen=True)
class Problem:
    """One broken invariant."""

    kind: str
    job_id: str
    text: str


class Problems:
    """Collects them from every thread; each is counted once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Problem, None] = {}
        self._checked: Counter[str] = Counter()

    def add(self, kind: str, job_id: str, text: str) -> None:
        """Take down a broken invariant."""
        assert kind in KINDS, kind
        with self._lock:
            self._found[Problem(kind, job_id, text)] = None

    def checked(self, what: str, count: int = 1) -> None:
        """Count how often an invariant was looked at."""
        with self._lock:
            self._checked[what] += count

    @property
    def found(self) -> list[Problem]:
        """Return the problems in the order in which they were found."""
        with self._lock:
            return list(self._found)

    @property
    def checks(self) -> dict[str, int]:
        """Return how often each invariant was looked at."""
        with self._lock:
            return dict(sorted(self._checked.items()))

    def counts(self) -> dict[str, int]:
        """Return the number of problems of each kind, the zeros too."""
        found = Counter(problem.kind for problem in self.found)
        return {kind: found[kind] for kind in KINDS}
