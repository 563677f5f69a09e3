"""The decision: what becomes of one rename event, whatever its collaborators do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import EventName, Failure, Kind
from function.domain.model import Outcome, RedriveCycle, Target
from function.domain.policy import FORBIDDEN_REGION
from function.domain.ports import Conclusion, Known, Located, ReadPurpose, Reused, Superseded
from function.domain.rename_service import Result, Unsettled
from function.domain.service_calls import (
    BACKOFF_CAP_SECONDS,
    MAX_ATTEMPTS_AGAINST_STATE,
    MAX_CALL_ATTEMPTS,
    MAX_CALL_SECONDS,
    MAX_SERVICE_NAME,
)
from tests.fakes.endpoint_services import full_name
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT, REGION, SERVICE
from tests.fakes.world import World

TARGET = Target(REGION, PROJECT, SERVICE)
STATE_CONFLICT = refusal("EndPoint.3045", 400)
TIMED_OUT = failures.timeout(in_doubt=True)
NEVER_SENT = failures.connection_failed(in_doubt=False)
NO_KEY = failures.credentials("Gone.", kind=Kind.ACCESS)
NO_KEY_NOW = failures.credentials("Down.", kind=Kind.UNAVAILABLE)


def published(result: Result) -> Outcome:
    assert isinstance(result, Outcome), result
    return result


def success(result: Result) -> dict[str, Any]:
    """The data of a success."""
    outcome = published(result)
    assert outcome.failure is None, outcome.failure
    assert outcome.type == "vpcep.endpoint_service.renamed.v1"
    data: dict[str, Any] = outcome.cloud_event["data"]
    return data


def failure(result: Result) -> Failure:
    """Of a settled event, or of one that was given up."""
    outcome = published(result)
    assert outcome.failure is not None
    assert outcome.type == "vpcep.endpoint_service.rename_failed.v1"
    return outcome.failure


def unsettled(result: Result, world: World) -> Failure:
    """Of an unsettled event, which has no outcome."""
    assert isinstance(result, Unsettled), result
    assert result.failure.retryable
    assert world.bus.outcomes == []
    return result.failure


def operations(world: World) -> list[str]:
    return [call.operation for call in world.services.calls]


def code_of(value: object) -> str | None:
    """The id of a parametrized failure."""
    return value.code if isinstance(value, Failure) else None


def test_renamed_event_is_remembered_then_published(world: World) -> None:
    result = world.settle()

    data = success(result)
    assert world.services.names[SERVICE] == "orders"
    assert (data["service_name"], data["attempts"], data["huawei_request_id"]) == ("orders", 1, "request-1")
    assert (data["project_id"], data["region"], data["trigger"]) == (PROJECT, REGION, "sqs")
    assert "previous_service_name" not in data
    assert world.bus.outcomes == world.ledger.outcomes == [result]
    kind = "vpcep.endpoint_service.renamed.v1"
    assert world.journal == ["claimed", f"remembered {kind}", f"published {kind}"]


@pytest.mark.parametrize(("seconds", "call_seconds"), [(6.0, 4.0), (900.0, MAX_CALL_SECONDS)])
def test_rename_is_one_call_that_leaves_time_for_a_read(world: World, seconds: float, call_seconds: float) -> None:
    world.settle(seconds=seconds)

    [call] = world.services.calls
    assert (call.operation, call.target, call.name) == ("rename", TARGET, "orders")
    assert call.seconds == pytest.approx(call_seconds)


def test_service_of_another_project_is_renamed_in_that_project(world: World) -> None:
    world.allowed_projects.add(OTHER_PROJECT)

    data = success(world.settle(world.event(project_id=OTHER_PROJECT)))

    assert world.services.calls[0].target.project_id == data["project_id"] == OTHER_PROJECT


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("orders", "orders"),
        ("cn-north-4.orders.77e4c5a8-1f0d-4d15-8c3b-1d2a7f3f2e11", "orders"),
        ("br-abc-aaa1.obs_test.77e4", "obs_test"),
        ("", ""),
        ("cn-north-4.77e4c5a8-1f0d-4d15-8c3b-1d2a7f3f2e11", ""),
    ],
)
def test_reply_with_the_new_name_confirms_the_rename(world: World, reported: str, name: str) -> None:
    world.services.report(reported)

    assert success(world.settle(world.event(endpoint_service_name=name)))["service_name"] == reported
    assert operations(world) == ["rename"]


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        *[(reported, "orders") for reported in (None, "", "billing", "orders2", "Orders", "orders ", "..")],
        *[(f"cn-north-4.{reported}", "orders") for reported in ("billing.orders", "orders", "orders.billing.77e4")],
        *[(reported, "orders") for reported in ("orders.billing.77e4", "orders.77e4")],
        (None, ""),
    ],
)
def test_reply_without_the_new_name_is_unconfirmed(world: World, reported: str | None, name: str) -> None:
    world.services.report(reported, applied=False, times=None)

    result = unsettled(world.settle(world.event(endpoint_service_name=name)), world)

    assert (result.code, result.huawei_request_id) == ("Rename.UnconfirmedReply", "reported")


def test_read_after_an_unconfirmed_reply_may_confirm_the_rename(world: World) -> None:
    world.services.report(None, applied=True)

    data = success(world.settle())

    assert (data["service_name"], data["attempts"]) == (full_name(SERVICE, world.services.names), 1)


# ---- In doubt: a rename whose reply was lost is decided by one read


@pytest.mark.parametrize(
    "doubt",
    [
        TIMED_OUT,
        failures.connection_failed(in_doubt=True),
        failures.unconfirmed_reply(200, None),
        refusal("EndPoint.0013", 504),
        refusal("APIGW.0201", 504),
    ],
    ids=code_of,
)
def test_rename_in_doubt_succeeded_if_a_read_shows_the_new_name(world: World, doubt: Failure) -> None:
    world.services.lose_reply(applied=True, failure=doubt)

    data = success(world.settle())

    assert operations(world) == ["rename", "read"]
    assert (data["service_name"], data["attempts"]) == (full_name(SERVICE, world.services.names), 1)
    assert data["huawei_request_id"] == "request-2"


def test_rename_in_doubt_is_repeated_if_a_read_shows_the_old_name(world: World) -> None:
    world.services.lose_reply(applied=False)

    assert success(world.settle())["attempts"] == 2
    assert operations(world) == ["rename", "read", "rename"]


@pytest.mark.parametrize("read_fails", [unavailable(), TIMED_OUT, throttled(), NEVER_SENT, None], ids=code_of)
def test_rename_stays_in_doubt_if_the_read_fails_or_shows_no_name(world: World, read_fails: Failure | None) -> None:
    world.services.lose_reply(applied=True, times=None)
    if read_fails:
        world.services.refuse(read_fails, on="read", times=None)
    else:
        world.services.report(None, on="read", times=None)

    # then: what is reported is the rename's own failure, and each doubt was read once
    assert unsettled(world.settle(), world).code == "Rename.Timeout"
    assert operations(world) == ["rename", "read"] * MAX_CALL_ATTEMPTS


@pytest.mark.parametrize(("refused", "is_settled"), [(not_found(), True), (wrong_key(), False)], ids=code_of)
def test_rename_in_doubt_fails_as_its_read_fails_for_good(world: World, refused: Failure, is_settled: bool) -> None:
    world.services.lose_reply(applied=False)
    world.services.refuse(refused, on="read")

    result = world.settle()

    assert (failure(result) if is_settled else unsettled(result, world)).code == refused.code
    assert operations(world) == ["rename", "read"]


@pytest.mark.parametrize(
    ("applied", "is_settled"),
    [((False,) * MAX_CALL_ATTEMPTS, False), ((False,), True), ((False, True), True), ((True,), True)],
    ids=["never applied", "then repeated", "then in doubt again", "read shows the name"],
)
def test_claim_of_a_rename_in_doubt_is_left_to_expire(
    world: World, applied: tuple[bool, ...], is_settled: bool
) -> None:
    """A call in doubt may yet take effect, even where a later one succeeds, or after somebody else's rename."""
    for took_effect in applied:
        world.services.lose_reply(applied=took_effect)

    assert isinstance(world.settle(), Outcome) is is_settled
    assert TARGET in world.ledger.held


