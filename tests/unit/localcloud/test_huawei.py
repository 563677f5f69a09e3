"""The local VPCEP is useful only as long as the official SDK cannot tell it from the real one."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from huaweicloudsdkcore.exceptions.exceptions import (
    ClientRequestException,
    ConnectionException,
    ServerResponseException,
)

from tests.fakes.clock import MovedClock
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.localcloud.clients import AK, SK, client_of, path_of, read, refused, rename, result_of

WRONG_KEY = (401, "APIGW.0301")
SHORT = 0.3


@pytest.fixture
def client(cloud: HuaweiCloud) -> Any:
    return client_of(cloud)


@pytest.fixture
def impatient(cloud: HuaweiCloud) -> Any:
    return client_of(cloud, read_timeout=SHORT)


def test_rename_changes_the_name_and_the_full_name(cloud: HuaweiCloud, client: Any) -> None:
    before = cloud.full_name_of(SERVICE)

    reply = rename(client, "orders")

    assert (reply.status_code, reply.endpoint_service_name) == (200, "orders")
    assert cloud.name_of(SERVICE) == "orders"
    assert cloud.name_of(OTHER_SERVICE) == "reports"
    assert cloud.full_name_of(SERVICE) == before.replace("billing", "orders")


def test_reply_of_the_full_form_has_the_full_name(cloud: HuaweiCloud, client: Any) -> None:
    cloud.reply_form = "full"

    region, name, other_id = rename(client, "orders").endpoint_service_name.split(".")

    assert (region, name) == ("cn-north-4", "orders")
    assert other_id not in (SERVICE, "")


@pytest.mark.parametrize(
    ("name", "limit"), [("a", 16), ("A-b_9", 16), ("-", 16), ("_" * 16, 16), ("", 16), ("test222_name_23432", 18)]
)
def test_valid_name_is_accepted(cloud: HuaweiCloud, client: Any, name: str, limit: int) -> None:
    cloud.name_max_length = limit
    rename(client, name)
    assert cloud.name_of(SERVICE) == name


@pytest.mark.parametrize("name", ["a b", "a.b", "ümlaut", "名称", "a" * 17, "a\n"])
def test_invalid_name_is_refused(cloud: HuaweiCloud, client: Any, name: str) -> None:
    assert refused(rename, client, name) == (400, "EndPoint.1003")
    assert cloud.name_of(SERVICE) == "billing"


def test_rename_without_a_name_keeps_the_name(cloud: HuaweiCloud, client: Any) -> None:
    assert rename(client, None).endpoint_service_name == "billing"
    assert cloud.name_of(SERVICE) == "billing"


def test_read_reports_id_project_status_and_full_name(cloud: HuaweiCloud, client: Any) -> None:
    details = read(client)

    assert (details.id, details.project_id, details.status) == (SERVICE, PROJECT, "available")
    assert details.service_name == cloud.full_name_of(SERVICE)


def test_full_name_of_a_service_without_a_name_has_two_parts(cloud: HuaweiCloud, client: Any) -> None:
    full_name = cloud.add_service(SERVICE, name="")

    assert read(client).service_name == full_name
    assert full_name.count(".") == 1


def test_url_is_on_the_loopback_interface(cloud: HuaweiCloud) -> None:
    assert cloud.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("project_id", "service_id", "answer"),
    [
        (PROJECT, "unknown", (400, "EndPoint.2003")),
        (PROJECT, "in-another-project", (400, "EndPoint.2003")),
        (PROJECT, "x" * 65, (400, "EndPoint.3062")),
        (PROJECT, "..", (404, "APIGW.0101")),
        (PROJECT, "", (404, "APIGW.0101")),
        ("of-another-account", SERVICE, (403, "APIGW.0304")),
        ("not/a project", SERVICE, (400, "EndPoint.0014")),
        ("p" * 65, SERVICE, (400, "EndPoint.0014")),
        (None, SERVICE, (400, "EndPoint.0014")),
    ],
)
def test_unknown_service_or_project_is_refused(
    cloud: HuaweiCloud, project_id: str | None, service_id: str, answer: tuple[int, str]
) -> None:
    cloud.add_service("in-another-project", project_id="another")

    assert refused(rename, client_of(cloud, project_id=project_id), service_id=service_id) == answer
    assert result_of(client_of(cloud, project_id="another"), service_id="in-another-project") == (200, "orders")


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("GET", "/v2/nothing", None, (404, "APIGW.0101")),
        ("PUT", path_of() + "/name/more", None, (404, "APIGW.0101")),
        ("POST", path_of() + "/name", None, (405, "APIGW.0101")),
        ("DELETE", path_of(), None, (405, "APIGW.0101")),
        ("PUT", path_of() + "/name", None, (504, "EndPoint.0011")),
        ("PUT", path_of() + "/name", "not json", (400, "EndPoint.1004")),
        ("PUT", path_of() + "/name", '["endpoint_service_name"]', (400, "EndPoint.1004")),
        ("PUT", path_of() + "/name", '{"endpoint_service_name": 7}', (400, "EndPoint.1003")),
    ],
)
def test_unknown_route_or_malformed_body_is_refused(
    client: Any, method: str, path: str, body: str | None, answer: tuple[int, str]
) -> None:
    assert refused(client.do_http_request, method, path, body=body) == answer


def test_connection_is_kept_for_the_next_call(cloud: HuaweiCloud) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(cloud.url.rpartition(":")[2]), timeout=2)
    ports = []
    for _ in range(2):
        connection.request("GET", path_of())
        assert connection.getresponse().read()
        ports.append(connection.sock.getsockname())
    assert ports[0] == ports[1]
    connection.close()


@pytest.mark.parametrize(("ak", "sk"), [(AK, "another-secret"), ("ANOTHERKEY", SK)])
def test_call_signed_with_another_key_is_refused(cloud: HuaweiCloud, ak: str, sk: str) -> None:
    client = client_of(cloud, ak=ak, sk=sk)
    assert refused(rename, client) == WRONG_KEY
    assert refused(read, client) == WRONG_KEY
    assert cloud.name_of(SERVICE) == "billing"


def tamper_with_body(request: Any, **_: Any) -> None:
    request.body = request.body.replace(b"orders", b"theirs")


def tamper_with_path(request: Any, **_: Any) -> None:
    request.uri = request.uri.replace(SERVICE, OTHER_SERVICE)


def tamper_with_header(header: str) -> Callable[..., None]:
    def tamper(request: Any, **_: Any) -> None:
        value = request.header_params[header]
        request.header_params[header] = value[:-2] + ("1" if value[-2] != "1" else "2") + value[-1]

    return tamper


@pytest.mark.parametrize(
    "tamper",
    [tamper_with_body, tamper_with_path, *map(tamper_with_header, ("Host", "X-Project-Id", "X-Sdk-Date"))],
    ids=["body", "path", "Host", "X-Project-Id", "X-Sdk-Date"],
)
def test_call_changed_after_signing_is_refused(cloud: HuaweiCloud, tamper: Callable[..., None]) -> None:
    assert refused(rename, client_of(cloud, after_signing=tamper)) == WRONG_KEY
    assert (cloud.name_of(SERVICE), cloud.name_of(OTHER_SERVICE)) == ("billing", "reports")


def test_body_declared_unsigned_is_refused(client: Any) -> None:
    headers = {"Content-Type": "text/plain"}
    body = '{"endpoint_service_name": "orders"}'
    answer = refused(client.do_http_request, "PUT", path_of() + "/name", body=body, header_params=headers)
    assert answer == WRONG_KEY


def test_call_without_a_signature_is_refused(cloud: HuaweiCloud) -> None:
    reply = requests.put(f"{cloud.url}{path_of()}/name", json={"endpoint_service_name": "orders"}, timeout=2)
    assert (reply.status_code, reply.json()["error_code"]) == WRONG_KEY


@pytest.mark.parametrize("minutes", [-16, -14, 14, 16])
def test_clock_skew_of_more_than_15_minutes_is_refused(client: Any, clock: MovedClock, minutes: int) -> None:
    clock.ahead = minutes * 60

    if abs(minutes) > 15:
        assert refused(rename, client) == WRONG_KEY
    else:
        assert result_of(client) == (200, "orders")


@pytest.mark.parametrize("service_id", ["é ~/+x", "x//"])
def test_encoded_path_is_verified_as_the_sdk_signs_it(cloud: HuaweiCloud, client: Any, service_id: str) -> None:
    cloud.add_service(service_id)
    assert rename(client, service_id=service_id).endpoint_service_name == "orders"
    assert read(client, service_id).id == service_id


def test_query_in_any_order_and_non_ascii_header_are_verified_as_the_sdk_signs_them(cloud: HuaweiCloud) -> None:
    def reorder(request: Any, **_: Any) -> None:
        path, _, query = request.uri.partition("?")
        request.uri = path + "?" + "&".join(reversed(query.split("&")))

    reply = client_of(cloud, after_signing=reorder).do_http_request(
        "GET",
        path_of(),
        query_params=[("b", "x y/ü"), ("a", ["2", "1"]), ("c", "")],
        header_params={"X-Odd": "ü"},
        response_type="ListServiceDetailsResponse",
    )

    assert reply.id == SERVICE


def test_call_without_the_right_security_token_is_refused() -> None:
    with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT, security_token="token") as cloud:
        cloud.add_service(SERVICE)

        assert refused(rename, client_of(cloud)) == WRONG_KEY
        assert refused(rename, client_of(cloud, token="stale")) == WRONG_KEY
        assert rename(client_of(cloud, token="token")).endpoint_service_name == "orders"


def test_only_the_new_key_is_accepted_after_a_rotation(cloud: HuaweiCloud, client: Any) -> None:
    rename(client, "before")
    cloud.set_credentials("NEWKEY", "new-secret")

    assert refused(rename, client) == WRONG_KEY
    assert rename(client_of(cloud, ak="NEWKEY", sk="new-secret"), "after").endpoint_service_name == "after"


def test_five_wrong_signatures_in_a_row_lock_the_key_for_five_minutes(
    cloud: HuaweiCloud, client: Any, clock: MovedClock
) -> None:
    for _ in range(5):
        refused(rename, client_of(cloud, sk="wrong"))

    for clock.ahead in (0, 4.9 * 60):
        assert refused(rename, client) == WRONG_KEY
    clock.ahead = 5.1 * 60
    assert result_of(client) == (200, "orders")


def test_success_resets_the_count_of_wrong_signatures(cloud: HuaweiCloud, client: Any) -> None:
    for _ in range(2):
        for _ in range(4):
            refused(rename, client_of(cloud, sk="wrong"))
        assert result_of(client) == (200, "orders")


def test_wrong_signatures_of_another_key_do_not_lock_this_one(cloud: HuaweiCloud, client: Any) -> None:
    for _ in range(6):
        refused(rename, client_of(cloud, ak="ANOTHERKEY"))

    assert result_of(client) == (200, "orders")


@pytest.mark.parametrize("generation", ["old", "new"])
def test_sdk_reads_errors_of_both_generations(cloud: HuaweiCloud, client: Any, generation: Any) -> None:
    cloud.error_generation = generation
    cloud.fail(status=500, code="EndPoint.0001", message="Internal error.")

    with pytest.raises(ServerResponseException) as caught:
        rename(client)

    assert (caught.value.error_code, caught.value.error_msg) == ("EndPoint.0001", "Internal error.")
    assert caught.value.request_id == cloud.calls[-1].request_id


def error_reply(cloud: HuaweiCloud) -> requests.Response:
    """The reply to a rename that is refused, as received."""
    replies: list[requests.Response] = []
    client = client_of(cloud)
    client.get_http_client()._http_handler.add_response_handler(lambda response, **_: replies.append(response))
    refused(rename, client)
    return replies[0]


@pytest.mark.parametrize("code", ["EndPoint.0001", "APIGW.0601", "APIG.0601"])
@pytest.mark.parametrize("generation", ["old", "new"])
def test_error_body_has_the_documented_form_and_the_gateways_only_the_new_one(
    cloud: HuaweiCloud, generation: Any, code: str
) -> None:
    cloud.error_generation = generation
    cloud.fail(status=400, code=code, message="No.")

    body = error_reply(cloud).json()

    if generation == "old" and code.startswith("EndPoint."):
        assert body == {"error": {"code": code, "message": "No."}}
    else:
        assert body == {"error_code": code, "error_msg": "No.", "request_id": cloud.calls[-1].request_id}


def test_calls_beyond_the_limit_are_throttled_until_the_window_ends(
    cloud: HuaweiCloud, client: Any, clock: MovedClock
) -> None:
    cloud.throttle(limit=2, seconds=60.0)
    rename(client)
    read(client)

    with pytest.raises(ClientRequestException) as caught:
        rename(client, "refused")

    assert (caught.value.status_code, caught.value.error_code) == (429, "APIGW.0308")
    assert "policy user over ratelimit,limit:2,time:1 minute" in caught.value.error_msg
    assert cloud.name_of(SERVICE) == "orders"
    clock.ahead = 61
    assert rename(client, "later").endpoint_service_name == "later"


def test_throttled_calls_count_against_the_limit(cloud: HuaweiCloud, client: Any, clock: MovedClock) -> None:
    cloud.throttle(limit=1, seconds=60.0)
    rename(client)
    for clock.ahead in (30, 61):
        assert refused(rename, client) == (429, "APIGW.0308")


@pytest.mark.parametrize(
    ("seconds", "span"),
    [(1, "1 second"), (0.5, "0.5 second"), (90, "90 second"), (300, "5 minute"), (7200, "2 hour")],
)
def test_message_of_a_throttled_call_has_limit_and_window(
    cloud: HuaweiCloud, client: Any, seconds: float, span: str
) -> None:
    cloud.throttle(limit=0, seconds=seconds)
    with pytest.raises(ClientRequestException, match=f"limit:0,time:{span}"):
        rename(client)


def test_throttled_reply_has_retry_after_where_it_is_set(cloud: HuaweiCloud) -> None:
    cloud.throttle(limit=0, retry_after=7)

    assert error_reply(cloud).headers["Retry-After"] == "7"


def test_throttling_ends_without_a_limit(cloud: HuaweiCloud, client: Any) -> None:
    cloud.throttle(limit=0)
    cloud.throttle(limit=None)
    assert result_of(client) == (200, "orders")


HTML = {"body": "<html>Bad gateway</html>", "content_type": "text/html"}
RETRY_LATER = {"headers": {"Retry-After": "1"}}
LOCATION = {"headers": {"Location": "http://127.0.0.1:9/"}}
OTHER_NAME = {"body": '{"endpoint_service_name": "other"}'}
FAULTS: dict[str, tuple[dict[str, Any], object]] = {
    "status": ({"status": 500, "code": "EndPoint.0001"}, "500 EndPoint.0001"),
    "status without a class of the SDK": ({"status": 494, "code": "APIGW.0201"}, "494 APIGW.0201"),
    "throttled, but 400": ({"status": 400, "code": "EndPoint.0022"}, "400 EndPoint.0022"),
    "429 with headers": ({"status": 429, "code": "APIGW.0308", **RETRY_LATER}, "429 APIGW.0308"),
    "502 with HTML": ({"status": 502, **HTML}, "502 502"),
    "503 with nothing": ({"status": 503}, "503 503"),
    "a code without a message": ({"status": 500, "body": '{"error_code": "EndPoint.0001"}'}, "500 500"),
    "302": ({"status": 302, **LOCATION}, (302, None)),
    "304": ({"status": 304}, (304, None)),
    "200 with HTML": ({"kind": "garbage", **HTML}, (200, None)),
    "200 with nothing": ({"kind": "garbage"}, (200, None)),
    "200 with a list": ({"kind": "garbage", "body": "[]"}, (200, None)),
    "200 without a name": ({"kind": "garbage", "body": "{}"}, (200, None)),
    "200 with another name": ({"kind": "garbage", **OTHER_NAME}, (200, "other")),
    "reset": ({"kind": "reset"}, ConnectionException),
    "truncate": ({"kind": "truncate"}, requests.exceptions.ChunkedEncodingError),
    "drip": ({"kind": "drip", "pace": 0.001}, (200, "orders")),
    "drip, another body": ({"kind": "drip", "pace": 0.001, "body": "{}"}, (200, None)),
    "hang": ({"kind": "hang"}, requests.exceptions.ReadTimeout),
    "delay": ({"status": 500, "code": "EndPoint.0001", "delay": 60.0}, requests.exceptions.ReadTimeout),
}


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_injected_fault_has_its_effect_once(
    cloud: HuaweiCloud, client: Any, impatient: Any, fault: str, applied: bool
) -> None:
    command, result = FAULTS[fault]
    cloud.fail(**command, applied=applied)

    assert result_of(impatient if fault in ("hang", "delay") else client) == result

    assert cloud.name_of(SERVICE) == ("orders" if applied else "billing")
    assert cloud.calls[-1].name == "orders"
    assert rename(client, "afterwards").endpoint_service_name == "afterwards"


def test_reset_fault_resets_the_connection(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(kind="reset")
    with pytest.raises(ConnectionException, match="reset by peer"):
        rename(client)


def test_slow_fault_delays_the_correct_reply(cloud: HuaweiCloud, client: Any, impatient: Any) -> None:
    cloud.fail(kind="slow", delay=0.05)
    cloud.fail(kind="slow", delay=60.0)

    assert rename(client, "first").endpoint_service_name == "first"
    with pytest.raises(requests.exceptions.ReadTimeout):
        rename(impatient, "second")

    assert cloud.name_of(SERVICE) == "second"


def test_dripping_reply_outlasts_the_read_timeout(cloud: HuaweiCloud, impatient: Any) -> None:
    cloud.fail(kind="drip", pace=0.02)
    begin = time.monotonic()
    rename(impatient)
    assert time.monotonic() - begin > SHORT


def test_applied_fault_does_not_apply_an_invalid_request(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=504, code="EndPoint.0013", applied=True)
    assert refused(rename, client, "not valid") == (504, "EndPoint.0013")
    assert cloud.name_of(SERVICE) == "billing"


def test_injected_faults_apply_in_the_order_they_were_given(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=503, code="EndPoint.0001", times=2)
    cloud.fail(status=500, code="EndPoint.0002", times=None)

    answers = [refused(rename, client) for _ in range(4)]

    assert answers == [(503, "EndPoint.0001")] * 2 + [(500, "EndPoint.0002")] * 2
    cloud.reset()
    assert result_of(client) == (200, "orders")


def test_fault_for_one_service_spares_the_others(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=500, code="EndPoint.0001", service_id=SERVICE, times=None)

    assert rename(client, service_id=OTHER_SERVICE).endpoint_service_name == "orders"
    assert refused(rename, client) == (500, "EndPoint.0001")


@pytest.mark.parametrize(("on", "fails"), [("rename", [rename]), ("read", [read]), ("any", [rename, read])])
def test_fault_for_one_operation_spares_the_others(cloud: HuaweiCloud, client: Any, on: Any, fails: list[Any]) -> None:
    cloud.fail(status=500, code="EndPoint.0001", on=on, times=None)

    for call in fails:
        assert refused(call, client) == (500, "EndPoint.0001")
    for call in (rename, read):
        if call not in fails:
            assert call(client).status_code == 200


def test_fault_neither_hides_a_wrong_signature_nor_is_used_up_by_it(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=500, code="EndPoint.0001")
    assert refused(rename, client_of(cloud, sk="wrong")) == WRONG_KEY
    assert refused(rename, client) == (500, "EndPoint.0001")


def test_unknown_kind_of_fault_is_an_error(cloud: HuaweiCloud) -> None:
    with pytest.raises(ValueError, match="rest on rename"):
        cloud.fail(kind="rest")  # type: ignore[arg-type]


def test_journal_has_each_call_with_its_reply(
    cloud: HuaweiCloud, client: Any, impatient: Any, clock: MovedClock
) -> None:
    cloud.fail(status=503, code="EndPoint.0001", on="read")
    cloud.fail(kind="hang", service_id=OTHER_SERVICE)
    before = clock()

    rename(client)
    refused(read, client)
    refused(rename, client_of(cloud, sk="wrong"), "theirs")
    with pytest.raises(requests.exceptions.ReadTimeout):
        rename(impatient, service_id=OTHER_SERVICE)
    refused(client.do_http_request, "GET", "/v1/nothing")

    seen = [(c.method, c.operation, c.service_id, c.name, c.status, c.code, c.authenticated) for c in cloud.calls]
    assert seen == [
        ("PUT", "rename", SERVICE, "orders", 200, None, True),
        ("GET", "read", SERVICE, None, 503, "EndPoint.0001", True),
        ("PUT", "rename", SERVICE, "theirs", 401, "APIGW.0301", False),
        ("PUT", "rename", OTHER_SERVICE, "orders", None, None, True),
        ("GET", None, None, None, 404, "APIGW.0101", False),
    ]
    assert cloud.calls[0].path == path_of() + "/name"
    assert cloud.calls[0].project_id == PROJECT
    assert len({call.request_id for call in cloud.calls}) == 5
    assert before <= cloud.calls[0].time <= cloud.calls[-1].time <= clock()


def test_reset_removes_everything_but_the_services(cloud: HuaweiCloud, client: Any) -> None:
    rename(client)
    for _ in range(5):
        refused(rename, client_of(cloud, sk="wrong"))
    cloud.throttle(limit=0)
    cloud.fail(times=None)

    cloud.reset()

    assert cloud.calls == []
    assert read(client).service_name == cloud.full_name_of(SERVICE)
    assert cloud.name_of(SERVICE) == "orders"


def test_concurrent_calls_take_effect_one_after_the_other(
    cloud: HuaweiCloud, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_progress: list[int] = []
    most: list[int] = []

    def look(_: MovedClock) -> float:
        """Each call reads the clock before it takes effect; the pause lets others in, if nothing prevents it."""
        in_progress.append(1)
        time.sleep(0.0001)
        most.append(len(in_progress))
        in_progress.pop()
        return time.time()

    monkeypatch.setattr(MovedClock, "__call__", look)
    cloud.fail(status=503, code="EndPoint.0001", times=50)

    names = [f"name-{number}" for number in range(200)]

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda name: result_of(client, name), names))

    assert results.count("503 EndPoint.0001") == 50
    assert len(set(results) & {(200, name) for name in names}) == 150
    assert sorted(str(call.name) for call in cloud.calls) == sorted(names)
    assert cloud.name_of(SERVICE) == [call.name for call in cloud.calls if call.status == 200][-1]
    assert max(most) == 1


@pytest.mark.parametrize("command", [{"kind": "hang"}, {"delay": 60.0}, {"kind": "drip", "pace": 60.0}])
def test_cloud_stops_at_once_during_a_call(command: dict[str, Any]) -> None:
    others = set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud:
            cloud.add_service(SERVICE)
            cloud.fail(**command)
            call = pool.submit(rename, client_of(cloud, read_timeout=60.0))
            while not cloud.calls:
                time.sleep(0.01)
            new = set(threading.enumerate()) - others
            serving = [thread for thread in new if "process_request" in thread.name]
            begin = time.monotonic()
        assert time.monotonic() - begin < 1
        assert call.exception(timeout=1) is not None
    for thread in serving:
        thread.join(timeout=1)
    assert serving
    assert not any(thread.is_alive() for thread in serving)


def test_idle_connections_are_closed_when_the_cloud_stops() -> None:
    with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud:
        connection = http.client.HTTPConnection("127.0.0.1", int(cloud.url.rpartition(":")[2]), timeout=1)
        connection.request("GET", path_of())
        connection.getresponse().read()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_cloud_prints_nothing(cloud: HuaweiCloud, impatient: Any, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.fail(kind="drip", pace=SHORT + 0.1)
    with pytest.raises(ConnectionException, match="timed out"):
        rename(impatient)
    refused(rename, impatient, "not valid")
    assert capfd.readouterr() == ("", "")


def test_defect_of_the_cloud_is_raised_when_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(HuaweiCloud, "_authenticate", broken)
    with (
        pytest.raises(ZeroDivisionError),
        HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud,
        pytest.raises(ConnectionException),
    ):
        rename(client_of(cloud))
