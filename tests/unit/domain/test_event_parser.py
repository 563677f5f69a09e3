"""Which rename events are valid: in both modes, attributes of the transport, base64, times."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from function.domain.envelopes import Attributes
from tests.fakes.domain import valid
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import ARRIVED, OTHER_PROJECT, OTHER_REGION, SERVICE, TIME
from tests.unit.domain.parsing import LONE_SURROGATE, TRACEPARENT, accepted, paths, refused, without


def encoded(content: object) -> str:
    """As ``data_base64``."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.b64encode(raw).decode()


def in_base64(value: object) -> dict[str, Any]:
    return without(rename_event(), "data") | {"data_base64": value}


def test_structured_event_is_accepted_with_its_members() -> None:
    data = rename_data(project_id=OTHER_PROJECT, region=OTHER_REGION, expected_name="billing")
    content = rename_event(id="8f0c", source="/cmdb/prod", data=data, traceparent=TRACEPARENT)

    event = accepted(content)

    assert (event.id, event.source) == ("8f0c", "/cmdb/prod")
    assert event.time == datetime(2026, 11, 2, 8, 15, tzinfo=UTC)
    assert event.vpc_endpoint_service_id == SERVICE
    assert event.endpoint_service_name == "orders"
    assert (event.project_id, event.region, event.expected_name) == (OTHER_PROJECT, OTHER_REGION, "billing")
    assert event.cloud_event == content


def test_invalid_event_has_the_time_of_its_transport() -> None:
    assert refused(rename_event(time="soon")).time == ARRIVED
    assert refused("orders").time == ARRIVED


def test_optional_data_that_an_event_lacks_is_none() -> None:
    event = accepted(rename_event())

    assert (event.project_id, event.region, event.expected_name) == (None, None, None)


def test_data_alone_has_the_attributes_that_its_transport_carries() -> None:
    own = {"id": "8f0c", "source": "/cmdb", "time": "2026-11-02T08:00:00Z"}
    given = own | {"traceparent": TRACEPARENT, "team": "shop"}

    event = accepted(rename_data(), transport(**given))

    assert (event.id, event.source, event.time) == ("8f0c", "/cmdb", datetime(2026, 11, 2, 8, tzinfo=UTC))
    assert event.cloud_event == rename_event(**given)


def test_data_alone_has_the_defaults_of_a_transport_that_carries_no_attributes() -> None:
    attributes = transport()

    event = accepted(rename_data(), attributes)

    assert event.cloud_event == rename_event(id=attributes.id, source=attributes.source, time=attributes.time)


def test_structured_event_ignores_the_attributes_of_its_transport() -> None:
    event = accepted(rename_event(), transport(id="other", source="/other", time="2026-01-01T00:00:00Z", team="other"))

    assert event.cloud_event == rename_event()


