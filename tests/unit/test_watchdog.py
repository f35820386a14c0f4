"""The watchdog over real programs, with budgets of seconds; and its words to evidence and history."""

import sys
import textwrap
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from scanfleet.agent.budgets import Budgets, StageBudget
from scanfleet.agent.dialogs import Dialog
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.runner import ProgramStopped
from scanfleet.agent.stopping import StopReason
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.watchdog import SAMPLES_KEPT, Watchdog
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.processors.base import Invocation
from tests.support.program_run import ProgramRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests' programs run under the guardian")

NEVER = timedelta(minutes=3)
"""A limit that only a broken watchdog lets a test reach."""
WORK = "deadline = time.process_time() + {seconds}\nwhile time.process_time() < deadline: pass\n"

WORK_CHILD = "import time\n" + WORK.format(seconds=4)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


class Evidence:
    """Keeps what it is given. does_save: what it answers."""

    def __init__(self, *, does_save: bool = True) -> None:
        self.does_save = does_save
        self.saved: list[dict[str, object]] = []

    def save(self, reason, *, program, samples, gpu):
        alive = program.process_ids()
        self.saved.append({"reason": reason, "alive": alive, "samples": samples, "gpu": gpu and gpu()})
        return self.does_save


class Gpus:
    """GPUs that are as busy as they are told to be."""

    def __init__(self, percent: float = 0.0) -> None:
        self.busy = percent

    def percent(self, pids):
        return self.busy if pids else None

    def memory_bytes(self, pids):
        return 3_000_000 if pids else None

    def state(self):
        return {"driver": "1.2"}


