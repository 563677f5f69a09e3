"""Dead letters: each gets its outcome and a place to rest, and can be brought again as what it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function import settings
from function.adapters.aws.client import MAX_REQUEST_ATTEMPTS, SqsClient
from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.sqs_queue import FifoQueue
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Kind
from function.domain.model import Outcome, RenameEvent, rfc3339
from function.domain.rename_service import Unsettled
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import cloud_event, rename_data, service_id, sqs_record
from tests.fakes.failures import not_found, throttled, unavailable
from tests.fakes.identifiers import QUEUE_ARN, SERVICE, START
from tests.fakes.lambda_context import FakeContext
from tests.fakes.queue import Forwarded
from tests.fakes.world import World

UNSETTLED_ARN = "arn:aws:sqs:eu-west-1:123456789012:unsettled.fifo"
MAX_RECEIVES = 3
MAX_ATTRIBUTES = 10
INVALID_EVENT = cloud_event(endpoint_service_name="no such name!")


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(lambda: world.clock.now().timestamp())


@pytest.fixture
def world(world: World) -> World:
    """With the real ledger: what a dead letter is told is what is remembered of its event."""
    world.services.names |= {service_id(number): "billing" for number in range(10)}
    return world


@pytest.fixture(autouse=True)
def _ledger(world: World, dynamodb: FakeDynamoDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=world.clock.sleep))
    client = dynamodb.client()
    world.ledger = DynamoDbLedger(client, "ledger", now=lambda: world.clock.now().timestamp())  # type: ignore[assignment]


def dead(world: World, record: dict[str, Any]) -> dict[str, Any]:
    """The record as it comes when its receives are used up: moved by the redrive policy, which stamps it anew."""
    world.clock.seconds += 7_200
    attributes = record["attributes"] | {
        "DeadLetterQueueSourceArn": QUEUE_ARN,
        "ApproximateReceiveCount": "1",
        "SentTimestamp": _timestamp(world.clock.now()),
    }
    return record | {"attributes": attributes, "eventSourceARN": UNSETTLED_ARN}


def redriven(world: World, moved: Forwarded) -> dict[str, Any]:
    """The record as it comes to the rename queue again: a new message of the same content."""
    world.clock.seconds += 86_400
    record = sqs_record(moved.body, message_id="redriven", group=moved.group)
    record["attributes"]["SentTimestamp"] = _timestamp(world.clock.now())
    record["messageAttributes"] = {name: _delivered(attribute) for name, attribute in moved.attributes.items()}
    return record


def _timestamp(time: datetime) -> str:
    return str(round(time.timestamp() * 1000))


def _delivered(attribute: dict[str, Any]) -> dict[str, Any]:
    """As Lambda delivers what was sent."""
    delivered = {"stringListValues": [], "binaryListValues": [], "dataType": attribute["DataType"]}
    if "BinaryValue" in attribute:
        return delivered | {"binaryValue": attribute["BinaryValue"]}
    return delivered | {"stringValue": attribute["StringValue"]}


def give_up(world: World, record: dict[str, Any]) -> Outcome:
    """The last receive of an event that cannot be settled."""
    world.services.refuse(unavailable(), times=None)
    last = record | {"attributes": record["attributes"] | {"ApproximateReceiveCount": str(MAX_RECEIVES)}}
    assert world.sqs(last, max_receives=MAX_RECEIVES) == [record["messageId"]]
    world.services.recover()
    return world.bus.outcomes[-1]


def last_two(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = world.bus.outcomes[-2:]
    return first.cloud_event, second.cloud_event


class TestOutcome:
    def test_of_a_renamed_event_is_published_again(self, world: World) -> None:
        # given: the function was killed between the outcome and its report, each time
        world.sqs(sqs_record())

        assert world.dead_letters(dead(world, sqs_record())) == []

        first, again = last_two(world)
        assert first == again
        assert first["type"] == "vpcep.endpoint_service.renamed.v1"

    def test_of_a_failed_event_is_published_again(self, world: World) -> None:
        world.services.refuse(not_found())
        world.sqs(sqs_record())

        assert world.dead_letters(dead(world, sqs_record())) == []

        first, again = last_two(world)
        assert first == again
        assert first["data"]["error"]["code"] == "EndPoint.2003"

    def test_of_a_superseded_event_is_published_again(self, world: World) -> None:
        world.sqs(sqs_record())
        stale = sqs_record(cloud_event(id="stale", time="2001-01-01T00:00:00Z"))
        world.sqs(stale)

        assert world.dead_letters(dead(world, stale)) == []

        first, again = last_two(world)
        assert first == again
        assert first["data"]["error"]["code"] == "Rename.Superseded"

    def test_of_a_given_up_event_is_published_again(self, world: World) -> None:
        outcome = give_up(world, sqs_record())

        assert world.dead_letters(dead(world, sqs_record())) == []

        first, again = last_two(world)
        assert first == again == outcome.cloud_event
        assert first["data"]["error"]["code"] == "EndPoint.0001"

    def test_of_an_event_that_was_given_up_twice_is_the_second_one(self, world: World) -> None:
        first = give_up(world, sqs_record())
        second = give_up(world, sqs_record())

        world.dead_letters(dead(world, sqs_record()))

        assert world.bus.outcomes[-1].id == second.id != first.id
        assert world.bus.outcomes[-1].cloud_event["data"]["follows"] == first.id

    def test_of_an_event_that_nobody_knows_is_that_it_was_abandoned(self, world: World) -> None:
        assert world.dead_letters(dead(world, sqs_record())) == []

        [outcome] = world.bus.outcomes
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.failure.kind) == ("Rename.Abandoned", Kind.INTERNAL)
        assert outcome.failure.retryable
        data = outcome.cloud_event["data"]
        assert data["request"] == cloud_event()
        assert (data["trigger"], data["attempts"], data["huawei_request_id"]) == ("sqs", 0, None)

    def test_of_an_abandoned_event_stays_the_same(self, world: World) -> None:
        world.dead_letters(dead(world, sqs_record()))
        world.clock.sleep(1_000)
        world.dead_letters(dead(world, sqs_record()))

        first, again = last_two(world)
        assert first == again

    def test_of_an_abandoned_event_is_followed_by_the_one_of_its_redrive(self, world: World) -> None:
        world.dead_letters(dead(world, sqs_record()))
        [moved] = world.queue.forwarded

        assert world.sqs(redriven(world, moved)) == []

        abandoned, renamed = last_two(world)
        assert renamed["type"] == "vpcep.endpoint_service.renamed.v1"
        assert renamed["data"]["follows"] == abandoned["id"] != renamed["id"]
        assert world.services.names[SERVICE] == "orders"

    def test_of_an_invalid_event_is_published_again(self, world: World) -> None:
        world.sqs(sqs_record(INVALID_EVENT))

        assert world.dead_letters(dead(world, sqs_record(INVALID_EVENT))) == []

        first, again = last_two(world)
        assert first == again
        assert first["data"]["error"]["code"] == "Rename.InvalidEvent"

    def test_of_an_invalid_event_is_the_same_after_a_redrive(self, world: World) -> None:
        """It is settled: there is no outcome for another one to follow."""
        world.dead_letters(dead(world, sqs_record(INVALID_EVENT)))
        [moved] = world.queue.forwarded

        world.sqs(redriven(world, moved))

        first, again = last_two(world)
        assert first == again

    @pytest.mark.parametrize("body", ["not JSON", "[]", "{}", '{"id": 7, "data": 0}'])
    def test_of_what_has_no_time_of_its_own_is_no_other_of_the_same_id(self, world: World, body: str) -> None:
        """The transport's time is another one after each move, and part of the outcome."""
        world.sqs(sqs_record(body))
        assert world.dead_letters(dead(world, sqs_record(body))) == []
        world.sqs(redriven(world, world.queue.forwarded[0]))

        outcomes = [outcome.cloud_event for outcome in world.bus.outcomes]
        assert len(outcomes) == 3
        assert {outcome["data"]["error"]["code"] for outcome in outcomes} == {"Rename.InvalidEvent"}
        assert len({outcome["id"] for outcome in outcomes}) == len({json.dumps(outcome) for outcome in outcomes})

    def test_of_an_invalid_event_needs_no_ledger(self, world: World, dynamodb: FakeDynamoDb) -> None:
        dynamodb.refuse("AccessDeniedException", times=10)

        assert world.dead_letters(dead(world, sqs_record("not JSON"))) == []

        assert len(world.bus.outcomes) == 1

    @pytest.mark.parametrize("body", [None, "not JSON"])
    def test_costs_no_call(self, world: World, body: str | None) -> None:
        world.dead_letters(dead(world, sqs_record(body)))

        assert world.services.calls == []

    def test_of_each_of_a_batch_is_published(self, world: World) -> None:
        records = [
            sqs_record(
                cloud_event(id=f"event-{number}", vpc_endpoint_service_id=service_id(number)), message_id=str(number)
            )
            for number in range(10)
        ]
        world.sqs(*records[:5])

        assert world.dead_letters(*[dead(world, record) for record in records]) == []

        seen_off = world.bus.outcomes[5:]
        assert [outcome.cloud_event["data"]["request"]["id"] for outcome in seen_off] == [
            f"event-{number}" for number in range(10)
        ]
        assert [outcome.failure is None for outcome in seen_off] == [True] * 5 + [False] * 5
        assert [moved.message_id for moved in world.queue.forwarded] == [str(number) for number in range(10)]

    def test_is_told_without_a_key_for_huawei_cloud(self, world: World) -> None:
        world.services.lose_credentials(failures.credentials("none", kind=Kind.ACCESS))

        assert world.dead_letters(dead(world, sqs_record())) == []

        assert world.bus.outcomes[0].cloud_event["data"]["project_id"] is None

    def test_is_told_once_to_the_operators(self, world: World) -> None:
        world.dead_letters(dead(world, sqs_record()))

        [line] = world.telemetry.lines
        assert isinstance(line.event, RenameEvent)
        assert line.result == world.bus.outcomes[0]
        assert line.trigger == "sqs"
        assert line.keys == {"message_id": "message-1", "sender_id": "AROAEXAMPLE:producer", "dead_letter": True}


