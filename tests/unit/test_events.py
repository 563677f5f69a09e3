"""Rename events in: what is taken, what is refused and with which violations. Outcomes out: identity and size."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.envelopes import attribute_name
from function.domain.event_parser import Attributes
from function.domain.failures import EventName, Failure, Kind, RenameFailedError
from function.domain.model import RENAME_FAILED, RENAMED, InvalidEvent, Outcome, RedriveCycle, RenameEvent
from function.domain.outcomes import outcome_from_json, outcome_id, rename_failed, renamed
from function.domain.policy import FORBIDDEN_PROJECT
from function.domain.strict_json import load
from tests.deadlines import within
from tests.fakes.domain import Intake, context, parser, valid
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import ARRIVED, NOW, OTHER_PROJECT, OTHER_REGION, PROJECT, REGION, SERVICE, TIME

KILOBYTE = 1024
LARGEST_EVENT = 256 * KILOBYTE
# An EventBridge entry: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html
LARGEST_ENTRY = 256 * KILOBYTE
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LONE_SURROGATE = "\ud800"
JSON_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


def parse(content: object, attributes: Attributes | None = None, **arguments: Any) -> RenameEvent | InvalidEvent:
    """Parse a text, or anything else as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return parser().parse(text, attributes or transport(), within(60.0), **arguments)


def taken(content: object, attributes: Attributes | None = None, **arguments: Any) -> RenameEvent:
    event = parse(content, attributes, **arguments)
    assert isinstance(event, RenameEvent), event.violations
    return event


def refused(content: object, attributes: Attributes | None = None, **arguments: Any) -> InvalidEvent:
    event = parse(content, attributes, **arguments)
    assert isinstance(event, InvalidEvent)
    assert event.violations
    return event


def paths(event: InvalidEvent) -> set[str]:
    return {violation.path for violation in event.violations}


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def encoded(content: object) -> str:
    """As ``data_base64``."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.b64encode(raw).decode()


def answer(event: RenameEvent | InvalidEvent) -> Outcome:
    """The failure outcome of an event, whatever it is."""
    violations = event.violations if isinstance(event, InvalidEvent) else ()
    failure = failures.invalid_event(violations) if violations else failures.internal_error()
    return rename_failed(event, context(attempts=0), failure)


# ---- What is taken


def test_a_structured_event_is_taken_as_it_says() -> None:
    data = rename_data(project_id=OTHER_PROJECT, region=OTHER_REGION, expected_name="billing")
    content = rename_event(id="8f0c", source="/cmdb/prod", data=data, traceparent=TRACEPARENT)

    event = taken(content)

    assert (event.id, event.source) == ("8f0c", "/cmdb/prod")
    assert event.time == datetime(2026, 11, 2, 8, 15, tzinfo=UTC)
    assert event.vpc_endpoint_service_id == SERVICE
    assert event.endpoint_service_name == "orders"
    assert (event.project_id, event.region, event.expected_name) == (OTHER_PROJECT, OTHER_REGION, "billing")
    assert event.cloud_event == content


def test_an_event_remembers_when_its_transport_took_it_in() -> None:
    assert refused(rename_event(time="soon")).time == ARRIVED
    assert refused("orders").time == ARRIVED


def test_what_an_event_leaves_open_stays_open() -> None:
    event = taken(rename_event())

    assert (event.project_id, event.region, event.expected_name) == (None, None, None)


def test_data_alone_takes_its_attributes_from_the_transport() -> None:
    given = {
        "id": "8f0c",
        "source": "/cmdb",
        "time": "2026-11-02T08:00:00Z",
        "traceparent": TRACEPARENT,
        "team": "shop",
    }

    event = taken(rename_data(), transport(**given))

    assert (event.id, event.source, event.time) == ("8f0c", "/cmdb", datetime(2026, 11, 2, 8, tzinfo=UTC))
    assert event.cloud_event == rename_event(**given)


def test_data_alone_takes_what_stands_in_where_the_transport_carries_no_attributes() -> None:
    attributes = transport()

    event = taken(rename_data(), attributes)

    assert event.cloud_event == rename_event(id=attributes.id, source=attributes.source, time=attributes.time)


def test_a_structured_event_owes_nothing_to_the_transport() -> None:
    event = taken(rename_event(), transport(id="other", source="/other", time="2026-01-01T00:00:00Z", team="other"))

    assert event.cloud_event == rename_event()


def test_both_modes_of_one_event_are_the_same_event() -> None:
    structured = taken(rename_event())
    binary = taken(rename_data(), transport(id="event-1", source="/cmdb", time=TIME))

    assert structured == binary


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(rename_event(data=rename_data(endpoint_service_name="")), id="no name at all"),
        pytest.param(rename_event(data=rename_data(endpoint_service_name="a" * 16)), id="longest name"),
        pytest.param(rename_event(data=rename_data(endpoint_service_name="-_Az09_-")), id="every kind of character"),
        pytest.param(rename_event(data=rename_data(vpc_endpoint_service_id="a" * 64)), id="longest service id"),
        pytest.param(rename_event(data=rename_data(vpc_endpoint_service_id="7")), id="shortest service id"),
        pytest.param(rename_event(data=rename_data(expected_name="")), id="expects no name"),
        pytest.param(rename_event(data=rename_data(expected_name="a" * 128)), id="expects a name of before the limit"),
        pytest.param(rename_event(id="é 漢 😀 ~"), id="id of any characters"),
        pytest.param(rename_event(id="a" * 1024), id="longest id"),
        pytest.param(rename_event(source="urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"), id="source is a URN"),
        pytest.param(rename_event(source="https://cmdb.example.com:8443/a%20b?c=d#e"), id="source is a URL"),
        pytest.param(rename_event(datacontenttype="application/json; charset=utf-8"), id="content type with charset"),
        pytest.param(rename_event(datacontenttype="Application/JSON"), id="content type in other case"),
        pytest.param(rename_event(subject="orders", dataschema="https://example.com/s.json"), id="optional attributes"),
        pytest.param(rename_event(team="shop", urgent=True, priority=-(2**31), sequence=2**31 - 1), id="extensions"),
        pytest.param(rename_event(**{"a" * 32: "x" * 1024}), id="longest extension"),
        pytest.param(rename_event(**{f"x{number}": number for number in range(26)}), id="most attributes"),
    ],
)
def test_an_event_at_the_edge_of_the_rules_is_taken(event: dict[str, Any]) -> None:
    assert taken(event).cloud_event == event


@pytest.mark.parametrize("attribute", ["datacontenttype", "traceparent", "subject", "team"])
def test_an_optional_attribute_that_is_null_counts_as_left_out(attribute: str) -> None:
    """CloudEvents JSON format 1.0.2, 2.2: null MUST be treated as the equivalent of unset or omitted."""
    event = taken(rename_event(**{attribute: None}))

    assert event.endpoint_service_name == "orders"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-02t08:15:00z", datetime(2026, 11, 2, 8, 15, tzinfo=UTC)),
        ("2026-11-02T08:15:00-00:00", datetime(2026, 11, 2, 8, 15, tzinfo=UTC)),
        ("2026-11-02T10:45:00+02:30", datetime(2026, 11, 2, 8, 15, tzinfo=UTC)),
        ("2026-11-01T08:15:00.5-23:59", datetime(2026, 11, 2, 8, 14, 0, 500_000, tzinfo=UTC)),
        ("2026-11-02T08:15:00.123456789Z", datetime(2026, 11, 2, 8, 15, 0, 123_456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_of_any_form_of_rfc_3339_is_taken_as_its_instant(text: str, instant: datetime) -> None:
    assert taken(rename_event(time=text)).time == instant


@pytest.mark.parametrize("missing", [{}, {"time": None}], ids=["left out", "null"])
def test_a_structured_event_without_a_time_has_that_of_its_transport(missing: dict[str, Any]) -> None:
    event = taken(without(rename_event(), "time") | missing, transport(time="2026-01-01T00:00:00Z"))

    assert event.cloud_event == rename_event(time=ARRIVED)
    assert event.time == datetime.fromisoformat(ARRIVED)


def test_a_structured_event_that_is_wrong_otherwise_has_the_time_of_its_transport() -> None:
    event = refused(without(rename_event(id=""), "time"))

    assert event.time == ARRIVED
    assert paths(event) == {"/id"}


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", TRACEPARENT + "\n", TRACEPARENT.upper(), TRACEPARENT[:-1], f"{TRACEPARENT}-x"),
        *(TRACEPARENT.replace("00-", "ff-", 1), f"00-{'0' * 32}-00f067aa0ba902b7-01"),
        *(f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", "\u0000", "x" * 5_000, LONE_SURROGATE),
    ],
)
def test_a_traceparent_that_is_none_is_dropped(value: str) -> None:
    """It is the tracing's affair, and no reason to refuse a rename."""
    assert taken(rename_data(), transport(traceparent=value)).cloud_event.keys() == rename_event().keys()
    if value != LONE_SURROGATE:
        assert taken(rename_event(traceparent=value)).cloud_event == rename_event()


