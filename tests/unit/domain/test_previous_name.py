"""The previous name: read for the outcome alone, and never in the way of a rename."""

from __future__ import annotations

import json
import logging
from functools import partial

import pytest

from function.domain import failures
from function.domain.failures import Failure
from function.domain.model import Outcome, RedriveCycle
from function.domain.ports import Claim, ReadPurpose
from tests.fakes.endpoint_services import full_name
from tests.fakes.events import cloud_event, sqs_record
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import SERVICE
from tests.fakes.world import World

MAY_NOT_READ = refusal("EndPoint.0004", 403)


def renamed(world: World, *, seconds: float = 60.0, tried_before: bool = False) -> dict[str, object]:
    service = world.rename_service(read_previous_name=True)
    outcome = service.settle(world.event(), world.clock.until(seconds), "sqs", tried_before=tried_before)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.failure is None
    data: dict[str, object] = outcome.cloud_event["data"]
    return data


@pytest.mark.parametrize(
    "failure", [unavailable(), throttled(60.0), not_found(), MAY_NOT_READ, wrong_key(), failures.timeout()]
)
def test_failed_read_keeps_no_rename_from_happening(world: World, failure: Failure) -> None:
    world.services.refuse(failure, on="read", times=None)

    data = renamed(world)

    assert "previous_service_name" not in data
    assert data["attempts"] == 1
    assert [call.operation for call in world.services.calls] == ["read", "rename"]
    assert world.clock.sleeps == []


def test_exception_in_the_read_keeps_no_rename_from_happening(world: World) -> None:
    world.services.crash(RuntimeError(), on="read")

    assert "previous_service_name" not in renamed(world)


def test_reply_without_a_name_is_no_previous_name(world: World) -> None:
    world.services.report(None, on="read")

    assert "previous_service_name" not in renamed(world)


@pytest.mark.parametrize(("left", "most"), [(60.0, 2.0), (3.0, 1.5), (1.0, 0.5)])
def test_read_has_two_seconds_and_half_of_the_time_left_at_most(world: World, left: float, most: float) -> None:
    renamed(world, seconds=left)

    assert world.services.calls[0].seconds == pytest.approx(most)
    assert world.services.purposes == [ReadPurpose.OUTCOME]


def test_read_that_would_leave_too_little_time_is_not_made(world: World) -> None:
    assert "previous_service_name" not in renamed(world, seconds=0.9)
    assert [call.operation for call in world.services.calls] == ["rename"]


def test_name_that_a_precondition_is_about_is_read_as_before(world: World) -> None:
    world.services.refuse(unavailable(), on="read")

    outcome = world.settle(world.event(expected_name="billing"), read_previous_name=True)

    assert isinstance(outcome, Outcome)
    assert outcome.cloud_event["data"]["previous_service_name"].split(".")[1] == "billing"
    assert world.services.purposes == [ReadPurpose.DECISION] * 2


class TestNewNameAlready:
    @pytest.fixture(autouse=True)
    def _named(self, world: World) -> None:
        world.services.names[SERVICE] = "orders"

    def test_is_told_at_the_first_try(self, world: World) -> None:
        assert renamed(world)["previous_service_name"] == full_name(SERVICE, world.services.names)

    def test_is_not_told_where_the_event_was_tried_before(self, world: World) -> None:
        assert "previous_service_name" not in renamed(world, tried_before=True)

    def test_is_not_told_where_a_call_was_in_doubt(self, world: World) -> None:
        world.services.lose_reply(applied=True)

        assert "previous_service_name" not in renamed(world)

    def test_is_not_told_after_a_redrive(self, world: World) -> None:
        target = world.policy().target(world.event(), world.clock.until(60.0))
        claim = Claim("token", RedriveCycle(1, "before"), world.event(), target)
        world.ledger.held[target] = claim
        world.ledger.at_claim.append(claim)

        assert "previous_service_name" not in renamed(world)


def test_another_name_is_told_where_the_event_was_tried_before(world: World) -> None:
    previous = full_name(SERVICE, world.services.names)

    assert renamed(world, tried_before=True)["previous_service_name"] == previous


def test_missing_permission_is_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = world.real_telemetry()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            telemetry.previous_name_unreadable(MAY_NOT_READ)

    assert [record.getMessage() for record in caplog.records] == [
        "READ_PREVIOUS_NAME: the key may not read endpoint services, outcomes lack previous_service_name"
    ]
    assert json.dumps(caplog.records[0].__dict__["error_code"]) == '"EndPoint.0004"'


@pytest.mark.parametrize(("failure", "times"), [(MAY_NOT_READ, 1), (unavailable(), 0)])
def test_only_a_refused_read_is_said(world: World, failure: Failure, times: int) -> None:
    told: list[Failure] = []
    world.on_unreadable = told.append
    world.services.refuse(failure, on="read")

    renamed(world)

    assert told == [failure] * times


@pytest.mark.parametrize(("receive_count", "is_told"), [(1, True), (2, False)])
def test_message_that_comes_again_was_tried_before(world: World, receive_count: int, is_told: bool) -> None:
    world.services.names[SERVICE] = "orders"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "rename_service", partial(world.rename_service, read_previous_name=True))
        world.sqs(sqs_record(cloud_event(), receive_count=receive_count))

    [outcome] = world.bus.outcomes
    assert ("previous_service_name" in outcome.cloud_event["data"]) is is_told
