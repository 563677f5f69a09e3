"""The queue's trigger: what of a batch is settled, what goes back, and in what order."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import InvalidEvent, Outcome, RenameEvent, Target
from function.domain.rename_service import Unsettled
from function.triggers.sqs import Record
from function.workers import Workers
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import cloud_event, http_request, rename_data, service_id, sqs_record
from tests.fakes.failures import refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import QUEUE_ARN, SERVICE, START
from tests.fakes.world import World
from tests.template import ROOT

TEN = range(10)
HANGS_SECONDS = 10.0
TEMPLATE = (ROOT / "template.yml").read_text(encoding="utf-8")


@pytest.fixture
def world(world: World) -> World:
    world.services.names |= {service_id(number): "billing" for number in range(200)}
    return world


def record_of(
    number: int, *, name: str = "orders", group: str | None = "its service", **arguments: Any
) -> dict[str, Any]:
    """A record that renames the service of this number, in that service's group."""
    event = cloud_event(id=f"event-{number}", vpc_endpoint_service_id=service_id(number), endpoint_service_name=name)
    return sqs_record(
        event,
        message_id=arguments.pop("message_id", f"message-{number}"),
        group=service_id(number) if group == "its service" else group,
        **arguments,
    )


def in_group(*names: str, number: int = 0, **arguments: Any) -> list[dict[str, Any]]:
    """Records of one service, in order."""
    records = []
    for name in names:
        event = cloud_event(id=name, vpc_endpoint_service_id=service_id(number), endpoint_service_name=name)
        records.append(sqs_record(event, message_id=name, group=service_id(number), **arguments))
    return records


def renamed(world: World) -> list[str]:
    """The services that were called for, in order."""
    return [call.target.vpc_endpoint_service_id for call in world.services.calls_of("rename")]


