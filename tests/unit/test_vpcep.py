"""The adapter of the official SDK, over real sockets: whatever comes back, the failure says what is known of it."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from function.adapters.huawei import endpoint_services
from function.adapters.huawei.credentials import Credentials, StaticCredentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.error_codes import from_reply
from function.adapters.huawei.key_guard import MAX_REMEMBERED_REFUSALS, KeyGuard
from function.adapters.huawei.regions import UnknownRegionError
from function.adapters.tls import ssl_context
from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import Target
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed, refusal
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud

KEY = Credentials("LOCALACCESSKEY", "local-secret-key", None, PROJECT)
WRONG_KEY = KEY._replace(secret_key="another-secret-key")
TARGET = Target(REGION, PROJECT, SERVICE)
SHORT = 0.3
LONG = 10.0

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak=KEY.access_key, sk=KEY.secret_key, project_id=PROJECT, region=REGION) as cloud:
        cloud.add_service(SERVICE, name="billing")
        cloud.add_service(OTHER_SERVICE, name="reports")
        yield cloud


@pytest.fixture
def vpcep(cloud: HuaweiCloud) -> HuaweiEndpointServices:
    return adapter(cloud.url)


class Provider:
    """Credentials of two functions."""

    def __init__(self, get: Callable[[Deadline], Credentials], invalidate: Callable[[Credentials], None]) -> None:
        self.get, self.invalidate = get, invalidate


def adapter(
    url: str | dict[str, str],
    get: Callable[[Deadline], Credentials] = lambda _: KEY,
    *,
    invalidate: Callable[[Credentials], None] = lambda key: None,
    on_call: Callable[[float], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> HuaweiEndpointServices:
    endpoints = {REGION: url} if isinstance(url, str) else url
    return HuaweiEndpointServices(
        Provider(get, invalidate),
        region=REGION,
        regions=set(endpoints) or {REGION},
        endpoints=endpoints,
        pool_size=10,
        on_call=on_call,
        now=now,
    )


def of_a_trusted_server(monkeypatch: pytest.MonkeyPatch, directory: Path) -> ssl.SSLContext:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trusted = ssl_context(str(directory / "ca.pem"))
    monkeypatch.setattr("function.adapters.huawei.transport.ssl_context", lambda: trusted)
    return context


def rename_failure(vpcep: HuaweiEndpointServices, most: float = LONG) -> Failure:
    return failed(vpcep.rename, TARGET, "orders", within(most))


def proves_nothing(call: Callable[[], Reply]) -> Reply | Failure:
    """What a reply without an error, but without a name too, becomes: either is fine, if it is no success."""
    try:
        reply = call()
    except RenameFailedError as error:
        failure = error.failure
    else:
        assert reply.name is None or "orders" not in reply.name
        return reply
    assert failure.in_doubt
    assert failure.retryable
    return failure


def http_reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "X-Request-Id: raw-1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def in_parallel(count: int, call: Callable[[int], Any]) -> list[Any]:
    def outcome(number: int) -> Any:
        try:
            return call(number)
        except RenameFailedError as error:
            return error.failure

    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(outcome, range(count)))


class TestSuccess:
    @pytest.mark.parametrize("name", ["orders", "A-b_9", ""])
    def test_of_a_rename_names_the_new_name(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, name: str) -> None:
        reply = vpcep.rename(TARGET, name, within(LONG))

        assert cloud.name_of(SERVICE) == name
        assert reply == Reply(name, 200, cloud.calls[0].request_id)

    def test_of_a_rename_may_name_the_full_name(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.reply_form = "full"

        assert vpcep.rename(TARGET, "orders", within(LONG)).name == cloud.full_name_of(SERVICE)

    def test_of_a_read_names_the_full_name(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        reply = vpcep.read(TARGET, within(LONG))

        assert reply == Reply(cloud.full_name_of(SERVICE), 200, cloud.calls[0].request_id)
        assert cloud.name_of(SERVICE) == "billing"

    def test_of_a_read_may_hold_every_member_that_is_documented(self) -> None:
        members = b'"ports":[{"client_port":1}],"tags":[{"key":"a"}],"error":[{"code":"b"}],"supported_editions":["c"]'

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"service_name":"orders",%s}' % members))

        with RawServer(serve) as server:
            assert adapter(server.url).read(TARGET, within(LONG)).name == "orders"

    def test_needs_no_model_that_the_sdk_is_not_told(self) -> None:
        """Nor one that is told in vain."""
        told = vars(endpoint_services._REPLY_MODELS)
        members = {member for model in told.values() for member in model.openapi_types.values()}

        replies = {"ListServiceDetailsResponse", "UpdateEndpointServiceNameResponse"}
        native = {"bool", "datetime", "int", "str"}
        assert {member.removeprefix("list[").removesuffix("]") for member in members} - native == told.keys() - replies
        assert replies <= told.keys()

    def test_with_a_security_token(self, cloud: HuaweiCloud) -> None:
        cloud.set_credentials(KEY.access_key, KEY.secret_key, "token-1")

        adapter(cloud.url, lambda _: KEY._replace(security_token="token-1")).rename(TARGET, "orders", within(LONG))

        assert cloud.name_of(SERVICE) == "orders"

    def test_of_each_thread_is_its_own(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        # given
        services = [f"service-{number}" for number in range(40)]
        for service in services:
            cloud.add_service(service)
        cloud.fail(404, "EndPoint.0005", service_id="service-7")

        # when
        replies = in_parallel(
            40, lambda n: vpcep.rename(Target(REGION, PROJECT, services[n]), f"name-{n}", within(LONG))
        )

        # then
        request_ids = {call.service_id: call.request_id for call in cloud.calls}
        assert [reply.huawei_request_id for reply in replies] == [request_ids[service] for service in services]
        assert [n for n, reply in enumerate(replies) if isinstance(reply, Failure)] == [7]

    def test_after_the_server_has_closed_the_kept_connection(self) -> None:
        # given: a server that promises to keep the connection, and closes it while the function is frozen
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

        with RawServer(serve) as server:
            vpcep = adapter(server.url)
            vpcep.rename(TARGET, "orders", within(LONG))
            time.sleep(0.05)

            # when
            reply = vpcep.rename(TARGET, "orders", within(LONG))

        # then
        assert reply.name == "orders"
        assert server.connections == 2

    def test_tells_huawei_cloud_who_calls(self) -> None:
        received = []

        def serve(connection: socket.socket) -> None:
            received.append(receive_request(connection))
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

        with RawServer(serve) as server:
            adapter(server.url).rename(TARGET, "orders", within(LONG))

        assert re.search(rb"^User-Agent: .*\bvpcep-rename\b", received[0], re.MULTILINE)

    def test_needs_no_call_at_construction(self, cloud: HuaweiCloud) -> None:
        adapter(cloud.url)

        assert cloud.calls == []


class TestDuration:
    def test_of_each_call_is_told_whatever_came_of_it(self, cloud: HuaweiCloud) -> None:
        durations: list[float] = []
        vpcep = adapter(cloud.url, on_call=durations.append)

        vpcep.read(TARGET, within(LONG))
        cloud.fail(503)
        rename_failure(vpcep)
        cloud.fail(kind="hang")
        rename_failure(vpcep, SHORT)

        assert durations == [pytest.approx(0, abs=SHORT), pytest.approx(0, abs=SHORT), pytest.approx(SHORT, abs=SHORT)]
        assert durations[2] >= SHORT

    def test_of_a_call_that_is_not_made_is_not(self, cloud: HuaweiCloud) -> None:
        durations: list[float] = []
        vpcep = adapter(cloud.url, on_call=durations.append)
        cloud.fail(401, "APIGW.0301")

        for _ in range(3):
            rename_failure(vpcep)

        assert len(durations) == len(cloud.calls) == 1


class TestErrorReplies:
    @pytest.mark.parametrize("generation", ["old", "new"])
    @pytest.mark.parametrize(
        ("code", "status", "kind", "in_doubt"),
        [
            ("EndPoint.2003", 400, Kind.NOT_FOUND, False),
            ("EndPoint.0005", 404, Kind.NOT_FOUND, False),
            ("EndPoint.0022", 400, Kind.THROTTLED, False),
            ("EndPoint.3045", 400, Kind.CONFLICT, False),
            ("EndPoint.0004", 403, Kind.ACCESS, False),
            ("EndPoint.0001", 500, Kind.UNAVAILABLE, False),
            ("EndPoint.0013", 504, Kind.UNAVAILABLE, True),
            ("EndPoint.0011", 504, Kind.INTERNAL, False),
            ("APIGW.0301", 401, Kind.ACCESS, False),
            ("APIGW.0308", 429, Kind.THROTTLED, False),
            ("APIG.0308", 429, Kind.THROTTLED, False),
            ("APIGW.0201", 502, Kind.UNAVAILABLE, True),
            ("APIGW.0201", 504, Kind.UNAVAILABLE, True),
            ("APIGW.0201", 413, Kind.INVALID, False),
            ("APIGW.0501", 405, Kind.ACCESS, False),
        ],
    )
    def test_keep_code_status_and_request_id(
        self,
        cloud: HuaweiCloud,
        vpcep: HuaweiEndpointServices,
        code: str,
        status: int,
        kind: Kind,
        in_doubt: bool,
        generation: Any,
    ) -> None:
        cloud.error_generation = generation
        cloud.fail(status, code, message="It is so.")

        failure = rename_failure(vpcep)

        assert (failure.code, failure.http_status, failure.kind, failure.in_doubt) == (code, status, kind, in_doubt)
        assert failure.huawei_request_id == cloud.calls[0].request_id
        assert failure.message == "It is so."
        assert len(cloud.calls) == 1

    def test_of_a_throttled_call_keep_code_request_id_and_window(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        cloud.throttle(0, seconds=300)

        failure = rename_failure(vpcep)

        assert (failure.code, failure.http_status, failure.kind) == ("APIGW.0308", 429, Kind.THROTTLED)
        assert failure.huawei_request_id == cloud.calls[0].request_id
        assert failure.retry_after == 300
        assert len(cloud.calls) == 1

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0", 0.0), ("86400", 86400.0)])
    @pytest.mark.parametrize(("code", "status"), [("APIGW.0308", 429), ("EndPoint.0001", 503)])
    def test_keep_how_long_to_wait(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, header: str, seconds: float, code: str, status: int
    ) -> None:
        cloud.fail(status, code, headers={"Retry-After": header})

        assert rename_failure(vpcep).retry_after == seconds

    @pytest.mark.parametrize(("ahead", "seconds"), [(120, 120), (-3600, 0)])
    def test_keep_until_when_to_wait(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, ahead: int, seconds: float
    ) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
        cloud.fail(429, "APIGW.0308", headers={"Retry-After": moment})

        retry_after = rename_failure(vpcep).retry_after

        assert retry_after == pytest.approx(seconds, abs=10)

    @pytest.mark.parametrize("header", ["", "soon", "-5", "1.5", "Tue, 99 Nov 2026 99:99:99 GMT", "٣", "0x10", "nan"])
    def test_survive_a_retry_after_that_says_nothing(self, header: str) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            sent = header.encode("utf-8").decode("latin-1")
            connection.sendall(http_reply("429 Too Many", b'{"error_code":"APIGW.0308"}', f"Retry-After: {sent}"))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.http_status, failure.retry_after) == ("APIGW.0308", 429, None)
        assert failure.huawei_request_id == "raw-1"

    def test_name_no_time_without_an_end(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(429, "APIGW.0308", headers={"Retry-After": "9" * 400})

        retry_after = rename_failure(vpcep).retry_after

        assert retry_after is None or math.isfinite(retry_after)

    @pytest.mark.parametrize(
        "body",
        [
            {"error_code": "EndPoint.2003"},
            {"error": {"code": "EndPoint.2003"}},
            {"code": "EndPoint.2003"},
            {"error_code": "EndPoint.2003", "error_msg": ""},
            {"error_code": "EndPoint.2003", "error_msg": None},
            {"error": {"code": "EndPoint.2003", "message": 5}},
        ],
    )
    def test_keep_a_code_without_a_message(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: dict[str, Any]
    ) -> None:
        cloud.fail(400, body=json.dumps(body))

        failure = rename_failure(vpcep)

        assert (failure.code, failure.kind, failure.http_status) == ("EndPoint.2003", Kind.NOT_FOUND, 400)
        assert failure.huawei_request_id == cloud.calls[0].request_id

    def test_keep_the_request_id_of_the_body_where_no_header_has_one(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            body = b'{"error_code":"EndPoint.2003","error_msg":"No.","request_id":"body-1"}'
            connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        with RawServer(serve) as server:
            assert rename_failure(adapter(server.url)).huawei_request_id == "body-1"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html><body>503 Service Temporarily Unavailable</body></html>",
            b"null",
            b"[]",
            b"5",
            b'"text"',
            b'{"error": null}',
            b'{"error": []}',
            b'{"error_code": 5, "error_msg": 6, "request_id": 7}',
            b'{"error_code": null}',
            b"{",
            b"\xff\xfe\x00",
            b"[" * 200_000,
            b'{"a":' * 200_000,
            b"\x00" * 10,
        ],
        ids=lambda body: repr(body[:24]),
    )
    @pytest.mark.parametrize(
        ("status", "kind", "in_doubt"),
        [
            (400, Kind.INVALID, False),
            (401, Kind.ACCESS, False),
            (429, Kind.THROTTLED, False),
            (502, Kind.UNAVAILABLE, True),
            (504, Kind.UNAVAILABLE, True),
        ],
    )
    def test_without_a_code_mean_what_their_status_says(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: bytes, status: int, kind: Kind, in_doubt: bool
    ) -> None:
        cloud.fail(status, body=body, content_type="text/html")

        failure = rename_failure(vpcep)

        assert (failure.kind, failure.in_doubt, failure.http_status) == (kind, in_doubt, status)
        assert failure.code.startswith("Rename.")
        assert failure.huawei_request_id == cloud.calls[0].request_id

    @pytest.mark.parametrize("content_type", ["application/xml", "application/bson", "", "text/html; charset=utf-99"])
    def test_keep_their_code_whatever_their_content_type_says(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, content_type: str
    ) -> None:
        cloud.fail(400, body='{"error_code": "EndPoint.2003", "error_msg": "No."}', content_type=content_type)

        assert rename_failure(vpcep).code == "EndPoint.2003"

    def test_of_a_read_are_told_the_same_way(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        failure = failed(vpcep.read, TARGET._replace(vpc_endpoint_service_id="unknown"), within(LONG))

        assert (failure.code, failure.http_status) == ("EndPoint.2003", 400)
        assert failure.huawei_request_id == cloud.calls[0].request_id

    @pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
    @pytest.mark.parametrize(
        "body", [b"x" * 2 * 1024 * 1024, b'{"error_code":"APIGW.0301"'], ids=["too large", "truncated"]
    )
    def test_are_refusals_of_the_key_even_where_their_body_breaks(self, status: str, body: bytes) -> None:
        # given: a quick second call is what would lock the key
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(http_reply(status, body).replace(b"Content-Length: ", b"Content-Length: 1"))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.kind, failure.retry_in_process) == (Kind.ACCESS, False)


CREDENTIALS = {"access key": KEY.access_key, "secret key": KEY.secret_key, "token": "security-token/+1234567890"}


class TestCredentialsInReplies:
    """Huawei Cloud's 401 repeats the access key that it was sent; with both keys swapped that is the secret one."""

    @pytest.fixture
    def key(self) -> Credentials:
        return KEY._replace(security_token=CREDENTIALS["token"])

    @pytest.mark.parametrize("form", ["plain", "percent-encoded", "JSON escapes", "base64"])
    @pytest.mark.parametrize("field", ["code", "message", "body's request id", "header's request id", "name"])
    @pytest.mark.parametrize("secret", CREDENTIALS)
    def test_are_taken_out(self, key: Credentials, secret: str, field: str, form: str) -> None:
        said = CREDENTIALS[secret]
        escaped = "".join(f"\\u{ord(character):04x}" for character in said)
        shown = {
            "plain": said,
            "percent-encoded": "".join(f"%{ord(character):02X}" for character in said),
            "JSON escapes": escaped if "header" not in field else escaped.replace("\\", "\\\\"),
            "base64": b64encode(said.encode()).decode(),
        }[form]
        # JSON escapes are those of the body, and once more those within its text
        bodies = {
            "code": f'{{"error_code": "AK.{shown}", "error_msg": "No."}}',
            "message": f'{{"error_code": "APIGW.0301", "error_msg": "Get secretKey failed,ak:{shown}"}}',
            "body's request id": f'{{"error_code": "APIGW.0301", "request_id": "{shown}"}}',
            "header's request id": '{"error_code": "APIGW.0301"}',
            "name": f'{{"endpoint_service_name": "{shown}"}}',
        }
        status = "200 OK" if field == "name" else "401 Unauthorized"
        header = f"X-Request-Id: {shown}" if field == "header's request id" else "X-Other: 1"

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            body = bodies[field].encode()
            head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/json", header]
            connection.sendall("\r\n".join([*head, "", ""]).encode() + body)

        with RawServer(serve) as server:
            result: Reply | Failure
            try:
                result = adapter(server.url, lambda _: key).rename(TARGET, "orders", within(LONG))
            except RenameFailedError as error:
                result = error.failure

        told = repr(result)
        assert "***" in told
        assert said not in told
        assert shown not in told

    @pytest.mark.parametrize("secret", CREDENTIALS)
    def test_are_taken_out_before_the_text_is_cut(self, key: Credentials, secret: str) -> None:
        said = CREDENTIALS[secret]
        body = json.dumps({"error_code": "APIGW.0301", "error_msg": "." * 995 + said, "request_id": "." * 120 + said})

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body.encode()))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url, lambda _: key))

        assert (failure.message, failure.huawei_request_id) == ("." * 995 + "***", "." * 120 + "***")


