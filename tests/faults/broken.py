"""The function, broken on purpose: what the simulator must catch, for one that finds nothing proves nothing.

Each variant switches off one thing that a promise rests on, and names the promises that may be seen to break first.
Where a change to the function makes a variant a sound function again, the test that it is caught fails.
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
from function.domain.model import InvalidEvent, Outcome, RenameEvent
from function.domain.policy import Policy
from function.domain.ports import Claim, EndpointServices, Reply
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
        promises: one of them breaks first.
    """

    build: Build
    promises: set[int]


# ---- The ledger


def _ledger(edit: Callable[[dict[str, Any], bool], object]) -> Build:
    return Build(ledger=edited(DynamoDbLedger, edit))


def _replaced(expression: str, text: str, by: str) -> Build:
    """An expression says something else than it should."""

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


class _ForgetsGivenUp(DynamoDbLedger):
    def conclude(self, *_: Any, **__: Any) -> None:
        pass


class _LapsesAtOnce(DynamoDbLedger):
    def claim(self, event: RenameEvent, target: Any, deadline: Deadline, *args: Any) -> Any:
        soon = replace(deadline, invocation_ends_at=deadline.now() + 5.0 - CLAIM_SLACK_SECONDS)
        return super().claim(event, target, soon, *args)


class _NeverLapses(DynamoDbLedger):
    def claim(self, event: RenameEvent, target: Any, deadline: Deadline, *args: Any) -> Any:
        never = replace(deadline, invocation_ends_at=deadline.invocation_ends_at + 1e9)
        return super().claim(event, target, never, *args)


class _LapsesAfterSixSeconds(DynamoDbLedger):
    """As the first version did: an effect may be later, and clocks differ by more."""

    def claim(self, event: RenameEvent, target: Any, deadline: Deadline, *args: Any) -> Any:
        soon = replace(deadline, invocation_ends_at=deadline.invocation_ends_at + 6.0 - CLAIM_SLACK_SECONDS)
        return super().claim(event, target, soon, *args)


class _FreesInDoubt(DynamoDbLedger):
    def settle(self, *args: Any, release: bool) -> Any:
        return super().settle(*args, release=True)


class _TakesItsOwnClaimOver(DynamoDbLedger):
    """An event does not wait for the claim that an invocation before took for it."""

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


class _TellsCapitalsApart(DynamoDbLedger):
    """An id in capitals is another service."""

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
    """A call's failure becomes that of the breaker where somebody else has opened it meanwhile."""

    def rename(self, target: Any, name: str, deadline: Deadline) -> Reply:
        try:
            return super().rename(target, name, deadline)
        except RenameFailedError as error:
            if error.failure.kind is Kind.UNAVAILABLE and self._is_recorded(target.region, deadline):
                raise RenameFailedError(failures.outage()) from None
            raise


class _CountsWhatWasNotCalled(OutageBreaker):
    """A call that was never made counts as one that was."""

    def __init__(self, services: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_SaysItCalled(services), *args, **kwargs)


class _SaysItCalled:
    def __init__(self, services: Any) -> None:
        self._services = services

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            try:
                return getattr(self._services, method)(*args)
            except RenameFailedError as error:
                raise RenameFailedError(replace(error.failure, counts_as_attempt=True)) from None

        return called


class _TakesErrorsForTheEnd(Huawei):
    """An error reply other than 504 says that the rename is over."""

    def _answer(self, *args: Any, **options: Any) -> Reply:
        try:
            return super()._answer(*args, **options)
        except RenameFailedError as error:
            if error.failure.http_status in (500, 502, 503):
                raise RenameFailedError(replace(error.failure, in_doubt=False)) from None
            raise


class _SendsLate(Huawei):
    """A thread that got no connection in time gets one later, and sends."""

    def rename(self, target: Any, name: str, deadline: Deadline) -> Reply:
        world, invocation = self._world, running(self._world)
        request = cast("RenameEvent", invocation.event).cloud_event
        service = self._promises.service(target.project_id, target.vpc_endpoint_service_id)

        def send() -> None:
            rename = self._promises.rename_is_called(service, request, invocation)
            self._land(rename)

        try:
            return super().rename(target, name, deadline)
        except RenameFailedError as error:
            if error.failure.code == "Rename.ConnectionFailed" and not error.failure.in_doubt:
                world.after(world.random.uniform(0, 300), send)
            raise


# ---- The decision


class _HasNoDoubt(RenameService):
    """Releases the claim although the rename may yet take effect."""

    def _carry_out(self, claim: Any, attempt: Any) -> Outcome:
        try:
            return super()._carry_out(claim, attempt)
        except RenameFailedError:
            self._ledger.release(claim, attempt.deadline.to_report())
            raise