class TestBatch:
    def test_that_is_settled_names_no_record(self, world: World) -> None:
        returned = world.sqs(*[record_of(number) for number in TEN])

        assert returned == []
        assert sorted(renamed(world)) == sorted(service_id(number) for number in TEN)
        assert len(world.bus.outcomes) == 10
        assert world.queue.put_offs == []

    def test_of_one_record_is_settled(self, world: World) -> None:
        assert world.sqs(sqs_record()) == []
        assert world.services.names[SERVICE] == "orders"

    def test_of_no_record_names_no_record(self, world: World) -> None:
        assert world.sqs() == []

    @pytest.mark.parametrize(
        "broken",
        [
            "",
            "not JSON",
            "[]",
            "null",
            "{}",
            '{"data": {}}',
            "\ud800",
            "\x00",
            '{"a":1,"a":2}',
            "[" * 100_000,
            "9" * 9_999,
        ],
        ids=lambda text: repr(text[:12]),
    )
    def test_with_a_broken_record_renames_the_other_nine(self, world: World, broken: str) -> None:
        records = [record_of(number) for number in TEN]
        records[3]["body"] = broken

        returned = world.sqs(*records)

        # then: the broken one is settled too, by a failure
        assert returned == []
        assert len(renamed(world)) == 9
        failed = [outcome.failure for outcome in world.bus.outcomes if outcome.failure]
        assert [failure.kind for failure in failed] == [Kind.INVALID]

    def test_with_a_broken_record_in_a_group_goes_on_after_it(self, world: World) -> None:
        records = in_group("one", "two", "three")
        records[1]["body"] = "not JSON"

        assert world.sqs(*records) == []
        assert [call.name for call in world.services.calls] == ["one", "three"]

    def test_of_which_nothing_is_settled_names_every_record_and_does_not_raise(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        returned = world.sqs(*[record_of(number) for number in TEN])

        assert returned == [f"message-{number}" for number in TEN]
        assert world.bus.outcomes == []

    def test_names_a_record_whose_outcome_was_not_published(self, world: World) -> None:
        world.bus.refuse()

        assert world.sqs(*in_group("one", "two")) == ["one", "two"]

    def test_names_a_record_that_the_function_fails_on(self, world: World) -> None:
        world.services.crash(RuntimeError("orders"))

        assert world.sqs(*in_group("one", "two"), record_of(1)) == ["one", "two"]

    def test_names_a_record_that_is_not_as_sqs_makes_them_and_settles_the_rest(self, world: World) -> None:
        strange = record_of(1)
        strange["attributes"]["SentTimestamp"] = "yesterday"

        assert world.sqs(record_of(0), strange, record_of(2)) == ["message-1"]
        assert [type(defect) for defect in world.telemetry.defects] == [ValueError]

    @pytest.mark.parametrize("name", ["SentTimestamp", "ApproximateReceiveCount", "receiptHandle"])
    def test_with_a_strange_record_is_reported_though_something_else_goes_back(self, world: World, name: str) -> None:
        strange, throttled_ = record_of(1), record_of(2)
        (strange if name in strange else strange["attributes"])[name] = ""
        if name == "receiptHandle":
            del strange[name]
        world.services.refuse(throttled(), times=None)

        assert set(world.sqs(strange, throttled_)) == {"message-1", "message-2"}

        assert "handle-of-message-2" in [handle for handles, _ in world.queue.put_offs for handle in handles]

    def test_tells_of_each_event_once(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        world.sqs(record_of(0, receive_count=3), sqs_record("not JSON", message_id="broken", group="g"))

        told = {line.keys["message_id"]: line for line in world.telemetry.lines}
        assert len(world.telemetry.lines) == len(told) == 2
        assert isinstance(told["message-0"].event, RenameEvent)
        assert isinstance(told["message-0"].result, Unsettled)
        assert isinstance(told["broken"].event, InvalidEvent)
        assert isinstance(told["broken"].result, Outcome)
        assert (told["message-0"].trigger, told["message-0"].keys["receive_count"]) == ("sqs", 3)


class TestGroups:
    """Within a message group nothing overtakes."""

    def test_are_worked_through_in_order(self, world: World) -> None:
        names = ["one", "two", "three", "four", "five"]

        assert world.sqs(*in_group(*names), *[record_of(number) for number in range(1, 6)]) == []

        own = [call.name for call in world.services.calls if call.target.vpc_endpoint_service_id == service_id(0)]
        assert own == names
        assert world.services.names[service_id(0)] == "five"

    def test_stop_after_an_unsettled_record(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=900.0))

        returned = world.sqs(*in_group("one", "two", "three"))

        assert returned == ["one", "two", "three"]
        assert [call.name for call in world.services.calls] == ["one"]

    def test_stop_before_an_event_that_other_settings_take(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=900.0))
        too_long = "n" * 17

        assert world.sqs(*in_group("one", too_long)) == ["one", too_long]
        assert world.bus.outcomes == []

    def test_keep_what_was_settled_before_the_unsettled_record(self, world: World) -> None:
        world.services.report("one")
        world.services.refuse(throttled(retry_after=900.0))

        returned = world.sqs(*in_group("one", "two", "three"))

        assert returned == ["two", "three"]
        assert world.services.names[service_id(0)] == "one"
        assert len(world.bus.outcomes) == 1

    def test_do_not_stop_each_other(self, world: World) -> None:
        world.services.during = _fail_odd

        returned = world.sqs(*in_group("one", "two", number=1), record_of(2), record_of(4))

        assert returned == ["one", "two"]
        assert len(world.bus.outcomes) == 2

    def test_stop_after_a_final_failure_does_not_happen(self, world: World) -> None:
        records = in_group("one", "two")
        world.services.refuse(from_reply("EndPoint.1003", "", status=400))

        assert world.sqs(*records) == []
        assert [call.name for call in world.services.calls] == ["one", "two"]

    @pytest.mark.parametrize("where", ["parse", "handled"])
    def test_after_a_record_that_ends_in_an_exception_go_back_and_are_put_off(
        self, world: World, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        records = in_group("one", "two", "three")
        calls = []

        def fail_first(*_: object, **__: object) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError

        if where == "handled":
            monkeypatch.setattr(world.telemetry, "handled", fail_first)
        else:
            read = vars(Record)["attributes"].fget

            def attributes(record: Record) -> Any:
                fail_first()
                return read(record)

            monkeypatch.setattr(Record, "attributes", property(attributes))

        assert world.sqs(*records) == ["one", "two", "three"]

        assert len(world.telemetry.defects) == 1
        assert world.queue.put_offs == [(["handle-of-one", "handle-of-two", "handle-of-three"], 30)]
        assert "two" not in [call.name for call in world.services.calls]

    def test_are_formed_by_message_where_the_queue_knows_none(self, world: World) -> None:
        # given: a standard queue
        world.services.crash(RuntimeError())
        records = [record_of(number, group=None) for number in TEN]

        returned = world.sqs(*records)

        assert len(returned) == 1
        assert len(world.bus.outcomes) == 9


class TestSideBySide:
    def test_two_groups_are_at_work_at_once(self, world: World) -> None:
        # given: nobody passes before two have come
        barrier = threading.Barrier(2, timeout=5)
        world.services.during = lambda _: _wait(barrier)

        assert world.sqs(record_of(0), record_of(1)) == []

        assert not barrier.broken
        assert len(world.bus.outcomes) == 2

    @pytest.mark.parametrize("limit", [1, 3])
    def test_no_more_than_the_limit_are_at_work_at_once(self, world: World, limit: int) -> None:
        at_work = most = 0
        lock = threading.Lock()

        def during(_: Target) -> None:
            nonlocal at_work, most
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.01)
            with lock:
                at_work -= 1

        world.services.during = during

        assert world.sqs(*[record_of(number) for number in TEN], parallel=limit) == []

        assert most == limit

    def test_one_group_is_never_at_work_twice(self, world: World) -> None:
        at_work: set[str] = set()
        twice: list[str] = []

        def during(target: Target) -> None:
            service = target.vpc_endpoint_service_id
            if service in at_work:
                twice.append(service)
            at_work.add(service)
            time.sleep(0.005)
            at_work.remove(service)

        world.services.during = during

        records = [record for number in range(3) for record in in_group("one", "two", "three", number=number)]
        for number, record in enumerate(records):
            record["messageId"] = f"message-{number}"
        assert world.sqs(*records) == []

        assert twice == []
        assert len(world.bus.outcomes) == 9

    def test_the_records_that_go_back_are_told_apart_by_their_ids(self, world: World) -> None:
        world.services.during = _fail_odd

        returned = world.sqs(*[record_of(number) for number in TEN])

        assert returned == [f"message-{number}" for number in TEN if number % 2]


