"""One run: its seed decides on the fault profile, the events and the schedule; the invariants are checked throughout.

A run sends some dozens of rename events through both triggers, in every mode, some twice, late, or with other content
under the same id, with times of clocks that differ. The function's own parser, policy, ledger and triggers handle them
with the clouds in memory. Dead letters are redriven at any time. When nothing is due any more the faults end, senders
who were asked to send again do so, all dead letters are redriven, perhaps after days; then every event must be settled.

One invocation handles the message groups of a batch one after another: threads would not be reproducible.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple, cast

from function.adapters.aws.dynamodb_ledger import RETENTION
from function.domain.deadline import Deadline
from function.domain.event_parser import RENAME_REQUESTED
from function.domain.model import rfc3339
from function.triggers.http import BINARY, STRUCTURED
from tests.fakes.events import http_request
from tests.fakes.identifiers import API_ID, OTHER_PROJECT, PROJECT, REGION
from tests.faults.clouds import (
    HUAWEI_FAULTS,
    IN_DOUBT,
    LATEST_EFFECT_SECONDS,
    MAX_SKEW_SECONDS,
    REFUSED_NAME,
    UNAVAILABLE,
    DeadLetterQueue,
    HandOver,
    LedgerClient,
    Message,
    Queue,
    SimulatedClouds,
    sqs_record,
)
from tests.faults.dynamodb import Table
from tests.faults.environments import SOUND, Build, Fleet, Version, powertools_on_virtual_time
from tests.faults.invariants import CloudEvent, Event, Invariants, Service
from tests.faults.ledger_v1 import LATEST_EFFECT_SECONDS_V1, MAX_SKEW_SECONDS_V1
from tests.faults.world import BrokenInvariant, CallFaults, FaultProfile, Invocation, World

# As template.yml has them, and app.py.
QUEUE_TIMEOUT_SECONDS: Final = 60.0
HTTP_TIMEOUT_SECONDS: Final = 25.0
REPORT_MARGIN_SECONDS: Final = 4.0
POLLERS: Final = 5

ARN: Final = "arn:aws:sqs:eu-west-1:123456789012:"
DAY: Final = 86_400.0
DEAD_LETTER_RETENTION_SECONDS: Final = 14 * DAY


class Result(NamedTuple):
    """How a run ended."""

    seed: int
    events: int
    steps: int
    broken: BrokenInvariant | None
    trace: list[str]


def run(seed: int, build: Build = SOUND, *, tracing: bool = False) -> Result:
    """One run to its end, or to the first broken invariant."""
    simulation = _Simulation(seed, build, tracing=tracing)
    world = simulation.world
    with powertools_on_virtual_time(world):
        simulation.run()
    return Result(seed, len(simulation.invariants.events), world.steps, world.broken, world.trace)


@dataclass(frozen=True)
class _Submission:
    """A request or message that a producer sends, once or again.

    Attributes:
        attributes: of CloudEvents, where the producer gives them.
        body: the event in structured mode, its data in binary mode, or invalid JSON.
        group: of the message.
    """

    attributes: dict[str, str]
    body: str
    structured: bool
    over_http: bool
    prefers_async: bool
    group: str

    def __str__(self) -> str:
        given = "".join(f" {name}={value}" for name, value in self.attributes.items())
        return f"{self.body}{given}"

    def request(self, transport_attributes: dict[str, str]) -> CloudEvent | str:
        """The `request` of its outcome."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return self.body
        if self.structured:
            return cast("CloudEvent", content)
        defaults = {"specversion": "1.0", "type": RENAME_REQUESTED} | transport_attributes
        return defaults | self.attributes | {"data": content}