@pytest.mark.parametrize("value", [None, [], {}, 5, True, 1.5, [TRACEPARENT]])
def test_a_traceparent_of_another_type_is_dropped(value: object) -> None:
    assert taken(rename_event(traceparent=value)).cloud_event == rename_event()


def test_a_traceparent_is_dropped_from_what_is_refused_too() -> None:
    event = refused(rename_event(id="", traceparent=""))

    assert paths(event) == {"/id"}


@pytest.mark.parametrize("content", [rename_event(), rename_data()], ids=["structured", "binary"])
def test_a_byte_order_mark_at_the_beginning_is_skipped(content: dict[str, Any]) -> None:
    text = json.dumps(content)

    assert taken("\ufeff" + text) == taken(text)


# ---- data_base64


def test_data_in_base64_is_data() -> None:
    event = taken(without(rename_event(), "data") | {"data_base64": encoded(rename_data())})

    assert event == taken(rename_event())
    assert event.digest == taken(rename_event()).digest


@pytest.mark.parametrize(
    "extra",
    [{"data": None}, {"datacontenttype": "application/json"}],
    ids=["beside a null", "beside its type"],
)
def test_data_in_base64_may_come(extra: dict[str, Any]) -> None:
    content = without(rename_event(), "data") | {"data_base64": encoded(rename_data())} | extra

    assert taken(content).endpoint_service_name == "orders"


def test_data_in_base64_may_begin_with_a_byte_order_mark() -> None:
    content = without(rename_event(), "data") | {
        "data_base64": encoded(b"\xef\xbb\xbf" + json.dumps(rename_data()).encode())
    }

    assert taken(content) == taken(rename_event())


def test_data_in_base64_that_is_null_counts_as_left_out() -> None:
    assert taken(rename_event(data_base64=None)) == taken(rename_event())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (encoded(b"\xff"), "must be JSON in UTF-8, in base64"),
        (encoded(b"orders"), "must be JSON in UTF-8, in base64"),
        (encoded(b'{"a": 1, "a": 2}'), "must be JSON in UTF-8, in base64"),
        (encoded(b"[" * 100_000), "must be JSON in UTF-8, in base64"),
        (encoded(rename_data())[:-1], "must be JSON in UTF-8, in base64"),
        ("=", "must be JSON in UTF-8, in base64"),
        ("", "must be JSON in UTF-8, in base64"),
        ("é", "must be JSON in UTF-8, in base64"),
        (encoded(rename_data()) + "\n", "must be JSON in UTF-8, in base64"),
        (7, "must be of type string"),
        ([], "must be of type string"),
    ],
)
def test_data_that_is_wrongly_encoded_is_the_one_violation(value: object, message: str) -> None:
    event = refused(without(rename_event(), "data") | {"data_base64": value})

    assert event.violations == (("/data_base64", message),)