LIMITS = {
    "no name at all": rename_event(data=rename_data(endpoint_service_name="")),
    "longest name": rename_event(data=rename_data(endpoint_service_name="a" * 16)),
    "every kind of character": rename_event(data=rename_data(endpoint_service_name="-_Az09_-")),
    "longest service id": rename_event(data=rename_data(vpc_endpoint_service_id="a" * 64)),
    "shortest service id": rename_event(data=rename_data(vpc_endpoint_service_id="7")),
    "expects no name": rename_event(data=rename_data(expected_name="")),
    "expects a name of before the limit": rename_event(data=rename_data(expected_name="a" * 128)),
    "id of any characters": rename_event(id="é 漢 😀 ~"),
    "longest id": rename_event(id="a" * 1024),
    "source is a URN": rename_event(source="urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
    "source is a URL": rename_event(source="https://cmdb.example.com:8443/a%20b?c=d#e"),
    "content type with charset": rename_event(datacontenttype="application/json; charset=utf-8"),
    "content type in other case": rename_event(datacontenttype="Application/JSON"),
    "optional attributes": rename_event(subject="orders", dataschema="https://example.com/s.json"),
    "extensions": rename_event(team="shop", urgent=True, priority=-(2**31), sequence=2**31 - 1),
    "longest extension": rename_event(**{"a" * 32: "x" * 1024}),
    "most attributes": rename_event(**{f"x{number}": number for number in range(26)}),
}


@pytest.mark.parametrize("event", LIMITS.values(), ids=LIMITS)
def test_event_at_the_limits_of_the_rules_is_accepted(event: dict[str, Any]) -> None:
    assert accepted(event).cloud_event == event


@pytest.mark.parametrize("attribute", ["datacontenttype", "traceparent", "subject", "team"])
def test_optional_attribute_that_is_null_counts_as_missing(attribute: str) -> None:
    """CloudEvents JSON format 1.0.2, 2.2: null MUST be treated as the equivalent of unset or omitted."""
    assert accepted(rename_event(**{attribute: None})).endpoint_service_name == "orders"


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
def test_time_in_any_form_of_rfc_3339_is_accepted(text: str, instant: datetime) -> None:
    assert accepted(rename_event(time=text)).time == instant


@pytest.mark.parametrize("missing", [{}, {"time": None}], ids=["left out", "null"])
def test_structured_event_without_a_time_has_that_of_its_transport(missing: dict[str, Any]) -> None:
    timeless = without(rename_event(), "time") | missing

    event = accepted(timeless, transport(time="2026-01-01T00:00:00Z"))

    assert event.cloud_event == rename_event(time=ARRIVED)
    assert event.time == datetime.fromisoformat(ARRIVED)
    assert (paths(refused(timeless | {"id": ""})), refused(timeless | {"id": ""}).time) == ({"/id"}, ARRIVED)


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", TRACEPARENT + "\n", TRACEPARENT.upper(), TRACEPARENT[:-1], f"{TRACEPARENT}-x"),
        *(TRACEPARENT.replace("00-", "ff-", 1), f"00-{'0' * 32}-00f067aa0ba902b7-01"),
        *(f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", "\u0000", "x" * 5_000, LONE_SURROGATE),
        *(None, [], {}, 5, True, 1.5, [TRACEPARENT]),
    ],
)
def test_malformed_traceparent_is_dropped(value: Any) -> None:
    """It concerns tracing alone, and is no reason to refuse a rename."""
    if isinstance(value, str):
        assert accepted(rename_data(), transport(traceparent=value)).cloud_event.keys() == rename_event().keys()
    if value != LONE_SURROGATE:
        assert accepted(rename_event(traceparent=value)).cloud_event == rename_event()


def test_malformed_traceparent_of_an_invalid_event_is_no_violation() -> None:
    assert paths(refused(rename_event(id="", traceparent=""))) == {"/id"}


@pytest.mark.parametrize("content", [rename_event(), rename_data()], ids=["structured", "binary"])
def test_byte_order_mark_at_the_beginning_is_skipped(content: dict[str, Any]) -> None:
    text = json.dumps(content)

    assert accepted("\ufeff" + text) == accepted(text)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("extra", [{}, {"data": None}], ids=["no data", "data is null"])
def test_data_in_base64_is_equal_to_data(mark: bytes, extra: dict[str, Any]) -> None:
    event = accepted(in_base64(encoded(mark + json.dumps(rename_data()).encode())) | extra)

    assert event == accepted(rename_event())
    assert event.digest == accepted(rename_event()).digest


def test_data_in_base64_may_have_a_content_type() -> None:
    event = accepted(in_base64(encoded(rename_data())) | {"datacontenttype": "application/json"})

    assert event.endpoint_service_name == "orders"


def test_data_in_base64_that_is_null_counts_as_missing() -> None:
    assert accepted(rename_event(data_base64=None)) == accepted(rename_event())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *[
            (value, "must be JSON in UTF-8, in base64")
            for value in (
                *(encoded(raw) for raw in (b"\xff", b"orders", b'{"a": 1, "a": 2}', b"[" * 100_000)),
                *(encoded(rename_data())[:-1], encoded(rename_data()) + "\n", "=", "", "é"),
            )
        ],
        *[(7, "must be of type string"), ([], "must be of type string")],
    ],
)
def test_malformed_base64_is_the_only_violation(value: object, message: str) -> None:
    assert refused(in_base64(value)).violations == (("/data_base64", message),)