def _hang(may_go_on: threading.Event) -> None:
    may_go_on.wait(HANGS_SECONDS)


def _wait(barrier: threading.Barrier) -> None:
    barrier.wait()


def _fail_odd(target: Target) -> None:
    if int(target.vpc_endpoint_service_id.rpartition("-")[2]) % 2:
        raise RuntimeError


def _refuse_odd(target: Target) -> None:
    if int(target.vpc_endpoint_service_id.rpartition("-")[2]) % 2:
        raise RenameFailedError(refusal("APIGW.0302", 403))


class TestARefusedKey:
    def test_of_one_service_does_not_hold_up_the_others(self, world: World) -> None:
        world.services.during = _refuse_odd

        returned = world.sqs(*[record_of(number) for number in range(10)])

        assert returned == [f"message-{number}" for number in (1, 3, 5, 7, 9)]

    def test_does_not_hold_up_what_needs_no_key(self, world: World) -> None:
        world.services.refuse(wrong_key(), times=None)

        returned = world.sqs(record_of(0), sqs_record("not JSON", message_id="broken", group="g"), parallel=1)

        assert returned == ["message-0"]
        assert len(world.bus.outcomes) == 1

    def test_does_not_hold_up_the_next_batch(self, world: World) -> None:
        world.services.refuse(wrong_key())
        world.sqs(record_of(0), parallel=1)

        assert world.sqs(record_of(1), parallel=1) == []


