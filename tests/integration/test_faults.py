"""The invariants under faults, on the deployed stack: Huawei Cloud, ledger and bus fail, the function is killed, and
events come twice, late, out of order and as redriven dead letters.

All that is looked at is seen from outside: what was sent, what Huawei Cloud was asked, and which outcomes there are, on
the bus and in HTTP answers; nothing of the ledger.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS
from function.adapters.circuit_breaker import FAILURE_THRESHOLD, RECOVERY_SECONDS
from tests.commands import run
from tests.fakes.events import rename_data
from tests.fakes.identifiers import SERVICE
from tests.integration.lambda_events import sqs_event
from tests.integration.observer import (
    HTTP,
    MANY_RECEIVES,
    QUEUE,
    RENAMED,
    THROTTLED,
    TRIGGERS,
    a_rename,
    a_service,
    abandon,
    ago,
    breaker_key,
    calls_for,
    chain,
    chains_of,
    code_of,
    dead_letter_queue,
    ids_of,
    in_lambda_runtime,
    is_final,
    ledger_table,
    lines,
    of,
    outcome_of,
    outcomes_of,
    quiescent,
    send,
    service_of,
    times_unsettled,
    until,
    until_returned,
    warm_up,
)
from tests.localcloud.huawei import Call
from tests.localcloud.lambda_runtime import LambdaRuntimeError
from tests.localcloud.stack import Clouds, Event, Reply, rename_event

# ---- Huawei Cloud fails, and the function is killed


@dataclass(frozen=True)
class Fault:
    """A failure of Huawei Cloud.

    Attributes:
        command: the arguments of `HuaweiCloud.fail`.
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
class FaultyPeriod:
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
def faulty_period(running_fast_clouds: Clouds) -> FaultyPeriod:
    clouds, huawei = running_fast_clouds, running_fast_clouds.huawei
    huawei.reset()
    clouds.forget_outcomes()
    faulty_period = FaultyPeriod(kill_during_calls(clouds), {})
    for name, trigger in CASES:
        event = faulty_period.events[name, trigger] = a_rename(clouds)
        huawei.fail(**FAULTS[name].command, service_id=service_of(event))

    queued = [event for (_, trigger), event in faulty_period.events.items() if trigger == "sqs"]
    for first in range(0, len(queued), 10):
        clouds.send_rename_events(queued[first : first + 10])
    posted = {case: event for case, event in faulty_period.events.items() if case[1] == "http"}
    with ThreadPoolExecutor(3) as pool:
        faulty_period.replies = dict(zip(posted, pool.map(clouds.post_rename_event, posted.values()), strict=True))

    def all_tried() -> bool:
        faulty_period.outcomes_meanwhile += clouds.outcomes_so_far()
        published = ids_of(faulty_period.outcomes_meanwhile)
        returned = {line["correlation_id"] for line in lines(clouds, QUEUE) if line.get("status") == "unsettled"}
        return all(
            event["id"] in (published | returned if FAULTS[name].keeps_from_settling else published)
            for (name, _), event in faulty_period.events.items()
        )

    until(all_tried, "each event to be tried", seconds=120)
    faulty_period.names_meanwhile = {
        case: huawei.name_of(service_of(event)) for case, event in faulty_period.events.items()
    }

    faulty_period.calls = huawei.calls
    huawei.reset()
    faulty_period.outcomes = list(faulty_period.outcomes_meanwhile)
    events = [*faulty_period.killed.events, *faulty_period.events.values()]

    def is_over() -> bool:
        faulty_period.outcomes += clouds.outcomes_so_far()
        return ids_of(faulty_period.outcomes) >= {event["id"] for event in events} and quiescent(clouds)

    until(is_over, "an outcome of each event", seconds=120)
    faulty_period.outcomes += clouds.outcomes_so_far()
    faulty_period.calls += huawei.calls
    faulty_period.names = {event["id"]: huawei.name_of(service_of(event)) for event in events}
    return faulty_period


def kill_during_calls(clouds: Clouds) -> Killed:
    warm_up(clouds)
    queued, renamed, posted = events = [a_rename(clouds) for _ in range(3)]
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


