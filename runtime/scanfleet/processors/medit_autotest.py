"""The closed Medit program: `Medit_AutoTest.exe --iScanComplete <config.json>`.

Its working directory is the release's folder. What it prints is its own affair and undocumented: the output
goes to the job's log, and only a percentage at a line's end is read as progress.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError
from scanfleet.jobs import Job
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, Invocation, Processor, Progress
from scanfleet.processors.release_source import FixedRelease, ReleaseSource

PROGRAM = "Medit_AutoTest.exe"
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)\s?%\s*$")


class MeditAutoTest(Processor):
    """Calls the program of the release that its source gives.

    releases: None on machines that do not run it, the API's among them.
    """

    name = "medit_autotest"
    pool = Pool.WINDOWS_GPU
    input_kinds = "any file; the program decides"

    def __init__(self, *, releases: ReleaseSource | None, allow_unknown_settings: bool = False) -> None:
        self._releases = releases
        self._allow_unknown = allow_unknown_settings

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return every key with its value; see `medit_settings.validate`."""
        return medit_settings.validate(raw, allow_unknown=self._allow_unknown)

    def settings_schema(self) -> dict[str, Any]:
        """Return the schema of every key; see `medit_settings.schema`."""
        return medit_settings.schema(allow_unknown=self._allow_unknown)

    def accepts(self, key: str) -> bool:
        """Accept every file: the program's formats are its own."""
        return True

    def check_ready(self) -> None:
        """Raise ConfigurationError when there is no release, or no program in it."""
        with self._source().pin() as release:
            _program(release.folder)

    @contextmanager
    def pinned(self) -> Iterator[Processor]:
        """Give a processor that stays with the release that is active now."""
        with self._source().pin() as release:
            run = MeditAutoTest(
                releases=FixedRelease(release.folder), allow_unknown_settings=self._allow_unknown
            )
            run.release = release.version
            yield run

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Write `config.json` into the input folder and return the command line."""
        with self._source().pin() as release:
            program = _program(release.folder)
        config = medit_settings.write_config(job.settings, folders)
        return Invocation(argv=(str(program), "--iScanComplete", str(config)), cwd=program.parent)

    def read_line(self, line: str) -> Progress | None:
        """Return the percentage that ends the line, if one does."""
        match = _PERCENT.search(line)
        if match is None or float(match[1]) > 100:
            return None
        return Progress(percent=float(match[1]))

    def _source(self) -> ReleaseSource:
        if self._releases is None:
            raise ConfigurationError(
                "neither SCANFLEET_MEDIT_RELEASES nor SCANFLEET_MEDIT_RELEASE_FOLDER is set; one of them says"
                f" where {PROGRAM} is"
            )
        return self._releases


def _program(folder: Path) -> Path:
    program = folder / PROGRAM
    if not program.is_file():
        raise ConfigurationError(f"the release has no program: there is no {program}")
    return program