def test_violations_of_data_in_base64_are_those_of_its_fields() -> None:
    event = refused(in_base64(encoded({"endpoint_service_name": "a.b"})))

    assert paths(event) == {"/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}


def test_data_in_addition_to_base64_is_the_only_violation() -> None:
    assert refused(rename_event(data_base64=encoded(rename_data()))).violations == (
        ("/data_base64", "must not come with data"),
    )


def carried(*pairs: tuple[str, str | None]) -> Attributes:
    own = transport()
    return Attributes.carried(pairs, event_id=own.id, source=own.source, time=own.time)


def test_attribute_may_come_twice_with_one_value() -> None:
    assert accepted(rename_data(), carried(("id", "8f0c"), ("id", "8f0c"))).id == "8f0c"


@pytest.mark.parametrize("name", ["id", "source", "time", "team", "traceparent", "a/b"])
def test_attribute_with_two_values_is_the_only_violation(name: str) -> None:
    event = refused(rename_data(), carried((name, "1"), (name, "2"), (name, "1")))

    path = "/" + name.replace("/", "~1")
    assert event.violations == ((path, "comes with two values"),)
    assert (event.id, event.source, event.time) == ("message-1", transport().source, ARRIVED)


def test_attribute_that_is_not_text_is_the_only_violation() -> None:
    event = refused(rename_data(), carried(("id", None)))

    assert event.violations == (("/id", "must be UTF-8 text, percent-encoded in a header"),)
    assert event.id == "message-1"


def test_traceparent_that_is_not_text_is_dropped() -> None:
    assert (
        accepted(rename_data(), carried(("traceparent", None), ("id", "8f0c"))).cloud_event.keys()
        == rename_event().keys()
    )


def test_attribute_that_is_once_text_and_once_not_is_the_only_violation() -> None:
    for pairs in ([("id", "1"), ("id", None)], [("id", None), ("id", "1")]):
        assert paths(refused(rename_data(), carried(*pairs))) == {"/id"}


def test_structured_event_ignores_malformed_attributes_of_its_transport() -> None:
    assert accepted(rename_event(), carried(("id", "1"), ("id", "2"), ("source", None))).cloud_event == rename_event()


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
def test_microseconds_since_the_epoch_have_all_digits_of_the_time(text: str, microseconds: str) -> None:
    assert str(valid().at(text).time_microseconds) == microseconds


def test_times_within_one_microsecond_are_ordered() -> None:
    earlier = accepted(rename_event(time="2026-11-02T08:15:00.123456001Z"))
    later = accepted(rename_event(time="2026-11-02T08:15:00.123456789Z"))

    assert earlier.time_microseconds < later.time_microseconds
    assert later.at(earlier.cloud_event["time"]).time_microseconds == earlier.time_microseconds


def test_white_space_and_escapes_change_nothing_about_an_event() -> None:
    event = rename_event(id="é/1")
    escaped = json.dumps(event, indent=3).replace("/", "\\/").replace("orders", "\\u006frders")

    assert accepted(f"\r\n\t {escaped}\n") == accepted(event)


def test_digest_depends_on_the_data_and_on_nothing_else() -> None:
    first = accepted(rename_event())

    assert first.digest == accepted(rename_event(time="2026-11-01T00:00:00Z", team="shop")).digest
    assert first.digest == accepted(rename_event(data=dict(reversed(rename_data().items())))).digest
    assert first.digest != accepted(rename_event(data=rename_data(endpoint_service_name="orders2"))).digest


def test_data_alone_lacks_its_attributes_in_structured_mode() -> None:
    event = refused(rename_data(), transport(id="1", source="/cmdb"), structured=True)

    assert {"/specversion", "/id", "/source", "/type", "/data"} <= paths(event)


def test_whole_event_is_not_data_in_binary_mode() -> None:
    event = refused(rename_event(), structured=False)

    assert {"/data/specversion", "/data/data", "/data/vpc_endpoint_service_id"} <= paths(event)


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "data"])
def test_one_required_attribute_makes_an_event_structured(attribute: str) -> None:
    event = refused({attribute: rename_event()[attribute]}, transport(id="1", source="/cmdb"))

    assert {"/specversion", "/id", "/source", "/type", "/data"} - paths(event) == {f"/{attribute}"}


@pytest.mark.parametrize("content", [{"time": TIME}, {"data_base64": encoded(rename_data())}])
def test_one_optional_attribute_makes_an_event_structured(content: dict[str, Any]) -> None:
    event = refused(content, transport(id="1", source="/cmdb"))

    assert {"/specversion", "/id", "/source", "/type"} <= paths(event)
