"""Sends signed requests to AWS without boto3.

A boto3 client first loads the models of its service, which takes a quarter of a cold start, and has no deadline per
request. The clients here have the methods of boto3's clients that the function calls, with the same arguments,
responses and exceptions, plus a deadline. Bytes are in base64, as in the request.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.utils import get_environ_proxies
from urllib3.util import Timeout

from function.adapters.connections import DeadlinePassedError, Exchange, exchange_scope, use_deadlines
from function.adapters.tls import ssl_context
from function.domain.backoff import full_jitter
from function.domain.deadline import Deadline

CONNECT_SECONDS: Final = 1.0
# For a whole response, however slowly it arrives.
READ_SECONDS: Final = 2.0
MAX_CONNECTIONS: Final = 50
# Further retries are up to the queue.
MAX_REQUEST_ATTEMPTS: Final = 2
REQUEST_BACKOFF_SECONDS: Final = 0.5
_LEAF: Final = re.compile(r"<(\w+)>([^<]*)</\1>")
_OK: Final = 200
_SERVER_ERROR: Final = 500
# Suffixes of host names, by the prefix of a region's name. botocore has them too, in files that take long to read.
_SUFFIXES: Final = {
    "cn": "amazonaws.com.cn",
    "eusc": "amazonaws.eu",
    "us-iso": "c2s.ic.gov",
    "us-isob": "sc2s.sgov.gov",
    "eu-isoe": "cloud.adc-e.uk",
    "us-isof": "csp.hci.ic.gov",
}
_THROTTLED: Final = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)


def error_code(error: BotoCoreError | ClientError) -> str:
    """The service's error code; if it did not respond, the name of botocore's exception."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


class Key(NamedTuple):
    """An access key for AWS, with botocore's attribute names."""

    access_key: str
    secret_key: str
    token: str | None


