"""The HTTP trigger: from what API Gateway sends to an outcome with the right status."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from function.domain import failures
from function.domain.failures import EventName, Failure, Kind
from function.domain.model import RedriveCycle
from function.domain.ports import Known, Reused, Superseded
from function.triggers.http import RETRY_AFTER_SECONDS
from tests.fakes.events import HttpReply, cloud_event, http_request, rename_data
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import API_ID, PROJECT, SERVICE, START
from tests.fakes.world import World

STRUCTURED = "application/cloudevents+json"
ASYNC = {"Content-Type": STRUCTURED, "Prefer": "respond-async"}
REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"


def structured(event: dict[str, Any] | str | None = None, /, **headers: str | list[str]) -> dict[str, Any]:
    """A request in structured mode."""
    body = cloud_event() if event is None else event
    return http_request(body, headers={"Content-Type": STRUCTURED} | headers)


def settled_as(reply: HttpReply, world: World) -> dict[str, Any]:
    """The outcome in the reply, which is the one on the bus."""
    assert reply.headers["content-type"] == STRUCTURED
    assert [outcome.cloud_event for outcome in world.bus.outcomes] == [reply.body]
    outcome: dict[str, Any] = reply.body
    return outcome


class TestStatus:
    def test_200_for_a_rename(self, world: World) -> None:
        reply = world.http(structured())

        assert reply.status == 200
        outcome = settled_as(reply, world)
        assert outcome["type"] == "vpcep.endpoint_service.renamed.v1"
        assert (outcome["data"]["trigger"], outcome["data"]["project_id"]) == ("http", PROJECT)
        assert world.services.names[SERVICE] == "orders"
        assert world.queue.sent == []

    @pytest.mark.parametrize(
        "body", ["{}", "not JSON", "[]", "null", "", None, '{"a":1,"a":2}', "\ud800", '{"a":"\\ud800"}', "9" * 5_000]
    )
    @pytest.mark.parametrize("content_type", [STRUCTURED, "application/json"])
    def test_400_for_an_invalid_event(self, world: World, body: str | None, content_type: str) -> None:
        reply = world.http(http_request(body, headers={"Content-Type": content_type}))

        assert reply.status == 400
        error = settled_as(reply, world)["data"]["error"]
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
        ids=lambda value: value.code if isinstance(value, Failure) else str(value),
    )
    def test_of_a_failure_is_that_of_its_kind(self, world: World, failed: Failure, status: int) -> None:
        world.services.refuse(failed, times=None)

        reply = world.http(structured())

        assert reply.status == status
        assert settled_as(reply, world)["data"]["error"]["code"] == failed.code
        assert world.queue.sent == []

    def test_409_for_a_precondition(self, world: World) -> None:
        reply = world.http(structured(cloud_event(expected_name="reports")))

        assert reply.status == 409
        assert settled_as(reply, world)["data"]["error"]["code"] == "Rename.PreconditionFailed"

    def test_409_for_a_superseded_event(self, world: World) -> None:
        world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), world.event()))

        reply = world.http(structured())

        assert reply.status == 409
        assert settled_as(reply, world)["data"]["error"]["code"] == "Rename.Superseded"

    def test_409_for_an_identity_that_was_used_before(self, world: World) -> None:
        world.ledger.at_claim.append(Reused())

        assert world.http(structured()).status == 409

    def test_200_for_a_duplicate(self, world: World) -> None:
        first = world.http(structured())
        world.ledger.at_claim.append(Known(replace(world.bus.outcomes[0], remembered=True), next_cycle=None))

        again = world.http(structured())

        assert (again.status, again.body) == (200, first.body)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert len(world.services.calls) == 1

    @pytest.mark.parametrize(
        "failed",
        [unavailable(), throttled(), throttled(retry_after=300.0), failures.timeout(in_doubt=True)],
        ids=["unavailable", "throttled", "throttled for long", "timed out"],
    )
    def test_202_for_what_cannot_be_settled_now(self, world: World, failed: Failure) -> None:
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

    def test_202_where_the_function_fails(self, world: World) -> None:
        world.services.crash(RuntimeError("orders"))

        assert world.http(structured()).status == 202

    def test_202_where_the_outcome_cannot_be_published(self, world: World) -> None:
        world.bus.refuse()

        reply = world.http(structured())

        assert reply.status == 202
        assert len(world.queue.sent) == 1

    def test_202_carries_the_attributes_of_binary_mode_into_the_queue(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        world.http(http_request(rename_data(), headers={"Content-Type": "application/json", "ce-id": "event-7"}))

        assert world.queue.sent[0][0].cloud_event["id"] == "event-7"

    @pytest.mark.parametrize("with_queue", [True, False], ids=["the queue refuses", "there is no queue"])
    @pytest.mark.parametrize(
        "failed",
        [unavailable(), throttled(), failures.timeout(in_doubt=True), failures.internal_error()],
        ids=lambda failed: failed.code,
    )
    def test_503_where_it_cannot_be_handed_over(self, world: World, with_queue: bool, failed: Failure) -> None:
        world.services.refuse(failed, times=None)
        world.queue.refuses = True

        reply = world.http(structured(), with_queue=with_queue)

        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= RETRY_AFTER_SECONDS
        error = settled_as(reply, world)["data"]["error"]
        assert (error["code"], error["retryable"]) == (failed.code, True)

    @pytest.mark.parametrize("seconds", [0.2, 29.5, 300.0, 86_400.0])
    def test_503_asks_to_wait_for_as_long_as_was_asked_of_us(self, world: World, seconds: float) -> None:
        world.services.refuse(throttled(retry_after=seconds), times=None)

        reply = world.http(structured(), with_queue=False)

        assert reply.status == 503
        assert seconds <= int(reply.headers["retry-after"]) <= seconds + 1

    def test_503_where_not_even_the_failure_can_be_published(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)
        world.bus.refuse()

        reply = world.http(structured(), with_queue=False)

        assert reply.status == 503
        assert int(reply.headers["retry-after"]) > 0

    def test_503_for_an_invalid_event_whose_failure_cannot_be_published(self, world: World) -> None:
        world.bus.refuse()

        reply = world.http(structured("{}"))

        assert reply.status == 503
        assert world.queue.sent == []

    def test_413_for_an_event_that_is_too_large(self, world: World) -> None:
        reply = world.http(structured(json.dumps(cloud_event() | {"text": "x" * 300_000})))

        assert reply.status == 413
        assert settled_as(reply, world)["data"]["error"]["code"] == "Rename.InvalidEvent"

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "application/cloudevents-batch+json",
            "application/cloudevents+avro",
            "json",
        ],
    )
    def test_415_for_another_content_type(self, world: World, content_type: str) -> None:
        reply = world.http(http_request(cloud_event(), headers={"Content-Type": content_type}))

        assert reply.status == 415
        assert world.services.calls == []

    @pytest.mark.parametrize("path", ["/", "/rename-event", "/rename-events/1", "/RENAME-EVENTS"])
    def test_404_for_another_path(self, world: World, path: str) -> None:
        assert world.http(http_request(cloud_event(), path=path)).status == 404
        assert world.services.calls == []

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
    def test_4xx_for_another_method(self, world: World, method: str) -> None:
        assert world.http(http_request(cloud_event(), method=method)).status in (404, 405)
        assert world.services.calls == []

    def test_of_one_request_does_not_depend_on_the_one_before(self, world: World) -> None:
        assert world.http(structured("{}")).status == 400
        world.bus.outcomes.clear()

        assert world.http(structured()).status == 200


class TestBody:
    @pytest.mark.parametrize("encoded", [False, True])
    def test_may_come_in_base64(self, world: World, encoded: bool) -> None:
        text = json.dumps(cloud_event())
        body = base64.b64encode(text.encode()).decode() if encoded else text

        reply = world.http(http_request(body, headers={"Content-Type": STRUCTURED}, base64=encoded))

        assert reply.status == 200

    @pytest.mark.parametrize("body", ["A", "A===", "e30", "名前", "//57fQ==", "7aCA"])
    def test_that_is_not_base64_of_utf8_is_refused(self, world: World, body: str) -> None:
        reply = world.http(http_request(body, headers={"Content-Type": STRUCTURED}, base64=True))

        assert reply.status == 400
        assert world.services.calls == []

    @pytest.mark.parametrize("body", ["A", "e30", "//57fQ=="])
    def test_that_is_not_base64_of_utf8_is_an_invalid_event_like_any_other(self, world: World, body: str) -> None:
        reply = world.http(http_request(body, headers={"Content-Type": STRUCTURED}, base64=True))

        outcome = settled_as(reply, world)
        assert outcome["data"]["error"]["code"] == "Rename.InvalidEvent"
        assert outcome["data"]["error"]["violations"]
        assert len(world.telemetry.lines) == 1


class TestMode:
    @pytest.mark.parametrize(
        "content_type",
        [
            STRUCTURED,
            f"{STRUCTURED}; charset=UTF-8",
            f"{STRUCTURED};charset=utf-8",
            STRUCTURED.upper(),
            f" {STRUCTURED} ",
        ],
    )
    def test_is_structured_by_the_content_type(self, world: World, content_type: str) -> None:
        assert world.http(http_request(cloud_event(), headers={"Content-Type": content_type})).status == 200
        # and: what would do for binary mode is no event then
        assert world.http(http_request(rename_data(), headers={"Content-Type": content_type})).status == 400

    @pytest.mark.parametrize(
        "headers", [{"Content-Type": "application/json"}, {"content-type": "Application/JSON"}, {}]
    )
    def test_is_binary_otherwise(self, world: World, headers: dict[str, str]) -> None:
        assert world.http(http_request(rename_data(), headers=headers)).status == 200

    def test_of_a_whole_event_as_plain_json_is_told_by_its_shape(self, world: World) -> None:
        reply = world.http(http_request(cloud_event(id="event-9"), headers={"Content-Type": "application/json"}))

        assert reply.body["data"]["request"]["id"] == "event-9"

    def test_structured_takes_nothing_from_the_headers(self, world: World) -> None:
        reply = world.http(structured(cloud_event(id="inside"), **{"ce-id": "outside", "Idempotency-Key": "key"}))

        assert reply.body["data"]["request"]["id"] == "inside"


class TestAttributes:
    @pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
    def test_come_from_headers_in_any_case(self, world: World, spelling: Any) -> None:
        sent = {
            "ce-id": "event-7",
            "ce-source": "/cmdb/7",
            "ce-time": "2026-11-24T02:10:52Z",
            "ce-specversion": "1.0",
            "ce-type": "vpcep.endpoint_service.rename_requested.v1",
            "ce-team": "network",
        }

        reply = world.http(http_request(rename_data(), headers={spelling(name): value for name, value in sent.items()}))

        assert reply.status == 200
        expected = cloud_event(id="event-7", source="/cmdb/7", time="2026-11-24T02:10:52Z") | {"team": "network"}
        assert reply.body["data"]["request"] == expected

    @pytest.mark.parametrize("value", ["Euro € 😀", "100%", "a b", "naïve"])
    def test_are_percent_encoded(self, world: World, value: str) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-id": quote(value)}))

        assert reply.body["data"]["request"]["id"] == value

    @pytest.mark.parametrize(
        ("sent", "value"),
        [
            ('"event-7"', "event-7"),
            ('"a b"', "a b"),
            (r'"a\"b\\c"', r'a"b\c'),
            ('"caf%C3%A9"', "café"),
            ("caf%C3%A9", "café"),
            (" event-7 ", "event-7"),
            ("%25C3", "%C3"),
            ("100%", "100%"),
            ("%zz", "%zz"),
            ('a"b"', 'a"b"'),
            ('"a"b"', '"a"b"'),
            ('"', '"'),
            ("%22a%22", '"a"'),
        ],
    )
    def test_follow_the_http_binding_of_cloudevents(self, world: World, sent: str, value: str) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-id": sent}))

        assert reply.body["data"]["request"]["id"] == value
        assert reply.status == 200

    def test_of_a_quoted_and_a_plain_id_are_of_one_event(self, world: World) -> None:
        for sent in ("event-7", '"event-7"', "event%2D7"):
            world.http(http_request(rename_data(), headers={"ce-id": sent, "ce-source": "/cmdb"}))

        assert len({outcome.id for outcome in world.bus.outcomes}) == 1

    def test_may_quote_a_source(self, world: World) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-source": '"/cmdb"'}))

        assert reply.body["data"]["request"]["source"] == "/cmdb"

    @pytest.mark.parametrize("value", ["%C0", "%FF", "%C3", "%ED%A0%80", "%C0%80", '"%FF"', "naïve", "\ufffd"])
    def test_that_are_no_utf_8_are_refused(self, world: World, value: str) -> None:
        """Else several ids would become one, of U+FFFD."""
        reply = world.http(http_request(rename_data(), headers={"ce-id": value}))

        assert reply.status == 400
        [violation] = settled_as(reply, world)["data"]["error"]["violations"]
        assert violation == {"path": "/id", "message": "must be UTF-8 text, percent-encoded in a header"}

    @pytest.mark.parametrize("value", ["", '""', "%00", "a%0Ab"])
    def test_that_are_no_ids_are_refused(self, world: World, value: str) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-id": value}))

        assert reply.status == 400
        assert {violation["path"] for violation in reply.body["data"]["error"]["violations"]} == {"/id"}

    def test_that_come_twice_must_agree(self, world: World) -> None:
        assert world.http(http_request(rename_data(), headers={"ce-id": ["1", '"1"', "%31"]})).status == 200

        reply = world.http(http_request(rename_data(), headers={"ce-id": ["1", "2"]}))

        assert reply.body["data"]["error"]["violations"] == [{"path": "/id", "message": "comes with two values"}]

    def test_that_are_wrong_are_none_of_a_structured_event(self, world: World) -> None:
        assert world.http(structured(**{"ce-id": ["1", "2"], "ce-source": ["%FF"]})).status == 200

    @pytest.mark.parametrize("value", ["", "0", "00-x", "%FF", "é"])
    def test_may_hold_a_traceparent_that_is_none(self, world: World, value: str) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-traceparent": value}))

        assert reply.status == 200
        assert "traceparent" not in reply.body["data"]["request"]

    def test_fall_back_on_the_idempotency_key(self, world: World) -> None:
        for name in ("Idempotency-Key", "idempotency-key"):
            reply = world.http(http_request(rename_data(), headers={name: "key-1"}))

            assert reply.body["data"]["request"]["id"] == "key-1"

    def test_win_over_the_idempotency_key(self, world: World) -> None:
        reply = world.http(http_request(rename_data(), headers={"ce-id": "event-7", "Idempotency-Key": "key-1"}))

        assert reply.body["data"]["request"]["id"] == "event-7"

    def test_fall_back_on_the_request(self, world: World) -> None:
        request = world.http(http_request(rename_data())).body["data"]["request"]

        assert (request["id"], request["source"]) == (REQUEST_ID, API_ID)
        assert request["time"] == START.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @pytest.mark.parametrize("missing", [{}, {"time": None}])
    def test_give_a_structured_event_its_time_where_it_has_none(self, world: World, missing: dict[str, Any]) -> None:
        event = {name: value for name, value in cloud_event().items() if name != "time"} | missing

        request = world.http(structured(event)).body["data"]["request"]

        assert request["time"] == START.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @pytest.mark.parametrize("headers", [{"ce-type": "other"}, {"ce-specversion": "0.3"}, {"ce-time": "soon"}])
    def test_that_are_wrong_are_an_invalid_event(self, world: World, headers: dict[str, str]) -> None:
        reply = world.http(http_request(rename_data(), headers=headers))

        assert reply.status == 400
        [violation] = reply.body["data"]["error"]["violations"]
        assert violation["path"] == "/" + next(iter(headers)).removeprefix("ce-")

    @pytest.mark.parametrize("name", ["headers", "multiValueHeaders"])
    @pytest.mark.parametrize("value", [None, {}])
    def test_may_be_missing_with_all_other_headers(self, world: World, name: str, value: Any) -> None:
        request = http_request(rename_data(), headers={})
        request[name] = value

        assert world.http(request).status == 200


USER = "arn:aws:iam::123456789012:user/producers/cmdb"
ROLE = "arn:aws:sts::123456789012:assumed-role/Producer"


def called_by(arn: str | None, **headers: str) -> dict[str, Any]:
    """A request whose event names no source."""
    request = http_request(rename_data(), headers={"Idempotency-Key": "key-1"} | headers)
    request["requestContext"]["identity"]["userArn"] = arn
    return request


def source_of(world: World, request: dict[str, Any]) -> str:
    return str(world.http(request).body["data"]["request"]["source"])


class TestCaller:
    def test_is_part_of_the_default_source(self, world: World) -> None:
        source = source_of(world, called_by(USER))

        assert re.fullmatch(rf"{API_ID}/[0-9a-f]{{32}}", source)
        assert source == source_of(world, called_by(USER))

    def test_is_not_told(self, world: World) -> None:
        reply = world.http(called_by(USER))

        assert "cmdb" not in json.dumps(reply.body)

    @pytest.mark.parametrize(
        "other",
        [
            f"{USER}2",
            USER.replace("123456789012", "210987654321"),
            "arn:aws:iam::123456789012:root",
            f"{ROLE}/session",
            "arn:aws:sts::123456789012:federated-user/cmdb",
        ],
    )
    def test_with_the_key_of_another_one_has_sent_another_event(self, world: World, other: str) -> None:
        for arn in (USER, other):
            assert world.http(called_by(arn)).status == 200

        first, second = world.bus.outcomes
        assert first.id != second.id

    def test_that_assumes_its_role_again_is_the_same_one(self, world: World) -> None:
        """A session's name is another one for each task, instance and run: a retry may come from any."""
        sessions = ("i-0abcd1234", "botocore-session-1793607300", "user@example.com")

        assert len({source_of(world, called_by(f"{ROLE}/{session}")) for session in sessions}) == 1

    def test_of_another_role_is_another_one(self, world: World) -> None:
        names = ("Producer", "Producer2", "Producers")
        arns = [f"arn:aws:sts::123456789012:assumed-role/{name}/session" for name in names]

        assert len({source_of(world, called_by(arn)) for arn in arns}) == 3

    @pytest.mark.parametrize("identity", [None, {}, {"userArn": None}, {"userArn": ""}])
    def test_may_be_unknown(self, world: World, identity: dict[str, Any] | None) -> None:
        request = called_by(None)
        request["requestContext"]["identity"] = identity

        assert source_of(world, request) == API_ID

    def test_is_nothing_to_an_event_that_names_its_source(self, world: World) -> None:
        assert source_of(world, called_by(USER, **{"ce-source": "/cmdb"})) == "/cmdb"


