"""The items in the ledger's table, and the requests that write them."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import NEWEST_RENAME_RETENTION, RETENTION, DynamoDbLedger
from function.domain.model import RedriveCycle, Target
from function.domain.ports import Superseded
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import not_found
from tests.fakes.identifiers import REGION, START
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    SERVICE_KEY,
    TARGET,
    at,
    claimed,
    failure_of,
    give_up,
    lasting,
    ledger_of,
    settle,
    success_of,
)

SECOND_ROUND = RedriveCycle(1, "the outcome before")


# ---- What is in the table


class TestItems:
    def test_of_events_are_kept_for_thirty_five_days(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        world.clock.sleep(1_000.5)
        settle(ledger, world.event())
        settle(ledger, world.event(id="e2"), failure_of(world.event(id="e2"), not_found()))
        give_up(ledger, world.event(id="e3"))

        expirations = {_expiration(item) for item in _put(dynamodb)}

        assert len(_put(dynamodb)) == 3
        assert expirations == {timedelta(days=35)} == {RETENTION}

    @pytest.mark.parametrize("given_up", [False, True])
    def test_of_events_that_are_claimed_for_are_kept_from_then_on(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, given_up: bool
    ) -> None:
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        if given_up:
            give_up(ledger, world.event())
        world.clock.sleep(86_400)
        claimed(ledger, world.event())

        [item] = [item for key, item in _items(dynamodb).items() if key.startswith("event#")]

        assert _expiration(item) == RETENTION + timedelta(days=1)

    def test_of_services_that_were_renamed_outlast_every_event(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        settle(ledger, world.event())

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION >= timedelta(days=3_650)

    @pytest.mark.parametrize("free", [True, False])
    def test_of_renamed_services_are_kept_anew_with_each_rename(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, free: bool
    ) -> None:
        settle(ledger, world.event())
        world.clock.sleep(86_400)
        event = world.event(id="event-2")
        ledger.settle(claimed(ledger, event), success_of(event), lasting(ledger), release=free)

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION + timedelta(days=1)

    def test_of_services_that_were_never_renamed_are_forgotten_like_events(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        settle(ledger, world.event(), failure_of(world.event(), not_found()))

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == RETENTION

    @pytest.mark.parametrize("how", ["claim", "release", "settle"])
    def test_of_renamed_services_do_not_become_forgotten_sooner(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World, how: str
    ) -> None:
        settle(ledger, world.event())
        event = world.event(id="event-2")
        claim = claimed(ledger, event)
        if how == "release":
            ledger.release(claim, lasting(ledger))
        elif how == "settle":
            ledger.settle(claim, failure_of(event, not_found()), lasting(ledger), release=True)

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        assert _expiration(item) == NEWEST_RENAME_RETENTION

    def test_expire_by_whole_seconds(self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World) -> None:
        """DynamoDB's time to live ignores an item whose attribute is anything else."""
        world.clock.sleep(0.123_456)
        settle(ledger, world.event())

        for item in [*_put(dynamodb), dynamodb.item(SERVICE_KEY)]:
            assert item is not None
            assert re.fullmatch("[0-9]{10,11}", item["expiration"]["N"])

    def test_are_forgotten_with_the_memory_of_the_event(self, ledger: DynamoDbLedger, world: World) -> None:
        settle(ledger, world.event())
        world.clock.sleep(RETENTION.total_seconds() + 1)

        # then: the event is unknown, and its service's newest rename is not
        assert claimed(ledger, world.event())
        stale = world.event(id="event-2", time=at(START - timedelta(seconds=1)))
        assert isinstance(ledger.claim(stale, TARGET, lasting(ledger)), Superseded)

    def test_of_events_have_keys_of_one_length_whatever_the_event_is_called(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        for id_, source in [("e", "/"), ("x" * 1_024, "/" * 1_024), ("名" * 1_024, "/s"), ("é🚀\u2028", "/s")]:
            settle(ledger, world.event(id=id_, source=source))

        keys = {item["id"]["S"] for item in _put(dynamodb)}

        assert len(keys) == 4
        assert len({len(key.encode()) for key in keys}) == 1
        assert all(key.startswith("event#") and key.isascii() for key in keys)

    def test_of_services_have_keys_that_dynamodb_takes(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        longest = Target("r" * 64, "p" * 64, "s" * 64)
        settle(ledger, world.event(), target=longest)

        assert dynamodb.item(f"service#{'r' * 64}/{'p' * 64}/{'s' * 64}")

    def test_hold_no_more_of_an_event_than_its_outcome_and_a_digest(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        outcome = settle(ledger, world.event())

        [item] = _put(dynamodb)
        assert set(item) == {"id", "digest", "time", "target", "state", "round", "outcome", "expiration"}
        assert json.loads(item["outcome"]["S"]) == outcome.cloud_event

    def test_of_a_service_hold_numbers_that_dynamodb_compares_exactly(
        self, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World
    ) -> None:
        time = START - timedelta(microseconds=1)
        settle(ledger, world.event(time=at(time)))

        item = dynamodb.item(SERVICE_KEY)

        assert item is not None
        microseconds = round(START.timestamp()) * 1_000_000 - 1
        assert item["newest_time"] == {"N": str(microseconds)}


def _items(dynamodb: FakeDynamoDb) -> dict[str, dict[str, Any]]:
    """All that was ever written to and is still there."""
    keys = {
        key for call in dynamodb.calls for key in re.findall(r'"id": {"S": "([^"]+)"}', json.dumps(call.parameters))
    }
    return {key: item for key in keys if (item := dynamodb.item(key))}


def _put(dynamodb: FakeDynamoDb) -> list[dict[str, Any]]:
    """The items of events that have an outcome."""
    return [item for key, item in _items(dynamodb).items() if key.startswith("event#") and "outcome" in item]


def _expiration(item: dict[str, Any]) -> timedelta:
    """From the start, in days."""
    seconds = int(item["expiration"]["N"]) - START.timestamp()
    return timedelta(days=round(seconds / 86_400))


# ---- Requests


@pytest.fixture
def requests(ledger: DynamoDbLedger, dynamodb: FakeDynamoDb, world: World) -> list[dict[str, Any]]:
    """Every kind of request that the ledger makes, taken apart into single actions."""
    ledger.outage_is_recorded(REGION, lasting(ledger))
    event, other, third = world.event(), world.event(id="event-2"), world.event(id="event-3")
    settle(ledger, event)
    ledger.claim(event, TARGET, lasting(ledger))
    settle(ledger, other, failure_of(other, not_found()))
    ledger.settle(claimed(ledger, third), success_of(third), lasting(ledger), release=False)
    world.clock.sleep(A_MINUTE + 1)
    fourth = world.event(id="event-4")
    give_up(ledger, fourth)
    give_up(ledger, fourth, SECOND_ROUND)
    claim = claimed(ledger, fourth)
    ledger.settle(claim, failure_of(fourth, not_found(), claim.cycle), lasting(ledger), release=False)
    ledger.release(claim, lasting(ledger))
    whole = [call.parameters for call in dynamodb.calls if "TransactItems" not in call.parameters]
    return whole + [
        request
        for call in dynamodb.calls
        for action in call.parameters.get("TransactItems", [])
        for request in action.values()
    ]


class TestRequests:
    def test_find_items_by_their_keys_alone(self, requests: list[dict[str, Any]], dynamodb: FakeDynamoDb) -> None:
        assert {call.operation for call in dynamodb.calls} == {"GetItem", "TransactWriteItems", "UpdateItem"}
        assert all(list(request.get("Key") or [request["Item"]["id"]]) for request in requests)

    def test_that_write_have_a_condition(self, requests: list[dict[str, Any]]) -> None:
        writes = [request for request in requests if "ProjectionExpression" not in request]

        assert len(writes) > 10
        assert all(request["ConditionExpression"] for request in writes)

    @pytest.mark.parametrize("table", ["ledger", "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"])
    def test_name_the_table_of_the_settings(self, world: World, dynamodb: FakeDynamoDb, table: str) -> None:
        ledger = ledger_of(world, dynamodb, table)
        ledger.outage_is_recorded(REGION, lasting(ledger))
        ledger.release(claimed(ledger, world.event()), lasting(ledger))
        settle(ledger, world.event())

        assert set(re.findall(r'"TableName": "([^"]*)"', json.dumps(dynamodb.calls))) == {table}

    def test_use_no_reserved_word_without_an_alias(self, requests: list[dict[str, Any]]) -> None:
        """DynamoDB refuses 573 words as they are, ``state``, ``owner`` and ``time`` among them; none of these."""
        functions = {"attribute_not_exists", "attribute_exists", "if_not_exists"}
        keywords = {"SET", "REMOVE", "AND", "OR", "NOT"}
        words = {
            word
            for request in requests
            for name, expression in request.items()
            if name.endswith("Expression")
            for word in re.findall(r"[#:]?\w+", expression)
            if not word.startswith(("#", ":"))
        }

        assert words - functions - keywords <= {
            "id",
            "digest",
            "lapses",
            "expiration",
            "kept_until",
            "newest_time",
            "newest_event",
            "outcome",
        }

    def test_declare_no_name_and_no_value_in_vain(self, requests: list[dict[str, Any]]) -> None:
        """DynamoDB refuses what an expression does not use, and of course what it uses and nobody declared."""
        for request in requests:
            expressions = " ".join(text for name, text in request.items() if name.endswith("Expression"))
            declared = {*request.get("ExpressionAttributeNames", {}), *request.get("ExpressionAttributeValues", {})}

            assert declared == set(re.findall(r"[#:]\w+", expressions))
