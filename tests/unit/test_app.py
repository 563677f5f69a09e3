"""The handler: dispatches by the type of the event, and is wired by the settings."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from email.message import Message
from functools import partial
from types import ModuleType
from typing import Any, Final

import pytest

from function import settings
from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT, KEYLESS, SECRET
from tests.fakes.events import HttpReply, cloud_event, http_request, service_id, sqs_record
from tests.fakes.identifiers import BUS, PROJECT, SERVICE
from tests.fakes.lambda_context import FakeContext
from tests.fakes.raw_server import RawServer
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.server import Reply

Handler = Callable[..., dict[str, Any]]
HandlerWith = Callable[..., Handler]

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

TEN_SERVICES: Final = [service_id(number) for number in range(10)]


@pytest.fixture
def cloud(cloud: HuaweiCloud) -> HuaweiCloud:
    for service in TEN_SERVICES:
        cloud.add_service(service, name="billing")
    return cloud


@pytest.fixture
def handler_with(handler_with: HandlerWith, cloud: HuaweiCloud) -> HandlerWith:
    return partial(handler_with, VPCEP_ENDPOINT=cloud.url)


@pytest.fixture
def handler(handler_with: HandlerWith) -> Handler:
    return handler_with()


def event_now(**data: Any) -> dict[str, Any]:
    """An event whose time is past for any clock."""
    return cloud_event(time="2020-01-01T00:00:00Z", **data)


def sqs_event(event: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    return {"Records": [sqs_record(event or event_now(), **arguments)]}


def renames_of_ten_services(prefix: str = "", **data: str) -> dict[str, Any]:
    """A batch of ten groups."""
    records = []
    for service in TEN_SERVICES:
        event = event_now(id=f"{prefix}{service}", vpc_endpoint_service_id=service, **data)
        records.append(sqs_record(event, message_id=event["id"], group=service))
    return {"Records": records}


def post(handler: Handler, event: dict[str, Any] | None = None) -> HttpReply:
    return HttpReply.of(handler(http_request(event or event_now()), FakeContext()))


# ---- Dispatch


def test_sqs_event_gets_a_partial_batch_response(handler: Handler, aws: FakeAws, cloud: HuaweiCloud) -> None:
    assert handler(sqs_event(), FakeContext()) == {"batchItemFailures": []}

    assert cloud.name_of(SERVICE) == "orders"
    [outcome] = aws.outcomes
    assert (outcome["type"], outcome["data"]["trigger"]) == ("vpcep.endpoint_service.renamed.v1", "sqs")
    assert aws.calls_of("PutEvents")[0]["Entries"][0]["EventBusName"] == BUS


def test_proxy_event_gets_a_proxy_response(handler: Handler, aws: FakeAws, cloud: HuaweiCloud) -> None:
    reply = post(handler)

    assert (reply.status, cloud.name_of(SERVICE)) == (200, "orders")
    assert aws.outcomes == [reply.body]
    assert reply.body["data"]["trigger"] == "http"


def test_one_function_handles_events_of_both_triggers(handler: Handler, cloud: HuaweiCloud) -> None:
    for number in range(3):
        assert post(handler, event_now(id=f"h{number}")).status == 200
        assert handler(sqs_event(event_now(id=f"s{number}")), FakeContext()) == {"batchItemFailures": []}

    assert len(cloud.calls) == 6


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Event": {"Records": []}},
        event_now(),
        {"secret": "marker"},
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
        {"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "b"}}}]},
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "{}"}}]},
        {"Records": [{"eventSource": "aws:kinesis", "kinesis": {"data": "e30="}}]},
        {"Records": [{"eventSource": "aws:dynamodb", "dynamodb": {"Keys": {}}}]},
        {"version": "2.0", "routeKey": "POST /rename-events", "requestContext": {"http": {"method": "POST"}}},
        {"requestContext": {"elb": {"targetGroupArn": "arn"}}, "httpMethod": "POST", "path": "/rename-events"},
        {"requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "c"}},
        [],
        None,
    ],
    ids=lambda event: repr(event)[:50],
)
def test_any_other_event_is_an_error_that_does_not_repeat_it(
    app: ModuleType, handler: Handler, cloud: HuaweiCloud, aws: FakeAws, event: Any
) -> None:
    with pytest.raises(app.UnknownTriggerError) as caught:
        handler(event, FakeContext())

    assert "marker" not in str(caught.value)
    assert cloud.calls == []
    assert aws.calls == []


# ---- Connections that ended while the environment was frozen


class ForgetfulAws(FakeAws):
    """Hangs up on connections that it has forgotten meanwhile; the server has a thread for each."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[threading.Thread] = set()
        self._forgotten: set[threading.Thread] = set()
        self.hang_ups = 0
        self.answer("GetItem", {}, times=None)
        self.answer("TransactWriteItems", {}, times=None)

    def forget_connections(self) -> None:
        self._forgotten |= self._known

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        connection = threading.current_thread()
        if connection in self._forgotten:
            self.hang_ups += 1
            return None
        self._known.add(connection)
        return super()._receive(path, headers, body)


