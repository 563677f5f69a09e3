"""The ledger: what each of its writes takes, what it refuses and why, and what it makes of DynamoDB's own failures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from function.adapters.aws.dynamodb_ledger import (
    CLAIM_SLACK_SECONDS,
    MAX_ATTEMPTS,
    NEWEST_RENAME_RETENTION,
    RETENTION,
    DynamoDbLedger,
    LedgerSchemaError,
)
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.no_ledger import NoLedger
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import EventName, Failure, Kind, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target, rfc3339
from function.domain.outcomes import OutcomeContext, rename_failed, renamed
from function.domain.policy import AHEAD_OF_TIME
from function.domain.ports import Claim, Conclusion, Known, Ledger, Located, Reused, Superseded
from function.domain.rename_service import Unsettled
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import sqs_record
from tests.fakes.failures import failed, not_found, unavailable
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, REGION, SERVICE, START
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
OTHER_TARGET = TARGET._replace(vpc_endpoint_service_id="service-2")
SERVICE_KEY = f"service#{REGION}/{PROJECT}/{SERVICE}"
A_MINUTE = 60.0
SECOND_ROUND = RedriveCycle(1, "the outcome before")
URL = "https://dynamodb.eu-west-1.amazonaws.com"


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(lambda: world.clock.now().timestamp())


@pytest.fixture
def ledger(world: World, dynamodb: FakeDynamoDb) -> DynamoDbLedger:
    return ledger_of(world, dynamodb)


def ledger_of(world: World, dynamodb: FakeDynamoDb, table: str = TABLE) -> DynamoDbLedger:
    clock = world.clock
    return DynamoDbLedger(dynamodb.client(), table, now=lambda: clock.now().timestamp(), sleep=clock.sleep)


def lasting(ledger: DynamoDbLedger, seconds: float = A_MINUTE) -> Deadline:
    """Of an invocation whose claims last so long."""
    now = ledger._now
    ends_at = now() + seconds - CLAIM_SLACK_SECONDS
    return Deadline(now() + 60.0, ends_at, now)


def claimed(
    ledger: DynamoDbLedger, event: RenameEvent, target: Target = TARGET, seconds: float = A_MINUTE, **arguments: Any
) -> Claim:
    answer = ledger.claim(event, target, lasting(ledger, seconds), **arguments)
    assert isinstance(answer, Claim), answer
    return answer


def superseded(ledger: DynamoDbLedger, event: RenameEvent) -> tuple[EventName, RedriveCycle]:
    """By what, and in which round."""
    answer = ledger.claim(event, TARGET, lasting(ledger))
    assert isinstance(answer, Superseded), answer
    return answer.by, answer.cycle


def success_of(event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE, **context: Any) -> Outcome:
    return renamed(
        event,
        _circumstances(cycle, **context),
        service_name=event.endpoint_service_name,
        previous_service_name="billing",
        huawei_request_id="request-1",
    )


def failure_of(event: RenameEvent, failure: Failure, cycle: RedriveCycle = FIRST_CYCLE) -> Outcome:
    return rename_failed(event, _circumstances(cycle), failure)


def _circumstances(cycle: RedriveCycle, **given: Any) -> OutcomeContext:
    defaults: dict[str, Any] = {
        "trigger": "sqs",
        "region": REGION,
        "project_id": PROJECT,
        "attempts": 1,
        "time": rfc3339(START),
    }
    return OutcomeContext(**defaults | given, cycle=cycle)


def settle(
    ledger: DynamoDbLedger, event: RenameEvent, outcome: Outcome | None = None, target: Target = TARGET
) -> Outcome:
    """Claim the service, remember the outcome, a success by default, and give the service free."""
    claim = claimed(ledger, event, target)
    outcome = outcome or success_of(event, claim.cycle)
    assert ledger.settle(claim, outcome, lasting(ledger), release=True) is None
    return outcome


def give_up(ledger: DynamoDbLedger, event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE) -> Outcome:
    outcome = failure_of(event, unavailable(), cycle)
    assert ledger.conclude(Conclusion(event, cycle, outcome), lasting(ledger)) is None
    return outcome


def held(ledger: DynamoDbLedger, event: RenameEvent, target: Target = TARGET) -> bool:
    """Whether the service is claimed, as an event of the same time sees it."""
    try:
        ledger.release(claimed(ledger, event, target), lasting(ledger))
    except RenameFailedError as error:
        return error.failure.code == "Rename.InProgress"
    return False


def at(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


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


# ---- DynamoDB's own failures


def _writes(ledger: DynamoDbLedger, world: World) -> dict[str, Callable[[], object]]:
    """Each write that must be known to have been done, ready to go."""
    event, other = world.event(), world.event(id="event-2")
    claim = claimed(ledger, event)
    return {
        "claim": lambda: ledger.claim(other, OTHER_TARGET, lasting(ledger)),
        "settle": lambda: ledger.settle(claim, success_of(event), lasting(ledger), release=True),
        "conclude": lambda: ledger.conclude(
            Conclusion(other, FIRST_CYCLE, failure_of(other, unavailable())), lasting(ledger)
        ),
    }


WRITES = pytest.mark.parametrize("write", ["claim", "settle", "conclude"])
BREAKS = pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url=URL),
        ConnectTimeoutError(endpoint_url=URL),
        EndpointConnectionError(endpoint_url=URL),
        ConnectionClosedError(endpoint_url=URL),
    ],
    ids=lambda error: type(error).__name__,
)


class TestRefusals:
    @WRITES
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("ThrottlingException", 400),
            ("ProvisionedThroughputExceededException", 400),
            ("RequestLimitExceeded", 400),
            ("AccessDeniedException", 400),
            ("UnrecognizedClientException", 400),
            ("ResourceNotFoundException", 400),
            ("ValidationException", 400),
            ("TransactionInProgressException", 400),
            ("InternalServerError", 500),
            ("ServiceUnavailable", 503),
        ],
    )
    def test_are_told_with_their_code(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str, code: str, status: int
    ) -> None:
        call = _writes(ledger, world)[write]
        dynamodb.refuse(code, status=status, times=2)

        with pytest.raises(RenameFailedError) as caught:
            call()

        failure = caught.value.failure
        assert (failure.code, failure.kind, failure.retryable) == ("Rename.LedgerUnavailable", Kind.UNAVAILABLE, True)
        assert code in failure.message
        assert not failure.retry_in_process
        assert isinstance(caught.value.__cause__, ClientError)

    @WRITES
    @BREAKS
    def test_to_answer_are_told(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str, error: HTTPClientError
    ) -> None:
        call = _writes(ledger, world)[write]
        dynamodb.break_off(error, times=2)

        with pytest.raises(RenameFailedError) as caught:
            call()

        failure = caught.value.failure
        assert (failure.code, failure.kind, failure.retryable) == ("Rename.LedgerUnavailable", Kind.UNAVAILABLE, True)
        assert type(error).__name__ in failure.message
        assert caught.value.__cause__ is error

    @WRITES
    def test_leave_everything_as_it_was(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str
    ) -> None:
        call = _writes(ledger, world)[write]
        dynamodb.refuse("AccessDeniedException")
        failed(call)

        # then: the same write passes when DynamoDB is well again
        assert isinstance(call(), Claim | None)

    @WRITES
    @pytest.mark.parametrize("code", ["ThrottlingError", "ProvisionedThroughputExceeded"])
    def test_that_come_as_a_canceled_transaction_are_told_with_their_code(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str, code: str
    ) -> None:
        """So DynamoDB tells that it throttles a transaction: nothing stands in the event's way but DynamoDB itself."""
        call = _writes(ledger, world)[write]
        dynamodb.cancel(*(["None"] if write != "conclude" else []), code)

        failure = failed(call)

        assert failure.code == "Rename.LedgerUnavailable"
        assert code in failure.message

    @WRITES
    def test_that_nobody_expects_are_not_swallowed(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = _writes(ledger, world)[write]
        monkeypatch.setattr(dynamodb, "_answer", _defect)

        with pytest.raises(RuntimeError, match="a defect"):
            call()

    def test_of_a_release_that_nobody_expects_are_not_swallowed(self, world: World) -> None:
        client = SimpleNamespace(update_item=_defect)
        ledger = DynamoDbLedger(client, TABLE)

        with pytest.raises(RuntimeError, match="a defect"):
            ledger.release(Claim("token", FIRST_CYCLE, world.event(), TARGET), lasting(ledger))


def _defect(*_: Any, **__: Any) -> None:
    raise RuntimeError("a defect")


CONFLICTS = pytest.mark.parametrize(
    "codes",
    [("TransactionConflict", "None"), ("None", "TransactionConflict"), ("TransactionConflict", "TransactionConflict")],
)


class TestConflict:
    """Another transaction is at one of the items right now, which tells nothing yet of what stands in the way."""

    @CONFLICTS
    def test_is_waited_for(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, codes: tuple[str, str]
    ) -> None:
        event = world.event()
        for _ in range(MAX_ATTEMPTS - 1):
            dynamodb.cancel(*codes)
        claim = claimed(ledger, event)

        dynamodb.cancel(*codes)
        assert ledger.settle(claim, success_of(event), lasting(ledger), release=True) is None

        assert len(dynamodb.calls) == MAX_ATTEMPTS + 2
        assert len(world.clock.sleeps) == MAX_ATTEMPTS

    def test_that_passes_shows_what_stands_in_the_way(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        event = world.event()
        outcome = settle(ledger, event)
        dynamodb.cancel("TransactionConflict", "None")

        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_beside_a_refusal_is_not_waited_for(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        event = world.event()
        claim = claimed(ledger, event)
        dynamodb.calls.clear()
        dynamodb.cancel("TransactionConflict", "ConditionalCheckFailed")

        assert failed(lambda: ledger.settle(claim, success_of(event), lasting(ledger), release=True)).code == (
            "Rename.ClaimLost"
        )
        assert len(dynamodb.calls) == 1

    @WRITES
    def test_that_lasts_leaves_all_as_it_is(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str
    ) -> None:
        call = _writes(ledger, world)[write]
        for _ in range(MAX_ATTEMPTS):
            dynamodb.cancel("TransactionConflict", *(["None"] if write != "conclude" else []))

        failure = failed(call)

        assert (failure.code, failure.kind, failure.retryable) == (
            "Rename.LedgerUnavailable",
            Kind.UNAVAILABLE,
            True,
        )
        answer = call()
        assert isinstance(answer, Claim) if write == "claim" else answer is None
        # then: there is no wait after the last attempt
        assert len(world.clock.sleeps) == MAX_ATTEMPTS - 1


class TestSecondAttempt:
    """botocore asks again where no answer came, though the first request may have been carried out."""

    @BREAKS
    @WRITES
    def test_after_one_that_was_carried_out_changes_nothing(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str, error: HTTPClientError
    ) -> None:
        call = _writes(ledger, world)[write]
        dynamodb.break_off(error, applied=True)
        dynamodb.calls.clear()

        answer = call()

        # then: the answer is the one of a write that was done
        assert isinstance(answer, Claim) if write == "claim" else answer is None
        first, second = dynamodb.calls
        assert first == second
        assert first.parameters["ClientRequestToken"]

    @WRITES
    def test_after_one_that_was_not_carried_out_does_it(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, write: str
    ) -> None:
        call = _writes(ledger, world)[write]
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL))

        answer = call()

        assert isinstance(answer, Claim) if write == "claim" else answer is None

    def test_without_an_answer_either_leaves_a_claim_that_lapses(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), applied=True, times=2)

        failure = failed(lambda: ledger.claim(world.event(), TARGET, lasting(ledger)))

        assert failure.code == "Rename.LedgerUnavailable"
        assert held(ledger, world.event())
        world.clock.sleep(A_MINUTE + 10)
        assert claimed(ledger, world.event())

    def test_without_an_answer_either_leaves_an_outcome_to_repeat(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        event = world.event()
        claim, outcome = claimed(ledger, event), success_of(event)
        dynamodb.break_off(ReadTimeoutError(endpoint_url=URL), applied=True, times=2)

        failure = failed(lambda: ledger.settle(claim, outcome, lasting(ledger), release=True))

        assert failure.code == "Rename.LedgerUnavailable"
        assert ledger.claim(event, TARGET, lasting(ledger)) == Known(outcome, None)

    def test_is_another_request_for_another_write(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        for _ in range(2):
            ledger.release(claimed(ledger, world.event()), lasting(ledger))

        tokens = [
            parameters["ClientRequestToken"] for operation, parameters in dynamodb.calls if "Transact" in operation
        ]
        assert len(set(tokens)) == len(tokens) == 2


class TestOutageIsRecorded:
    def test_not_in_a_new_table(self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb) -> None:
        assert ledger.outage_is_recorded(REGION, lasting(ledger)) is False

        [call] = dynamodb.calls
        assert (call.operation, call.parameters["TableName"], list(call.parameters["Key"])) == (
            "GetItem",
            TABLE,
            ["id"],
        )

    @pytest.mark.parametrize("code", ["ResourceNotFoundException", "ValidationException"])
    def test_in_a_table_that_will_never_do_is_one_clear_error(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, code: str
    ) -> None:
        """No table, or one with another key."""
        dynamodb.refuse(code)

        with pytest.raises(LedgerSchemaError) as caught:
            ledger.outage_is_recorded(REGION, lasting(ledger))

        assert str(caught.value) == code

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("ThrottlingException", 400),
            ("AccessDeniedException", 400),
            ("ExpiredTokenException", 400),
            ("InternalServerError", 500),
        ],
    )
    def test_not_where_the_table_refuses_now(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, code: str, status: int
    ) -> None:
        dynamodb.refuse(code, status=status, times=2)

        assert ledger.outage_is_recorded(REGION, lasting(ledger)) is False

        assert dynamodb.calls

    @BREAKS
    def test_not_where_the_table_does_not_answer(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, error: HTTPClientError
    ) -> None:
        dynamodb.break_off(error, times=2)

        assert ledger.outage_is_recorded(REGION, lasting(ledger)) is False

        assert len(dynamodb.calls) == 2

    @pytest.mark.parametrize(("state", "recorded"), [("OPEN", True), ("HALF_OPEN", True), ("CLOSED", False)])
    def test_while_the_breaker_is_not_closed(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, state: str, recorded: bool
    ) -> None:
        item = {"id": {"S": breaker_item(REGION)}, "state": {"S": state}}
        dynamodb.client().put_item(lasting(ledger), TableName=TABLE, Item=item)

        assert ledger.outage_is_recorded(REGION, lasting(ledger)) is recorded

    def test_writes_nothing(self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb) -> None:
        assert ledger.outage_is_recorded(REGION, lasting(ledger)) is False

        assert {call.operation for call in dynamodb.calls} == {"GetItem"}


