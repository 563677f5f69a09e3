"""Dead letters: the outcome of each is published, and the message is forwarded so that it can be redriven."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function import settings
from function.adapters.aws.client import MAX_REQUEST_ATTEMPTS, SqsClient
from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.adapters.aws.sqs_queue import FifoQueue, MoveError
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Kind
from function.domain.model import Outcome, RenameEvent, rfc3339
from function.domain.rename_service import Unsettled
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.events import cloud_event, rename_data, service_id, sns_notification, sqs_record
from tests.fakes.failures import not_found, throttled, unavailable
from tests.fakes.identifiers import QUEUE_ARN, SERVICE, START
from tests.fakes.lambda_context import FakeContext
from tests.fakes.queue import Forwarded
from tests.fakes.world import World

MoveAll = Callable[..., int]
HandlerWith = Callable[..., Callable[..., dict[str, Any]]]

UNSETTLED_ARN = "arn:aws:sqs:eu-west-1:123456789012:unsettled.fifo"
MAX_RECEIVES = 3
MAX_ATTRIBUTES = 10
INVALID_EVENT = cloud_event(endpoint_service_name="no such name!")


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(world.clock.epoch)


@pytest.fixture
def world(world: World) -> World:
    """With the real ledger: the outcome of a dead letter is what is remembered of its event."""
    world.services.names |= {service_id(number): "billing" for number in range(10)}
    return world


@pytest.fixture(autouse=True)
def _ledger(world: World, dynamodb: FakeDynamoDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=world.clock.sleep))
    world.ledger = DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch)  # type: ignore[assignment]


def sent_at(world: World, record: dict[str, Any]) -> dict[str, Any]:
    """The record, sent now."""
    return record | {"attributes": record["attributes"] | {"SentTimestamp": str(round(world.clock.epoch() * 1000))}}


def dead(world: World, record: dict[str, Any]) -> dict[str, Any]:
    """The record as it comes when its receives are used up: moved by the redrive policy, which stamps it anew."""
    world.clock.seconds += 7_200
    moved = sent_at(world, record) | {"eventSourceARN": UNSETTLED_ARN}
    moved["attributes"] |= {"DeadLetterQueueSourceArn": QUEUE_ARN, "ApproximateReceiveCount": "1"}
    return moved


def conclude(world: World, record: dict[str, Any]) -> Forwarded:
    """Handle the record as a dead letter; what is forwarded to the dead-letter queue."""
    assert world.dead_letters(dead(world, record)) == []
    return world.queue.forwarded[-1]


def redrive(world: World, moved: Forwarded) -> list[str]:
    """Handle the message as it comes to the rename queue again: a new one of the same content."""
    world.clock.seconds += 86_400
    record = sent_at(world, sqs_record(moved.body, message_id="redriven", group=moved.group))
    record["messageAttributes"] = {
        name: {key[0].lower() + key[1:]: value for key, value in attribute.items()}
        | {"stringListValues": [], "binaryListValues": []}
        for name, attribute in moved.attributes.items()
    }
    return world.sqs(record)


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


@pytest.mark.parametrize(
    "code", [None, "EndPoint.2003", "Rename.Superseded", "Rename.InvalidEvent", "EndPoint.0001"], ids=str
)
def test_outcome_that_an_event_has_already_is_published_again(world: World, code: str | None) -> None:
    record = sqs_record()
    match code:
        case "EndPoint.2003":
            world.services.refuse(not_found())
        case "Rename.Superseded":
            world.sqs(record)
            record = sqs_record(cloud_event(id="stale", time="2001-01-01T00:00:00Z"))
        case "Rename.InvalidEvent":
            record = sqs_record(INVALID_EVENT)
    if code == "EndPoint.0001":
        give_up(world, record)
    else:
        world.sqs(record)

    conclude(world, record)

    first, again = last_two(world)
    assert first == again
    assert first["data"].get("error", {}).get("code") == code


def test_outcome_of_an_event_that_was_given_up_twice_is_the_second_one(world: World) -> None:
    first, second = give_up(world, sqs_record()), give_up(world, sqs_record())

    conclude(world, sqs_record())

    assert world.bus.outcomes[-1].id == second.id != first.id
    assert world.bus.outcomes[-1].cloud_event["data"]["follows"] == first.id


def test_event_without_an_outcome_is_abandoned_and_logged_once(world: World) -> None:
    conclude(world, sqs_record())

    [outcome] = world.bus.outcomes
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.kind) == ("Rename.Abandoned", Kind.INTERNAL)
    assert outcome.failure.retryable
    data = outcome.cloud_event["data"]
    assert data["request"] == cloud_event()
    assert (data["trigger"], data["attempts"], data["huawei_request_id"]) == ("sqs", 0, None)
    [line] = world.telemetry.lines
    assert isinstance(line.event, RenameEvent)
    assert (line.result, line.trigger) == (outcome, "sqs")
    assert line.keys == {"message_id": "message-1", "sender_id": "AROAEXAMPLE:producer", "dead_letter": True} | {
        "queue_error_code": None
    }
    assert world.services.calls == []


def test_outcome_of_an_abandoned_event_stays_the_same(world: World) -> None:
    conclude(world, sqs_record())
    world.clock.sleep(1_000)
    conclude(world, sqs_record())

    first, again = last_two(world)
    assert first == again


def test_outcome_after_a_redrive_follows_that_of_the_abandoned_event(world: World) -> None:
    assert redrive(world, conclude(world, sqs_record())) == []

    abandoned, renamed = last_two(world)
    assert renamed["type"] == "vpcep.endpoint_service.renamed.v1"
    assert renamed["data"]["follows"] == abandoned["id"] != renamed["id"]
    assert world.services.names[SERVICE] == "orders"


def test_outcome_of_an_invalid_event_is_the_same_after_a_redrive(world: World) -> None:
    """It is settled: there is no outcome for another one to follow."""
    redrive(world, conclude(world, sqs_record(INVALID_EVENT)))

    first, again = last_two(world)
    assert first == again


@pytest.mark.parametrize("body", ["not JSON", "[]", "{}", '{"id": 7, "data": 0}'])
def test_different_outcomes_of_a_body_without_a_time_have_different_ids(world: World, body: str) -> None:
    """The transport's time is another one after each move, and part of the outcome."""
    world.sqs(sqs_record(body))
    redrive(world, conclude(world, sqs_record(body)))

    outcomes = [outcome.cloud_event for outcome in world.bus.outcomes]
    assert len(outcomes) == 3
    assert {outcome["data"]["error"]["code"] for outcome in outcomes} == {"Rename.InvalidEvent"}
    assert len({outcome["id"] for outcome in outcomes}) == len({json.dumps(outcome) for outcome in outcomes})


