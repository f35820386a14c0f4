"""The command line's verb about evidence."""

from typing import TYPE_CHECKING, Annotated

import typer

from scanfleet.cli_options import JobArgument, JsonOption, UrlOption
from scanfleet.cli_output import Output, printable
from scanfleet.cli_session import connected

if TYPE_CHECKING:
    from scanfleet.evidence import Evidence

SAMPLES_SHOWN = 20
GIB = 2**30


def evidence(
    ctx: typer.Context,
    *,
    job: JobArgument,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt. Default: the last with evidence.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show why a job's program was ended, and what was seen of it before."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = fleet.evidence(job, attempt=attempt)
        if out.as_json:
            out.json(found.model_dump(mode="json"))
        else:
            _show(found, out)


def _show(found: "Evidence", out: Output) -> None:
    saved = found.saved_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    out.text(printable(found.reason))
    out.text(f"attempt {found.attempt}, process {found.pid}, saved {saved}")
    if (machine := found.machine) is not None:
        out.text(
            f"memory: {machine.memory_available_bytes / GIB:.1f} of {machine.memory_bytes / GIB:.1f} GiB"
            f" free, {machine.swap_used_bytes / GIB:.1f} GiB swapped;"
            f" scratch disk: {machine.disk_free_bytes / GIB:.1f} of {machine.disk_bytes / GIB:.1f} GiB free"
        )
    out.rows("Processes", (process.model_dump() for process in found.processes))
    if found.dialogs:
        out.rows("Dialogs", (dialog.model_dump() for dialog in found.dialogs))
    out.rows(f"The last {SAMPLES_SHOWN} samples", found.samples[-SAMPLES_SHOWN:])
    if found.gpu is not None:
        out.rows("GPU", ({"what": name, "is": value} for name, value in found.gpu.items()))
    if found.missing:
        out.rows("Missing", ({"part": part, "because": reason} for part, reason in found.missing.items()))
    out.text("What the program printed last:")
    for line in found.last_lines:
        out.text(f"  {printable(line)}")
