"""The supervisor of the local mode, with real child processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from scanfleet.local.processes import Death, LocalModeError, Processes, last_lines

GENEROUS_SECONDS = 30
ENV = {"PATH": os.defpath}
OBEDIENT = "print('ready', flush=True); import signal; signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]); {OBEDIENT}"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for_text(log_file: Path, text: str) -> None:
    give_up = threading.Event()
    for _ in range(GENEROUS_SECONDS * 100):
        if log_file.exists() and text in log_file.read_text():
            return
        give_up.wait(0.01)
    pytest.fail(f"{log_file} never said {text!r}: {last_lines(log_file)}")


def wait_until_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(GENEROUS_SECONDS)
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def log_file(tmp_path):
    return tmp_path / "logs" / "child.log"


def test_a_child_gets_exactly_the_environment_it_was_given_and_writes_to_its_log(log_file):
    # given a supervisor
    with Processes() as processes:
        # when a child prints its environment
        code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), flush=True)"
        child = processes.start("child", python(code), env=ENV | {"ONLY": "this"}, log_file=log_file)
        child.ended.wait(GENEROUS_SECONDS)

    # then nothing of ours leaked into it
    assert log_file.read_text() == "['ONLY', 'PATH']\n"


def test_a_child_that_ends_unasked_is_reported_with_its_last_words(log_file):
    # given a callback
    heard: list[Death] = []
    with Processes(on_death=heard.append) as processes:
        # when a child ends by itself
        code = "import sys; sys.exit('out of luck')"
        processes.start("agent-1", python(code), env=ENV, log_file=log_file)
        death = processes.wait_for_death(timedelta(seconds=GENEROUS_SECONDS))

        # then it is reported, with its name, its code and its log
        assert death == Death(name="agent-1", exit_code=1, log_file=log_file)
        assert heard == [death]
        with pytest.raises(LocalModeError, match=r"agent-1 ended \(1\)(.|\n)*out of luck"):
            processes.raise_if_dead()


def test_a_child_that_we_stop_is_no_death(log_file):
    with Processes() as processes:
        child = processes.start("api", python(OBEDIENT), env=ENV, log_file=log_file)
        wait_for_text(log_file, "ready")

        processes.stop("api")

        assert child.exit_code == -signal.SIGTERM
        processes.raise_if_dead()


def test_a_child_that_ignores_the_request_is_killed_after_the_grace_period(log_file):
    with Processes(stop_grace=timedelta(seconds=0.2)) as processes:
        child = processes.start("deaf", python(DEAF), env=ENV, log_file=log_file)
        wait_for_text(log_file, "ready")

        processes.stop_all()

        assert child.exit_code == -signal.SIGKILL


def test_children_stop_in_reverse_order_of_their_start(tmp_path):
    # given three children that write down when they were asked to stop
    order = tmp_path / "order"
    with Processes() as processes:
        for name in ("emulator", "api", "agent"):
            code = f"""
                import signal, sys
                def stop(*_):
                    with open({str(order)!r}, "a") as out: out.write("{name} ")
                    sys.exit()
                signal.signal(signal.SIGTERM, stop)
                print("ready", flush=True)
                signal.pause()
            """
            log_file = tmp_path / name
            processes.start(name, python(textwrap.dedent(code)), env=ENV, log_file=log_file)
            wait_for_text(log_file, "ready")

        # when all are stopped, twice
        processes.stop_all()
        processes.stop_all()

    # then the last one started went first
    assert order.read_text() == "agent api emulator "


def test_what_a_child_left_running_ends_with_it(log_file):
    with Processes() as processes:
        child = processes.start("parent", python(PARENT), env=ENV, log_file=log_file)
        wait_for_text(log_file, "ready\nready")
        (grandchild,) = psutil.Process(child.pid).children()

        processes.stop_all()

        assert not grandchild.is_running()


def test_a_second_interrupt_while_stopping_kills_at_once(log_file):
    # given a child that does not stop and a grace period without end
    processes = Processes(stop_grace=timedelta(hours=1))
    child = processes.start("deaf", python(DEAF), env=ENV, log_file=log_file)
    wait_for_text(log_file, "ready")

    # when the user interrupts while it is being stopped
    interrupt = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        processes.stop_all()

    # then nothing is left
    assert child.exit_code == -signal.SIGKILL


def test_the_children_of_a_killed_supervisor_die_too(tmp_path):
    # given a supervisor in a process of its own, with a child that ignores requests to stop
    log_file = tmp_path / "child.log"
    code = f"""
        from pathlib import Path
        from scanfleet.local.processes import Processes
        child = Processes().start("c", {python(PARENT)!r}, env={ENV!r}, log_file=Path({str(log_file)!r}))
        print(child.pid, flush=True)
        child.ended.wait()
    """
    supervisor = subprocess.Popen(python(textwrap.dedent(code)), stdout=subprocess.PIPE, text=True)
    with supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        wait_for_text(log_file, "ready\nready")
        family = [pid, *(p.pid for p in psutil.Process(pid).children(recursive=True))]

        # when it is killed the hard way
        supervisor.kill()

    # then so is everything that it started
    for each in family:
        wait_until_gone(each)


def test_a_program_that_does_not_exist_is_a_clear_error(log_file):
    with Processes() as processes, pytest.raises(LocalModeError, match=r"api could not be started.*no/such"):
        processes.start("api", ["no/such/program"], env=ENV, log_file=log_file)


def test_the_last_lines_of_a_log_that_is_not_there_say_so(tmp_path):
    assert last_lines(tmp_path / "none.log") == "(no log: No such file or directory)"
