"""The invariants hold with threads over real sockets; and they are seen to break where the function is broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from unittest.mock import patch

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.eventbridge import EventBridge
from function.domain.deadline import Deadline
from function.workers import Workers
from tests.threads.run import INVOCATION_SECONDS, FaultProfile, run

EVENTS: Final = 2_000
EVENTS_TO_CATCH: Final = 400
_settle = DynamoDbLedger.settle


def test_all_promises_hold(record_property: pytest.FixtureRequest) -> None:
    report = run(EVENTS, seed=1)

    record_property("figures", str(report))  # type: ignore[operator]
    assert report.broken == []
    assert report.events > EVENTS * 0.9


def test_nothing_goes_back_after_a_freeze(record_property: pytest.FixtureRequest) -> None:
    report = run(300, seed=2, profile=FaultProfile(request=0.0, thaw=1.0, http=0.0))

    record_property("figures", str(report))  # type: ignore[operator]
    assert report.broken == []
    assert report.thaws == report.invocations
    assert report.returned == 0


def _releasing(self: DynamoDbLedger, *args: Any, release: bool) -> Any:
    return _settle(self, *args, release=True)


def _taking_a_refusal_for_a_yes(self: EventBridge, *_: Any) -> None:
    return None


def _not_reporting(self: Workers, tasks: Sequence[Callable[[], object]], _: Deadline) -> None:
    for task in tasks:
        task()
    time.sleep(INVOCATION_SECONDS)


@pytest.mark.parametrize(
    ("part", "method", "broken", "invariants"),
    [
        (DynamoDbLedger, "settle", _releasing, {2, 4, 5}),
        (EventBridge, "_put", _taking_a_refusal_for_a_yes, {3, 6}),
        (Workers, "run", _not_reporting, {9}),
    ],
    ids=["claim released in doubt", "refusal behaviour for a yes", "deadline ignored"],
)
def test_broken_function_is_caught(part: type, method: str, broken: Any, invariants: set[int]) -> None:
    with patch.object(part, method, broken):
        report = run(EVENTS_TO_CATCH, seed=3, profile=FaultProfile(request=0.3))

    assert report.broken
    assert report.broken[0].invariant in invariants, report.broken[0]
