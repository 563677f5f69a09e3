"""One run: a seed decides on the weather, on what is sent, and on every turn; the promises are watched throughout.

A run sends some dozens of rename events through both triggers, in every mode, some twice, late, with other content
under the same name, by clocks that differ. The real parser, decision, ledger and triggers deal with them against the
clouds in memory. Dead letters are redriven in the middle of it. When nothing is due any more the weather turns calm,
senders who were asked to send again do so, all dead letters are redriven, perhaps after days; then all must be settled.

Within one invocation the message groups of a batch are taken one after the other: threads would not be repeatable.
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
from function.domain.model import RENAME_REQUESTED, rfc3339
from function.triggers.http import BINARY, PATH, STRUCTURED
from tests.faults.clouds import (
    IN_DOUBT,
    LATEST_EFFECT_SECONDS,
    MAX_SKEW_SECONDS,
    OTHER_PROJECT,
    PROJECT,
    REFUSED_NAME,
    REGION,
    TROUBLES,
    UNAVAILABLE,
    Clouds,
    HandOver,
    LedgerClient,
    Message,
    Queue,
    Rest,
    sqs_record,
)
from tests.faults.dynamodb import Table
from tests.faults.environments import SOUND, Build, Fleet, Version, powertools_in
from tests.faults.ledger_v1 import LATEST_EFFECT_SECONDS_V1, MOST_SKEW_SECONDS_V1
from tests.faults.promises import CloudEvent, Event, Promises, Service
from tests.faults.world import BrokenPromise, Faults, Invocation, Weather, World

# As template.yml has them, and app.py.
QUEUE_TIMEOUT_SECONDS: Final = 60.0
HTTP_TIMEOUT_SECONDS: Final = 25.0
REPORT_MARGIN_SECONDS: Final = 4.0
POLLERS: Final = 5

ARN: Final = "arn:aws:sqs:eu-west-1:123456789012:"
API: Final = "api"
DAY: Final = 86_400.0
DEAD_LETTER_RETENTION_SECONDS: Final = 14 * DAY


class Result(NamedTuple):
    """How a run ended."""

    seed: int
    events: int
    steps: int
    broken: BrokenPromise | None
    trace: list[str]


def run(seed: int, build: Build = SOUND, *, tracing: bool = False) -> Result:
    """One run from its start to calm weather, or to the first broken promise."""
    simulation = _Simulation(seed, build, tracing=tracing)
    world = simulation.world
    with powertools_in(world):
        simulation.run()
    return Result(seed, len(simulation.promises.events), world.steps, world.broken, world.trace)


@dataclass(frozen=True)
class _Sending:
    """Something that a producer sends, as often as it likes.

    Attributes:
        attributes: of CloudEvents, as far as the producer gives them.
        body: the event in structured mode, its data in binary mode, or whatever.
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

    def request(self, stand_ins: dict[str, str]) -> CloudEvent | str:
        """What the function takes it for."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return self.body
        if self.structured:
            return cast("CloudEvent", content)
        defaults = {"specversion": "1.0", "type": RENAME_REQUESTED} | stand_ins
        return defaults | self.attributes | {"data": content}


class _Simulation:
    def __init__(self, seed: int, build: Build, *, tracing: bool) -> None:
        self.world = world = World(seed, tracing=tracing)
        random = world.random
        ids = [f"service-{number}" for number in range(1, random.randint(2, 4))]
        services = {(project, id_): Service(id_, "old") for project in (PROJECT, OTHER_PROJECT) for id_ in ids}
        self._services = list(services.values())
        self.promises = Promises(world, services)
        max_receives = random.randint(3, 8)
        self._rest = Queue(world, f"{ARN}dead-letters.fifo")
        self._off = Queue(world, f"{ARN}see-off.fifo", pollers=2)
        self._queue = Queue(
            world, f"{ARN}rename.fifo", pollers=POLLERS, max_receives=max_receives, dead_letters=self._off
        )
        self._huawei = build.huawei(world, self.promises)
        table = Table(lambda expired: expired < world.now and world.chance(0.5))
        clouds = Clouds(
            world,
            self.promises,
            self._huawei,
            build.bus(world, self.promises),
            LedgerClient(world, table),
            self._queue,
            HandOver(world, self.promises, self._queue),
            Rest(world, self._off, self._rest),
        )
        self._fleet = Fleet(build, clouds, max_receives)
        self._unheard: list[_Sending] = []
        self._requests = 0
        self._queue.serve(partial(self._invoke, self._queue))
        self._off.serve(partial(self._invoke, self._off))

    # ---- The course of a run

    def run(self) -> None:
        months = 2 if self.world.chance(0.1) else 1
        try:
            for month in range(months):
                self.world.now += month * (RETENTION.total_seconds() + self.world.random.uniform(0, 2 * DAY))
                self._storm(month, only_refusals=month + 1 < months)
                if not self._comes_to_rest(in_calm=False) or not self._settles_in_calm():
                    return
        finally:
            self.world.close()

    def _storm(self, month: int, *, only_refusals: bool) -> None:
        """Events are sent, and things go wrong. A month of refusals leaves services that the ledger half forgets."""
        world, random, start = self.world, self.world.random, self.world.now
        span = 1.0 if month else random.choice((5.0, 60.0, 600.0, 7_200.0))
        canary = random.random() < 0.15
        ids = sorted({service.id for service in self._services})
        world.weather = _weather(random, start, span, ids, canary=canary)
        plan = _Plan(random, ids, month, only_refusals=only_refusals, first_version=canary)
        if canary:
            self._fleet.deploy(Version(), Version(is_first=True))
        else:
            self._change_settings(start, span)
            for _ in range(random.choice((0, 0, 0, 1, 5))):
                hand = partial(self.promises.is_named_by_hand, random.choice(self._services), plan.name())
                world.at(start + random.uniform(0, span + 600), hand)
        producers = [random.choice((0.0, random.uniform(-600, 280))) for _ in range(3)]
        end = start
        for _ in range(random.randint(10, 48)):
            time = start + random.uniform(0, span)
            for sending in plan.event(time + random.choice(producers)):
                time += plan.delay()
                world.at(time, partial(self._send, sending))
            end = max(end, time)
        for _ in range(random.choice((0, 0, 1, 3))):
            world.at(random.uniform(start, end + 7_200), self._redrive)
        world.at(end + 10_800, self._weather_turns_calm)

    def _change_settings(self, start: float, span: float) -> None:
        """The key is rotated, the secret comes to name another project, a setting changes for some environments."""
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

    def _comes_to_rest(self, *, in_calm: bool) -> bool:
        self.world.run()
        if not self.world.broken:
            self.promises.at_rest(in_calm=in_calm)
        return not self.world.broken

    def _settles_in_calm(self) -> bool:
        """A redrive after the other, for an event that waits for another one may be given up once more."""
        self._weather_turns_calm()
        if self.world.chance(0.3):
            self.world.now += self.world.random.uniform(0, DEAD_LETTER_RETENTION_SECONDS)
        for last in (False, False, False, True):
            unheard, self._unheard = self._unheard, []
            for sending in unheard:
                self._post(sending, tries=5)
            self._redrive()
            if not self._comes_to_rest(in_calm=last):
                return False
        return True

    def _weather_turns_calm(self) -> None:
        self.world.weather = Weather()
        self._fleet.deploy(replace(self._fleet.versions[-1], is_first=False))

    def _redrive(self) -> None:
        """As ``make redrive`` does. Where it breaks off, a message may be in both queues."""
        world, stay = self.world, []
        for message in self._rest.messages:
            if message.sent < world.now - DEAD_LETTER_RETENTION_SECONDS:
                world.note("%s has been forgotten", message.event.label)
                message.event.is_forgotten = True
                message.event.rests -= 1
                continue
            if not self._queue.is_duplicate(message.id):
                world.note("%s is redriven", message.event.label)
                message.event.lives += 1
                self._queue.add(replace(message, id=self._queue.new_id(), sent=world.now))
            if world.chance(world.weather.unheard):
                stay.append(message)
            else:
                message.event.rests -= 1
        self._rest.messages = stay

    # ---- Sending

    def _send(self, sending: _Sending) -> None:
        if sending.over_http:
            self._post(sending, tries=self.world.random.choice((1, 1, 2, 4)))
            return
        message_id = self._queue.new_id()

        def stamped(time: float) -> Event:
            stand_ins = {"id": message_id, "source": self._queue.arn, "time": _rfc3339(time)}
            return self.promises.sent(sending.request(stand_ins))

        event = stamped(self.world.now)
        event.lives += 1
        event.queued = True
        attributes = {
            f"ce_{name}": {"stringValue": value, "dataType": "String"} for name, value in sending.attributes.items()
        }
        self.world.note("%s is sent to the queue: %s", event.label, sending)
        self._queue.add(Message(message_id, sending.body, attributes, sending.group, self.world.now, event, stamped))

    def _post(self, sending: _Sending, *, tries: int) -> None:
        world = self.world
        self._requests += 1
        request_id = f"request-{self._requests}"
        stand_ins = {"id": request_id, "source": API, "time": _rfc3339(world.now)}
        event = self.promises.sent(sending.request(stand_ins))
        event.lives += 1
        event.is_nameless = not sending.structured and "id" not in sending.attributes
        world.note("%s is sent by HTTP: %s", event.label, sending)
        headers = {"content-type": STRUCTURED if sending.structured else BINARY}
        for name, value in sending.attributes.items():
            headers["idempotency-key" if name == "id" else f"ce-{name}"] = value
        if sending.prefers_async:
            headers["prefer"] = "respond-async"
        proxy_event = {
            "httpMethod": "POST",
            "path": PATH,
            "resource": PATH,
            "headers": headers,
            "body": sending.body,
            "isBase64Encoded": False,
            "requestContext": {"requestId": request_id, "apiId": API, "requestTimeEpoch": int(world.now * 1000)},
        }
        self._dry_run(proxy_event)
        environment = self._fleet.take(API)

        def answered(answer: dict[str, Any] | None) -> None:
            if answer is not None:
                self._fleet.give_back(API, environment)
            again = answer is None or self.promises.answered(event, answer["statusCode"], answer["body"])
            again = again or world.chance(world.weather.unheard)
            if again and tries > 1:
                world.after(world.random.expovariate(1 / 20), partial(self._post, sending, tries=tries - 1))
            elif again:
                self._unheard.append(sending)

        def handle(invocation: Invocation) -> dict[str, Any]:
            return environment.function.http.handle(proxy_event, _begin(invocation))

        Invocation(world, request_id, environment, HTTP_TIMEOUT_SECONDS, handle, answered)

    def _dry_run(self, proxy_event: dict[str, Any]) -> None:
        """Perhaps, and while others are at the same event."""
        if not self.world.chance(0.2):
            return
        environment = self._fleet.take(API)

        def answered(answer: dict[str, Any] | None) -> None:
            if answer is not None:
                self._fleet.give_back(API, environment)

        def handle(invocation: Invocation) -> dict[str, Any]:
            invocation.is_dry_run = True
            query = {"queryStringParameters": {"dry_run": "true"}}
            return environment.function.http.handle(proxy_event | query, _begin(invocation))

        Invocation(self.world, "dry run", environment, HTTP_TIMEOUT_SECONDS, handle, answered)

    def _invoke(self, queue: Queue, messages: list[Message], finish: Callable[[set[str]], None]) -> None:
        records = [sqs_record(message, queue.arn) for message in messages]
        self._requests += 1
        name = f"{'queue' if queue is self._queue else 'dead'}-{self._requests}"
        labels = ", ".join(f"{message.event.label} ({message.receives})" for message in messages)
        self.world.note("%s gets %s", name, labels)
        environment = self._fleet.take(queue.arn)

        def ended(answer: dict[str, Any] | None) -> None:
            if answer is None:
                finish(set())
                return
            self._fleet.give_back(queue.arn, environment)
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            if queue is self._queue:
                batch = [(message.event, message.group, message.id in failed) for message in messages]
                self.promises.batch_ended(batch)
            for message in messages:
                if message.id not in failed:
                    self.promises.acknowledged(message.event, is_dead_letter=queue is self._off)
            finish({message.id for message in messages} - failed)

        def handle(invocation: Invocation) -> dict[str, Any]:
            function = environment.function
            trigger = function.sqs if queue is self._queue else function.dead_letters
            return trigger.handle({"Records": records}, _begin(invocation))

        invocation = Invocation(self.world, name, environment, QUEUE_TIMEOUT_SECONDS, handle, ended)
        invocation.groups = {message.id: message.group for message in messages}


def _begin(invocation: Invocation) -> Deadline:
    """What the handler does before it hands the event to its trigger."""
    ends_at = invocation.clock() + invocation.deadline - invocation.world.now
    deadline = Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at, invocation.clock)
    environment = invocation.environment
    if environment.is_cold:
        environment.is_cold = False
        environment.services.check_state(REGION, deadline)
    return deadline


def _rfc3339(time: float) -> str:
    return rfc3339(datetime.fromtimestamp(int(time * 1000) / 1000, UTC))


def _weather(random: Random, start: float, span: float, services: list[str], *, canary: bool) -> Weather:
    """Each fault is absent from many runs, so that none hides another; and in most runs faults are few.

    Args:
        canary: the first version, with its smaller bounds, serves a part of the traffic.
    """
    strength = random.choice((0.1, 0.1, 0.1, 0.3, 1.0))

    def rate(most: float) -> float:
        return 0.0 if random.random() < 0.4 else random.uniform(0.0, most) * strength

    def faults(most: float) -> Faults:
        return Faults(rate(most), rate(most), rate(most))

    def until(chance: float) -> float:
        longest = random.choice((60.0, 600.0, 7_200.0))
        return start + random.uniform(0, min(span + 60.0, longest)) if random.random() < chance else start

    most_skew, latest_effect = MAX_SKEW_SECONDS, LATEST_EFFECT_SECONDS
    if canary:
        most_skew, latest_effect = MOST_SKEW_SECONDS_V1, LATEST_EFFECT_SECONDS_V1
    return Weather(
        crash=rate(0.4),
        slow_seconds=random.choice((0.1, 1.0, 4.0)),
        skew_seconds=random.choice((0.0, most_skew)),
        ledger=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        conflict=rate(0.1),
        bus=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        queue=faults(random.choice((0.1, 0.1, 0.3))),
        unheard=rate(0.3),
        defect=rate(0.1),
        keyless=rate(0.1),
        huawei=(("fine", *TROUBLES), (1.0, *(random.choice((0.0, 0.0, 0.05, 0.3)) for _ in TROUBLES))),
        latest_effect_seconds=random.choice((3.0, latest_effect)),
        refuses_until=until(0.15),
        forbidden=frozenset(random.sample(services, random.randint(0, len(services)))),
        forbidden_until=until(0.3),
        outage=random.choice((("unreachable",), IN_DOUBT, IN_DOUBT, UNAVAILABLE)),
        outage_until=until(0.5),
    )


class _Plan:
    """What producers send in one run."""

    def __init__(
        self, random: Random, services: list[str], month: int, *, only_refusals: bool, first_version: bool
    ) -> None:
        """
        Args:
            services: their ids.
            first_version: sends nothing that the first version of the function takes for something else.
        """
        self._random = random
        self._month = month
        self._services = services
        self._few_names = random.random() < 0.5
        self._times_per_second = random.choice((1_000.0, 1.0, 0.05))
        self._delays = random.choice(((0.0,), (0.0, 5.0), (0.0, 60.0, 1_800.0)))
        self._http = 0.8 if month else random.choice((0.0, 0.3, 0.7))
        self._odd = {kind: random.choice((0.0, most)) for kind, most in _ODDITIES.items()}
        if first_version:
            self._odd |= {"finer": 0.0, "capitals": 0.0}
        self._sent: list[tuple[dict[str, Any], dict[str, str]]] = []
        if only_refusals:
            self._odd["refused"] = 1.0

    def delay(self) -> float:
        return self._random.random() * self._random.choice(self._delays)

    def event(self, decided: float) -> list[_Sending]:
        """One event, as often as it is sent."""
        random = self._random
        if self._sent and self._is("reused"):
            data, attributes = random.choice(self._sent)
            other = {"endpoint_service_name": "other"}, {"vpc_endpoint_service_id": self._service()}
            data = data | random.choice(other)
        else:
            data, attributes = self._new(decided)
            self._sent.append((data, attributes))
        return [self._sending(data, attributes) for _ in range(1 + self._is("twice") + self._is("thrice"))]

    def _new(self, decided: float) -> tuple[dict[str, Any], dict[str, str]]:
        random, number = self._random, len(self._sent)
        name = REFUSED_NAME if self._is("refused") else self.name()
        if self._is("long"):
            name = f"longer-than-it-was-{number}"[:20]
        data: dict[str, Any] = {"vpc_endpoint_service_id": self._service(), "endpoint_service_name": name}
        if self._is("precondition"):
            data["expected_name"] = random.choice(("old", "orders", f"name-{number - 1}"))
        if self._is("project"):
            data["project_id"] = random.choice((PROJECT, OTHER_PROJECT, "another"))
        if self._is("invalid"):
            data["endpoint_service_name"] = "has a space"
        if self._is("ahead"):
            decided += random.uniform(240, 420)
        time = _rfc3339(int(decided * self._times_per_second) / self._times_per_second)
        if self._is("finer"):
            time = time.replace("Z", random.choice(("456001Z", "456789Z", "45678Z", "456Z")))
        return data, {"id": f"id-{self._month}-{number}", "source": "/cmdb", "time": time}

    def name(self) -> str:
        """One that a service may be given."""
        if self._few_names:
            return self._random.choice(("orders", "billing", "old", ""))
        return f"name-{len(self._sent)}"

    def _sending(self, data: dict[str, Any], attributes: dict[str, str]) -> _Sending:
        random = self._random
        structured, over_http = random.random() < 0.5, random.random() < self._http
        if self._is("nameless"):
            attributes, structured = {}, False
        elif self._is("timeless"):
            attributes, structured = {"id": attributes["id"]}, False
        event = {"specversion": "1.0", "type": RENAME_REQUESTED, **attributes, "data": data}
        group = data["vpc_endpoint_service_id"] if random.random() < 0.7 else random.choice("ab")
        body = json.dumps(event if structured else data)
        if self._is("junk"):
            body = "{" + body
        return _Sending({} if structured else attributes, body, structured, over_http, self._is("async"), group)

    def _service(self) -> str:
        id_ = "service-0" if self._is("unknown") else self._random.choice(self._services)
        return id_.upper() if self._is("capitals") else id_

    def _is(self, oddity: str) -> bool:
        return self._random.random() < self._odd[oddity]


_ODDITIES: Final = {
    "ahead": 0.05,
    "async": 0.2,
    "capitals": 0.3,
    "finer": 0.9,
    "invalid": 0.05,
    "junk": 0.03,
    "long": 0.1,
    "nameless": 0.2,
    "precondition": 0.2,
    "project": 0.1,
    "refused": 0.1,
    "reused": 0.1,
    "thrice": 0.2,
    "timeless": 0.3,
    "twice": 0.3,
    "unknown": 0.05,
}
