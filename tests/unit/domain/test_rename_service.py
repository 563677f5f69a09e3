"""The decision: what becomes of one rename event, whatever its collaborators do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import EventName, Failure, Kind
from function.domain.model import Outcome, RedriveCycle, Target
from function.domain.ports import Conclusion, Known, Located, ReadPurpose, Reused, Superseded
from function.domain.rename_service import Unsettled
from function.domain.service_calls import (
    BACKOFF_CAP_SECONDS,
    MAX_ATTEMPTS_AGAINST_STATE,
    MAX_CALL_ATTEMPTS,
    MAX_CALL_SECONDS,
)
from tests.fakes.endpoint_services import full_name
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT, REGION, SERVICE
from tests.fakes.world import World

TARGET = Target(REGION, PROJECT, SERVICE)
STATE_CONFLICT = refusal("EndPoint.3045", 400)
TIMED_OUT = failures.timeout(in_doubt=True)
NEVER_SENT = failures.connection_failed(in_doubt=False)


def success(result: Outcome | Unsettled) -> dict[str, Any]:
    """The data of a success."""
    assert isinstance(result, Outcome), result
    assert result.failure is None, result.failure
    assert result.type == "vpcep.endpoint_service.renamed.v1"
    data: dict[str, Any] = result.cloud_event["data"]
    return data


def failure(result: Outcome | Unsettled) -> Failure:
    """Of a settled event."""
    assert isinstance(result, Outcome), result
    assert result.failure is not None
    assert result.type == "vpcep.endpoint_service.rename_failed.v1"
    return result.failure


def unsettled(result: Outcome | Unsettled, world: World) -> Failure:
    """Of an event that goes back to the queue: nothing was said about it."""
    assert isinstance(result, Unsettled), result
    assert result.failure.retryable
    assert world.bus.outcomes == []
    return result.failure


class TestSuccess:
    def test_is_told_remembered_and_published(self, world: World) -> None:
        result = world.settle()

        data = success(result)
        assert world.services.names[SERVICE] == "orders"
        assert (data["service_name"], data["attempts"], data["huawei_request_id"]) == ("orders", 1, "request-1")
        assert (data["project_id"], data["region"], data["trigger"]) == (PROJECT, REGION, "sqs")
        assert "previous_service_name" not in data
        assert world.bus.outcomes == world.ledger.outcomes == [result]

    def test_is_remembered_before_it_is_published(self, world: World) -> None:
        world.settle()

        kind = "vpcep.endpoint_service.renamed.v1"
        assert world.journal == ["claimed", f"remembered {kind}", f"published {kind}"]

    def test_takes_one_call_with_time_left_for_a_read(self, world: World) -> None:
        world.settle(seconds=6.0)

        call = world.services.calls[0]
        assert (call.operation, call.target, call.name) == ("rename", TARGET, "orders")
        assert call.seconds == pytest.approx(4.0)
        assert len(world.services.calls) == 1

    def test_takes_no_call_longer_than_a_call_may_take(self, world: World) -> None:
        world.settle(seconds=900.0)

        assert world.services.calls[0].seconds == MAX_CALL_SECONDS

    def test_of_another_project_is_called_there(self, world: World) -> None:
        world.allowed_projects.add(OTHER_PROJECT)

        data = success(world.settle(world.event(project_id=OTHER_PROJECT)))

        assert world.services.calls[0].target.project_id == OTHER_PROJECT
        assert data["project_id"] == OTHER_PROJECT


class TestProof:
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
    def test_is_a_reply_that_names_the_new_name(self, world: World, reported: str, name: str) -> None:
        world.services.report(reported)

        data = success(world.settle(world.event(endpoint_service_name=name)))

        assert data["service_name"] == reported
        assert world.services.calls_of("read") == []

    @pytest.mark.parametrize(
        "reported",
        [
            None,
            "",
            "billing",
            "orders2",
            "Orders",
            "orders ",
            "cn-north-4.billing.orders",
            "orders.billing.77e4",
            "cn-north-4.orders",
            "orders.77e4",
            "cn-north-4.orders.billing.77e4",
            "..",
        ],
    )
    def test_is_no_other_reply(self, world: World, reported: str | None) -> None:
        # given: a reply without an error, to a rename that did not happen
        world.services.report(reported, applied=False, times=None)

        result = unsettled(world.settle(), world)

        assert (result.code, result.huawei_request_id) == ("Rename.UnconfirmedReply", "reported")

    def test_of_the_empty_name_is_not_a_reply_without_one(self, world: World) -> None:
        world.services.report(None, applied=False, times=None)

        unsettled(world.settle(world.event(endpoint_service_name="")), world)

    def test_may_come_from_a_read_after_a_reply_that_proves_nothing(self, world: World) -> None:
        world.services.report(None, applied=True)

        data = success(world.settle())

        assert data["service_name"] == full_name(SERVICE, world.services.names)
        assert data["attempts"] == 1


class TestDoubt:
    """A rename whose reply was lost is decided by one read."""

    @pytest.mark.parametrize(
        "doubt",
        [
            TIMED_OUT,
            failures.connection_failed(in_doubt=True),
            failures.unconfirmed_reply(status=200, huawei_request_id=None),
            refusal("EndPoint.0013", 504),
            refusal("APIGW.0201", 504),
        ],
        ids=lambda doubt: doubt.code,
    )
    def test_ends_in_success_where_the_read_shows_the_new_name(self, world: World, doubt: Failure) -> None:
        world.services.lose_reply(applied=True, failure=doubt)

        data = success(world.settle())

        assert [call.operation for call in world.services.calls] == ["rename", "read"]
        assert (data["service_name"], data["attempts"]) == (full_name(SERVICE, world.services.names), 1)
        assert data["huawei_request_id"] == "request-2"

    def test_ends_in_another_attempt_where_the_read_shows_the_old_name(self, world: World) -> None:
        world.services.lose_reply(applied=False)

        data = success(world.settle())

        assert [call.operation for call in world.services.calls] == ["rename", "read", "rename"]
        assert data["attempts"] == 2

    @pytest.mark.parametrize("read_fails", [unavailable(), TIMED_OUT, throttled(), NEVER_SENT], ids=lambda f: f.code)
    def test_stays_where_the_read_fails_too(self, world: World, read_fails: Failure) -> None:
        world.services.lose_reply(applied=True, times=None)
        world.services.refuse(read_fails, on="read", times=None)

        result = unsettled(world.settle(), world)

        # then: what is reported is the rename's own failure, and each doubt was read once
        assert result.code == "Rename.Timeout"
        assert len(world.services.calls_of("read")) == len(world.services.calls_of("rename")) == MAX_CALL_ATTEMPTS

    def test_stays_where_the_read_names_nothing(self, world: World) -> None:
        world.services.lose_reply(applied=False, times=None)
        world.services.report(None, on="read", times=None)

        assert unsettled(world.settle(), world).code == "Rename.Timeout"

    def test_ends_where_the_read_says_not_found(self, world: World) -> None:
        world.services.lose_reply(applied=False)
        world.services.refuse(not_found(), on="read")

        result = failure(world.settle())

        assert (result.code, result.kind, result.retryable) == ("EndPoint.2003", Kind.NOT_FOUND, False)
        assert len(world.services.calls) == 2

    def test_ends_in_an_access_failure_where_the_read_is_refused(self, world: World) -> None:
        world.services.lose_reply(applied=False)
        world.services.refuse(wrong_key(), on="read")

        assert unsettled(world.settle(), world).kind is Kind.ACCESS
        assert len(world.services.calls) == 2

    def test_leaves_the_claim_to_lapse_since_the_call_may_yet_take_effect(self, world: World) -> None:
        world.services.lose_reply(applied=False, times=None)

        unsettled(world.settle(), world)

        assert TARGET in world.ledger.held

    def test_leaves_the_claim_to_lapse_even_where_a_later_attempt_succeeds(self, world: World) -> None:
        world.services.lose_reply(applied=False)

        success(world.settle())

        assert TARGET in world.ledger.held

    def test_that_the_read_has_not_ended_is_not_ended_by_the_next_ones(self, world: World) -> None:
        # given: the first call may yet take effect, the second has
        world.services.lose_reply(applied=False)
        world.services.lose_reply(applied=True)

        success(world.settle())

        assert TARGET in world.ledger.held

    def test_leaves_the_claim_to_lapse_even_where_the_read_shows_the_name(self, world: World) -> None:
        """The service may have borne it before, and the call may yet come after somebody else's."""
        world.services.lose_reply(applied=True)

        success(world.settle())

        assert world.ledger.held != {}

    def test_does_not_arise_of_a_failure_that_says_so(self, world: World) -> None:
        world.services.refuse(unavailable(), times=2)

        success(world.settle())

        assert world.services.calls_of("read") == []


