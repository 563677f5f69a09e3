"""One run: a seed decides on the weather, on what is sent, and on every turn; the promises are watched throughout.

A run sends some dozens of rename events through both triggers, in every mode, some twice, late, with other content
under the same name, by clocks that differ. The real parser, decision, ledger and triggers deal with them against the
clouds in memory. Dead letters are redriven in the middle of it. When nothing is due any more the weather turns calm,
senders who were asked to send again do so, all dead letters are redriven, perhaps after days; then all must be settled.

Within one invocation the message groups of a batch are taken one after the other: threads would not be repeatable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, ClassVar, Final, NamedTuple, cast

from function.deadline import Deadline
from function.events import RENAME_REQUESTED, Attributes, InvalidEvent, Parser, RenameEvent, rfc3339
from function.failures import RenameFailedError
from function.ledger import RETENTION, DynamoDbLedger
from function.rename import Claim, Known, Renamer, Reused, Superseded
from function.telemetry import Telemetry
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import BINARY, PATH, STRUCTURED, HttpTrigger
from function.triggers.sqs import SqsTrigger
from function.workers import Workers
from tests.faults.clouds import (
    PROJECT,
    REFUSED_NAME,
    REGION,
    TROUBLES,
    Bus,
    HandOver,
    Huawei,
    LedgerClient,
    Message,
    Queue,
    Rest,
    running,
    sqs_record,
)
from tests.faults.dynamodb import Table
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


@dataclass(frozen=True)
class Build:
    """What the function is made of."""

    parser: type[Parser] = Parser
    renamer: type[Renamer] = Renamer
    ledger: type[DynamoDbLedger] = DynamoDbLedger
    sqs: type[SqsTrigger] = SqsTrigger
    http: type[HttpTrigger] = HttpTrigger
    dead_letters: type[DeadLetterTrigger] = DeadLetterTrigger
    bus: type[Bus] = Bus


class Result(NamedTuple):
    """How a run ended."""

    seed: int
    events: int
    steps: int
    broken: BrokenPromise | None
    trace: list[str]


def run(seed: int, build: Build = Build(), *, tracing: bool = False) -> Result:
    """One run from its start to calm weather, or to the first broken promise."""
    simulation = _Simulation(seed, build, tracing=tracing)
    simulation.run()
    world = simulation.world
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
        self._services = [Service(f"service-{number}", "old") for number in range(1, random.randint(2, 4))]
        self.promises = Promises(world, self._services)
        max_receives = random.randint(3, 8)
        self._rest = Queue(world, f"{ARN}dead-letters.fifo")
        self._off = Queue(world, f"{ARN}see-off.fifo", pollers=2)
        self._queue = Queue(
            world, f"{ARN}rename.fifo", pollers=POLLERS, max_receives=max_receives, dead_letters=self._off
        )
        self._unheard: list[_Sending] = []
        self._requests = 0
        self._build_function(build, max_receives, read_previous_name=random.random() < 0.2)
        self._queue.serve(lambda messages, done: self._invoke(self._queue, self._sqs, messages, done))
        self._off.serve(lambda messages, done: self._invoke(self._off, self._dead_letters, messages, done))

    def _build_function(self, build: Build, max_receives: int, *, read_previous_name: bool) -> None:
        world = self.world

        def clock() -> float:
            return running(world).clock()

        def now() -> datetime:
            return datetime.fromtimestamp(clock(), UTC)

        def wait(_: float) -> None:
            """Not by the ledger's own dice, for a run depends on its seed alone."""
            running(world).pause(world.random.uniform(0, 0.1))

        table = Table(lambda expired: expired < world.now and world.chance(0.5))
        client = cast("Any", LedgerClient(world, table))
        ledger: Any = build.ledger(client, "ledger", now=clock, sleep=wait)
        if world.tracing:
            ledger = _Traced(ledger, world)
        huawei = Huawei(world, self.promises)
        parser = build.parser(
            name_max_length=16,
            is_allowed_project=huawei.allows_project,
            is_allowed_region=REGION.__eq__,
            now=now,
        )
        renamer = build.renamer(
            huawei,
            ledger,
            build.bus(world, self.promises),
            region=REGION,
            read_previous_name=read_previous_name,
            now=now,
            sleep=lambda seconds: running(world).pause(seconds),
            uniform=world.random.uniform,
        )
        common = (cast("Parser", _ObservedParser(parser, world)), renamer, cast("Telemetry", _SilentTelemetry()))
        workers = cast("Workers", _InTurn())
        self._sqs = build.sqs(*common, self._queue, workers, max_receives=max_receives, uniform=world.random.uniform)
        self._dead_letters = build.dead_letters(*common, Rest(world, self._off, self._rest), workers)
        self._http = build.http(*common, HandOver(world, self.promises, self._queue), workers)

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
        world.weather = _weather(random, start)
        span = 1.0 if month else random.choice((5.0, 60.0, 600.0, 7_200.0))
        producers = [random.choice((0.0, random.uniform(-120, 120))) for _ in range(3)]
        plan = _Plan(random, self._services, month, only_refusals=only_refusals)
        end = start
        for _ in range(random.randint(10, 40)):
            time = start + random.uniform(0, span)
            for sending in plan.event(time + random.choice(producers)):
                time += plan.delay()
                world.at(time, partial(self._send, sending))
            end = max(end, time)
        for _ in range(random.choice((0, 0, 1, 3))):
            world.at(random.uniform(start, end + 7_200), self._redrive)
        world.at(end + 10_800, self._weather_turns_calm)

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

        def answered(answer: dict[str, Any] | None) -> None:
            again = answer is None or self.promises.answered(event, answer["statusCode"], answer["body"])
            again = again or world.chance(world.weather.unheard)
            if again and tries > 1:
                world.after(world.random.expovariate(1 / 20), partial(self._post, sending, tries=tries - 1))
            elif again:
                self._unheard.append(sending)

        def handle(invocation: Invocation) -> dict[str, Any]:
            return self._http.handle(proxy_event, _deadline(invocation))

        Invocation(world, request_id, HTTP_TIMEOUT_SECONDS, handle, answered)

    def _invoke(
        self,
        queue: Queue,
        trigger: SqsTrigger | DeadLetterTrigger,
        messages: list[Message],
        finish: Callable[[set[str]], None],
    ) -> None:
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
            for message in messages:
                if message.id not in failed:
                    self.promises.acknowledged(message.event, is_dead_letter=queue is self._off)
            finish({message.id for message in messages} - failed)

        def handle(invocation: Invocation) -> dict[str, Any]:
            return trigger.handle({"Records": records}, _deadline(invocation))

        Invocation(self.world, name, QUEUE_TIMEOUT_SECONDS, handle, ended)


