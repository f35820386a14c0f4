"""One attempt's folders: <scratch>/<job>/<attempt>/{input,work,output}, and program.log beside them."""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scanfleet.errors import ConfigurationError
from scanfleet.jobs import is_job_id
from scanfleet.processors.base import AttemptFolders

log = logging.getLogger(__name__)

OWNER_FILE = "agent.pid"
LOG_NAME = "program.log"


class ScratchUnusable(ConfigurationError):
    """The folder cannot be made, emptied or written now; that may heal."""


@dataclass(frozen=True)
class StaleWorkspace:
    """The folder of an attempt that no longer runs."""

    job_id: str
    attempt: int
    root: Path


class Scratch:
    """The scratch folder of one agent, which is its alone: what another life left there is removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.is_claimed = False
        self._lock = threading.Lock()
        self._live: set[Path] = set()
        """The folders of attempts that run, and of those whose folders are being removed."""

    def claim(self) -> None:
        """Make the folder this process's and empty it.

        Raises ScratchUnusable when it cannot be written, and ConfigurationError when it belongs to an agent
        that is alive.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            owner = _living_owner(self.folder / OWNER_FILE)
            if owner is not None:
                raise ConfigurationError(
                    f"SCANFLEET_SCRATCH: {self.folder} belongs to the running agent with process id {owner};"
                    " each agent needs a folder of its own"
                )
            for stale in self.folder.iterdir():
                _remove(stale)
            (self.folder / OWNER_FILE).write_text(f"{os.getpid()} {psutil.Process().create_time()}")
            self.is_claimed = True
        except OSError as error:
            raise ScratchUnusable(
                f"SCANFLEET_SCRATCH: {self.folder} cannot be used: {error}; a writable folder is needed"
            ) from error

    def release(self) -> None:
        """Give the folder up."""
        if self.is_claimed:
            (self.folder / OWNER_FILE).unlink(missing_ok=True)

    @contextmanager
    def workspace(self, job_id: str, attempt: int) -> Iterator["Workspace"]:
        """Give an attempt its folders and remove them afterwards, whatever happened."""
        root = self.folder / job_id / str(attempt)
        folders = AttemptFolders(root / "input", root / "work", root / "output")
        try:
            with self._lock:
                self._live.add(root)
                for folder in (folders.input, folders.work, folders.output):
                    folder.mkdir(parents=True)
            yield Workspace(root, folders)
        finally:
            # This attempt's folder only: after a lost lease, the job's next attempt may run here already.
            _remove(root)
            with self._lock:
                self._live.discard(root)
                _remove_if_empty(root.parent)

    def remove_stale(self) -> list[StaleWorkspace]:
        """Remove the folders of attempts that no longer run; return those that are gone now.

        An attempt's folder stays when a file in it could not be removed at its end, as on Windows one that
        is open. What still cannot be removed stays, for the next look. Numbers of attempts never come twice,
        so a folder that is not live never will be.
        """
        return [stale for stale in self._stale() if self._remove_stale(stale)]

    def _stale(self) -> list[StaleWorkspace]:
        with self._lock:
            found = [
                StaleWorkspace(job.name, int(attempt.name), attempt)
                for job in _folders(self.folder)
                if is_job_id(job.name)
                for attempt in _folders(job)
                if attempt.name.isascii() and attempt.name.isdigit()
            ]
            return [stale for stale in found if stale.root not in self._live]

    def _remove_stale(self, stale: StaleWorkspace) -> bool:
        shutil.rmtree(stale.root, ignore_errors=True)  # its attempt has told what could not be removed
        if stale.root.exists():
            return False
        with self._lock:
            _remove_if_empty(stale.root.parent)
        return True


class Workspace:
    """One attempt's place on the disk."""

    def __init__(self, root: Path, folders: AttemptFolders) -> None:
        self.root = root
        self.folders = folders

    @property
    def log_path(self) -> Path:
        """Return where the program's output is kept while the attempt runs."""
        return self.root / LOG_NAME


def _living_owner(file: Path) -> int | None:
    """Return the process id in the file if that very process lives: ids are used again, start times not."""
    try:
        pid, started = file.read_text().split()
        process = psutil.Process(int(pid))
        return int(pid) if process.create_time() == float(started) and int(pid) != os.getpid() else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _folders(parent: Path) -> list[Path]:
    """Return the folders in a folder; links count as files, and a folder that has gone as empty."""
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove(path: Path) -> None:
    """Remove a file or a folder; what cannot be removed is logged, and tried again later."""

    def keep(_function: object, name: str, error: BaseException) -> None:
        log.error("cannot remove %s", name, extra={"action": "workspace_not_removed", "error": str(error)})

    if path.is_dir() and not path.is_symlink():
        # onerror (not onexc): Python 3.11 is supported.
        shutil.rmtree(path, onerror=lambda function, name, info: keep(function, name, info[1]))
        return
    path.unlink(missing_ok=True)
