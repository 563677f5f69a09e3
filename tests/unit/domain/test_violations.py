"""The violations of an invalid event: in attributes, in data, and all of them at once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from function.domain.strict_json import load
from tests.deadlines import within
from tests.fakes.domain import parser
from tests.fakes.events import rename_data, rename_event, sns_notification, transport
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.unit.domain.parsing import (
    KILOBYTE,
    LARGEST_EVENT,
    LONE_SURROGATE,
    failure_outcome,
    paths,
    refused,
    without,
)

JSON_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


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
def test_malformed_attribute_is_the_only_violation(attribute: str, value: object) -> None:
    assert paths(refused(rename_event(**{attribute: value}))) == {f"/{attribute}"}
    if isinstance(value, str):
        assert paths(refused(rename_data(), transport(**{attribute: value}))) == {f"/{attribute}"}


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "data"])
def test_missing_attribute_is_the_only_violation(attribute: str) -> None:
    assert refused(without(rename_event(), attribute)).violations == ((f"/{attribute}", "is missing"),)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *[(name, f"/{name}") for name in ("Team", "data_base64", "team-name", "équipe", "", "team\n", "a" * 33)],
        ("a/b~c", "/a~1b~0c"),
    ],
)
def test_attribute_of_a_malformed_name_is_the_only_violation(name: str, path: str) -> None:
    assert paths(refused(rename_event(**{name: "x"}))) == {path}
    assert paths(refused(rename_data(), transport(**{name: "x"}))) == {path}


def test_too_many_attributes_are_one_violation() -> None:
    assert paths(refused(rename_event(**{f"x{number}": number for number in range(27)}))) == {""}


@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team", "équipe" + LONE_SURROGATE])
def test_lone_surrogate_in_an_attribute_of_the_transport_is_refused(attribute: str) -> None:
    assert failure_outcome(refused(rename_data(), transport(**{attribute: f"a{LONE_SURROGATE}"}))).to_json().encode()


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
        "region": ("", "CN-NORTH-4", f"{REGION}\n", "cn_north_4", "example.com/", "a" * 65, None, 4, [], "cn-south-1"),
        "expected_name": ("a" * 129, "orders.v2", "orders\n", None, 7),
        "id": ("event-2",),
        "description": ("orders",),
        "Endpoint_service_name": ("orders",),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("field", "value"), MALFORMED_DATA)
def test_malformed_field_is_the_only_violation_in_either_mode(field: str, value: object) -> None:
    data = rename_data(**{field: value})

    for event in (refused(rename_event(data=data)), refused(data, structured=False)):
        assert paths(event) == {f"/data/{field}"}


@pytest.mark.parametrize("field", ["vpc_endpoint_service_id", "endpoint_service_name"])
def test_missing_field_is_the_only_violation(field: str) -> None:
    data = without(rename_data(), field)

    for event in (refused(rename_event(data=data)), refused(data)):
        assert event.violations == ((f"/data/{field}", "is missing"),)


@pytest.mark.parametrize("data", [None, "orders", json.dumps(rename_data()), 7, True, [rename_data()]])
def test_data_of_another_type_is_the_only_violation(data: object) -> None:
    assert refused(rename_event(data=data)).violations == (("/data", "must be of type object"),)


def test_path_to_an_unknown_field_is_escaped_as_a_json_pointer() -> None:
    assert paths(refused(rename_data(**{"a/b~c": 1, "": 2}))) == {"/data/a~1b~0c", "/data/"}


@pytest.mark.parametrize("name", ["a" * 198 + "~x", "a" * 199 + "~x", "a" * 199 + "/x", "~" * 300, "/" * 4000])
def test_path_to_a_field_of_a_long_name_is_a_truncated_json_pointer(name: str) -> None:
    (path,) = paths(refused(rename_data(**{name: 1})))
    assert JSON_POINTER.fullmatch(path)
    assert len(path) < 500


def test_all_violations_are_reported_at_once() -> None:
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

    fields = ("vpc_endpoint_service_id", "endpoint_service_name", "project_id", "region", "name")
    assert paths(event) == {
        *("/specversion", "/id", "/source", "/type", "/time", "/Team", "/priority"),
        *(f"/data/{field}" for field in fields),
    }


def test_violations_in_attributes_and_data_of_binary_mode_are_reported_at_once() -> None:
    event = refused({"endpoint_service_name": 7}, transport(id="\u0000", time="soon"))

    assert paths(event) == {"/id", "/time", "/data/vpc_endpoint_service_id", "/data/endpoint_service_name"}


def test_field_that_breaks_two_rules_has_two_violations() -> None:
    event = refused(rename_data(endpoint_service_name="orders of the shop"))

    assert event.violations == (
        ("/data/endpoint_service_name", "must hold letters, digits, _ and - only"),
        ("/data/endpoint_service_name", "must have at most 16 characters"),
    )


def test_violations_are_fifty_at_most() -> None:
    fifty = refused(rename_data(**{f"field{number}": 1 for number in range(50)})).violations
    more = refused(rename_data(**{f"field{number}": 1 for number in range(10_000)})).violations

    assert (len(fifty), len(more)) == (50, 51)
    assert ("", "and more") not in fifty
    assert more[-1] == ("", "and more")


def test_violations_that_are_not_reported_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | int] = []

    def escaped(step: str | int) -> str:
        made.append(step)
        return str(step)

    monkeypatch.setattr("function.domain.violations.escape_pointer", escaped)

    refused(rename_data(**{f"field{number}": 1 for number in range(10_000)}))

    assert 50 < len(made) < 60


def test_too_many_attributes_are_not_validated_except_those_of_the_schema() -> None:
    event = refused(rename_event(id="", **{f"Field{number}": None for number in range(10_000)}))

    assert event.violations == (("", "must have at most 32 attributes"), ("/id", "must not be empty"))


def test_attributes_of_the_transport_are_counted_too() -> None:
    event = refused(rename_data(), transport(**{f"Field{number}": "x" for number in range(10_000)}))

    assert event.violations == (("", "must have at most 32 attributes"),)


def members(name: str, value: str, number: int) -> str:
    return ", ".join(f'"{name}{index}": {value}' for index in range(number))


MANY_VIOLATIONS = {
    "attributes of malformed names": f'{{"data": {{}}, {members("A", "1", 20_000)}}}',
    "attributes": f'{{"data": {{}}, {members("a", "1", 20_000)}}}',
    "null attributes": f'{{"data": {{}}, {members("A", "null", 15_000)}}}',
    "fields of data": f'{{"data": {{{members("a", "1", 20_000)}}}}}',
    "attributes of a notification": json.dumps(
        sns_notification(
            rename_data(),
            MessageAttributes={f"ce_{number}": {"Type": "String", "Value": ""} for number in range(5_000)},
        )
    ),
}


@pytest.mark.parametrize("text", MANY_VIOLATIONS.values(), ids=MANY_VIOLATIONS)
def test_event_with_many_violations_takes_no_longer_than_reading_it(text: str) -> None:
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


# Each "MARK" is where something is malformed.
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
def test_no_violation_repeats_the_content_of_the_event(content: object) -> None:
    event = refused(content)

    assert not [violation.message for violation in event.violations if "MARK" in violation.message]
