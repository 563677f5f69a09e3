"""Draws the dashboard's figures as SVG, for the documents: run by the environment that has matplotlib."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.plots import GREY, STYLE, save

FIGURES = Path(__file__).with_name("figures.json")
PICTURE = Path(__file__).parents[2] / "docs" / "dashboard.svg"
COLUMNS, COLUMN_INCHES, ROW_INCHES = 24, 0.6, 0.48
ALARM_COLOURS = {"OK": "#3f9b5b", "ALARM": "#d13212"}
OUTAGE_COLOUR = "#d13212"


def main() -> None:
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    mpl.use("svg")
    mpl.rcParams.update(STYLE | {"font.size": 8, "svg.hashsalt": "dashboard"})
    draw(figures)


def draw(figures: Mapping[str, Any]) -> None:
    rows = max(widget["y"] + widget["height"] for widget in figures["widgets"])
    size = (COLUMNS * COLUMN_INCHES, rows * ROW_INCHES)
    figure = plt.figure(figsize=size)
    for widget in figures["widgets"]:
        left, bottom = widget["x"] / COLUMNS, 1 - (widget["y"] + widget["height"]) / rows
        width, height = widget["width"] / COLUMNS, widget["height"] / rows
        inner = (left + 0.45 / size[0], bottom + 0.75 / size[1], width - 0.6 / size[0], height - 1.05 / size[1])
        if "text" in widget:
            figure.text(left + 0.1 / size[0], bottom + 0.1 / size[1], widget["text"], size=13, weight="bold")
            continue
        axes = figure.add_axes(inner)
        axes.set_title(widget["title"], loc="left", size=9, weight="bold")
        if "alarms" in widget:
            _alarms(axes, widget["alarms"])
        elif "values" in widget:
            _values(axes, widget["values"])
        else:
            _lines(axes, widget, figures)
    save(figure, PICTURE)


def _lines(axes: Axes, widget: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    period = widget["period"]
    shown = {label: points for label, points in widget["lines"].items() if any(point is not None for point in points)}
    times = [(number * period) / 60 for number in range(figures["seconds"] // period)]
    start, end = (second / 60 for second in figures["outage"])
    axes.axvspan(start, end, color=OUTAGE_COLOUR, alpha=0.08, linewidth=0)
    if widget["stacked"]:
        axes.stackplot(times, *[[point or 0 for point in points] for points in shown.values()], labels=list(shown))
    else:
        for label, points in shown.items():
            _line(axes, times, points, label)
    axes.set_xlim(0, figures["seconds"] / 60)
    axes.xaxis.set_major_formatter("{x:.0f} min")
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    axes.grid(axis="y")
    axes.tick_params(labelsize=7)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=6.5, handlelength=1.2, columnspacing=1
    )


def _line(axes: Axes, times: Sequence[float], points: Sequence[float | None], label: str) -> None:
    there = [(time, point) for time, point in zip(times, points, strict=True) if point is not None]
    axes.plot(*zip(*there, strict=True), label=label, linewidth=1.2, marker="." if len(there) < len(times) else "")


def _values(axes: Axes, values: Mapping[str, float | None]) -> None:
    axes.axis("off")
    for number, (label, value) in enumerate(values.items()):
        top = 0.85 - number * 0.5
        axes.text(0, top, "–" if value is None else f"{value:g}", size=18, va="top")
        axes.text(0, top - 0.25, label, size=8, va="top")


def _alarms(axes: Axes, alarms: Mapping[str, str]) -> None:
    axes.axis("off")
    columns = 2
    rows = -(-len(alarms) // columns)
    for number, (name, state) in enumerate(alarms.items()):
        left, top = (number // rows) / columns, 1 - (number % rows) / rows
        axes.text(left, top, state, size=6.5, va="top", color="white", backgroundcolor=ALARM_COLOURS[state])
        axes.text(left + 0.1, top, name, size=7.5, va="top", color=GREY)


if __name__ == "__main__":
    main()
