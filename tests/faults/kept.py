"""A process that is started again whenever it has died: the API and the sweeper."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.faults.hurry import HARNESS

ROOT = Path(__file__).resolve().parents[2]


def start_module(module: str, *, environment: Mapping[str, str], log_file: Path) -> "subprocess.Popen[bytes]":
    """Start a module of this package; its output goes to the end of the log.

    From the harness's main thread only: the process dies with the thread that started it (prctl(2),
    PR_SET_PDEATHSIG).
    """
    assert threading.current_thread() is threading.main_thread()
    log_file.parent.mkdir(exist_ok=True)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.faults.{module}"],
            cwd=ROOT,
            env={**environment, HARNESS: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


class Kept:
    """Keeps one process running. `tick` starts it again; `kill` may come from any thread."""

    def __init__(self, module: str, *, environment: Mapping[str, str], log_file: Path) -> None:
        self._module = module
        self._environment = environment
        self._log_file = log_file
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def tick(self) -> None:
        """Start it when it does not run."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = start_module(
                    self._module, environment=self._environment, log_file=self._log_file
                )

    def kill(self) -> bool:
        """End it by SIGKILL; False when it does not run."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return False
            self._process.send_signal(signal.SIGKILL)
            return True

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
