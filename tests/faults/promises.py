"""The promises, as an observer outside the function sees them kept or broken.

What the observer knows is what was sent, what Huawei Cloud was asked to do and did, what is on the bus, in the queues
and in HTTP answers; nothing of the ledger. So a promise holds for any function, or is broken by it. An *event* is here
one source, id and content (``data``); a *life* of it is a message in the queue, from its sending or redrive until it
rests in the dead-letter queue, or an HTTP request.

1. *One outcome an event.* All copies of an outcome id, on the bus and in HTTP answers, are the same. The request that
   an outcome repeats is one that was sent; where its sender gave no time it may have that of its move among the dead
   letters, for a FIFO queue forgets the first one. Of the outcomes of an event at most one is final (a success, or a
   failure that is not retryable), none follows a final one, no two follow the same one, and there are never more than
   lives. An invalid event, which no ledger keeps, may have several outcomes, none of another kind.
2. *The newest name wins.* Of the successful events of a service, the newest is the one of the latest time, and among
   equals the one whose last rename was called last. The service bears its name; or that of an event which has been
   called for, has no final outcome on the bus, and is not older: one on its way, given up, or told to be sent again.
   Never the name of an event with a final failure, nor of one that is older than the newest. Whatever somebody names it
   by hand it may bear until the next rename of the function takes effect.
3. *Duplicates.* No call is made for an event that has a final outcome on the bus, nor for one whose source and id
   have an outcome for other content. Such a reuse gets ``Rename.IdentifierReused`` of its own, and nobody else's
   outcome. All calls for an event are for one endpoint service. When a message leaves the queue, the invocation that it
   leaves to has put its outcome on the bus.
4. *Stale events.* No call is made for an event older than the newest success on the bus. ``Rename.Superseded`` names an
   event that is newer and successful (or has been carried out, and its sender is yet to ask again).
5. *One rename in flight.* A rename is in flight from its call until its answer, or until it takes effect where that is
   later. While it is, no other invocation calls for a rename of the same service. Claims of the dead lapse: in calm
   weather nothing waits for a claim in vain.
6. *Nothing is lost.* A message leaves the queue when its event has a final outcome on the bus, or for the dead-letter
   queue with a retryable one. An HTTP answer carries an outcome that is on the bus, or 202 for an event that the queue
   took, or asks to send again. Once everything is sent and redriven in calm weather, every event has a final outcome.

In addition to these six:

7. *The outage breaker.* It opens after ten unavailable answers in a row, to calls that were made, and it closes after
   an answer. ``environments`` checks this.
8. *One event's fate.* After a message that goes back to the queue nothing of its group is carried out in the same
   invocation. No event goes back for a refusal that concerns another service, another project or another key;
   ``environments`` checks this.
9. *A dry run changes nothing.* It calls for no rename, writes nothing into the ledger's table and publishes nothing;
   ``clouds`` checks this.

Most of it is checked when it happens, the rest whenever nothing is due any more.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from tests.faults.world import Invocation, World

CloudEvent = dict[str, Any]

IN_PROGRESS = "Rename.InProgress"
REUSED = "Rename.IdentifierReused"
SUPERSEDED = "Rename.Superseded"
INVALID = "Rename.InvalidEvent"


class Key(NamedTuple):
    """What is one event."""

    source: str
    id: str
    content: object


@dataclass(eq=False)
class Event:
    """A rename event as the observer knows it.

    Attributes:
        requests: each form in which it was sent; they may differ in time.
        lives: see above.
        outcomes: on the bus, by id, without ``Rename.IdentifierReused``.
        final: the one among them that is.
        is_reuse: it has ``Rename.IdentifierReused`` on the bus.
        renames: of it, in the order they were called.
        tellers: invocations that have put an outcome of it on the bus.
        service: the one that calls were made for.
        queued: the queue has taken it at least once.
        rests: so many copies are in the dead-letter queue.
        has_rested: a copy has been there.
        is_forgotten: a copy has been in the dead-letter queue for longer than that keeps it.
        is_nameless: its sender gave it no id, and would send it again as another event.
    """

    key: Key
    label: str
    requests: list[CloudEvent | str] = field(default_factory=list)
    lives: int = 0
    outcomes: dict[str, CloudEvent] = field(default_factory=dict)
    final: CloudEvent | None = None
    is_reuse: bool = False
    renames: list[Rename] = field(default_factory=list)
    tellers: set[Invocation | None] = field(default_factory=set)
    service: Service | None = None
    queued: bool = False
    rests: int = 0
    has_rested: bool = False
    is_forgotten: bool = False
    is_nameless: bool = False

    @property
    def time(self) -> int:
        """In nanoseconds; the latest, where it was sent with several."""
        return max(map(_time, self.requests))

    @property
    def is_settled(self) -> bool:
        return self.is_reuse or self.final is not None

    @property
    def is_valid(self) -> bool:
        return self.final is None or _code(self.final) != INVALID


@dataclass(eq=False)
class Rename:
    """One call of ``update_endpoint_service_name``.

    Attributes:
        number: of all calls, in order.
    """

    service: Service
    name: str
    event: Event
    invocation: Invocation
    number: int


@dataclass(eq=False)
class Service:
    """An endpoint service.

    Attributes:
        is_named_by_hand: since the last rename of the function took effect.
        called: renames, in this order.
        in_flight: renames that have been called and may yet take effect.
        applied: renames that took effect, in this order.
        successes: on the bus, each with the time of its event and the number of its last rename.
        names: all that it has had.
    """

    id: str
    name: str
    exists: bool = True
    is_named_by_hand: bool = False
    called: list[Rename] = field(default_factory=list)
    in_flight: list[Rename] = field(default_factory=list)
    applied: list[Rename] = field(default_factory=list)
    successes: list[tuple[int, int, Event]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.be_named(self.name)

    def be_named(self, name: str) -> None:
        self.name = name
        self.names.add(name)

    @property
    def newest(self) -> tuple[int, int, Event] | None:
        return max(self.successes, key=lambda success: success[:2], default=None)


class Promises:
    """Watches the world and tells it when a promise is broken."""

    def __init__(self, world: World, services: Mapping[tuple[str, str], Service]) -> None:
        """
        Args:
            services: by project and id.
        """
        self._world = world
        self._services = dict(services)
        self.events: dict[Key, Event] = {}
        self._by_name: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self._on_the_wire: dict[str, CloudEvent] = {}
        self._renames = 0

    # ---- What is sent

    def sent(self, request: CloudEvent | str) -> Event:
        """Somebody sends an event. Whoever calls counts its lives."""
        key = _key(request)
        event = self.events.get(key)
        if event is None:
            event = self.events[key] = Event(key, f"event-{len(self.events) + 1}")
            self._by_name[key.source, key.id].append(event)
        if request not in event.requests:
            event.requests.append(request)
        return event

    def _label(self, request: CloudEvent | str) -> str:
        event = self.events.get(_key(request))
        return event.label if event else "an event that nobody sent"

    def find(self, request: CloudEvent) -> Event:
        """The event of this request, as the function has parsed it."""
        event = self.events.get(_key(request))
        if event is None:
            self._world.breaks(1, f"the function takes up an event that nobody sent: {request}")
            event = self.sent(request)
        return event

    # ---- What Huawei Cloud is asked

    def service(self, project: str, id_: str) -> Service:
        id_ = id_.lower()
        return self._services.setdefault((project, id_), Service(id_, "", exists=False))

    def is_called(self, service: Service, request: CloudEvent) -> Event:
        """For a read or a rename of the service."""
        event = self.find(request)
        if event.is_settled:
            self._world.breaks(3, f"a call for {event.label}, which is settled")
        if event.service not in (None, service):
            self._world.breaks(3, f"a call for {event.label}, this time for a service of another project")
        event.service = service
        if any(other.outcomes and other.is_valid for other in self._others(event)):
            self._world.breaks(3, f"a call for {event.label}, whose source and id are those of another event")
        newest = service.newest
        if newest and newest[0] > event.time:
            self._world.breaks(4, f"a call for {event.label}, which is older than {newest[2].label}")
        return event

    def rename_is_called(self, service: Service, request: CloudEvent, invocation: Invocation) -> Rename:
        event = self.is_called(service, request)
        for other in service.in_flight:
            if other.invocation is not invocation:
                text = f"a rename of {service.id} for {event.label}, while that for {other.event.label} is in flight"
                self._world.breaks(5, text)
        self._renames += 1
        name = request["data"]["endpoint_service_name"]
        rename = Rename(service, name, event, invocation, self._renames)
        event.renames.append(rename)
        service.called.append(rename)
        service.in_flight.append(rename)
        return rename

    def rename_takes_effect(self, rename: Rename) -> None:
        rename.service.be_named(rename.name)
        rename.service.is_named_by_hand = False
        rename.service.applied.append(rename)
        self._world.note("%s is now named %r for %s", rename.service.id, rename.name, rename.event.label)
        self._check_name(rename.service)

    def is_named_by_hand(self, service: Service, name: str) -> None:
        service.be_named(name)
        service.is_named_by_hand = True
        self._world.note("%s is named %r by hand", service.id, name)

    # ---- What the function tells

    def published(self, outcome: CloudEvent) -> None:
        """An outcome is on the bus."""
        error, request = outcome["data"].get("error"), outcome["data"]["request"]
        is_new = outcome["id"] not in self._on_the_wire
        if self._world.tracing:
            self._world.note("on the bus: %s: %s", self._label(request), _brief(outcome))
        event = self.events.get(_key(request))
        if event:
            event.tellers.add(self._world.invocation)
        if not self._is_same_as_before(outcome) or not is_new:
            return
        if event is None or request not in event.requests:
            self._world.breaks(1, f"an outcome of a request that nobody sent: {request}")
        elif error and error["code"] == REUSED:
            event.is_reuse = True
            if event.outcomes:
                self._world.breaks(3, f"{event.label} has an outcome, and then is said to reuse source and id")
        else:
            self._check_rounds(event, outcome)
            event.outcomes[outcome["id"]] = outcome
            if not _is_retryable(outcome):
                event.final = outcome
            if error is None:
                self._remember_success(event, _time(request))
            if event.renames:
                self._check_name(event.renames[-1].service)

    def _remember_success(self, event: Event, time: int) -> None:
        if not event.renames:
            self._world.breaks(2, f"{event.label} is said to be renamed, and no rename was called")
            return
        last = event.renames[-1]
        last.service.successes.append((time, last.number, event))

    def _is_same_as_before(self, outcome: CloudEvent) -> bool:
        before = self._on_the_wire.setdefault(outcome["id"], outcome)
        if before != outcome:
            differences = ", ".join(_differences(before, outcome))
            self._world.breaks(1, f"two contents of outcome {outcome['id']}: {differences}")
        return before == outcome

    def _check_rounds(self, event: Event, outcome: CloudEvent) -> None:
        follows = outcome["data"].get("follows")
        if all(_code(other) == INVALID for other in (outcome, *event.outcomes.values())):
            return
        if event.is_reuse:
            self._world.breaks(3, f"{event.label} reuses another's source and id, and yet has an outcome of its own")
        if event.final and not _is_retryable(outcome):
            self._world.breaks(1, f"{event.label} has two final outcomes")
        if any(other["data"].get("follows") == follows for other in event.outcomes.values()):
            self._world.breaks(1, f"{event.label} has two outcomes that follow {follows}")
        if event.final and follows == event.final["id"]:
            self._world.breaks(1, f"{event.label} has an outcome that follows a final one")
        if len(event.outcomes) >= event.lives:
            self._world.breaks(1, f"{event.label} has an outcome more than it had lives")

    def acknowledged(self, event: Event, *, is_dead_letter: bool) -> None:
        """A message leaves the queue for good, or moves on from where dead letters get their outcomes."""
        self._world.note("%s is acknowledged", event.label)
        others = any(other.outcomes for other in self._others(event))
        if not (event.is_settled or (is_dead_letter and event.outcomes)):
            self._world.breaks(3 if others else 6, f"{event.label} leaves the queue without an outcome")
        elif is_dead_letter and not event.has_rested:
            self._world.breaks(6, f"{event.label} leaves the queue for dead letters, and rests nowhere")
        elif self._world.invocation not in event.tellers:
            self._world.breaks(3, f"{event.label} leaves the queue, and its outcome is not repeated")

    def batch_ended(self, events: Sequence[tuple[Event, str, bool]]) -> None:
        """An invocation has reported on a batch.

        Args:
            events: in the order of the batch, each with its message group and whether it goes back.
        """
        returned: dict[str, Event] = {}
        copies = Counter(event for event, _, _ in events)
        for event, group, goes_back in events:
            was_called = any(rename.invocation is self._world.invocation for rename in event.renames)
            if group in returned and was_called and copies[event] == 1:
                self._world.breaks(8, f"{event.label} overtakes {returned[group].label} of its group")
            if goes_back:
                returned.setdefault(group, event)

    def answered(self, event: Event, status: int, body: str) -> bool:
        """An HTTP caller gets an answer. Returns whether it asks to send again."""
        self._world.note("HTTP answer for %s: %s", event.label, status)
        content = json.loads(body)
        if status == 202:
            if not event.queued:
                self._world.breaks(6, f"{event.label} is said to be queued, and is not")
            return False
        if "specversion" not in content:
            if status < 500:
                self._world.breaks(6, f"{event.label} gets HTTP status {status} and no outcome")
            return True
        if content["id"] not in self._on_the_wire:
            self._world.breaks(6, f"the HTTP answer for {event.label} is an outcome that is not on the bus")
        self._is_same_as_before(content)
        if _key(content["data"]["request"]) != event.key:
            self._world.breaks(3, f"{event.label} is answered with the outcome of another event")
        return _is_retryable(content)

    # ---- At rest

    def at_rest(self, *, in_calm: bool) -> None:
        """Nothing is due any more; in calm weather nothing is left to be sent again either."""
        for service in self._services.values():
            self._check_name(service)
        for event in self.events.values():
            self._check_settled(event, in_calm=in_calm)
            for outcome in event.outcomes.values():
                if _code(outcome) == SUPERSEDED:
                    self._check_superseded(event, outcome)
            if in_calm and event.is_reuse and not any(other.outcomes for other in self._others(event)):
                self._world.breaks(3, f"{event.label} is said to reuse source and id, and nobody had them")

    def _check_name(self, service: Service) -> None:
        newest = service.newest
        name = newest[2].final["data"]["endpoint_service_name"] if newest and newest[2].final else None
        if service.is_named_by_hand or service.name == name or (newest is None and not service.applied):
            return
        if any(
            rename.name == service.name
            and not rename.event.is_settled
            and (not newest or rename.event.time >= newest[0])
            for rename in service.called
        ):
            return
        text = f"{service.id} is named {service.name!r}"
        if service.applied:
            last = service.applied[-1].event
            text += f" for {last.label} ({_code(last.final) if last.final else 'without an outcome'})"
        self._world.breaks(2, f"{text}, its newest success is {newest[2].label if newest else 'none'}")

    def _check_settled(self, event: Event, *, in_calm: bool) -> None:
        if event.is_settled or (event.is_forgotten and event.outcomes):
            return
        if in_calm and (event.queued or not event.is_nameless):
            waits = any(_code(outcome) == IN_PROGRESS for outcome in event.outcomes.values())
            self._world.breaks(5 if waits else 6, f"{event.label} is not settled even in calm weather")
        if event.queued and not (event.rests and event.outcomes):
            self._world.breaks(6, f"{event.label} is lost")

    def _check_superseded(self, event: Event, outcome: CloudEvent) -> None:
        by = outcome["data"].get("superseded_by") or {}
        for other in self._by_name[by.get("source", ""), by.get("id", "")]:
            is_success = other.final is not None and _code(other.final) is None
            # A read has shown that the service has the name, and the ledger remembers that.
            is_unheard = other.final is None and any(rename.name in rename.service.names for rename in other.renames)
            if (is_success or is_unheard) and any(
                _time(request) > _time(outcome["data"]["request"]) for request in other.requests
            ):
                return
        self._world.breaks(4, f"{event.label} is superseded by {by}, which is no newer success")

    def _others(self, event: Event) -> list[Event]:
        """Other content under the same source and id."""
        return [other for other in self._by_name[event.key.source, event.key.id] if other is not event]


def _brief(outcome: CloudEvent) -> str:
    follows = outcome["data"].get("follows")
    text = f"{_code(outcome) or 'renamed'}, outcome {outcome['id'][:8]}"
    return text + (", retryable" if _is_retryable(outcome) else "") + (f", follows {follows[:8]}" if follows else "")


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from _differences(one.get(name), other.get(name), f"{path}/{name}")
    elif one != other:
        yield f"{path} {one!r} and {other!r}"


def _key(request: CloudEvent | str) -> Key:
    if isinstance(request, str):
        return Key("", "", request)
    return Key(request["source"], request["id"], tuple(sorted(request["data"].items())))


def _time(request: CloudEvent | str) -> int:
    return nanoseconds(request["time"]) if isinstance(request, dict) else 0


@lru_cache(4_096)
def nanoseconds(text: str) -> int:
    """Of a time in UTC, since the epoch."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{seconds}Z").timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def _code(outcome: CloudEvent) -> str | None:
    error = outcome["data"].get("error")
    return error["code"] if error else None


def _is_retryable(outcome: CloudEvent) -> bool:
    error = outcome["data"].get("error")
    return error is not None and error["retryable"]
