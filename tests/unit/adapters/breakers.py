"""An outage breaker over services and a table in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS, OutageBreaker
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
ITEM = "breaker#vpcep/cn-north-4"
POWERTOOLS = "aws_lambda_powertools.utilities.circuit_breaker"


def isolate_powertools(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Powertools reads the time from the world's clock, and has none of the counts of earlier tests."""
    clock = SimpleNamespace(datetime=SimpleNamespace(now=world.clock.now))
    for module in ("base", "persistence.base", "persistence.dynamodb"):
        monkeypatch.setattr(f"{POWERTOOLS}.{module}.dt", clock)
    for counter in ("_LOCAL_FAILURES", "_LOCAL_SUCCESSES", "_LAST_OBSERVED_STATE"):
        monkeypatch.setattr(f"{POWERTOOLS}.base.{counter}", {})


class Breaker:
    """A breaker over the endpoint services of a world, with a table that other breakers may share.

    Attributes:
        transitions: the states that it changed to.
    """

    def __init__(
        self,
        world: World,
        dynamodb: FakeDynamoDb | None = None,
        *,
        client: Any = None,
        is_recorded: Callable[[str, Deadline], bool] | None = None,
        on_transition: Callable[[CircuitTransition], None] | None = None,
        errors: list[Exception] | None = None,
    ) -> None:
        """
        Args:
            client: of Powertools, instead of the table's own.
            errors: where the breaker's errors are kept; without it, each fails the test.
        """
        self.world = world
        self.services = world.services
        self.dynamodb = dynamodb or FakeDynamoDb(world.clock.epoch)
        self.transitions: list[str] = []
        own = self.dynamodb.client()
        self.outage_breaker = OutageBreaker(
            world.services,
            is_recorded or DynamoDbLedger(own, TABLE).outage_is_recorded,
            client or own,
            table=TABLE,
            item=breaker_item,
            on_transition=on_transition or self._changed,
            on_error=_fail if errors is None else errors.append,
            now=world.clock.epoch,
        )

    def _changed(self, transition: CircuitTransition) -> None:
        assert transition.circuit_name == ITEM
        self.transitions.append(transition.to_state.value)

    def call(
        self, operation: str = "rename", target: Target = TARGET, purpose: ReadPurpose = ReadPurpose.DECISION
    ) -> Reply:
        if operation == "read":
            return self.outage_breaker.read(target, within(5.0), purpose)
        return self.outage_breaker.rename(target, "orders", within(5.0))

    def code(self, operation: str = "rename", purpose: ReadPurpose = ReadPurpose.DECISION) -> str | None:
        """The code of the failure that a call ends in."""
        try:
            self.call(operation, purpose=purpose)
        except RenameFailedError as error:
            return error.failure.code
        return None

    def fail(self, failure: Failure, times: int = 1, operation: str = "rename") -> None:
        """So many calls that are answered with the failure."""
        for _ in range(times):
            self.services.refuse(failure, on=operation)
            assert failed(self.call, operation) is failure

    def open(self) -> None:
        self.fail(unavailable(), FAILURE_THRESHOLD)
        assert self.state == "OPEN"

    def wait_for_recovery(self) -> None:
        self.world.clock.sleep(RECOVERY_SECONDS)

    def is_open(self) -> bool:
        """Whether the next call does not reach Huawei Cloud."""
        before = len(self.services.calls)
        self.code()
        return len(self.services.calls) == before

    def is_open_in_another_thread(self) -> bool:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self.is_open).result()

    @property
    def state(self) -> Any:
        """As it is stored."""
        item = self.dynamodb.item(ITEM)
        return item and item["state"]["S"]

    def store(self, state: str, opened_at: float, item: str = ITEM, **attributes: dict[str, str]) -> None:
        """Another environment has stored the state."""
        stored = {"id": {"S": item}, "state": {"S": state}, "opened_at": {"N": str(int(opened_at))}} | attributes
        self.dynamodb.client().put_item(within(5.0), TableName=TABLE, Item=stored)


def _fail(error: Exception) -> None:
    raise AssertionError from error
