"""One command's connection to the service, and the command group that turns errors into exit codes."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from scanfleet.cli_output import ExitCode, Output, exit_code_of
from scanfleet.errors import InvalidRequest, ScanfleetError

if TYPE_CHECKING:
    from scanfleet.client import Scanfleet


@dataclass
class GlobalOptions:
    """What was given before the verb."""

    url: str | None = None
    as_json: bool = False


@contextmanager
def connected(ctx: typer.Context, url: str | None, *, as_json: bool) -> Iterator[tuple["Scanfleet", Output]]:
    """Give the client and where to print; options after the verb win over those before it."""
    # Here and not above: the client costs a third of a second, which help and completion need not pay.
    from scanfleet import settings  # noqa: PLC0415
    from scanfleet.client import Scanfleet  # noqa: PLC0415
    from scanfleet.client_auth import auth_for  # noqa: PLC0415

    own = settings.load(settings.ClientSettings)
    address = url or _globals(ctx).url or own.url
    auth = auth_for(address, token=own.token.get_secret_value() if own.token else None)
    with Scanfleet(address, auth=auth) as fleet:
        yield fleet, output(ctx, as_json=as_json)


def output(ctx: typer.Context, *, as_json: bool) -> Output:
    """Return where this command prints."""
    return Output(as_json=as_json or _globals(ctx).as_json)


def _globals(ctx: typer.Context) -> GlobalOptions:
    found = ctx.find_root().obj
    return found if isinstance(found, GlobalOptions) else GlobalOptions()


class FleetGroup(TyperGroup):
    """The verbs. Every error raised on purpose becomes a message on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; in standalone mode (the default) this ends the process."""
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            # With --json, usage errors come here instead of being drawn for people.
            code = super().main(
                args, prog_name, complete_var, standalone_mode and not as_json, windows_expand_args, **extra
            )
        except ScanfleetError as error:
            code = report(error, Output(as_json=as_json))
        except TyperException as error:
            if not as_json:
                raise
            code = int(ExitCode.INVALID)
            Output(as_json=True).error(error.format_message(), kind="usage", code=code)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def report(error: ScanfleetError, out: Output) -> int:
    """Print the error and return its exit code."""
    code = exit_code_of(error)
    fields = error.errors if isinstance(error, InvalidRequest) else ()
    out.error(str(error), kind=code.name.lower(), code=code, errors=fields)
    return int(code)
