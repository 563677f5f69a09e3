"""Broken variants of the function, each of which the simulation must catch; without them its success proves nothing.

Each variant removes one thing that an invariant depends on, and names the invariants that may be the first to break.
Where a change to the function makes a variant correct again, the test that it is caught fails.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple, cast

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger
from function.adapters.circuit_breaker import OutageBreaker
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.event_parser import EventParser
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RenameEvent
from function.domain.policy import Policy
from function.domain.ports import Claim, Reply
from function.domain.rename_service import RenameService
from function.domain.service_calls import ServiceCalls
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from tests.faults.clouds import Bus, Huawei, running
from tests.faults.environments import Build
from tests.faults.ledger_v1 import Update, edited, in_whole_microseconds, remembers, without_target


class Variant(NamedTuple):
    """A broken function.

    Attributes:
        invariants: one of these is the first to break.
    """

    build: Build
    invariants: set[int]


# ---- The ledger


def _ledger(edit: Callable[[dict[str, Any], bool], object]) -> Build:
    return Build(ledger=edited(DynamoDbLedger, edit))


def _replaced(expression: str, text: str, by: str) -> Build:
    """Another text in an expression."""

    def edit(request: dict[str, Any], is_claim: bool) -> None:
        request[expression] = request.get(expression, "attribute_exists(id)").replace(text, by)

    return _ledger(edit)


def _without_event_check(request: dict[str, Any], is_claim: bool) -> None:
    if is_claim and request["Key"]["id"]["S"].startswith("event#"):
        request["ConditionExpression"] = "attribute_exists(id) OR attribute_not_exists(id)"


def _remembering_elsewhere(request: dict[str, Any], is_claim: bool) -> None:
    if remembers(request):
        request["Key"] = {"id": {"S": "elsewhere"}}
        request["ConditionExpression"] = "attribute_exists(id) OR attribute_not_exists(id)"


class _RemembersNoGivenUp(DynamoDbLedger):
    def conclude(self, *_: Any, **__: Any) -> None:
        pass


def _claims_until(expires_at: Callable[[Deadline], float]) -> Build:
    """Another time at which claims expire."""

    class Edited(DynamoDbLedger):
        def claim(self, event: RenameEvent, target: Any, deadline: Deadline, *args: Any) -> Any:
            ends_at = expires_at(deadline) - CLAIM_SLACK_SECONDS
            return super().claim(event, target, deadline._replace(invocation_ends_at=ends_at), *args)

    return Build(ledger=Edited)


class _SettlesAndReleasesInDoubt(DynamoDbLedger):
    def settle(self, *args: Any, release: bool) -> Any:
        return super().settle(*args, release=True)


class _TakesOverClaimOfSameEvent(DynamoDbLedger):
    """An event takes over the claim that an earlier invocation has for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._holders: dict[str, str] = {}
        self._claiming = ""

    def claim(self, event: RenameEvent, *args: Any) -> Any:
        self._claiming = f"{event.source} {event.id}"
        return super().claim(event, *args)

    def _write(self, deadline: Deadline, *updates: Update) -> Any:
        claims = [update for update in updates if ":lapses" in update["ExpressionAttributeValues"]]
        if not claims:
            return super()._write(deadline, *updates)
        holder, service = self._claiming, claims[0]["Key"]["id"]["S"]
        if self._holders.get(service) == holder:
            condition = claims[0]["ConditionExpression"].replace("lapses < :now", "attribute_exists(lapses)")
            updates = (updates[0], {**claims[0], "ConditionExpression": condition})
        refused = super()._write(deadline, *updates)
        if refused is None:
            self._holders[service] = holder
        return refused


