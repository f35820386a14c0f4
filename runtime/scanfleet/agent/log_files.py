"""Log files on a machine without a console: JSON lines, rotated, on a disk that they never fill.

    <folder>/agent.jsonl   what the agent does        -> log group of Component.AGENT
    <folder>/jobs.jsonl    changes of jobs' states    -> log group of Component.JOBS
    <folder>/*.jsonl.1 ... older ones

Something else follows the files and ships them (the CloudWatch agent), metrics included. A line is in one of
the two only: a metric that was shipped twice would count double.
"""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from scanfleet.contract import Component
from scanfleet.errors import ConfigurationError
from scanfleet.log_setup import is_of_jobs

FILE_BYTES = 20 * 1024 * 1024
OLDER_FILES = 4


class BoundedFile(RotatingFileHandler):
    """A rotating file that goes on when it cannot be rotated.

    Windows refuses to rename a file that somebody has open without sharing its deletion. Then lines go to
    the same file, the next try comes a quarter of its size later, and at twice its size the file is emptied:
    a full disk would fail jobs, old log lines only inform.
    """

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES, older_files: int = OLDER_FILES) -> None:
        super().__init__(path, maxBytes=file_bytes, backupCount=older_files, encoding="utf-8", delay=False)
        self._file_bytes = file_bytes

    def doRollover(self) -> None:  # noqa: N802 - the base class's name
        """Rotate, or go on with the same file."""
        try:
            super().doRollover()
            self.maxBytes = self._file_bytes
        except OSError:
            if self.maxBytes < 2 * self._file_bytes:
                self.maxBytes += self._file_bytes // 4
                self.stream = self._open()
            else:
                self.maxBytes = self._file_bytes
                Path(self.baseFilename).open("w").close()
                self.stream = self._open()


def log_files(folder: Path) -> dict[Component, logging.Handler]:
    """Return the handlers of both files. Raises ConfigurationError when the folder cannot be written."""
    agent, jobs = Component.AGENT, Component.JOBS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: BoundedFile(folder / file_name(name)) for name in (agent, jobs)}
    except OSError as error:
        raise ConfigurationError(f"log files cannot be written to {folder}: {error}") from error
    files[agent].addFilter(lambda record: not is_of_jobs(record))
    files[jobs].addFilter(is_of_jobs)
    return dict(files)


def file_name(component: Component) -> str:
    """Return a component's log file. Example: "agent.jsonl"."""
    return f"{component}.jsonl"
