"""Stand-in programs of known scaling: real processes, whose pace is set by wall time and not by this machine.

Programs that run side by side see each other in a shared folder. Of `parallel` of them each works at full
pace; more share that pace. Each holds `memory_bytes`, from the `grows_from`-th on `grown_bytes`.
"""

import json
import sys
from pathlib import Path

import psutil

from scanfleet.contract import Pool
from scanfleet.errors import InvalidRequest
from scanfleet.processors.base import Invocation, Processor

PROGRAM = """
import json, os, pathlib, sys, time
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
active = pathlib.Path(config["active"])
me = active / str(os.getpid())
me.touch()
def lives(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False  # it was killed, and could not take its file away
    return True
held = bytearray(config["memory_bytes"])
held[::4096] = b"x" * len(held[::4096])
left, before = config["seconds"], time.monotonic()
try:
    while left > 0:
        time.sleep(0.01)
        count = sum(lives(int(name)) for name in os.listdir(active))
        with open(config["most"], "a") as most:
            most.write(f"{count} ")
        if config["fails_from"] and count >= config["fails_from"]:
            print("scanfleet_fail: too many of us", flush=True)
            sys.exit(3)
        if config["grows_from"] and count >= config["grows_from"] and len(held) < config["grown_bytes"]:
            held.extend(b"x" * 2**23)
        now = time.monotonic()
        left -= (now - before) * min(1.0, config["parallel"] / max(1, count))
        before = now
finally:
    me.unlink()
"""


class ScalingProcessor(Processor):
    """Settings: seconds (of one alone), parallel, memory_bytes, grows_from, grown_bytes, fails_from."""

    name = "scaling"
    pool = Pool.LINUX_CPU
    input_kinds = "text"

    def __init__(self, shared: Path) -> None:
        self.active = shared / "active"
        self.most = shared / "most.txt"
        self.active.mkdir(parents=True)
        self.most.touch()

    @property
    def most_side_by_side(self) -> int:
        """The most programs that any of them ever saw, itself included."""
        return max(map(int, self.most.read_text().split()), default=0)

    def running(self) -> list[int]:
        """The process ids of those that run."""
        return [pid for path in self.active.iterdir() if psutil.pid_exists(pid := int(path.name))]

    def validate_settings(self, raw):
        if unknown := set(raw) - {
            "seconds", "parallel", "memory_bytes", "grows_from", "grown_bytes", "fails_from",
        }:  # fmt: skip
            raise InvalidRequest.of("settings", f"unknown: {unknown}")
        return dict(raw)

    def accepts(self, key):
        return key.endswith(".txt")

    def check_ready(self):
        return None

    def prepare(self, job, folders):
        defaults = {
            "seconds": 0.3,
            "parallel": 64,
            "memory_bytes": 0,
            "grows_from": 0,
            "grown_bytes": 0,
            "fails_from": 0,
        }
        config = folders.work / "config.json"
        places = {"active": str(self.active), "most": str(self.most)}
        config.write_text(json.dumps(defaults | job.settings | places))
        program = folders.work / "program.py"
        program.write_text(PROGRAM)
        return Invocation(argv=(sys.executable, "-I", "-S", str(program), str(config)), cwd=folders.work)
