"""The command line's verb about spread."""

from typing import Annotated

import typer

from scanfleet.cli_options import JsonOption, UrlOption
from scanfleet.cli_output import printable
from scanfleet.cli_session import connected


def variance(
    ctx: typer.Context,
    *,
    processor: Annotated[
        str | None, typer.Option(help="Whose runs. Default: the deployment's.", show_default=False)
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="Runs that ended in so many last days.")] = 30,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the spread of run times comes from: machine, image, driver, release, settings, ..."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = fleet.variance(processor=processor, days=days)
        if out.as_json:
            out.json(found.model_dump(mode="json"))
            return
        out.text(printable(f"{found.processor}, last {found.days} days"))
        for sentence in found.sentences:
            out.text(printable(sentence))
        for one in found.explained:
            title = f"{one.factor.replace('_', ' ')}: {one.share:.0%} of the spread, by chance {one.p:.3f}"
            out.rows(title, (group.model_dump() for group in one.groups))
        if found.worst_machines:
            out.rows("Slowest machines", (group.model_dump() for group in found.worst_machines))