def test_invalid_dead_letter_needs_no_ledger_and_no_call(world: World, dynamodb: FakeDynamoDb) -> None:
    dynamodb.refuse("AccessDeniedException", times=10)

    conclude(world, sqs_record("not JSON"))

    assert (len(world.bus.outcomes), world.services.calls) == (1, [])


def test_dead_letter_is_concluded_without_a_key_for_huawei_cloud(world: World) -> None:
    world.services.lose_credentials(failures.credentials("none", kind=Kind.ACCESS))

    conclude(world, sqs_record())

    assert world.bus.outcomes[0].cloud_event["data"]["project_id"] is None


def test_each_dead_letter_of_a_batch_is_concluded(world: World) -> None:
    numbers = [str(number) for number in range(10)]
    events = [cloud_event(id=number, vpc_endpoint_service_id=f"service-{number}") for number in numbers]
    records = [sqs_record(event, message_id=event["id"]) for event in events]
    world.sqs(*records[:5])

    assert world.dead_letters(*[dead(world, record) for record in records]) == []

    outcomes = world.bus.outcomes[5:]
    assert [outcome.cloud_event["data"]["request"]["id"] for outcome in outcomes] == numbers
    assert [outcome.failure is None for outcome in outcomes] == [True] * 5 + [False] * 5
    assert [moved.message_id for moved in world.queue.forwarded] == numbers