@pytest.mark.parametrize(("name", "trigger"), CASES)
def test_fault_of_huawei_cloud_leads_to_no_false_success(name: str, trigger: str, faulty_period: FaultyPeriod) -> None:
    case, fault = (name, trigger), FAULTS[name]
    outcomes = of(faulty_period.events[case], faulty_period.outcomes_meanwhile)
    if fault.keeps_from_settling:
        assert outcomes == []
        assert trigger == "sqs" or faulty_period.replies[case].status == 202
    else:
        codes = {code_of(outcome) for outcome in outcomes}
        assert codes == {fault.means or RENAMED}
        assert faulty_period.names_meanwhile[case] == ("billing" if fault.means else "orders")


@pytest.mark.parametrize(("name", "trigger"), CASES)
def test_event_has_one_final_outcome_after_a_fault_of_huawei_cloud(
    name: str, trigger: str, faulty_period: FaultyPeriod
) -> None:
    case, fault = (name, trigger), FAULTS[name]
    copies = of(faulty_period.events[case], faulty_period.outcomes)
    if trigger == "http" and faulty_period.replies[case].status != 202:
        copies.append(faulty_period.replies[case].json())

    [outcome] = chain(copies)

    assert code_of(outcome) == (fault.means or RENAMED)
    assert is_final(outcome)
    assert faulty_period.names[faulty_period.events[case]["id"]] == ("billing" if fault.means else "orders")


def test_event_that_is_posted_again_after_the_function_was_killed_is_queued(faulty_period: FaultyPeriod) -> None:
    assert faulty_period.killed.reply.status >= 500
    assert faulty_period.killed.reply_again.status == 202


@pytest.mark.parametrize("which", range(3))
def test_event_of_a_killed_function_is_renamed_after_its_claim_has_expired(
    which: int, faulty_period: FaultyPeriod
) -> None:
    event = faulty_period.killed.events[which]
    [outcome] = chain(of(event, faulty_period.outcomes))
    assert outcome["type"] == RENAMED
    calls = (call for call in faulty_period.calls if call.service_id == service_of(event))
    of_the_killed, call = (call for call in calls if call.operation == "rename")
    assert (of_the_killed.status, call.status) == (None, 200)
    # Not before the claim of the killed one had expired, although the event came back sooner.
    assert call.time - of_the_killed.time > CLAIM_SLACK_SECONDS
    assert faulty_period.names[event["id"]] == "orders"


def test_rejected_key_makes_no_second_call_until_the_function_starts_anew(fast: Clouds) -> None:
    fast.start_anew(QUEUE)  # a key that has just been accepted is used for several calls at once
    events = [a_rename(fast) for _ in range(3)]
    fast.huawei.fail(401, "APIGW.0301", times=1)

    fast.send_rename_events(events)

    until_returned(fast, *events, code="APIGW.0301", times=2)
    assert [call.status for call in fast.huawei.calls] == [401]
    assert fast.outcomes_so_far() == []
    fast.start_anew(QUEUE)
    for [outcome] in chains_of(fast, *events):
        assert outcome["type"] == RENAMED


@pytest.fixture
def closed_breaker(fast: Clouds) -> Iterator[None]:
    yield
    fast.aws.client("dynamodb").delete_item(TableName=ledger_table(fast), Key=breaker_key(fast))
    fast.start_anew(QUEUE, HTTP)


@pytest.mark.usefixtures("closed_breaker")
def test_outage_stops_all_calls_until_huawei_cloud_recovers(fast: Clouds) -> None:
    fast.start_anew(HTTP)  # which therefore reads the state of the breaker
    queued = [a_rename(fast) for _ in range(4)]
    posted = a_rename(fast)
    fast.huawei.fail(500, "EndPoint.0001", times=None)  # which leaves no rename in doubt, and so no claim

    fast.send_rename_events(queued)
    until_returned(fast, *queued, code="Rename.Outage")
    calls = len(fast.huawei.calls)
    assert fast.post_rename_event(posted).status == 202

    assert times_unsettled(fast, HTTP, posted, "Rename.Outage") == 1
    # Those that were on their way when it opened came to their end.
    assert FAILURE_THRESHOLD <= len(fast.huawei.calls) == calls <= FAILURE_THRESHOLD + len(queued)
    assert fast.outcomes_so_far() == []

    fast.huawei.reset()
    let_time_pass(fast, RECOVERY_SECONDS)
    fast.start_anew(QUEUE)
    for [outcome] in chains_of(fast, *queued, posted):
        assert outcome["type"] == RENAMED
    assert breaker(fast)["state"] == {"S": "CLOSED"}


