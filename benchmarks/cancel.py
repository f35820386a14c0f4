"""How soon a cancelled program is gone: from the stop request to a runner that has returned, whole tree dead.

Each run is a program with a child and a detached grandchild. Half of the figures are of a program that ends
when it is asked to, half of one that ignores it together with all its children.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import psutil

from benchmarks.harness import Row
from benchmarks.noop_agent import NoOp
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program import RunningProgram, starter
from scanfleet.agent.runner import ProgramStopped, Runner
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.processors.base import Invocation

CANCELS = 100
GRACE = timedelta(seconds=1)
"""Short, so that the benchmark ends soon: the bar is this and a second."""
OBEYS, IGNORES = "signal.SIG_DFL", "signal.SIG_IGN"
TREE = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, {reaction})
if os.fork() == 0:
    if os.fork() == 0: os.setsid()
    time.sleep(600)
else:
    pathlib.Path("ready").write_text("yes")
    time.sleep(600)
"""


def rows() -> list[Row]:
    """Return the seconds of cancels: the 99th percentile, and the median."""
    obeyed = [_cancel(OBEYS) for _ in range(CANCELS)]
    ignored = [_cancel(IGNORES) for _ in range(CANCELS)]
    grace = GRACE.total_seconds()
    return [
        Row.limit("cancel to whole tree dead, program obeys (p99)", _p99(obeyed), "s", at_most=1.0),
        Row.fact("cancel to whole tree dead, program obeys (median)", statistics.median(obeyed), "s"),
        Row.limit(
            f"cancel to whole tree dead, program ignores it, grace {grace:g} s (p99)",
            _p99(ignored),
            "s",
            at_most=grace + 1.0,
        ),
        Row.fact("cancel to whole tree dead, program ignores it (median)", statistics.median(ignored), "s"),
    ]


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _cancel(reaction: str) -> float:
    """Return the seconds from the stop request to the runner's return; raises if a process is left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running: list[RunningProgram] = []
        stop = StopRequest()
        thread = threading.Thread(target=_run, args=(folder, reaction, stop, running.append))
        thread.start()
        while not (folder / "ready").exists():
            time.sleep(0.002)
        tree = [psutil.Process(pid) for pid in running[0].process_ids()]
        assert len(tree) >= 2, "the program has started its children"
        begun = time.monotonic()
        stop.set(StopReason.CANCELLED)
        thread.join()
        seconds = time.monotonic() - begun
        left = [process.pid for process in tree if process.is_running()]
        assert not left, f"processes are left: {left}"
        return seconds


class NoWatch:
    """Ends no program."""

    interval = timedelta(seconds=0.5)

    def look(self, program: RunningProgram) -> None:
        """Find nothing."""

    def completed(self, stage_seconds: Mapping[str, float], *, since_end: float = 0.0) -> None:
        """Learn nothing."""


def _run(folder: Path, reaction: str, stop: StopRequest, on_start: Callable[[RunningProgram], None]) -> None:
    def start(invocation: Invocation) -> RunningProgram:
        program = starter()(invocation)
        on_start(program)
        return program

    program_log = ProgramLog(folder / "program.log")
    try:
        Runner(grace=GRACE, start=start).run(
            Invocation(argv=(sys.executable, "-c", TREE.format(reaction=reaction)), cwd=folder),
            processor=NoOp(),
            program_log=program_log,
            board=ProgressBoard(time.monotonic),
            stop=stop,
            watch=NoWatch(),
        )
    except ProgramStopped:
        pass
    finally:
        program_log.close()
