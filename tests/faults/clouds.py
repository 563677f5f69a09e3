"""Huawei Cloud and AWS in memory, as far as the function uses them, with their faults.

Assumptions about the real clouds:

* A rename takes effect at most ``LATEST_EFFECT_SECONDS`` after the time-out of the invocation that called it: Lambda
  has ended that invocation and its connections, and a gateway forwards a request at once or not at all. Against a
  rename that takes effect minutes later no claim helps, only a fencing token, which VPCEP does not have.
* The clocks of two environments are at most ``MAX_SKEW_SECONDS`` apart. A claim outlasts its invocation by the sum of
  both bounds: ``function.adapters.aws.dynamodb_ledger.CLAIM_SLACK_SECONDS``.
* An error reply with a code of VPCEP's own, other than ``EndPoint.0013``, is final: the rename has taken effect before,
  or never will. After any other 5xx it may still take effect, unless the gateway says that it reached no backend.
* A permanent error, as for a refused name or for an endpoint service that does not exist, recurs at each call. Only a
  conflict with the service's state (``EndPoint.3045``) and the permissions of a key change.
* Ids of endpoint services are case-insensitive.
* A read returns the last rename that took effect.
* Queues are FIFO, lose nothing, and make a message visible again after its visibility time-out, never while the
  invocation that received it may still run: AWS refuses a time-out below the function's. The redrive policy keeps a
  message's id and gives it a new timestamp; a redrive gives it both anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, NamedTuple, cast

from botocore.exceptions import ClientError, ReadTimeoutError

from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import Outcome, RenameEvent, Target
from function.domain.ports import ReadPurpose, Reply
from function.domain.strict_json import to_json
from tests.fakes import events
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT, REGION
from tests.faults.dynamodb import Table, conflict
from tests.faults.invariants import Event, Invariants, Rename, Service
from tests.faults.world import Invocation, World

LATEST_EFFECT_SECONDS: Final = 50.0
MAX_SKEW_SECONDS: Final = 10.0
VISIBILITY_SECONDS: Final = 360.0
DEDUPLICATION_SECONDS: Final = 300.0
SECRET_SECONDS: Final = 300.0
REFUSAL_SECONDS: Final = 60.0
MAX_BATCH: Final = 10
REFUSED_NAME: Final = "refused"
ERRORS: Final = {
    "gateway_timeout": (None, 504),
    "bad_gateway": (None, 502),
    "error": (None, 500),
    "busy": (None, 503),
    "backend_timeout": ("EndPoint.0013", 500),
    "backend_error": ("EndPoint.0001", 500),
    "no_backend": ("APIGW.0610", 500),
    "state": ("EndPoint.3045", 400),
    "wrong_key": ("APIGW.0301", 401),
    "wrong_project": ("APIGW.0303", 401),
    "forbidden": ("EndPoint.0003", 403),
    "refused": ("EndPoint.0002", 400),
    "unknown": ("EndPoint.2003", 404),
}
IN_DOUBT: Final = ("silent", "broken", "gateway_timeout", "bad_gateway", "error", "busy", "backend_timeout")
UNAVAILABLE: Final = (*IN_DOUBT, "unreachable", "backend_error", "no_backend")
HUAWEI_FAULTS: Final = (*UNAVAILABLE, "garbled", "throttled", "state", "waited")


@dataclass
class SimulatedClouds:
    """Every service that the function calls."""

    world: World
    invariants: Invariants
    huawei: Huawei
    bus: Bus
    ledger: LedgerClient
    queue: Queue
    hand_over: HandOver
    dead_letter_queue: DeadLetterQueue


class _CallFailedError(Exception):
    """A call of SQS has failed."""


# ---- Huawei Cloud


class Secret(NamedTuple):
    """The key for Huawei Cloud, and the project of events that name none.

    Attributes:
        key: the number of the key.
    """

    key: int
    project: str


@dataclass
class Account:
    """Changes of the secret and of Huawei Cloud's keys. The end of the faults does not undo them.

    Attributes:
        rotated_at: from then on the secret has the second key.
        revoked_at: from then on Huawei Cloud refuses the first one.
        moved_at: from then on the secret names the other project.
    """

    rotated_at: float = math.inf
    revoked_at: float = math.inf
    moved_at: float = math.inf

    def secret(self, now: float) -> Secret:
        return Secret(int(now >= self.rotated_at), OTHER_PROJECT if now >= self.moved_at else PROJECT)

    def accepts(self, key: int, now: float) -> bool:
        return key == 1 or now < self.revoked_at


@dataclass(eq=False)
class Huawei:
    """The endpoint services, and the provider of the key for them.

    The behaviour of each call is drawn by the weights of the fault profile: ``fine``; ``garbled``, renamed but
    unconfirmed; one of ``IN_DOUBT``, where the rename takes effect before the response, after it, or never;
    ``unreachable``; ``backend_error``, possibly after the effect; ``no_backend``; ``throttled``, some with a window;
    ``state``, a conflict with the service's state; ``waited``, not sent, since another call blocked it until its
    deadline.
    """

    world: World
    invariants: Invariants
    account: Account = field(default_factory=Account)

    def default_project(self, deadline: Deadline) -> str:
        return self._secret().project

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        world, invocation, seconds = self.world, running(self.world), deadline.remaining()
        expect_no_dry_run(world, "renames")
        event = cast("RenameEvent", invocation.event)
        service = self.invariants.service(target.project_id, target.vpc_endpoint_service_id)
        behaviour = self._draw(target, service, name)
        rename = self.invariants.rename_called(service, event.cloud_event, invocation)
        world.note("rename of %s to %r: %s", service.id, name, behaviour)
        can_happen = service.exists and name != REFUSED_NAME
        late = can_happen and behaviour in IN_DOUBT and world.chance(0.5)
        maybe = behaviour in (*IN_DOUBT, "backend_error") and world.chance(0.5)
        happens = can_happen and (behaviour in ("fine", "garbled") or maybe)
        pending = False

        def apply_late() -> None:
            nonlocal pending
            pending = True
            world.at(self._late_effect_time(invocation), lambda: self._apply(rename))

        latency = min(world.latency(), seconds / 2)
        try:
            invocation.pause(latency, sent=apply_late if late or happens else None)
            if late:
                apply_late()
            elif happens:
                self._apply(rename)
            self._wait_for_response(behaviour, seconds - latency)
        finally:
            if not pending and rename in service.in_flight:
                service.in_flight.remove(rename)
        return self._response(behaviour, name, service)

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        world, invocation, seconds = self.world, running(self.world), deadline.remaining()
        event = cast("RenameEvent", invocation.event)
        service = self.invariants.service(target.project_id, target.vpc_endpoint_service_id)
        behaviour = self._draw(target, service, "", purpose)
        if not invocation.is_dry_run:
            self.invariants.call_made(service, event.cloud_event)
        latency = min(world.latency(), seconds / 2)
        invocation.pause(latency)
        name = service.name
        self._wait_for_response(behaviour, seconds - latency)
        world.note("read of %s: %s", service.id, repr(name) if behaviour == "fine" else behaviour)
        return self._response(
            "fine" if behaviour == "state" else behaviour, name, service, counts=purpose is not ReadPurpose.OUTCOME
        )

    def is_refused(self, event: RenameEvent) -> bool:
        """Whether this environment has received a refusal that covers the event."""
        refused = running(self.world).environment.refused_until
        service = event.vpc_endpoint_service_id.lower()
        projects = (event.project_id,) if event.project_id else (PROJECT, OTHER_PROJECT)
        return None in refused or any(project in refused or (project, service) in refused for project in projects)

    def _late_effect_time(self, invocation: Invocation) -> float:
        """Half of them soon, the others at any time up to the bound, or close to it."""
        world = self.world
        latest = invocation.deadline + world.profile.latest_effect_seconds
        match world.random.randrange(4):
            case 0 | 1:
                return min(latest, world.now + world.random.expovariate(0.2))
            case 2:
                return world.random.uniform(world.now, latest)
            case _:
                return max(world.now, latest - world.random.expovariate(1.0))

    def _secret(self) -> Secret:
        world, environment = self.world, running(self.world).environment
        if world.chance(world.profile.key_unavailable):
            world.note("there is no key for Huawei Cloud")
            raise RenameFailedError(failures.credentials("", kind=Kind.UNAVAILABLE))
        if environment.secret is None or world.now >= environment.secret_good_until:
            environment.secret = self.account.secret(world.now)
            environment.secret_good_until = world.now + SECRET_SECONDS
        return environment.secret

    def _wait_for_response(self, behaviour: str, seconds: float) -> None:
        running(self.world).pause(seconds if behaviour == "silent" else min(self.world.latency(), seconds))

    def _apply(self, rename: Rename) -> None:
        self.invariants.rename_took_effect(rename)
        rename.service.in_flight.remove(rename)

    def _draw(self, target: Target, service: Service, name: str, purpose: ReadPurpose = ReadPurpose.DECISION) -> str:
        world, environment = self.world, running(self.world).environment
        environment.is_answered = False
        secret, scopes = self._secret(), (None, target.project_id, (target.project_id, service.id))
        if any(environment.refused_until.get(scope, 0.0) > world.now for scope in scopes):
            raise RenameFailedError(from_reply("APIGW.0301", "", status=401)._replace(counts_as_attempt=False))
        behaviour = self._draw_behaviour(target, service, name, secret)
        if behaviour == "waited":
            raise RenameFailedError(failures.timeout()._replace(counts_as_attempt=False))
        refused = {"wrong_key": scopes[0], "wrong_project": scopes[1], "forbidden": scopes[2]}
        if behaviour in refused and (behaviour != "forbidden" or purpose is not ReadPurpose.OUTCOME):
            environment.secret = None
            environment.refused_until[refused[behaviour]] = world.now + REFUSAL_SECONDS
        return behaviour

    def _draw_behaviour(self, target: Target, service: Service, name: str, secret: Secret) -> str:
        profile, now = self.world.profile, self.world.now
        if now < profile.key_refused_until or not self.account.accepts(secret.key, now):
            return "wrong_key"
        if now < profile.forbidden_until:
            if target.project_id != secret.project:
                return "wrong_project"
            if service.id in profile.forbidden:
                return "forbidden"
        if now < profile.outage_until:
            return self.world.random.choice(profile.outage)
        behaviour = str(self.world.random.choices(*profile.huawei)[0])
        if behaviour in ("fine", "garbled", "state") and (not service.exists or name == REFUSED_NAME):
            return "refused" if service.exists else "unknown"
        return behaviour

    def _response(self, behaviour: str, name: str, service: Service, *, counts: bool = True) -> Reply:
        environment = running(self.world).environment
        if counts:
            environment.is_answered = behaviour not in UNAVAILABLE
            environment.unavailable_answers = 0 if environment.is_answered else environment.unavailable_answers + 1
        match behaviour:
            case "fine":
                long = f"{REGION}.{name}.{service.id}" if name else f"{REGION}.{service.id}"
                return Reply(long if self.world.chance(0.5) else name, 200, "request")
            case "garbled":
                return Reply(None, 200, None)
            case "silent":
                failure = failures.timeout(in_doubt=True)
            case "broken" | "unreachable":
                failure = failures.connection_failed(in_doubt=behaviour == "broken")
            case "throttled":
                window = self.world.random.choice(("", ", limit_time:1 minute", ", limit_time:1 hour"))
                failure = from_reply("APIGW.0308", f"The throttling threshold was reached{window}", status=429)
            case _:
                code, status = ERRORS[behaviour]
                failure = from_reply(code, "", status=status)
        raise RenameFailedError(failure)


# ---- AWS


def expect_no_dry_run(world: World, what: str) -> None:
    if running(world).is_dry_run:
        world.mark_broken(9, f"a dry run {what}")


@dataclass(eq=False)
class Bus:
    """The outcome bus."""

    world: World
    invariants: Invariants

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        cloud_event = outcome.cloud_event
        expect_no_dry_run(self.world, "publishes")
        running(self.world).call(
            "the bus",
            lambda: self.invariants.published(cloud_event),
            self.world.profile.bus,
            lambda: RenameFailedError(failures.not_published("InternalException")),
        )


@dataclass(eq=False)
class LedgerClient:
    """The function's client of DynamoDB."""

    world: World
    table: Table

    def transact_write_items(self, deadline: Deadline, **request: Any) -> None:
        self._call("TransactWriteItems", request)

    def update_item(self, deadline: Deadline, **request: Any) -> None:
        self._call("UpdateItem", request)

    def put_item(self, deadline: Deadline, **request: Any) -> None:
        self._call("PutItem", request)

    def get_item(self, deadline: Deadline, **request: Any) -> dict[str, Any]:
        return self._call("GetItem", request)

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        world, actions = self.world, len(request.get("TransactItems", ()))

        def effect() -> dict[str, Any]:
            if actions and world.chance(world.profile.conflict):
                raise conflict(actions, world.random.randrange(actions))
            return self.table.carry_out(operation, request)

        def error() -> Exception:
            if world.chance(0.5):
                return ReadTimeoutError(endpoint_url="https://dynamodb")
            return ClientError({"Error": {"Code": "InternalServerError", "Message": "Internal error"}}, operation)

        if operation != "GetItem":
            expect_no_dry_run(world, f"writes: {operation}")
        return running(world).call(f"ledger, {operation}", effect, world.profile.ledger, error)


