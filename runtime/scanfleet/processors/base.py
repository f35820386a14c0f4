"""The port between the agent and a program that it runs."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanfleet.contract import Pool
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass, Job
from scanfleet.processors.exit_codes import explain_code


@dataclass(frozen=True)
class AttemptFolders:
    """The three local folders of one attempt, absolute."""

    input: Path
    work: Path
    output: Path


@dataclass(frozen=True)
class Invocation:
    """A program start: argument list (never a shell line), working directory, extra environment."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What one output line told; None where it told nothing. `percent` is 0 to 100 of the whole program."""

    percent: float | None = None
    stage: str | None = None
    failure_reason: str | None = None


@dataclass(frozen=True)
class ProgramExit:
    """How a program ended.

    exit_code: as the operating system gave it; negative is the POSIX signal that ended it.
    failure_reason: the last `scanfleet_fail:` line, if the program printed one.
    """

    exit_code: int
    failure_reason: str | None = None


class Processor(ABC):
    """How to call one program. Instances hold settings only and are shared by all slots."""

    name: str
    """What requests call it; permanent."""
    pool: Pool
    """The pool whose machines can run it."""
    input_kinds: str
    """For people: which files it reads."""
    stages: frozenset[str] = frozenset()
    """Names that the program gives its stages: each is timed by a metric of its own, others together."""
    release: str | None = None
    """The version that a run is pinned to. None: not pinned, or a program without releases."""

    @abstractmethod
    def validate_settings(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings completed with defaults.

        Raises InvalidRequest that names each unknown, missing or mistyped key.
        """

    def settings_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the settings, for forms; empty for programs without settings."""
        return {"type": "object", "properties": {}}

    @abstractmethod
    def accepts(self, key: str) -> bool:
        """Say whether the program can read a file of this name; a source folder needs at least one."""

    @abstractmethod
    def check_ready(self) -> None:
        """Raise ConfigurationError when this machine cannot run the program."""

    @contextmanager
    def pinned(self) -> Iterator["Processor"]:
        """Give the processor that one run works with; until the block ends its release stays as it is.

        Raises ConfigurationError when no release is here. The default, for programs without releases, gives
        this processor itself.
        """
        yield self

    @abstractmethod
    def prepare(self, job: Job, folders: AttemptFolders) -> Invocation:
        """Write what the program needs into the folders and return how to start it."""

    def read_line(self, line: str) -> Progress | None:
        """Return what an output line tells about progress, or None. The default reads our own protocol."""
        return read_protocol_line(line)

    def explain_exit(self, program_exit: ProgramExit) -> JobFailure | None:
        """Return the failure that this exit means, or None when the program succeeded."""
        return explain_exit(program_exit)


_PROTOCOL = re.compile(r"^scanfleet_(progress|stage|fail): (.*)$")
_STAGE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")
_FAIL_LIMIT = 1000


def read_protocol_line(line: str) -> Progress | None:
    """Return what a line of the program protocol tells, or None for any other line.

    The lines are `scanfleet_progress: 42.5`, `scanfleet_stage: align` and `scanfleet_fail: <reason>`, at the
    line's start. A malformed one (not a number, out of 0..100, an odd stage name) tells nothing and stays in
    the log like any other line.
    """
    match = _PROTOCOL.match(line)
    if match is None:
        return None
    kind, text = match[1], match[2].strip()
    if kind == "stage":
        return Progress(stage=text) if _STAGE.match(text) else None
    if kind == "fail":
        return Progress(failure_reason=text[:_FAIL_LIMIT]) if text else None
    try:
        percent = float(text)
    except ValueError:
        return None
    return Progress(percent=percent) if 0 <= percent <= 100 else None


def explain_exit(program_exit: ProgramExit) -> JobFailure | None:
    """Return the failure that an exit code means by the rules of the operating systems, or None for 0.

    The reason is the program's own where it gave one; exit_codes.py knows what systems mean.
    """
    code, said = program_exit.exit_code, program_exit.failure_reason
    if code == 0:
        return None
    meaning = explain_code(code)
    if meaning is not None:
        return JobFailure(meaning.failure_class, said or meaning.sentence, exit_code=code)
    shown = code if code < 2**31 else code - 2**32  # a program's -1 is 4294967295 on Windows
    reason = said or f"the program ended with exit code {shown}"
    return JobFailure(FailureClass.PROGRAM_ERROR, reason, exit_code=code)
