"""The outage breaker: when it opens, what it then keeps from Huawei Cloud, and when it lets go again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from aws_lambda_powertools.utilities.circuit_breaker import CircuitTransition
from botocore.exceptions import ClientError, ReadTimeoutError

from function.adapters.aws.client import DynamoDbClient
from function.adapters.aws.dynamodb_ledger import DynamoDbLedger, LedgerSchemaError
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.circuit_breaker import (
    FAILURE_THRESHOLD,
    RECOVERY_SECONDS,
    STATE_CACHE_SECONDS,
    STORE_SECONDS,
    OutageBreaker,
)
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import Reply
from function.domain.rename_service import Unsettled
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
ITEM = "breaker#vpcep/cn-north-4"
SECONDS = 5.0

POWERTOOLS = "aws_lambda_powertools.utilities.circuit_breaker"
UNAVAILABLE = [
    unavailable(),
    refusal("APIGW.0601", 500),
    refusal("EndPoint.0013", 504),
    failures.timeout(in_doubt=True),
    failures.timeout(),
    failures.connection_failed(),
]
OTHERS = [
    throttled(retry_after=60.0),
    wrong_key(),
    refusal("EndPoint.0002", 400),
    not_found(),
    refusal("EndPoint.3045", 400),
    refusal("EndPoint.0011", 500),
]


def _code(failure: Failure) -> str:
    return f"{failure.kind}-{failure.code}"


@pytest.fixture(autouse=True)
def _powertools(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """What Powertools reads the time by, and what it counts by: a process counts on through all its tests."""
    clock = SimpleNamespace(datetime=SimpleNamespace(now=world.clock.now))
    for module in ("base", "persistence.base", "persistence.dynamodb"):
        monkeypatch.setattr(f"{POWERTOOLS}.{module}.dt", clock)
    for counter in ("_LOCAL_FAILURES", "_LOCAL_SUCCESSES", "_LAST_OBSERVED_STATE"):
        monkeypatch.setattr(f"{POWERTOOLS}.base.{counter}", {})


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(lambda: world.clock.now().timestamp())


@pytest.fixture
def turns() -> list[CircuitTransition]:
    return []


@pytest.fixture
def breaker(world: World, dynamodb: FakeDynamoDb, turns: list[CircuitTransition]) -> OutageBreaker:
    return breaker_of(world, dynamodb, turns.append)


def expect_no_error(error: Exception) -> None:
    raise AssertionError from error


def breaker_of(
    world: World,
    dynamodb: FakeDynamoDb,
    on_transition: Callable[[CircuitTransition], None] = lambda _: None,
    on_error: Callable[[Exception], None] = expect_no_error,
    client: Any = None,
    fail: tuple[str, Exception] | None = None,
) -> OutageBreaker:
    own = dynamodb.client()
    state: Any = client or (Failing(own, *fail) if fail else own)
    return OutageBreaker(
        world.services,
        DynamoDbLedger(own, TABLE).outage_is_recorded,
        state,
        table=TABLE,
        item=breaker_item,
        on_transition=on_transition,
        on_error=on_error,
        now=world.clock.epoch,
    )


def rename(breaker: OutageBreaker, target: Target = TARGET) -> Reply:
    return breaker.rename(target, "orders", within(SECONDS))


def fail(breaker: OutageBreaker, world: World, failure: Failure, times: int = 1) -> None:
    """So many calls that are answered with the failure."""
    for _ in range(times):
        world.services.refuse(failure)
        assert failed(lambda: rename(breaker)) == failure


def open_(breaker: OutageBreaker, world: World) -> None:
    fail(breaker, world, unavailable(), FAILURE_THRESHOLD)


def states(turns: list[CircuitTransition]) -> list[str]:
    return [turn.to_state.value for turn in turns]


def is_open(breaker: OutageBreaker, world: World) -> bool:
    """Whether the next call is kept from Huawei Cloud."""
    before = len(world.services.calls)
    with suppress(RenameFailedError):
        rename(breaker)
    return len(world.services.calls) == before


def is_open_in_another_thread(breaker: OutageBreaker, world: World) -> bool:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(is_open, breaker, world).result()


def is_open_during_a_rename(breaker: OutageBreaker, other: OutageBreaker, world: World) -> bool:
    """Whether another thread's call through the other breaker, or the same one, is kept back meanwhile."""
    meanwhile: list[bool] = []

    def during(_: Target) -> None:
        world.services.during = lambda _: None
        meanwhile.append(is_open_in_another_thread(other, world))

    world.services.during = during
    rename(breaker)
    [found] = meanwhile
    return found


