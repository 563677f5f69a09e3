"""The event patterns that README.md and docs/events.md give to consumers, on the deployed bus."""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from tests.documents import blocks
from tests.integration.observer import a_service, outcome_of, received, tapped
from tests.localcloud.stack import Clouds, Event, rename_event

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
def queues(clouds: Clouds) -> Iterator[list[str]]:
    """The URL of a queue for each pattern."""
    with ExitStack() as stack:
        names = [(f"documented-{number}", pattern) for number, pattern in enumerate(patterns())]
        yield [stack.enter_context(tapped(clouds, name, pattern)) for name, pattern in names]
    # It remembers that a key was refused.
    clouds.start_anew("RenameFromHttp")


def test_documented_event_patterns_match_their_kinds_of_outcomes(clouds: Clouds, queues: list[str]) -> None:
    events = rename_events(clouds)

    for kind, event in events.items():
        clouds.post_rename_event(event)
        outcome = outcome_of(clouds, event)
        assert outcome["data"].get("error", {}).get("kind", "renamed") == kind

    kinds = {event["id"]: kind for kind, event in events.items()}
    found = [{kinds[body["detail"]["data"]["request"]["id"]] for body in received(clouds, url)} for url in queues]
    assert found == EXPECTED


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
