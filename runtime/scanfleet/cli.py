"""The command line `scanfleet`. docs/cli.md shows every verb."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from scanfleet import cli_calibrate, cli_dead_letters, cli_evidence, cli_jobs, cli_receipt, cli_variance
from scanfleet.cli_dashboard import dashboard
from scanfleet.cli_loglevel import loglevel
from scanfleet.cli_options import EXIT_CODES, JsonOption, UrlOption
from scanfleet.cli_release import release
from scanfleet.cli_session import FleetGroup, GlobalOptions, connected, output
from scanfleet.errors import ConfigurationError, InvalidRequest

app = typer.Typer(
    name="scanfleet",
    cls=FleetGroup,
    help="Run programs over folders of scans on a Scanfleet service.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and needed here only

        typer.echo(f"scanfleet {version('scanfleet')}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    url: UrlOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Keep what was given before the verb."""
    del version
    ctx.obj = GlobalOptions(url=url, as_json=as_json)


for verb in (
    cli_jobs.submit,
    cli_jobs.status,
    cli_jobs.jobs,
    cli_jobs.watch,
    cli_jobs.cancel,
    cli_jobs.retry,
    cli_jobs.logs,
    cli_evidence.evidence,
    cli_receipt.receipt,
):
    app.command()(verb)
for_operators = app.command(rich_help_panel="For operators")
for_operators(cli_dead_letters.dead_letters)
for_operators(cli_dead_letters.redrive)
for_operators(cli_calibrate.calibrate)
for_operators(cli_variance.variance)


app.add_typer(release, name="release")
app.add_typer(dashboard, name="dashboard")
app.add_typer(loglevel, name="loglevel")


@app.command()
def health(ctx: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Say whether the service can take jobs; exit code 5 when it cannot."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = fleet.health()
        if out.as_json:
            out.json(found.model_dump(mode="json"))
        else:
            out.text(found.status)


@app.command()
def load(ctx: typer.Context, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show slots, busy slots and backlog per pool and per agent."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = fleet.load()
        if out.as_json:
            out.json(found.model_dump(mode="json"))
            return
        out.rows("Pools", ({"pool": name, **facts} for name, facts in found.pools.items()))
        out.rows("Agents", _without_empty(found.instances))


def _without_empty(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without the columns that are empty everywhere, as those of EC2 on one machine."""
    shown = {name for row in rows for name, value in row.items() if value or type(value) is int}
    return [{name: value for name, value in row.items() if name in shown} for row in rows]


@app.command()
def sample(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", file_okay=False, help="Where to write it.")],
    scans: Annotated[int, typer.Option(help="How many scans, 6 to 12.")] = 8,
    points: Annotated[int, typer.Option(help="Points in each scan at most.")] = 60_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same scans.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a folder of scans whose true alignment is known; prints the folder to submit. Needs no service."""
    try:
        from scanfleet.sample import make_sample  # noqa: PLC0415 - numpy, and only with this extra
    except ImportError as error:
        raise ConfigurationError(
            f"making samples needs {error.name or 'more packages'}: pip install 'scanfleet[reference]'"
        ) from error
    try:
        truth = make_sample(folder, scans=scans, points=points, seed=seed)
    except ValueError as error:
        raise InvalidRequest.of("sample", str(error)) from error
    except OSError as error:
        raise InvalidRequest.of("FOLDER", error.strerror or str(error), value=folder) from error
    out = output(ctx, as_json=as_json)
    made = str(truth.scans_folder)
    if out.as_json:
        out.json(
            {"folder": str(folder), "scans_folder": made, "scans": scans, "points": points, "seed": seed}
        )
    else:
        out.text(made)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    app()
