"""What AWS invokes a function with, for tests that invoke it themselves."""

import time
import uuid
from typing import Any

from tests.fakes.events import http_request, sqs_record


def sqs_event(*bodies: str, group: str = "a group") -> dict[str, Any]:
    """A batch of the rename queue, sent now."""
    records = [sqs_record(body, message_id=str(uuid.uuid4()), group=group) for body in bodies]
    for number, record in enumerate(records):
        record["attributes"] |= {"SentTimestamp": str(_now()), "SequenceNumber": f"{number:020}"}
    return {"Records": records}


def proxy_event(body: str, content_type: str = "application/cloudevents+json") -> dict[str, Any]:
    """A request of a producer to the REST API, sent now."""
    request = http_request(body, headers={"Content-Type": content_type})
    request["requestContext"] |= {"requestTimeEpoch": _now(), "requestId": str(uuid.uuid4())}
    request["requestContext"]["identity"]["userArn"] = "arn:aws:iam::123456789012:user/producer"
    return request


def _now() -> int:
    return int(time.time() * 1000)
