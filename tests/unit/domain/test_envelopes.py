"""Rename events in SNS notifications and EventBridge events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from function.domain.envelopes import attribute_name
from tests.fakes.events import eventbridge_event, rename_data, rename_event, sns_notification, transport
from tests.fakes.identifiers import ARRIVED
from tests.unit.domain.parsing import accepted, attribute, failure_outcome, paths, refused, without

TOPIC = sns_notification("")["TopicArn"]
NOTIFIED = sns_notification("")["Timestamp"]
BRIDGED = eventbridge_event({})["time"]


@pytest.mark.parametrize("around", [sns_notification, eventbridge_event], ids=["SNS", "EventBridge"])
def test_structured_event_in_an_envelope_is_the_event_itself(around: Callable[[object], dict[str, Any]]) -> None:
    assert accepted(around(rename_event(team="shop"))) == accepted(rename_event(team="shop"))


def test_structured_event_without_a_time_has_that_of_its_envelope() -> None:
    content = without(rename_event(), "time")

    assert accepted(sns_notification(content)).cloud_event == rename_event(time=NOTIFIED)
    assert accepted(eventbridge_event(content)).cloud_event == rename_event(time=BRIDGED)
    assert accepted(sns_notification(eventbridge_event(content))).cloud_event == rename_event(time=BRIDGED)


def test_data_in_a_notification_has_the_id_topic_and_time_of_the_notification() -> None:
    event = accepted(sns_notification(rename_data()), transport(id="message", team="network"))

    assert event.cloud_event == rename_event(id="sns-1", source=TOPIC, time=NOTIFIED)


def test_data_in_a_notification_has_its_message_attributes() -> None:
    given = {
        "ce_id": attribute("8f0c"),
        "CE-Source": attribute("/cmdb/7"),
        "cloudEvents:time": attribute("2026-11-02T08:00:00Z"),
        "cloudEvents_team": attribute("shop"),
        "ce_priority": attribute("5", "Number"),
        "unrelated": attribute("x"),
    }

    event = accepted(sns_notification(rename_data(), MessageAttributes=given))

    expected = {"id": "8f0c", "source": "/cmdb/7", "time": "2026-11-02T08:00:00Z", "team": "shop", "priority": "5"}
    assert event.cloud_event == rename_event(**expected)


@pytest.mark.parametrize("content", [rename_event(id="inside"), eventbridge_event(rename_data(), id="inside")])
def test_message_attributes_of_a_notification_are_ignored_with_a_whole_event(content: dict[str, Any]) -> None:
    given = {"ce_id": attribute("outside"), "ce-id": attribute("elsewhere")}

    assert accepted(sns_notification(content, MessageAttributes=given)).id == "inside"


def test_two_spellings_of_a_message_attribute_must_have_one_value() -> None:
    given = {"ce_id": attribute("1"), "CE_ID": attribute("1"), "ce-id": attribute("2")}

    event = refused(sns_notification(rename_data(), MessageAttributes=given))

    assert event.violations == (("/id", "comes with two values"),)


@pytest.mark.parametrize(
    "wrong", [attribute("AQ==", "Binary"), attribute(5), attribute(None), {}, "8f0c", None, ["8f0c"]], ids=str
)
def test_message_attribute_that_is_not_text_is_a_violation(wrong: object) -> None:
    assert paths(refused(sns_notification(rename_data(), MessageAttributes={"ce_id": wrong}))) == {"/id"}


@pytest.mark.parametrize("given", [None, [], "x", 5])
def test_notification_may_lack_message_attributes(given: object) -> None:
    assert accepted(sns_notification(rename_data(), MessageAttributes=given)).id == "sns-1"
    assert accepted(without(sns_notification(rename_data()), "MessageAttributes")).id == "sns-1"


def test_data_in_an_eventbridge_event_has_its_identity_and_time() -> None:
    event = accepted(eventbridge_event(rename_data()), transport(id="message", team="network"))

    assert event.cloud_event == rename_event(id="bridge-1", source="com.example.cmdb", time=BRIDGED)


@pytest.mark.parametrize(
    "content",
    [
        sns_notification(sns_notification(rename_event())),
        eventbridge_event(eventbridge_event(rename_event())),
        eventbridge_event(sns_notification(rename_event())),
        sns_notification(eventbridge_event(eventbridge_event(rename_event()))),
        sns_notification(eventbridge_event(sns_notification(rename_event()))),
    ],
    ids=["SNS twice", "EventBridge twice", "SNS in EventBridge", "EventBridge twice in SNS", "SNS in both"],
)
def test_deeper_envelopes_are_not_opened(content: dict[str, Any]) -> None:
    refused(content)


@pytest.mark.parametrize(
    "around", [sns_notification, eventbridge_event, lambda content: sns_notification(eventbridge_event(content))]
)
@pytest.mark.parametrize("content", [rename_event(id=""), rename_data(endpoint_service_name="a.b")])
def test_violation_paths_are_those_within_the_event(around: Any, content: dict[str, Any]) -> None:
    event = refused(around(content))

    assert paths(event) == paths(refused(content))
    request = failure_outcome(event).cloud_event["data"]["request"]
    assert request.keys() == rename_event().keys()
    assert request["data"] == content.get("data", content)


@pytest.mark.parametrize("text", ["orders", "", '{"a": 1, "a": 2}'])
def test_request_in_the_outcome_of_a_notification_without_json_is_its_text(text: str) -> None:
    event = refused(sns_notification(text))

    assert paths(event) == {""}
    assert failure_outcome(event).cloud_event["data"]["request"] == text
    assert (event.id, event.source, event.time) == ("sns-1", TOPIC, ARRIVED)


def test_request_in_the_outcome_of_an_eventbridge_event_without_an_object_is_its_detail() -> None:
    event = refused(eventbridge_event(["orders"]))

    assert event.violations == (("", "must be an object"),)
    assert failure_outcome(event).cloud_event["data"]["request"] == '["orders"]'
    assert (event.id, event.source) == ("bridge-1", "com.example.cmdb")


@pytest.mark.parametrize("fields", [{"MessageId": None}, {"MessageId": 5, "TopicArn": [], "Timestamp": {}}])
def test_attributes_that_an_envelope_lacks_are_those_of_the_message(fields: dict[str, Any]) -> None:
    event = accepted(sns_notification(rename_data(), **fields))

    assert event.id == "message-1"
    assert event.source == (TOPIC if len(fields) == 1 else transport().source)
    assert event.cloud_event["time"] == (NOTIFIED if len(fields) == 1 else ARRIVED)


@pytest.mark.parametrize("content", [rename_data(), without(rename_event(), "time")], ids=["binary", "structured"])
def test_malformed_time_of_an_envelope_is_a_violation(content: dict[str, Any]) -> None:
    event = refused(sns_notification(content, Timestamp="soon"))

    assert paths(event) == {"/time"}
    assert event.time == ARRIVED


def test_envelope_is_refused_where_none_is_allowed() -> None:
    for content in (sns_notification(rename_event()), eventbridge_event(rename_event())):
        assert refused(content, may_be_enveloped=False)


def test_byte_order_mark_in_a_notification_is_skipped() -> None:
    assert accepted("\ufeff" + json.dumps(sns_notification("\ufeff" + json.dumps(rename_event())))).id == "event-1"


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        *[(prefix + "id", "id") for prefix in ("ce_", "ce-", "cloudEvents:", "cloudEvents_", "cloudevents_")],
        *[(name, "id") for name in ("CE_ID", "Ce-Id", "CLOUDEVENTS:ID")],
        *[("ce_", ""), ("ce_ce_id", "ce_id")],
        *[(name, None) for name in ("ceid", "ce:id", "cloudEvents-id", "xce_id", "cloudEventſ:id", "id")],
    ],
)
def test_name_of_a_message_attribute_has_four_prefixes_in_any_case(name: str, attribute: str | None) -> None:
    assert attribute_name(name) == attribute
