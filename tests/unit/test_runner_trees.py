"""Programs that start others: whatever those do to get away, none is left."""

import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from scanfleet.agent.os_posix import start_program
from scanfleet.agent.output import pump
from scanfleet.agent.runner import ProgramStopped
from scanfleet.agent.stopping import StopReason
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.processors.base import Invocation
from tests.support.program_run import ProgramRun, is_gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has Job Objects")

MARK = "SCANFLEET_TEST_TREE"


@pytest.fixture
def run(tmp_path):
    run = ProgramRun(tmp_path, grace=0.1)
    yield run
    run.log.close()


def start(run: ProgramRun, source: str) -> tuple[threading.Thread, list[Exception]]:
    """Start a program whose processes `alive` finds, wherever they are."""
    return run.in_thread(source, env={MARK: str(run.folder)})


def alive(run: ProgramRun) -> list[int]:
    """Return the living processes that inherited the program's environment."""
    mark = f"{MARK}={run.folder}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        # The guardian has it, too, and ends with the program.
        if mark in environment.split(b"\0") and not is_gone(process.pid):
            found.append(process.pid)
    return found


def stop(run: ProgramRun, thread: threading.Thread, errors: list[Exception], reason: StopReason) -> None:
    run.stop.set(reason)
    thread.join(60)
    assert isinstance(errors[0], ProgramStopped)


@pytest.mark.parametrize("lines", [1, 8])
def test_processes_that_fork_and_end_for_ever_do_not_outrun_the_kill(run, lines):
    thread, errors = start(
        run,
        "import os, pathlib, time\n"
        f"for _ in range({lines}):\n"
        "    if os.fork() == 0:\n"
        "        hops = 0\n"
        "        while True:\n"  # another id, another session, an adopted child: a thousand times a second
        "            if os.fork(): os._exit(0)\n"
        "            os.setsid()\n"
        "            hops += 1\n"
        "            if hops == 20: pathlib.Path('running').write_text('yes')\n"
        "time.sleep(600)",
    )
    wait_for(run.folder / "running")

    stop(run, thread, errors, StopReason.LEASE_LOST)

    assert alive(run) == []


def test_a_wide_tree_of_detached_processes_is_killed_to_the_last(run):
    thread, errors = start(
        run,
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for generation in range(5):\n"  # 2 ** 5 processes, each in a session of its own
        "    if os.fork() == 0: os.setsid()\n"
        "    signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "pathlib.Path(f'ready-{os.getpid()}').write_text('yes')\n"
        "time.sleep(600)",
    )
    deadline = time.monotonic() + 60
    while len(list(run.folder.glob("ready-*"))) < 32:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    stop(run, thread, errors, StopReason.CANCELLED)

    assert alive(run) == []


def test_a_stopped_process_cannot_sit_the_kill_out(run):
    thread, errors = start(
        run,
        "import os, pathlib, signal\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "os.kill(os.getpid(), signal.SIGSTOP)",
    )
    pid = int(wait_for(run.folder / "pid"))
    deadline = time.monotonic() + 60
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    stop(run, thread, errors, StopReason.CANCELLED)

    assert alive(run) == []


def test_a_grandchild_that_keeps_the_pipe_open_holds_nothing_up(run):
    run.invoke(
        Invocation(
            argv=(
                sys.executable,
                "-c",
                "import os, sys, time\n"
                "if os.fork() == 0:\n"
                "    os.setsid()\n"
                "    while True:\n"
                "        print('still here', flush=True); time.sleep(0.01)\n"
                "time.sleep(0.2); print('the program ends', flush=True)",
            ),
            cwd=run.folder,
            env={MARK: str(run.folder)},
        )
    )

    assert "the program ends" in run.output
    assert alive(run) == []


def test_the_processes_of_a_program_are_known_also_those_that_it_left_behind(run):
    program = start_program(
        Invocation(
            argv=(
                sys.executable,
                "-c",
                "import os, pathlib, time\n"
                "if os.fork() == 0:\n"
                "    os.setsid()\n"
                "    if os.fork(): os._exit(0)\n"
                "    pathlib.Path('orphan').write_text(str(os.getpid()))\n"
                "time.sleep(600)",
            ),
            cwd=run.folder,
        )
    )
    try:
        orphan = int(wait_for(run.folder / "orphan"))

        assert {program.pid, orphan} <= set(program.process_ids())
    finally:
        program.kill()
        program.wait()
        program.close()

    assert program.process_ids() == ()
    assert is_gone(orphan)


def test_programs_step_back_behind_the_agent(run):
    run.script(
        "import os, pathlib\nprint(os.nice(0), pathlib.Path('/proc/self/oom_score_adj').read_text().strip())"
    )

    niceness, memory_score = map(int, run.output.split())
    assert niceness > psutil.Process().nice()
    assert memory_score > 0


def test_a_command_line_that_no_system_takes_is_a_failure_of_the_program(run):
    with pytest.raises(JobFailure, match="could not be started") as caught:
        run.invoke(Invocation(argv=(sys.executable, "-c", "\0"), cwd=run.folder))

    assert caught.value.failure_class is FailureClass.PROGRAM_ERROR


def test_a_reader_whose_pipe_was_closed_ends(run):
    class ClosedPipe:
        def read(self, size):
            raise ValueError("I/O operation on closed file")

    pump(ClosedPipe(), run.log, print)
    run.log.close()

    assert run.output == ""


def test_a_line_end_may_be_split_between_two_reads(run):
    class Blocks:
        def __init__(self, *blocks):
            self.blocks = list(blocks)

        def read(self, size):
            return self.blocks.pop(0) if self.blocks else b""

    pump(Blocks(b"one\r", b"\ntwo\r", b"three\r\n"), run.log, lambda line: None)
    run.log.close()

    assert run.output == "one\ntwo\nthree\n"


def test_a_program_that_its_watch_ends_while_it_ignores_the_stop_leaves_nothing(run):
    with pytest.raises(JobFailure) as caught:
        run.script(
            "import signal, subprocess, sys, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "time.sleep(600)",
            time_limit=timedelta(seconds=1),
            env={MARK: str(run.folder)},
        )

    assert caught.value.failure_class is FailureClass.HANG
    assert alive(run) == []


def test_an_end_by_the_kernel_is_told_by_its_signal(run):
    with pytest.raises(JobFailure) as caught:
        run.script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    assert caught.value.failure_class is FailureClass.OUT_OF_MEMORY
    assert caught.value.exit_code == -signal.SIGKILL