class TestLastReceive:
    def test_gives_up_with_a_failure_and_still_names_the_record(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        returned = world.sqs(record_of(0, receive_count=5), max_receives=5)

        assert returned == ["message-0"]
        [outcome] = world.bus.outcomes
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.failure.retryable) == ("EndPoint.0001", True)
        assert world.telemetry.lines[0].result == outcome

    @pytest.mark.parametrize(("receive_count", "max_receives"), [(4, 5), (1, 2), (50, None)])
    def test_is_not_taken_for_it_before_time(self, world: World, receive_count: int, max_receives: int | None) -> None:
        world.services.refuse(unavailable(), times=None)

        returned = world.sqs(record_of(0, receive_count=receive_count), max_receives=max_receives)

        assert returned == ["message-0"]
        assert world.bus.outcomes == []

    def test_that_succeeds_is_a_success(self, world: World) -> None:
        assert world.sqs(record_of(0, receive_count=5), max_receives=5) == []
        assert world.bus.outcomes[0].failure is None

    def test_after_the_last_gives_up_too(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        assert world.sqs(record_of(0, receive_count=6), max_receives=5) == ["message-0"]
        assert len(world.bus.outcomes) == 1

    def test_of_a_record_that_another_held_up_gives_up_too(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=900.0), times=None)

        returned = world.sqs(*in_group("one", "two", receive_count=5), max_receives=5)

        assert returned == ["one", "two"]
        assert [outcome.cloud_event["data"]["endpoint_service_name"] for outcome in world.bus.outcomes] == [
            "one",
            "two",
        ]

    def test_whose_failure_cannot_be_published_names_the_record(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)
        world.bus.refuse()

        assert world.sqs(record_of(0, receive_count=5), max_receives=5) == ["message-0"]
        assert isinstance(world.telemetry.lines[0].result, Unsettled)


class TestPuttingOff:
    """What goes back comes again later each time, so that an outage does not use up the receives."""

    @pytest.mark.parametrize(
        ("receive_count", "seconds"),
        [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (50, 900), (5_000, 900)],
    )
    def test_grows_with_the_receives(self, world: World, receive_count: int, seconds: int) -> None:
        world.services.refuse(unavailable(), times=None)

        world.sqs(record_of(0, receive_count=receive_count))

        assert world.queue.put_offs == [(["handle-of-message-0"], seconds)]

    def test_has_jitter(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)
        world.jitter.share = 0.0

        world.sqs(record_of(0, receive_count=3))

        assert world.queue.put_offs[0][1] < 120

    @pytest.mark.parametrize("receive_count", [1, 6])
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_respects_a_throttle_window(self, world: World, receive_count: int, share: float) -> None:
        world.services.refuse(throttled(retry_after=300.0), times=None)
        world.jitter.share = share

        world.sqs(record_of(0, receive_count=receive_count))

        assert 300 <= world.queue.put_offs[0][1] <= 360

    def test_is_no_longer_than_sqs_allows(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=10 * 86_400.0), times=None)

        world.sqs(record_of(0))

        assert world.queue.put_offs[0][1] <= 12 * 3_600

    def test_is_the_same_for_a_whole_group(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=900.0), times=None)
        records = in_group("one", "two", "three")

        world.sqs(*records)

        [(handles, _)] = world.queue.put_offs
        assert handles == ["handle-of-one", "handle-of-two", "handle-of-three"]

    def test_is_for_what_goes_back_only(self, world: World) -> None:
        world.services.during = _fail_odd

        world.sqs(record_of(0), record_of(1), record_of(2))

        assert [handles for handles, _ in world.queue.put_offs] == [["handle-of-message-1"]]

    def test_is_for_nothing_that_is_given_up(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        world.sqs(record_of(0, receive_count=5), max_receives=5)

        assert {seconds for _, seconds in world.queue.put_offs} <= {0}


class TestDoubt:
    """A rename that may yet take effect, and whose claim is left to expire."""

    @pytest.fixture(autouse=True)
    def _ledger(self, world: World) -> None:
        dynamodb = FakeDynamoDb(world.clock.epoch)
        ledger = DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch, sleep=world.clock.sleep)
        world.ledger = ledger  # type: ignore[assignment]

    def test_puts_the_event_off_until_its_claim_has_expired(self, world: World) -> None:
        world.services.refuse(failures.timeout(in_doubt=True), times=None)

        world.sqs(record_of(0))

        [(_, delay)] = world.queue.put_offs
        assert delay >= 60 + 60

    def test_uses_up_no_receive_on_a_claim(self, world: World) -> None:
        world.services.refuse(failures.timeout(in_doubt=True), times=None)
        tries = []

        for receive_count in range(1, 6):
            before = len(world.services.calls_of("rename"))
            assert world.sqs(record_of(0, receive_count=receive_count), max_receives=5) == ["message-0"]
            tries.append(len(world.services.calls_of("rename")) - before)
            world.clock.seconds += world.queue.put_offs[-1][1]

        assert all(tries)
        assert len(tries) >= 3

    def test_that_http_handed_over_costs_one_receive(self, world: World) -> None:
        world.services.refuse(failures.timeout(in_doubt=True), times=None)
        event = cloud_event(id="event-0", vpc_endpoint_service_id=service_id(0))
        assert world.http(http_request(event)).status == 202
        calls = [len(world.services.calls_of("rename"))]

        for receive_count in range(1, 6):
            world.sqs(record_of(0, receive_count=receive_count), max_receives=5)
            calls.append(len(world.services.calls_of("rename")))
            world.clock.seconds += world.queue.put_offs[-1][1]

        assert [more - fewer for fewer, more in itertools.pairwise(calls)].count(0) == 1


