"""The function's own clients of AWS: they send what boto3 sends, return what it returns, and cope with connections."""

from __future__ import annotations

import io
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs

import boto3
import pytest
import trustme
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HTTPHeaders
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.loaders import Loader
from urllib3.connection import HTTPConnection

from function.adapters.aws import client as own
from function.adapters.aws.client import MAX_REQUEST_ATTEMPTS, Aws, DynamoDbClient, Key
from function.adapters.connections import MAX_IDLE_SECONDS
from function.domain.deadline import Deadline
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.raw_server import RawServer, receive_request

REGION = "eu-west-1"
REGIONS = [REGION, "us-east-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1", "us-isob-east-1"]
KEY = Key("AKIALOCAL", "local-secret", None)
CLIENTS = {
    "dynamodb": own.DynamoDbClient,
    "events": own.EventBridgeClient,
    "secretsmanager": own.SecretsManagerClient,
    "sqs": own.SqsClient,
    "sts": own.StsClient,
}
ID = {"id": {"S": "名前"}}
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/renames.fifo"
UPDATE = {
    "TableName": "ledger",
    "Key": ID,
    "UpdateExpression": "SET #owner = :owner",
    "ExpressionAttributeNames": {"#owner": "owner"},
    "ExpressionAttributeValues": {":owner": {"N": "1.5"}},
}
REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("dynamodb", "get_item"): {"TableName": "ledger", "Key": ID},
    ("dynamodb", "put_item"): {"TableName": "ledger", "Item": ID, "ConditionExpression": "attribute_not_exists(id)"},
    ("dynamodb", "update_item"): UPDATE,
    ("dynamodb", "transact_write_items"): {"TransactItems": [{"Update": UPDATE}], "ClientRequestToken": "token"},
    ("events", "put_events"): {"Entries": [{"EventBusName": "bus", "Source": "s", "DetailType": "t", "Detail": "{}"}]},
    ("secretsmanager", "get_secret_value"): {"SecretId": "huawei"},
    ("sqs", "send_message"): {
        "QueueUrl": QUEUE,
        "MessageBody": "名前",
        "MessageGroupId": "group",
        "MessageDeduplicationId": "1",
        "MessageAttributes": {
            "ce_id": {"StringValue": "名前", "DataType": "String"},
            "proof": {"BinaryValue": b"\x00\xff", "DataType": "Binary"},
        },
    },
    ("sqs", "receive_message"): {"QueueUrl": QUEUE, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"]},
    ("sqs", "delete_message"): {"QueueUrl": QUEUE, "ReceiptHandle": "handle"},
    ("sqs", "change_message_visibility_batch"): {
        "QueueUrl": QUEUE,
        "Entries": [{"Id": "0", "ReceiptHandle": "handle", "VisibilityTimeout": 60}],
    },
    ("sts", "get_web_identity_token"): {
        "Audience": ["huawei & co", "名前"],
        "DurationSeconds": 300,
        "SigningAlgorithm": "RS256",
    },
}
EACH_OPERATION = pytest.mark.parametrize(("service", "operation"), REQUESTS)
GET = ("dynamodb", "get_item")
TRANSACT = ("dynamodb", "transact_write_items")
TOKEN = ("sts", "get_web_identity_token")
PARTITIONS = {partition["id"]: partition for partition in Loader().load_data("partitions")["partitions"]}


