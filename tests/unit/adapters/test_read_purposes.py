"""What a read counts for, by its purpose: in the outage breaker and in the key guard."""

from __future__ import annotations

from typing import Any

import pytest

from function.adapters.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS, STATE_CACHE_SECONDS
from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.key_guard import KeyGuard
from function.domain.failures import Failure, RenameFailedError
from function.domain.ports import ReadPurpose, Reply
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed, refusal, unavailable, wrong_key
from tests.fakes.identifiers import PROJECT, REGION
from tests.unit.adapters.breakers import ITEM, TARGET, Breaker

NOT_PERMITTED = refusal("EndPoint.0004", 403)
each_purpose_without_effect = pytest.mark.parametrize("purpose", [ReadPurpose.OUTCOME, ReadPurpose.DRY_RUN])


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
        (ReadPurpose.OUTCOME, NOT_PERMITTED, False),
        (ReadPurpose.OUTCOME, wrong_key(), True),
        (ReadPurpose.DRY_RUN, NOT_PERMITTED, True),
        (ReadPurpose.DRY_RUN, wrong_key(), True),
        (ReadPurpose.DECISION, NOT_PERMITTED, True),
    ],
)
def test_refused_read_is_remembered_depending_on_its_purpose(
    guard: KeyGuard, purpose: ReadPurpose, failure: Failure, is_remembered: bool
) -> None:
    failed(guard.call, TARGET, fail_with(failure), within(5.0), purpose)

    renamed = Reply("orders", 200, None)
    if is_remembered:
        assert failed(guard.call, TARGET, lambda: renamed, within(5.0), ReadPurpose.DECISION).code == failure.code
    else:
        assert guard.call(TARGET, lambda: renamed, within(5.0), ReadPurpose.DECISION) is renamed
