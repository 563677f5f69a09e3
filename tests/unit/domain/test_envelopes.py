"""Rename events in notifications of SNS and events of EventBridge."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from function.domain.envelopes import attribute_name
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import ARRIVED
from tests.unit.domain.parsing import accepted, attribute, failure_outcome, paths, refused, without

# ---- Envelopes

TOPIC = "arn:aws:sns:eu-west-1:123456789012:renames.fifo"
NOTIFIED = "2026-11-02T08:14:59.123Z"
BRIDGED = "2026-11-02T08:14:58Z"


def notification(message: object, **fields: Any) -> dict[str, Any]:
    """As SNS sends it to a queue, without raw message delivery."""
    return {
        "Type": "Notification",
        "MessageId": "sns-1",
        "SequenceNumber": "10000000000000003000",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": NOTIFIED,
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
        "MessageAttributes": {},
    } | fields


def bridged(detail: object, **fields: Any) -> dict[str, Any]:
    """As an EventBridge rule sends it to a queue."""
    return {
        "version": "0",
        "id": "bridge-1",
        "detail-type": "Service renamed",
        "source": "com.example.cmdb",
        "account": "123456789012",
        "time": BRIDGED,
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
    } | fields


@pytest.mark.parametrize("around", [notification, bridged], ids=["SNS", "EventBridge"])
def test_a_structured_event_in_an_envelope_is_the_event_itself(around: Callable[[object], dict[str, Any]]) -> None:
    assert accepted(around(rename_event(team="shop"))) == accepted(rename_event(team="shop"))


def test_a_structured_event_without_a_time_has_that_of_its_envelope() -> None:
    content = without(rename_event(), "time")

    assert accepted(notification(content)).cloud_event == rename_event(time=NOTIFIED)
    assert accepted(bridged(content)).cloud_event == rename_event(time=BRIDGED)
    assert accepted(notification(bridged(content))).cloud_event == rename_event(time=BRIDGED)


def test_data_in_a_notification_takes_what_it_lacks_from_it() -> None:
    event = accepted(notification(rename_data()), transport(id="of the queue", team="network"))

    assert event.cloud_event == rename_event(id="sns-1", source=TOPIC, time=NOTIFIED)


def test_data_in_a_notification_takes_its_attributes() -> None:
    given = {
        "ce_id": attribute("8f0c"),
        "CE-Source": attribute("/cmdb/7"),
        "cloudEvents:time": attribute("2026-11-02T08:00:00Z"),
        "cloudEvents_team": attribute("shop"),
        "ce_priority": attribute("5", "Number"),
        "unrelated": attribute("x"),
    }

    event = accepted(notification(rename_data(), MessageAttributes=given))

    expected = {"id": "8f0c", "source": "/cmdb/7", "time": "2026-11-02T08:00:00Z", "team": "shop", "priority": "5"}
    assert event.cloud_event == rename_event(**expected)


@pytest.mark.parametrize("content", [rename_event(id="inside"), bridged(rename_data(), id="inside")])
def test_attributes_of_a_notification_beside_a_whole_event_are_none_of_it(content: dict[str, Any]) -> None:
    given = {"ce_id": attribute("outside"), "ce-id": attribute("elsewhere")}

    assert accepted(notification(content, MessageAttributes=given)).id == "inside"


def test_two_spellings_of_one_attribute_of_a_notification_must_agree() -> None:
    given = {"ce_id": attribute("1"), "CE_ID": attribute("1"), "ce-id": attribute("2")}

    event = refused(notification(rename_data(), MessageAttributes=given))

    assert event.violations == (("/id", "comes with two values"),)


@pytest.mark.parametrize(
    "wrong", [attribute("AQ==", "Binary"), attribute(5), attribute(None), {}, "8f0c", None, ["8f0c"]], ids=str
)
def test_an_attribute_of_a_notification_that_is_no_text_is_a_violation(wrong: object) -> None:
    assert paths(refused(notification(rename_data(), MessageAttributes={"ce_id": wrong}))) == {"/id"}


@pytest.mark.parametrize("given", [None, [], "x", 5])
def test_a_notification_may_lack_attributes(given: object) -> None:
    assert accepted(notification(rename_data(), MessageAttributes=given)).id == "sns-1"
    assert accepted(without(notification(rename_data()), "MessageAttributes")).id == "sns-1"


def test_data_in_an_eventbridge_event_takes_its_identity_and_time() -> None:
    event = accepted(bridged(rename_data()), transport(id="of the queue", team="network"))

    assert event.cloud_event == rename_event(id="bridge-1", source="com.example.cmdb", time=BRIDGED)


def test_an_eventbridge_event_in_a_notification_is_opened() -> None:
    assert accepted(notification(bridged(rename_data()))) == accepted(bridged(rename_data()))


@pytest.mark.parametrize(
    "content",
    [
        notification(notification(rename_event())),
        bridged(bridged(rename_event())),
        bridged(notification(rename_event())),
        notification(bridged(bridged(rename_event()))),
        notification(bridged(notification(rename_event()))),
    ],
    ids=["SNS twice", "EventBridge twice", "SNS in EventBridge", "EventBridge twice in SNS", "SNS in both"],
)
def test_nothing_deeper_is_opened(content: dict[str, Any]) -> None:
    refused(content)


@pytest.mark.parametrize("around", [notification, bridged, lambda content: notification(bridged(content))])
@pytest.mark.parametrize("content", [rename_event(id=""), rename_data(endpoint_service_name="a.b")])
def test_what_is_wrong_is_pointed_to_within_the_event(around: Any, content: dict[str, Any]) -> None:
    event = refused(around(content))

    assert paths(event) == paths(refused(content))
    request = failure_outcome(event).cloud_event["data"]["request"]
    assert request.keys() == rename_event().keys()
    assert request["data"] == content.get("data", content)


@pytest.mark.parametrize("text", ["orders", "", '{"a": 1, "a": 2}'])
def test_the_request_of_a_notification_around_no_json_is_the_text_in_it(text: str) -> None:
    event = refused(notification(text))

    assert paths(event) == {""}
    assert failure_outcome(event).cloud_event["data"]["request"] == text
    assert (event.id, event.source, event.time) == ("sns-1", TOPIC, ARRIVED)


def test_the_request_of_an_eventbridge_event_around_no_object_is_its_detail() -> None:
    event = refused(bridged(["orders"]))

    assert event.violations == (("", "must be an object"),)
    assert failure_outcome(event).cloud_event["data"]["request"] == '["orders"]'
    assert (event.id, event.source) == ("bridge-1", "com.example.cmdb")


@pytest.mark.parametrize("fields", [{"MessageId": None}, {"MessageId": 5, "TopicArn": [], "Timestamp": {}}])
def test_what_an_envelope_lacks_comes_from_the_queue(fields: dict[str, Any]) -> None:
    event = accepted(notification(rename_data(), **fields))

    assert event.id == "message-1"
    assert event.source == (TOPIC if len(fields) == 1 else transport().source)
    assert event.cloud_event["time"] == (NOTIFIED if len(fields) == 1 else ARRIVED)


@pytest.mark.parametrize("content", [rename_data(), without(rename_event(), "time")], ids=["binary", "structured"])
def test_a_time_of_an_envelope_that_is_none_is_a_violation(content: dict[str, Any]) -> None:
    event = refused(notification(content, Timestamp="soon"))

    assert paths(event) == {"/time"}
    assert event.time == ARRIVED


def test_an_envelope_over_http_is_no_event() -> None:
    for content in (notification(rename_event()), bridged(rename_event())):
        assert refused(content, may_be_enveloped=False)


def test_a_byte_order_mark_within_a_notification_is_skipped() -> None:
    assert accepted("\ufeff" + json.dumps(notification("\ufeff" + json.dumps(rename_event())))).id == "event-1"


@pytest.mark.parametrize(
    ("name", "attribute_"),
    [
        ("ce_id", "id"),
        ("ce-id", "id"),
        ("CE_ID", "id"),
        ("Ce-Id", "id"),
        ("cloudEvents:id", "id"),
        ("cloudEvents_id", "id"),
        ("CLOUDEVENTS:ID", "id"),
        ("cloudevents_id", "id"),
        ("ce_", ""),
        ("ce_ce_id", "ce_id"),
        ("ceid", None),
        ("ce:id", None),
        ("cloudEvents-id", None),
        ("xce_id", None),
        ("cloudEventſ:id", None),
        ("id", None),
    ],
)
def test_an_attribute_has_four_spellings(name: str, attribute_: str | None) -> None:
    assert attribute_name(name) == attribute_
