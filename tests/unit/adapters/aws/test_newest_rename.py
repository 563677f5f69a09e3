"""The newest rename of a service wins, by the event's time; each service in its own region and project."""

from __future__ import annotations

from datetime import timedelta

import pytest

from function.domain import failures
from function.domain.failures import EventName, Kind
from function.domain.model import FIRST_CYCLE, Target
from function.domain.ports import Claim, Known, Located, Superseded
from function.domain.rename_service import Unsettled
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import SERVICE, START
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    EVENT,
    HOUR_BEFORE,
    OTHER_EVENT,
    OTHER_TARGET,
    SERVICE_KEY,
    TARGET,
    LedgerDriver,
    at,
    event,
)

NEWER = EventName("/cmdb", "event-2")


def test_event_older_by_a_microsecond_is_superseded(ledger: LedgerDriver) -> None:
    ledger.settled(event("newer", source="/other"))

    assert ledger.superseded(event(time=at(microseconds=-1))) == (EventName("/other", "newer"), FIRST_CYCLE)


@pytest.mark.parametrize(
    "time",
    [
        at(),
        at(microseconds=1),
        at(minutes=4),
        # The same moment, in a text that sorts before.
        f"{(START.replace(tzinfo=None) - timedelta(hours=8)).isoformat()}-08:00",
    ],
)
def test_event_of_the_same_time_or_later_is_claimed_for(ledger: LedgerDriver, time: str) -> None:
    ledger.settled(EVENT)

    assert ledger.claimed(event("event-2", time=time))


@pytest.mark.parametrize("years", [1, 100, 1_000])
def test_event_older_by_years_is_superseded(ledger: LedgerDriver, years: int) -> None:
    ledger.settled(EVENT)

    assert ledger.superseded(event("event-2", time=START.replace(year=START.year - years).isoformat()))


def test_times_before_1970_are_compared(ledger: LedgerDriver) -> None:
    ledger.settled(event(time="1905-06-30T00:00:00Z"))

    assert ledger.superseded(event("event-2", time="1905-06-29T00:00:00Z"))
    assert ledger.claimed(event("event-3", time="1905-07-01T00:00:00Z"))


def test_newest_rename_does_not_supersede_events_of_other_services(ledger: LedgerDriver) -> None:
    ledger.settled(EVENT)

    assert ledger.claimed(event("event-2", time=at(days=-1)), OTHER_TARGET)


def test_stale_event_on_a_held_service_is_superseded(ledger: LedgerDriver) -> None:
    ledger.settled(EVENT)
    ledger.claimed(OTHER_EVENT)

    assert ledger.superseded(HOUR_BEFORE) == (EventName("/cmdb", "event-1"), FIRST_CYCLE)


def test_superseded_event_leaves_the_service_free(ledger: LedgerDriver) -> None:
    ledger.settled(EVENT)
    ledger.claim(HOUR_BEFORE)

    assert not ledger.is_held()


@pytest.mark.parametrize(
    ("first", "second", "is_stale"),
    [
        ("00.123456789Z", "00.123456001Z", True),
        ("00.123456001Z", "00.123456789Z", False),
        ("00.123456789Z", "00.123456Z", True),
        ("00.123456Z", "00.123456000Z", False),
        ("00.1234567Z", "00.123456700Z", False),
        ("00.9999999Z", "00.999999899Z", True),
    ],
)
def test_times_are_compared_below_a_microsecond(ledger: LedgerDriver, first: str, second: str, is_stale: bool) -> None:
    ledger.settled(event("first", time=f"2026-11-24T02:00:{first}"))

    answer = ledger.claim(event("second", time=f"2026-11-24T02:00:{second}"))

    assert isinstance(answer, Superseded if is_stale else Claim)


