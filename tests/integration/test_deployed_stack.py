"""The function as template.yml deploys it, from the queue or the HTTP API to the bus, with VPCEP on the other side."""

import base64
import dataclasses
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from jsonschema import Draft202012Validator

import function
from tests.integration.lambda_events import proxy_event
from tests.localcloud.huawei import Call
from tests.localcloud.stack import Clouds, Event, rename_event

CONTRACT = Path(function.__file__).parent / "contract"
RENAMED = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED = "vpcep.endpoint_service.rename_failed.v1"

OUTCOME = Draft202012Validator(json.loads((CONTRACT / "outcome.schema.json").read_text()))


T = TypeVar("T")


def a_service(clouds: Clouds, name: str = "billing") -> str:
    service_id = str(uuid.uuid4())
    clouds.huawei.add_service(service_id, name)
    return service_id


def outcomes_of(clouds: Clouds, *event_ids: str) -> dict[str, Event]:
    """The one outcome of each event, from the bus."""
    wanted = set(event_ids)
    found = clouds.outcomes(len(wanted), where=lambda outcome: _event_id(outcome) in wanted)
    assert sorted(map(_event_id, found)) == sorted(wanted)
    for outcome in found:
        OUTCOME.validate(outcome)
    return {_event_id(outcome): outcome for outcome in found}


def outcome_of(clouds: Clouds, event: Event) -> Event:
    return outcomes_of(clouds, event["id"])[event["id"]]


def calls_for(clouds: Clouds, service_id: str) -> list[Call]:
    return [call for call in clouds.huawei.calls if call.service_id == service_id]


def _event_id(outcome: Event) -> str:
    request = outcome["data"]["request"]
    return str(request.get("id")) if isinstance(request, dict) else str(request)


