"""The runner and its guardian, with real child processes."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from scanfleet.agent.output import MAX_LINE_BYTES, MAX_STAGES, MAX_STUMBLES_LOGGED, ProgressBoard
from scanfleet.agent.runner import ProgramStopped, Runner
from scanfleet.agent.stopping import StopReason
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.processors.base import Invocation, Progress
from tests.support.program_run import ProgramRun, is_gone, wait_for, wait_until_gone
from tests.support.scripted_program import ScriptedProcessor

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the guardian is POSIX; Windows has Job Objects"
)


@pytest.fixture
def run(tmp_path):
    return ProgramRun(tmp_path)


def test_a_program_that_succeeds_leaves_its_output_and_progress(run):
    run.script(
        "print('hello')\n"
        "print('scanfleet_stage: align')\n"
        "print('scanfleet_progress: 42.5')\n"
        "print('scanfleet_progress: lots')"
    )

    assert run.output == "hello\nscanfleet_stage: align\nscanfleet_progress: 42.5\nscanfleet_progress: lots\n"
    assert run.board.current() == (42.5, "align")


def test_an_exit_code_is_a_program_error_with_the_reason_that_the_program_gave(run):
    with pytest.raises(JobFailure, match="no scan could be read") as caught:
        run.script("import sys; print('scanfleet_fail: no scan could be read'); sys.exit(3)")

    assert caught.value.failure_class is FailureClass.PROGRAM_ERROR
    assert caught.value.exit_code == 3


def test_a_signal_is_a_crash(run):
    with pytest.raises(JobFailure) as caught:
        run.script("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")

    assert caught.value.failure_class is FailureClass.CRASH
    assert caught.value.exit_code == -signal.SIGSEGV


def test_a_program_that_does_not_exist_fails_with_its_name(run):
    with pytest.raises(JobFailure, match="/no/such/program"):
        run.invoke(Invocation(argv=("/no/such/program",), cwd=run.folder))


def test_a_program_beyond_its_time_limit_is_a_hang(run):
    run.runner = Runner(grace=timedelta(seconds=0.1))

    with pytest.raises(JobFailure) as caught:
        run.script("import time; time.sleep(600)", time_limit=timedelta(seconds=0.2))

    assert caught.value.failure_class is FailureClass.HANG


def test_a_stop_request_lets_an_obedient_program_end_by_itself(run):
    obedient = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    pathlib.Path('cleaned').write_text('yes'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('ready').write_text('yes')\n"
        "time.sleep(600)"
    )
    thread, errors = run.in_thread(obedient)
    wait_for(run.folder / "ready")

    run.stop.set(StopReason.CANCELLED)
    thread.join(20)

    assert isinstance(errors[0], ProgramStopped)
    assert (run.folder / "cleaned").read_text() == "yes"


def test_a_program_that_ignores_the_stop_request_is_killed_after_the_grace(tmp_path):
    run = ProgramRun(tmp_path, grace=0.1)
    stubborn = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    thread, errors = run.in_thread(stubborn)
    pid = int(wait_for(run.folder / "pid"))

    run.stop.set(StopReason.CANCELLED)
    thread.join(20)

    assert isinstance(errors[0], ProgramStopped)
    assert is_gone(pid)


SPAWN_DETACHED = (
    "import pathlib, subprocess, sys\n"
    "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    "child = subprocess.Popen(sleeper, start_new_session=True)\n"
    "pathlib.Path('pid').write_text(str(child.pid))\n"
)


def test_a_process_that_the_program_left_behind_is_killed_and_does_not_hold_the_pipes(run):
    run.script(SPAWN_DETACHED)

    assert is_gone(int((run.folder / "pid").read_text()))


def test_a_lost_lease_kills_the_whole_tree_without_grace(tmp_path):
    run = ProgramRun(tmp_path, grace=600)
    thread, errors = run.in_thread(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SPAWN_DETACHED + "child.wait()"
    )
    pid = int(wait_for(run.folder / "pid"))

    run.stop.set(StopReason.LEASE_LOST)
    thread.join(20)

    assert isinstance(errors[0], ProgramStopped)
    assert is_gone(pid)


def test_a_killed_agent_takes_the_program_and_its_children_with_it(tmp_path):
    agent = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from scanfleet.agent.os_posix import start_program\n"
        "from scanfleet.processors.base import Invocation\n"
        "start_program(Invocation((sys.executable, '-c', sys.argv[2]), Path.cwd())).wait()"
    )
    source = str(Path(__file__).parents[2] / "runtime")
    process = subprocess.Popen(
        [sys.executable, "-c", agent, source, SPAWN_DETACHED + "child.wait()"], cwd=tmp_path
    )
    pid = int(wait_for(tmp_path / "pid"))
    assert not is_gone(pid)

    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    wait_until_gone(pid)


def test_a_flood_on_standard_error_never_blocks_the_program(run):
    run.script("import sys\nfor _ in range(200): sys.stderr.buffer.write(b'x' * 2**20)")

    assert max(map(len, run.output.splitlines())) <= MAX_LINE_BYTES
    assert run.log.path.stat().st_size <= 65 * 2**20


def test_odd_bytes_become_text(run):
    run.script("import sys; sys.stdout.buffer.write(b'\\xff\\xfe ok\\0\\rlast line without an end')")

    assert run.log.path.read_bytes() == b"\xff\xfe ok?\nlast line without an end\n"


def test_progress_never_goes_back_and_stages_are_timed(tmp_path):
    now = [0.0]
    run = ProgramRun(tmp_path)
    run.board = ProgressBoard(lambda: now[0])
    processor = ScriptedProcessor()

    for at, line in (
        (0, "scanfleet_stage: read"),
        (2, "scanfleet_stage: align"),
        (5, "scanfleet_stage: read"),
    ):
        now[0] = float(at)
        run.board.update(processor.read_line(line))
    run.board.update(processor.read_line("scanfleet_progress: 50"))
    run.board.update(processor.read_line("scanfleet_progress: 10"))
    now[0] = 6.0

    assert run.board.current() == (50.0, "read")
    assert run.board.finish() == {"read": 3.0, "align": 3.0}
    run.log.close()


def test_a_program_with_endless_stages_does_not_outgrow_its_record():
    now = [0.0]
    board = ProgressBoard(lambda: now[0])
    for number in range(1000):
        board.update(Progress(stage=f"file {number}"))
        now[0] += 1.0

    seconds = board.finish()

    assert len(seconds) == MAX_STAGES + 1
    assert sum(seconds.values()) == 1000


def test_an_adapter_that_stumbles_over_lines_does_not_block_the_program(run, monkeypatch, caplog):
    def stumble(self, line):
        raise ValueError(line)

    monkeypatch.setattr(ScriptedProcessor, "read_line", stumble)
    run.script("for _ in range(100_000): print('a line long enough to fill a pipe soon')")

    assert len(run.output.splitlines()) == 100_000
    stumbles = [record for record in caplog.records if record.action == "line_not_understood"]
    assert len(stumbles) == MAX_STUMBLES_LOGGED
