"""Steps of the ledger that several of its tests take."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger
from function.domain.deadline import Deadline
from function.domain.failures import EventName, Failure, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target, rfc3339
from function.domain.outcomes import OutcomeContext, rename_failed, renamed
from function.domain.ports import Claim, Conclusion, Superseded
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
