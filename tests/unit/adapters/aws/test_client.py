"""The clients of the function's own: on the wire they are boto3's, and they bear what boto3's bear."""

from __future__ import annotations

import io
import itertools
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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

from function.adapters.aws.client import (
    MAX_REQUEST_ATTEMPTS,
    Aws,
    DynamoDbClient,
    EventBridgeClient,
    Key,
    SecretsManagerClient,
    SqsClient,
    StsClient,
)
from function.adapters.connections import MAX_IDLE_SECONDS
from tests.deadlines import within
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.raw_server import RawServer, receive_request

REGION = "eu-west-1"
KEY = Key("AKIALOCAL", "local-secret", None)
CLIENTS = {
    "dynamodb": DynamoDbClient,
    "events": EventBridgeClient,
    "secretsmanager": SecretsManagerClient,
    "sqs": SqsClient,
    "sts": StsClient,
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
        "MessageAttributes": {"ce_id": {"StringValue": "名前", "DataType": "String"}},
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
EACH = pytest.mark.parametrize(("service", "operation"), REQUESTS)
PARTITIONS = Loader().load_data("partitions")["partitions"]


class Answer(NamedTuple):
    """What a service sends back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """What a client sends."""

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str | bytes]


class Wire:
    """Takes the requests of a client, and answers them all alike; no byte leaves the process."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[Request] = []
        self._answer = answer

    def request(self, method: str, url: str, *, body: bytes, headers: Mapping[str, str], **_: Any) -> Any:
        """urllib3's."""
        self.requests.append(Request(method, url, body, headers))
        return SimpleNamespace(status=self._answer.status, data=self._answer.body, headers=self._answer.headers)

    def __call__(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """botocore's."""
        self.requests.append(Request(request.method, request.url, cast("bytes", request.body), dict(request.headers)))
        raw = urllib3.HTTPResponse(io.BytesIO(self._answer.body), preload_content=False)
        headers = HTTPHeaders()
        for name, value in self._answer.headers.items():
            headers[name.title()] = value
        return AWSResponse(request.url, self._answer.status, headers, raw)


OK = Answer(200, b"{}")
STS_NAMESPACE = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
STS_ANSWERS = {
    "success": Answer(
        200,
        f"""<GetWebIdentityTokenResponse {STS_NAMESPACE}>
  <GetWebIdentityTokenResult>
    <WebIdentityToken>eyJh.eyJp.c2ln-_</WebIdentityToken>
    <Expiration>2026-11-24T02:10:52Z</Expiration>
  </GetWebIdentityTokenResult>
  <ResponseMetadata><RequestId>request-1</RequestId></ResponseMetadata>
</GetWebIdentityTokenResponse>""".encode(),
        {"x-amzn-requestid": "request-1"},
    ),
    "refusal": Answer(
        403,
        f"""<ErrorResponse {STS_NAMESPACE}>
  <Error><Type>Sender</Type><Code>AccessDenied</Code><Message>No.</Message></Error>
  <RequestId>request-1</RequestId>
</ErrorResponse>""".encode(),
        {"x-amzn-requestid": "request-1"},
    ),
}


def fine(service: str) -> Answer:
    return STS_ANSWERS["success"] if service == "sts" else OK


@cache
def session() -> boto3.session.Session:
    return boto3.session.Session("AKIALOCAL", "local-secret")


def boto3_call(service: str, operation: str, wire: Wire, region: str = REGION) -> dict[str, Any]:
    retries: Any = {"mode": "standard", "total_max_attempts": 1}
    config = Config(retries=retries, ignore_configured_endpoint_urls=True)  # type: ignore[call-arg]
    client = session().client(cast("Any", service), region_name=region, config=config)
    client.meta.events.register(f"before-send.{service}", wire)
    answer: dict[str, Any] = getattr(client, operation)(**REQUESTS[service, operation])
    return answer


def own_call(service: str, operation: str, wire: Wire, region: str = REGION, key: Key | None = KEY) -> dict[str, Any]:
    aws = Aws(region=region, endpoints={}, key=key, sleep=lambda seconds: None)
    aws._http = cast("Any", wire)
    answer: dict[str, Any] = getattr(CLIENTS[service](aws), operation)(within(10), **REQUESTS[service, operation])
    return answer


class TestRequests:
    @EACH
    @pytest.mark.parametrize("region", [REGION, "us-east-1", "us-gov-west-1", "cn-north-1", "ap-southeast-3"])
    def test_are_boto3s(self, service: str, operation: str, region: str) -> None:
        theirs, ours = Wire(fine(service)), Wire(fine(service))
        boto3_call(service, operation, theirs, region)
        own_call(service, operation, ours, region)

        [their], [our] = theirs.requests, ours.requests
        assert (our.method, our.url) == (their.method, their.url)
        assert content(our) == content(their)
        for header in ("X-Amz-Target", "Content-Type"):
            assert text(our.headers.get(header, "")) == text(their.headers.get(header, ""))
        assert scope(our) == scope(their)

    def test_carry_bytes_in_base64_as_boto3_sends_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bodies = []
        for call, value in ((boto3_call, b"\x00\xff"), (own_call, "AP8=")):
            request = REQUESTS["sqs", "send_message"]
            attributes = {"proof": {"BinaryValue": value, "DataType": "Binary"}}
            monkeypatch.setitem(REQUESTS, ("sqs", "send_message"), request | {"MessageAttributes": attributes})
            wire = Wire(OK)
            call("sqs", "send_message", wire)
            bodies.append(content(wire.requests[0]))

        assert bodies[0] == bodies[1]

    @EACH
    def test_are_signed_by_the_key(self, service: str, operation: str) -> None:
        wire = Wire(fine(service))
        own_call(service, operation, wire, key=Key("ASIA1", "secret", "session"))

        [request] = wire.requests
        assert scope(request)[0] == "ASIA1"
        assert text(request.headers["X-Amz-Security-Token"]) == "session"

    def test_are_signed_by_the_key_that_botocore_finds_where_none_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFOUND")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "found-secret")
        wire = Wire(OK)
        own_call("events", "put_events", wire, key=None)

        assert scope(wire.requests[0])[0] == "AKIAFOUND"

    def test_go_to_the_endpoints_of_the_settings(self) -> None:
        wire = Wire(OK)
        aws = Aws(region=REGION, endpoints={"": "http://all.example/", "events": "http://events.example"}, key=KEY)
        aws._http = cast("Any", wire)

        EventBridgeClient(aws).put_events(within(10), Entries=[])
        DynamoDbClient(aws).get_item(within(10), TableName="ledger", Key=ID)

        assert [request.url for request in wire.requests] == ["http://events.example/", "http://all.example/"]

    @pytest.mark.parametrize("partition", [entry["id"] for entry in PARTITIONS])
    def test_go_to_the_hosts_of_each_partition(self, partition: str) -> None:
        """In every region of it that botocore knows."""
        [entry] = [entry for entry in PARTITIONS if entry["id"] == partition]
        regions = [region for region in entry["regions"] if not region.endswith("-global")]

        assert regions
        for region in regions:
            aws = Aws(region=region, endpoints={}, key=KEY)
            for service in CLIENTS:
                assert aws._endpoint(service) == f"https://{service}.{region}.{entry['outputs']['dnsSuffix']}"

    @pytest.mark.parametrize("service", CLIENTS)
    @pytest.mark.parametrize(
        "region", ["eusc-de-east-1", "us-iso-east-1", "us-isob-east-1", "us-gov-west-1", "cn-north-1"]
    )
    def test_go_where_boto3s_go(self, region: str, service: str) -> None:
        config = Config(ignore_configured_endpoint_urls=True)  # type: ignore[call-arg]
        client = boto3.client(cast("Any", service), region_name=region, config=config)

        assert Aws(region=region, endpoints={}, key=KEY)._endpoint(service) == client.meta.endpoint_url


def content(request: Request) -> Any:
    """What a body says, whatever its order."""
    is_form = "form" in text(request.headers["Content-Type"])
    return parse_qs(text(request.body), strict_parsing=True) if is_form else json.loads(request.body)


def text(header: str | bytes) -> str:
    return header.decode() if isinstance(header, bytes) else header


def scope(request: Request) -> list[str]:
    """Access key, region and service that a request is signed for; not the day."""
    credential = text(request.headers["Authorization"]).partition("Credential=")[2].partition(",")[0]
    key, _, region, service, _ = credential.split("/")
    return [key, region, service]


CANCELLED = json.dumps(
    {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"id": {"S": "1"}}}],
    }
).encode()
ANSWERS = {
    "success": Answer(200, b'{"Item": {"id": {"S": "1"}}}'),
    "nothing": Answer(200, b"{}"),
    "cancelled": Answer(400, CANCELLED),
    "full type": Answer(400, b'{"__type": "com.amazon.coral.validate#ValidationException", "message": "No."}'),
    "short type": Answer(400, b'{"__type": "AccessDeniedException", "Message": "No."}'),
    "type with a link": Answer(400, b'{"__type": "ResourceNotFoundException:http://x", "message": "No."}'),
    "no type": Answer(500, b'{"message": "No."}', {"x-amzn-requestid": "request-1"}),
}