class TestClosed:
    def test_passes_calls_and_replies_on(self, breaker: OutageBreaker, world: World) -> None:
        reply = breaker.rename(TARGET, "orders", world.clock.until(3.5))
        read = breaker.read(TARGET, world.clock.until(2.5))

        assert (reply.name, reply.status) == ("orders", 200)
        assert "orders" in (read.name or "")
        assert world.services.calls == [("rename", TARGET, "orders", 3.5), ("read", TARGET, None, 2.5)]

    @pytest.mark.parametrize("failure", UNAVAILABLE + OTHERS, ids=_code)
    @pytest.mark.parametrize("operation", ["rename", "read"])
    def test_passes_failures_on_as_they_are(
        self, breaker: OutageBreaker, world: World, failure: Failure, operation: str
    ) -> None:
        world.services.refuse(failure, on=operation)
        call = rename if operation == "rename" else lambda breaker: breaker.read(TARGET, within(SECONDS))

        assert failed(lambda: call(breaker)) is failure

    def test_passes_on_what_nobody_expected(self, breaker: OutageBreaker, world: World) -> None:
        world.services.crash(RuntimeError("a defect"), times=FAILURE_THRESHOLD)

        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(RuntimeError, match="a defect"):
                rename(breaker)

        assert not is_open(breaker, world)

    def test_writes_nothing_and_reads_its_state_once_in_a_while(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        for seconds in (0, 1, STATE_CACHE_SECONDS - 2):
            world.clock.sleep(seconds)
            rename(breaker)

        assert [(call.operation, call.parameters["Key"]) for call in dynamodb.calls] == [
            ("GetItem", {"id": {"S": ITEM}})
        ]

        world.clock.sleep(STATE_CACHE_SECONDS)
        rename(breaker)
        assert [call.operation for call in dynamodb.calls] == ["GetItem", "GetItem"]

    def test_tells_of_no_turn(self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]) -> None:
        rename(breaker)
        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)

        assert turns == []


class TestOpening:
    @pytest.mark.parametrize("failure", UNAVAILABLE, ids=_code)
    def test_takes_a_run_of_unavailable_answers(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition], failure: Failure
    ) -> None:
        fail(breaker, world, failure, FAILURE_THRESHOLD)

        assert is_open(breaker, world)
        assert states(turns) == ["OPEN"]

    def test_takes_no_shorter_run(self, breaker: OutageBreaker, world: World) -> None:
        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)

        assert not is_open(breaker, world)

    @pytest.mark.parametrize("failure", OTHERS, ids=_code)
    def test_takes_no_other_answers(self, breaker: OutageBreaker, world: World, failure: Failure) -> None:
        fail(breaker, world, failure, 3 * FAILURE_THRESHOLD)

        assert not is_open(breaker, world)

    @pytest.mark.parametrize("operation", ["rename", "read"])
    def test_takes_a_run_without_a_success_in_between(
        self, breaker: OutageBreaker, world: World, operation: str
    ) -> None:
        for _ in range(3):
            fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)
            if operation == "rename":
                rename(breaker)
            else:
                breaker.read(TARGET, within(SECONDS))

        assert not is_open(breaker, world)

    @pytest.mark.parametrize("failure", OTHERS, ids=_code)
    def test_takes_a_run_without_any_other_answer_in_between(
        self, breaker: OutageBreaker, world: World, failure: Failure
    ) -> None:
        """Who says that a service does not exist, or that a key is wrong, is there."""
        for _ in range(3):
            fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)
            fail(breaker, world, failure)

        assert not is_open(breaker, world)

    def test_counts_renames_and_reads_alike(self, breaker: OutageBreaker, world: World) -> None:
        for number in range(FAILURE_THRESHOLD):
            operation = ("rename", "read")[number % 2]
            world.services.refuse(unavailable(), on=operation)
            failed(lambda: rename(breaker) if number % 2 == 0 else breaker.read(TARGET, within(SECONDS)))  # noqa: B023 - at once

        assert is_open(breaker, world)

    def test_counts_what_fails_at_once(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]
    ) -> None:
        # given: as many groups at work as an invocation has
        world.services.refuse(unavailable(), times=None)

        with ThreadPoolExecutor(FAILURE_THRESHOLD) as pool:
            answers = list(pool.map(lambda _: failed(lambda: rename(breaker)), range(FAILURE_THRESHOLD)))

        assert {answer.code for answer in answers} == {"EndPoint.0001"}
        assert is_open(breaker, world)
        assert states(turns) == ["OPEN"]

    def test_is_of_all_services(self, breaker: OutageBreaker, world: World) -> None:
        open_(breaker, world)

        failure = failed(lambda: rename(breaker, TARGET._replace(vpc_endpoint_service_id="another")))

        assert failure.code == "Rename.Outage"