class TestRefusals:
    def test_of_the_bus_leave_the_record_where_it_is(self, world: World) -> None:
        world.bus.refuse(times=1)

        assert world.dead_letters(dead(world, sqs_record())) == ["message-1"]

        assert (world.bus.outcomes, world.queue.forwarded, world.telemetry.defects) == ([], [], [])
        assert isinstance(world.telemetry.lines[0].result, Unsettled)
        # then: it comes again and rests
        assert world.dead_letters(dead(world, sqs_record())) == []
        assert (len(world.bus.outcomes), len(world.queue.forwarded)) == (1, 1)

    def test_of_the_bus_leave_an_invalid_record_where_it_is(self, world: World) -> None:
        world.bus.refuse()

        assert world.dead_letters(dead(world, sqs_record("not JSON"))) == ["message-1"]

        assert world.queue.forwarded == []

    @pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
    def test_of_the_ledger_leave_the_record_where_it_is(self, world: World, dynamodb: FakeDynamoDb, code: str) -> None:
        """Nobody can tell what became of the event, so nothing is told of it."""
        dynamodb.refuse(code, times=2)

        assert world.dead_letters(dead(world, sqs_record())) == ["message-1"]

        assert (world.bus.outcomes, world.queue.forwarded) == ([], [])
        assert world.telemetry.lines[0].result.failure is not None
        assert world.telemetry.lines[0].result.failure.code == "Rename.LedgerUnavailable"

    def test_of_the_queue_leave_the_record_and_lose_no_outcome(self, world: World) -> None:
        world.queue.refuses = True

        assert world.dead_letters(dead(world, sqs_record())) == ["message-1"]

        # then: it comes again, is told of in the same words, and rests
        world.queue.refuses = False
        world.clock.sleep(360)
        assert world.dead_letters(dead(world, sqs_record())) == []
        first, again = last_two(world)
        assert first == again
        assert len(world.queue.forwarded) == 1

    def test_leave_the_refused_record_alone_of_a_batch(self, world: World) -> None:
        records = [sqs_record(cloud_event(id=id_), message_id=id_, group=id_) for id_ in ("one", "two", "three")]
        world.bus.refuse(times=1)

        assert world.dead_letters(*[dead(world, record) for record in records]) == ["one"]

        assert [moved.message_id for moved in world.queue.forwarded] == ["two", "three"]

    def test_of_a_record_that_the_function_fails_on_leave_that_record_alone(self, world: World) -> None:
        """A batch that fails as a whole comes again as a whole, and who has been moved is moved twice."""
        records = [
            dead(world, sqs_record(cloud_event(id=id_), message_id=id_, group=id_)) for id_ in ("one", "two", "three")
        ]
        records[1]["attributes"]["SentTimestamp"] = "yesterday"

        assert world.dead_letters(*records) == ["two"]

        assert [type(defect) for defect in world.telemetry.defects] == [ValueError]
        assert [moved.message_id for moved in world.queue.forwarded] == ["one", "three"]


