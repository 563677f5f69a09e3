"""The function as template.yml deploys it, from the queue or the HTTP API to the bus, with VPCEP on the other side."""

import base64
import dataclasses
import json
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Self

import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from tests.integration.lambda_events import proxy_event
from tests.integration.observer import (
    RENAME_FAILED,
    RENAMED,
    a_rename,
    a_service,
    calls_for,
    name_in,
    outcome_of,
    outcomes_by_event,
    service_of,
    until,
    until_quiescent,
)
from tests.localcloud.stack import Clouds, rename_event


def test_queued_event_renames_the_service(clouds: Clouds) -> None:
    event = a_rename(clouds)
    service_id = service_of(event)

    clouds.send_rename_event(event)

    outcome = outcome_of(clouds, event)
    assert outcome["type"] == RENAMED
    assert outcome["subject"] == service_id
    assert outcome["data"]["request"] == event
    assert outcome["data"]["service_name"] == "orders"
    assert outcome["data"]["project_id"] == clouds.account.project_id
    assert outcome["data"]["trigger"] == "sqs"
    [call] = calls_for(clouds, service_id)
    assert (call.operation, call.name, call.status) == ("rename", "orders", 200)
    assert outcome["data"]["huawei_request_id"] == call.request_id
    assert clouds.huawei.name_of(service_id) == "orders"
    until_quiescent(clouds)


def test_queued_event_in_binary_mode_takes_attributes_from_the_message(clouds: Clouds) -> None:
    service_id = a_service(clouds)
    data = {"vpc_endpoint_service_id": service_id, "endpoint_service_name": "orders"}

    clouds.send_rename_event(data, {"ce_id": "binary-1", "ce_source": "/cmdb"})

    request = outcomes_by_event(clouds, "binary-1")["binary-1"]["data"]["request"]
    assert (request["source"], request["data"]) == ("/cmdb", data)
    assert clouds.huawei.name_of(service_id) == "orders"


def test_queued_event_for_an_unknown_service_fails_with_not_found(clouds: Clouds) -> None:
    event = rename_event(str(uuid.uuid4()), "orders")

    clouds.send_rename_event(event)

    outcome = outcome_of(clouds, event)
    assert outcome["type"] == RENAME_FAILED
    error = outcome["data"]["error"]
    assert (error["code"], error["kind"], error["http_status"]) == ("EndPoint.2003", "not_found", 400)
    assert not error["retryable"]
    until_quiescent(clouds)


def test_queued_invalid_event_fails_with_its_violations(clouds: Clouds) -> None:
    event = rename_event("..", "a name with blanks")

    clouds.send_rename_event(event)

    error = outcome_of(clouds, event)["data"]["error"]
    assert (error["code"], error["kind"]) == ("Rename.InvalidEvent", "invalid")
    paths = {violation["path"] for violation in error["violations"]}
    assert paths == {"/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}
    assert clouds.huawei.calls == []
    until_quiescent(clouds)


def test_invalid_event_in_a_batch_of_ten_leaves_the_others_renamed(clouds: Clouds) -> None:
    events = [a_rename(clouds, f"orders-{number}") for number in range(9)]

    clouds.send_rename_events([*events[:4], "not JSON", *events[4:]])

    outcomes = outcomes_by_event(clouds, "not JSON", *(event["id"] for event in events))
    assert outcomes["not JSON"]["data"]["error"]["code"] == "Rename.InvalidEvent"
    assert {outcomes[event["id"]]["type"] for event in events} == {RENAMED}
    assert [clouds.huawei.name_of(service_of(event)) for event in events] == list(map(name_in, events))
    until_quiescent(clouds)


def test_renames_of_one_service_are_made_in_order(clouds: Clouds) -> None:
    service_id = a_service(clouds)
    events = [rename_event(service_id, f"orders-{number}") for number in range(6)]

    clouds.send_rename_events(events)

    outcomes_by_event(clouds, *(event["id"] for event in events))
    assert [call.name for call in calls_for(clouds, service_id)] == [f"orders-{number}" for number in range(6)]


def test_rename_is_tried_again_while_vpcep_is_unavailable(clouds: Clouds) -> None:
    event = a_rename(clouds)
    clouds.huawei.fail(500, "EndPoint.0001", times=2, service_id=service_of(event))

    clouds.send_rename_event(event)

    outcome = outcome_of(clouds, event)
    assert (outcome["type"], outcome["data"]["attempts"]) == (RENAMED, 3)
    assert [call.status for call in calls_for(clouds, service_of(event))] == [500, 500, 200]


def test_posted_event_renames_the_service(clouds: Clouds) -> None:
    event = a_rename(clouds)

    reply = clouds.post_rename_event(event)

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/cloudevents+json"
    outcome = outcome_of(clouds, event)
    assert reply.json() == outcome
    assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "http")
    assert clouds.huawei.name_of(service_of(event)) == "orders"


