"""Outcome events: the request they repeat, what they name, their identity and size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.failures import EventName, Failure
from function.domain.model import InvalidEvent, ParsedEvent, RedriveCycle, RenameEvent
from function.domain.outcomes import RENAME_FAILED, RENAMED, outcome_from_json, outcome_id, rename_failed, renamed
from function.domain.policy import FORBIDDEN_PROJECT
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.domain import context, parser
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_REGION, PROJECT, REGION, SERVICE, TIME
from tests.unit.domain.parsing import (
    KILOBYTE,
    LARGEST_ENTRY,
    LARGEST_EVENT,
    LONE_SURROGATE,
    TRACEPARENT,
    accepted,
    entry_size,
    failure_outcome,
    parse,
    refused,
    unknown_project,
)

INVALID = rename_event(data={"vpc_endpoint_service_id": "..", "unknown": [1, 2.5, None, True, "é\u0000"]})


def request_of(event: ParsedEvent) -> Any:
    """The request that the outcome of the event repeats."""
    return data_of(event)["request"]


def data_of(event: ParsedEvent) -> dict[str, Any]:
    data: dict[str, Any] = failure_outcome(event).cloud_event["data"]
    return data


@pytest.mark.parametrize(
    ("event", "request_"),
    [
        (accepted(rename_data(), transport(id="8f0c", source="/cmdb", time=TIME)), rename_event(id="8f0c")),
        (refused(INVALID), INVALID),
        (
            refused({"name": "orders"}, transport(id="8f0c", source="/cmdb", time=TIME, team="shop")),
            rename_event(id="8f0c", source="/cmdb", team="shop", data={"name": "orders"}),
        ),
    ],
    ids=["valid data", "invalid event", "invalid data"],
)
def test_request_in_an_outcome_is_the_event_in_structured_mode(event: ParsedEvent, request_: dict[str, Any]) -> None:
    assert request_of(event) == request_


@pytest.mark.parametrize("text", ["", "orders", "[1]", '"{}"', "null", '{"a": 1, "a": 2}', '{"a": \u0000'])
def test_request_in_the_outcome_of_a_text_that_is_no_object_is_the_text(text: str) -> None:
    assert request_of(refused(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "漢" * (LARGEST_EVENT // 3),
        json.dumps(rename_event()).ljust(LARGEST_EVENT + 1),
        json.dumps(rename_event(team="a" * 200 * KILOBYTE)),
    ],
    ids=["no object", "too large an event", "an invalid event too large for an outcome"],
)
def test_request_in_an_outcome_is_truncated_text_if_it_would_be_too_large(text: str) -> None:
    request = request_of(refused(text))

    assert text.startswith(request)
    assert 1 * KILOBYTE <= len(request) < len(text)


def test_lone_surrogate_is_replaced_in_the_outcome() -> None:
    outcome = failure_outcome(refused(f'{{"id": "{LONE_SURROGATE}", "source": "/cmdb"}}'))

    assert json.loads(outcome.to_json().encode())["data"]["request"] == '{"id": "?", "source": "/cmdb"}'


@pytest.mark.parametrize(
    ("named", "project_id", "region"),
    [({"project_id": OTHER_PROJECT, "region": OTHER_REGION}, OTHER_PROJECT, OTHER_REGION), ({}, PROJECT, REGION)],
    ids=["named by the event", "default"],
)
def test_outcome_names_project_region_service_and_name(named: dict[str, str], project_id: str, region: str) -> None:
    data = data_of(accepted(rename_data(**named)))

    assert (data["project_id"], data["region"]) == (project_id, region)
    assert (data["vpc_endpoint_service_id"], data["endpoint_service_name"]) == (SERVICE, "orders")


def test_outcome_of_an_invalid_event_names_what_is_valid_or_text() -> None:
    data = data_of(refused(rename_data(endpoint_service_name="orders.v2", region=4)))

    assert data["vpc_endpoint_service_id"] == SERVICE
    assert data["endpoint_service_name"] == "orders.v2"
    assert data["region"] == REGION


@pytest.mark.parametrize("content", ["orders", "[]", {"data": []}, {"data": {"vpc_endpoint_service_id": "a" * 201}}])
def test_outcome_of_an_event_without_a_service_id_has_no_subject(content: object) -> None:
    outcome = failure_outcome(refused(content))

    assert outcome.cloud_event["data"]["vpc_endpoint_service_id"] is None
    assert "subject" not in outcome.cloud_event


DEFAULTS = (transport().source, transport().id)


@pytest.mark.parametrize(
    ("content", "given", "identity"),
    [
        ({"data": 1, "id": "1", "source": "/cmdb"}, {}, ("/cmdb", "1")),
        ({"data": 1, "id": "1", "source": "/a"}, {"id": "2"}, ("/a", "1")),
        *[(body, {"id": "2", "source": "/b"}, ("/b", "2")) for body in ({"x": 1}, "orders")],
        *[(body, {}, DEFAULTS) for body in ("[]", {"x": 1}, {"data": 1, "id": 7, "source": ""})],
        ("orders", {"id": "", "source": ""}, DEFAULTS),
        pytest.param(rename_event(team="a" * 200 * KILOBYTE), {}, ("/cmdb", "event-1"), id="too large for an outcome"),
        pytest.param(" " * (LARGEST_EVENT + 1), {"id": "2"}, (transport().source, "2"), id="too large"),
    ],
)
def test_invalid_event_is_identified_by_its_body_then_by_its_transport(
    content: object, given: dict[str, str], identity: tuple[str, str]
) -> None:
    event = refused(content, transport(**given))

    assert (event.source, event.id) == identity


def test_redelivered_event_has_one_outcome_id() -> None:
    other = rename_event(time="2026-11-01T00:00:00Z", data=rename_data(endpoint_service_name="other"))

    assert failure_outcome(accepted(rename_event())).id == failure_outcome(accepted(other)).id
    for invalid in ("orders", {"data": 1}):
        assert failure_outcome(refused(invalid)).id == failure_outcome(refused(invalid)).id


def test_outcome_id_is_the_same_as_in_earlier_versions() -> None:
    """Consumers remember ids; another one for the same event would be a second outcome to them."""
    assert outcome_id(accepted(rename_event())) == "0e824fbe-b0d5-5b67-8a04-228629c342dc"


def test_success_and_failure_of_one_event_have_one_outcome_id() -> None:
    event = accepted(rename_event())

    success = renamed(event, context(), Reply("orders", 200, None))

    assert success.id == failure_outcome(event).id
    assert (success.type, failure_outcome(event).type) == (RENAMED, RENAME_FAILED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[(("/a", "b"), other) for other in (("/a", "c"), ("/b", "b"), ("/ab", ""))],
        (("/a", '/b", "c'), ('/a", "/b', "c")),
    ],
)
def test_two_events_have_two_outcome_ids(one: tuple[str, str], other: tuple[str, str]) -> None:
    first, second = (
        InvalidEvent(request="", id=event_id, source=source, time="", received="", violations=())
        for source, event_id in (one, other)
    )

    assert failure_outcome(first).id != failure_outcome(second).id


def test_corrected_event_has_another_outcome_id() -> None:
    """Two outcomes of one id must not contradict each other."""
    wrong, still_wrong = (
        refused(rename_event(data=rename_data(endpoint_service_name=name))) for name in ("orders.v2", "orders.v3")
    )
    assert len({failure_outcome(event).id for event in (wrong, still_wrong, accepted(rename_event()))}) == 3

    wrong, still_wrong = (
        refused(rename_data(), transport(id="8f0c", **attribute)) for attribute in ({"time": "soon"}, {"type": "other"})
    )
    assert failure_outcome(wrong).id != failure_outcome(still_wrong).id


def test_event_that_is_refused_late_has_the_same_outcome_id_as_one_refused_at_once() -> None:
    """Whether a project is allowed may be known on one receive and not on the next."""
    text = json.dumps(rename_event(data=rename_data(project_id="another-project")))
    late = parser(default_project=unknown_project).parse(text, transport(), within(60.0))
    assert isinstance(late, RenameEvent)

    assert failure_outcome(late.refused(FORBIDDEN_PROJECT)).id == failure_outcome(refused(text)).id


def test_outcome_of_an_event_that_is_refused_late_has_its_identity_and_request() -> None:
    event = accepted(rename_event(id="8f0c"))

    invalid = event.refused(FORBIDDEN_PROJECT)

    assert (invalid.id, invalid.source) == ("8f0c", "/cmdb")
    assert invalid.violations == (FORBIDDEN_PROJECT,)
    assert request_of(invalid) == rename_event(id="8f0c")
    assert failure_outcome(invalid).id != failure_outcome(event).id


def test_outcome_after_a_redrive_has_another_id_and_follows_the_one_before() -> None:
    event = accepted(rename_event())
    first = failure_outcome(event)

    second = rename_failed(event, context(cycle=RedriveCycle(1, first.id)), failures.internal_error())
    third = rename_failed(event, context(cycle=RedriveCycle(2, second.id)), failures.internal_error())

    assert len({first.id, second.id, third.id}) == 3
    assert "follows" not in first.cloud_event["data"]
    assert second.cloud_event["data"]["follows"] == first.id
    assert third.cloud_event["data"]["follows"] == second.id


def test_outcome_id_of_a_reused_identifier_depends_on_the_data() -> None:
    first = accepted(rename_event())
    others = [accepted(rename_event(data=rename_data(endpoint_service_name=name))) for name in ("other", "another")]

    reused = [rename_failed(event, context(), failures.identifier_reused()) for event in others]

    assert len({failure_outcome(first).id, *(outcome.id for outcome in reused)}) == 3
    assert rename_failed(others[0], context(), failures.identifier_reused()).id == reused[0].id


def test_outcome_of_a_superseded_event_names_the_newer_event() -> None:
    failure = failures.superseded(EventName("/cmdb", "event-2"))

    data = rename_failed(accepted(rename_event()), context(), failure).cloud_event["data"]

    assert data["superseded_by"] == {"source": "/cmdb", "id": "event-2"}


def test_success_is_equal_after_a_round_trip_through_json() -> None:
    event = accepted(rename_event(id="é\U0001f600", traceparent=TRACEPARENT))
    outcome = renamed(event, context(), Reply("orders", 200, "c6c9d52b"), "")

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
def test_failure_is_equal_after_a_round_trip_through_json(failure: Failure) -> None:
    outcome = rename_failed(accepted(rename_event()), context(), failure)

    again = outcome_from_json(outcome.to_json())

    assert again.cloud_event == outcome.cloud_event
    assert (outcome.remembered, again.remembered) == (False, True)
    assert again.failure is not None
    for name in ("code", "message", "kind", "retryable", "http_status", "huawei_request_id", "violations"):
        assert getattr(again.failure, name) == getattr(failure, name)


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
            ("fractions", '{"data": {"a": [*0]}}', "0.1,"),
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
def test_outcome_of_the_largest_event_fits_the_bus(text: str) -> None:
    assert entry_size(failure_outcome(parse(text))) <= LARGEST_ENTRY


@pytest.mark.parametrize(
    "value", ["a" * 250 * KILOBYTE, '"' * 200 * KILOBYTE, "😀" * 60 * KILOBYTE], ids=["a", "quote", "😀"]
)
@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team"])
def test_outcome_with_the_largest_attribute_of_a_transport_fits_the_bus(attribute: str, value: str) -> None:
    """SQS lets attributes be as large as bodies."""
    for content in (rename_data(), {"x": "a" * 120 * KILOBYTE}, "orders"):
        assert entry_size(failure_outcome(parse(content, transport(**{attribute: value})))) <= LARGEST_ENTRY


def test_outcome_with_the_largest_reply_of_huawei_cloud_fits_the_bus() -> None:
    endless = "漢" * 300 * KILOBYTE
    failure = from_reply(endless, endless, status=400, huawei_request_id=endless)

    assert entry_size(rename_failed(accepted(rename_event()), context(), failure)) <= LARGEST_ENTRY


def test_outcome_with_a_lone_surrogate_of_huawei_cloud_is_encodable() -> None:
    failure = from_reply("EndPoint.2003", f"no such service {LONE_SURROGATE}", status=400)

    outcome = rename_failed(accepted(rename_event()), context(), failure)

    assert json.loads(outcome.to_json().encode())["data"]["error"]["code"] == "EndPoint.2003"