class _Simulation:
    def __init__(self, seed: int, build: Build, *, tracing: bool) -> None:
        self.world = world = World(seed, tracing=tracing)
        random = world.random
        ids = [f"service-{number}" for number in range(1, random.randint(2, 4))]
        services = {(project, id_): Service(id_, "old") for project in (PROJECT, OTHER_PROJECT) for id_ in ids}
        self._services = list(services.values())
        self.invariants = Invariants(world, services)
        max_receives = random.randint(3, 8)
        self._dead_letter_queue = Queue(world, f"{ARN}dead-letters.fifo")
        self._unsettled_queue = Queue(world, f"{ARN}unsettled.fifo", pollers=2)
        self._queue = Queue(
            world, f"{ARN}rename.fifo", pollers=POLLERS, max_receives=max_receives, dead_letters=self._unsettled_queue
        )
        self._huawei = build.huawei(world, self.invariants)
        table = Table(lambda expired: expired < world.now and world.chance(0.5))
        clouds = SimulatedClouds(
            world,
            self.invariants,
            self._huawei,
            build.bus(world, self.invariants),
            LedgerClient(world, table),
            self._queue,
            HandOver(world, self.invariants, self._queue),
            DeadLetterQueue(world, self._unsettled_queue, self._dead_letter_queue),
        )
        self._fleet = Fleet(build, clouds, max_receives)
        self._to_resend: list[_Submission] = []
        self._requests = 0
        self._queue.serve(partial(self._invoke, self._queue))
        self._unsettled_queue.serve(partial(self._invoke, self._unsettled_queue))

    # ---- The phases of a run

    def run(self) -> None:
        months = 2 if self.world.chance(0.1) else 1
        try:
            for month in range(months):
                self.world.now += month * (RETENTION.total_seconds() + self.world.random.uniform(0, 2 * DAY))
                self._send_with_faults(month, only_refusals=month + 1 < months)
                if not self._runs_until_idle(fault_free=False) or not self._settles_without_faults():
                    return
        finally:
            self.world.close()

    def _send_with_faults(self, month: int, *, only_refusals: bool) -> None:
        """Send events under a fault profile. A month of refused renames leaves ledger items that expire in part."""
        world, random, start = self.world, self.world.random, self.world.now
        span = 1.0 if month else random.choice((5.0, 60.0, 600.0, 7_200.0))
        canary = random.random() < 0.15
        ids = sorted({service.id for service in self._services})
        world.profile = _fault_profile(random, start, span, ids, canary=canary)
        plan = _Plan(random, ids, month, only_refusals=only_refusals, first_version=canary)
        if canary:
            self._fleet.deploy(Version(), Version(is_first=True))
        else:
            self._change_settings(start, span)
            for _ in range(random.choice((0, 0, 0, 1, 5))):
                hand = partial(self.invariants.renamed_by_hand, random.choice(self._services), plan.name())
                world.at(start + random.uniform(0, span + 600), hand)
        producers = [random.choice((0.0, random.uniform(-600, 280))) for _ in range(3)]
        end = start
        for _ in range(random.randint(10, 48)):
            time = start + random.uniform(0, span)
            for submission in plan.event(time + random.choice(producers)):
                time += plan.delay()
                world.at(time, partial(self._send, submission))
            end = max(end, time)
        for _ in range(random.choice((0, 0, 1, 3))):
            world.at(random.uniform(start, end + 7_200), self._redrive)
        world.at(end + 10_800, self._end_faults)

    def _change_settings(self, start: float, span: float) -> None:
        """Rotate the key, change the secret's project, or change a setting of some environments."""
        random, account = self.world.random, self._huawei.account
        if account.rotated_at == math.inf and random.random() < 0.15:
            account.rotated_at = start + random.uniform(0, span)
            account.revoked_at = account.rotated_at + random.uniform(-300, 300)
        if account.moved_at == math.inf and random.random() < 0.15:
            account.moved_at = start + random.uniform(0, span)
        version = Version(read_previous_name=random.random() < 0.2)
        versions = {version}
        if random.random() < 0.15:
            versions.add(replace(version, name_max_length=20))
        if random.random() < 0.15:
            versions.add(replace(version, allowed_projects=frozenset({OTHER_PROJECT})))
        self._fleet.deploy(*sorted(versions, key=repr))

    def _runs_until_idle(self, *, fault_free: bool) -> bool:
        self.world.run()
        if not self.world.broken:
            self.invariants.check_when_idle(fault_free=fault_free)
        return not self.world.broken

    def _settles_without_faults(self) -> bool:
        """Redrive repeatedly, since an event that waits for another one may be given up again."""
        self._end_faults()
        if self.world.chance(0.3):
            self.world.now += self.world.random.uniform(0, DEAD_LETTER_RETENTION_SECONDS)
        for last in (False, False, False, True):
            to_resend, self._to_resend = self._to_resend, []
            for submission in to_resend:
                self._post(submission, tries=5)
            self._redrive()
            if not self._runs_until_idle(fault_free=last):
                return False
        return True

    def _end_faults(self) -> None:
        self.world.profile = FaultProfile()
        self._fleet.deploy(replace(self._fleet.versions[-1], is_first=False))

    def _redrive(self) -> None:
        """As ``make redrive`` does. An interrupted redrive leaves a message in both queues."""
        world, kept = self.world, []
        for message in self._dead_letter_queue.messages:
            if message.sent < world.now - DEAD_LETTER_RETENTION_SECONDS:
                world.note("%s has expired in the dead-letter queue", message.event.label)
                message.event.has_expired = True
                message.event.dead_letters -= 1
                continue
            if not self._queue.is_duplicate(message.id):
                world.note("%s is redriven", message.event.label)
                message.event.submissions += 1
                self._queue.add(replace(message, id=self._queue.new_id(), sent=world.now))
            if world.chance(world.profile.response_lost):
                kept.append(message)
            else:
                message.event.dead_letters -= 1
        self._dead_letter_queue.messages = kept

    # ---- Sending

    def _send(self, submission: _Submission) -> None:
        if submission.over_http:
            self._post(submission, tries=self.world.random.choice((1, 1, 2, 4)))
            return
        message_id = self._queue.new_id()

        def on_new_timestamp(time: float) -> Event:
            attributes = {"id": message_id, "source": self._queue.arn, "time": _rfc3339(time)}
            return self.invariants.sent(submission.request(attributes))

        event = on_new_timestamp(self.world.now)
        event.submissions += 1
        event.queued = True
        attributes = {
            f"ce_{name}": {"stringValue": value, "dataType": "String"} for name, value in submission.attributes.items()
        }
        self.world.note("%s is sent to the queue: %s", event.label, submission)
        self._queue.add(
            Message(message_id, submission.body, attributes, submission.group, self.world.now, event, on_new_timestamp)
        )

    def _post(self, submission: _Submission, *, tries: int) -> None:
        world = self.world
        self._requests += 1
        request_id = f"request-{self._requests}"
        transport_attributes = {"id": request_id, "source": API_ID, "time": _rfc3339(world.now)}
        event = self.invariants.sent(submission.request(transport_attributes))
        event.submissions += 1
        event.has_no_id = not submission.structured and "id" not in submission.attributes
        world.note("%s is sent by HTTP: %s", event.label, submission)
        headers = {"content-type": STRUCTURED if submission.structured else BINARY}
        for name, value in submission.attributes.items():
            headers["idempotency-key" if name == "id" else f"ce-{name}"] = value
        if submission.prefers_async:
            headers["prefer"] = "respond-async"
        proxy_event = http_request(submission.body, headers=headers)
        proxy_event["requestContext"] |= {"requestId": request_id, "requestTimeEpoch": int(world.now * 1000)}

        def answered(answer: dict[str, Any] | None) -> None:
            again = answer is None or self.invariants.answered(event, answer["statusCode"], answer["body"])
            again = again or world.chance(world.profile.response_lost)
            if again and tries > 1:
                world.after(world.random.expovariate(1 / 20), partial(self._post, submission, tries=tries - 1))
            elif again:
                self._to_resend.append(submission)

        if world.chance(0.2):
            query = {"queryStringParameters": {"dry_run": "true"}}
            self._start(API_ID, "dry run", HTTP_TIMEOUT_SECONDS, proxy_event | query).is_dry_run = True
        self._start(API_ID, request_id, HTTP_TIMEOUT_SECONDS, proxy_event, answered)

    def _invoke(self, queue: Queue, messages: list[Message], finish: Callable[[set[str]], None]) -> None:
        records = [sqs_record(message, queue.arn) for message in messages]
        self._requests += 1
        name = f"{'queue' if queue is self._queue else 'dead'}-{self._requests}"
        labels = ", ".join(f"{message.event.label} ({message.receives})" for message in messages)
        self.world.note("%s gets %s", name, labels)

        def ended(answer: dict[str, Any] | None) -> None:
            if answer is None:
                finish(set())
                return
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            if queue is self._queue:
                batch = [(message.event, message.group, message.id in failed) for message in messages]
                self.invariants.batch_ended(batch)
            for message in messages:
                if message.id not in failed:
                    self.invariants.acknowledged(message.event, is_dead_letter=queue is self._unsettled_queue)
            finish({message.id for message in messages} - failed)

        invocation = self._start(queue.arn, name, QUEUE_TIMEOUT_SECONDS, {"Records": records}, ended)
        invocation.groups = {message.id: message.group for message in messages}

    def _start(
        self,
        source: str,
        name: str,
        timeout: float,
        event: dict[str, Any],
        ended: Callable[[dict[str, Any] | None], object] = lambda answer: None,
    ) -> Invocation:
        """Start an invocation of the function that this source invokes: a queue's ARN or the API's id."""
        environment = self._fleet.take(source)
        function = environment.function
        triggers: dict[str, Any] = {API_ID: function.http, self._queue.arn: function.sqs}
        trigger = triggers.get(source, function.dead_letters)

        def end(answer: dict[str, Any] | None) -> None:
            if answer is not None:
                self._fleet.give_back(source, environment)
            ended(answer)

        return Invocation(self.world, name, environment, timeout, lambda it: trigger.handle(event, _begin(it)), end)


