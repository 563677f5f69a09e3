"""The local Huawei Cloud answers the official SDK as the real one does, and fails on command."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
from huaweicloudsdkcore.exceptions.exceptions import (
    ClientRequestException,
    ConnectionException,
    ServerResponseException,
    ServiceResponseException,
)

from tests.fakes.clock import MovedClock
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.localcloud.clients import AK, SK, client_of, path_of, read, refused, rename

SHORT = 0.3
WRONG_KEY = (401, "APIGW.0301")


@pytest.fixture
def client(cloud: HuaweiCloud) -> Any:
    return client_of(cloud)


@pytest.fixture
def impatient(cloud: HuaweiCloud) -> Any:
    return client_of(cloud, read_timeout=SHORT)


# ---- Rename


def test_rename_changes_the_name_of_the_service(cloud: HuaweiCloud, client: Any) -> None:
    before = cloud.full_name_of(SERVICE)

    reply = rename(client, "orders")

    assert (reply.status_code, reply.endpoint_service_name) == (200, "orders")
    assert cloud.name_of(SERVICE) == "orders"
    assert cloud.name_of(OTHER_SERVICE) == "reports"
    assert cloud.full_name_of(SERVICE) == before.replace("billing", "orders")


def test_reply_form_full_reports_the_full_name(cloud: HuaweiCloud, client: Any) -> None:
    cloud.reply_form = "full"

    region, name, other_id = rename(client, "orders").endpoint_service_name.split(".")

    assert (region, name) == ("cn-north-4", "orders")
    assert other_id not in (SERVICE, "")


@pytest.mark.parametrize(
    ("name", "max_length"), [("a", 16), ("A-b_9", 16), ("-", 16), ("_" * 16, 16), ("", 16), ("test222_name_23432", 18)]
)
def test_valid_name_is_accepted(cloud: HuaweiCloud, client: Any, name: str, max_length: int) -> None:
    cloud.name_max_length = max_length

    assert rename(client, name).endpoint_service_name == cloud.name_of(SERVICE) == name


@pytest.mark.parametrize("name", ["a b", "a.b", "ümlaut", "名称", "a" * 17, "a\n"])
def test_invalid_name_is_refused(cloud: HuaweiCloud, client: Any, name: str) -> None:
    assert refused(rename, client, name) == (400, "EndPoint.1003")
    assert cloud.name_of(SERVICE) == "billing"


def test_rename_without_a_name_keeps_the_name(cloud: HuaweiCloud, client: Any) -> None:
    assert rename(client, None).endpoint_service_name == "billing"
    assert cloud.name_of(SERVICE) == "billing"


# ---- Read


def test_read_returns_the_details_of_the_service(cloud: HuaweiCloud, client: Any) -> None:
    details = read(client)

    assert (details.id, details.project_id, details.status) == (SERVICE, PROJECT, "available")
    assert details.service_name == cloud.full_name_of(SERVICE)


def test_full_name_of_a_service_without_a_name_has_two_parts(cloud: HuaweiCloud, client: Any) -> None:
    full_name = cloud.add_service(SERVICE, name="")

    assert read(client).service_name == full_name
    assert full_name.count(".") == 1


# ---- Address


def test_server_listens_on_loopback_only(cloud: HuaweiCloud) -> None:
    assert cloud.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("service_id", "answer"),
    [
        ("unknown", (400, "EndPoint.2003")),
        ("x" * 65, (400, "EndPoint.3062")),
        ("..", (404, "APIGW.0101")),
        ("", (404, "APIGW.0101")),
    ],
)
def test_unknown_service_is_refused(client: Any, service_id: str, answer: tuple[int, str]) -> None:
    assert refused(rename, client, service_id=service_id) == answer


@pytest.mark.parametrize(
    ("project_id", "answer"),
    [
        ("somebody-elses", (403, "APIGW.0304")),
        ("not/a project", (400, "EndPoint.0014")),
        ("p" * 65, (400, "EndPoint.0014")),
        (None, (400, "EndPoint.0014")),
    ],
)
def test_other_project_is_refused(cloud: HuaweiCloud, project_id: str | None, answer: tuple[int, str]) -> None:
    assert refused(rename, client_of(cloud, project_id=project_id)) == answer


def test_service_is_found_in_its_own_project_only(cloud: HuaweiCloud, client: Any) -> None:
    cloud.add_service("elsewhere", project_id="second")

    assert refused(rename, client, service_id="elsewhere") == (400, "EndPoint.2003")
    assert rename(client_of(cloud, project_id="second"), service_id="elsewhere").endpoint_service_name == "orders"


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


def connect(cloud: HuaweiCloud) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", int(cloud.url.rpartition(":")[2]), timeout=2)


def test_connection_is_kept_for_the_next_call(cloud: HuaweiCloud) -> None:
    connection = connect(cloud)
    ports = []
    for _ in range(2):
        connection.request("GET", path_of())
        assert connection.getresponse().read()
        ports.append(connection.sock.getsockname())
    assert ports[0] == ports[1]
    connection.close()


# ---- Signature


@pytest.mark.parametrize(("ak", "sk"), [(AK, "another-secret"), ("ANOTHERKEY", SK)])
def test_other_key_is_refused(cloud: HuaweiCloud, ak: str, sk: str) -> None:
    client = client_of(cloud, ak=ak, sk=sk)
    assert refused(rename, client) == WRONG_KEY
    assert refused(read, client) == WRONG_KEY
    assert cloud.name_of(SERVICE) == "billing"


def change_body(request: Any, **_: Any) -> None:
    request.body = request.body.replace(b"orders", b"theirs")


def change_path(request: Any, **_: Any) -> None:
    request.uri = request.uri.replace(SERVICE, OTHER_SERVICE)


def change_header(header: str, request: Any, **_: Any) -> None:
    value = request.header_params[header]
    request.header_params[header] = value[:-2] + ("1" if value[-2] != "1" else "2") + value[-1]


@pytest.mark.parametrize(
    "change",
    [
        change_body,
        change_path,
        *(partial(change_header, header) for header in ("Host", "X-Project-Id", "X-Sdk-Date")),
    ],
    ids=["body", "path", "Host", "X-Project-Id", "X-Sdk-Date"],
)
def test_request_changed_after_signing_is_refused(cloud: HuaweiCloud, change: Callable[..., None]) -> None:
    assert refused(rename, client_of(cloud, after_signing=change)) == WRONG_KEY
    assert (cloud.name_of(SERVICE), cloud.name_of(OTHER_SERVICE)) == ("billing", "reports")


def test_body_declared_unsigned_is_refused(client: Any) -> None:
    call: Any = {"body": '{"endpoint_service_name": "orders"}', "header_params": {"Content-Type": "text/plain"}}

    assert refused(client.do_http_request, "PUT", path_of() + "/name", **call) == WRONG_KEY


def test_call_without_a_signature_is_refused(cloud: HuaweiCloud) -> None:
    reply = requests.put(f"{cloud.url}{path_of()}/name", json={"endpoint_service_name": "orders"}, timeout=2)
    assert (reply.status_code, reply.json()["error_code"]) == WRONG_KEY


@pytest.mark.parametrize("minutes", [-16, -14, 14, 16])
def test_clock_skew_of_more_than_a_quarter_of_an_hour_is_refused(client: Any, clock: MovedClock, minutes: int) -> None:
    clock.ahead = minutes * 60

    if abs(minutes) > 15:
        assert refused(rename, client) == WRONG_KEY
    else:
        assert rename(client).endpoint_service_name == "orders"


@pytest.mark.parametrize("service_id", ["é ~/+x", "x//"])
def test_encoded_path_is_read_as_the_sdk_signs_it(cloud: HuaweiCloud, client: Any, service_id: str) -> None:
    cloud.add_service(service_id)
    assert rename(client, service_id=service_id).endpoint_service_name == "orders"
    assert read(client, service_id).id == service_id


def test_query_in_any_order_and_unusual_header_are_read_as_the_sdk_signs_them(cloud: HuaweiCloud) -> None:
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


def test_wrong_security_token_is_refused() -> None:
    with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT, security_token="token") as cloud:
        cloud.add_service(SERVICE)

        assert refused(rename, client_of(cloud)) == WRONG_KEY
        assert refused(rename, client_of(cloud, token="stale")) == WRONG_KEY
        assert rename(client_of(cloud, token="token")).endpoint_service_name == "orders"


def test_old_key_is_refused_after_a_rotation(cloud: HuaweiCloud, client: Any) -> None:
    rename(client, "before")
    cloud.set_credentials("NEWKEY", "new-secret")

    assert refused(rename, client) == WRONG_KEY
    assert rename(client_of(cloud, ak="NEWKEY", sk="new-secret"), "after").endpoint_service_name == "after"


# ---- Lock


def test_five_wrong_signatures_in_a_row_lock_the_key_for_five_minutes(
    cloud: HuaweiCloud, client: Any, clock: MovedClock
) -> None:
    impostor = client_of(cloud, sk="wrong")
    for _ in range(5):
        refused(rename, impostor)

    assert refused(rename, client) == WRONG_KEY
    clock.ahead = 4.9 * 60
    assert refused(rename, client) == WRONG_KEY
    clock.ahead = 5.1 * 60
    assert rename(client).endpoint_service_name == "orders"


def test_success_resets_the_count_of_wrong_signatures(cloud: HuaweiCloud, client: Any) -> None:
    impostor = client_of(cloud, sk="wrong")
    for _ in range(2):
        for _ in range(4):
            refused(rename, impostor)
        assert rename(client).endpoint_service_name == "orders"


def test_wrong_signatures_of_another_key_do_not_lock_the_key(cloud: HuaweiCloud, client: Any) -> None:
    for _ in range(6):
        refused(rename, client_of(cloud, ak="ANOTHERKEY"))
    assert rename(client).endpoint_service_name == "orders"


# ---- Error bodies


@pytest.mark.parametrize("generation", ["old", "new"])
def test_sdk_reads_error_bodies_of_both_generations(cloud: HuaweiCloud, client: Any, generation: Any) -> None:
    cloud.error_generation = generation
    cloud.fail(status=500, code="EndPoint.0001", message="Internal error.")

    with pytest.raises(ServerResponseException) as caught:
        rename(client)

    assert (caught.value.error_code, caught.value.error_msg) == ("EndPoint.0001", "Internal error.")
    assert caught.value.request_id == cloud.calls[-1].request_id


def replies_to(client: Any) -> list[requests.Response]:
    """The replies that the client gets from now on."""
    replies: list[requests.Response] = []
    client.get_http_client()._http_handler.add_response_handler(lambda response, **_: replies.append(response))
    return replies


@pytest.mark.parametrize(
    ("code", "generation", "form"),
    [
        ("EndPoint.0001", "old", {"error": {"code": "EndPoint.0001", "message": "No."}}),
        ("EndPoint.0001", "new", {"error_code": "EndPoint.0001", "error_msg": "No."}),
        ("APIGW.0601", "old", {"error_code": "APIGW.0601", "error_msg": "No."}),
        ("APIG.0601", "old", {"error_code": "APIG.0601", "error_msg": "No."}),
    ],
)
def test_error_body_is_in_the_documented_form_which_is_the_new_one_for_the_gateway(
    cloud: HuaweiCloud, client: Any, code: str, generation: Any, form: dict[str, Any]
) -> None:
    replies = replies_to(client)
    cloud.error_generation = generation
    cloud.fail(status=400, code=code, message="No.")

    refused(rename, client)

    request_id = {} if "error" in form else {"request_id": cloud.calls[-1].request_id}
    assert replies[0].json() == form | request_id


# ---- Throttling


def test_calls_beyond_the_limit_are_refused_until_the_window_is_over(
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


def test_refused_calls_count_for_the_limit(cloud: HuaweiCloud, client: Any, clock: MovedClock) -> None:
    cloud.throttle(limit=1, seconds=60.0)
    rename(client)
    for clock.ahead in (30, 61):
        assert refused(rename, client) == (429, "APIGW.0308")


@pytest.mark.parametrize(
    ("seconds", "span"), [(1, "1 second"), (0.5, "0.5 second"), (90, "90 second"), (300, "5 minute"), (7200, "2 hour")]
)
def test_message_of_a_throttled_call_has_the_window(cloud: HuaweiCloud, client: Any, seconds: float, span: str) -> None:
    cloud.throttle(limit=0, seconds=seconds)
    with pytest.raises(ClientRequestException, match=f"limit:0,time:{span}"):
        rename(client)


def test_throttled_call_may_have_retry_after(cloud: HuaweiCloud, client: Any) -> None:
    replies = replies_to(client)
    cloud.throttle(limit=0, retry_after=7)

    refused(rename, client)

    assert replies[0].headers["Retry-After"] == "7"


def test_throttling_can_be_ended(cloud: HuaweiCloud, client: Any) -> None:
    cloud.throttle(limit=0)
    cloud.throttle(limit=None)
    assert rename(client).endpoint_service_name == "orders"


# ---- Commanded failures


def internal(**more: Any) -> dict[str, Any]:
    return {"status": 500, "code": "EndPoint.0001", **more}


def garbage(body: str) -> dict[str, Any]:
    return {"kind": "garbage", "body": body}


HTML = {"body": "<html>Bad gateway</html>", "content_type": "text/html"}
THROTTLED = {"status": 429, "code": "APIGW.0308", "headers": {"Retry-After": "1"}}
# What the SDK makes of each: the status and code of an error, the status and name of a success, or an exception.
FAILURES: dict[str, tuple[dict[str, Any], tuple[int, str | None] | type[Exception]]] = {
    "status": (internal(), (500, "EndPoint.0001")),
    "status of a class of its own": ({"status": 494, "code": "APIGW.0201"}, (494, "APIGW.0201")),
    "throttled, but 400": ({"status": 400, "code": "EndPoint.0022"}, (400, "EndPoint.0022")),
    "429 with headers": (THROTTLED, (429, "APIGW.0308")),
    "502 with HTML": ({"status": 502, **HTML}, (502, "502")),
    "503 with nothing": ({"status": 503}, (503, "503")),
    "a code without a message": ({"status": 500, "body": '{"error_code": "EndPoint.0001"}'}, (500, "500")),
    "302": ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, (302, None)),
    "304": ({"status": 304}, (304, None)),
    "200 with HTML": ({"kind": "garbage", **HTML}, (200, None)),
    "200 with nothing": ({"kind": "garbage"}, (200, None)),
    "200 with a list": (garbage("[]"), (200, None)),
    "200 without a name": (garbage("{}"), (200, None)),
    "200 with another name": (garbage('{"endpoint_service_name": "other"}'), (200, "other")),
    "reset": ({"kind": "reset"}, ConnectionException),
    "truncate": ({"kind": "truncate"}, requests.exceptions.ChunkedEncodingError),
    "drip": ({"kind": "drip", "pace": 0.001}, (200, "orders")),
    "drip, another body": ({"kind": "drip", "pace": 0.001, "body": "{}"}, (200, None)),
    "hang": ({"kind": "hang"}, requests.exceptions.ReadTimeout),
    "delay": (internal(delay=SHORT + 0.1), requests.exceptions.ReadTimeout),
}


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
def test_commanded_failure_happens_once(
    cloud: HuaweiCloud, client: Any, impatient: Any, failure: str, applied: bool
) -> None:
    command, result = FAILURES[failure]
    cloud.fail(**command, applied=applied)
    used = impatient if failure in ("hang", "delay") else client

    if not isinstance(result, tuple):
        with pytest.raises(result):
            rename(used)
    elif result[0] >= 400:
        assert refused(rename, used) == result
    else:
        reply = rename(used)
        assert (reply.status_code, reply.endpoint_service_name) == result

    assert cloud.name_of(SERVICE) == ("orders" if applied else "billing")
    assert cloud.calls[-1].name == "orders"
    assert rename(client, "afterwards").endpoint_service_name == "afterwards"


def test_commanded_reset_is_a_reset_of_the_connection(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(kind="reset")
    with pytest.raises(ConnectionException, match="reset by peer"):
        rename(client)


def test_slow_reply_is_correct_but_late(cloud: HuaweiCloud, client: Any, impatient: Any) -> None:
    cloud.fail(kind="slow", delay=0.05)
    cloud.fail(kind="slow", delay=SHORT + 0.1)

    assert rename(client, "first").endpoint_service_name == "first"
    with pytest.raises(requests.exceptions.ReadTimeout):
        rename(impatient, "second")

    assert cloud.name_of(SERVICE) == "second"


def test_reply_may_trickle_for_longer_than_the_read_timeout(cloud: HuaweiCloud, impatient: Any) -> None:
    cloud.fail(kind="drip", pace=0.02)
    began = time.monotonic()
    rename(impatient)
    assert time.monotonic() - began > SHORT


def test_invalid_request_is_not_applied(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=504, code="EndPoint.0013", applied=True)
    assert refused(rename, client, "not valid") == (504, "EndPoint.0013")
    assert cloud.name_of(SERVICE) == "billing"


def test_commanded_failures_happen_in_their_order(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(status=503, code="EndPoint.0001", times=2)
    cloud.fail(status=500, code="EndPoint.0002", times=None)

    answers = [refused(rename, client) for _ in range(4)]

    assert answers == [(503, "EndPoint.0001")] * 2 + [(500, "EndPoint.0002")] * 2
    cloud.reset()
    assert rename(client).endpoint_service_name == "orders"


def test_failure_can_be_commanded_for_one_service(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(**internal(), service_id=SERVICE, times=None)

    assert rename(client, service_id=OTHER_SERVICE).endpoint_service_name == "orders"
    assert refused(rename, client) == (500, "EndPoint.0001")


@pytest.mark.parametrize("on", ["rename", "read", "any"])
def test_failure_can_be_commanded_for_one_operation(cloud: HuaweiCloud, client: Any, on: Any) -> None:
    cloud.fail(**internal(), on=on, times=None)

    for operation, call in (("rename", rename), ("read", read)):
        if on in (operation, "any"):
            assert refused(call, client) == (500, "EndPoint.0001")
        else:
            call(client)


def test_commanded_failure_comes_after_the_check_of_the_signature(cloud: HuaweiCloud, client: Any) -> None:
    cloud.fail(**internal())
    assert refused(rename, client_of(cloud, sk="wrong")) == WRONG_KEY
    assert refused(rename, client) == (500, "EndPoint.0001")


def test_unknown_kind_of_failure_is_an_error(cloud: HuaweiCloud) -> None:
    with pytest.raises(ValueError, match="rest on rename"):
        cloud.fail(kind="rest")  # type: ignore[arg-type]


# ---- Journal


def test_journal_has_each_call_and_its_answer(
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


def test_reset_keeps_the_services_only(cloud: HuaweiCloud, client: Any) -> None:
    rename(client)
    for _ in range(5):
        refused(rename, client_of(cloud, sk="wrong"))
    cloud.throttle(limit=0)
    cloud.fail(times=None)

    cloud.reset()

    assert cloud.calls == []
    assert read(client).service_name == cloud.full_name_of(SERVICE)
    assert cloud.name_of(SERVICE) == "orders"


# ---- Server


def test_concurrent_calls_are_decided_one_after_the_other(
    cloud: HuaweiCloud, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deciding: list[int] = []
    most: list[int] = []

    def look(_: MovedClock) -> float:
        """Each call reads the clock while it is decided; the pause lets others in, if they can."""
        deciding.append(1)
        time.sleep(0.0001)
        most.append(len(deciding))
        deciding.pop()
        return time.time()

    monkeypatch.setattr(MovedClock, "__call__", look)
    cloud.fail(status=503, code="EndPoint.0001", times=50)

    def attempt(number: int) -> int:
        try:
            return int(rename(client, f"name-{number}").status_code)
        except ServiceResponseException as error:
            return int(error.status_code)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(attempt, range(200)))

    assert sorted(answers) == [200] * 150 + [503] * 50
    assert sorted(str(call.name) for call in cloud.calls) == sorted(f"name-{number}" for number in range(200))
    assert cloud.name_of(SERVICE) == [call.name for call in cloud.calls if call.status == 200][-1]
    assert max(most) == 1


@pytest.mark.parametrize("command", [{"kind": "hang"}, {"delay": 60.0}, {"kind": "drip", "pace": 60.0}])
def test_server_stops_at_once_while_a_reply_is_pending(command: dict[str, Any]) -> None:
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
            began = time.monotonic()
        assert time.monotonic() - began < 1
        assert call.exception(timeout=1) is not None
    for thread in serving:
        thread.join(timeout=1)
    assert serving
    assert not any(thread.is_alive() for thread in serving)


def test_server_closes_idle_connections_when_it_stops() -> None:
    with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud:
        connection = connect(cloud)
        connection.request("GET", path_of())
        connection.getresponse().read()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_server_prints_nothing(cloud: HuaweiCloud, impatient: Any, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.fail(kind="drip", pace=SHORT + 0.1)
    with pytest.raises(ConnectionException, match="timed out"):
        rename(impatient)
    refused(rename, impatient, "not valid")
    assert capfd.readouterr() == ("", "")


def test_exception_in_the_server_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(HuaweiCloud, "_authenticate", broken)
    with (
        pytest.raises(ZeroDivisionError),
        HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud,
        pytest.raises(ConnectionException),
    ):
        rename(client_of(cloud))