@pytest.mark.parametrize("body", [None, "not JSON"], ids=["valid", "invalid"])
def test_dead_letter_stays_until_its_outcome_is_published(world: World, body: str | None) -> None:
    world.bus.refuse(times=1)

    assert world.dead_letters(dead(world, sqs_record(body))) == ["message-1"]

    assert (world.bus.outcomes, world.queue.forwarded, world.telemetry.defects) == ([], [], [])
    assert isinstance(world.telemetry.lines[0].result, Unsettled)
    # then: it comes again
    conclude(world, sqs_record(body))
    assert (len(world.bus.outcomes), len(world.queue.forwarded)) == (1, 1)


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException"])
def test_dead_letter_stays_without_an_outcome_if_the_ledger_refuses(
    world: World, dynamodb: FakeDynamoDb, code: str
) -> None:
    """It is unknown then what became of the event."""
    dynamodb.refuse(code, times=2)

    assert world.dead_letters(dead(world, sqs_record())) == ["message-1"]

    assert (world.bus.outcomes, world.queue.forwarded) == ([], [])
    assert world.telemetry.lines[0].result.failure is not None
    assert world.telemetry.lines[0].result.failure.code == "Rename.LedgerUnavailable"


def test_dead_letter_that_the_queue_refuses_comes_again_with_the_same_outcome(world: World) -> None:
    world.queue.refuses = True
    assert world.dead_letters(dead(world, sqs_record())) == ["message-1"]

    world.queue.refuses = False
    world.clock.sleep(360)
    conclude(world, sqs_record())

    first, again = last_two(world)
    assert first == again
    assert len(world.queue.forwarded) == 1
    assert [line.keys["queue_error_code"] for line in world.telemetry.lines] == ["AccessDenied", None]


@pytest.mark.parametrize("fails", ["bus", "record"])
def test_dead_letter_that_fails_stays_and_the_others_of_its_batch_are_forwarded(world: World, fails: str) -> None:
    """A batch that fails as a whole comes again as a whole, and what has been forwarded is forwarded twice."""
    ids = ["one", "two", "three"]
    records = [dead(world, sqs_record(cloud_event(id=id_), message_id=id_, group=id_)) for id_ in ids]
    if fails == "bus":
        world.bus.refuse(times=1)
    else:
        records[0]["attributes"]["SentTimestamp"] = "yesterday"

    assert world.dead_letters(*records) == ["one"]
    assert [type(defect) for defect in world.telemetry.defects] == ([] if fails == "bus" else [ValueError])
    assert [moved.message_id for moved in world.queue.forwarded] == ["two", "three"]


def timeless() -> dict[str, Any]:
    """A whole event whose time is its transport's."""
    return {name: value for name, value in cloud_event().items() if name != "time"}


def text(value: str, data_type: str = "String") -> dict[str, str]:
    return {"StringValue": value, "DataType": data_type}


