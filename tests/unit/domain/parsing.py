"""Parse an event, for the tests of the parser, the policy and the outcomes."""

from __future__ import annotations

import json
from typing import Any

from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.envelopes import Attributes
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RenameEvent
from function.domain.outcomes import rename_failed
from tests.deadlines import within
from tests.fakes.domain import context, parser
from tests.fakes.events import transport

KILOBYTE = 1024
LARGEST_EVENT = 256 * KILOBYTE
# An EventBridge entry: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html
LARGEST_ENTRY = 256 * KILOBYTE
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LONE_SURROGATE = "\ud800"


def parse(content: object, attributes: Attributes | None = None, **arguments: Any) -> ParsedEvent:
    """Parse a text, or anything else as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return parser().parse(text, attributes or transport(), within(60.0), **arguments)


def accepted(content: object, attributes: Attributes | None = None, **arguments: Any) -> RenameEvent:
    event = parse(content, attributes, **arguments)
    assert isinstance(event, RenameEvent), event.violations
    return event


def refused(content: object, attributes: Attributes | None = None, **arguments: Any) -> InvalidEvent:
    event = parse(content, attributes, **arguments)
    assert isinstance(event, InvalidEvent)
    assert event.violations
    return event


def paths(event: InvalidEvent) -> set[str]:
    return {violation.path for violation in event.violations}


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


def failure_outcome(event: ParsedEvent) -> Outcome:
    """The failure outcome of an event, whatever it is."""
    violations = event.violations if isinstance(event, InvalidEvent) else ()
    failure = failures.invalid_event(violations) if violations else failures.internal_error()
    return rename_failed(event, context(attempts=0), failure)


def attribute(value: object, data_type: str = "String") -> dict[str, object]:
    return {"Type": data_type, "Value": value}


def entry_size(outcome: Outcome) -> int:
    return len(outcome.to_json().encode()) + len("vpcep.rename") + len(outcome.type)


def unknown_project(_: Deadline) -> str:
    """The default project of a function that cannot get its key now."""
    raise RenameFailedError(failures.credentials("down", kind=Kind.UNAVAILABLE))