@pytest.mark.parametrize("aws", [ForgetfulAws], indirect=True)
def test_closed_connections_to_aws_are_replaced_without_a_wait_and_return_no_record(
    handler_with: HandlerWith, aws: ForgetfulAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("function.adapters.aws.client.full_jitter", lambda *_, **__: pytest.fail("waits to ask again"))
    handler = handler_with(LEDGER_TABLE="ledger")

    for number in range(6):
        assert handler(renames_of_ten_services(f"{number}-"), FakeContext()) == {"batchItemFailures": []}
        if number > 0:
            aws.forget_connections()

    assert aws.hang_ups > 0
    assert len(aws.outcomes) == 60


# ---- Settings


def test_rename_queue_url_is_where_events_are_handed_over_and_returned(
    handler_with: HandlerWith, aws: FakeAws, cloud: HuaweiCloud
) -> None:
    url = f"{aws.url}/123456789012/renames.fifo"
    handler = handler_with(RENAME_QUEUE_URL=url)
    cloud.fail(429, "APIGW.0308", headers={"Retry-After": "900"}, times=None)

    assert post(handler).status == 202
    handler(sqs_event(), FakeContext())

    assert [call["QueueUrl"] for call in aws.calls_of("SendMessage")] == [url]
    [call] = aws.calls_of("ChangeMessageVisibilityBatch")
    assert call["QueueUrl"] == url
    assert call["Entries"][0]["VisibilityTimeout"] >= 900


def test_max_receives_is_how_often_an_event_is_received_before_it_is_given_up(
    handler_with: HandlerWith, aws: FakeAws, cloud: HuaweiCloud
) -> None:
    handler = handler_with(MAX_RECEIVES="5")
    cloud.fail(429, "APIGW.0308", headers={"Retry-After": "900"}, times=2)

    for receive_count, outcomes in ((4, 0), (5, 1)):
        response = handler(sqs_event(receive_count=receive_count), FakeContext())

        assert response == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
        assert len(aws.outcomes) == outcomes


def test_rotated_key_in_the_secret_costs_no_event_and_no_deployment(
    handler_with: HandlerWith, aws: FakeAws, cloud: HuaweiCloud
) -> None:
    """Ten services at once, of which one learns that the key is no longer valid."""
    cloud.set_credentials("NEW", "new-secret")
    handler = handler_with(**SECRET)
    old = json.dumps({"ak": "OLD", "sk": "old-secret", "project_id": PROJECT})
    aws.answer("GetSecretValue", {"SecretString": old})
    aws.secret = json.dumps({"ak": "NEW", "sk": "new-secret", "project_id": PROJECT})

    assert handler(renames_of_ten_services(), FakeContext()) == {"batchItemFailures": []}

    assert [call.authenticated for call in cloud.calls] == [False] + [True] * 10
    assert [cloud.name_of(service) for service in TEN_SERVICES] == ["orders"] * 10
    assert len(aws.calls_of("GetSecretValue")) == 2


def test_read_previous_name_adds_the_previous_name_to_outcomes(
    handler_with: HandlerWith, aws: FakeAws, cloud: HuaweiCloud
) -> None:
    before = cloud.full_name_of(SERVICE)

    handler_with(READ_PREVIOUS_NAME="true")(sqs_event(), FakeContext())

    assert aws.outcomes[0]["data"]["previous_service_name"] == before


@pytest.mark.parametrize(("allowed", "status"), [("", 400), ("other-project", 200)])
def test_allowed_projects_are_the_projects_that_an_event_may_name(
    handler_with: HandlerWith, cloud: HuaweiCloud, allowed: str, status: int
) -> None:
    cloud.add_service("service-2", project_id="other-project")
    event = event_now(vpc_endpoint_service_id="service-2", project_id="other-project")

    assert post(handler_with(ALLOWED_PROJECTS=allowed), event).status == status


def test_handler_keeps_time_to_report(handler: Handler, cloud: HuaweiCloud) -> None:
    # given: an invocation that has just enough time to say that it has none
    response = handler(sqs_event(), FakeContext(seconds=3.0))

    assert response == {"batchItemFailures": [{"itemIdentifier": "message-1"}]}
    assert cloud.calls == []


@pytest.mark.parametrize("variable", ["HUAWEICLOUD_REGION", "ALLOWED_REGIONS"])
@pytest.mark.parametrize("key", [{}, KEYLESS], ids=["key", "keyless"])
def test_region_without_vpcep_is_an_error_that_names_its_setting(
    app: ModuleType, variable: str, key: dict[str, str]
) -> None:
    with pytest.raises(settings.SettingsError, match=f"^{variable} names a region that VPCEP is not known in$"):
        app.Function(settings.load(ENVIRONMENT | key | {variable: "xx-nowhere-1"}))


def test_unknown_region_needs_an_endpoint_and_without_a_key_one_of_iam_too(app: ModuleType) -> None:
    elsewhere = {"HUAWEICLOUD_REGION": "xx-nowhere-1", "VPCEP_ENDPOINT": "https://endpoints.example.com"}

    app.Function(settings.load(ENVIRONMENT | elsewhere))
    with pytest.raises(settings.SettingsError, match="HUAWEICLOUD_SDK_IAM_ENDPOINT is missing"):
        app.Function(settings.load(ENVIRONMENT | KEYLESS | elsewhere))


# ---- Credentials that a reply of Huawei Cloud repeats

KEY: Final = ("UNITACCESSKEY", "unit/secret+key", "unit-security-token/==")
FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "percent-encoded": lambda secret: "".join(f"%{ord(character):02x}" for character in secret),
    "JSON escapes": lambda secret: "".join(f"\\u{ord(character):04X}" for character in secret),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trigger", ["http", "sqs"])
@pytest.mark.parametrize(("status", "code"), [(400, "EndPoint.0002"), (401, "APIGW.0301"), (403, "AK.{}")])
def test_credentials_in_a_reply_are_not_passed_on_to_caller_bus_or_ledger(
    handler_with: HandlerWith, aws: FakeAws, cloud: HuaweiCloud, status: int, code: str, trigger: str, form: str
) -> None:
    ak, sk, token = KEY
    cloud.set_credentials(ak, sk, token)
    for operation in ("GetItem", "TransactWriteItems", "UpdateItem"):
        aws.answer(operation, {}, times=None)
    key = {"HUAWEICLOUD_SDK_SK": sk, "HUAWEICLOUD_SDK_SECURITY_TOKEN": token}
    handler = handler_with(**key, LEDGER_TABLE="ledger", MAX_RECEIVES="1")
    shown = [FORMS[form](secret) for secret in KEY]
    said = f"Get secretKey failed,ak:{', '.join(shown)}"
    cloud.fail(status, code.format(shown[0]), message=said, headers={"X-Request-Id": f"id-{shown[1]}"}, times=None)

    response = handler(http_request(event_now()) if trigger == "http" else sqs_event(), FakeContext())

    sent = json.dumps([call.parameters for call in aws.calls])
    if trigger == "sqs" or status == 400:
        assert "Get secretKey failed,ak:***, ***, ***" in sent
        assert {"PutEvents", "TransactWriteItems"} <= {call.operation for call in aws.calls}
    for secret in (*KEY, *shown):
        for text in (json.dumps(response), sent):
            assert secret not in text
            assert json.dumps(json.dumps(secret)[1:-1])[1:-1] not in text


# ---- A Secrets Manager that takes connections and never answers


@pytest.mark.parametrize("project", [{}, {"project_id": PROJECT}], ids=["default", "named"])
@pytest.mark.parametrize("trigger", ["sqs", "http"])
def test_hanging_secrets_manager_is_asked_by_one_thread_and_the_handler_reports(
    handler_with: HandlerWith,
    cloud: HuaweiCloud,
    monkeypatch: pytest.MonkeyPatch,
    trigger: str,
    project: dict[str, str],
) -> None:
    monkeypatch.setattr("function.adapters.aws.client.READ_SECONDS", 0.3)

    def hang(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    with RawServer(hang) as secrets_manager:
        handler = handler_with(**SECRET, AWS_ENDPOINT_URL_SECRETS_MANAGER=secrets_manager.url)
        began = time.monotonic()

        for _ in range(2):
            if trigger == "sqs":
                response = handler(renames_of_ten_services(**project), FakeContext())
                assert len(response["batchItemFailures"]) == 10
            else:
                assert post(handler, event_now(vpc_endpoint_service_id=TEN_SERVICES[0], **project)).status == 503

        # then: two tries of one question for all of that
        assert time.monotonic() - began < 3.0
        assert secrets_manager.connections == 2
    assert cloud.calls == []
