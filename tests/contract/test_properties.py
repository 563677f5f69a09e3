"""Properties of the path from a text to the one call: valid events always make it, mutated ones never do.

The rules are written down here a second time, from the issue and the API's page and not from the schema, so that a hole
in the schema shows.
"""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from function.domain.envelopes import Attributes
from function.domain.event_parser import RENAME_REQUESTED
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RenameEvent, Target
from function.domain.outcomes import RENAMED
from tests.contract.documents import OUTCOME
from tests.contract.test_contract import MAX_ENTRY_BYTES
from tests.deadlines import within
from tests.fakes.domain import parser, rename_service
from tests.fakes.endpoint_services import CountingServices
from tests.fakes.events import transport
from tests.fakes.identifiers import ARRIVED, NOW, OTHER_PROJECT, OTHER_REGION, PROJECT, REGION, TIME
from tests.fakes.publisher import FakeBus

# The same examples on every run and every machine.
SAME_EVERY_TIME: Final = settings(
    max_examples=120, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

Event = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# ---- Valid events, from the rules

NAME_CHARACTERS: Final = string.ascii_letters + string.digits + "_-"
REQUIRED: Final = ("specversion", "id", "source", "type", "data")
NOT_EMPTY: Final = ("vpc_endpoint_service_id", "project_id", "region")
REQUIRED_DATA: Final = ("vpc_endpoint_service_id", "endpoint_service_name")
KNOWN_ATTRIBUTES: Final = (*REQUIRED, "time", "datacontenttype", "traceparent", "subject", "dataschema")

# Neither controls, nor surrogates, nor what Unicode has not assigned.
harmless_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=40)
path_characters = st.text(string.ascii_lowercase + string.digits + "._~-", min_size=1, max_size=8)
sources = st.one_of(
    st.sampled_from(["arn:aws:sqs:eu-west-1:123456789012:rename.fifo", "https://cmdb.example.com:8443/a%20b?c=d#e"]),
    path_characters.map(lambda path: f"/{path}/{path}"),
    st.uuids().map(lambda value: f"urn:uuid:{value}"),
)


@st.composite
def times(draw: st.DrawFn) -> str:
    """Any form of RFC 3339, up to almost five minutes ahead."""
    latest = (NOW + timedelta(minutes=4, seconds=58)).replace(tzinfo=None, microsecond=0)
    instant = draw(st.datetimes(datetime(2, 1, 1), latest)).replace(microsecond=0, tzinfo=UTC)  # noqa: DTZ001 - in UTC
    minutes = draw(st.integers(-1439, 1439))
    text = instant.astimezone(timezone(timedelta(minutes=minutes))).replace(tzinfo=None).isoformat()
    fraction = draw(st.one_of(st.just(""), st.text(string.digits, min_size=1, max_size=9).map(lambda text: f".{text}")))
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    if minutes == 0:
        offset = draw(st.sampled_from(["Z", "z", "+00:00", "-00:00"]))
    return text.replace("T", draw(st.sampled_from("Tt"))) + fraction + offset


extension_names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda name: name not in KNOWN_ATTRIBUTES
)
data_objects = st.fixed_dictionaries(
    {
        "vpc_endpoint_service_id": st.one_of(st.uuids().map(str), st.text(NAME_CHARACTERS, min_size=1, max_size=64)),
        "endpoint_service_name": st.text(NAME_CHARACTERS, max_size=16),
    },
    optional={
        "project_id": st.sampled_from([PROJECT, OTHER_PROJECT]),
        "region": st.sampled_from([REGION, OTHER_REGION]),
        "expected_name": st.text(NAME_CHARACTERS, max_size=128),
    },
)
optional_attributes = {
    "datacontenttype": st.sampled_from(["application/json", "application/json; charset=utf-8", "Application/Json"]),
    "traceparent": st.uuids().map(lambda value: f"00-{value.hex}-{value.hex[:16]}-01"),
    "subject": harmless_text,
    "dataschema": sources,
}