class TestStraggler:
    """A thread that hangs where no time-out reaches it."""

    def test_is_not_waited_for(self, world: World) -> None:
        may_go_on = threading.Event()
        world.services.during = lambda target: (
            _hang(may_go_on) if target.vpc_endpoint_service_id == "service-0" else None
        )
        first = in_group("one", "two")
        others = [record_of(number) for number in range(1, 10)]

        began = time.monotonic()
        returned = world.sqs(*first, *others, seconds=0.6, report_seconds=4.3)
        took = time.monotonic() - began
        may_go_on.set()

        assert returned == ["one", "two"]
        assert took < HANGS_SECONDS / 2
        assert world.queue.put_offs == []

    def test_begins_nothing_when_it_wakes_up(self, world: World) -> None:
        may_go_on = threading.Event()
        world.services.during = lambda _: _hang(may_go_on)

        assert world.sqs(*in_group("one", "two"), seconds=0.6, report_seconds=4.3) == ["one", "two"]
        world.clock.seconds += 1_000
        may_go_on.set()
        time.sleep(0.05)

        assert [call.name for call in world.services.calls] == ["one"]

    def test_leaves_its_place_to_the_next_invocation(self, world: World) -> None:
        may_go_on = threading.Event()
        workers = Workers(1)
        at_work: list[int] = []

        workers.run([lambda: _hang(may_go_on), lambda: at_work.append(1)], within(0.05))
        workers.run([lambda: at_work.append(2)], within(HANGS_SECONDS))
        may_go_on.set()
        time.sleep(0.05)

        # then: what had not begun by the deadline never does
        assert at_work == [2]


