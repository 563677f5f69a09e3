"""Each alarm of the template over recorded data points, as CloudWatch evaluates it.

It goes off for its fault, once, clears after it, and stays off on a day without one. `tests/cloudwatch.py` evaluates.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from tests.cloudwatch import MINUTE, Alarm, Metric, Record, State, Value, compute, statistic
from tests.template import TEMPLATE, of_type

ALARMS: Final = of_type("AWS::CloudWatch::Alarm")
ROLLBACK_ALARMS: Final = [alarm["Ref"] for alarm in TEMPLATE["Globals"]["Function"]["DeploymentPreference"]["Alarms"]]
STACK: Final = "vpcep-rename"
HOUR: Final = 60  # minutes
CANARY_MINUTES: Final = 10
# A metric arrives a minute or so after what it measures.
USUAL_LAG_SECONDS: Final = 60.0


def resolve(value: Any) -> str:
    """What a dimension's value comes to: a resource is called by its logical id here."""
    match value:
        case {"Ref": "AWS::StackName"}:
            return STACK
        case {"Ref": str(logical_id)}:
            return logical_id
        case {"Fn::GetAtt": attribute}:
            return ".".join(attribute if isinstance(attribute, list) else [attribute]).partition(".")[0]
    return str(value)


def alarm(name: str, **options: bool) -> Alarm:
    return Alarm(ALARMS[name], resolve, **options)


def computes(name: str) -> bool:
    """Whether an operator of its expressions may lack one side."""
    return any(set("+-*/") & set(query.get("Expression", "")) for query in ALARMS[name].get("Metrics", []))


def own(name: str, **dimensions: str) -> Metric:
    return Metric.of("VpcepRename", name, service=STACK, **dimensions)


def queue(name: str, logical_id: str) -> Metric:
    return Metric.of("AWS/SQS", name, QueueName=logical_id)


def function(name: str, logical_id: str) -> Metric:
    return Metric.of("AWS/Lambda", name, FunctionName=logical_id)


def api(name: str) -> Metric:
    return Metric.of("AWS/ApiGateway", name, ApiName=STACK, Stage="v1")


QUEUES: Final = ("RenameQueue", "UnsettledQueue", "RenameDeadLetterQueue", "OutcomeBusDeadLetterQueue")
FUNCTIONS: Final = ("RenameFromQueue", "RenameFromHttp", "SettleDeadLetters")
VISIBLE, NOT_VISIBLE, AGE = (
    *("ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"),
    "ApproximateAgeOfOldestMessage",
)


# When an event that is returned with a delay is delivered: after 30 s, then after twice as long, up to 15 minutes.
DELIVERY_MINUTES: Final = (0, 1, 2, 4, 8, 16, 31, 46, 61, 76, 91)


class Day:
    """Data points by the minute."""

    def __init__(self, lag: float = USUAL_LAG_SECONDS) -> None:
        self.record = Record()
        self.lag = lag

    def put(self, minutes: range | int, metric: Metric, *values: float, lag: float | None = None) -> None:
        """The values, in each of the minutes."""
        for minute in [minutes] if isinstance(minutes, int) else minutes:
            self.record.put(minute * MINUTE, metric, *values, late=self.lag if lag is None else lag)

    def idle_queues(self, minutes: range, *but: str) -> None:
        for name in QUEUES:
            if name not in but:
                for metric in (VISIBLE, NOT_VISIBLE, AGE):
                    self.put(minutes, queue(metric, name), 0)

    def invocations(self, minutes: range, logical_id: str = "RenameFromQueue", milliseconds: float = 300) -> None:
        """Good ones, one a minute."""
        self.put(minutes, function("Errors", logical_id), 0)
        self.put(minutes, function("Throttles", logical_id), 0)
        self.put(minutes, function("Duration", logical_id), milliseconds)

    def renames(self, minutes: range, count: int = 3) -> None:
        self.put(minutes, own("Renamed"), *[1.0] * count)
        self.put(minutes, own("EventAge"), *[1.5] * count)

    def deferred(self, minutes: range | int, kind: str, code: str, count: int = 1, age: float = 2.0) -> None:
        for metric in (own("RenameDeferred"), own("RenameDeferred", kind=kind), own("RenameDeferred", code=code)):
            self.put(minutes, metric, *[1.0] * count)
        self.put(minutes, own("WaitingAge"), *[age] * count)

    def deliveries(self, begin: int, end: int, kind: str, code: str) -> None:
        """Of one event that is returned with a delay each time."""
        for minute in DELIVERY_MINUTES:
            if begin + minute < end:
                self.deferred(begin + minute, kind, code, age=minute * MINUTE)

    def failed(self, minutes: range | int, kind: str, count: int = 1, name: str = "RenameFailed") -> None:
        for metric in (own(name), own(name, kind=kind)):
            self.put(minutes, metric, *[1.0] * count)


