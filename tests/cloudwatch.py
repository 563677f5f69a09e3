"""CloudWatch's statistics, metric math and alarms over recorded data points, as documented.

docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring: alarm-evaluation.html, alarms-and-missing-data.html,
using-metric-math.html. An alarm is evaluated each minute over a sliding window, with the data points that have arrived
by then. Where the documentation is silent, a comment names the choice.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal, NamedTuple

State = Literal["OK", "ALARM"]
# A scalar of an expression, or the data point of a time series; None where there is none.
Value = float | None

# "CloudWatch attempts to retrieve a higher number of data points" than EvaluationPeriods: five for three in the
# documented examples. How many for others is not documented.
EXTRA_PERIODS: Final = 2
MINUTE: Final = 60
_COMPARE: Final = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


class Metric(NamedTuple):
    """The key of data points: the dimensions as sorted pairs of name and value."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, namespace: str, name: str, **dimensions: str) -> Metric:
        return cls(namespace, name, tuple(sorted(dimensions.items())))


class _Point(NamedTuple):
    time: float
    value: float
    arrives: float


@dataclass
class Record:
    """Data points of metrics, in seconds from the beginning of the record."""

    points: dict[Metric, list[_Point]] = field(default_factory=lambda: defaultdict(list))

    def put(self, time: float, metric: Metric, *values: float, late: float = 0.0) -> None:
        """Record values of one time that CloudWatch has so many seconds later."""
        for value in values:
            point = _Point(time, value, time + late)
            points = self.points[metric]
            points.insert(bisect_left(points, point), point)

    def statistic(self, metric: Metric, stat: str, start: float, end: float, *, known_at: float = math.inf) -> Value:
        """Of what lies in this span, the end excluded, and has arrived by then. None where nothing does."""
        points = self.points.get(metric, [])
        span = points[bisect_left(points, (start,)) : bisect_left(points, (end,))]
        return statistic([point.value for point in span if point.arrives <= known_at], stat)


def statistic(values: Sequence[float], stat: str) -> Value:
    """None where there are no values, and where a percentile cannot be had: with a negative value among them."""
    if not values:
        return None
    simple: dict[str, Callable[[Sequence[float]], float]] = {
        "Sum": math.fsum,
        "Average": fmean,
        "Maximum": max,
        "Minimum": min,
        "SampleCount": len,
    }
    if stat in simple:
        return float(simple[stat](values))
    if min(values) < 0:
        return None
    if percentile := re.fullmatch(r"p([0-9.]+)", stat):
        return sorted(values)[max(0, math.ceil(len(values) * float(percentile[1]) / 100) - 1)]
    if rank := re.fullmatch(r"PR\(([0-9.]*):([0-9.]*)\)", stat):
        low, high = float(rank[1] or "-inf"), float(rank[2] or "inf")
        return 100 * sum(low < value <= high for value in values) / len(values)
    raise ValueError(stat)


def compute(
    expression: str, values: Mapping[str, Value], metrics: Sequence[str], *, missing_is_zero: bool = True
) -> Value:
    """One data point of an expression.

    A function of a whole time series, as SUM of a single one, is rejected: an alarm retrieves more data points than it
    evaluates, so that its value is undefined.

    Args:
        values: of each metric and expression at this time, by id.
        metrics: the ids of the metrics, for METRICS().
        missing_is_zero: whether an operator takes the missing side for 0, as is documented, or has no result.
    """
    return _Expression(values, metrics, missing_is_zero).value(ast.parse(expression, mode="eval").body)


