"""The closed Medit program: `Medit_AutoTest.exe --iScanComplete <config.json>`.

Its working directory is the release's folder. What it prints is its own affair and undocumented: the output
goes to the job's log, and only a percentage at a line's end is read as progress.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError
from scanfleet.jobs import Job
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, Invocation, Processor, Progress

PROGRAM = "Medit_AutoTest.exe"
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)\s?%\s*$")


class MeditAutoTest(Processor):
    """Calls the program of one release folder."""

    name = "medit_autotest"
    pool = Pool.WINDOWS_GPU
    input_kinds = "any file; the program decides"

    def __init__(self, *, release_folder: Path | None, allow_unknown_settings: bool = False) -> None:
        self._release_folder = release_folder
        self._allow_unknown = allow_unknown_settings

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return every key with its value; see `medit_settings.validate`."""
        return medit_settings.validate(raw, allow_unknown=self._allow_unknown)

    def accepts(self, key: str) -> bool:
        """Accept every file: the program's formats are its own."""
        return True

    def check_ready(self) -> None:
        """Raise ConfigurationError when the program is not where the settings say."""
        self._program()

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Write `config.json` into the input folder and return the command line."""
        program = self._program()
        config = medit_settings.write_config(job.settings, folders)
        return Invocation(argv=(str(program), "--iScanComplete", str(config)), cwd=program.parent)

    def read_line(self, line: str) -> Progress | None:
        """Return the percentage that ends the line, if one does."""
        match = _PERCENT.search(line)
        if match is None or float(match[1]) > 100:
            return None
        return Progress(percent=float(match[1]))

    def _program(self) -> Path:
        if self._release_folder is None:
            raise ConfigurationError(
                f"SCANFLEET_MEDIT_RELEASE_FOLDER is not set; it names the folder that holds {PROGRAM}"
            )
        program = self._release_folder / PROGRAM
        if not program.is_file():
            raise ConfigurationError(f"SCANFLEET_MEDIT_RELEASE_FOLDER: there is no {program}")
        return program