required_attributes = {
    "specversion": st.just("1.0"),
    "id": harmless_text,
    "source": sources,
    "type": st.just(RENAME_REQUESTED),
}
core_events = st.fixed_dictionaries(
    required_attributes | {"data": data_objects}, optional=optional_attributes | {"time": times()}
)
carried_attributes = st.fixed_dictionaries({}, optional=required_attributes | optional_attributes | {"time": times()})
extensions = st.dictionaries(
    extension_names, st.one_of(harmless_text, st.booleans(), st.integers(-(2**31), 2**31 - 1)), max_size=3
)


other_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda children: st.one_of(st.lists(children, max_size=3), st.dictionaries(st.text(), children, max_size=3)),
    max_leaves=5,
)


@st.composite
def structured_events(draw: st.DrawFn) -> Event:
    event = draw(core_events) | draw(extensions)
    return dict(sorted(event.items(), reverse=draw(st.booleans())))


@st.composite
def as_json(draw: st.DrawFn, content: object) -> str:
    """One of the many texts that mean ``content``."""
    return json.dumps(
        content,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
    )


carried_extensions = st.dictionaries(extension_names, harmless_text, max_size=3)


@st.composite
def binary_attributes(draw: st.DrawFn) -> Attributes:
    return transport(**draw(carried_attributes) | draw(carried_extensions))


# ---- What becomes of a text


def parse(text: str, attributes: Attributes | None = None, **options: Any) -> ParsedEvent:
    return parser().parse(text, attributes or transport(), within(60.0), **options)


def settle(
    text: str, attributes: Attributes | None = None, *, named: str = "billing"
) -> tuple[Outcome, CountingServices]:
    """The outcome that was published for a text, and Huawei Cloud as it was left."""
    services, bus = CountingServices(name=named), FakeBus()
    result = rename_service(services, bus).settle(parse(text, attributes), within(60.0), "sqs")
    assert bus.outcomes == [result]
    return bus.outcomes[0], services


def assert_renamed_as(data: Event, text: str, attributes: Attributes | None = None) -> None:
    outcome, services = settle(text, attributes, named=data.get("expected_name", "billing"))

    target = Target(data.get("region", REGION), data.get("project_id", PROJECT), data["vpc_endpoint_service_id"])
    assert services.renames == [(target, data["endpoint_service_name"])]
    assert (outcome.type, outcome.failure) == (RENAMED, None)
    assert outcome.cloud_event["data"]["service_name"] == data["endpoint_service_name"]
    assert not list(OUTCOME.iter_errors(outcome.cloud_event))


def assert_rejected(text: str, attributes: Attributes | None = None) -> None:
    outcome, services = settle(text, attributes)

    assert (services.renames, services.reads) == ([], [])
    assert outcome.failure is not None
    error = outcome.cloud_event["data"]["error"]
    assert (error["code"], error["kind"], error["retryable"]) == ("Rename.InvalidEvent", "invalid", False)
    assert error["violations"]
    assert_deliverable(outcome)


def assert_deliverable(outcome: Outcome) -> None:
    detail = outcome.to_json().encode()

    assert not list(OUTCOME.iter_errors(json.loads(detail)))
    assert len(detail) < MAX_ENTRY_BYTES


@SAME_EVERY_TIME
@given(structured_events(), st.data())
def test_valid_event_in_structured_mode_makes_exactly_one_call(event: Event, data: st.DataObject) -> None:
    assert_renamed_as(event["data"], data.draw(as_json(event)))


@SAME_EVERY_TIME
@given(data_objects, binary_attributes(), st.data())
def test_valid_event_in_binary_mode_makes_exactly_one_call(
    content: Event, attributes: Attributes, data: st.DataObject
) -> None:
    assert_renamed_as(content, data.draw(as_json(content)), attributes)


@SAME_EVERY_TIME
@given(structured_events())
def test_outcome_has_a_valid_event_as_it_was_received(event: Event) -> None:
    parsed = parse(json.dumps(event))
    outcome, _ = settle(json.dumps(event), named=event["data"].get("expected_name", "billing"))

    assert isinstance(parsed, RenameEvent)
    assert (parsed.id, parsed.source) == (event["id"], event["source"])
    received = {"time": ARRIVED} | event
    assert parsed.time == datetime.fromisoformat(received["time"].upper())
    assert json.loads(outcome.to_json())["data"]["request"] == received