class _JsonService(NamedTuple):
    """A service with a JSON protocol. ``target`` is the operation's prefix in the header ``X-Amz-Target``."""

    host: str
    target: str
    json_version: str

    def message(self, operation: str, request: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        headers = {
            "Content-Type": f"application/x-amz-json-{self.json_version}",
            "X-Amz-Target": f"{self.target}.{operation}",
        }
        return headers, json.dumps(request, separators=(",", ":")).encode()

    def answer(self, data: bytes) -> object:
        try:
            return json.loads(data or b"{}")
        except ValueError:
            return None


class _QueryService(NamedTuple):
    """A service with the query protocol: a form as request, and XML as response, read as its leaf elements by name."""

    host: str
    version: str

    def message(self, operation: str, request: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        form: dict[str, Any] = {"Action": operation, "Version": self.version}
        for name, value in request.items():
            if isinstance(value, list):
                form |= {f"{name}.member.{number}": item for number, item in enumerate(value, start=1)}
            else:
                form[name] = value
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return headers, urlencode(form).encode()

    def answer(self, data: bytes) -> object:
        leaves = dict(_LEAF.findall(data.decode("utf-8", "replace")))
        if "Code" in leaves:
            leaves |= {"__type": leaves["Code"], "message": leaves.get("Message", "")}
        return leaves or None


_Service = _JsonService | _QueryService


@dataclass(eq=False, repr=False, kw_only=True)
class Aws:
    """The endpoints of one region's services, with one connection pool for all of them.

    Attributes:
        endpoints: custom endpoints, by the first part of the service's host name; ``""`` for all other services.
        key: None to let botocore find and renew one.
        ca_bundle: path, None for certifi's certificates.
    """

    region: str
    endpoints: Mapping[str, str]
    key: Key | None = None
    ca_bundle: str | None = None
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._credentials: Any = None
        self._http = _pool(get_environ_proxies(self._endpoint("dynamodb")), self.ca_bundle)

    def call(self, service: _Service, operation: str, request: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Send one request, and once more if that may help.

        A reused connection that turns out to be closed is not counted as an attempt: it says nothing about the service.

        Raises:
            ClientError: the service's error response.
            BotoCoreError: no response, or no time for one.
        """
        attempt, connection_failed = 1, False
        while True:
            exchange = Exchange(deadline=deadline, read_seconds=READ_SECONDS, requires_new_connection=connection_failed)
            try:
                return self._send(service, operation, request, exchange)
            except (BotoCoreError, ClientError) as error:
                connection_failed = isinstance(error, BotoCoreError)
                if exchange.reuses_connection and connection_failed and not isinstance(error, ReadTimeoutError):
                    continue
                wait = _retry_wait(error)
                if wait is None or attempt == MAX_REQUEST_ATTEMPTS or deadline.remaining() <= wait:
                    raise
            self.sleep(wait)
            attempt += 1

    def _send(
        self, service: _Service, operation: str, request: Mapping[str, Any], exchange: Exchange
    ) -> dict[str, Any]:
        url = f"{self._endpoint(service.host)}/"
        headers, body = service.message(operation, request)
        signed = AWSRequest("POST", url, headers=headers, data=body)
        SigV4Auth(self._current_key(), service.host, self.region).add_auth(signed)
        seconds = exchange.deadline.remaining()
        if seconds <= 0:
            raise ConnectTimeoutError(endpoint_url=url)
        try:
            with exchange_scope(exchange):
                response = self._http.request(
                    "POST",
                    url,
                    body=signed.data,
                    headers=dict(signed.headers.items()),
                    redirect=False,
                    timeout=Timeout(connect=min(CONNECT_SECONDS, seconds), read=min(READ_SECONDS, seconds)),
                )
        except DeadlinePassedError as error:
            raise ConnectTimeoutError(endpoint_url=url) from error
        except urllib3.exceptions.HTTPError as error:
            raise map_transport_error(error, url) from error
        answer = service.answer(response.data)
        if response.status != _OK:
            raise _refusal(operation, response.status, response.headers, answer if isinstance(answer, dict) else {})
        if not isinstance(answer, dict):
            raise ResponseStreamingError(error="the answer is not an object")
        return answer

    def _endpoint(self, host: str) -> str:
        partition = "-".join(self.region.split("-")[:2])
        suffix = _SUFFIXES.get(partition) or _SUFFIXES.get(partition.partition("-")[0], "amazonaws.com")
        own = self.endpoints.get(host) or self.endpoints.get("")
        return (own or f"https://{host}.{self.region}.{suffix}").rstrip("/")

    def _current_key(self) -> Any:
        if self.key is not None:
            return self.key
        if self._credentials is None:
            # After a snapshot is restored, Lambda provides the key by an HTTP endpoint.
            from botocore.session import get_session  # noqa: PLC0415 - not needed if the key is given

            self._credentials = get_session().get_credentials()
        return self._credentials.get_frozen_credentials()


def _pool(proxies: Mapping[str, str], ca_bundle: str | None) -> urllib3.PoolManager:
    settings: dict[str, Any] = {"ssl_context": ssl_context(ca_bundle), "maxsize": MAX_CONNECTIONS, "retries": False}
    proxy = proxies.get("https")
    pool = urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)
    use_deadlines(pool)
    return pool


def _retry_wait(error: BotoCoreError | ClientError) -> float | None:
    """Seconds until the next attempt, None if it would not help."""
    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status < _SERVER_ERROR and error_code(error) not in _THROTTLED:
            return None
    return 0.0 if isinstance(error, ConnectionClosedError) else full_jitter(1, base=REQUEST_BACKOFF_SECONDS)


def map_transport_error(error: urllib3.exceptions.HTTPError, url: str) -> BotoCoreError:
    """botocore's exception for a request without a response."""
    match error:
        case urllib3.exceptions.SSLError():
            return SSLError(endpoint_url=url, error=error)
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return EndpointConnectionError(endpoint_url=url, error=error)
        case urllib3.exceptions.ReadTimeoutError():
            return ReadTimeoutError(endpoint_url=url, error=error)
        case urllib3.exceptions.ProtocolError():
            return ConnectionClosedError(endpoint_url=url, error=error)
        case _:
            return HTTPClientError(error=error)


def _refusal(operation: str, status: int, headers: Mapping[str, str], answer: dict[str, Any]) -> ClientError:
    code = str(answer.get("__type") or status)
    response: Any = {
        "Error": {
            # For example "com.amazonaws.dynamodb.v20120810#ValidationException" or "ValidationException:http://…".
            "Code": code.rpartition("#")[2].partition(":")[0],
            "Message": str(answer.get("message") or answer.get("Message") or ""),
        },
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": headers.get("x-amzn-requestid", "")},
    }
    if "CancellationReasons" in answer:
        response["CancellationReasons"] = answer["CancellationReasons"]
    return ClientError(response, operation)


class _Client:
    """The methods of boto3's client of one service that the function uses. Each takes the deadline first."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws


def _operation(service: _Service, name: str) -> Callable[..., dict[str, Any]]:
    def call(self: _Client, deadline: Deadline, **request: Any) -> dict[str, Any]:
        return self._aws.call(service, name, request, deadline)

    return call


class DynamoDbClient(_Client):
    _SERVICE: Final = _JsonService("dynamodb", "DynamoDB_20120810", "1.0")
    get_item = _operation(_SERVICE, "GetItem")
    put_item = _operation(_SERVICE, "PutItem")
    update_item = _operation(_SERVICE, "UpdateItem")
    transact_write_items = _operation(_SERVICE, "TransactWriteItems")


class EventBridgeClient(_Client):
    put_events = _operation(_JsonService("events", "AWSEvents", "1.1"), "PutEvents")


class SecretsManagerClient(_Client):
    get_secret_value = _operation(_JsonService("secretsmanager", "secretsmanager", "1.1"), "GetSecretValue")


class SqsClient(_Client):
    _SERVICE: Final = _JsonService("sqs", "AmazonSQS", "1.0")
    send_message = _operation(_SERVICE, "SendMessage")
    receive_message = _operation(_SERVICE, "ReceiveMessage")
    delete_message = _operation(_SERVICE, "DeleteMessage")
    change_message_visibility_batch = _operation(_SERVICE, "ChangeMessageVisibilityBatch")


class StsClient(_Client):
    get_web_identity_token = _operation(_QueryService("sts", "2011-06-15"), "GetWebIdentityToken")