def test_final_failure_after_a_call_in_doubt_leaves_the_event_unsettled(world: World) -> None:
    world.services.lose_reply(applied=False)
    world.services.refuse(refusal("EndPoint.1003", 400), times=None)

    assert unsettled(world.settle(), world).code == "Rename.Timeout"
    assert operations(world) == ["rename", "read", "rename"]


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (not_found(), Kind.NOT_FOUND),
        (refusal("EndPoint.0005", 404), Kind.NOT_FOUND),
        (refusal("EndPoint.1003", 400), Kind.INVALID),
        (refusal("EndPoint.9999", 400), Kind.INVALID),
        (refusal("EndPoint.9999", 409), Kind.CONFLICT),
        (refusal("EndPoint.0011", 504), Kind.INTERNAL),
    ],
    ids=code_of,
)
def test_final_failure_settles_the_event_at_once(world: World, failed: Failure, kind: Kind) -> None:
    world.services.refuse(failed, times=None)

    result = published(world.settle())

    assert failure(result) == failed
    error = result.cloud_event["data"]["error"]
    assert (error["code"], error["kind"], error["retryable"]) == (failed.code, kind, False)
    assert error["http_status"] == failed.http_status
    assert result.cloud_event["data"]["huawei_request_id"] == failed.huawei_request_id
    assert (result.attempts, world.clock.sleeps) == (1, [])
    assert world.bus.outcomes == world.ledger.outcomes == [result]
    assert world.ledger.held == {}