def texts(attributes: dict[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {name: text(value, data_type) for name, (data_type, value) in attributes.items()}


@pytest.mark.parametrize(
    "body", [json.dumps(cloud_event(), indent=3), '{"a":1,"a":2}', "名前 🚀 \t\n", " ", "x" * 200_000]
)
def test_forwarded_message_keeps_its_body_group_and_id(world: World, body: str) -> None:
    moved = conclude(world, sqs_record(body, message_id="message-7", group="group-7"))

    assert (moved.body, moved.group, moved.message_id) == (body, "group-7", "message-7")


def test_forwarded_message_without_a_group_is_a_group_by_itself(world: World) -> None:
    assert conclude(world, sqs_record(group=None)).group == "message-1"


def test_forwarded_message_keeps_its_attributes(world: World) -> None:
    attributes = {
        "team": ("String", "network"),
        "kind": ("String.custom", "x"),
        "priority": ("Number", "5"),
        "cost": ("Number.float", "1.5e-3"),
        "ce_team": ("String", "network"),
    }

    assert conclude(world, sqs_record(attributes=attributes)).attributes.items() >= texts(attributes).items()


@pytest.mark.parametrize("missing", [None, {}])
def test_message_without_attributes_is_forwarded(world: World, missing: dict[str, Any] | None) -> None:
    record = sqs_record() | {"messageAttributes": missing}

    assert conclude(world, record).body == record["body"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_forwarded_data_is_given_the_identity_that_only_its_transport_knew(world: World, mark: str) -> None:
    moved = conclude(world, sqs_record(mark + json.dumps(rename_data())))

    time = world.bus.outcomes[-1].cloud_event["data"]["request"]["time"]
    assert moved.attributes == {"ce_id": text("message-1"), "ce_source": text(QUEUE_ARN), "ce_time": text(time)}


def test_forwarded_data_keeps_an_identity_of_its_own(world: World) -> None:
    attributes = {
        "ce_id": ("Number", "42"),
        "ce_source": ("String", "/cmdb/7"),
        "ce_time": ("String.rfc3339", "2026-11-24T02:10:52+00:00"),
    }

    assert conclude(world, sqs_record(rename_data(), attributes=attributes)).attributes == texts(attributes)


@pytest.mark.parametrize("prefix", ["ce-", "CE_", "cloudEvents:"])
def test_forwarded_data_keeps_an_identity_in_another_spelling(world: World, prefix: str) -> None:
    attributes = {f"{prefix}id": ("String", "42"), f"{prefix}source": ("String", "/cmdb/7")}

    moved = conclude(world, sqs_record(rename_data(), attributes=attributes))

    assert moved.attributes.keys() == {*attributes, "ce_time"}


@pytest.mark.parametrize(
    "body", [cloud_event() | {"time": None}, sns_notification(rename_data())], ids=["whole", "SNS"]
)
def test_forwarded_event_that_has_an_identity_in_its_body_is_given_none(world: World, body: dict[str, Any]) -> None:
    assert conclude(world, sqs_record(body)).attributes == {}


@pytest.mark.parametrize("own", [7, 8, 10])
@pytest.mark.parametrize("body", [cloud_event(), rename_data()], ids=["structured", "binary"])
def test_forwarded_message_has_no_more_attributes_than_sqs_allows(world: World, own: int, body: dict[str, Any]) -> None:
    attributes = {f"custom_{number}": ("String", "x") for number in range(own)}

    assert len(conclude(world, sqs_record(body, attributes=attributes)).attributes) <= MAX_ATTRIBUTES


# ---- An event whose attributes are those of its transport is the same event before and after its message is moved

identified_by_transport = pytest.mark.parametrize(
    "body",
    [rename_data(), timeless(), sns_notification(rename_data()), sns_notification(timeless())],
    ids=["data alone", "no time", "data alone in SNS", "no time in SNS"],
)


@identified_by_transport
def test_settled_event_has_the_same_outcome_after_a_redrive(world: World, body: dict[str, Any]) -> None:
    record = sqs_record(body)
    world.sqs(record)

    redrive(world, conclude(world, record))

    assert len({outcome.id for outcome in world.bus.outcomes}) == 1
    assert len(world.bus.outcomes) == 3
    assert len(world.services.calls) == 1


@identified_by_transport
@pytest.mark.parametrize("is_given_up", [True, False], ids=["given up", "abandoned"])
def test_unsettled_event_is_the_same_request_after_a_redrive(
    world: World, body: dict[str, Any], is_given_up: bool
) -> None:
    record = sqs_record(body)
    if is_given_up:
        give_up(world, record)

    moved = conclude(world, record)

    assert len({json.dumps(outcome.cloud_event) for outcome in world.bus.outcomes}) == 1
    redrive(world, moved)
    first, renamed = last_two(world)
    assert renamed["data"]["follows"] == first["id"]
    assert renamed["data"]["request"] == first["data"]["request"]


def test_event_keeps_its_first_time_if_its_outcome_could_not_be_published_at_first(world: World) -> None:
    record = sqs_record(rename_data())
    world.bus.refuse(times=1)
    assert world.dead_letters(dead(world, record)) == ["message-1"]
    first_time = rfc3339(world.clock.now())

    moved = conclude(world, record)

    [outcome] = world.bus.outcomes
    assert outcome.cloud_event["data"]["request"]["time"] == first_time
    assert moved.attributes["ce_time"] == text(first_time)


@pytest.mark.parametrize("is_given_up", [True, False], ids=["given up", "abandoned"])
def test_event_does_not_become_newer_by_a_redrive(world: World, is_given_up: bool) -> None:
    older = sqs_record(rename_data(endpoint_service_name="older"))
    if is_given_up:
        give_up(world, older)
    else:
        world.services.refuse(throttled(retry_after=900.0))
        assert world.sqs(older) == ["message-1"]
    world.clock.seconds += 60
    newer = sqs_record(rename_data(endpoint_service_name="newer"), message_id="message-2")
    assert world.sqs(sent_at(world, newer)) == []

    moved = conclude(world, older)
    redrive(world, moved)

    assert not is_given_up or datetime.fromisoformat(moved.attributes["ce_time"]["StringValue"]) == START
    assert world.services.names[SERVICE] == "newer"
    last = world.bus.outcomes[-1]
    assert last.failure is not None
    assert last.failure.code == "Rename.Superseded"


# ---- Through the real client of SQS

ENCODED = base64.b64encode(b"\x00\xff binary \x80").decode()


@pytest.fixture
def sqs(aws: FakeAws) -> SqsClient:
    aws.answer("DeleteMessage", {}, times=None)
    return aws.sqs()


def url_of(aws: FakeAws, name: str) -> str:
    return f"{aws.url}/123456789012/{name}.fifo"


@pytest.fixture
def dead_letter_queue(aws: FakeAws, sqs: SqsClient) -> FifoQueue:
    return FifoQueue(sqs, url_of(aws, "dead"))


@pytest.fixture
def move_all(aws: FakeAws, sqs: SqsClient, dead_letter_queue: FifoQueue) -> MoveAll:
    """Moves all dead letters to the rename queue."""
    rename_queue = FifoQueue(sqs, url_of(aws, "renames"))
    return lambda deadline=None: dead_letter_queue.move_all(rename_queue, deadline or within(60))


def test_forwarded_bytes_are_in_base64_once(world: World, aws: FakeAws, dead_letter_queue: FifoQueue) -> None:
    attributes = {"proof": ("Binary", ENCODED), "seal": ("Binary.png", ENCODED), "team": ("String", "network")}

    assert world.dead_letters(dead(world, sqs_record(attributes=attributes)), queue=dead_letter_queue) == []

    [call] = aws.calls_of("SendMessage")
    assert (call["QueueUrl"], call["MessageGroupId"]) == (url_of(aws, "dead"), SERVICE)
    assert call["MessageAttributes"] == {
        "proof": {"BinaryValue": ENCODED, "DataType": "Binary"},
        "seal": {"BinaryValue": ENCODED, "DataType": "Binary.png"},
        "team": text("network"),
    }


def test_message_forwarded_twice_has_one_deduplication_id(
    world: World, aws: FakeAws, dead_letter_queue: FifoQueue
) -> None:
    aws.hang_up("SendMessage", times=MAX_REQUEST_ATTEMPTS)
    for record in (sqs_record(), sqs_record(), sqs_record(message_id="message-2")):
        world.dead_letters(dead(world, record), queue=dead_letter_queue)

    *first, second, other = [call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage")]
    assert len(first) == MAX_REQUEST_ATTEMPTS
    assert set(first) == {second} != {other}


def message(number: int, *, group: str = SERVICE, attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """As SQS delivers it."""
    return {
        "MessageId": f"message-{number}",
        "ReceiptHandle": f"handle-{number}",
        "Body": f"body {number}",
        "Attributes": {"MessageGroupId": group},
    } | ({"MessageAttributes": attributes} if attributes else {})


def holding(aws: FakeAws, *batches: list[dict[str, Any]]) -> None:
    for batch in batches:
        aws.answer("ReceiveMessage", {"Messages": batch})
    aws.answer("ReceiveMessage", {}, times=None)


def sent(aws: FakeAws) -> list[str]:
    return [call["MessageBody"] for call in aws.calls_of("SendMessage")]


def deleted(aws: FakeAws) -> list[str]:
    return [call["ReceiptHandle"] for call in aws.calls_of("DeleteMessage")]


def urls(aws: FakeAws, operation: str) -> set[str]:
    return {call["QueueUrl"] for call in aws.calls_of(operation)}


def test_redrive_sends_then_deletes_each_message(aws: FakeAws, move_all: MoveAll) -> None:
    holding(aws, [message(1), message(2)], [message(3)])

    assert move_all() == 3

    assert sent(aws) == ["body 1", "body 2", "body 3"]
    assert deleted(aws) == ["handle-1", "handle-2", "handle-3"]
    assert urls(aws, "SendMessage") == {url_of(aws, "renames")}
    assert urls(aws, "ReceiveMessage") == urls(aws, "DeleteMessage") == {url_of(aws, "dead")}
    move = ["SendMessage", "DeleteMessage"]
    assert [call.operation for call in aws.calls] == [
        *("ReceiveMessage", *move, *move),
        *("ReceiveMessage", *move),
        "ReceiveMessage",
    ]


def test_redrive_keeps_groups_and_attributes(aws: FakeAws, move_all: MoveAll) -> None:
    binary = {"BinaryValue": ENCODED, "DataType": "Binary"}
    attributes = {"ce_id": text("event-1"), "priority": text("5", "Number"), "proof": binary}
    holding(aws, [message(1, group="one", attributes=attributes), message(2, group="two")])

    move_all()

    received, _ = aws.calls_of("ReceiveMessage")
    assert received["MessageAttributeNames"] == ["All"]
    assert received["MessageSystemAttributeNames"] == ["MessageGroupId"]
    assert received["MaxNumberOfMessages"] <= 10
    first, second = aws.calls_of("SendMessage")
    assert (first["MessageGroupId"], second["MessageGroupId"]) == ("one", "two")
    assert (first["MessageAttributes"], second["MessageAttributes"]) == (attributes, {})


def test_redrive_ends_when_its_time_is_used_up(
    world: World, aws: FakeAws, sqs: SqsClient, move_all: MoveAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding(aws, [message(1)], [message(2)], [message(3)])
    delete = sqs.delete_message

    def delete_slowly(deadline: Deadline, **request: Any) -> dict[str, Any]:
        answer = delete(deadline, **request)
        world.clock.sleep(5.0)
        return answer

    monkeypatch.setattr(sqs, "delete_message", delete_slowly)

    assert move_all(world.clock.until(10.0)) == 2
    assert (sent(aws), deleted(aws)) == (["body 1", "body 2"], ["handle-1", "handle-2"])
    assert len(aws.calls_of("ReceiveMessage")) == 2


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_redrive_ends_at_the_first_message_that_the_other_queue_refuses(
    aws: FakeAws, move_all: MoveAll, refused: int
) -> None:
    holding(aws, [message(0), message(1), message(2)], [message(3)])
    for _ in range(refused):
        aws.answer("SendMessage", {"MessageId": "1"})
    aws.fail("SendMessage", "AccessDenied", status=403, times=None)

    with pytest.raises(MoveError, match="AccessDenied"):
        move_all()

    # then: what was not sent is still there, and the rest is not tried
    assert deleted(aws) == [f"handle-{number}" for number in range(refused)]
    assert len(aws.calls_of("SendMessage")) == refused + 1
    assert len(aws.calls_of("ReceiveMessage")) == 1


@pytest.mark.parametrize(("operation", "moved"), [("ReceiveMessage", []), ("DeleteMessage", ["body 1"])])
def test_redrive_that_lacks_a_permission_raises_and_sends_nothing_more(
    aws: FakeAws, move_all: MoveAll, operation: str, moved: list[str]
) -> None:
    aws.recover()
    if operation == "DeleteMessage":
        holding(aws, [message(1), message(2)])
    aws.fail(operation, "AccessDenied", status=403, times=None)

    with pytest.raises(ClientError, match="AccessDenied"):
        move_all()

    assert sent(aws) == moved


def test_redrive_of_a_message_that_was_not_deleted_repeats_its_deduplication_id(
    aws: FakeAws, move_all: MoveAll
) -> None:
    holding(aws, [message(1)], [message(1), message(2)])

    move_all()

    first, again, other = [call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage")]
    assert first == again != other


@pytest.fixture
def handler_with(handler_with: HandlerWith, aws: FakeAws) -> HandlerWith:
    queues = {"RENAME_QUEUE_URL": url_of(aws, "renames"), "DEAD_LETTER_QUEUE_URL": url_of(aws, "dead")}
    return partial(handler_with, **queues)


def test_handler_redrives_on_request(handler_with: HandlerWith, aws: FakeAws) -> None:
    holding(aws, [message(1), message(2)])
    aws.answer("DeleteMessage", {}, times=None)

    assert handler_with()({"redrive": True}, FakeContext()) == {"moved": 2}
    assert urls(aws, "SendMessage") == {url_of(aws, "renames")}
    assert urls(aws, "ReceiveMessage") == {url_of(aws, "dead")}
    assert deleted(aws) == ["handle-1", "handle-2"]


def test_handler_keeps_time_to_report_a_redrive(handler_with: HandlerWith, aws: FakeAws, app: ModuleType) -> None:
    holding(aws, [message(1)])

    answer = handler_with()({"redrive": True}, FakeContext(app.REPORT_MARGIN_SECONDS - 0.5))

    assert answer == {"moved": 0}
    assert aws.calls == []


@pytest.mark.parametrize("lacking", ["RENAME_QUEUE_URL", "DEAD_LETTER_QUEUE_URL"])
def test_redrive_without_a_setting_is_an_error_that_names_it(
    handler_with: HandlerWith, aws: FakeAws, lacking: str
) -> None:
    with pytest.raises(settings.SettingsError, match=lacking):
        handler_with(**{lacking: ""})({"redrive": True}, FakeContext())

    assert aws.calls == []


@pytest.mark.parametrize("ledger", [{}, {"LEDGER_TABLE": "ledger"}], ids=["no ledger", "ledger"])
def test_handler_concludes_dead_letters_with_the_calls_that_its_role_allows(
    handler_with: HandlerWith, aws: FakeAws, world: World, ledger: dict[str, str]
) -> None:
    aws.answer("TransactWriteItems", {})
    record = dead(world, sqs_record(cloud_event(time="2020-01-01T00:00:00Z")))

    assert handler_with(**ledger)({"Records": [record]}, FakeContext()) == {"batchItemFailures": []}
    assert [call.operation for call in aws.calls] == ["TransactWriteItems"] * len(ledger) + ["PutEvents", "SendMessage"]
    assert [outcome["data"]["error"]["code"] for outcome in aws.outcomes] == ["Rename.Abandoned"]
    [call] = aws.calls_of("SendMessage")
    assert (call["QueueUrl"], call["MessageBody"]) == (url_of(aws, "dead"), record["body"])
