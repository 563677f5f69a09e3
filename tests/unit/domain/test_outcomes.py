"""Outcome events: the request they repeat, what they name, their identity and size."""

from __future__ import annotations

import json

import pytest

from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import EventName, Failure, Kind, RenameFailedError
from function.domain.model import RENAME_FAILED, RENAMED, InvalidEvent, RedriveCycle, RenameEvent
from function.domain.outcomes import outcome_from_json, outcome_id, rename_failed, renamed
from function.domain.policy import FORBIDDEN_PROJECT
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
)

# ---- The request in an outcome


def test_the_request_of_a_valid_event_is_the_event_in_structured_mode() -> None:
    event = accepted(rename_data(), transport(id="8f0c", source="/cmdb", time=TIME))

    assert failure_outcome(event).cloud_event["data"]["request"] == rename_event(id="8f0c")


def test_the_request_of_an_invalid_event_is_the_event_where_it_is_an_object() -> None:
    content = rename_event(data={"vpc_endpoint_service_id": "..", "unknown": [1, 2.5, None, True, "é\u0000"]})

    assert failure_outcome(refused(content)).cloud_event["data"]["request"] == content


def test_the_request_of_invalid_data_holds_the_attributes_of_the_transport() -> None:
    event = refused({"name": "orders"}, transport(id="8f0c", source="/cmdb", time=TIME, team="shop"))

    expected = rename_event(id="8f0c", source="/cmdb", team="shop", data={"name": "orders"})
    assert failure_outcome(event).cloud_event["data"]["request"] == expected


@pytest.mark.parametrize("text", ["", "orders", "[1]", '"{}"', "null", '{"a": 1, "a": 2}', '{"a": \u0000'])
def test_the_request_of_no_object_is_the_raw_text(text: str) -> None:
    assert failure_outcome(refused(text)).cloud_event["data"]["request"] == text


