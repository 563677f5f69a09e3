"""The widgets of the template's dashboard, evaluated over recorded data points."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.cloudwatch import Metric, Record, Value, compute
from tests.template import of_type

STACK: Final = "vpcep-rename"
_SEARCH: Final = re.compile(r"SEARCH\('\{([\w,/]+)\} (.*)', '(\w+)', \d+\)")


def widgets() -> list[dict[str, Any]]:
    """Those of the template, with ``${…}`` unresolved."""
    [dashboard] = of_type("AWS::CloudWatch::Dashboard").values()
    return list(json.loads(dashboard["DashboardBody"]["Fn::Sub"])["widgets"])


def rows(widget: Mapping[str, Any]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The words of each row of a metric widget with its shorthand written out, and the row's options.

    The words are namespace, name, and dimensions by name and value; none for an expression.
    """
    before: list[str] = []
    for row in widget["properties"].get("metrics", []):
        options = row[-1] if isinstance(row[-1], dict) else {}
        words = [word for word in row if isinstance(word, str)]
        if words and words[0] == "...":
            words = before[: len(before) - len(words) + 1] + words[1:]
        words = [old if word == "." else word for word, old in zip(words, before + words, strict=False)]
        before = words  # an expression leaves nothing to refer to
        yield words, options


@dataclass(frozen=True)
class Line:
    """The content of one label: a metric's statistic, or an expression of other lines."""

    label: str
    id: str | None
    visible: bool
    metric: Metric | None
    stat: str
    expression: str


def lines(widget: Mapping[str, Any], record: Record) -> list[Line]:
    """Of a metric widget. A search finds what is in the record."""
    properties = widget["properties"]
    found: list[Line] = []
    for words, options in rows(widget):
        expression = options.get("expression", "")
        if search := _SEARCH.fullmatch(expression):
            found += _searched(search, record)
            continue
        metric = _metric(words) if words else None
        found.append(
            Line(
                label=options.get("label", ""),
                id=options.get("id"),
                visible=options.get("visible", True),
                metric=metric,
                stat=options.get("stat", properties.get("stat", "Average")),
                expression=expression,
            )
        )
    return _labelled(found)


def values(shown: list[Line], record: Record, start: float, end: float) -> dict[str, Value]:
    """Of a span of time, by label, for the lines that are visible."""
    by_id: dict[str, Value] = {}
    values_by_label: dict[str, Value] = {}
    for line in shown:
        if line.metric:
            value = record.statistic(line.metric, line.stat, start, end)
        else:
            value = compute(line.expression, by_id, [])
        if line.id:
            by_id[line.id] = value
        if line.visible:
            values_by_label[line.label] = value
    return values_by_label


def resolve(text: str) -> str:
    """Replace a resource by its logical id, and the stack's name."""
    text = text.replace("${AWS::StackName}", STACK)
    return re.sub(r"\$\{(\w+)(?:\.\w+)?\}", r"\1", text)


def _metric(words: list[str]) -> Metric:
    namespace, name, *pairs = map(resolve, words)
    return Metric.of(namespace, name, **dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _searched(search: re.Match[str], record: Record) -> Iterator[Line]:
    namespace, *dimensions = search[1].split(",")
    service = re.search(r'service="([^"]+)"', resolve(search[2]))
    names = re.findall(r'"(\w+)"', search[2].partition("MetricName=")[2])
    for metric in sorted(record.points):
        given = dict(metric.dimensions)
        if (
            metric.namespace == namespace
            and metric.name in names
            and sorted(given) == sorted(dimensions)
            and service
            and given["service"] == service[1]
        ):
            [value] = [given[name] for name in dimensions if name != "service"]
            yield Line(f"{value} {metric.name}", None, visible=True, metric=metric, stat=search[3], expression="")


def _labelled(found: list[Line]) -> list[Line]:
    """The label that the console generates where there is none: what distinguishes the line from the others."""
    metrics = [line.metric for line in found if line.metric]
    several_names = len({metric.name for metric in metrics}) > 1
    several_stats = len({line.stat for line in found if line.metric}) > 1 and not several_names

    def label(line: Line) -> str:
        assert line.metric
        # A dimension distinguishes two lines that have the same name.
        twins = [metric for metric in metrics if metric.name == line.metric.name]
        differing = [
            value
            for name, value in line.metric.dimensions
            if len({dict(twin.dimensions).get(name) for twin in twins}) > 1
        ]
        parts = [*differing, *([line.metric.name] if several_names or not differing else [])]
        return " ".join([*parts, *([line.stat] if several_stats else [])])

    return [line if line.label or not line.metric else replace(line, label=label(line)) for line in found]
