"""The rename queue, as the function itself uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from function.adapters.aws.sqs_queue import FifoQueue
from function.domain.model import RenameEvent
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.events import cloud_event
from tests.fakes.identifiers import SERVICE
from tests.unit.adapters.aws.ledger import EVENT, event

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/renames.fifo"
EXTEND = "ChangeMessageVisibilityBatch"


@pytest.fixture
def queue(aws: FakeAws) -> FifoQueue:
    return FifoQueue(aws.sqs(), URL)


def send(queue: FifoQueue, event: RenameEvent = EVENT, key: str = "request-1", seconds: float = 10.0) -> str | None:
    return queue.send(event, key, within(seconds))


def forward(queue: FifoQueue, attributes: Mapping[str, Any] = {}, seconds: float = 10.0) -> str | None:
    return queue.forward("not JSON", "group-1", attributes, "message-1", within(seconds))


def extend(queue: FifoQueue, messages: int = 1, seconds: float = 10.0) -> str | None:
    return queue.extend_visibility({f"handle-{number}": number for number in range(messages)}, within(seconds))


def sent(aws: FakeAws) -> dict[str, Any]:
    """The one message."""
    [call] = aws.calls_of("SendMessage")
    return call


# ---- Sending


def test_sent_message_is_the_whole_event_in_the_group_of_its_service(aws: FakeAws, queue: FifoQueue) -> None:
    whole = event(expected_name="billing")

    assert send(queue, whole) is None

    assert (sent(aws)["QueueUrl"], sent(aws)["MessageGroupId"]) == (URL, SERVICE)
    assert json.loads(sent(aws)["MessageBody"]) == whole.cloud_event


@pytest.mark.parametrize("id_", ["\ufffe", "\uffff", "a\uffffb", "\\uffff", "\ufffd", "名前 🚀 \U0001ffff"])
def test_sent_message_has_no_character_that_sqs_refuses(aws: FakeAws, queue: FifoQueue, id_: str) -> None:
    assert send(queue, event(id_)) is None

    body = sent(aws)["MessageBody"]
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    assert re.fullmatch("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*", body)
    assert json.loads(body) == event(id_).cloud_event


def test_message_of_the_largest_event_is_within_the_limit_of_sqs(aws: FakeAws, queue: FifoQueue) -> None:
    many = {f"x{number}": "😀" * 1024 for number in range(26)}

    send(queue, replace(EVENT, cloud_event=cloud_event(id="😀" * 1024) | many))

    assert len(sent(aws)["MessageBody"].encode()) < 256 * 1024


def test_messages_are_deduplicated_by_the_id_given_in_a_form_that_sqs_takes(aws: FakeAws, queue: FifoQueue) -> None:
    for key in ("request-1", "request-2", "request-1", "x" * 1_024, "名前", "with spaces\tand tabs", ""):
        send(queue, key=key)

    first, second, third, *others = (call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage"))
    assert first == third != second
    assert all(re.fullmatch("[A-Za-z0-9]{1,128}", id_) for id_ in (first, second, *others))


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("InternalError", 500), (None, None)])
@pytest.mark.parametrize("call", [send, forward])
def test_message_that_sqs_refuses_or_does_not_answer_is_not_sent(
    aws: FakeAws, queue: FifoQueue, call: Callable[[FifoQueue], str | None], code: str | None, status: int
) -> None:
    if code:
        aws.fail("SendMessage", code, status=status, times=None)
    else:
        aws.hang_up("SendMessage", times=None)

    assert call(queue) == (code or "ConnectionClosedError")


def test_forwarded_message_is_unchanged(aws: FakeAws, queue: FifoQueue) -> None:
    attributes = {"ce_id": {"StringValue": "event-1", "DataType": "String"}}

    assert forward(queue, attributes) is None

    assert (sent(aws)["MessageBody"], sent(aws)["MessageGroupId"]) == ("not JSON", "group-1")
    assert sent(aws)["MessageAttributes"] == attributes


# ---- Extending the visibility timeout


@pytest.mark.parametrize(("messages", "sizes"), [(0, []), (2, [2]), (21, [10, 10, 1])])
def test_visibility_is_extended_by_requests_of_ten_messages_at_most(
    aws: FakeAws, queue: FifoQueue, messages: int, sizes: list[int]
) -> None:
    aws.answer(EXTEND, {"Successful": [], "Failed": []}, times=None)

    assert extend(queue, messages) is None

    calls = aws.calls_of(EXTEND)
    assert [call["QueueUrl"] for call in calls] == [URL] * len(aws.calls)
    assert [len({entry["Id"] for entry in call["Entries"]}) for call in calls] == sizes
    entries = [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for call in calls for entry in call["Entries"]]
    assert entries == [(f"handle-{number}", number) for number in range(messages)]


@pytest.mark.parametrize("status", [403, 500])
def test_refused_extension_does_not_keep_the_next_request_from_being_made(
    aws: FakeAws, queue: FifoQueue, status: int
) -> None:
    aws.answer(EXTEND, {"Successful": [], "Failed": []}, times=None)
    aws.fail(EXTEND, "No", status=status, times=2)

    assert extend(queue, 11) == "No"

    [entry] = aws.calls_of(EXTEND)[-1]["Entries"]
    assert (entry["ReceiptHandle"], entry["VisibilityTimeout"]) == ("handle-10", 10)


def test_extension_that_fails_in_part_is_not_repeated(aws: FakeAws, queue: FifoQueue) -> None:
    failed = {"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}
    aws.answer(EXTEND, {"Successful": [{"Id": "1"}], "Failed": [failed]})

    assert extend(queue, 2) == "ReceiptHandleIsInvalid"
    assert len(aws.calls) == 1


@pytest.mark.parametrize("call", [send, forward, extend])
def test_no_request_is_made_after_the_deadline(aws: FakeAws, queue: FifoQueue, call: Callable[..., str | None]) -> None:
    assert call(queue, seconds=0) == "ConnectTimeoutError"

    assert aws.calls == []
