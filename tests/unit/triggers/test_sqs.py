"""The queue's trigger: what of a batch is settled, what is returned, in what order, and for how long."""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
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
from tests.fakes.identifiers import QUEUE_ARN, START
from tests.fakes.world import World
from tests.template import ROOT

HANGS_SECONDS = 10.0
IN_DOUBT = failures.timeout(in_doubt=True)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def world(world: World) -> World:
    world.services.names |= {service_id(number): "billing" for number in range(200)}
    return world


def record_of(number: int, *, group: str | None = "its service", **arguments: Any) -> dict[str, Any]:
    """A record that renames the service of this number, in that service's group."""
    event = cloud_event(id=f"event-{number}", vpc_endpoint_service_id=service_id(number))
    group = service_id(number) if group == "its service" else group
    return sqs_record(event, message_id=f"message-{number}", group=group, **arguments)


def records_of(*numbers: int) -> list[dict[str, Any]]:
    return [record_of(number) for number in numbers]


def in_group(*names: str, number: int = 0, **arguments: Any) -> list[dict[str, Any]]:
    """Records of one service, in order; each is called as the name that it gives."""
    events = [cloud_event(id=n, vpc_endpoint_service_id=service_id(number), endpoint_service_name=n) for n in names]
    group = service_id(number)
    return [sqs_record(event, message_id=event["id"], group=group, **arguments) for event in events]


def renamed(world: World) -> list[str]:
    """The services that were called for, in order."""
    return [call.target.vpc_endpoint_service_id for call in world.services.calls_of("rename")]


def names_called(world: World) -> list[str | None]:
    return [call.name for call in world.services.calls_of("rename")]


def request_in_outcome(world: World) -> dict[str, Any]:
    [outcome] = world.bus.outcomes
    request: dict[str, Any] = outcome.cloud_event["data"]["request"]
    return request


@pytest.mark.parametrize("size", [0, 1, 10])
def test_batch_that_is_settled_returns_no_record(world: World, size: int) -> None:
    assert world.sqs(*records_of(*range(size))) == []

    services = [service_id(number) for number in range(size)]
    assert sorted(renamed(world)) == services
    assert [world.services.names[service] for service in services] == ["orders"] * size
    assert len(world.bus.outcomes) == size
    assert world.queue.extensions == []