class TestRoute:
    @pytest.mark.parametrize("path", ["/names/rename-events", "/rename-events/", "/v1/rename-events"])
    def test_is_the_apis_resource_and_not_the_path(self, world: World, path: str) -> None:
        """Of a custom domain the path has the base path before it."""
        assert world.http(structured() | {"path": path}).status == 200

    @pytest.mark.parametrize(
        "elsewhere", [{"resource": "/{proxy+}"}, {"resource": "/names/rename-events"}, {"httpMethod": "GET"}]
    )
    def test_that_is_none_is_told_to_the_caller_and_in_the_log(self, world: World, elsewhere: dict[str, str]) -> None:
        reply = world.http(structured() | elsewhere)

        assert reply.status == 404
        assert reply.headers["content-type"] == "application/problem+json"
        assert len(world.telemetry.defects) == 1
        assert world.services.calls == []


@pytest.mark.parametrize("content_type", [STRUCTURED, "application/json"])
def test_an_envelope_is_for_the_queue(world: World, content_type: str) -> None:
    envelope = {"id": "1", "source": "/cmdb", "time": START.isoformat(), "detail-type": "x", "detail": cloud_event()}

    assert world.http(http_request(envelope, headers={"Content-Type": content_type})).status == 400


@pytest.mark.parametrize("base64_", [True, False])
def test_a_byte_order_mark_is_skipped(world: World, base64_: bool) -> None:
    body = "\ufeff" + json.dumps(cloud_event())
    sent = base64.b64encode(body.encode()).decode() if base64_ else body

    assert world.http(http_request(sent, headers={"Content-Type": STRUCTURED}, base64=base64_)).status == 200