class TestBinaryMode:
    def test_takes_the_attributes_from_the_message(self, world: World) -> None:
        record = sqs_record(
            rename_data(),
            attributes={
                "ce_id": ("String", "event-7"),
                "ce_source": ("String", "/cmdb/7"),
                "ce_time": ("String", "2026-11-24T02:10:52Z"),
                "ce_traceparent": ("String", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                "ce_team": ("String.custom", "network"),
                "ce_priority": ("Number", "5"),
                "unrelated": ("String", "x"),
            },
        )

        assert world.sqs(record) == []

        request = world.bus.outcomes[0].cloud_event["data"]["request"]
        assert request == cloud_event(id="event-7", source="/cmdb/7", time="2026-11-24T02:10:52Z") | {
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "team": "network",
            "priority": "5",
        }

    def test_takes_a_number_for_an_id(self, world: World) -> None:
        world.sqs(sqs_record(rename_data(), attributes={"ce_id": ("Number", "42")}))

        assert world.bus.outcomes[0].cloud_event["data"]["request"]["id"] == "42"

    @pytest.mark.parametrize("data_type", ["Binary", "Binary.custom"])
    def test_takes_bytes_for_no_identity(self, world: World, data_type: str) -> None:
        """An attribute in a type that CloudEvents does not use must not be taken for one that is missing."""
        world.sqs(sqs_record(rename_data(), attributes={"ce_id": (data_type, "ZXZlbnQtNw==")}))

        [outcome] = world.bus.outcomes
        identity = outcome.cloud_event["data"]["request"]["id"]
        assert (outcome.failure is None and identity == "event-7") or (
            outcome.failure is not None
            and outcome.failure.kind is Kind.INVALID
            and [violation.path for violation in outcome.failure.violations] == ["/id"]
        )

    @pytest.mark.parametrize("prefix", ["ce_", "ce-", "CE_", "Ce-", "cloudEvents:", "cloudEvents_", "CLOUDEVENTS_"])
    def test_takes_the_attributes_in_any_spelling(self, world: World, prefix: str) -> None:
        sent = {"id": "event-7", "source": "/cmdb/7", "time": "2026-11-24T02:10:52Z", "team": "network"}
        attributes = {f"{prefix}{name}": ("String", value) for name, value in sent.items()}

        assert world.sqs(sqs_record(rename_data(), attributes=attributes)) == []
        assert world.bus.outcomes[0].cloud_event["data"]["request"] == cloud_event() | sent

    def test_takes_two_spellings_of_one_value_for_one(self, world: World) -> None:
        attributes = {"ce_id": ("String", "event-7"), "cloudEvents:id": ("String", "event-7")}

        world.sqs(sqs_record(rename_data(), attributes=attributes))

        assert world.bus.outcomes[0].cloud_event["data"]["request"]["id"] == "event-7"

    @pytest.mark.parametrize("other", ["CE_ID", "ce-id", "cloudEvents:id", "cloudEvents_ID"])
    def test_refuses_two_spellings_of_two_values(self, world: World, other: str) -> None:
        attributes = {"ce_id": ("String", "event-7"), other: ("String", "event-8")}

        assert world.sqs(sqs_record(rename_data(), attributes=attributes)) == []

        [outcome] = world.bus.outcomes
        assert outcome.failure is not None
        assert outcome.failure.violations == (("/id", "comes with two values"),)
        assert world.services.calls == []

    def test_ignores_two_values_beside_a_structured_event(self, world: World) -> None:
        attributes = {"ce_id": ("String", "event-7"), "ce-id": ("String", "event-8")}

        world.sqs(sqs_record(cloud_event(id="inside"), attributes=attributes))

        assert world.bus.outcomes[0].cloud_event["data"]["request"]["id"] == "inside"

    @pytest.mark.parametrize("name", ["ceid", "x-ce_id", "cloudEvents-id", "id"])
    def test_takes_no_other_attribute(self, world: World, name: str) -> None:
        world.sqs(sqs_record(rename_data(), attributes={name: ("String", "event-7")}))

        assert world.bus.outcomes[0].cloud_event["data"]["request"]["id"] == "message-1"

    def test_falls_back_on_the_message(self, world: World) -> None:
        assert world.sqs(sqs_record(rename_data())) == []

        request = world.bus.outcomes[0].cloud_event["data"]["request"]
        assert (request["id"], request["source"]) == ("message-1", QUEUE_ARN)
        assert request["time"] == START.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def test_takes_no_attribute_of_the_message_for_one_of_a_structured_event(self, world: World) -> None:
        world.sqs(sqs_record(cloud_event(id="inside"), attributes={"ce_id": ("String", "outside")}))

        assert world.bus.outcomes[0].cloud_event["data"]["request"]["id"] == "inside"

    @pytest.mark.parametrize("name", ["ce_", "ce_ID", "ce_id.x", "ce_naïve", "CE_id"])
    def test_settles_an_event_with_attributes_of_strange_names(self, world: World, name: str) -> None:
        assert world.sqs(sqs_record(rename_data(), attributes={name: ("String", "x")})) == []
        assert len(world.bus.outcomes) == 1


class TestEnvelopes:
    """What SNS and EventBridge deliver to the queue."""

    def test_of_sns_hold_an_event(self, world: World) -> None:
        body: dict[str, Any] = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": "arn:aws:sns:eu-west-1:123456789012:renames.fifo",
            "Message": json.dumps(rename_data()),
            "Timestamp": "2026-11-24T02:10:52.123Z",
            "MessageAttributes": {"ce_id": {"Type": "String", "Value": "event-7"}},
        }

        assert world.sqs(sqs_record(body)) == []

        expected = cloud_event(id="event-7", source=body["TopicArn"], time=body["Timestamp"])
        assert world.bus.outcomes[0].cloud_event["data"]["request"] == expected
        assert world.services.names[SERVICE] == "orders"

    def test_of_eventbridge_hold_an_event(self, world: World) -> None:
        body: dict[str, Any] = {
            "version": "0",
            "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
            "detail-type": "Service renamed",
            "source": "com.example.cmdb",
            "account": "123456789012",
            "time": "2026-11-24T02:10:52Z",
            "region": "eu-west-1",
            "resources": [],
            "detail": rename_data(),
        }

        assert world.sqs(sqs_record(body)) == []

        expected = cloud_event(id=body["id"], source=body["source"], time=body["time"])
        assert world.bus.outcomes[0].cloud_event["data"]["request"] == expected