@SAME_EVERY_TIME
@given(structured_events(), st.data())
def test_data_in_base64_makes_the_same_call(event: Event, data: st.DataObject) -> None:
    raw = data.draw(as_json(event["data"])).encode()
    mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    encoded = without(event, "data") | {"data_base64": base64.b64encode(mark + raw).decode()}

    assert_renamed_as(event["data"], json.dumps(encoded))
    assert parse(json.dumps(encoded)) == parse(json.dumps(event))


@SAME_EVERY_TIME
@given(structured_events(), st.one_of(harmless_text, other_json))
def test_any_traceparent_makes_the_same_call(event: Event, traceparent: object) -> None:
    assert_renamed_as(event["data"], json.dumps(event | {"traceparent": traceparent}))


@st.composite
def spellings(draw: st.DrawFn, attributes: dict[str, str]) -> dict[str, Event]:
    """Message attributes of SNS, each in one or more spellings."""
    prefixes = st.lists(st.sampled_from(["ce_", "ce-", "CE_", "cloudEvents:", "cloudEvents_"]), min_size=1, max_size=3)
    return {
        prefix + (name.upper() if draw(st.booleans()) else name): {"Type": "String", "Value": value}
        for name, value in attributes.items()
        for prefix in draw(prefixes)
    }


@st.composite
def envelopes(draw: st.DrawFn) -> tuple[Event, str, Attributes]:
    """The data of an event, its text in an envelope, and the transport's own attributes of the same event."""
    event = draw(st.one_of(structured_events(), data_objects))
    data = event.get("data", event)
    sns = {"id": draw(harmless_text), "source": draw(sources), "time": draw(times())}
    bus = {"id": draw(harmless_text), "source": draw(sources), "time": draw(times())}
    given_attributes = {} if event is not data else draw(carried_attributes) | draw(carried_extensions)
    notification = {
        "Type": "Notification",
        "MessageId": sns["id"],
        "TopicArn": sns["source"],
        "Timestamp": sns["time"],
        "MessageAttributes": draw(spellings(given_attributes)),
    }
    on_bus = {"version": "0", **bus, "detail-type": draw(st.text()), "detail": event}
    match draw(st.sampled_from(["SNS", "EventBridge", "both"])):
        case "SNS":
            text = json.dumps(notification | {"Message": draw(as_json(event))})
            return data, text, Attributes(**sns, given=given_attributes, violations=())
        case "EventBridge":
            return data, draw(as_json(on_bus)), Attributes(**bus, given={}, violations=())
    text = json.dumps(notification | {"Message": draw(as_json(on_bus))})
    return data, text, Attributes(**bus, given={}, violations=())


@SAME_EVERY_TIME
@given(envelopes())
def test_event_in_an_envelope_has_the_attributes_of_the_envelope(sent: tuple[Event, str, Attributes]) -> None:
    data, text, attributes = sent
    content = json.loads(text)
    content = json.loads(content["Message"]) if "Message" in content else content
    event = json.dumps(content.get("detail", content))

    assert_renamed_as(data, text)
    assert parse(text) == parse(event, attributes)


# ---- Mutations: each makes an invalid event of any valid one

not_a_string = other_json.filter(lambda value: not isinstance(value, str))
not_an_object = other_json.filter(lambda value: not isinstance(value, dict))
CONTROLS: Final = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


@st.composite
def with_inserted(draw: st.DrawFn, text: str, characters: st.SearchStrategy[str]) -> str:
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(characters) + text[place:]


def renames_a_field(data: Event, draw: Draw) -> Event:
    name = draw(st.sampled_from(sorted(data)))
    other = draw(st.sampled_from([name.upper(), f"{name} ", name.replace("_", "-") + "2", f"{name}\u0000"]))
    return without(data, name) | {other: data[name]}


def adds_an_unknown_field(data: Event, draw: Draw) -> Event:
    known = {*REQUIRED_DATA, "project_id", "region", "expected_name", *REQUIRED, "time", "data_base64"}
    return data | {draw(st.text().filter(lambda name: name not in known)): draw(other_json)}


def puts_a_bad_character_into_a_field(data: Event, draw: Draw) -> Event:
    name = draw(st.sampled_from(sorted(data)))
    characters = st.one_of(
        st.sampled_from("./\\%?#:@ \n\r\t\u0000'\"<>;"),
        st.characters(codec="utf-8", exclude_characters=NAME_CHARACTERS),
    )
    return data | {name: draw(with_inserted(data[name], characters))}