def test_posted_event_in_binary_mode_takes_attributes_from_the_headers(clouds: Clouds) -> None:
    service_id = a_service(clouds)
    data = {"vpc_endpoint_service_id": service_id, "endpoint_service_name": "orders"}
    headers = {"Content-Type": "application/json", "ce-id": "binary-2", "ce-source": "/cmdb"}

    reply = clouds.post_rename_event(data, headers)

    assert reply.status == 200
    assert reply.json()["data"]["request"]["data"] == data
    assert outcomes_by_event(clouds, "binary-2")["binary-2"]["data"]["request"]["source"] == "/cmdb"


def test_posted_event_with_a_base64_body_renames_the_service(clouds: Clouds) -> None:
    # API Gateway encodes bodies where an API declares binary media types; this one declares none.
    event = a_rename(clouds)
    body = base64.b64encode(json.dumps(event).encode()).decode()
    proxied = proxy_event(body) | {"isBase64Encoded": True}

    assert clouds.invoke("RenameFromHttp", proxied)["statusCode"] == 200

    assert outcome_of(clouds, event)["type"] == RENAMED


def test_posted_invalid_event_is_answered_with_400_and_its_outcome(clouds: Clouds) -> None:
    event = rename_event("..", "orders")

    reply = clouds.post_rename_event(event)

    assert reply.status == 400
    assert reply.json() == outcome_of(clouds, event)
    assert [violation["path"] for violation in reply.json()["data"]["error"]["violations"]] == [
        "/data/vpc_endpoint_service_id"
    ]
    assert clouds.huawei.calls == []


def test_posted_event_for_an_unknown_service_is_answered_with_404(clouds: Clouds) -> None:
    event = rename_event(str(uuid.uuid4()), "orders")

    reply = clouds.post_rename_event(event)

    assert reply.status == 404
    assert outcome_of(clouds, event)["data"]["error"]["code"] == "EndPoint.2003"


def test_posted_event_that_cannot_be_settled_now_is_queued(clouds: Clouds) -> None:
    event = a_rename(clouds)
    # As often as one invocation tries.
    clouds.huawei.fail(500, "EndPoint.0001", times=5, service_id=service_of(event))

    reply = clouds.post_rename_event(event)

    assert reply.status == 202
    outcome = outcome_of(clouds, event)
    assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "sqs")


def test_wrong_key_fails_all_events_with_access_after_one_call(clouds: Clouds) -> None:
    events = [a_rename(clouds) for _ in range(6)]

    clouds.use_secret(dataclasses.replace(clouds.account, sk="a-wrong-one"))
    try:
        replies = [clouds.post_rename_event(event) for event in events]
        calls = len(clouds.huawei.calls)
    finally:
        clouds.huawei.reset()
        clouds.use_secret(clouds.account)

    assert [reply.status for reply in replies] == [403] * 6
    for outcome in outcomes_by_event(clouds, *(event["id"] for event in events)).values():
        error = outcome["data"]["error"]
        assert (error["code"], error["kind"], error["http_status"]) == ("APIGW.0301", "access", 401)
    assert calls == 1  # five refusals in a row would lock the key


def test_metrics_count_the_result_of_each_event(clouds: Clouds) -> None:
    # given: no other event is in progress
    until_quiescent(clouds)
    renamed = a_rename(clouds)
    unknown = rename_event(str(uuid.uuid4()), "orders")
    stale = rename_event(service_of(renamed), "billing") | {"time": "2020-01-01T00:00:00Z"}
    before = Metrics.of(clouds)

    # when
    clouds.send_rename_event(renamed)
    clouds.send_rename_event(unknown)
    outcomes_by_event(clouds, renamed["id"], unknown["id"])
    clouds.send_rename_event(stale)
    outcome_of(clouds, stale)
    clouds.send_rename_event(renamed)  # once more, as another message
    outcome_of(clouds, renamed)

    # then
    until_quiescent(clouds)
    until(lambda: len((Metrics.of(clouds) - before).values["EventAge"]) == 3, "the metrics")
    emitted = Metrics.of(clouds) - before
    counts = {name: sum(values) for name, values in emitted.values.items() if name.startswith("Rename")}
    assert counts == {"Renamed": 1, "RenameFailed": 1, "RenameSuperseded": 1, "RenameDuplicate": 1}
    assert emitted.by("RenameFailed") == {("not_found", "EndPoint.2003")}
    assert emitted.by("RenameSuperseded") == {("conflict", "Rename.Superseded")}
    assert len(emitted.values["VpcepLatency"]) == len(clouds.huawei.calls) == 2
    assert all(0 < milliseconds < 10_000 for milliseconds in emitted.values["VpcepLatency"])
    fresh, also_fresh, old = sorted(emitted.values["EventAge"])
    assert 0 <= fresh <= also_fresh < 30 < old