class Response(NamedTuple):
    """What a service sends back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """What a client sends, whatever the order of the body's members.

    Attributes:
        scope: access key, region and service that it is signed for; not the day.
    """

    method: str
    url: str
    headers: dict[str, str]
    content: Any
    scope: list[str]

    @classmethod
    def of(cls, method: str, url: str, body: bytes | str, headers: Mapping[str, str | bytes]) -> Request:
        texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
        is_form = "form" in texts["Content-Type"]
        form = body.decode() if isinstance(body, bytes) else body
        content = parse_qs(form, strict_parsing=True) if is_form else json.loads(body)
        key, _, *scope, _ = texts["Authorization"].partition("Credential=")[2].partition(",")[0].split("/")
        kept = {name: texts.get(name, "") for name in ("X-Amz-Target", "Content-Type", "X-Amz-Security-Token")}
        return cls(method, url, kept, content, [key, *scope])


class FakeTransport:
    """Takes the requests of a client, and gives each the same response; no byte leaves the process."""

    def __init__(self, response: Response) -> None:
        self.requests: list[Request] = []
        self._response = response

    def request(self, method: str, url: str, *, body: bytes, headers: Mapping[str, str], **_: Any) -> Any:
        """urllib3's."""
        self.requests.append(Request.of(method, url, body, headers))
        return SimpleNamespace(status=self._response.status, data=self._response.body, headers=self._response.headers)

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """botocore's."""
        body, sent = cast("bytes", request.body), dict(request.headers)
        self.requests.append(Request.of(request.method, request.url, body, sent))
        raw = urllib3.HTTPResponse(io.BytesIO(self._response.body), preload_content=False)
        headers = HTTPHeaders()
        for name, value in self._response.headers.items():
            headers[name.title()] = value
        return AWSResponse(request.url, self._response.status, headers, raw)


STS_NAMESPACE = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
STS_TOKEN = f"""<GetWebIdentityTokenResponse {STS_NAMESPACE}>
  <GetWebIdentityTokenResult>
    <WebIdentityToken>eyJh.eyJp.c2ln-_</WebIdentityToken>
    <Expiration>2026-11-24T02:10:52Z</Expiration>
  </GetWebIdentityTokenResult>
  <ResponseMetadata><RequestId>request-1</RequestId></ResponseMetadata>
</GetWebIdentityTokenResponse>""".encode()
STS_REFUSAL = f"""<ErrorResponse {STS_NAMESPACE}>
  <Error><Type>Sender</Type><Code>AccessDenied</Code><Message>No.</Message></Error>
  <RequestId>request-1</RequestId>
</ErrorResponse>""".encode()
CANCELED = json.dumps(
    {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"id": {"S": "1"}}}],
    }
).encode()
REQUEST_ID = {"x-amzn-requestid": "request-1"}


@cache
def session() -> boto3.session.Session:
    return boto3.session.Session("AKIALOCAL", "local-secret")


def boto3_client(service: str, region: str) -> Any:
    retries: Any = {"mode": "standard", "total_max_attempts": 1}
    config = Config(retries=retries, ignore_configured_endpoint_urls=True)  # type: ignore[call-arg]
    return session().client(cast("Any", service), region_name=region, config=config)


def boto3_call(transport: FakeTransport, service: str, operation: str, region: str = REGION) -> dict[str, Any]:
    client = boto3_client(service, region)
    client.meta.events.register(f"before-send.{service}", transport)
    return dict(getattr(client, operation)(**REQUESTS[service, operation]))


def own_call(
    transport: FakeTransport,
    service: str,
    operation: str,
    region: str = REGION,
    key: Key | None = KEY,
    endpoints: Mapping[str, str] = {},
) -> dict[str, Any]:
    """Bytes are given in base64."""
    aws = Aws(region=region, endpoints=endpoints, key=key, sleep=lambda seconds: None)
    aws._http = cast("Any", transport)
    call = getattr(CLIENTS[service](aws), operation)
    request = json.dumps(REQUESTS[service, operation], default=lambda data: b64encode(data).decode())
    return dict(call(within(10), **json.loads(request)))


Call = Callable[..., dict[str, Any]]


def sent_by(call: Call, service: str, operation: str, **arguments: Any) -> Request:
    """The one request of a call that succeeds."""
    transport = FakeTransport(Response(200, STS_TOKEN if service == "sts" else b"{}"))
    call(transport, service, operation, **arguments)
    [request] = transport.requests
    return request


# ---- Requests


@EACH_OPERATION
@pytest.mark.parametrize("region", REGIONS)
def test_request_is_the_one_that_boto3_sends(service: str, operation: str, region: str) -> None:
    their, our = (sent_by(call, service, operation, region=region) for call in (boto3_call, own_call))

    assert our == their


