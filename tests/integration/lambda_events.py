"""What AWS invokes a function with, for tests that invoke it themselves."""

import time
import uuid
from typing import Any


def sqs_event(*bodies: str, group: str = "a group") -> dict[str, Any]:
    """A batch of the rename queue."""
    return {
        "Records": [
            {
                "messageId": str(uuid.uuid4()),
                "receiptHandle": "a receipt",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": str(_now()),
                    "SequenceNumber": f"{number:020}",
                    "MessageGroupId": group,
                    "SenderId": "AIDAEXAMPLE",
                    "MessageDeduplicationId": str(uuid.uuid4()),
                    "ApproximateFirstReceiveTimestamp": str(_now()),
                },
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:rename.fifo",
                "awsRegion": "eu-central-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def proxy_event(body: str, content_type: str = "application/cloudevents+json") -> dict[str, Any]:
    """A request to the REST API."""
    headers = {"Content-Type": content_type, "Host": "abcdef1234.execute-api.eu-central-1.amazonaws.com"}
    return {
        "resource": "/rename-events",
        "path": "/rename-events",
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef1234",
            "domainName": headers["Host"],
            "extendedRequestId": str(uuid.uuid4()),
            "httpMethod": "POST",
            "identity": {"sourceIp": "127.0.0.1", "userArn": "arn:aws:iam::123456789012:user/producer"},
            "path": "/v1/rename-events",
            "protocol": "HTTP/1.1",
            "requestId": str(uuid.uuid4()),
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
            "requestTimeEpoch": _now(),
            "resourceId": "abc123",
            "resourcePath": "/rename-events",
            "stage": "v1",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def _now() -> int:
    return int(time.time() * 1000)
