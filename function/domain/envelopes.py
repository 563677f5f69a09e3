"""Envelopes of an event: SNS notifications, EventBridge events, message attributes of a queue or topic.

Separate from the parser because the formats are AWS's, and their values are only defaults for what the event lacks.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# Prefixes of attributes in the CloudEvents bindings for HTTP, Kafka and AMQP, as producers' libraries write them.
_SPELLING: Final = re.compile(r"(?:ce[_-]|cloudevents[:_])(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)


class Envelope(NamedTuple):
    """An envelope and its content. Only the types of envelope and content have been checked.

    Attributes:
        content: a string, or a JSON value.
        id, source, time: of the envelope.
        attributes: names and values of CloudEvents attributes outside the content; None for a value that is not text.
    """

    content: Any
    id: object
    source: object
    time: object
    attributes: list[tuple[str, str | None]]


def sns_notification(content: object) -> Envelope | None:
    """A notification that an SNS topic sends without raw message delivery; None for any other content."""
    match content:
        case {"Type": "Notification", "Message": str(message), **rest}:
            attributes = rest.get("MessageAttributes")
            return Envelope(
                message,
                rest.get("MessageId"),
                rest.get("TopicArn"),
                rest.get("Timestamp"),
                list(carried_attributes(attributes, "Type", "Value")) if isinstance(attributes, dict) else [],
            )
    return None


def eventbridge_event(content: object) -> Envelope | None:
    """An event that an EventBridge rule sends to a queue; None for any other content."""
    match content:
        # Not a valid name of a CloudEvents attribute.
        case {"detail-type": _, "detail": detail, **rest}:
            return Envelope(detail, rest.get("id"), rest.get("source"), rest.get("time"), [])
    return None


def attribute_name(name: str) -> str | None:
    """The name of the CloudEvents attribute in a message attribute; None if it contains something else."""
    spelling = _SPELLING.fullmatch(name)
    return spelling[1].lower() if spelling else None


def carried_attributes(
    message_attributes: Mapping[str, Any], type_key: str, value_key: str
) -> Iterator[tuple[str, str | None]]:
    """The CloudEvents attributes among message attributes, including duplicates.

    Args:
        type_key, value_key: keys of an attribute's type and value, which differ between SQS and SNS.
    """
    for name, attribute in message_attributes.items():
        attribute_ = attribute_name(name)
        if attribute_ is not None:
            held = attribute if isinstance(attribute, dict) else {}
            value = None if str(held.get(type_key)).startswith("Binary") else held.get(value_key)
            yield attribute_, value if isinstance(value, str) else None