class TestAnswers:
    @pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
    def test_are_boto3s(self, answer: Answer) -> None:
        theirs, ours = (outcome_of(call, answer) for call in (boto3_call, own_call))

        assert ours == theirs

    @pytest.mark.parametrize("body", [b"", b"<html>Service Unavailable</html>", b"[]", b"{"])
    def test_that_come_from_somebody_else_are_told_by_their_status(self, body: bytes) -> None:
        with pytest.raises(ClientError) as caught:
            own_call("dynamodb", "get_item", Wire(Answer(503, body)))

        assert caught.value.response["Error"]["Code"] == "503"

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b'"text"', b"{", b"\xff"])
    def test_that_prove_nothing_are_no_success(self, body: bytes) -> None:
        with pytest.raises(ResponseStreamingError):
            own_call("dynamodb", "update_item", Wire(Answer(200, body)))

    def test_of_nothing_at_all_are_boto3s_too(self) -> None:
        """Its own parser takes an empty body for an empty object."""
        for call in (boto3_call, own_call):
            found = call("dynamodb", "update_item", Wire(Answer(200, b"")))
            found.pop("ResponseMetadata", None)
            assert found == {}


def outcome_of(call: Callable[[str, str, Wire], dict[str, Any]], answer: Answer) -> dict[str, Any]:
    """What a client's caller gets to see of an answer."""
    service, operation = ("dynamodb", "transact_write_items") if b"Cancel" in answer.body else ("dynamodb", "get_item")
    try:
        found = call(service, operation, Wire(answer))
    except ClientError as error:
        response = cast("dict[str, Any]", error.response)
        return {
            "code": response["Error"]["Code"],
            "message": response["Error"]["Message"],
            "status": response["ResponseMetadata"]["HTTPStatusCode"],
            "request": response["ResponseMetadata"].get("RequestId", ""),
            "reasons": response.get("CancellationReasons"),
        }
    found.pop("ResponseMetadata", None)
    return found