@pytest.mark.parametrize(
    "broken",
    [
        *("", "not JSON", "[]", "null", "{}", '{"data": {}}', '{"a":1,"a":2}'),
        *("\ud800", "\x00", "[" * 100_000, "9" * 9_999),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_batch_with_a_broken_record_renames_the_other_nine(world: World, broken: str) -> None:
    records = records_of(*range(10))
    records[3]["body"] = broken

    # then: the broken one is settled too, by a failure
    assert world.sqs(*records) == []
    assert len(renamed(world)) == 9
    assert [outcome.failure.kind for outcome in world.bus.outcomes if outcome.failure] == [Kind.INVALID]


@pytest.mark.parametrize("refuses", ["bus", "Huawei Cloud"])
def test_record_without_an_outcome_is_returned_with_the_rest_of_its_group(world: World, refuses: str) -> None:
    if refuses == "bus":
        world.bus.refuse(times=1)
    else:
        world.services.crash(RuntimeError("orders"))

    assert world.sqs(*in_group("one", "two"), record_of(1), parallel=1) == ["one", "two"]


@pytest.mark.parametrize("name", ["SentTimestamp", "ApproximateReceiveCount", "receiptHandle"])
def test_record_that_sqs_would_not_deliver_does_not_keep_others_from_being_returned(world: World, name: str) -> None:
    strange, delivered = records_of(1, 2)
    strange["attributes"][name] = ""
    strange.pop(name, None)
    world.services.refuse(throttled(), times=None)

    assert set(world.sqs(strange, delivered)) == {"message-1", "message-2"}
    assert "handle-of-message-2" in [handle for handles, _ in world.queue.extensions for handle in handles]


def test_each_record_is_logged_once(world: World) -> None:
    world.services.refuse(unavailable(), times=None)

    world.sqs(record_of(0, receive_count=3), sqs_record("not JSON", message_id="broken", group="g"))

    logged = {line.keys["message_id"]: line for line in world.telemetry.lines}
    assert len(world.telemetry.lines) == len(logged) == 2
    assert isinstance(logged["message-0"].event, RenameEvent)
    assert isinstance(logged["message-0"].result, Unsettled)
    assert isinstance(logged["broken"].event, InvalidEvent)
    assert isinstance(logged["broken"].result, Outcome)
    assert (logged["message-0"].trigger, logged["message-0"].keys["receive_count"]) == ("sqs", 3)


def test_group_is_handled_in_order(world: World) -> None:
    names = ["one", "two", "three", "four", "five"]

    assert world.sqs(*in_group(*names), *records_of(*range(1, 6))) == []

    own = [call.name for call in world.services.calls if call.target.vpc_endpoint_service_id == service_id(0)]
    assert own == names
    assert world.services.names[service_id(0)] == "five"


@pytest.mark.parametrize("settled", [0, 1])
def test_group_is_returned_from_its_first_unsettled_record_on(world: World, settled: int) -> None:
    names = ["one", "two", "three"]
    world.services.report("one", times=settled)
    world.services.refuse(throttled(retry_after=900.0))

    assert world.sqs(*in_group(*names)) == names[settled:]
    assert names_called(world) == names[: settled + 1]
    assert world.services.names[service_id(0)] == ["billing", "one"][settled]
    assert len(world.bus.outcomes) == settled


def test_group_is_returned_before_an_event_that_other_settings_would_accept(world: World) -> None:
    world.services.refuse(throttled(retry_after=900.0))
    too_long = "n" * 17

    assert world.sqs(*in_group("one", too_long)) == ["one", too_long]
    assert world.bus.outcomes == []


@pytest.mark.parametrize("error", [RuntimeError(), RenameFailedError(wrong_key())], ids=["crash", "refused key"])
def test_group_that_is_returned_does_not_block_other_groups(world: World, error: Exception) -> None:
    def fail_for_odd_services(target: Target) -> None:
        if int(target.vpc_endpoint_service_id.rpartition("-")[2]) % 2 == 1:
            raise error

    world.services.during = fail_for_odd_services

    returned = world.sqs(*in_group("one", "two", number=1), *records_of(*range(2, 10)))

    assert returned == ["one", "two", "message-3", "message-5", "message-7", "message-9"]
    assert len(world.bus.outcomes) == 4
    assert sorted(itertools.chain(*[handles for handles, _ in world.queue.extensions])) == sorted(
        f"handle-of-{message_id}" for message_id in returned
    )


@pytest.mark.parametrize(("body", "called"), [("not JSON", ["one", "three"]), (None, ["one", "two", "three"])])
def test_group_continues_after_a_final_failure(world: World, body: str | None, called: list[str]) -> None:
    records = in_group("one", "two", "three")
    records[1]["body"] = body or records[1]["body"]
    world.services.report("one")
    world.services.refuse(refusal("EndPoint.1003", 400))

    assert world.sqs(*records) == []
    assert names_called(world) == called


@pytest.mark.parametrize("where", ["parse", "handled"])
def test_group_is_returned_with_a_delay_after_an_exception(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    calls: list[None] = []

    def fail_first(*_: object, **__: object) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise RuntimeError

    if where == "handled":
        monkeypatch.setattr(world.telemetry, "handled", fail_first)
    else:
        read = vars(Record)["attributes"].fget
        monkeypatch.setattr(Record, "attributes", property(lambda record: fail_first() or read(record)))

    assert world.sqs(*in_group("one", "two", "three")) == ["one", "two", "three"]

    assert len(world.telemetry.defects) == 1
    assert world.queue.extensions == [(["handle-of-one", "handle-of-two", "handle-of-three"], 30)]
    assert "two" not in names_called(world)


def test_record_without_a_group_is_a_group_by_itself(world: World) -> None:
    # given: a standard queue
    world.services.crash(RuntimeError())

    assert len(world.sqs(*[record_of(number, group=None) for number in range(10)])) == 1
    assert len(world.bus.outcomes) == 9


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_groups_than_the_limit_are_handled_concurrently(world: World, limit: int) -> None:
    running = most = 0
    lock = threading.Lock()

    def during(_: Target) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    world.services.during = during

    assert world.sqs(*records_of(*range(10)), parallel=limit) == []
    assert most == limit


def test_records_of_one_group_are_never_handled_concurrently(world: World) -> None:
    running: set[str] = set()
    twice: list[str] = []

    def during(target: Target) -> None:
        service = target.vpc_endpoint_service_id
        if service in running:
            twice.append(service)
        running.add(service)
        time.sleep(0.005)
        running.remove(service)

    world.services.during = during
    records = [record for number in range(3) for record in in_group("one", "two", "three", number=number)]
    for number, record in enumerate(records):
        record["messageId"] = f"message-{number}"

    assert world.sqs(*records) == []
    assert twice == []
    assert len(world.bus.outcomes) == 9


@pytest.mark.parametrize("receive_count", [5, 6])
def test_last_receive_gives_up_with_a_failure_and_still_returns_the_record(world: World, receive_count: int) -> None:
    world.services.refuse(unavailable(), times=None)

    assert world.sqs(record_of(0, receive_count=receive_count), max_receives=5) == ["message-0"]

    [outcome] = world.bus.outcomes
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.retryable) == ("EndPoint.0001", True)
    assert world.telemetry.lines[0].result == outcome


@pytest.mark.parametrize(("receive_count", "max_receives"), [(4, 5), (1, 2), (50, None)])
def test_earlier_receive_does_not_give_up(world: World, receive_count: int, max_receives: int | None) -> None:
    world.services.refuse(unavailable(), times=None)

    assert world.sqs(record_of(0, receive_count=receive_count), max_receives=max_receives) == ["message-0"]
    assert world.bus.outcomes == []
    assert world.queue.extensions[0][1] > 0


def test_last_receive_that_succeeds_is_a_success(world: World) -> None:
    assert world.sqs(record_of(0, receive_count=5), max_receives=5) == []
    assert world.bus.outcomes[0].failure is None


def test_last_receive_of_a_record_behind_an_unsettled_one_gives_up_too(world: World) -> None:
    world.services.refuse(throttled(retry_after=900.0), times=None)

    assert world.sqs(*in_group("one", "two", receive_count=5), max_receives=5) == ["one", "two"]
    given_up = [outcome.cloud_event["data"] for outcome in world.bus.outcomes]
    assert [data["endpoint_service_name"] for data in given_up] == ["one", "two"]
    # then: the second one, which was not tried, has not the error code of the first
    assert [data["error"]["code"] for data in given_up] == [throttled().code, "Rename.InProgress"]
    assert [data["error"]["http_status"] for data in given_up] == [429, None]


def test_rejected_extension_of_visibility_is_logged(world: World) -> None:
    world.services.refuse(throttled(), times=None)
    world.queue.refuses = True

    assert world.sqs(record_of(0)) == ["message-0"]
    assert world.telemetry.not_extended == ["AccessDenied"]


def test_last_receive_whose_failure_cannot_be_published_returns_the_record(world: World) -> None:
    world.services.refuse(unavailable(), times=None)
    world.bus.refuse()

    assert world.sqs(record_of(0, receive_count=5), max_receives=5) == ["message-0"]
    assert isinstance(world.telemetry.lines[0].result, Unsettled)


# ---- In doubt: a rename that may yet take effect, and whose claim is left to expire


@pytest.fixture
def _real_ledger(world: World) -> None:
    dynamodb = FakeDynamoDb(world.clock.epoch)
    ledger = DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch, sleep=world.clock.sleep)
    world.ledger = ledger  # type: ignore[assignment]


def calls_at_each_receive(world: World) -> list[int]:
    """How many renames each of five receives tries, each of them as late as the trigger asks for."""
    tries = []
    for receive_count in range(1, 6):
        before = len(renamed(world))
        assert world.sqs(record_of(0, receive_count=receive_count), max_receives=5) == ["message-0"]
        tries.append(len(renamed(world)) - before)
        world.clock.seconds += world.queue.extensions[-1][1]
    return tries


@pytest.mark.usefixtures("_real_ledger")
def test_event_in_doubt_is_returned_until_its_claim_has_expired(world: World) -> None:
    world.services.refuse(IN_DOUBT, times=None)

    assert all(calls_at_each_receive(world))
    assert world.queue.extensions[0][1] >= 60 + 60


@pytest.mark.usefixtures("_real_ledger")
def test_event_in_doubt_from_http_uses_up_one_receive(world: World) -> None:
    world.services.refuse(IN_DOUBT, times=None)
    event = cloud_event(id="event-0", vpc_endpoint_service_id=service_id(0))
    assert world.http(http_request(event)).status == 202

    assert calls_at_each_receive(world).count(0) == 1


# ---- A thread that hangs where no timeout reaches it


def test_hanging_thread_is_not_waited_for(world: World) -> None:
    may_go_on = threading.Event()
    world.services.during = lambda target: (
        target.vpc_endpoint_service_id != service_id(0) or may_go_on.wait(HANGS_SECONDS)
    )

    began = time.monotonic()
    returned = world.sqs(*in_group("one", "two"), *records_of(*range(1, 10)), seconds=0.6, report_seconds=4.3)
    took = time.monotonic() - began
    may_go_on.set()

    assert returned == ["one", "two"]
    assert took < HANGS_SECONDS / 2
    assert world.queue.extensions == []


def test_visibility_of_a_group_whose_later_record_hangs_is_not_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    world.services.refuse(throttled(), times=None)
    monkeypatch.setattr(world.bus, "publish", lambda *_: may_go_on.wait(HANGS_SECONDS))
    invalid = sqs_record({}, message_id="invalid", group=service_id(0))

    returned = world.sqs(*in_group("one"), invalid, seconds=0.6, report_seconds=4.3)
    may_go_on.set()

    assert returned == ["one", "invalid"]
    assert world.queue.extensions == []


def test_hanging_thread_begins_nothing_when_it_resumes(world: World) -> None:
    may_go_on = threading.Event()
    world.services.during = lambda _: may_go_on.wait(HANGS_SECONDS)

    assert world.sqs(*in_group("one", "two"), seconds=0.6, report_seconds=4.3) == ["one", "two"]
    world.clock.seconds += 1_000
    may_go_on.set()
    time.sleep(0.05)

    assert names_called(world) == ["one"]


def test_hanging_thread_leaves_its_place_to_the_next_invocation(world: World) -> None:
    may_go_on = threading.Event()
    workers = Workers(1)
    done: list[int] = []

    workers.run([lambda: may_go_on.wait(HANGS_SECONDS), lambda: done.append(1)], within(0.05))
    workers.run([lambda: done.append(2)], within(HANGS_SECONDS))
    may_go_on.set()
    time.sleep(0.05)

    # then: what had not begun by the deadline never does
    assert done == [2]


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "CE_", "Ce-", "cloudEvents:", "cloudEvents_", "CLOUDEVENTS_"])
def test_message_attributes_of_any_spelling_are_attributes_of_the_event(world: World, prefix: str) -> None:
    sent = {
        "id": ("String", "event-7"),
        "source": ("String", "/cmdb/7"),
        "time": ("String", "2026-11-24T02:10:52Z"),
        "traceparent": ("String", TRACEPARENT),
        "team": ("String.custom", "network"),
        "priority": ("Number", "5"),
    }
    attributes = {f"{prefix}{name}": attribute for name, attribute in sent.items()} | {"unrelated": ("String", "x")}

    assert world.sqs(sqs_record(rename_data(), attributes=attributes)) == []
    assert request_in_outcome(world) == cloud_event() | {name: value for name, (_, value) in sent.items()}


