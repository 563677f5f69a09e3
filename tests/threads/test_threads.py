"""The invariants hold with threads over real sockets; and broken variants of the function break them."""

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
from tests.threads.run import INVOCATION_SECONDS, Rates, run

EVENTS: Final = 2_000
EVENTS_TO_CATCH: Final = 400
Record = Callable[[str, object], None]
_settle = DynamoDbLedger.settle


def test_invariants_hold_under_faults_with_real_threads(record_property: Record) -> None:
    report = run(EVENTS, seed=1)

    record_property("figures", str(report))
    assert report.broken == []
    assert report.events > EVENTS * 0.9


def test_no_message_returns_to_the_queue_where_each_invocation_follows_a_freeze(record_property: Record) -> None:
    report = run(300, seed=2, rates=Rates(request=0.0, freeze=1.0, http=0.0))

    record_property("figures", str(report))
    assert report.broken == []
    assert report.freezes == report.invocations
    assert report.returned == 0


def _releasing(self: DynamoDbLedger, *args: Any, release: bool) -> Any:
    return _settle(self, *args, release=True)


def _ignoring_a_refusal(self: EventBridge, *_: Any) -> None:
    return None


def _ignoring_the_deadline(self: Workers, tasks: Sequence[Callable[[], object]], _: Deadline) -> list[object]:
    results = [task() for task in tasks]
    time.sleep(INVOCATION_SECONDS)
    return results


@pytest.mark.parametrize(
    ("part", "method", "broken", "invariants"),
    [
        (DynamoDbLedger, "settle", _releasing, {2, 4, 5}),
        (EventBridge, "_put", _ignoring_a_refusal, {3, 6}),
        (Workers, "run", _ignoring_the_deadline, {10}),
    ],
    ids=["claim released in doubt", "refusal of the bus ignored", "deadline ignored"],
)
def test_broken_variant_is_caught_with_real_threads(part: type, method: str, broken: Any, invariants: set[int]) -> None:
    with patch.object(part, method, broken):
        report = run(EVENTS_TO_CATCH, seed=3, rates=Rates(request=0.3))

    assert report.broken
    assert report.broken[0].invariant in invariants, report.broken[0]
