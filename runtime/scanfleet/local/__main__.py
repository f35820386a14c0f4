"""`python -m scanfleet.local run|up`: what the Makefile calls."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from scanfleet.errors import ScanfleetError
from scanfleet.local.run import run
from scanfleet.local.up import EMULATOR_PORT, up

REPO_ROOT = Path(__file__).resolve().parents[3]
INTERRUPTED_EXIT_CODE = 130


def main() -> None:
    """Run the command; exit 0 when all went well, 130 when `run` was interrupted, 1 otherwise."""
    arguments = _parser().parse_args()
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if arguments.command == "run":
            sys.exit(run(console, repo_root=REPO_ROOT, scans=arguments.scans))
        up(
            console,
            repo_root=REPO_ROOT,
            state=arguments.state,
            agents=arguments.agents,
            port=arguments.port,
            emulator_port=arguments.emulator_port,
        )
    except KeyboardInterrupt:
        console.print("stopped")
        # Ctrl-C is how `up` ends, but a `run` that was interrupted did not do its job.
        sys.exit(0 if arguments.command == "up" else INTERRUPTED_EXIT_CODE)
    except ScanfleetError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


class Interrupted(KeyboardInterrupt):
    """Somebody asked this program to end.

    A class of its own: once a plain KeyboardInterrupt has passed through code that was compiled from text, as
    dataclasses are while a module is imported, CPython ends by signal, whatever the exit code was to be.
    """


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does: everything that was started is stopped."""
    raise Interrupted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scanfleet.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    once = commands.add_parser("run", help="do the main job once")
    once.add_argument("--scans", type=Path, help="folder of scans; a sample is made without it")
    always = commands.add_parser("up", help="run the whole system until Ctrl-C")
    always.add_argument("--agents", type=_count, default=2)
    always.add_argument("--port", type=int, default=8080)
    always.add_argument("--state", type=Path, default=REPO_ROOT / ".scanfleet", help="kept between starts")
    always.add_argument("--emulator-port", type=int, default=EMULATOR_PORT)
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"got {text!r}, allowed is 1 to 64")
    return int(text)


if __name__ == "__main__":
    main()
