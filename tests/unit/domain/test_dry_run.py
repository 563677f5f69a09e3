"""Dry runs: what would become of an event, without changing anything."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.domain import failures
from function.domain.dry_run import DryRun
from function.domain.failures import EventName
from function.domain.model import FIRST_CYCLE, Outcome, ParsedEvent, RenameEvent, Target
from function.domain.policy import FORBIDDEN_REGION
from function.domain.ports import Claim, Conclusion, Known, ReadPurpose, Reused, Superseded
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.endpoint_services import full_name
from tests.fakes.events import HttpReply, cloud_event, http_request
from tests.fakes.failures import failed, not_found, throttled, unavailable, wrong_key
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT, REGION, SERVICE
from tests.fakes.world import World

TARGET = Target(REGION, PROJECT, SERVICE)


def dry_run(world: World, event: ParsedEvent | None = None, *, seconds: float = 60.0) -> dict[str, Any]:
    found = world.rename_service().dry_run(event or world.event(), world.clock.until(seconds))
    assert isinstance(found, DryRun)
    # whatever it finds
    assert world.journal == []
    assert world.services.calls_of("rename") == []
    body: dict[str, Any] = json.loads(found.to_json())
    return body


def code(world: World, event: ParsedEvent | None = None, *, seconds: float = 60.0) -> str:
    """The error code of an event that would fail."""
    found = dry_run(world, event, seconds=seconds)
    assert found["result"] == "would_fail"
    return str(found["error"]["code"])


def test_dry_run_of_a_valid_event_would_rename(world: World) -> None:
    event = world.event()

    assert dry_run(world, event) == {
        "dry_run": True,
        "id": event.id,
        "source": event.source,
        "region": REGION,
        "project_id": PROJECT,
        "vpc_endpoint_service_id": SERVICE,
        "endpoint_service_name": "orders",
        "service_name": full_name(SERVICE, world.services.names),
        "result": "would_rename",
    }
    assert world.services.purposes == [ReadPurpose.DRY_RUN]


def test_dry_run_on_a_service_that_has_the_name_already_is_unchanged(world: World) -> None:
    world.services.names[SERVICE] = "orders"

    assert dry_run(world)["result"] == "unchanged"


@pytest.mark.parametrize(
    ("named", "result"), [("billing", "would_rename"), ("orders", "unchanged"), ("shop", "would_fail")]
)
def test_dry_run_judges_the_expected_name(world: World, named: str, result: str) -> None:
    world.services.names[SERVICE] = named

    found = dry_run(world, world.event(expected_name="billing"))

    assert found["result"] == result
    assert found["service_name"] == full_name(SERVICE, world.services.names)
    assert found.get("error", {}).get("code") == ("Rename.PreconditionFailed" if named == "shop" else None)


def test_dry_run_of_a_settled_event_has_its_outcome(world: World) -> None:
    outcome = Outcome({"id": "1", "type": "renamed"}, failure=None)
    world.ledger.at_claim.append(Known(outcome, None))

    found = dry_run(world)

    assert (found["result"], found["outcome"]) == ("settled", outcome.cloud_event)
    assert found["service_name"] == full_name(SERVICE, world.services.names)


@pytest.mark.parametrize("expected", ["Rename.IdentifierReused", "Rename.Superseded", "Rename.InProgress"])
def test_dry_run_of_an_event_that_the_ledger_refuses_would_fail(world: World, expected: str) -> None:
    match expected:
        case "Rename.IdentifierReused":
            world.ledger.at_claim.append(Reused())
        case "Rename.Superseded":
            world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), FIRST_CYCLE, world.event()))
        case "Rename.InProgress":
            world.ledger.held[TARGET] = Claim("token", FIRST_CYCLE, world.event(), TARGET)

    assert code(world) == expected


@pytest.mark.parametrize("failure", [not_found(), unavailable(), throttled(60.0), wrong_key()])
def test_dry_run_whose_read_fails_would_fail(world: World, failure: failures.Failure) -> None:
    world.services.refuse(failure, on="read", times=None)

    found = dry_run(world)

    assert (found["result"], found["error"]["code"]) == ("would_fail", failure.code)
    assert found["service_name"] is None


def test_dry_run_repeats_its_read_as_a_rename_does(world: World) -> None:
    world.services.refuse(unavailable(), on="read")

    assert dry_run(world)["result"] == "would_rename"


def test_dry_run_of_an_invalid_event_would_fail_without_a_call(world: World) -> None:
    found = dry_run(world, world.invalid_event('{"vpc_endpoint_service_id": "x"}'))

    assert (found["result"], found["error"]["code"]) == ("would_fail", "Rename.InvalidEvent")
    assert found["error"]["violations"]
    assert (found["vpc_endpoint_service_id"], found["endpoint_service_name"]) == ("x", None)
    assert world.services.calls == []
    assert code(world, world.invalid_event("orders")) == "Rename.InvalidEvent"


def test_dry_run_replaces_a_lone_surrogate(world: World) -> None:
    assert dry_run(world, replace(world.invalid_event(), id="\ud800"))["id"] == "?"


def test_dry_run_of_an_event_that_the_settings_refuse_would_fail(world: World) -> None:
    found = dry_run(world, world.event().refused(FORBIDDEN_REGION))

    assert found["error"]["violations"] == [FORBIDDEN_REGION._asdict()]


def test_dry_run_of_an_event_that_was_claimed_before_the_settings_refused_it_would_rename(world: World) -> None:
    world.ledger.at_claim.append(Claim("", FIRST_CYCLE, world.event(), TARGET))

    assert dry_run(world, world.event().refused(FORBIDDEN_REGION))["result"] == "would_rename"


def test_dry_run_of_a_project_that_cannot_be_judged_now_would_fail(world: World) -> None:
    world.allowed_projects.add(OTHER_PROJECT)
    event = world.event(project_id=OTHER_PROJECT)
    world.allowed_projects.clear()

    assert code(world, event) == "Rename.InvalidEvent"
    world.services.lose_credentials(failures.credentials("", kind=failures.Kind.UNAVAILABLE))
    assert code(world, event) == "Rename.CredentialsUnavailable"


def test_dry_run_without_time_would_fail(world: World) -> None:
    """Like the rename, whatever the ledger has."""
    world.ledger.at_claim.append(Known(Outcome({"id": "1", "type": "renamed"}, failure=None), None))

    assert code(world, seconds=0.1) == "Rename.NoTimeLeft"


def test_dry_run_with_an_unexpected_exception_would_fail(world: World) -> None:
    error = RuntimeError()
    world.ledger.fail("preview", error)

    found = world.rename_service().dry_run(world.event(), world.clock.until(60.0))

    assert (found.failure, found.cause) == (failures.internal_error(), error)


# ---- The ledger's preview is what the next claim returns


@pytest.fixture
def dynamodb(world: World) -> FakeDynamoDb:
    return FakeDynamoDb(world.clock.epoch)


@pytest.fixture
def ledger(world: World, dynamodb: FakeDynamoDb) -> DynamoDbLedger:
    return DynamoDbLedger(dynamodb.client(), "ledger", now=world.clock.epoch)


def claim_and_release(
    world: World, ledger: DynamoDbLedger, event: RenameEvent, target: Target = TARGET
) -> Claim | Known | Reused | Superseded:
    deadline = world.clock.until(60.0)
    claimed = ledger.claim(event, target, deadline)
    if not isinstance(claimed, Claim):
        return claimed
    ledger.release(claimed, deadline)
    return claimed._replace(token="", expires_at=0.0)


def preview(world: World, ledger: DynamoDbLedger, event: RenameEvent, target: Target = TARGET) -> Any:
    """What is previewed, and then returned by a claim."""
    previewed = ledger.preview(event, target, world.clock.until(60.0))
    assert previewed == claim_and_release(world, ledger, event, target)
    return previewed


def settle(world: World, ledger: DynamoDbLedger, event: RenameEvent) -> None:
    deadline = world.clock.until(60.0)
    claim = ledger.claim(event, TARGET, deadline)
    assert isinstance(claim, Claim)
    outcome = world.settle(event)
    assert isinstance(outcome, Outcome)
    assert ledger.settle(claim, outcome, deadline, release=True) is None


def give_up(world: World, ledger: DynamoDbLedger, event: RenameEvent) -> None:
    deadline = world.clock.until(60.0)
    outcome = world.rename_service().conclude_dead_letter(event, deadline, "sqs")
    assert isinstance(outcome, Outcome)
    ledger.conclude(Conclusion(event, FIRST_CYCLE, outcome), deadline)


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        *[("nothing", Claim), ("settled", Known), ("a newer rename", Superseded), ("another event of its id", Reused)],
        ("an expired claim", Claim),
    ],
)
def test_preview_is_what_the_next_claim_returns(
    world: World, ledger: DynamoDbLedger, before: str, answer: type[object]
) -> None:
    event = world.event()
    match before:
        case "settled":
            settle(world, ledger, event)
        case "a newer rename":
            settle(world, ledger, replace(event.at("2026-11-24T02:59:59Z"), id="newer"))
            event = event.at("2026-11-24T02:59:58Z")
        case "another event of its id":
            settle(world, ledger, event)
            event = world.event(endpoint_service_name="payments")
        case "an expired claim":
            ledger.claim(replace(event, id="another"), TARGET, world.clock.until(60.0))
            world.clock.sleep(200.0)

    assert isinstance(preview(world, ledger, event), answer)


def test_preview_reads_consistently_and_writes_nothing(
    world: World, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb
) -> None:
    ledger.preview(world.event(), TARGET, world.clock.until(60.0))

    assert [call.operation for call in dynamodb.calls] == ["GetItem", "GetItem"]
    assert all(call.parameters["ConsistentRead"] for call in dynamodb.calls)


def test_preview_of_a_given_up_event_is_in_the_next_cycle(world: World, ledger: DynamoDbLedger) -> None:
    event = world.event()
    give_up(world, ledger, event)

    assert preview(world, ledger, event).cycle.number == 1


def test_preview_has_the_time_and_project_of_the_first_claim(world: World, ledger: DynamoDbLedger) -> None:
    event = world.event()
    claim_and_release(world, ledger, event)
    elsewhere = TARGET._replace(project_id=OTHER_PROJECT)

    found = preview(world, ledger, event.at("2026-11-24T02:59:59Z"), elsewhere)

    assert (found.event, found.target) == (event, TARGET)


def test_preview_of_a_claimed_service_fails_as_a_claim_does(world: World, ledger: DynamoDbLedger) -> None:
    event, deadline = world.event(), world.clock.until(60.0)
    ledger.claim(replace(event, id="another"), TARGET, deadline)

    assert failed(ledger.preview, event, TARGET, deadline) == failed(ledger.claim, event, TARGET, deadline)


@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize("claimed", [False, True])
def test_preview_if_claimed_is_none_for_an_event_that_was_never_claimed(
    world: World, ledger: DynamoDbLedger, claimed: bool, given_up: bool
) -> None:
    event = world.event()
    if claimed:
        claim_and_release(world, ledger, event)
    if given_up:
        give_up(world, ledger, event)

    found = ledger.preview(event, TARGET, world.clock.until(60.0), if_claimed=True)

    assert isinstance(found, Claim) if claimed else found is None


def test_preview_that_dynamodb_refuses_fails(world: World, ledger: DynamoDbLedger, dynamodb: FakeDynamoDb) -> None:
    dynamodb.refuse("AccessDeniedException")

    failure = failed(ledger.preview, world.event(), TARGET, world.clock.until(60.0))

    assert (failure.code, failure.aws_error_code) == ("Rename.LedgerUnavailable", "AccessDeniedException")


# ---- Over HTTP


def post(world: World, *values: str, event: Any = None, prefer: str | None = None, **query: Any) -> HttpReply:
    request = http_request(cloud_event() if event is None else event)
    if prefer:
        request["multiValueHeaders"]["Prefer"] = [prefer]
    request["multiValueQueryStringParameters"] = {"dry_run": list(values)}
    request["queryStringParameters"] = {"dry_run": values[-1]}
    return world.http(request | query)


def test_dry_run_over_http_is_200_and_logged_as_a_dry_run(world: World) -> None:
    reply = post(world, "true")

    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.body["result"] == "would_rename"
    assert world.telemetry.lines == []
    assert len(world.telemetry.dry_runs) == 1


def test_dry_run_is_read_from_a_query_without_lists_too(world: World) -> None:
    assert post(world, "true", multiValueQueryStringParameters=None).body["dry_run"] is True


def test_dry_run_set_to_false_renames(world: World) -> None:
    assert post(world, "false").status == 200
    assert world.services.calls_of("rename")


@pytest.mark.parametrize("values", [("",), ("yes",), ("1",), ("TRUE",), ("true", "true"), ("true", "false")])
def test_dry_run_of_any_other_value_is_400_and_nothing_is_done(world: World, values: tuple[str, ...]) -> None:
    reply = post(world, *values)

    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert (world.services.calls, world.journal, world.queue.sent) == ([], [], [])


def test_dry_run_takes_precedence_over_prefer(world: World) -> None:
    reply = post(world, "true", prefer="respond-async")

    assert (reply.status, "preference-applied" in reply.headers) == (200, False)
    assert world.queue.sent == []


@pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    [
        *[(not_found(), 404, None), (wrong_key(), 403, None)],
        *[(unavailable(), 503, "30"), (throttled(retry_after=77.0), 503, "77")],
    ],
)
def test_dry_run_that_would_fail_has_the_status_of_a_rename_and_is_not_queued(
    world: World, failure: failures.Failure, status: int, retry_after: str | None
) -> None:
    world.services.refuse(failure, on="read", times=None)

    reply = post(world, "true")

    assert (reply.status, reply.body["result"]) == (status, "would_fail")
    assert reply.headers.get("retry-after") == retry_after
    assert (world.queue.sent, world.journal) == ([], [])


def test_dry_run_on_a_claimed_service_is_503_until_the_claim_expires(world: World) -> None:
    world.ledger.held[TARGET] = Claim("token", FIRST_CYCLE, world.event(), TARGET)

    reply = post(world, "true")

    assert (reply.status, reply.headers["retry-after"]) == (503, "61")


def test_dry_run_of_an_invalid_event_is_400_and_of_a_large_one_413(world: World) -> None:
    assert post(world, "true", event="{}").status == 400
    assert post(world, "true", event=" " * 300_000).status == 413
    assert world.journal == []


def test_dry_run_is_counted_in_no_metric(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = world.real_telemetry()
    found = world.rename_service().dry_run(world.event(), world.clock.until(60.0))

    telemetry.dry_run(found, "http", caller="arn:aws:iam::1:role/x")
    telemetry.flush()

    assert "_aws" not in capsys.readouterr().out
