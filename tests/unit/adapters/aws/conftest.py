"""A ledger over a DynamoDB table in memory."""

from __future__ import annotations

import pytest

from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import LedgerDriver


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(world.clock.epoch)


@pytest.fixture
def ledger(world: World, dynamodb: FakeDynamoDb) -> LedgerDriver:
    """Used by the world's rename service as well."""
    driver = LedgerDriver(dynamodb, world.clock)
    world.ledger = driver.adapter  # type: ignore[assignment]
    return driver
