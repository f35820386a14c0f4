"""One attempt's folders: <scratch>/<job>/<attempt>/{input,work,output}, and program.log beside them."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scanfleet.errors import ConfigurationError
from scanfleet.processors.base import AttemptFolders

log = logging.getLogger(__name__)

OWNER_FILE = "agent.pid"
LOG_NAME = "program.log"


class Scratch:
    """The scratch folder of one agent, which is its alone: what another life left there is removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def claim(self) -> None:
        """Make the folder this process's and empty it.

        Raises ConfigurationError when it cannot be written, or belongs to an agent that is alive.
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
        except OSError as error:
            raise ConfigurationError(
                f"SCANFLEET_SCRATCH: {self.folder} cannot be used: {error}; a writable folder is needed"
            ) from error

    def release(self) -> None:
        """Give the folder up."""
        (self.folder / OWNER_FILE).unlink(missing_ok=True)

    @contextmanager
    def workspace(self, job_id: str, attempt: int) -> Iterator["Workspace"]:
        """Give an attempt its folders and remove them afterwards, whatever happened."""
        root = self.folder / job_id / str(attempt)
        folders = AttemptFolders(root / "input", root / "work", root / "output")
        try:
            for folder in (folders.input, folders.work, folders.output):
                folder.mkdir(parents=True)
            yield Workspace(root, folders)
        finally:
            # This attempt's folder only: after a lost lease, the job's next attempt may run here already.
            _remove(root)
            with suppress(OSError):
                root.parent.rmdir()


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


def _remove(path: Path) -> None:
    """Remove a file or a folder; what cannot be removed is logged, and removed at the next start."""

    def keep(_function: object, name: str, error: BaseException) -> None:
        log.error("cannot remove %s", name, extra={"action": "workspace_not_removed", "error": str(error)})

    if path.is_dir() and not path.is_symlink():
        # onerror (not onexc): Python 3.11 is supported.
        shutil.rmtree(path, onerror=lambda function, name, info: keep(function, name, info[1]))
        return
    path.unlink(missing_ok=True)