class TestRepliesThatProveNothing:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html>orders</html>",
            b"{}",
            b"[]",
            b'["endpoint_service_name"]',
            b"null",
            b"true",
            b"5",
            b'"orders"',
            b'{"endpoint_service_name": null}',
            b'{"name": "orders"}',
            b'{"endpoint_service_name": {"a": 1}}',
            b'{"endpoint_service_name": [1]}',
            b'{"endpoint_service_name": "billing"}',
            b'{"endpoint_service_name": 1e999}',
            b'{"endpoint_service_name": NaN}',
            b'{"endpoint_service_name": "orders"',
            b'{"error_code": "EndPoint.0001", "error_msg": "No."}',
            b"\xff\xfe\x00",
            b'{"endpoint_service_name": "\\ud800"}',
            b"[" * 200_000,
            b'{"a":' * 200_000,
            b"\x00",
        ],
        ids=lambda body: repr(body[:40]),
    )
    def test_of_status_200_are_no_success(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: bytes) -> None:
        cloud.fail(kind="garbage", body=body, times=2)
        cloud.fail(kind="garbage", body=body, on="read")

        for call in (lambda: vpcep.rename(TARGET, "orders", within(LONG)), lambda: vpcep.read(TARGET, within(LONG))):
            result = proves_nothing(call)

            if isinstance(result, Failure):
                assert result.http_status == 200
            assert result.huawei_request_id == cloud.calls[-1].request_id
        assert len(cloud.calls) == 2

    @pytest.mark.parametrize("content_type", ["application/xml", "application/bson", "text/html; charset=utf-99", ""])
    def test_are_those_of_another_content_type(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, content_type: str
    ) -> None:
        cloud.fail(kind="garbage", body="<html/>", content_type=content_type)

        proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

    @pytest.mark.parametrize(
        ("encoding", "body"), [("gzip", b"no gzip"), ("gzip", b"\x1f\x8b\x08"), ("deflate", b"\xff" * 9), ("zz", b"{}")]
    )
    def test_are_those_that_cannot_be_unpacked(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, encoding: str, body: bytes
    ) -> None:
        cloud.fail(kind="garbage", body=body, headers={"Content-Encoding": encoding})

        proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

    @pytest.mark.parametrize("status", [201, 202, 204, 206, 300, 301, 302, 303, 304, 307, 308])
    def test_are_those_of_another_status_without_a_body(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, status: int
    ) -> None:
        cloud.fail(status, body=b"")

        result = proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

        assert (result.http_status if isinstance(result, Failure) else result.status) == status
        assert result.huawei_request_id == cloud.calls[0].request_id

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_are_redirects_which_are_not_followed(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, status: int
    ) -> None:
        for location in (
            f"{cloud.url}/v1/{PROJECT}/vpc-endpoint-services/{OTHER_SERVICE}/name",
            "/elsewhere",
            "http://[",
        ):
            cloud.fail(status, body=b'{"endpoint_service_name": "billing"}', headers={"Location": location})

            proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

        assert len(cloud.calls) == 3
        assert cloud.name_of(OTHER_SERVICE) == "reports"

    @pytest.mark.parametrize(
        "head", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\x00\xff\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\r\n"]
    )
    def test_are_those_that_are_not_http(self, head: bytes) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(head)

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert failure.in_doubt
        assert failure.retryable
        assert server.connections == 1

    def test_are_those_with_endless_headers(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1_000)) + b"\r\n{}")

        with RawServer(serve) as server:
            assert rename_failure(adapter(server.url)).in_doubt

    def test_are_those_of_two_megabytes(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="garbage", body=b'{"endpoint_service_name": "orders", "x": "%s"}' % (b"x" * 2 * 1024 * 1024))

        failure = rename_failure(vpcep)

        assert (failure.code, failure.in_doubt, failure.http_status) == ("Rename.UnconfirmedReply", True, 200)
        assert failure.huawei_request_id == cloud.calls[0].request_id

    def test_are_those_that_never_end(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url), 3.0)

        # then: it is not read until time is up
        assert (failure.code, failure.in_doubt) == ("Rename.UnconfirmedReply", True)