class TestPreferringAnAnswerAtOnce:
    @pytest.mark.parametrize(
        "prefer",
        [
            "respond-async",
            "Respond-Async",
            " respond-async ",
            "respond-async, wait=10",
            "handling=lenient, respond-async",
            "wait=10,respond-async",
            "respond-async; reason=batch",
            ["wait=10", "respond-async"],
            ["respond-async", "wait=10"],
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["Prefer", "prefer"])
    def test_hands_the_event_over(self, world: World, prefer: str | list[str], name: str) -> None:
        reply = world.http(structured(**{name: prefer}))

        assert reply.status == 202
        assert reply.body == {"id": "event-1", "source": "/cmdb", "status": "queued"}
        assert reply.headers["preference-applied"] == "respond-async"
        assert len(world.queue.sent) == 1
        assert world.services.calls == []
        assert world.bus.outcomes == []

    @pytest.mark.parametrize("prefer", ["", "wait=10", "respond-asynchronously", "x-respond-async", "return=minimal"])
    def test_is_something_else_than_other_preferences(self, world: World, prefer: str) -> None:
        assert world.http(structured(Prefer=prefer)).status == 200
        assert world.queue.sent == []

    def test_does_not_hand_over_an_invalid_event(self, world: World) -> None:
        reply = world.http(http_request("{}", headers=ASYNC))

        assert reply.status == 400
        assert world.queue.sent == []

    @pytest.mark.parametrize("with_queue", [True, False])
    def test_is_not_possible_without_a_queue_that_takes_it(self, world: World, with_queue: bool) -> None:
        world.queue.refuses = True

        reply = world.http(http_request(cloud_event(), headers=ASYNC), with_queue=with_queue)

        assert reply.status == 200
        assert "preference-applied" not in reply.headers

    def test_is_told_of_like_any_event(self, world: World) -> None:
        world.http(http_request(cloud_event(), headers=ASYNC))

        assert len(world.telemetry.lines) == 1


class TestTelemetry:
    @pytest.mark.parametrize(
        "failed", [None, not_found(), unavailable(), wrong_key()], ids=lambda failed: failed.code if failed else "none"
    )
    def test_tells_of_each_event_once(self, world: World, failed: Failure | None) -> None:
        if failed:
            world.services.refuse(failed, times=None)

        world.http(structured())

        [line] = world.telemetry.lines
        assert (line.event.id, line.trigger) == ("event-1", "http")

    def test_tells_of_invalid_events_too(self, world: World) -> None:
        world.http(structured("{}"))

        [line] = world.telemetry.lines
        assert line.result.failure is not None
        assert line.result.failure.kind is Kind.INVALID


def test_a_refused_key_is_not_handed_over(world: World) -> None:
    """The queue would meet the same refusal; the caller is told at once, by an event that may be tried again."""
    world.services.refuse(wrong_key(), times=None)

    reply = world.http(structured())

    assert reply.status == 403
    assert settled_as(reply, world)["data"]["error"]["retryable"]
    assert world.queue.sent == []
    assert len(world.services.calls) == 1
