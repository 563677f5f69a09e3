"""Talks to SQS: hands over rename events, puts them off, and lays dead letters to rest."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from function.deadline import Deadline
from function.events import RenameEvent, to_json

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# A short poll may find nothing in a queue that holds something.
MOVE_WAIT_SECONDS: Final = 1


class FifoQueue:
    """One FIFO queue: the rename queue, or the dead-letter queue."""

    def __init__(self, client: "Callable[[], SQSClient]", url: str) -> None:
        """
        Args:
            client: called at the first need, for most invocations have none.
        """
        self._client = client
        self._url = url

    def send(self, event: RenameEvent, deduplication_id: str) -> bool:
        """Put the event into the queue, in structured mode; False where SQS did not take it.

        Args:
            event: its endpoint service is the message group, so that one service's renames stay in order.
            deduplication_id: of this hand-over, not of the event: an event that is sent again after it was given up
                must not be dropped as a duplicate.
        """
        # SQS takes the characters of XML 1.0. Escaping whatever is not ASCII could make the message too large.
        body = to_json(event.cloud_event).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
        return self._send(body, event.vpc_endpoint_service_id, deduplication_id, {})

    def forward(self, body: str, group: str, attributes: Mapping[str, Any], message_id: str) -> bool:
        """Put a message into the queue as it is; False where SQS did not take it.

        Args:
            attributes: message attributes as ``SendMessage`` takes them.
            message_id: of the message that this one stands for.
        """
        return self._send(body, group, message_id, attributes)

    def move_all(self, to: "FifoQueue", deadline: Deadline) -> int:
        """Move messages to another queue, unchanged, until none is left to take or the time is used up.

        Returns:
            How many were moved.

        Raises:
            ClientError, BotoCoreError: SQS refused; what was not moved is still here.
        """
        moved = 0
        while deadline.remaining() > 0:
            messages = (
                self._client()
                .receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=10,
                    WaitTimeSeconds=MOVE_WAIT_SECONDS,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["MessageGroupId"],
                )
                .get("Messages", [])
            )
            if not messages:
                break
            for message in messages:
                group = message["Attributes"]["MessageGroupId"]
                if not to.forward(message["Body"], group, message.get("MessageAttributes", {}), message["MessageId"]):
                    return moved
                self._client().delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                moved += 1
        return moved

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> None:  # noqa: ARG002 - the protocol's
        """Let messages come again after so long. Where SQS refuses, the queue's visibility time-out holds.

        Args:
            delays: seconds, by receipt handle; ten at most.
        """
        with suppress(BotoCoreError, ClientError):
            self._client().change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
                    for number, (handle, seconds) in enumerate(delays.items())
                ],
            )

    def _send(self, body: str, group: str, deduplication: str, attributes: Mapping[str, Any]) -> bool:
        try:
            self._client().send_message(
                QueueUrl=self._url,
                MessageBody=body,
                MessageGroupId=group,
                # Whatever it was made of, SQS takes 128 letters and digits.
                MessageDeduplicationId=hashlib.sha256(deduplication.encode()).hexdigest(),
                MessageAttributes=attributes,
            )
        except (BotoCoreError, ClientError):
            return False
        return True
