"""Keeps this machine's release the active one: looks, fetches, verifies, switches; never under a job's feet.

Runs hold the release that they began with (`pin`), so a switch only concerns the next ones. Whatever goes
wrong, the release that is here stays in use.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.contract import NO_RELEASE, Dimension, Metric, Pool
from scanfleet.errors import ConfigurationError, Conflict, ScanfleetError
from scanfleet.processors.release_source import InstalledRelease
from scanfleet.releases import Release, ReleaseStore
from scanfleet.releases_download import FetchStopped
from scanfleet.releases_local import LocalReleases, NoRoom
from scanfleet.telemetry import metrics

log = logging.getLogger(__name__)

PROGRESS_STEP_PERCENT = 10
STOP_SECONDS = 5.0


class Wanted(Protocol):
    """Says which release a machine should have: `releases_active.ActiveRelease`."""

    def version(self) -> str:
        """Return the version, or "none"."""
        ...


@dataclass(frozen=True)
class KeeperRules:
    """How often."""

    look: timedelta = timedelta(seconds=60)
    """Between two questions; each wait differs by a tenth, so that a fleet does not ask as one."""
    longest: timedelta = timedelta(minutes=4)
    """After failures in a row waits double up to this: below the alarm's period of 5 minutes, so that it
    hears of each lasting failure in each period."""


class ReleaseKeeper:
    """The releases of one machine. A thread looks between `start` and `stop`; `look` is one round.

    needed: paths that a release must hold, or it is refused. pool: for the metric.
    """

    def __init__(
        self,
        local: LocalReleases,
        store: ReleaseStore,
        wanted: Wanted,
        *,
        pool: Pool,
        needed: Sequence[str] = (),
        rules: KeeperRules | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._local = local
        self._store = store
        self._wanted = wanted
        self._pool = pool
        self._needed = needed
        self._rules = rules or KeeperRules()
        self._jitter = jitter
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._active = self._read_active()
        self._problem: str | None = None
        self._doing = "nobody has looked for one yet"
        self._failures = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="releases", daemon=True)

    def start(self) -> None:
        """Begin to look. What is on the machine can be used already."""
        self._thread.start()

    def stop(self) -> None:
        """End looking; a download goes on at the next start. A call without an answer yet is left alone."""
        self._stopped.set()
        self._thread.join(STOP_SECONDS)

    @contextmanager
    def pin(self) -> Iterator[InstalledRelease]:
        """Give the active release and keep its folder until the block ends.

        Raises ConfigurationError that says why there is none.
        """
        with self._lock:
            release = self._active
            if release is None:
                raise ConfigurationError(f"no release is on this machine: {self._problem or self._doing}")
            self._held[release.version] += 1
        try:
            yield release
        finally:
            with self._lock:
                self._held[release.version] -= 1

    def version(self) -> str:
        """Return the version that the next program is started from, or ""."""
        active = self._active
        return active.version if active else ""

    @property
    def problem(self) -> str | None:
        """Return why the last look failed, or None."""
        return self._problem

    def look(self) -> None:
        """Have the wanted release, if it is another one. Never raises: failures are told and tried again."""
        try:
            wanted = self._wanted.version()
            if wanted == NO_RELEASE:
                self._doing = "none was activated yet (scanfleet release activate)"
            elif wanted != self.version():
                self._switch(wanted)
            self._prune(wanted, self._local.previous())
        except FetchStopped:
            log.info("release fetch stopped", extra={"action": "release_fetch_stopped"})
        except (ScanfleetError, BotoCoreError, ClientError, OSError) as error:
            self._failed(str(error) or repr(error))
        except Exception as error:
            log.exception("release look failed", extra={"action": "release_failed"})
            self._failed(repr(error))
        else:
            self._succeeded()

    # --- One round -----------------------------------------------------------------------------------------

    def _read_active(self) -> InstalledRelease | None:
        """Return what programs may start from right away: the release of the image, or of the life before."""
        try:
            folder = self._local.active()
        except (ScanfleetError, OSError, ValueError) as error:
            log.error("no release to begin with: %s", error, extra={"action": "release_unreadable"})
            return None
        return InstalledRelease(folder.name, folder) if folder else None

    def _switch(self, version: str) -> None:
        release = self._store.read(version)
        self._check(release)
        log.info("release %s is fetched", version, extra={"action": "release_fetching", "release": version})
        try:
            folder = self._fetch(release)
        except NoRoom:
            self._prune(version)  # even what would be rolled back to: it can be fetched again
            folder = self._fetch(release)
        with self._lock:
            self._local.activate(version)
            before, self._active = self._active, InstalledRelease(version, folder)
        facts = {
            "action": "release_switched",
            "release": version,
            "previous_release": before.version if before else None,
            "held_releases": sorted(+self._held),
        }
        log.info("programs start from release %s now", version, extra=facts)

    def _check(self, release: Release) -> None:
        here = {file.path for file in release.files}
        if lost := [path for path in self._needed if path not in here]:
            raise Conflict(f"release {release.version} holds no {', '.join(lost)}; publish one that does")

    def _fetch(self, release: Release) -> Path:
        with self._lock:
            is_held = self._held[release.version] > 0
        return self._local.fetch(
            self._store,
            release,
            on_bytes=FetchProgress(release, told=self._tell),
            should_stop=self._stopped.is_set,
            may_replace=not is_held,
        )

    def _prune(self, *keep: str | None) -> None:
        """Remove what neither is named here, nor active, nor held by a run."""
        with self._lock:  # nothing is pinned meanwhile
            held = {version for version, count in self._held.items() if count > 0}
            removed = self._local.set_aside({self.version(), *held, *filter(None, keep)})
        self._local.remove_set_aside()
        if removed:
            log.info("releases removed", extra={"action": "release_removed", "releases": removed})

    # --- What is told --------------------------------------------------------------------------------------

    def _tell(self, release: Release, percent: int) -> None:
        self._doing = f"release {release.version} is being fetched ({percent} %)"
        facts = {
            "action": "release_progress",
            "release": release.version,
            "percent": percent,
            "size_bytes": release.size_bytes,
        }
        log.info("release %s: %s %%", release.version, percent, extra=facts)

    def _failed(self, problem: str) -> None:
        """Tell a cause once as an error; each failure counts, so that the alarm rings as long as it lasts."""
        level = logging.INFO if problem == self._problem else logging.ERROR
        self._failures += 1
        self._problem = problem
        facts = {"action": "release_failed", "release": self.version() or None, "reason": problem}
        counted = metrics({Metric.RELEASE_FAILED: 1}, {Dimension.POOL: self._pool.value})
        log.log(level, "the release stays as it is: %s", problem, extra=facts | counted)

    def _succeeded(self) -> None:
        if self._problem is not None:
            log.info("releases are well again", extra={"action": "release_recovered"})
        self._problem = None
        self._failures = 0

    # --- Time ----------------------------------------------------------------------------------------------

    def next_wait(self) -> float:
        """Return the seconds until the next look."""
        every, longest = self._rules.look.total_seconds(), self._rules.longest.total_seconds()
        doublings = max(0, min(self._failures, 10) - 1)
        return min(every * 2.0**doublings, max(every, longest)) * (0.9 + 0.2 * self._jitter())

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self.look()
            self._stopped.wait(self.next_wait())


class FetchProgress:
    """Adds up bytes from several threads and tells each further step of percent."""

    def __init__(self, release: Release, *, told: Callable[[Release, int], None]) -> None:
        self._release = release
        self._told = told
        self._done = 0
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self, size_bytes: int) -> None:
        """Count what came, or with a negative size what has to come again."""
        with self._lock:
            self._done += size_bytes
            percent = 100 * self._done // max(1, self._release.size_bytes)
            step = percent - percent % PROGRESS_STEP_PERCENT
            if step <= self._last:
                return
            self._last = step
        self._told(self._release, step)