def test_state_conflict_that_lasts_is_final(world: World) -> None:
    world.services.refuse(STATE_CONFLICT, times=None)

    result = published(world.settle())

    failed = failure(result)
    assert (failed.code, failed.kind, failed.retryable) == ("EndPoint.3045", Kind.CONFLICT, False)
    assert result.attempts == MAX_ATTEMPTS_AGAINST_STATE


def test_state_conflict_of_a_service_that_is_gone_by_then_is_not_found(world: World) -> None:
    world.services.refuse(STATE_CONFLICT, times=None)
    world.services.refuse(not_found(), on="read")

    assert failure(world.settle()).kind is Kind.NOT_FOUND


@pytest.mark.parametrize("unread", [refusal("EndPoint.1003", 400), unavailable()], ids=["for good", "for now"])
def test_state_conflict_of_a_service_that_cannot_be_read_is_unsettled(world: World, unread: Failure) -> None:
    world.services.refuse(STATE_CONFLICT, times=None)
    world.services.refuse(unread, on="read", times=None)

    code = unread.code if unread.retryable else STATE_CONFLICT.code
    assert unsettled(world.settle(), world).code == code


def test_state_conflict_that_ends_in_time_is_a_success(world: World) -> None:
    world.services.refuse(STATE_CONFLICT, times=MAX_ATTEMPTS_AGAINST_STATE - 1)

    assert success(world.settle())["attempts"] == MAX_ATTEMPTS_AGAINST_STATE


def test_state_conflict_that_time_was_too_short_for_is_unsettled(world: World) -> None:
    world.services.refuse(STATE_CONFLICT, times=None)

    assert unsettled(world.settle(seconds=MIN_CALL_SECONDS), world).code == "EndPoint.3045"


def test_invalid_event_fails_without_a_call(world: World) -> None:
    result = world.settle(world.invalid_event("not JSON"))

    assert (failure(result).code, failure(result).kind) == ("Rename.InvalidEvent", Kind.INVALID)
    assert failure(result).violations
    assert world.services.calls == []
    assert world.bus.outcomes == [result]


def test_project_that_is_judged_late_and_forbidden_is_invalid(world: World) -> None:
    # given: the policy let the event pass, since the key's own project was not known at the time
    world.services.lose_credentials(NO_KEY_NOW)
    event = world.event(project_id=OTHER_PROJECT)
    recovered = World()

    result = failure(recovered.settle(event))

    assert result.code == "Rename.InvalidEvent"
    assert [violation.path for violation in result.violations] == ["/data/project_id"]
    assert recovered.services.calls == []


def test_project_that_still_cannot_be_judged_is_unsettled(world: World) -> None:
    world.services.lose_credentials(NO_KEY_NOW)

    result = world.settle(world.event(project_id=OTHER_PROJECT))

    assert unsettled(result, world).code == "Rename.CredentialsUnavailable"
    assert world.services.calls == []


def test_attempts_are_repeated_until_one_succeeds(world: World) -> None:
    world.services.refuse(unavailable(), times=MAX_CALL_ATTEMPTS - 1)

    assert success(world.settle())["attempts"] == MAX_CALL_ATTEMPTS


