"""The ledger's writes on the deployed table and on the table in memory: whatever is asked, both answer the same.

What the simulator finds about the ledger is worth as much as its table in memory is like DynamoDB.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError

from function.adapters.aws.client import Aws, DynamoDbClient, Key
from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger, LedgerSchemaError
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RedriveCycle, RenameEvent, Target, rfc3339
from function.domain.outcomes import OutcomeContext, rename_failed, renamed
from function.domain.ports import Claim, Conclusion, Known, Reply, Reused, Superseded
from function.domain.strict_json import to_json
from tests.deadlines import within
from tests.faults.dynamodb import Table
from tests.integration.observer import ledger_table
from tests.localcloud.aws import ROOT_USER
from tests.localcloud.stack import Clouds, rename_event

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

OPERATIONS = 300
EVENTS = 30
SERVICES = 4
TIMES = 7
CLAIM_SECONDS = 120.0


class InMemory:
    """boto3's client, as far as the ledger calls it."""

    def __init__(self) -> None:
        self.table = Table(lambda _: False)

    def transact_write_items(self, deadline: Deadline, **request: Any) -> None:
        self.table.transact([dict(item) for item in request["TransactItems"]])

    def get_item(self, deadline: Deadline, **request: Any) -> dict[str, Any]:
        item = self.table.get(request["Key"])
        return {"Item": item} if item else {}


@dataclass
class Clock:
    """The same for both, and never far from the machine's: what has expired by that one is removed from a table."""

    seconds: float

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Held:
    """A claim that was given, as either ledger knows it."""

    event: RenameEvent
    target: Target
    deployed: Claim
    in_memory: Claim


def own_client(clouds: Clouds) -> DynamoDbClient:
    """The function's."""
    aws = clouds.aws
    key = Key(ROOT_USER["AWS_ACCESS_KEY_ID"], ROOT_USER["AWS_SECRET_ACCESS_KEY"], None)
    return DynamoDbClient(Aws(region=aws.region, endpoints={"": aws.endpoint}, key=key, ca_bundle=str(aws.ca)))