class TestFinalFailures:
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
        ids=lambda value: value.code if isinstance(value, Failure) else "",
    )
    def test_settle_the_event_at_once(self, world: World, failed: Failure, kind: Kind) -> None:
        world.services.refuse(failed, times=None)

        result = world.settle()

        assert failure(result) == failed
        assert isinstance(result, Outcome)
        error = result.cloud_event["data"]["error"]
        assert (error["code"], error["kind"], error["retryable"]) == (failed.code, kind, False)
        assert error["http_status"] == failed.http_status
        assert result.cloud_event["data"]["huawei_request_id"] == failed.huawei_request_id
        assert (result.attempts, world.clock.sleeps) == (1, [])
        assert world.bus.outcomes == world.ledger.outcomes == [result]
        assert world.ledger.held == {}

    def test_include_a_state_that_does_not_change_in_a_few_attempts(self, world: World) -> None:
        world.services.refuse(STATE_CONFLICT, times=None)

        result = world.settle()

        assert (failure(result).code, failure(result).kind) == ("EndPoint.3045", Kind.CONFLICT)
        assert not failure(result).retryable
        assert isinstance(result, Outcome)
        assert result.attempts == MAX_ATTEMPTS_AGAINST_STATE

    def test_of_a_state_are_told_as_not_found_where_the_service_is_gone_by_then(self, world: World) -> None:
        world.services.refuse(STATE_CONFLICT, times=None)
        world.services.refuse(not_found(), on="read")

        assert failure(world.settle()).kind is Kind.NOT_FOUND

    @pytest.mark.parametrize("unread", [refusal("EndPoint.1003", 400), unavailable()], ids=["for good", "for now"])
    def test_do_not_include_a_state_whose_name_cannot_be_read(self, world: World, unread: Failure) -> None:
        world.services.refuse(STATE_CONFLICT, times=None)
        world.services.refuse(unread, on="read", times=None)

        code = unread.code if unread.retryable else STATE_CONFLICT.code
        assert unsettled(world.settle(), world).code == code

    def test_do_not_include_a_state_that_changes_in_time(self, world: World) -> None:
        world.services.refuse(STATE_CONFLICT, times=MAX_ATTEMPTS_AGAINST_STATE - 1)

        assert success(world.settle())["attempts"] == MAX_ATTEMPTS_AGAINST_STATE

    def test_do_not_include_a_state_that_time_was_too_short_for(self, world: World) -> None:
        world.services.refuse(STATE_CONFLICT, times=None)

        result = world.settle(seconds=MIN_CALL_SECONDS)

        assert unsettled(result, world).code == "EndPoint.3045"

    def test_of_an_invalid_event_take_no_call(self, world: World) -> None:
        result = world.settle(world.invalid_event("not JSON"))

        assert (failure(result).code, failure(result).kind) == ("Rename.InvalidEvent", Kind.INVALID)
        assert failure(result).violations
        assert world.services.calls == []
        assert world.bus.outcomes == [result]

    def test_of_a_project_that_the_parser_could_not_judge_take_no_call(self, world: World) -> None:
        # given: the parser let the event pass, since the key's own project was not known at the time
        world.services.lose_credentials(failures.credentials("Down.", kind=Kind.UNAVAILABLE))
        event = world.event(project_id=OTHER_PROJECT)

        # when: it can be told
        recovered = World()
        result = recovered.settle(event)

        # then
        assert failure(result).code == "Rename.InvalidEvent"
        assert [violation.path for violation in failure(result).violations] == ["/data/project_id"]
        assert recovered.services.calls == []

    def test_of_a_project_that_still_cannot_be_judged_wait(self, world: World) -> None:
        world.services.lose_credentials(failures.credentials("Down.", kind=Kind.UNAVAILABLE))

        result = world.settle(world.event(project_id=OTHER_PROJECT))

        assert unsettled(result, world).code == "Rename.CredentialsUnavailable"
        assert world.services.calls == []


