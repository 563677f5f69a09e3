"""The outage breaker: when it opens, which calls it then rejects, and when it closes again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

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
from function.domain.ports import ReadPurpose, Reply
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed, not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import OTHER_REGION, PROJECT, REGION, SERVICE
from tests.fakes.world import World

TABLE = "ledger"
TARGET = Target(REGION, PROJECT, SERVICE)
ITEM = "breaker#vpcep/cn-north-4"
POWERTOOLS = "aws_lambda_powertools.utilities.circuit_breaker"
ELSEWHERE = TARGET._replace(region=OTHER_REGION)
ELSEWHERE_ITEM = "breaker#vpcep/eu-west-101"
IN_DOUBT = [failures.timeout(in_doubt=True), refusal("EndPoint.0013", 504), failures.connection_failed(in_doubt=True)]
UNAVAILABLE = [
    unavailable(),
    refusal("APIGW.0601", 500),
    *IN_DOUBT[:2],
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
    refusal("EndPoint.2004", 400),  # of one endpoint service
]


def code_of(failure: Failure | None) -> str:
    return f"{failure.kind}-{failure.code}" if failure else "success"


each_operation = pytest.mark.parametrize("operation", ["rename", "read"])
each_purpose_without_effect = pytest.mark.parametrize("purpose", [ReadPurpose.OUTCOME, ReadPurpose.DRY_RUN])
each_other_answer = pytest.mark.parametrize("failure", OTHERS, ids=code_of)
# Nothing follows from them for Huawei Cloud: a lock was not free in time, a refusal is remembered, there is no key.
each_call_not_made = pytest.mark.parametrize(
    "failure",
    [
        *(failure._replace(counts_as_attempt=False) for failure in (failures.timeout(), unavailable(), wrong_key())),
        *(failures.credentials("none", kind=kind) for kind in (Kind.UNAVAILABLE, Kind.ACCESS)),
    ],
    ids=code_of,
)


class Breaker:
    """A breaker over the endpoint services of a world, with a table that other breakers may share.

    Attributes:
        transitions: the states that it changed to.
    """

    def __init__(self, world: World, dynamodb: FakeDynamoDb | None = None) -> None:
        self.world = world
        self.services = world.services
        self.dynamodb = dynamodb or FakeDynamoDb(world.clock.epoch)
        self.transitions: list[str] = []
        client = self.dynamodb.client()
        self.outage_breaker = OutageBreaker(
            world.services,
            DynamoDbLedger(client, TABLE).outage_is_recorded,
            client,
            table=TABLE,
            item=breaker_item,
            on_transition=self._changed,
            on_error=_fail,
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


@pytest.fixture
def breaker(world: World, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    """Powertools has the world's clock, and none of the counts of earlier tests."""
    clock = SimpleNamespace(datetime=SimpleNamespace(now=world.clock.now))
    for module in ("base", "persistence.base", "persistence.dynamodb"):
        monkeypatch.setattr(f"{POWERTOOLS}.{module}.dt", clock)
    for counter in ("_LOCAL_FAILURES", "_LOCAL_SUCCESSES", "_LAST_OBSERVED_STATE"):
        monkeypatch.setattr(f"{POWERTOOLS}.base.{counter}", {})
    return Breaker(world)


@pytest.fixture
def open_breaker(breaker: Breaker) -> Breaker:
    breaker.open()
    return breaker


@pytest.fixture
def recovering(open_breaker: Breaker) -> Breaker:
    """An open breaker whose next call is the probe."""
    open_breaker.wait_for_recovery()
    return open_breaker


@pytest.fixture
def other(breaker: Breaker) -> Breaker:
    """The breaker of another environment, with the same table."""
    return Breaker(breaker.world, breaker.dynamodb)


def is_open_during_a_rename(breaker: Breaker, other: Breaker) -> bool:
    """Whether another thread's call through the other breaker, or the same one, is rejected meanwhile."""
    meanwhile: list[bool] = []

    def during(_: Target) -> None:
        breaker.services.during = lambda _: None
        meanwhile.append(other.is_open_in_another_thread())

    breaker.services.during = during
    breaker.call()
    [found] = meanwhile
    return found


# ---- Closed


def test_closed_breaker_passes_calls_and_replies_on(breaker: Breaker) -> None:
    reply = breaker.outage_breaker.rename(TARGET, "orders", breaker.world.clock.until(3.5))
    read = breaker.outage_breaker.read(TARGET, breaker.world.clock.until(2.5))

    assert (reply.name, reply.status) == ("orders", 200)
    assert "orders" in (read.name or "")
    assert breaker.services.calls == [("rename", TARGET, "orders", 3.5), ("read", TARGET, None, 2.5)]


