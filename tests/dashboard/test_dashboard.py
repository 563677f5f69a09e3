"""The figures of the dashboard's picture, and that it shows the widgets of the template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cloudwatch import Metric, Record
from tests.dashboard.__main__ import FIGURES, figures
from tests.dashboard.widgets import STACK, lines, values, widgets
from tests.template import ROOT

PICTURE = ROOT / "docs" / "dashboard.svg"


def own(name: str, **dimensions: str) -> Metric:
    return Metric.of("VpcepRename", name, service=STACK, **dimensions)


def widget(title: str) -> dict[str, Any]:
    [found] = [widget for widget in widgets() if widget["properties"].get("title") == title]
    return found


@pytest.fixture
def record() -> Record:
    """Three renamed within 30 seconds, one after, and one that timed out and was given up."""
    record = Record()
    record.put(1, own("Renamed"), 1, 1, 1, 1)
    record.put(1, own("EventAge"), 1, 2, 3, 40)
    for metric in (
        own("RenameGivenUp"),
        own("RenameGivenUp", kind="unavailable"),
        own("RenameGivenUp", code="APIGW.0308"),
    ):
        record.put(7, metric, 1)
    return record


def test_objectives_are_computed_over_the_whole_time(record: Record) -> None:
    shown = values(lines(widget("Objectives, over 28 days"), record), record, 0, 10)

    assert shown == {"Settled, %": 80.0, "Settled within 30 s, %": 75.0}


def test_lines_are_computed_for_each_period(record: Record) -> None:
    shown = lines(widget("Events by result"), record)

    first, second = (values(shown, record, start, start + 5) for start in (0, 5))

    assert (first["Renamed"], first["RenameGivenUp"]) == (4, None)
    assert (second["Renamed"], second["RenameGivenUp"]) == (None, 1)


def test_search_finds_metrics_with_its_dimensions(record: Record) -> None:
    assert [line.label for line in lines(widget("Failures by kind"), record)] == ["unavailable RenameGivenUp"]
    assert [line.label for line in lines(widget("Failures by code"), record)] == ["APIGW.0308 RenameGivenUp"]


def test_lines_of_a_widget_have_different_labels(record: Record) -> None:
    for each in widgets():
        labels = [line.label for line in lines(each, record) if line.visible] if each["type"] == "metric" else []
        assert len(labels) == len(set(labels))


# ---- The stored figures and the picture

STORED = json.loads(FIGURES.read_text(encoding="utf-8"))


def test_stored_figures_are_of_the_widgets_of_the_template() -> None:
    """If not, run `make dashboard`."""
    now = figures(Record())["widgets"]
    fixed = ("type", "x", "y", "width", "height", "title", "text", "stacked", "period")

    assert [{name: it.get(name) for name in fixed} for it in STORED["widgets"]] == [
        {name: it.get(name) for name in fixed} for it in now
    ]
    for before, after in zip(STORED["widgets"], now, strict=True):
        assert list(before.get("alarms", {})) == list(after.get("alarms", {}))
        assert after.get("lines", {}).keys() <= before.get("lines", {}).keys()


def test_stored_figures_show_the_outage() -> None:
    by_title = {widget.get("title"): widget for widget in STORED["widgets"]}
    events = by_title["Events by result"]
    renamed, deferred = events["lines"]["Renamed"], events["lines"]["RenameDeferred"]
    start, end = (second // events["period"] for second in STORED["outage"])

    assert sum(filter(None, deferred[start:end])) > 0
    assert not any(deferred[: start - 1])
    assert not any(renamed[start + 1 : end - 1])
    assert all(renamed[: start - 1])
    assert by_title["Alarms"]["alarms"]["OutageBreakerAlarm"] == "ALARM"


def test_picture_has_every_title() -> None:
    picture = PICTURE.read_text(encoding="utf-8")

    titles = [widget.get("title") or widget["text"] for widget in STORED["widgets"]]
    [alarms] = [widget["alarms"] for widget in STORED["widgets"] if "alarms" in widget]
    assert [title for title in [*titles, *alarms] if title not in picture] == []
    assert "(dashboard.svg)" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert len(picture) < 500_000