def has_a_path_for_an_id(data: Event, draw: Draw) -> Event:
    name = draw(st.sampled_from(["vpc_endpoint_service_id", "project_id"]))
    return data | {
        name: draw(st.sampled_from([".", "..", "a/b", "../a", "a/..", "a?b", "a#b", "%2e%2e", "a;b", "a\\b"]))
    }


def makes_a_field_too_long(data: Event, draw: Draw) -> Event:
    longest = {"vpc_endpoint_service_id": 64, "endpoint_service_name": 16, "project_id": 64, "region": 64}
    name, size = draw(st.sampled_from(sorted({**longest, "expected_name": 128}.items())))
    return data | {name: "a" * (size + draw(st.integers(1, 50)))}


def names_a_forbidden_project_or_region(data: Event, draw: Draw) -> Event:
    place = st.sampled_from([{"project_id": PROJECT[:-1]}, {"project_id": PROJECT.upper()}, {"region": "cn-north-1"}])
    return {**data, **draw(place)}


def renames_an_attribute(event: Event, draw: Draw) -> Event:
    name = draw(st.sampled_from(REQUIRED))
    return without(event, name) | {f"{name}2": event[name]}


def retypes_a_required_attribute(event: Event, draw: Draw) -> Event:
    # A time that is null is left out.
    value = not_a_string.filter(lambda value: value is not None)
    return event | {draw(st.sampled_from([*REQUIRED[:-1], "time"])): draw(value)}


def retypes_an_optional_attribute(event: Event, draw: Draw) -> Event:
    # One that is null is left out.
    name = draw(st.sampled_from(["datacontenttype", "subject", "dataschema"]))
    return event | {name: draw(not_a_string.filter(lambda value: value is not None))}


def retypes_an_extension(event: Event, draw: Draw) -> Event:
    value = st.one_of(
        st.lists(other_json, max_size=2),
        st.dictionaries(st.text(), other_json, max_size=2),
        st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),
        st.integers(min_value=2**31, max_value=2**80),
        st.integers(min_value=-(2**80), max_value=-(2**31) - 1),
        st.sampled_from([2**31, -(2**31) - 1]),
    )
    return event | {draw(extension_names): draw(value)}


def gives_an_attribute_a_wrong_name(event: Event, draw: Draw) -> Event:
    name = st.one_of(
        st.text().filter(lambda name: not re.fullmatch(r"[a-z0-9]{1,32}", name)),
        st.text(string.ascii_lowercase, min_size=33, max_size=60),
    )
    return event | {draw(name): draw(harmless_text)}


def puts_a_control_into_an_attribute(event: Event, draw: Draw) -> Event:
    name = draw(st.sampled_from([name for name in (*REQUIRED[:-1], "time") if name in event]))
    return event | {name: draw(with_inserted(event[name], st.sampled_from(CONTROLS)))}


def puts_a_bad_character_into_the_source(event: Event, draw: Draw) -> Event:
    characters = st.one_of(st.sampled_from(' "<>\\^`{|}'), st.characters(codec="utf-8", min_codepoint=0xA0))
    return event | {"source": draw(with_inserted(event["source"], characters))}


def makes_an_attribute_too_long(event: Event, draw: Draw) -> Event:
    name = draw(st.one_of(st.sampled_from(["id", "source"]), extension_names))
    return event | {name: "a" * draw(st.integers(1025, 5000))}


def has_a_time_ahead(event: Event, draw: Draw) -> Event:
    ahead = draw(st.timedeltas(timedelta(minutes=5, microseconds=1), timedelta(days=2_000_000)))
    return event | {"time": (NOW + ahead).isoformat()}


def has_an_impossible_time(event: Event, draw: Draw) -> Event:
    times_that_never_were = st.one_of(
        st.sampled_from(["2026-02-29", "2026-02-30", "2026-04-31", "2026-00-10", "2026-13-10", "0000-01-01"]).map(
            lambda date: f"{date}T00:00:00Z"
        ),
        st.sampled_from(["24:00:01", "23:60:00", "23:59:60", "99:00:00"]).map(lambda clock: f"2026-01-01T{clock}Z"),
    )
    return event | {"time": draw(times_that_never_were)}