@pytest.mark.parametrize(
    "failed",
    [unavailable(), throttled(), NEVER_SENT, refusal("EndPoint.2004", 400), refusal("EndPoint.0022", 400)],
    ids=code_of,
)
def test_attempts_have_a_maximum(world: World, failed: Failure) -> None:
    world.services.refuse(failed, times=None)

    result = world.settle(seconds=3_600)

    assert unsettled(result, world) == failed
    assert result.attempts == len(world.services.calls) == MAX_CALL_ATTEMPTS


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_backoff_has_full_jitter_and_grows_up_to_a_cap(world: World, share: float) -> None:
    world.services.refuse(unavailable(), times=None)
    world.jitter.share = share

    world.settle(seconds=3_600)

    lows, highs = zip(*world.jitter.ranges[: MAX_CALL_ATTEMPTS - 1], strict=True)
    assert set(lows) == {0}
    assert list(highs) == sorted(set(highs)), "each longer than the one before"
    assert highs[-1] <= BACKOFF_CAP_SECONDS
    assert world.clock.sleeps == [high * share for high in highs]


def test_attempts_end_when_the_next_would_not_fit(world: World) -> None:
    world.services.refuse(unavailable(), times=None, takes=2.0)

    assert unsettled(world.settle(seconds=5.0), world).code == "EndPoint.0001"
    assert world.clock.seconds <= 5.0
    assert len(world.services.calls) == 2


def test_last_reply_is_reported_rather_than_that_time_ran_out(world: World) -> None:
    # given: sleeping takes longer than asked, so that the next attempt has no time
    world.services.refuse(unavailable(), times=None)
    sleep = world.clock.sleep
    world.clock.sleep = lambda seconds: sleep(seconds + 10)  # type: ignore[method-assign]

    result = world.settle(seconds=8.0)

    assert unsettled(result, world).code == "EndPoint.0001"
    assert result.attempts == 1


@pytest.mark.parametrize("seconds", [MIN_CALL_SECONDS - 0.01, 0.0, -3.0])
def test_no_attempt_is_made_without_time(world: World, seconds: float) -> None:
    result = world.settle(seconds=seconds)

    assert unsettled(result, world).code == "Rename.NoTimeLeft"
    assert result.attempts == 0
    assert world.services.calls == []


@pytest.mark.parametrize("failed_before", [0, 1])
@pytest.mark.parametrize(
    "refused",
    [wrong_key(), refusal("EndPoint.0004", 403), refusal("EndPoint.0014", 400), refusal("APIGW.0101", 404), NO_KEY],
    ids=code_of,
)
def test_attempt_that_is_refused_access_is_never_repeated(world: World, refused: Failure, failed_before: int) -> None:
    world.services.refuse(unavailable(), times=failed_before)
    world.services.refuse(refused, times=None)

    assert unsettled(world.settle(seconds=3_600), world) == refused
    assert len(world.services.calls) == failed_before + 1
    assert len(world.clock.sleeps) == failed_before


def test_call_that_was_not_made_is_not_counted_as_an_attempt(world: World) -> None:
    # given: a key that was refused a moment ago, so that no call is made
    world.services.refuse(wrong_key()._replace(counts_as_attempt=False), times=None)

    assert world.settle().attempts == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(
    ("failed", "seconds"), [(throttled(retry_after=20.0), 20.0), (refusal("EndPoint.0001", 503, retry_after=7.0), 7.0)]
)
def test_retry_after_that_fits_is_waited_for(world: World, failed: Failure, seconds: float, share: float) -> None:
    world.services.refuse(failed)
    world.jitter.share = share

    success(world.settle(seconds=60.0))

    assert len(world.clock.sleeps) == 1
    assert world.clock.sleeps[0] >= seconds


@pytest.mark.parametrize("retry_after", [300.0, 60.0], ids=["too long", "no time for the call after it"])
def test_retry_after_that_does_not_fit_is_left_to_the_queue_at_once(world: World, retry_after: float) -> None:
    world.services.refuse(throttled(retry_after), times=None)

    result = unsettled(world.settle(seconds=60.0), world)

    assert (result.code, result.retry_after) == ("APIGW.0308", retry_after)
    assert len(world.services.calls) == 1
    assert world.clock.sleeps == []


