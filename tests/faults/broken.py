"""The function, broken on purpose: what the simulator must catch, for one that finds nothing proves nothing.

Each variant switches off one thing that a promise rests on, and names the promises that may be seen to break first.
Where a change to the function makes a variant a sound function again, the test that it is caught fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from function import failures
from function.deadline import Deadline
from function.events import InvalidEvent, Outcome, Parser, RenameEvent
from function.failures import Failure, RenameFailedError
from function.ledger import CLAIM_SLACK_SECONDS, DynamoDbLedger
from function.rename import Renamer, Reply
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from tests.faults.clouds import Bus
from tests.faults.simulation import Build

Action = Mapping[str, Mapping[str, Any]]


class Variant(NamedTuple):
    """A broken function.

    Attributes:
        promises: one of them breaks first.
    """

    build: Build
    promises: set[int]


# ---- The ledger


def _ledger(edit: Callable[[dict[str, Any], bool], object]) -> Build:
    """
    Args:
        edit: changes one action of a transaction; hears whether the transaction claims a service.
    """

    class Edited(DynamoDbLedger):
        def _write(self, deadline: Deadline, *actions: Action) -> Any:
            copies = [{kind: dict(request) for kind, request in action.items()} for action in actions]
            is_claim = not any(_remembers(request) for copy in copies for request in copy.values())
            for request in (request for copy in copies for request in copy.values()):
                edit(request, is_claim)
            return super()._write(deadline, *copies)

    return Build(ledger=Edited)


def _replaced(expression: str, text: str, by: str) -> Build:
    """An expression says something else than it should."""

    def edit(request: dict[str, Any], is_claim: bool) -> None:
        request[expression] = request.get(expression, "attribute_exists(id)").replace(text, by)

    return _ledger(edit)


def _remembers(request: Mapping[str, Any]) -> bool:
    return ":outcome" in request.get("ExpressionAttributeValues", {})


def _without_event_check(request: dict[str, Any], is_claim: bool) -> None:
    if is_claim and request["Key"]["id"]["S"].startswith("event#"):
        request["ConditionExpression"] = "attribute_exists(id) OR attribute_not_exists(id)"


def _remembering_elsewhere(request: dict[str, Any], is_claim: bool) -> None:
    if _remembers(request):
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


class _FreesInDoubt(DynamoDbLedger):
    def settle(self, *args: Any, release: bool) -> Any:
        return super().settle(*args, release=True)


# ---- The decision


class _HasNoDoubt(Renamer):
    """Releases the claim although the rename may yet take effect."""

    def _carry_out(self, claim: Any, attempt: Any) -> Outcome:
        try:
            return super()._carry_out(claim, attempt)
        except RenameFailedError:
            self._ledger.release(claim, attempt.deadline.to_report())
            raise


class _TakesDoubtForSuccess(Renamer):
    def _look(self, target: Any, attempt: Any, doubt: Failure) -> Reply:
        return Reply(attempt.event.endpoint_service_name, 200, None)


class _TakesDoubtForFailure(Renamer):
    def _result(self, event: RenameEvent, target: Any, attempt: Any) -> Any:
        try:
            return super()._result(event, target, attempt)
        except RenameFailedError as error:
            return failures.as_conflict(error.failure)


class _TrustsALook(Renamer):
    """Takes the name that a service bears for proof that a call in doubt is over."""

    def _rename(self, target: Any, name: str, attempt: Any) -> Reply:
        before = attempt.doubt
        reply = super()._rename(target, name, attempt)
        attempt.doubt = before
        return reply


class _TrustsAConflict(Renamer):
    """Takes a conflict with the service's state for proof that there was no rename."""

    def _persist(self, attempt: Any, call: Callable[[], Reply]) -> Reply:
        try:
            return super()._persist(attempt, call)
        except RenameFailedError as error:
            raise RenameFailedError(replace(error.failure, state_conflict=False)) from None


