"""Rename events, and requests of SQS and API Gateway that carry them: valid unless a test says otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from function.domain.envelopes import Attributes
from function.domain.event_parser import RENAME_REQUESTED
from tests.fakes.identifiers import API_ID, ARRIVED, QUEUE_ARN, SERVICE, START, TIME

SAMPLES: Final = Path(__file__).parents[1] / "events"


def rename_data(**fields: Any) -> dict[str, Any]:
    """The ``data`` of a valid rename event, with ``fields`` added or replaced."""
    return {"vpc_endpoint_service_id": SERVICE, "endpoint_service_name": "orders"} | fields


def rename_event(**attributes: Any) -> dict[str, Any]:
    """A valid rename event in structured mode, with ``attributes`` (``data`` among them) added or replaced."""
    return {
        "specversion": "1.0",
        "id": "event-1",
        "source": "/cmdb",
        "type": RENAME_REQUESTED,
        "time": TIME,
        "data": rename_data(),
    } | attributes


def cloud_event(*, id: str = "event-1", source: str = "/cmdb", time: str | None = None, **data: Any) -> dict[str, Any]:
    time = time or START.isoformat().replace("+00:00", "Z")
    return rename_event(id=id, source=source, time=time, data=rename_data(**data))


def transport(**given: str) -> Attributes:
    """What a transport carries, and its defaults; ``given`` are the CloudEvents attributes of binary mode."""
    return Attributes("message-1", "arn:aws:sqs:eu-west-1:123456789012:rename.fifo", ARRIVED, given)


def sqs_record(
    body: str | dict[str, Any] | None = None,
    *,
    message_id: str = "message-1",
    group: str | None = SERVICE,
    receive_count: int = 1,
    attributes: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """A record as Lambda hands it over; attributes by name as (data type, value)."""
    text = body if isinstance(body, str) else json.dumps(cloud_event() if body is None else body)
    system = {
        "ApproximateReceiveCount": str(receive_count),
        "AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793",
        "SentTimestamp": str(int(START.timestamp() * 1000)),
        "SenderId": "AROAEXAMPLE:producer",
        "ApproximateFirstReceiveTimestamp": str(int(START.timestamp() * 1000) + 5),
    }
    if group is not None:
        system |= {
            "MessageGroupId": group,
            "SequenceNumber": "18849496460467696128",
            "MessageDeduplicationId": f"of-{message_id}",
        }
    return {
        "messageId": message_id,
        "receiptHandle": f"handle-of-{message_id}",
        "body": text,
        "attributes": system,
        "messageAttributes": {
            name: {
                ("binaryValue" if data_type.startswith("Binary") else "stringValue"): value,
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": data_type,
            }
            for name, (data_type, value) in (attributes or {}).items()
        },
        "md5OfBody": "7b270e59b47ff90a553787216d55d91d",
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE_ARN,
        "awsRegion": "eu-west-1",
    }


def sns_notification(message: object, **fields: Any) -> dict[str, Any]:
    """As SNS sends it to a queue, without raw message delivery."""
    return {
        "Type": "Notification",
        "MessageId": "sns-1",
        "SequenceNumber": "10000000000000003000",
        "TopicArn": "arn:aws:sns:eu-west-1:123456789012:renames.fifo",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-02T08:14:59.123Z",
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
        "MessageAttributes": {},
    } | fields


def eventbridge_event(detail: object, **fields: Any) -> dict[str, Any]:
    """As a rule of EventBridge sends it to a queue."""
    return {
        "version": "0",
        "id": "bridge-1",
        "detail-type": "Service renamed",
        "source": "com.example.cmdb",
        "account": "123456789012",
        "time": "2026-11-02T08:14:58Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
    } | fields


def service_id(number: int) -> str:
    return f"service-{number}"


def http_request(
    body: str | dict[str, Any] | None = None,
    *,
    headers: Mapping[str, str | list[str]] | None = None,
    method: str = "POST",
    path: str = "/rename-events",
    base64: bool = False,
) -> dict[str, Any]:
    """A proxy event as a REST API of API Gateway sends it; of a header sent twice `headers` has the last."""
    sent = {"Content-Type": "application/json"} if headers is None else dict(headers)
    lists = {name: [value] if isinstance(value, str) else value for name, value in sent.items()}
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in lists.items()} or None,
        "multiValueHeaders": lists or None,
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "b2d6f1",
            "resourcePath": path,
            "httpMethod": method,
            "extendedRequestId": "JKJaXmPLvHcESHA=",
            "requestTime": "24/Nov/2026:03:00:00 +0000",
            "path": f"/v1{path}",
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "v1",
            "domainPrefix": API_ID,
            "requestTimeEpoch": int(START.timestamp() * 1000),
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "curl/8.5", "userArn": None, "caller": None},
            "domainName": f"{API_ID}.execute-api.eu-west-1.amazonaws.com",
            "deploymentId": "d1",
            "apiId": API_ID,
        },
        "body": json.dumps(body) if isinstance(body, dict) else body,
        "isBase64Encoded": base64,
    }


class HttpReply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any

    @classmethod
    def of(cls, response: dict[str, Any]) -> HttpReply:
        """Read a proxy response as API Gateway would."""
        headers = {name.lower(): values[-1] for name, values in response.get("multiValueHeaders", {}).items()}
        headers |= {name.lower(): value for name, value in response.get("headers", {}).items()}
        assert not response["isBase64Encoded"]
        text = response["body"]
        return cls(response["statusCode"], headers, json.loads(text) if text else None)