def test_request_is_signed_by_the_key_given() -> None:
    request = sent_by(own_call, *GET, key=Key("ASIA1", "secret", "session"))

    assert (request.scope[0], request.headers["X-Amz-Security-Token"]) == ("ASIA1", "session")


def test_request_is_signed_by_the_key_that_botocore_finds_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFOUND")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "found-secret")

    assert sent_by(own_call, "events", "put_events", key=None).scope[0] == "AKIAFOUND"


def test_request_goes_to_the_endpoint_in_the_settings() -> None:
    endpoints = {"": "http://all.example/", "events": "http://events.example"}

    urls = [sent_by(own_call, *operation, endpoints=endpoints).url for operation in (("events", "put_events"), GET)]

    assert urls == ["http://events.example/", "http://all.example/"]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_endpoint_has_the_host_name_of_its_partition(partition: str) -> None:
    """In every region that botocore knows."""
    suffix = PARTITIONS[partition]["outputs"]["dnsSuffix"]
    regions = [region for region in PARTITIONS[partition]["regions"] if not region.endswith("-global")]

    assert regions
    for region in regions:
        aws = Aws(region=region, endpoints={}, key=KEY)
        for service in CLIENTS:
            assert aws._endpoint(service) == f"https://{service}.{region}.{suffix}"


# ---- Responses


def outcome_of(call: Call, operation: tuple[str, str], response: Response) -> dict[str, Any]:
    """What a client's caller gets to see of a response."""
    try:
        answer = call(FakeTransport(response), *operation)
    except ClientError as error:
        refusal = cast("dict[str, Any]", error.response)
        return {
            "code": refusal["Error"]["Code"],
            "message": refusal["Error"]["Message"],
            "status": refusal["ResponseMetadata"]["HTTPStatusCode"],
            "request": refusal["ResponseMetadata"].get("RequestId", ""),
            "reasons": refusal.get("CancellationReasons"),
        }
    answer.pop("ResponseMetadata", None)
    return {"WebIdentityToken": answer["WebIdentityToken"]} if operation is TOKEN else answer


RESPONSES = {
    "success": (GET, Response(200, b'{"Item": {"id": {"S": "1"}}}')),
    "empty object": (GET, Response(200, b"{}")),
    "empty body": (GET, Response(200, b"")),
    "canceled transaction": (TRANSACT, Response(400, CANCELED)),
    "full type": (GET, Response(400, b'{"__type": "com.amazon.coral#ValidationException", "message": "No."}')),
    "short type": (GET, Response(400, b'{"__type": "AccessDeniedException", "Message": "No."}')),
    "type with a link": (GET, Response(400, b'{"__type": "ValidationException:http://x", "message": "No."}')),
    "no type": (GET, Response(500, b'{"message": "No."}', REQUEST_ID)),
    "token of STS": (TOKEN, Response(200, STS_TOKEN, REQUEST_ID)),
    "refusal of STS": (TOKEN, Response(403, STS_REFUSAL, REQUEST_ID)),
}


@pytest.mark.parametrize(("operation", "response"), RESPONSES.values(), ids=RESPONSES)
def test_response_is_read_as_boto3_reads_it(operation: tuple[str, str], response: Response) -> None:
    theirs, ours = (outcome_of(call, operation, response) for call in (boto3_call, own_call))

    assert ours == theirs


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        *[(GET, body) for body in (b"", b"<html>Service Unavailable</html>", b"[]", b"{")],
        *[(TOKEN, body) for body in (b"", b"Service Unavailable", b"<html>", b"\xff")],
    ],
)
def test_refusal_of_another_form_has_its_status_for_a_code(operation: tuple[str, str], body: bytes) -> None:
    """As of a proxy or a load balancer."""
    assert outcome_of(own_call, operation, Response(503, body))["code"] == "503"


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        *[(("dynamodb", "update_item"), body) for body in (b"<html>", b"[]", b'"text"', b"{", b"\xff")],
        *[(TOKEN, body) for body in (b"", b"<html>", b"{}", b"\xff")],
    ],
)
def test_response_of_another_form_is_no_success_in_spite_of_its_status(operation: tuple[str, str], body: bytes) -> None:
    with pytest.raises(ResponseStreamingError):
        own_call(FakeTransport(Response(200, body)), *operation)