class TestWhatWasNotCalled:
    """It says nothing about Huawei Cloud: waited for a lock in vain, a refusal remembered, no key."""

    FAILURES = pytest.mark.parametrize(
        "failure",
        [
            replace(failures.timeout(), counts_as_attempt=False),
            replace(unavailable(), counts_as_attempt=False),
            replace(wrong_key(), counts_as_attempt=False),
            failures.credentials("none", kind=Kind.UNAVAILABLE),
            failures.credentials("none", kind=Kind.ACCESS),
        ],
        ids=_code,
    )

    @FAILURES
    def test_opens_nothing(self, breaker: OutageBreaker, world: World, failure: Failure) -> None:
        fail(breaker, world, unavailable())
        fail(breaker, world, failure, 3 * FAILURE_THRESHOLD)

        assert not is_open(breaker, world)

    @FAILURES
    def test_ends_no_run(self, breaker: OutageBreaker, world: World, failure: Failure) -> None:
        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)
        fail(breaker, world, failure)
        fail(breaker, world, unavailable())

        assert is_open(breaker, world)

    @FAILURES
    def test_closes_nothing(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition], failure: Failure
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        fail(breaker, world, failure)

        assert states(turns) == ["OPEN", "HALF_OPEN"]
        # then: this thread still has the probe, and its first real call decides
        assert is_open_in_another_thread(breaker, world)
        fail(breaker, world, unavailable())
        assert states(turns) == ["OPEN", "HALF_OPEN", "OPEN"]

    @FAILURES
    def test_leaves_a_probe_to_others_after_its_lease(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb, failure: Failure
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)
        with ThreadPoolExecutor(1) as gone:
            gone.submit(fail, breaker, world, failure).result()
        other = breaker_of(world, dynamodb)
        assert is_open(other, world)

        world.clock.sleep(RECOVERY_SECONDS)

        assert not is_open(other, world)


IN_DOUBT = [failures.timeout(in_doubt=True), refusal("EndPoint.0013", 504), failures.connection_failed(in_doubt=True)]


def recorded(state: str, opened_at: float, **attributes: dict[str, str]) -> dict[str, Any]:
    return {"id": {"S": ITEM}, "state": {"S": state}, "opened_at": {"N": str(int(opened_at))}} | attributes


class Failing:
    """DynamoDB's client, one of whose operations fails."""

    def __init__(self, client: DynamoDbClient, operation: str, error: Exception) -> None:
        self._client = client
        self._operation = operation
        self._error = error

    def __getattr__(self, operation: str) -> Any:
        def fails(*_: Any, **__: Any) -> NoReturn:
            raise self._error

        return fails if operation == self._operation else getattr(self._client, operation)