def test_wrong_data_in_base64_is_explained_field_by_field() -> None:
    event = refused(without(rename_event(), "data") | {"data_base64": encoded({"endpoint_service_name": "a.b"})})

    assert paths(event) == {"/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}


def test_data_twice_is_the_one_violation() -> None:
    event = refused(rename_event(data_base64=encoded(rename_data())))

    assert event.violations == (("/data_base64", "must not come with data"),)


# ---- Attributes of a transport


def carried(*pairs: tuple[str, str | None]) -> Attributes:
    own = transport()
    return Attributes.carried(pairs, event_id=own.id, source=own.source, time=own.time)


def test_an_attribute_may_come_twice_with_one_value() -> None:
    assert taken(rename_data(), carried(("id", "8f0c"), ("id", "8f0c"))).id == "8f0c"


@pytest.mark.parametrize("name", ["id", "source", "time", "team", "traceparent", "a/b"])
def test_an_attribute_with_two_values_is_the_one_violation(name: str) -> None:
    event = refused(rename_data(), carried((name, "1"), (name, "2"), (name, "1")))

    path = "/" + name.replace("/", "~1")
    assert event.violations == ((path, "comes with two values"),)
    assert (event.id, event.source, event.time) == ("message-1", transport().source, ARRIVED)


def test_an_attribute_that_is_no_text_is_the_one_violation() -> None:
    event = refused(rename_data(), carried(("id", None)))

    assert event.violations == (("/id", "must be UTF-8 text, percent-encoded in a header"),)
    assert event.id == "message-1"


def test_a_traceparent_that_is_no_text_is_dropped() -> None:
    assert (
        taken(rename_data(), carried(("traceparent", None), ("id", "8f0c"))).cloud_event.keys() == rename_event().keys()
    )


def test_an_attribute_once_a_text_and_once_none_is_the_one_violation() -> None:
    for pairs in ([("id", "1"), ("id", None)], [("id", None), ("id", "1")]):
        assert paths(refused(rename_data(), carried(*pairs))) == {"/id"}


def test_attributes_beside_a_structured_event_are_none_of_it_however_wrong() -> None:
    assert taken(rename_event(), carried(("id", "1"), ("id", "2"), ("source", None))).cloud_event == rename_event()


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


def attribute(value: object, data_type: str = "String") -> dict[str, object]:
    return {"Type": data_type, "Value": value}


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
    assert taken(around(rename_event(team="shop"))) == taken(rename_event(team="shop"))


def test_a_structured_event_without_a_time_has_that_of_its_envelope() -> None:
    content = without(rename_event(), "time")

    assert taken(notification(content)).cloud_event == rename_event(time=NOTIFIED)
    assert taken(bridged(content)).cloud_event == rename_event(time=BRIDGED)
    assert taken(notification(bridged(content))).cloud_event == rename_event(time=BRIDGED)


def test_data_in_a_notification_takes_what_it_lacks_from_it() -> None:
    event = taken(notification(rename_data()), transport(id="of the queue", team="network"))

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

    event = taken(notification(rename_data(), MessageAttributes=given))

    expected = {"id": "8f0c", "source": "/cmdb/7", "time": "2026-11-02T08:00:00Z", "team": "shop", "priority": "5"}
    assert event.cloud_event == rename_event(**expected)


@pytest.mark.parametrize("content", [rename_event(id="inside"), bridged(rename_data(), id="inside")])
def test_attributes_of_a_notification_beside_a_whole_event_are_none_of_it(content: dict[str, Any]) -> None:
    given = {"ce_id": attribute("outside"), "ce-id": attribute("elsewhere")}

    assert taken(notification(content, MessageAttributes=given)).id == "inside"


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
    assert taken(notification(rename_data(), MessageAttributes=given)).id == "sns-1"
    assert taken(without(notification(rename_data()), "MessageAttributes")).id == "sns-1"


def test_data_in_an_eventbridge_event_takes_its_identity_and_time() -> None:
    event = taken(bridged(rename_data()), transport(id="of the queue", team="network"))

    assert event.cloud_event == rename_event(id="bridge-1", source="com.example.cmdb", time=BRIDGED)


def test_an_eventbridge_event_in_a_notification_is_opened() -> None:
    assert taken(notification(bridged(rename_data()))) == taken(bridged(rename_data()))


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
    request = answer(event).cloud_event["data"]["request"]
    assert request.keys() == rename_event().keys()
    assert request["data"] == content.get("data", content)


@pytest.mark.parametrize("text", ["orders", "", '{"a": 1, "a": 2}'])
def test_the_request_of_a_notification_around_no_json_is_the_text_in_it(text: str) -> None:
    event = refused(notification(text))

    assert paths(event) == {""}
    assert answer(event).cloud_event["data"]["request"] == text
    assert (event.id, event.source, event.time) == ("sns-1", TOPIC, ARRIVED)


def test_the_request_of_an_eventbridge_event_around_no_object_is_its_detail() -> None:
    event = refused(bridged(["orders"]))

    assert event.violations == (("", "must be an object"),)
    assert answer(event).cloud_event["data"]["request"] == '["orders"]'
    assert (event.id, event.source) == ("bridge-1", "com.example.cmdb")


@pytest.mark.parametrize("fields", [{"MessageId": None}, {"MessageId": 5, "TopicArn": [], "Timestamp": {}}])
def test_what_an_envelope_lacks_comes_from_the_queue(fields: dict[str, Any]) -> None:
    event = taken(notification(rename_data(), **fields))

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
    assert taken("\ufeff" + json.dumps(notification("\ufeff" + json.dumps(rename_event())))).id == "event-1"


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


# ---- Times


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", "0"),
        ("1970-01-01T00:00:01.5Z", "1500000"),
        ("2026-11-02T08:15:00Z", "1793607300000000"),
        ("2026-11-02T08:15:00.123456Z", "1793607300123456"),
        ("2026-11-02T08:15:00.123456001Z", "1793607300123456.001"),
        ("2026-11-02T08:15:00.123456789Z", "1793607300123456.789"),
        ("2026-11-02t10:15:00.123456700+02:00", "1793607300123456.7"),
        ("2026-11-02T08:15:00.1234567z", "1793607300123456.7"),
        ("2026-11-02T08:15:00.123456000Z", "1793607300123456"),
        ("2026-11-02T08:15:00.100000000-00:00", "1793607300100000"),
        ("1969-12-31T23:59:59.999999999Z", "-0.001"),
        ("0001-01-01T00:00:00.000000001Z", "-62135596799999999.999"),
        ("9999-12-31T23:59:59.999999999Z", "253402300799999999.999"),
    ],
)
def test_a_time_has_microseconds_since_the_epoch_with_all_its_digits(text: str, microseconds: str) -> None:
    event = valid().at(text)

    assert str(event.time_microseconds) == microseconds


def test_times_within_a_microsecond_are_told_apart() -> None:
    earlier = taken(rename_event(time="2026-11-02T08:15:00.123456001Z"))
    later = taken(rename_event(time="2026-11-02T08:15:00.123456789Z"))

    assert earlier.time_microseconds < later.time_microseconds
    assert later.at(earlier.cloud_event["time"]).time_microseconds == earlier.time_microseconds


def test_a_time_five_minutes_ahead_is_taken() -> None:
    ahead = NOW + timedelta(minutes=5)

    assert taken(rename_event(time=ahead.isoformat())).time == ahead


def test_an_event_of_exactly_256_kilobytes_is_taken() -> None:
    text = json.dumps(rename_event()).ljust(LARGEST_EVENT)

    assert taken(text).id == "event-1"


def test_the_limit_is_of_bytes_even_where_characters_have_several() -> None:
    text = json.dumps(rename_event(id="é" * 1000), ensure_ascii=False)
    full = text + " " * (LARGEST_EVENT - len(text.encode()))

    assert len(full) < len(full.encode()) == LARGEST_EVENT
    assert taken(full).id == "é" * 1000
    assert refused(full + " ").too_large


def test_white_space_and_escapes_change_nothing() -> None:
    event = rename_event(id="é/1")
    escaped = json.dumps(event, indent=3).replace("/", "\\/").replace("orders", "\\u006frders")

    assert taken(f"\r\n\t {escaped}\n") == taken(event)


def test_what_an_event_asks_for_is_told_from_what_another_asks_for() -> None:
    first = taken(rename_event())

    assert first.digest == taken(rename_event(time="2026-11-01T00:00:00Z", team="shop")).digest
    assert first.digest == taken(rename_event(data=dict(reversed(rename_data().items())))).digest
    assert first.digest != taken(rename_event(data=rename_data(endpoint_service_name="orders2"))).digest


# ---- What is refused: attributes

BAD_ATTRIBUTES: list[tuple[str, object]] = [
    ("specversion", "0.3"),
    ("specversion", "1.0 "),
    ("specversion", 1.0),
    ("specversion", None),
    ("id", ""),
    ("id", None),
    ("id", 7),
    ("id", "a" * 1025),
    ("id", "a\u0000b"),
    ("id", "event-1\n"),
    ("id", "\u007f"),
    ("id", "\u0085"),
    ("id", ["event-1"]),
    ("source", ""),
    ("source", None),
    ("source", {}),
    ("source", "/cmdb\n"),
    ("source", "/cm db"),
    ("source", "/cmdb/é"),
    ("source", "<cmdb>"),
    ("source", "a" * 1025),
    ("type", ""),
    ("type", None),
    ("type", "vpcep.endpoint_service.rename_requested.v2"),
    ("type", "vpcep.endpoint_service.renamed.v1"),
    ("time", ""),
    ("time", 1_793_000_000),
    ("time", "yesterday"),
    ("time", "2026-11-02"),
    ("time", "2026-11-02T08:15:00"),
    ("time", "2026-11-02 08:15:00Z"),
    ("time", "2026-11-02T08:15Z"),
    ("time", "2026-11-02T08:15:00,5Z"),
    ("time", "2026-11-02T08:15:00.Z"),
    ("time", "2026-11-02T08:15:00.1234567890Z"),
    ("time", "2026-11-02T08:15:00+0100"),
    ("time", "2026-11-02T08:15:00Z\n"),
    ("time", "٢٠٢٦-11-02T08:15:00Z"),
    ("time", "2026-W45-1T08:15:00Z"),
    ("time", "2026-02-30T00:00:00Z"),
    ("time", "2025-02-29T00:00:00Z"),
    ("time", "2026-13-01T00:00:00Z"),
    ("time", "2026-11-01T24:00:00Z"),
    ("time", "2026-11-01T08:60:00Z"),
    ("time", "2016-12-31T23:59:60Z"),
    ("time", "0000-01-01T00:00:00Z"),
    ("time", "0001-01-01T00:00:00+01:00"),
    ("time", "9999-12-31T23:59:59-01:00"),
    ("time", "2026-11-01T08:15:00+24:00"),
    ("time", "2026-11-01T08:15:00+05:60"),
    ("time", "2026-11-01T08:15:00-05:99"),
    ("datacontenttype", ""),
    ("datacontenttype", "text/plain"),
    ("datacontenttype", "application/jsonp"),
    ("datacontenttype", "application/json\n"),
    ("datacontenttype", "application/json;\u0000"),
    ("datacontenttype", "application/json;\rcharset=utf-8"),
    ("datacontenttype", "application/json;" + "a" * 128),
    ("datacontenttype", 5),
    ("subject", ""),
    ("subject", 5),
    ("subject", "a\u0000b"),
    ("dataschema", ""),
    ("dataschema", True),
    ("team", ["shop"]),
    ("team", {"name": "shop"}),
    ("team", 1.5),
    ("team", 2**31),
    ("team", -(2**31) - 1),
    ("team", "a" * 1025),
    ("team", "sh\u0000p"),
    ("team", "shop\n"),
]


