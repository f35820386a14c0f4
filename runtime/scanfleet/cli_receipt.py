"""The command line's verb about receipts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from scanfleet.cli_options import JobArgument, JsonOption, UrlOption
from scanfleet.cli_output import Output, printable
from scanfleet.cli_session import connected

if TYPE_CHECKING:
    from scanfleet.attempts import Usage
    from scanfleet.receipt import MachineFacts, Receipt

GIB, MIB, KIB = 2**30, 2**20, 2**10


def receipt(
    ctx: typer.Context, *, job: JobArgument, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Show where a job's time went, what it used and what it costs."""
    with connected(ctx, url, as_json=as_json) as (fleet, out):
        found = fleet.receipt(job)
        if out.as_json:
            out.json(found.model_dump(mode="json"))
        else:
            _show(found, out)


def _show(found: "Receipt", out: Output) -> None:
    out.text(f"{found.job_id}  {found.processor}  {found.status}")
    for name, text in _lines(found):
        out.text(f"{name:<12}{printable(text)}")
    out.rows(
        "Attempts",
        (
            {
                "attempt": attempt.attempt,
                "machine": attempt.machine.instance_id or attempt.agent_id,
                "seconds": f"{attempt.run_seconds:.1f}",
                "outcome": attempt.outcome or "running",
                "usd": "?" if attempt.cost_usd is None else f"{attempt.cost_usd:.4f}",
                "why": attempt.why,
            }
            for attempt in found.attempts
        ),
    )
    if found.attempts_left_out:
        out.note(f"{found.attempts_left_out} older attempts are not kept and not counted")


def _lines(found: "Receipt") -> Iterator[tuple[str, str]]:
    yield "queued", f"{found.queue_seconds:.1f} s"
    states = {name: seconds for name, seconds in found.state_seconds.items() if name != "queued"}
    yield "ran", f"{found.run_seconds:.1f} s{_parts(states)}"
    if found.stage_seconds:
        yield "stages", _parts(found.stage_seconds).strip(" ()")
    yield "bytes", f"{_size(found.bytes_downloaded)} in, {_size(found.bytes_published)} out"
    if found.usage is not None:
        yield "used", _used(found.usage)
    if found.machine is not None:
        yield "machine", _machine(found.machine)
    if found.release is not None:
        yield "release", found.release
    shares = (
        f"{found.busy_share_seconds:.1f} s busy, {found.boot_share_seconds:.1f} s boot,"
        f" {found.idle_share_seconds:.1f} s idle"
    )
    yield "share", f"{shares} (of whole machines)"
    yield "cost", _cost(found)


def _parts(seconds: "dict[str, float]") -> str:
    return f" ({', '.join(f'{name} {spent:.1f}' for name, spent in seconds.items())})" if seconds else ""


def _used(usage: "Usage") -> str:
    def percent(mean: float | None, peak: float | None) -> str:
        return "not known" if mean is None else f"{mean:.0f} % ({peak or 0.0:.0f} % peak)"

    parts = [f"CPU {percent(usage.cpu_percent_mean, usage.cpu_percent_peak)} of a core"]
    if usage.memory_bytes_peak is not None:
        parts.append(f"memory {_size(usage.memory_bytes_peak)} peak")
    if usage.gpu_percent_mean is not None:
        parts.append(f"GPU {percent(usage.gpu_percent_mean, usage.gpu_percent_peak)}")
    if usage.gpu_memory_bytes_peak is not None:
        parts.append(f"GPU memory {_size(usage.gpu_memory_bytes_peak)} peak")
    if usage.disk_bytes_peak is not None:
        parts.append(f"disk {_size(usage.disk_bytes_peak)} peak")
    return ", ".join(parts)


def _size(size_bytes: int) -> str:
    if size_bytes >= GIB:
        return f"{size_bytes / GIB:.2f} GiB"
    if size_bytes >= MIB:
        return f"{size_bytes / MIB:.1f} MiB"
    return f"{size_bytes / KIB:.1f} KiB" if size_bytes >= KIB else f"{size_bytes} B"


def _machine(machine: "MachineFacts") -> str:
    known = (machine.instance_type, machine.ami_id, machine.region, machine.system)
    driver = f"driver {machine.driver}" if machine.driver else ""
    slots = "1 slot" if machine.slots == 1 else f"{machine.slots} slots"
    return ", ".join(part for part in (*known, driver, slots) if part)


def _cost(found: "Receipt") -> str:
    cost = found.cost
    if cost is None:
        return f"not known: {found.why_no_cost}"
    source = "your own price" if cost.price_as_of is None else f"list price of {cost.price_as_of}"
    return (
        f"${cost.usd:.4f} (busy {cost.busy_usd:.4f}, boot {cost.boot_usd:.4f}, idle {cost.idle_usd:.4f});"
        f" an estimate at ${cost.hourly_usd:.4f} an hour, {source}"
    )
