"""What the settings and the clock allow: names, projects, regions, times ahead."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from function.domain.model import InvalidEvent, RenameEvent
from tests.deadlines import within
from tests.fakes.domain import parser
from tests.fakes.events import rename_data, rename_event, transport
from tests.fakes.identifiers import NOW
from tests.unit.domain.parsing import accepted, paths, refused, unknown_project


def test_time_five_minutes_ahead_is_accepted() -> None:
    ahead = NOW + timedelta(minutes=5)

    assert accepted(rename_event(time=ahead.isoformat())).time == ahead


@pytest.mark.parametrize(
    "ahead", [timedelta(minutes=5, seconds=1), timedelta(minutes=5, microseconds=1), timedelta(3650)]
)
def test_time_more_than_five_minutes_ahead_is_refused(ahead: timedelta) -> None:
    """Every rename after it would be superseded by it."""
    event = refused(rename_event(time=(NOW + ahead).isoformat()))

    assert event.violations == (("/time", "lies more than five minutes in the future"),)


def test_name_too_long_for_the_settings_is_a_candidate_for_other_settings() -> None:
    too_long = refused(rename_event(data=rename_data(endpoint_service_name="n" * 17)))
    with_a_blank = refused(rename_event(data=rename_data(endpoint_service_name="n " * 9)))

    assert too_long.candidate is not None
    assert too_long.candidate.endpoint_service_name == "n" * 17
    assert with_a_blank.candidate is None


def test_time_ahead_is_judged_with_its_offset() -> None:
    text = (NOW + timedelta(minutes=6)).replace(tzinfo=None).isoformat(timespec="seconds")

    assert paths(refused(rename_event(time=f"{text}Z"))) == {"/time"}
    assert accepted(rename_event(time=f"{text}+00:02"))


@pytest.mark.parametrize("limit", [1, 16, 18, 64])
def test_maximum_name_length_is_a_setting_of_one_policy_alone(limit: int) -> None:
    limited = parser(name_max_length=limit)
    parser(name_max_length=65)

    longest, longer = (
        limited.parse(json.dumps(rename_data(endpoint_service_name="a" * length)), transport(), within(60.0))
        for length in (limit, limit + 1)
    )

    assert isinstance(longest, RenameEvent)
    assert isinstance(longer, InvalidEvent)
    assert longer.violations == (("/data/endpoint_service_name", f"must have at most {limit} characters"),)


@pytest.mark.parametrize("field", ["project_id", "region"])
def test_malformed_project_or_region_is_refused_without_asking_for_the_default_project(field: str) -> None:
    text = json.dumps(rename_data(**{field: "../x"}))

    event = parser(default_project=lambda _: pytest.fail("asked")).parse(text, transport(), within(60.0))

    assert isinstance(event, InvalidEvent)
    assert paths(event) == {f"/data/{field}"}


def test_project_that_cannot_be_judged_now_is_accepted() -> None:
    text = json.dumps(rename_data(project_id="any"))
    event = parser(default_project=unknown_project).parse(text, transport(), within(60.0))

    assert isinstance(event, RenameEvent)
    assert event.project_id == "any"
