"""A scripted program and its processor: does what the job's settings say."""

import json
import sys
from pathlib import Path

from scanfleet.contract import Pool
from scanfleet.processors.base import Invocation, Processor

PROGRAM = """
import json, os, pathlib, sys, time
config = json.loads(pathlib.Path(sys.argv[1]).read_text())
output = pathlib.Path(config["output"])
pathlib.Path(config["marker"] or os.devnull).write_text(str(os.getpid()))
print("scanfleet_stage: work", flush=True)
print("scanfleet_progress: 10", flush=True)
if config["hold"]:
    # Works until the file appears.
    while not pathlib.Path(config["hold"]).exists():
        time.sleep(0.01)
for name, text in config["files"].items():
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text(text)
print("inputs", sorted(os.listdir(config["input"])), flush=True)
print("scanfleet_progress: 100", flush=True)
sys.exit(config["exit_code"])
"""


class ScriptedProcessor(Processor):
    """Settings: files {name: text} to write, exit_code, hold (wait for this file), marker (write own pid)."""

    name = "scripted"
    pool = Pool.LINUX_CPU
    input_kinds = "anything"

    def validate_settings(self, raw):
        return dict(raw)

    def accepts(self, key):
        return True

    def check_ready(self):
        return None

    def prepare(self, job, folders):
        defaults = {"files": {"result.txt": "done"}, "exit_code": 0, "hold": "", "marker": ""}
        paths = {"input": str(folders.input), "output": str(folders.output)}
        config = folders.work / "config.json"
        config.write_text(json.dumps(defaults | job.settings | paths))
        program = folders.work / "program.py"
        program.write_text(PROGRAM)
        return Invocation(argv=(sys.executable, str(program), str(config)), cwd=Path(folders.work))