def test_unexpected_exception_is_passed_on_and_does_not_count(breaker: Breaker) -> None:
    breaker.services.crash(RuntimeError("a defect"), times=FAILURE_THRESHOLD)

    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(RuntimeError, match="a defect"):
            breaker.call()

    assert not breaker.is_open()


def test_closed_breaker_reads_its_state_once_per_cache_period_and_writes_nothing(breaker: Breaker) -> None:
    for seconds in (0, 1, STATE_CACHE_SECONDS - 2):
        breaker.world.clock.sleep(seconds)
        breaker.call()

    assert [(call.operation, call.parameters["Key"]) for call in breaker.dynamodb.calls] == [
        ("GetItem", {"id": {"S": ITEM}})
    ]

    breaker.world.clock.sleep(STATE_CACHE_SECONDS)
    breaker.call()
    assert [call.operation for call in breaker.dynamodb.calls] == ["GetItem", "GetItem"]


# ---- Opening


@pytest.mark.parametrize("failure", UNAVAILABLE, ids=code_of)
def test_run_of_unavailable_answers_opens_the_breaker(breaker: Breaker, failure: Failure) -> None:
    breaker.fail(failure, FAILURE_THRESHOLD)

    assert breaker.is_open()
    assert breaker.transitions == ["OPEN"]


@each_operation
@pytest.mark.parametrize("between", [None, *OTHERS], ids=code_of)
def test_any_other_answer_ends_a_run_of_unavailable_ones(
    breaker: Breaker, operation: str, between: Failure | None
) -> None:
    """A region that answers that a service does not exist, or that a key is wrong, is available."""
    for _ in range(3):
        breaker.fail(unavailable(), FAILURE_THRESHOLD - 1)
        if between:
            breaker.fail(between, operation=operation)
        else:
            breaker.call(operation)

    assert not breaker.is_open()


def test_renames_and_reads_count_for_the_same_run(breaker: Breaker) -> None:
    for number in range(FAILURE_THRESHOLD):
        breaker.fail(unavailable(), operation=("rename", "read")[number % 2])

    assert breaker.is_open()


def test_concurrent_unavailable_answers_open_the_breaker_once(breaker: Breaker) -> None:
    # given: as many groups in progress as an invocation has
    breaker.services.refuse(unavailable(), times=None)

    with ThreadPoolExecutor(FAILURE_THRESHOLD) as pool:
        codes = set(pool.map(lambda _: breaker.code(), range(FAILURE_THRESHOLD)))

    assert codes == {"EndPoint.0001"}
    assert breaker.is_open()
    assert breaker.transitions == ["OPEN"]


# ---- Calls that were not made


@each_call_not_made
def test_call_that_was_not_made_neither_counts_for_a_run_of_unavailable_answers_nor_ends_it(
    breaker: Breaker, failure: Failure
) -> None:
    breaker.fail(unavailable(), FAILURE_THRESHOLD - 1)
    breaker.fail(failure, FAILURE_THRESHOLD)
    assert breaker.transitions == []

    breaker.fail(unavailable())

    assert breaker.is_open()


@each_call_not_made
def test_call_that_was_not_made_does_not_end_a_probe(recovering: Breaker, failure: Failure) -> None:
    recovering.fail(failure)

    assert recovering.transitions == ["OPEN", "HALF_OPEN"]
    # then: this thread still has the probe, and its first real call decides
    assert recovering.is_open_in_another_thread()
    recovering.fail(unavailable())
    assert recovering.transitions == ["OPEN", "HALF_OPEN", "OPEN"]


# ---- The result of a call that was made, whatever the breaker does after it


@pytest.fixture(params=["open", "open for long", "half open"])
def opened_meanwhile(breaker: Breaker, request: pytest.FixtureRequest) -> Breaker:
    """A breaker that another environment has opened since this one read the state."""
    breaker.call()
    now = breaker.world.clock.epoch()
    lease = str(int(now) + RECOVERY_SECONDS)
    if request.param == "half open":
        breaker.store("HALF_OPEN", now, half_open_owner={"S": "another"}, probe_lease_expiry={"N": lease})
    else:
        breaker.store("OPEN", now - (0 if request.param == "open" else RECOVERY_SECONDS))
    return breaker


@pytest.mark.parametrize("failure", IN_DOUBT, ids=code_of)
@each_operation
def test_call_keeps_its_result_if_another_environment_opened_the_breaker(
    opened_meanwhile: Breaker, failure: Failure, operation: str
) -> None:
    opened_meanwhile.fail(failure, operation=operation)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("state")])
