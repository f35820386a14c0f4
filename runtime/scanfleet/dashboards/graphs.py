"""Graphs and numbers inside a widget's frame, whose axes are in inches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator

from scanfleet.dashboards.body import Axis, Line, Widget
from scanfleet.dashboards.data import Series, Shown

INK, PALE, WARNING = "#16191f", "#879596", "#d13212"
COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b",
    "#e377c2", "#17becf", "#bcbd22", "#7f7f7f", "#d62728",
    "#aec7e8", "#ffbb78", "#98df8a", "#c5b0d5", "#c49c94",
    "#f7b6d2", "#9edae5", "#dbdb8d", "#c7c7c7", "#ff9896",
)  # fmt: skip
"""Twice the usual ten: with p50 and p95 of each stage or route, one colour would stand for two lines."""
TITLE, BOTTOM, LEFT, RIGHT = 0.52, 0.3, 0.62, 0.2
"""Inches around a plot; the legend comes on top of BOTTOM."""
LEGEND_ROW, CHARACTER, MARK = 0.19, 0.068, 0.3
LARGE_CHARACTER = 0.08
ROOM_FOR_MORE = 0.8
MOST_LEGEND_ROWS = 2
FEW_LINES = 6
MARKED_UP_TO = 40
"""Points of a line that are marked one by one: a single one would not be seen otherwise."""
SHORT_SECONDS = 20 * 60
DAY = 86_400.0
TICKS = (10, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
"""Seconds between marks of the time axis, of which there are MOST_TICKS at most."""
MOST_TICKS = 6

Reason = Callable[[Line], str | None]


@dataclass(frozen=True)
class Look:
    """What is known of the lines, and the time that is shown. reason: why a line can have no data here."""

    shown: Mapping[Line, Shown]
    start: datetime
    end: datetime
    reason: Reason


@dataclass(frozen=True)
class _Drawn:
    label: str
    colour: str
    series: Series
    is_right: bool


def draw_graph(frame: Axes, widget: Widget, look: Look) -> None:
    """Draw lines or stacked bars over time, with both axes, thresholds and a legend."""
    shown, reason = look.shown, look.reason
    width, height = frame.get_xlim()[1], frame.get_ylim()[1]
    drawn = list(_drawn(widget, shown))
    missing = [line for line in widget.lines if not shown[line].has_data]
    has_right = any(entry.is_right for entry in drawn)
    # Those that stand out are named first: of many, the legend has room for the first ones only.
    named = sorted(drawn, key=lambda entry: max(entry.series.values, default=0.0), reverse=True)
    entries = [(entry.label, entry.colour) for entry in (named if len(drawn) > FEW_LINES else drawn)]
    entries += [(_missing_label(line, shown[line], reason), PALE) for line in missing if drawn]
    rows = _legend(frame, entries, width)
    bottom = BOTTOM + rows * LEGEND_ROW
    box = (LEFT, bottom, width - LEFT - (LEFT if has_right else RIGHT), height - bottom - TITLE)
    axes = frame.inset_axes(box, transform=frame.transData)
    _time_axis(axes, look.start, look.end)
    right = axes.twinx() if has_right else None
    if right is not None:
        right.patch.set_visible(False)  # it lies over the left one's lines
        right.spines["bottom"].set_visible(False)
    _plot(axes, [entry for entry in drawn if not entry.is_right], is_stacked=widget.is_stacked)
    if right is not None:
        _plot(right, [entry for entry in drawn if entry.is_right], is_stacked=False)
        _value_axis(right, widget.right, ())
    _value_axis(axes, widget.left, widget.limits)
    frame.text(LEFT, height - 0.36, widget.left.label, fontsize=8, color=PALE, va="top")
    if has_right:
        frame.text(
            width - 0.12, height - 0.36, widget.right.label, fontsize=8, color=PALE, va="top", ha="right"
        )
    if not drawn:
        _say_no_data(axes, widget, shown, reason)


def draw_numbers(frame: Axes, widget: Widget, look: Look) -> None:
    """Draw each line's latest value as a large number over its label, with a small line behind."""
    shown, reason = look.shown, look.reason
    width, height = frame.get_xlim()[1], frame.get_ylim()[1]
    step = width / max(1, len(widget.lines))
    for number, line in enumerate(widget.lines):
        x = number * step + 0.2
        found = [series for series in shown[line].series if series.values]
        value = short(found[0].values[-1]) if found else "–"
        frame.text(x, height * 0.42, value, fontsize=24, color=INK if found else PALE, va="center")
        label = line.label or line.name
        if not found:
            why = reason(line)
            label = f"{label}: {why}" if why else f"{label}: no data"
        colour = WARNING if not found and reason(line) is None else PALE
        frame.text(
            x, 0.16, _cut(label, int((step - 0.3) / LARGE_CHARACTER)), fontsize=9, color=colour, va="bottom"
        )
        if found and len(found[0].values) > 1:
            spark = frame.inset_axes(
                (x + step * 0.4, height * 0.25, step * 0.45, height * 0.4), transform=frame.transData
            )
            spark.set_axis_off()
            spark.plot(_dates(found[0].times), found[0].values, color=COLOURS[0], linewidth=1)
            spark.set_xlim(look.start.timestamp() / DAY, look.end.timestamp() / DAY)
            spark.set_ylim(0, max((1.0, *found[0].values)) * 1.05)


