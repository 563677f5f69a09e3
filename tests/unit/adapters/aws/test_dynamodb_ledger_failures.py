"""The ledger when DynamoDB refuses, conflicts or does not answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import NoneType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from function.adapters.aws.dynamodb_ledger import MAX_WRITE_ATTEMPTS, DynamoDbLedger, LedgerSchemaError
from function.adapters.aws.ledger_items import breaker_item
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import FIRST_CYCLE
from function.domain.ports import Claim, Known
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import REGION
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    EVENT,
    OTHER_EVENT,
    OTHER_TARGET,
    TABLE,
    TARGET,
    URL,
    LedgerDriver,
    success_of,
)

CONFLICT = "TransactionConflict"
TIMEOUT = ReadTimeoutError(endpoint_url=URL)
NO_ANSWER = pytest.mark.parametrize(
    "error",
    [
        TIMEOUT,
        ConnectTimeoutError(endpoint_url=URL),
        EndpointConnectionError(endpoint_url=URL),
        ConnectionClosedError(endpoint_url=URL),
    ],
    ids=lambda error: type(error).__name__,
)


class Write(NamedTuple):
    """A write that must be known to have been done.

    Attributes:
        updates: how many its transaction has.
        result: the type of what it returns when it is done.
    """

    call: Callable[[], object]
    updates: int
    result: type

    def succeeds(self) -> bool:
        return isinstance(self.call(), self.result)

    def fails(self, reason: str) -> BaseException | None:
        """Says so, and why; returns the cause."""
        with pytest.raises(RenameFailedError) as caught:
            self.call()
        failure = caught.value.failure
        assert (failure.code, failure.kind, failure.retryable) == ("Rename.LedgerUnavailable", Kind.UNAVAILABLE, True)
        assert reason in failure.message
        assert not failure.retry_in_process
        return caught.value.__cause__


@pytest.fixture(params=["claim", "settle", "conclude"])
def write(ledger: LedgerDriver, request: pytest.FixtureRequest) -> Write:
    claim = ledger.claimed(EVENT)
    writes = {
        "claim": Write(partial(ledger.claim, OTHER_EVENT, OTHER_TARGET), 2, Claim),
        "settle": Write(partial(ledger.settle, claim), 2, NoneType),
        "conclude": Write(partial(ledger.conclude, OTHER_EVENT, unavailable()), 1, NoneType),
    }
    return writes[request.param]


# ---- DynamoDB refuses


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
def test_refused_write_fails_with_the_code_of_dynamodb(
    dynamodb: FakeDynamoDb, write: Write, code: str, status: int
) -> None:
    dynamodb.refuse(code, status=status, times=2)

    assert isinstance(write.fails(code), ClientError)

    # then: it changed nothing, and passes when DynamoDB recovers
    dynamodb.recover()
    assert write.succeeds()


@NO_ANSWER
def test_write_without_an_answer_fails_with_the_name_of_the_error(
    dynamodb: FakeDynamoDb, write: Write, error: HTTPClientError
) -> None:
    dynamodb.break_off(error, times=2)

    assert write.fails(type(error).__name__) is error


@pytest.mark.parametrize("code", ["ThrottlingError", "ProvisionedThroughputExceeded"])
def test_throttled_transaction_fails_with_the_code_of_dynamodb(dynamodb: FakeDynamoDb, write: Write, code: str) -> None:
    """DynamoDB says so as one of the reasons why it canceled the transaction."""
    dynamodb.cancel(*["None"] * (write.updates - 1), code)

    write.fails(code)


def _defect(*_: Any, **__: Any) -> None:
    raise RuntimeError("a defect")


def test_exception_of_a_defect_in_a_write_is_raised(
    dynamodb: FakeDynamoDb, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb, "_answer", _defect)

    with pytest.raises(RuntimeError, match="a defect"):
        write.call()


def test_exception_of_a_defect_in_a_release_is_raised(ledger: LedgerDriver) -> None:
    client: Any = SimpleNamespace(transact_write_items=_defect)

    with pytest.raises(RuntimeError, match="a defect"):
        DynamoDbLedger(client, TABLE).release(Claim("token", FIRST_CYCLE, EVENT, TARGET), ledger.deadline())


# ---- Another transaction is in conflict, which does not say yet whether the conditions are met


@pytest.mark.parametrize("codes", [(CONFLICT, "None"), ("None", CONFLICT), (CONFLICT, CONFLICT)])
def test_conflict_is_retried_until_it_passes(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, codes: tuple[str, str]
) -> None:
    for _ in range(MAX_WRITE_ATTEMPTS - 1):
        dynamodb.cancel(*codes)
    claim = ledger.claimed(EVENT)

    dynamodb.cancel(*codes)
    assert ledger.settle(claim) is None

    assert len(dynamodb.calls) == MAX_WRITE_ATTEMPTS + 2
    assert len(ledger.clock.sleeps) == MAX_WRITE_ATTEMPTS


def test_claim_after_a_conflict_returns_the_outcome_of_a_settled_event(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb
) -> None:
    outcome = ledger.settled(EVENT)
    dynamodb.cancel(CONFLICT, "None")

    assert ledger.claim(EVENT) == Known(outcome, None)


def test_conflict_with_a_failed_condition_is_not_retried(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    claim = ledger.claimed(EVENT)
    dynamodb.calls.clear()
    dynamodb.cancel(CONFLICT, "ConditionalCheckFailed")

    assert failed(ledger.settle, claim).code == "Rename.ClaimLost"
    assert len(dynamodb.calls) == 1


def test_lasting_conflict_fails_and_changes_nothing(ledger: LedgerDriver, dynamodb: FakeDynamoDb, write: Write) -> None:
    for _ in range(MAX_WRITE_ATTEMPTS):
        dynamodb.cancel(CONFLICT, *["None"] * (write.updates - 1))

    write.fails(CONFLICT)

    assert write.succeeds()
    # then: there is no wait after the last attempt
    assert len(ledger.clock.sleeps) == MAX_WRITE_ATTEMPTS - 1


# ---- A second attempt, after a first one that may have been carried out


def test_write_carried_out_in_spite_of_a_conflict_is_done(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, write: Write
) -> None:
    """Its second attempt meets what the first one has written."""
    dynamodb.cancel(CONFLICT, *["None"] * (write.updates - 1), applied=True)

    answer = write.call()

    assert isinstance(answer, write.result)
    # then: a claim is that of the first attempt
    assert not isinstance(answer, Claim) or ledger.settle(answer) is None


@NO_ANSWER
def test_write_carried_out_without_an_answer_is_repeated_by_its_token_and_done(
    dynamodb: FakeDynamoDb, write: Write, error: HTTPClientError
) -> None:
    dynamodb.break_off(error, applied=True)
    dynamodb.calls.clear()

    assert write.succeeds()

    first, second = dynamodb.calls
    assert first == second
    assert first.parameters["ClientRequestToken"]


def test_write_that_was_not_carried_out_is_done_by_the_second_attempt(dynamodb: FakeDynamoDb, write: Write) -> None:
    dynamodb.break_off(TIMEOUT)

    assert write.succeeds()


def test_claim_carried_out_without_any_answer_is_left_to_expire(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    dynamodb.break_off(TIMEOUT, applied=True, times=2)

    assert failed(ledger.claim, EVENT).code == "Rename.LedgerUnavailable"
    assert ledger.is_held()
    ledger.clock.sleep(A_MINUTE + 10)
    assert ledger.claimed(EVENT)


def test_settlement_carried_out_without_any_answer_leaves_an_outcome_to_repeat(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb
) -> None:
    claim = ledger.claimed(EVENT)
    dynamodb.break_off(TIMEOUT, applied=True, times=2)

    assert failed(ledger.settle, claim).code == "Rename.LedgerUnavailable"
    assert ledger.claim(EVENT) == Known(success_of(EVENT), None)


def test_each_write_has_a_request_token_of_its_own(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    for _ in range(2):
        ledger.claimed_and_released(EVENT)

    tokens = [parameters["ClientRequestToken"] for operation, parameters in dynamodb.calls if "Transact" in operation]
    assert len(set(tokens)) == len(tokens) == 4


# ---- Whether an outage is recorded


def test_new_table_has_no_outage_and_is_only_read(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    assert ledger.outage_is_recorded() is False

    [call] = dynamodb.calls
    assert (call.operation, call.parameters["TableName"], list(call.parameters["Key"])) == ("GetItem", TABLE, ["id"])


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ValidationException"])
def test_missing_table_or_one_with_another_key_is_a_schema_error(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, code: str
) -> None:
    dynamodb.refuse(code)

    with pytest.raises(LedgerSchemaError) as caught:
        ledger.outage_is_recorded()

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
def test_no_outage_is_recorded_if_the_read_is_refused(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, code: str, status: int
) -> None:
    dynamodb.refuse(code, status=status, times=2)

    assert ledger.outage_is_recorded() is False
    assert dynamodb.calls


@NO_ANSWER
def test_no_outage_is_recorded_if_the_read_has_no_answer(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, error: HTTPClientError
) -> None:
    dynamodb.break_off(error, times=2)

    assert ledger.outage_is_recorded() is False
    assert len(dynamodb.calls) == 2


@pytest.mark.parametrize(("state", "recorded"), [("OPEN", True), ("HALF_OPEN", True), ("CLOSED", False)])
def test_outage_is_recorded_while_the_breaker_is_not_closed(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, state: str, recorded: bool
) -> None:
    item = {"id": {"S": breaker_item(REGION)}, "state": {"S": state}}
    dynamodb.client().put_item(ledger.deadline(), TableName=TABLE, Item=item)

    assert ledger.outage_is_recorded() is recorded
