"""Thousands of rename events through the wired function, over real sockets, with ten threads an invocation.

It tests what the simulation leaves out, since the order of threads is not reproducible: connection pools, group
commits, the key guard, the SDK. Several environments receive batches from a FIFO queue, and some HTTP requests.
Connections are reset before and after a request takes effect, and at their next use after a freeze; responses come
late, or never. The invariants are those of `tests.faults.invariants`, and one more:

10. *Time.* An invocation responds before its time-out.

A *freeze*: Lambda suspends an environment between two invocations and thaws it for the next one; meanwhile the other
end may have closed its connections.

Time is real, and skipped while no message is visible: then all stored times become earlier.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Final, cast
from unittest.mock import patch

from function.domain.rename_service import Result, Unsettled
from function.triggers.http import STRUCTURED
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import cloud_event, http_request
from tests.fakes.identifiers import PROJECT, QUEUE_ARN
from tests.fakes.lambda_context import FakeContext
from tests.faults.clouds import Message, sqs_record
from tests.faults.invariants import CloudEvent, Event, Invariants, Rename, Service
from tests.faults.world import BrokenInvariant, World
from tests.threads.aws import Aws
from tests.threads.huawei import FaultyHuaweiCloud

SERVICES: Final = 100
ENVIRONMENTS: Final = 10
MAX_BATCH: Final = 10
MAX_RECEIVES: Final = 8
MAX_VISIBLE: Final = 300
INVOCATION_SECONDS: Final = 8.0
VISIBILITY_SECONDS: Final = 60.0
# For so long after the call a rename in doubt may still take effect. Its claim lasts for longer.
DOUBT_SECONDS: Final = 50.0
MAX_REDRIVES: Final = 5
_FOREIGN: Final = ("HUAWEICLOUD_", "AWS_", "POWERTOOLS_")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass
class Report:
    """The figures of a run.

    Attributes:
        faults: injected into requests to AWS and to Huawei Cloud.
        returned: messages that returned to the queue.
        broken: invariants, each with what broke it.
    """

    events: int = 0
    invocations: int = 0
    renames: int = 0
    faults: int = 0
    freezes: int = 0
    returned: int = 0
    seconds: float = 0.0
    broken: list[BrokenInvariant] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.events} events, {self.invocations} invocations, {self.renames} renames, {self.faults} faults, "
            f"{self.freezes} freezes, {self.returned} returned, in {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Rates:
    """Probabilities.

    Attributes:
        request: a request to AWS or Huawei Cloud fails.
        freeze: before an invocation all connections to AWS have been closed.
        http: an event is sent by HTTP.
    """

    request: float = 0.04
    freeze: float = 0.1
    http: float = 0.1


def run(events: int, seed: int, rates: Rates = Rates()) -> Report:
    """Send so many events, and settle them all; or stop when an invariant is broken.

    Args:
        seed: decides what is sent and how many faults there are, but not the order of threads.
    """
    started = time.monotonic()
    threads = _Run(events, seed, rates)
    threads.run()
    threads.report.seconds = time.monotonic() - started
    return threads.report


class _World(World):
    """Collects the broken invariants in the report."""

    def __init__(self, report: Report) -> None:
        super().__init__(seed=0)
        self._report = report

    def mark_broken(self, invariant: int, text: str) -> None:
        self._report.broken.append(BrokenInvariant(invariant, text))


class _Run:
    def __init__(self, events: int, seed: int, rates: Rates) -> None:
        self.report = Report()
        self._rates = rates
        self._random = Random(seed)
        self._world = _World(self.report)
        self._services = [Service(f"service-{number}", "old") for number in range(SERVICES)]
        self._invariants = Invariants(self._world, {(PROJECT, service.id): service for service in self._services})
        # The lock of everything below, and of the invariants.
        self._condition = threading.Condition()
        self._skipped_seconds = 0.0
        self._requests: dict[str, CloudEvent] = {}
        self._copies: Counter[str] = Counter()
        self._invocation_of: dict[Event, object] = {}
        self._in_doubt: list[tuple[float, Rename]] = []
        self._queue: list[Message] = []
        self._dead_letters: list[CloudEvent] = []
        self._handed_over: set[str] = set()
        self._working = 0
        self._ids = 0
        self._unsent = list(self._planned(events))
        self._aws = Aws(
            seed, put_event=self._published, send_message=self._sent, extend_visibility=self._extend_visibility
        )
        self._huawei = FaultyHuaweiCloud(seed, self._renamed)

    def run(self) -> None:
        with self._aws, self._huawei, _wiring(self._aws.url, self._huawei.url) as wire:
            for service in self._services:
                self._huawei.add_service(service.id, service.name)
            functions = [wire() for _ in range(ENVIRONMENTS)]
            self._aws.fault_rate = self._huawei.fault_rate = self._rates.request
            self._drain(functions)
            self._aws.fault_rate = self._huawei.fault_rate = 0.0
            self._rates = Rates(request=0.0, freeze=0.0)
            for _ in range(MAX_REDRIVES):
                self._unsent, self._dead_letters = self._dead_letters, []
                self._drain(functions)
        if not self.report.broken:
            self._invariants.check_when_idle(fault_free=True)
        self.report.events = len(self._invariants.events)
        self.report.faults = self._aws.faults + self._huawei.faults

    def _planned(self, events: int) -> Iterator[CloudEvent]:
        """A tenth is sent twice, a fifth is up to a minute late, some reuse an identifier."""
        random, start = self._random, time.time() - events / 100
        for number in range(events):
            decided = start + number / 100 - (random.uniform(0, 60) if random.random() < 0.2 else 0)
            seconds, nanoseconds = divmod(int(decided * 1e9), 10**9)
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            id_ = random.randrange(number) if number and random.random() < 0.02 else number
            name = f"name-{number}"
            service_id, at = random.choice(self._services).id, f"{moment}.{nanoseconds:09}Z"
            request = cloud_event(
                id=f"id-{id_}", time=at, vpc_endpoint_service_id=service_id, endpoint_service_name=name
            )
            self._requests[name] = request
            for _ in range(1 + (random.random() < 0.1)):
                self._copies[name] += 1
                yield request

    # ---- The queue

    def _now(self) -> float:
        return time.time() + self._skipped_seconds

    def _skip(self, seconds: float) -> None:
        """Time passes."""
        whole = math.ceil(seconds)
        self._skipped_seconds += whole
        self._aws.age(whole)

    def _add(self, request: CloudEvent) -> None:
        event = self._invariants.sent(request)
        event.submissions += 1
        event.queued = True
        self._ids += 1
        group = request["data"]["vpc_endpoint_service_id"]
        self._queue.append(Message(f"message-{self._ids}", json.dumps(request), {}, group, self._now(), event))

    def _receive(self) -> list[Message]:
        """The first messages of each group, in the order of a FIFO queue."""
        now = self._now()
        hidden = {message.group for message in self._queue if message.visible_at > now}
        visible = [message for message in self._queue if message.group not in hidden]
        for message in visible:
            if message.receives >= MAX_RECEIVES:
                self._queue.remove(message)
                self._dead_letters.append(json.loads(message.body))
                if not message.event.outcomes:
                    self._world.mark_broken(6, f"{message.event.label} is a dead letter without an outcome")
        batch = [message for message in visible if message in self._queue][: self._random.randint(5, MAX_BATCH)]
        for message in batch:
            message.receives += 1
            message.visible_at = now + VISIBILITY_SECONDS
        return batch

    def _next(self) -> list[Message] | CloudEvent | None:
        """A batch, or an event to send by HTTP; None when everything is done."""
        while True:
            while self._unsent and len(self._queue) < MAX_VISIBLE:
                if self._random.random() < self._rates.http:
                    return self._unsent.pop(0)
                self._add(self._unsent.pop(0))
            if batch := self._receive():
                return batch
            if self._working:
                self._condition.wait()
            elif hidden := [message.visible_at for message in self._queue if message.visible_at > self._now()]:
                self._skip(min(hidden) - self._now())
            else:
                return None

    # ---- The function's invocations

    def _drain(self, functions: list[Any]) -> None:
        """Run until nothing is left to be sent or received."""
        with ThreadPoolExecutor(len(functions)) as threads:
            for done in [threads.submit(self._serve, function) for function in functions]:
                done.result()

    def _serve(self, function: Any) -> None:
        while True:
            with self._condition:
                work = self._next()
                if work is None or self.report.broken:
                    self._condition.notify_all()
                    return
                self._working += 1
                self.report.invocations += 1
                if self._random.random() < self._rates.freeze:
                    self.report.freezes += 1
                    self._aws.freeze()
            try:
                if isinstance(work, list):
                    self._deliver(function, work)
                else:
                    self._post(function, work)
            finally:
                with self._condition:
                    self._working -= 1
                    self._condition.notify_all()

    def _deliver(self, function: Any, batch: list[Message]) -> None:
        invocation = object()
        with self._condition:
            calls_before = {message.event: len(message.event.renames) for message in batch}
            self._invocation_of |= dict.fromkeys(calls_before, invocation)
            records = [sqs_record(message, QUEUE_ARN) for message in batch]
        answer = self._invoke(function, {"Records": records})
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        with self._condition:
            stopped: set[str] = set()
            for message in batch:
                was_called = len(message.event.renames) > calls_before[message.event]
                if message.group in stopped and was_called and self._is_sent_once(message.event):
                    self._world.mark_broken(8, f"{message.event.label} overtakes another one of its group")
                if message.id in failed:
                    stopped.add(message.group)
                else:
                    self._invariants.acknowledged(message.event, is_dead_letter=False)
                    self._queue.remove(message)
            self.report.returned += len(failed)

    def _post(self, function: Any, request: CloudEvent) -> None:
        with self._condition:
            event = self._invariants.sent(request)
            event.submissions += 1
            self._invocation_of[event] = object()
            self._ids += 1
            request_id = f"request-{self._ids}"
        proxy_event = http_request(request, headers={"content-type": STRUCTURED})
        proxy_event["requestContext"] |= {"requestId": request_id, "requestTimeEpoch": int(time.time() * 1000)}
        answer = self._invoke(function, proxy_event)
        with self._condition:
            if self._invariants.answered(event, answer["statusCode"], answer["body"]):
                self._dead_letters.append(request)

    def _invoke(self, function: Any, event: dict[str, Any]) -> dict[str, Any]:
        context = FakeContext(INVOCATION_SECONDS)
        answer: dict[str, Any] = function.handle(event, context)
        late = -context.get_remaining_time_in_millis() / 1000
        if _SilentTelemetry.defects:
            raise AssertionError from _SilentTelemetry.defects[0]
        if late > 0:
            with self._condition:
                self._world.mark_broken(10, f"an invocation responds {late:.1f} s after its time-out")
        return answer

    def _is_sent_once(self, event: Event) -> bool:
        return self._copies[cast("CloudEvent", event.requests[0])["data"]["endpoint_service_name"]] == 1

    # ---- Calls that reach the clouds

    def _renamed(self, service_id: str, name: str, applied: bool, in_doubt: bool) -> None:
        with self._condition:
            request, now = self._requests[name], self._now()
            for until, earlier in list(self._in_doubt):
                if until <= now:
                    self._in_doubt.remove((until, earlier))
                    earlier.service.in_flight.remove(earlier)
            service, event = self._invariants.service(PROJECT, service_id), self._invariants.find(request)
            # Of several copies it is unknown which one calls.
            invocation = self._invocation_of[event] if self._is_sent_once(event) else event
            rename = self._invariants.rename_called(service, request, cast("Any", invocation))
            self.report.renames += 1
            if applied:
                self._invariants.rename_took_effect(rename)
            if in_doubt:
                self._in_doubt.append((now + DOUBT_SECONDS, rename))
            else:
                service.in_flight.remove(rename)

    def _published(self, outcome: CloudEvent) -> None:
        with self._condition:
            self._invariants.published(outcome)

    def _sent(self, request: dict[str, Any]) -> None:
        with self._condition:
            if request["MessageDeduplicationId"] not in self._handed_over:
                self._handed_over.add(request["MessageDeduplicationId"])
                self._add(json.loads(request["MessageBody"]))
                self._condition.notify_all()

    def _extend_visibility(self, receipt_handle: str, seconds: int) -> None:
        with self._condition:
            for message in self._queue:
                if receipt_handle == f"{message.id}/{message.receives}":
                    message.visible_at = self._now() + seconds


@contextmanager
def _wiring(aws: str, huawei: str) -> Iterator[Callable[[], Any]]:
    """A factory of functions, wired as in function.app, with environment variables of their own and no logs."""
    own = ENVIRONMENT | {
        "VPCEP_ENDPOINT": huawei,
        "LEDGER_TABLE": "ledger",
        "RENAME_QUEUE_URL": f"{aws}/123456789012/rename.fifo",
        "MAX_RECEIVES": str(MAX_RECEIVES),
        "AWS_ENDPOINT_URL": aws,
    }
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and name.upper() not in _PROXIES
    }
    with patch.dict(os.environ, others | own, clear=True):
        from function import app, bootstrap, settings  # noqa: PLC0415 - app wires a function when it is imported

        with patch.object(bootstrap, "Telemetry", _SilentTelemetry):
            yield lambda: app.Function(settings.load(os.environ))


class _SilentTelemetry:
    """Collects unexpected exceptions."""

    defects: ClassVar[list[BaseException | None]] = []

    def __init__(self, *_: object) -> None:
        """Without a namespace."""

    def handled(self, event: object, result: Result, *_: object, **__: object) -> None:
        if isinstance(result, Unsettled) and result.cause is not None:
            self.defects.append(result.cause)

    def unexpected(self, error: BaseException | None, **_: object) -> None:
        self.defects.append(error)

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None
