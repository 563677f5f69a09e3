"""The items in the ledger's table, and the requests that write them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import NEWEST_RENAME_RETENTION, RETENTION
from function.domain.model import RedriveCycle, Target
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.failures import not_found
from tests.fakes.identifiers import START
from tests.fakes.world import World
from tests.unit.adapters.aws.ledger import (
    A_MINUTE,
    EVENT,
    HOUR_BEFORE,
    OTHER_EVENT,
    SERVICE_KEY,
    THIRD_EVENT,
    LedgerDriver,
    at,
    event,
    failure_of,
)

A_DAY = timedelta(days=1)


def events_in(dynamodb: FakeDynamoDb) -> list[dict[str, Any]]:
    return [dict(item) for item in dynamodb.table.items() if item["id"]["S"].startswith("event#")]


def service_in(dynamodb: FakeDynamoDb) -> dict[str, Any]:
    item = dynamodb.item(SERVICE_KEY)
    assert item is not None
    return item


def kept(item: dict[str, Any]) -> timedelta:
    """How long after the start it expires, in days."""
    seconds = int(item["expiration"]["N"]) - START.timestamp()
    return timedelta(days=round(seconds / 86_400))


# ---- Items


def test_event_with_an_outcome_is_kept_for_thirty_five_days(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    ledger.clock.sleep(1_000.5)
    ledger.settled(EVENT)
    ledger.settled(OTHER_EVENT, not_found())
    ledger.given_up(THIRD_EVENT)

    assert [kept(item) for item in events_in(dynamodb)] == [timedelta(days=35)] * 3 == [RETENTION] * 3


@pytest.mark.parametrize("given_up", [False, True])
def test_retention_of_an_event_starts_anew_when_it_is_claimed_for(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, given_up: bool
) -> None:
    ledger.claimed_and_released(EVENT)
    if given_up:
        ledger.given_up(EVENT)
    ledger.clock.sleep(86_400)
    ledger.claimed(EVENT)

    [item] = events_in(dynamodb)
    assert kept(item) == RETENTION + A_DAY


def test_event_is_forgotten_after_its_retention_and_the_newest_rename_is_not(ledger: LedgerDriver) -> None:
    ledger.settled(EVENT)
    ledger.clock.sleep(RETENTION.total_seconds() + 1)

    assert ledger.claimed(EVENT)
    assert ledger.superseded(HOUR_BEFORE)


def test_service_that_was_never_renamed_is_kept_like_an_event(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    ledger.settled(EVENT, not_found())

    assert kept(service_in(dynamodb)) == RETENTION


@pytest.mark.parametrize(
    ("step", "is_renamed"),
    [
        pytest.param(lambda ledger: None, False, id="nothing"),
        pytest.param(lambda ledger: ledger.claimed(OTHER_EVENT), False, id="claim"),
        pytest.param(lambda ledger: ledger.claimed_and_released(OTHER_EVENT), False, id="release"),
        pytest.param(lambda ledger: ledger.settled(OTHER_EVENT, not_found()), False, id="failure"),
        pytest.param(lambda ledger: ledger.settled(OTHER_EVENT), True, id="success"),
        pytest.param(
            lambda ledger: ledger.settle(ledger.claimed(OTHER_EVENT), release=False), True, id="success in doubt"
        ),
    ],
)
def test_renamed_service_is_kept_for_years_after_its_newest_rename(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb, step: Callable[[LedgerDriver], object], is_renamed: bool
) -> None:
    ledger.settled(EVENT)
    ledger.clock.sleep(86_400)

    step(ledger)

    assert kept(service_in(dynamodb)) == NEWEST_RENAME_RETENTION + A_DAY * is_renamed
    assert timedelta(days=3_650) <= NEWEST_RENAME_RETENTION


def test_items_expire_by_whole_seconds(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    """DynamoDB's time to live ignores an item whose attribute is anything else."""
    ledger.clock.sleep(0.123_456)
    ledger.settled(EVENT)

    items = dynamodb.table.items()
    assert len(items) == 2
    assert all(re.fullmatch("[0-9]{10,11}", item["expiration"]["N"]) for item in items)


def test_keys_of_events_have_one_length_whatever_source_and_id_are(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb
) -> None:
    for id_, source in [("e", "/"), ("x" * 1_024, "/" * 1_024), ("名" * 1_024, "/s"), ("é🚀\u2028", "/s")]:
        ledger.settled(event(id_, source=source))

    keys = {item["id"]["S"] for item in events_in(dynamodb)}
    assert len(keys) == 4
    assert len({len(key.encode()) for key in keys}) == 1
    assert all(key.isascii() for key in keys)