def test_precondition_that_holds_lets_the_rename_pass(world: World) -> None:
    previous = full_name(SERVICE, world.services.names)

    data = success(world.settle(world.event(expected_name="billing")))

    assert operations(world) == ["read", "rename"]
    assert (data["previous_service_name"], data["attempts"]) == (previous, 1)


@pytest.mark.parametrize("expected", ["reports", REGION, f"other-{SERVICE}"], ids=["another name", "region", "id"])
def test_precondition_that_does_not_hold_settles_the_event(world: World, expected: str) -> None:
    """Region and id are parts of the full name, and not the name."""
    result = published(world.settle(world.event(expected_name=expected)))

    assert (failure(result).code, failure(result).kind) == ("Rename.PreconditionFailed", Kind.CONFLICT)
    assert not failure(result).retryable
    assert operations(world) == ["read"]
    assert world.services.names[SERVICE] == "billing"
    assert result.attempts == 0


def test_precondition_that_does_not_hold_names_a_service_of_any_length_within_the_limit(world: World) -> None:
    world.services.names[SERVICE] = "a" * 10_000

    result = published(world.settle(world.event(expected_name="billing")))

    assert len(failure(result).message) < 2 * MAX_SERVICE_NAME


@pytest.mark.parametrize(
    ("present", "expected", "holds"),
    [("orders", "billing", True), ("", "", True), ("billing", "", False)],
    ids=["has the new name already", "no name", "a name"],
)
def test_precondition_holds_for_the_expected_or_the_new_name(
    world: World, present: str, expected: str, holds: bool
) -> None:
    world.services.names[SERVICE] = present

    assert (published(world.settle(world.event(expected_name=expected))).failure is None) is holds


def test_precondition_on_a_service_that_does_not_exist_is_not_found(world: World) -> None:
    del world.services.names[SERVICE]

    assert failure(world.settle(world.event(expected_name="billing"))).code == "EndPoint.2003"
    assert world.services.calls_of("rename") == []


@pytest.mark.parametrize("code", ["EndPoint.0001", "Rename.UnconfirmedReply"], ids=["read fails", "read shows no name"])
def test_precondition_that_cannot_be_read_leaves_the_event_unsettled(world: World, code: str) -> None:
    if code == "EndPoint.0001":
        world.services.refuse(unavailable(), on="read", times=None)
    else:
        world.services.report(None, on="read", times=None)

    result = world.settle(world.event(expected_name="billing"))

    assert unsettled(result, world).code == code
    assert world.services.calls_of("rename") == []
    assert result.attempts == 0


@pytest.mark.parametrize("operation", ["rename", "read"])
@pytest.mark.parametrize("error", [RuntimeError("orders"), KeyError("x"), AssertionError(), RecursionError()])
def test_exception_in_a_call_leaves_the_event_unsettled(world: World, operation: str, error: Exception) -> None:
    world.services.crash(error, on=operation)

    result = world.settle(world.event(expected_name="billing"))

    failed = unsettled(result, world)
    assert (failed.code, failed.kind) == ("Rename.InternalError", Kind.INTERNAL)
    assert "orders" not in failed.message
    assert isinstance(result, Unsettled)
    assert result.cause is error


@pytest.mark.parametrize(
    ("step", "failed", "code", "calls"),
    [
        ("claim", TypeError("orders"), "Rename.InternalError", 0),
        ("claim", failures.ledger_unavailable("InternalServerError"), "Rename.LedgerUnavailable", 0),
        ("settle", TypeError("orders"), "Rename.InternalError", 1),
        ("settle", failures.claim_lost(), "Rename.ClaimLost", 1),
        ("publish", IndexError("orders"), "Rename.InternalError", 1),
        ("publish", None, "Rename.OutcomeNotPublished", 1),
    ],
)
def test_failed_step_of_ledger_or_bus_leaves_the_event_unsettled(
    world: World, step: str, failed: Any, code: str, calls: int
) -> None:
    if step != "publish":
        world.ledger.fail(step, failed)
    elif failed:
        world.bus.crash = failed
    else:
        world.bus.refuse()

    result = world.settle()

    assert unsettled(result, world).code == code
    assert result.attempts == len(world.services.calls) == calls