class TestAnswersOfSts:
    @pytest.mark.parametrize("answer", STS_ANSWERS.values(), ids=STS_ANSWERS)
    def test_are_boto3s(self, answer: Answer) -> None:
        theirs, ours = (self.outcome_of(call, answer) for call in (boto3_call, own_call))

        assert ours == theirs
        assert ours in ("eyJh.eyJp.c2ln-_", ("AccessDenied", "No.", 403, "request-1"))

    @staticmethod
    def outcome_of(call: Callable[[str, str, Wire], dict[str, Any]], answer: Answer) -> object:
        try:
            return call("sts", "get_web_identity_token", Wire(answer))["WebIdentityToken"]
        except ClientError as error:
            found, metadata = error.response["Error"], error.response["ResponseMetadata"]
            return found["Code"], found["Message"], metadata["HTTPStatusCode"], metadata["RequestId"]

    @pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"<html>", b"\xff"])
    def test_that_come_from_somebody_else_are_told_by_their_status(self, body: bytes) -> None:
        with pytest.raises(ClientError) as caught:
            own_call("sts", "get_web_identity_token", Wire(Answer(503, body)))

        assert caught.value.response["Error"]["Code"] == "503"

    @pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"\xff"])
    def test_that_prove_nothing_are_no_success(self, body: bytes) -> None:
        with pytest.raises(ResponseStreamingError):
            own_call("sts", "get_web_identity_token", Wire(Answer(200, body)))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def own(clock: FakeClock) -> Callable[..., DynamoDbClient]:
    """A client that talks to this URL."""

    def client(url: str, **arguments: Any) -> DynamoDbClient:
        return DynamoDbClient(Aws(region=REGION, endpoints={"": url}, key=KEY, sleep=clock.sleep, **arguments))

    return client


def get(client: DynamoDbClient) -> dict[str, Any]:
    return client.get_item(within(10), TableName="ledger", Key=ID)


