"""The HTTP trigger: from what API Gateway sends to an outcome with the right status."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from function.domain import failures
from function.domain.failures import EventName, Failure
from function.domain.model import RedriveCycle
from function.domain.ports import Known, Reused, Superseded
from function.triggers.http import RETRY_AFTER_SECONDS
from tests.fakes.events import HttpReply, cloud_event, eventbridge_event, http_request, rename_data
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import API_ID, PROJECT, SERVICE, START
from tests.fakes.world import World

STRUCTURED = "application/cloudevents+json"
ASYNC = {"Content-Type": STRUCTURED, "Prefer": "respond-async"}
REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
REQUEST_TIME = START.isoformat(timespec="milliseconds").replace("+00:00", "Z")
IN_DOUBT = failures.timeout(in_doubt=True)


def structured(event: dict[str, Any] | str | None = None, /, **headers: str | list[str]) -> dict[str, Any]:
    """A request in structured mode."""
    body = cloud_event() if event is None else event
    return http_request(body, headers={"Content-Type": STRUCTURED} | headers)


def post_data(world: World, headers: Mapping[str, str | list[str]] | None = None) -> HttpReply:
    """The reply to data alone, whose attributes are in the headers."""
    return world.http(http_request(rename_data(), headers=headers))


def request_in(reply: HttpReply) -> dict[str, Any]:
    request: dict[str, Any] = reply.body["data"]["request"]
    return request


def error_in(reply: HttpReply) -> dict[str, Any]:
    error: dict[str, Any] = reply.body["data"]["error"]
    return error


def published(reply: HttpReply, world: World) -> dict[str, Any]:
    """The outcome in the reply, which is the one on the bus."""
    assert reply.headers["content-type"] == STRUCTURED
    assert [outcome.cloud_event for outcome in world.bus.outcomes] == [reply.body]
    outcome: dict[str, Any] = reply.body
    return outcome


def code_of(value: object) -> str | None:
    """The id of a parametrized failure."""
    return value.code if isinstance(value, Failure) else None


def test_rename_is_200(world: World) -> None:
    reply = world.http(structured())

    assert reply.status == 200
    outcome = published(reply, world)
    assert outcome["type"] == "vpcep.endpoint_service.renamed.v1"
    assert (outcome["data"]["trigger"], outcome["data"]["project_id"]) == ("http", PROJECT)
    assert world.services.names[SERVICE] == "orders"
    assert world.queue.sent == []


@pytest.mark.parametrize(
    "body", ["{}", "not JSON", "[]", "null", "", None, '{"a":1,"a":2}', "\ud800", '{"a":"\\ud800"}', "9" * 5_000]
)
@pytest.mark.parametrize("content_type", [STRUCTURED, "application/json"])
def test_invalid_event_is_400(world: World, body: str | None, content_type: str) -> None:
    reply = world.http(http_request(body, headers={"Content-Type": content_type}))

    assert reply.status == 400
    error = published(reply, world)["data"]["error"]
    assert (error["code"], error["kind"], error["retryable"]) == ("Rename.InvalidEvent", "invalid", False)
    assert error["violations"]
    assert world.services.calls == []


@pytest.mark.parametrize(
    ("failed", "status"),
    [
        (not_found(), 404),
        (refusal("EndPoint.0005", 404), 404),
        (refusal("EndPoint.1003", 400), 400),
        (refusal("EndPoint.3045", 400), 409),
        (refusal("EndPoint.9999", 409), 409),
        (wrong_key(), 403),
        (refusal("EndPoint.0004", 403), 403),
    ],
    ids=code_of,
)
def test_status_of_a_failure_is_that_of_its_kind(world: World, failed: Failure, status: int) -> None:
    """A refused key is not handed to the queue either, which would meet the same refusal."""
    world.services.refuse(failed, times=None)

    reply = world.http(structured())

    assert reply.status == status
    error = published(reply, world)["data"]["error"]
    assert (error["code"], error["retryable"]) == (failed.code, status == 403)
    assert world.queue.sent == []


@pytest.mark.parametrize("code", ["Rename.PreconditionFailed", "Rename.Superseded", "Rename.IdentifierReused"])
def test_conflict_is_409(world: World, code: str) -> None:
    if code == "Rename.Superseded":
        world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), world.event()))
    elif code == "Rename.IdentifierReused":
        world.ledger.at_claim.append(Reused())

    reply = world.http(structured(cloud_event(expected_name="reports")))

    assert reply.status == 409
    assert published(reply, world)["data"]["error"]["code"] == code


def test_duplicate_is_200_without_a_call(world: World) -> None:
    first = world.http(structured())
    world.ledger.at_claim.append(Known(replace(world.bus.outcomes[0], remembered=True), next_cycle=None))

    again = world.http(structured())

    assert (again.status, again.body) == (200, first.body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.services.calls) == 1


@pytest.mark.parametrize(
    "failed",
    [unavailable(), throttled(), throttled(retry_after=300.0), IN_DOUBT],
    ids=["unavailable", "throttled", "throttled for long", "timed out"],
)
def test_event_that_cannot_be_settled_now_is_202_and_queued(world: World, failed: Failure) -> None:
    world.services.refuse(failed, times=None)

    reply = world.http(structured())

    assert reply.status == 202
    assert reply.headers["content-type"].startswith("application/json")
    assert "preference-applied" not in reply.headers
    assert reply.body == {"id": "event-1", "source": "/cmdb", "status": "queued"}
    [(event, deduplication_id)] = world.queue.sent
    assert event.cloud_event == cloud_event()
    assert deduplication_id == REQUEST_ID
    assert world.bus.outcomes == []


@pytest.mark.parametrize("fails", ["function", "bus"])
def test_event_without_a_published_outcome_is_202_and_queued(world: World, fails: str) -> None:
    if fails == "bus":
        world.bus.refuse()
    else:
        world.services.crash(RuntimeError("orders"))

    assert world.http(structured()).status == 202
    assert len(world.queue.sent) == 1


@pytest.mark.parametrize("with_queue", [True, False], ids=["the queue refuses", "there is no queue"])
@pytest.mark.parametrize("failed", [unavailable(), throttled(), IN_DOUBT, failures.internal_error()], ids=code_of)
def test_event_that_cannot_be_queued_is_503(world: World, with_queue: bool, failed: Failure) -> None:
    world.services.refuse(failed, times=None)
    world.queue.refuses = True

    reply = world.http(structured(), with_queue=with_queue)

    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= RETRY_AFTER_SECONDS
    error = published(reply, world)["data"]["error"]
    assert (error["code"], error["retryable"]) == (failed.code, True)
    [line] = world.telemetry.lines
    assert line.keys.get("queue_error_code") == ("AccessDenied" if with_queue else None)


@pytest.mark.parametrize("seconds", [0.2, 29.5, 300.0, 86_400.0])
def test_retry_after_of_503_is_that_of_huawei_cloud(world: World, seconds: float) -> None:
    world.services.refuse(throttled(retry_after=seconds), times=None)

    reply = world.http(structured(), with_queue=False)

    assert reply.status == 503
    assert seconds <= int(reply.headers["retry-after"]) <= seconds + 1


@pytest.mark.parametrize(("body", "with_queue"), [(None, False), ("{}", True)], ids=["valid", "invalid"])
def test_event_whose_failure_cannot_be_published_is_503(world: World, body: str | None, with_queue: bool) -> None:
    world.services.refuse(unavailable(), times=None)
    world.bus.refuse()

    reply = world.http(structured(body), with_queue=with_queue)

    assert reply.status == 503
    assert int(reply.headers["retry-after"]) > 0
    assert world.queue.sent == []


def test_event_that_is_too_large_is_413(world: World) -> None:
    reply = world.http(structured(json.dumps(cloud_event() | {"text": "x" * 300_000})))

    assert reply.status == 413
    assert published(reply, world)["data"]["error"]["code"] == "Rename.InvalidEvent"


@pytest.mark.parametrize(
    "content_type",
    [
        *("text/plain", "application/xml", "application/x-www-form-urlencoded", "json"),
        *("application/cloudevents-batch+json", "application/cloudevents+avro"),
    ],
)
def test_other_content_type_is_415(world: World, content_type: str) -> None:
    assert world.http(http_request(cloud_event(), headers={"Content-Type": content_type})).status == 415
    assert world.services.calls == []


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("is_encoded", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_body_may_be_base64_and_begin_with_a_byte_order_mark(world: World, is_encoded: bool, mark: str) -> None:
    text = mark + json.dumps(cloud_event())
    body = encoded(text) if is_encoded else text

    assert world.http(http_request(body, headers={"Content-Type": STRUCTURED}, base64=is_encoded)).status == 200


@pytest.mark.parametrize("body", ["A", "A===", "e30", "名前", "//57fQ==", "7aCA"])
def test_body_that_is_not_base64_of_utf_8_is_an_invalid_event(world: World, body: str) -> None:
    reply = world.http(http_request(body, headers={"Content-Type": STRUCTURED}, base64=True))

    assert reply.status == 400
    error = published(reply, world)["data"]["error"]
    assert error["code"] == "Rename.InvalidEvent"
    assert error["violations"]
    assert len(world.telemetry.lines) == 1
    assert world.services.calls == []


@pytest.mark.parametrize("content_type", [STRUCTURED, "application/json"])
def test_envelope_is_an_invalid_event(world: World, content_type: str) -> None:
    envelope = eventbridge_event(cloud_event(), time=START.isoformat())

    assert world.http(http_request(envelope, headers={"Content-Type": content_type})).status == 400


@pytest.mark.parametrize(
    "content_type",
    [
        STRUCTURED,
        *(f"{STRUCTURED}; charset=UTF-8", f"{STRUCTURED};charset=utf-8", STRUCTURED.upper(), f" {STRUCTURED} "),
    ],
)
def test_mode_is_structured_by_the_content_type(world: World, content_type: str) -> None:
    assert world.http(http_request(cloud_event(), headers={"Content-Type": content_type})).status == 200
    # and: what would be valid in binary mode is no event then
    assert post_data(world, {"Content-Type": content_type}).status == 400


@pytest.mark.parametrize("headers", [{"Content-Type": "application/json"}, {"content-type": "Application/JSON"}, {}])
def test_mode_is_binary_by_any_other_content_type(world: World, headers: dict[str, str]) -> None:
    assert post_data(world, headers).status == 200


def test_structured_event_sent_as_plain_json_is_recognised_by_its_members(world: World) -> None:
    reply = world.http(http_request(cloud_event(id="event-9"), headers={"Content-Type": "application/json"}))

    assert request_in(reply)["id"] == "event-9"


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_attributes_are_in_headers_of_any_case(world: World, spelling: Any) -> None:
    sent = {
        "id": "event-7",
        "source": "/cmdb/7",
        "time": "2026-11-24T02:10:52Z",
        "specversion": "1.0",
        "type": "vpcep.endpoint_service.rename_requested.v1",
        "team": "network",
    }

    reply = post_data(world, {spelling(f"ce-{name}"): value for name, value in sent.items()})

    assert reply.status == 200
    assert request_in(reply) == cloud_event() | sent


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        *[(quote(value), value) for value in ("Euro € 😀", "100%", "a b", "naïve")],
        *[('"event-7"', "event-7"), ('"a b"', "a b"), (r'"a\"b\\c"', r'a"b\c'), ("%22a%22", '"a"')],
        *[
            ('"caf%C3%A9"', "café"),
            ("caf%C3%A9", "café"),
            ("%25C3", "%C3"),
            (" event-7 ", "event-7"),
            ("event%2D7", "event-7"),
        ],
        *[(same, same) for same in ("100%", "%zz", 'a"b"', '"a"b"', '"')],
    ],
)
def test_header_follows_the_http_binding_of_cloudevents(world: World, sent: str, value: str) -> None:
    reply = post_data(world, {"ce-id": sent})

    assert (reply.status, request_in(reply)["id"]) == (200, value)


@pytest.mark.parametrize("value", ["%C0", "%FF", "%C3", "%ED%A0%80", "%C0%80", '"%FF"', "naïve", "\ufffd"])
def test_header_that_is_not_utf_8_is_a_violation(world: World, value: str) -> None:
    """Else several ids would become one, of U+FFFD."""
    reply = post_data(world, {"ce-id": value})

    assert reply.status == 400
    [violation] = published(reply, world)["data"]["error"]["violations"]
    assert violation == {"path": "/id", "message": "must be UTF-8 text, percent-encoded in a header"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("id", value) for value in ("", '""', "%00", "a%0Ab")],
        *[("type", "other"), ("specversion", "0.3"), ("time", "soon")],
    ],
)
def test_header_with_a_malformed_attribute_is_a_violation(world: World, name: str, value: str) -> None:
    reply = post_data(world, {f"ce-{name}": value})

    assert reply.status == 400
    assert {violation["path"] for violation in error_in(reply)["violations"]} == {f"/{name}"}


def test_header_that_comes_twice_must_have_one_value(world: World) -> None:
    assert post_data(world, {"ce-id": ["1", '"1"', "%31"]}).status == 200

    violations = error_in(post_data(world, {"ce-id": ["1", "2"]}))["violations"]

    assert violations == [{"path": "/id", "message": "comes with two values"}]


@pytest.mark.parametrize(
    ("headers", "event_id"),
    [
        ({"Idempotency-Key": "key-1"}, "key-1"),
        ({"idempotency-key": "key-1"}, "key-1"),
        ({"ce-id": "event-7", "Idempotency-Key": "key-1"}, "event-7"),
    ],
)
def test_idempotency_key_is_the_default_for_the_id(world: World, headers: dict[str, str], event_id: str) -> None:
    assert request_in(post_data(world, headers))["id"] == event_id


def test_data_without_attributes_has_those_of_its_request(world: World) -> None:
    request = request_in(post_data(world))

    assert (request["id"], request["source"], request["time"]) == (REQUEST_ID, API_ID, REQUEST_TIME)


@pytest.mark.parametrize("name", ["headers", "multiValueHeaders"])
@pytest.mark.parametrize("value", [None, {}])
def test_request_without_headers_is_carried_out(world: World, name: str, value: Any) -> None:
    assert world.http(http_request(rename_data(), headers={}) | {name: value}).status == 200


# ---- The caller is part of the default source

USER = "arn:aws:iam::123456789012:user/producers/cmdb"
ROLE = "arn:aws:sts::123456789012:assumed-role/Producer"


def source_of(world: World, identity: dict[str, Any] | None) -> str:
    """The source of an event that names none, from a caller of this identity."""
    request = http_request(rename_data())
    request["requestContext"]["identity"] = identity
    return str(request_in(world.http(request))["source"])


def test_default_source_is_the_api_and_a_hash_of_the_caller(world: World) -> None:
    source = source_of(world, {"userArn": USER})

    assert re.fullmatch(rf"{API_ID}/[0-9a-f]{{32}}", source)
    assert source == source_of(world, {"userArn": USER})


USERS = (USER, f"{USER}2", USER.replace("123456789012", "210987654321"), "arn:aws:iam::123456789012:root")
SESSIONS = ("i-0abcd1234", "botocore-session-1793607300", "user@example.com")


@pytest.mark.parametrize(
    ("arns", "callers"),
    [
        ([*USERS, f"{ROLE}/session", "arn:aws:sts::123456789012:federated-user/cmdb"], 6),
        ([f"{ROLE}/{session}" for session in SESSIONS], 1),
        ([f"{role}/x" for role in (ROLE, f"{ROLE}2", f"{ROLE}s")], 3),
    ],
    ids=["users", "sessions of one role", "sessions of three roles"],
)
def test_default_source_differs_by_user_and_role_and_not_by_session(
    world: World, arns: list[str], callers: int
) -> None:
    """A session's name is another one for each task, instance and run: a retry may come from any."""
    assert len({source_of(world, {"userArn": arn}) for arn in arns}) == callers


