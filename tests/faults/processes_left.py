"""The register of every process that programs were, and which of them still live."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Registered:
    """One process. ticks: its start time, as ids are used again."""

    pid: int
    ticks: str
    job_id: str
    attempt: int
    role: str

    @property
    def is_alive(self) -> bool:
        """Say whether that very process runs still; a dead one that nobody has reaped does not."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return fields[19] == self.ticks and fields[0] not in "ZX"

    def kill(self) -> None:
        """End it."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class ProcessRegister:
    """Reads what the programs append."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self.all: list[Registered] = []

    def read(self) -> list[Registered]:
        """Return the processes that registered since the last call."""
        if not self._file.exists():
            return []
        with self._file.open() as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._offset += len(whole.encode())
        new = []
        for line in whole.splitlines():
            pid, ticks, job_id, attempt, role = line.split()
            new.append(Registered(int(pid), ticks, job_id, int(float(attempt)), role))
        self.all += new
        return new

    def kill_all(self) -> None:
        """End every registered process that lives."""
        self.read()
        for process in self.all:
            process.kill()