@dataclass(eq=False)
class Message:
    """A message in a queue.

    Attributes:
        attributes: as Lambda delivers them.
        on_new_timestamp: called with the timestamp that the redrive policy gives it.
        source_arn: of the queue that the redrive policy took it from.
    """

    id: str
    body: str
    attributes: Mapping[str, Mapping[str, str]]
    group: str
    sent: float
    event: Event
    on_new_timestamp: Callable[[float], object] | None = None
    receives: int = 0
    visible_at: float = 0.0
    source_arn: str | None = None


@dataclass(eq=False)
class Queue:
    """A FIFO queue, and the pollers that invoke the function with its messages.

    Attributes:
        pollers: those that wait for messages.
    """

    world: World
    arn: str
    _: KW_ONLY
    pollers: int = 0
    max_receives: int | None = None
    dead_letters: Queue | None = None
    messages: list[Message] = field(default_factory=list)
    _ids: int = 0
    _deduplication: dict[str, float] = field(default_factory=dict)

    def serve(self, invoke: Callable[[list[Message], Callable[[set[str]], None]], None]) -> None:
        """
        Args:
            invoke: starts an invocation with messages, and calls its second argument with the ids to delete.
        """
        self._invoke = invoke

    def new_id(self) -> str:
        self._ids += 1
        return f"{self.arn.rpartition(':')[2]}-{self._ids}"

    def add(self, message: Message) -> None:
        """A message is sent."""
        self.messages.append(message)
        self.world.after(0, self.poll)

    def is_duplicate(self, deduplication_id: str) -> bool:
        """Whether SQS accepts the message without delivering it."""
        now = self.world.now
        if self._deduplication.get(deduplication_id, 0.0) + DEDUPLICATION_SECONDS > now:
            return True
        self._deduplication[deduplication_id] = now
        return False

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> None:
        """``ChangeMessageVisibilityBatch``."""

        def effect() -> None:
            for message in self.messages:
                seconds = delays.get(_receipt_handle(message))
                if seconds is not None and message.visible_at > self.world.now:
                    self._show_at(message, self.world.now + seconds)
                    self.world.note("%s: visibility extended to %s s", message.event.label, seconds)

        _call_sqs(self.world, "extend visibility", effect)

    def poll(self) -> None:
        while self.pollers and (messages := self._receive()):
            self.pollers -= 1
            self._invoke(messages, lambda done, messages=messages: self._finish(messages, done))  # type: ignore[misc]

    def _show_at(self, message: Message, time: float) -> None:
        message.visible_at = time
        self.world.at(time, self.poll)

    def _receive(self) -> list[Message]:
        """Messages of groups of which none is in flight."""
        now, size = self.world.now, self.world.random.randint(1, MAX_BATCH)
        invisible = {message.group for message in self.messages if message.visible_at > now}
        batch: list[Message] = []
        for message in list(self.messages):
            if message.group in invisible or len(batch) == size:
                continue
            if self.dead_letters and self.max_receives and message.receives >= self.max_receives:
                self.world.note("%s has used up its receives", message.event.label)
                self.messages.remove(message)
                message.sent, message.source_arn, message.receives, message.visible_at = now, self.arn, 0, 0.0
                if message.on_new_timestamp:
                    message.on_new_timestamp(now)
                self.dead_letters.add(message)
                continue
            batch.append(message)
        for message in batch:
            message.receives += 1
            self._show_at(message, now + VISIBILITY_SECONDS)
        return batch

    def _finish(self, messages: list[Message], done: set[str]) -> None:
        self.pollers += 1
        if done and self.world.chance(self.world.profile.response_lost):
            self.world.note("the messages are not deleted")
        else:
            for message in messages:
                if message.id in done and message in self.messages:
                    self.messages.remove(message)
        self.world.after(0, self.poll)


