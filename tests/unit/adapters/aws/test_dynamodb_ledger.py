"""The ledger: what claim, settle, conclude and release take, and what they refuse and why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from botocore.exceptions import ReadTimeoutError

from function.adapters.aws.dynamodb_ledger import RETENTION, DynamoDbLedger
from function.domain import failures
from function.domain.failures import EventName, Kind
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target
from function.domain.policy import AHEAD_OF_TIME
from function.domain.ports import Claim, Conclusion, Known, Reused, Superseded
from function.domain.rename_service import Unsettled
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import sqs_record
from tests.fakes.failures import failed, not_found, unavailable
from tests.fakes.identifiers import OTHER_SERVICE, SERVICE, START
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    OTHER_TARGET,
    TARGET,
    URL,
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


class TestClaim:
    def test_of_a_new_event_on_a_free_service_is_given(self, ledger: DynamoDbLedger, world: World) -> None:
        claim = claimed(ledger, world.event())

        assert claim.cycle == FIRST_CYCLE
        assert claim.token

    def test_is_another_one_each_time(self, ledger: DynamoDbLedger, world: World) -> None:
        tokens = set()
        for _ in range(3):
            claim = claimed(ledger, world.event())
            tokens.add(claim.token)
            ledger.release(claim, lasting(ledger))

        assert len(tokens) == 3

    @pytest.mark.parametrize("id_", ["event-1", "event-2"])
    def test_is_refused_while_another_invocation_holds_the_service(
        self, ledger: DynamoDbLedger, world: World, id_: str
    ) -> None:
        claimed(ledger, world.event())

        failure = failed(lambda: ledger.claim(world.event(id=id_), TARGET, lasting(ledger)))

        assert (failure.code, failure.kind, failure.retryable) == ("Rename.InProgress", Kind.UNAVAILABLE, True)
        assert not failure.retry_in_process

    @pytest.mark.parametrize(
        "target",
        [
            TARGET._replace(vpc_endpoint_service_id="service-2"),
            TARGET._replace(project_id="another-project"),
            TARGET._replace(region="eu-west-101"),
        ],
    )
    def test_holds_one_service_only(self, ledger: DynamoDbLedger, world: World, target: Target) -> None:
        claimed(ledger, world.event())

        assert claimed(ledger, world.event(id="event-2"), target)

    def test_that_was_refused_takes_nothing(self, ledger: DynamoDbLedger, world: World) -> None:
        # given: a claim that two others could not take
        claim = claimed(ledger, world.event())
        for _ in range(2):
            failed(lambda: ledger.claim(world.event(id="event-2"), TARGET, lasting(ledger, 600.0)))

        # then: it is still its holder's, for as long as it was
        assert ledger.settle(claim, success_of(world.event()), lasting(ledger), release=False) is None
        world.clock.sleep(A_MINUTE + 1)
        assert claimed(ledger, world.event(id="event-2"))

    def test_lapses(self, ledger: DynamoDbLedger, world: World) -> None:
        first = claimed(ledger, world.event())
        world.clock.sleep(A_MINUTE + 0.001)

        second = claimed(ledger, world.event(id="event-2"))

        assert second.token != first.token
        assert held(ledger, world.event(id="event-3"))

    def test_has_not_lapsed_at_its_last_moment(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event())
        world.clock.sleep(A_MINUTE)

        assert held(ledger, world.event(id="event-2"))

    def test_outlives_the_memory_of_a_service_that_was_never_renamed(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        """The time to live must not take a claim away from its holder."""
        # given: a service that was claimed and not renamed, almost as long ago as that is remembered
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        world.clock.sleep(RETENTION.total_seconds() - 10)

        claimed(ledger, world.event(id="event-2"))
        world.clock.sleep(20)

        assert held(ledger, world.event(id="event-3"))

    def test_of_a_settled_event_tells_its_outcome(self, ledger: DynamoDbLedger, world: World) -> None:
        outcome = settle(ledger, world.event())

        assert ledger.claim(world.event(), TARGET, lasting(ledger)) == Known(outcome, next_cycle=None)

    def test_of_a_settled_failure_tells_it_whole(self, ledger: DynamoDbLedger, world: World) -> None:
        event = world.event()
        outcome = settle(ledger, event, failure_of(event, not_found()))

        known = ledger.claim(event, TARGET, lasting(ledger))

        assert isinstance(known, Known)
        assert known.next_cycle is None
        assert known.outcome.cloud_event == outcome.cloud_event
        assert known.outcome.failure is not None
        assert (known.outcome.failure.code, known.outcome.failure.kind) == ("EndPoint.2003", Kind.NOT_FOUND)

    def test_of_a_settled_event_leaves_the_service_free(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        ledger.claim(world.event(), TARGET, lasting(ledger))

        assert not held(ledger, world.event(id="event-2"))

    def test_takes_an_outcome_of_any_script_and_size(self, ledger: DynamoDbLedger, world: World) -> None:
        event = world.event(id="名前 🚀 \" ' \\", time=at(START))
        outcome = settle(ledger, event, success_of(event, project_id="x" * 100_000))

        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)

    @pytest.mark.parametrize("target", [TARGET, OTHER_TARGET])
    def test_of_another_event_with_its_identity_is_told(
        self, ledger: DynamoDbLedger, world: World, target: Target
    ) -> None:
        outcome = settle(ledger, world.event())

        assert ledger.claim(world.event(endpoint_service_name="other"), target, lasting(ledger)) == Reused()

        # then: the first one's outcome is as it was
        assert ledger.claim(world.event(), TARGET, lasting(ledger)) == Known(outcome, None)

    def test_of_another_event_with_the_identity_of_one_given_up_is_told(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        give_up(ledger, world.event())

        assert ledger.claim(world.event(endpoint_service_name="other"), TARGET, lasting(ledger)) == Reused()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"source": "/a", "id": "b"}, {"source": "/b", "id": "a"}),
            ({"source": "/a", "id": "b"}, {"source": "/a", "id": "B"}),
            ({"source": "/a/b", "id": "c"}, {"source": "/a", "id": "b/c"}),
            ({"source": "/a", "id": "b"}, {"source": "/a", "id": "b "}),
            ({"source": "/a", "id": "x" * 1_024}, {"source": "/a", "id": "x" * 1_023 + "y"}),
        ],
    )
    def test_takes_no_event_for_another(
        self, ledger: DynamoDbLedger, world: World, one: dict[str, str], other: dict[str, str]
    ) -> None:
        settle(ledger, world.event(**one))

        assert claimed(ledger, world.event(**other))


class TestGivenUp:
    def test_is_open_for_a_next_round(self, ledger: DynamoDbLedger, world: World) -> None:
        outcome = give_up(ledger, world.event())

        claim = claimed(ledger, world.event())

        assert claim.cycle == RedriveCycle(1, outcome.id)
        assert held(ledger, world.event(id="event-2"))

    def test_again_is_open_for_the_round_after(self, ledger: DynamoDbLedger, world: World) -> None:
        first = give_up(ledger, world.event())
        second = give_up(ledger, world.event(), RedriveCycle(1, first.id))
        third = give_up(ledger, world.event(), RedriveCycle(2, second.id))

        assert claimed(ledger, world.event()).cycle == RedriveCycle(3, third.id)
        assert len({first.id, second.id, third.id}) == 3

    def test_and_settled_in_its_next_round_is_settled(self, ledger: DynamoDbLedger, world: World) -> None:
        give_up(ledger, world.event())
        outcome = settle(ledger, world.event())

        assert outcome.cloud_event["data"]["follows"]
        assert ledger.claim(world.event(), TARGET, lasting(ledger)) == Known(outcome, None)

    def test_waits_for_a_service_that_is_held(self, ledger: DynamoDbLedger, world: World) -> None:
        give_up(ledger, world.event())
        claimed(ledger, world.event(id="event-2"))

        assert failed(lambda: ledger.claim(world.event(), TARGET, lasting(ledger))).code == "Rename.InProgress"

    def test_and_stale_meanwhile_is_superseded_in_its_next_round(self, ledger: DynamoDbLedger, world: World) -> None:
        stale = world.event(time=at(START - timedelta(hours=1)))
        outcome = give_up(ledger, stale)
        settle(ledger, world.event(id="event-2"))

        assert superseded(ledger, stale) == (EventName("/cmdb", "event-2"), RedriveCycle(1, outcome.id))


class TestClaimOfAnotherEvent:
    """Whoever meets a claim learns when it expires, so that no receive of its message is used up before."""

    def test_tells_when_it_expires(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event(), seconds=100.0)
        world.clock.sleep(30.0)

        failure = failed(lambda: ledger.claim(world.event(id="event-2"), TARGET, lasting(ledger)))

        assert failure.code == "Rename.InProgress"
        assert failure.retry_after == pytest.approx(70.0, abs=1.5)

    def test_lasts_until_a_minute_after_its_invocation(self, ledger: DynamoDbLedger, world: World) -> None:
        deadline = world.clock.until(56.0)
        claim = ledger.claim(world.event(), TARGET, deadline)

        assert isinstance(claim, Claim)
        assert claim.expires_at == deadline.invocation_ends_at + 60.0

    def test_is_not_taken_over_by_its_own_event(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event())

        assert failed(lambda: ledger.claim(world.event(), TARGET, lasting(ledger))).code == "Rename.InProgress"

    def test_holds_the_service_whatever_the_case_of_its_id(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event())
        shouted = TARGET._replace(vpc_endpoint_service_id=SERVICE.upper())

        failure = failed(lambda: ledger.claim(world.event(id="event-2"), shouted, lasting(ledger)))

        assert failure.code == "Rename.InProgress"


class TestVerdictOfTheSettings:
    """On an event that is wrong for the clock or the settings alone, and was right before, or elsewhere."""

    @pytest.fixture(autouse=True)
    def _ledger(self, ledger: DynamoDbLedger, world: World) -> None:
        world.ledger = ledger  # type: ignore[assignment]

    def test_is_final_where_the_event_was_never_claimed_for(self, world: World) -> None:
        refused = world.settle(world.event().refused(AHEAD_OF_TIME))

        assert isinstance(refused, Outcome)
        assert refused.failure is not None
        assert world.settle() == refused

    def test_is_none_where_it_has_been_claimed_for(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))

        outcome = world.settle(world.event().refused(AHEAD_OF_TIME))

        assert isinstance(outcome, Outcome)
        assert outcome.failure is None

    def test_is_none_where_it_was_given_up(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        world.give_up(Unsettled(unavailable(), attempts=1))

        outcome = world.settle(world.event().refused(AHEAD_OF_TIME))

        assert isinstance(outcome, Outcome)
        assert outcome.failure is None

    def test_waits_for_the_claim(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event())

        result = world.settle(world.event().refused(AHEAD_OF_TIME))

        assert isinstance(result, Unsettled)
        assert result.failure.code == "Rename.InProgress"

    def test_is_none_where_the_event_that_was_claimed_for_is_given_up(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))

        outcome = world.give_up(Unsettled(unavailable(), attempts=1), world.event().refused(AHEAD_OF_TIME))

        assert isinstance(outcome, Outcome)
        assert outcome.failure is not None
        assert outcome.failure.retryable

    def test_is_none_on_a_dead_letter_that_was_given_up(self, world: World) -> None:
        gave_up = world.give_up(Unsettled(unavailable()))

        outcome = world.rename_service().conclude_dead_letter(
            world.event().refused(AHEAD_OF_TIME), world.clock.until(60.0), "sqs"
        )

        assert isinstance(gave_up, Outcome)
        assert isinstance(outcome, Outcome)
        assert outcome.cloud_event == gave_up.cloud_event

    def test_tells_a_reused_identifier(self, ledger: DynamoDbLedger, world: World) -> None:
        claimed(ledger, world.event())

        outcome = world.settle(world.event(endpoint_service_name="another").refused(AHEAD_OF_TIME))

        assert isinstance(outcome, Outcome)
        assert outcome.failure is not None
        assert outcome.failure.code == failures.IDENTIFIER_REUSED


class TestOwnEarlierTry:
    """A write that was carried out, and whose next try meets what it wrote itself."""

    @pytest.fixture
    def lost(self, dynamodb: FakeDynamoDb) -> Callable[[], None]:
        """The next write is carried out, though DynamoDB says that another transaction was in the way."""
        return lambda: dynamodb.cancel("TransactionConflict", "None", applied=True)

    def test_of_a_claim_is_the_claim(self, ledger: DynamoDbLedger, world: World, lost: Callable[[], None]) -> None:
        lost()

        claim = claimed(ledger, world.event())

        assert ledger.settle(claim, success_of(world.event()), lasting(ledger), release=True) is None

    def test_of_a_settlement_is_the_settlement(
        self, ledger: DynamoDbLedger, world: World, lost: Callable[[], None]
    ) -> None:
        claim = claimed(ledger, world.event())
        lost()

        assert ledger.settle(claim, success_of(world.event()), lasting(ledger), release=True) is None

    def test_to_give_up_is_no_round_before_this_one(
        self, ledger: DynamoDbLedger, world: World, lost: Callable[[], None]
    ) -> None:
        lost()

        assert (
            ledger.conclude(
                Conclusion(world.event(), FIRST_CYCLE, failure_of(world.event(), unavailable())), lasting(ledger)
            )
            is None
        )

    def test_of_a_release_comes_once_more_after_a_conflict(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        claim = claimed(ledger, world.event())
        dynamodb.refuse("TransactionConflictException")

        ledger.release(claim, lasting(ledger))

        assert isinstance(ledger.claim(world.event(id="event-2"), TARGET, lasting(ledger)), Claim)


class TestBothInTheWay:
    def test_a_duplicate_on_a_held_service_gets_its_outcome(self, ledger: DynamoDbLedger, world: World) -> None:
        outcome = settle(ledger, world.event())
        claimed(ledger, world.event(id="event-2"))

        assert ledger.claim(world.event(), TARGET, lasting(ledger)) == Known(outcome, None)

    def test_a_duplicate_of_an_event_that_is_stale_by_now_gets_its_outcome(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        first = world.event(time=at(START - timedelta(hours=1)))
        outcome = settle(ledger, first)
        settle(ledger, world.event(id="event-2"))

        assert ledger.claim(first, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_a_reused_identity_on_a_held_service_is_told(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        claimed(ledger, world.event(id="event-2"))

        assert ledger.claim(world.event(endpoint_service_name="other"), TARGET, lasting(ledger)) == Reused()


class TestSettle:
    def test_of_a_success_moves_the_newest_rename_on_and_frees_the_service(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        settle(ledger, world.event(time=at(START - timedelta(hours=2))))
        settle(ledger, world.event(id="event-2", time=at(START)))

        between = world.event(id="event-3", time=at(START - timedelta(hours=1)))
        assert superseded(ledger, between) == (EventName("/cmdb", "event-2"), FIRST_CYCLE)
        assert not held(ledger, world.event(id="event-4"))

    def test_of_a_failure_leaves_the_newest_rename_and_frees_the_service(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        settle(ledger, world.event(time=at(START - timedelta(hours=2))))
        failed = world.event(id="event-2", time=at(START))
        settle(ledger, failed, failure_of(failed, not_found()))

        between = world.event(id="event-3", time=at(START - timedelta(hours=1)))
        assert claimed(ledger, between)

    @pytest.mark.parametrize("succeeds", [True, False])
    def test_without_giving_free_leaves_the_claim_to_lapse(
        self, ledger: DynamoDbLedger, world: World, succeeds: bool
    ) -> None:
        event = world.event()
        claim = claimed(ledger, event)
        outcome = success_of(event) if succeeds else failure_of(event, not_found())

        assert ledger.settle(claim, outcome, lasting(ledger), release=False) is None

        # then: the outcome is remembered, the newest rename is moved on by a success, and the service is held
        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)
        assert held(ledger, world.event(id="event-2"))
        world.clock.sleep(A_MINUTE + 1)
        stale = ledger.claim(world.event(id="event-3", time=at(START - timedelta(hours=1))), TARGET, lasting(ledger))
        assert isinstance(stale, Superseded if succeeds else Claim)

    def test_after_the_claim_was_taken_over_is_refused(self, ledger: DynamoDbLedger, world: World) -> None:
        lost = claimed(ledger, world.event())
        world.clock.sleep(A_MINUTE + 1)
        other = claimed(ledger, world.event(id="event-2"))

        failure = failed(lambda: ledger.settle(lost, success_of(world.event()), lasting(ledger), release=True))

        assert (failure.code, failure.kind, failure.retryable) == ("Rename.ClaimLost", Kind.UNAVAILABLE, True)
        # then: nothing is remembered, and nothing is freed
        event = world.event(id="event-2")
        assert ledger.settle(other, success_of(event), lasting(ledger), release=True) is None
        assert claimed(ledger, world.event())

    def test_after_the_claim_was_taken_over_and_given_free_is_refused(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        lost = claimed(ledger, world.event())
        world.clock.sleep(A_MINUTE + 1)
        settle(ledger, world.event(id="event-2"))

        failure = failed(lambda: ledger.settle(lost, success_of(world.event()), lasting(ledger), release=True))

        assert failure.code == "Rename.ClaimLost"

    def test_after_the_claim_lapsed_and_nobody_took_it_is_done(self, ledger: DynamoDbLedger, world: World) -> None:
        claim = claimed(ledger, world.event())
        world.clock.sleep(10 * A_MINUTE)

        assert ledger.settle(claim, success_of(world.event()), lasting(ledger), release=True) is None

    def test_of_an_event_that_was_settled_meanwhile_tells_the_first_outcome(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        # given: the first invocation took too long, the second one settled the event
        event = world.event()
        late = claimed(ledger, event)
        world.clock.sleep(A_MINUTE + 1)
        first = settle(ledger, event)

        known = ledger.settle(late, failure_of(event, not_found()), lasting(ledger), release=True)

        assert known == Known(first, None)
        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(first, None)

    def test_of_an_event_that_was_settled_meanwhile_changes_nothing_of_the_service(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        # given: the claim is good; the event was seen off by somebody who needs none
        event = world.event()
        claim = claimed(ledger, event)
        assert ledger.conclude(Conclusion(event, FIRST_CYCLE, failure_of(event, not_found())), lasting(ledger)) is None

        assert ledger.settle(claim, success_of(event), lasting(ledger), release=True) is not None

        assert held(ledger, world.event(id="event-2"))
        world.clock.sleep(A_MINUTE + 1)
        assert claimed(ledger, world.event(id="event-3", time=at(START - timedelta(hours=1))))

    def test_of_an_event_that_was_given_up_meanwhile_tells_the_next_round(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        event = world.event()
        claim = claimed(ledger, event)
        given_up = give_up(ledger, event)

        known = ledger.settle(claim, success_of(event), lasting(ledger), release=True)

        # then: in that round the same claim settles it
        assert isinstance(known, Known)
        assert known.outcome.cloud_event == given_up.cloud_event
        assert known.next_cycle == RedriveCycle(1, given_up.id)
        outcome = success_of(event, known.next_cycle)
        assert ledger.settle(claim._replace(cycle=known.next_cycle), outcome, lasting(ledger), release=True) is None
        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_of_a_round_that_was_given_up_meanwhile_tells_the_round_after(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        event = world.event()
        first = give_up(ledger, event)
        claim = claimed(ledger, event)
        second = give_up(ledger, event, RedriveCycle(1, first.id))

        known = ledger.settle(claim, success_of(event, claim.cycle), lasting(ledger), release=True)

        assert isinstance(known, Known)
        assert known.next_cycle == RedriveCycle(2, second.id)

    def test_that_gives_up_is_no_settlement(self, ledger: DynamoDbLedger, world: World) -> None:
        event = world.event()
        outcome = settle(ledger, event, failure_of(event, unavailable()))

        assert claimed(ledger, event).cycle == RedriveCycle(1, outcome.id)


class TestConclude:
    def test_remembers_an_outcome_without_a_claim(self, ledger: DynamoDbLedger, world: World) -> None:
        event = world.event()
        outcome = failure_of(event, failures.superseded(EventName("/cmdb", "newer")))

        assert ledger.conclude(Conclusion(event, FIRST_CYCLE, outcome), lasting(ledger)) is None

        known = ledger.claim(event, TARGET, lasting(ledger))
        assert isinstance(known, Known)
        assert (known.outcome.cloud_event, known.next_cycle) == (outcome.cloud_event, None)

    def test_leaves_the_service_alone(self, ledger: DynamoDbLedger, world: World) -> None:
        claim = claimed(ledger, world.event())

        give_up(ledger, world.event(id="event-2"))

        assert ledger.settle(claim, success_of(world.event()), lasting(ledger), release=True) is None

    def test_of_a_settled_event_tells_its_outcome_and_changes_nothing(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        event = world.event()
        outcome = settle(ledger, event)

        assert ledger.conclude(
            Conclusion(event, FIRST_CYCLE, failure_of(event, unavailable())), lasting(ledger)
        ) == Known(outcome, None)
        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_of_a_given_up_event_tells_the_next_round_and_changes_nothing(
        self, ledger: DynamoDbLedger, world: World
    ) -> None:
        event = world.event()
        outcome = give_up(ledger, event)

        known = ledger.conclude(Conclusion(event, FIRST_CYCLE, failure_of(event, not_found())), lasting(ledger))

        assert isinstance(known, Known)
        assert known.next_cycle == RedriveCycle(1, outcome.id)
        assert claimed(ledger, event).cycle == RedriveCycle(1, outcome.id)

    def test_in_the_next_round_settles_what_was_given_up(self, ledger: DynamoDbLedger, world: World) -> None:
        event = world.event()
        cycle = RedriveCycle(1, give_up(ledger, event).id)
        outcome = failure_of(event, not_found(), cycle)

        assert ledger.conclude(Conclusion(event, cycle, outcome), lasting(ledger)) is None

        known = ledger.claim(event, TARGET, lasting(ledger))
        assert isinstance(known, Known)
        assert (known.outcome.cloud_event, known.next_cycle) == (outcome.cloud_event, None)

    @pytest.mark.parametrize("number", [0, 2, 3])
    def test_in_another_round_than_the_next_changes_nothing(
        self, ledger: DynamoDbLedger, world: World, number: int
    ) -> None:
        event = world.event()
        outcome = give_up(ledger, event)
        cycle = RedriveCycle(number, outcome.id)

        known = ledger.conclude(Conclusion(event, cycle, failure_of(event, not_found(), cycle)), lasting(ledger))

        assert isinstance(known, Known)
        assert known.outcome.id == outcome.id
        assert claimed(ledger, event).cycle == RedriveCycle(1, outcome.id)


class TestRelease:
    def test_frees_the_service_and_remembers_nothing(self, ledger: DynamoDbLedger, world: World) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))

        assert claimed(ledger, world.event()).cycle == FIRST_CYCLE

    def test_keeps_the_newest_rename(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        ledger.release(claimed(ledger, world.event(id="event-2")), lasting(ledger))

        stale = world.event(id="event-3", time=at(START - timedelta(hours=1)))
        assert isinstance(ledger.claim(stale, TARGET, lasting(ledger)), Superseded)

    def test_of_a_lost_claim_leaves_the_other_ones(self, ledger: DynamoDbLedger, world: World) -> None:
        lost = claimed(ledger, world.event())
        world.clock.sleep(A_MINUTE + 1)
        claimed(ledger, world.event(id="event-2"))

        ledger.release(lost, lasting(ledger))

        assert held(ledger, world.event(id="event-3"))

    @pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "ValidationException"])
    def test_that_is_refused_is_left_to_lapse(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, code: str
    ) -> None:
        claim = claimed(ledger, world.event())
        dynamodb.refuse(code, times=2)

        ledger.release(claim, lasting(ledger))

        dynamodb.recover()
        assert held(ledger, world.event(id="event-2"))
        world.clock.sleep(A_MINUTE + 10)
        assert claimed(ledger, world.event(id="event-2"))

    def test_that_gets_no_answer_is_left_to_lapse(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        claim = claimed(ledger, world.event())
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), times=2)

        ledger.release(claim, lasting(ledger))

        assert held(ledger, world.event(id="event-2"))

    def test_whose_answer_is_lost_is_done(self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World) -> None:
        claim = claimed(ledger, world.event())
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), applied=True)

        ledger.release(claim, lasting(ledger))

        assert not held(ledger, world.event(id="event-2"))


class TestReusedIdentity:
    """An event with the identity of another never gets the other's outcome, whenever it comes to light."""

    @pytest.fixture
    def first(self, ledger: DynamoDbLedger, world: World) -> RenameEvent:
        world.ledger = ledger  # type: ignore[assignment]
        return world.event(vpc_endpoint_service_id=OTHER_SERVICE)

    @pytest.fixture
    def other(self, world: World) -> RenameEvent:
        return world.event(vpc_endpoint_service_id=SERVICE)

    def test_found_when_the_event_is_to_be_renamed(self, world: World, first: RenameEvent, other: RenameEvent) -> None:
        world.settle(first)

        self._is_told(world.settle(other), other)

    def test_found_while_the_first_one_is_being_renamed(
        self, world: World, first: RenameEvent, other: RenameEvent
    ) -> None:
        meanwhile: list[Outcome | Unsettled] = []

        def during(_: Target) -> None:
            world.services.during = lambda _: None
            meanwhile.append(world.settle(other))

        world.services.during = during
        outcome = world.settle(first)

        self._is_told(meanwhile[0], other)
        assert isinstance(outcome, Outcome)
        assert outcome.failure is None
        assert [call.target.vpc_endpoint_service_id for call in world.services.calls] == [OTHER_SERVICE]

    @pytest.mark.parametrize("ends", ["released", "died"])
    def test_found_when_the_first_one_was_only_claimed_for(
        self, ledger: DynamoDbLedger, world: World, first: RenameEvent, other: RenameEvent, ends: str
    ) -> None:
        # given: the invocation could not settle the first one, or died over it
        claim = claimed(ledger, first, OTHER_TARGET)
        if ends == "released":
            ledger.release(claim, lasting(ledger))

        assert ledger.claim(other, TARGET, lasting(ledger)) == Reused()
        assert (
            ledger.conclude(Conclusion(other, FIRST_CYCLE, failure_of(other, unavailable())), lasting(ledger))
            == Reused()
        )

        # then: nothing of it is in the way of the first one, or of its service's next
        world.clock.sleep(A_MINUTE + 1)
        assert claimed(ledger, first, OTHER_TARGET).cycle == FIRST_CYCLE
        assert not held(ledger, world.event(id="event-2"))

    def test_found_in_a_round_after_the_first(
        self, ledger: DynamoDbLedger, world: World, first: RenameEvent, other: RenameEvent
    ) -> None:
        cycle = RedriveCycle(1, give_up(ledger, first).id)

        assert ledger.claim(other, TARGET, lasting(ledger), cycle) == Reused()
        assert (
            ledger.conclude(Conclusion(other, cycle, failure_of(other, not_found(), cycle)), lasting(ledger))
            == Reused()
        )
        assert claimed(ledger, first, OTHER_TARGET).cycle == cycle

    def test_found_when_it_is_given_up(self, world: World, first: RenameEvent, other: RenameEvent) -> None:
        world.settle(first)

        self._is_told(world.give_up(Unsettled(unavailable()), other), other)

    def test_found_when_both_are_given_up_leaves_the_first_one_to_be_redriven(
        self, world: World, first: RenameEvent, other: RenameEvent
    ) -> None:
        given_up = world.give_up(Unsettled(unavailable()), first)
        assert isinstance(given_up, Outcome)

        self._is_told(world.give_up(Unsettled(unavailable()), other), other)

        redriven = world.settle(first)
        assert isinstance(redriven, Outcome)
        assert (redriven.failure, redriven.cloud_event["data"]["follows"]) == (None, given_up.id)

    def test_found_when_it_is_seen_off(self, world: World, first: RenameEvent, other: RenameEvent) -> None:
        world.settle(first)

        world.dead_letters(sqs_record(other.cloud_event))

        self._is_told(world.bus.outcomes[-1], other)

    def _is_told(self, outcome: Outcome | Unsettled, other: RenameEvent) -> None:
        assert isinstance(outcome, Outcome)
        assert outcome.cloud_event["data"]["request"] == other.cloud_event
        assert outcome.failure is not None
        assert outcome.failure.code == failures.IDENTIFIER_REUSED