def test_service_that_is_being_renamed_is_not_renamed_by_another_event(world: World) -> None:
    during: list[Result] = []
    world.services.during = lambda _: during.append(world.settle(world.event(id="event-2"))) if not during else None

    success(world.settle())

    assert isinstance(during[0], Unsettled)
    assert during[0].failure.code == "Rename.InProgress"
    assert len(world.services.calls) == 1


def test_claim_of_an_unsettled_event_is_released(world: World) -> None:
    world.services.refuse(unavailable(), times=None)

    unsettled(world.settle(), world)

    assert world.journal == ["claimed", "released"]


def test_outcome_of_a_settled_event_is_published_again_without_a_call(world: World) -> None:
    first = published(world.settle())
    world.ledger.at_claim.append(Known(first, next_cycle=None))

    assert world.settle() == first
    assert world.bus.outcomes == [first, first]
    assert len(world.services.calls) == 1


def test_reused_identifier_fails_without_a_call(world: World) -> None:
    world.ledger.at_claim.append(Reused())

    result = failure(world.settle())

    assert (result.code, result.kind, result.retryable) == ("Rename.IdentifierReused", Kind.CONFLICT, False)
    assert world.services.calls == []
    assert world.ledger.outcomes == []


def test_identifier_that_is_reused_during_a_call_fails(world: World) -> None:
    world.ledger.at_remember.append(Reused())

    assert failure(world.settle()).code == "Rename.IdentifierReused"