class Fault(NamedTuple):
    """What one alarm is for.

    Attributes:
        happens: puts the data points of the fault in, from and to these minutes; traffic goes on before and after.
        minutes: how long it lasts.
        noticed_within: minutes after it began, until the alarm is on.
        over_within: minutes after it ended, until the alarm is off.
    """

    happens: Callable[[Day, int, int], None]
    minutes: int
    noticed_within: int
    over_within: int


def two_messages(logical_id: str) -> Callable[[Day, int, int], None]:
    return lambda day, begin, end: day.put(range(begin, end), queue(VISIBLE, logical_id), 2)


def backlog(day: Day, begin: int, end: int) -> None:
    for minute in range(begin, end):
        day.put(minute, queue(AGE, "RenameQueue"), (minute - begin) * MINUTE)


def one_event_unsettled(kind: str, code: str) -> Callable[[Day, int, int], None]:
    """SQS's age does not show it: it has been received too often."""
    return lambda day, begin, end: day.deliveries(begin, end, kind, code)


def dead_letter_not_concluded(day: Day, begin: int, end: int) -> None:
    """One message, at work for six minutes each time; SQS's age forgets it after the third."""
    for minute in range(begin, end):
        day.put(minute, queue(NOT_VISIBLE, "UnsettledQueue"), minute % 6 != 0)
        day.put(minute, queue(VISIBLE, "UnsettledQueue"), minute % 6 == 0)
        day.put(minute, queue(AGE, "UnsettledQueue"), (minute - begin) * MINUTE if minute - begin < 18 else 0)


def forgotten_dead_letter(day: Day, begin: int, end: int) -> None:
    for minute in range(begin, end):
        day.put(minute, queue(AGE, "RenameDeadLetterQueue"), 10 * 86_400 + (minute - begin) * MINUTE)


def wrong_events(day: Day, begin: int, end: int) -> None:
    for kind in ("invalid", "not_found", "conflict"):
        day.failed(range(begin, end), kind)


def defect(day: Day, begin: int, end: int) -> None:
    """Of one event; the others go through."""
    day.deliveries(begin, end, "internal", "Rename.InternalError")
    day.renames(range(begin, end))


def ledger_refuses(day: Day, begin: int, end: int) -> None:
    """With an event every twenty minutes."""
    for minute in range(begin, end, 20):
        day.deliveries(minute, end, "unavailable", "Rename.LedgerUnavailable")


def outage(day: Day, begin: int, end: int) -> None:
    day.deferred(range(begin, end), "unavailable", "Rename.Outage", count=3)
    for minute in range(begin, end, 2):
        day.put(minute, own("OutageBreakerOpen"), 1, 0, 1)
    day.put(end, own("OutageBreakerOpen"), 0)


def huawei_cloud_throttles(day: Day, begin: int, end: int) -> None:
    day.deferred(range(begin, end, 2), "throttled", "APIGW.0308", count=4)


def crashes(day: Day, begin: int, end: int) -> None:
    """With one message, which comes again after the queue's visibility time-out; others go through."""
    day.invocations(range(begin, end))
    day.put(range(begin, end, 6), function("Errors", "RenameFromQueue"), 1)


def throttled_functions(day: Day, begin: int, end: int) -> None:
    """Which the API answers with 500."""
    for minute in range(begin, end):
        day.put(minute, function("Throttles", "RenameFromHttp"), *[1.0] * 6, lag=day.lag + MINUTE)
        day.put(minute, api("5XXError"), *[1.0] * 6)


def slow(logical_id: str, milliseconds: float) -> Callable[[Day, int, int], None]:
    return lambda day, begin, end: day.invocations(range(begin, end), logical_id, milliseconds)


def api_fails(day: Day, begin: int, end: int) -> None:
    """It may not invoke the function, say: Lambda has no metric of that."""
    day.put(range(begin, end), api("5XXError"), 1)