# ---- What is in the table


class TestItems:
    def test_of_events_are_kept_for_thirty_five_days(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        world.clock.sleep(1_000.5)
        settle(ledger, world.event())
        settle(ledger, world.event(id="e2"), failure_of(world.event(id="e2"), not_found()))
        give_up(ledger, world.event(id="e3"))

        expirations = {_expiration(item) for item in _put(dynamodb)}

        assert len(_put(dynamodb)) == 3
        assert expirations == {timedelta(days=35)} == {RETENTION}

    @pytest.mark.parametrize("given_up", [False, True])
    def test_of_events_that_are_claimed_for_are_kept_from_then_on(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, given_up: bool
    ) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        if given_up:
            give_up(ledger, world.event())
        world.clock.sleep(86_400)
        claimed(ledger, world.event())

        [item] = [item for key, item in _items(dynamodb).items() if key.startswith("event#")]

        assert _expiration(item) == RETENTION + timedelta(days=1)

    def test_of_services_that_were_renamed_outlast_every_event(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        settle(ledger, world.event())

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION >= timedelta(days=3_650)

    @pytest.mark.parametrize("free", [True, False])
    def test_of_renamed_services_are_kept_anew_with_each_rename(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, free: bool
    ) -> None:
        settle(ledger, world.event())
        world.clock.sleep(86_400)
        event = world.event(id="event-2")
        ledger.settle(claimed(ledger, event), success_of(event), lasting(ledger), release=free)

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION + timedelta(days=1)

    def test_of_services_that_were_never_renamed_are_forgotten_like_events(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        settle(ledger, world.event(), failure_of(world.event(), not_found()))

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == RETENTION

    @pytest.mark.parametrize("how", ["claim", "release", "settle"])
    def test_of_renamed_services_do_not_become_forgotten_sooner(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, how: str
    ) -> None:
        settle(ledger, world.event())
        event = world.event(id="event-2")
        claim = claimed(ledger, event)
        if how == "release":
            ledger.release(claim, lasting(ledger))
        elif how == "settle":
            ledger.settle(claim, failure_of(event, not_found()), lasting(ledger), release=True)

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION

    def test_expire_by_whole_seconds(self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World) -> None:
        """DynamoDB's time to live ignores an item whose attribute is anything else."""
        world.clock.sleep(0.123_456)
        settle(ledger, world.event())

        for item in [*_put(dynamodb), dynamodb.item(SERVICE_KEY)]:
            assert item is not None
            assert re.fullmatch("[0-9]{10,11}", item["expiration"]["N"])

    def test_are_forgotten_with_the_memory_of_the_event(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        world.clock.sleep(RETENTION.total_seconds() + 1)

        # then: the event is unknown, and its service's newest rename is not
        assert claimed(ledger, world.event())
        stale = world.event(id="event-2", time=at(START - timedelta(seconds=1)))
        assert isinstance(ledger.claim(stale, TARGET, lasting(ledger)), Superseded)

    def test_of_events_have_keys_of_one_length_whatever_the_event_is_called(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        for id_, source in [("e", "/"), ("x" * 1_024, "/" * 1_024), ("名" * 1_024, "/s"), ("é🚀\u2028", "/s")]:
            settle(ledger, world.event(id=id_, source=source))

        keys = {item["id"]["S"] for item in _put(dynamodb)}

        assert len(keys) == 4
        assert len({len(key.encode()) for key in keys}) == 1
        assert all(key.startswith("event#") and key.isascii() for key in keys)

    def test_of_services_have_keys_that_dynamodb_takes(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        longest = Target("r" * 64, "p" * 64, "s" * 64)
        settle(ledger, world.event(), target=longest)

        assert dynamodb.item(f"service#{'r' * 64}/{'p' * 64}/{'s' * 64}")

    def test_hold_no_more_of_an_event_than_its_outcome_and_a_digest(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        outcome = settle(ledger, world.event())

        [item] = _put(dynamodb)
        assert set(item) == {"id", "digest", "time", "target", "state", "round", "outcome", "expiration"}
        assert json.loads(item["outcome"]["S"]) == outcome.cloud_event

    def test_of_a_service_hold_numbers_that_dynamodb_compares_exactly(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        time = START - timedelta(microseconds=1)
        settle(ledger, world.event(time=at(time)))

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        microseconds = round(START.timestamp()) * 1_000_000 - 1
        assert item["newest_time"] == {"N": str(microseconds)}


def _items(dynamodb: FakeDynamoDb) -> dict[str, dict[str, Any]]:
    """All that was ever written to and is still there."""
    keys = {
        key for call in dynamodb.calls for key in re.findall(r'"id": {"S": "([^"]+)"}', json.dumps(call.parameters))
    }
    return {key: item for key in keys if (item := dynamodb.item(key))}


def _put(dynamodb: FakeDynamoDb) -> list[dict[str, Any]]:
    """The items of events that have an outcome."""
    return [item for key, item in _items(dynamodb).items() if key.startswith("event#") and "outcome" in item]


def _expiration(item: dict[str, Any]) -> timedelta:
    """From the start, in days."""
    seconds = int(item["expiration"]["N"]) - START.timestamp()
    return timedelta(days=round(seconds / 86_400))


# ---- Requests


@pytest.fixture
def requests(ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World) -> list[dict[str, Any]]:
    """Every kind of request that the ledger makes, taken apart into single actions."""
    ledger.outage_is_recorded(REGION, lasting(ledger))
    event, other, third = world.event(), world.event(id="event-2"), world.event(id="event-3")
    settle(ledger, event)
    ledger.claim(event, TARGET, lasting(ledger))
    settle(ledger, other, failure_of(other, not_found()))
    ledger.settle(claimed(ledger, third), success_of(third), lasting(ledger), release=False)
    world.clock.sleep(A_MINUTE + 1)
    fourth = world.event(id="event-4")
    give_up(ledger, fourth)
    give_up(ledger, fourth, SECOND_ROUND)
    claim = claimed(ledger, fourth)
    ledger.settle(claim, failure_of(fourth, not_found(), claim.cycle), lasting(ledger), release=False)
    ledger.release(claim, lasting(ledger))
    whole = [call.parameters for call in dynamodb.calls if "TransactItems" not in call.parameters]
    return whole + [
        request
        for call in dynamodb.calls
        for action in call.parameters.get("TransactItems", [])
        for request in action.values()
    ]


class TestRequests:
    def test_find_items_by_their_keys_alone(self, requests: list[dict[str, Any]], dynamodb: FakeDynamoDb) -> None:
        assert {call.operation for call in dynamodb.calls} == {"GetItem", "TransactWriteItems", "UpdateItem"}
        assert all(list(request.get("Key") or [request["Item"]["id"]]) for request in requests)

    def test_that_write_have_a_condition(self, requests: list[dict[str, Any]]) -> None:
        writes = [request for request in requests if "ProjectionExpression" not in request]

        assert len(writes) > 10
        assert all(request["ConditionExpression"] for request in writes)

    @pytest.mark.parametrize("table", ["ledger", "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"])
    def test_name_the_table_of_the_settings(self, world: World, dynamodb: FakeDynamoDb, table: str) -> None:
        ledger = ledger_of(world, dynamodb, table)
        ledger.outage_is_recorded(REGION, lasting(ledger))
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        settle(ledger, world.event())

        assert set(re.findall(r'"TableName": "([^"]*)"', json.dumps(dynamodb.calls))) == {table}

    def test_use_no_reserved_word_without_an_alias(self, requests: list[dict[str, Any]]) -> None:
        """DynamoDB refuses 573 words as they are, ``state``, ``owner`` and ``time`` among them; none of these."""
        functions = {"attribute_not_exists", "attribute_exists", "if_not_exists"}
        keywords = {"SET", "REMOVE", "AND", "OR", "NOT"}
        words = {
            word
            for request in requests
            for name, expression in request.items()
            if name.endswith("Expression")
            for word in re.findall(r"[#:]?\w+", expression)
            if not word.startswith(("#", ":"))
        }

        assert words - functions - keywords <= {
            "id",
            "digest",
            "lapses",
            "expiration",
            "kept_until",
            "newest_time",
            "newest_event",
            "outcome",
        }

    def test_declare_no_name_and_no_value_in_vain(self, requests: list[dict[str, Any]]) -> None:
        """DynamoDB refuses what an expression does not use, and of course what it uses and nobody declared."""
        for request in requests:
            expressions = " ".join(text for name, text in request.items() if name.endswith("Expression"))
            declared = {*request.get("ExpressionAttributeNames", {}), *request.get("ExpressionAttributeValues", {})}

            assert declared == set(re.findall(r"[#:]\w+", expressions))


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


class TestNoLedger:
    def test_gives_every_claim_and_remembers_nothing(self, world: World) -> None:
        ledger: Ledger = NoLedger()
        event = world.event()

        for _ in range(2):
            claim = ledger.claim(event, TARGET, within(60))
            assert isinstance(claim, Claim)
            assert claim.cycle == FIRST_CYCLE
            assert ledger.settle(claim, success_of(event), within(60), release=True) is None
            assert ledger.conclude(Conclusion(event, FIRST_CYCLE, failure_of(event, unavailable())), within(60)) is None
            ledger.release(claim, within(60))
