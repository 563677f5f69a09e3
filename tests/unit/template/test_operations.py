"""What operators are given: alarms, dashboard, saved queries and runbook, against what the function really emits.

A metric or a field that is spelled otherwise here than there makes no error on AWS: its graph stays empty, its alarm
silent.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any, Final, NamedTuple, cast

import pytest
from aws_lambda_powertools.utilities.circuit_breaker import CircuitState, CircuitTransition

from function.domain import failures
from function.domain.failures import EventName, Kind
from function.domain.model import Outcome
from function.telemetry import EVENT_HANDLED
from tests.dashboard.widgets import rows, widgets
from tests.documents import read
from tests.fakes.events import cloud_event, http_request, sqs_record
from tests.fakes.world import World
from tests.template import RESOURCES, TEMPLATE, of_type

OPERATIONS: Final = read("docs/operations.md")
RUNBOOK: Final = read("docs/runbook.md")
STACK: Final = {"Ref": "AWS::StackName"}
ALARMS: Final = of_type("AWS::CloudWatch::Alarm")
FUNCTIONS: Final = of_type("AWS::Serverless::Function")
QUEUES: Final = of_type("AWS::SQS::Queue")
QUERIES: Final = of_type("AWS::Logs::QueryDefinition")


class Metric(NamedTuple):
    namespace: str
    name: str
    dimensions: frozenset[str]


# ---- What there is


AWS_METRICS: Final = {
    Metric("AWS/SQS", name, frozenset({"QueueName"}))
    for name in (
        "ApproximateNumberOfMessagesVisible",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateAgeOfOldestMessage",
    )
} | {
    *(Metric("AWS/Lambda", name, frozenset({"FunctionName"})) for name in ("Errors", "Throttles", "Duration")),
    *(
        Metric("AWS/ApiGateway", name, frozenset({"ApiName", "Stage"}))
        for name in ("4XXError", "5XXError", "Latency", "Count")
    ),
}


def report_every_result(world: World) -> None:
    """Every result that an event can have, through the triggers and the real telemetry."""
    telemetry = world.real_telemetry()
    world.telemetry = cast("Any", telemetry)
    traced = cloud_event() | {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    world.sqs(sqs_record(traced))
    world.sqs(sqs_record(traced))
    world.sqs(sqs_record("no JSON"))
    world.services.refuse(failures.timeout(), times=None)
    world.sqs(sqs_record(cloud_event(id="deferred")))
    world.sqs(sqs_record(cloud_event(id="given-up"), receive_count=5), max_receives=5)
    world.dead_letters(sqs_record(cloud_event(id="dead")))
    request = http_request(cloud_event(id="http"))
    request["requestContext"]["identity"]["userArn"] = "arn:aws:iam::123456789012:user/producer"
    world.http(request)
    world.services.recover()
    world.services.refuse(
        failures.credentials("", kind=Kind.ACCESS, aws_error_code="AccessDeniedException"), times=None
    )
    world.sqs(sqs_record(cloud_event(id="no-key")))
    world.services.recover()
    outcome = world.settle(world.event(id="late"))
    assert isinstance(outcome, Outcome)
    telemetry.handled(world.event(), replace(outcome, remembered=True), "sqs", message_id="late", receive_count=2)
    telemetry.handled(world.event(), replace(outcome, remembered=True), "sqs", message_id="twice", receive_count=1)
    superseded = replace(outcome, failure=failures.superseded(EventName("/cmdb", "newer")))
    telemetry.handled(world.event(), superseded, "sqs", queue_error_code="AccessDenied")
    telemetry.unexpected(ValueError(), message_id="broken")
    telemetry.circuit_transitioned(CircuitTransition("breaker", CircuitState.CLOSED, CircuitState.OPEN, 0))
    telemetry.record_call(0.1)
    telemetry.flush()


@pytest.fixture
def emitted(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> set[Metric]:
    """All metrics of the function's own, each with every set of dimensions it has."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "vpcep-rename")
    report_every_result(world)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"_aws"')]
    return {
        Metric(directive["Namespace"], metric["Name"], frozenset(dimensions))
        for document in documents
        for directive in document["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
        for dimensions in directive["Dimensions"]
    }


@pytest.fixture
def logged(world: World, caplog: pytest.LogCaptureFixture) -> set[str]:
    """The fields of an event's log lines, without those that every line has."""
    caplog.set_level(logging.INFO)
    report_every_result(world)
    standard = set(vars(logging.makeLogRecord({})))
    return {
        field
        for record in caplog.records
        if record.getMessage() == EVENT_HANDLED
        for field in set(vars(record)) - standard
    }


# ---- What is asked for


def metrics_of_alarm(properties: dict[str, Any]) -> Iterator[tuple[Metric, dict[str, Any]]]:
    """Each metric that an alarm looks at, with the values of its dimensions."""
    stats = [query["MetricStat"]["Metric"] for query in properties.get("Metrics", []) if "MetricStat" in query]
    for stat in stats or [properties]:
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in stat["Dimensions"]}
        yield Metric(stat["Namespace"], stat["MetricName"], frozenset(dimensions)), dimensions