class WatchedRun(ProgramRun):
    """A Python script under the runner, with a watchdog."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, grace=0.1)
        self.evidence = Evidence()
        self.output_folder = folder / "out"
        self.output_folder.mkdir()
        self.watch: Watchdog | None = None

    def watched(
        self, source: str, budgets: Budgets, *, gpus: Gpus | None = None, dialogs=None, **more
    ) -> None:
        """Run the script to its end; `time` and `sys` are imported. Raises JobFailure."""
        self.watch = Watchdog(
            budgets,
            program_log=self.log,
            board=self.board,
            growth=FolderGrowth(self.output_folder),
            gpus=gpus,
            evidence=self.evidence,
            dialogs=dialogs or (lambda pids: ()),
            **more,
        )
        script = "import os, sys, time\n" + textwrap.dedent(source)
        argv = (sys.executable, "-u", "-c", script)
        self.invoke(Invocation(argv=argv, cwd=self.output_folder), watch=self.watch)

    def failure(self, source: str, budgets: Budgets, **options) -> JobFailure:
        """Return the hang that the script is ended for."""
        with pytest.raises(JobFailure) as caught:
            self.watched(source, budgets, **options)
        assert caught.value.failure_class is FailureClass.HANG
        return caught.value


@pytest.fixture
def run(tmp_path):
    return WatchedRun(tmp_path)


def budgets(**limits: timedelta) -> Budgets:
    """Return budgets that nothing reaches, but for those given."""
    never = {"total": NEVER, "startup": NEVER, "idle": NEVER, "finish": NEVER}
    return Budgets(**(never | limits))


def test_a_hang_at_the_start_is_ended_by_the_start_up_budget(run):
    failure = run.failure("time.sleep(600)", budgets(startup=seconds(2)))

    assert "did nothing after its start" in failure.reason
    assert failure.has_evidence


def test_a_hang_in_the_middle_is_ended_by_the_idle_budget(run):
    source = f"print('scanfleet_stage: align')\n{WORK.format(seconds=0.3)}\ntime.sleep(600)"
    failure = run.failure(source, budgets(idle=seconds(2)))

    assert "stood still in stage 'align'" in failure.reason
    assert failure.has_evidence


def test_a_hang_at_the_end_is_ended_by_the_finish_budget(run):
    source = "print('scanfleet_progress: 100')\nopen('result', 'w').write('x' * 100000)\ntime.sleep(600)"
    failure = run.failure(source, budgets(finish=seconds(2)))

    assert "reported 100 % but did not end" in failure.reason


def test_a_program_that_computes_in_silence_is_healthy(run):
    limits = budgets(startup=seconds(1), idle=seconds(1), finish=seconds(1))

    run.watched(WORK.format(seconds=4), limits)

    assert run.evidence.saved == []


def test_a_program_that_waits_for_a_busy_child_is_healthy(run):
    source = f"""
        import subprocess
        subprocess.run([sys.executable, "-c", {WORK_CHILD!r}], check=True)
    """
    run.watched(source, budgets(startup=seconds(1), idle=seconds(1)))

    assert run.evidence.saved == []


def test_a_program_that_left_its_work_to_an_orphan_is_healthy(run):
    source = f"""
        import subprocess
        middle = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
        subprocess.run([sys.executable, "-c", middle, {WORK_CHILD!r} + "open('done', 'w').write('yes')"])
        while not os.path.exists("done"):
            time.sleep(0.5)
    """
    run.watched(source, budgets(startup=seconds(1.5), idle=seconds(1.5)))

    assert (run.output_folder / "done").read_text() == "yes"
    assert run.evidence.saved == []


def test_a_program_that_only_writes_is_healthy(run):
    source = """
        deadline = time.monotonic() + 4
        with open("result", "wb", buffering=0) as file:
            while time.monotonic() < deadline:
                file.write(b"x" * 50_000)
                time.sleep(0.2)
    """
    run.watched(source, budgets(startup=seconds(1), idle=seconds(1)))

    assert run.evidence.saved == []


def test_a_program_that_waits_for_its_gpu_is_healthy(run):
    source = "time.sleep(3)"

    run.watched(source, budgets(startup=seconds(1), idle=seconds(1)), gpus=Gpus(97.0))

    assert run.evidence.saved == []


def test_a_program_that_talks_for_ever_is_ended_by_its_limits_and_not_before(run):
    source = """
        print("scanfleet_stage: wait")
        while True:
            print("waiting")
            time.sleep(0.1)
    """
    limits = Budgets(total=NEVER, idle=seconds(1), stages={"wait": StageBudget(total=seconds(3))})
    failure = run.failure(source, limits)

    assert "in stage 'wait' longer than that stage's limit of 3 s" in failure.reason


def test_dots_without_a_newline_are_words(run):
    source = """
        for _ in range(30):
            print(".", end="")
            time.sleep(0.1)
    """
    run.watched(source, budgets(startup=seconds(1), idle=seconds(1)))

    assert run.evidence.saved == []


def test_a_program_that_spins_is_ended_by_its_total(run):
    failure = run.failure("while True: pass", budgets(total=seconds(2), idle=seconds(1)))

    assert "longer than its limit of 2 s" in failure.reason


def test_a_program_that_is_stopped_by_a_debugger_stands_still(run):
    source = f"{WORK.format(seconds=0.2)}\nprint('now')\nimport signal; os.kill(os.getpid(), signal.SIGSTOP)"
    failure = run.failure(source, budgets(idle=seconds(2)))

    assert "stood still" in failure.reason


def test_evidence_is_saved_while_the_program_lives_with_samples_and_gpu(run):
    failure = run.failure("time.sleep(600)", budgets(startup=seconds(1)), gpus=Gpus())

    (saved,) = run.evidence.saved
    assert saved["reason"] == failure.reason
    assert saved["alive"], "the program was gone already"
    assert saved["gpu"] == {"driver": "1.2"}
    assert 2 <= len(saved["samples"]) <= SAMPLES_KEPT
    assert [sample.at for sample in saved["samples"]] == sorted(sample.at for sample in saved["samples"])
    assert saved["samples"][-1].processes == 1
    assert saved["samples"][-1].resident_bytes > 1_000_000


def test_a_hang_without_saved_evidence_says_so(run):
    run.evidence = Evidence(does_save=False)

    assert not run.failure("time.sleep(600)", budgets(startup=seconds(1))).has_evidence


def test_a_window_that_nobody_can_answer_ends_a_program_at_once(run):
    def dialogs(pids):
        return tuple(Dialog(pid, "Medit - Application Error", "0xc0000005") for pid in pids)

    failure = run.failure("time.sleep(600)", budgets(), dialogs=dialogs)

    assert failure.reason.endswith("nobody can give: Medit - Application Error: 0xc0000005")


def test_a_system_that_does_not_tell_of_windows_ends_nothing(run):
    def dialogs(pids):
        raise OSError("no desktop")

    run.watched("time.sleep(1)", budgets(), dialogs=dialogs)

    assert run.evidence.saved == []


class SilentDriver(Gpus):
    """A driver that does not answer before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.was_asked, self.may_answer = threading.Event(), threading.Event()

    def percent(self, pids):
        self.was_asked.set()
        self.may_answer.wait()
        return 0.0