class TestAttempts:
    def test_are_repeated_until_one_succeeds(self, world: World) -> None:
        world.services.refuse(unavailable(), times=MAX_CALL_ATTEMPTS - 1)

        assert success(world.settle())["attempts"] == MAX_CALL_ATTEMPTS

    @pytest.mark.parametrize(
        "failed",
        [unavailable(), throttled(), NEVER_SENT, refusal("EndPoint.2004", 400), refusal("EndPoint.0022", 400)],
        ids=lambda failed: failed.code,
    )
    def test_are_bounded_by_their_number(self, world: World, failed: Failure) -> None:
        world.services.refuse(failed, times=None)

        result = world.settle(seconds=3_600)

        assert unsettled(result, world) == failed
        assert result.attempts == len(world.services.calls) == MAX_CALL_ATTEMPTS

    def test_wait_with_full_jitter_that_grows_up_to_a_cap(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        world.settle(seconds=3_600)

        lows, highs = zip(*world.jitter.ranges[: MAX_CALL_ATTEMPTS - 1], strict=True)
        assert set(lows) == {0}
        assert list(highs) == sorted(set(highs)), "each longer than the one before"
        assert highs[-1] <= BACKOFF_CAP_SECONDS
        assert world.clock.sleeps == list(highs)

    def test_wait_as_the_jitter_says(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)
        world.jitter.share = 0.0

        world.settle(seconds=3_600)

        assert set(world.clock.sleeps) == {0.0}

    def test_end_when_the_next_would_not_fit(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None, takes=2.0)

        result = world.settle(seconds=5.0)

        assert unsettled(result, world).code == "EndPoint.0001"
        assert world.clock.seconds <= 5.0
        assert len(world.services.calls) == 2

    def test_report_the_last_answer_rather_than_that_time_ran_out(self, world: World) -> None:
        # given: sleeping takes longer than asked, so that the next attempt has no time
        world.services.refuse(unavailable(), times=None)
        sleep = world.clock.sleep
        world.clock.sleep = lambda seconds: sleep(seconds + 10)  # type: ignore[method-assign]

        result = world.settle(seconds=8.0)

        assert unsettled(result, world).code == "EndPoint.0001"
        assert result.attempts == 1

    @pytest.mark.parametrize("seconds", [MIN_CALL_SECONDS - 0.01, 0.0, -3.0])
    def test_are_not_begun_without_time(self, world: World, seconds: float) -> None:
        result = world.settle(seconds=seconds)

        assert unsettled(result, world).code == "Rename.NoTimeLeft"
        assert result.attempts == 0
        assert world.services.calls == []

    @pytest.mark.parametrize(
        "refused",
        [
            wrong_key(),
            refusal("EndPoint.0004", 403),
            refusal("EndPoint.0014", 400),
            refusal("APIGW.0101", 404),
            failures.credentials("Gone.", kind=Kind.ACCESS),
        ],
        ids=lambda refused: refused.code,
    )
    def test_are_never_repeated_after_a_refusal(self, world: World, refused: Failure) -> None:
        world.services.refuse(refused, times=None)

        result = world.settle(seconds=3_600)

        assert unsettled(result, world) == refused
        assert len(world.services.calls) == 1
        assert world.clock.sleeps == []

    def test_count_only_calls_that_were_made(self, world: World) -> None:
        # given: a key that was refused a moment ago, so that nobody is called
        world.services.refuse(replace(wrong_key(), counts_as_attempt=False), times=None)

        assert world.settle().attempts == 0

    def test_end_at_a_refusal_that_comes_second(self, world: World) -> None:
        world.services.refuse(unavailable())
        world.services.refuse(wrong_key(), times=None)

        assert unsettled(world.settle(), world).kind is Kind.ACCESS
        assert len(world.services.calls) == 2


class TestThrottleWindow:
    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_that_fits_is_waited_for(self, world: World, share: float) -> None:
        world.services.refuse(throttled(retry_after=20.0))
        world.jitter.share = share

        success(world.settle(seconds=60.0))

        assert len(world.clock.sleeps) == 1
        assert world.clock.sleeps[0] >= 20.0

    def test_that_does_not_fit_is_left_to_the_queue_at_once(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=300.0), times=None)

        result = unsettled(world.settle(seconds=60.0), world)

        assert (result.code, result.retry_after) == ("APIGW.0308", 300.0)
        assert len(world.services.calls) == 1
        assert world.clock.sleeps == []

    def test_that_fits_without_the_call_after_it_does_not_fit(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=60.0), times=None)

        unsettled(world.settle(seconds=60.0), world)

        assert world.clock.sleeps == []

    def test_of_another_kind_of_failure_is_respected_too(self, world: World) -> None:
        world.services.refuse(refusal("EndPoint.0001", 503, retry_after=7.0))

        success(world.settle())

        assert world.clock.sleeps[0] >= 7.0