_SEARCH: Final = re.compile(r"SEARCH\('\{([\w,/]+)\} (.*)', '\w+', \d+\)")


def metrics_of_widget(widget: dict[str, Any]) -> Iterator[tuple[Metric, dict[str, str]]]:
    """Each metric of a widget."""
    for words, options in rows(widget):
        if search := _SEARCH.fullmatch(options.get("expression", "")):
            namespace, *dimensions = search[1].split(",")
            for name in re.findall(r'"(\w+)"', search[2].partition("MetricName=")[2]):
                yield Metric(namespace, name, frozenset(dimensions)), {}
        elif words:
            namespace, name, *pairs = words
            values = dict(zip(pairs[::2], pairs[1::2], strict=True))
            yield Metric(namespace, name, frozenset(values)), values


def named_by(value: object) -> str | None:
    """The logical id that a dimension's value, or ``${…}`` in a text, refers to."""
    if isinstance(value, dict):
        [value] = value.values()
    return re.sub(r"\$\{(.*)\}", r"\1", str(value)).partition(".")[0]


# ---- Alarms


@pytest.mark.parametrize("name", ALARMS)
class TestAlarm:
    def test_alarm_notifies_the_topic_when_it_goes_off_and_when_it_clears(self, name: str) -> None:
        assert ALARMS[name]["AlarmActions"] == ALARMS[name]["OKActions"] == [{"Ref": "AlarmTopic"}]
        assert RESOURCES["AlarmTopic"]["Type"] == "AWS::SNS::Topic"

    @pytest.mark.parametrize("url", ["", "https://wiki.example/runbook"])
    def test_description_of_an_alarm_says_what_to_look_at_and_links_the_runbook(self, name: str, url: str) -> None:
        said = description(name, url)

        assert re.search(r"\. (See|Redrive) .+\. Runbook: ", said)
        assert said.endswith(f". Runbook: {url or 'vpcep-rename/docs/runbook.md'}#{name.lower()}")
        assert len(said) + 400 <= 1024  # the longest RunbookUrl

    def test_alarm_has_a_complete_entry_in_the_runbook(self, name: str) -> None:
        entry = runbook()[name]

        parts = ["**It means** ", "**Where to look** ", "**What to type** ", "**It is over when** "]
        assert re.findall(r"^\*\*.*?\*\* ", entry, re.MULTILINE) == parts
        assert "```bash\n" in entry

    def test_alarm_watches_metrics_that_are_emitted(self, name: str, emitted: set[Metric]) -> None:
        metrics = [metric for metric, _ in metrics_of_alarm(ALARMS[name])]

        assert metrics
        assert [metric for metric in metrics if metric not in emitted | AWS_METRICS] == []

    def test_alarm_watches_resources_of_this_stack(self, name: str) -> None:
        for metric, values in metrics_of_alarm(ALARMS[name]):
            match metric.namespace:
                case "AWS/SQS":
                    assert named_by(values["QueueName"]) in QUEUES
                case "AWS/Lambda":
                    assert named_by(values["FunctionName"]) in FUNCTIONS
                case "AWS/ApiGateway":
                    api = RESOURCES["RenameApi"]["Properties"]
                    assert values == {"ApiName": api["Name"], "Stage": api["StageName"]}
                case _:
                    assert values["service"] == STACK
                    assert values.get("kind", "invalid") in set(Kind)

    def test_alarm_computes_with_each_of_its_metrics(self, name: str) -> None:
        queries = ALARMS[name].get("Metrics", [])
        used = Counter(
            word for query in queries for word in set(re.findall(r"\b[a-z_]+\b", query.get("Expression", "")))
        )
        if any("METRICS()" in query.get("Expression", "") for query in queries):
            used.update(query["Id"] for query in queries if "MetricStat" in query)

        assert len([query for query in queries if query.get("ReturnData", True)]) == bool(queries)
        assert set(used) == {query["Id"] for query in queries if not query.get("ReturnData", True)}
        assert len({query["MetricStat"]["Period"] for query in queries if "MetricStat" in query}) == bool(queries)

    def test_alarm_says_how_missing_data_is_treated(self, name: str) -> None:
        assert ALARMS[name]["TreatMissingData"] in {"notBreaching", "ignore"}


