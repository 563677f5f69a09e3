"""What the settings and the clock allow: names, projects, regions, times ahead."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import InvalidEvent, RenameEvent
from tests.deadlines import within
from tests.fakes.domain import Intake, parser
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import NOW, PROJECT
from tests.unit.domain.parsing import accepted, paths, refused


def test_a_time_five_minutes_ahead_is_taken() -> None:
    ahead = NOW + timedelta(minutes=5)

    assert accepted(rename_event(time=ahead.isoformat())).time == ahead


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
    assert accepted(rename_event(time=f"{text}+00:02"))


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