@pytest.mark.parametrize(("attribute", "value"), BAD_ATTRIBUTES)
def test_a_wrong_attribute_is_the_one_violation(attribute: str, value: object) -> None:
    event = refused(rename_event(**{attribute: value}))

    assert paths(event) == {f"/{attribute}"}


@pytest.mark.parametrize(
    ("attribute", "value"), [(name, value) for name, value in BAD_ATTRIBUTES if isinstance(value, str)]
)
def test_a_wrong_attribute_of_the_transport_is_the_one_violation(attribute: str, value: str) -> None:
    event = refused(rename_data(), transport(**{attribute: value}))

    assert paths(event) == {f"/{attribute}"}


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "data"])
def test_a_missing_attribute_is_the_one_violation(attribute: str) -> None:
    event = refused(without(rename_event(), attribute))

    assert event.violations == ((f"/{attribute}", "is missing"),)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Team", "/Team"),
        ("data_base64", "/data_base64"),
        ("team-name", "/team-name"),
        ("équipe", "/équipe"),
        ("", "/"),
        ("team\n", "/team\n"),
        ("a/b~c", "/a~1b~0c"),
        ("a" * 33, "/" + "a" * 33),
    ],
)
def test_an_attribute_of_a_wrong_name_is_the_one_violation(name: str, path: str) -> None:
    assert paths(refused(rename_event(**{name: "x"}))) == {path}
    assert paths(refused(rename_data(), transport(**{name: "x"}))) == {path}


def test_too_many_attributes_are_one_violation() -> None:
    event = refused(rename_event(**{f"x{number}": number for number in range(27)}))

    assert paths(event) == {""}


@pytest.mark.parametrize(
    "ahead", [timedelta(minutes=5, seconds=1), timedelta(minutes=5, microseconds=1), timedelta(3650)]
)
def test_a_time_further_ahead_is_refused(ahead: timedelta) -> None:
    """It would shut out every honest rename after it."""
    event = refused(rename_event(time=(NOW + ahead).isoformat()))

    assert event.violations == (("/time", "lies more than five minutes in the future"),)


def test_a_name_too_long_for_the_settings_may_be_right_for_others() -> None:
    too_long = refused(rename_event(data=rename_data(endpoint_service_name="n" * 17)))
    with_a_blank = refused(rename_event(data=rename_data(endpoint_service_name="n " * 9)))

    assert too_long.candidate is not None
    assert too_long.candidate.endpoint_service_name == "n" * 17
    assert with_a_blank.candidate is None


def test_a_time_further_ahead_is_refused_whatever_its_offset() -> None:
    text = (NOW + timedelta(minutes=6)).replace(tzinfo=None).isoformat(timespec="seconds")

    assert paths(refused(rename_event(time=f"{text}Z"))) == {"/time"}
    assert taken(rename_event(time=f"{text}+00:02"))


@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team", "équipe" + LONE_SURROGATE])
def test_a_lone_surrogate_in_an_attribute_of_the_transport_is_refused(attribute: str) -> None:
    event = refused(rename_data(), transport(**{attribute: f"a{LONE_SURROGATE}"}))

    assert answer(event).to_json().encode()


# ---- What is refused: data

BAD_DATA: list[tuple[str, object]] = [
    ("vpc_endpoint_service_id", ""),
    ("vpc_endpoint_service_id", "."),
    ("vpc_endpoint_service_id", ".."),
    ("vpc_endpoint_service_id", "../orders"),
    ("vpc_endpoint_service_id", "a/b"),
    ("vpc_endpoint_service_id", "a\\b"),
    ("vpc_endpoint_service_id", "%2e%2e"),
    ("vpc_endpoint_service_id", "a?b"),
    ("vpc_endpoint_service_id", "a#b"),
    ("vpc_endpoint_service_id", " "),
    ("vpc_endpoint_service_id", f"{SERVICE}\n"),
    ("vpc_endpoint_service_id", f"\n{SERVICE}"),
    ("vpc_endpoint_service_id", "a\u0000b"),
    ("vpc_endpoint_service_id", "é"),
    ("vpc_endpoint_service_id", "٧"),
    ("vpc_endpoint_service_id", "a" * 65),
    ("vpc_endpoint_service_id", None),
    ("vpc_endpoint_service_id", 70),
    ("vpc_endpoint_service_id", True),
    ("vpc_endpoint_service_id", [SERVICE]),
    ("vpc_endpoint_service_id", {"id": SERVICE}),
    ("endpoint_service_name", "a" * 17),
    ("endpoint_service_name", "orders.v2"),
    ("endpoint_service_name", "or ders"),
    ("endpoint_service_name", " "),
    ("endpoint_service_name", "ordérs"),
    ("endpoint_service_name", "orders/2"),
    ("endpoint_service_name", "orders\n"),
    ("endpoint_service_name", "orders\u0000"),
    ("endpoint_service_name", "\u202eorders"),
    ("endpoint_service_name", "ｏｒｄｅｒｓ"),
    ("endpoint_service_name", None),
    ("endpoint_service_name", 7),
    ("endpoint_service_name", False),
    ("endpoint_service_name", []),
    ("project_id", ""),
    ("project_id", ".."),
    ("project_id", f"{PROJECT}\n"),
    ("project_id", f"{PROJECT}/"),
    ("project_id", "a" * 65),
    ("project_id", None),
    ("project_id", 7),
    ("project_id", "another-project"),
    ("region", ""),
    ("region", "CN-NORTH-4"),
    ("region", f"{REGION}\n"),
    ("region", "cn_north_4"),
    ("region", "example.com/"),
    ("region", "a" * 65),
    ("region", None),
    ("region", 4),
    ("region", "cn-south-1"),
    ("expected_name", "a" * 129),
    ("expected_name", "orders.v2"),
    ("expected_name", "orders\n"),
    ("expected_name", None),
    ("expected_name", 7),
    ("id", "event-2"),
    ("description", "orders"),
    ("Endpoint_service_name", "orders"),
]


@pytest.mark.parametrize(("field", "value"), BAD_DATA)
def test_a_wrong_field_is_the_one_violation_in_structured_mode(field: str, value: object) -> None:
    event = refused(rename_event(data=rename_data(**{field: value})))

    assert paths(event) == {f"/data/{field}"}


@pytest.mark.parametrize(("field", "value"), BAD_DATA)
def test_a_wrong_field_is_the_one_violation_in_binary_mode(field: str, value: object) -> None:
    event = refused(rename_data(**{field: value}), structured=False)

    assert paths(event) == {f"/data/{field}"}


