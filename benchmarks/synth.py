"""How long the templates and their checks take: what an engineer waits for at each change of infrastructure.

A new process each time, as at the command line. The infrastructure's tests are counted in validated synths,
so that the bar holds on slow machines too.
"""

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Cost, Row, interleaved, run_child

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
APP_BAR_SECONDS = 3.0
VALIDATED_BAR_SECONDS = 25.0
SUITE_BAR = 3.0
INFRASTRUCTURE_TESTS = ("tests/synth",)


def rows() -> list[Row]:
    """Return the seconds of a synth without and with every rule, and of the infrastructure's tests."""
    costs = interleaved({"plain": _plain_synth, "validated": _validated_synth}, runs=ROUNDS)
    suite = _suite()
    return [
        Row.limit("python app.py, rules off", costs["plain"].seconds, "s", at_most=APP_BAR_SECONDS),
        Row.limit("cdk synth, every rule on", costs["validated"].seconds, "s", at_most=VALIDATED_BAR_SECONDS),
        Row.against(
            "every test of the infrastructure",
            suite.seconds,
            "s",
            peer="one validated synth",
            peer_value=costs["validated"].seconds,
            at_most=SUITE_BAR,
        ),
    ]


def _plain_synth() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment() | {"CDK_VALIDATION": "false", "CDK_OUTDIR": folder}
        return run_child([sys.executable, "app.py"], env=environment, cwd=ROOT)[0]


def _validated_synth() -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        command = ["node_modules/.bin/cdk", "synth", "--quiet", "--output", folder]
        return run_child(command, env=_environment(), cwd=ROOT)[0]


def _suite() -> Cost:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *INFRASTRUCTURE_TESTS]
    return run_child(command, env=_environment(), cwd=ROOT, timeout_seconds=600)[0]


def _environment() -> dict[str, str]:
    return {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