class Both:
    """The ledger twice: each operation is done on both, and must end the same."""

    def __init__(self, clouds: Clouds, seed: int) -> None:
        self.random = Random(seed)
        self.client: DynamoDBClient = clouds.aws.client("dynamodb")
        self.table = ledger_table(clouds)
        self.memory = InMemory()
        self.clock = Clock(time.time())
        self.deployed = DynamoDbLedger(own_client(clouds), self.table, now=self.clock)
        self.in_memory = DynamoDbLedger(cast("DynamoDbClient", self.memory), self.table, now=self.clock)
        self.held: list[Held] = []
        self.rounds: dict[str, list[RedriveCycle]] = defaultdict(list)
        self.answers: list[str] = []
        self._run = uuid.uuid4().hex
        self._start = datetime.fromtimestamp(self.clock.seconds, UTC) - timedelta(hours=1)

    def deadline(self) -> Deadline:
        """Of an invocation whose claims last for CLAIM_SECONDS by the clock of both."""
        return within(10)._replace(invocation_ends_at=self.clock() + CLAIM_SECONDS - CLAIM_SLACK_SECONDS)

    def event(self) -> tuple[RenameEvent, Target]:
        """One of a few, and now and then another of its name, or the same at another time."""
        number = self.random.randrange(EVENTS)
        as_ever = self.random.random() < 0.9
        service = number % SERVICES if as_ever else self.random.randrange(SERVICES)
        target = Target("cn-north-4", "project", f"{self._run}-{service}")
        sent = rename_event(target.vpc_endpoint_service_id, "orders" if as_ever else "billing")
        as_ever = self.random.random() < 0.9
        moment = self._start + timedelta(microseconds=number % TIMES if as_ever else self.random.randrange(TIMES))
        sent |= {"id": f"event-{number}", "source": f"/{self._run}", "time": moment.isoformat()}
        event = _PARSER.parse(to_json(sent), _NO_ATTRIBUTES)
        assert isinstance(event, RenameEvent), event
        return event, target

    def claim(self) -> None:
        event, target = self.event()
        if self.held and self.random.random() < 0.3:
            held = self.random.choice(self.held)
            event, target = held.event, held.target
        deployed, in_memory = self._do(event, lambda ledger, _: ledger.claim(event, target, self.deadline()))
        if isinstance(deployed, Claim) and isinstance(in_memory, Claim):
            self.held.append(Held(deployed.event, target, deployed, in_memory))

    def settle(self) -> None:
        if not self.held:
            return
        held, free = self.random.choice(self.held), self.random.random() < 0.7
        outcome = self._outcome(held.event, held.deployed.cycle)
        self._do(
            held.event,
            lambda ledger, which: ledger.settle(getattr(held, which), outcome, self.deadline(), release=free),
        )

    def conclude(self) -> None:
        event, _ = self.event()
        cycle = self.random.choice([FIRST_CYCLE, *self.rounds[event.id]])
        outcome, require_same_time = self._outcome(event, cycle), self.random.random() < 0.5
        self._do(
            event,
            lambda ledger, _: ledger.conclude(
                Conclusion(event, cycle, outcome, require_same_time=require_same_time), self.deadline()
            ),
        )

    def release(self) -> None:
        if not self.held:
            return
        held = self.random.choice(self.held)
        self._do(held.event, lambda ledger, which: ledger.release(getattr(held, which), self.deadline()))

    def wait(self) -> None:
        self.clock.seconds += self.random.choice([0.001, 1, CLAIM_SECONDS / 2, CLAIM_SECONDS, CLAIM_SECONDS + 0.5])

    def forget(self) -> None:
        """The holders of the oldest claims were killed."""
        del self.held[:2]

    def _do(self, event: RenameEvent, operation: Callable[[DynamoDbLedger, str], Any]) -> tuple[Any, Any]:
        deployed = _answer(lambda: operation(self.deployed, "deployed"))
        in_memory = _answer(lambda: operation(self.in_memory, "in_memory"))
        assert _comparable(deployed) == _comparable(in_memory), f"operation {len(self.answers)}"
        self.answers.append(_kind(deployed))
        if isinstance(deployed, Known) and deployed.next_cycle:
            self.rounds[event.id].append(deployed.next_cycle)
        return deployed, in_memory

    def _outcome(self, event: RenameEvent, cycle: RedriveCycle) -> Outcome:
        context = OutcomeContext("sqs", "cn-north-4", "project", 1, rfc3339(self._start), cycle)
        match self.random.choice(["renamed", "settled", "given up"]):
            case "renamed":
                return renamed(event, context, Reply("orders", 200, None))
            case "settled":
                return rename_failed(event, context, failures.precondition_failed("billing"))
            case _:
                return rename_failed(event, context, failures.abandoned())

    def items(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Every item that was written, as it is on either side; a claim's token is its own on each."""
        keys = list(self.memory.table._items)
        pairs = []
        for key in keys:
            deployed = self.client.get_item(TableName=self.table, Key={"id": {"S": key}}, ConsistentRead=True)
            in_memory = self.memory.table.get({"id": {"S": key}})
            assert in_memory is not None
            pairs.append((_plain(deployed["Item"]), _plain(in_memory)))
        return pairs


_NO_ATTRIBUTES = Attributes(id="none", source="/none", time="none", given={})
_PARSER = EventParser()


def _answer(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RenameFailedError as error:
        return error.failure


def _comparable(answer: Any) -> Any:
    return answer._replace(token="") if isinstance(answer, Claim) else answer


def _kind(answer: Claim | Known | Reused | Superseded | Failure | None) -> str:
    match answer:
        case Known(_, None):
            return "settled"
        case Known():
            return "given up"
        case Failure(code=code):
            return code
        case None:
            return "done"
        case _:
            return type(answer).__name__


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    def value(name: str, attribute: Mapping[str, str]) -> object:
        if name == "owner":
            return "any"
        ((kind, text),) = attribute.items()
        return Decimal(text) if kind == "N" else text

    return {name: value(name, attribute) for name, attribute in item.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_operations_end_the_same_on_the_deployed_table_and_in_memory(clouds: Clouds, seed: int) -> None:
    both = Both(clouds, seed)
    operations = [both.claim, both.settle, both.conclude, both.release, both.wait, both.forget]

    for operation in both.random.choices(operations, weights=[10, 6, 2, 2, 3, 1], k=OPERATIONS):
        operation()

    items = both.items()
    assert [deployed for deployed, _ in items] == [in_memory for _, in_memory in items]
    # then: each answer that there is was given
    assert set(both.answers) == {
        *("done", "settled", "given up", "Claim", "Reused", "Superseded"),
        *("Rename.InProgress", "Rename.ClaimLost"),
    }


def test_ledger_accepts_the_table_of_the_stack(clouds: Clouds) -> None:
    DynamoDbLedger(own_client(clouds), ledger_table(clouds)).outage_is_recorded("cn-north-4", within(10))


def test_ledger_rejects_a_missing_table(clouds: Clouds) -> None:
    with pytest.raises(LedgerSchemaError, match="ResourceNotFoundException"):
        DynamoDbLedger(own_client(clouds), "missing").outage_is_recorded("cn-north-4", within(10))


def test_deployed_table_refuses_a_reserved_word_in_an_expression(clouds: Clouds) -> None:
    """So that every expression above, which it took, has none."""
    with pytest.raises(ClientError, match="reserved keyword"):
        clouds.aws.client("dynamodb").update_item(
            TableName=ledger_table(clouds), Key={"id": {"S": "none"}}, UpdateExpression="REMOVE owner"
        )
