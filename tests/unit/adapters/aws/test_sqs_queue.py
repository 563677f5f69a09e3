"""The rename queue, as the function itself uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from function.adapters.aws.sqs_queue import FifoQueue
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.events import cloud_event
from tests.fakes.identifiers import SERVICE
from tests.fakes.world import World

SECONDS = 10.0


@pytest.fixture
def url(aws: FakeAws) -> str:
    return f"{aws.url}/123456789012/renames.fifo"


@pytest.fixture
def queue(aws: FakeAws, url: str) -> FifoQueue:
    return FifoQueue(aws.sqs(), url)


class TestSending:
    def test_carries_the_whole_event_in_the_group_of_its_service(
        self, aws: FakeAws, queue: FifoQueue, url: str, world: World
    ) -> None:
        event = world.event(expected_name="billing")

        assert queue.send(event, "request-1", within(SECONDS))

        [call] = aws.calls_of("SendMessage")
        assert call["QueueUrl"] == url
        assert call["MessageGroupId"] == SERVICE
        assert json.loads(call["MessageBody"]) == event.cloud_event

    @pytest.mark.parametrize("event_id", ["\ufffe", "\uffff", "a\uffffb", "\\uffff", "\ufffd", "名前 🚀 \U0001ffff"])
    def test_carries_no_character_that_sqs_refuses(
        self, aws: FakeAws, queue: FifoQueue, world: World, event_id: str
    ) -> None:
        event = world.event(id=event_id)

        assert queue.send(event, "request-1", within(SECONDS))

        [call] = aws.calls_of("SendMessage")
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
        assert re.fullmatch("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*", call["MessageBody"])
        assert json.loads(call["MessageBody"]) == event.cloud_event

    def test_carries_the_largest_event(self, aws: FakeAws, queue: FifoQueue, world: World) -> None:
        many = {f"x{number}": "😀" * 1024 for number in range(26)}
        event = replace(world.event(), cloud_event=cloud_event(id="😀" * 1024) | many)

        queue.send(event, "request-1", within(SECONDS))

        assert len(aws.calls_of("SendMessage")[0]["MessageBody"].encode()) < 256 * 1024

    def test_is_deduplicated_by_the_hand_over_and_not_by_the_event(
        self, aws: FakeAws, queue: FifoQueue, world: World
    ) -> None:
        for hand_over in ("request-1", "request-2", "request-1"):
            queue.send(world.event(), hand_over, within(SECONDS))

        first, second, third = (call["MessageDeduplicationId"] for call in aws.calls_of("SendMessage"))
        assert first == third != second

    @pytest.mark.parametrize("hand_over", ["x" * 1_024, "名前", "with spaces\tand tabs", ""])
    def test_fits_the_deduplication_id_to_what_sqs_takes(
        self, aws: FakeAws, queue: FifoQueue, world: World, hand_over: str
    ) -> None:
        queue.send(world.event(), hand_over, within(SECONDS))

        sent = aws.calls_of("SendMessage")[0]["MessageDeduplicationId"]
        assert sent.isascii()
        assert sent.isalnum()
        assert len(sent) <= 128

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("AccessDenied", 403),
            ("QueueDoesNotExist", 400),
            ("RequestThrottled", 400),
            ("InternalError", 500),
            ("InvalidParameterValue", 400),
        ],
    )
    def test_that_sqs_refuses_is_told(
        self, aws: FakeAws, queue: FifoQueue, world: World, code: str, status: int
    ) -> None:
        aws.fail("SendMessage", code, status=status, times=None)

        assert queue.send(world.event(), "request-1", within(SECONDS)) is False

    def test_that_gets_no_answer_is_told(self, aws: FakeAws, queue: FifoQueue, world: World) -> None:
        aws.hang_up("SendMessage", times=None)

        assert queue.send(world.event(), "request-1", within(SECONDS)) is False


class TestForwarding:
    def test_leaves_the_message_as_it_is(self, aws: FakeAws, queue: FifoQueue) -> None:
        attributes = {"ce_id": {"StringValue": "event-1", "DataType": "String"}}

        assert queue.forward("not JSON", "group-1", attributes, "message-1", within(SECONDS))

        [call] = aws.calls_of("SendMessage")
        assert (call["MessageBody"], call["MessageGroupId"]) == ("not JSON", "group-1")
        assert call["MessageAttributes"] == attributes

    def test_that_sqs_refuses_is_told(self, aws: FakeAws, queue: FifoQueue) -> None:
        aws.fail("SendMessage", "AccessDenied", status=403)

        assert queue.forward("body", "group-1", {}, "message-1", within(SECONDS)) is False


class TestExtendingVisibility:
    def test_names_each_message_and_its_delay_in_one_request(self, aws: FakeAws, queue: FifoQueue, url: str) -> None:
        queue.extend_visibility({"handle-1": 60, "handle-2": 0}, within(SECONDS))

        [call] = aws.calls_of("ChangeMessageVisibilityBatch")
        assert call["QueueUrl"] == url
        assert delays(call) == {"handle-1": 60, "handle-2": 0}
        assert len({entry["Id"] for entry in call["Entries"]}) == 2

    def test_of_more_than_a_request_takes_takes_more(self, aws: FakeAws, queue: FifoQueue) -> None:
        wanted = {f"handle-{number}": number for number in range(21)}
        aws.answer("ChangeMessageVisibilityBatch", {"Successful": [], "Failed": []}, times=None)

        queue.extend_visibility(wanted, within(SECONDS))

        calls = aws.calls_of("ChangeMessageVisibilityBatch")
        assert [len(call["Entries"]) for call in calls] == [10, 10, 1]
        assert delays(*calls) == wanted

    def test_of_nothing_asks_nobody(self, aws: FakeAws, queue: FifoQueue) -> None:
        queue.extend_visibility({}, within(SECONDS))

        assert aws.calls == []

    @pytest.mark.parametrize("status", [403, 500])
    def test_that_sqs_refuses_leaves_the_visibility_timeout(self, aws: FakeAws, queue: FifoQueue, status: int) -> None:
        aws.fail("ChangeMessageVisibilityBatch", "No", status=status, times=2)

        queue.extend_visibility({f"handle-{number}": 60 for number in range(11)}, within(SECONDS))

        # then: what else there is to tell is told
        assert delays(aws.calls_of("ChangeMessageVisibilityBatch")[-1]) == {"handle-10": 60}

    def test_that_fails_in_part_is_left_at_that(self, aws: FakeAws, queue: FifoQueue) -> None:
        failed = {"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}
        aws.answer("ChangeMessageVisibilityBatch", {"Successful": [{"Id": "1"}], "Failed": [failed]})

        queue.extend_visibility({"handle-1": 60, "handle-2": 60}, within(SECONDS))

        assert len(aws.calls) == 1


def delays(*calls: dict[str, Any]) -> dict[str, int]:
    return {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for call in calls for entry in call["Entries"]}


class TestTime:
    @pytest.mark.parametrize(
        "call",
        [
            lambda queue, event, deadline: queue.send(event, "request-1", deadline),
            lambda queue, _, deadline: queue.forward("body", "group-1", {}, "message-1", deadline),
            lambda queue, _, deadline: queue.extend_visibility({"handle-1": 60}, deadline),
        ],
        ids=["send", "forward", "extend_visibility"],
    )
    def test_that_is_up_asks_nobody(
        self, aws: FakeAws, queue: FifoQueue, world: World, call: Callable[..., bool | None]
    ) -> None:
        assert not call(queue, world.event(), within(0))

        assert aws.calls == []