def waits_in_queue(clouds: Clouds, seconds: float = 10) -> int:
    """Messages in the queue, in flight or not, once there is none or time is up."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    deadline = time.monotonic() + seconds
    while True:
        queue = clouds.stack.outputs["RenameQueueUrl"]
        attributes = clouds.aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        waiting = sum(int(attributes[name]) for name in names)
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(0.1)


class TestQueue:
    def test_renames(self, clouds: Clouds) -> None:
        service_id = a_service(clouds, "billing")
        event = rename_event(service_id, "orders")

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
        assert waits_in_queue(clouds) == 0

    def test_takes_attributes_from_the_message(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        data = {"vpc_endpoint_service_id": service_id, "endpoint_service_name": "orders"}

        clouds.send_rename_event(data, {"ce_id": "binary-1", "ce_source": "/cmdb"})

        request = outcomes_of(clouds, "binary-1")["binary-1"]["data"]["request"]
        assert (request["source"], request["data"]) == ("/cmdb", data)
        assert clouds.huawei.name_of(service_id) == "orders"

    def test_unknown_service(self, clouds: Clouds) -> None:
        event = rename_event(str(uuid.uuid4()), "orders")

        clouds.send_rename_event(event)

        outcome = outcome_of(clouds, event)
        assert outcome["type"] == RENAME_FAILED
        error = outcome["data"]["error"]
        assert (error["code"], error["kind"], error["http_status"]) == ("EndPoint.2003", "not_found", 400)
        assert not error["retryable"]
        assert waits_in_queue(clouds) == 0

    def test_invalid_event(self, clouds: Clouds) -> None:
        event = rename_event("..", "a name with blanks")

        clouds.send_rename_event(event)

        error = outcome_of(clouds, event)["data"]["error"]
        assert (error["code"], error["kind"]) == ("Rename.InvalidEvent", "invalid")
        paths = {violation["path"] for violation in error["violations"]}
        assert paths == {"/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}
        assert clouds.huawei.calls == []
        assert waits_in_queue(clouds) == 0

    def test_one_broken_of_ten(self, clouds: Clouds) -> None:
        events = [rename_event(a_service(clouds), f"orders-{number}") for number in range(9)]

        clouds.send_rename_events([*events[:4], "not JSON", *events[4:]])

        outcomes = outcomes_of(clouds, "not JSON", *(event["id"] for event in events))
        assert outcomes["not JSON"]["data"]["error"]["code"] == "Rename.InvalidEvent"
        assert {outcomes[event["id"]]["type"] for event in events} == {RENAMED}
        for event in events:
            name = clouds.huawei.name_of(event["data"]["vpc_endpoint_service_id"])
            assert name == event["data"]["endpoint_service_name"]
        assert waits_in_queue(clouds) == 0

    def test_one_service_is_renamed_in_order(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        events = [rename_event(service_id, f"orders-{number}") for number in range(6)]

        clouds.send_rename_events(events)

        outcomes_of(clouds, *(event["id"] for event in events))
        assert [call.name for call in calls_for(clouds, service_id)] == [f"orders-{number}" for number in range(6)]

    def test_tries_again_when_vpcep_is_unavailable(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        clouds.huawei.fail(500, "EndPoint.0001", times=2, service_id=service_id)
        event = rename_event(service_id, "orders")

        clouds.send_rename_event(event)

        outcome = outcome_of(clouds, event)
        assert (outcome["type"], outcome["data"]["attempts"]) == (RENAMED, 3)
        assert [call.status for call in calls_for(clouds, service_id)] == [500, 500, 200]


class TestHttp:
    def test_renames(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        event = rename_event(service_id, "orders")

        reply = clouds.post_rename_event(event)

        assert reply.status == 200
        assert reply.headers["content-type"] == "application/cloudevents+json"
        outcome = outcome_of(clouds, event)
        assert reply.json() == outcome
        assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "http")
        assert clouds.huawei.name_of(service_id) == "orders"

    def test_takes_attributes_from_the_headers(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        data = {"vpc_endpoint_service_id": service_id, "endpoint_service_name": "orders"}
        headers = {"Content-Type": "application/json", "ce-id": "binary-2", "ce-source": "/cmdb"}

        reply = clouds.post_rename_event(data, headers)

        assert reply.status == 200
        assert reply.json()["data"]["request"]["data"] == data
        assert outcomes_of(clouds, "binary-2")["binary-2"]["data"]["request"]["source"] == "/cmdb"

    def test_base64_body(self, clouds: Clouds) -> None:
        # API Gateway encodes bodies where an API declares binary media types; this one declares none.
        service_id = a_service(clouds)
        event = rename_event(service_id, "orders")
        body = base64.b64encode(json.dumps(event).encode()).decode()
        proxied = proxy_event(body) | {"isBase64Encoded": True}

        assert clouds.invoke("RenameFromHttp", proxied)["statusCode"] == 200

        assert outcome_of(clouds, event)["type"] == RENAMED

    def test_invalid_event(self, clouds: Clouds) -> None:
        event = rename_event("..", "orders")

        reply = clouds.post_rename_event(event)

        assert reply.status == 400
        assert reply.json() == outcome_of(clouds, event)
        assert [violation["path"] for violation in reply.json()["data"]["error"]["violations"]] == [
            "/data/vpc_endpoint_service_id"
        ]
        assert clouds.huawei.calls == []

    def test_unknown_service(self, clouds: Clouds) -> None:
        event = rename_event(str(uuid.uuid4()), "orders")

        reply = clouds.post_rename_event(event)

        assert reply.status == 404
        assert outcome_of(clouds, event)["data"]["error"]["code"] == "EndPoint.2003"

    def test_hands_over_to_the_queue_when_asked(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        event = rename_event(service_id, "orders")

        reply = clouds.post_rename_event(event, {"Prefer": "respond-async"})

        assert reply.status == 202
        assert reply.json() == {"id": event["id"], "source": event["source"], "status": "queued"}
        outcome = outcome_of(clouds, event)
        assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "sqs")

    def test_hands_over_to_the_queue_what_cannot_be_settled_now(self, clouds: Clouds) -> None:
        service_id = a_service(clouds)
        # As often as one invocation tries.
        clouds.huawei.fail(500, "EndPoint.0001", times=5, service_id=service_id)
        event = rename_event(service_id, "orders")

        reply = clouds.post_rename_event(event)

        assert reply.status == 202
        outcome = outcome_of(clouds, event)
        assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "sqs")

    def test_refuses_a_caller_without_signature(self, clouds: Clouds) -> None:
        reply = clouds.post_rename_event(rename_event(a_service(clouds), "orders"), signed=False)

        assert reply.status == 403
        assert clouds.huawei.calls == []


class TestAccess:
    @pytest.fixture
    def wrong_key(self, clouds: Clouds) -> Iterator[None]:
        clouds.use_secret(dataclasses.replace(clouds.account, sk="a-wrong-one"))
        yield
        clouds.huawei.reset()
        clouds.use_secret(clouds.account)

    @pytest.mark.usefixtures("wrong_key")
    def test_wrong_key(self, clouds: Clouds) -> None:
        events = [rename_event(a_service(clouds), "orders") for _ in range(6)]

        replies = [clouds.post_rename_event(event) for event in events]

        assert [reply.status for reply in replies] == [403] * 6
        for outcome in outcomes_of(clouds, *(event["id"] for event in events)).values():
            error = outcome["data"]["error"]
            assert (error["code"], error["kind"], error["http_status"]) == ("APIGW.0301", "access", 401)
        # Five refusals in a row would lock the key.
        assert len(clouds.huawei.calls) == 1


class TestTelemetry:
    def test_counts_what_became_of_each_event(self, clouds: Clouds) -> None:
        # given: nobody else's event is at work still
        assert waits_in_queue(clouds) == 0
        renamed = rename_event(a_service(clouds), "orders")
        unknown = rename_event(str(uuid.uuid4()), "orders")
        stale = rename_event(renamed["data"]["vpc_endpoint_service_id"], "billing") | {"time": "2020-01-01T00:00:00Z"}
        before = Metrics.of(clouds)

        # when
        clouds.send_rename_event(renamed)
        clouds.send_rename_event(unknown)
        outcomes_of(clouds, renamed["id"], unknown["id"])
        clouds.send_rename_event(stale)
        outcome_of(clouds, stale)
        clouds.send_rename_event(renamed)  # once more, as another message
        outcome_of(clouds, renamed)

        # then
        assert waits_in_queue(clouds) == 0
        told = eventually(lambda: Metrics.of(clouds) - before, lambda told: len(told.values["EventAge"]) == 3)
        counts = {name: sum(values) for name, values in told.values.items() if name.startswith("Rename")}
        assert counts == {"Renamed": 1, "RenameFailed": 1, "RenameSuperseded": 1, "RenameDuplicate": 1}
        assert told.by("RenameFailed") == {("not_found", "EndPoint.2003")}
        assert told.by("RenameSuperseded") == {("conflict", "Rename.Superseded")}
        assert len(told.values["VpcepLatency"]) == len(clouds.huawei.calls) == 2
        assert all(0 < milliseconds < 10_000 for milliseconds in told.values["VpcepLatency"])
        fresh, fresh_too, old = sorted(told.values["EventAge"])
        assert 0 <= fresh <= fresh_too < 30 < old

    def test_an_event_is_followed_from_its_producer_to_its_outcome(self, clouds: Clouds) -> None:
        # given: it goes through both functions, by HTTP and the queue
        event = rename_event(a_service(clouds), "orders")
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

        [handed_over, settled] = eventually(lines, lambda lines: len(lines) == 2)
        assert (handed_over["trigger"], handed_over["status"]) == ("http", "queued")
        assert (settled["trigger"], settled["status"]) == ("sqs", "settled")
        assert settled["outcome_id"] == outcome["id"]
        assert {line["traceparent"] for line in (handed_over, settled, outcome)} == {event["traceparent"]}

    def test_outcomes_are_archived(self, clouds: Clouds) -> None:
        def archived() -> int:
            archive = clouds.stack.resources["OutcomeArchive"]
            return int(clouds.aws.client("events").describe_archive(ArchiveName=archive)["EventCount"])

        before = archived()
        event = rename_event(a_service(clouds), "orders")

        clouds.send_rename_event(event)
        outcome_of(clouds, event)

        assert archived() == before + 1


class TestLogs:
    def test_show_no_secret_and_no_payload(self, clouds: Clouds) -> None:
        event = rename_event(a_service(clouds), "seen-nowhere")
        clouds.send_rename_event(event)
        outcome_of(clouds, event)
        assert clouds.post_rename_event(event).status == 200

        logs = "\n".join(clouds.function_logs("RenameFromQueue") + clouds.function_logs("RenameFromHttp"))

        assert event["id"] in logs
        for secret in (clouds.account.sk, "SDK-HMAC-SHA256", "seen-nowhere", clouds.producer.secret_key):
            assert secret not in logs


LOG_GROUPS = ("RenameFromQueueLogs", "RenameFromHttpLogs", "SettleDeadLettersLogs", "RenameApiLogs")


class TestTemplate:
    def test_queue_gives_the_function_time(self, clouds: Clouds) -> None:
        queue = queue_attributes(clouds, "RenameQueueUrl")
        function = function_configuration(clouds, "RenameFromQueue")
        assert int(queue["VisibilityTimeout"]) >= 6 * function["Timeout"]

    def test_function_knows_when_the_queue_gives_up(self, clouds: Clouds) -> None:
        redrive = json.loads(queue_attributes(clouds, "RenameQueueUrl")["RedrivePolicy"])
        function = function_configuration(clouds, "RenameFromQueue")
        assert int(redrive["maxReceiveCount"]) == int(function["Environment"]["Variables"]["MAX_RECEIVES"]) >= 5

    def test_dead_letters_reach_the_dead_letter_queue_even_where_nobody_sees_them_off(self, clouds: Clouds) -> None:
        sqs = clouds.aws.client("sqs")
        unsettled = sqs.get_queue_attributes(QueueUrl=clouds.stack.resources["UnsettledQueue"], AttributeNames=["All"])
        on_the_way = unsettled["Attributes"]
        first = json.loads(queue_attributes(clouds, "RenameQueueUrl")["RedrivePolicy"])["deadLetterTargetArn"]
        second = json.loads(on_the_way["RedrivePolicy"])["deadLetterTargetArn"]
        assert first == on_the_way["QueueArn"]
        assert second == queue_attributes(clouds, "RenameDeadLetterQueueUrl")["QueueArn"]
        assert int(on_the_way["MessageRetentionPeriod"]) == 14 * 24 * 3600

    def test_function_answers_before_the_api_gives_up(self, clouds: Clouds) -> None:
        assert function_configuration(clouds, "RenameFromHttp")["Timeout"] <= 25

    def test_dead_letters_are_kept_for_fourteen_days(self, clouds: Clouds) -> None:
        assert queue_attributes(clouds, "RenameDeadLetterQueueUrl")["MessageRetentionPeriod"] == str(14 * 24 * 3600)

    @pytest.mark.parametrize("queue", ["RenameQueueUrl", "RenameDeadLetterQueueUrl"])
    def test_queues_are_encrypted(self, clouds: Clouds, queue: str) -> None:
        assert queue_attributes(clouds, queue)["SqsManagedSseEnabled"] == "true"

    @pytest.mark.parametrize("queue", ["RenameQueueUrl", "RenameDeadLetterQueueUrl"])
    def test_queues_refuse_plain_http(self, clouds: Clouds, queue: str) -> None:
        def as_plain_http(request: AWSRequest, **_: object) -> None:
            request.headers["X-Forwarded-Proto"] = "http"

        sqs = clouds.aws.client("sqs")
        sqs.meta.events.register("before-sign.sqs", as_plain_http)
        try:
            with pytest.raises(ClientError, match="AccessDenied"):
                sqs.receive_message(QueueUrl=clouds.stack.outputs[queue])
        finally:
            sqs.meta.events.unregister("before-sign.sqs", as_plain_http)

    def test_only_the_failed_of_a_batch_come_back(self, clouds: Clouds) -> None:
        client = clouds.aws.client("lambda")
        function = clouds.stack.resources["RenameFromQueue"]
        [mapping] = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2

    @pytest.mark.parametrize("function", ["RenameFromQueue", "SettleDeadLetters"])
    def test_the_queues_call_the_alias(self, clouds: Clouds, function: str) -> None:
        client = clouds.aws.client("lambda")
        mappings = client.list_event_source_mappings(FunctionName=clouds.stack.resources[function])
        [mapping] = mappings["EventSourceMappings"]
        assert mapping["FunctionArn"].endswith(":live")

    def test_the_api_calls_the_alias(self, clouds: Clouds) -> None:
        apis, api_id = clouds.aws.client("apigateway"), clouds.stack.resources["RenameApi"]
        resources = apis.get_resources(restApiId=api_id, embed=["methods"])["items"]
        [method] = [method for resource in resources for method in resource.get("resourceMethods", {}).values()]
        assert method["methodIntegration"]["uri"].endswith(":live/invocations")

    def test_alarms_are_told_to_the_topic(self, clouds: Clouds) -> None:
        # MiniStack has no alarms by metric math.
        alarms = clouds.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
        topic = clouds.stack.outputs["AlarmTopicArn"]
        assert len(alarms) > 5
        assert {action for alarm in alarms for action in alarm["AlarmActions"] + alarm["OKActions"]} == {topic}

    def test_the_dashboard_is_there(self, clouds: Clouds) -> None:
        body = clouds.aws.client("cloudwatch").get_dashboard(DashboardName=f"{clouds.stack.name}-{clouds.aws.region}")[
            "DashboardBody"
        ]
        assert len(json.loads(body)["widgets"]) > 10
        assert "${" not in body.replace("${LABEL}", "")

    def test_logs_are_not_kept_for_ever(self, clouds: Clouds) -> None:
        groups = clouds.aws.client("logs").describe_log_groups()["logGroups"]
        assert {group["logGroupName"] for group in groups} == {clouds.stack.resources[name] for name in LOG_GROUPS}
        assert all(group["retentionInDays"] for group in groups)


@dataclasses.dataclass
class Metrics:
    """What the functions have told in CloudWatch's embedded metric format, as CloudWatch would read it."""

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
        """The kinds and codes that a metric is told for."""
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


def eventually(look: Callable[[], T], until: Callable[[T], bool], seconds: float = 10) -> T:
    """What is seen once it is as it should be, or time is up: logs follow the outcome."""
    deadline = time.monotonic() + seconds
    while not until(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def queue_attributes(clouds: Clouds, output: str) -> dict[str, str]:
    sqs = clouds.aws.client("sqs")
    attributes = sqs.get_queue_attributes(QueueUrl=clouds.stack.outputs[output], AttributeNames=["All"])["Attributes"]
    return dict(attributes)


def function_configuration(clouds: Clouds, function: str) -> dict[str, Any]:
    client = clouds.aws.client("lambda")
    return dict(client.get_function_configuration(FunctionName=clouds.stack.resources[function]))