def without(content: Event, name: str) -> Event:
    return {key: value for key, value in content.items() if key != name}


Mutation = Callable[[Event, Draw], Event]
OF_DATA: Final[dict[str, Mutation]] = {
    "a field is missing": lambda data, draw: without(data, draw(st.sampled_from(REQUIRED_DATA))),
    "a field is renamed": renames_a_field,
    "a field has another type": lambda data, draw: data | {draw(st.sampled_from(sorted(data))): draw(not_a_string)},
    "an unknown field": adds_an_unknown_field,
    "a field with a bad character": puts_a_bad_character_into_a_field,
    "an id that is a path": has_a_path_for_an_id,
    "a field that is too long": makes_a_field_too_long,
    "a field that is empty": lambda data, draw: data | {draw(st.sampled_from(NOT_EMPTY)): ""},
    "a forbidden project or region": names_a_forbidden_project_or_region,
}
OF_ATTRIBUTES: Final[dict[str, Mutation]] = {
    "an attribute is missing": lambda event, draw: without(event, draw(st.sampled_from(REQUIRED))),
    "an attribute is renamed": renames_an_attribute,
    "a required attribute has another type": retypes_a_required_attribute,
    "data that is no object": lambda event, draw: event | {"data": draw(not_an_object)},
    "an optional attribute has another type": retypes_an_optional_attribute,
    "an extension has another type": retypes_an_extension,
    "an attribute with a wrong name": gives_an_attribute_a_wrong_name,
    "too many attributes": lambda event, draw: event | {f"x{number}": draw(st.booleans()) for number in range(33)},
    "an attribute with a control character": puts_a_control_into_an_attribute,
    "a source with a bad character": puts_a_bad_character_into_the_source,
    "an attribute that is too long": makes_an_attribute_too_long,
    "a time ahead": has_a_time_ahead,
    "an impossible time": has_an_impossible_time,
}
A_FEW: Final = settings(SAME_EVERY_TIME, max_examples=25)


@pytest.mark.parametrize("mutation", OF_ATTRIBUTES.values(), ids=OF_ATTRIBUTES)
@A_FEW
@given(structured_events(), st.data())
def test_event_with_mutated_attributes_makes_no_call(mutation: Mutation, event: Event, data: st.DataObject) -> None:
    assert_rejected(data.draw(as_json(mutation(event, data.draw))))


@pytest.mark.parametrize("mutation", OF_DATA.values(), ids=OF_DATA)
@A_FEW
@given(structured_events(), st.data())
def test_event_with_mutated_data_in_structured_mode_makes_no_call(
    mutation: Mutation, event: Event, data: st.DataObject
) -> None:
    mutated = event | {"data": mutation(event["data"], data.draw)}

    assert_rejected(data.draw(as_json(mutated)))


@pytest.mark.parametrize("mutation", OF_DATA.values(), ids=OF_DATA)
@A_FEW
@given(data_objects, binary_attributes(), st.data())
def test_event_with_mutated_data_in_binary_mode_makes_no_call(
    mutation: Mutation, content: Event, attributes: Attributes, data: st.DataObject
) -> None:
    assert_rejected(data.draw(as_json(mutation(content, data.draw))), attributes)


BAD_ATTRIBUTES: Final = [
    {"specversion": "1.1"},
    {"type": f"{RENAME_REQUESTED}\n"},
    {"id": "event\u0000"},
    {"source": "/cm db"},
    {"time": f"{TIME}\n"},
    {"time": f"{TIME}Z"},
    {"datacontenttype": "text/plain"},
    {"Team": "shop"},
    {"x" * 33: "shop"},
]


@SAME_EVERY_TIME
@given(data_objects, binary_attributes(), st.sampled_from(BAD_ATTRIBUTES))
def test_malformed_attribute_of_the_transport_makes_no_call(
    content: Event, attributes: Attributes, bad: dict[str, str]
) -> None:
    assert_rejected(json.dumps(content), transport(**{**attributes.given, **bad}))


# ---- Damaged texts


@SAME_EVERY_TIME
@given(structured_events(), st.booleans(), st.data())
def test_truncated_text_makes_no_call(event: Event, structured: bool, data: st.DataObject) -> None:
    text = data.draw(as_json(event if structured else event["data"]))

    assert_rejected(text[: data.draw(st.integers(0, len(text) - 1))])


