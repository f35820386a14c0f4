"""Fifty jobs that end in every way, on a local system whose program does what a job's settings say.

python -m tests.support.mixed_jobs agent|api     the product's own processes, which know that program
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.processors.base import Processor, ProgramExit
from scanfleet.processors.medit_autotest import PROGRAM
from scanfleet.processors.release_source import FixedRelease
from tests.faults import hurry
from tests.faults.processor import DEFAULTS, NAME, REGISTER, CampaignProcessor

__all__ = ["AGENT", "API", "CANCELLED", "DEFAULTS", "FIFTY", "NAME", "REGISTER", "make_register"]

AGENT, API = "tests.support.mixed_agent", "tests.support.mixed_api"
BAD_INPUT_CODE = 65
EVER = 9
"""More runs than a job has attempts."""
CANCELLED = "cancelled"
"""Tag of jobs that are cancelled while they run."""

FIFTY: tuple[tuple[int, dict[str, Any], dict[str, Any]], ...] = (
    (12, {"seconds": 0.2}, {}),
    (6, {"mode": "busy", "seconds": 0.6, "file_bytes": 20_000}, {"priority": "high"}),
    (4, {"mode": "crash", "how": -11, "times": 1}, {}),
    (6, {"seconds": 0.3, "files": 12}, {}),
    (1, {"mode": "memory", "times": 1}, {}),
    (4, {"seconds": 60}, {"tags": {CANCELLED: "yes"}}),
    (2, {"mode": "hang_middle", "times": 1}, {"time_limit": timedelta(seconds=2)}),
    (6, {"seconds": 0.2}, {}),
    (1, {"mode": "hang_start", "times": EVER}, {"time_limit": timedelta(seconds=1)}),
    (2, {"mode": "crash", "how": BAD_INPUT_CODE, "times": EVER}, {}),
    (6, {"mode": "crash", "how": 3, "times": EVER}, {}),
)
"""How many, the program's settings, the job's: together 50. The failing ones come last, so that they meet."""


class MixedProcessor(CampaignProcessor):
    """The campaign's program, which may also find its input wrong."""

    @contextmanager
    def pinned(self) -> Iterator[Processor]:
        yield self

    def explain_exit(self, program_exit: ProgramExit) -> JobFailure | None:
        if program_exit.exit_code == BAD_INPUT_CODE:
            return JobFailure(FailureClass.BAD_INPUT, "no scans in it", exit_code=BAD_INPUT_CODE)
        return super().explain_exit(program_exit)


def make_register(folder: Path) -> Path:
    """Make the folder that programs register in; it holds what stands for their release, too."""
    folder.mkdir(parents=True)
    (folder / PROGRAM).parent.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_text("release 1")
    return folder


def known(folder: str) -> dict[str, Processor]:
    """Return what API and agents know."""
    return {NAME: MixedProcessor(FixedRelease(Path(folder)))}


def install(folder: str) -> None:
    """Make this process know the program; an agent also learns at once, and soon trusts itself again."""
    from scanfleet.agent.breaker import BreakerRules
    from scanfleet.history import RunHistory
    from scanfleet.processors import registry

    hurry.set_constants(
        registry, known_processors=lambda *_: known(folder), pool_processors=lambda *_: known(folder)
    )
    second = timedelta(seconds=1)
    waits = RunHistory.__init__.__kwdefaults__
    assert waits["reread"] > second, "past runs are read again some other way"
    waits["reread"] = second
    hurry.set_defaults(
        BreakerRules, look=second / 2, pause=second, longest_pause=2 * second, decide_within=4 * second
    )


assert sum(count for count, _, _ in FIFTY) == 50, sys.modules[__name__]
