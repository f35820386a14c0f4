"""The reference processor: the open program with the closed one's command line and keys."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError, JobFailure
from scanfleet.jobs import FailureClass, Job
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, Invocation, Processor, ProgramExit, explain_exit

MODULE = "scanfleet.reference_processor"
BAD_INPUT_EXIT_CODE = 65
"""EX_DATAERR. Source: sysexits.h."""
OUT_OF_MEMORY_EXIT_CODE = 137
"""128 + SIGKILL, as shells and container runtimes report the kernel's memory killer."""
SUFFIXES = frozenset({".ply", ".obj", ".stl", ".pcd", ".xyz", ".csv", ".txt", ".asc", ".pts"})
NEEDED_MODULES = ("numpy", "scipy", "small_gicp", "PIL")


class ReferenceProcessor(Processor):
    """Calls the reference processor with this interpreter."""

    name = "reference"
    pool = Pool.LINUX_CPU
    input_kinds = "scans as " + ", ".join(sorted(SUFFIXES))

    def __init__(self, *, allow_unknown_settings: bool = False) -> None:
        self._allow_unknown = allow_unknown_settings

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return every key with its value; see `medit_settings.validate`."""
        return medit_settings.validate(raw, allow_unknown=self._allow_unknown)

    def accepts(self, key: str) -> bool:
        """Say whether the file's name has the ending of a scan."""
        return PurePosixPath(key).suffix.lower() in SUFFIXES

    def check_ready(self) -> None:
        """Raise ConfigurationError when a package that the program needs is not installed."""
        for module in NEEDED_MODULES:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ConfigurationError(
                    f"the reference processor needs {module}: install scanfleet[reference] ({error})"
                ) from error

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Write `config.json` into the input folder and return the command line."""
        config = medit_settings.write_config(job.settings, folders)
        return Invocation(
            argv=(sys.executable, "-m", MODULE, "--iScanComplete", str(config)), cwd=folders.work
        )

    def explain_exit(self, program_exit: ProgramExit) -> JobFailure | None:
        """Return the failure; the program says itself when its input is to blame."""
        code, said = program_exit.exit_code, program_exit.failure_reason
        if code == BAD_INPUT_EXIT_CODE:
            reason = said or "the input cannot be processed"
            return JobFailure(FailureClass.BAD_INPUT, reason, exit_code=code)
        if code == OUT_OF_MEMORY_EXIT_CODE:
            return JobFailure(FailureClass.OUT_OF_MEMORY, said or "memory ran out", exit_code=code)
        return explain_exit(program_exit)
