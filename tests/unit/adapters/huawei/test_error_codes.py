"""Error replies of Huawei Cloud, over real sockets: which failure each becomes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.domain.failures import Kind
from tests.deadlines import within
from tests.fakes.failures import failed
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    LONG,
    TARGET,
    failure_with,
    http_reply,
    rename_failure,
    replying,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


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
def test_error_reply_keeps_code_status_message_and_request_id(
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


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0", 0.0), ("86400", 86400.0)])
@pytest.mark.parametrize(("code", "status"), [("APIGW.0308", 429), ("EndPoint.0001", 503)])
def test_retry_after_in_seconds_is_kept(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, header: str, seconds: float, code: str, status: int
) -> None:
    cloud.fail(status, code, headers={"Retry-After": header})

    assert rename_failure(vpcep).retry_after == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(120, 120), (-3600, 0)])
def test_retry_after_as_a_date_is_kept(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, ahead: int, seconds: float
) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    cloud.fail(429, "APIGW.0308", headers={"Retry-After": moment})

    assert rename_failure(vpcep).retry_after == pytest.approx(seconds, abs=10)


@pytest.mark.parametrize(
    "header",
    ["", "soon", "-5", "1.5", "Tue, 99 Nov 2026 99:99:99 GMT", "٣", "0x10", "nan", "9" * 400],
    ids=lambda header: header[:30],
)
def test_malformed_retry_after_is_ignored(header: str) -> None:
    sent = header.encode("utf-8").decode("latin-1")

    failure = failure_with(replying(http_reply("429 Too Many", b'{"error_code":"APIGW.0308"}', f"Retry-After: {sent}")))

    assert (failure.code, failure.http_status, failure.retry_after) == ("APIGW.0308", 429, None)
    assert failure.huawei_request_id == "raw-1"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        *(
            (body, "application/json")
            for body in (
                {"error_code": "EndPoint.2003"},
                {"error": {"code": "EndPoint.2003"}},
                {"code": "EndPoint.2003"},
                {"error_code": "EndPoint.2003", "error_msg": ""},
                {"error_code": "EndPoint.2003", "error_msg": None},
                {"error": {"code": "EndPoint.2003", "message": 5}},
            )
        ),
        *(
            ({"error_code": "EndPoint.2003", "error_msg": "No."}, content_type)
            for content_type in ("application/xml", "application/bson", "", "text/html; charset=utf-99")
        ),
    ],
)
def test_error_reply_without_a_message_or_of_another_content_type_keeps_its_code(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: dict[str, Any], content_type: str
) -> None:
    cloud.fail(400, body=json.dumps(body), content_type=content_type)

    failure = rename_failure(vpcep)

    assert (failure.code, failure.kind, failure.http_status) == ("EndPoint.2003", Kind.NOT_FOUND, 400)
    assert failure.huawei_request_id == cloud.calls[0].request_id


def test_request_id_of_the_body_is_kept_if_no_header_has_one() -> None:
    body = b'{"error_code":"EndPoint.2003","error_msg":"No.","request_id":"body-1"}'
    failure = failure_with(replying(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)))

    assert failure.huawei_request_id == "body-1"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html><body>503 Service Temporarily Unavailable</body></html>", b"{", b"\xff\xfe\x00", b"\x00" * 10),
        *(b"[" * 200_000, b'{"a":' * 200_000),
        *(b"null", b"[]", b"5", b'"text"', b'{"error": null}', b'{"error": []}', b'{"error_code": null}'),
        b'{"error_code": 5, "error_msg": 6, "request_id": 7}',
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
def test_error_reply_without_a_code_is_classified_by_its_status(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, body: bytes, status: int, kind: Kind, in_doubt: bool
) -> None:
    cloud.fail(status, body=body, content_type="text/html")

    failure = rename_failure(vpcep)

    assert (failure.kind, failure.in_doubt, failure.http_status) == (kind, in_doubt, status)
    assert failure.code.startswith("Rename.")
    assert failure.huawei_request_id == cloud.calls[0].request_id


def test_error_reply_to_a_read_keeps_code_status_and_request_id(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
) -> None:
    failure = failed(vpcep.read, TARGET._replace(vpc_endpoint_service_id="unknown"), within(LONG))

    assert (failure.code, failure.http_status) == ("EndPoint.2003", 400)
    assert failure.huawei_request_id == cloud.calls[0].request_id


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
@pytest.mark.parametrize(
    "body", [b"x" * 2 * 1024 * 1024, b'{"error_code":"APIGW.0301"'], ids=["too large", "truncated"]
)
def test_error_reply_with_a_broken_body_is_a_refusal_of_the_key(status: str, body: bytes) -> None:
    # given: an immediate second call could lock the key
    failure = failure_with(replying(http_reply(status, body).replace(b"Content-Length: ", b"Content-Length: 1")))

    assert (failure.kind, failure.retry_in_process) == (Kind.ACCESS, False)
