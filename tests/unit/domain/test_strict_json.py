"""Texts that are not a JSON object, or too large."""

from __future__ import annotations

import json

import pytest

from tests.fakes.domain import parser
from tests.fakes.events import rename_event, transport
from tests.unit.domain.parsing import (
    LARGEST_ENTRY,
    LARGEST_EVENT,
    LONE_SURROGATE,
    accepted,
    entry_size,
    failure_outcome,
    paths,
    refused,
)

VALID = json.dumps(rename_event())
MANY_NINES = "9" * 100_000


@pytest.mark.parametrize("id_", ["event-1", "é" * 1000], ids=["ASCII", "two bytes a character"])
def test_size_limit_is_256_kilobytes_of_utf_8(id_: str) -> None:
    text = json.dumps(rename_event(id=id_), ensure_ascii=False)
    full = text + " " * (LARGEST_EVENT - len(text.encode()))

    assert len(full.encode()) == LARGEST_EVENT
    assert accepted(full).id == id_
    assert refused(full + " ").too_large


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "orders", "{", '{"id": "event-1"', '{"id": "event-1",}', "<event/>"),
        *("\u0000", "\ufeff", str(rename_event())),
        *(VALID[:-1], VALID + "}", VALID * 2, "\ufeff\ufeff" + VALID),
        *('{"id": "a\u0000b"}', '{"id": "a\tb"}', '{"id": "\\x41"}', f'{{"id": {LONE_SURROGATE}}}'),
        *("NaN", "Infinity", "-Infinity"),
        *(f'{{"team": {number}}}' for number in ("NaN", "Infinity", "1e999", "-1e999")),
        *(f'{{"team": {number}}}' for number in ("9" * 4301, f"-{MANY_NINES}", f"{MANY_NINES}.5", f"1e{MANY_NINES}")),
        *(json.dumps(rename_event(id=id_)) for id_ in (LONE_SURROGATE, "\udc00\ud800")),
        json.dumps(rename_event(id=LONE_SURROGATE), ensure_ascii=False),
        json.dumps({LONE_SURROGATE: 1}),
        *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"data":' * 20_000 + "1" + "}" * 20_000),
        *(f'{{"data": {"[" * depth}{"]" * depth}}}' for depth in (100, 900, 5_000)),
    ],
    ids=lambda text: f"{text[:20]!a}({len(text)})",
)
def test_text_that_is_not_json_is_one_violation_of_the_whole_event(text: str) -> None:
    event = refused(text)

    assert paths(event) == {""}
    assert len(event.violations) == 1
    assert not event.too_large


@pytest.mark.parametrize("content", ["null", "true", "7", "1.5", '"orders"', "[]", json.dumps([rename_event()])])
@pytest.mark.parametrize("structured", [None, True, False])
def test_json_of_another_type_is_one_violation_of_the_whole_event(content: str, structured: bool | None) -> None:
    assert refused(content, structured=structured).violations == (("", "must be an object"),)


@pytest.mark.parametrize(
    "text",
    [
        '{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "endpoint_service_name": "b"}',
        '{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "endpoint_service_\\u006eame": "c"}',
        VALID[:-1] + ', "id": "event-2"}',
        VALID.replace('"data": {', '"data": {"endpoint_service_name": "billing", '),
        VALID[:-1] + ', "team": [{"a": {"b": 1, "b": 2}}]}',
    ],
    ids=["data", "escaped", "attributes", "data in an event", "deeper"],
)
def test_key_that_comes_twice_is_refused_at_every_level(text: str) -> None:
    assert refused(text).violations == (("", "is not JSON: an object has two members of one name"),)


def test_nesting_deeper_than_the_limit_is_one_violation_of_the_whole_event() -> None:
    deep = f'{{"vpc_endpoint_service_id": "a", "endpoint_service_name": "b", "c": {"[" * 15}1{"]" * 15}}}'

    assert paths(refused(deep)) == {"/data/c"}
    assert refused(deep.replace("1", "[1]")).violations == (("", "must be nested at most 16 deep"),)


@pytest.mark.parametrize("text", [" ", "é", '{"id": "event-1"}', LONE_SURROGATE])
def test_event_larger_than_256_kilobytes_is_not_parsed(text: str) -> None:
    event = refused(text.ljust(LARGEST_EVENT + 1))

    assert event.too_large
    assert event.violations == (("", "must have at most 262144 bytes"),)


def test_unreadable_event_is_refused_with_its_id_and_a_message() -> None:
    event = parser().unreadable("\ufffd" * LARGEST_EVENT, transport(id="8f0c"), "must be UTF-8")

    assert event.violations == (("", "must be UTF-8"),)
    assert event.id == "8f0c"
    assert entry_size(failure_outcome(event)) <= LARGEST_ENTRY