class TestSecondAttempt:
    @pytest.mark.parametrize(
        ("code", "status"),
        [("InternalServerError", 500), ("ServiceUnavailable", 503), ("ThrottlingException", 400)],
    )
    def test_comes_a_while_after_what_may_pass(
        self, aws: FakeAws, own: Callable[..., DynamoDbClient], clock: FakeClock, code: str, status: int
    ) -> None:
        aws.answer("GetItem", {"Item": ID}, times=None)
        aws.fail("GetItem", code, status=status)

        assert get(own(aws.url)) == {"Item": ID}

        assert len(aws.calls) == MAX_REQUEST_ATTEMPTS
        assert len(clock.sleeps) == 1
        assert 0 <= clock.sleeps[0] <= 1

    def test_comes_at_once_after_a_connection_that_closed(
        self, aws: FakeAws, own: Callable[..., DynamoDbClient], clock: FakeClock
    ) -> None:
        aws.answer("GetItem", {"Item": ID}, times=None)
        aws.hang_up("GetItem")

        assert get(own(aws.url)) == {"Item": ID}

        assert clock.sleeps == [0.0]

    @pytest.mark.parametrize(
        "code", ["ValidationException", "AccessDeniedException", "ConditionalCheckFailedException"]
    )
    def test_does_not_come_after_what_will_not_pass(
        self, aws: FakeAws, own: Callable[..., DynamoDbClient], code: str
    ) -> None:
        aws.fail("GetItem", code, times=None)

        with pytest.raises(ClientError, match=code):
            get(own(aws.url))

        assert len(aws.calls) == 1

    def test_is_the_last(self, aws: FakeAws, own: Callable[..., DynamoDbClient]) -> None:
        aws.fail("GetItem", "InternalServerError", status=500, times=None)

        with pytest.raises(ClientError, match="InternalServerError"):
            get(own(aws.url))

        assert len(aws.calls) == MAX_REQUEST_ATTEMPTS

    def test_does_not_come_where_the_time_to_wait_for_it_is_not_left(
        self, aws: FakeAws, own: Callable[..., DynamoDbClient], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("function.domain.backoff.UNIFORM", lambda _, high: high)
        aws.fail("GetItem", "InternalServerError", status=500)

        with pytest.raises(ClientError, match="InternalServerError"):
            own(aws.url).get_item(within(0.9), TableName="ledger", Key=ID)

        assert (len(aws.calls), clock.sleeps) == (1, [])


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"


class Peer(RawServer):
    """Answers each request, but those on connections that it has reset meanwhile, or that have had their share."""

    def __init__(self, share: int = 1_000) -> None:
        super().__init__(self._answer)
        self.requests = 0
        self.answers: Iterator[bytes] = itertools.repeat(ANSWER)
        self._share = share
        self._forgotten: set[Any] = set()
        self.together: threading.Barrier | None = None

    def forget_connections(self) -> None:
        """As a NAT gateway does, which answers their next packets with a reset."""
        self._forgotten.update(self._open)

    def _answer(self, connection: Any) -> None:
        for _ in range(self._share):
            receive_request(connection)
            if connection in self._forgotten or (answer := next(self.answers, None)) is None:
                break
            self.requests += 1
            if self.together:
                self.together.wait(10)
            connection.sendall(answer)
        else:
            receive_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


class TestThaw:
    """After a freeze each kept connection may be dead."""

    def batch(self, server: Peer, client: DynamoDbClient, clock: FakeClock | None = None) -> list[dict[str, Any]]:
        """Ten requests at once, on a connection each."""
        server.together = threading.Barrier(10)
        deadline = clock.until(10) if clock else within(10)
        try:
            with ThreadPoolExecutor(10) as threads:
                request = {"TableName": "ledger", "Key": ID}
                return list(threads.map(lambda _: client.get_item(deadline, **request), range(10)))
        finally:
            server.together = None

    @pytest.mark.parametrize("share", [1, 1_000])
    def test_of_connections_that_were_reset_costs_no_answer_and_no_wait(
        self, own: Callable[..., DynamoDbClient], clock: FakeClock, share: int
    ) -> None:
        with Peer(share) as server:
            client = own(server.url)
            for _ in range(3):
                assert self.batch(server, client) == [{}] * 10
                server.forget_connections()

            assert server.connections == 30
        assert clock.sleeps == []

    def test_retries_on_a_new_connection_and_not_on_one_that_another_thread_gave_back(
        self, own: Callable[..., DynamoDbClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost: list[Exception] = []

        def between(error: Any, url: str) -> BotoCoreError:
            lost.append(error)
            with ThreadPoolExecutor(1) as other:
                other.submit(get, client).result()
            return ConnectionClosedError(endpoint_url=url, error=error)

        monkeypatch.setattr("function.adapters.aws.client.map_transport_error", between)
        with Peer(share=1) as server:
            client = own(server.url)
            get(client)

            assert get(client) == {}

        assert len(lost) == 1

    def test_leaves_the_service_its_two_attempts(self, own: Callable[..., DynamoDbClient], clock: FakeClock) -> None:
        with Peer() as server:
            client = own(server.url)
            get(client)
            server.forget_connections()
            server.answers = iter([UNAVAILABLE, ANSWER])

            assert get(client) == {}

        assert (server.connections, server.requests) == (2, 3)
        assert len(clock.sleeps) == 1

    def test_of_a_service_that_always_hangs_up_ends(self, own: Callable[..., DynamoDbClient]) -> None:
        with Peer() as server:
            client = own(server.url)
            get(client)
            server.forget_connections()
            server.answers = iter([])  # which ends each connection

            with pytest.raises(ConnectionClosedError):
                get(client)

        assert server.connections == 1 + MAX_REQUEST_ATTEMPTS

    @pytest.mark.parametrize(("idle", "connections"), [(MAX_IDLE_SECONDS - 1, 1), (MAX_IDLE_SECONDS + 1, 2)])
    def test_of_a_connection_that_was_idle_for_long_makes_a_new_one(
        self, own: Callable[..., DynamoDbClient], idle: float, connections: int
    ) -> None:
        """By the clock of the deadlines, which goes on while an environment is frozen."""
        clock = FakeClock()
        with Peer() as server:
            client = own(server.url)
            for _ in range(2):
                client.get_item(clock.until(10), TableName="ledger", Key=ID)
                clock.seconds += idle

            assert server.connections == connections
            assert server.requests == 2

    def test_judges_each_connection_by_itself(self, own: Callable[..., DynamoDbClient]) -> None:
        """Single events may have kept one of ten in use."""
        clock = FakeClock()
        with Peer() as server:
            client = own(server.url)

            self.batch(server, client, clock)
            for _ in range(3):
                clock.seconds += MAX_IDLE_SECONDS / 2
                client.get_item(clock.until(10), TableName="ledger", Key=ID)
            assert server.connections == 10

            self.batch(server, client, clock)

            assert server.connections == 10 + 9


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Of a server that the authority vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def answer_once(connection: Any) -> None:
    receive_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")


class TestConnection:
    def test_is_kept_for_the_next_request(self, own: Callable[..., DynamoDbClient]) -> None:
        def serve(connection: Any) -> None:
            while receive_request(connection):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        with RawServer(serve) as server:
            client = own(server.url)
            for _ in range(3):
                get(client)

            assert server.connections == 1

    def test_that_brings_no_answer_ends_in_time(
        self, own: Callable[..., DynamoDbClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("function.adapters.aws.client.READ_SECONDS", 0.1)

        with RawServer(lambda connection: receive_request(connection) and connection.recv(1)) as server:
            with pytest.raises(ReadTimeoutError):
                get(own(server.url))

            assert server.connections == MAX_REQUEST_ATTEMPTS

    @pytest.mark.parametrize("trickling", ["head", "body"])
    def test_whose_answer_trickles_in_ends_in_time(
        self, own: Callable[..., DynamoDbClient], monkeypatch: pytest.MonkeyPatch, trickling: str
    ) -> None:
        monkeypatch.setattr("function.adapters.aws.client.READ_SECONDS", 0.2)
        ended = threading.Event()

        def serve(connection: Any) -> None:
            receive_request(connection)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
            connection.sendall(head + (b"\r\n" if trickling == "body" else b"X-Name: "))
            while not ended.wait(0.02):
                connection.sendall(b" ")

        with RawServer(serve) as server:
            began = time.monotonic()
            with pytest.raises(ReadTimeoutError):
                get(own(server.url))
            ended.set()

            assert time.monotonic() - began < 5
            assert server.connections == MAX_REQUEST_ATTEMPTS

    def test_ends_by_the_deadline(self, own: Callable[..., DynamoDbClient]) -> None:
        with RawServer(lambda connection: receive_request(connection) and connection.recv(1)) as server:
            began = time.monotonic()
            with pytest.raises(ReadTimeoutError):
                own(server.url).get_item(within(0.2), TableName="ledger", Key=ID)

            assert time.monotonic() - began < 1.5
            assert server.connections == 1

    def test_ends_by_the_deadline_when_part_of_an_answer_came(self, own: Callable[..., DynamoDbClient]) -> None:
        def serve(connection: Any) -> None:
            receive_request(connection)
            time.sleep(0.9)
            connection.sendall(b"HTTP/1.1 ")
            connection.recv(1)

        with RawServer(serve) as server:
            began = time.monotonic()
            with pytest.raises(ReadTimeoutError):
                own(server.url).get_item(within(1.0), TableName="ledger", Key=ID)

            assert time.monotonic() - began < 1.7

    def test_sends_nothing_after_the_deadline(
        self, own: Callable[..., DynamoDbClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the environment was frozen while it connected."""
        clock, received = FakeClock(), threading.Event()
        connect = HTTPConnection.connect

        def freeze(connection: HTTPConnection) -> None:
            connect(connection)
            clock.seconds = 3_600.0

        def receive(connection: socket.socket) -> None:
            receive_request(connection)
            received.set()

        monkeypatch.setattr(HTTPConnection, "connect", freeze)
        with RawServer(receive) as server:
            with pytest.raises(BotoCoreError):
                own(server.url).get_item(clock.until(10), TableName="ledger", Key=ID)

            assert clock.seconds > 0
            assert not received.wait(0.3)

    def test_that_breaks_off_is_an_error_of_botocore(self, own: Callable[..., DynamoDbClient]) -> None:
        def serve(connection: Any) -> None:
            receive_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{")

        with RawServer(serve) as server, pytest.raises(BotoCoreError):
            get(own(server.url))

    def test_that_cannot_be_made_is_an_error_of_botocore(self, own: Callable[..., DynamoDbClient]) -> None:
        with RawServer(lambda connection: None) as server:
            url = server.url

        with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
            get(own(url))

    def test_is_made_to_none_but_a_trusted_server(
        self, own: Callable[..., DynamoDbClient], tls: ssl.SSLContext, ca_bundle: str
    ) -> None:
        with RawServer(answer_once, tls) as server:
            with pytest.raises(SSLError):
                get(own(server.url))
            assert get(own(server.url, ca_bundle=ca_bundle)) == {}

    def test_reads_the_trusted_certificates_once_for_all(
        self,
        own: Callable[..., DynamoDbClient],
        tls: ssl.SSLContext,
        ca_bundle: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with RawServer(answer_once, tls) as server:
            client = own(server.url, ca_bundle=ca_bundle)
            readings: list[int] = []
            monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: readings.append(1))
            for _ in range(2):
                get(client)

        assert (server.connections, readings) == (2, [])

    def test_goes_through_the_proxy_of_the_environment(
        self, own: Callable[..., DynamoDbClient], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def serve(connection: Any) -> None:
            asked.append(receive_request(connection).split(b" HTTP/")[0])
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

        with RawServer(serve) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            with pytest.raises(BotoCoreError):
                get(own("https://dynamodb.example"))

        assert set(asked) == {b"CONNECT dynamodb.example:443"}

    def test_through_a_proxy_is_kept_and_made_anew(
        self,
        own: Callable[..., DynamoDbClient],
        tls: ssl.SSLContext,
        ca_bundle: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock = FakeClock()

        def answer(connection: Any) -> None:
            while receive_request(connection):
                connection.sendall(ANSWER)

        with RawServer(answer, tls) as server:

            def tunnel(connection: Any) -> None:
                receive_request(connection)
                with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as onward:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=copy, args=(onward, connection), daemon=True)
                    back.start()
                    copy(connection, onward)

            with RawServer(tunnel) as proxy:
                monkeypatch.setenv("HTTPS_PROXY", proxy.url)
                client = own(server.url, ca_bundle=ca_bundle)
                for idle in (0, MAX_IDLE_SECONDS - 1, MAX_IDLE_SECONDS + 1):
                    clock.seconds += idle
                    assert client.get_item(clock.until(10), TableName="ledger", Key=ID) == {}

                assert (proxy.connections, server.connections) == (2, 2)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