@pytest.mark.parametrize("failure", [None, not_found(), IN_DOUBT[0]], ids=code_of)
def test_call_keeps_its_result_after_a_defect_of_powertools(
    breaker: Breaker, monkeypatch: pytest.MonkeyPatch, error: Exception, failure: Failure | None
) -> None:
    def call_probe(handler: Any) -> None:
        with suppress(Exception):
            handler.function(*handler.fn_args)
        raise error

    errors: list[Exception] = []
    breaker.outage_breaker.on_error = errors.append
    breaker.open()
    breaker.wait_for_recovery()
    monkeypatch.setattr(f"{POWERTOOLS}.base.CircuitBreakerHandler._call_probe", call_probe)

    if failure:
        breaker.fail(failure)
    else:
        assert breaker.call().name == "orders"

    assert len(breaker.services.calls) == FAILURE_THRESHOLD + 1
    assert errors == [error]


# ---- The store


class Client:
    """DynamoDB's client, with something done before each request."""

    def __init__(self, client: DynamoDbClient, before: Callable[[str, Deadline], None]) -> None:
        self._client = client
        self._before = before

    def __getattr__(self, operation: str) -> Any:
        def request(deadline: Deadline, **parameters: Any) -> Any:
            self._before(operation, deadline)
            return getattr(self._client, operation)(deadline, **parameters)

        return request


each_error = pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "PutItem"),
        ReadTimeoutError(endpoint_url="https://dynamodb"),
        RuntimeError("a defect"),
    ],
    ids=lambda error: type(error).__name__,
)


def fail_store(breaker: Breaker, failing: str, error: Exception) -> list[Exception]:
    """Let an operation of the store fail. Returns the errors that the breaker reports."""
    errors: list[Exception] = []

    def before(operation: str, _: Deadline) -> None:
        if operation == failing:
            raise error

    breaker.outage_breaker.client = cast("Any", Client(breaker.dynamodb.client(), before))
    breaker.outage_breaker.on_error = errors.append
    return errors


@each_error
@pytest.mark.parametrize("operation", ["get_item", "put_item", "update_item"])
@pytest.mark.parametrize("state", ["closed", "open", "half open"])
def test_failing_store_changes_no_result(breaker: Breaker, operation: str, error: Exception, state: str) -> None:
    errors = fail_store(breaker, operation, error)
    if state != "closed":
        breaker.store("OPEN", breaker.world.clock.epoch() - RECOVERY_SECONDS)
    if state == "half open":
        breaker.code()

    for _ in range(2 * FAILURE_THRESHOLD):
        breaker.services.recover()
        breaker.services.refuse(IN_DOUBT[0])
        calls = len(breaker.services.calls)
        failure = failed(breaker.call)
        # then: either it was made, and has the call's own failure; or not, and says so
        was_made = len(breaker.services.calls) > calls
        assert failure == (IN_DOUBT[0] if was_made else failures.outage())
    assert all(reported is error for reported in errors)


@each_error
def test_call_is_made_if_the_store_cannot_elect_a_probe(breaker: Breaker, error: Exception) -> None:
    errors = fail_store(breaker, "put_item", error)
    breaker.store("OPEN", breaker.world.clock.epoch() - RECOVERY_SECONDS)

    assert breaker.call().name == "orders"
    assert errors == [error]


def test_call_is_made_if_the_table_does_not_exist(breaker: Breaker) -> None:
    errors: list[Exception] = []
    breaker.outage_breaker.on_error = errors.append
    breaker.dynamodb.refuse("ResourceNotFoundException")

    assert breaker.call().name == "orders"
    assert list(map(type, errors)) == [LedgerSchemaError]


def test_call_that_used_up_its_deadline_is_stored_within_a_second(breaker: Breaker) -> None:
    deadlines: list[tuple[str, float]] = []
    client = Client(breaker.dynamodb.client(), lambda *request: deadlines.append((request[0], request[1].remaining())))
    breaker.outage_breaker.client = cast("Any", client)
    breaker.services.refuse(failures.timeout(in_doubt=True), times=None, takes=60.0)

    for _ in range(FAILURE_THRESHOLD):
        failed(breaker.outage_breaker.rename, TARGET, "orders", breaker.world.clock.until(5.0))

    assert ("put_item", STORE_SECONDS) in deadlines
    assert all(0 < seconds <= STORE_SECONDS for _, seconds in deadlines[1:])
    assert breaker.is_open()


