"""One dashboard as a picture, on CloudWatch's grid of 24 columns: where each widget lies, and its frame."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from scanfleet.dashboards.body import Dashboard, Widget
from scanfleet.dashboards.graphs import INK, PALE, Look, draw_graph, draw_numbers

COLUMNS = 24
COLUMN_INCHES, ROW_INCHES = 0.75, 0.55
HEAD_INCHES = 0.7
DPI = 100
GAP_INCHES = 0.06
"""Around each widget."""
STATE_COLOURS = {"ALARM": "#d13212", "OK": "#1d8102", "INSUFFICIENT_DATA": "#879596"}
CHARACTERS_A_COLUMN = 10
"""Of a query's text, in the column's inches."""
ALARM_COLUMNS = {24: 4, 16: 3, 8: 1}


@dataclass(frozen=True)
class Alarm:
    """An alarm that is deployed. state: OK, ALARM or INSUFFICIENT_DATA."""

    state: str
    why: str


class Picture:
    """Draws at once; `save` writes the file. alarms: by name."""

    def __init__(self, dashboard: Dashboard, look: Look, alarms: Mapping[str, Alarm]) -> None:
        self._look = look
        self._alarms = alarms
        rows = max((widget.y + widget.height for widget in dashboard.widgets), default=1)
        self._width = COLUMNS * COLUMN_INCHES
        self._height = rows * ROW_INCHES + HEAD_INCHES
        self._figure = Figure(figsize=(self._width, self._height), facecolor="#f2f3f3")
        self._head(dashboard.name)
        for widget in dashboard.widgets:
            self._draw(widget)

    def save(self, file: Path) -> None:
        """Write the picture as PNG."""
        self._figure.savefig(file, dpi=DPI, facecolor=self._figure.get_facecolor())

    def _head(self, name: str) -> None:
        times = f"{self._look.start:%Y-%m-%d %H:%M:%S} to {self._look.end:%Y-%m-%d %H:%M:%S} UTC"
        y = 1 - HEAD_INCHES / 2 / self._height
        self._figure.text(0.006, y, name, fontsize=17, weight="bold", color=INK, va="center")
        self._figure.text(0.994, y, times, fontsize=11, color=PALE, va="center", ha="right")

    def _draw(self, widget: Widget) -> None:
        if widget.kind == "text":
            self._text(widget)
            return
        frame = self._frame(widget)
        if widget.kind == "alarm":
            self._alarm_list(frame, widget)
        elif widget.kind == "log":
            self._log(frame, widget)
        elif widget.view == "singleValue":
            draw_numbers(frame, widget, self._look)
        else:
            draw_graph(frame, widget, self._look)

    def _frame(self, widget: Widget) -> Axes:
        """Return axes in inches over the widget's whole box, y upwards, with its title."""
        left = widget.x * COLUMN_INCHES + GAP_INCHES
        width = widget.width * COLUMN_INCHES - 2 * GAP_INCHES
        height = widget.height * ROW_INCHES - 2 * GAP_INCHES
        top = self._height - HEAD_INCHES - widget.y * ROW_INCHES - GAP_INCHES
        box = (left / self._width, (top - height) / self._height, width / self._width, height / self._height)
        frame = self._figure.add_axes(box)
        frame.set_xlim(0, width)
        frame.set_ylim(0, height)
        frame.set_axis_off()
        frame.add_patch(
            FancyBboxPatch(
                (0, 0), width, height, boxstyle="round,pad=0,rounding_size=0.06", fc="white", ec="#d5dbdb"
            )
        )
        frame.text(0.12, height - 0.12, widget.title, fontsize=11, weight="bold", color=INK, va="top")
        return frame

    def _text(self, widget: Widget) -> None:
        """Draw a line of markdown: a heading, or plain words."""
        text = widget.text
        is_heading = text.startswith("#")
        y = 1 - (HEAD_INCHES + (widget.y + widget.height / 2) * ROW_INCHES) / self._height
        self._figure.text(
            (widget.x * COLUMN_INCHES + 0.12) / self._width,
            y,
            text.lstrip("# ").replace("`", ""),
            fontsize=14 if is_heading else 11,
            weight="bold" if is_heading else "normal",
            color=INK,
            va="center",
        )

    def _alarm_list(self, frame: Axes, widget: Widget) -> None:
        width, height = frame.get_xlim()[1], frame.get_ylim()[1]
        columns = ALARM_COLUMNS.get(widget.width, 1)
        rows = -(-len(widget.alarms) // columns)
        step = min(0.34, (height - 0.55) / max(1, rows))
        for number, name in enumerate(widget.alarms):
            column, row = divmod(number, rows)
            x = 0.15 + column * (width - 0.2) / columns
            y = height - 0.62 - row * step
            state = self._alarms[name].state if name in self._alarms else "not deployed"
            frame.scatter([x + 0.05], [y], s=60, color=STATE_COLOURS.get(state, "#d5dbdb"), clip_on=False)
            short = name.removeprefix("scanfleet-")
            frame.text(x + 0.2, y, f"{short}", fontsize=9, color=INK, va="center")
            frame.text(
                x + (width - 0.2) / columns - 0.12,
                y,
                state.lower().replace("_", " "),
                fontsize=8,
                color=STATE_COLOURS.get(state, PALE),
                va="center",
                ha="right",
            )

    @staticmethod
    def _log(frame: Axes, widget: Widget) -> None:
        height = frame.get_ylim()[1]
        frame.text(
            0.12,
            height - 0.5,
            "a query of Logs Insights, which is not run here:",
            fontsize=9,
            color=PALE,
            va="top",
        )
        lines = widget.text.replace("\n| ", " | ").split(" | ")
        columns = CHARACTERS_A_COLUMN * widget.width
        wrapped = (textwrap.wrap(line, columns, subsequent_indent="    ") for line in lines)
        query = "\n".join(line for lines in wrapped for line in lines)
        frame.text(
            0.12, height - 0.78, query, fontsize=8, color=PALE, va="top", family="monospace", clip_on=True
        )
