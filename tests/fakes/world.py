"""The rename service and the triggers, with all their collaborators in memory.

A changed constructor of `function/` is changed here, in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from function.adapters.huawei.error_codes import metric_code
from function.domain.deadline import REPORT_SECONDS, Deadline
from function.domain.envelopes import Attributes
from function.domain.event_parser import EventParser
from function.domain.failures import Failure
from function.domain.model import InvalidEvent, ParsedEvent, RenameEvent
from function.domain.policy import Policy
from function.domain.rename_service import RenameService, Result, Unsettled
from function.domain.service_calls import ServiceCalls
from function.telemetry import Telemetry
from function.triggers.dead_letters import DeadLetterQueue, DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from function.workers import Workers
from tests.fakes.clock import FakeClock, Jitter
from tests.fakes.domain import Intake
from tests.fakes.endpoint_services import FakeEndpointServices
from tests.fakes.events import HttpReply, cloud_event
from tests.fakes.identifiers import REGION, START
from tests.fakes.ledger import FakeLedger
from tests.fakes.publisher import FakeBus
from tests.fakes.queue import FakeQueue
from tests.fakes.telemetry import FakeTelemetry


class World:
    """The decision and the triggers, with everything around them in memory."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.clock = FakeClock()
        self.jitter = Jitter()
        self.services = FakeEndpointServices(self.clock)
        self.allowed_projects: set[str] = set()
        self.on_unreadable: Callable[[Failure], None] = lambda _: None
        self.default_project: Callable[[Deadline], str] = self.services.default_project
        self.bus = FakeBus(self.journal)
        self.ledger = FakeLedger(self.journal)
        self.queue = FakeQueue()
        self.telemetry = FakeTelemetry()

    def policy(self) -> Policy:
        return Policy(
            region=REGION,
            name_max_length=16,
            projects=self.allowed_projects,
            regions=(),
            default_project=self.default_project,
            now=self.clock.now,
        )

    def parser(self) -> Intake:
        return Intake(self.policy())

    def rename_service(self, *, read_previous_name: bool = False) -> RenameService:
        calls = ServiceCalls(
            self.services, on_unreadable=self.on_unreadable, sleep=self.clock.sleep, uniform=self.jitter
        )
        return RenameService(
            calls, self.ledger, self.bus, self.policy(), read_previous_name=read_previous_name, now=self.clock.now
        )

    def settle(
        self,
        event: ParsedEvent | None = None,
        *,
        seconds: float = 60.0,
        trigger: str = "sqs",
        read_previous_name: bool = False,
    ) -> Result:
        rename_service = self.rename_service(read_previous_name=read_previous_name)
        return rename_service.settle(event or self.event(), self.clock.until(seconds), trigger)

    def give_up(self, unsettled: Unsettled, event: ParsedEvent | None = None, *, seconds: float = 60.0) -> Result:
        return self.rename_service().give_up(event or self.event(), unsettled, self.clock.until(seconds), "sqs")

    @staticmethod
    def real_telemetry() -> Telemetry:
        return Telemetry("VpcepRename", metric_code)

    def event(self, **data: Any) -> RenameEvent:
        """A rename event to call the one service `orders`, unless the data say otherwise."""
        event = self.parser().parse(json.dumps(cloud_event(**data)), _NO_ATTRIBUTES, self.clock.until(60.0))
        assert isinstance(event, RenameEvent), event
        return event

    def invalid_event(self, text: str = "{}") -> InvalidEvent:
        event = self.parser().parse(text, _NO_ATTRIBUTES, self.clock.until(60.0))
        assert isinstance(event, InvalidEvent), event
        return event

    def of_every_trigger(self) -> tuple[EventParser, Policy, RenameService, Telemetry]:
        return EventParser(), self.policy(), self.rename_service(), cast("Telemetry", self.telemetry)

    def sqs(
        self,
        *records: dict[str, Any],
        max_receives: int | None = None,
        parallel: int = 10,
        seconds: float = 60.0,
        report_seconds: float = REPORT_SECONDS,
        with_queue: bool = True,
    ) -> list[str]:
        """Handle a batch; the message ids that go back to the queue."""
        trigger = SqsTrigger(
            *self.of_every_trigger(),
            queue=self.queue if with_queue else None,
            workers=Workers(parallel),
            max_receives=max_receives,
            uniform=self.jitter,
        )
        return self._returned(trigger, records, seconds, report_seconds)

    def dead_letters(
        self, *records: dict[str, Any], queue: DeadLetterQueue | None = None, seconds: float = 60.0
    ) -> list[str]:
        """Handle dead letters, with the queue of this world by default; the message ids that stay."""
        trigger = DeadLetterTrigger(*self.of_every_trigger(), queue=queue or self.queue, workers=Workers(1))
        return self._returned(trigger, records, seconds)

    def _returned(
        self,
        trigger: SqsTrigger | DeadLetterTrigger,
        records: Sequence[dict[str, Any]],
        seconds: float,
        report_seconds: float = REPORT_SECONDS,
    ) -> list[str]:
        deadline = self.clock.until(seconds)._replace(report_seconds=report_seconds)
        response = trigger.handle({"Records": list(records)}, deadline)
        assert list(response) == ["batchItemFailures"]
        returned = [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
        # Groups run concurrently, and the order of the failures means nothing.
        in_order = [record["messageId"] for record in records if record["messageId"] in returned]
        assert sorted(returned) == sorted(in_order), "a record is named twice, or one that did not come"
        return in_order

    def http(self, request: dict[str, Any], *, with_queue: bool = True, seconds: float = 25.0) -> HttpReply:
        queue = self.queue if with_queue else None
        trigger = HttpTrigger(*self.of_every_trigger(), queue=queue, workers=Workers(1))
        return HttpReply.of(trigger.handle(request, self.clock.until(seconds)))


_NO_ATTRIBUTES = Attributes(id="transport-id", source="/transport", time=START.isoformat(), given={})