class _TreatsIdsAsCaseSensitive(DynamoDbLedger):
    """The ids of a service in upper and in lower case have a claim each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._id = ""

    def claim(self, event: RenameEvent, target: Any, *args: Any) -> Any:
        self._id = event.vpc_endpoint_service_id
        return super().claim(event, target, *args)

    def settle(self, claim: Any, *args: Any, **kwargs: Any) -> Any:
        self._id = claim.target.vpc_endpoint_service_id
        return super().settle(claim, *args, **kwargs)

    def _write(self, deadline: Deadline, *updates: Update) -> Any:
        copies = [dict(update) for update in updates]
        for copy in copies:
            if copy["Key"]["id"]["S"].startswith("service#"):
                place = copy["Key"]["id"]["S"].rpartition("/")[0]
                copy["Key"] = {"id": {"S": f"{place}/{self._id}"}}
        return super()._write(deadline, *copies)


# ---- The calls


class _LosesDoubtToAnOpenBreaker(OutageBreaker):
    """A call fails with the breaker's failure where another invocation has opened it meanwhile."""

    def rename(self, target: Any, name: str, deadline: Deadline) -> Reply:
        try:
            return super().rename(target, name, deadline)
        except RenameFailedError as error:
            if error.failure.kind is Kind.UNAVAILABLE and self.is_recorded(target.region, deadline):
                raise RenameFailedError(failures.outage()) from None
            raise


class _CountsCallsNotMade(Huawei):
    """A call that was not made counts as an attempt."""

    def _draw(self, *args: Any) -> str:
        try:
            return super()._draw(*args)
        except RenameFailedError as error:
            raise RenameFailedError(error.failure._replace(counts_as_attempt=True)) from None


class _Takes5xxAsFinal(Huawei):
    """No rename takes effect after an error reply other than 504."""

    def _response(self, *args: Any, **options: Any) -> Reply:
        try:
            return super()._response(*args, **options)
        except RenameFailedError as error:
            if error.failure.http_status in (500, 502, 503):
                raise RenameFailedError(error.failure._replace(in_doubt=False)) from None
            raise


class _SendsAfterDeadline(Huawei):
    """A thread that got no connection in time gets one later, and sends its request."""

    def rename(self, target: Any, name: str, deadline: Deadline) -> Reply:
        world, invocation = self.world, running(self.world)
        request = cast("RenameEvent", invocation.event).cloud_event
        service = self.invariants.service(target.project_id, target.vpc_endpoint_service_id)

        def send() -> None:
            rename = self.invariants.rename_called(service, request, invocation)
            self._apply(rename)

        try:
            return super().rename(target, name, deadline)
        except RenameFailedError as error:
            if error.failure.code == "Rename.ConnectionFailed" and not error.failure.in_doubt:
                world.after(world.random.uniform(0, 300), send)
            raise


# ---- The rename service


class _ReleasesInDoubt(RenameService):
    """Releases the claim although the rename may still take effect."""

    def _carry_out(self, claim: Any, attempt: Any) -> Outcome:
        try:
            return super()._carry_out(claim, attempt)
        except RenameFailedError:
            self.ledger.release(claim, attempt.deadline.to_report())
            raise


class _TakesDoubtAsSuccess(ServiceCalls):
    def _read_in_doubt(self, target: Any, attempt: Any, doubt: Failure) -> Reply:
        return Reply(attempt.event.endpoint_service_name, 200, None)


class _TakesDoubtAsFailure(RenameService):
    def _result(self, claim: Claim, attempt: Any) -> Any:
        try:
            return super()._result(claim, attempt)
        except RenameFailedError as error:
            return failures.as_conflict(error.failure)


class _ReadEndsDoubt(ServiceCalls):
    """After a read of the name a call is no longer in doubt."""

    def rename(self, target: Any, name: str, attempt: Any) -> Reply:
        before = attempt.doubt
        reply = super().rename(target, name, attempt)
        attempt.doubt = before
        return reply


class _StateConflictEndsDoubt(ServiceCalls):
    """After a conflict with the service's state a call is no longer in doubt."""

    def retry(self, attempt: Any, call: Callable[[], Reply]) -> Reply:
        try:
            return super().retry(attempt, call)
        except RenameFailedError as error:
            raise RenameFailedError(error.failure._replace(state_conflict=False)) from None