class TestNoReply:
    def test_in_time_leaves_doubt(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="hang", applied=True)
        began = time.monotonic()

        failure = rename_failure(vpcep, SHORT)

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", True, True)
        assert time.monotonic() - began < SHORT + 1

    def test_to_a_read_in_time_is_told_the_same_way(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="hang", on="read")

        assert failed(vpcep.read, TARGET, within(SHORT)).code == "Rename.Timeout"

    def test_but_a_reset_leaves_doubt(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        for applied in (False, True):
            cloud.fail(kind="reset", applied=applied)

            failure = rename_failure(vpcep)

            assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)
        assert cloud.name_of(SERVICE) == "orders"
        assert len(cloud.calls) == 2

    def test_but_a_reset_before_the_request_was_read_leaves_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)

    def test_but_the_end_of_the_connection_leaves_doubt(self) -> None:
        with RawServer(receive_request) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)

    def test_but_a_truncated_one_proves_nothing_and_keeps_the_request_id(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        cloud.fail(kind="truncate", applied=True)

        result = proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

        assert result.huawei_request_id == cloud.calls[0].request_id

    def test_but_a_chunked_one_that_breaks_off_leaves_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{"endpoint_service_name":')

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert failure.in_doubt

    def test_for_lack_of_a_listener_leaves_no_doubt(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        failure = rename_failure(adapter(f"http://127.0.0.1:{port}"))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_for_lack_of_an_address_leaves_no_doubt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # given: no resolver is asked, for that may take its time where there is no network
        def getaddrinfo(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

        failure = rename_failure(adapter("https://vpcep.invalid"))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_for_lack_of_a_connection_in_time_leaves_no_doubt(self) -> None:
        # given: a listener with a full backlog, which drops what else comes
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            address = listener.getsockname()
            waiting = [socket.socket() for _ in range(8)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)

            failure = rename_failure(adapter(f"http://127.0.0.1:{address[1]}"), SHORT)

            for one in waiting:
                one.close()
        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", False, True)

    def test_over_tls_where_none_is_spoken_leaves_no_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(1)
            connection.sendall(http_reply("400 Bad Request"))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url.replace("http:", "https:")))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_of_a_server_that_nobody_vouches_for_leaves_no_doubt(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

        with RawServer(receive_request, context) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", False)

    def test_when_tls_breaks_after_the_request_leaves_doubt(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # given: a trusted server that reads the request, and then sends what is no TLS
        context = of_a_trusted_server(monkeypatch, tmp_path)
        requests_read = []

        def serve(connection: socket.socket) -> None:
            requests_read.append(receive_request(connection))
            socket.socket(fileno=connection.detach()).sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 20)

        with RawServer(serve, context) as server:
            failure = rename_failure(adapter(server.url))

        assert requests_read
        assert failure.in_doubt

    def test_reads_the_trusted_certificates_once_for_all_connections(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        context = of_a_trusted_server(monkeypatch, tmp_path)
        body = b'{"endpoint_service_name": "orders"}'

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", body, "Connection: close"))

        readings = []
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: readings.append(1))
        with RawServer(serve, context) as server:
            vpcep = adapter(server.url)
            for _ in range(2):
                vpcep.rename(TARGET, "orders", within(LONG))

        assert (server.connections, readings) == (2, [])


class TestDeadline:
    """It holds for the whole call, not for each byte of it."""

    def test_holds_against_a_body_that_drips(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="drip", body=b" " * 60, pace=0.05, applied=True)
        began = time.monotonic()

        failure = rename_failure(vpcep, SHORT)

        assert time.monotonic() - began < SHORT + 1
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)
        assert failure.huawei_request_id == cloud.calls[0].request_id

    def test_holds_against_headers_that_drip(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            for byte in http_reply("200 OK"):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

        with RawServer(serve) as server:
            began = time.monotonic()

            failure = rename_failure(adapter(server.url), SHORT)

            assert time.monotonic() - began < SHORT + 1
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)

    def test_is_not_put_off_by_the_headers_arrival(self) -> None:
        seconds = 1.0

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            time.sleep(0.9 * seconds)
            connection.sendall(http_reply("200 OK", b" " * 10)[:-5])
            connection.recv(1)

        with RawServer(serve) as server:
            began = time.monotonic()

            failure = rename_failure(adapter(server.url), seconds)

            assert time.monotonic() - began < 1.6 * seconds
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)

    def test_holds_while_another_call_proves_the_key(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        # given: the first call of a key hangs, and nobody else may try it
        cloud.fail(kind="hang")
        with ThreadPoolExecutor(max_workers=1) as pool:
            first = pool.submit(rename_failure, vpcep, 4 * SHORT)
            while not cloud.calls:
                time.sleep(0.01)

            # when
            failure = rename_failure(vpcep, SHORT)

            # then: it was never sent
            assert (failure.code, failure.in_doubt, failure.counts_as_attempt) == ("Rename.Timeout", False, False)
            assert (first.result().in_doubt, first.result().counts_as_attempt) == (True, True)
        assert len(cloud.calls) == 1

    def test_that_has_passed_leaves_no_call_to_make(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        failure = rename_failure(vpcep, -1.0)

        assert (failure.code, failure.in_doubt, failure.counts_as_attempt) == ("Rename.Timeout", False, False)
        assert cloud.calls == []

    def test_that_is_near_when_the_wait_is_over_leaves_no_call_to_make(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        cloud.fail(kind="hang")
        with ThreadPoolExecutor(max_workers=10) as pool:
            first = pool.submit(rename_failure, vpcep, 2 * SHORT)
            while not cloud.calls:
                time.sleep(0.01)

            # when: nine wait, and have a moment left after it
            others = list(pool.map(lambda _: rename_failure(vpcep, 2 * SHORT), range(9)))

            # then
            assert {(failure.code, failure.counts_as_attempt) for failure in others} == {("Rename.Timeout", False)}
            assert first.result().counts_as_attempt
        assert len(cloud.calls) == 1


class TestAThreadThatOutlivesItsInvocation:
    """Whenever it wakes up, it sends nothing any more."""

    @pytest.fixture(params=["http", "https"])
    def server(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[SilentServer]:
        context = of_a_trusted_server(monkeypatch, tmp_path) if request.param == "https" else None
        with SilentServer(context) as server:
            yield server

    def test_after_a_look_up_that_hung_until_its_deadline(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_up(monkeypatch, lambda: time.sleep(2 * SHORT))

        failure = rename_failure(adapter(server.url), SHORT)

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == b""

    def test_holds_up_the_calls_of_the_next_one_for_a_moment_at_the_most(
        self, cloud: HuaweiCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # given: the first call of a key is stuck in a look-up beyond its deadline
        stuck, goes_on = threading.Event(), threading.Event()

        def first_hangs() -> None:
            if not stuck.is_set():
                stuck.set()
                goes_on.wait(LONG)

        look_up(monkeypatch, first_hangs)
        vpcep = adapter(cloud.url)
        with ThreadPoolExecutor(1) as threads:
            straggler = threads.submit(rename_failure, vpcep, SHORT)
            stuck.wait(LONG)
            time.sleep(SHORT)
            began = time.monotonic()

            # when
            replies = in_parallel(10, lambda _: vpcep.rename(TARGET, "billing", within(LONG)))

            # then
            assert [reply.name for reply in replies] == ["billing"] * 10
            assert time.monotonic() - began < 2.0
            goes_on.set()
            assert (straggler.result().code, straggler.result().in_doubt) == ("Rename.Timeout", False)
        assert len(cloud.calls) == 10

    def test_leaves_nothing_that_the_kernel_would_repeat(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A request that was not acknowledged would be sent again for minutes, by a connection that ends in order."""
        ends: list[bytes | type[OSError]] = []
        ended = threading.Event()

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            try:
                ends.append(connection.recv(1))
            except OSError as error:
                ends.append(type(error))
            ended.set()

        for tls in (None, of_a_trusted_server(monkeypatch, tmp_path)):
            with RawServer(serve, tls) as server:
                assert rename_failure(adapter(server.url), SHORT).in_doubt
                assert ended.wait(LONG)
            ended.clear()

        assert ends == [ConnectionResetError] * 2

    def test_after_a_freeze_during_the_look_up(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        def freeze() -> None:
            clock.ahead = 3_600.0

        look_up(monkeypatch, freeze)

        failure = failed(adapter(server.url).rename, TARGET, "orders", on(clock, LONG))

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == b""

    def test_after_a_freeze_that_began_when_the_connection_was_taken(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        server.answers = 1
        vpcep = adapter(server.url)
        assert vpcep.rename(TARGET, "orders", on(clock, LONG)).name == "orders"
        before = server.received
        putrequest = HTTPConnection.putrequest

        def freeze(*arguments: Any, **more: Any) -> None:
            clock.ahead = 3_600.0
            putrequest(*arguments, **more)

        monkeypatch.setattr(HTTPConnection, "putrequest", freeze)

        failure = failed(vpcep.rename, TARGET, "billing", on(clock, LONG))

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == before

    def test_after_a_freeze_amid_the_request_leaves_doubt(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        endheaders = HTTPConnection.endheaders

        def freeze(*arguments: Any, **more: Any) -> None:
            endheaders(*arguments, **more)
            clock.ahead = 3_600.0

        monkeypatch.setattr(HTTPConnection, "endheaders", freeze)

        failure = failed(adapter(server.url).rename, TARGET, "orders", on(clock, LONG))

        # then: a request without its body changes nothing, but who knows how it was cut
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)
        assert b"endpoint_service_name" not in server.stops_listening()


class SilentServer(RawServer):
    """Keeps what it receives; answers the first few requests, where it is told to."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(self._listen, tls)
        self.received = b""
        self.answers = 0
        self._done = threading.Event()

    def _listen(self, connection: socket.socket) -> None:
        for _ in range(self.answers):
            self.received += receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))
        try:
            while data := connection.recv(65_536):
                self.received += data
        finally:
            self._done.set()

    def stops_listening(self) -> bytes:
        """What was received until the client closed the connection."""
        if self.connections:
            assert self._done.wait(LONG)
        return self.received


def look_up(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Something happens before the name of a host is resolved."""
    getaddrinfo = socket.getaddrinfo

    def slow(*arguments: Any, **more: Any) -> Any:
        meanwhile()
        return getaddrinfo(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)


def on(clock: MovedClock, seconds: float) -> Deadline:
    """So many seconds from now on, by another clock."""
    return Deadline(clock() + seconds, clock() + seconds + 4.0, clock)


class TestConnectionsAfterAFreeze:
    """What was idle for a minute by the wall clock may be dead, and neither side knows."""

    def serve(self, connection: socket.socket) -> None:
        while True:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

    @pytest.mark.parametrize(("ahead", "connections"), [(0, 1), (59, 1), (61, 2), (3_600, 2), (-3_600, 2)])
    def test_are_kept_for_a_minute(self, clock: MovedClock, ahead: float, connections: int) -> None:
        with RawServer(self.serve) as server:
            vpcep = adapter(server.url)
            vpcep.rename(TARGET, "orders", on(clock, LONG))

            clock.ahead += ahead
            vpcep.rename(TARGET, "orders", on(clock, LONG))

            assert server.connections == connections

    def test_are_not_used_by_any_of_ten_threads(self, clock: MovedClock) -> None:
        # given: ten kept connections, each of which is reset at its next use after a freeze
        frozen, ten = threading.Event(), threading.Barrier(10)

        def serve(connection: socket.socket) -> None:
            born_before = not frozen.is_set()
            while True:
                receive_request(connection)
                if frozen.is_set() and born_before:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if born_before and proven.is_set():
                    with suppress(threading.BrokenBarrierError):
                        ten.wait(SHORT)
                connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

        proven = threading.Event()
        with RawServer(serve) as server:
            vpcep = adapter(server.url)
            vpcep.rename(TARGET, "orders", on(clock, LONG))  # which proves the key
            proven.set()
            in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", on(clock, LONG)))
            assert server.connections == 10

            # when
            frozen.set()
            clock.ahead += 400
            replies = in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", on(clock, LONG)))

        # then
        assert [reply.name for reply in replies] == ["orders"] * 10


def target(project: str = PROJECT, service: str = SERVICE, region: str = REGION) -> Target:
    return Target(region, project, service)


class TestTheKeyGuard:
    """Who is concerned by a refusal, and what proves a key."""

    OTHER_REGION = "eu-west-101"
    EVERYBODY = (
        target(),
        target(service=OTHER_SERVICE),
        target(OTHER_PROJECT),
        target(region=OTHER_REGION),
        target(OTHER_PROJECT, OTHER_SERVICE, OTHER_REGION),
    )

    @pytest.fixture
    def guard(self, clock: MovedClock) -> KeyGuard:
        return KeyGuard(KEY, REGION, invalidate=lambda _: None, now=clock)

    def test_call_in_progress_keeps_its_turn_when_a_waiting_call_runs_out_of_time(self, guard: KeyGuard) -> None:
        has_begun, goes_on = threading.Event(), threading.Event()
        sent: list[str] = []

        def hang() -> Reply:
            has_begun.set()
            goes_on.wait(LONG)
            return Reply("orders", 200, None)

        def send() -> Reply:
            sent.append("concurrently")
            return Reply("orders", 200, None)

        now = time.time()
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(guard.call, target(), hang, Deadline(now + 0.95, now + LONG))
            has_begun.wait(LONG)
            for _ in range(2):
                waiting = time.time() + MIN_CALL_SECONDS + 0.05
                failed(guard.call, target(), send, Deadline(waiting, waiting + LONG))
            goes_on.set()
            first.result()

        assert sent == []

    def call(self, guard: KeyGuard, to: Target, result: Reply | Failure) -> Failure | None:
        """The failure that a call ends in whose answer is this, if it is made."""

        def send() -> Reply:
            if isinstance(result, Failure):
                raise RenameFailedError(result)
            return result

        try:
            guard.call(to, send, within(LONG))
        except RenameFailedError as error:
            return error.failure
        return None

    def refused(self, guard: KeyGuard) -> list[Target]:
        """Those of everybody for whom no call would be made."""
        found = []
        for one in self.EVERYBODY:
            try:
                guard.raise_if_rejected(one)
            except RenameFailedError as error:
                found += [one] * (not error.failure.counts_as_attempt)
        return found

    @pytest.mark.parametrize(
        ("code", "status", "to", "concerned"),
        [
            ("APIGW.0301", 401, target(), EVERYBODY),
            (None, 401, target(), EVERYBODY),
            ("EndPoint.0003", 401, target(), EVERYBODY),
            ("APIGW.0301", 401, target(OTHER_PROJECT), [target(OTHER_PROJECT)]),
            ("APIGW.0307", 401, target(region=OTHER_REGION), [target(region=OTHER_REGION)]),
            ("APIGW.0302", 403, target(), [target()]),
            ("EndPoint.0004", 403, target(), [target()]),
            (None, 403, target(), [target()]),
            ("APIGW.0101", 404, target(), [target()]),
            ("APIGW.0501", 405, target(), [target()]),
            ("EndPoint.0014", 400, target(), [target()]),
            ("APIGW.0304", 403, target(OTHER_PROJECT), [target(OTHER_PROJECT)]),
            ("EndPoint.0004", 403, target(service=SERVICE.upper()), [target()]),
        ],
    )
    def test_a_refusal_concerns(
        self,
        guard: KeyGuard,
        clock: MovedClock,
        code: str | None,
        status: int,
        to: Target,
        concerned: Sequence[Target],
    ) -> None:
        refusal = from_reply(code, "No.", status=status)

        assert self.call(guard, to, refusal) == refusal

        assert self.refused(guard) == list(concerned)
        # then: for a minute
        clock.ahead += 59
        assert self.refused(guard) == list(concerned)
        clock.ahead += 2
        assert self.refused(guard) == []

    def test_a_refused_project_holds_for_its_services_in_its_region(self, guard: KeyGuard) -> None:
        self.call(guard, target(OTHER_PROJECT), refusal("APIGW.0301", 401))

        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target(OTHER_PROJECT, OTHER_SERVICE))
        guard.raise_if_rejected(target(OTHER_PROJECT, OTHER_SERVICE, self.OTHER_REGION))

    def test_two_projects_refused_in_a_row_concern_all_but_the_default_one(self, guard: KeyGuard) -> None:
        self.call(guard, target("project-2"), refusal("APIGW.0301", 401))
        self.call(guard, target("project-3"), refusal("APIGW.0301", 401))

        assert self.refused(guard) == [one for one in self.EVERYBODY if one[:2] != (REGION, PROJECT)]
        # when the default project proves the key
        self.call(guard, target(), Reply("orders", 200, None))
        # then: what was refused stays so, and nothing else
        assert self.refused(guard) == []
        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target("project-2"))

    def test_a_success_between_two_refused_projects_tells_them_from_the_key(self, guard: KeyGuard) -> None:
        self.call(guard, target("project-2"), refusal("APIGW.0301", 401))
        self.call(guard, target(OTHER_PROJECT), Reply("orders", 200, None))
        self.call(guard, target("project-3"), refusal("APIGW.0301", 401))

        assert self.refused(guard) == []

    def test_refusals_are_remembered_within_bounds(self, guard: KeyGuard) -> None:
        for number in range(MAX_REMEMBERED_REFUSALS + 100):
            self.call(guard, target(service=f"service-{number}"), refusal("EndPoint.0004", 403))

        assert len(guard._refusals) <= MAX_REMEMBERED_REFUSALS + 1
        with pytest.raises(RenameFailedError):
            guard.raise_if_rejected(target(service=f"service-{MAX_REMEMBERED_REFUSALS + 99}"))

    @pytest.mark.parametrize(
        ("result", "accepts"),
        [
            (Reply("orders", 200, None), True),
            (Reply("", 200, None), True),
            (refusal("EndPoint.2003", 400), True),
            (refusal("EndPoint.0001", 500), True),
            (refusal("EndPoint.0022", 400), True),
            (refusal("endpoint.3045", 400), True),
            (Reply(None, 200, None), False),
            (Reply(None, 302, None), False),
            (from_reply(None, "", status=503), False),
            (from_reply(None, "", status=404), False),
            (from_reply(None, "", status=429), False),
            (from_reply(None, "", status=400), False),
            (refusal("APIGW.0308", 429), False),
            (refusal("APIGW.0201", 502), False),
            (refusal("APIGW.0201", 413), False),
            (refusal("APIGW.0601", 500), False),
            (refusal("EndPoint.0004", 403), False),
            (failures.unconfirmed_reply(status=200, huawei_request_id=None), False),
            (failures.timeout(in_doubt=True), False),
            (failures.connection_failed(), False),
        ],
        ids=repr,
    )
    def test_an_answer_accepts_the_key(self, guard: KeyGuard, result: Reply | Failure, accepts: bool) -> None:
        self.call(guard, target(), result)
        at_once, most = 0, 0

        def send() -> Reply:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.02)
            at_once -= 1
            raise RenameFailedError(failures.connection_failed())

        in_parallel(8, lambda n: guard.call(target(service=f"service-{n}"), send, within(LONG)))

        assert (most > 1) is accepts

    @pytest.mark.parametrize("project", [PROJECT, OTHER_PROJECT])
    def test_a_refusal_of_the_key_ends_its_acceptance(self, guard: KeyGuard, project: str) -> None:
        self.call(guard, target(), Reply("orders", 200, None))
        assert guard._is_accepted()

        self.call(guard, target(project), refusal("APIGW.0301", 401))

        assert not guard._is_accepted()

    def test_a_missing_permission_does_not(self, guard: KeyGuard) -> None:
        self.call(guard, target(), Reply("orders", 200, None))
        self.call(guard, target(), refusal("EndPoint.0004", 403))

        assert guard._is_accepted()

    def test_an_acceptance_lasts_a_minute_by_the_wall_clock(self, guard: KeyGuard, clock: MovedClock) -> None:
        self.call(guard, target(), Reply("orders", 200, None))

        clock.ahead += 61

        assert not guard._is_accepted()

    def test_a_gateway_before_a_wrong_key_does_not_let_ten_signatures_through(self) -> None:
        answers = [http_reply("503 Service Unavailable")]
        requests = []

        def serve(connection: socket.socket) -> None:
            requests.append(receive_request(connection))
            connection.sendall(answers.pop() if answers else http_reply("401 No", b'{"error_code":"APIGW.0301"}'))

        with RawServer(serve) as server:
            vpcep = adapter(server.url)
            rename_failure(vpcep)

            in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        assert len(requests) == 2


class TestAKeyThatIsRefused:
    """Five wrong signatures in a row lock it for five minutes."""

    def test_is_tried_once_by_ten_at_a_time_then_once_a_minute(self, cloud: HuaweiCloud) -> None:
        now = 1_000.0
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, now=lambda: now)

        # when
        results = in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        # then
        assert [(result.code, result.kind, result.retry_in_process) for result in results] == [
            ("APIGW.0301", Kind.ACCESS, False)
        ] * 10
        assert len(cloud.calls) == 1

        # when: not yet a minute later
        now += 59
        assert rename_failure(vpcep).code == "APIGW.0301"
        assert failed(vpcep.read, TARGET, within(LONG)).code == "APIGW.0301"
        assert len(cloud.calls) == 1

        # when: more than a minute later
        now += 2
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))
        assert len(cloud.calls) == 2

    def test_is_tried_twice_for_many_other_projects_and_once_more_for_its_own(self, cloud: HuaweiCloud) -> None:
        # given
        projects = [f"project-{number}" for number in range(10)]
        for project in projects:
            cloud.add_project(project)
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY)

        # when
        in_parallel(10, lambda n: vpcep.rename(Target(REGION, projects[n], SERVICE), "orders", within(LONG)))
        assert len(cloud.calls) == 2

        # then: two fewer than lock it
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))
        assert len(cloud.calls) == 3

    def test_works_again_when_it_was_put_right_on_the_other_side(self, cloud: HuaweiCloud) -> None:
        now = 1_000.0
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, now=lambda: now)
        rename_failure(vpcep)
        cloud.set_credentials(WRONG_KEY.access_key, WRONG_KEY.secret_key)

        # when
        now += 61

        # then
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"
        assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"

    def test_gives_way_to_a_new_key_at_once(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]
        vpcep = adapter(cloud.url, lambda _: keys[-1])
        rename_failure(vpcep)

        # when
        keys.append(KEY)

        # then
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_after_it_was_good_is_not_tried_again_either(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        # given: a key that worked, and was taken away
        vpcep.rename(TARGET, "orders", within(LONG))
        cloud.set_credentials(KEY.access_key, "rotated-secret-key")

        # when
        refusals = [rename_failure(vpcep) for _ in range(5)]

        # then
        assert {refusal.code for refusal in refusals} == {"APIGW.0301"}
        assert [call.authenticated for call in cloud.calls] == [True, False]

    @pytest.mark.parametrize(
        ("code", "status"),
        [("EndPoint.2003", 400), ("EndPoint.0001", 500), ("APIGW.0308", 429), ("EndPoint.3045", 400)],
    )
    def test_is_another_thing_than_a_call_that_fails(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, code: str, status: int
    ) -> None:
        cloud.fail(status, code)
        rename_failure(vpcep)

        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_is_another_thing_than_a_lost_connection(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="reset")
        rename_failure(vpcep)

        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    @pytest.mark.parametrize(
        "answer", [{"kind": "slow"}, {"status": 400, "code": "EndPoint.2003"}], ids=["success", "failure"]
    )
    def test_or_is_not_known_yet_holds_up_nobody_for_longer_than_one_call(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, answer: dict[str, Any]
    ) -> None:
        # given
        cloud.fail(delay=SHORT, times=None, **answer)
        began = time.monotonic()

        # when
        in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", within(LONG)))

        # then: one call alone, then nine side by side
        assert time.monotonic() - began < 6 * SHORT


class TestCredentials:
    def test_that_change_are_picked_up_by_the_next_call(self, cloud: HuaweiCloud) -> None:
        keys = [KEY]
        vpcep = adapter(cloud.url, lambda _: keys[-1])
        vpcep.rename(TARGET, "orders", within(LONG))

        # when
        keys.append(KEY._replace(access_key="ROTATED", secret_key="rotated-secret-key"))
        cloud.set_credentials("ROTATED", "rotated-secret-key")

        # then
        assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"
        assert all(call.authenticated for call in cloud.calls)

    def test_that_were_refused_are_asked_for_again(self, cloud: HuaweiCloud) -> None:
        keys, invalidated = [WRONG_KEY], []

        def invalidate(key: Credentials) -> None:
            invalidated.append(key)
            keys.append(KEY)

        vpcep = adapter(cloud.url, lambda _: keys[-1], invalidate=invalidate)

        failure = rename_failure(vpcep)

        # then: another try at once is worth it
        assert (failure.kind, failure.retry_in_process, invalidated) == (Kind.ACCESS, True, [WRONG_KEY])
        assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

    def test_that_are_refused_and_stay_are_not_tried_at_once(self, cloud: HuaweiCloud) -> None:
        invalidated: list[Credentials] = []
        vpcep = adapter(cloud.url, lambda _: WRONG_KEY, invalidate=invalidated.append)

        failures_ = [rename_failure(vpcep) for _ in range(3)]

        assert [failure.retry_in_process for failure in failures_] == [False] * 3
        # then: only a call that was made asks for another key
        assert invalidated == [WRONG_KEY]
        assert len(cloud.calls) == 1

    def test_that_cannot_be_had_after_a_refusal_leave_the_refusal(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]

        def credentials(_: Deadline) -> Credentials:
            if not keys:
                raise RenameFailedError(failures.credentials("none", kind=Kind.UNAVAILABLE))
            return keys[-1]

        vpcep = adapter(cloud.url, credentials, invalidate=keys.remove)

        failure = rename_failure(vpcep)

        assert (failure.code, failure.retry_in_process) == ("APIGW.0301", False)

    def test_that_cannot_be_had_say_why(self, cloud: HuaweiCloud) -> None:
        failure = failures.credentials("The secret is gone.", kind=Kind.ACCESS)

        def credentials(_: Deadline) -> Credentials:
            raise RenameFailedError(failure)

        vpcep = adapter(cloud.url, credentials)

        assert rename_failure(vpcep) == failure
        assert failed(vpcep.read, TARGET, within(LONG)) == failure
        assert cloud.calls == []


class TestARotationAmidCalls:
    """Threads that meet it find the new key, whichever of them is first."""

    def test_who_sees_a_refusal_finds_the_new_key(self, cloud: HuaweiCloud) -> None:
        keys = [WRONG_KEY]

        def invalidate(key: Credentials) -> None:
            time.sleep(SHORT)
            keys[0] = KEY

        vpcep = adapter(cloud.url, lambda _: keys[0], invalidate=invalidate)

        with ThreadPoolExecutor(4) as threads:
            failures_ = list(threads.map(lambda _: rename_failure(vpcep), range(4)))

        assert [failure.retry_in_process for failure in failures_] == [True] * 4
        assert len(cloud.calls) == 1

    def test_an_older_key_does_not_take_the_place_of_a_newer_one(self, cloud: HuaweiCloud) -> None:
        """A thread is slow to take the old key to a call: by then it is known to be refused."""
        keys, has_begun = [WRONG_KEY], threading.Event()

        def credentials(_: Deadline) -> Credentials:
            key = keys[0]
            if not has_begun.is_set():
                has_begun.set()
                time.sleep(SHORT)
            return key

        def invalidate(key: Credentials) -> None:
            keys[0] = KEY

        vpcep = adapter(cloud.url, credentials, invalidate=invalidate)

        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(rename_failure, vpcep)
            has_begun.wait(LONG)
            with suppress(RenameFailedError):  # unless the slow one has found out by now
                vpcep.rename(TARGET, "orders", within(LONG))
            assert vpcep.rename(TARGET, "orders", within(LONG)).name == "orders"

        assert slow.result().retry_in_process
        assert [call.authenticated for call in cloud.calls].count(False) == 1


class TestAQuestionForTheKeyThatHangs:
    def test_holds_up_nobody_else(self, cloud: HuaweiCloud) -> None:
        goes_on, hangs = threading.Event(), threading.Event()

        def credentials(_: Deadline) -> Credentials:
            if not hangs.is_set():
                hangs.set()
                goes_on.wait(LONG)
            return KEY

        vpcep = adapter(cloud.url, credentials)
        with ThreadPoolExecutor(1) as threads:
            stuck = threads.submit(vpcep.rename, TARGET, "orders", within(LONG))
            hangs.wait(LONG)
            began = time.monotonic()

            assert vpcep.rename(TARGET, "billing", within(LONG)).name == "billing"
            assert time.monotonic() - began < 1.0

            goes_on.set()
            assert stuck.result().name == "orders"


class TestProjectsAndRegions:
    def test_each_project_is_called_by_its_own_id(self, cloud: HuaweiCloud) -> None:
        cloud.add_service("service-2", project_id=OTHER_PROJECT)
        vpcep = adapter(cloud.url)

        vpcep.rename(TARGET, "orders", within(LONG))
        vpcep.rename(Target(REGION, OTHER_PROJECT, "service-2"), "reports", within(LONG))

        assert [call.project_id for call in cloud.calls] == [PROJECT, OTHER_PROJECT]
        assert (cloud.name_of(SERVICE), cloud.name_of("service-2")) == ("orders", "reports")

    def test_each_region_is_called_at_its_own_endpoint(self, cloud: HuaweiCloud) -> None:
        with HuaweiCloud(ak=KEY.access_key, sk=KEY.secret_key, project_id=PROJECT, region="eu-west-101") as europe:
            europe.add_service(SERVICE, name="billing")
            vpcep = adapter({REGION: cloud.url, "eu-west-101": europe.url})

            vpcep.rename(TARGET._replace(region="eu-west-101"), "orders", within(LONG))

            assert (europe.name_of(SERVICE), cloud.name_of(SERVICE)) == ("orders", "billing")

    def test_a_region_that_vpcep_is_not_known_in_is_one_clear_error(self) -> None:
        with pytest.raises(UnknownRegionError, match=r"^xx-nowhere-1$"):
            HuaweiEndpointServices(
                StaticCredentials(KEY),
                region="xx-nowhere-1",
                regions=["xx-nowhere-1"],
                endpoints={},
                pool_size=1,
            )

    def test_a_region_nobody_knows_is_fine_where_its_endpoint_is_given(self, cloud: HuaweiCloud) -> None:
        vpcep = adapter({"xx-nowhere-1": cloud.url})

        assert vpcep.rename(TARGET._replace(region="xx-nowhere-1"), "orders", within(LONG)).name == "orders"


class TestEnvironment:
    def test_may_name_other_endpoints_the_sdks_own_way(self, cloud: HuaweiCloud) -> None:
        """In a process of its own, since the SDK looks at the environment once."""
        # given: the first of two endpoints is down
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code = f"""
from function.domain.model import Target
from tests.deadlines import within
from function.adapters.huawei.credentials import Credentials, StaticCredentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
key = Credentials({KEY.access_key!r}, {KEY.secret_key!r}, None, {PROJECT!r})
vpcep = HuaweiEndpointServices(
    StaticCredentials(key), region={REGION!r}, regions=[{REGION!r}], endpoints={{}}, pool_size=1
)
print(vpcep.rename(Target({REGION!r}, {PROJECT!r}, {SERVICE!r}), "orders", within({LONG})).name)
"""
        own = {"HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": f"{closed},{cloud.url}"}

        # when
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        # then
        assert run.stdout == "orders\n", run.stderr
        assert cloud.name_of(SERVICE) == "orders"

    def test_may_not_put_a_proxy_between(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with RawServer(lambda connection: connection.sendall(http_reply("502 Trap"))) as proxy:
            for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(variable, proxy.url)
            for variable in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(variable, raising=False)

            reply = vpcep.rename(TARGET, "orders", within(LONG))

        assert reply.name == "orders"
        assert proxy.connections == 0

    def test_may_not_put_a_netrc_in_the_place_of_the_signature(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        vpcep.rename(TARGET, "orders", within(LONG))

        assert cloud.calls[0].authenticated