def breaker(clouds: Clouds) -> dict[str, Any]:
    item = clouds.aws.client("dynamodb").get_item(TableName=ledger_table(clouds), Key=breaker_key(clouds))["Item"]
    return dict(item)


def let_time_pass(clouds: Clouds, seconds: int) -> None:
    """For the breaker alone: it opened so much earlier."""
    opened_at = int(breaker(clouds)["opened_at"]["N"]) - seconds
    clouds.aws.client("dynamodb").update_item(
        TableName=ledger_table(clouds),
        Key=breaker_key(clouds),
        UpdateExpression="SET opened_at = :then",
        ExpressionAttributeValues={":then": {"N": str(opened_at)}},
    )


# ---- AWS fails


def test_function_makes_no_call_while_the_ledger_refuses_requests(fast: Clouds) -> None:
    queued, posted = (a_rename(fast) for _ in TRIGGERS)
    actions = [action for sid, action in fast.permissions(QUEUE) if sid == "KeepLedger"]

    with fast.without(QUEUE, *actions), fast.without(HTTP, *actions):
        fast.send_rename_event(queued)
        reply = fast.post_rename_event(posted)
        until_returned(fast, queued, posted, code="Rename.LedgerUnavailable", times=2)
        assert reply.status == 202
        assert fast.huawei.calls == []
        assert fast.outcomes_so_far() == []

    for [outcome] in chains_of(fast, queued, posted):
        assert outcome["type"] == RENAMED
    assert len(fast.huawei.calls) == 2


def test_outcome_that_the_bus_refused_is_published_later(fast: Clouds) -> None:
    queued, posted = events = [a_rename(fast) for _ in TRIGGERS]

    with fast.without(QUEUE, "events:PutEvents"), fast.without(HTTP, "events:PutEvents"):
        fast.send_rename_event(queued)
        reply = fast.post_rename_event(posted)
        until_returned(fast, *events, code="Rename.OutcomeNotPublished", times=2)
        assert reply.status == 202
        assert fast.outcomes_so_far() == []
        assert [fast.huawei.name_of(service_of(event)) for event in events] == ["orders", "orders"]

    [by_queue], [by_http] = chains_of(fast, queued, posted)
    assert (by_queue["type"], by_queue["data"]["trigger"]) == (RENAMED, "sqs")
    # What the HTTP API decided the queue only brought to the bus.
    assert (by_http["type"], by_http["data"]["trigger"]) == (RENAMED, "http")
    assert len(fast.huawei.calls) == 2
    assert fast.post_rename_event(queued).json() == by_queue
    assert fast.post_rename_event(posted).json() == by_http


# ---- Events come at once, twice, late, or under another's identifier


def test_one_service_is_renamed_by_one_trigger_at_a_time(fast: Clouds) -> None:
    warm_up(fast)
    first = a_rename(fast)
    fast.huawei.fail(kind="slow", delay=1.0, service_id=service_of(first))
    fast.send_rename_event(first)
    until(lambda: calls_for(fast, service_of(first)), "the call")
    second = rename_event(service_of(first), "payments")

    reply = fast.post_rename_event(second)

    assert reply.status == 202
    assert times_unsettled(fast, HTTP, second, "Rename.InProgress") == 1
    assert [outcome["type"] for [outcome] in chains_of(fast, first, second)] == [RENAMED, RENAMED]
    assert [call.name for call in calls_for(fast, service_of(first))] == ["orders", "payments"]