def test_function_emits_metrics_to_the_namespace_and_service_of_the_alarms() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]

    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "VpcepRename"
    assert variables["POWERTOOLS_SERVICE_NAME"] == STACK


def watched(metric: str, dimension: str) -> list[str]:
    """The logical ids of resources that alarms watch by a metric."""
    return [
        str(named_by(values[dimension]))
        for properties in ALARMS.values()
        for found, values in metrics_of_alarm(properties)
        if found.name == metric
    ]


def test_age_of_the_oldest_message_is_watched_where_messages_are_rarely_received() -> None:
    of_rename_events = {name for name, queue in QUEUES.items() if queue.get("FifoQueue")}
    # What is stuck in that one has soon been received too often to count.
    assert sorted(watched("ApproximateAgeOfOldestMessage", "QueueName")) == sorted(
        of_rename_events - {"UnsettledQueue"}
    )


def test_visible_and_invisible_messages_of_the_unsettled_queue_are_watched() -> None:
    alarm = ALARMS["UnsettledQueueAgeAlarm"]

    queues = {metric.name: named_by(values["QueueName"]) for metric, values in metrics_of_alarm(alarm)}

    assert queues == dict.fromkeys(
        ("ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"), "UnsettledQueue"
    )


def test_duration_of_each_function_is_watched_from_four_fifths_of_its_timeout() -> None:
    thresholds = {
        named_by(values["FunctionName"]): (properties["Threshold"], properties["ExtendedStatistic"])
        for properties in ALARMS.values()
        for metric, values in metrics_of_alarm(properties)
        if metric.name == "Duration"
    }

    assert thresholds == {name: (800 * function["Timeout"], "p99") for name, function in FUNCTIONS.items()}


@pytest.mark.parametrize("metric", ["Errors", "Throttles"])
def test_errors_and_throttles_of_all_functions_are_watched(metric: str) -> None:
    assert set(watched(metric, "FunctionName")) == set(FUNCTIONS)


# ---- The topic