class _PublishesBeforeRemembering(RenameService):
    """Publishes an outcome before the ledger has it."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        outcome = super()._outcome(attempt, result)
        self.publisher.publish(outcome, attempt.deadline)
        return outcome


class _IgnoresRedriveCycles(RenameService):
    """The outcome of a redriven event has the id of the given-up one."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        cycle, attempt.cycle = attempt.cycle, type(attempt.cycle)()
        try:
            return super()._outcome(attempt, result)
        finally:
            attempt.cycle = cycle


class _GivesDeadLettersAnotherOutcome(RenameService):
    def _give_up(self, attempt: Any, failure: Failure, *, follow: bool) -> Outcome:
        return super()._give_up(attempt, failure, follow=True)


class _SupersedesByItself(RenameService):
    """An event is superseded by itself."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        if isinstance(result, Failure) and result.superseded_by:
            result = failures.superseded(failures.EventName(attempt.event.source, attempt.event.id))
        return super()._outcome(attempt, result)


class _IgnoresFailedPublish(Bus):
    """An outcome that the bus refused counts as published."""

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        with suppress(RenameFailedError):
            super().publish(outcome, deadline)


class _NeverRepeatsOutcomes(Bus):
    """Publishes each outcome once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._published: set[str] = set()

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        if outcome.id not in self._published:
            super().publish(outcome, deadline)
            self._published.add(outcome.id)


class _EventWithoutDigest(RenameEvent):
    """Its content is not compared."""

    digest = ""


class _ComparesNoDigests(EventParser):
    def parse(self, *args: Any, **kwargs: Any) -> Any:
        event = super().parse(*args, **kwargs)
        if isinstance(event, RenameEvent):
            return _EventWithoutDigest(*(getattr(event, field.name) for field in fields(event)))
        return event


class _ForgetsPolicyViolations(Policy):
    """A violation of the policy at one time does not hold at another."""

    def judge(self, *args: Any, **kwargs: Any) -> Any:
        event = super().judge(*args, **kwargs)
        return replace(event, candidate=None) if isinstance(event, InvalidEvent) else event


# ---- The triggers


class _ContinuesGroupAfterException(SqsTrigger):
    """After a record that ends in an exception the next ones of its group are handled."""

    def _settle(self, record: Any, blocking_failure: Failure | None, deadline: Deadline) -> Failure | None:
        if blocking_failure == failures.internal_error():
            blocking_failure = None
        return super()._settle(record, blocking_failure, deadline)


class _ReturnsBatchForOneRefusal(SqsTrigger):
    """After one refusal no other event of the batch is tried."""

    def handle(self, *args: Any) -> dict[str, Any]:
        self._refusal: Failure | None = None
        return super().handle(*args)

    def _settle(self, record: Any, blocking_failure: Failure | None, deadline: Deadline) -> Failure | None:
        failure = super()._settle(record, blocking_failure or self._refusal, deadline)
        if failure is not None and failure.kind is Kind.ACCESS:
            self._refusal = failure
        return failure


class _AcknowledgesAll(SqsTrigger):
    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        super().handle(event, deadline)
        return {"batchItemFailures": []}


class _Answers202Regardless(HttpTrigger):
    """Responds with 202 even where the queue has not accepted the event."""

    def _hand_over(self, event: ParsedEvent, *args: Any) -> tuple[bool, str | None]:
        super()._hand_over(event, *args)
        return isinstance(event, RenameEvent), None


class _ClaimsInDryRun(DynamoDbLedger):
    def preview(self, event: Any, target: Any, deadline: Deadline, **_: Any) -> Any:
        return self.claim(event, target, deadline)


class _IgnoresFailedForward(DeadLetterTrigger):
    """A dead letter counts as forwarded even where the queue has not accepted it."""

    def _conclude_dead_letter(self, *args: Any) -> bool:
        super()._conclude_dead_letter(*args)
        return True