@pytest.mark.parametrize("trigger", TRIGGERS)
class TestEventComesAgain:
    def test_duplicate_of_an_event_repeats_its_outcome(self, trigger: str, fast: Clouds) -> None:
        first = "http" if trigger == "sqs" else "sqs"
        event = a_rename(fast)
        send(fast, first, event)
        outcome = outcome_of(fast, event)

        replies = [send(fast, trigger, event), send(fast, "http", event)]

        assert all(reply is None or (reply.status, reply.json()) == (200, outcome) for reply in replies)
        assert outcomes_of(fast, event, copies=2) == [outcome, outcome]
        assert outcome["data"]["trigger"] == first
        assert [call.operation for call in fast.huawei.calls] == ["rename"]

    def test_other_event_with_the_identifier_of_a_settled_one_fails_each_time(self, trigger: str, fast: Clouds) -> None:
        event = a_rename(fast)
        fast.send_rename_event(event)
        first = outcome_of(fast, event)
        other = rename_event(service_of(event), "payments") | {"id": event["id"]}

        replies = [send(fast, trigger, other) for _ in range(2)]

        outcome, again = outcomes_of(fast, other, copies=2)
        assert code_of(outcome) == "Rename.IdentifierReused"
        assert outcome["id"] != first["id"]
        assert again == outcome
        assert all(reply is None or (reply.status, reply.json()) == (409, outcome) for reply in replies)
        assert fast.post_rename_event(event).json() == first
        assert [call.name for call in fast.huawei.calls] == ["orders"]

    def test_stale_event_is_superseded_and_makes_no_call(self, trigger: str, fast: Clouds) -> None:
        newer = a_rename(fast)
        fast.send_rename_event(newer)
        outcome_of(fast, newer)
        stale = rename_event(service_of(newer), "payments") | {"time": ago(seconds=1, before=newer)}

        reply = send(fast, trigger, stale)

        [[outcome]] = chains_of(fast, stale)
        assert (code_of(outcome), outcome["data"]["error"]["kind"]) == ("Rename.Superseded", "conflict")
        assert outcome["data"]["superseded_by"] == {"source": newer["source"], "id": newer["id"]}
        assert reply is None or (reply.status, reply.json()) == (409, outcome)
        assert fast.huawei.name_of(service_of(newer)) == "orders"
        assert [call.name for call in fast.huawei.calls] == ["orders"]


def test_other_event_with_the_identifier_of_one_in_progress_fails(fast: Clouds) -> None:
    warm_up(fast)
    event = a_rename(fast)
    other = rename_event(a_service(fast, "billing"), "payments") | {"id": event["id"]}
    fast.huawei.fail(kind="slow", delay=1.0, service_id=service_of(event))
    fast.send_rename_event(event)
    until(lambda: calls_for(fast, service_of(event)), "the call")

    reply = fast.post_rename_event(other)

    [first], [second] = [outcomes_of(fast, each) for each in (event, other)]
    assert (code_of(first), code_of(second)) == (RENAMED, "Rename.IdentifierReused")
    assert reply.json() == second
    assert fast.huawei.name_of(service_of(other)) == "billing"


def test_two_events_of_one_identifier_have_an_outcome_each_on_the_last_receive(fast: Clouds) -> None:
    event = a_rename(fast)
    other = rename_event(service_of(event), "payments") | {"id": event["id"]}
    fast.huawei.fail(**THROTTLED, service_id=service_of(event))
    batch = sqs_event(json.dumps(event), json.dumps(other))
    for record in batch["Records"]:
        record["attributes"]["ApproximateReceiveCount"] = str(MANY_RECEIVES)

    fast.invoke(QUEUE, batch)

    [first], [second] = [outcomes_of(fast, each) for each in (event, other)]
    assert (code_of(first), code_of(second)) == ("APIGW.0308", "Rename.IdentifierReused")


# ---- Bad input, with the ledger on


def bad_inputs() -> dict[str, str]:
    """Texts by what is wrong with them."""

    def changed(**attributes: Any) -> str:
        event = rename_event(SERVICE, "orders") | attributes
        return json.dumps({name: value for name, value in event.items() if value is not None})

    def data(**fields: Any) -> str:
        return changed(data=rename_data(**fields))

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
        "an unknown field": data(name="orders"),
        "a forbidden project": data(project_id="another-project"),
        "another region": data(region="eu-west-101"),
    }


def test_invalid_input_of_each_kind_has_an_outcome_and_makes_no_call(fast: Clouds) -> None:
    good = a_rename(fast)
    texts = bad_inputs()

    fast.send_rename_event(good)
    for text in texts.values():
        fast.send_rename_event(text, group=service_of(good))
    replies = {kind: fast.post_rename_event(text) for kind, text in texts.items()}

    found = fast.outcomes(1 + 2 * len(texts))
    assert Counter(map(code_of, found)) == {RENAMED: 1, "Rename.InvalidEvent": 2 * len(texts)}
    assert {kind: reply.status for kind, reply in replies.items()} == dict.fromkeys(texts, 400)
    assert [call.service_id for call in fast.huawei.calls] == [service_of(good)]


