"""The event patterns that README.md and docs/events.md give to consumers, on the deployed bus."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.documents import blocks
from tests.integration.test_deployed_stack import a_service, outcome_of
from tests.localcloud.stack import Clouds, Event, rename_event, tap

# What each gets of the kinds of outcomes below, in the order of the documents.
EXPECTED = [
    {"renamed", "invalid", "not_found", "access", "internal"},
    {"invalid", "not_found", "access", "internal"},
    {"access", "internal"},
    {"access"},
]


def patterns() -> list[dict[str, Any]]:
    """The event patterns among the documents' blocks of JSON."""
    contents = [json.loads(each.text) for each in blocks("README.md", "docs/events.md") if each.language == "json"]
    return [content for content in contents if isinstance(content.get("source"), list)]


@pytest.fixture
def rules(clouds: Clouds) -> Iterator[list[str]]:
    """The URL of each pattern's queue."""
    bus, urls = clouds.stack.outputs["OutcomeBusName"], []
    for number, pattern in enumerate(patterns()):
        urls.append(tap(clouds.aws, bus, f"documented-{number}", pattern))
    yield urls
    events, sqs = clouds.aws.client("events"), clouds.aws.client("sqs")
    for number, url in enumerate(urls):
        events.remove_targets(Rule=f"documented-{number}", EventBusName=bus, Ids=[f"documented-{number}"])
        events.delete_rule(Name=f"documented-{number}", EventBusName=bus)
        sqs.delete_queue(QueueUrl=url)
    # It remembers that a key was refused.
    clouds.start_anew("RenameFromHttp")


def test_documented_patterns_match_what_they_say(clouds: Clouds, rules: list[str]) -> None:
    events = rename_events(clouds)

    for kind, event in events.items():
        clouds.post_rename_event(event)
        outcome = outcome_of(clouds, event)
        assert outcome["data"].get("error", {}).get("kind", "renamed") == kind

    kinds = {event["id"]: kind for kind, event in events.items()}
    assert [{kinds[event_id] for event_id in received(clouds, url)} for url in rules] == EXPECTED


def rename_events(clouds: Clouds) -> Mapping[str, Event]:
    """One for each kind of outcome, the refused key last, for no call is made after it."""
    services = {kind: a_service(clouds) for kind in ("renamed", "internal", "access")}
    clouds.huawei.fail(400, "EndPoint.0011", service_id=services["internal"])
    clouds.huawei.fail(403, "EndPoint.0004", service_id=services["access"])
    return {
        "renamed": rename_event(services["renamed"], "orders"),
        "invalid": rename_event("..", "orders"),
        "not_found": rename_event(str(uuid.uuid4()), "orders"),
        "internal": rename_event(services["internal"], "orders"),
        "access": rename_event(services["access"], "orders"),
    }


def received(clouds: Clouds, url: str) -> list[str]:
    """The ids of the rename events whose outcomes the queue got."""
    found, deadline = [], time.monotonic() + 5
    while clouds.messages(url) and time.monotonic() < deadline:
        reply = clouds.aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        for message in reply.get("Messages", []):
            found.append(json.loads(message["Body"])["detail"]["data"]["request"]["id"])
            clouds.aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found
