"""Dry runs: what an event would come to, and that nothing is changed to find out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.domain import failures
from function.domain.dry_run import DryRun
from function.domain.failures import EventName
from function.domain.model import FIRST_CYCLE, InvalidEvent, Outcome, RenameEvent, Target
from function.domain.policy import FORBIDDEN_REGION
from function.domain.ports import Claim, Conclusion, Known, ReadPurpose, Reused, Superseded
from tests.deadlines import within
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.endpoint_services import full_name
from tests.fakes.events import HttpReply, cloud_event, http_request
from tests.fakes.failures import failed, not_found, throttled, unavailable, wrong_key
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT, REGION, SERVICE
from tests.fakes.world import World

TARGET = Target(REGION, PROJECT, SERVICE)


def dry_run(world: World, event: RenameEvent | InvalidEvent | None = None, *, seconds: float = 60.0) -> dict[str, Any]:
    found = world.rename_service().dry_run(event or world.event(), world.clock.until(seconds))
    assert isinstance(found, DryRun)
    # whatever it finds
    assert world.journal == []
    assert world.services.calls_of("rename") == []
    body: dict[str, Any] = json.loads(found.to_json())
    return body


# ---- The decision


def test_rename_that_would_be_carried_out(world: World) -> None:
    assert dry_run(world) == {
        "dry_run": True,
        "id": world.event().id,
        "source": world.event().source,
        "region": REGION,
        "project_id": PROJECT,
        "vpc_endpoint_service_id": SERVICE,
        "endpoint_service_name": "orders",
        "service_name": full_name(SERVICE, world.services.names),
        "result": "would_rename",
    }
    assert world.services.purposes == [ReadPurpose.DRY_RUN]


def test_service_that_has_the_name_already_is_unchanged(world: World) -> None:
    world.services.names[SERVICE] = "orders"

    assert dry_run(world)["result"] == "unchanged"


@pytest.mark.parametrize(
    ("named", "result"), [("billing", "would_rename"), ("orders", "unchanged"), ("shop", "would_fail")]
)
def test_expected_name_is_judged(world: World, named: str, result: str) -> None:
    world.services.names[SERVICE] = named

    found = dry_run(world, world.event(expected_name="billing"))

    assert found["result"] == result
    assert found["service_name"] == full_name(SERVICE, world.services.names)
    assert found.get("error", {}).get("code") == ("Rename.PreconditionFailed" if named == "shop" else None)


def test_settled_event_is_answered_with_its_outcome(world: World) -> None:
    outcome = Outcome({"id": "1", "type": "renamed"}, failure=None)
    world.ledger.at_claim.append(Known(outcome, None))

    found = dry_run(world)

    assert (found["result"], found["outcome"]) == ("settled", outcome.cloud_event)
    assert found["service_name"] == full_name(SERVICE, world.services.names)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(Reused(), "Rename.IdentifierReused"), (EventName("/cmdb", "newer"), "Rename.Superseded")],
)
def test_event_that_the_ledger_refuses_would_fail(world: World, answer: Any, code: str) -> None:
    if isinstance(answer, EventName):
        answer = Superseded(answer, FIRST_CYCLE, world.event())
    world.ledger.at_claim.append(answer)

    found = dry_run(world)

    assert (found["result"], found["error"]["code"]) == ("would_fail", code)


def test_claim_of_another_event_would_be_waited_for(world: World) -> None:
    world.ledger.held[TARGET] = Claim("token", FIRST_CYCLE, world.event(), TARGET)

    found = dry_run(world)

    assert (found["result"], found["error"]["code"]) == ("would_fail", "Rename.InProgress")


@pytest.mark.parametrize("failure", [not_found(), unavailable(), throttled(60.0), wrong_key()])
def test_read_that_fails_would_fail_the_rename(world: World, failure: failures.Failure) -> None:
    world.services.refuse(failure, on="read", times=None)

    found = dry_run(world)

    assert (found["result"], found["error"]["code"]) == ("would_fail", failure.code)
    assert found["service_name"] is None


def test_read_is_repeated_as_in_a_rename(world: World) -> None:
    world.services.refuse(unavailable(), on="read")

    assert dry_run(world)["result"] == "would_rename"


def test_invalid_event_would_fail_without_a_call(world: World) -> None:
    found = dry_run(world, world.invalid_event('{"vpc_endpoint_service_id": "x"}'))

    assert (found["result"], found["error"]["code"]) == ("would_fail", "Rename.InvalidEvent")
    assert found["error"]["violations"]
    assert (found["vpc_endpoint_service_id"], found["endpoint_service_name"]) == ("x", None)
    assert world.services.calls == []


def test_text_that_is_no_event_would_fail(world: World) -> None:
    assert dry_run(world, world.invalid_event("orders"))["result"] == "would_fail"


def test_lone_surrogate_is_no_obstacle(world: World) -> None:
    event = replace(world.invalid_event(), id="\ud800")

    assert dry_run(world, event)["id"] == "?"


def test_event_that_the_settings_refuse_would_fail(world: World) -> None:
    found = dry_run(world, world.event().refused(FORBIDDEN_REGION))

    assert found["error"]["violations"] == [FORBIDDEN_REGION._asdict()]


def test_event_that_the_settings_refuse_now_and_that_was_claimed_for_before_is_carried_out(world: World) -> None:
    world.ledger.at_claim.append(Claim("", FIRST_CYCLE, world.event(), TARGET))

    assert dry_run(world, world.event().refused(FORBIDDEN_REGION))["result"] == "would_rename"


def test_project_that_cannot_be_judged_now_would_fail(world: World) -> None:
    world.allowed_projects.add(OTHER_PROJECT)
    event = world.event(project_id=OTHER_PROJECT)
    world.allowed_projects.clear()

    assert dry_run(world, event)["error"]["code"] == "Rename.InvalidEvent"
    world.services.lose_credentials(failures.credentials("", kind=failures.Kind.UNAVAILABLE))
    assert dry_run(world, event)["error"]["code"] == "Rename.CredentialsUnavailable"


def test_time_that_is_up_would_fail(world: World) -> None:
    assert dry_run(world, seconds=0.1)["error"]["code"] == "Rename.NoTimeLeft"


def test_exception_nobody_expected_would_fail(world: World) -> None:
    error = RuntimeError()
    world.ledger.fail("preview", error)

    found = world.rename_service().dry_run(world.event(), world.clock.until(60.0))

    assert (found.failure, found.cause) == (failures.internal_error(), error)


# ---- The ledger


class TestLedger:
    """What a preview answers is what the next claim does."""

    @pytest.fixture
    def dynamodb(self, world: World) -> FakeDynamoDb:
        return FakeDynamoDb(world.clock.epoch)

    @pytest.fixture
    def ledger(self, world: World, dynamodb: FakeDynamoDb) -> DynamoDbLedger:
        return DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch)

    def same(self, world: World, ledger: DynamoDbLedger, event: RenameEvent, target: Target = TARGET) -> Any:
        deadline = world.clock.until(60.0)
        before = ledger.preview(event, target, deadline)
        claimed = ledger.claim(event, target, deadline)
        if isinstance(claimed, Claim):
            ledger.release(claimed, deadline)
            claimed = claimed._replace(token="", expires_at=0.0)
        assert before == claimed
        return before

    def settle(self, world: World, ledger: DynamoDbLedger, event: RenameEvent) -> Outcome:
        deadline = world.clock.until(60.0)
        claim = ledger.claim(event, TARGET, deadline)
        assert isinstance(claim, Claim)
        outcome = world.settle(event)
        assert isinstance(outcome, Outcome)
        assert ledger.settle(claim, outcome, deadline, release=True) is None
        return outcome

    def test_reads_and_writes_nothing(self, world: World, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb) -> None:
        ledger.preview(world.event(), TARGET, world.clock.until(60.0))

        assert [call.operation for call in dynamodb.calls] == ["GetItem", "GetItem"]
        assert all(call.parameters["ConsistentRead"] for call in dynamodb.calls)

    def test_new_event(self, world: World, ledger: DynamoDbLedger) -> None:
        assert isinstance(self.same(world, ledger, world.event()), Claim)

    def test_settled_event(self, world: World, ledger: DynamoDbLedger) -> None:
        event = world.event()
        self.settle(world, ledger, event)

        assert isinstance(self.same(world, ledger, event), Known)

    def test_stale_event(self, world: World, ledger: DynamoDbLedger) -> None:
        event = world.event()
        self.settle(world, ledger, replace(event.at("2026-11-24T02:59:59Z"), id="newer"))

        assert isinstance(self.same(world, ledger, event.at("2026-11-24T02:59:58Z")), Superseded)

    def test_reused_identifier(self, world: World, ledger: DynamoDbLedger) -> None:
        self.settle(world, ledger, world.event())

        assert self.same(world, ledger, world.event(endpoint_service_name="payments")) == Reused()

    def test_given_up_event(self, world: World, ledger: DynamoDbLedger) -> None:
        event = world.event()
        world.services.refuse(unavailable(), times=None)
        outcome = world.rename_service().conclude_dead_letter(event, world.clock.until(60.0), "sqs")
        assert isinstance(outcome, Outcome)
        ledger.conclude(Conclusion(event, FIRST_CYCLE, outcome), within(60.0))

        found = self.same(world, ledger, event)

        assert isinstance(found, Claim)
        assert found.cycle.number == 1

    def test_event_of_another_time_and_project_than_first(self, world: World, ledger: DynamoDbLedger) -> None:
        event, deadline = world.event(), world.clock.until(60.0)
        claim = ledger.claim(event, TARGET, deadline)
        assert isinstance(claim, Claim)
        ledger.release(claim, deadline)

        found = self.same(world, ledger, event.at("2026-11-24T02:59:59Z"), TARGET._replace(project_id=OTHER_PROJECT))

        assert (found.event, found.target) == (event, TARGET)

    def test_claimed_service(self, world: World, ledger: DynamoDbLedger) -> None:
        event, deadline = world.event(), world.clock.until(60.0)
        ledger.claim(replace(event, id="another"), TARGET, deadline)

        assert failed(ledger.preview, event, TARGET, deadline) == failed(ledger.claim, event, TARGET, deadline)

    def test_expired_claim(self, world: World, ledger: DynamoDbLedger) -> None:
        event = world.event()
        ledger.claim(replace(event, id="another"), TARGET, world.clock.until(60.0))
        world.clock.sleep(200.0)

        assert isinstance(self.same(world, ledger, event), Claim)

    def test_event_that_was_never_claimed_for(self, world: World, ledger: DynamoDbLedger) -> None:
        deadline = world.clock.until(60.0)

        assert ledger.preview(world.event(), TARGET, deadline, if_claimed=True) is None
        claim = ledger.claim(world.event(), TARGET, deadline)
        assert isinstance(claim, Claim)
        ledger.release(claim, deadline)
        assert isinstance(ledger.preview(world.event(), TARGET, deadline, if_claimed=True), Claim)

    @pytest.mark.parametrize("claimed", [False, True])
    def test_given_up_event_counts_as_claimed_where_it_was(
        self, world: World, ledger: DynamoDbLedger, claimed: bool
    ) -> None:
        event, deadline = world.event(), world.clock.until(60.0)
        if claimed:
            claim = ledger.claim(event, TARGET, deadline)
            assert isinstance(claim, Claim)
            ledger.release(claim, deadline)
        outcome = world.rename_service().conclude_dead_letter(event, deadline, "sqs")
        assert isinstance(outcome, Outcome)
        ledger.conclude(Conclusion(event, FIRST_CYCLE, outcome), deadline)

        assert isinstance(ledger.preview(event, TARGET, deadline, if_claimed=True), Claim) is claimed

    def test_table_that_refuses(self, world: World, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb) -> None:
        dynamodb.refuse("AccessDeniedException")

        failure = failed(ledger.preview, world.event(), TARGET, world.clock.until(60.0))

        assert (failure.code, failure.aws_error_code) == ("Rename.LedgerUnavailable", "AccessDeniedException")


# ---- Over HTTP


def post(world: World, *values: str, event: Any = None, prefer: str | None = None, **query: Any) -> HttpReply:
    request = http_request(cloud_event() if event is None else event)
    if prefer:
        request["multiValueHeaders"]["Prefer"] = [prefer]
    lists = {"dry_run": list(values)} if values else None
    single = {"dry_run": values[-1]} if values else None
    return world.http(request | {"multiValueQueryStringParameters": lists, "queryStringParameters": single} | query)


def test_reply_of_a_dry_run(world: World) -> None:
    reply = post(world, "true")

    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.body["result"] == "would_rename"
    assert world.telemetry.lines == []
    assert len(world.telemetry.dry_runs) == 1


def test_query_without_lists_is_read_too(world: World) -> None:
    assert post(world, "true", multiValueQueryStringParameters=None).body["dry_run"] is True


def test_false_is_a_rename(world: World) -> None:
    assert post(world, "false").status == 200
    assert world.services.calls_of("rename")


@pytest.mark.parametrize("values", [("",), ("yes",), ("1",), ("TRUE",), ("true", "true"), ("true", "false")])
def test_any_other_value_is_refused_and_nothing_is_done(world: World, values: tuple[str, ...]) -> None:
    reply = post(world, *values)

    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert (world.services.calls, world.journal, world.queue.sent) == ([], [], [])


def test_dry_run_wins_over_prefer(world: World) -> None:
    reply = post(world, "true", prefer="respond-async")

    assert (reply.status, "preference-applied" in reply.headers) == (200, False)
    assert world.queue.sent == []


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        (not_found(), 404, None),
        (wrong_key(), 403, None),
        (unavailable(), 503, "30"),
        (throttled(retry_after=77.0), 503, "77"),
    ],
)
def test_status_is_that_of_a_rename_and_nothing_is_queued(
    world: World, failure: failures.Failure, status: int, retry_after: str | None
) -> None:
    world.services.refuse(failure, on="read", times=None)

    reply = post(world, "true")

    assert (reply.status, reply.body["result"]) == (status, "would_fail")
    assert reply.headers.get("retry-after") == retry_after
    assert (world.queue.sent, world.journal) == ([], [])


def test_claimed_service_is_retried_when_its_claim_expires(world: World) -> None:
    world.ledger.held[TARGET] = Claim("token", FIRST_CYCLE, world.event(), TARGET)

    reply = post(world, "true")

    assert (reply.status, reply.headers["retry-after"]) == (503, "61")


def test_invalid_event_is_400_and_a_large_one_413(world: World) -> None:
    assert post(world, "true", event="{}").status == 400
    assert post(world, "true", event=" " * 300_000).status == 413
    assert world.journal == []


def test_dry_run_is_logged_and_counted_in_no_metric(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = world.real_telemetry()
    found = world.rename_service().dry_run(world.event(), world.clock.until(60.0))

    telemetry.dry_run(found, "http", caller="arn:aws:iam::1:role/x")
    telemetry.flush()

    assert "_aws" not in capsys.readouterr().out