def test_key_of_a_service_has_its_region_project_and_id_whole(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> None:
    ledger.settled(EVENT, target=Target("r" * 64, "p" * 64, "s" * 64))

    assert dynamodb.item(f"service#{'r' * 64}/{'p' * 64}/{'s' * 64}")


def test_item_of_an_event_has_no_more_of_it_than_its_outcome_and_a_digest(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb
) -> None:
    outcome = ledger.settled(EVENT)

    [item] = events_in(dynamodb)
    assert set(item) == {"id", "digest", "time", "target", "state", "round", "outcome", "expiration"}
    assert json.loads(item["outcome"]["S"]) == outcome.cloud_event


def test_time_of_the_newest_rename_is_a_whole_number_of_microseconds(
    ledger: LedgerDriver, dynamodb: FakeDynamoDb
) -> None:
    """DynamoDB compares it exactly."""
    ledger.settled(event(time=at(microseconds=-1)))

    assert service_in(dynamodb)["newest_time"] == {"N": str(round(START.timestamp()) * 1_000_000 - 1)}


# ---- Requests


@pytest.fixture
def requests(ledger: LedgerDriver, dynamodb: FakeDynamoDb) -> list[dict[str, Any]]:
    """Every kind of request that the ledger makes; a transaction as its single actions."""
    ledger.outage_is_recorded()
    ledger.settled(EVENT)
    ledger.claim(EVENT)
    ledger.settled(OTHER_EVENT, not_found())
    ledger.settle(ledger.claimed(THIRD_EVENT), release=False)
    ledger.clock.sleep(A_MINUTE + 1)
    fourth = event("event-4")
    ledger.given_up(fourth)
    ledger.given_up(fourth, RedriveCycle(1, "the outcome before"))
    claim = ledger.claimed(fourth)
    ledger.settle(claim, failure_of(fourth, not_found(), claim.cycle), release=False)
    ledger.release(claim)
    return [
        request
        for _, parameters in dynamodb.calls
        for action in parameters.get("TransactItems", [{"": parameters}])
        for request in action.values()
    ]


def test_requests_find_items_by_their_keys_alone(requests: list[dict[str, Any]], dynamodb: FakeDynamoDb) -> None:
    assert {call.operation for call in dynamodb.calls} == {"GetItem", "TransactWriteItems"}
    assert all(list(request["Key"]) == ["id"] for request in requests)


def test_each_request_that_writes_has_a_condition(requests: list[dict[str, Any]]) -> None:
    writes = [request for request in requests if "ConsistentRead" not in request]

    assert len(writes) > 10
    assert all(request["ConditionExpression"] for request in writes)


@pytest.mark.parametrize("table", ["ledger", "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"])
def test_requests_name_the_table_of_the_settings(world: World, dynamodb: FakeDynamoDb, table: str) -> None:
    ledger = LedgerDriver(dynamodb, world.clock, table)
    ledger.outage_is_recorded()
    ledger.claimed_and_released(EVENT)
    ledger.settled(EVENT)

    assert set(re.findall(r'"TableName": "([^"]*)"', json.dumps(dynamodb.calls))) == {table}


def test_expressions_have_an_alias_for_each_reserved_word(requests: list[dict[str, Any]]) -> None:
    """DynamoDB refuses 573 words as they are, ``state``, ``owner`` and ``time`` among them; none of these."""
    functions = {"attribute_not_exists", "attribute_exists", "if_not_exists"}
    keywords = {"SET", "REMOVE", "AND", "OR", "NOT"}
    unreserved = {"id", "digest", "lapses", "expiration", "kept_until", "newest_time", "newest_event", "outcome"}
    expressions = [text for request in requests for name, text in request.items() if name.endswith("Expression")]

    words = set(re.findall(r"(?<![#:\w])\w+", " ".join(expressions)))

    assert words - functions - keywords <= unreserved


def test_requests_declare_the_names_and_values_that_their_expressions_use(requests: list[dict[str, Any]]) -> None:
    """DynamoDB refuses others, and of course what is used and not declared."""
    for request in requests:
        expressions = " ".join(text for name, text in request.items() if name.endswith("Expression"))
        declared = {*request.get("ExpressionAttributeNames", {}), *request.get("ExpressionAttributeValues", {})}

        assert declared == set(re.findall(r"[#:]\w+", expressions))
