"""The curve as a picture: throughput, a job's time and memory over the slots, with the knee marked."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scanfleet.calibration.fit import ScalabilityFit
from scanfleet.calibration.records import Calibration

GIB = 2**30
MEASURED, FITTED, KNEE, SECOND = "#0b5cad", "#7f8c99", "#c2410c", "#4d7c0f"


def draw(calibration: Calibration, file: Path) -> None:
    """Write the picture as PNG. Raises OSError."""
    figure = Figure(figsize=(8, 10), dpi=110, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.6, 1, 1))
    figure.suptitle(
        f"{calibration.processor} on {calibration.machine}: {calibration.slots} at a time"
        + ("" if calibration.is_sure else " (with doubts)"),
        fontweight="bold",
    )
    _throughput(top, calibration)
    _times(middle, calibration)
    _memory(bottom, calibration)
    for axes in (top, middle, bottom):
        axes.axvline(calibration.slots, color=KNEE, linestyle="--", linewidth=1.2, zorder=0)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(loc="best", frameon=False, fontsize=9)
    bottom.set_xlabel("programs side by side (slots)")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.set_xlim(0.5, max(_slots(calibration)) + 0.5)
    figure.savefig(file, format="png")


def _throughput(axes: Axes, calibration: Calibration) -> None:
    points = calibration.points
    rates = [point.jobs_per_hour for point in points]
    below = [max(0.0, point.jobs_per_hour - point.low) for point in points]
    above = [max(0.0, point.high - point.jobs_per_hour) for point in points]
    label = "measured, with the interval of 90 %"
    axes.errorbar(
        _slots(calibration), rates, yerr=(below, above), fmt="o", color=MEASURED, capsize=4, label=label
    )
    if calibration.fit is not None:
        fit = ScalabilityFit(**calibration.fit)
        last = max(_slots(calibration))
        places = [1 + (last - 1) * i / 100 for i in range(101)]
        name = f"scalability law: contention {fit.contention:.2f}, crosstalk {fit.crosstalk:.3f}"
        axes.plot(places, [fit.throughput(n) for n in places], color=FITTED, label=name)
    knee = next((point for point in points if point.slots == calibration.slots), None)
    if knee is not None:
        axes.plot(
            [knee.slots], [knee.jobs_per_hour], "o", markersize=15, markerfacecolor="none", color=KNEE,
            markeredgewidth=2, label=f"knee: {knee.slots} slots, {knee.jobs_per_hour:.1f} jobs an hour",
        )  # fmt: skip
    axes.set_ylabel("jobs an hour")


def _times(axes: Axes, calibration: Calibration) -> None:
    points = calibration.points
    axes.plot(
        _slots(calibration), [p.p50_seconds for p in points], "o-", color=MEASURED, label="half of the jobs"
    )
    axes.plot(
        _slots(calibration), [p.p95_seconds for p in points], "s-", color=SECOND, label="95 % of the jobs"
    )
    axes.set_ylabel("seconds of a job, at most")


def _memory(axes: Axes, calibration: Calibration) -> None:
    points = calibration.points
    used = [point.memory_bytes / GIB for point in points]
    axes.plot(_slots(calibration), used, "o-", color=MEASURED, label="memory of all programs")
    if any(point.gpu_memory_bytes is not None for point in points):
        on_gpu = [(point.gpu_memory_bytes or 0) / GIB for point in points]
        axes.plot(_slots(calibration), on_gpu, "s-", color=SECOND, label="GPU memory")
    limit = calibration.memory_limit_bytes / GIB
    if limit < 3 * max(used):  # a limit far away would press the curve flat
        axes.axhline(limit, color=FITTED, linestyle=":", label="limit")
    axes.set_ylabel("peak, GiB")


def _slots(calibration: Calibration) -> Sequence[int]:
    return [point.slots for point in calibration.points]