def _begin(invocation: Invocation) -> Deadline:
    """What the handler does before it calls the trigger."""
    ends_at = invocation.clock() + invocation.deadline - invocation.world.now
    deadline = Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at, invocation.clock)
    environment = invocation.environment
    if environment.is_cold:
        environment.is_cold = False
        environment.services.check_state(REGION, deadline)
    return deadline


def _rfc3339(time: float) -> str:
    return rfc3339(datetime.fromtimestamp(int(time * 1000) / 1000, UTC))


def _fault_profile(random: Random, start: float, span: float, services: list[str], *, canary: bool) -> FaultProfile:
    """Each fault is absent from many runs, so that none masks another; and in most runs faults are rare.

    Args:
        canary: the first version, with its smaller bounds, gets a part of the traffic.
    """
    strength = random.choice((0.1, 0.1, 0.1, 0.3, 1.0))

    def rate(maximum: float) -> float:
        return 0.0 if random.random() < 0.4 else random.uniform(0.0, maximum) * strength

    def faults(maximum: float) -> CallFaults:
        return CallFaults(rate(maximum), rate(maximum), rate(maximum))

    def until(chance: float) -> float:
        longest = random.choice((60.0, 600.0, 7_200.0))
        return start + random.uniform(0, min(span + 60.0, longest)) if random.random() < chance else start

    max_skew, latest_effect = MAX_SKEW_SECONDS, LATEST_EFFECT_SECONDS
    if canary:
        max_skew, latest_effect = MAX_SKEW_SECONDS_V1, LATEST_EFFECT_SECONDS_V1
    return FaultProfile(
        crash=rate(0.4),
        slow_seconds=random.choice((0.1, 1.0, 4.0)),
        skew_seconds=random.choice((0.0, max_skew)),
        ledger=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        conflict=rate(0.1),
        bus=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        queue=faults(random.choice((0.1, 0.1, 0.3))),
        response_lost=rate(0.3),
        defect=rate(0.1),
        key_unavailable=rate(0.1),
        huawei=(("fine", *HUAWEI_FAULTS), (1.0, *(random.choice((0.0, 0.0, 0.05, 0.3)) for _ in HUAWEI_FAULTS))),
        latest_effect_seconds=random.choice((3.0, latest_effect)),
        key_refused_until=until(0.15),
        forbidden=frozenset(random.sample(services, random.randint(0, len(services)))),
        forbidden_until=until(0.3),
        outage=random.choice((("unreachable",), IN_DOUBT, IN_DOUBT, UNAVAILABLE)),
        outage_until=until(0.5),
    )


