"""The invariants of the function, checked by an observer outside of it.

The observer sees what was sent, what Huawei Cloud was asked to do and did, what is on the bus, in the queues and in
HTTP responses; nothing of the ledger. So the invariants apply to any implementation. An *event* is here one source, id
and content (``data``); a *submission* of it is a message in the queue, from its sending or redrive until the
dead-letter queue, or an HTTP request.

1. *One outcome an event.* All copies of an outcome id, on the bus and in HTTP responses, are the same. The request of
   an outcome is one that was sent; where its sender gave no time, its time may be that of the move to the dead-letter
   queue, since a FIFO queue replaces the first one. At most one outcome of an event is final (a success, or a failure
   that is not retryable), none follows a final one, no two follow the same one, and there are never more than
   submissions. An invalid event, which the ledger does not store, may have several outcomes, none of another kind.
2. *The newest name takes precedence.* The newest success of a service is the one of the latest event time, among equals
   the one whose last rename was called last. The service has its name; or that of an event for which a rename was
   called, which has no final outcome on the bus and is not older: in flight, given up, or to be sent again. It never
   has the name of an event with a final failure, nor of one that is older than the newest success. It keeps a name that
   was given by hand until the next rename of the function takes effect.
3. *Duplicates.* No call is made for an event that has a final outcome on the bus, nor for one whose source and id have
   an outcome for other content. Such a reuse gets ``Rename.IdentifierReused`` of its own, and no other event's outcome.
   All calls for an event are for one endpoint service. An invocation that deletes a message has published the outcome
   of its event.
4. *Stale events.* No call is made for an event older than the newest success on the bus. ``Rename.Superseded`` names an
   event that is newer and successful (or whose rename has taken effect, while its sender has yet to send it again).
5. *One rename in flight.* A rename is in flight from its call until its response, or until it takes effect where that
   is later. Meanwhile no other invocation calls for a rename of the same service. Claims of killed invocations expire:
   without faults no event waits for a claim forever.
6. *Nothing is lost.* A message leaves the queue when its event has a final outcome on the bus, or for the dead-letter
   queue with a retryable one. An HTTP response is an outcome that is on the bus, or 202 for an event in the queue, or
   asks to send again. Once everything has been sent and redriven without faults, every event has a final outcome.
7. *The outage breaker.* It opens after ten unavailable responses in a row, to calls that were made, and closes after
   another response. ``environments`` checks this.
8. *Message groups.* After a message that returns to the queue no rename is called for a later one of its group in the
   same invocation. No event returns for a refusal of another service, another project or another key; ``environments``
   checks this.
9. *A dry run changes nothing.* It calls for no rename, writes nothing to the ledger's table and publishes nothing;
   ``clouds`` checks this.

Most of it is checked when it happens, the rest whenever the agenda is empty.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
    """The identity of an event."""

    source: str
    id: str
    content: object


@dataclass(eq=False)
class Event:
    """A rename event as the observer knows it.

    Attributes:
        requests: each form in which it was sent; they may differ in time.
        submissions: how many; see above.
        outcomes: on the bus, by id, without ``Rename.IdentifierReused``.
        final: the final one of them.
        is_reuse: it has ``Rename.IdentifierReused`` on the bus.
        renames: of it, in the order of their calls.
        publishers: invocations that have published an outcome of it.
        service: the one that calls were made for.
        queued: it has been in the queue.
        dead_letters: how many copies are in the dead-letter queue.
        was_dead_letter: a copy has been there.
        has_expired: a copy has expired there.
        has_no_id: its sender gave it no id, and would send it again as another event.
    """

    key: Key
    label: str
    requests: list[CloudEvent | str] = field(default_factory=list)
    submissions: int = 0
    outcomes: dict[str, CloudEvent] = field(default_factory=dict)
    final: CloudEvent | None = None
    is_reuse: bool = False
    renames: list[Rename] = field(default_factory=list)
    publishers: set[Invocation | None] = field(default_factory=set)
    service: Service | None = None
    queued: bool = False
    dead_letters: int = 0
    was_dead_letter: bool = False
    has_expired: bool = False
    has_no_id: bool = False

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
        called: renames, in the order of their calls.
        in_flight: renames that have been called and may still take effect.
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
        self.set_name(self.name)

    def set_name(self, name: str) -> None:
        self.name = name
        self.names.add(name)

    @property
    def newest(self) -> tuple[int, int, Event] | None:
        return max(self.successes, key=lambda success: success[:2], default=None)


class Invariants:
    """The observer. Marks in the world which invariant is broken."""

    def __init__(self, world: World, services: Mapping[tuple[str, str], Service]) -> None:
        """
        Args:
            services: by project and id.
        """
        self._world = world
        self._services = dict(services)
        self.events: dict[Key, Event] = {}
        self._by_name: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self._outcomes_by_id: dict[str, CloudEvent] = {}
        self._renames = 0

    # ---- What is sent

    def sent(self, request: CloudEvent | str) -> Event:
        """An event is sent. The caller counts its submissions."""
        key = _key(request)
        event = self.events.get(key)
        if event is None:
            event = self.events[key] = Event(key, f"event-{len(self.events) + 1}")
            self._by_name[key.source, key.id].append(event)
        if request not in event.requests:
            event.requests.append(request)
        return event

    def find(self, request: CloudEvent) -> Event:
        """The event of a request that the function has parsed."""
        event = self.events.get(_key(request))
        if event is None:
            self._world.mark_broken(1, f"the function handles an event that was not sent: {request}")
            event = self.sent(request)
        return event

    # ---- Calls to Huawei Cloud

    def service(self, project: str, id_: str) -> Service:
        id_ = id_.lower()
        return self._services.setdefault((project, id_), Service(id_, "", exists=False))

    def call_made(self, service: Service, request: CloudEvent) -> Event:
        """For a read or a rename of the service."""
        event = self.find(request)
        if event.is_settled:
            self._world.mark_broken(3, f"a call for {event.label}, which is settled")
        if event.service not in (None, service):
            self._world.mark_broken(3, f"a call for {event.label}, this time for a service of another project")
        event.service = service
        if any(other.outcomes and other.is_valid for other in self._others(event)):
            self._world.mark_broken(3, f"a call for {event.label}, whose source and id are those of another event")
        newest = service.newest
        if newest and newest[0] > event.time:
            self._world.mark_broken(4, f"a call for {event.label}, which is older than {newest[2].label}")
        return event

    def rename_called(self, service: Service, request: CloudEvent, invocation: Invocation) -> Rename:
        event = self.call_made(service, request)
        for other in service.in_flight:
            if other.invocation is not invocation:
                text = f"a rename of {service.id} for {event.label}, while that for {other.event.label} is in flight"
                self._world.mark_broken(5, text)
        self._renames += 1
        name = request["data"]["endpoint_service_name"]
        rename = Rename(service, name, event, invocation, self._renames)
        event.renames.append(rename)
        service.called.append(rename)
        service.in_flight.append(rename)
        return rename

    def rename_took_effect(self, rename: Rename) -> None:
        rename.service.set_name(rename.name)
        rename.service.is_named_by_hand = False
        rename.service.applied.append(rename)
        self._world.note("%s is now named %r for %s", rename.service.id, rename.name, rename.event.label)
        self._check_name(rename.service)

    def renamed_by_hand(self, service: Service, name: str) -> None:
        service.set_name(name)
        service.is_named_by_hand = True
        self._world.note("%s is named %r by hand", service.id, name)

    # ---- What the function reports

    def published(self, outcome: CloudEvent) -> None:
        """An outcome is on the bus."""
        error, request = outcome["data"].get("error"), outcome["data"]["request"]
        is_new = outcome["id"] not in self._outcomes_by_id
        event = self.events.get(_key(request))
        if self._world.tracing:
            label = event.label if event else "an event that was not sent"
            self._world.note("on the bus: %s: %s", label, _brief(outcome))
        if event:
            event.publishers.add(self._world.invocation)
        if not self._is_same_as_before(outcome) or not is_new:
            return
        if event is None or request not in event.requests:
            self._world.mark_broken(1, f"an outcome of a request that was not sent: {request}")
        elif error and error["code"] == REUSED:
            event.is_reuse = True
            if event.outcomes:
                self._world.mark_broken(3, f"{event.label} has an outcome, and then Rename.IdentifierReused")
        else:
            self._check_follows(event, outcome)
            event.outcomes[outcome["id"]] = outcome
            if not _is_retryable(outcome):
                event.final = outcome
            if error is None:
                self._remember_success(event, _time(request))
            if event.renames:
                self._check_name(event.renames[-1].service)

    def _remember_success(self, event: Event, time: int) -> None:
        if not event.renames:
            self._world.mark_broken(2, f"{event.label} has a success outcome, but no rename was called")
            return
        last = event.renames[-1]
        last.service.successes.append((time, last.number, event))

    def _is_same_as_before(self, outcome: CloudEvent) -> bool:
        before = self._outcomes_by_id.setdefault(outcome["id"], outcome)
        if before != outcome:
            self._world.mark_broken(1, f"two contents of outcome {outcome['id']}: {before} and {outcome}")
        return before == outcome

    def _check_follows(self, event: Event, outcome: CloudEvent) -> None:
        follows = outcome["data"].get("follows")
        if all(_code(other) == INVALID for other in (outcome, *event.outcomes.values())):
            return
        if event.is_reuse:
            self._world.mark_broken(
                3, f"{event.label} reuses the source and id of another event, but has an outcome of its own"
            )
        if event.final and not _is_retryable(outcome):
            self._world.mark_broken(1, f"{event.label} has two final outcomes")
        if any(other["data"].get("follows") == follows for other in event.outcomes.values()):
            self._world.mark_broken(1, f"{event.label} has two outcomes that follow {follows}")
        if event.final and follows == event.final["id"]:
            self._world.mark_broken(1, f"{event.label} has an outcome that follows a final one")
        if len(event.outcomes) >= event.submissions:
            self._world.mark_broken(1, f"{event.label} has more outcomes than submissions")

    def acknowledged(self, event: Event, *, is_dead_letter: bool) -> None:
        """An invocation deletes a message from the rename queue, or from the queue of dead letters to be concluded."""
        self._world.note("%s is acknowledged", event.label)
        others = any(other.outcomes for other in self._others(event))
        if not (event.is_settled or (is_dead_letter and event.outcomes)):
            self._world.mark_broken(3 if others else 6, f"{event.label} leaves the queue without an outcome")
        elif is_dead_letter and not event.was_dead_letter:
            self._world.mark_broken(6, f"{event.label} is deleted, but was not in the dead-letter queue")
        elif self._world.invocation not in event.publishers:
            self._world.mark_broken(3, f"{event.label} leaves the queue, but its outcome is not repeated")

    def batch_ended(self, events: Sequence[tuple[Event, str, bool]]) -> None:
        """An invocation has responded to a batch.

        Args:
            events: in the order of the batch, each with its message group and whether it returns to the queue.
        """
        returned: dict[str, Event] = {}
        copies = Counter(event for event, _, _ in events)
        for event, group, returns in events:
            was_called = any(rename.invocation is self._world.invocation for rename in event.renames)
            if group in returned and was_called and copies[event] == 1:
                self._world.mark_broken(8, f"{event.label} overtakes {returned[group].label} of its group")
            if returns:
                returned.setdefault(group, event)

    def answered(self, event: Event, status: int, body: str) -> bool:
        """An HTTP caller gets a response. Returns whether that asks to send again."""
        self._world.note("HTTP response for %s: %s", event.label, status)
        content = json.loads(body)
        if status == 202:
            if not event.queued:
                self._world.mark_broken(6, f"{event.label} gets HTTP status 202, but is not in the queue")
            return False
        if "specversion" not in content:
            if status < 500:
                self._world.mark_broken(6, f"{event.label} gets HTTP status {status} and no outcome")
            return True
        if content["id"] not in self._outcomes_by_id:
            self._world.mark_broken(6, f"the HTTP response for {event.label} is an outcome that is not on the bus")
        self._is_same_as_before(content)
        if _key(content["data"]["request"]) != event.key:
            self._world.mark_broken(3, f"{event.label} gets the outcome of another event in its HTTP response")
        return _is_retryable(content)

    # ---- When nothing is due any more

    def check_when_idle(self, *, fault_free: bool) -> None:
        """
        Args:
            fault_free: there are no faults any more, and everything has been sent again and redriven.
        """
        for service in self._services.values():
            self._check_name(service)
        for event in self.events.values():
            self._check_settled(event, fault_free=fault_free)
            for outcome in event.outcomes.values():
                if _code(outcome) == SUPERSEDED:
                    self._check_superseded(event, outcome)
            if fault_free and event.is_reuse and not any(other.outcomes for other in self._others(event)):
                self._world.mark_broken(3, f"{event.label} has Rename.IdentifierReused, but is no reuse")

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
        self._world.mark_broken(2, f"{text}, its newest success is {newest[2].label if newest else 'none'}")

    def _check_settled(self, event: Event, *, fault_free: bool) -> None:
        if event.is_settled or (event.has_expired and event.outcomes):
            return
        if fault_free and (event.queued or not event.has_no_id):
            waits = any(_code(outcome) == IN_PROGRESS for outcome in event.outcomes.values())
            self._world.mark_broken(5 if waits else 6, f"{event.label} is not settled even without faults")
        if event.queued and not (event.dead_letters and event.outcomes):
            self._world.mark_broken(6, f"{event.label} is lost")

    def _check_superseded(self, event: Event, outcome: CloudEvent) -> None:
        by = outcome["data"].get("superseded_by") or {}
        for other in self._by_name[by.get("source", ""), by.get("id", "")]:
            is_success = other.final is not None and _code(other.final) is None
            # A read has shown that the service has the name, and the ledger has stored that.
            is_unreported = other.final is None and any(rename.name in rename.service.names for rename in other.renames)
            if (is_success or is_unreported) and any(
                _time(request) > _time(outcome["data"]["request"]) for request in other.requests
            ):
                return
        self._world.mark_broken(4, f"{event.label} is superseded by {by}, which is no newer success")

    def _others(self, event: Event) -> list[Event]:
        """Other content under the same source and id."""
        return [other for other in self._by_name[event.key.source, event.key.id] if other is not event]


def _brief(outcome: CloudEvent) -> str:
    follows = outcome["data"].get("follows")
    text = f"{_code(outcome) or 'renamed'}, outcome {outcome['id'][:8]}"
    return text + (", retryable" if _is_retryable(outcome) else "") + (f", follows {follows[:8]}" if follows else "")


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