class TestPrecondition:
    def test_that_holds_lets_the_rename_pass(self, world: World) -> None:
        previous = full_name(SERVICE, world.services.names)

        data = success(world.settle(world.event(expected_name="billing")))

        assert [call.operation for call in world.services.calls] == ["read", "rename"]
        assert (data["previous_service_name"], data["attempts"]) == (previous, 1)

    def test_that_does_not_hold_settles_the_event(self, world: World) -> None:
        result = world.settle(world.event(expected_name="reports"))

        assert (failure(result).code, failure(result).kind) == ("Rename.PreconditionFailed", Kind.CONFLICT)
        assert not failure(result).retryable
        assert world.services.calls_of("rename") == []
        assert world.services.names[SERVICE] == "billing"
        assert isinstance(result, Outcome)
        assert result.attempts == 0

    def test_lets_a_rename_pass_that_had_happened_before_it_was_known(self, world: World) -> None:
        world.services.names[SERVICE] = "orders"

        success(world.settle(world.event(expected_name="billing")))

    @pytest.mark.parametrize(("present", "holds"), [("", True), ("billing", False)])
    def test_may_be_that_there_is_no_name(self, world: World, present: str, holds: bool) -> None:
        world.services.names[SERVICE] = present

        result = world.settle(world.event(expected_name=""))

        assert isinstance(result, Outcome)
        assert (result.failure is None) is holds

    def test_does_not_hold_by_the_region_or_the_id_of_the_full_name(self, world: World) -> None:
        for part in (REGION, f"other-{SERVICE}"):
            assert failure(world.settle(world.event(expected_name=part))).code == "Rename.PreconditionFailed"

    def test_of_a_service_that_is_not_there_is_not_found(self, world: World) -> None:
        del world.services.names[SERVICE]

        assert failure(world.settle(world.event(expected_name="billing"))).code == "EndPoint.2003"
        assert world.services.calls_of("rename") == []

    def test_that_cannot_be_read_leaves_the_event_unsettled(self, world: World) -> None:
        world.services.refuse(unavailable(), on="read", times=None)

        result = world.settle(world.event(expected_name="billing"))

        assert unsettled(result, world).code == "EndPoint.0001"
        assert world.services.calls_of("rename") == []
        assert result.attempts == 0

    def test_whose_read_names_nothing_leaves_the_event_unsettled(self, world: World) -> None:
        world.services.report(None, on="read", times=None)

        result = world.settle(world.event(expected_name="billing"))

        assert unsettled(result, world).code == "Rename.UnconfirmedReply"
        assert world.services.calls_of("rename") == []

    def test_is_read_again_where_the_first_read_fails(self, world: World) -> None:
        world.services.refuse(unavailable(), on="read")

        success(world.settle(world.event(expected_name="billing")))

        assert [call.operation for call in world.services.calls] == ["read", "read", "rename"]


