"""What a read counts for, by its purpose: in the outage breaker and in the key guard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS, STATE_CACHE_SECONDS, OutageBreaker
from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.key_guard import KeyGuard
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import ReadPurpose, Reply
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, refusal, unavailable
from tests.fakes.failures import wrong_key as wrong_signature
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
POWERTOOLS = "aws_lambda_powertools.utilities.circuit_breaker"
MAY_NOT = refusal("EndPoint.0004", 403)
WITHOUT_EFFECT = [ReadPurpose.OUTCOME, ReadPurpose.DRY_RUN]


@pytest.fixture(autouse=True)
def _powertools(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    clock = SimpleNamespace(datetime=SimpleNamespace(now=world.clock.now))
    for module in ("base", "persistence.base", "persistence.dynamodb"):
        monkeypatch.setattr(f"{POWERTOOLS}.{module}.dt", clock)
    for counter in ("_LOCAL_FAILURES", "_LOCAL_SUCCESSES", "_LAST_OBSERVED_STATE"):
        monkeypatch.setattr(f"{POWERTOOLS}.base.{counter}", {})


class Breaker:
    """A breaker over the endpoint services and the table of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dynamodb = FakeDynamoDb(lambda: world.clock.now().timestamp())
        client = self.dynamodb.client()

        def fail(error: Exception) -> None:
            raise AssertionError from error

        self._breaker = OutageBreaker(
            world.services,
            DynamoDbLedger(client, TABLE).outage_is_recorded,
            client,
            table=TABLE,
            item=breaker_item,
            on_transition=lambda _: None,
            on_error=fail,
            now=world.clock.epoch,
        )

    def read(self, purpose: ReadPurpose) -> str | None:
        """The code of the failure."""
        try:
            self._breaker.read(TARGET, within(5.0), purpose)
        except RenameFailedError as error:
            return error.failure.code
        return None

    def rename(self) -> str | None:
        try:
            self._breaker.rename(TARGET, "orders", within(5.0))
        except RenameFailedError as error:
            return error.failure.code
        return None

    @property
    def state(self) -> Any:
        item = self.dynamodb.item(breaker_item(REGION))
        return item and item["state"]["S"]

    def open(self) -> None:
        self.world.services.refuse(unavailable(), times=FAILURE_THRESHOLD)
        for _ in range(FAILURE_THRESHOLD):
            self.rename()
        assert self.state == "OPEN"


@pytest.fixture
def breaker(world: World) -> Breaker:
    return Breaker(world)


def writes(breaker: Breaker) -> list[str]:
    return [call.operation for call in breaker.dynamodb.calls if call.operation != "GetItem"]


@pytest.mark.parametrize("purpose", WITHOUT_EFFECT)
def test_read_without_effect_never_writes_the_state_of_the_breaker(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.world.services.refuse(unavailable(), on="read", times=None)

    for _ in range(3 * FAILURE_THRESHOLD):
        breaker.read(purpose)

    assert writes(breaker) == []


def test_read_for_the_outcome_counts_for_no_outage(breaker: Breaker) -> None:
    breaker.world.services.refuse(unavailable(), on="read", times=None)

    for _ in range(2 * FAILURE_THRESHOLD):
        breaker.read(ReadPurpose.OUTCOME)

    assert breaker.rename() is None


def test_success_of_a_read_for_the_outcome_ends_no_run_of_failures(breaker: Breaker) -> None:
    breaker.world.services.refuse(unavailable(), times=FAILURE_THRESHOLD)
    for _ in range(FAILURE_THRESHOLD):
        assert breaker.read(ReadPurpose.OUTCOME) is None
        breaker.rename()

    assert breaker.state == "OPEN"


def test_dry_runs_open_the_breaker_in_memory_only(breaker: Breaker) -> None:
    breaker.world.services.refuse(unavailable(), on="read", times=None)

    codes = [breaker.read(ReadPurpose.DRY_RUN) for _ in range(FAILURE_THRESHOLD + 1)]

    assert codes == ["EndPoint.0001"] * FAILURE_THRESHOLD + ["Rename.Outage"]
    assert breaker.state is None
    breaker.world.clock.sleep(STATE_CACHE_SECONDS + 1)
    assert breaker.read(ReadPurpose.DRY_RUN) == "EndPoint.0001"


@pytest.mark.parametrize("purpose", WITHOUT_EFFECT)
def test_open_breaker_is_obeyed(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.open()

    assert breaker.read(purpose) == "Rename.Outage"
    assert breaker.world.services.calls_of("read") == []


@pytest.mark.parametrize("purpose", WITHOUT_EFFECT)
def test_probe_is_left_to_a_rename(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.open()
    before = breaker.dynamodb.item(breaker_item(REGION))
    breaker.world.clock.sleep(RECOVERY_SECONDS + STATE_CACHE_SECONDS)

    assert breaker.read(purpose) == "Rename.Outage"
    assert breaker.dynamodb.item(breaker_item(REGION)) == before
    assert breaker.rename() is None
    assert breaker.state == "CLOSED"


# ---- The key guard


@pytest.fixture
def guard(clock: MovedClock) -> KeyGuard:
    return KeyGuard(Credentials("AK", "SK", None, PROJECT), REGION, invalidate=lambda _: None, now=clock)


def fail_with(failure: Failure) -> Any:
    def send() -> Reply:
        raise RenameFailedError(failure)

    return send


@pytest.mark.parametrize(
    ("purpose", "failure", "is_remembered"),
    [
        (ReadPurpose.OUTCOME, MAY_NOT, False),
        (ReadPurpose.OUTCOME, wrong_signature(), True),
        (ReadPurpose.DRY_RUN, MAY_NOT, True),
        (ReadPurpose.DRY_RUN, wrong_signature(), True),
        (ReadPurpose.DECISION, MAY_NOT, True),
    ],
)
def test_refusal_is_remembered_by_the_purpose_of_the_read(
    guard: KeyGuard, purpose: ReadPurpose, failure: Failure, is_remembered: bool
) -> None:
    failed(guard.call, TARGET, fail_with(failure), within(5.0), purpose)

    renamed = Reply("orders", 200, None)
    if is_remembered:
        assert failed(guard.call, TARGET, lambda: renamed, within(5.0)).code == failure.code
    else:
        assert guard.call(TARGET, lambda: renamed, within(5.0)) is renamed


def test_known_refusal_is_obeyed_by_a_dry_run(guard: KeyGuard) -> None:
    failed(guard.call, TARGET, fail_with(wrong_signature()), within(5.0))

    refused = failed(guard.call, TARGET, lambda: pytest.fail("called"), within(5.0), ReadPurpose.DRY_RUN)

    assert refused.code == wrong_signature().code
