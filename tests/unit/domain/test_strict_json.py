"""Texts that are no JSON object, or too large."""

from __future__ import annotations

import json

import pytest

from tests.fakes.domain import parser
from tests.fakes.events import rename_event, transport
from tests.unit.domain.parsing import (
    LARGEST_ENTRY,
    LARGEST_EVENT,
    LONE_SURROGATE,
    _entry_size,
    answer,
    paths,
    refused,
    taken,
)


def test_an_event_of_exactly_256_kilobytes_is_taken() -> None:
    text = json.dumps(rename_event()).ljust(LARGEST_EVENT)

    assert taken(text).id == "event-1"


def test_the_limit_is_of_bytes_even_where_characters_have_several() -> None:
    text = json.dumps(rename_event(id="é" * 1000), ensure_ascii=False)
    full = text + " " * (LARGEST_EVENT - len(text.encode()))

    assert len(full) < len(full.encode()) == LARGEST_EVENT
    assert taken(full).id == "é" * 1000
    assert refused(full + " ").too_large


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
