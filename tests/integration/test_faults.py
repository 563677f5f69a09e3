"""The promises under faults, on the deployed stack: Huawei Cloud, the ledger and the bus fail, the function is killed,
and events come twice, late, out of order and again from among the dead letters.

All that is looked at is seen from outside: what was sent, what Huawei Cloud was asked, and which outcomes there are, on
the bus and in HTTP answers; nothing of the ledger.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS
from function.adapters.aws.ledger_items import breaker_item
from function.adapters.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS
from tests.integration.lambda_events import sqs_event
from tests.integration.observer import (
    HTTP,
    MANY_RECEIVES,
    QUEUE,
    THROTTLED,
    TRIGGERS,
    abandon,
    ago,
    chain,
    chains_of,
    code_of,
    dead_letter_queue,
    ids_of,
    is_final,
    lines,
    of,
    outcomes_of,
    quiescent,
    send,
    service_of,
    times_unsettled,
    until,
    warm_up,
)
from tests.integration.test_deployed_stack import RENAMED, a_service, calls_for, outcome_of
from tests.localcloud.aws import ROOT, ROOT_USER, build
from tests.localcloud.huawei import Call
from tests.localcloud.lambda_runtime import LambdaRuntime, LambdaRuntimeError
from tests.localcloud.stack import Clouds, Event, Reply, rename_event

# ---- Huawei Cloud fails, and the function is killed


@dataclass(frozen=True)
class Fault:
    """A failure of Huawei Cloud.

    Attributes:
        command: what `HuaweiCloud.fail` is told.
        applied: the rename happens all the same.
        lasts: until it is lifted; else it passes while the function tries.
        means: the code of a failure for good.
        by_http: sent through the HTTP API as well.
    """

    command: dict[str, Any]
    applied: bool = False
    lasts: bool = False
    means: str | None = None
    by_http: bool = False

    @property
    def keeps_from_settling(self) -> bool:
        return self.lasts and not self.applied


def fault(
    *, times: int | None = None, applied: bool = False, means: str | None = None, by_http: bool = False, **command: Any
) -> Fault:
    whole = {"times": times, "applied": applied, **command}
    applied = applied or command.get("kind") == "slow"
    return Fault(whole, applied=applied, lasts=times is None and means is None, means=means, by_http=by_http)


HTML: dict[str, Any] = {"body": "<html><h1>Welcome</h1></html>", "content_type": "text/html"}

# Those that a client may take for a success, or for a failure, alternate: ten in a row that are plainly unavailable
# would open the outage breaker.
FAULTS = {
    "200 with HTML": fault(kind="garbage", **HTML),
    "500": fault(status=500, code="EndPoint.0001", times=2, by_http=True),
    "200 with HTML, applied": fault(kind="garbage", applied=True, **HTML),
    "time-out of the service": fault(status=504, body="", times=None),
    "200 with nothing": fault(kind="garbage", body="", by_http=True),
    "reset": fault(kind="reset"),
    "not found": fault(status=400, body='{"error_code": "EndPoint.2003"}', means="EndPoint.2003", by_http=True),
    "200 with another name": fault(kind="garbage", body='{"endpoint_service_name": "payments"}'),
    "hang": fault(kind="hang", by_http=True),
    "200 with a list": fault(kind="garbage", body='["orders"]'),
    "200 without a name": fault(kind="garbage", body="{}", applied=True),
    "time-out of the service, applied": fault(status=504, body="", applied=True, by_http=True),
    "invalid": fault(status=400, body='{"error": {"code": "EndPoint.1003"}}', means="EndPoint.1003"),
    "reset, applied": fault(kind="reset", applied=True, by_http=True),
    "redirect": fault(status=302, body="", headers={"Location": "/elsewhere"}),
    "500, applied": fault(status=500, body="", times=1, applied=True),
    "truncated": fault(kind="truncate"),
    "no content": fault(status=204, body="", applied=True),
    "truncated, applied": fault(kind="truncate", applied=True),
    "conflict": fault(status=409, body="", means="Rename.Conflict"),
    "dripping": fault(kind="drip", pace=1.0),
    "throttled": fault(status=429, body="", times=2),
    "dripping, applied": fault(kind="drip", pace=1.0, applied=True),
    "wrong state for long": fault(status=400, body='{"error_code": "EndPoint.3045"}', means="EndPoint.3045"),
    "hang, applied": fault(kind="hang", applied=True),
    "wrong state for a moment": fault(status=400, body='{"error_code": "EndPoint.3045"}', times=2),
    "slow": fault(kind="slow", delay=30.0, by_http=True),
    "503 with HTML": fault(status=503, times=2, **HTML),
    "reads fail too": fault(kind="reset", on="any"),
}
CASES = [(name, trigger) for trigger in TRIGGERS for name, fault in FAULTS.items() if trigger == "sqs" or fault.by_http]


@dataclass
class Killed:
    """Events at whose calls the function was killed: two in one batch, of which one was renamed, and a posted one.

    Attributes:
        reply: to the posted one.
        reply_again: when its sender, who got no answer, sent it again.
    """

    events: list[Event]
    reply: Reply
    reply_again: Reply


@dataclass
class Storm:
    """What became of one event for each fault, while they lasted and after they were lifted.

    Attributes:
        killed: were on their way all the while.
    """

    killed: Killed
    events: dict[tuple[str, str], Event]
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    names_meanwhile: dict[tuple[str, str], str] = field(default_factory=dict)
    outcomes_meanwhile: list[Event] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    outcomes: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@pytest.fixture(scope="module")
def storm(hasty_clouds: Clouds) -> Storm:
    clouds, huawei = hasty_clouds, hasty_clouds.huawei
    huawei.reset()
    clouds.forget_outcomes()
    storm = Storm(killed_in_the_middle(clouds), {})
    for name, trigger in CASES:
        event = storm.events[name, trigger] = rename_event(a_service(clouds, "billing"), "orders")
        huawei.fail(**FAULTS[name].command, service_id=service_of(event))

    queued = [event for (_, trigger), event in storm.events.items() if trigger == "sqs"]
    for first in range(0, len(queued), 10):
        clouds.send_rename_events(queued[first : first + 10])
    posted = {case: event for case, event in storm.events.items() if case[1] == "http"}
    with ThreadPoolExecutor(3) as pool:
        storm.replies = dict(zip(posted, pool.map(clouds.post_rename_event, posted.values()), strict=True))

    def all_tried() -> bool:
        storm.outcomes_meanwhile += clouds.outcomes_so_far()
        told = ids_of(storm.outcomes_meanwhile)
        returned = {line["correlation_id"] for line in lines(clouds, QUEUE) if line.get("status") == "unsettled"}
        return all(
            event["id"] in (told | returned if FAULTS[name].keeps_from_settling else told)
            for (name, _), event in storm.events.items()
        )

    until(all_tried, "each event to be tried", seconds=120)
    storm.names_meanwhile = {case: huawei.name_of(service_of(event)) for case, event in storm.events.items()}

    storm.calls = huawei.calls
    huawei.reset()
    storm.outcomes = list(storm.outcomes_meanwhile)
    events = [*storm.killed.events, *storm.events.values()]

    def is_over() -> bool:
        storm.outcomes += clouds.outcomes_so_far()
        return ids_of(storm.outcomes) >= {event["id"] for event in events} and quiescent(clouds)

    until(is_over, "an outcome of each event", seconds=120)
    storm.outcomes += clouds.outcomes_so_far()
    storm.calls += huawei.calls
    storm.names = {event["id"]: huawei.name_of(service_of(event)) for event in events}
    return storm


def killed_in_the_middle(clouds: Clouds) -> Killed:
    warm_up(clouds)
    queued, renamed, posted = events = [rename_event(a_service(clouds), "orders") for _ in range(3)]
    for event in events:
        clouds.huawei.fail(kind="hang", service_id=service_of(event), applied=event is renamed)
    clouds.send_rename_events([queued, renamed])
    until(lambda: all(calls_for(clouds, service_of(event)) for event in (queued, renamed)), "both calls")
    assert clouds.kill(QUEUE)
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(clouds.post_rename_event, posted)
        until(lambda: calls_for(clouds, service_of(posted)), "the call")
        assert clouds.kill(HTTP)
    return Killed(events, reply.result(), clouds.post_rename_event(posted))


class TestHuaweiCloudFails:
    @pytest.mark.parametrize(("name", "trigger"), CASES)
    def test_tells_no_success_that_it_has_not_had(self, name: str, trigger: str, storm: Storm) -> None:
        case, fault = (name, trigger), FAULTS[name]
        outcomes = of(storm.events[case], storm.outcomes_meanwhile)
        if fault.keeps_from_settling:
            assert outcomes == []
            assert trigger == "sqs" or storm.replies[case].status == 202
        else:
            told = {code_of(outcome) for outcome in outcomes}
            assert told == {fault.means or RENAMED}
            assert storm.names_meanwhile[case] == ("billing" if fault.means else "orders")

    @pytest.mark.parametrize(("name", "trigger"), CASES)
    def test_settles_with_one_outcome(self, name: str, trigger: str, storm: Storm) -> None:
        case, fault = (name, trigger), FAULTS[name]
        copies = of(storm.events[case], storm.outcomes)
        if trigger == "http" and storm.replies[case].status != 202:
            copies.append(storm.replies[case].json())

        [outcome] = chain(copies)

        assert code_of(outcome) == (fault.means or RENAMED)
        assert is_final(outcome)
        assert storm.names[storm.events[case]["id"]] == ("billing" if fault.means else "orders")


class TestFunctionIsKilled:
    def test_who_gets_no_answer_sends_again(self, storm: Storm) -> None:
        assert storm.killed.reply.status >= 500
        assert storm.killed.reply_again.status == 202

    @pytest.mark.parametrize("which", range(3))
    def test_in_the_middle_of_its_calls(self, which: int, storm: Storm) -> None:
        event = storm.killed.events[which]
        [outcome] = chain(of(event, storm.outcomes))
        assert outcome["type"] == RENAMED
        calls = (call for call in storm.calls if call.service_id == service_of(event))
        of_the_dead, call = (call for call in calls if call.operation == "rename")
        assert (of_the_dead.status, call.status) == (None, 200)
        # Not before the claim of the dead had lapsed, although the event came back sooner.
        assert call.time - of_the_dead.time > CLAIM_SLACK_SECONDS
        assert storm.names[event["id"]] == "orders"


class TestKeyIsRefused:
    def test_no_second_call_until_it_is_mended(self, hasty: Clouds) -> None:
        hasty.start_anew(QUEUE)  # a key that has just been accepted is trusted with several calls at once
        events = [rename_event(a_service(hasty), "orders") for _ in range(3)]
        hasty.huawei.fail(401, "APIGW.0301", times=1)

        hasty.send_rename_events(events)

        until(
            lambda: all(times_unsettled(hasty, QUEUE, event, "APIGW.0301") > 1 for event in events),
            "each event to come again",
        )
        assert [call.status for call in hasty.huawei.calls] == [401]
        assert hasty.outcomes_so_far() == []
        hasty.start_anew(QUEUE)
        for [outcome] in chains_of(hasty, *events):
            assert outcome["type"] == RENAMED


class TestOutage:
    @pytest.fixture(autouse=True)
    def closed_breaker(self, hasty: Clouds) -> Iterator[None]:
        yield
        hasty.aws.client("dynamodb").delete_item(TableName=table(hasty), Key=breaker_key(hasty))
        hasty.start_anew(QUEUE, HTTP)

    def test_huawei_cloud_is_left_alone_until_it_recovers(self, hasty: Clouds) -> None:
        hasty.start_anew(HTTP)  # which therefore asks the ledger how things are
        queued = [rename_event(a_service(hasty), "orders") for _ in range(4)]
        posted = rename_event(a_service(hasty), "orders")
        hasty.huawei.fail(500, "EndPoint.0001", times=None)  # which leaves no rename in doubt, and so no claim

        hasty.send_rename_events(queued)
        until(
            lambda: all(times_unsettled(hasty, QUEUE, event, "Rename.Outage") for event in queued),
            "the breaker to keep each event from being called",
        )
        calls = len(hasty.huawei.calls)
        assert hasty.post_rename_event(posted).status == 202

        assert times_unsettled(hasty, HTTP, posted, "Rename.Outage") == 1
        # Those that were on their way when it opened came to their end.
        assert FAILURE_THRESHOLD <= len(hasty.huawei.calls) == calls <= FAILURE_THRESHOLD + len(queued)
        assert hasty.outcomes_so_far() == []

        hasty.huawei.reset()
        self.let_time_pass(hasty, RECOVERY_SECONDS)
        hasty.start_anew(QUEUE)
        for [outcome] in chains_of(hasty, *queued, posted):
            assert outcome["type"] == RENAMED
        assert self.breaker(hasty)["state"] == {"S": "CLOSED"}

    @staticmethod
    def breaker(clouds: Clouds) -> dict[str, Any]:
        item = clouds.aws.client("dynamodb").get_item(TableName=table(clouds), Key=breaker_key(clouds))["Item"]
        return dict(item)

    def let_time_pass(self, clouds: Clouds, seconds: int) -> None:
        """For the breaker alone: it opened so much earlier."""
        opened_at = int(self.breaker(clouds)["opened_at"]["N"]) - seconds
        clouds.aws.client("dynamodb").update_item(
            TableName=table(clouds),
            Key=breaker_key(clouds),
            UpdateExpression="SET opened_at = :then",
            ExpressionAttributeValues={":then": {"N": str(opened_at)}},
        )


def breaker_key(clouds: Clouds) -> dict[str, Any]:
    return {"id": {"S": breaker_item(clouds.account.region)}}


def table(clouds: Clouds) -> str:
    return clouds.stack.outputs["LedgerTableName"]


# ---- AWS fails


class TestLedgerRefuses:
    def test_no_call_without_it(self, hasty: Clouds) -> None:
        queued, posted = (rename_event(a_service(hasty), "orders") for _ in TRIGGERS)
        actions = [action for sid, action in hasty.permissions(QUEUE) if sid == "KeepLedger"]

        with hasty.without(QUEUE, *actions), hasty.without(HTTP, *actions):
            hasty.send_rename_event(queued)
            reply = hasty.post_rename_event(posted)
            until(
                lambda: all(
                    times_unsettled(hasty, QUEUE, event, "Rename.LedgerUnavailable") > 1 for event in (queued, posted)
                ),
                "the events to be tried twice",
            )
            assert reply.status == 202
            assert hasty.huawei.calls == []
            assert hasty.outcomes_so_far() == []

        for [outcome] in chains_of(hasty, queued, posted):
            assert outcome["type"] == RENAMED
        assert len(hasty.huawei.calls) == 2


class TestBusRefuses:
    def test_publishes_later_what_was_decided_once(self, hasty: Clouds) -> None:
        queued, posted = events = [rename_event(a_service(hasty), "orders") for _ in TRIGGERS]

        with hasty.without(QUEUE, "events:PutEvents"), hasty.without(HTTP, "events:PutEvents"):
            hasty.send_rename_event(queued)
            reply = hasty.post_rename_event(posted)
            until(
                lambda: all(times_unsettled(hasty, QUEUE, event, "Rename.OutcomeNotPublished") > 1 for event in events),
                "the outcomes to be refused twice",
            )
            assert reply.status == 202
            assert hasty.outcomes_so_far() == []
            assert [hasty.huawei.name_of(service_of(event)) for event in events] == ["orders", "orders"]

        [by_queue], [by_http] = chains_of(hasty, queued, posted)
        assert (by_queue["type"], by_queue["data"]["trigger"]) == (RENAMED, "sqs")
        # What the HTTP API decided the queue only brought to the bus.
        assert (by_http["type"], by_http["data"]["trigger"]) == (RENAMED, "http")
        assert len(hasty.huawei.calls) == 2
        assert hasty.post_rename_event(queued).json() == by_queue
        assert hasty.post_rename_event(posted).json() == by_http


# ---- Events come at once, twice, late, or under another's identifier


class TestOneServiceThroughBothTriggers:
    def test_one_rename_at_a_time(self, hasty: Clouds) -> None:
        warm_up(hasty)
        first = rename_event(a_service(hasty), "orders")
        hasty.huawei.fail(kind="slow", delay=1.0, service_id=service_of(first))
        hasty.send_rename_event(first)
        until(lambda: calls_for(hasty, service_of(first)), "the call")
        second = rename_event(service_of(first), "payments")

        reply = hasty.post_rename_event(second)

        assert reply.status == 202
        assert times_unsettled(hasty, HTTP, second, "Rename.InProgress") == 1
        assert [outcome["type"] for [outcome] in chains_of(hasty, first, second)] == [RENAMED, RENAMED]
        assert [call.name for call in calls_for(hasty, service_of(first))] == ["orders", "payments"]


@pytest.mark.parametrize("trigger", TRIGGERS)
class TestEventComesAgain:
    def test_a_duplicate_repeats_the_outcome(self, trigger: str, hasty: Clouds) -> None:
        first = "http" if trigger == "sqs" else "sqs"
        event = rename_event(a_service(hasty), "orders")
        send(hasty, first, event)
        outcome = outcome_of(hasty, event)

        replies = [send(hasty, trigger, event), send(hasty, "http", event)]

        assert all(reply is None or (reply.status, reply.json()) == (200, outcome) for reply in replies)
        assert outcomes_of(hasty, event, copies=2) == [outcome, outcome]
        assert outcome["data"]["trigger"] == first
        assert [call.operation for call in hasty.huawei.calls] == ["rename"]

    def test_another_event_must_not_have_its_identifier(self, trigger: str, hasty: Clouds) -> None:
        event = rename_event(a_service(hasty), "orders")
        hasty.send_rename_event(event)
        first = outcome_of(hasty, event)
        other = rename_event(service_of(event), "payments") | {"id": event["id"]}

        reply = send(hasty, trigger, other)

        [outcome] = outcomes_of(hasty, other)
        assert code_of(outcome) == "Rename.IdentifierReused"
        assert outcome["id"] != first["id"]
        assert reply is None or (reply.status, reply.json()) == (409, outcome)
        assert hasty.post_rename_event(event).json() == first
        assert [call.name for call in hasty.huawei.calls] == ["orders"]

    def test_a_stale_event_undoes_nothing(self, trigger: str, hasty: Clouds) -> None:
        newer = rename_event(a_service(hasty), "orders")
        hasty.send_rename_event(newer)
        outcome_of(hasty, newer)
        stale = rename_event(service_of(newer), "payments") | {"time": ago(seconds=1, before=newer)}

        reply = send(hasty, trigger, stale)

        [[outcome]] = chains_of(hasty, stale)
        assert (code_of(outcome), outcome["data"]["error"]["kind"]) == ("Rename.Superseded", "conflict")
        assert outcome["data"]["superseded_by"] == {"source": newer["source"], "id": newer["id"]}
        assert reply is None or (reply.status, reply.json()) == (409, outcome)
        assert hasty.huawei.name_of(service_of(newer)) == "orders"
        assert [call.name for call in hasty.huawei.calls] == ["orders"]


class TestEventsOfOneIdentifier:
    def test_at_the_same_time(self, hasty: Clouds) -> None:
        warm_up(hasty)
        event = rename_event(a_service(hasty), "orders")
        other = rename_event(a_service(hasty, "billing"), "payments") | {"id": event["id"]}
        hasty.huawei.fail(kind="slow", delay=1.0, service_id=service_of(event))
        hasty.send_rename_event(event)
        until(lambda: calls_for(hasty, service_of(event)), "the call")

        reply = hasty.post_rename_event(other)

        [first], [second] = [outcomes_of(hasty, each) for each in (event, other)]
        assert (code_of(first), code_of(second)) == (RENAMED, "Rename.IdentifierReused")
        assert reply.json() == second
        assert hasty.huawei.name_of(service_of(other)) == "billing"

    def test_on_their_last_receive(self, hasty: Clouds) -> None:
        event = rename_event(a_service(hasty), "orders")
        other = rename_event(service_of(event), "payments") | {"id": event["id"]}
        hasty.huawei.fail(**THROTTLED, service_id=service_of(event))
        batch = sqs_event(json.dumps(event), json.dumps(other))
        for record in batch["Records"]:
            record["attributes"]["ApproximateReceiveCount"] = str(MANY_RECEIVES)

        hasty.invoke(QUEUE, batch)

        [first], [second] = [outcomes_of(hasty, each) for each in (event, other)]
        assert (code_of(first), code_of(second)) == ("APIGW.0308", "Rename.IdentifierReused")

    def test_the_second_comes_again(self, hasty: Clouds) -> None:
        event = rename_event(a_service(hasty), "orders")
        hasty.send_rename_event(event)
        outcome_of(hasty, event)
        other = rename_event(service_of(event), "payments") | {"id": event["id"]}

        for _ in range(2):
            hasty.send_rename_event(other)

        first, second = outcomes_of(hasty, other, copies=2)
        assert code_of(first) == "Rename.IdentifierReused"
        assert first == second


# ---- Bad input, with the ledger on


def bad_inputs() -> dict[str, str]:
    """Texts by what is wrong with them."""

    def changed(**attributes: Any) -> str:
        event = rename_event("070c4a63-8a62-448e-89ed-f2cbde8e6a3b", "orders") | attributes
        return json.dumps({name: value for name, value in event.items() if value is not None})

    def data(**fields: Any) -> str:
        return changed(
            data={
                "vpc_endpoint_service_id": "070c4a63-8a62-448e-89ed-f2cbde8e6a3b",
                "endpoint_service_name": "orders",
                **fields,
            }
        )

    text = changed()
    return {
        "no JSON": "rename it",
        "half of it": text[: len(text) // 2],
        "more after it": text + "{}",
        "a list": f"[{text}]",
        "a text": '"orders"',
        "null": "null",
        "nothing in it": "{}",
        "a field twice": text[:-1] + ', "id": "another"}',
        "not a number": data(endpoint_service_name=float("nan")),
        "deep": changed(data=json.loads("[" * 40 + "]" * 40)),
        "no data": changed(data=None),
        "no id": changed(id=None),
        "another version": changed(specversion="0.3"),
        "another type": changed(type="com.example.renamed"),
        "a time that never was": changed(time="2026-02-30T00:00:00Z"),
        "a time to come": changed(time=ago(days=-1)),
        "no text for a name": data(endpoint_service_name=5),
        "a name of other letters": data(endpoint_service_name="ordérs"),
        "a name that is too long": data(endpoint_service_name="x" * 17),
        "a path for a service": data(vpc_endpoint_service_id="../../vpcs"),
        "a field that nobody knows": data(name="orders"),
        "somebody else's project": data(project_id="another-project"),
        "another region": data(region="eu-west-101"),
    }


class TestBadInput:
    def test_of_every_kind_is_told_and_reaches_nobody(self, hasty: Clouds) -> None:
        good = rename_event(a_service(hasty), "orders")
        texts = bad_inputs()

        hasty.send_rename_event(good)
        for text in texts.values():
            hasty.send_rename_event(text, group=service_of(good))
        replies = {kind: hasty.post_rename_event(text) for kind, text in texts.items()}

        found = hasty.outcomes(1 + 2 * len(texts))
        assert Counter(map(code_of, found)) == {RENAMED: 1, "Rename.InvalidEvent": 2 * len(texts)}
        assert {kind: reply.status for kind, reply in replies.items()} == dict.fromkeys(texts, 400)
        assert [call.service_id for call in hasty.huawei.calls] == [service_of(good)]

    @pytest.mark.parametrize("attribute", ["id", "source"])
    def test_ten_kilobytes_of_identity(self, attribute: str, hasty: Clouds) -> None:
        event = rename_event(a_service(hasty), "orders") | {attribute: "x" * 10_240}

        replies = [send(hasty, trigger, event) for trigger in TRIGGERS * 2]

        copies = outcomes_of(hasty, event, copies=4)
        for outcome in copies:
            assert code_of(outcome) == "Rename.InvalidEvent"
            assert outcome["data"]["error"]["violations"] == [
                {"path": f"/{attribute}", "message": "must have at most 1024 characters"}
            ]
        by_trigger = {trigger: [copy for copy in copies if copy["data"]["trigger"] == trigger] for trigger in TRIGGERS}
        # The same each time; the id is made of what is told, and that names the trigger.
        [by_queue, by_queue_again], [by_http, by_http_again] = by_trigger.values()
        assert (by_queue, by_http) == (by_queue_again, by_http_again)
        assert by_queue["id"] != by_http["id"]
        assert [(reply.status, reply.json()) for reply in replies if reply] == [(400, by_http)] * 2
        assert hasty.huawei.calls == []

    def test_ten_kilobytes_of_identity_in_a_message_attribute(self, hasty: Clouds) -> None:
        data = {"vpc_endpoint_service_id": a_service(hasty), "endpoint_service_name": "orders"}

        hasty.send_rename_event(data, {"ce_id": "x" * 10_240})

        [outcome] = hasty.outcomes(where=lambda outcome: bool(outcome["data"]["request"]["data"] == data))
        assert code_of(outcome) == "Rename.InvalidEvent"
        assert [violation["path"] for violation in outcome["data"]["error"]["violations"]] == ["/id"]
        assert hasty.huawei.calls == []

    def test_event_of_a_year_ago(self, hasty: Clouds) -> None:
        of_last_year = rename_event(a_service(hasty), "orders") | {"time": ago(days=365)}
        assert hasty.post_rename_event(of_last_year).status == 200

        for days, status, name in ((366, 409, "orders"), (364, 200, "payments")):
            event = rename_event(service_of(of_last_year), "payments") | {"time": ago(days=days)}
            assert hasty.post_rename_event(event).status == status
            assert hasty.huawei.name_of(service_of(event)) == name


KEYS = {
    "of another name": [("pk", "S", "HASH")],
    "of numbers": [("id", "N", "HASH")],
    "with a sort key": [("id", "S", "HASH"), ("time", "S", "RANGE")],
}


class TestTableOfAnotherKind:
    @pytest.fixture(params=KEYS)
    def runtime(self, clouds: Clouds, request: pytest.FixtureRequest) -> Iterator[LambdaRuntime]:
        """The function in the Lambda runtime, where a table with another key is its ledger."""
        dynamodb, key = clouds.aws.client("dynamodb"), KEYS[request.param]
        dynamodb.create_table(
            TableName="another",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, _, kind in key],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind, _ in key],
            BillingMode="PAY_PER_REQUEST",
        )
        name = clouds.stack.resources[QUEUE]
        deployed = clouds.aws.client("lambda").get_function_configuration(FunctionName=name)
        environment = deployed["Environment"]["Variables"] | ROOT_USER | {"LEDGER_TABLE": "another"}
        environment |= {"AWS_ENDPOINT_URL": clouds.aws.endpoint, "AWS_CA_BUNDLE": str(clouds.aws.ca)}
        environment |= {"AWS_REGION": clouds.aws.region, "AWS_DEFAULT_REGION": clouds.aws.region}
        with LambdaRuntime(build().parent / QUEUE, environment, timeout=30, handler=deployed["Handler"]) as runtime:
            yield runtime
        dynamodb.delete_table(TableName="another")

    def test_one_clear_error_before_any_call(self, runtime: LambdaRuntime, clouds: Clouds) -> None:
        event = rename_event(a_service(clouds), "orders")

        for _ in range(2):
            with pytest.raises(LambdaRuntimeError, match='"errorMessage": "LEDGER_TABLE is malformed') as error:
                runtime.invoke(sqs_event(json.dumps(event)))
            assert '"errorType": "SettingsError"' in str(error.value)

        assert clouds.huawei.calls == []
        assert clouds.outcomes_so_far() == []


# ---- Dead letters


class TestMakeRedrive:
    def test_brings_dead_letters_back(self, hasty: Clouds) -> None:
        event = rename_event(a_service(hasty), "orders")
        abandon(hasty, event)

        command = ["make", "redrive"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=hasty.aws.sam_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.returncode, '{"moved": 1}' in done.stdout) == (0, True), done.stderr
        assert outcome_of(hasty, event)["type"] == RENAMED
        assert hasty.messages(dead_letter_queue(hasty)) == 0