FAULTS: Final = {
    "DeadLettersAlarm": Fault(two_messages("RenameDeadLetterQueue"), 3 * HOUR, noticed_within=1, over_within=1),
    "RenameQueueAgeAlarm": Fault(backlog, 2 * HOUR, noticed_within=31, over_within=5),
    "WaitingAgeAlarm": Fault(
        one_event_unsettled("unavailable", "Rename.Timeout"), 92, noticed_within=32, over_within=22
    ),
    "UnsettledQueueAgeAlarm": Fault(dead_letter_not_concluded, 2 * HOUR, noticed_within=15, over_within=4),
    "DeadLetterQueueAgeAlarm": Fault(forgotten_dead_letter, 3 * HOUR, noticed_within=1, over_within=HOUR),
    "FailureRateAlarm": Fault(wrong_events, HOUR, noticed_within=5, over_within=30),
    "AccessFailuresAlarm": Fault(one_event_unsettled("access", "APIGW.0301"), 92, noticed_within=1, over_within=22),
    "DefectsAlarm": Fault(defect, 92, noticed_within=1, over_within=22),
    "LedgerOrBusAlarm": Fault(ledger_refuses, 2 * HOUR, noticed_within=4, over_within=22),
    "OutageBreakerAlarm": Fault(outage, HOUR, noticed_within=1, over_within=22),
    "HuaweiThrottlesAlarm": Fault(huawei_cloud_throttles, HOUR, noticed_within=9, over_within=15),
    "FunctionErrorsAlarm": Fault(crashes, HOUR, noticed_within=1, over_within=12),
    "FunctionThrottlesAlarm": Fault(throttled_functions, HOUR, noticed_within=4, over_within=5),
    "QueueDurationAlarm": Fault(slow("RenameFromQueue", 55_000), HOUR, noticed_within=6, over_within=25),
    "HttpDurationAlarm": Fault(slow("RenameFromHttp", 24_000), HOUR, noticed_within=6, over_within=25),
    "DeadLettersDurationAlarm": Fault(slow("SettleDeadLetters", 55_000), HOUR, noticed_within=6, over_within=25),
    "HttpErrorsAlarm": Fault(api_fails, HOUR, noticed_within=2, over_within=7),
    "OutcomeBusDeadLettersAlarm": Fault(two_messages("OutcomeBusDeadLetterQueue"), 3 * HOUR, 1, over_within=1),
}


@cache
def quiet_day() -> Day:
    """Work in the day and nothing at night; one event fails at a time, and succeeds later."""
    day = Day()
    work = range(7 * HOUR, 19 * HOUR)
    day.idle_queues(range(24 * HOUR))
    for minute in work:
        day.renames(range(minute, minute + 1), count=1 + minute % 5)
    day.invocations(work)
    day.invocations(range(work.start, work.stop, 3), "RenameFromHttp", 250)
    day.put(range(work.start, work.stop, 3), api("5XXError"), 0)
    day.put(work, own("VpcepLatency"), 180, 210, 900)
    for hour in range(8, 18):
        minute = hour * HOUR
        day.failed(minute, "invalid")
        day.failed(minute + 20, "not_found")
        day.put(minute + 25, own("RenameDuplicate"), 1)
        day.deferred(minute + 30, "throttled", "APIGW.0308")
        day.deferred(minute + 40, "unavailable", "Rename.Timeout", age=31)
        day.deferred(minute + 50, "unavailable", "Rename.LedgerUnavailable")
    day.put(10 * HOUR, queue(VISIBLE, "RenameQueue"), 400)  # a few hundred at once
    day.put(10 * HOUR + 1, queue(AGE, "RenameQueue"), 60)
    day.put(11 * HOUR, function("Throttles", "RenameFromQueue"), 1)
    day.put(12 * HOUR, function("Duration", "RenameFromQueue"), 52_000)  # once
    day.put(13 * HOUR, api("5XXError"), 1)
    return day


def minutes_on(name: str, day: Day, minutes: int, **options: bool) -> list[int]:
    """At the end of which minutes the alarm is on."""
    states = alarm(name, **options).states(day.record, minutes * MINUTE)
    return [minute for minute, state in enumerate(states) if state == "ALARM"]


def day_with(
    fault: Fault, begin: int, lag: float = USUAL_LAG_SECONDS, *, night_follows: bool = False
) -> tuple[Day, int]:
    """Ordinary traffic with the fault in it, and the minute when that ends; afterwards traffic again, or none."""
    day, end = Day(lag), begin + fault.minutes
    before, after = range(begin), range(end, end + 2 * HOUR)
    for minutes in (before, after):
        day.idle_queues(minutes)
    for minutes in [before] if night_follows else [before, after]:
        day.renames(minutes)
        for logical_id in FUNCTIONS:
            day.invocations(minutes, logical_id)
        day.put(minutes, api("5XXError"), 0)
    fault.happens(day, begin, end)
    return day, end