def _with_calls(calls: type[ServiceCalls]) -> type[RenameService]:
    class _OfTheseCalls(RenameService):
        def __init__(self, services: EndpointServices, *arguments: Any, **options: Any) -> None:
            super().__init__(services, *arguments, **options)
            self._calls = calls(services, sleep=options["sleep"], uniform=options["uniform"])

    return _OfTheseCalls


class _TakesDoubtForSuccess(ServiceCalls):
    def _read_in_doubt(self, target: Any, attempt: Any, doubt: Failure) -> Reply:
        return Reply(attempt.event.endpoint_service_name, 200, None)


class _TakesDoubtForFailure(RenameService):
    def _result(self, event: RenameEvent, target: Any, attempt: Any) -> Any:
        try:
            return super()._result(event, target, attempt)
        except RenameFailedError as error:
            return failures.as_conflict(error.failure)


class _TrustsALook(ServiceCalls):
    """Takes the name that a service bears for proof that a call in doubt is over."""

    def rename(self, target: Any, name: str, attempt: Any) -> Reply:
        before = attempt.doubt
        reply = super().rename(target, name, attempt)
        attempt.doubt = before
        return reply


class _TrustsAConflict(ServiceCalls):
    """Takes a conflict with the service's state for proof that there was no rename."""

    def retry(self, attempt: Any, call: Callable[[], Reply]) -> Reply:
        try:
            return super().retry(attempt, call)
        except RenameFailedError as error:
            raise RenameFailedError(replace(error.failure, state_conflict=False)) from None


class _PublishesFirst(RenameService):
    """Publishes before the ledger remembers."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        outcome = super()._outcome(attempt, result)
        self._publisher.publish(outcome, attempt.deadline)
        return outcome


class _IgnoresRounds(RenameService):
    """Follows a given-up outcome under the same id."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        cycle, attempt.cycle = attempt.cycle, type(attempt.cycle)()
        try:
            return super()._outcome(attempt, result)
        finally:
            attempt.cycle = cycle


class _GivesDeadLettersAnOutcomeMore(RenameService):
    def _give_up(self, attempt: Any, failure: Failure, *, follow: bool) -> Outcome:
        return super()._give_up(attempt, failure, follow=True)


class _NamesNobody(RenameService):
    """Superseded by itself."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        if isinstance(result, Failure) and result.superseded_by:
            result = failures.superseded(failures.EventName(attempt.event.source, attempt.event.id))
        return super()._outcome(attempt, result)


class _LosesOutcomes(Bus):
    """Takes an outcome that is refused for one that is published."""

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        with suppress(RenameFailedError):
            super().publish(outcome, deadline)


class _RepeatsNothing(Bus):
    """Tells each outcome once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._told: set[str] = set()

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        if outcome.id not in self._told:
            super().publish(outcome, deadline)
            self._told.add(outcome.id)


class _SameContent(RenameEvent):
    """All contents are one."""

    digest = ""


class _ComparesNoContent(EventParser):
    def parse(self, *args: Any, **kwargs: Any) -> Any:
        event = super().parse(*args, **kwargs)
        if isinstance(event, RenameEvent):
            return _SameContent(*(getattr(event, field.name) for field in fields(event)))
        return event


class _ForgetsVerdicts(Policy):
    """Judges by the clock of the day, each day anew."""

    def judge(self, *args: Any, **kwargs: Any) -> Any:
        event = super().judge(*args, **kwargs)
        return replace(event, candidate=None) if isinstance(event, InvalidEvent) else event


# ---- The triggers


class _ForgetsTheGroupOfADefect(SqsTrigger):
    """After a record that ends in an exception the next ones of its group are carried out."""

    def _settle(self, record: Any, blocking_failure: Failure | None, deadline: Deadline) -> Failure | None:
        if blocking_failure == failures.internal_error():
            blocking_failure = None
        return super()._settle(record, blocking_failure, deadline)


class _SendsAllBackForOneRefusal(SqsTrigger):
    """Whatever one event of a batch was refused for, no other is tried."""

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


class _PromisesTheQueue(HttpTrigger):
    """Says 202 whether or not the queue took the event."""

    def _hand_over(self, *args: Any) -> bool:
        super()._hand_over(*args)
        return True


class _DropsDeadLetters(DeadLetterTrigger):
    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        return {"batchItemFailures": []}


class _ClaimsForADryRun(DynamoDbLedger):
    """Looks up by taking, and gives back."""

    def preview(self, event: Any, target: Any, deadline: Deadline, **_: Any) -> Any:
        found = self.claim(event, target, deadline)
        if isinstance(found, Claim):
            self.release(found, deadline)
        return found


