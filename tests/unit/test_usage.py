"""What a process tree uses, measured on real processes; and how folders grow."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scanfleet.agent.usage import FolderGrowth, Totals, TreeMeter, TreeUsage

MEGABYTE = 1_000_000
WORK = "import time\ndeadline = time.process_time() + {seconds}\nwhile time.process_time() < deadline: pass\n"
OBEY = """
import subprocess, sys
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Tree:
    """A Python process that does what it is told, and everything below it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def process_ids(self) -> tuple[int, ...]:
        below = psutil.Process(self.pid).children(recursive=True)
        return (self.pid, *(child.pid for child in below))

    def do(self, statement: str) -> None:
        """Have the process run one line of Python, and wait until it has."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def started() -> Iterator[Tree]:
    process = subprocess.Popen(
        [sys.executable, "-c", OBEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    tree = Tree(process)
    try:
        tree.do("pass")
        yield tree
    finally:
        for pid in reversed(tree.process_ids()):
            with suppress(psutil.Error):
                psutil.Process(pid).kill()
        process.communicate()


@pytest.fixture
def tree():
    with started() as tree:
        yield tree


def test_the_first_measurement_counts_from_the_start(tree):
    tree.do("sum(range(10_000_000))")
    usage = TreeMeter(tree).measure()

    assert usage.cpu_seconds > 0
    assert usage.pids == (tree.pid,)
    assert usage.resident_bytes > MEGABYTE


def test_a_process_that_sleeps_uses_nothing(tree):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do("import time; time.sleep(0.5)")

    usage = meter.measure()

    assert usage.cpu_seconds <= 0.05
    assert usage.io_bytes < 10_000


def test_work_is_counted_once(tree):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do(f"exec({WORK.format(seconds=0.5)!r})")

    assert 0.4 < meter.measure().cpu_seconds < 0.8
    assert meter.measure().cpu_seconds < 0.1


def test_a_child_counts_while_it_works(tree):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do(f"child = subprocess.Popen([sys.executable, '-c', {WORK.format(seconds=0.5)!r} + 'input()'])")

    cpu, deadline = 0.0, time.monotonic() + 60
    while cpu < 0.4:
        assert time.monotonic() < deadline, f"only {cpu} s were counted"
        usage = meter.measure()
        cpu += usage.cpu_seconds
        time.sleep(0.05)

    assert len(usage.pids) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a Job Object keeps these accounts itself")
def test_children_that_come_and_go_between_two_measurements_count(tree):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do(f"subprocess.run([sys.executable, '-c', {WORK.format(seconds=0.5)!r}])")

    usage = meter.measure()

    assert usage.pids == (tree.pid,)
    assert 0.4 < usage.cpu_seconds < 1.0


@pytest.mark.skipif(sys.platform == "win32", reason="a Job Object keeps these accounts itself")
def test_a_child_that_was_seen_is_not_counted_again_when_it_ends(tree):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do("read, write = __import__('os').pipe()")
    source = WORK.format(seconds=0.5) + "import sys; sys.stdin.read()"
    tree.do(f"child = subprocess.Popen([sys.executable, '-c', {source!r}], stdin=subprocess.PIPE)")
    cpu, deadline = 0.0, time.monotonic() + 60
    while cpu < 0.5:
        assert time.monotonic() < deadline, f"only {cpu} s were counted"
        cpu += meter.measure().cpu_seconds
        time.sleep(0.05)
    meter.measure()

    tree.do("child.communicate()")

    assert meter.measure().cpu_seconds < 0.3


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="this system does not count IO")
def test_written_bytes_count(tree, tmp_path):
    meter = TreeMeter(tree)
    meter.measure()
    tree.do(f"open({str(tmp_path / 'file')!r}, 'wb').write(bytes({MEGABYTE}))")

    assert MEGABYTE <= meter.measure().io_bytes < 2 * MEGABYTE


def test_a_tree_that_has_ended_uses_nothing():
    class Gone:
        pid = 0

        def process_ids(self):
            return (2**22 + 1,)  # above every process id of Linux

    assert TreeMeter(Gone()).measure() == TreeUsage(cpu_seconds=0, io_bytes=0, resident_bytes=0, pids=())


class Accounts:
    """A program whose system keeps its accounts, as a Job Object does."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.so_far = Totals(5.0, 1000)

    def process_ids(self):
        return (self.pid,)

    def totals(self):
        return self.so_far


def test_a_systems_own_accounts_are_believed():
    program = Accounts()
    meter = TreeMeter(program)
    first = meter.measure()
    program.so_far = Totals(7.5, 1600)
    second = meter.measure()

    assert (first.cpu_seconds, first.io_bytes) == (5.0, 1000)
    assert (second.cpu_seconds, second.io_bytes) == (2.5, 600)
    assert second.resident_bytes > MEGABYTE


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_growth_is_what_was_added_since_the_last_walk(tmp_path):
    clock = Clock()
    out, work = tmp_path / "out", tmp_path / "work"
    write(out / "before", 10)
    growth = FolderGrowth(out, work, clock=clock)
    write(out / "deep" / "er" / "a", 500)
    write(work / "b", 20)
    clock.now += 1

    assert growth.measure() == 520
    clock.now += 1
    assert growth.measure() == 0


def test_files_that_are_removed_are_a_sign_of_life(tmp_path):
    clock = Clock()
    write(tmp_path / "a", 500)
    growth = FolderGrowth(tmp_path, clock=clock)
    (tmp_path / "a").unlink()
    clock.now += 1

    assert growth.measure() == 500


def test_a_costly_walk_is_followed_by_a_long_pause(tmp_path):
    class Costly(Clock):
        def __call__(self) -> float:
            self.now += 1.0  # whatever is done takes a second
            return self.now

    clock = Costly()
    growth = FolderGrowth(tmp_path, clock=clock)
    growth.measure()
    write(tmp_path / "a", 500)

    measured = [growth.measure() for _ in range(490)]
    assert not any(measured)
    assert any(growth.measure() for _ in range(20)), "the next walk never came"


def test_a_folder_with_too_many_files_says_nothing(tmp_path):
    clock = Clock()
    for number in range(11):
        write(tmp_path / str(number), 10)
    growth = FolderGrowth(tmp_path, max_entries=10, clock=clock)
    write(tmp_path / "0", 1000)
    clock.now += 1

    assert growth.measure() == 0


def test_a_folder_that_is_not_there_does_not_grow(tmp_path):
    assert FolderGrowth(tmp_path / "none").measure() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_not_followed(tmp_path):
    clock = Clock()
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    (inside / "loop").symlink_to(inside)
    (inside / "away").symlink_to(outside)
    growth = FolderGrowth(inside, clock=clock)
    write(outside / "a", 500)
    clock.now += 1

    assert growth.measure() == 0