@pytest.mark.parametrize("night_follows", [False, True])
@pytest.mark.parametrize("minutes_late", [0, 1, 3])
@pytest.mark.parametrize(
    ("name", "missing_is_zero"),
    [(name, True) for name in ALARMS] + [(name, False) for name in ALARMS if computes(name)],
)
def test_alarm_goes_off_for_its_fault_and_clears_after_it(
    name: str, missing_is_zero: bool, minutes_late: int, night_follows: bool
) -> None:
    fault, begin = FAULTS[name], 40
    day, end = day_with(fault, begin, minutes_late * MINUTE, night_follows=night_follows)

    on = minutes_on(name, day, end + 2 * HOUR, missing_is_zero=missing_is_zero)

    assert on, "it did not go off"
    assert begin < on[0] <= begin + fault.noticed_within + minutes_late
    assert on[-1] <= end + fault.over_within + minutes_late
    assert on == list(range(on[0], on[-1] + 1)), "it went off more than once"


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_is_silent_on_a_quiet_day(name: str) -> None:
    day = quiet_day()

    assert minutes_on(name, day, 24 * HOUR) == []
    # or it would be silent for lack of data
    of_faults_only = {"AccessFailuresAlarm", "DefectsAlarm", "OutageBreakerAlarm", "DeadLettersDurationAlarm"}
    assert any(metric in day.record.points for metric in alarm(name).metrics) == (name not in of_faults_only)


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_of_one_period_has_no_fill(name: str) -> None:
    """CloudWatch would put the filler where the newest data point is on its way, and look at nothing else."""
    expressions = [query.get("Expression", "") for query in ALARMS[name].get("Metrics", [])]

    assert ALARMS[name]["EvaluationPeriods"] > 1 or "FILL" not in "".join(expressions)


# ---- Those that roll a deployment back


@pytest.mark.parametrize("name", ROLLBACK_ALARMS)
def test_rollback_alarm_goes_off_within_the_minutes_of_the_canary(name: str) -> None:
    assert FAULTS[name].noticed_within < CANARY_MINUTES


@pytest.mark.parametrize("minutes_late", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("FunctionErrorsAlarm", function("Errors", "RenameFromHttp")),
        ("DefectsAlarm", own("RenameNotHandled")),
        ("DefectsAlarm", own("RenameDeferred", kind="internal")),
        ("AccessFailuresAlarm", own("RenameDeferred", kind="access")),
        ("AccessFailuresAlarm", own("RenameGivenUp", kind="access")),
    ],
)
def test_rollback_alarm_goes_off_for_a_single_failing_minute_that_arrives_late(
    name: str, metric: Metric, minutes_late: int
) -> None:
    day = Day(lag=0)
    for logical_id in FUNCTIONS:
        day.invocations(range(HOUR), logical_id)
    day.renames(range(HOUR))
    day.put(20, metric, 1, lag=minutes_late * MINUTE)

    assert minutes_on(name, day, HOUR)[:1] == [20 + max(1, minutes_late)]


def test_single_failing_minute_that_arrives_late_is_missed_by_an_alarm_of_one_filled_period() -> None:
    """Why the three are not written so."""
    metric = {"Metric": {"Namespace": "N", "MetricName": "M", "Dimensions": []}, "Stat": "Sum", "Period": 60}
    properties = {
        "Metrics": [
            {"Id": "all", "Expression": "FILL(errors, 0)"},
            {"Id": "errors", "ReturnData": False, "MetricStat": metric},
        ],
        "EvaluationPeriods": 1,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
    }
    record = Record()
    record.put(20 * MINUTE, Metric.of("N", "M"), 1, late=2 * MINUTE)

    of_five_periods = properties | {"EvaluationPeriods": 5, "DatapointsToAlarm": 1}
    assert "ALARM" not in Alarm(properties, resolve).states(record, HOUR * MINUTE)
    assert "ALARM" in Alarm(of_five_periods, resolve).states(record, HOUR * MINUTE)


def test_invalid_events_of_a_producer_set_off_no_rollback_alarm() -> None:
    day, _ = day_with(FAULTS["FailureRateAlarm"], HOUR)
    day.put(range(HOUR, 2 * HOUR), api("4XXError"), *[1.0] * 20)
    day.put(range(HOUR, 2 * HOUR), api("5XXError"), *[0.0] * 20)

    on = {name for name in ALARMS if minutes_on(name, day, 3 * HOUR)}

    assert on == {"FailureRateAlarm"}
    assert on.isdisjoint(ROLLBACK_ALARMS)


