"""An agent like any other, whose one processor runs a program that does nothing but say when it started."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanfleet.agent.main import serve
from scanfleet.contract import Component, Pool
from scanfleet.jobs import Job
from scanfleet.log_setup import configure_logging
from scanfleet.processors.base import AttemptFolders, Invocation, Processor
from scanfleet.settings import AgentSettings, load

PROGRAM = "import sys, time; open(sys.argv[1], 'w').write(repr(time.time()))"
STARTED_NAME = "started.txt"


def command(output: Path) -> tuple[str, ...]:
    """Return the no-op's command line."""
    return (sys.executable, "-c", PROGRAM, str(output / STARTED_NAME))


class NoOp(Processor):
    """Writes the epoch seconds of its start."""

    name = "noop"
    pool = Pool.LINUX_CPU
    input_kinds = "anything"

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Take everything."""
        return dict(raw)

    def accepts(self, key: str) -> bool:
        """Take everything."""
        return True

    def check_ready(self) -> None:
        """Need nothing."""

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Return the command line."""
        return Invocation(argv=command(folders.output), cwd=folders.work)


if __name__ == "__main__":
    settings = load(AgentSettings)
    configure_logging(Component.AGENT, settings.log_level, stage=settings.stage)
    serve(settings, {NoOp.name: NoOp()})
