"""SQS: sends rename events to a queue, extends their visibility timeout, and forwards dead letters."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws.client import SqsClient
from function.domain.deadline import Deadline
from function.domain.model import RenameEvent
from function.domain.strict_json import to_json

# A short poll may find nothing in a queue that holds something.
MOVE_WAIT_SECONDS: Final = 1
MAX_BATCH_ENTRIES: Final = 10


class FifoQueue:
    """One FIFO queue: the rename queue, or the dead-letter queue."""

    def __init__(self, client: SqsClient, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> bool:
        """Put the event into the queue, in structured mode; False if SQS did not confirm it.

        Args:
            event: its endpoint service is the message group, so that one service's renames stay in order.
            deduplication_id: of this hand-over, not of the event: an event that is sent again after it was given up
                must not be dropped as a duplicate.
        """
        # SQS takes the characters of XML 1.0. Escaping whatever is not ASCII could make the message too large.
        body = to_json(event.cloud_event).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
        return self._send(body, event.vpc_endpoint_service_id, deduplication_id, {}, deadline)

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> bool:
        """Put a message into the queue as it is; False if SQS did not confirm it.

        Args:
            attributes: message attributes as ``SendMessage`` takes them, binary ones in base64.
            message_id: of the message that is forwarded; makes the deduplication id.
        """
        return self._send(body, group, message_id, attributes, deadline)

    def move_all(self, to: "FifoQueue", deadline: Deadline) -> int:
        """Move messages to another queue, unchanged, until the queue is empty or the time is used up.

        Returns:
            How many were moved.

        Raises:
            ClientError, BotoCoreError: SQS refused, or did not answer; what was not moved is still here.
        """
        moved = 0
        while deadline.remaining() > MOVE_WAIT_SECONDS:
            messages = self._client.receive_message(
                deadline,
                QueueUrl=self._url,
                MaxNumberOfMessages=MAX_BATCH_ENTRIES,
                WaitTimeSeconds=MOVE_WAIT_SECONDS,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["MessageGroupId"],
            ).get("Messages", [])
            if not messages:
                break
            for message in messages:
                group = message["Attributes"]["MessageGroupId"]
                attributes = message.get("MessageAttributes", {})
                if not to.forward(message["Body"], group, attributes, message["MessageId"], deadline):
                    return moved
                self._client.delete_message(deadline, QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                moved += 1
        return moved

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> None:
        """Delay the next delivery of messages. Where SQS refuses one, its present visibility timeout holds.

        Args:
            delays: seconds from now on, by receipt handle.
        """
        entries = [
            {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for number, (handle, seconds) in enumerate(delays.items())
        ]
        for start in range(0, len(entries), MAX_BATCH_ENTRIES):
            with suppress(BotoCoreError, ClientError):
                self._client.change_message_visibility_batch(
                    deadline, QueueUrl=self._url, Entries=entries[start : start + MAX_BATCH_ENTRIES]
                )

    def _send(
        self, body: str, group: str, deduplication: str, attributes: Mapping[str, Any], deadline: Deadline
    ) -> bool:
        try:
            self._client.send_message(
                deadline,
                QueueUrl=self._url,
                MessageBody=body,
                MessageGroupId=group,
                # SQS takes up to 128 letters, digits and punctuation.
                MessageDeduplicationId=hashlib.sha256(deduplication.encode()).hexdigest(),
                MessageAttributes=attributes,
            )
        except (BotoCoreError, ClientError):
            return False
        return True
