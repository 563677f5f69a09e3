"""SQS: sends rename events to a queue, extends their visibility timeout, and forwards dead letters."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from function.adapters.aws.client import SqsClient, error_code
from function.domain.deadline import Deadline
from function.domain.model import RenameEvent
from function.domain.strict_json import to_json

# A short poll may return nothing although the queue has messages.
MOVE_WAIT_SECONDS: Final = 1
MAX_BATCH_ENTRIES: Final = 10


class MoveError(Exception):
    """A message was not moved; carries AWS's error code."""


class FifoQueue:
    """One FIFO queue: the rename queue, or the dead-letter queue."""

    def __init__(self, client: SqsClient, url: str) -> None:
        self._client = client
        self._url = url

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> str | None:
        """Send the event in structured mode.

        Returns:
            AWS's error code; None if SQS confirmed the message.

        Args:
            event: its endpoint service is the message group, so that the renames of a service stay in order.
            deduplication_id: of this request, not of the event: an event that is sent again after it was given up must
                not be dropped as a duplicate.
        """
        # SQS accepts only characters of XML 1.0. Escaping all non-ASCII characters could make the message too large.
        body = to_json(event.cloud_event).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
        return self.forward(body, event.vpc_endpoint_service_id, {}, deduplication_id, deadline)

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> str | None:
        """Send a message unchanged. Returns as ``send``.

        Args:
            attributes: message attributes as in ``SendMessage``, binary ones in base64.
            message_id: of the forwarded message, or of a request; SQS drops a second message with it.
        """
        try:
            self._client.send_message(
                deadline,
                QueueUrl=self._url,
                MessageBody=body,
                MessageGroupId=group,
                # SQS accepts up to 128 letters, digits and punctuation characters.
                MessageDeduplicationId=hashlib.sha256(message_id.encode()).hexdigest(),
                MessageAttributes=attributes,
            )
        except (BotoCoreError, ClientError) as error:
            return error_code(error)
        return None

    def move_all(self, to: "FifoQueue", deadline: Deadline) -> int:
        """Move messages unchanged to another queue, until this one is empty or time runs out.

        Returns:
            The number of messages that were moved.

        Raises:
            MoveError: the other queue did not confirm a message; it and the later ones are still here.
            ClientError, BotoCoreError: SQS rejected a request or did not respond; the other messages are still here.
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
                if error := to.forward(message["Body"], group, attributes, message["MessageId"], deadline):
                    raise MoveError(error)
                self._client.delete_message(deadline, QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                moved += 1
        return moved

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> str | None:
        """Delay the next delivery of messages. If SQS rejects that, the current visibility timeout remains.

        Returns:
            The last of AWS's error codes; None if there was none.

        Args:
            delays: seconds from now, by receipt handle.
        """
        entries = [
            {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for number, (handle, seconds) in enumerate(delays.items())
        ]
        error = None
        for start in range(0, len(entries), MAX_BATCH_ENTRIES):
            batch = entries[start : start + MAX_BATCH_ENTRIES]
            try:
                reply = self._client.change_message_visibility_batch(deadline, QueueUrl=self._url, Entries=batch)
            except (BotoCoreError, ClientError) as refused:
                error = error_code(refused)
            else:
                for failed in reply.get("Failed", []):
                    error = str(failed["Code"])
        return error