@pytest.mark.parametrize("field", ["vpc_endpoint_service_id", "endpoint_service_name"])
def test_a_missing_field_is_the_one_violation(field: str) -> None:
    data = without(rename_data(), field)

    for event in (refused(rename_event(data=data)), refused(data)):
        assert event.violations == ((f"/data/{field}", "is missing"),)


@pytest.mark.parametrize("data", [None, "orders", json.dumps(rename_data()), 7, True, [rename_data()]])
def test_data_of_another_type_is_the_one_violation(data: object) -> None:
    event = refused(rename_event(data=data))

    assert event.violations == (("/data", "must be of type object"),)


def test_an_unknown_field_of_a_strange_name_is_pointed_to_by_rfc_6901() -> None:
    event = refused(rename_data(**{"a/b~c": 1, "": 2}))

    assert paths(event) == {"/data/a~1b~0c", "/data/"}


@pytest.mark.parametrize("name", ["a" * 198 + "~x", "a" * 199 + "~x", "a" * 199 + "/x", "~" * 300, "/" * 4000])
def test_the_path_to_a_field_of_an_endless_name_is_a_bounded_json_pointer(name: str) -> None:
    event = refused(rename_data(**{name: 1}))

    (path,) = paths(event)
    assert JSON_POINTER.fullmatch(path)
    assert len(path) < 500


# ---- What is refused: everything that is wrong, at once


def test_all_violations_are_told_at_once() -> None:
    content = rename_event(
        specversion="2.0",
        id="",
        source="not a uri",
        type="other",
        time="2026-02-30T00:00:00Z",
        Team="shop",
        priority=1.5,
        data={"vpc_endpoint_service_id": "..", "project_id": "another-project", "region": "xx-1", "name": "orders"},
    )

    event = refused(content)

    assert paths(event) == {
        "/specversion",
        "/id",
        "/source",
        "/type",
        "/time",
        "/Team",
        "/priority",
        "/data/vpc_endpoint_service_id",
        "/data/endpoint_service_name",
        "/data/project_id",
        "/data/region",
        "/data/name",
    }


def test_violations_of_attributes_and_data_are_told_at_once_in_binary_mode() -> None:
    event = refused({"endpoint_service_name": 7}, transport(id="\u0000", time="soon"))

    assert paths(event) == {"/id", "/time", "/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}


def test_a_field_that_breaks_two_rules_has_two_violations() -> None:
    event = refused(rename_data(endpoint_service_name="orders of the shop"))

    assert event.violations == (
        ("/data/endpoint_service_name", "must hold letters, digits, _ and - only"),
        ("/data/endpoint_service_name", "must have at most 16 characters"),
    )


def test_the_number_of_violations_is_bounded() -> None:
    event = refused(rename_data(**{f"field{number}": 1 for number in range(10_000)}))

    assert len(event.violations) == 51
    assert event.violations[-1] == ("", "and more")


def test_violations_beyond_those_that_are_told_are_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | int] = []

    def escaped(step: str | int) -> str:
        made.append(step)
        return str(step)

    monkeypatch.setattr("function.domain.violations.escape_pointer", escaped)

    refused(rename_data(**{f"field{number}": 1 for number in range(10_000)}))

    assert 50 < len(made) < 60


def test_fifty_violations_are_all_told() -> None:
    event = refused(rename_data(**{f"field{number}": 1 for number in range(50)}))

    assert len(event.violations) == 50
    assert ("", "and more") not in event.violations


def test_of_too_many_attributes_only_those_are_looked_at_that_the_schema_knows() -> None:
    event = refused(rename_event(id="", **{f"Field{number}": None for number in range(10_000)}))

    assert event.violations == (("", "must have at most 32 attributes"), ("/id", "must not be empty"))


def test_of_too_many_attributes_those_of_the_transport_are_counted_as_well() -> None:
    event = refused(rename_data(), transport(**{f"Field{number}": "x" for number in range(10_000)}))

    assert event.violations == (("", "must have at most 32 attributes"),)


def members(name: str, value: str, number: int) -> str:
    return ", ".join(f'"{name}{index}": {value}' for index in range(number))


WRONG = {
    "attributes of wrong names": f'{{"data": {{}}, {members("A", "1", 20_000)}}}',
    "attributes": f'{{"data": {{}}, {members("a", "1", 20_000)}}}',
    "null attributes": f'{{"data": {{}}, {members("A", "null", 15_000)}}}',
    "fields of data": f'{{"data": {{{members("a", "1", 20_000)}}}}}',
    "attributes of a notification": json.dumps(
        {
            "Type": "Notification",
            "Message": json.dumps(rename_data()),
            "MessageAttributes": {f"ce_{number}": {"Type": "String", "Value": ""} for number in range(5_000)},
        }
    ),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_wrong_many_times_costs_no_more_than_reading_it(text: str) -> None:
    assert 200 * KILOBYTE < len(text) < LARGEST_EVENT
    built = parser()

    def seconds(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
        return best

    reading = seconds(lambda: load(text))
    parsing = seconds(lambda: built.parse(text, transport(), within(60.0)))

    assert parsing < 8 * reading


# Each "MARK" stands where something is wrong.
MARKED: list[object] = [
    *({"data": {}, name: "MARK \u0000 é"} for name in ("specversion", "id", "source", "type", "time", "traceparent")),
    {"data": {}, "datacontenttype": "MARK"},
    {"data": {}, "subject": ["MARK"], "team": {"MARK": "MARK"}},
    {"data": "MARK"},
    {"data": {"vpc_endpoint_service_id": "MARK/", "endpoint_service_name": "MARK!", "expected_name": "MARK!"}},
    {"data": {"vpc_endpoint_service_id": ["MARK"], "endpoint_service_name": {"MARK": 1}, "unknown": "MARK"}},
    rename_event(data=rename_data(project_id="MARK")),
    rename_event(data=rename_data(project_id="MARK " * 50, region="MARK")),
    {"MARK": "MARK"},
    rename_data(MARK="MARK"),
    ["MARK"],
    "MARK",
    '{"id": MARK}',
    '{"id": "MARK',
    '{"id": "MARK\n"}',
    '{"id": "\\MARK"}',
    '{"id": "\\uMARK"}',
    '{"MARK": 1, "MARK": 2}',
    '{"MARK": 1e999}',
    '{"MARK": NaN}',
    '{"MARK": "\\ud800"}',
    "MARK" * LARGEST_EVENT,
]


@pytest.mark.parametrize("content", MARKED, ids=range(len(MARKED)))
def test_no_violation_repeats_what_the_event_says(content: object) -> None:
    event = refused(content)

    assert not [violation.message for violation in event.violations if "MARK" in violation.message]


# ---- What is refused: no JSON object


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "orders",
        "{",
        '{"id": "event-1"',
        json.dumps(rename_event())[:-1],
        json.dumps(rename_event()) + "}",
        json.dumps(rename_event()) * 2,
        str(rename_event()),
        "\ufeff\ufeff" + json.dumps(rename_event()),
        "\ufeff",
        '{"id": "event-1",}',
        '{"id": "a\u0000b"}',
        '{"id": "a\tb"}',
        '{"id": "\\x41"}',
        "\u0000",
        "<event/>",
        "NaN",
        "Infinity",
        "-Infinity",
        '{"team": NaN}',
        '{"team": Infinity}',
        '{"team": 1e999}',
        '{"team": -1e999}',
        f'{{"team": {"9" * 4301}}}',
        f'{{"team": -{"9" * 100_000}}}',
        f'{{"team": {"9" * 100_000}.5}}',
        f'{{"team": 1e{"9" * 100_000}}}',
        json.dumps(rename_event(id=LONE_SURROGATE)),
        json.dumps(rename_event(id=LONE_SURROGATE), ensure_ascii=False),
        json.dumps(rename_event(id="\udc00\ud800")),
        json.dumps({LONE_SURROGATE: 1}),
        f'{{"id": {LONE_SURROGATE}}}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"data":' * 20_000 + "1" + "}" * 20_000,
        f'{{"data": {"[" * 100}{"]" * 100}}}',
        f'{{"data": {"[" * 900}{"]" * 900}}}',
        f'{{"data": {"[" * 5_000}{"]" * 5_000}}}',
    ],
    ids=lambda text: f"{text[:20]!a}({len(text)})",
)
def test_what_is_no_json_is_one_violation_of_the_whole(text: str) -> None:
    event = refused(text)

    assert paths(event) == {""}
    assert len(event.violations) == 1
    assert not event.too_large