class TestAResult:
    """Of a call that was made, whatever the breaker says after it."""

    @pytest.fixture(params=["open", "open for long", "half open"])
    def opened_meanwhile(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb, request: pytest.FixtureRequest
    ) -> OutageBreaker:
        """A breaker that another environment has opened since this one looked."""
        rename(breaker)
        now = world.clock.epoch()
        owned = {"half_open_owner": {"S": "another"}, "probe_lease_expiry": {"N": str(int(now) + RECOVERY_SECONDS)}}
        item = {
            "open": recorded("OPEN", now),
            "open for long": recorded("OPEN", now - RECOVERY_SECONDS),
            "half open": recorded("HALF_OPEN", now, **owned),
        }[request.param]
        dynamodb.client().put_item(within(SECONDS), TableName=TABLE, Item=item)
        return breaker

    @pytest.mark.parametrize("failure", IN_DOUBT, ids=_code)
    @pytest.mark.parametrize("operation", ["rename", "read"])
    def test_is_the_calls_own_where_another_environment_opened_the_breaker(
        self, opened_meanwhile: OutageBreaker, world: World, failure: Failure, operation: str
    ) -> None:
        world.services.refuse(failure, on=operation)
        call = rename if operation == "rename" else lambda breaker: breaker.read(TARGET, within(SECONDS))

        assert failed(lambda: call(opened_meanwhile)) is failure

    def test_in_doubt_keeps_its_claim(self, opened_meanwhile: OutageBreaker, world: World) -> None:
        world.services.refuse(IN_DOUBT[0], times=None)
        world.services.refuse(IN_DOUBT[0], on="read", times=None)
        renames = len(world.services.calls_of("rename"))
        services, world.services = world.services, opened_meanwhile  # type: ignore[assignment]

        result = world.settle()

        assert isinstance(result, Unsettled)
        assert result.attempts == len(services.calls_of("rename")) - renames == 1
        assert list(world.ledger.held) == [TARGET]

    @pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("state")])
    @pytest.mark.parametrize("failure", [None, not_found(), IN_DOUBT[0]], ids=["success", "answer", "in doubt"])
    def test_outlives_a_defect_of_powertools(
        self,
        world: World,
        dynamodb: FakeDynamoDb,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        failure: Failure | None,
    ) -> None:
        errors: list[Exception] = []
        breaker = breaker_of(world, dynamodb, on_error=errors.append)
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)
        monkeypatch.setattr(f"{POWERTOOLS}.base.CircuitBreakerHandler._call_probe", self.after_the_call(error))

        if failure is None:
            assert rename(breaker).name == "orders"
        else:
            fail(breaker, world, failure)

        assert len(world.services.calls) == FAILURE_THRESHOLD + 1
        assert errors == [error]

    @staticmethod
    def after_the_call(error: Exception) -> Callable[[Any], None]:
        def call_probe(handler: Any) -> None:
            with suppress(Exception):
                handler.function(*handler.fn_args)
            raise error

        return call_probe


