"""Rename events and the world around them, as tests of several rooms need them: valid unless a test says otherwise."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from function.adapters.no_ledger import NoLedger
from function.domain.deadline import Deadline
from function.domain.event_parser import Attributes, EventParser
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import RENAME_REQUESTED, InvalidEvent, Outcome, RenameEvent, Target, rfc3339
from function.domain.outcomes import OutcomeContext
from function.domain.policy import Policy
from function.domain.ports import ReadPurpose, Reply
from function.domain.rename_service import RenameService

NOW: Final = datetime(2026, 11, 2, 8, 15, 1, 250_000, tzinfo=UTC)
TIME: Final = "2026-11-02T08:15:00Z"
ARRIVED: Final = "2026-11-02T08:15:00.500Z"
REGION: Final = "cn-north-4"
OTHER_REGION: Final = "eu-west-101"
PROJECT: Final = "0123456789abcdef0123456789abcdef"
OTHER_PROJECT: Final = "fedcba9876543210fedcba9876543210"
SERVICE: Final = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
HUAWEI_REQUEST_ID: Final = "c6c9d52b6c3d1b4fa5ed0f8b0e3f7a21"

SAMPLES: Final = Path(__file__).parents[1] / "events"


def rename_data(**fields: Any) -> dict[str, Any]:
    """The ``data`` of a valid rename event, with ``fields`` added or put in place."""
    return {"vpc_endpoint_service_id": SERVICE, "endpoint_service_name": "orders"} | fields


def rename_event(**attributes: Any) -> dict[str, Any]:
    """A valid rename event in structured mode, with ``attributes`` (``data`` among them) added or put in place."""
    return {
        "specversion": "1.0",
        "id": "event-1",
        "source": "/cmdb",
        "type": RENAME_REQUESTED,
        "time": TIME,
        "data": rename_data(),
    } | attributes


def transport(**given: str) -> Attributes:
    """What a transport carries and stands in for; ``given`` are the CloudEvents attributes of binary mode."""
    return Attributes("message-1", "arn:aws:sqs:eu-west-1:123456789012:rename.fifo", ARRIVED, given)


def context(**fields: Any) -> OutcomeContext:
    """What an outcome tells beside the result."""
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

    def parse(
        self, text: str, attributes: Attributes, deadline: Deadline, **options: Any
    ) -> RenameEvent | InvalidEvent:
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
    parsed = parser().parse(json.dumps(event if event is not None else rename_event()), transport(), a_minute())
    assert isinstance(parsed, RenameEvent), parsed
    return parsed


@dataclass
class CountingServices:
    """Huawei Cloud in memory, where every endpoint service has one name; keeps what was asked of it.

    Attributes:
        name: of every endpoint service.
        failure: what each rename fails with.
    """

    name: str = "billing"
    failure: Failure | None = None
    renames: list[tuple[Target, str]] = field(default_factory=list)
    reads: list[Target] = field(default_factory=list)

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        self.renames.append((target, name))
        if self.failure:
            raise RenameFailedError(self.failure)
        self.name = name
        return Reply(name, 200, HUAWEI_REQUEST_ID)

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        self.reads.append(target)
        return Reply(self.name, 200, HUAWEI_REQUEST_ID)


@dataclass
class ListBus:
    """The outcome bus in memory."""

    outcomes: list[Outcome] = field(default_factory=list)

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        self.outcomes.append(outcome)


def rename_service(services: CountingServices, bus: ListBus, **arguments: Any) -> RenameService:
    """A renamer that never waits, at a fixed time."""
    defaults: dict[str, Any] = {
        "now": lambda: NOW,
        "sleep": lambda _: None,
        "uniform": lambda low, _: low,
    }
    return RenameService(services, NoLedger(), bus, policy(), **defaults | arguments)


def a_minute() -> Deadline:
    """Of an invocation that has just begun."""
    now = time.time()
    return Deadline(now + 60.0, now + 64.0)
