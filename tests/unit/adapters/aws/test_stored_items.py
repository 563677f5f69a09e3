"""Items as versions of the function have written them, which the function of today must understand.

The samples are kept as they were written: ``stored/v1.json`` by version 0.1, ``stored/v2.json`` by what came after.
A change that breaks one of these tests would break a table in use, and each gradual deployment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.domain.event_parser import Attributes
from function.domain.failures import EventName
from function.domain.model import RenameEvent, Target
from function.domain.ports import Claim, Known, Reused, Superseded
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import cloud_event
from tests.fakes.failures import failed
from tests.fakes.identifiers import PROJECT, REGION
from tests.fakes.world import World

STORED = Path(__file__).parent / "stored"
SERVICE = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
TARGET = Target(REGION, PROJECT, SERVICE)


@pytest.fixture(params=sorted(STORED.glob("*.json")), ids=lambda path: path.stem)
def items(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(json.loads(request.param.read_text(encoding="utf-8")))


@pytest.fixture
def ledger(world: World, items: dict[str, Any]) -> DynamoDbLedger:
    dynamodb = FakeDynamoDb(lambda: 0.0)
    dynamodb.table.transact([{"Put": {"Item": item}} for item in items.values()])
    return DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch, sleep=world.clock.sleep)


def claim(ledger: DynamoDbLedger, world: World, id_: str, service: str, **data: Any) -> Any:
    event = cloud_event(id=id_, time="2026-11-24T02:00:00Z", vpc_endpoint_service_id=service, **data)
    parsed = world.parser().parse(json.dumps(event), Attributes("none", "/none", "none", {}), within(60))
    assert isinstance(parsed, RenameEvent)
    return ledger.claim(parsed, TARGET._replace(vpc_endpoint_service_id=service), world.clock.until(60))


def test_settled_event_has_its_outcome(ledger: DynamoDbLedger, world: World) -> None:
    known = claim(ledger, world, "settled", "service-settled")

    assert isinstance(known, Known)
    assert (known.outcome.failure, known.next_cycle) == (None, None)
    assert known.outcome.cloud_event["data"]["service_name"] == "orders"


def test_event_given_up_is_open_for_its_next_round(ledger: DynamoDbLedger, world: World) -> None:
    answer = claim(ledger, world, "given-up", "service-given-up")

    assert isinstance(answer, Claim)
    assert answer.cycle.number == 1
    assert answer.cycle.follows is not None


def test_event_that_was_only_claimed_for_is_open(ledger: DynamoDbLedger, world: World) -> None:
    assert isinstance(claim(ledger, world, "claimed", "service-claimed"), Claim)


def test_identifier_of_another_event_is_reused(ledger: DynamoDbLedger, world: World) -> None:
    assert claim(ledger, world, "settled", "service-settled", endpoint_service_name="other") == Reused()


def test_newer_rename_supersedes(ledger: DynamoDbLedger, world: World) -> None:
    answer = claim(ledger, world, "stale", "service-renamed")

    assert isinstance(answer, Superseded)
    assert answer.by == EventName("/cmdb", "newer")


def test_claim_holds_until_it_expires(ledger: DynamoDbLedger, world: World, items: dict[str, Any]) -> None:
    expires_at = float(items["held"]["lapses"]["N"])
    world.clock.seconds += expires_at - 10 - world.clock.epoch()

    failure = failed(lambda: claim(ledger, world, "waits", "service-held"))
    assert failure.code == "Rename.InProgress"
    assert failure.retry_after == pytest.approx(11.0)

    world.clock.seconds += 10.001
    assert isinstance(claim(ledger, world, "waits", "service-held"), Claim)


def test_open_circuit_of_the_region_is_an_outage(ledger: DynamoDbLedger, items: dict[str, Any]) -> None:
    """Version 0.1 has one for all regions, which says nothing about any."""
    is_of_region = items["breaker"]["id"]["S"] != "breaker#vpcep"

    assert ledger.outage_is_recorded(REGION, within(10)) is is_of_region
    assert not ledger.outage_is_recorded("eu-west-101", within(10))
