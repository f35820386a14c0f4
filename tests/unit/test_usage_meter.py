"""Sums of what a program has used: means by time, peaks over half a second at least."""

import sys
from datetime import timedelta

import pytest

from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.errors import JobFailure
from scanfleet.processors.base import Invocation
from tests.support.program_run import ProgramRun

NOTHING = {"cpu_seconds": 0.0, "io_bytes": 0, "memory_bytes": 0}


def test_nothing_is_known_before_the_first_look():
    assert UsageMeter().usage() is None


def test_cpu_is_of_one_core_and_its_mean_is_by_time():
    meter = UsageMeter()
    meter.add(2.0, cpu_seconds=8.0, io_bytes=100, memory_bytes=1000)
    meter.add(10.0, cpu_seconds=0.0, io_bytes=50, memory_bytes=3000)
    usage = meter.usage()

    assert (usage.seconds, usage.cpu_percent_mean, usage.cpu_percent_peak) == (10.0, 80.0, 400.0)
    assert (usage.memory_bytes_mean, usage.memory_bytes_peak) == (2600, 3000)
    assert usage.io_bytes == 150


def test_looks_close_together_make_no_peak_of_their_own():
    meter = UsageMeter()
    meter.add(0.01, **NOTHING | {"cpu_seconds": 0.04})  # a tick of four threads at once
    meter.add(1.0, **NOTHING)

    assert meter.usage().cpu_percent_peak == 4.0


def test_a_gpu_that_is_not_asked_is_not_known_and_not_zero():
    meter = UsageMeter()
    meter.add(1.0, **NOTHING)
    usage = meter.usage()

    assert usage.gpu_percent_mean is usage.gpu_percent_peak is usage.gpu_memory_bytes_peak is None
    assert usage.disk_bytes_peak is None


def test_gpu_disk_and_memory_peaks_are_the_highest_that_was_seen():
    meter = UsageMeter()
    for at, gpu, memory, disk in ((1.0, 90.0, 500, 70), (3.0, 30.0, 900, None), (4.0, None, None, 60)):
        meter.add(at, **NOTHING, gpu_percent=gpu, gpu_memory_bytes=memory, disk_bytes=disk)
    usage = meter.usage()

    assert (usage.gpu_percent_mean, usage.gpu_percent_peak) == (50.0, 90.0)
    assert (usage.gpu_memory_bytes_peak, usage.disk_bytes_peak) == (900, 70)


def test_the_systems_own_account_tells_of_a_run_that_nobody_looked_at():
    meter = UsageMeter()
    meter.ended(0.5, cpu_seconds=1.0, memory_bytes=700)
    usage = meter.usage()

    assert (usage.seconds, usage.cpu_percent_mean, usage.cpu_percent_peak) == (0.5, 200.0, 200.0)
    assert usage.memory_bytes_peak == 700


def test_the_systems_own_account_adds_what_came_after_the_last_look():
    meter = UsageMeter()
    meter.add(2.0, cpu_seconds=1.0, io_bytes=5, memory_bytes=4000)
    meter.ended(4.0, cpu_seconds=3.0, memory_bytes=900)
    usage = meter.usage()

    assert (usage.seconds, usage.cpu_percent_mean) == (4.0, 75.0)
    assert (usage.memory_bytes_mean, usage.memory_bytes_peak) == (4000, 4000)


def test_an_account_that_knows_less_than_the_looks_takes_nothing_away():
    meter = UsageMeter()
    meter.add(2.0, cpu_seconds=4.0, io_bytes=5, memory_bytes=4000)
    meter.ended(2.0, cpu_seconds=1.0)

    assert meter.usage().cpu_percent_mean == pytest.approx(200.0)


BURN = """
import subprocess, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
if len(sys.argv) == 1:
    block = bytearray(60_000_000)
    child = subprocess.run([sys.executable, __file__, "child"])
else:
    burn(0.4)
"""


def test_a_run_that_ends_before_the_first_look_has_the_systems_account(tmp_path):
    script = tmp_path / "burn.py"
    script.write_text(BURN)
    run, meter = ProgramRun(tmp_path), UsageMeter()
    invocation = Invocation(argv=(sys.executable, str(script)), cwd=tmp_path, env={})

    run.invoke(invocation, usage=meter)  # its watch counts nothing

    usage = meter.usage()
    assert usage.cpu_percent_mean * usage.seconds / 100 >= 0.35  # its child's, rounded to tenths of seconds
    assert usage.memory_bytes_peak > 60_000_000


def test_a_program_that_is_killed_has_an_account_too(tmp_path):
    run, meter = ProgramRun(tmp_path), UsageMeter()
    invocation = Invocation(argv=(sys.executable, "-c", "while True: pass"), cwd=tmp_path, env={})

    with pytest.raises(JobFailure):
        run.invoke(invocation, time_limit=timedelta(seconds=0.5), usage=meter)

    assert meter.usage().cpu_percent_mean > 0