def test_the_request_of_no_object_is_clipped() -> None:
    text = "漢" * (LARGEST_EVENT // 3)

    request = failure_outcome(refused(text)).cloud_event["data"]["request"]

    assert text.startswith(request)
    assert 1 * KILOBYTE <= len(request) < len(text)


def test_the_request_of_too_large_an_event_is_its_clipped_text() -> None:
    text = json.dumps(rename_event()).ljust(LARGEST_EVENT + 1)

    request = failure_outcome(refused(text)).cloud_event["data"]["request"]

    assert text.startswith(request)
    assert len(request) >= 1 * KILOBYTE


def test_the_request_of_an_invalid_event_that_fits_no_outcome_is_its_clipped_text() -> None:
    text = json.dumps(rename_event(team="a" * 200 * KILOBYTE))

    request = failure_outcome(refused(text)).cloud_event["data"]["request"]

    assert isinstance(request, str)
    assert text.startswith(request)


def test_a_lone_surrogate_does_not_stop_the_outcome() -> None:
    outcome = failure_outcome(refused(f'{{"id": "{LONE_SURROGATE}", "source": "/cmdb"}}'))

    assert json.loads(outcome.to_json().encode())["data"]["request"] == '{"id": "?", "source": "/cmdb"}'


# ---- What an outcome names


def test_an_outcome_names_what_the_event_names() -> None:
    data = failure_outcome(accepted(rename_data(project_id=OTHER_PROJECT, region=OTHER_REGION))).cloud_event["data"]

    assert (data["project_id"], data["region"]) == (OTHER_PROJECT, OTHER_REGION)
    assert (data["vpc_endpoint_service_id"], data["endpoint_service_name"]) == (SERVICE, "orders")


def test_an_outcome_names_the_functions_own_where_the_event_names_none() -> None:
    data = failure_outcome(accepted(rename_data())).cloud_event["data"]

    assert (data["project_id"], data["region"]) == (PROJECT, REGION)


def test_an_outcome_of_an_invalid_event_names_what_it_can() -> None:
    data = failure_outcome(refused(rename_data(endpoint_service_name="orders.v2", region=4))).cloud_event["data"]

    assert data["vpc_endpoint_service_id"] == SERVICE
    assert data["endpoint_service_name"] == "orders.v2"
    assert data["region"] == REGION


@pytest.mark.parametrize("content", ["orders", "[]", {"data": []}, {"data": {"vpc_endpoint_service_id": "a" * 201}}])
def test_an_outcome_names_no_service_where_there_is_none_to_name(content: object) -> None:
    outcome = failure_outcome(refused(content))

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
    first = failure_outcome(accepted(rename_event()))
    again = failure_outcome(
        accepted(rename_event(time="2026-11-01T00:00:00Z", data=rename_data(endpoint_service_name="other")))
    )

    assert first.id == again.id


def test_the_id_of_an_outcome_stays_what_it_was_in_earlier_versions() -> None:
    """Consumers remember ids; another one for the same event would be a second outcome to them."""
    assert outcome_id(accepted(rename_event())) == "0e824fbe-b0d5-5b67-8a04-228629c342dc"


def test_a_success_and_a_failure_of_one_event_have_one_id() -> None:
    event = accepted(rename_event())

    success = renamed(event, context(), service_name="orders", previous_service_name=None, huawei_request_id=None)

    assert success.id == failure_outcome(event).id
    assert (success.type, failure_outcome(event).type) == (RENAMED, RENAME_FAILED)


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

    assert failure_outcome(first).id != failure_outcome(second).id


def test_an_invalid_event_has_one_outcome_id_however_often_it_comes() -> None:
    assert failure_outcome(refused("orders")).id == failure_outcome(refused("orders")).id
    assert failure_outcome(refused({"data": 1})).id == failure_outcome(refused({"data": 1})).id


def test_an_event_that_was_mended_gets_another_outcome_id() -> None:
    """Two outcomes of one id must not contradict each other."""
    wrong = refused(rename_event(data=rename_data(endpoint_service_name="orders.v2")))
    still_wrong = refused(rename_event(data=rename_data(endpoint_service_name="orders.v3")))
    right = accepted(rename_event())

    assert len({failure_outcome(event).id for event in (wrong, still_wrong, right)}) == 3


def test_data_whose_attributes_were_mended_gets_another_outcome_id() -> None:
    wrong = refused(rename_data(), transport(id="8f0c", time="soon"))
    still_wrong = refused(rename_data(), transport(id="8f0c", type="other"))

    assert failure_outcome(wrong).id != failure_outcome(still_wrong).id


def test_an_event_found_invalid_late_has_the_outcome_id_that_it_has_when_found_at_once() -> None:
    """Whether a project is allowed may be known on one receive and not on the next."""

    def cannot_tell(_: Deadline) -> str:
        raise RenameFailedError(failures.credentials("down", kind=Kind.UNAVAILABLE))

    text = json.dumps(rename_event(data=rename_data(project_id="another-project")))
    late = parser(default_project=cannot_tell).parse(text, transport(), within(60.0))
    assert isinstance(late, RenameEvent)

    assert failure_outcome(late.refused(FORBIDDEN_PROJECT)).id == failure_outcome(refused(text)).id


def test_an_event_found_invalid_late_is_answered_as_itself() -> None:
    event = accepted(rename_event(id="8f0c"))

    invalid = event.refused(FORBIDDEN_PROJECT)

    assert (invalid.id, invalid.source) == ("8f0c", "/cmdb")
    assert invalid.violations == (FORBIDDEN_PROJECT,)
    assert failure_outcome(invalid).cloud_event["data"]["request"] == rename_event(id="8f0c")
    assert failure_outcome(invalid).id != failure_outcome(event).id


def test_an_outcome_after_a_redrive_has_an_id_of_its_own_and_names_the_one_before() -> None:
    event = accepted(rename_event())
    first = failure_outcome(event)

    second = rename_failed(event, context(cycle=RedriveCycle(1, first.id)), failures.internal_error())
    third = rename_failed(event, context(cycle=RedriveCycle(2, second.id)), failures.internal_error())

    assert len({first.id, second.id, third.id}) == 3
    assert "follows" not in first.cloud_event["data"]
    assert second.cloud_event["data"]["follows"] == first.id
    assert third.cloud_event["data"]["follows"] == second.id


def test_two_events_of_one_identity_have_two_outcome_ids() -> None:
    first = accepted(rename_event())
    others = [accepted(rename_event(data=rename_data(endpoint_service_name=name))) for name in ("other", "another")]

    reused = [rename_failed(event, context(), failures.identifier_reused()) for event in others]

    assert len({failure_outcome(first).id, *(outcome.id for outcome in reused)}) == 3
    assert rename_failed(others[0], context(), failures.identifier_reused()).id == reused[0].id


def test_an_outcome_that_was_superseded_names_the_newer_event() -> None:
    failure = failures.superseded(EventName("/cmdb", "event-2"))

    data = rename_failed(accepted(rename_event()), context(), failure).cloud_event["data"]

    assert data["superseded_by"] == {"source": "/cmdb", "id": "event-2"}


def test_a_success_is_read_back_as_it_was_written() -> None:
    event = accepted(rename_event(id="é\U0001f600", traceparent=TRACEPARENT))
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
    outcome = rename_failed(accepted(rename_event()), context(), failure)

    again = outcome_from_json(outcome.to_json())

    assert again.cloud_event == outcome.cloud_event
    assert (outcome.remembered, again.remembered) == (False, True)
    assert again.failure is not None
    told = ("code", "message", "kind", "retryable", "http_status", "huawei_request_id", "violations")
    assert [getattr(again.failure, name) for name in told] == [getattr(failure, name) for name in told]


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
    outcome = failure_outcome(parse(text))

    assert entry_size(outcome) <= LARGEST_ENTRY


@pytest.mark.parametrize(
    "value", ["a" * 250 * KILOBYTE, '"' * 200 * KILOBYTE, "😀" * 60 * KILOBYTE], ids=["a", "quote", "😀"]
)
@pytest.mark.parametrize("attribute", ["id", "source", "time", "type", "team"])
def test_an_outcome_fits_the_bus_whatever_the_transport_carries(attribute: str, value: str) -> None:
    """SQS lets attributes be as large as bodies."""
    for content in (rename_data(), {"x": "a" * 120 * KILOBYTE}, "orders"):
        outcome = failure_outcome(parse(content, transport(**{attribute: value})))

        assert entry_size(outcome) <= LARGEST_ENTRY


def test_an_outcome_fits_the_bus_whatever_huawei_cloud_says() -> None:
    endless = "漢" * 300 * KILOBYTE
    failure = from_reply(endless, endless, status=400, huawei_request_id=endless)

    outcome = rename_failed(accepted(rename_event()), context(), failure)

    assert entry_size(outcome) <= LARGEST_ENTRY


def test_an_outcome_has_a_utf_8_form_whatever_huawei_cloud_says() -> None:
    failure = from_reply("EndPoint.2003", f"no such service {LONE_SURROGATE}", status=400)

    outcome = rename_failed(accepted(rename_event()), context(), failure)

    assert json.loads(outcome.to_json().encode())["data"]["error"]["code"] == "EndPoint.2003"