@pytest.mark.parametrize("content", ["null", "true", "7", "1.5", '"orders"', "[]", json.dumps([rename_event()])])
@pytest.mark.parametrize("structured", [None, True, False])
def test_json_of_another_type_is_one_violation_of_the_whole(content: str, structured: bool | None) -> None:
    event = refused(content, structured=structured)

    assert event.violations == (("", "must be an object"),)


@pytest.mark.parametrize(
    "text",
    [
        '{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "endpoint_service_name": "b"}',
        '{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "endpoint_service_\\u006eame": "c"}',
        json.dumps(rename_event())[:-1] + ', "id": "event-2"}',
        json.dumps(rename_event()).replace('"data": {', '"data": {"endpoint_service_name": "billing", '),
        json.dumps(rename_event())[:-1] + ', "team": [{"a": {"b": 1, "b": 2}}]}',
    ],
    ids=["data", "escaped", "attributes", "data in an event", "deeper"],
)
def test_a_key_that_comes_twice_is_refused_at_every_level(text: str) -> None:
    event = refused(text)

    assert event.violations == (("", "is not JSON: an object has two members of one name"),)


def test_nesting_up_to_the_limit_is_explained_field_by_field() -> None:
    deep = f'{{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "c": {"[" * 14}1{"]" * 14}}}'

    assert paths(refused(deep)) == {"/data/c"}
    assert refused(deep.replace("1", "[[1]]")).violations == (("", "must be nested at most 16 deep"),)


@pytest.mark.parametrize("text", [" ", "é", '{"id": "event-1"}', LONE_SURROGATE])
def test_more_than_256_kilobytes_are_not_even_parsed(text: str) -> None:
    event = refused(text.ljust(LARGEST_EVENT + 1))

    assert event.too_large
    assert event.violations == (("", "must have at most 262144 bytes"),)


def test_one_byte_more_than_256_kilobytes_is_too_large() -> None:
    text = json.dumps(rename_event()).ljust(LARGEST_EVENT + 1)

    assert refused(text).too_large


def test_what_is_no_text_is_refused_with_what_can_be_said_of_it() -> None:
    event = parser().unreadable("\ufffd" * LARGEST_EVENT, transport(id="8f0c"), "must be UTF-8")

    assert event.violations == (("", "must be UTF-8"),)
    assert event.id == "8f0c"
    assert _entry_size(answer(event)) <= LARGEST_ENTRY


# ---- Modes


def test_data_alone_lacks_its_attributes_where_the_transport_promises_a_whole_event() -> None:
    event = refused(rename_data(), transport(id="1", source="/cmdb"), structured=True)

    assert {"/specversion", "/id", "/source", "/type", "/data"} <= paths(event)


def test_a_whole_event_is_no_data_where_the_transport_promises_data_alone() -> None:
    event = refused(rename_event(), structured=False)

    assert {"/data/specversion", "/data/data", "/data/vpc_endpoint_service_id"} <= paths(event)


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "data"])
def test_one_attribute_makes_an_event_structured(attribute: str) -> None:
    event = refused({attribute: rename_event()[attribute]}, transport(id="1", source="/cmdb"))

    assert {"/specversion", "/id", "/source", "/type", "/data"} - paths(event) == {f"/{attribute}"}


@pytest.mark.parametrize("content", [{"time": TIME}, {"data_base64": encoded(rename_data())}])
def test_an_attribute_that_it_may_lack_makes_an_event_structured_too(content: dict[str, Any]) -> None:
    event = refused(content, transport(id="1", source="/cmdb"))

    assert {"/specversion", "/id", "/source", "/type"} <= paths(event)


# ---- Settings


@pytest.mark.parametrize("limit", [1, 16, 18, 64])
def test_the_longest_name_is_a_setting(limit: int) -> None:
    parse_name = _name_parser(parser(name_max_length=limit))

    assert isinstance(parse_name("a" * limit), RenameEvent)
    longer = parse_name("a" * (limit + 1))
    assert isinstance(longer, InvalidEvent)
    assert longer.violations == (("/data/endpoint_service_name", f"must have at most {limit} characters"),)


def test_the_longest_name_of_one_parser_is_not_that_of_another() -> None:
    parser(name_max_length=64)

    assert isinstance(_name_parser(parser())("a" * 17), InvalidEvent)


def test_a_longer_name_has_to_keep_to_the_characters() -> None:
    event = _name_parser(parser(name_max_length=64))("orders of the shop")

    assert isinstance(event, InvalidEvent)
    assert event.violations == (("/data/endpoint_service_name", "must hold letters, digits, _ and - only"),)


def _name_parser(built: Intake) -> Callable[[str], RenameEvent | InvalidEvent]:
    return lambda name: built.parse(json.dumps(rename_data(endpoint_service_name=name)), transport(), within(60.0))


@pytest.mark.parametrize("field", ["project_id", "region"])
def test_what_is_malformed_is_not_looked_up(field: str) -> None:
    asked: list[Deadline] = []

    def default_project(deadline: Deadline) -> str:
        asked.append(deadline)
        return PROJECT

    text = json.dumps(rename_data(**{field: "../x"}))
    event = parser(default_project=default_project).parse(text, transport(), within(60.0))

    assert isinstance(event, InvalidEvent)
    assert [violation.path for violation in event.violations] == [f"/data/{field}"]
    assert asked == []


def test_a_project_that_cannot_be_told_now_is_left_to_whoever_renames() -> None:
    def cannot_tell(_: Deadline) -> str:
        raise RenameFailedError(failures.credentials("down", kind=Kind.UNAVAILABLE))

    event = parser(default_project=cannot_tell).parse(
        json.dumps(rename_data(project_id="any")), transport(), within(60.0)
    )

    assert isinstance(event, RenameEvent)
    assert event.project_id == "any"


# ---- The request in an outcome


def test_the_request_of_a_valid_event_is_the_event_in_structured_mode() -> None:
    event = taken(rename_data(), transport(id="8f0c", source="/cmdb", time=TIME))

    assert answer(event).cloud_event["data"]["request"] == rename_event(id="8f0c")


def test_the_request_of_an_invalid_event_is_the_event_where_it_is_an_object() -> None:
    content = rename_event(data={"vpc_endpoint_service_id": "..", "unknown": [1, 2.5, None, True, "é\u0000"]})

    assert answer(refused(content)).cloud_event["data"]["request"] == content


def test_the_request_of_invalid_data_holds_the_attributes_of_the_transport() -> None:
    event = refused({"name": "orders"}, transport(id="8f0c", source="/cmdb", time=TIME, team="shop"))

    expected = rename_event(id="8f0c", source="/cmdb", team="shop", data={"name": "orders"})
    assert answer(event).cloud_event["data"]["request"] == expected


