"""A thousand events over fifty endpoint services through both triggers at once, with Huawei Cloud failing, the function
killed, and a redrive at the end: nothing is lost, and no two outcomes contradict each other.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from random import Random
from typing import Any

import pytest

from tests.integration.observer import (
    DEAD_LETTERS,
    QUEUE,
    RENAMED,
    THROTTLED,
    a_rename,
    a_service,
    calls_for,
    chain,
    code_of,
    dead_letter_queue,
    is_final,
    let_claims_expire,
    name_in,
    of,
    quiescent,
    receives,
    service_of,
    time_of,
    until,
    until_quiescent,
)
from tests.localcloud.huawei import Call, HuaweiCloud
from tests.localcloud.stack import Clouds, Event, Reply, rename_event

SENT, SERVICES, STUCK_SERVICES = 1_000, 50, 3
SOURCE = "/thousand"
SEED = 20_261_124
CALLS_A_FAULT = 12
# What may happen to any call. Nothing of it means a failure for good.
FAULTS: list[dict[str, Any]] = [
    {"status": 500, "code": "EndPoint.0001"},
    {"status": 500, "code": "EndPoint.0001", "applied": True},
    {"status": 503, "body": ""},
    {"status": 504, "body": ""},
    {"status": 504, "body": "", "applied": True},
    {"status": 429, "body": ""},
    {"status": 400, "code": "EndPoint.3045"},
    {"kind": "reset"},
    {"kind": "reset", "applied": True},
    {"kind": "truncate", "applied": True},
    {"kind": "garbage", "body": "{}"},
    {"kind": "garbage", "body": "", "applied": True},
    {"kind": "slow", "delay": 0.5},
]


@dataclass(frozen=True)
class Sending:
    """An event on its way in: for the first time or not."""

    event: Event
    trigger: str


def sendings(random: Random, services: Sequence[str]) -> list[Sending]:
    """A tenth has been sent before, a fifth is late by up to a minute, and some use an identifier again."""
    start = datetime.now(UTC) - timedelta(seconds=SENT)
    sent: list[Sending] = []
    for number in range(SENT):
        what, trigger = random.random(), "http" if random.random() < 0.25 else "sqs"
        if sent and what < 0.1:
            sent.append(Sending(random.choice(sent).event, trigger))
            continue
        late = random.uniform(0, 60) if what < 0.3 else 0
        event = rename_event(random.choice(services), f"name-{number}")
        event |= {"source": SOURCE, "time": (start + timedelta(seconds=number - late)).isoformat()}
        if sent and what > 0.98:
            event["id"] = random.choice(sent).event["id"]
        sent.append(Sending(event, trigger))
    return sent


@contextmanager
def random_faults(huawei: HuaweiCloud, random: Random) -> Iterator[None]:
    """A fault in about every twelfth call."""
    over = threading.Event()

    def command_faults() -> None:
        commanded = 0
        while not over.wait(0.02):
            while commanded < len(huawei.calls) // CALLS_A_FAULT:
                huawei.fail(**random.choice(FAULTS))
                commanded += 1

    thread = threading.Thread(target=command_faults)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass
class DeadLetters:
    """Three dead letters from before the thousand events, which are redriven with those.

    Attributes:
        given_up, killed, overtaken: what the function could not settle on the last receive, what it was killed on each
            time, and what it could not settle before a newer event.
        newer: that one; sent before the redrive.
        first: their outcomes until then; `all` also those after it.
    """

    given_up: Event
    killed: Event
    overtaken: Event
    newer: Event
    first: list[Event]
    all: list[Event] = field(default_factory=list)

    def services(self) -> list[str]:
        return [service_of(event) for event in (self.given_up, self.killed, self.overtaken)]


@dataclass
class Thousand:
    """A thousand events, and what there is when all are settled.

    Attributes:
        outcomes: each copy, from the bus.
        calls, calls_after: before and after Huawei Cloud recovered, and the redrives began.
        moved: how many dead letters there were before each redrive, and how many it reported.
    """

    sent: list[Sending]
    services: list[str]
    dead: DeadLetters
    replies: list[Reply] = field(default_factory=list)
    outcomes: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    calls_after: list[Call] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    moved: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0

    @property
    def all_calls(self) -> list[Call]:
        """For the thousand."""
        return [call for call in self.calls + self.calls_after if call.service_id in self.services]

    def asks(self) -> dict[tuple[str, str], Event]:
        """What was asked for: an identifier that was used twice asks for two names."""
        return {ask(sending.event): sending.event for sending in self.sent}

    def chains(self) -> dict[tuple[str, str], list[Event]]:
        """The outcomes of each, on the bus and in HTTP answers."""
        copies: dict[tuple[str, str], list[Event]] = defaultdict(list)
        answered = [reply.json() for reply in self.replies if reply.status != 202]
        for outcome in self.outcomes + answered:
            copies[ask(outcome["data"]["request"])].append(outcome)
        assert copies.keys() <= self.asks().keys()
        return {key: chain(found) for key, found in copies.items()}

    def figures(self) -> str:
        chains, calls = self.chains(), self.all_calls
        codes = Counter(code_of(outcomes[-1]) for outcomes in chains.values())
        distinct = sum(map(len, chains.values()))
        by = Counter(sending.trigger for sending in self.sent)
        return (
            f"{len(self.sent)} sent ({by['sqs']} to the queue, {by['http']} by HTTP), {len(chains)} asked for, "
            f"of {len(self.services)} services: {dict(codes)}; {distinct - len(chains)} were given up before; "
            f"outcomes on the wire: {len(self.outcomes)}, repeated: {len(self.outcomes) - distinct}; "
            f"calls: {len(calls)}, not answered with 200: {sum(call.status != 200 for call in calls)}; "
            f"dead letters brought back: {[moved for _, moved in self.moved]}; {self.seconds:.0f} s"
        )


def ask(event: Event) -> tuple[str, str]:
    return event["id"], name_in(event)


@pytest.fixture(scope="module")
def thousand(running_fast_clouds: Clouds) -> Thousand:
    """Sent through both triggers at once, after three dead letters; when the queues are empty, Huawei Cloud recovers,
    and dead letters are redriven until there are none.
    """
    clouds, huawei, random = running_fast_clouds, running_fast_clouds.huawei, Random(SEED)
    services = [a_service(clouds) for _ in range(SERVICES)]
    started = time.monotonic()
    with receives(clouds, 2):
        found = Thousand(sendings(random, services), services, dead_letters(clouds))
        queued = [sending.event for sending in found.sent if sending.trigger == "sqs"]
        posted = [sending.event for sending in found.sent if sending.trigger == "http"]

        def is_quiescent() -> bool:
            found.outcomes += clouds.outcomes_so_far()
            return quiescent(clouds)

        for service_id in services[:STUCK_SERVICES]:
            huawei.fail(**THROTTLED, times=None, service_id=service_id)
        with random_faults(huawei, random), ThreadPoolExecutor(2) as pool:
            replies = pool.map(lambda event: reply_to(clouds, event), posted)
            for first in range(0, len(queued), 10):
                clouds.send_rename_events(queued[first : first + 10])
            until(lambda: len(huawei.calls) > SENT / 4, "many calls")
            until(lambda: clouds.kill(QUEUE), "the function to run")
            found.replies = list(replies)
            until(is_quiescent, "quiescence", seconds=180)
        found.calls = huawei.calls
        huawei.reset()
        let_claims_expire(clouds)
        # The outage breaker may be open still, and the event be handed to the queue.
        until(lambda: clouds.post_rename_event(found.dead.newer).status == 200, "the newer rename", seconds=90)
        while dead := clouds.messages(dead_letter_queue(clouds)):
            assert len(found.moved) < 6, "dead letters come back again and again"
            let_claims_expire(clouds)
            found.moved.append((dead, clouds.invoke(DEAD_LETTERS, {"redrive": True})["moved"]))
            until(is_quiescent, "quiescence", seconds=60)
    found.outcomes += clouds.outcomes_so_far()
    found.dead.all = found.dead.first + [outcome for outcome in found.outcomes if not is_of_thousand(outcome)]
    found.outcomes = list(filter(is_of_thousand, found.outcomes))
    found.calls_after = huawei.calls
    found.names = {service_id: huawei.name_of(service_id) for service_id in [*services, *found.dead.services()]}
    found.seconds = time.monotonic() - started
    return found


def dead_letters(clouds: Clouds) -> DeadLetters:
    """Where two receives are all there are."""
    huawei = clouds.huawei
    huawei.reset()
    clouds.forget_outcomes()
    overtaken, given_up, killed = (a_rename(clouds) for _ in range(3))
    for event in (overtaken, given_up):
        huawei.fail(**THROTTLED, times=None, service_id=service_of(event))
    clouds.send_rename_events([overtaken, given_up])
    until(lambda: clouds.messages(dead_letter_queue(clouds)) == 2, "two dead letters")
    huawei.fail(kind="hang", service_id=service_of(killed))
    clouds.send_rename_event(killed)
    until(lambda: calls_for(clouds, service_of(killed)), "the call")
    assert clouds.kill(QUEUE)
    until(lambda: clouds.kill(QUEUE), "the next receive")
    until(lambda: clouds.messages(dead_letter_queue(clouds)) == 3, "the third dead letter")
    until_quiescent(clouds)
    newer = rename_event(service_of(overtaken), "payments")
    return DeadLetters(given_up, killed, overtaken, newer, first=clouds.outcomes_so_far())


def is_of_thousand(outcome: Event) -> bool:
    return bool(outcome["data"]["request"]["source"] == SOURCE)


def reply_to(clouds: Clouds, event: Event) -> Reply:
    """To a producer that sends again what the API throttles."""
    replies: list[Reply] = []

    def has_room() -> bool:
        replies.append(clouds.post_rename_event(event))
        return replies[-1].status != HTTPStatus.TOO_MANY_REQUESTS

    until(has_room, "the API to have room")
    return replies[-1]


def test_each_of_a_thousand_events_has_a_final_outcome(
    thousand: Thousand, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", thousand.figures())
    assert {reply.status for reply in thousand.replies} <= {200, 202, 409}
    chains = thousand.chains()
    assert chains.keys() == thousand.asks().keys()
    assert all(is_final(outcomes[-1]) for outcomes in chains.values())
    assert thousand.moved
    assert all(moved == dead for dead, moved in thousand.moved)


def test_each_service_has_the_name_of_its_newest_success(thousand: Thousand) -> None:
    newest: dict[str, Event] = {}
    for key, outcomes in thousand.chains().items():
        event = thousand.asks()[key]
        if outcomes[-1]["type"] == RENAMED:
            newest[service_of(event)] = max(event, newest.get(service_of(event), event), key=time_of)
    assert newest.keys() == set(thousand.services)
    assert {service_id: thousand.names[service_id] for service_id in newest} == {
        service_id: name_in(event) for service_id, event in newest.items()
    }


def test_settled_event_makes_no_further_call(thousand: Thousand) -> None:
    chains = {name: outcomes for (_, name), outcomes in thousand.chains().items()}
    for call in thousand.all_calls:
        assert call.name is None or call.time < time_of(chains[call.name][-1]) + 0.001, call


def test_superseded_event_makes_no_call_after_the_newer_one(thousand: Thousand) -> None:
    asks, chains = thousand.asks(), thousand.chains()
    renames = defaultdict(list)
    for number, call in enumerate(thousand.all_calls):
        renames[call.name].append(number)
    superseded = [key for key, outcomes in chains.items() if code_of(outcomes[-1]) == "Rename.Superseded"]
    for key in superseded:
        by = chains[key][-1]["data"]["superseded_by"]["id"]
        [winner] = [
            asks[other] for other, outcomes in chains.items() if other[0] == by and outcomes[-1]["type"] == RENAMED
        ]
        assert service_of(winner) == service_of(asks[key])
        assert time_of(winner) > time_of(asks[key])
        assert max(renames[key[1]], default=-1) < max(renames[name_in(winner)])
    assert superseded


def test_one_event_of_each_identifier_is_settled_and_the_others_fail(thousand: Thousand) -> None:
    by_id = defaultdict(list)
    for (id_, _), outcomes in thousand.chains().items():
        by_id[id_].append(code_of(outcomes[-1]))
    for codes in by_id.values():
        assert codes.count("Rename.IdentifierReused") == len(codes) - 1
    assert any(len(codes) > 1 for codes in by_id.values())


def test_dead_letter_has_a_retryable_outcome(thousand: Thousand) -> None:
    expected = {"given_up": "APIGW.0308", "overtaken": "APIGW.0308", "killed": "Rename.Abandoned"}
    for which, code in expected.items():
        [outcome] = chain(of(getattr(thousand.dead, which), thousand.dead.first))
        assert (code_of(outcome), is_final(outcome)) == (code, False)


def test_redrive_settles_a_dead_letter_with_an_outcome_that_follows_the_first(thousand: Thousand) -> None:
    for event in (thousand.dead.given_up, thousand.dead.killed):
        first, last = chain(of(event, thousand.dead.all))
        assert last["type"] == RENAMED
        assert last["data"]["follows"] == first["id"]
        assert thousand.names[service_of(event)] == "orders"


def test_redriven_event_is_superseded_by_a_newer_rename(thousand: Thousand) -> None:
    overtaken, newer = thousand.dead.overtaken, thousand.dead.newer
    first, last = chain(of(overtaken, thousand.dead.all))
    assert code_of(last) == "Rename.Superseded"
    assert last["data"]["follows"] == first["id"]
    assert last["data"]["superseded_by"] == {"source": newer["source"], "id": newer["id"]}
    assert thousand.names[service_of(newer)] == "payments"
    renames = [call.name for call in thousand.calls_after if call.service_id == service_of(newer)]
    assert renames == ["payments"]
