"""The newest rename of a service wins, by the event's time; each service in its own region and project."""

from __future__ import annotations

from datetime import timedelta

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.domain import failures
from function.domain.failures import EventName, Kind
from function.domain.model import FIRST_CYCLE, RedriveCycle, RenameEvent, Target
from function.domain.ports import Claim, Conclusion, Known, Located, Superseded
from function.domain.rename_service import Unsettled
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import SERVICE, START
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    OTHER_TARGET,
    SERVICE_KEY,
    TARGET,
    at,
    claimed,
    failure_of,
    give_up,
    held,
    lasting,
    settle,
    success_of,
    superseded,
)


class TestNewestRename:
    """A service bears the name of its newest event."""

    def test_shuts_out_an_older_event_by_a_microsecond(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event(id="newer", source="/other", time=at(START)))
        stale = world.event(time=at(START - timedelta(microseconds=1)))

        assert superseded(ledger, stale) == (EventName("/other", "newer"), FIRST_CYCLE)

    @pytest.mark.parametrize("later", [timedelta(), timedelta(microseconds=1), timedelta(minutes=4)])
    def test_lets_an_event_of_the_same_time_or_later_pass(
        self, ledger: DynamoDbLedger, world: World, later: timedelta
    ) -> None:
        settle(ledger, world.event(time=at(START)))

        assert claimed(ledger, world.event(id="event-2", time=at(START + later)))

    def test_is_compared_by_the_moment_and_not_by_its_text(self, ledger: DynamoDbLedger, world: World) -> None:
        # given: text that sorts the other way round
        settle(ledger, world.event(time=at(START)))
        same = START.replace(tzinfo=None) + timedelta(hours=8)

        assert claimed(ledger, world.event(id="event-2", time=f"{same.isoformat()}+08:00"))

    @pytest.mark.parametrize("years", [1, 100, 1_000])
    def test_shuts_out_events_of_any_age(self, ledger: DynamoDbLedger, world: World, years: int) -> None:
        settle(ledger, world.event())
        old = world.event(id="event-2", time=at(START.replace(year=START.year - years)))

        assert isinstance(ledger.claim(old, TARGET, lasting(ledger)), Superseded)

    def test_of_an_event_before_1970_is_compared_as_well(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event(time="1905-06-30T00:00:00Z"))

        assert isinstance(
            ledger.claim(world.event(id="e2", time="1905-06-29T00:00:00Z"), TARGET, lasting(ledger)), Superseded
        )
        assert claimed(ledger, world.event(id="e3", time="1905-07-01T00:00:00Z"))

    def test_is_of_its_own_service(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())

        assert claimed(ledger, world.event(id="event-2", time=at(START - timedelta(days=1))), OTHER_TARGET)

    def test_shuts_out_a_stale_event_though_the_service_is_held(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        claimed(ledger, world.event(id="event-2"))

        stale = world.event(id="event-3", time=at(START - timedelta(seconds=1)))

        assert superseded(ledger, stale) == (EventName("/cmdb", "event-1"), FIRST_CYCLE)

    def test_takes_nothing_for_a_stale_event(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        ledger.claim(world.event(id="event-2", time=at(START - timedelta(seconds=1))), TARGET, lasting(ledger))

        assert not held(ledger, world.event(id="event-3"))


class TestTime:
    """An event keeps the time of its first claim: a copy that the transport gave a later one is not newer for it."""

    @pytest.fixture
    def first(self, world: World) -> RenameEvent:
        return world.event(time=at(START - timedelta(hours=1)))

    @pytest.fixture
    def copy(self, world: World) -> RenameEvent:
        return world.event(time=at(START + timedelta(minutes=1)))

    def test_of_the_first_claim_is_the_events(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        ledger.release(claimed(ledger, first), lasting(ledger))

        assert claimed(ledger, copy).event == first

    def test_of_an_only_claim_is_its_own(self, ledger: DynamoDbLedger, copy: RenameEvent) -> None:
        assert claimed(ledger, copy).event == copy

    def test_of_a_later_copy_does_not_undo_a_newer_rename(
        self, ledger: DynamoDbLedger, world: World, first: RenameEvent, copy: RenameEvent
    ) -> None:
        ledger.release(claimed(ledger, first), lasting(ledger))
        settle(ledger, world.event(id="event-2", time=at(START)))

        answer = ledger.claim(copy, TARGET, lasting(ledger))

        assert answer == Superseded(EventName("/cmdb", "event-2"), FIRST_CYCLE, first)

    def test_of_a_later_copy_does_not_shut_out_what_is_newer_than_the_first(
        self, ledger: DynamoDbLedger, world: World, first: RenameEvent, copy: RenameEvent
    ) -> None:
        ledger.release(claimed(ledger, first), lasting(ledger))
        claim = claimed(ledger, copy)
        assert ledger.settle(claim, success_of(claim.event), lasting(ledger), release=True) is None

        assert claimed(ledger, world.event(id="event-2", time=at(START)))

    def test_of_a_given_up_event_is_that_of_its_outcome(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        give_up(ledger, first)

        claim = claimed(ledger, copy)

        assert (claim.event, claim.cycle.number) == (first, 1)

    def test_of_a_copy_of_a_settled_event_does_not_matter(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        outcome = settle(ledger, first)

        assert ledger.claim(copy, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_of_a_copy_makes_no_other_event_of_it(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        claimed(ledger, first)

        assert failed(lambda: ledger.claim(copy, TARGET, lasting(ledger))).code == "Rename.InProgress"

    def test_that_an_outcome_depends_on_must_be_the_events(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        ledger.release(claimed(ledger, first), lasting(ledger))
        outcome = failure_of(copy, failures.superseded(EventName("/cmdb", "newer")))

        failure = failed(
            lambda: ledger.conclude(Conclusion(copy, FIRST_CYCLE, outcome, require_same_time=True), lasting(ledger))
        )

        assert (failure.kind, failure.retryable) == (Kind.UNAVAILABLE, True)
        assert claimed(ledger, first)

    def test_that_an_outcome_does_not_depend_on_may_be_another(
        self, ledger: DynamoDbLedger, first: RenameEvent, copy: RenameEvent
    ) -> None:
        ledger.release(claimed(ledger, first), lasting(ledger))

        assert ledger.conclude(Conclusion(copy, FIRST_CYCLE, failure_of(copy, unavailable())), lasting(ledger)) is None

    def test_of_the_first_claim_stays_the_events_whoever_gives_it_up(
        self, ledger: DynamoDbLedger, world: World, first: RenameEvent, copy: RenameEvent
    ) -> None:
        # given: the first copy was claimed for and no more, the later one given up without a claim
        ledger.release(claimed(ledger, first), lasting(ledger))
        settle(ledger, world.event(id="event-2", time=at(START)))
        ledger.conclude(Conclusion(copy, FIRST_CYCLE, failure_of(copy, unavailable())), lasting(ledger))

        by, cycle = superseded(ledger, copy)

        assert (by, cycle.number) == (EventName("/cmdb", "event-2"), 1)


class TestTimeBelowAMicrosecond:
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
    def test_is_compared(self, ledger: DynamoDbLedger, world: World, first: str, second: str, is_stale: bool) -> None:
        settle(ledger, world.event(id="first", time=f"2026-11-24T02:00:{first}"))

        answer = ledger.claim(world.event(id="second", time=f"2026-11-24T02:00:{second}"), TARGET, lasting(ledger))

        assert isinstance(answer, Superseded if is_stale else Claim)

    def test_is_stored_as_decimals_of_microseconds(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        settle(ledger, world.event(time="2026-11-24T02:00:00.123456789Z"))

        assert (dynamodb.item(SERVICE_KEY) or {})["newest_time"] == {"N": "1795485600123456.789"}


class TestRegionAndProject:
    """Of an event that names none: those of its first claim."""

    ELSEWHERE = Target("eu-west-101", "another-project", SERVICE)

    def test_are_those_of_the_first_claim(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))

        assert claimed(ledger, world.event(), self.ELSEWHERE).target == TARGET

    def test_stay_for_the_rounds_after_a_redrive(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        gave_up = failure_of(world.event(), unavailable())
        assert ledger.conclude(Conclusion(world.event(), FIRST_CYCLE, gave_up, target=TARGET), lasting(ledger)) is None

        claim = claimed(ledger, world.event(), self.ELSEWHERE)

        assert (claim.target, claim.cycle.number) == (TARGET, 1)

    def test_of_a_claim_are_held_against_an_outcome_without_one(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        gave_up = failure_of(world.event(), unavailable())

        answer = ledger.conclude(
            Conclusion(world.event(), FIRST_CYCLE, gave_up, target=self.ELSEWHERE), lasting(ledger)
        )

        assert answer == Located(TARGET)
        assert isinstance(ledger.claim(world.event(), TARGET, lasting(ledger)), Claim)

    def test_of_an_event_given_up_are_told_in_its_outcome(self, ledger: DynamoDbLedger, world: World) -> None:
        world.ledger = ledger  # type: ignore[assignment]
        ledger.release(claimed(ledger, world.event(), self.ELSEWHERE), lasting(ledger))

        world.give_up(Unsettled(unavailable(), attempts=1))

        [outcome] = world.bus.outcomes
        data = outcome.cloud_event["data"]
        assert (data["region"], data["project_id"]) == ("eu-west-101", "another-project")

    def test_are_held_against_the_outcome_of_the_next_round(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        gave_up = failure_of(world.event(), unavailable())
        assert ledger.conclude(Conclusion(world.event(), FIRST_CYCLE, gave_up, target=TARGET), lasting(ledger)) is None
        next_cycle = RedriveCycle(1, gave_up.id)
        again = failure_of(world.event(), unavailable(), next_cycle)

        answer = ledger.conclude(Conclusion(world.event(), next_cycle, again, target=self.ELSEWHERE), lasting(ledger))

        assert answer == Located(TARGET)
        assert ledger.conclude(Conclusion(world.event(), next_cycle, again, target=TARGET), lasting(ledger)) is None

    def test_do_not_change_where_a_service_is_renamed(self, ledger: DynamoDbLedger, world: World) -> None:
        world.ledger = ledger  # type: ignore[assignment]
        ledger.release(claimed(ledger, world.event(), self.ELSEWHERE), lasting(ledger))

        world.settle()

        assert [call.target for call in world.services.calls] == [self.ELSEWHERE]