@pytest.mark.parametrize("identity", [None, {}, {"userArn": None}, {"userArn": ""}])
def test_default_source_without_a_caller_is_the_api(world: World, identity: dict[str, Any] | None) -> None:
    assert source_of(world, identity) == API_ID


@pytest.mark.parametrize("path", ["/names/rename-events", "/rename-events/", "/v1/rename-events"])
def test_route_is_the_resource_of_the_api_and_not_the_path(world: World, path: str) -> None:
    """The path at a custom domain has the base path before it."""
    assert world.http(structured() | {"path": path}).status == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        *[
            {"resource": r}
            for r in ("/", "/rename-event", "/rename-events/1", "/RENAME-EVENTS", "/names/rename-events")
        ],
        {"resource": "/{proxy+}"},
        *[{"httpMethod": method} for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD")],
    ],
)
def test_other_resource_or_method_is_a_404_that_is_logged(world: World, elsewhere: dict[str, str]) -> None:
    reply = world.http(structured() | elsewhere)

    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert len(world.telemetry.defects) == 1
    assert world.services.calls == []


@pytest.mark.parametrize(
    "prefer",
    [
        *("respond-async", "Respond-Async", " respond-async ", "respond-async, wait=10", "wait=10,respond-async"),
        *("handling=lenient, respond-async", "respond-async; reason=batch"),
        *(["wait=10", "respond-async"], ["respond-async", "wait=10"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["Prefer", "prefer"])
def test_respond_async_queues_the_event_at_once(world: World, prefer: str | list[str], name: str) -> None:
    reply = world.http(structured(**{name: prefer}))

    assert reply.status == 202
    assert reply.body == {"id": "event-1", "source": "/cmdb", "status": "queued"}
    assert reply.headers["preference-applied"] == "respond-async"
    assert len(world.queue.sent) == len(world.telemetry.lines) == 1
    assert world.services.calls == []
    assert world.bus.outcomes == []


@pytest.mark.parametrize("prefer", ["", "wait=10", "respond-asynchronously", "x-respond-async", "return=minimal"])
def test_other_preferences_do_not_queue_the_event(world: World, prefer: str) -> None:
    assert world.http(structured(Prefer=prefer)).status == 200
    assert world.queue.sent == []


def test_respond_async_does_not_queue_an_invalid_event(world: World) -> None:
    assert world.http(http_request("{}", headers=ASYNC)).status == 400
    assert world.queue.sent == []


@pytest.mark.parametrize("with_queue", [True, False])
def test_respond_async_without_a_queue_that_accepts_the_event_is_not_applied(world: World, with_queue: bool) -> None:
    world.queue.refuses = True

    reply = world.http(http_request(cloud_event(), headers=ASYNC), with_queue=with_queue)

    assert reply.status == 200
    assert "preference-applied" not in reply.headers