VARIANTS: Final = {
    "dry run takes a claim": Variant(Build(ledger=_ClaimsInDryRun), {9}),
    "published before it is stored": Variant(Build(rename_service=_PublishesBeforeRemembering), {1}),
    "outcome not stored": Variant(_ledger(_remembering_elsewhere), {1, 3}),
    "given-up outcome not stored": Variant(Build(ledger=_RemembersNoGivenUp), {1}),
    "redrive cycles ignored": Variant(Build(rename_service=_IgnoresRedriveCycles), {1}),
    "another outcome for dead letters": Variant(Build(rename_service=_GivesDeadLettersAnotherOutcome), {1}),
    "policy violation at one time forgotten": Variant(Build(policy=_ForgetsPolicyViolations), {1, 3}),
    "doubt treated as success": Variant(Build(service_calls=_TakesDoubtAsSuccess), {2}),
    "doubt treated as failure": Variant(Build(rename_service=_TakesDoubtAsFailure), {2}),
    "state conflict ends doubt": Variant(Build(service_calls=_StateConflictEndsDoubt), {2}),
    "claim without a check of the event": Variant(_ledger(_without_event_check), {3}),
    "digest not compared": Variant(Build(parser=_ComparesNoDigests), {3}),
    "outcome not repeated": Variant(Build(bus=_NeverRepeatsOutcomes), {3}),
    "claim without a check of the newest rename": Variant(
        _replaced("ConditionExpression", " AND (attribute_not_exists(newest_time) OR newest_time <= :time)", ""),
        {4},
    ),
    "project not pinned": Variant(_ledger(without_target), {2, 3}),
    "microseconds compared": Variant(_ledger(in_whole_microseconds), {4}),
    "newest rename not stored": Variant(_replaced("UpdateExpression", "newest_time = ", "forgotten = "), {4}),
    "superseded by itself": Variant(Build(rename_service=_SupersedesByItself), {4}),
    "claim of another invocation ignored": Variant(
        _replaced(
            "ConditionExpression",
            "(attribute_not_exists(#owner) OR lapses < :now)",
            "(attribute_not_exists(#owner) OR attribute_exists(#owner))",
        ),
        {3, 4, 5},
    ),
    "claim expires after six seconds": Variant(_claims_until(lambda it: it.invocation_ends_at + 6.0), {2, 4, 5}),
    "claim taken over by its own event": Variant(Build(ledger=_TakesOverClaimOfSameEvent), {5}),
    "ids are case-sensitive": Variant(Build(ledger=_TreatsIdsAsCaseSensitive), {2, 4, 5}),
    "doubt lost to an open breaker": Variant(Build(breaker=_LosesDoubtToAnOpenBreaker), {2, 3, 4, 5}),
    "5xx treated as final": Variant(Build(huawei=_Takes5xxAsFinal), {2, 4, 5}),
    "request sent after its deadline": Variant(Build(huawei=_SendsAfterDeadline), {2, 3, 4, 5}),
    "claim never expires": Variant(_claims_until(lambda it: it.invocation_ends_at + 1e9), {5}),
    "claim released in doubt": Variant(Build(rename_service=_ReleasesInDoubt), {2, 5}),
    "claim released by settling in doubt": Variant(Build(ledger=_SettlesAndReleasesInDoubt), {2, 5}),
    "read ends doubt": Variant(Build(service_calls=_ReadEndsDoubt), {2, 5}),
    "claim expires with an item of a service": Variant(
        _replaced(
            "UpdateExpression", "if_not_exists(kept_until, :expiration)", "if_not_exists(expiration, :expiration)"
        ),
        {2, 4, 5},
    ),
    "deleted though not settled": Variant(Build(sqs=_AcknowledgesAll), {6}),
    "deleted though not published": Variant(Build(bus=_IgnoresFailedPublish), {3, 6}),
    "dead letters deleted though not forwarded": Variant(Build(dead_letters=_IgnoresFailedForward), {3, 6}),
    "202 without a message in the queue": Variant(Build(http=_Answers202Regardless), {6}),
    "call that was not made counted": Variant(Build(huawei=_CountsCallsNotMade), {7}),
    "group continued after an exception": Variant(Build(sqs=_ContinuesGroupAfterException), {8}),
    "one refusal returns the batch": Variant(Build(sqs=_ReturnsBatchForOneRefusal), {8}),
}