@pytest.mark.parametrize("text", ["", "orders", "[1]", '"{}"', "null", '{"a": 1, "a": 2}', '{"a": \u0000'])
def test_the_request_of_no_object_is_the_raw_text(text: str) -> None:
    assert answer(refused(text)).cloud_event["data"]["request"] == text


def test_the_request_of_no_object_is_clipped() -> None:
    text = "漢" * (LARGEST_EVENT // 3)

    request = answer(refused(text)).cloud_event["data"]["request"]

    assert text.startswith(request)
    assert 1 * KILOBYTE <= len(request) < len(text)


def test_the_request_of_too_large_an_event_is_its_clipped_text() -> None:
    text = json.dumps(rename_event()).ljust(LARGEST_EVENT + 1)

    request = answer(refused(text)).cloud_event["data"]["request"]

    assert text.startswith(request)
    assert len(request) >= 1 * KILOBYTE


def test_the_request_of_an_invalid_event_that_fits_no_outcome_is_its_clipped_text() -> None:
    text = json.dumps(rename_event(team="a" * 200 * KILOBYTE))

    request = answer(refused(text)).cloud_event["data"]["request"]

    assert isinstance(request, str)
    assert text.startswith(request)


def test_a_lone_surrogate_does_not_stop_the_outcome() -> None:
    outcome = answer(refused(f'{{"id": "{LONE_SURROGATE}", "source": "/cmdb"}}'))

    assert json.loads(outcome.to_json().encode())["data"]["request"] == '{"id": "?", "source": "/cmdb"}'


# ---- What an outcome names


def test_an_outcome_names_what_the_event_names() -> None:
    data = answer(taken(rename_data(project_id=OTHER_PROJECT, region=OTHER_REGION))).cloud_event["data"]

    assert (data["project_id"], data["region"]) == (OTHER_PROJECT, OTHER_REGION)
    assert (data["vpc_endpoint_service_id"], data["endpoint_service_name"]) == (SERVICE, "orders")


def test_an_outcome_names_the_functions_own_where_the_event_names_none() -> None:
    data = answer(taken(rename_data())).cloud_event["data"]

    assert (data["project_id"], data["region"]) == (PROJECT, REGION)


def test_an_outcome_of_an_invalid_event_names_what_it_can() -> None:
    data = answer(refused(rename_data(endpoint_service_name="orders.v2", region=4))).cloud_event["data"]

    assert data["vpc_endpoint_service_id"] == SERVICE
    assert data["endpoint_service_name"] == "orders.v2"
    assert data["region"] == REGION


@pytest.mark.parametrize("content", ["orders", "[]", {"data": []}, {"data": {"vpc_endpoint_service_id": "a" * 201}}])
def test_an_outcome_names_no_service_where_there_is_none_to_name(content: object) -> None:
    outcome = answer(refused(content))

    assert outcome.cloud_event["data"]["vpc_endpoint_service_id"] is None
    assert "subject" not in outcome.cloud_event


# ---- Identity


@pytest.mark.parametrize(
    ("content", "given", "identity"),
    [
        pytest.param({"data": 1, "id": "1", "source": "/cmdb"}, {}, ("/cmdb", "1"), id="its own"),
        pytest.param(
            {"data": 1, "id": "1", "source": "/a"}, {"id": "2"}, ("/a", "1"), id="its own, not the transport's"
        ),
        pytest.param({"x": 1}, {"id": "2", "source": "/b"}, ("/b", "2"), id="the transport's for data alone"),
        pytest.param("orders", {"id": "2", "source": "/b"}, ("/b", "2"), id="the transport's for no JSON"),
        pytest.param("[]", {}, (transport().source, transport().id), id="what stands in for no object"),
        pytest.param({"x": 1}, {}, (transport().source, transport().id), id="what stands in for data alone"),
        pytest.param({"data": 1, "id": 7, "source": ""}, {}, (transport().source, transport().id), id="for no text"),
        pytest.param(
            "orders", {"id": "", "source": ""}, (transport().source, transport().id), id="for empty attributes"
        ),
        pytest.param(" " * (LARGEST_EVENT + 1), {"id": "2"}, (transport().source, "2"), id="of too large an event"),
    ],
)
def test_an_invalid_event_is_identified_by_the_first_that_names_it(
    content: object, given: dict[str, str], identity: tuple[str, str]
) -> None:
    event = refused(content, transport(**given))

    assert (event.source, event.id) == identity


def test_an_invalid_event_that_fits_no_outcome_is_still_identified_by_what_it_says() -> None:
    event = refused(rename_event(id="8f0c", source="/cmdb", team="a" * 200 * KILOBYTE))

    assert (event.source, event.id) == ("/cmdb", "8f0c")


def test_an_event_has_one_outcome_id_however_often_it_comes() -> None:
    first = answer(taken(rename_event()))
    again = answer(taken(rename_event(time="2026-11-01T00:00:00Z", data=rename_data(endpoint_service_name="other"))))

    assert first.id == again.id


def test_the_id_of_an_outcome_stays_what_it_was_in_earlier_versions() -> None:
    """Consumers remember ids; another one for the same event would be a second outcome to them."""
    assert outcome_id(taken(rename_event())) == "0e824fbe-b0d5-5b67-8a04-228629c342dc"


def test_a_success_and_a_failure_of_one_event_have_one_id() -> None:
    event = taken(rename_event())

    success = renamed(event, context(), service_name="orders", previous_service_name=None, huawei_request_id=None)

    assert success.id == answer(event).id
    assert (success.type, answer(event).type) == (RENAMED, RENAME_FAILED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/a", "b"), ("/a", "c")),
        (("/a", "b"), ("/b", "b")),
        (("/a", "b"), ("/ab", "")),
        (("/a", '/b", "c'), ('/a", "/b', "c")),
    ],
)
def test_two_events_have_two_outcome_ids(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = (
        InvalidEvent(request="", id=event_id, source=source, time="", received="", violations=())
        for source, event_id in (one, other)
    )

    assert answer(first).id != answer(second).id


def test_an_invalid_event_has_one_outcome_id_however_often_it_comes() -> None:
    assert answer(refused("orders")).id == answer(refused("orders")).id
    assert answer(refused({"data": 1})).id == answer(refused({"data": 1})).id


def test_an_event_that_was_mended_gets_another_outcome_id() -> None:
    """Two outcomes of one id must not contradict each other."""
    wrong = refused(rename_event(data=rename_data(endpoint_service_name="orders.v2")))
    still_wrong = refused(rename_event(data=rename_data(endpoint_service_name="orders.v3")))
    right = taken(rename_event())

    assert len({answer(event).id for event in (wrong, still_wrong, right)}) == 3


def test_data_whose_attributes_were_mended_gets_another_outcome_id() -> None:
    wrong = refused(rename_data(), transport(id="8f0c", time="soon"))
    still_wrong = refused(rename_data(), transport(id="8f0c", type="other"))

    assert answer(wrong).id != answer(still_wrong).id


def test_an_event_found_invalid_late_has_the_outcome_id_that_it_has_when_found_at_once() -> None:
    """Whether a project is allowed may be known on one receive and not on the next."""

    def cannot_tell(_: Deadline) -> str:
        raise RenameFailedError(failures.credentials("down", kind=Kind.UNAVAILABLE))

    text = json.dumps(rename_event(data=rename_data(project_id="another-project")))
    late = parser(default_project=cannot_tell).parse(text, transport(), within(60.0))
    assert isinstance(late, RenameEvent)

    assert answer(late.refused(FORBIDDEN_PROJECT)).id == answer(refused(text)).id


def test_an_event_found_invalid_late_is_answered_as_itself() -> None:
    event = taken(rename_event(id="8f0c"))

    invalid = event.refused(FORBIDDEN_PROJECT)

    assert (invalid.id, invalid.source) == ("8f0c", "/cmdb")
    assert invalid.violations == (FORBIDDEN_PROJECT,)
    assert answer(invalid).cloud_event["data"]["request"] == rename_event(id="8f0c")
    assert answer(invalid).id != answer(event).id


def test_an_outcome_after_a_redrive_has_an_id_of_its_own_and_names_the_one_before() -> None:
    event = taken(rename_event())
    first = answer(event)

    second = rename_failed(event, context(cycle=RedriveCycle(1, first.id)), failures.internal_error())
    third = rename_failed(event, context(cycle=RedriveCycle(2, second.id)), failures.internal_error())

    assert len({first.id, second.id, third.id}) == 3
    assert "follows" not in first.cloud_event["data"]
    assert second.cloud_event["data"]["follows"] == first.id
    assert third.cloud_event["data"]["follows"] == second.id


def test_two_events_of_one_identity_have_two_outcome_ids() -> None:
    first = taken(rename_event())
    others = [taken(rename_event(data=rename_data(endpoint_service_name=name))) for name in ("other", "another")]

    reused = [rename_failed(event, context(), failures.identifier_reused()) for event in others]

    assert len({answer(first).id, *(outcome.id for outcome in reused)}) == 3
    assert rename_failed(others[0], context(), failures.identifier_reused()).id == reused[0].id


def test_an_outcome_that_was_superseded_names_the_newer_event() -> None:
    failure = failures.superseded(EventName("/cmdb", "event-2"))

    data = rename_failed(taken(rename_event()), context(), failure).cloud_event["data"]

    assert data["superseded_by"] == {"source": "/cmdb", "id": "event-2"}


def test_a_success_is_read_back_as_it_was_written() -> None:
    event = taken(rename_event(id="é\U0001f600", traceparent=TRACEPARENT))
    outcome = renamed(event, context(), service_name="orders", previous_service_name="", huawei_request_id="c6c9d52b")

    again = outcome_from_json(outcome.to_json())
    assert again == outcome
    assert (outcome.remembered, again.remembered) == (False, True)


@pytest.mark.parametrize(
    "failure",
    [
        failures.invalid_event(refused({"data": {}}).violations),
        from_reply("EndPoint.2003", "no such service", status=400, huawei_request_id="c6c9d52b"),
        failures.timeout(in_doubt=False),
    ],
    ids=lambda failure: failure.code,
)
def test_a_failure_is_read_back_as_it_was_written(failure: Failure) -> None:
    outcome = rename_failed(taken(rename_event()), context(), failure)

    again = outcome_from_json(outcome.to_json())

    assert again.cloud_event == outcome.cloud_event
    assert (outcome.remembered, again.remembered) == (False, True)
    assert again.failure is not None
    told = ("code", "message", "kind", "retryable", "http_status", "huawei_request_id", "violations")
    assert [getattr(again.failure, name) for name in told] == [getattr(failure, name) for name in told]


# ---- Size


def _entry_size(outcome: Outcome) -> int:
    return len(outcome.to_json().encode()) + len("vpcep.rename") + len(outcome.type)


def _filled(template: str, filling: str, size: int) -> str:
    """``template`` with as many ``filling`` in place of its ``*`` as fit into ``size`` bytes."""
    room = size - len(template.encode()) + 1
    return template.replace("*", filling * (room // len(filling.encode())))


LARGEST = {
    "text of controls": "\u0000" * LARGEST_EVENT,
    "text of quotes": '"' * LARGEST_EVENT,
    "text of backslashes": "\\" * LARGEST_EVENT,
    "text of four bytes a character": "😀" * (LARGEST_EVENT // 4),
    "text of surrogates": LONE_SURROGATE * (LARGEST_EVENT // 3),
    "far too large": "\u0000" * (4 * LARGEST_EVENT),
    "object of the largest size": _filled('{"team": "*"}', "a", LARGEST_EVENT),
    **{
        f"object of {size // KILOBYTE} KB of {name}": _filled(template, filling, size)
        for size in (64 * KILOBYTE, 128 * KILOBYTE, 255 * KILOBYTE)
        for name, template, filling in (
            ("letters", '{"data": {"a": "*"}}', "a"),
            ("escaped controls", '{"data": {"a": "*"}}', "\\u0000"),
            ("escaped quotes", '{"data": {"a": "*"}}', '\\"'),
            ("emoji", '{"data": {"a": "*"}}', "😀"),
            ("escaped emoji", '{"data": {"a": "*"}}', "\\ud83d\\ude00"),
            ("DEL", '{"data": {"a": "*"}}', "\u007f"),
            ("integers", '{"data": {"a": [*0]}}', "1,"),
            ("exponents", '{"data": {"a": [*0]}}', "1e15,"),
            ("negative exponents", '{"data": {"a": [*0]}}', "-9E15,"),
            ("fractions", '{"data": {"a": [*0]}}', ".1,".replace(".", "0.")),
            ("tiny numbers", '{"data": {"a": [*0]}}', "1e-4,"),
        )
    },
    "many unknown fields of long names": json.dumps(
        {"data": {"\u0001" * 400 + str(number): 1 for number in range(50)}}
    ),
    "many attributes of long names": json.dumps(
        {"data": 1} | {"\u0001" * 400 + str(number): 1 for number in range(50)}
    ),
    "many broken attributes": json.dumps({"data": 1} | {f"X{number}": [] for number in range(8_000)}),
    "long names where names are expected": json.dumps({"data": dict.fromkeys(rename_data(), "\u0001" * 200)}),
    "valid, of the largest attributes": json.dumps(
        rename_event(id="😀" * 1024, source="/" * 1024, **{f"x{number}": "😀" * 1024 for number in range(26)}),
        ensure_ascii=False,
    ),
    "valid, of quotes": json.dumps(rename_event(**{f"x{number}": '"' * 1024 for number in range(26)})),
}


@pytest.mark.parametrize("text", LARGEST.values(), ids=LARGEST)
def test_an_outcome_always_fits_the_bus(text: str) -> None:
    outcome = answer(parse(text))

    assert _entry_size(outcome) <= LARGEST_ENTRY


@pytest.mark.parametrize(
    "value", ["a" * 250 * KILOBYTE, '"' * 200 * KILOBYTE, "😀" * 60 * KILOBYTE], ids=["a", "quote", "😀"]
)
@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team"])
def test_an_outcome_fits_the_bus_whatever_the_transport_carries(attribute: str, value: str) -> None:
    """SQS lets attributes be as large as bodies."""
    for content in (rename_data(), {"x": "a" * 120 * KILOBYTE}, "orders"):
        outcome = answer(parse(content, transport(**{attribute: value})))

        assert _entry_size(outcome) <= LARGEST_ENTRY


def test_an_outcome_fits_the_bus_whatever_huawei_cloud_says() -> None:
    endless = "漢" * 300 * KILOBYTE
    failure = from_reply(endless, endless, status=400, huawei_request_id=endless)

    outcome = rename_failed(taken(rename_event()), context(), failure)

    assert _entry_size(outcome) <= LARGEST_ENTRY


def test_an_outcome_has_a_utf_8_form_whatever_huawei_cloud_says() -> None:
    failure = from_reply("EndPoint.2003", f"no such service {LONE_SURROGATE}", status=400)

    outcome = rename_failed(taken(rename_event()), context(), failure)

    assert json.loads(outcome.to_json().encode())["data"]["error"]["code"] == "EndPoint.2003"
