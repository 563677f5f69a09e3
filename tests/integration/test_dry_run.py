"""Dry runs through the API: what they report, and that they change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.observer import a_rename, a_service, ledger_table, rename_queue
from tests.localcloud.stack import Clouds, Event, rename_event


def table(clouds: Clouds) -> list[Any]:
    items = clouds.aws.client("dynamodb").scan(TableName=ledger_table(clouds))["Items"]
    return sorted(items, key=lambda item: str(item["id"]["S"]))


def dry_run(clouds: Clouds, event: Event, query: str = "dry_run=true") -> Any:
    """The reply to a dry run, which must have changed nothing."""
    before = table(clouds), clouds.messages(rename_queue(clouds)), clouds.outcomes_so_far()
    calls = len(clouds.huawei.calls)
    reply = clouds.post_rename_event(event, query=query)
    assert (table(clouds), clouds.messages(rename_queue(clouds)), clouds.outcomes_so_far()) == before
    assert [call for call in clouds.huawei.calls[calls:] if call.method != "GET"] == []
    return reply


def test_dry_run_reports_would_rename_then_settled_then_unchanged(clouds: Clouds) -> None:
    service = a_service(clouds)
    event = rename_event(service, "orders")

    reported = json.loads(dry_run(clouds, event).body)

    assert (reported["dry_run"], reported["result"], reported["vpc_endpoint_service_id"]) == (
        True,
        "would_rename",
        service,
    )
    assert clouds.post_rename_event(event).status == 200
    [outcome] = clouds.outcomes()
    reported = json.loads(dry_run(clouds, event).body)
    assert (reported["result"], reported["outcome"]) == ("settled", outcome)
    assert json.loads(dry_run(clouds, rename_event(service, "orders")).body)["result"] == "unchanged"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"status": 500, "code": "EndPoint.0001"}, 503),
        ({"status": 429, "code": "APIGW.0308"}, 503),
        ({"status": 400, "code": "EndPoint.2003"}, 404),
        ({"status": 403, "code": "EndPoint.0004"}, 403),
    ],
)
def test_dry_run_under_a_fault_reports_its_code(clouds: Clouds, fault: dict[str, Any], status: int) -> None:
    event = a_rename(clouds)
    clouds.huawei.fail(**fault, times=20, on="any")

    reply = dry_run(clouds, event)

    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (status, fault["code"])
    assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize(
    "query", ["dry_run=yes", "dry_run=", "dry_run=true&dry_run=true", "dry_run=true&dry_run=false"]
)
def test_malformed_dry_run_parameter_is_answered_with_400(clouds: Clouds, query: str) -> None:
    reply = dry_run(clouds, a_rename(clouds), query)

    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert clouds.huawei.calls == []