@SAME_EVERY_TIME
@given(structured_events(), st.text(min_size=1), st.booleans())
def test_event_with_text_before_or_after_it_makes_no_call(event: Event, other: str, before: bool) -> None:
    if other.strip(" \t\r\n") == "":
        other += "0"
    text = json.dumps(event)

    assert_rejected(other + text if before else text + other)


@SAME_EVERY_TIME
@given(structured_events(), st.booleans(), st.data())
def test_event_with_a_field_twice_makes_no_call(event: Event, structured: bool, data: st.DataObject) -> None:
    content = event if structured else event["data"]
    name = data.draw(st.sampled_from(sorted(content)))
    again = json.dumps({name: data.draw(st.one_of(st.just(content[name]), other_json))})

    assert_rejected(f"{json.dumps(content)[:-1]}, {again[1:]}")


@settings(SAME_EVERY_TIME, max_examples=200)
@given(structured_events(), st.data())
def test_event_with_a_flipped_bit_makes_no_call_but_its_own(event: Event, data: st.DataObject) -> None:
    """A flip may make another valid event of one; it must not make a call that its text does not ask for."""
    flipped = bytearray(json.dumps(event, ensure_ascii=False).encode())
    place, bit = data.draw(st.integers(0, len(flipped) - 1)), data.draw(st.integers(0, 7))
    flipped[place] ^= 1 << bit
    text = flipped.decode(errors="surrogateescape")

    parsed = parse(text)

    if isinstance(parsed, InvalidEvent):
        assert_rejected(text)
    else:
        wanted = json.loads(text)["data"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", wanted["vpc_endpoint_service_id"])
        assert re.fullmatch(r"[A-Za-z0-9_-]{0,16}", wanted["endpoint_service_name"])
        assert wanted.keys() <= {*REQUIRED_DATA, "project_id", "region", "expected_name"}
        assert_renamed_as(wanted, text)


# ---- Anything

any_text = st.text(st.characters(exclude_categories=()))
hostile_text = st.one_of(any_text, st.sampled_from(["", "\ud800", "\u0000", "event-1\n", "\U0001f600" * 300]))
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text),
    lambda children: st.one_of(
        st.lists(children),
        st.dictionaries(st.one_of(any_text, st.sampled_from([*KNOWN_ATTRIBUTES, *REQUIRED_DATA, "region"])), children),
    ),
    max_leaves=20,
)


@SAME_EVERY_TIME
@given(any_text, st.sampled_from([None, True, False]))
def test_any_text_has_an_outcome_that_can_be_delivered(text: str, structured: bool | None) -> None:
    assert isinstance(parse(text, structured=structured), InvalidEvent)
    assert_rejected(text)


@settings(SAME_EVERY_TIME, max_examples=200)
@given(any_json, st.booleans(), st.sampled_from([None, True, False]))
def test_any_json_has_an_outcome_that_can_be_delivered(
    content: object, ascii_only: bool, structured: bool | None
) -> None:
    text = json.dumps(content, ensure_ascii=ascii_only)

    assert isinstance(parse(text, structured=structured), InvalidEvent)
    assert_rejected(text)


@SAME_EVERY_TIME
@given(
    data_objects,
    st.dictionaries(st.one_of(hostile_text, st.sampled_from(KNOWN_ATTRIBUTES)), hostile_text),
    hostile_text,
    hostile_text,
)
def test_event_with_any_attributes_of_the_transport_has_an_outcome_that_can_be_delivered(
    content: Event, given_attributes: dict[str, str], event_id: str, source: str
) -> None:
    attributes = Attributes(id=event_id, source=source, time=ARRIVED, given=given_attributes)
    named = content.get("expected_name", "billing")

    outcome, services = settle(json.dumps(content), attributes, named=named)

    assert_deliverable(outcome)
    assert len(services.renames) == (1 if outcome.failure is None else 0)


@SAME_EVERY_TIME
@given(st.one_of(any_text, any_json.map(json.dumps)))
def test_same_text_has_the_same_outcome_again(text: str) -> None:
    assert settle(text)[0] == settle(text)[0]
