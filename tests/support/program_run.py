"""Programs under the real runner, and what is left of them."""

import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import psutil

from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.runner import ProgramStopped, Runner
from scanfleet.agent.stopping import StopRequest
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.watch import Watch
from scanfleet.errors import JobFailure
from scanfleet.processors.base import Invocation
from tests.support.scripted_program import ScriptedProcessor
from tests.support.time_limit import TimeLimit

GENEROUS = timedelta(seconds=60)


class ProgramRun:
    """One run of a program under the runner."""

    def __init__(self, folder: Path, *, grace: float = 5.0) -> None:
        self.folder = folder
        self.log = ProgramLog(folder / "program.log")
        self.board = ProgressBoard(time.monotonic)
        self.stop = StopRequest()
        self.runner = Runner(grace=timedelta(seconds=grace))

    def script(
        self, source: str, *, time_limit: timedelta = GENEROUS, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a Python script to its end."""
        invocation = Invocation(argv=(sys.executable, "-c", source), cwd=self.folder, env=env or {})
        self.invoke(invocation, time_limit=time_limit)

    def invoke(
        self,
        invocation: Invocation,
        *,
        time_limit: timedelta = GENEROUS,
        watch: Watch | None = None,
        usage: UsageMeter | None = None,
    ) -> None:
        """Run a program to its end."""
        try:
            self.runner.run(
                invocation,
                processor=ScriptedProcessor(),
                program_log=self.log,
                board=self.board,
                stop=self.stop,
                watch=watch or TimeLimit(time_limit),
                usage=usage,
            )
        finally:
            self.log.close()

    def in_thread(
        self, source: str, *, env: Mapping[str, str] | None = None
    ) -> tuple[threading.Thread, list[Exception]]:
        """Start a script; return the thread that runs it, and where its failure will be."""
        errors: list[Exception] = []

        def target() -> None:
            try:
                self.script(source, env=env)
            except (JobFailure, ProgramStopped) as error:
                errors.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        return thread, errors

    @property
    def output(self) -> str:
        """Return what the program printed."""
        return self.log.path.read_text()


def wait_for(path: Path, *, seconds: float = 20) -> str:
    """Return the file's text once a child process has written it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written within {seconds} s")


def is_gone(pid: int) -> bool:
    """Say whether the process has ended; one that only its parent has yet to reap has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still alive"
        time.sleep(0.01)