def test_only_alarms_of_this_account_may_publish_to_the_alarm_topic() -> None:
    [policy] = of_type("AWS::SNS::TopicPolicy").values()

    [statement] = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Allow"]

    assert policy["Topics"] == [{"Ref": "AlarmTopic"}]
    assert statement["Action"] == "sns:Publish"
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_alarm_topic_is_encrypted_with_a_key_that_alarms_may_use() -> None:
    key = RESOURCES["AlarmTopic"]["Properties"]["KmsMasterKeyId"]["Ref"]

    statements = RESOURCES[key]["Properties"]["KeyPolicy"]["Statement"]

    [of_alarms] = [s for s in statements if s["Principal"] == {"Service": "cloudwatch.amazonaws.com"}]
    assert set(of_alarms["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey*"}


# ---- Dashboard


def test_dashboard_has_four_sections() -> None:
    titles = [widget["properties"]["markdown"] for widget in widgets() if widget["type"] == "text"]

    assert titles == ["# Overview", "# Latency", "# Errors", "# Queues"]


def test_dashboard_shows_metrics_that_are_emitted(emitted: set[Metric]) -> None:
    shown = [metric for widget in widgets() for metric, _ in metrics_of_widget(widget)]

    assert len(shown) > 30
    assert [metric for metric in shown if metric not in emitted | AWS_METRICS] == []


def test_dashboard_shows_resources_of_this_stack() -> None:
    for widget in widgets():
        for metric, values in metrics_of_widget(widget):
            for dimension, value in values.items():
                match dimension:
                    case "QueueName":
                        assert value.endswith(".QueueName}")
                        assert named_by(value) in QUEUES
                    case "FunctionName":
                        assert named_by(value) in FUNCTIONS
                    case "Stage":
                        assert value == "v1"
                    case _:
                        assert value == "${AWS::StackName}", (metric, dimension)


def test_each_metric_of_the_function_is_on_the_dashboard(emitted: set[Metric]) -> None:
    shown = {metric.name for widget in widgets() for metric, _ in metrics_of_widget(widget)}

    assert {metric.name for metric in emitted} - shown == set()


def test_each_alarm_is_on_the_dashboard() -> None:
    [widget] = [widget for widget in widgets() if widget["type"] == "alarm"]

    # A dashboard cannot name what may not exist.
    always = [name for name in ALARMS if "Condition" not in RESOURCES[name]]
    assert [named_by(alarm) for alarm in widget["properties"]["alarms"]] == always


def test_widgets_of_the_dashboard_do_not_overlap() -> None:
    def cells(widget: dict[str, Any]) -> set[tuple[int, int]]:
        x, y = widget["x"], widget["y"]
        return {(x + i, y + j) for i in range(widget["width"]) for j in range(widget["height"])}

    assert all(cells(one).isdisjoint(cells(other)) for one, other in combinations(widgets(), 2))
    assert all(widget["x"] + widget["width"] <= 24 for widget in widgets())


# ---- Saved queries

_WORDS: Final = {
    *("fields", "filter", "stats", "sort", "limit", "and", "or", "in", "like", "by", "asc", "desc"),
    *("ispresent", "count", "count_distinct", "latest", "avg"),
}


def fields_of(query: str) -> set[str]:
    """Which fields of the lines a query asks for; CloudWatch's own are all spelled with an @."""
    bare = re.sub(r'"[^"]*"|/[^/]+/|@\w+|bin\(5m\)', "", query)
    made = set(re.findall(r"\bas (\w+)", bare))
    return set(re.findall(r"[A-Za-z_]+", re.sub(r"\bas \w+", "", bare))) - _WORDS - made


# Those of other logs are in test_access.py.
OF_FUNCTIONS: Final = [
    name for name, query in QUERIES.items() if {"Ref": "SettleDeadLettersLogs"} in query["LogGroupNames"]
]


@pytest.mark.parametrize("name", OF_FUNCTIONS)
class TestQuery:
    def test_saved_query_asks_for_fields_that_are_logged(self, name: str, logged: set[str]) -> None:
        asked = fields_of(QUERIES[name]["QueryString"])

        assert len(asked) > 5
        assert asked - logged - {"message"} == set()

    def test_saved_query_asks_for_lines_of_events(self, name: str) -> None:
        assert f'filter message = "{EVENT_HANDLED}" and ' in QUERIES[name]["QueryString"]

    def test_saved_query_reads_the_logs_of_all_functions(self, name: str) -> None:
        groups = [function["LoggingConfig"]["LogGroup"] for function in FUNCTIONS.values()]

        assert QUERIES[name]["LogGroupNames"] == groups


@pytest.mark.parametrize("name", QUERIES)
def test_saved_query_is_documented(name: str) -> None:
    assert f"“{QUERIES[name]['Name']['Fn::Sub'].partition('/')[2]}”" in OPERATIONS


# ---- Gradual deployment


def test_deployment_is_rolled_back_by_alarms_of_the_template() -> None:
    preference = TEMPLATE["Globals"]["Function"]["DeploymentPreference"]
    alarms = [alarm["Ref"] for alarm in preference["Alarms"]]

    assert preference["Enabled"] == {"Ref": "GradualDeployment"}
    assert set(alarms) <= set(ALARMS)
    assert len(set(alarms)) == len(alarms) <= 10  # by CodeDeploy
    # Twice the longest span is what such an alarm needs to go off while the new version has a tenth only.
    assert preference["Type"] == "Canary10Percent10Minutes"


# ---- Runbook


def description(name: str, runbook_url: str) -> str:
    """What an alarm says, with a value of the parameter."""
    text, values = ALARMS[name]["AlarmDescription"]["Fn::Sub"]
    condition, given, default = values["Runbook"]["Fn::If"]
    assert (condition, given) == ("HasRunbookUrl", {"Ref": "RunbookUrl"})
    return str(text).replace("${Runbook}", runbook_url or default)


@cache
def runbook() -> dict[str, str]:
    """The entries of alarms, by their titles."""
    return dict(re.findall(r"^### (\w+Alarm)\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def test_runbook_has_an_entry_for_each_alarm_and_no_other() -> None:
    assert sorted(runbook()) == sorted(ALARMS)


def test_runbook_lists_its_entries_in_their_order() -> None:
    table = "".join(line for line in RUNBOOK.splitlines(keepends=True) if line.startswith("| "))

    assert re.findall(r"\[(\w+Alarm)\]\(#", table) == list(runbook())


@pytest.mark.parametrize(("variable", "query"), [("FAILED_BY_CODE", "FailedByCode"), ("WHAT_HAPPENED", "WhatHappened")])
def test_query_of_the_runbook_is_the_saved_query(variable: str, query: str) -> None:
    [asked] = re.findall(rf"^{variable}='(.*?)'$", RUNBOOK, re.MULTILINE | re.DOTALL)

    assert asked.strip() == QUERIES[f"{query}Query"]["QueryString"].strip()


def test_queries_of_the_runbook_ask_for_fields_that_are_logged(logged: set[str]) -> None:
    _, setting, _ = RESOURCES["RenameApi"]["Properties"]["AccessLogSetting"]["Fn::If"]
    access_log = set(json.loads(setting["Format"]))
    of_functions = logged | {"message", "state", "exception_name", "exception_place"}
    queries = re.findall(r"^insights [0-9]+ '([^']*)'(?: \\\n)? *([^\n]*)$", RUNBOOK, re.MULTILINE)

    assert len(queries) > 5
    for query, log in queries:
        known = access_log if "API_LOGS" in log else of_functions
        asked = fields_of(query)
        assert asked - known == set(), query


def test_each_metric_of_the_function_is_documented(emitted: set[Metric]) -> None:
    assert [metric.name for metric in emitted if f"| `{metric.name}` |" not in OPERATIONS] == []


def test_each_alarm_is_documented_with_whether_it_rolls_a_deployment_back() -> None:
    guards = [alarm["Ref"] for alarm in TEMPLATE["Globals"]["Function"]["DeploymentPreference"]["Alarms"]]

    found = re.findall(r"^\| `(\w+Alarm)` (¹ )?\|", OPERATIONS, re.MULTILINE)

    assert [name for name, _ in found] == list(ALARMS)
    assert {name for name, mark in found if mark} == set(guards)
