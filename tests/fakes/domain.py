"""The parts of `function/domain/` as several tests build them: a parser, a policy, a rename service."""

from __future__ import annotations

import json
from typing import Any

from function.adapters.no_ledger import NoLedger
from function.domain.deadline import Deadline
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.model import InvalidEvent, ParsedEvent, RenameEvent, rfc3339
from function.domain.outcomes import OutcomeContext
from function.domain.policy import Policy
from function.domain.rename_service import RenameService
from function.domain.service_calls import ServiceCalls
from tests.deadlines import within
from tests.fakes.endpoint_services import CountingServices
from tests.fakes.events import rename_event, transport
from tests.fakes.identifiers import NOW, OTHER_PROJECT, OTHER_REGION, PROJECT, REGION
from tests.fakes.publisher import FakeBus


def context(**fields: Any) -> OutcomeContext:
    """What an outcome says in addition to the result."""
    defaults: dict[str, Any] = {
        "trigger": "sqs",
        "region": REGION,
        "project_id": PROJECT,
        "attempts": 1,
        "time": rfc3339(NOW),
    }
    return OutcomeContext(**defaults | fields)


class Intake:
    """The two steps from a transport's text to an event: parser and policy."""

    def __init__(self, policy: Policy) -> None:
        self.parser = EventParser()
        self.policy = policy

    def parse(self, text: str, attributes: Attributes, deadline: Deadline, **options: Any) -> ParsedEvent:
        return self.policy.judge(self.parser.parse(text, attributes, **options), deadline)

    def unreadable(self, text: str, attributes: Attributes, message: str) -> InvalidEvent:
        return self.parser.unreadable(text, attributes, message)


def policy(**arguments: Any) -> Policy:
    """Allows two projects and two regions, at a fixed time."""
    defaults: dict[str, Any] = {
        "region": REGION,
        "name_max_length": 16,
        "projects": {OTHER_PROJECT},
        "regions": {OTHER_REGION},
        "default_project": lambda _: PROJECT,
        "now": lambda: NOW,
    }
    return Policy(**defaults | arguments)


def parser(**arguments: Any) -> Intake:
    """A parser, and a policy that allows two projects and two regions, at a fixed time."""
    return Intake(policy(**arguments))


def valid(event: dict[str, Any] | None = None) -> RenameEvent:
    """A rename event as parsed."""
    parsed = parser().parse(json.dumps(event if event is not None else rename_event()), transport(), within(60.0))
    assert isinstance(parsed, RenameEvent), parsed
    return parsed


def rename_service(services: CountingServices, bus: FakeBus, **arguments: Any) -> RenameService:
    """A rename service that never waits, at a fixed time."""
    calls = ServiceCalls(services, sleep=lambda _: None, uniform=lambda low, _: low)
    defaults: dict[str, Any] = {"now": lambda: NOW}
    return RenameService(calls, NoLedger(), bus, policy(), **defaults | arguments)