def test_time_is_stored_in_microseconds_with_decimals(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    ledger.settled(event(time="2026-11-24T02:00:00.123456789Z"))

    assert (dynamodb.item(SERVICE_KEY) or {})["newest_time"] == {"N": "1795485600123456.789"}


# ---- An event keeps the time of its first claim: a copy that the transport gave a later one is not newer for it

FIRST = event(time=at(hours=-1))
COPY = event(time=at(minutes=1))


def test_copy_has_the_time_of_the_first_claim(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(FIRST)

    assert ledger.claimed(COPY).event == FIRST


def test_first_claim_has_the_time_of_its_event(ledger: LedgerDriver) -> None:
    assert ledger.claimed(COPY).event == COPY


def test_copy_does_not_undo_a_newer_rename(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(FIRST)
    ledger.settled(OTHER_EVENT)

    assert ledger.claim(COPY) == Superseded(NEWER, FIRST_CYCLE, FIRST)


def test_settled_copy_does_not_supersede_what_is_newer_than_the_first(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(FIRST)
    assert ledger.settle(ledger.claimed(COPY)) is None

    assert ledger.claimed(OTHER_EVENT)


def test_copy_of_an_event_given_up_has_the_time_of_its_outcome(ledger: LedgerDriver) -> None:
    ledger.given_up(FIRST)

    claim = ledger.claimed(COPY)

    assert (claim.event, claim.cycle.number) == (FIRST, 1)


def test_copy_of_a_settled_event_gets_its_outcome(ledger: LedgerDriver) -> None:
    outcome = ledger.settled(FIRST)

    assert ledger.claim(COPY) == Known(outcome, None)


def test_copy_is_refused_while_the_first_one_is_held(ledger: LedgerDriver) -> None:
    ledger.claimed(FIRST)

    assert failed(ledger.claim, COPY).code == "Rename.InProgress"


def test_conclusion_that_requires_the_same_time_is_refused_for_a_copy(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(FIRST)
    superseded = failures.superseded(EventName("/cmdb", "newer"))

    failure = failed(lambda: ledger.conclude(COPY, superseded, require_same_time=True))

    assert (failure.kind, failure.retryable) == (Kind.UNAVAILABLE, True)
    assert ledger.claimed(FIRST)


def test_copy_that_is_given_up_without_a_claim_keeps_the_time_of_the_first_claim(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(FIRST)
    ledger.settled(OTHER_EVENT)
    ledger.given_up(COPY)

    by, cycle = ledger.superseded(COPY)

    assert (by, cycle.number) == (NEWER, 1)


# ---- Region and project of an event that names none: those of its first claim

ELSEWHERE = Target("eu-west-101", "another-project", SERVICE)


def test_event_keeps_the_region_and_project_of_its_first_claim(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(EVENT)

    assert ledger.claimed(EVENT, ELSEWHERE).target == TARGET


def test_redriven_event_keeps_the_region_and_project_of_its_first_claim(ledger: LedgerDriver) -> None:
    ledger.claimed_and_released(EVENT)
    ledger.given_up(EVENT, target=TARGET)

    claim = ledger.claimed(EVENT, ELSEWHERE)

    assert (claim.target, claim.cycle.number) == (TARGET, 1)


@pytest.mark.parametrize("is_redriven", [False, True])
def test_conclusion_for_another_region_returns_the_one_of_the_claim(ledger: LedgerDriver, is_redriven: bool) -> None:
    ledger.claimed_and_released(EVENT)
    cycle = ledger.next_cycle(EVENT, target=TARGET) if is_redriven else FIRST_CYCLE

    assert ledger.conclude(EVENT, unavailable(), cycle, target=ELSEWHERE) == Located(TARGET)

    # then: it changed nothing
    assert ledger.given_up(EVENT, cycle, target=TARGET)


def test_outcome_of_an_event_given_up_has_the_region_and_project_of_its_claim(
    ledger: LedgerDriver, world: World
) -> None:
    ledger.claimed_and_released(EVENT, ELSEWHERE)

    world.give_up(Unsettled(unavailable(), attempts=1))

    [outcome] = world.bus.outcomes
    data = outcome.cloud_event["data"]
    assert (data["region"], data["project_id"]) == ("eu-west-101", "another-project")


def test_event_is_renamed_in_the_region_and_project_of_its_first_claim(ledger: LedgerDriver, world: World) -> None:
    ledger.claimed_and_released(EVENT, ELSEWHERE)

    world.settle()

    assert [call.target for call in world.services.calls] == [ELSEWHERE]
