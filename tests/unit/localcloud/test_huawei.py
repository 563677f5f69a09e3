"""The local VPCEP is only worth something if the official SDK cannot tell it from the real one."""

from __future__ import annotations

import http.client
import json
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
    ServiceResponseException,
)

from tests.fakes.clock import MovedClock
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.localcloud.clients import AK, SK, client_of, path_of, read, refused, rename

SHORT = 0.3


@pytest.fixture
def client(cloud: HuaweiCloud) -> Any:
    return client_of(cloud)


@pytest.fixture
def impatient(cloud: HuaweiCloud) -> Any:
    return client_of(cloud, read_timeout=SHORT)


class TestRename:
    def test_gives_the_service_another_name(self, cloud: HuaweiCloud, client: Any) -> None:
        before = cloud.full_name_of(SERVICE)

        reply = rename(client, "orders")

        assert (reply.status_code, reply.endpoint_service_name) == (200, "orders")
        assert cloud.name_of(SERVICE) == "orders"
        assert cloud.name_of(OTHER_SERVICE) == "reports"
        assert cloud.full_name_of(SERVICE) == before.replace("billing", "orders")

    def test_reports_the_full_name_in_the_other_documented_form(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.reply_form = "full"

        region, name, other_id = rename(client, "orders").endpoint_service_name.split(".")

        assert (region, name) == ("cn-north-4", "orders")
        assert other_id not in (SERVICE, "")

    @pytest.mark.parametrize("name", ["a", "A-b_9", "-", "_" * 16, ""])
    def test_accepts_a_valid_name(self, cloud: HuaweiCloud, client: Any, name: str) -> None:
        rename(client, name)
        assert cloud.name_of(SERVICE) == name

    @pytest.mark.parametrize("name", ["a b", "a.b", "ümlaut", "名称", "a" * 17, "a\n"])
    def test_refuses_an_invalid_name(self, cloud: HuaweiCloud, client: Any, name: str) -> None:
        assert refused(rename, client, name) == (400, "EndPoint.1003")
        assert cloud.name_of(SERVICE) == "billing"

    def test_accepts_a_longer_name_where_the_limit_is_raised(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.name_max_length = 18
        rename(client, "test222_name_23432")
        assert cloud.name_of(SERVICE) == "test222_name_23432"

    def test_keeps_the_name_where_none_is_asked_for(self, cloud: HuaweiCloud, client: Any) -> None:
        assert rename(client, None).endpoint_service_name == "billing"
        assert cloud.name_of(SERVICE) == "billing"

    @pytest.mark.parametrize(
        ("body", "answer"),
        [
            (None, (504, "EndPoint.0011")),
            ("not json", (400, "EndPoint.1004")),
            ('["endpoint_service_name"]', (400, "EndPoint.1004")),
            ('{"endpoint_service_name": 7}', (400, "EndPoint.1003")),
        ],
    )
    def test_refuses_a_bad_body(self, client: Any, body: str | None, answer: tuple[int, str]) -> None:
        assert refused(client.do_http_request, "PUT", path_of() + "/name", body=body) == answer


class TestRead:
    def test_tells_about_the_service(self, cloud: HuaweiCloud, client: Any) -> None:
        details = read(client)

        assert (details.id, details.project_id, details.status) == (SERVICE, PROJECT, "available")
        assert details.service_name == cloud.full_name_of(SERVICE)

    def test_the_full_name_of_a_service_without_a_name_has_two_parts(self, cloud: HuaweiCloud, client: Any) -> None:
        full_name = cloud.add_service(SERVICE, name="")

        assert read(client).service_name == full_name
        assert full_name.count(".") == 1


class TestAddress:
    def test_is_loopback_only(self, cloud: HuaweiCloud) -> None:
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
    def test_an_unknown_service(self, client: Any, service_id: str, answer: tuple[int, str]) -> None:
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
    def test_another_project(self, cloud: HuaweiCloud, project_id: str | None, answer: tuple[int, str]) -> None:
        assert refused(rename, client_of(cloud, project_id=project_id)) == answer

    def test_a_service_is_found_in_its_own_project_only(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.add_service("elsewhere", project_id="second")

        assert refused(rename, client, service_id="elsewhere") == (400, "EndPoint.2003")
        assert rename(client_of(cloud, project_id="second"), service_id="elsewhere").endpoint_service_name == "orders"

    @pytest.mark.parametrize(
        ("method", "path", "answer"),
        [
            ("GET", "/v2/nothing", (404, "APIGW.0101")),
            ("PUT", path_of() + "/name/more", (404, "APIGW.0101")),
            ("POST", path_of() + "/name", (405, "APIGW.0101")),
            ("DELETE", path_of(), (405, "APIGW.0101")),
        ],
    )
    def test_an_unknown_route(self, client: Any, method: str, path: str, answer: tuple[int, str]) -> None:
        assert refused(client.do_http_request, method, path) == answer

    def test_a_connection_is_kept_for_the_next_call(self, cloud: HuaweiCloud) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", int(cloud.url.rpartition(":")[2]), timeout=2)
        ports = []
        for _ in range(2):
            connection.request("GET", path_of())
            assert connection.getresponse().read()
            ports.append(connection.sock.getsockname())
        assert ports[0] == ports[1]
        connection.close()


class TestSignature:
    @pytest.mark.parametrize(("ak", "sk"), [(AK, "another-secret"), ("ANOTHERKEY", SK)])
    def test_another_key_is_refused(self, cloud: HuaweiCloud, ak: str, sk: str) -> None:
        client = client_of(cloud, ak=ak, sk=sk)
        assert refused(rename, client) == (401, "APIGW.0301")
        assert refused(read, client) == (401, "APIGW.0301")
        assert cloud.name_of(SERVICE) == "billing"

    def test_a_body_changed_after_signing_is_refused(self, cloud: HuaweiCloud) -> None:
        def tamper(request: Any, **_: Any) -> None:
            request.body = request.body.replace(b"orders", b"theirs")

        assert refused(rename, client_of(cloud, after_signing=tamper)) == (401, "APIGW.0301")
        assert cloud.name_of(SERVICE) == "billing"

    def test_a_body_declared_unsigned_is_refused(self, client: Any) -> None:
        headers = {"Content-Type": "text/plain"}
        body = '{"endpoint_service_name": "orders"}'
        answer = refused(client.do_http_request, "PUT", path_of() + "/name", body=body, header_params=headers)
        assert answer == (401, "APIGW.0301")

    @pytest.mark.parametrize("header", ["Host", "X-Project-Id", "X-Sdk-Date"])
    def test_a_header_changed_after_signing_is_refused(self, cloud: HuaweiCloud, header: str) -> None:
        def tamper(request: Any, **_: Any) -> None:
            value = request.header_params[header]
            request.header_params[header] = value[:-2] + ("1" if value[-2] != "1" else "2") + value[-1]

        assert refused(rename, client_of(cloud, after_signing=tamper)) == (401, "APIGW.0301")

    def test_a_path_changed_after_signing_is_refused(self, cloud: HuaweiCloud) -> None:
        def tamper(request: Any, **_: Any) -> None:
            request.uri = request.uri.replace(SERVICE, OTHER_SERVICE)

        assert refused(rename, client_of(cloud, after_signing=tamper)) == (401, "APIGW.0301")

    def test_a_call_without_a_signature_is_refused(self, cloud: HuaweiCloud) -> None:
        reply = requests.put(f"{cloud.url}{path_of()}/name", json={"endpoint_service_name": "orders"}, timeout=2)
        assert (reply.status_code, reply.json()["error_code"]) == (401, "APIGW.0301")

    @pytest.mark.parametrize("minutes", [-14, 14])
    def test_a_small_clock_skew_is_accepted(self, client: Any, clock: MovedClock, minutes: int) -> None:
        clock.ahead = minutes * 60
        assert rename(client).endpoint_service_name == "orders"

    @pytest.mark.parametrize("minutes", [-16, 16])
    def test_a_large_clock_skew_is_refused(self, client: Any, clock: MovedClock, minutes: int) -> None:
        clock.ahead = minutes * 60
        assert refused(rename, client) == (401, "APIGW.0301")

    @pytest.mark.parametrize("service_id", ["é ~/+x", "x//"])
    def test_an_encoded_path_is_read_as_the_sdk_signs_it(
        self, cloud: HuaweiCloud, client: Any, service_id: str
    ) -> None:
        cloud.add_service(service_id)
        assert rename(client, service_id=service_id).endpoint_service_name == "orders"
        assert read(client, service_id).id == service_id

    def test_a_query_in_any_order_and_an_odd_header_are_read_as_the_sdk_signs_them(self, cloud: HuaweiCloud) -> None:
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

    def test_the_security_token_must_be_right(self) -> None:
        with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT, security_token="token") as cloud:
            cloud.add_service(SERVICE)

            assert refused(rename, client_of(cloud)) == (401, "APIGW.0301")
            assert refused(rename, client_of(cloud, token="stale")) == (401, "APIGW.0301")
            assert rename(client_of(cloud, token="token")).endpoint_service_name == "orders"

    def test_after_a_rotation_only_the_new_key_is_right(self, cloud: HuaweiCloud, client: Any) -> None:
        rename(client, "before")
        cloud.set_credentials("NEWKEY", "new-secret")

        assert refused(rename, client) == (401, "APIGW.0301")
        assert rename(client_of(cloud, ak="NEWKEY", sk="new-secret"), "after").endpoint_service_name == "after"


class TestLock:
    def test_five_failures_in_a_row_lock_the_key_for_five_minutes(
        self, cloud: HuaweiCloud, client: Any, clock: MovedClock
    ) -> None:
        impostor = client_of(cloud, sk="wrong")
        for _ in range(5):
            refused(rename, impostor)

        assert refused(rename, client) == (401, "APIGW.0301")
        clock.ahead = 4.9 * 60
        assert refused(rename, client) == (401, "APIGW.0301")
        clock.ahead = 5.1 * 60
        assert rename(client).endpoint_service_name == "orders"

    def test_a_success_starts_the_count_again(self, cloud: HuaweiCloud, client: Any) -> None:
        impostor = client_of(cloud, sk="wrong")
        for _ in range(2):
            for _ in range(4):
                refused(rename, impostor)
            assert rename(client).endpoint_service_name == "orders"

    def test_another_key_is_not_locked(self, cloud: HuaweiCloud, client: Any) -> None:
        for _ in range(6):
            refused(rename, client_of(cloud, ak="ANOTHERKEY"))
        assert rename(client).endpoint_service_name == "orders"


class TestErrorBodies:
    @pytest.mark.parametrize("generation", ["old", "new"])
    def test_the_sdk_reads_both_generations(self, cloud: HuaweiCloud, client: Any, generation: Any) -> None:
        cloud.error_generation = generation
        cloud.fail(status=500, code="EndPoint.0001", message="Internal error.")

        with pytest.raises(ServerResponseException) as caught:
            rename(client)

        assert (caught.value.error_code, caught.value.error_msg) == ("EndPoint.0001", "Internal error.")
        assert caught.value.request_id == cloud.calls[-1].request_id

    def raw_error(self, cloud: HuaweiCloud, code: str) -> Any:
        bodies: list[bytes] = []
        client = client_of(cloud)
        client.get_http_client()._http_handler.add_response_handler(
            lambda response, **_: bodies.append(response.content)
        )
        cloud.fail(status=400, code=code, message="No.")
        refused(rename, client)
        return json.loads(bodies[0])

    def test_their_forms_are_the_documented_ones(self, cloud: HuaweiCloud) -> None:
        cloud.error_generation = "old"
        old = self.raw_error(cloud, "EndPoint.0001")
        cloud.error_generation = "new"
        new = self.raw_error(cloud, "EndPoint.0001")

        assert old == {"error": {"code": "EndPoint.0001", "message": "No."}}
        assert new == {"error_code": "EndPoint.0001", "error_msg": "No.", "request_id": cloud.calls[-1].request_id}

    @pytest.mark.parametrize("code", ["APIGW.0601", "APIG.0601"])
    def test_the_gateway_speaks_the_new_form_only(self, cloud: HuaweiCloud, code: str) -> None:
        cloud.error_generation = "old"
        assert self.raw_error(cloud, code)["error_code"] == code


class TestThrottle:
    def test_calls_beyond_the_limit_are_refused_until_the_window_has_passed(
        self, cloud: HuaweiCloud, client: Any, clock: MovedClock
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

    def test_refused_calls_count_too(self, cloud: HuaweiCloud, client: Any, clock: MovedClock) -> None:
        cloud.throttle(limit=1, seconds=60.0)
        rename(client)
        for clock.ahead in (30, 61):
            assert refused(rename, client) == (429, "APIGW.0308")

    @pytest.mark.parametrize(
        ("seconds", "span"),
        [(1, "1 second"), (0.5, "0.5 second"), (90, "90 second"), (300, "5 minute"), (7200, "2 hour")],
    )
    def test_the_message_tells_the_window(self, cloud: HuaweiCloud, client: Any, seconds: float, span: str) -> None:
        cloud.throttle(limit=0, seconds=seconds)
        with pytest.raises(ClientRequestException, match=f"limit:0,time:{span}"):
            rename(client)

    def test_it_may_say_when_to_come_back(self, cloud: HuaweiCloud) -> None:
        replies: list[requests.Response] = []
        client = client_of(cloud)
        client.get_http_client()._http_handler.add_response_handler(lambda response, **_: replies.append(response))
        cloud.throttle(limit=0, retry_after=7)

        refused(rename, client)

        assert replies[0].headers["Retry-After"] == "7"

    def test_it_can_be_lifted(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.throttle(limit=0)
        cloud.throttle(limit=None)
        assert rename(client).endpoint_service_name == "orders"


def as_error(status: int, code: str) -> Callable[[Any], None]:
    return lambda client: _equal(refused(rename, client), (status, code))


def as_exception(*errors: type[Exception]) -> Callable[[Any], None]:
    def check(client: Any) -> None:
        with pytest.raises(errors):
            rename(client)

    return check


def as_success(status: int, name: str | None) -> Callable[[Any], None]:
    def check(client: Any) -> None:
        reply = rename(client)
        _equal((reply.status_code, reply.endpoint_service_name), (status, name))

    return check


def _equal(seen: object, expected: object) -> None:
    assert seen == expected


HTML = {"body": "<html>Bad gateway</html>", "content_type": "text/html"}
FAILURES: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    "status": ({"status": 500, "code": "EndPoint.0001"}, as_error(500, "EndPoint.0001")),
    "status of a class of its own": ({"status": 494, "code": "APIGW.0201"}, as_error(494, "APIGW.0201")),
    "throttled, but 400": ({"status": 400, "code": "EndPoint.0022"}, as_error(400, "EndPoint.0022")),
    "429 with headers": (
        {"status": 429, "code": "APIGW.0308", "headers": {"Retry-After": "1"}},
        as_error(429, "APIGW.0308"),
    ),
    "502 with HTML": ({"status": 502, **HTML}, as_error(502, "502")),
    "503 with nothing": ({"status": 503}, as_error(503, "503")),
    "a code without a message": ({"status": 500, "body": '{"error_code": "EndPoint.0001"}'}, as_error(500, "500")),
    "302": ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, as_success(302, None)),
    "304": ({"status": 304}, as_success(304, None)),
    "200 with HTML": ({"kind": "garbage", **HTML}, as_success(200, None)),
    "200 with nothing": ({"kind": "garbage"}, as_success(200, None)),
    "200 with a list": ({"kind": "garbage", "body": "[]"}, as_success(200, None)),
    "200 without a name": ({"kind": "garbage", "body": "{}"}, as_success(200, None)),
    "200 with another name": (
        {"kind": "garbage", "body": '{"endpoint_service_name": "other"}'},
        as_success(200, "other"),
    ),
    "reset": ({"kind": "reset"}, as_exception(ConnectionException)),
    "truncate": ({"kind": "truncate"}, as_exception(requests.exceptions.ChunkedEncodingError)),
    "drip": ({"kind": "drip", "pace": 0.001}, as_success(200, "orders")),
    "drip, another body": ({"kind": "drip", "pace": 0.001, "body": "{}"}, as_success(200, None)),
    "hang": ({"kind": "hang"}, as_exception(requests.exceptions.ReadTimeout)),
    "delay": (
        {"status": 500, "code": "EndPoint.0001", "delay": SHORT + 0.1},
        as_exception(requests.exceptions.ReadTimeout),
    ),
}


class TestFailures:
    @pytest.mark.parametrize("applied", [False, True])
    @pytest.mark.parametrize("failure", FAILURES)
    def test_a_failure_of_any_kind_once(
        self, cloud: HuaweiCloud, client: Any, impatient: Any, failure: str, applied: bool
    ) -> None:
        command, check = FAILURES[failure]
        cloud.fail(**command, applied=applied)

        check(impatient if failure in ("hang", "delay") else client)

        assert cloud.name_of(SERVICE) == ("orders" if applied else "billing")
        assert cloud.calls[-1].name == "orders"
        assert rename(client, "afterwards").endpoint_service_name == "afterwards"

    def test_a_reset_is_a_reset(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.fail(kind="reset")
        with pytest.raises(ConnectionException, match="reset by peer"):
            rename(client)

    def test_a_slow_answer_is_true_but_late(self, cloud: HuaweiCloud, client: Any, impatient: Any) -> None:
        cloud.fail(kind="slow", delay=0.05)
        cloud.fail(kind="slow", delay=SHORT + 0.1)

        assert rename(client, "first").endpoint_service_name == "first"
        with pytest.raises(requests.exceptions.ReadTimeout):
            rename(impatient, "second")

        assert cloud.name_of(SERVICE) == "second"

    def test_an_answer_may_drip_for_longer_than_the_read_timeout(self, cloud: HuaweiCloud, impatient: Any) -> None:
        cloud.fail(kind="drip", pace=0.02)
        begin = time.monotonic()
        rename(impatient)
        assert time.monotonic() - begin > SHORT

    def test_an_invalid_request_is_not_applied(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.fail(status=504, code="EndPoint.0013", applied=True)
        assert refused(rename, client, "not valid") == (504, "EndPoint.0013")
        assert cloud.name_of(SERVICE) == "billing"

    def test_commands_are_used_up_in_their_order(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.fail(status=503, code="EndPoint.0001", times=2)
        cloud.fail(status=500, code="EndPoint.0002", times=None)

        answers = [refused(rename, client) for _ in range(4)]

        assert answers == [(503, "EndPoint.0001")] * 2 + [(500, "EndPoint.0002")] * 2
        cloud.reset()
        assert rename(client).endpoint_service_name == "orders"

    def test_a_failure_may_be_for_one_service(self, cloud: HuaweiCloud, client: Any) -> None:
        cloud.fail(status=500, code="EndPoint.0001", service_id=SERVICE, times=None)

        assert rename(client, service_id=OTHER_SERVICE).endpoint_service_name == "orders"
        assert refused(rename, client) == (500, "EndPoint.0001")

    @pytest.mark.parametrize(("on", "fails"), [("rename", [rename]), ("read", [read]), ("any", [rename, read])])
    def test_a_failure_may_be_for_one_operation(
        self, cloud: HuaweiCloud, client: Any, on: Any, fails: list[Any]
    ) -> None:
        cloud.fail(status=500, code="EndPoint.0001", on=on, times=None)
        for call in (rename, read):
            if call in fails:
                assert refused(call, client) == (500, "EndPoint.0001")
            else:
                call(client)

    def test_a_failure_does_not_hide_a_wrong_signature_and_is_not_used_up_by_it(
        self, cloud: HuaweiCloud, client: Any
    ) -> None:
        cloud.fail(status=500, code="EndPoint.0001")
        assert refused(rename, client_of(cloud, sk="wrong")) == (401, "APIGW.0301")
        assert refused(rename, client) == (500, "EndPoint.0001")

    def test_a_misspelt_failure_is_refused(self, cloud: HuaweiCloud) -> None:
        with pytest.raises(ValueError, match="rest on rename"):
            cloud.fail(kind="rest")  # type: ignore[arg-type]


class TestJournal:
    def test_it_tells_what_was_asked_and_answered(
        self, cloud: HuaweiCloud, client: Any, impatient: Any, clock: MovedClock
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

    def test_reset_forgets_everything_but_the_services(self, cloud: HuaweiCloud, client: Any) -> None:
        rename(client)
        for _ in range(5):
            refused(rename, client_of(cloud, sk="wrong"))
        cloud.throttle(limit=0)
        cloud.fail(times=None)

        cloud.reset()

        assert cloud.calls == []
        assert read(client).service_name == cloud.full_name_of(SERVICE)
        assert cloud.name_of(SERVICE) == "orders"


class TestServer:
    def test_it_serves_many_at_once_and_judges_one_after_the_other(
        self, cloud: HuaweiCloud, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judging: list[int] = []
        most: list[int] = []

        def look(_: MovedClock) -> float:
            """Every call looks at the clock while it is judged; the pause lets others in, if they can."""
            judging.append(1)
            time.sleep(0.0001)
            most.append(len(judging))
            judging.pop()
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
    def test_it_stops_at_once_whatever_is_under_way(self, command: dict[str, Any]) -> None:
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

    def test_it_hangs_up_on_an_idle_client(self) -> None:
        with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud:
            connection = http.client.HTTPConnection("127.0.0.1", int(cloud.url.rpartition(":")[2]), timeout=1)
            connection.request("GET", path_of())
            connection.getresponse().read()
        assert connection.sock.recv(1) == b""
        connection.close()

    def test_it_says_nothing(self, cloud: HuaweiCloud, impatient: Any, capfd: pytest.CaptureFixture[str]) -> None:
        cloud.fail(kind="drip", pace=SHORT + 0.1)
        with pytest.raises(ConnectionException, match="timed out"):
            rename(impatient)
        refused(rename, impatient, "not valid")
        assert capfd.readouterr() == ("", "")

    def test_a_defect_of_its_own_is_not_taken_for_a_lost_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(HuaweiCloud, "_authenticate", broken)
        with (
            pytest.raises(ZeroDivisionError),
            HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT) as cloud,
            pytest.raises(ConnectionException),
        ):
            rename(client_of(cloud))