class TestPreviousName:
    def test_is_read_first_where_it_is_wanted(self, world: World) -> None:
        previous = full_name(SERVICE, world.services.names)

        data = success(world.settle(read_previous_name=True))

        assert [call.operation for call in world.services.calls] == ["read", "rename"]
        assert data["previous_service_name"] == previous

    def test_does_not_stand_in_the_way_of_the_rename(self, world: World) -> None:
        world.services.names[SERVICE] = "anything"

        success(world.settle(read_previous_name=True))

    def test_is_not_read_where_it_is_not_wanted(self, world: World) -> None:
        world.settle()

        assert world.services.calls_of("read") == []


class TestUnexpected:
    @pytest.mark.parametrize("operation", ["rename", "read"])
    @pytest.mark.parametrize("error", [RuntimeError("orders"), KeyError("x"), AssertionError(), RecursionError()])
    def test_exceptions_of_a_call_leave_the_event_unsettled(
        self, world: World, operation: str, error: Exception
    ) -> None:
        world.services.crash(error, on=operation)

        result = world.settle(world.event(expected_name="billing"))

        failed = unsettled(result, world)
        assert (failed.code, failed.kind) == ("Rename.InternalError", Kind.INTERNAL)
        assert isinstance(result, Unsettled)
        assert result.cause is error

    @pytest.mark.parametrize("step", ["claim", "settle"])
    def test_exceptions_of_the_ledger_do_too(self, world: World, step: str) -> None:
        world.ledger.fail(step, TypeError("orders"))

        assert unsettled(world.settle(), world).code == "Rename.InternalError"

    def test_exceptions_of_the_bus_do_too(self, world: World) -> None:
        world.bus.crash = IndexError("orders")

        assert unsettled(world.settle(), world).code == "Rename.InternalError"

    def test_exceptions_are_not_repeated_to_anybody(self, world: World) -> None:
        world.services.crash(RuntimeError("orders"))

        assert "orders" not in unsettled(world.settle(), world).message