class TestAFailingStore:
    ERRORS = pytest.mark.parametrize(
        "error",
        [
            ClientError({"Error": {"Code": "AccessDeniedException"}}, "PutItem"),
            ReadTimeoutError(endpoint_url="https://dynamodb"),
            RuntimeError("a defect"),
        ],
        ids=lambda error: type(error).__name__,
    )
    OPERATIONS = pytest.mark.parametrize("operation", ["get_item", "put_item", "update_item"])

    @ERRORS
    @OPERATIONS
    @pytest.mark.parametrize("state", ["closed", "open", "half open"])
    def test_changes_no_result(
        self, world: World, dynamodb: FakeDynamoDb, operation: str, error: Exception, state: str
    ) -> None:
        errors: list[Exception] = []
        breaker = breaker_of(world, dynamodb, on_error=errors.append, fail=(operation, error))
        if state != "closed":
            dynamodb.client().put_item(
                within(SECONDS), TableName=TABLE, Item=recorded("OPEN", world.clock.epoch() - RECOVERY_SECONDS)
            )
        if state == "half open":
            with suppress(RenameFailedError):
                rename(breaker)

        for _ in range(2 * FAILURE_THRESHOLD):
            world.services.recover()
            world.services.refuse(IN_DOUBT[0])
            calls = len(world.services.calls)
            failure = failed(lambda: rename(breaker))
            # then: either it was called, and has the call's own failure; or not, and says so
            was_called = len(world.services.calls) > calls
            assert failure == (IN_DOUBT[0] if was_called else failures.outage())
        assert all(told is error for told in errors)

    @ERRORS
    def test_that_elects_nobody_to_probe_lets_calls_go_on(
        self, world: World, dynamodb: FakeDynamoDb, error: Exception
    ) -> None:
        errors: list[Exception] = []
        breaker = breaker_of(world, dynamodb, on_error=errors.append, fail=("put_item", error))
        dynamodb.client().put_item(
            within(SECONDS), TableName=TABLE, Item=recorded("OPEN", world.clock.epoch() - RECOVERY_SECONDS)
        )

        assert rename(breaker).name == "orders"
        assert errors == [error]

    def test_whose_table_will_never_do_lets_calls_go_on(self, world: World, dynamodb: FakeDynamoDb) -> None:
        errors: list[Exception] = []
        breaker = breaker_of(world, dynamodb, on_error=errors.append)
        dynamodb.refuse("ResourceNotFoundException")

        assert rename(breaker).name == "orders"
        assert list(map(type, errors)) == [LedgerSchemaError]


