"""The command line's verbs about dead letters, for operators."""

from typing import TYPE_CHECKING, Annotated

import typer

from scanfleet.cli_options import JsonOption, UrlOption
from scanfleet.cli_session import connected
from scanfleet.contract import Pool

if TYPE_CHECKING:
    from scanfleet.client_models import DeadLetter

PoolOption = Annotated[Pool | None, typer.Option(help="Only this pool's. Default: all.", show_default=False)]


def dead_letters(
    ctx: typer.Context,
    *,
    pool: PoolOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show messages that nobody could run and those of quarantined jobs; they stay where they are."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        page = fleet.dead_letters(pool=pool, limit=limit)
        if out.as_json:
            out.json(page.model_dump(mode="json"))
            return
        out.rows("Dead letters", map(_row, page.letters))
        if page.remaining:
            out.note(f"about {page.remaining} more")


def redrive(
    ctx: typer.Context,
    *,
    pool: PoolOption = None,
    job: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this job's letters; may be repeated.")
    ] = None,
    purge: Annotated[
        list[str] | None,
        typer.Option(metavar="LETTER", help="Delete this letter for good; may be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters back: failed jobs are queued again, waiting ones get their message once more."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        report = fleet.redrive(pool=pool, job_ids=job or (), purge=purge or (), dry_run=dry_run)
        if out.as_json:
            out.json(report.model_dump(mode="json"))
            return
        rows = [
            {"letter": one.letter_id, "job": one.job_id, "outcome": one.outcome, "detail": one.detail}
            for one in report.letters
        ]
        out.rows("Would be" if dry_run else "Redriven", rows)
        if report.remaining:
            out.note(f"about {report.remaining} more that this did not come to; run it again")


def _row(letter: "DeadLetter") -> dict[str, str | None]:
    return {
        "letter": letter.letter_id,
        "pool": letter.pool,
        "job": letter.job_id,
        "job_status": letter.job_status,
        "cause": letter.cause,
        "since": letter.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        "reason": letter.reason,
    }
