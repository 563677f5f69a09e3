"""The previous name: read for the outcome alone; a failed read does not prevent the rename."""

from __future__ import annotations

import logging

import pytest

from function.domain import failures
from function.domain.failures import Failure
from function.domain.model import Outcome
from function.domain.ports import ReadPurpose
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import SERVICE
from tests.fakes.world import World

MAY_NOT_READ = refusal("EndPoint.0004", 403)


def renamed(world: World, *, seconds: float = 60.0) -> dict[str, object]:
    outcome = world.settle(seconds=seconds, read_previous_name=True)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.failure is None
    data: dict[str, object] = outcome.cloud_event["data"]
    return data


@pytest.mark.parametrize(
    "reply",
    [unavailable(), throttled(60.0), not_found(), MAY_NOT_READ, wrong_key(), failures.timeout(), RuntimeError(), None],
)
def test_failed_read_of_the_previous_name_does_not_prevent_the_rename(
    world: World, reply: Failure | Exception | None
) -> None:
    if isinstance(reply, Failure):
        world.services.refuse(reply, on="read", times=None)
    elif reply:
        world.services.crash(reply, on="read", times=None)
    else:
        world.services.report(None, on="read", times=None)

    data = renamed(world)

    assert "previous_service_name" not in data
    assert data["attempts"] == 1
    assert [call.operation for call in world.services.calls] == ["read", "rename"]
    assert world.clock.sleeps == []


@pytest.mark.parametrize(("left", "most"), [(60.0, 2.0), (3.0, 1.5), (1.0, 0.5)])
def test_read_of_the_previous_name_has_two_seconds_and_half_of_the_time_left_at_most(
    world: World, left: float, most: float
) -> None:
    renamed(world, seconds=left)

    assert world.services.calls[0].seconds == pytest.approx(most)
    assert world.services.purposes == [ReadPurpose.OUTCOME]


def test_previous_name_is_not_read_if_too_little_time_would_be_left(world: World) -> None:
    assert "previous_service_name" not in renamed(world, seconds=0.9)
    assert [call.operation for call in world.services.calls] == ["rename"]


def test_previous_name_that_a_precondition_needs_is_read_again_after_a_failure(world: World) -> None:
    world.services.refuse(unavailable(), on="read")

    outcome = world.settle(world.event(expected_name="billing"), read_previous_name=True)

    assert isinstance(outcome, Outcome)
    assert outcome.cloud_event["data"]["previous_service_name"].split(".")[1] == "billing"
    assert world.services.purposes == [ReadPurpose.DECISION] * 2


@pytest.mark.parametrize("expected", [{}, {"expected_name": "billing"}])
def test_new_name_is_not_reported_as_previous_name(world: World, expected: dict[str, str]) -> None:
    """An earlier invocation may have set it for this event, and the caller of the API may have sent it again."""
    world.services.names[SERVICE] = "orders"

    outcome = world.settle(world.event(**expected), read_previous_name=True)

    assert isinstance(outcome, Outcome)
    assert outcome.failure is None
    assert "previous_service_name" not in outcome.cloud_event["data"]


def test_missing_permission_to_read_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = world.real_telemetry()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            telemetry.previous_name_unreadable(MAY_NOT_READ)

    assert [record.getMessage() for record in caplog.records] == [
        "READ_PREVIOUS_NAME: the key may not read endpoint services, outcomes lack previous_service_name"
    ]
    assert vars(caplog.records[0])["error_code"] == "EndPoint.0004"


@pytest.mark.parametrize(("failure", "times"), [(MAY_NOT_READ, 1), (unavailable(), 0)])
def test_read_is_reported_as_unreadable_only_if_it_is_forbidden(world: World, failure: Failure, times: int) -> None:
    unreadable: list[Failure] = []
    world.on_unreadable = unreadable.append
    world.services.refuse(failure, on="read")

    renamed(world)

    assert unreadable == [failure] * times