def test_log_lines_and_outcome_have_the_traceparent_of_the_event(clouds: Clouds) -> None:
    # given: it goes through both functions, by HTTP and the queue
    event = a_rename(clouds)
    event["traceparent"] = f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"

    # when
    assert clouds.post_rename_event(event, {"Prefer": "respond-async"}).status == 202
    outcome = outcome_of(clouds, event)

    # then
    def lines() -> list[dict[str, Any]]:
        return [
            line
            for function in ("RenameFromHttp", "RenameFromQueue")
            for line in json_lines(clouds, function)
            if line.get("correlation_id") == event["id"]
        ]

    until(lambda: len(lines()) == 2, "both log lines")
    [handed_over, settled] = lines()
    assert (handed_over["trigger"], handed_over["status"]) == ("http", "queued")
    assert (settled["trigger"], settled["status"]) == ("sqs", "settled")
    assert settled["outcome_id"] == outcome["id"]
    assert {line["traceparent"] for line in (handed_over, settled, outcome)} == {event["traceparent"]}


def test_outcomes_are_archived(clouds: Clouds) -> None:
    def archived() -> int:
        archive = clouds.stack.resources["OutcomeArchive"]
        return int(clouds.aws.client("events").describe_archive(ArchiveName=archive)["EventCount"])

    before = archived()
    event = a_rename(clouds)

    clouds.send_rename_event(event)
    outcome_of(clouds, event)

    assert archived() == before + 1


def test_logs_have_no_secret_and_no_new_name(clouds: Clouds) -> None:
    event = a_rename(clouds, "seen-nowhere")
    clouds.send_rename_event(event)
    outcome_of(clouds, event)
    assert clouds.post_rename_event(event).status == 200

    logs = "\n".join(clouds.function_logs("RenameFromQueue") + clouds.function_logs("RenameFromHttp"))

    assert event["id"] in logs
    for secret in (clouds.account.sk, "SDK-HMAC-SHA256", "seen-nowhere", clouds.producer.secret_key):
        assert secret not in logs


QUEUES = pytest.mark.parametrize("queue", ["RenameQueueUrl", "RenameDeadLetterQueueUrl"])
LOG_GROUPS = ("RenameFromQueueLogs", "RenameFromHttpLogs", "SettleDeadLettersLogs", "RenameApiLogs")


def test_visibility_timeout_is_six_times_the_timeout_of_the_function(clouds: Clouds) -> None:
    queue = queue_attributes(clouds, "RenameQueueUrl")
    function = function_configuration(clouds, "RenameFromQueue")
    assert int(queue["VisibilityTimeout"]) >= 6 * function["Timeout"]


def test_max_receives_of_the_function_are_those_of_the_queue(clouds: Clouds) -> None:
    redrive = json.loads(queue_attributes(clouds, "RenameQueueUrl")["RedrivePolicy"])
    function = function_configuration(clouds, "RenameFromQueue")
    assert int(redrive["maxReceiveCount"]) == int(function["Environment"]["Variables"]["MAX_RECEIVES"]) >= 5


def test_unsettled_queue_moves_messages_to_the_dead_letter_queue_by_itself(clouds: Clouds) -> None:
    sqs = clouds.aws.client("sqs")
    unsettled = sqs.get_queue_attributes(QueueUrl=clouds.stack.resources["UnsettledQueue"], AttributeNames=["All"])
    on_the_way = unsettled["Attributes"]
    first = json.loads(queue_attributes(clouds, "RenameQueueUrl")["RedrivePolicy"])["deadLetterTargetArn"]
    second = json.loads(on_the_way["RedrivePolicy"])["deadLetterTargetArn"]
    assert first == on_the_way["QueueArn"]
    assert second == queue_attributes(clouds, "RenameDeadLetterQueueUrl")["QueueArn"]
    assert int(on_the_way["MessageRetentionPeriod"]) == 14 * 24 * 3600


def test_timeout_of_the_http_function_is_below_that_of_the_api(clouds: Clouds) -> None:
    assert function_configuration(clouds, "RenameFromHttp")["Timeout"] <= 25