# ---- Second attempt

ClientOf = Callable[..., DynamoDbClient]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client_of(clock: FakeClock) -> ClientOf:
    """A client that talks to this URL."""

    def client(url: str, **arguments: Any) -> DynamoDbClient:
        return DynamoDbClient(Aws(region=REGION, endpoints={"": url}, key=KEY, sleep=clock.sleep, **arguments))

    return client


def get(client: DynamoDbClient, deadline: Deadline | None = None) -> dict[str, Any]:
    return client.get_item(deadline or within(10), TableName="ledger", Key=ID)


@pytest.mark.parametrize(
    ("code", "status", "most"),
    [
        ("InternalServerError", 500, 1.0),
        ("ServiceUnavailable", 503, 1.0),
        ("ThrottlingException", 400, 1.0),
        pytest.param(None, None, 0.0, id="closed connection"),
    ],
)
def test_transient_refusal_is_retried_after_a_wait_and_a_closed_connection_at_once(
    aws: FakeAws, client_of: ClientOf, clock: FakeClock, code: str | None, status: int, most: float
) -> None:
    aws.answer("GetItem", {"Item": ID}, times=None)
    if code:
        aws.fail("GetItem", code, status=status)
    else:
        aws.hang_up("GetItem")

    assert get(client_of(aws.url)) == {"Item": ID}

    assert len(aws.calls) == MAX_REQUEST_ATTEMPTS
    [wait] = clock.sleeps
    assert 0 <= wait <= most


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("ValidationException", 400, 1),
        ("AccessDeniedException", 400, 1),
        ("ConditionalCheckFailedException", 400, 1),
        ("InternalServerError", 500, MAX_REQUEST_ATTEMPTS),
    ],
)
def test_refusal_is_raised_after_one_attempt_if_permanent_else_after_the_last(
    aws: FakeAws, client_of: ClientOf, code: str, status: int, attempts: int
) -> None:
    aws.fail("GetItem", code, status=status, times=None)

    with pytest.raises(ClientError, match=code):
        get(client_of(aws.url))

    assert len(aws.calls) == attempts


