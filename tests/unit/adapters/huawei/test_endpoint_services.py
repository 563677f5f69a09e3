"""Renames and reads through the official SDK, over real sockets."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials

from function.adapters.huawei import endpoint_services
from function.adapters.huawei.credentials import StaticCredentials
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.regions import UnknownRegionError
from function.domain.failures import Failure
from function.domain.model import Target
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.identifiers import OTHER_PROJECT, OTHER_REGION, OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.fakes.process import run_python
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    KEY,
    LONG,
    RENAMED,
    SHORT,
    TARGET,
    Keys,
    adapter,
    closed_port,
    failure_with,
    http_reply,
    in_parallel,
    rename,
    rename_failure,
    replying,
    unconfirmed,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


# ---- Success


@pytest.mark.parametrize("name", ["orders", "A-b_9", ""])
def test_reply_to_a_rename_has_the_new_name(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, name: str) -> None:
    reply = rename(vpcep, name)

    assert cloud.name_of(SERVICE) == name
    assert reply == Reply(name, 200, cloud.calls[0].request_id)


def test_reply_to_a_rename_may_have_the_full_name(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    cloud.reply_form = "full"

    assert rename(vpcep).name == cloud.full_name_of(SERVICE)


def test_reply_to_a_read_has_the_full_name(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    reply = vpcep.read(TARGET, within(LONG))

    assert reply == Reply(cloud.full_name_of(SERVICE), 200, cloud.calls[0].request_id)
    assert cloud.name_of(SERVICE) == "billing"


def test_reply_to_a_read_may_have_every_documented_member() -> None:
    members = b'"ports":[{"client_port":1}],"tags":[{"key":"a"}],"error":[{"code":"b"}],"supported_editions":["c"]'

    with replying(http_reply("200 OK", b'{"service_name":"orders",%s}' % members)) as server:
        assert adapter(server.url).read(TARGET, within(LONG)).name == "orders"


def test_reply_models_are_those_that_replies_refer_to() -> None:
    models = vars(endpoint_services._REPLY_MODELS)
    members = {member for model in models.values() for member in model.openapi_types.values()}

    replies = {"ListServiceDetailsResponse", "UpdateEndpointServiceNameResponse"}
    native = {"bool", "datetime", "int", "str"}
    assert {member.removeprefix("list[").removesuffix("]") for member in members} - native == models.keys() - replies
    assert replies <= models.keys()


def test_security_token_is_sent(cloud: HuaweiCloud) -> None:
    cloud.set_credentials(KEY.access_key, KEY.secret_key, "token-1")

    rename(adapter(cloud.url, Keys(KEY._replace(security_token="token-1"))))

    assert cloud.name_of(SERVICE) == "orders"


def test_concurrent_calls_get_their_own_replies(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    services = [f"service-{number}" for number in range(40)]
    for service in services:
        cloud.add_service(service)
    cloud.fail(404, "EndPoint.0005", service_id="service-7")

    replies = in_parallel(40, lambda n: rename(vpcep, f"name-{n}", target=Target(REGION, PROJECT, services[n])))

    request_ids = {call.service_id: call.request_id for call in cloud.calls}
    assert [reply.huawei_request_id for reply in replies] == [request_ids[service] for service in services]
    assert [n for n, reply in enumerate(replies) if isinstance(reply, Failure)] == [7]


def test_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    # given: a server that promises to keep the connection, and closes it while the function is frozen
    with replying(RENAMED) as server:
        vpcep = adapter(server.url)
        rename(vpcep)
        time.sleep(0.05)

        assert rename(vpcep).name == "orders"
        assert server.connections == 2


def test_user_agent_names_the_function() -> None:
    received = []

    def serve(connection: socket.socket) -> None:
        received.append(receive_request(connection))
        connection.sendall(RENAMED)

    with RawServer(serve) as server:
        rename(adapter(server.url))

    assert re.search(rb"^User-Agent: .*\bvpcep-rename\b", received[0], re.MULTILINE)


def test_request_is_signed_in_the_thread_of_its_call(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing: list[threading.Thread] = []
    sign = BasicCredentials.sign_request

    def watched(*arguments: Any) -> Any:
        signing.append(threading.current_thread())
        return sign(*arguments)

    monkeypatch.setattr(BasicCredentials, "sign_request", watched)

    rename(vpcep)

    assert signing == [threading.current_thread()]


def test_request_that_cannot_be_signed_is_not_in_doubt(
    vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BasicCredentials, "sign_request", lambda *_: 1 // 0)

    failure = rename_failure(vpcep)

    assert (failure.code, failure.in_doubt) == ("Rename.InternalError", False)


# ---- Durations


def test_duration_of_each_call_is_reported_whatever_its_result(cloud: HuaweiCloud) -> None:
    durations: list[float] = []
    vpcep = adapter(cloud.url, on_call=durations.append)

    vpcep.read(TARGET, within(LONG))
    cloud.fail(503)
    rename_failure(vpcep)
    cloud.fail(kind="hang")
    rename_failure(vpcep, SHORT)

    assert durations == [pytest.approx(0, abs=SHORT), pytest.approx(0, abs=SHORT), pytest.approx(SHORT, abs=SHORT)]
    assert durations[2] >= SHORT


def test_duration_of_a_call_that_is_not_made_is_not_reported(cloud: HuaweiCloud) -> None:
    durations: list[float] = []
    vpcep = adapter(cloud.url, on_call=durations.append)
    cloud.fail(401, "APIGW.0301")

    for _ in range(3):
        rename_failure(vpcep)

    assert len(durations) == len(cloud.calls) == 1


# ---- Credentials in replies


CREDENTIALS = {"access key": KEY.access_key, "secret key": KEY.secret_key, "token": "security-token/+1234567890"}


@pytest.fixture
def keys() -> Keys:
    return Keys(KEY._replace(security_token=CREDENTIALS["token"]))


# Huawei Cloud's 401 repeats the access key that it was sent; if both keys are swapped, that is the secret one.
@pytest.mark.parametrize(
    ("status", "body", "header"),
    [
        ("401 Unauthorized", '{"error_code": "AK.%s", "error_msg": "No."}', "X-Other: 1"),
        ("401 Unauthorized", '{"error_code": "APIGW.0301"}', "X-Request-Id: %s"),
        ("200 OK", '{"endpoint_service_name": "%s"}', "X-Other: 1"),
    ],
    ids=["code", "request id", "name"],
)
@pytest.mark.parametrize("secret", CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_in_a_reply_are_redacted(keys: Keys, secret: str, status: str, body: str, header: str) -> None:
    sent = body.replace("%s", secret).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(sent)}", header.replace("%s", secret), "", ""]

    with replying("\r\n".join(head).encode() + sent) as server:
        [result] = in_parallel(1, lambda _: rename(adapter(server.url, keys)))

    assert "***" in repr(result)
    assert secret not in repr(result)


@pytest.mark.parametrize("secret", CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_in_a_reply_are_redacted_before_the_text_is_truncated(keys: Keys, secret: str) -> None:
    texts = {"error_code": "APIGW.0301", "error_msg": "." * 995 + secret, "request_id": "." * 120 + secret}
    body = json.dumps(texts).encode()

    with replying(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) as server:
        failure = rename_failure(adapter(server.url, keys))

    assert (failure.message, failure.huawei_request_id) == ("." * 995 + "***", "." * 120 + "***")


# ---- Replies that do not confirm the rename


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>orders</html>", b'{"endpoint_service_name": "orders"', b"\xff\xfe\x00", b"\x00"),
        *(b"[" * 200_000, b'{"a":' * 200_000),
        *(b"[]", b'["endpoint_service_name"]', b"null", b"true", b"5", b'"orders"'),
        *(b"{}", b'{"name": "orders"}', b'{"error_code": "EndPoint.0001", "error_msg": "No."}'),
        *(b'{"endpoint_service_name": %s}' % value for value in (b"null", b'{"a": 1}', b"[1]", b"1e999", b"NaN")),
        *(b'{"endpoint_service_name": %s}' % value for value in (b'"billing"', b'"\\ud800"')),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_reply_without_the_new_name_is_no_success(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: bytes
) -> None:
    cloud.fail(kind="garbage", body=body, times=2)
    cloud.fail(kind="garbage", body=body, on="read")

    for call in (lambda: rename(vpcep), lambda: vpcep.read(TARGET, within(LONG))):
        result = unconfirmed(call)

        if isinstance(result, Failure):
            assert result.http_status == 200
        assert result.huawei_request_id == cloud.calls[-1].request_id
    assert len(cloud.calls) == 2


@pytest.mark.parametrize(
    "reply",
    [
        *(
            {"body": "<html/>", "content_type": content_type}
            for content_type in ("application/xml", "application/bson", "text/html; charset=utf-99", "")
        ),
        *(
            {"body": body, "headers": {"Content-Encoding": encoding}}
            for encoding, body in (
                ("gzip", b"no gzip"),
                ("gzip", b"\x1f\x8b\x08"),
                ("deflate", b"\xff" * 9),
                ("zz", b"{}"),
            )
        ),
    ],
    ids=str,
)
def test_reply_of_another_content_type_or_encoding_is_no_success(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, reply: dict[str, Any]
) -> None:
    cloud.fail(kind="garbage", **reply)

    unconfirmed(lambda: rename(vpcep))


@pytest.mark.parametrize("status", [201, 202, 204, 206, 300, 301, 302, 303, 304, 307, 308])
def test_reply_of_another_status_without_a_body_is_no_success(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, status: int
) -> None:
    cloud.fail(status, body=b"")

    result = unconfirmed(lambda: rename(vpcep))

    assert (result.http_status if isinstance(result, Failure) else result.status) == status
    assert result.huawei_request_id == cloud.calls[0].request_id


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_no_success(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, status: int
) -> None:
    cloud.add_service(OTHER_SERVICE, name="reports")
    another = f"{cloud.url}/v1/{PROJECT}/vpc-endpoint-services/{OTHER_SERVICE}/name"
    for location in (another, "/elsewhere", "http://["):
        cloud.fail(status, body=b'{"endpoint_service_name": "billing"}', headers={"Location": location})

        unconfirmed(lambda: rename(vpcep))

    assert len(cloud.calls) == 3
    assert cloud.name_of(OTHER_SERVICE) == "reports"


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\xff\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1_000)) + b"\r\n{}",
    ],
    ids=lambda reply: repr(reply[:24]),
)
def test_reply_that_is_not_http_or_has_too_many_headers_is_in_doubt(reply: bytes) -> None:
    failure = failure_with(replying(reply))

    assert failure.in_doubt
    assert failure.retryable


def test_reply_that_is_too_large_is_in_doubt(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    cloud.fail(kind="garbage", body=b'{"endpoint_service_name": "orders", "x": "%s"}' % (b"x" * 2 * 1024 * 1024))

    failure = rename_failure(vpcep)

    assert (failure.code, failure.in_doubt, failure.http_status) == ("Rename.UnconfirmedReply", True, 200)
    assert failure.huawei_request_id == cloud.calls[0].request_id


def test_reply_that_never_ends_is_not_read_until_the_deadline() -> None:
    def serve(connection: socket.socket) -> None:
        receive_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    with RawServer(serve) as server:
        failure = rename_failure(adapter(server.url), 3.0)

    # then: it is not read until time is up
    assert (failure.code, failure.in_doubt) == ("Rename.UnconfirmedReply", True)


# ---- Projects and regions


def test_project_of_the_target_is_called(cloud: HuaweiCloud) -> None:
    cloud.add_service("service-2", project_id=OTHER_PROJECT)
    vpcep = adapter(cloud.url)

    rename(vpcep)
    rename(vpcep, "reports", target=Target(REGION, OTHER_PROJECT, "service-2"))

    assert [call.project_id for call in cloud.calls] == [PROJECT, OTHER_PROJECT]
    assert (cloud.name_of(SERVICE), cloud.name_of("service-2")) == ("orders", "reports")


def test_region_of_the_target_is_called_at_its_endpoint(cloud: HuaweiCloud) -> None:
    with HuaweiCloud(ak=KEY.access_key, sk=KEY.secret_key, project_id=PROJECT, region=OTHER_REGION) as europe:
        europe.add_service(SERVICE, name="billing")
        vpcep = adapter({REGION: cloud.url, OTHER_REGION: europe.url})

        rename(vpcep, target=TARGET._replace(region=OTHER_REGION))

        assert (europe.name_of(SERVICE), cloud.name_of(SERVICE)) == ("orders", "billing")


def test_unknown_region_without_an_endpoint_is_an_error_at_construction() -> None:
    with pytest.raises(UnknownRegionError, match=r"^xx-nowhere-1$"):
        HuaweiEndpointServices(
            StaticCredentials(KEY), region="xx-nowhere-1", regions=["xx-nowhere-1"], endpoints={}, pool_size=1
        )


def test_unknown_region_with_an_endpoint_is_called(cloud: HuaweiCloud) -> None:
    vpcep = adapter({"xx-nowhere-1": cloud.url})

    assert rename(vpcep, target=TARGET._replace(region="xx-nowhere-1")).name == "orders"


# ---- Environment


def test_endpoints_of_the_sdks_environment_variable_are_used(cloud: HuaweiCloud) -> None:
    """In a process of its own, since the SDK looks at the environment once."""
    code = "from tests.unit.adapters.huawei.clients import adapter, rename; print(rename(adapter({})).name)"
    # given: the first of two endpoints is down
    own = {"HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": f"{closed_port()},{cloud.url}"}

    run = run_python(code, own)

    assert run.stdout == "orders\n", run.stderr
    assert cloud.name_of(SERVICE) == "orders"


def test_proxy_of_the_environment_is_not_used(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(lambda connection: connection.sendall(http_reply("502 Trap"))) as proxy:
        for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, proxy.url)
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)

        reply = rename(vpcep)

    assert reply.name == "orders"
    assert proxy.connections == 0


def test_netrc_does_not_replace_the_signature(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    rename(vpcep)

    assert cloud.calls[0].authenticated
