"""The reference processor: our own program behind the Medit program's command line and keys."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError, JobFailure
from scanfleet.jobs import FailureClass, Job
from scanfleet.processors import medit_settings
from scanfleet.processors.base import AttemptFolders, Invocation, Processor, ProgramExit, explain_exit
from scanfleet.reference_processor.exit_codes import (
    BAD_INPUT_EXIT_CODE,
    OUT_OF_MEMORY_EXIT_CODE,
    USAGE_EXIT_CODE,
)
from scanfleet.reference_processor.progress import SHARES

SUFFIXES = frozenset({".ply", ".obj", ".stl", ".pcd", ".xyz", ".csv", ".txt", ".asc", ".pts"})
"""The same as `reference_processor.readers.SUFFIXES`, which needs numpy; a test compares them."""
MODULES = ("numpy", "scipy", "small_gicp", "PIL")
THREADS = 2
"""Threads of the numerical libraries: an agent runs several jobs side by side."""


class ReferenceProcessor(Processor):
    """Calls `scanfleet.reference_processor` with this Python."""

    name = "reference"
    stages = frozenset(SHARES)
    input_kinds = "scans as PLY, OBJ, STL, PCD, or tables of points: XYZ, CSV, TXT, ASC, PTS"

    def __init__(self, *, pool: Pool = Pool.LINUX_CPU, allow_unknown_settings: bool = False) -> None:
        self.pool = pool
        self._allow_unknown = allow_unknown_settings

    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return every key with its value; see `medit_settings.validate`."""
        return medit_settings.validate(raw, allow_unknown=self._allow_unknown)

    def settings_schema(self) -> dict[str, Any]:
        """Return the schema of every key; see `medit_settings.schema`."""
        return medit_settings.schema(allow_unknown=self._allow_unknown)

    def accepts(self, key: str) -> bool:
        """Say whether the name's ending is one of SUFFIXES, in upper or lower case."""
        return PurePosixPath(key).suffix.lower() in SUFFIXES

    def check_ready(self) -> None:
        """Raise ConfigurationError naming what to install when a library is missing."""
        missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigurationError(
                f"the reference processor needs {', '.join(missing)}; install scanfleet[reference]"
            )

    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Write `config.json` into the input folder and return the command line."""
        config = medit_settings.write_config(job.settings, folders)
        threads = str(min(THREADS, os.cpu_count() or 1))
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return Invocation(
            argv=(sys.executable, "-m", "scanfleet.reference_processor", "--iScanComplete", str(config)),
            cwd=folders.work,
            env=dict.fromkeys(limits, threads),
        )

    def explain_exit(self, program_exit: ProgramExit) -> JobFailure | None:
        """Return bad input for 65 and out of memory for 137; else what the operating system's rules say."""
        code, said = program_exit.exit_code, program_exit.failure_reason
        if code in (BAD_INPUT_EXIT_CODE, USAGE_EXIT_CODE):
            reason = said or "the input cannot be read as scans"
            return JobFailure(FailureClass.BAD_INPUT, reason, exit_code=code)
        if code == OUT_OF_MEMORY_EXIT_CODE:
            return JobFailure(FailureClass.OUT_OF_MEMORY, said or "memory ran out", exit_code=code)
        return explain_exit(program_exit)
