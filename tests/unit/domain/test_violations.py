"""Which violations an invalid event has: of attributes, of data, and all of them at once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from function.domain.strict_json import load
from tests.deadlines import within
from tests.fakes.domain import parser
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.unit.domain.parsing import (
    KILOBYTE,
    LARGEST_EVENT,
    LONE_SURROGATE,
    answer,
    paths,
    refused,
    without,
)

JSON_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


# ---- What is refused: attributes

MALFORMED_ATTRIBUTES: list[tuple[str, object]] = [
    (name, value)
    for name, values in {
        "specversion": ("0.3", "1.0 ", 1.0, None),
        "id": ("", None, 7, "a" * 1025, "a\u0000b", "event-1\n", "\u007f", "\u0085", ["event-1"]),
        "source": ("", None, {}, "/cmdb\n", "/cm db", "/cmdb/é", "<cmdb>", "a" * 1025),
        "type": ("", None, "vpcep.endpoint_service.rename_requested.v2", "vpcep.endpoint_service.renamed.v1"),
        "time": (
            *("", 1_793_000_000, "yesterday", "2026-11-02", "2026-11-02T08:15:00", "2026-11-02 08:15:00Z"),
            *("2026-11-02T08:15Z", "2026-11-02T08:15:00,5Z", "2026-11-02T08:15:00.Z"),
            *("2026-11-02T08:15:00.1234567890Z", "2026-11-02T08:15:00+0100", "2026-11-02T08:15:00Z\n"),
            *("٢٠٢٦-11-02T08:15:00Z", "2026-W45-1T08:15:00Z", "2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z"),
            *("2026-13-01T00:00:00Z", "2026-11-01T24:00:00Z", "2026-11-01T08:60:00Z", "2016-12-31T23:59:60Z"),
            *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"),
            *("2026-11-01T08:15:00+24:00", "2026-11-01T08:15:00+05:60", "2026-11-01T08:15:00-05:99"),
        ),
        "datacontenttype": (
            *("", "text/plain", "application/jsonp", "application/json\n", "application/json;\u0000"),
            *("application/json;\rcharset=utf-8", "application/json;" + "a" * 128, 5),
        ),
        "subject": ("", 5, "a\u0000b"),
        "dataschema": ("", True),
        "team": (["shop"], {"name": "shop"}, 1.5, 2**31, -(2**31) - 1, "a" * 1025, "sh\u0000p", "shop\n"),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("attribute", "value"), MALFORMED_ATTRIBUTES)
def test_a_wrong_attribute_is_the_one_violation(attribute: str, value: object) -> None:
    event = refused(rename_event(**{attribute: value}))

    assert paths(event) == {f"/{attribute}"}


@pytest.mark.parametrize(
    ("attribute", "value"), [(name, value) for name, value in MALFORMED_ATTRIBUTES if isinstance(value, str)]
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


@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team", "équipe" + LONE_SURROGATE])
def test_a_lone_surrogate_in_an_attribute_of_the_transport_is_refused(attribute: str) -> None:
    event = refused(rename_data(), transport(**{attribute: f"a{LONE_SURROGATE}"}))

    assert answer(event).to_json().encode()


# ---- What is refused: data

MALFORMED_DATA: list[tuple[str, object]] = [
    (name, value)
    for name, values in {
        "vpc_endpoint_service_id": (
            *("", ".", "..", "../orders", "a/b", "a\\b", "%2e%2e", "a?b", "a#b", " ", f"{SERVICE}\n"),
            *(f"\n{SERVICE}", "a\u0000b", "é", "٧", "a" * 65, None, 70, True, [SERVICE], {"id": SERVICE}),
        ),
        "endpoint_service_name": (
            *("a" * 17, "orders.v2", "or ders", " ", "ordérs", "orders/2", "orders\n", "orders\u0000"),
            *("\u202eorders", "ｏｒｄｅｒｓ", None, 7, False, []),
        ),
        "project_id": ("", "..", f"{PROJECT}\n", f"{PROJECT}/", "a" * 65, None, 7, "another-project"),
        "region": ("", "CN-NORTH-4", f"{REGION}\n", "cn_north_4", "example.com/", "a" * 65, None, 4, "cn-south-1"),
        "expected_name": ("a" * 129, "orders.v2", "orders\n", None, 7),
        "id": ("event-2",),
        "description": ("orders",),
        "Endpoint_service_name": ("orders",),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("field", "value"), MALFORMED_DATA)
def test_a_wrong_field_is_the_one_violation_in_structured_mode(field: str, value: object) -> None:
    event = refused(rename_event(data=rename_data(**{field: value})))

    assert paths(event) == {f"/data/{field}"}


@pytest.mark.parametrize(("field", "value"), MALFORMED_DATA)
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
