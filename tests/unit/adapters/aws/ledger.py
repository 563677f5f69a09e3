"""Steps of the ledger that several of its tests take, and the events that they are about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger
from function.domain.deadline import Deadline
from function.domain.failures import EventName, Failure, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target
from function.domain.outcomes import rename_failed, renamed
from function.domain.ports import Claim, Conclusion, Known, Located, Reply, Reused, Superseded
from tests.fakes.clock import FakeClock
from tests.fakes.domain import context
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import unavailable
from tests.fakes.identifiers import PROJECT, REGION, SERVICE, START
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
OTHER_TARGET = TARGET._replace(vpc_endpoint_service_id="service-2")
SERVICE_KEY = f"service#{REGION}/{PROJECT}/{SERVICE}"
A_MINUTE = 60.0
URL = "https://dynamodb.eu-west-1.amazonaws.com"


def at(**offset: float) -> str:
    """A time so long after the start."""
    return (START + timedelta(**offset)).isoformat().replace("+00:00", "Z")


def event(id_: str = "event-1", **data: Any) -> RenameEvent:
    """An event of the start, by default."""
    return World().event(id=id_, **data)


EVENT = event()
OTHER_EVENT = event("event-2")
THIRD_EVENT = event("event-3")
REUSED_IDENTIFIER = event(endpoint_service_name="other")
HOUR_BEFORE = event("hour-before", time=at(hours=-1))
TWO_HOURS_BEFORE = event("two-hours-before", time=at(hours=-2))
_PROBE = event("probe")


def success_of(event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE, **fields: Any) -> Outcome:
    return renamed(
        event, context(cycle=cycle, **fields), Reply(event.endpoint_service_name, 200, "request-1"), "billing"
    )


def failure_of(event: RenameEvent, failure: Failure, cycle: RedriveCycle = FIRST_CYCLE) -> Outcome:
    return rename_failed(event, context(cycle=cycle), failure)


class LedgerDriver:
    """Takes the steps of a ledger, each with a deadline of its own.

    What is called by a participle asserts that its step succeeds.
    """

    def __init__(self, dynamodb: FakeDynamoDb, clock: FakeClock, table: str = TABLE) -> None:
        self.clock = clock
        self.adapter = DynamoDbLedger(dynamodb.client(), table, now=clock.epoch, sleep=clock.sleep)

    def deadline(self, seconds: float = A_MINUTE) -> Deadline:
        """Of an invocation whose claims last so long."""
        now = self.clock.epoch()
        return Deadline(now + 60.0, now + seconds - CLAIM_SLACK_SECONDS, self.clock.epoch)

    def claim(
        self, event: RenameEvent, target: Target = TARGET, seconds: float = A_MINUTE, cycle: RedriveCycle = FIRST_CYCLE
    ) -> Claim | Known | Reused | Superseded:
        return self.adapter.claim(event, target, self.deadline(seconds), cycle)

    def settle(self, claim: Claim, outcome: Outcome | None = None, *, release: bool = True) -> Known | Reused | None:
        """With a success, by default."""
        outcome = outcome or success_of(claim.event, claim.cycle)
        return self.adapter.settle(claim, outcome, self.deadline(), release=release)

    def conclude(
        self, event: RenameEvent, failure: Failure, cycle: RedriveCycle = FIRST_CYCLE, **conditions: Any
    ) -> Known | Reused | Located | None:
        conclusion = Conclusion(event, cycle, failure_of(event, failure, cycle), **conditions)
        return self.adapter.conclude(conclusion, self.deadline())

    def release(self, claim: Claim) -> None:
        self.adapter.release(claim, self.deadline())

    def outage_is_recorded(self, region: str = REGION) -> bool:
        return self.adapter.outage_is_recorded(region, self.deadline())

    def claimed(self, event: RenameEvent, target: Target = TARGET, seconds: float = A_MINUTE) -> Claim:
        answer = self.claim(event, target, seconds)
        assert isinstance(answer, Claim), answer
        return answer

    def claimed_and_released(self, event: RenameEvent, target: Target = TARGET) -> Claim:
        claim = self.claimed(event, target)
        self.release(claim)
        return claim

    def settled(self, event: RenameEvent, failure: Failure | None = None, target: Target = TARGET) -> Outcome:
        claim = self.claimed(event, target)
        outcome = failure_of(event, failure, claim.cycle) if failure else success_of(event, claim.cycle)
        assert self.settle(claim, outcome) is None
        return outcome

    def given_up(self, event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE, **conditions: Any) -> Outcome:
        assert self.conclude(event, unavailable(), cycle, **conditions) is None
        return failure_of(event, unavailable(), cycle)

    def known(self, event: RenameEvent) -> tuple[Outcome, RedriveCycle | None]:
        """The outcome, and the next redrive cycle."""
        answer = self.claim(event)
        assert isinstance(answer, Known), answer
        return answer

    def next_cycle(self, event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE, **conditions: Any) -> RedriveCycle:
        """Give up the event in this cycle."""
        return RedriveCycle(cycle.number + 1, self.given_up(event, cycle, **conditions).id)

    def superseded(self, event: RenameEvent) -> tuple[EventName, RedriveCycle]:
        """By what, and in which redrive cycle."""
        answer = self.claim(event)
        assert isinstance(answer, Superseded), answer
        return answer.by, answer.cycle

    def is_held(self) -> bool:
        """Whether the service is claimed, as another event of the start sees it."""
        try:
            self.claimed_and_released(_PROBE)
        except RenameFailedError as error:
            return error.failure.code == "Rename.InProgress"
        return False