# ---- What moves


def in_notification(message: dict[str, Any]) -> dict[str, Any]:
    """As SNS sends it to a queue."""
    return {
        "Type": "Notification",
        "MessageId": "sns-1",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:renames.fifo",
        "Message": json.dumps(message),
        "Timestamp": rfc3339(START),
    }


def timeless() -> dict[str, Any]:
    """A whole event whose time is its transport's."""
    return {name: value for name, value in cloud_event().items() if name != "time"}


def seen_off(world: World, record: dict[str, Any]) -> Forwarded:
    assert world.dead_letters(record) == []
    return world.queue.forwarded[-1]


def text(value: str, data_type: str = "String") -> dict[str, str]:
    return {"StringValue": value, "DataType": data_type}


class TestMessage:
    @pytest.mark.parametrize(
        "body", [json.dumps(cloud_event(), indent=3), '{"a":1,"a":2}', "名前 🚀 \t\n", " ", "x" * 200_000]
    )
    def test_keeps_its_body_group_and_name(self, world: World, body: str) -> None:
        moved = seen_off(world, dead(world, sqs_record(body, message_id="message-7", group="group-7")))

        assert (moved.body, moved.group, moved.message_id) == (body, "group-7", "message-7")

    def test_without_a_group_is_one_by_itself(self, world: World) -> None:
        assert seen_off(world, dead(world, sqs_record(group=None))).group == "message-1"

    def test_keeps_attributes_of_its_own(self, world: World) -> None:
        attributes = {
            "team": ("String", "network"),
            "kind": ("String.custom", "x"),
            "priority": ("Number", "5"),
            "cost": ("Number.float", "1.5e-3"),
            "ce_team": ("String", "network"),
        }

        moved = seen_off(world, dead(world, sqs_record(attributes=attributes)))

        assert {name: moved.attributes[name] for name in attributes} == {
            name: text(value, data_type) for name, (data_type, value) in attributes.items()
        }

    @pytest.mark.parametrize("missing", [None, {}])
    def test_may_have_no_attributes(self, world: World, missing: dict[str, Any] | None) -> None:
        record = dead(world, sqs_record()) | {"messageAttributes": missing}

        assert seen_off(world, record).body == record["body"]

    def test_gets_its_identity_where_only_the_transport_knew_it(self, world: World) -> None:
        # given: nobody has seen the event before, so its time is the one it comes with
        moved = seen_off(world, dead(world, sqs_record(rename_data())))

        request = world.bus.outcomes[-1].cloud_event["data"]["request"]
        assert moved.attributes == {
            "ce_id": text("message-1"),
            "ce_source": text(QUEUE_ARN),
            "ce_time": text(request["time"]),
        }

    def test_keeps_an_identity_of_its_own(self, world: World) -> None:
        attributes = {
            "ce_id": ("Number", "42"),
            "ce_source": ("String", "/cmdb/7"),
            "ce_time": ("String.rfc3339", "2026-11-24T02:10:52+00:00"),
        }

        moved = seen_off(world, dead(world, sqs_record(rename_data(), attributes=attributes)))

        assert moved.attributes == {name: text(value, data_type) for name, (data_type, value) in attributes.items()}

    @pytest.mark.parametrize("prefix", ["ce-", "CE_", "cloudEvents:"])
    def test_keeps_an_identity_in_another_spelling(self, world: World, prefix: str) -> None:
        attributes = {f"{prefix}{name}": ("String", value) for name, value in {"id": "42", "source": "/cmdb/7"}.items()}

        moved = seen_off(world, dead(world, sqs_record(rename_data(), attributes=attributes)))

        assert moved.attributes.keys() == {*attributes, "ce_time"}

    @pytest.mark.parametrize(
        "body", [cloud_event() | {"time": None}, in_notification(rename_data())], ids=["whole", "SNS"]
    )
    def test_gets_no_identity_where_its_body_has_it(self, world: World, body: dict[str, Any]) -> None:
        assert seen_off(world, dead(world, sqs_record(body))).attributes == {}

    def test_may_begin_with_a_byte_order_mark(self, world: World) -> None:
        moved = seen_off(world, dead(world, sqs_record("\ufeff" + json.dumps(rename_data()))))

        assert moved.attributes["ce_id"] == text("message-1")

    def test_gets_of_its_identity_what_it_lacks(self, world: World) -> None:
        moved = seen_off(world, dead(world, sqs_record(rename_data(), attributes={"ce_source": ("String", "/cmdb/7")})))

        assert moved.attributes["ce_source"] == text("/cmdb/7")
        assert moved.attributes["ce_id"] == text("message-1")

    @pytest.mark.parametrize("own", [7, 8, 10])
    @pytest.mark.parametrize("structured", [True, False])
    def test_has_no_more_attributes_than_sqs_takes(self, world: World, own: int, structured: bool) -> None:
        """SQS takes ten; a message with more would never find its rest."""
        attributes = {f"custom_{number}": ("String", "x") for number in range(own)}
        body = cloud_event() if structured else rename_data()

        moved = seen_off(world, dead(world, sqs_record(body, attributes=attributes)))

        assert len(moved.attributes) <= MAX_ATTRIBUTES