class TestTimeOfTheStore:
    def test_is_left_for_what_a_call_that_used_up_its_deadline_ended_in(
        self, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        deadlines: list[tuple[str, float]] = []

        class Watching(Failing):
            def __getattr__(self, operation: str) -> Any:
                def ask(deadline: Deadline, **request: Any) -> Any:
                    deadlines.append((operation, deadline.remaining()))
                    return getattr(self._client, operation)(deadline, **request)

                return ask

        breaker = breaker_of(world, dynamodb, client=Watching(dynamodb.client(), "", KeyError()))
        world.services.refuse(failures.timeout(in_doubt=True), times=None, takes=60.0)

        for _ in range(FAILURE_THRESHOLD):
            failed(lambda: breaker.rename(TARGET, "orders", world.clock.until(SECONDS)))

        assert ("put_item", STORE_SECONDS) in deadlines
        assert all(0 < seconds <= STORE_SECONDS for _, seconds in deadlines[1:])
        assert is_open(breaker, world)

    def test_ends_with_the_invocation(self, world: World, dynamodb: FakeDynamoDb) -> None:
        breaker = breaker_of(world, dynamodb)
        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)
        calls = len(dynamodb.calls)
        world.services.refuse(unavailable(), takes=60.0)

        ended = Deadline(world.clock.epoch() + 60.0, world.clock.epoch() + 60.0, world.clock.epoch)
        failed(lambda: breaker.rename(TARGET, "orders", ended))

        assert len(dynamodb.calls) == calls

    def test_of_a_look_that_hangs_holds_nobody_up_for_long(
        self, world: World, dynamodb: FakeDynamoDb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("function.adapters.circuit_breaker.STATE_CHECK_SECONDS", 0.05)
        hangs, may_end = threading.Event(), threading.Event()

        def is_recorded(_: str, __: Deadline) -> bool:
            hangs.set()
            return not may_end.wait(10)

        breaker = OutageBreaker(
            world.services,
            is_recorded,
            dynamodb.client(),
            table=TABLE,
            item=breaker_item,
            on_transition=lambda _: None,
            on_error=expect_no_error,
        )
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(rename, breaker)
            assert hangs.wait(10)

            assert rename(breaker).name == "orders"

            assert not looking.done()
            may_end.set()
            assert looking.result(10).name == "orders"


class TestRegions:
    OTHER = TARGET._replace(region="eu-west-101")

    def test_have_a_breaker_each(self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb) -> None:
        open_(breaker, world)

        assert rename(breaker, self.OTHER).name == "orders"
        assert is_open(breaker, world)
        assert dynamodb.item("breaker#vpcep/eu-west-101") is None

    def test_are_counted_apart(self, breaker: OutageBreaker, world: World) -> None:
        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)
        world.services.refuse(unavailable(), times=FAILURE_THRESHOLD - 1)
        for _ in range(FAILURE_THRESHOLD - 1):
            failed(lambda: rename(breaker, self.OTHER))

        assert rename(breaker, self.OTHER).name == "orders"
        fail(breaker, world, unavailable())
        assert is_open(breaker, world)

    def test_are_looked_at_when_they_are_first_used(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        item = recorded("OPEN", world.clock.epoch()) | {"id": {"S": "breaker#vpcep/eu-west-101"}}
        dynamodb.client().put_item(within(SECONDS), TableName=TABLE, Item=item)
        breaker.check_state(REGION, within(SECONDS))

        assert failed(lambda: rename(breaker, self.OTHER)).code == "Rename.Outage"
        assert rename(breaker).name == "orders"

        keys = [call.parameters["Key"]["id"]["S"] for call in dynamodb.calls if call.operation == "GetItem"]
        assert keys[:2] == [ITEM, "breaker#vpcep/eu-west-101"]


class TestOpen:
    @pytest.mark.parametrize("operation", ["rename", "read"])
    def test_refuses_without_a_call(self, breaker: OutageBreaker, world: World, operation: str) -> None:
        open_(breaker, world)
        calls = len(world.services.calls)

        failure = failed(lambda: rename(breaker) if operation == "rename" else breaker.read(TARGET, within(SECONDS)))

        assert (failure.code, failure.kind, failure.retryable) == ("Rename.Outage", Kind.UNAVAILABLE, True)
        assert (failure.counts_as_attempt, failure.retry_in_process, failure.in_doubt) == (False, False, False)
        assert len(world.services.calls) == calls

    def test_refuses_until_its_time_is_over(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS - 1)

        assert is_open(breaker, world)
        assert states(turns) == ["OPEN"]

    def test_leaves_an_event_to_the_queue(self, breaker: OutageBreaker, world: World) -> None:
        open_(breaker, world)
        world.services = breaker  # type: ignore[assignment]

        result = world.settle()

        assert result.failure is not None
        assert (result.failure.code, result.attempts) == ("Rename.Outage", 0)
        assert world.bus.outcomes == []
        assert world.clock.sleeps == []
        # then: the service is not held up for whoever comes next
        assert world.ledger.held == {}


class TestRecovery:
    def test_probes_with_one_call_and_closes_on_success(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        assert rename(breaker).name == "orders"

        assert states(turns) == ["OPEN", "HALF_OPEN", "CLOSED"]
        assert [turn.circuit_name for turn in turns] == [ITEM] * 3
        assert not is_open(breaker, world)

    def test_lets_a_read_probe_too(self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        breaker.read(TARGET, within(SECONDS))

        assert states(turns)[-1] == "CLOSED"

    def test_opens_again_on_an_unavailable_answer(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        fail(breaker, world, unavailable())

        # then: one was enough, and its time starts anew
        assert states(turns) == ["OPEN", "HALF_OPEN", "OPEN"]
        world.clock.sleep(RECOVERY_SECONDS - 1)
        assert is_open(breaker, world)
        world.clock.sleep(1)
        assert not is_open(breaker, world)
        assert states(turns)[-1] == "CLOSED"

    @pytest.mark.parametrize("failure", OTHERS, ids=_code)
    def test_closes_on_any_other_answer(
        self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition], failure: Failure
    ) -> None:
        """Huawei Cloud is there again. The next invocation, in threads of its own, must not wait for a lease to end."""
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        fail(breaker, world, failure)

        assert not is_open_in_another_thread(breaker, world)
        assert states(turns)[-1] == "CLOSED"

    def test_needs_a_whole_run_to_open_again(self, breaker: OutageBreaker, world: World) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)
        rename(breaker)

        fail(breaker, world, unavailable(), FAILURE_THRESHOLD - 1)

        assert not is_open(breaker, world)

    def test_is_probed_by_one_at_a_time(self, breaker: OutageBreaker, world: World) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        assert is_open_during_a_rename(breaker, breaker, world)
        assert not is_open(breaker, world)

    def test_is_probed_by_another_where_the_first_died(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)
        world.services.crash(SystemExit())  # type: ignore[arg-type]
        with ThreadPoolExecutor(1) as died, pytest.raises(SystemExit):
            died.submit(rename, breaker).result()

        survivor = breaker_of(world, dynamodb)

        assert is_open(survivor, world)
        world.clock.sleep(RECOVERY_SECONDS)
        assert not is_open(survivor, world)


class TestSharedState:
    """Two environments of the function, one table."""

    @pytest.fixture
    def other(self, world: World, dynamodb: FakeDynamoDb) -> OutageBreaker:
        return breaker_of(world, dynamodb)

    def test_opens_the_other_one(self, breaker: OutageBreaker, other: OutageBreaker, world: World) -> None:
        open_(breaker, world)

        assert is_open(other, world)

    def test_opens_the_other_one_as_soon_as_it_looks_again(
        self, breaker: OutageBreaker, other: OutageBreaker, world: World
    ) -> None:
        rename(other)
        open_(breaker, world)
        assert not is_open(other, world)

        world.clock.sleep(STATE_CACHE_SECONDS)

        assert is_open(other, world)

    def test_lets_one_of_them_probe(self, breaker: OutageBreaker, other: OutageBreaker, world: World) -> None:
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        assert is_open_during_a_rename(breaker, other, world)

    def test_closes_the_other_one(self, breaker: OutageBreaker, other: OutageBreaker, world: World) -> None:
        open_(breaker, world)
        assert is_open(other, world)
        world.clock.sleep(RECOVERY_SECONDS)
        rename(breaker)

        world.clock.sleep(STATE_CACHE_SECONDS)

        assert not is_open(other, world)

    def test_is_one_item_that_does_not_stay_for_ever(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        open_(breaker, world)

        item = dynamodb.item(ITEM)

        assert item is not None
        assert item["state"] == {"S": "OPEN"}
        assert int(item["expiration"]["N"]) > world.clock.now().timestamp() + RECOVERY_SECONDS
        assert {call.parameters["TableName"] for call in dynamodb.calls} == {TABLE}


class TestTurns:
    def test_are_told_once_each(self, breaker: OutageBreaker, world: World, turns: list[CircuitTransition]) -> None:
        open_(breaker, world)
        for _ in range(2 * FAILURE_THRESHOLD):
            assert is_open(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)
        for _ in range(3):
            assert not is_open(breaker, world)

        assert states(turns) == ["OPEN", "HALF_OPEN", "CLOSED"]

    def test_that_cannot_be_told_keep_nobody_from_calling(self, world: World, dynamodb: FakeDynamoDb) -> None:
        def deaf(_: CircuitTransition) -> None:
            raise RuntimeError("a defect")

        breaker = breaker_of(world, dynamodb, deaf)
        open_(breaker, world)
        world.clock.sleep(RECOVERY_SECONDS)

        assert rename(breaker).name == "orders"


class TestAnUnreadableTable:
    @pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
    def test_lets_calls_go_on(self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb, code: str) -> None:
        dynamodb.refuse(code, times=100)

        assert rename(breaker).name == "orders"
        fail(breaker, world, not_found())

    def test_that_does_not_answer_lets_calls_go_on(
        self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb
    ) -> None:
        dynamodb.break_off(ReadTimeoutError(endpoint_url="https://dynamodb"), times=100)

        assert rename(breaker).name == "orders"

    def test_lets_failures_pass_as_they_are(self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb) -> None:
        """That it should have opened and cannot write it down is nobody's answer."""
        dynamodb.refuse("AccessDeniedException", times=100)

        fail(breaker, world, unavailable(), 2 * FAILURE_THRESHOLD)

    def test_that_can_be_read_again_is(self, breaker: OutageBreaker, world: World, dynamodb: FakeDynamoDb) -> None:
        dynamodb.refuse("AccessDeniedException")
        rename(breaker)

        open_(breaker, world)

        assert is_open(breaker, world)