@pytest.fixture
def silent_driver():
    driver = SilentDriver()
    yield driver
    driver.may_answer.set()


def ended_in_thread(run, source: str, limits: Budgets, **options) -> Exception | None:
    """Return how the run ended; a run that is held up fails the test, not the tests."""
    ends: list[Exception | None] = []

    def target() -> None:
        try:
            run.watched(source, limits, **options)
        except (JobFailure, ProgramStopped) as error:
            ends.append(error)
        else:
            ends.append(None)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(60)
    assert ends, "the run is held up"
    return ends[0]


def test_a_driver_that_never_answers_holds_no_cancel_up(run, silent_driver):
    def cancel() -> None:
        assert silent_driver.was_asked.wait(60)
        run.stop.set(StopReason.CANCELLED)

    threading.Thread(target=cancel, daemon=True).start()

    end = ended_in_thread(run, "time.sleep(600)", budgets(), gpus=silent_driver)

    assert isinstance(end, ProgramStopped)


def test_a_driver_that_never_answers_leaves_the_total(run, silent_driver):
    limits = budgets(total=seconds(1), startup=seconds(0.5))

    end = ended_in_thread(run, "time.sleep(600)", limits, gpus=silent_driver, blind_after=seconds(0.5))

    assert "longer than its limit of 1 s" in str(end)


def test_a_driver_that_answers_nonsense_ends_nothing(run):
    class Confused(Gpus):
        def percent(self, pids):
            raise ValueError("not a number")

    run.watched("time.sleep(2)", budgets(startup=seconds(0.5)), gpus=Confused())

    assert run.evidence.saved == []


class Unmeasured:
    """A program whose system tells nothing of it."""

    pid = 1

    def process_ids(self):
        raise OSError("no /proc")


def test_a_system_that_tells_nothing_leaves_the_total(tmp_path, caplog):
    now = [0.0]
    log = ProgramLog(tmp_path / "log")
    watch = Watchdog(
        Budgets(total=seconds(600)),
        program_log=log,
        board=ProgressBoard(lambda: now[0]),
        growth=FolderGrowth(tmp_path, clock=lambda: now[0]),
        clock=lambda: now[0],
    )
    while (failure := watch.look(Unmeasured())) is None:
        now[0] += 2
    log.close()

    assert now[0] == 600
    assert failure.failure_class is FailureClass.HANG
    assert [record.action for record in caplog.records].count("usage_unknown") == 1


def test_a_completed_run_is_told_with_its_seconds_and_stages(tmp_path):
    now, told = [100.0], []
    log = ProgramLog(tmp_path / "log")
    watch = Watchdog(
        Budgets(total=NEVER),
        program_log=log,
        board=ProgressBoard(time.monotonic),
        growth=FolderGrowth(),
        on_completed=lambda spent, stages, since_end: told.append((spent, stages, since_end)),
        clock=lambda: now[0],
    )
    now[0] += 50
    watch.completed({"align": 30.0}, since_end=8.0)
    log.close()

    assert told == [(42.0, {"align": 30.0}, 8.0)]