def _deadline(invocation: Invocation) -> Deadline:
    ends_at = invocation.clock() + invocation.deadline - invocation.world.now
    return Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at, invocation.clock)


def _rfc3339(time: float) -> str:
    return rfc3339(datetime.fromtimestamp(int(time * 1000) / 1000, UTC))


def _weather(random: Random, start: float) -> Weather:
    """Each fault is absent from many runs, so that none hides another; and in most runs faults are few."""
    strength = random.choice((0.1, 0.1, 0.1, 0.3, 1.0))

    def rate(most: float) -> float:
        return 0.0 if random.random() < 0.4 else random.uniform(0.0, most) * strength

    def faults(most: float) -> Faults:
        return Faults(rate(most), rate(most), rate(most))

    return Weather(
        crash=rate(0.4),
        slow_seconds=random.choice((0.1, 1.0, 4.0)),
        skew_seconds=random.choice((0.0, 2.0)),
        ledger=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        conflict=rate(0.1),
        bus=faults(random.choice((0.1, 0.1, 0.1, 0.3))),
        queue=faults(random.choice((0.1, 0.1, 0.3))),
        unheard=rate(0.3),
        keyless=rate(0.1),
        huawei=(("fine", *TROUBLES), (1.0, *(random.choice((0.0, 0.05, 0.3)) for _ in TROUBLES))),
        refuses_until=start + random.choice((0.0,) * 8 + (600.0, 7_200.0)),
        outage_until=start + random.choice((0.0,) * 8 + (600.0, 7_200.0)),
    )


