"""The handler: dispatches by the type of the event, and is wired by the settings."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from tests.localcloud.huawei import HuaweiCloud

Handler = Callable[..., dict[str, Any]]
HandlerWith = Callable[..., Handler]

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


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


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Event": {"Records": []}},
        event_now(),
        {"secret": "marker"},
        *[{"redrive": value} for value in (False, None, 1, "true")],
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
    services = [service_id(number) for number in range(10)]
    for service in services:
        cloud.add_service(service, name="billing")
    records = [sqs_record(event_now(id=s, vpc_endpoint_service_id=s), message_id=s, group=s) for s in services]
    cloud.set_credentials("NEW", "new-secret")
    handler = handler_with(**SECRET)
    old = json.dumps({"ak": "OLD", "sk": "old-secret", "project_id": PROJECT})
    aws.answer("GetSecretValue", {"SecretString": old})
    aws.secret = json.dumps({"ak": "NEW", "sk": "new-secret", "project_id": PROJECT})

    assert handler({"Records": records}, FakeContext()) == {"batchItemFailures": []}

    assert [call.authenticated for call in cloud.calls] == [False] + [True] * 10
    assert [cloud.name_of(service) for service in services] == ["orders"] * 10
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