@dataclass(frozen=True)
class _Expression:
    values: Mapping[str, Value]
    metrics: Sequence[str]
    missing_is_zero: bool

    def value(self, node: ast.expr) -> Value:
        value: Value
        match node:
            case ast.Constant(value=int() | float() as number):
                value = float(number)
            case ast.Name(id=name):
                value = self.values[name]
            case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATORS:
                value = self._binary(_OPERATORS[type(operation)], left, right)
            case ast.Compare(left=left, ops=[comparison], comparators=[right]) if type(comparison) in _OPERATORS:
                value = self._binary(_OPERATORS[type(comparison)], left, right)
            case ast.Call(func=ast.Name(id="IF"), args=[condition, true, false]):
                chosen = self.value(condition)
                value = (self.value(true) or 0.0) if chosen else self.value(false)
                value = None if chosen is None else value
            case ast.Call(func=ast.Name(id="FILL"), args=[series, ast.Constant(value=int() | float() as filler)]):
                value = self.value(series)
                value = float(filler) if value is None else value
            case ast.Call(func=ast.Name(id="SUM"), args=[ast.Call() | ast.List() as array]):
                present = [each for each in self._array(array) if each is not None]
                value = math.fsum(present) if present else None
            case _:
                raise ValueError(ast.unparse(node))
        return value

    def _array(self, node: ast.Call | ast.List) -> Iterator[Value]:
        match node:
            case ast.List(elts=elements):
                yield from map(self.value, elements)
            case ast.Call(func=ast.Name(id="METRICS"), args=[]):
                yield from (self.values[id_] for id_ in self.metrics)
            case ast.Call(func=ast.Name(id="METRICS"), args=[ast.Constant(value=str() as part)]):
                yield from (self.values[id_] for id_ in self.metrics if part in id_)
            case _:
                raise ValueError(ast.unparse(node))

    def _binary(self, operation: Callable[[float, float], float], left: ast.expr, right: ast.expr) -> Value:
        one, other = self.value(left), self.value(right)
        one_sided = (one is None) != (other is None)
        of_series = not isinstance(left, ast.Constant) and not isinstance(right, ast.Constant)
        if None in (one, other) and not (one_sided and of_series and self.missing_is_zero):
            return None
        try:
            return float(operation(one or 0.0, other or 0.0))
        except ZeroDivisionError:
            return None


_OPERATORS: Final[Mapping[type[ast.AST], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
}


class Alarm:
    """An alarm of a template, by its properties."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        resolve: Callable[[Any], str],
        *,
        missing_is_zero: bool = True,
    ) -> None:
        """
        Args:
            resolve: what an intrinsic function of a dimension's value comes to.
            missing_is_zero: as of ``compute``.
        """
        self._periods: int = properties["EvaluationPeriods"]
        self._breaching_periods: int = properties.get("DatapointsToAlarm", self._periods)
        self._threshold: float = properties["Threshold"]
        self._breaches = _COMPARE[properties["ComparisonOperator"]]
        self._missing: str = properties["TreatMissingData"]
        self._missing_is_zero = missing_is_zero
        self._stats: dict[str, tuple[Metric, str]] = {}
        self._expressions: dict[str, str] = {}
        queries = properties.get("Metrics") or [
            {
                "Id": "metric",
                "MetricStat": {
                    "Metric": properties,
                    "Stat": properties.get("Statistic") or properties["ExtendedStatistic"],
                    "Period": properties["Period"],
                },
            }
        ]
        for query in queries:
            if "Expression" in query:
                self._expressions[query["Id"]] = query["Expression"]
                continue
            stat = query["MetricStat"]
            dimensions = {each["Name"]: resolve(each["Value"]) for each in stat["Metric"]["Dimensions"]}
            metric = Metric.of(stat["Metric"]["Namespace"], stat["Metric"]["MetricName"], **dimensions)
            self._stats[query["Id"]] = (metric, stat["Stat"])
        [self._result] = [query["Id"] for query in queries if query.get("ReturnData", True)]
        [self._period] = {query["MetricStat"]["Period"] for query in queries if "MetricStat" in query}

    @property
    def metrics(self) -> list[Metric]:
        return [metric for metric, _ in self._stats.values()]

    def states(self, record: Record, end: float) -> list[State]:
        """At the end of each minute, from the beginning of the record on, when it is OK."""
        states: list[State] = ["OK"]
        for time in range(MINUTE, int(end) + 1, MINUTE):
            points = (self._data_point(record, time, back) for back in range(self._periods + EXTRA_PERIODS))
            states.append(self.state(list(points), states[-1]))
        return states

    def state(self, points: Sequence[Value], before: State) -> State:
        """By the data points of the evaluation range, the newest first."""
        real = [self._breaches(point, self._threshold) for point in points if point is not None][: self._periods]
        missing = self._periods - len(real)
        breaching = sum(real)
        if missing and self._missing == "ignore" and breaching == len(real) < self._breaching_periods:
            return before
        if missing and self._missing not in ("ignore", "notBreaching"):
            raise ValueError(self._missing)
        return "ALARM" if breaching >= self._breaching_periods else "OK"

    def _data_point(self, record: Record, now: float, back: int) -> Value:
        end = now - back * self._period
        values: dict[str, Value] = {
            id_: record.statistic(metric, stat, end - self._period, end, known_at=now)
            for id_, (metric, stat) in self._stats.items()
        }
        while pending := [id_ for id_ in self._expressions if id_ not in values]:
            ready = [id_ for id_ in pending if not _names(self._expressions[id_]) & set(pending)]
            for id_ in ready:
                values[id_] = compute(
                    self._expressions[id_], values, list(self._stats), missing_is_zero=self._missing_is_zero
                )
        return values[self._result]


def _names(expression: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)}