def test_transient_refusal_is_raised_if_no_time_is_left_for_the_wait(
    aws: FakeAws, client_of: ClientOf, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("function.domain.backoff.UNIFORM", lambda _, high: high)
    aws.fail("GetItem", "InternalServerError", status=500)

    with pytest.raises(ClientError, match="InternalServerError"):
        get(client_of(aws.url), within(0.9))

    assert (len(aws.calls), clock.sleeps) == (1, [])


# ---- Kept connections, each of which may be closed after a freeze

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"


class Peer(RawServer):
    """Answers requests; resets a connection after so many, or after it has dropped it.

    Attributes:
        requests: how many were answered.
        answers: the next ones; a request without one is answered by a reset.
    """

    def __init__(self, requests_per_connection: int = 1_000) -> None:
        super().__init__(self._answer)
        self.requests = 0
        self.answers: Iterator[bytes] = itertools.repeat(ANSWER)
        self._requests_per_connection = requests_per_connection
        self._dropped: set[Any] = set()
        self._batch: threading.Barrier | None = None

    def drop_connections(self) -> None:
        """As a NAT gateway does, which answers their next packets with a reset."""
        self._dropped.update(self._open)

    def get_ten_times(self, client: DynamoDbClient, deadline: Deadline) -> list[dict[str, Any]]:
        """Concurrently, on a connection each."""
        self._batch = threading.Barrier(10)
        try:
            with ThreadPoolExecutor(10) as threads:
                return list(threads.map(lambda _: get(client, deadline), range(10)))
        finally:
            self._batch = None

    def _answer(self, connection: Any) -> None:
        for _ in range(self._requests_per_connection):
            receive_request(connection)
            if connection in self._dropped or (answer := next(self.answers, None)) is None:
                break
            self.requests += 1
            if self._batch:
                self._batch.wait(10)
            connection.sendall(answer)
        else:
            receive_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@pytest.mark.parametrize("requests_per_connection", [1, 1_000])
def test_reset_of_kept_connections_costs_no_answer_and_no_wait(
    client_of: ClientOf, clock: FakeClock, requests_per_connection: int
) -> None:
    with Peer(requests_per_connection) as peer:
        client = client_of(peer.url)
        for _ in range(3):
            assert peer.get_ten_times(client, within(10)) == [{}] * 10
            peer.drop_connections()

        assert peer.connections == 30
    assert clock.sleeps == []


def test_retry_after_a_reset_is_on_a_new_connection_and_not_on_one_that_another_thread_gave_back(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[Exception] = []

    def between(error: Any, url: str) -> BotoCoreError:
        lost.append(error)
        with ThreadPoolExecutor(1) as other:
            other.submit(get, client).result()
        return ConnectionClosedError(endpoint_url=url, error=error)

    monkeypatch.setattr("function.adapters.aws.client.map_transport_error", between)
    with Peer(requests_per_connection=1) as peer:
        client = client_of(peer.url)
        get(client)

        assert get(client) == {}

    assert len(lost) == 1


def test_reset_of_a_kept_connection_is_none_of_the_two_attempts(client_of: ClientOf, clock: FakeClock) -> None:
    with Peer() as peer:
        client = client_of(peer.url)
        get(client)
        peer.drop_connections()
        peer.answers = iter([UNAVAILABLE, ANSWER])

        assert get(client) == {}

    assert (peer.connections, peer.requests) == (2, 3)
    assert len(clock.sleeps) == 1


def test_service_that_resets_each_connection_is_given_up(client_of: ClientOf) -> None:
    with Peer() as peer:
        client = client_of(peer.url)
        get(client)
        peer.drop_connections()
        peer.answers = iter([])

        with pytest.raises(ConnectionClosedError):
            get(client)

    assert peer.connections == 1 + MAX_REQUEST_ATTEMPTS


@pytest.mark.parametrize(("idle", "connections"), [(MAX_IDLE_SECONDS - 1, 1), (MAX_IDLE_SECONDS + 1, 2)])
def test_connection_that_was_idle_for_long_is_not_used_again(
    client_of: ClientOf, clock: FakeClock, idle: float, connections: int
) -> None:
    """By the clock of the deadlines, which goes on while an environment is frozen."""
    with Peer() as peer:
        client = client_of(peer.url)
        for _ in range(2):
            get(client, clock.until(10))
            clock.seconds += idle

        assert (peer.connections, peer.requests) == (connections, 2)


def test_idle_time_is_of_each_connection(client_of: ClientOf, clock: FakeClock) -> None:
    """Single events may have kept one of ten in use."""
    with Peer() as peer:
        client = client_of(peer.url)

        peer.get_ten_times(client, clock.until(10))
        for _ in range(3):
            clock.seconds += MAX_IDLE_SECONDS / 2
            get(client, clock.until(10))
        assert peer.connections == 10

        peer.get_ten_times(client, clock.until(10))

        assert peer.connections == 10 + 9


# ---- Servers that answer late, in part or not at all


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize(
    ("beginning", "read_seconds"),
    [
        pytest.param(b"", 0.1, id="nothing comes"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Name: ", 0.2, id="the head trickles in"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 0.2, id="the body trickles in"),
    ],
)
def test_response_that_takes_too_long_ends_each_attempt(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, beginning: bytes, read_seconds: float
) -> None:
    monkeypatch.setattr("function.adapters.aws.client.READ_SECONDS", read_seconds)

    def trickle(connection: Any) -> None:
        receive_request(connection)
        connection.sendall(beginning)
        while beginning:
            time.sleep(0.02)
            connection.sendall(b" ")
        connection.recv(1)

    with RawServer(trickle) as server, at_most(5):
        with pytest.raises(ReadTimeoutError):
            get(client_of(server.url))

        assert server.connections == MAX_REQUEST_ATTEMPTS


@pytest.mark.parametrize(("beginning", "begins_after", "seconds"), [(b"", 0.0, 0.2), (b"HTTP/1.1 ", 0.9, 1.0)])
def test_response_that_takes_too_long_ends_by_the_deadline(
    client_of: ClientOf, beginning: bytes, begins_after: float, seconds: float
) -> None:
    def begin(connection: Any) -> None:
        receive_request(connection)
        time.sleep(begins_after)
        connection.sendall(beginning)
        connection.recv(1)

    with RawServer(begin) as server, at_most(seconds + 0.7):
        with pytest.raises(ReadTimeoutError):
            get(client_of(server.url), within(seconds))

        assert server.connections == 1


def test_nothing_is_sent_after_the_deadline(
    client_of: ClientOf, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the environment was frozen while it connected."""
    received: list[bytes] = []
    connect = HTTPConnection.connect

    def freeze(connection: HTTPConnection) -> None:
        connect(connection)
        clock.seconds = 3_600.0

    monkeypatch.setattr(HTTPConnection, "connect", freeze)
    with RawServer(lambda connection: received.append(receive_request(connection))) as server:
        with pytest.raises(BotoCoreError):
            get(client_of(server.url), clock.until(10))

        assert clock.seconds > 0
        time.sleep(0.3)
        assert received == []


def test_response_that_breaks_off_is_an_error_of_botocore(client_of: ClientOf) -> None:
    def break_off(connection: Any) -> None:
        receive_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{")

    with RawServer(break_off) as server, pytest.raises(BotoCoreError):
        get(client_of(server.url))


def test_connection_that_cannot_be_made_is_an_error_of_botocore(client_of: ClientOf) -> None:
    with RawServer(receive_request) as server:
        url = server.url

    with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        get(client_of(url))


# ---- TLS and proxies


class Tls(NamedTuple):
    """Of a server whose certificate is from the authority in the bundle."""

    context: ssl.SSLContext
    ca_bundle: str


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return Tls(context, str(tmp_path / "ca.pem"))


def answer_once(connection: Any) -> None:
    receive_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")


def test_connection_is_made_only_to_a_server_with_a_trusted_certificate(client_of: ClientOf, tls: Tls) -> None:
    with RawServer(answer_once, tls.context) as server:
        with pytest.raises(SSLError):
            get(client_of(server.url))
        assert get(client_of(server.url, ca_bundle=tls.ca_bundle)) == {}


def test_trusted_certificates_are_read_once_for_all_connections(
    client_of: ClientOf, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(answer_once, tls.context) as server:
        client = client_of(server.url, ca_bundle=tls.ca_bundle)
        readings: list[int] = []
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: readings.append(1))
        for _ in range(2):
            get(client)

    assert (server.connections, readings) == (2, [])


def test_request_goes_through_the_proxy_of_the_environment(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def serve(connection: Any) -> None:
        asked.append(receive_request(connection).split(b" HTTP/")[0])
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with RawServer(serve) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(BotoCoreError):
            get(client_of("https://dynamodb.example"))

    assert set(asked) == {b"CONNECT dynamodb.example:443"}


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)


def answer_each(connection: Any) -> None:
    while receive_request(connection):
        connection.sendall(ANSWER)


def test_connection_through_a_proxy_is_kept_until_it_was_idle_for_long(
    client_of: ClientOf, clock: FakeClock, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tunnel(connection: Any) -> None:
        receive_request(connection)
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=copy, args=(onward, connection), daemon=True).start()
            copy(connection, onward)

    with RawServer(answer_each, tls.context) as server, RawServer(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        client = client_of(server.url, ca_bundle=tls.ca_bundle)
        for idle in (0, MAX_IDLE_SECONDS - 1, MAX_IDLE_SECONDS + 1):
            clock.seconds += idle
            assert get(client, clock.until(10)) == {}

        assert (proxy.connections, server.connections) == (2, 2)