class _Plan:
    """The events of one run."""

    def __init__(
        self, random: Random, services: list[str], month: int, *, only_refusals: bool, first_version: bool
    ) -> None:
        """
        Args:
            services: their ids.
            first_version: sends nothing that the first version of the function handles differently.
        """
        self._random = random
        self._month = month
        self._services = services
        self._few_names = random.random() < 0.5
        self._times_per_second = random.choice((1_000.0, 1.0, 0.05))
        self._delays = random.choice(((0.0,), (0.0, 5.0), (0.0, 60.0, 1_800.0)))
        self._http = 0.8 if month else random.choice((0.0, 0.3, 0.7))
        self._rates = {case: random.choice((0.0, rate)) for case, rate in _SPECIAL_CASES.items()}
        if first_version:
            self._rates |= {"nanoseconds": 0.0, "upper_case": 0.0}
        self._sent: list[tuple[dict[str, Any], dict[str, str]]] = []
        if only_refusals:
            self._rates["refused"] = 1.0

    def delay(self) -> float:
        return self._random.random() * self._random.choice(self._delays)

    def event(self, decided: float) -> list[_Submission]:
        """One event: its submissions."""
        random = self._random
        if self._sent and self._draw("reused"):
            data, attributes = random.choice(self._sent)
            other = {"endpoint_service_name": "other"}, {"vpc_endpoint_service_id": self._service()}
            data = data | random.choice(other)
        else:
            data, attributes = self._new(decided)
            self._sent.append((data, attributes))
        return [self._submission(data, attributes) for _ in range(1 + self._draw("twice") + self._draw("thrice"))]

    def _new(self, decided: float) -> tuple[dict[str, Any], dict[str, str]]:
        random, number = self._random, len(self._sent)
        name = REFUSED_NAME if self._draw("refused") else self.name()
        if self._draw("too_long"):
            name = f"longer-than-it-was-{number}"[:20]
        data: dict[str, Any] = {"vpc_endpoint_service_id": self._service(), "endpoint_service_name": name}
        if self._draw("precondition"):
            data["expected_name"] = random.choice(("old", "orders", f"name-{number - 1}"))
        if self._draw("project"):
            data["project_id"] = random.choice((PROJECT, OTHER_PROJECT, "another"))
        if self._draw("invalid"):
            data["endpoint_service_name"] = "has a space"
        if self._draw("in_the_future"):
            decided += random.uniform(240, 420)
        time = _rfc3339(int(decided * self._times_per_second) / self._times_per_second)
        if self._draw("nanoseconds"):
            time = time.replace("Z", random.choice(("456001Z", "456789Z", "45678Z", "456Z")))
        return data, {"id": f"id-{self._month}-{number}", "source": "/cmdb", "time": time}

    def name(self) -> str:
        """A valid name for a service."""
        if self._few_names:
            return self._random.choice(("orders", "billing", "old", ""))
        return f"name-{len(self._sent)}"

    def _submission(self, data: dict[str, Any], attributes: dict[str, str]) -> _Submission:
        random = self._random
        structured, over_http = random.random() < 0.5, random.random() < self._http
        if self._draw("no_id"):
            attributes, structured = {}, False
        elif self._draw("no_time"):
            attributes, structured = {"id": attributes["id"]}, False
        event = {"specversion": "1.0", "type": RENAME_REQUESTED, **attributes, "data": data}
        group = data["vpc_endpoint_service_id"] if random.random() < 0.7 else random.choice("ab")
        body = json.dumps(event if structured else data)
        if self._draw("not_json"):
            body = "{" + body
        return _Submission({} if structured else attributes, body, structured, over_http, self._draw("async"), group)

    def _service(self) -> str:
        id_ = "service-0" if self._draw("unknown") else self._random.choice(self._services)
        return id_.upper() if self._draw("upper_case") else id_

    def _draw(self, case: str) -> bool:
        return self._random.random() < self._rates[case]


_SPECIAL_CASES: Final = {
    "in_the_future": 0.05,
    "async": 0.2,
    "upper_case": 0.3,
    "nanoseconds": 0.9,
    "invalid": 0.05,
    "not_json": 0.03,
    "too_long": 0.1,
    "no_id": 0.2,
    "precondition": 0.2,
    "project": 0.1,
    "refused": 0.1,
    "reused": 0.1,
    "thrice": 0.2,
    "no_time": 0.3,
    "twice": 0.3,
    "unknown": 0.05,
}
