"""Draws the stored results and the model as SVG, for docs/performance.md, in the environment that has matplotlib.

Grey text and lines on a transparent background are readable on white and on black.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench import scale

PLOTS = Path(__file__).with_name("plots")
RESULTS = Path(__file__).with_name("results.json")
GREY = "#808080"
COLOURS = {"ours": "#1f8fdb", "peer": "#e07b39", "floor": "#b4b4b4"}
STYLE = {
    "svg.fonttype": "none",  # text as text, not as paths
    "svg.hashsalt": "plots",  # the same plot gives the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY),
}


def main() -> None:
    results = json.loads(RESULTS.read_text())
    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    PLOTS.mkdir(exist_ok=True)
    cold_starts(results)
    batches(results)
    backlogs(results)
    memory(results)
    drains()


def cold_starts(results: Mapping[str, Any]) -> None:
    clock = results["cold_start_ms"]
    with _plot("cold-start", height=2.6) as axes:
        _bars(axes, {"first SQS event": clock["sqs"], "first HTTP event": clock["http"]})
        axes.set_xlabel("cold start to the first answer, on whole cores, ms: median, min – max")


def batches(results: Mapping[str, Any]) -> None:
    samples = results["batch_ms"]
    with _plot("batch", height=2.2) as axes:
        _bars(
            axes,
            {
                "one message": {name: samples[name]["one"] for name in samples},
                "ten for ten services": {name: samples[name]["ten"] for name in samples},
            },
        )
        axes.set_xlabel("one batch, warm, VPCEP answering after 50 ms, ms: median, min – max")


def backlogs(results: Mapping[str, Any]) -> None:
    with _plot("backlog", height=2.6) as axes:
        for name, sizes in results["backlog_event_ms"].items():
            axes.plot(
                list(map(int, sizes)), list(map(median, sizes.values())), marker="o", label=name, color=COLOURS[name]
            )
        axes.set_xscale("log")
        axes.set_ylim(bottom=0, top=axes.dataLim.ymax * 1.2)
        axes.set_xlabel("events in the backlog")
        axes.set_ylabel("ms an event")
        axes.grid(axis="y")
        axes.legend()


def memory(results: Mapping[str, Any]) -> None:
    with _plot("memory", height=2.6) as axes:
        for name in ("ours", "peer"):
            resident = results["memory"][name]["resident_mib"]
            axes.plot(list(map(int, resident)), list(resident.values()), label=name, color=COLOURS[name])
        axes.set_ylim(bottom=0, top=axes.dataLim.ymax * 1.2)
        axes.set_xlabel("batches of ten handled")
        axes.set_ylabel("resident, MiB")
        axes.grid(axis="y")
        axes.legend()


def drains() -> None:
    with _plot("drain", height=3.2) as axes:
        events = [10 ** (power / 10) for power in range(30, 71)]
        for scenario, deployment in scale.SCENARIOS.items():
            axes.loglog(events, [scale.drain(round(number), deployment).seconds for number in events], label=scenario)
        marks = {"1 s": 1, "1 min": 60, "1 h": 3_600, "1 d": 86_400}
        axes.set_yticks(list(marks.values()), list(marks))
        axes.minorticks_off()
        axes.set_xlabel("events in the backlog (a model: tests/bench/scale.py)")
        axes.set_ylabel("time to drain")
        axes.grid()
        axes.legend()


def _bars(axes: Axes, groups: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Horizontal bars, a group for each measure, with their spread."""
    places: list[float] = []
    labels: list[str] = []
    place = 0.0
    for group, samples in groups.items():
        for name, values in samples.items():
            middle = median(values)
            spread = [[middle - min(values)], [max(values) - middle]]
            axes.barh(place, middle, xerr=spread, color=COLOURS[name], ecolor=GREY, capsize=2)
            axes.annotate(
                f" {middle:.0f}", (max(values), place), va="center", xytext=(3, 0), textcoords="offset points"
            )
            places.append(place)
            labels.append(f"{group}: {name}" if name == "ours" else name)
            place += 1
        place += 0.6
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="x")


@contextmanager
def _plot(name: str, height: float) -> Iterator[Axes]:
    figure, axes = plt.subplots(figsize=(7.2, height), layout="constrained")
    yield axes
    save(figure, PLOTS / f"{name}.svg")


def save(figure: Figure, path: Path) -> None:
    """Without the blanks that matplotlib leaves at the ends of lines."""
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