def test_dead_letters_are_kept_for_fourteen_days(clouds: Clouds) -> None:
    assert queue_attributes(clouds, "RenameDeadLetterQueueUrl")["MessageRetentionPeriod"] == str(14 * 24 * 3600)


@QUEUES
def test_queue_is_encrypted(clouds: Clouds, queue: str) -> None:
    assert queue_attributes(clouds, queue)["SqsManagedSseEnabled"] == "true"


@QUEUES
def test_queue_refuses_plain_http(clouds: Clouds, queue: str) -> None:
    def as_plain_http(request: AWSRequest, **_: object) -> None:
        request.headers["X-Forwarded-Proto"] = "http"

    sqs = clouds.aws.client("sqs")
    sqs.meta.events.register("before-sign.sqs", as_plain_http)
    try:
        with pytest.raises(ClientError, match="AccessDenied"):
            sqs.receive_message(QueueUrl=clouds.stack.outputs[queue])
    finally:
        sqs.meta.events.unregister("before-sign.sqs", as_plain_http)


def test_event_source_mapping_reports_failures_of_single_messages(clouds: Clouds) -> None:
    client = clouds.aws.client("lambda")
    function = clouds.stack.resources["RenameFromQueue"]
    [mapping] = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2


@pytest.mark.parametrize("function", ["RenameFromQueue", "SettleDeadLetters"])
def test_queue_invokes_the_alias_of_the_function(clouds: Clouds, function: str) -> None:
    client = clouds.aws.client("lambda")
    mappings = client.list_event_source_mappings(FunctionName=clouds.stack.resources[function])
    [mapping] = mappings["EventSourceMappings"]
    assert mapping["FunctionArn"].endswith(":live")


def test_alarms_notify_the_alarm_topic(clouds: Clouds) -> None:
    # MiniStack has no alarms by metric math.
    alarms = clouds.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    topic = clouds.stack.outputs["AlarmTopicArn"]
    assert len(alarms) > 5
    assert {action for alarm in alarms for action in alarm["AlarmActions"] + alarm["OKActions"]} == {topic}


def test_dashboard_is_deployed_with_its_variables_replaced(clouds: Clouds) -> None:
    name = f"{clouds.stack.name}-{clouds.aws.region}"
    body = clouds.aws.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    assert len(json.loads(body)["widgets"]) > 10
    assert "${" not in body.replace("${LABEL}", "")


def test_each_log_group_has_a_retention(clouds: Clouds) -> None:
    groups = clouds.aws.client("logs").describe_log_groups()["logGroups"]
    assert {group["logGroupName"] for group in groups} == {clouds.stack.resources[name] for name in LOG_GROUPS}
    assert all(group["retentionInDays"] for group in groups)


@dataclasses.dataclass
class Metrics:
    """What the functions have logged in CloudWatch's embedded metric format, as CloudWatch would read it."""

    documents: list[dict[str, Any]]

    @classmethod
    def of(cls, clouds: Clouds) -> Self:
        functions = ("RenameFromQueue", "RenameFromHttp", "SettleDeadLetters")
        lines = [line for function in functions for line in json_lines(clouds, function)]
        return cls([line for line in lines if "_aws" in line])

    def __sub__(self, before: Self) -> Self:
        return dataclasses.replace(self, documents=[each for each in self.documents if each not in before.documents])

    @property
    def values(self) -> dict[str, list[float]]:
        """By the metric's name; each document must be for this stack as a whole."""
        found: dict[str, list[float]] = defaultdict(list)
        for document, directive in self._directives():
            assert ["service"] in directive["Dimensions"]
            assert (directive["Namespace"], document["service"]) == ("VpcepRename", "vpcep-rename")
            for metric in directive["Metrics"]:
                found[metric["Name"]] += document[metric["Name"]]
        return found

    def by(self, name: str) -> set[tuple[str, str]]:
        """The kinds and codes of a metric."""
        return {
            (document["kind"], document["code"])
            for document, directive in self._directives()
            if name in document
            and sorted(directive["Dimensions"]) == [["service"], ["service", "code"], ["service", "kind"]]
        }

    def _directives(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for document in self.documents:
            [directive] = document["_aws"]["CloudWatchMetrics"]
            yield document, directive


def json_lines(clouds: Clouds, function: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in clouds.function_logs(function) if line.startswith("{")]


def queue_attributes(clouds: Clouds, output: str) -> dict[str, str]:
    sqs = clouds.aws.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=clouds.stack.outputs[output], AttributeNames=["All"])["Attributes"]
    return dict(attributes)


def function_configuration(clouds: Clouds, function: str) -> dict[str, Any]:
    client = clouds.aws.client("lambda")
    return dict(client.get_function_configuration(FunctionName=clouds.stack.resources[function]))
