"""How agents call the campaign's program."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, Job
from scanfleet.processors.base import AttemptFolders, Invocation, Processor, ProgramExit
from scanfleet.processors.medit_autotest import PROGRAM
from scanfleet.processors.release_source import FixedRelease, ReleaseSource
from tests.faults import program

NAME = "campaign"
REGISTER = "FAULTS_REGISTER"
"""Environment variable: the folder where programs register themselves."""
DEFAULTS: dict[str, Any] = {
    "mode": "normal",
    "seconds": 0.1,
    "files": 3,
    "file_bytes": 200,
    "times": 0,
    "how": 0,
}


class CampaignProcessor(Processor):
    """Settings: see `program.py`."""

    def __init__(self, releases: ReleaseSource | None = None) -> None:
        self._releases = releases

    name = NAME
    pool = Pool.LINUX_CPU
    input_kinds = "anything"
    stages = frozenset({"work"})

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return DEFAULTS | dict(raw)

    def accepts(self, key: str) -> bool:
        return True

    def check_ready(self) -> None:
        with self._source().pin():
            return

    @contextmanager
    def pinned(self) -> Iterator[Processor]:
        with self._source().pin() as release:
            run = CampaignProcessor(FixedRelease(release.folder))
            run.release = release.version
            yield run

    def _source(self) -> ReleaseSource:
        assert self._releases is not None, "the API runs no programs"
        return self._releases

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        paths = {name: str(getattr(folders, name)) for name in ("input", "output", "work")}
        facts = {"job_id": job.job_id, "attempt": job.attempt, "register": os.environ[REGISTER]}
        with self._source().pin() as release:
            facts["release_file"] = str(release.folder / PROGRAM)
        config = folders.work / "config.json"
        config.write_text(json.dumps(job.settings | paths | facts))
        argv = (sys.executable, "-I", "-S", program.__file__, str(config))
        return Invocation(argv=argv, cwd=Path(folders.work))

    def explain_exit(self, program_exit: ProgramExit) -> JobFailure | None:
        if program_exit.exit_code == program.OUT_OF_MEMORY_CODE:
            return JobFailure(FailureClass.OUT_OF_MEMORY, "out of memory", exit_code=program_exit.exit_code)
        return super().explain_exit(program_exit)


def processors(releases: ReleaseSource | None = None) -> dict[str, Processor]:
    """Return what API and agents of the campaign know. releases: an agent's."""
    return {NAME: CampaignProcessor(releases)}
