"""A ledger over a DynamoDB table in memory."""

from __future__ import annotations

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import ledger_of


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(lambda: world.clock.now().timestamp())


@pytest.fixture
def ledger(world: World, dynamodb: FakeDynamoDb) -> DynamoDbLedger:
    return ledger_of(world, dynamodb)