class TestIdentity:
    """An event whose attributes are those of its transport is the same event before and after it moved."""

    BODIES = pytest.mark.parametrize(
        "body",
        [rename_data(), timeless(), in_notification(rename_data()), in_notification(timeless())],
        ids=["data alone", "no time", "data alone in SNS", "no time in SNS"],
    )

    @BODIES
    def test_is_the_same_for_a_settled_event(self, world: World, body: dict[str, Any]) -> None:
        record = sqs_record(body)
        world.sqs(record)

        moved = seen_off(world, dead(world, record))
        world.sqs(redriven(world, moved))

        assert len({outcome.id for outcome in world.bus.outcomes}) == 1
        assert len(world.bus.outcomes) == 3
        assert len(world.services.calls) == 1

    @BODIES
    def test_is_the_same_for_a_given_up_event(self, world: World, body: dict[str, Any]) -> None:
        record = sqs_record(body)
        outcome = give_up(world, record)

        moved = seen_off(world, dead(world, record))

        assert world.bus.outcomes[-1].cloud_event == outcome.cloud_event
        world.sqs(redriven(world, moved))
        assert world.bus.outcomes[-1].cloud_event["data"]["follows"] == outcome.id
        assert world.bus.outcomes[-1].cloud_event["data"]["request"] == outcome.cloud_event["data"]["request"]

    @BODIES
    def test_is_the_same_for_an_abandoned_event(self, world: World, body: dict[str, Any]) -> None:
        moved = seen_off(world, dead(world, sqs_record(body)))
        world.sqs(redriven(world, moved))

        abandoned, renamed = last_two(world)
        assert renamed["data"]["follows"] == abandoned["id"]
        assert renamed["data"]["request"] == abandoned["data"]["request"]

    def test_is_the_same_where_the_outcome_could_not_be_told_at_first(self, world: World) -> None:
        record = sqs_record(rename_data())
        world.bus.refuse(times=1)
        assert world.dead_letters(dead(world, record)) == ["message-1"]
        first_time = rfc3339(world.clock.now())

        moved = seen_off(world, dead(world, record))

        [outcome] = world.bus.outcomes
        assert outcome.cloud_event["data"]["request"]["time"] == first_time
        assert moved.attributes["ce_time"] == text(first_time)

    def test_does_not_become_newer(self, world: World) -> None:
        # given: an event that was given up, and one for the same service that was renamed after that
        record = sqs_record(rename_data(endpoint_service_name="older"))
        give_up(world, record)
        world.clock.sleep(60)
        newer = sqs_record(rename_data(endpoint_service_name="newer"), message_id="message-2")
        newer["attributes"]["SentTimestamp"] = _timestamp(START + timedelta(minutes=1))
        world.sqs(newer)

        moved = seen_off(world, dead(world, record))
        world.clock.sleep(86_400)
        world.sqs(redriven(world, moved))

        assert datetime.fromisoformat(moved.attributes["ce_time"]["StringValue"]) == START
        assert world.services.names[SERVICE] == "newer"
        last = world.bus.outcomes[-1]
        assert last.failure is not None
        assert last.failure.code == "Rename.Superseded"

    def test_does_not_become_newer_where_nobody_came_to_report(self, world: World) -> None:
        # given: an event that was tried and then abandoned, and one for the same service that was renamed in between
        record = sqs_record(rename_data(endpoint_service_name="older"))
        world.services.refuse(throttled(retry_after=900.0))
        assert world.sqs(record) == ["message-1"]
        world.clock.seconds += 60
        newer = sqs_record(rename_data(endpoint_service_name="newer"), message_id="message-2")
        newer["attributes"]["SentTimestamp"] = _timestamp(world.clock.now())
        assert world.sqs(newer) == []

        moved = seen_off(world, dead(world, record))
        world.sqs(redriven(world, moved))

        assert world.services.names[SERVICE] == "newer"