def test_the_response_is_json(world: World) -> None:
    world.services.refuse(unavailable(), times=None)

    assert json.loads(json.dumps(world.sqs(record_of(0)))) == ["message-0"]


class TestDelay:
    """How long what goes back is put off."""

    @pytest.mark.parametrize("receive_count", range(1, 13))
    def test_is_jittered_downwards_only_and_by_a_fifth_at_most(self, world: World, receive_count: int) -> None:
        longest = min(900, 30 * 2 ** (receive_count - 1))

        delays = [delay_of(world, receive_count, share) for share in (0.0, 0.25, 0.5, 1.0)]

        assert delays == sorted(set(delays))
        assert (delays[0], delays[-1]) == (longest * 4 // 5, longest)

    @pytest.mark.parametrize(("retry_after", "receive_count"), [(30.0, 1), (60.0, 6), (899.5, 50)])
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_is_shorter_where_a_throttle_says_so(
        self, world: World, retry_after: float, receive_count: int, share: float
    ) -> None:
        assert retry_after <= delay_of(world, receive_count, share, throttled(retry_after)) <= retry_after * 1.1 + 1

    @pytest.mark.parametrize("retry_after", [0.0, 1.0, 29.0])
    def test_is_never_shorter_than_the_first(self, world: World, retry_after: float) -> None:
        assert delay_of(world, 50, 0.0, throttled(retry_after)) == 30

    @pytest.mark.parametrize("receive_count", range(1, 13))
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_is_no_shorter_for_what_an_outage_promises(self, world: World, receive_count: int, share: float) -> None:
        hasty = refusal("EndPoint.0001", 503, retry_after=1.0)

        assert delay_of(world, receive_count, share, hasty) == delay_of(world, receive_count, share, unavailable())

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_is_longer_where_an_outage_says_so(self, world: World, share: float) -> None:
        patient = refusal("EndPoint.0001", 503, retry_after=3_600.0)

        assert 3_600 <= delay_of(world, 1, share, patient) <= 3_961

    @pytest.mark.parametrize(("retry_after", "receive_count"), [(31.0, 1), (3_600.0, 1), (3_600.0, 6), (36_000.0, 50)])
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_is_longer_where_the_other_side_says_so(
        self, world: World, retry_after: float, receive_count: int, share: float
    ) -> None:
        assert retry_after <= delay_of(world, receive_count, share, throttled(retry_after)) <= retry_after * 1.1 + 1

    @pytest.mark.parametrize("retry_after", [12 * 3_600.0, 86_400.0, 9e15])
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_leaves_room_below_the_twelve_hours_of_sqs(self, world: World, retry_after: float, share: float) -> None:
        """They count from the receive, which is an invocation ago."""
        longest_invocation = 900

        assert delay_of(world, 1, share, throttled(retry_after)) <= 12 * 3_600 - longest_invocation

    def test_is_a_whole_number_of_seconds(self, world: World) -> None:
        delay = delay_of(world, 1, 0.5, throttled(30.3))

        assert (type(delay), delay) == (int, 32)

    def test_of_a_group_is_the_one_of_its_first_record_to_go_back(self, world: World) -> None:
        # given: the first is settled, the second not, and the rest was received less often or more
        records = in_group("one", "two", "three", "four")
        for record, receive_count in zip(records, (7, 2, 1, 9), strict=True):
            record["attributes"]["ApproximateReceiveCount"] = str(receive_count)
        world.services.report("one")
        world.services.refuse(unavailable(), times=None)

        assert world.sqs(*records) == ["two", "three", "four"]

        assert world.queue.put_offs == [(["handle-of-two", "handle-of-three", "handle-of-four"], 60)]

    def test_of_a_group_is_told_at_once_and_of_each_group_by_itself(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)
        groups = [in_group(f"a{number}", f"b{number}", number=number, receive_count=number + 1) for number in range(3)]

        world.sqs(*[record for group in groups for record in group])

        assert sorted(world.queue.put_offs) == [
            (["handle-of-a0", "handle-of-b0"], 30),
            (["handle-of-a1", "handle-of-b1"], 60),
            (["handle-of-a2", "handle-of-b2"], 120),
        ]

    def test_is_nobody_elses(self, world: World) -> None:
        world.services.during = _fail_odd

        assert world.sqs(*in_group("one", "two", number=1), *in_group("three", "four", number=2)) == ["one", "two"]

        assert [handles for handles, _ in world.queue.put_offs] == [["handle-of-one", "handle-of-two"]]

    def test_of_records_without_groups_is_each_ones_own(self, world: World) -> None:
        # given: a standard queue
        world.services.refuse(unavailable(), times=None)

        world.sqs(*[record_of(number, group=None, receive_count=number + 1) for number in range(3)])

        assert sorted(world.queue.put_offs) == [
            (["handle-of-message-0"], 30),
            (["handle-of-message-1"], 60),
            (["handle-of-message-2"], 120),
        ]

    @pytest.mark.parametrize(
        "refused", [unavailable(), throttled(900.0), wrong_key()], ids=lambda failure: failure.kind
    )
    def test_after_the_last_receive_is_none(self, world: World, refused: Failure) -> None:
        """The next one is the one that makes a dead letter of it, and with it its group goes on."""
        world.services.refuse(refused, times=None)
        records = in_group("one", "two", receive_count=1)
        records[0]["attributes"]["ApproximateReceiveCount"] = "5"

        assert world.sqs(*records, max_receives=5) == ["one", "two"]

        assert world.queue.put_offs == [(["handle-of-one", "handle-of-two"], 0)]

    def test_before_the_last_receive_is_not_none(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        world.sqs(record_of(0, receive_count=4), max_receives=5)

        assert world.queue.put_offs == [(["handle-of-message-0"], 240)]

    def test_of_a_settled_record_is_none(self, world: World) -> None:
        world.services.refuse(from_reply("EndPoint.2003", "", status=400))

        assert world.sqs(*in_group("one", "two"), sqs_record("not JSON", message_id="broken", group="g")) == []

        assert world.queue.put_offs == []

    def test_of_a_record_whose_outcome_is_not_published_grows_too(self, world: World) -> None:
        world.bus.refuse()

        assert world.sqs(record_of(0, receive_count=2)) == ["message-0"]

        assert world.queue.put_offs == [(["handle-of-message-0"], 60)]

    def test_is_left_to_the_queue_that_nobody_knows(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        assert world.sqs(record_of(0), with_queue=False) == ["message-0"]

        assert world.queue.put_offs == []

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_of_all_receives_together_outlasts_an_outage_of_an_hour(self, world: World, share: float) -> None:
        [max_receives] = re.findall(r"^  MaxReceives:\n(?:    .*\n)*?    Default: ([0-9]+)$", TEMPLATE, re.MULTILINE)
        last = int(max_receives)
        world.services.refuse(unavailable(), times=None)
        world.jitter.share = share

        for receive_count in range(1, last + 1):
            assert world.sqs(record_of(0, receive_count=receive_count), max_receives=last) == ["message-0"]

        *delays, to_its_rest = [seconds for _, seconds in world.queue.put_offs]
        assert len(delays) == last - 1
        assert sum(delays) > 3_600
        assert to_its_rest == 0
        assert len(world.bus.outcomes) == 1


def delay_of(world: World, receive_count: int, share: float, failure: Failure | None = None) -> int:
    """Of one record that goes back, where the jitter picks this share of its range."""
    world.services.refuse(failure or unavailable(), times=None)
    world.jitter.share = share
    assert world.sqs(record_of(0, receive_count=receive_count)) == ["message-0"]
    return world.queue.put_offs[-1][1]
