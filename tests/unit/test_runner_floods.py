"""Programs that print without measure: none blocks, and the agent's memory does not grow with it.

Each flood runs under an agent's runner in a process of its own, which tells how much memory it took at most.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scanfleet.agent.output import LAST_LINES, MAX_LINE_BYTES, MAX_LOG_BYTES, ProgramLog

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the floods run under the guardian")

MEMORY_BYTES = 64 * 2**20
"""More than the buffers of two pipes and the last lines; far less than any of the floods."""
MEASURE = """
import json, resource, sys
from datetime import timedelta
from pathlib import Path
from tests.support.program_run import ProgramRun

run = ProgramRun(Path.cwd())
run.script("pass")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux: KiB, getrusage(2)
before = peak()
run = ProgramRun(Path.cwd())
run.script(sys.argv[1], time_limit=timedelta(minutes=9))
print(json.dumps({
    "grown_bytes": peak() - before,
    "printed_bytes": run.log.printed_bytes,
    "log_bytes": run.log.path.stat().st_size,
    "percent": run.board.current()[0],
    "last": run.log.last_lines()[-1],
}))
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def flooded(tmp_path):
    def flood(program: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, program],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["grown_bytes"] < MEMORY_BYTES
        assert facts["log_bytes"] <= MAX_LOG_BYTES + MAX_LINE_BYTES
        return facts

    return flood


def test_a_gigabyte_on_standard_error_neither_blocks_the_program_nor_fills_the_agent(flooded):
    facts = flooded(
        "import os, sys\n"
        "block = (b'x' * 1023 + b'\\n') * 1024\n"
        "for _ in range(1024):\n"
        "    os.write(2, block)\n"
        "print('scanfleet_progress: 100')"
    )

    assert facts["printed_bytes"] >= 2**30
    assert facts["percent"] == 100  # whatever the log no longer takes, progress is read


def test_a_hundred_megabytes_without_a_newline_are_cut_into_lines(flooded):
    facts = flooded("import os\nfor _ in range(100):\n    os.write(1, b'x' * 2**20)")

    assert facts["printed_bytes"] == 100 * 2**20
    assert facts["last"] == "x" * MAX_LINE_BYTES


def test_a_hundred_megabytes_of_noise_become_text(flooded):
    facts = flooded(
        "import os\n"
        "for _ in range(100):\n"
        "    os.write(1, os.urandom(2**20))\n"
        "os.write(1, b'\\0\\xff\\xfe\\0 end\\n')"
    )

    assert facts["printed_bytes"] > 100 * 2**20
    assert facts["last"].endswith("?\ufffd\ufffd? end")


def test_both_pipes_flood_at_once(flooded):
    facts = flooded(
        "import os, threading\n"
        "def flood(pipe):\n"
        "    for _ in range(64):\n"
        "        os.write(pipe, (b'y' * 99 + b'\\n') * 10240)\n"
        "threads = [threading.Thread(target=flood, args=(pipe,)) for pipe in (1, 2)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]"
    )

    assert facts["printed_bytes"] == 2 * 64 * 10240 * 100


def test_the_last_lines_are_at_hand_when_the_file_takes_no_more(tmp_path):
    log = ProgramLog(tmp_path / "program.log", max_bytes=100)
    for number in range(1000):
        log.write(b"line %d\0" % number)
    log.close()

    lines = log.last_lines()

    assert len(lines) == LAST_LINES
    assert lines[-1] == "line 999?"
    assert "line 500" not in log.path.read_text()
