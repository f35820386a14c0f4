"""The agent as a Windows service: `python.exe -m scanfleet.agent.service <environment file>`.

The service control manager hosts this process itself; docs/windows-service.md has the registration. The
manager kills a process that does not connect within 30 s of its start, and a cold disk makes imports slow: so
this module connects first, and the agent's own modules are imported while the start is pending.
Source: Win32 API reference, StartServiceCtrlDispatcherW.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scanfleet import contract
from scanfleet.agent.service_host import Program

USAGE_EXIT_CODE = 64
"""EX_USAGE. Source: sysexits.h."""


def read_environment(path: Path) -> dict[str, str]:
    """Return a file's KEY=VALUE lines. Blank lines and those that begin with # do not count.

    A value is everything after the first "=", quotes included. Raises ValueError with the line's number, and
    OSError. A byte order mark, as Windows PowerShell writes one, is skipped.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(f"{path}, line {number}: KEY=VALUE is needed, not {text[:40]!r}")
        found[name.strip()] = value.strip()
    return found


def log_early(environment: Mapping[str, str]) -> None:
    """Log to the log folder before the settings are read: a service has nowhere else to say what is wrong."""
    from scanfleet.agent.log_files import log_files  # noqa: PLC0415 - slow; see above
    from scanfleet.log_setup import configure_logging  # noqa: PLC0415

    if folder := environment.get(contract.Env.LOG_FOLDER):
        stage = environment.get(contract.Env.STAGE, "")
        configure_logging(contract.Component.AGENT, "INFO", stage=stage, files=log_files(Path(folder)))


def program(environment_file: Path) -> Program:
    """Return what the service runs: the agent, with the file's lines in its environment."""

    def run(*, on_serving: Callable[[], None], on_stop: Callable[[Callable[[], None]], None]) -> None:
        environment = read_environment(environment_file)
        os.environ.update(environment)
        log_early(environment)
        from scanfleet.agent.main import run_agent  # noqa: PLC0415 - slow; see above

        run_agent(on_serving=on_serving, on_stop=on_stop)

    return run


def main() -> None:
    """Connect to the service control manager, run the agent, and leave with its exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m scanfleet.agent.service ENVIRONMENT_FILE", file=sys.stderr)  # noqa: T201
        sys.exit(USAGE_EXIT_CODE)
    if sys.platform != "win32":
        print("services are Windows'; elsewhere run scanfleet-agent", file=sys.stderr)  # noqa: T201
        sys.exit(USAGE_EXIT_CODE)
    from scanfleet.agent import os_windows_service  # noqa: PLC0415 - only there on Windows

    sys.exit(os_windows_service.run_service(program(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