def sqs_record(message: Message, arn: str) -> dict[str, Any]:
    """As Lambda delivers it."""
    record = events.sqs_record(
        message.body, message_id=message.id, group=message.group, receive_count=message.receives
    ) | {"receiptHandle": _receipt_handle(message), "messageAttributes": message.attributes, "eventSourceARN": arn}
    record["attributes"]["SentTimestamp"] = str(int(message.sent * 1000))
    if message.source_arn:
        record["attributes"]["DeadLetterQueueSourceArn"] = message.source_arn
    return record


@dataclass(eq=False)
class HandOver:
    """The rename queue of the HTTP trigger."""

    world: World
    invariants: Invariants
    queue: Queue

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> str | None:
        known = self.invariants.find(event.cloud_event)
        body, group = to_json(event.cloud_event), event.vpc_endpoint_service_id

        def effect() -> None:
            if not self.queue.is_duplicate(deduplication_id):
                self.queue.add(Message(self.queue.new_id(), body, {}, group, self.world.now, known))
                known.queued = True
                self.world.note("%s is handed over to the queue", known.label)

        error = _call_sqs(self.world, "hand over", effect)
        if error:  # it may be in the queue nevertheless, as another submission
            known.submissions += 1
        return error


@dataclass(eq=False)
class DeadLetterQueue:
    """The dead-letter queue of the dead letter trigger."""

    world: World
    unsettled: Queue
    queue: Queue

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> str | None:
        event = next(message.event for message in self.unsettled.messages if message.id == message_id)
        as_delivered = {
            name: {"stringValue": attribute["StringValue"], "dataType": attribute["DataType"]}
            for name, attribute in attributes.items()
        }

        def effect() -> None:
            if not self.queue.is_duplicate(message_id):
                self.queue.add(Message(self.queue.new_id(), body, as_delivered, group, self.world.now, event))
                event.dead_letters += 1
                event.was_dead_letter = True

        return _call_sqs(self.world, "forward", effect)


def _call_sqs(world: World, what: str, effect: Callable[[], None]) -> str | None:
    """AWS's error code, None for a success."""
    try:
        running(world).call(what, effect, world.profile.queue, _CallFailedError)
    except _CallFailedError:
        return "InternalError"
    return None


def _receipt_handle(message: Message) -> str:
    return f"{message.id}/{message.receives}"


def running(world: World) -> Invocation:
    assert world.invocation
    return world.invocation
