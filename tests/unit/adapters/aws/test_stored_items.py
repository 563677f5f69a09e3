"""Items as versions of the function have written them, which the present one must understand.

The samples are kept as they were written: ``stored/v1.json`` by version 0.1, ``stored/v2.json`` by what came after.
A change that breaks one of these tests would break a table in use, and each gradual deployment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from function.domain.failures import EventName
from function.domain.ports import Claim, Known, Reused, Superseded
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import failed
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import TARGET, LedgerDriver, event

STORED = Path(__file__).parent / "stored"


@pytest.fixture(params=sorted(STORED.glob("*.json")), ids=lambda path: path.stem)
def items(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(json.loads(request.param.read_text(encoding="utf-8")))


@pytest.fixture
def ledger(world: World, items: dict[str, Any]) -> LedgerDriver:
    dynamodb = FakeDynamoDb(lambda: 0.0)
    dynamodb.table.transact([{"Put": {"Item": item}} for item in items.values()])
    return LedgerDriver(dynamodb, world.clock)


def claim(ledger: LedgerDriver, id_: str, service: str, **data: Any) -> Any:
    stored = event(id_, time="2026-11-24T02:00:00Z", vpc_endpoint_service_id=service, **data)
    return ledger.claim(stored, TARGET._replace(vpc_endpoint_service_id=service))


def test_settled_event_gets_its_outcome_again(ledger: LedgerDriver) -> None:
    known = claim(ledger, "settled", "service-settled")

    assert isinstance(known, Known)
    assert (known.outcome.failure, known.next_cycle) == (None, None)
    assert known.outcome.cloud_event["data"]["service_name"] == "orders"


def test_event_given_up_is_claimed_in_its_next_cycle(ledger: LedgerDriver) -> None:
    answer = claim(ledger, "given-up", "service-given-up")

    assert isinstance(answer, Claim)
    assert answer.cycle.number == 1
    assert answer.cycle.follows is not None


def test_event_that_was_only_claimed_for_is_claimed_again(ledger: LedgerDriver) -> None:
    assert isinstance(claim(ledger, "claimed", "service-claimed"), Claim)


def test_identifier_of_another_event_is_reused(ledger: LedgerDriver) -> None:
    assert claim(ledger, "settled", "service-settled", endpoint_service_name="other") == Reused()


def test_event_older_than_the_newest_rename_is_superseded(ledger: LedgerDriver) -> None:
    answer = claim(ledger, "stale", "service-renamed")

    assert isinstance(answer, Superseded)
    assert answer.by == EventName("/cmdb", "newer")


def test_service_is_held_until_its_claim_expires(ledger: LedgerDriver, items: dict[str, Any]) -> None:
    expires_at = float(items["held"]["lapses"]["N"])
    ledger.clock.seconds += expires_at - 10 - ledger.clock.epoch()

    failure = failed(claim, ledger, "waits", "service-held")
    assert failure.code == "Rename.InProgress"
    assert failure.retry_after == pytest.approx(11.0)

    ledger.clock.seconds += 10.001
    assert isinstance(claim(ledger, "waits", "service-held"), Claim)


def test_open_circuit_is_an_outage_of_its_region(ledger: LedgerDriver, items: dict[str, Any]) -> None:
    """Version 0.1 has one for all regions, which says nothing about any."""
    is_of_region = items["breaker"]["id"]["S"] != "breaker#vpcep"

    assert ledger.outage_is_recorded() is is_of_region
    assert not ledger.outage_is_recorded("eu-west-101")