class _Plan:
    """What producers send in one run."""

    def __init__(self, random: Random, services: list[Service], month: int, *, only_refusals: bool) -> None:
        self._random = random
        self._month = month
        self._services = services
        self._few_names = random.random() < 0.5
        self._times_per_second = random.choice((1_000.0, 1.0, 0.05))
        self._delays = random.choice(((0.0,), (0.0, 5.0), (0.0, 60.0, 1_800.0)))
        self._http = 0.8 if month else random.choice((0.0, 0.3, 0.7))
        self._odd = {kind: random.choice((0.0, most)) for kind, most in _ODDITIES.items()}
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
        name = random.choice(("orders", "billing", "old", "")) if self._few_names else f"name-{number}"
        if self._is("refused"):
            name = REFUSED_NAME
        data: dict[str, Any] = {"vpc_endpoint_service_id": self._service(), "endpoint_service_name": name}
        if self._is("precondition"):
            data["expected_name"] = random.choice(("old", "orders", f"name-{number - 1}"))
        if self._is("project"):
            data["project_id"] = random.choice((PROJECT, "another"))
        if self._is("invalid"):
            data["endpoint_service_name"] = "has a space"
        if self._is("ahead"):
            decided += random.uniform(240, 420)
        time = int(decided * self._times_per_second) / self._times_per_second
        return data, {"id": f"id-{self._month}-{number}", "source": "/cmdb", "time": _rfc3339(time)}

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
        return "service-0" if self._is("unknown") else self._random.choice(self._services).id

    def _is(self, oddity: str) -> bool:
        return self._random.random() < self._odd[oddity]


_ODDITIES: Final = {
    "ahead": 0.05,
    "async": 0.2,
    "invalid": 0.05,
    "junk": 0.03,
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


# ---- What observes the function


class _ObservedParser:
    """The parser. Tells what each invocation is at."""

    def __init__(self, parser: Parser, world: World) -> None:
        self._parser = parser
        self._world = world
        parser._validator = _QuickValidator(parser._validator)  # type: ignore[assignment]

    def parse(
        self, text: str, attributes: Attributes, deadline: Deadline, **options: Any
    ) -> RenameEvent | InvalidEvent:
        event = self._parser.parse(text, attributes, deadline, **options)
        running(self._world).event = event
        return event


class _QuickValidator:
    """The schema's validator, which would take a third of the time: it remembers its verdicts in all runs.

    By the attributes that are there and by the data, for a plan puts nothing invalid into an attribute.
    """

    _verdicts: ClassVar[dict[object, list[Any]]] = {}

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def iter_errors(self, event: CloudEvent) -> list[Any]:
        key = (*event, *event["data"].items())
        if key not in self._verdicts:
            self._verdicts[key] = list(self._validator.iter_errors(event))
        return self._verdicts[key]


class _InTurn:
    """Workers that are one: threads would not be repeatable."""

    def run(self, tasks: Sequence[Callable[[], object]], deadline: Deadline) -> None:
        for task in tasks:
            task()


class _SilentTelemetry:
    def handled(self, *_: object, **__: object) -> None:
        """Nobody listens."""


class _Traced:
    """The ledger, with each of its answers in the trace."""

    def __init__(self, ledger: DynamoDbLedger, world: World) -> None:
        self._ledger = ledger
        self._world = world

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def traced(*args: Any, **kwargs: Any) -> Any:
            answer: object = "never heard"
            try:
                answer = getattr(self._ledger, method)(*args, **kwargs)
            except RenameFailedError as error:
                answer = error.failure.code
                raise
            finally:
                self._world.note("ledger, %s: %s", method, _brief(answer))
            return answer

        return traced


def _brief(answer: object) -> str:
    match answer:
        case None:
            return "done"
        case Claim(_, round_):
            return f"granted, round {round_.number}"
        case Known(outcome, next_round):
            return f"known, {outcome.failure.code if outcome.failure else 'renamed'}, {next_round or 'settled'}"
        case Superseded(by=by):
            return f"superseded by {by.id} of {by.source}"
        case _:
            return type(answer).__name__ if isinstance(answer, Reused) else str(answer)
