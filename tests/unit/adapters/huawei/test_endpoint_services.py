"""Renames and reads through the official SDK, over real sockets."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest

from function.adapters.huawei import endpoint_services
from function.adapters.huawei.credentials import Credentials, StaticCredentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.regions import UnknownRegionError
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    KEY,
    LONG,
    SHORT,
    TARGET,
    adapter,
    http_reply,
    in_parallel,
    proves_nothing,
    rename_failure,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


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