class _LosesDeadLetters(DeadLetterTrigger):
    """Takes a dead letter that was not forwarded for one that was."""

    def _conclude_dead_letter(self, *args: Any) -> bool:
        super()._conclude_dead_letter(*args)
        return True


VARIANTS: Final = {
    "a dry run claims": Variant(Build(ledger=_ClaimsForADryRun), {9}),
    "publish before remember": Variant(Build(rename_service=_PublishesFirst), {1}),
    "outcome not remembered": Variant(_ledger(_remembering_elsewhere), {1, 3}),
    "give-up forgotten": Variant(Build(ledger=_ForgetsGivenUp), {1}),
    "rounds ignored": Variant(Build(rename_service=_IgnoresRounds), {1}),
    "an outcome more for dead letters": Variant(Build(rename_service=_GivesDeadLettersAnOutcomeMore), {1}),
    "verdict of the clock forgotten": Variant(Build(policy=_ForgetsVerdicts), {1, 3}),
    "doubt taken for success": Variant(Build(rename_service=_with_calls(_TakesDoubtForSuccess)), {2}),
    "doubt taken for failure": Variant(Build(rename_service=_TakesDoubtForFailure), {2}),
    "a conflict believed": Variant(Build(rename_service=_with_calls(_TrustsAConflict)), {2}),
    "no event check in the claim": Variant(_ledger(_without_event_check), {3}),
    "identifier digest not compared": Variant(Build(parser=_ComparesNoContent), {3}),
    "outcome not repeated": Variant(Build(bus=_RepeatsNothing), {3}),
    "fence off": Variant(
        _replaced("ConditionExpression", " AND (attribute_not_exists(newest_time) OR newest_time <= :time)", ""),
        {4},
    ),
    "project not pinned": Variant(_ledger(without_target), {3}),
    "microseconds compared": Variant(_ledger(in_whole_microseconds), {4}),
    "newest rename forgotten": Variant(_replaced("UpdateExpression", "newest_time = ", "forgotten = "), {4}),
    "superseded by nobody": Variant(Build(rename_service=_NamesNobody), {4}),
    "claim off": Variant(
        _replaced(
            "ConditionExpression",
            "(attribute_not_exists(#owner) OR lapses < :now)",
            "(attribute_not_exists(#owner) OR attribute_exists(#owner))",
        ),
        {3, 4, 5},
    ),
    "claim lapses at once": Variant(Build(ledger=_LapsesAtOnce), {2, 5}),
    "claim lapses after six seconds": Variant(Build(ledger=_LapsesAfterSixSeconds), {2, 4, 5}),
    "claim taken over by its own event": Variant(Build(ledger=_TakesItsOwnClaimOver), {5}),
    "ids in capitals are others": Variant(Build(ledger=_TellsCapitalsApart), {2, 4, 5}),
    "doubt lost to an open breaker": Variant(Build(breaker=_LosesDoubtToAnOpenBreaker), {2, 3, 4, 5}),
    "5xx taken for the end": Variant(Build(huawei=_TakesErrorsForTheEnd), {2, 4, 5}),
    "a straggler sends": Variant(Build(huawei=_SendsLate), {2, 3, 4, 5}),
    "claim never lapses": Variant(Build(ledger=_NeverLapses), {5}),
    "claim released in doubt": Variant(Build(rename_service=_HasNoDoubt), {2, 5}),
    "claim settled free in doubt": Variant(Build(ledger=_FreesInDoubt), {2, 5}),
    "a look believed": Variant(Build(rename_service=_with_calls(_TrustsALook)), {2, 5}),
    "claims forgotten with the service": Variant(
        _replaced(
            "UpdateExpression", "if_not_exists(kept_until, :expiration)", "if_not_exists(expiration, :expiration)"
        ),
        {2, 4, 5},
    ),
    "acknowledged though unsettled": Variant(Build(sqs=_AcknowledgesAll), {6}),
    "acknowledged though unpublished": Variant(Build(bus=_LosesOutcomes), {3, 6}),
    "dead letters dropped": Variant(Build(dead_letters=_DropsDeadLetters), {6}),
    "dead letters lost": Variant(Build(dead_letters=_LosesDeadLetters), {3, 6}),
    "queued without the queue": Variant(Build(http=_PromisesTheQueue), {6}),
    "what was not called is counted": Variant(Build(breaker=_CountsWhatWasNotCalled), {7}),
    "group of a defect goes on": Variant(Build(sqs=_ForgetsTheGroupOfADefect), {8}),
    "one refusal for all": Variant(Build(sqs=_SendsAllBackForOneRefusal), {8}),
}