class TestPublishing:
    def test_that_fails_leaves_the_event_unsettled(self, world: World) -> None:
        world.bus.refuse()

        result = world.settle()

        assert unsettled(result, world).code == "Rename.OutcomeNotPublished"
        assert result.attempts == 1

    def test_of_a_failure_that_fails_leaves_the_event_unsettled(self, world: World) -> None:
        world.bus.refuse()

        assert unsettled(world.settle(world.invalid_event()), world).code == "Rename.OutcomeNotPublished"


class TestLedger:
    def test_that_cannot_be_reached_means_no_call(self, world: World) -> None:
        world.ledger.fail("claim", failures.ledger_unavailable("InternalServerError"))

        assert unsettled(world.settle(), world).code == "Rename.LedgerUnavailable"
        assert world.services.calls == []

    def test_that_does_not_remember_means_no_outcome(self, world: World) -> None:
        world.ledger.fail("settle", failures.claim_lost())

        assert unsettled(world.settle(), world).code == "Rename.ClaimLost"

    def test_lets_nobody_rename_a_service_that_is_being_renamed(self, world: World) -> None:
        # given
        during: list[Outcome | Unsettled] = []
        world.services.during = lambda _: during.append(world.settle(world.event(id="event-2"))) if not during else None

        # when
        success(world.settle())

        # then
        assert isinstance(during[0], Unsettled)
        assert during[0].failure.code == "Rename.InProgress"
        assert len(world.services.calls) == 1

    def test_is_told_that_the_service_is_free_where_the_event_is_unsettled(self, world: World) -> None:
        world.services.refuse(unavailable(), times=None)

        unsettled(world.settle(), world)

        assert world.journal == ["claimed", "released"]

    def test_that_knows_the_outcome_has_it_published_again_without_a_call(self, world: World) -> None:
        first = world.settle()
        assert isinstance(first, Outcome)
        world.ledger.at_claim.append(Known(first, next_cycle=None))

        again = world.settle()

        assert again == first
        assert world.bus.outcomes == [first, first]
        assert len(world.services.calls) == 1

    def test_that_knows_another_event_of_that_name_fails_this_one(self, world: World) -> None:
        world.ledger.at_claim.append(Reused())

        result = failure(world.settle())

        assert (result.code, result.kind, result.retryable) == ("Rename.IdentifierReused", Kind.CONFLICT, False)
        assert world.services.calls == []
        assert world.ledger.outcomes == []

    def test_that_knows_a_newer_rename_fails_this_one(self, world: World) -> None:
        world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), world.event()))

        result = world.settle()

        assert (failure(result).code, failure(result).kind) == ("Rename.Superseded", Kind.CONFLICT)
        assert "newer" in failure(result).message
        assert world.services.calls == []
        assert world.ledger.outcomes == world.bus.outcomes == [result]

    def test_that_knows_a_newer_rename_judges_an_event_of_this_time_only(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy with a later time may be newer than that rename."""
        conclude, restrictions = world.ledger.conclude, []

        def record(conclusion: Conclusion, deadline: Deadline) -> Any:
            restrictions.append(conclusion.require_same_time)
            return conclude(conclusion, deadline)

        monkeypatch.setattr(world.ledger, "conclude", record)
        world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), world.event()))

        world.settle()

        assert restrictions == [True]

    def test_that_was_told_something_else_meanwhile_wins(self, world: World) -> None:
        other = World().settle(World().event(endpoint_service_name="other"))
        assert isinstance(other, Outcome)
        world.ledger.at_remember.append(Known(other, next_cycle=None))

        assert world.settle() == other
        assert world.bus.outcomes == [other]

    def test_where_the_event_was_given_up_meanwhile_starts_the_next_round(self, world: World) -> None:
        given_up = world.give_up(Unsettled(unavailable()))
        assert isinstance(given_up, Outcome)
        world.ledger.at_remember.append(Known(given_up, RedriveCycle(1, given_up.id)))

        result = world.settle()

        assert success(result)["follows"] == given_up.id
        assert isinstance(result, Outcome)
        assert result.id != given_up.id


class TestGivingUp:
    def test_publishes_a_retryable_failure_with_the_last_code(self, world: World) -> None:
        world.services.refuse(throttled(retry_after=300.0), times=None)
        last = world.settle()
        assert isinstance(last, Unsettled)

        result = world.give_up(last)

        assert (failure(result).code, failure(result).kind) == ("APIGW.0308", Kind.THROTTLED)
        assert failure(result).retryable
        assert isinstance(result, Outcome)
        data = result.cloud_event["data"]
        assert (data["attempts"], data["project_id"], data["huawei_request_id"]) == (1, PROJECT, "refused")
        assert data["error"]["http_status"] == 429
        assert world.bus.outcomes == world.ledger.outcomes == [result]

    def test_makes_no_call(self, world: World) -> None:
        world.give_up(Unsettled(unavailable(), attempts=3))

        assert world.services.calls == []

    def test_works_where_the_key_is_what_is_missing(self, world: World) -> None:
        gone = failures.credentials("Gone.", kind=Kind.ACCESS)
        world.services.lose_credentials(gone)

        result = world.give_up(Unsettled(gone))

        assert failure(result) == gone
        assert isinstance(result, Outcome)
        assert result.cloud_event["data"]["project_id"] is None

    def test_names_the_project_of_the_event(self, world: World) -> None:
        world.allowed_projects.add(OTHER_PROJECT)

        result = world.give_up(Unsettled(unavailable()), world.event(project_id=OTHER_PROJECT))

        assert isinstance(result, Outcome)
        assert result.cloud_event["data"]["project_id"] == OTHER_PROJECT

    def test_an_invalid_event_says_that_it_is_invalid(self, world: World) -> None:
        result = world.give_up(Unsettled(failures.not_published("InternalFailure")), world.invalid_event())

        assert failure(result).code == "Rename.InvalidEvent"

    def test_an_event_that_was_settled_after_all_repeats_its_outcome(self, world: World) -> None:
        settled = world.settle()
        assert isinstance(settled, Outcome)
        world.ledger.at_remember.append(Known(settled, next_cycle=None))

        assert world.give_up(Unsettled(unavailable())) == settled

    def test_that_cannot_be_published_leaves_the_event_unsettled(self, world: World) -> None:
        world.bus.refuse()

        result = world.give_up(Unsettled(unavailable(), attempts=3))

        assert unsettled(result, world).code == "Rename.OutcomeNotPublished"
        assert result.attempts == 3

    @pytest.mark.parametrize("where", ["bus", "ledger"])
    def test_never_raises(self, world: World, where: str) -> None:
        if where == "bus":
            world.bus.crash = IndexError("x")
        else:
            world.ledger.fail("conclude", IndexError("x"))

        assert unsettled(world.give_up(Unsettled(unavailable())), world).code == "Rename.InternalError"


ANSWERS = [
    unavailable(),
    throttled(),
    throttled(retry_after=3.0),
    STATE_CONFLICT,
    NEVER_SENT,
    not_found(),
    wrong_key(),
    refusal("EndPoint.1003", 400),
]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_happens_time_holds_and_no_success_is_false(data: st.DataObject) -> None:
    # given: any sequence of answers, each taking its time, in an invocation of any length
    world = World()
    budget = data.draw(st.floats(0, 40))
    world.jitter.share = data.draw(st.floats(0, 1))
    for _ in range(data.draw(st.integers(0, 8))):
        takes = data.draw(st.floats(0, 12))
        match data.draw(st.sampled_from(["refuse", "lose", "apply and lose", "report", "crash", "read"])):
            case "refuse":
                world.services.refuse(data.draw(st.sampled_from(ANSWERS)), takes=takes)
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
                world.services.refuse(data.draw(st.sampled_from(ANSWERS)), on="read", takes=takes)
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


def test_superseded_in_another_project_than_it_was_claimed_for_is_carried_out_there(world: World) -> None:
    event, elsewhere = world.event(), Target(REGION, OTHER_PROJECT, SERVICE)
    world.ledger.at_claim.append(Superseded(EventName("/cmdb", "newer"), RedriveCycle(), event))
    world.ledger.at_remember.append(Located(elsewhere))

    success(world.settle(event))

    assert [call.target for call in world.services.calls] == [elsewhere]
