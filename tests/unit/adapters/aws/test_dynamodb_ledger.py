"""The ledger: what claim, settle, conclude and release do, what they refuse and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from function.adapters.aws.dynamodb_ledger import RETENTION
from function.domain import failures
from function.domain.failures import EventName, Failure, Kind
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target
from function.domain.policy import AHEAD_OF_TIME
from function.domain.ports import Claim, Known, Reused
from function.domain.rename_service import Result, Unsettled
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import sqs_record
from tests.fakes.failures import failed, not_found, unavailable
from tests.fakes.identifiers import OTHER_SERVICE, SERVICE
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    EVENT,
    HOUR_BEFORE,
    OTHER_EVENT,
    OTHER_TARGET,
    REUSED_IDENTIFIER,
    TARGET,
    TWO_HOURS_BEFORE,
    URL,
    LedgerDriver,
    at,
    event,
    failure_of,
    success_of,
)

OTHER = EventName("/cmdb", "event-2")


def outcome_of(result: Result) -> Outcome:
    assert isinstance(result, Outcome), result
    return result


def failure_in(result: Result) -> Failure:
    failure = outcome_of(result).failure
    assert failure is not None
    return failure


# ---- Claim


def test_event_is_claimed_again_by_another_token_after_a_release(ledger: LedgerDriver) -> None:
    claims = [ledger.claimed_and_released(EVENT) for _ in range(3)]

    assert {claim.cycle for claim in claims} == {FIRST_CYCLE}
    assert all(claim.token for claim in claims)
    assert len({claim.token for claim in claims}) == 3


@pytest.mark.parametrize(
    ("event", "target"),
    [
        pytest.param(EVENT, TARGET, id="the same event"),
        pytest.param(OTHER_EVENT, TARGET, id="another event"),
        pytest.param(OTHER_EVENT, TARGET._replace(vpc_endpoint_service_id=SERVICE.upper()), id="id in upper case"),
    ],
)
def test_claim_on_a_held_service_is_refused_until_the_other_one_expires(
    ledger: LedgerDriver, event: RenameEvent, target: Target
) -> None:
    ledger.claimed(EVENT, seconds=100.0)
    ledger.clock.sleep(30.0)

    failure = failed(ledger.claim, event, target)

    assert (failure.code, failure.kind, failure.retryable) == ("Rename.InProgress", Kind.UNAVAILABLE, True)
    assert not failure.retry_in_process
    assert failure.retry_after == pytest.approx(70.0, abs=1.5)


@pytest.mark.parametrize(
    "target",
    [OTHER_TARGET, TARGET._replace(project_id="another-project"), TARGET._replace(region="eu-west-101")],
    ids=["service", "project", "region"],
)
def test_claim_does_not_hold_the_service_of_another(ledger: LedgerDriver, target: Target) -> None:
    ledger.claimed(EVENT)

    assert ledger.claimed(OTHER_EVENT, target)


def test_refused_claim_neither_takes_nor_prolongs_the_one_that_is_held(ledger: LedgerDriver) -> None:
    claim = ledger.claimed(EVENT)
    for _ in range(2):
        failed(ledger.claim, OTHER_EVENT, TARGET, 600.0)

    assert ledger.settle(claim, release=False) is None
    ledger.clock.sleep(A_MINUTE + 1)
    assert ledger.claimed(OTHER_EVENT)


def test_claim_is_held_until_its_last_moment_and_taken_over_after_it(ledger: LedgerDriver) -> None:
    first = ledger.claimed(EVENT)
    ledger.clock.sleep(A_MINUTE)
    assert ledger.is_held()

    ledger.clock.sleep(0.001)

    assert ledger.claimed(OTHER_EVENT).token != first.token
    assert ledger.is_held()


def test_claim_expires_a_minute_after_its_invocation(ledger: LedgerDriver) -> None:
    deadline = ledger.clock.until(56.0)
    claim = ledger.adapter.claim(EVENT, TARGET, deadline)

    assert isinstance(claim, Claim)
    assert claim.expires_at == deadline.invocation_ends_at + 60.0


def test_claim_outlasts_the_retention_of_a_service_that_was_never_renamed(ledger: LedgerDriver) -> None:
    """The time to live must not take a claim away from its holder."""
    ledger.claimed_and_released(EVENT)
    ledger.clock.sleep(RETENTION.total_seconds() - 10)

    ledger.claimed(OTHER_EVENT)
    ledger.clock.sleep(20)

    assert ledger.is_held()


def test_claim_for_a_settled_event_returns_its_failure_whole(ledger: LedgerDriver) -> None:
    outcome = ledger.settled(EVENT, not_found())

    known, next_cycle = ledger.known(EVENT)

    assert next_cycle is None
    assert known.cloud_event == outcome.cloud_event
    failure = failure_in(known)
    assert (failure.code, failure.kind) == ("EndPoint.2003", Kind.NOT_FOUND)


@pytest.mark.parametrize(
    ("event", "context"),
    [(EVENT, {}), (event("名前 🚀 \" ' \\"), {"project_id": "x" * 100_000})],
    ids=["plain", "any script and size"],
)
def test_claim_for_a_settled_event_returns_its_outcome_and_leaves_the_service_free(
    ledger: LedgerDriver, event: RenameEvent, context: dict[str, Any]
) -> None:
    outcome = success_of(event, **context)
    assert ledger.settle(ledger.claimed(event), outcome) is None

    assert ledger.claim(event) == Known(outcome, next_cycle=None)
    assert not ledger.is_held()


@pytest.mark.parametrize("target", [TARGET, OTHER_TARGET], ids=["the same service", "another service"])
@pytest.mark.parametrize("is_held", [False, True], ids=["free", "held"])
def test_duplicate_of_a_settled_event_gets_its_outcome_and_another_event_is_reused(
    ledger: LedgerDriver, target: Target, is_held: bool
) -> None:
    outcome = ledger.settled(EVENT)
    if is_held:
        ledger.claimed(OTHER_EVENT)

    assert ledger.claim(REUSED_IDENTIFIER, target) == Reused()
    assert ledger.claim(EVENT) == Known(outcome, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/a", "b"), ("/b", "a")),
        (("/a", "b"), ("/a", "B")),
        (("/a/b", "c"), ("/a", "b/c")),
        (("/a", "b"), ("/a", "b ")),
        (("/a", "x" * 1_024), ("/a", "x" * 1_023 + "y")),
    ],
)
def test_similar_source_and_id_are_of_another_event(
    ledger: LedgerDriver, one: tuple[str, str], other: tuple[str, str]
) -> None:
    ledger.settled(event(one[1], source=one[0]))

    assert ledger.claimed(event(other[1], source=other[0]))


def test_duplicate_of_an_event_that_is_stale_by_now_gets_its_outcome(ledger: LedgerDriver) -> None:
    outcome = ledger.settled(HOUR_BEFORE)
    ledger.settled(OTHER_EVENT)

    assert ledger.claim(HOUR_BEFORE) == Known(outcome, None)


# ---- An event that was given up


@pytest.mark.parametrize("times", [1, 3])
def test_event_given_up_is_claimed_in_the_cycle_after(ledger: LedgerDriver, times: int) -> None:
    cycle = FIRST_CYCLE
    for _ in range(times):
        cycle = ledger.next_cycle(EVENT, cycle)

    assert ledger.claimed(EVENT).cycle == cycle
    assert cycle.number == times
    assert ledger.is_held()


def test_event_settled_in_its_next_cycle_is_settled(ledger: LedgerDriver) -> None:
    ledger.given_up(EVENT)
    outcome = ledger.settled(EVENT)

    assert outcome.cloud_event["data"]["follows"]
    assert ledger.claim(EVENT) == Known(outcome, None)


def test_claim_for_an_event_given_up_is_refused_while_the_service_is_held(ledger: LedgerDriver) -> None:
    ledger.given_up(EVENT)
    ledger.claimed(OTHER_EVENT)

    assert failed(ledger.claim, EVENT).code == "Rename.InProgress"


def test_event_given_up_and_stale_meanwhile_is_superseded_in_its_next_cycle(ledger: LedgerDriver) -> None:
    next_cycle = ledger.next_cycle(HOUR_BEFORE)
    ledger.settled(OTHER_EVENT)

    assert ledger.superseded(HOUR_BEFORE) == (OTHER, next_cycle)


# ---- An event that the clock or the settings refuse now, and did not before, or elsewhere

REFUSED = EVENT.refused(AHEAD_OF_TIME)
GIVEN_UP = Unsettled(unavailable(), attempts=1)


@pytest.mark.usefixtures("ledger")
def test_refusal_of_an_event_that_was_never_claimed_for_is_final(world: World) -> None:
    refused = world.settle(REFUSED)

    assert failure_in(refused)
    assert world.settle() == refused


@pytest.mark.parametrize("given_up", [False, True])
def test_refused_event_is_renamed_after_it_was_claimed_for(ledger: LedgerDriver, world: World, given_up: bool) -> None:
    ledger.claimed_and_released(EVENT)
    if given_up:
        world.give_up(GIVEN_UP)

    assert outcome_of(world.settle(REFUSED)).failure is None


def test_refused_event_is_unsettled_while_its_claim_is_held(ledger: LedgerDriver, world: World) -> None:
    ledger.claimed(EVENT)

    result = world.settle(REFUSED)

    assert isinstance(result, Unsettled)
    assert result.failure.code == "Rename.InProgress"


def test_refused_event_that_was_claimed_for_is_given_up_with_a_retryable_failure(
    ledger: LedgerDriver, world: World
) -> None:
    ledger.claimed_and_released(EVENT)

    assert failure_in(world.give_up(GIVEN_UP, REFUSED)).retryable


@pytest.mark.usefixtures("ledger")
def test_refused_dead_letter_that_was_given_up_repeats_its_outcome(world: World) -> None:
    gave_up = world.give_up(Unsettled(unavailable()))

    outcome = world.rename_service().conclude_dead_letter(REFUSED, world.clock.until(60.0), "sqs")

    assert outcome_of(outcome).cloud_event == outcome_of(gave_up).cloud_event


def test_refused_event_with_the_identifier_of_another_is_reused(ledger: LedgerDriver, world: World) -> None:
    ledger.claimed(EVENT)

    result = world.settle(REUSED_IDENTIFIER.refused(AHEAD_OF_TIME))

    assert failure_in(result).code == failures.IDENTIFIER_REUSED


# ---- Settle


@pytest.mark.parametrize("release", [True, False], ids=["released", "left to expire"])
@pytest.mark.parametrize("failure", [None, not_found()], ids=["success", "failure"])
def test_settlement_is_remembered_and_a_success_is_the_newest_rename(
    ledger: LedgerDriver, failure: Failure | None, release: bool
) -> None:
    ledger.settled(TWO_HOURS_BEFORE)
    claim = ledger.claimed(OTHER_EVENT)
    outcome = failure_of(OTHER_EVENT, failure) if failure else success_of(OTHER_EVENT)

    assert ledger.settle(claim, outcome, release=release) is None

    assert ledger.claim(OTHER_EVENT) == Known(outcome, None)
    assert ledger.is_held() is not release
    ledger.clock.sleep(A_MINUTE + 1)
    if failure:
        assert ledger.superseded(event(time=at(hours=-3)))
        assert ledger.claimed(HOUR_BEFORE)
    else:
        assert ledger.superseded(HOUR_BEFORE) == (OTHER, FIRST_CYCLE)


def test_settlement_after_the_claim_was_taken_over_is_refused_and_changes_nothing(ledger: LedgerDriver) -> None:
    lost = ledger.claimed(EVENT)
    ledger.clock.sleep(A_MINUTE + 1)
    other = ledger.claimed(OTHER_EVENT)

    failure = failed(ledger.settle, lost)

    assert (failure.code, failure.kind, failure.retryable) == ("Rename.ClaimLost", Kind.UNAVAILABLE, True)
    assert ledger.settle(other) is None
    assert failed(ledger.settle, lost).code == "Rename.ClaimLost"
    assert ledger.claimed(EVENT)


def test_settlement_with_an_expired_claim_that_nobody_took_over_is_done(ledger: LedgerDriver) -> None:
    claim = ledger.claimed(EVENT)
    ledger.clock.sleep(10 * A_MINUTE)

    assert ledger.settle(claim) is None


def test_settlement_of_an_event_settled_meanwhile_returns_the_first_outcome(ledger: LedgerDriver) -> None:
    # given: the first invocation took too long, the second one settled the event
    late = ledger.claimed(EVENT)
    ledger.clock.sleep(A_MINUTE + 1)
    first = ledger.settled(EVENT)

    assert ledger.settle(late, failure_of(EVENT, not_found())) == Known(first, None)
    assert ledger.claim(EVENT) == Known(first, None)


def test_settlement_of_an_event_concluded_meanwhile_leaves_the_service_as_it_is(ledger: LedgerDriver) -> None:
    claim = ledger.claimed(EVENT)
    assert ledger.conclude(EVENT, not_found()) is None

    assert ledger.settle(claim) is not None

    assert ledger.is_held()
    ledger.clock.sleep(A_MINUTE + 1)
    assert ledger.claimed(HOUR_BEFORE)


@pytest.mark.parametrize("is_redriven", [False, True])
def test_settlement_of_an_event_given_up_meanwhile_returns_the_next_cycle(
    ledger: LedgerDriver, is_redriven: bool
) -> None:
    if is_redriven:
        ledger.given_up(EVENT)
    claim = ledger.claimed(EVENT)
    given_up = ledger.given_up(EVENT, claim.cycle)

    known = ledger.settle(claim)

    # then: in that cycle the same claim settles it
    assert isinstance(known, Known)
    assert known.outcome.cloud_event == given_up.cloud_event
    assert known.next_cycle == RedriveCycle(1 + is_redriven, given_up.id)
    outcome = success_of(EVENT, known.next_cycle)
    assert ledger.settle(claim._replace(cycle=known.next_cycle), outcome) is None
    assert ledger.claim(EVENT) == Known(outcome, None)


def test_settlement_that_gives_up_awaits_the_next_cycle(ledger: LedgerDriver) -> None:
    outcome = ledger.settled(EVENT, unavailable())

    assert ledger.claimed(EVENT).cycle == RedriveCycle(1, outcome.id)


# ---- Conclude


@pytest.mark.parametrize("given_up", [False, True])
def test_conclusion_is_remembered_without_a_claim(ledger: LedgerDriver, given_up: bool) -> None:
    cycle = ledger.next_cycle(EVENT) if given_up else FIRST_CYCLE

    assert ledger.conclude(EVENT, not_found(), cycle) is None

    known, next_cycle = ledger.known(EVENT)
    assert (known.cloud_event, next_cycle) == (failure_of(EVENT, not_found(), cycle).cloud_event, None)


def test_conclusion_leaves_the_claim_on_the_service(ledger: LedgerDriver) -> None:
    claim = ledger.claimed(EVENT)

    ledger.given_up(OTHER_EVENT)

    assert ledger.settle(claim) is None


def test_conclusion_of_a_settled_event_returns_its_outcome_and_changes_nothing(ledger: LedgerDriver) -> None:
    outcome = ledger.settled(EVENT)

    assert ledger.conclude(EVENT, unavailable()) == Known(outcome, None)
    assert ledger.claim(EVENT) == Known(outcome, None)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_conclusion_in_another_cycle_than_the_next_changes_nothing(ledger: LedgerDriver, number: int) -> None:
    next_cycle = ledger.next_cycle(EVENT)
    cycle = next_cycle._replace(number=number) if number else FIRST_CYCLE

    known = ledger.conclude(EVENT, not_found(), cycle)

    assert isinstance(known, Known)
    assert (known.outcome.id, known.next_cycle) == (next_cycle.follows, next_cycle)
    assert ledger.claimed(EVENT).cycle == next_cycle


# ---- Release


def test_release_is_repeated_after_a_conflict(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    claim = ledger.claimed(EVENT)
    dynamodb.cancel("TransactionConflict")

    ledger.release(claim)

    assert ledger.claimed(OTHER_EVENT)


def test_release_keeps_the_newest_rename(ledger: LedgerDriver) -> None:
    ledger.settled(EVENT)
    ledger.claimed_and_released(OTHER_EVENT)

    assert ledger.superseded(HOUR_BEFORE)


def test_release_of_a_lost_claim_leaves_the_claim_of_another(ledger: LedgerDriver) -> None:
    lost = ledger.claimed(EVENT)
    ledger.clock.sleep(A_MINUTE + 1)
    ledger.claimed(OTHER_EVENT)

    ledger.release(lost)

    assert ledger.is_held()


@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "ValidationException", None])
def test_release_that_fails_leaves_the_claim_to_expire(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, code: str | None
) -> None:
    claim = ledger.claimed(EVENT)
    if code:
        dynamodb.refuse(code, times=2)
    else:
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), times=2)

    ledger.release(claim)

    dynamodb.recover()
    assert ledger.is_held()
    ledger.clock.sleep(A_MINUTE + 10)
    assert ledger.claimed(OTHER_EVENT)


def test_release_whose_answer_is_lost_is_done(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    claim = ledger.claimed(EVENT)
    dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), applied=True)

    ledger.release(claim)

    assert not ledger.is_held()


# ---- A reused identifier: never gets the outcome of the event that had it first

FIRST = event(vpc_endpoint_service_id=OTHER_SERVICE)
SECOND = event(vpc_endpoint_service_id=SERVICE)


def assert_is_reused(result: Result) -> None:
    assert failure_in(result).code == failures.IDENTIFIER_REUSED
    assert outcome_of(result).cloud_event["data"]["request"] == SECOND.cloud_event


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    "conclude",
    [
        lambda world: world.settle(SECOND),
        lambda world: world.give_up(GIVEN_UP, SECOND),
        lambda world: world.dead_letters(sqs_record(SECOND.cloud_event)) or world.bus.outcomes[-1],
    ],
    ids=["settle", "give up", "dead letter"],
)
def test_identifier_of_a_settled_event_is_found_reused(world: World, conclude: Callable[[World], Result]) -> None:
    world.settle(FIRST)

    assert_is_reused(conclude(world))


@pytest.mark.usefixtures("ledger")
def test_reused_identifier_is_found_while_the_first_event_is_renamed(world: World) -> None:
    meanwhile: list[Result] = []

    def during(_: Target) -> None:
        world.services.during = lambda _: None
        meanwhile.append(world.settle(SECOND))

    world.services.during = during
    outcome = world.settle(FIRST)

    assert_is_reused(meanwhile[0])
    assert outcome_of(outcome).failure is None
    assert [call.target.vpc_endpoint_service_id for call in world.services.calls] == [OTHER_SERVICE]


@pytest.mark.parametrize("is_released", [True, False], ids=["claim released", "claim left behind"])
def test_identifier_of_an_event_that_was_claimed_for_is_found_reused(ledger: LedgerDriver, is_released: bool) -> None:
    claim = ledger.claimed(FIRST, OTHER_TARGET)
    if is_released:
        ledger.release(claim)

    assert ledger.claim(SECOND) == Reused()
    assert ledger.conclude(SECOND, unavailable()) == Reused()

    # then: nothing of it is in the way of the first one, or of the next event of its own service
    ledger.clock.sleep(A_MINUTE + 1)
    assert ledger.claimed(FIRST, OTHER_TARGET).cycle == FIRST_CYCLE
    assert not ledger.is_held()


def test_identifier_of_an_event_given_up_is_found_reused(ledger: LedgerDriver) -> None:
    next_cycle = ledger.next_cycle(FIRST)

    for cycle in (FIRST_CYCLE, next_cycle):
        assert ledger.claim(SECOND, cycle=cycle) == Reused()
    assert ledger.conclude(SECOND, not_found(), next_cycle) == Reused()
    assert ledger.claimed(FIRST, OTHER_TARGET).cycle == next_cycle


@pytest.mark.usefixtures("ledger")
def test_first_event_is_redriven_after_both_events_of_an_identifier_were_given_up(world: World) -> None:
    given_up = outcome_of(world.give_up(GIVEN_UP, FIRST))

    assert_is_reused(world.give_up(GIVEN_UP, SECOND))

    redriven = outcome_of(world.settle(FIRST))
    assert (redriven.failure, redriven.cloud_event["data"]["follows"]) == (None, given_up.id)