@pytest.mark.parametrize("lag_of_throttles", [-60.0, 0.0, 60.0])
def test_throttled_function_sets_off_no_rollback_alarm(lag_of_throttles: float) -> None:
    day = Day()
    for minute in range(HOUR):
        throttled = 5.0 if 20 <= minute < 40 else 0.0
        day.put(minute, api("5XXError"), throttled)
        day.put(minute, function("Throttles", "RenameFromHttp"), throttled, lag=day.lag + lag_of_throttles)

    on = {name for name in ALARMS if minutes_on(name, day, HOUR)}

    assert on == {"FunctionThrottlesAlarm"}
    assert on.isdisjoint(ROLLBACK_ALARMS)


def test_failing_api_sets_off_its_alarm_among_throttled_invocations() -> None:
    day = Day()
    day.put(range(20, 30), api("5XXError"), 6)
    day.put(range(20, 30), function("Throttles", "RenameFromHttp"), 5)

    assert minutes_on("HttpErrorsAlarm", day, HOUR)


# ---- The fake of CloudWatch, against the tables of its documentation


def points_of(text: str) -> list[Value]:
    """The newest first, of a text that has it last."""
    return [{"0": 0.0, "X": 1.0, "-": None}[mark] for mark in reversed(text.split())]


@pytest.mark.parametrize(
    ("text", "needed", "not_breaching", "ignore"),
    [
        ("0 - X - X", 3, "OK", "OK"),
        ("0 - - - -", 3, "OK", "OK"),
        ("- - - - -", 3, "OK", "before"),
        ("0 X X - X", 3, "ALARM", "ALARM"),
        ("- - X - -", 3, "OK", "before"),
        ("0 - X - X", 2, "ALARM", "ALARM"),
        ("0 0 X 0 X", 2, "ALARM", "ALARM"),
        ("0 - X - -", 2, "OK", "OK"),
        ("- - - - 0", 2, "OK", "OK"),
        ("- - - X -", 2, "OK", "before"),
    ],
)
@pytest.mark.parametrize("before", ["OK", "ALARM"])
def test_state_of_an_alarm_with_missing_data_points_is_as_cloudwatch_documents(
    text: str, needed: int, not_breaching: State, ignore: State | str, before: State
) -> None:
    def state(missing: str) -> State:
        properties = ALARMS["DeadLettersAlarm"] | {
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": needed,
            "TreatMissingData": missing,
        }
        return Alarm(properties, resolve).state(points_of(text), before)

    assert state("notBreaching") == not_breaching
    assert state("ignore") == (before if ignore == "before" else ignore)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("SUM(METRICS())", 5.0),
        ('SUM(METRICS("thr"))', 3.0),
        ("SUM([two, gone])", 2.0),
        ("SUM([gone, gone])", None),
        ("FILL(gone, 0) + two", 2.0),
        ("two - gone", 2.0),
        ("100 * gone", None),
        ("gone - gone", None),
        ("two / gone", None),
        ("100 * two / three", 200 / 3),
        ("IF(three >= 3, two, 0)", 2.0),
        ("IF(three >= 4, two, 7)", 7.0),
        ("IF(gone >= 0, two, 7)", None),
    ],
)
def test_metric_expression_has_its_value_or_none_where_data_is_missing(expression: str, value: float | None) -> None:
    values = {"two": 2.0, "three": 3.0, "gone": None}

    assert compute(expression, values, list(values)) == pytest.approx(value)


@pytest.mark.parametrize("expression", ["SUM(two)", "MAX(METRICS())", "two % 2", "FILL(two, REPEAT)"])
def test_unknown_metric_expression_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expression[:3])):
        compute(expression, {"two": 2.0}, ["two"])


@pytest.mark.parametrize(
    ("stat", "value"),
    [
        *(("Sum", 10.0), ("Maximum", 4.0), ("Minimum", 1.0), ("Average", 2.5), ("SampleCount", 4.0)),
        *(("p50", 2.0), ("p99", 4.0), ("PR(:2)", 50.0), ("PR(2:)", 50.0)),
    ],
)
def test_statistic_of_four_values_is_right(stat: str, value: float) -> None:
    assert statistic([3.0, 1.0, 4.0, 2.0], stat) == value


@pytest.mark.parametrize("stat", ["p50", "PR(:30)"])
def test_percentile_with_a_negative_value_is_none(stat: str) -> None:
    assert statistic([1.0, -0.1], stat) is None