@pytest.mark.parametrize("attribute", ["id", "source"])
def test_event_with_an_id_or_source_of_ten_kilobytes_is_invalid(attribute: str, fast: Clouds) -> None:
    event = a_rename(fast) | {attribute: "x" * 10_240}

    replies = [send(fast, trigger, event) for trigger in TRIGGERS * 2]

    copies = outcomes_of(fast, event, copies=4)
    for outcome in copies:
        assert code_of(outcome) == "Rename.InvalidEvent"
        assert outcome["data"]["error"]["violations"] == [
            {"path": f"/{attribute}", "message": "must have at most 1024 characters"}
        ]
    by_trigger = {trigger: [copy for copy in copies if copy["data"]["trigger"] == trigger] for trigger in TRIGGERS}
    # The same each time; the id is made of the outcome, which names the trigger.
    [by_queue, by_queue_again], [by_http, by_http_again] = by_trigger.values()
    assert (by_queue, by_http) == (by_queue_again, by_http_again)
    assert by_queue["id"] != by_http["id"]
    assert [(reply.status, reply.json()) for reply in replies if reply] == [(400, by_http)] * 2
    assert fast.huawei.calls == []


def test_message_attribute_with_an_id_of_ten_kilobytes_is_invalid(fast: Clouds) -> None:
    data = {"vpc_endpoint_service_id": a_service(fast), "endpoint_service_name": "orders"}

    fast.send_rename_event(data, {"ce_id": "x" * 10_240})

    [outcome] = fast.outcomes(where=lambda outcome: bool(outcome["data"]["request"]["data"] == data))
    assert code_of(outcome) == "Rename.InvalidEvent"
    assert [violation["path"] for violation in outcome["data"]["error"]["violations"]] == ["/id"]
    assert fast.huawei.calls == []


def test_event_of_a_year_ago_is_newer_than_older_ones_and_older_than_newer_ones(fast: Clouds) -> None:
    of_last_year = a_rename(fast) | {"time": ago(days=365)}
    assert fast.post_rename_event(of_last_year).status == 200

    for days, status, name in ((366, 409, "orders"), (364, 200, "payments")):
        event = rename_event(service_of(of_last_year), "payments") | {"time": ago(days=days)}
        assert fast.post_rename_event(event).status == status
        assert fast.huawei.name_of(service_of(event)) == name


KEYS = {
    "of another name": [("pk", "S", "HASH")],
    "of numbers": [("id", "N", "HASH")],
    "with a sort key": [("id", "S", "HASH"), ("time", "S", "RANGE")],
}


@pytest.fixture(params=KEYS)
def table_with_another_key(clouds: Clouds, request: pytest.FixtureRequest) -> Iterator[str]:
    dynamodb, key = clouds.aws.client("dynamodb"), KEYS[request.param]
    dynamodb.create_table(
        TableName="another",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, _, kind in key],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind, _ in key],
        BillingMode="PAY_PER_REQUEST",
    )
    yield "another"
    dynamodb.delete_table(TableName="another")


def test_ledger_table_with_another_key_is_a_settings_error_before_any_call(
    clouds: Clouds, table_with_another_key: str
) -> None:
    batch = sqs_event(json.dumps(a_rename(clouds)))

    with in_lambda_runtime(clouds, QUEUE, LEDGER_TABLE=table_with_another_key) as runtime:
        for _ in range(2):
            with pytest.raises(LambdaRuntimeError, match='"errorMessage": "LEDGER_TABLE is malformed') as error:
                runtime.invoke(batch)
            assert '"errorType": "SettingsError"' in str(error.value)

    assert clouds.huawei.calls == []
    assert clouds.outcomes_so_far() == []


# ---- Dead letters


def test_make_redrive_returns_dead_letters_to_the_queue(fast: Clouds) -> None:
    event = a_rename(fast)
    abandon(fast, event)

    done = run("make", "redrive", env=fast.aws.sam_environment())

    assert '{"moved": 1}' in done.stdout
    assert outcome_of(fast, event)["type"] == RENAMED
    assert fast.messages(dead_letter_queue(fast)) == 0