@pytest.mark.parametrize(
    ("body", "attributes", "event_id"),
    [
        (rename_data(), {"ce_id": ("Number", "42")}, "42"),
        (rename_data(), {"ce_id": ("String", "event-7"), "cloudEvents:id": ("String", "event-7")}, "event-7"),
        *[
            (rename_data(), {name: ("String", "x")}, "message-1")
            for name in ("ceid", "x-ce_id", "cloudEvents-id", "id", "ce_", "ce_id.x", "ce_naïve")
        ],
        (cloud_event(id="inside"), {"ce_id": ("String", "outside")}, "inside"),
        (cloud_event(id="inside"), {"ce_id": ("String", "event-7"), "ce-id": ("String", "event-8")}, "inside"),
    ],
)
def test_id_of_an_event_is_in_its_body_or_a_message_attribute_or_the_message_id(
    world: World, body: dict[str, Any], attributes: dict[str, tuple[str, str]], event_id: str
) -> None:
    world.sqs(sqs_record(body, attributes=attributes))

    assert request_in_outcome(world)["id"] == event_id


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        *[
            ({"ce_id": (data_type, "ZXZlbnQtNw==")}, "must be UTF-8 text, percent-encoded in a header")
            for data_type in ("Binary", "Binary.custom")
        ],
        *[
            ({"ce_id": ("String", "event-7"), other: ("String", "event-8")}, "comes with two values")
            for other in ("CE_ID", "ce-id", "cloudEvents:id", "cloudEvents_ID")
        ],
    ],
)
def test_message_attribute_that_is_bytes_or_has_two_values_is_a_violation(
    world: World, attributes: dict[str, tuple[str, str]], message: str
) -> None:
    assert world.sqs(sqs_record(rename_data(), attributes=attributes)) == []

    [outcome] = world.bus.outcomes
    assert outcome.failure is not None
    assert outcome.failure.violations == (("/id", message),)
    assert world.services.calls == []


