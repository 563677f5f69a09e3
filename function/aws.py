"""Talks to AWS: signs and sends the few requests that every event needs, with botocore's own parts.

A client of boto3 reads the models of its service, its endpoints and its documentation first, which is a quarter of a
cold start. The clients here have those methods of boto3's that the function calls, with the same arguments, answers and
exceptions, so that either fits. What the function needs less often it calls by boto3.
"""

import json
import random
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError, ResponseStreamingError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

CONNECT_SECONDS: Final = 1.0
READ_SECONDS: Final = 2.0
MAX_CONNECTIONS: Final = 50
# What does not answer soon is asked again by the queue, not by waiting.
MAX_ATTEMPTS: Final = 2
_OK: Final = 200
_SERVER_ERROR: Final = 500
_THROTTLED: Final = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)


class Key(NamedTuple):
    """A key for AWS, by botocore's names."""

    access_key: str
    secret_key: str
    token: str | None


class _Service(NamedTuple):
    """How a service is called. ``target`` comes before the operation's name in a header."""

    host: str
    target: str
    json_version: str


class Aws:
    """Where the services of one region are, and the connections to them: one pool for all."""

    def __init__(
        self,
        *,
        region: str,
        endpoints: Mapping[str, str],
        key: Key | None = None,
        ca_bundle: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            endpoints: by the first part of a service's host name, where it is not AWS's own; ``""`` for all others.
            key: None leaves it to botocore to find one, and to renew it.
            ca_bundle: path, None for what certifi trusts.
        """
        self._region = region
        self._endpoints = endpoints
        self._key = key
        self._credentials: Any = None
        self._sleep = sleep
        settings: dict[str, Any] = {
            "verify": ca_bundle or True,
            "proxies": get_environ_proxies(self._endpoint("dynamodb")),
            "timeout": (CONNECT_SECONDS, READ_SECONDS),
            "max_pool_connections": MAX_CONNECTIONS,
            # Else a body would wait for the acknowledgement of its headers.
            "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        }
        self._http = URLLib3Session(**settings)

    def call(self, service: _Service, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, and once more where that may help.

        Raises:
            ClientError: the service's refusal.
            HTTPClientError, botocore's ConnectionError: no answer.
        """
        attempt = 1
        while True:
            try:
                return self._send(service, operation, request)
            except (HTTPClientError, NoConnectionError) as error:
                if attempt == MAX_ATTEMPTS:
                    raise
                # A connection that was kept alive while the environment was frozen costs one quick retry.
                wait = 0.0 if isinstance(error, ConnectionClosedError) else 1.0
            except ClientError as error:
                code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
                if attempt == MAX_ATTEMPTS or (status < _SERVER_ERROR and code not in _THROTTLED):
                    raise
                wait = 1.0
            self._sleep(random.uniform(0, wait))  # noqa: S311 - jitter, no secret
            attempt += 1

    def _send(self, service: _Service, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        signed = AWSRequest(
            "POST",
            f"{self._endpoint(service.host)}/",
            headers={
                "Content-Type": f"application/x-amz-json-{service.json_version}",
                "X-Amz-Target": f"{service.target}.{operation}",
            },
            data=json.dumps(request, separators=(",", ":")).encode(),
        )
        SigV4Auth(self._now_valid_key(), service.host, self._region).add_auth(signed)
        response = self._http.send(signed.prepare())
        try:
            answer = json.loads(response.content or b"{}")
        except ValueError as error:
            answer = error
        if response.status_code == _OK and isinstance(answer, dict):
            return answer
        if response.status_code == _OK:
            raise ResponseStreamingError(error="the answer is not a JSON object")
        raise _refusal(operation, response.status_code, response.headers, answer if isinstance(answer, dict) else {})

    def _endpoint(self, host: str) -> str:
        suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        own = self._endpoints.get(host) or self._endpoints.get("")
        return (own or f"https://{host}.{self._region}.{suffix}").rstrip("/")

    def _now_valid_key(self) -> Any:
        if self._key is not None:
            return self._key
        if self._credentials is None:
            # After a snapshot's restore the key comes from an endpoint of Lambda's.
            from botocore.session import get_session  # noqa: PLC0415 - costs whoever has a key nothing

            self._credentials = get_session().get_credentials()
        return self._credentials.get_frozen_credentials()


def _refusal(operation: str, status: int, headers: Mapping[str, str], answer: dict[str, Any]) -> ClientError:
    code = str(answer.get("__type") or status)
    response: Any = {
        "Error": {
            # As in "com.amazonaws.dynamodb.v20120810#ValidationException" or "ValidationException:http://…".
            "Code": code.rpartition("#")[2].partition(":")[0],
            "Message": str(answer.get("message") or answer.get("Message") or ""),
        },
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": headers.get("x-amzn-requestid", "")},
    }
    if "CancellationReasons" in answer:
        response["CancellationReasons"] = answer["CancellationReasons"]
    return ClientError(response, operation)


class DynamoDbClient:
    """As much of boto3's DynamoDB client as the ledger needs."""

    _SERVICE: Final = _Service("dynamodb", "DynamoDB_20120810", "1.0")

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def get_item(self, **request: Any) -> dict[str, Any]:
        return self._aws.call(self._SERVICE, "GetItem", request)

    def update_item(self, **request: Any) -> dict[str, Any]:
        return self._aws.call(self._SERVICE, "UpdateItem", request)

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        return self._aws.call(self._SERVICE, "TransactWriteItems", request)


class EventBridgeClient:
    """As much of boto3's EventBridge client as the bus needs."""

    _SERVICE: Final = _Service("events", "AWSEvents", "1.1")

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def put_events(self, **request: Any) -> dict[str, Any]:
        return self._aws.call(self._SERVICE, "PutEvents", request)


class SecretsManagerClient:
    """As much of boto3's Secrets Manager client as the credentials need."""

    _SERVICE: Final = _Service("secretsmanager", "secretsmanager", "1.1")

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def get_secret_value(self, **request: Any) -> dict[str, Any]:
        return self._aws.call(self._SERVICE, "GetSecretValue", request)