def test_nothing_is_stored_after_the_end_of_the_invocation(breaker: Breaker) -> None:
    breaker.fail(unavailable(), FAILURE_THRESHOLD - 1)
    calls = len(breaker.dynamodb.calls)
    breaker.services.refuse(unavailable(), takes=60.0)

    epoch = breaker.world.clock.epoch
    failed(breaker.outage_breaker.rename, TARGET, "orders", Deadline(epoch() + 60.0, epoch() + 60.0, epoch))

    assert len(breaker.dynamodb.calls) == calls


def test_state_check_that_hangs_delays_other_calls_for_a_moment_only(
    breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("function.adapters.circuit_breaker.STATE_CHECK_SECONDS", 0.05)
    hangs, may_end = threading.Event(), threading.Event()

    def is_recorded(_: str, __: Deadline) -> bool:
        hangs.set()
        return not may_end.wait(10)

    breaker.outage_breaker.is_recorded = is_recorded
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(breaker.call)
        assert hangs.wait(10)

        assert breaker.call().name == "orders"

        assert not first.done()
        may_end.set()
        assert first.result(10).name == "orders"


# ---- Regions


def test_open_breaker_does_not_reject_calls_to_another_region(open_breaker: Breaker) -> None:
    assert open_breaker.call("rename", ELSEWHERE).name == "orders"
    assert open_breaker.is_open()
    assert open_breaker.dynamodb.item(ELSEWHERE_ITEM) is None


def test_unavailable_answers_are_counted_by_region(breaker: Breaker) -> None:
    breaker.fail(unavailable(), FAILURE_THRESHOLD - 1)
    breaker.services.refuse(unavailable(), times=FAILURE_THRESHOLD - 1)
    for _ in range(FAILURE_THRESHOLD - 1):
        failed(breaker.call, "rename", ELSEWHERE)

    assert breaker.call("rename", ELSEWHERE).name == "orders"
    breaker.fail(unavailable())
    assert breaker.is_open()


def test_state_of_a_region_is_read_before_its_first_call(breaker: Breaker) -> None:
    breaker.store("OPEN", breaker.world.clock.epoch(), ELSEWHERE_ITEM)
    breaker.outage_breaker.check_state(REGION, within(5.0))

    assert failed(breaker.call, "rename", ELSEWHERE).code == "Rename.Outage"
    assert breaker.call().name == "orders"

    keys = [call.parameters["Key"]["id"]["S"] for call in breaker.dynamodb.calls if call.operation == "GetItem"]
    assert keys[:2] == [ITEM, ELSEWHERE_ITEM]


# ---- Open


@pytest.mark.parametrize(
    ("operation", "target"),
    [("rename", TARGET), ("read", TARGET), ("rename", TARGET._replace(vpc_endpoint_service_id="another"))],
    ids=["rename", "read", "another service"],
)
def test_open_breaker_rejects_a_call_without_making_it(open_breaker: Breaker, operation: str, target: Target) -> None:
    calls = len(open_breaker.services.calls)

    failure = failed(open_breaker.call, operation, target)

    assert (failure.code, failure.kind, failure.retryable) == ("Rename.Outage", Kind.UNAVAILABLE, True)
    assert (failure.counts_as_attempt, failure.retry_in_process, failure.in_doubt) == (False, False, False)
    assert len(open_breaker.services.calls) == calls


# ---- Recovery


@each_operation
def test_success_of_the_probe_closes_the_breaker(recovering: Breaker, operation: str) -> None:
    assert (recovering.call(operation).name == "orders") is (operation == "rename")

    assert recovering.transitions == ["OPEN", "HALF_OPEN", "CLOSED"]
    assert not recovering.is_open()


def test_unavailable_answer_to_the_probe_opens_the_breaker_again(recovering: Breaker) -> None:
    recovering.fail(unavailable())

    # then: one was enough, and its time starts anew
    assert recovering.transitions == ["OPEN", "HALF_OPEN", "OPEN"]
    recovering.world.clock.sleep(RECOVERY_SECONDS - 1)
    assert recovering.is_open()
    recovering.world.clock.sleep(1)
    assert not recovering.is_open()
    assert recovering.transitions[-1] == "CLOSED"


@each_other_answer
def test_any_other_answer_to_the_probe_closes_the_breaker(recovering: Breaker, failure: Failure) -> None:
    """The region is available. The next invocation, in threads of its own, must not wait for a lease to expire."""
    recovering.fail(failure)

    assert not recovering.is_open_in_another_thread()
    assert recovering.transitions[-1] == "CLOSED"


def test_only_one_thread_probes(recovering: Breaker) -> None:
    assert is_open_during_a_rename(recovering, recovering)
    assert not recovering.is_open()


def test_probe_is_left_to_others_after_its_lease_if_its_environment_died(recovering: Breaker, other: Breaker) -> None:
    recovering.services.crash(SystemExit())  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as died, pytest.raises(SystemExit):
        died.submit(recovering.call).result()

    assert other.is_open()
    other.wait_for_recovery()
    assert not other.is_open()


# ---- Two environments, one table


def test_breaker_opens_in_an_environment_that_has_read_the_state_when_its_cache_expires(
    breaker: Breaker, other: Breaker
) -> None:
    other.call()
    breaker.open()
    assert not other.is_open()

    breaker.world.clock.sleep(STATE_CACHE_SECONDS)

    assert other.is_open()


def test_only_one_environment_probes(recovering: Breaker, other: Breaker) -> None:
    assert is_open_during_a_rename(recovering, other)


def test_breaker_is_open_in_other_environments_and_closes_when_their_cache_expires(
    open_breaker: Breaker, other: Breaker
) -> None:
    assert other.is_open()
    open_breaker.wait_for_recovery()
    open_breaker.call()

    open_breaker.world.clock.sleep(STATE_CACHE_SECONDS)

    assert not other.is_open()


def test_state_is_one_item_that_expires(open_breaker: Breaker) -> None:
    item = open_breaker.dynamodb.item(ITEM)

    assert item is not None
    assert item["state"] == {"S": "OPEN"}
    assert int(item["expiration"]["N"]) > open_breaker.world.clock.epoch() + RECOVERY_SECONDS
    assert {call.parameters["TableName"] for call in open_breaker.dynamodb.calls} == {TABLE}


# ---- Transitions


def test_transition_that_cannot_be_reported_prevents_no_call(breaker: Breaker) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    breaker.outage_breaker.on_transition = fail
    breaker.open()
    breaker.wait_for_recovery()

    assert breaker.call().name == "orders"


# ---- Reads, by their purpose


@each_purpose_without_effect
def test_read_without_effect_never_stores_the_state_of_the_breaker(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.services.refuse(unavailable(), on="read", times=None)

    for _ in range(3 * FAILURE_THRESHOLD):
        breaker.code("read", purpose)

    assert {call.operation for call in breaker.dynamodb.calls} <= {"GetItem"}


def test_failed_reads_for_the_outcome_do_not_open_the_breaker(breaker: Breaker) -> None:
    breaker.services.refuse(unavailable(), on="read", times=None)

    for _ in range(2 * FAILURE_THRESHOLD):
        breaker.code("read", ReadPurpose.OUTCOME)

    assert breaker.code() is None


def test_success_of_a_read_for_the_outcome_does_not_end_a_run_of_unavailable_answers(breaker: Breaker) -> None:
    breaker.services.refuse(unavailable(), times=FAILURE_THRESHOLD)
    for _ in range(FAILURE_THRESHOLD):
        assert breaker.code("read", ReadPurpose.OUTCOME) is None
        breaker.code()

    assert breaker.state == "OPEN"


def test_failed_dry_runs_open_the_breaker_in_memory_only(breaker: Breaker) -> None:
    breaker.services.refuse(unavailable(), on="read", times=None)

    codes = [breaker.code("read", ReadPurpose.DRY_RUN) for _ in range(FAILURE_THRESHOLD + 1)]

    assert codes == ["EndPoint.0001"] * FAILURE_THRESHOLD + ["Rename.Outage"]
    assert breaker.state is None
    breaker.world.clock.sleep(STATE_CACHE_SECONDS + 1)
    assert breaker.code("read", ReadPurpose.DRY_RUN) == "EndPoint.0001"


@each_purpose_without_effect
def test_open_breaker_rejects_a_read_without_effect(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.open()

    assert breaker.code("read", purpose) == "Rename.Outage"
    assert breaker.services.calls_of("read") == []


@each_purpose_without_effect
def test_read_without_effect_does_not_probe(breaker: Breaker, purpose: ReadPurpose) -> None:
    breaker.open()
    before = breaker.dynamodb.item(ITEM)
    breaker.world.clock.sleep(RECOVERY_SECONDS + STATE_CACHE_SECONDS)

    assert breaker.code("read", purpose) == "Rename.Outage"
    assert breaker.dynamodb.item(ITEM) == before
    assert breaker.code() is None
    assert breaker.state == "CLOSED"