def _drawn(widget: Widget, shown: Mapping[Line, Shown]) -> Iterator[_Drawn]:
    colours = cycle(COLOURS)
    for line in widget.lines:
        for series in shown[line].series:
            if series.values:
                yield _Drawn(series.label, line.colour or next(colours), series, line.is_right)


def _missing_label(line: Line, shown: Shown, reason: Reason) -> str:
    name = line.label or line.name or "search"
    return f"{name}: {shown.problem or reason(line) or 'no data'}"


def _say_no_data(axes: Axes, widget: Widget, shown: Mapping[Line, Shown], reason: Reason) -> None:
    reasons = list(dict.fromkeys(shown[line].problem or reason(line) or "" for line in widget.lines))
    is_excused = all(reasons)
    text = "no data" + (":\n" + "\n".join(reasons) if is_excused else "")
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
        fontsize=11, color=PALE if is_excused else WARNING,
    )  # fmt: skip


def _plot(axes: Axes, drawn: Sequence[_Drawn], *, is_stacked: bool) -> None:
    if is_stacked:
        _plot_bars(axes, drawn)
        return
    for entry in drawn:
        series = entry.series
        times, values = _with_gaps(series)
        marker = "o" if len(series.values) <= MARKED_UP_TO else None
        axes.plot(_dates(times), values, color=entry.colour, linewidth=1.4, marker=marker, markersize=3.2)


def _plot_bars(axes: Axes, drawn: Sequence[_Drawn]) -> None:
    """Stack bars as wide as the period: few values stay visible, and gaps stay gaps."""
    below: dict[float, float] = {}
    for entry in drawn:
        series = entry.series
        heights = dict(zip(series.times, series.values, strict=True))
        axes.bar(
            _dates(series.times),
            list(heights.values()),
            width=series.period / DAY,
            bottom=[below.get(at, 0.0) for at in heights],
            align="edge",
            color=entry.colour,
            linewidth=0,
        )
        for at, height in heights.items():
            below[at] = below.get(at, 0.0) + height


def _with_gaps(series: Series) -> tuple[list[float], list[float]]:
    """Return times and values with a hole wherever a period has no value."""
    times: list[float] = []
    values: list[float] = []
    for at, value in zip(series.times, series.values, strict=True):
        if times and at - times[-1] > series.period * 1.5:
            times.append(times[-1] + series.period)
            values.append(float("nan"))
        times.append(at)
        values.append(value)
    return times, values


def _time_axis(axes: Axes, start: datetime, end: datetime) -> None:
    first, last = start.timestamp(), end.timestamp()
    axes.set_xlim(first / DAY, last / DAY)
    step = next((seconds for seconds in TICKS if (last - first) / seconds <= MOST_TICKS), TICKS[-1])
    marks = range(int(-(-first // step)), int(last // step) + 1)
    axes.xaxis.set_major_locator(FixedLocator([mark * step / DAY for mark in marks]))
    is_long, is_short = last - first > 2 * DAY, last - first < SHORT_SECONDS
    form = "%d %b" if is_long else "%H:%M:%S" if is_short else "%H:%M"
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda day, _: datetime.fromtimestamp(round(day * DAY), tz=UTC).strftime(form))
    )
    axes.tick_params(labelsize=8, colors=PALE, length=2)
    axes.grid(axis="y", color="#eaeded", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d5dbdb")


def _value_axis(axes: Axes, axis: Axis, limits: Sequence[tuple[float, str]]) -> None:
    highest = max((axes.dataLim.y1 if axes.has_data() else 0.0), *(value for value, _ in limits), 0.0)
    lowest = axis.minimum if axis.minimum is not None else min(0.0, axes.dataLim.y0 if axes.has_data() else 0)
    axes.set_ylim(lowest, highest * 1.12 if highest > 0 else 1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.tick_params(labelsize=8, colors=PALE, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for value, label in limits:
        axes.axhline(value, color=WARNING, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            label, (1, value), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=WARNING,
        )  # fmt: skip


def _legend(frame: Axes, entries: Sequence[tuple[str, str]], width: float) -> int:
    """Write the legend along the frame's bottom; return how many rows it has."""
    rows: list[list[tuple[str, str]]] = [[]]
    used = 0.0
    for number, (label, colour) in enumerate(entries):
        needed = MARK + len(label) * CHARACTER
        is_last = len(rows) == MOST_LEGEND_ROWS
        room = width - 0.3 - (ROOM_FOR_MORE if is_last and number < len(entries) - 1 else 0)
        if rows[-1] and used + needed > room:
            if len(rows) == MOST_LEGEND_ROWS:
                rows[-1].append((f"+ {len(entries) - number} more", PALE))
                break
            rows.append([])
            used = 0.0
        rows[-1].append((label, colour))
        used += needed
    if not rows[0]:
        return 0
    for row, its in enumerate(reversed(rows)):
        x, y = 0.16, 0.13 + row * LEGEND_ROW
        for label, colour in its:
            frame.plot([x, x + 0.14], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            frame.text(x + 0.19, y, label, fontsize=8, color=INK if colour != PALE else PALE, va="center")
            x += MARK + len(label) * CHARACTER
    return len(rows)


def _dates(times: Sequence[float]) -> list[float]:
    """Return matplotlib's dates: days since 1970."""
    return [at / DAY for at in times]


def short(value: float) -> str:
    """Return a number as people read it. Examples: 12345.6 -> "12.3k", 0.25 -> "0.25"."""
    if abs(value) < 1000:
        return f"{value:.4g}"
    text = str(EngFormatter(places=1, sep="")(value))
    return text.replace(".0", "")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"