class _PublishesFirst(Renamer):
    """Publishes before the ledger remembers."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        outcome = super()._outcome(attempt, result)
        self._bus.publish(outcome, attempt.deadline)
        return outcome


class _IgnoresRounds(Renamer):
    """Follows a given-up outcome under the same id."""

    def _outcome(self, attempt: Any, result: Any) -> Outcome:
        round_, attempt.round = attempt.round, type(attempt.round)()
        try:
            return super()._outcome(attempt, result)
        finally:
            attempt.round = round_


class _GivesDeadLettersAnOutcomeMore(Renamer):
    def _give_up(self, attempt: Any, failure: Failure, *, follow: bool) -> Outcome:
        return super()._give_up(attempt, failure, follow=True)


class _NamesNobody(Renamer):
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


class _ComparesNoContent(Parser):
    def parse(self, *args: Any, **kwargs: Any) -> Any:
        event = super().parse(*args, **kwargs)
        if isinstance(event, RenameEvent):
            return _SameContent(*(getattr(event, field.name) for field in fields(event)))
        return event


class _ForgetsVerdicts(Parser):
    """Judges by the clock of the day, each day anew."""

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        event = super().parse(*args, **kwargs)
        return replace(event, otherwise=None) if isinstance(event, InvalidEvent) else event


# ---- The triggers


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


class _LosesDeadLetters(DeadLetterTrigger):
    """Takes a dead letter that was not forwarded for one that was."""

    def _see_off(self, *args: Any) -> bool:
        super()._see_off(*args)
        return True


VARIANTS: Final = {
    "publish before remember": Variant(Build(renamer=_PublishesFirst), {1}),
    "outcome not remembered": Variant(_ledger(_remembering_elsewhere), {1, 3}),
    "give-up forgotten": Variant(Build(ledger=_ForgetsGivenUp), {1}),
    "rounds ignored": Variant(Build(renamer=_IgnoresRounds), {1}),
    "an outcome more for dead letters": Variant(Build(renamer=_GivesDeadLettersAnOutcomeMore), {1}),
    "verdict of the clock forgotten": Variant(Build(parser=_ForgetsVerdicts), {1, 3}),
    "doubt taken for success": Variant(Build(renamer=_TakesDoubtForSuccess), {2}),
    "doubt taken for failure": Variant(Build(renamer=_TakesDoubtForFailure), {2}),
    "a conflict believed": Variant(Build(renamer=_TrustsAConflict), {2}),
    "no event check in the claim": Variant(_ledger(_without_event_check), {3}),
    "identifier digest not compared": Variant(Build(parser=_ComparesNoContent), {3}),
    "outcome not repeated": Variant(Build(bus=_RepeatsNothing), {3}),
    "fence off": Variant(
        _replaced("ConditionExpression", " AND (attribute_not_exists(newest_time) OR newest_time <= :time)", ""),
        {4},
    ),
    "newest rename forgotten": Variant(_replaced("UpdateExpression", "newest_time = ", "forgotten = "), {4}),
    "superseded by nobody": Variant(Build(renamer=_NamesNobody), {4}),
    "claim off": Variant(
        _replaced(
            "ConditionExpression",
            "(attribute_not_exists(#owner) OR lapses < :now)",
            "(attribute_not_exists(#owner) OR attribute_exists(#owner))",
        ),
        {4, 5},
    ),
    "claim lapses at once": Variant(Build(ledger=_LapsesAtOnce), {5}),
    "claim never lapses": Variant(Build(ledger=_NeverLapses), {5}),
    "claim released in doubt": Variant(Build(renamer=_HasNoDoubt), {2, 5}),
    "claim settled free in doubt": Variant(Build(ledger=_FreesInDoubt), {2, 5}),
    "a look believed": Variant(Build(renamer=_TrustsALook), {2, 5}),
    "claims forgotten with the service": Variant(
        _replaced(
            "UpdateExpression", "if_not_exists(kept_until, :expiration)", "if_not_exists(expiration, :expiration)"
        ),
        {4, 5},
    ),
    "acknowledged though unsettled": Variant(Build(sqs=_AcknowledgesAll), {6}),
    "acknowledged though unpublished": Variant(Build(bus=_LosesOutcomes), {3, 6}),
    "dead letters dropped": Variant(Build(dead_letters=_DropsDeadLetters), {6}),
    "dead letters lost": Variant(Build(dead_letters=_LosesDeadLetters), {3, 6}),
    "queued without the queue": Variant(Build(http=_PromisesTheQueue), {6}),
}