# ---- By the real queue


BYTES = b"\x00\xff binary \x80"
ENCODED = base64.b64encode(BYTES).decode()


@pytest.fixture
def sqs(aws: FakeAws) -> SqsClient:
    aws.answer("DeleteMessage", {}, times=None)
    return aws.sqs()


def url_of(aws: FakeAws, name: str) -> str:
    return f"{aws.url}/123456789012/{name}.fifo"


@pytest.fixture
def resting(aws: FakeAws, sqs: SqsClient) -> FifoQueue:
    return FifoQueue(sqs, url_of(aws, "dead"))


@pytest.fixture
def renames(aws: FakeAws, sqs: SqsClient) -> FifoQueue:
    return FifoQueue(sqs, url_of(aws, "renames"))


class TestForwarding:
    def test_keeps_bytes_as_they_are(self, world: World, aws: FakeAws, resting: FifoQueue) -> None:
        """On the wire they are in base64, once."""
        attributes = {"proof": ("Binary", ENCODED), "seal": ("Binary.png", ENCODED), "team": ("String", "network")}

        assert world.dead_letters(dead(world, sqs_record(attributes=attributes)), queue=resting) == []

        sent = aws.calls_of("SendMessage")[0]["MessageAttributes"]
        assert sent["proof"] == {"BinaryValue": ENCODED, "DataType": "Binary"}
        assert sent["seal"] == {"BinaryValue": ENCODED, "DataType": "Binary.png"}
        assert sent["team"] == text("network")

    def test_sends_nothing_that_sqs_does_not_know(self, world: World, aws: FakeAws, resting: FifoQueue) -> None:
        attributes = {"team": ("String", "network"), "priority": ("Number", "5")}

        assert world.dead_letters(dead(world, sqs_record(attributes=attributes)), queue=resting) == []

        [call] = aws.calls_of("SendMessage")
        assert call["QueueUrl"] == url_of(aws, "dead")
        assert call["MessageGroupId"] == SERVICE
        assert {frozenset(attribute) for attribute in call["MessageAttributes"].values()} == {
            frozenset({"StringValue", "DataType"})
        }

    def test_that_sqs_refuses_leaves_the_record(self, world: World, aws: FakeAws, resting: FifoQueue) -> None:
        aws.fail("SendMessage", "AccessDenied", status=403)

        assert world.dead_letters(dead(world, sqs_record()), queue=resting) == ["message-1"]

    def test_twice_is_once_for_sqs(self, world: World, aws: FakeAws, resting: FifoQueue) -> None:
        """By its deduplication id, where the first time was not heard of."""
        aws.hang_up("SendMessage", times=MAX_REQUEST_ATTEMPTS)
        for record in (sqs_record(), sqs_record(), sqs_record(message_id="message-2")):
            world.dead_letters(dead(world, record), queue=resting)

        *first, second, other = [call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage")]
        assert len(first) == MAX_REQUEST_ATTEMPTS
        assert set(first) == {second} != {other}


# ---- Redrive


def message(number: int, *, group: str = SERVICE, attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """As SQS hands it over."""
    given = {"MessageAttributes": attributes} if attributes else {}
    return {
        "MessageId": f"message-{number}",
        "ReceiptHandle": f"handle-{number}",
        "Body": f"body {number}",
        "Attributes": {"MessageGroupId": group},
        **given,
    }


def holding(aws: FakeAws, *batches: list[dict[str, Any]]) -> None:
    for batch in batches:
        aws.answer("ReceiveMessage", {"Messages": batch})
    aws.answer("ReceiveMessage", {}, times=None)


def sent(aws: FakeAws) -> list[str]:
    return [call["MessageBody"] for call in aws.calls_of("SendMessage")]


def deleted(aws: FakeAws) -> list[str]:
    return [call["ReceiptHandle"] for call in aws.calls_of("DeleteMessage")]


class TestMoveAll:
    def test_moves_every_message(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        holding(aws, [message(1), message(2)], [message(3)])

        assert resting.move_all(renames, within(60)) == 3

        assert sent(aws) == ["body 1", "body 2", "body 3"]
        assert deleted(aws) == ["handle-1", "handle-2", "handle-3"]
        assert {call["QueueUrl"] for call in aws.calls_of("SendMessage")} == {url_of(aws, "renames")}
        assert {
            call["QueueUrl"] for operation in ("ReceiveMessage", "DeleteMessage") for call in aws.calls_of(operation)
        } == {url_of(aws, "dead")}

    def test_of_an_empty_queue_moves_nothing(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        holding(aws)

        assert resting.move_all(renames, within(60)) == 0
        assert (sent(aws), deleted(aws)) == ([], [])

    def test_deletes_a_message_after_it_is_sent_and_before_the_next(
        self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue
    ) -> None:
        holding(aws, [message(1), message(2)])

        resting.move_all(renames, within(60))

        assert [call.operation for call in aws.calls] == [
            "ReceiveMessage",
            "SendMessage",
            "DeleteMessage",
            "SendMessage",
            "DeleteMessage",
            "ReceiveMessage",
        ]

    def test_keeps_groups_and_attributes(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        attributes = {
            "ce_id": text("event-1"),
            "priority": text("5", "Number"),
            "proof": {"BinaryValue": ENCODED, "DataType": "Binary"},
        }
        holding(aws, [message(1, group="one", attributes=attributes), message(2, group="two")])

        resting.move_all(renames, within(60))

        first, second = aws.calls_of("SendMessage")
        assert (first["MessageGroupId"], second["MessageGroupId"]) == ("one", "two")
        assert (first["MessageAttributes"], second["MessageAttributes"]) == (attributes, {})

    def test_asks_for_all_that_it_keeps(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        holding(aws)

        resting.move_all(renames, within(60))

        [call] = aws.calls_of("ReceiveMessage")
        assert call["MessageAttributeNames"] == ["All"]
        assert call["MessageSystemAttributeNames"] == ["MessageGroupId"]
        assert call["MaxNumberOfMessages"] <= 10

    def test_stops_when_its_time_is_used_up(
        self, world: World, aws: FakeAws, sqs: SqsClient, renames: FifoQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        holding(aws, [message(1)], [message(2)], [message(3)])
        delete = sqs.delete_message

        def delete_slowly(deadline: Deadline, **request: Any) -> dict[str, Any]:
            answer = delete(deadline, **request)
            world.clock.sleep(5.0)
            return answer

        monkeypatch.setattr(sqs, "delete_message", delete_slowly)

        assert FifoQueue(sqs, url_of(aws, "dead")).move_all(renames, world.clock.until(10.0)) == 2

        assert (sent(aws), deleted(aws)) == (["body 1", "body 2"], ["handle-1", "handle-2"])
        assert len(aws.calls_of("ReceiveMessage")) == 2

    def test_without_time_takes_nothing(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        assert resting.move_all(renames, within(-1.0)) == 0
        assert aws.calls == []

    @pytest.mark.parametrize("refused", [0, 1, 2])
    def test_stops_where_the_other_queue_refuses(
        self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue, refused: int
    ) -> None:
        holding(aws, [message(0), message(1), message(2)], [message(3)])
        for _ in range(refused):
            aws.answer("SendMessage", {"MessageId": "1"})
        aws.fail("SendMessage", "AccessDenied", status=403, times=None)

        assert resting.move_all(renames, within(60)) == refused

        # then: what was not sent is still there, and nobody tries the rest
        assert deleted(aws) == [f"handle-{number}" for number in range(refused)]
        assert len(aws.calls_of("SendMessage")) == refused + 1
        assert len(aws.calls_of("ReceiveMessage")) == 1

    def test_that_may_take_nothing_is_told(self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue) -> None:
        aws.fail("ReceiveMessage", "AccessDenied", status=403)

        with pytest.raises(ClientError, match="AccessDenied"):
            resting.move_all(renames, within(60))

        assert sent(aws) == []

    def test_that_may_not_delete_is_told_and_moves_nothing_more(
        self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue
    ) -> None:
        aws.recover()
        holding(aws, [message(1), message(2)])
        aws.fail("DeleteMessage", "AccessDenied", status=403, times=None)

        with pytest.raises(ClientError, match="AccessDenied"):
            resting.move_all(renames, within(60))

        assert sent(aws) == ["body 1"]

    def test_of_a_message_that_was_not_deleted_is_once_for_sqs(
        self, aws: FakeAws, resting: FifoQueue, renames: FifoQueue
    ) -> None:
        holding(aws, [message(1)], [message(1), message(2)])

        resting.move_all(renames, within(60))

        first, again, other = [call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage")]
        assert first == again != other


Handler = Callable[..., dict[str, Any]]


@pytest.fixture
def handler_with(app: ModuleType, aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Handler]:
    """The handler as it comes up with further settings."""

    def start(**environment: str) -> Handler:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        function = app.Function(settings.load(ENVIRONMENT | {"AWS_ENDPOINT_URL": aws.url} | environment))
        monkeypatch.setattr(app, "_function", function)
        handler: Handler = app.handler
        return handler

    return start


class TestHandler:
    @pytest.fixture
    def queues(self, aws: FakeAws) -> dict[str, str]:
        return {"RENAME_QUEUE_URL": url_of(aws, "renames"), "DEAD_LETTER_QUEUE_URL": url_of(aws, "dead")}

    def test_redrives_when_it_is_told_to(
        self, handler_with: Callable[..., Handler], aws: FakeAws, queues: dict[str, str]
    ) -> None:
        holding(aws, [message(1), message(2)])
        aws.answer("DeleteMessage", {}, times=None)

        answer = handler_with(**queues)({"redrive": True}, FakeContext())

        assert answer == {"moved": 2}
        assert {call["QueueUrl"] for call in aws.calls_of("SendMessage")} == {queues["RENAME_QUEUE_URL"]}
        assert {call["QueueUrl"] for call in aws.calls_of("ReceiveMessage")} == {queues["DEAD_LETTER_QUEUE_URL"]}
        assert deleted(aws) == ["handle-1", "handle-2"]

    def test_keeps_time_to_report_a_redrive(
        self, handler_with: Callable[..., Handler], aws: FakeAws, queues: dict[str, str], app: ModuleType
    ) -> None:
        holding(aws, [message(1)])

        answer = handler_with(**queues)({"redrive": True}, FakeContext(app.REPORT_MARGIN_SECONDS - 0.5))

        assert answer == {"moved": 0}
        assert aws.calls == []

    @pytest.mark.parametrize("lacking", ["RENAME_QUEUE_URL", "DEAD_LETTER_QUEUE_URL"])
    def test_names_the_settings_that_a_redrive_needs(
        self, handler_with: Callable[..., Handler], aws: FakeAws, queues: dict[str, str], lacking: str
    ) -> None:
        del queues[lacking]

        with pytest.raises(settings.SettingsError, match=lacking):
            handler_with(**queues)({"redrive": True}, FakeContext())

        assert aws.calls == []

    @pytest.mark.parametrize("value", [False, None, 1, "true", {}])
    def test_takes_nothing_else_for_a_redrive(
        self,
        handler_with: Callable[..., Handler],
        aws: FakeAws,
        queues: dict[str, str],
        app: ModuleType,
        value: object,
    ) -> None:
        with pytest.raises(app.UnknownTriggerError):
            handler_with(**queues)({"redrive": value}, FakeContext())

        assert aws.calls == []

    def test_sees_dead_letters_off_where_it_knows_their_queue(
        self, handler_with: Callable[..., Handler], aws: FakeAws, queues: dict[str, str], world: World
    ) -> None:
        record = dead(world, sqs_record(cloud_event(time="2020-01-01T00:00:00Z")))

        answer = handler_with(**queues)({"Records": [record]}, FakeContext())

        assert answer == {"batchItemFailures": []}
        assert [outcome["data"]["error"]["code"] for outcome in aws.outcomes] == ["Rename.Abandoned"]
        [call] = aws.calls_of("SendMessage")
        assert (call["QueueUrl"], call["MessageBody"]) == (queues["DEAD_LETTER_QUEUE_URL"], record["body"])

    def test_calls_aws_for_what_its_role_may_do_and_nothing_else(
        self, handler_with: Callable[..., Handler], aws: FakeAws, queues: dict[str, str], world: World
    ) -> None:
        aws.answer("TransactWriteItems", {})
        record = dead(world, sqs_record(cloud_event(time="2020-01-01T00:00:00Z")))

        answer = handler_with(**queues, LEDGER_TABLE="ledger")({"Records": [record]}, FakeContext())

        assert answer == {"batchItemFailures": []}
        assert [call.operation for call in aws.calls] == ["TransactWriteItems", "PutEvents", "SendMessage"]
