"""The ledger when DynamoDB refuses, conflicts or does not answer."""

from __future__ import annotations

from collections.abc import Callable
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

from function.adapters.aws.dynamodb_ledger import MAX_WRITE_ATTEMPTS, DynamoDbLedger, LedgerSchemaError
from function.adapters.aws.ledger_items import breaker_item
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import FIRST_CYCLE
from function.domain.ports import Claim, Conclusion, Known
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, unavailable
from tests.fakes.identifiers import REGION
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    OTHER_TARGET,
    TABLE,
    TARGET,
    URL,
    claimed,
    failure_of,
    held,
    lasting,
    settle,
    success_of,
)

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
        client: Any = SimpleNamespace(update_item=_defect)
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
        for _ in range(MAX_WRITE_ATTEMPTS - 1):
            dynamodb.cancel(*codes)
        claim = claimed(ledger, event)

        dynamodb.cancel(*codes)
        assert ledger.settle(claim, success_of(event), lasting(ledger), release=True) is None

        assert len(dynamodb.calls) == MAX_WRITE_ATTEMPTS + 2
        assert len(world.clock.sleeps) == MAX_WRITE_ATTEMPTS

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
        for _ in range(MAX_WRITE_ATTEMPTS):
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
        assert len(world.clock.sleeps) == MAX_WRITE_ATTEMPTS - 1


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