def test_superseded_event_fails_without_a_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of this time only is judged: a copy with a later time may be newer than that rename."""
    conclude, restrictions = world.ledger.conclude, []

    def record(conclusion: Conclusion, deadline: Deadline) -> Any:
        restrictions.append(conclusion.require_same_time)
        return conclude(conclusion, deadline)

    monkeypatch.setattr(world.ledger, "conclude", record)
    world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), world.event()))

    result = world.settle()

    assert (failure(result).code, failure(result).kind) == ("Rename.Superseded", Kind.CONFLICT)
    assert "newer" in failure(result).message
    assert world.services.calls == []
    assert world.ledger.outcomes == world.bus.outcomes == [result]
    assert restrictions == [True]


def test_superseded_event_that_was_claimed_in_another_project_is_carried_out_there(world: World) -> None:
    event, elsewhere = world.event(), Target(REGION, OTHER_PROJECT, SERVICE)
    world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), event))
    world.ledger.at_remember.append(Located(elsewhere))

    success(world.settle(event))

    assert [call.target for call in world.services.calls] == [elsewhere]


def test_outcome_remembered_meanwhile_takes_precedence(world: World) -> None:
    other = published(World().settle(World().event(endpoint_service_name="other")))
    world.ledger.at_remember.append(Known(other, next_cycle=None))

    assert world.settle() == other
    assert world.bus.outcomes == [other]


def test_event_that_was_given_up_meanwhile_starts_the_next_cycle(world: World) -> None:
    given_up = published(world.give_up(Unsettled(unavailable())))
    world.ledger.at_remember.append(Known(given_up, RedriveCycle(1, given_up.id)))

    result = published(world.settle())

    assert success(result)["follows"] == given_up.id != result.id


def test_event_that_was_given_up_and_is_refused_by_the_settings_has_another_outcome(world: World) -> None:
    given_up = published(world.give_up(Unsettled(unavailable())))
    world.ledger.at_remember.append(Known(given_up, RedriveCycle(1, given_up.id)))

    result = published(world.settle(world.event().refused(FORBIDDEN_REGION)))

    assert failure(result).code == "Rename.InvalidEvent"
    assert result.cloud_event["data"]["follows"] == given_up.id != result.id


def test_event_that_is_given_up_fails_with_its_last_code(world: World) -> None:
    world.services.refuse(throttled(retry_after=300.0), times=None)
    last = world.settle()
    assert isinstance(last, Unsettled)

    result = published(world.give_up(last))

    assert (failure(result).code, failure(result).kind) == ("APIGW.0308", Kind.THROTTLED)
    assert failure(result).retryable
    data = result.cloud_event["data"]
    assert (data["attempts"], data["project_id"], data["huawei_request_id"]) == (1, PROJECT, "refused")
    assert data["error"]["http_status"] == 429
    assert world.bus.outcomes == world.ledger.outcomes == [result]
    assert len(world.services.calls) == 1


def test_giving_up_needs_no_key(world: World) -> None:
    world.services.lose_credentials(NO_KEY)

    result = published(world.give_up(Unsettled(NO_KEY)))

    assert (failure(result), result.cloud_event["data"]["project_id"]) == (NO_KEY, None)


def test_event_that_is_given_up_names_its_own_project(world: World) -> None:
    world.allowed_projects.add(OTHER_PROJECT)

    result = published(world.give_up(Unsettled(unavailable()), world.event(project_id=OTHER_PROJECT)))

    assert result.cloud_event["data"]["project_id"] == OTHER_PROJECT


def test_invalid_event_that_is_given_up_is_reported_as_invalid(world: World) -> None:
    result = world.give_up(Unsettled(failures.not_published("InternalFailure")), world.invalid_event())

    assert failure(result).code == "Rename.InvalidEvent"


def test_giving_up_an_event_that_was_settled_after_all_repeats_its_outcome(world: World) -> None:
    settled = published(world.settle())
    world.ledger.at_remember.append(Known(settled, next_cycle=None))

    assert world.give_up(Unsettled(unavailable())) == settled


@pytest.mark.parametrize(
    ("where", "code"), [(None, "OutcomeNotPublished"), ("bus", "InternalError"), ("ledger", "InternalError")]
)
def test_event_whose_giving_up_fails_is_unsettled(world: World, where: str | None, code: str) -> None:
    if where == "bus":
        world.bus.crash = IndexError("x")
    elif where == "ledger":
        world.ledger.fail("conclude", IndexError("x"))
    else:
        world.bus.refuse()

    result = world.give_up(Unsettled(unavailable(), attempts=3))

    assert unsettled(result, world).code == f"Rename.{code}"
    assert result.attempts == 3


FAILURES = [
    *(unavailable(), throttled(), throttled(retry_after=3.0), STATE_CONFLICT, NEVER_SENT),
    *(not_found(), wrong_key(), refusal("EndPoint.1003", 400)),
]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_replies_ends_in_time_and_in_no_false_success(data: st.DataObject) -> None:
    # given: any sequence of answers, each taking its time, in an invocation of any length
    world = World()
    budget = data.draw(st.floats(0, 40))
    world.jitter.share = data.draw(st.floats(0, 1))
    for _ in range(data.draw(st.integers(0, 8))):
        takes = data.draw(st.floats(0, 12))
        match data.draw(st.sampled_from(["refuse", "lose", "apply and lose", "report", "crash", "read"])):
            case "refuse":
                world.services.refuse(data.draw(st.sampled_from(FAILURES)), takes=takes)
            case "lose":
                world.services.lose_reply(applied=False, takes=takes)
            case "apply and lose":
                world.services.lose_reply(applied=True, takes=takes)
            case "report":
                applied = data.draw(st.booleans())
                world.services.report(data.draw(st.sampled_from([None, "", "billing", "a.billing.b"])), applied=applied)
            case "crash":
                world.services.crash(RuntimeError())
            case "read":
                world.services.refuse(data.draw(st.sampled_from(FAILURES)), on="read", takes=takes)
    event = world.event(**data.draw(st.sampled_from([{}, {"expected_name": "billing"}])))

    # when
    result = world.settle(event, seconds=budget, read_previous_name=data.draw(st.booleans()))

    # then
    assert world.clock.seconds <= budget + 1e-6
    crashed = isinstance(result, Unsettled) and result.cause is not None
    assert len(world.services.calls_of("rename")) - crashed <= result.attempts <= len(world.services.calls_of("rename"))
    assert result.attempts <= MAX_CALL_ATTEMPTS
    assert all(call.seconds <= MAX_CALL_SECONDS for call in world.services.calls)
    if isinstance(result, Unsettled):
        assert result.failure.retryable
        assert world.bus.outcomes == world.ledger.outcomes == []
    else:
        assert world.bus.outcomes == world.ledger.outcomes == [result]
        assert result.failure is None or not result.failure.retryable
        if result.failure is None:
            assert world.services.names[SERVICE] == "orders"
    # and: a refusal of the key was the last answer, but of a read that is for the outcome alone
    answers = world.services.answers[world.services.purposes[:1] == [ReadPurpose.OUTCOME] :]
    assert Kind.ACCESS not in [answer.kind for answer in answers[:-1] if answer]