def test_data_without_attributes_has_those_of_its_message(world: World) -> None:
    assert world.sqs(sqs_record(rename_data())) == []

    request = request_in_outcome(world)
    assert (request["id"], request["source"]) == ("message-1", QUEUE_ARN)
    assert request["time"] == START.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def delay_of(world: World, receive_count: int, share: float, failure: Failure | None = None) -> int:
    """Of one record that is returned, where the jitter picks this share of its range."""
    world.services.refuse(failure or unavailable(), times=None)
    world.jitter.share = share
    assert world.sqs(record_of(0, receive_count=receive_count)) == ["message-0"]
    return world.queue.extensions[-1][1]


@pytest.mark.parametrize("receive_count", [*range(1, 13), 50, 5_000])
def test_delay_grows_with_the_receives_and_is_jittered_downwards_by_a_fifth_at_most(
    world: World, receive_count: int
) -> None:
    longest = min(900, 30 * 2 ** (receive_count - 1))

    delays = [delay_of(world, receive_count, share) for share in (0.0, 0.25, 0.5, 1.0)]

    assert delays == sorted(set(delays))
    assert (delays[0], delays[-1]) == (longest * 4 // 5, longest)
    assert {len(handles) for handles, _ in world.queue.extensions} == {1}


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(
    ("retry_after", "receive_count"),
    [
        *[(30.0, 1), (60.0, 6), (300.0, 6), (899.5, 50)],  # shorter than without Retry-After
        *[(31.0, 1), (300.0, 1), (3_600.0, 1), (3_600.0, 6), (36_000.0, 50)],  # longer
    ],
)
def test_delay_after_throttling_is_retry_after_and_a_tenth_more_at_most(
    world: World, retry_after: float, receive_count: int, share: float
) -> None:
    assert retry_after <= delay_of(world, receive_count, share, throttled(retry_after)) <= retry_after * 1.1 + 1


@pytest.mark.parametrize("retry_after", [0.0, 1.0, 29.0])
def test_delay_is_never_shorter_than_the_first(world: World, retry_after: float) -> None:
    assert delay_of(world, 50, 0.0, throttled(retry_after)) == 30


@pytest.mark.parametrize("receive_count", range(1, 13))
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_delay_in_an_outage_is_not_shortened_by_retry_after(world: World, receive_count: int, share: float) -> None:
    hasty = refusal("EndPoint.0001", 503, retry_after=1.0)

    assert delay_of(world, receive_count, share, hasty) == delay_of(world, receive_count, share, unavailable())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_delay_in_an_outage_is_extended_by_retry_after(world: World, share: float) -> None:
    assert 3_600 <= delay_of(world, 1, share, refusal("EndPoint.0001", 503, retry_after=3_600.0)) <= 3_961


@pytest.mark.parametrize("retry_after", [12 * 3_600.0, 86_400.0, 9e15])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_delay_is_an_invocation_shorter_than_the_twelve_hours_of_sqs(
    world: World, retry_after: float, share: float
) -> None:
    """They count from the receive, which is an invocation ago."""
    longest_invocation = 900

    assert delay_of(world, 1, share, throttled(retry_after)) <= 12 * 3_600 - longest_invocation


def test_delay_of_a_group_is_that_of_its_first_record_to_be_returned(world: World) -> None:
    # given: the first is settled, the second not, and the rest was received less often or more
    records = in_group("one", "two", "three", "four")
    for record, receive_count in zip(records, (7, 2, 1, 9), strict=True):
        record["attributes"]["ApproximateReceiveCount"] = str(receive_count)
    world.services.report("one")
    world.services.refuse(unavailable(), times=None)

    assert world.sqs(*records) == ["two", "three", "four"]
    assert world.queue.extensions == [(["handle-of-two", "handle-of-three", "handle-of-four"], 60)]


def test_delay_of_a_group_is_set_by_one_request_for_each_group(world: World) -> None:
    world.services.refuse(unavailable(), times=None)
    groups = [in_group(f"a{number}", f"b{number}", number=number, receive_count=number + 1) for number in range(3)]

    world.sqs(*itertools.chain(*groups))

    assert sorted(world.queue.extensions) == [
        ([f"handle-of-a{number}", f"handle-of-b{number}"], 30 * 2**number) for number in range(3)
    ]


@pytest.mark.parametrize("refused", [unavailable(), throttled(900.0), wrong_key()], ids=lambda failure: failure.kind)
def test_delay_after_the_last_receive_is_none(world: World, refused: Failure) -> None:
    """The next receive moves the record to the dead-letter queue, and unblocks its group."""
    world.services.refuse(refused, times=None)
    records = in_group("one", "two", receive_count=1)
    records[0]["attributes"]["ApproximateReceiveCount"] = "5"

    assert world.sqs(*records, max_receives=5) == ["one", "two"]
    assert world.queue.extensions == [(["handle-of-one", "handle-of-two"], 0)]


def test_delay_is_left_to_a_queue_whose_url_is_not_set(world: World) -> None:
    world.services.refuse(unavailable(), times=None)

    assert world.sqs(record_of(0), with_queue=False) == ["message-0"]
    assert world.queue.extensions == []


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_delays_of_all_receives_together_outlast_an_outage_of_an_hour(world: World, share: float) -> None:
    template = (ROOT / "template.yml").read_text(encoding="utf-8")
    [max_receives] = re.findall(r"^  MaxReceives:\n(?:    .*\n)*?    Default: ([0-9]+)$", template, re.MULTILINE)
    last = int(max_receives)
    world.services.refuse(unavailable(), times=None)
    world.jitter.share = share

    for receive_count in range(1, last + 1):
        assert world.sqs(record_of(0, receive_count=receive_count), max_receives=last) == ["message-0"]

    *delays, after_the_last = [seconds for _, seconds in world.queue.extensions]
    assert len(delays) == last - 1
    assert sum(delays) > 3_600
    assert after_the_last == 0
    assert len(world.bus.outcomes) == 1
