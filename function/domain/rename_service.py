"""Processes one rename event.

Afterwards the event is *settled*: it has a final outcome; or *given up*: its outcome is a failure that may be
transient, and a redrive may still settle it; or unsettled: it has no outcome, and must be redelivered.

The order of steps guarantees:

* No invalid event reaches Huawei Cloud: validation comes first.
* No rename without the claim on its endpoint service. If a rename is in doubt, its claim is kept until it expires.
* An outcome is recorded before it is published, and published before it is returned to the trigger.
* A success is reported only if it is confirmed: by a reply with the new name, or by a read that shows it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from function.domain import failures
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.dry_run import DryRun, DryRunner
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import FIRST_CYCLE, InvalidEvent, Outcome, ParsedEvent, RedriveCycle, RenameEvent, rfc3339
from function.domain.outcomes import OutcomeContext, rename_failed, renamed
from function.domain.policy import Policy
from function.domain.ports import Claim, Conclusion, Known, Ledger, Located, OutcomePublisher, Reply, Reused, Superseded
from function.domain.service_calls import MAX_SERVICE_NAME, Attempt, ServiceCalls, short_name


class Unsettled(NamedTuple):
    """The event has no outcome yet.

    Attributes:
        failure: why.
        attempts: calls of ``update_endpoint_service_name`` so far.
        cause: an unexpected exception, for the log.
    """

    failure: Failure
    attempts: int = 0
    cause: Exception | None = None


# What settling an event, or giving it up, returns.
Result = Outcome | Unsettled


@dataclass(eq=False, repr=False)
class RenameService:
    """Carries out rename events and publishes their outcomes.

    Attributes:
        read_previous_name: read the service before each rename, to include the previous name in the outcome.
    """

    calls: ServiceCalls
    ledger: Ledger
    publisher: OutcomePublisher
    policy: Policy
    _: KW_ONLY
    read_previous_name: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def settle(self, event: ParsedEvent, deadline: Deadline, trigger: str) -> Result:
        """Carry out the event and publish its outcome. Never raises.

        Args:
            event: as parsed.
            deadline: bounds every wait and every call.
            trigger: ``sqs`` or ``http``.
        """
        attempt = Attempt(event, deadline, trigger)
        return self._published(attempt, lambda: self._decide(attempt))

    def give_up(self, event: ParsedEvent, unsettled: Unsettled, deadline: Deadline, trigger: str) -> Result:
        """Publish the failure of an event that will not be redelivered. Never raises.

        If the event has been settled meanwhile, its outcome is published.
        """
        attempt = Attempt(event, deadline, trigger, attempts=unsettled.attempts)
        return self._published(attempt, lambda: self._give_up(attempt, unsettled.failure, follow=True))

    def conclude_dead_letter(self, event: ParsedEvent, deadline: Deadline, trigger: str) -> Result:
        """Publish a dead letter's outcome: the recorded one, else ``Rename.Abandoned``. Never raises."""
        attempt = Attempt(event, deadline, trigger)
        return self._published(attempt, lambda: self._give_up(attempt, failures.abandoned(), follow=False))

    def dry_run(self, event: ParsedEvent, deadline: Deadline) -> DryRun:
        """The result that the event would have now. Nothing is changed, recorded or published. Never raises.

        Args:
            event: as parsed.
            deadline: bounds every wait and every call.
        """
        return DryRunner(self.calls, self.ledger, self.policy).run(Attempt(event, deadline, trigger=""))

    def _published(self, attempt: Attempt, decide: Callable[[], Outcome]) -> Result:
        try:
            outcome = decide()
            self.publisher.publish(outcome, attempt.deadline.to_report())
        except RenameFailedError as error:
            return Unsettled(error.failure, attempt.attempts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event must not be lost
            return Unsettled(failures.internal_error(), attempt.attempts, error)
        return outcome

    def _give_up(self, attempt: Attempt, failure: Failure, *, follow: bool) -> Outcome:
        event = attempt.event
        if isinstance(event, InvalidEvent):
            refused = self._refuse(event, attempt, follow=follow)
            if isinstance(refused, Outcome):
                return refused
            event = refused
        with suppress(RenameFailedError):
            attempt.target = self.policy.target(event, attempt.deadline)
        while True:
            match self._conclude(event, attempt, failure, follow=follow):
                case Located(target):
                    attempt.target = target
                case outcome:
                    return outcome

    def _conclude(
        self,
        event: RenameEvent,
        attempt: Attempt,
        failure: Failure,
        *,
        follow: bool = True,
        require_same_time: bool = False,
        unclaimed: bool = False,
    ) -> Outcome | Located:
        """Record a failure that was decided without a rename. With ``follow``, also if the event was given up before.

        Returns:
            The outcome; or the target of the event's first claim, to which the failure does not apply.
        """
        while True:
            outcome = self._outcome(attempt, failure)
            conclusion = Conclusion(event, attempt.cycle, outcome, require_same_time, unclaimed, attempt.target)
            match self.ledger.conclude(conclusion, attempt.deadline.to_report()):
                case None:
                    return outcome
                case Located() as located:
                    return located
                case Reused():
                    return self._outcome(attempt, failures.identifier_reused())
                case Known(_, RedriveCycle() as next_cycle) if follow:
                    attempt.cycle = next_cycle
                case Known(known, _):
                    return known

    def _refuse(self, event: InvalidEvent, attempt: Attempt, *, follow: bool = True) -> Outcome | RenameEvent:
        """The outcome; or the event, if it was valid before and has had a claim: it may have been carried out."""
        failure = failures.invalid_event(event.violations)
        if event.candidate is None:
            return self._outcome(attempt, failure)
        # The event may be valid with other settings or at another time, but its outcome must not change then.
        attempt.event = event.candidate
        refused = self._conclude(event.candidate, attempt, failure, follow=follow, unclaimed=True)
        return event.candidate if isinstance(refused, Located) else refused

    def _decide(self, attempt: Attempt) -> Outcome:
        event = self.policy.judge_project(attempt.event, attempt.deadline)
        if isinstance(event, InvalidEvent):
            refused = self._refuse(event, attempt)
            if isinstance(refused, Outcome):
                return refused
            event = refused
        if attempt.deadline.remaining() < MIN_CALL_SECONDS:
            raise RenameFailedError(failures.no_time_left())
        attempt.target = self.policy.target(event, attempt.deadline)
        while True:
            match self.ledger.claim(event, attempt.target, attempt.deadline):
                case Claim() as claim:
                    attempt.event, attempt.target = claim.event, claim.target
                    return self._carry_out(claim, attempt)
                case Superseded(by, cycle, stale):
                    attempt.event, attempt.cycle = stale, cycle
                    superseded = self._conclude(stale, attempt, failures.superseded(by), require_same_time=True)
                    if isinstance(superseded, Outcome):
                        return superseded
                    # Meanwhile a copy got a claim in another project, where it may not be stale.
                    attempt.target, attempt.cycle = superseded.target, FIRST_CYCLE
                case Known(outcome, _):
                    return outcome
                case Reused():
                    return self._outcome(attempt, failures.identifier_reused())

    def _carry_out(self, claim: Claim, attempt: Attempt) -> Outcome:
        try:
            result = self._result(claim, attempt)
        except RenameFailedError as error:
            if attempt.doubt is None:
                self.ledger.release(claim, attempt.deadline.to_report())
                raise
            # Until the claim expires, no event can claim the service, not even this one.
            wait = max(error.failure.retry_after or 0.0, claim.expires_at - self.now().timestamp())
            raise RenameFailedError(error.failure._replace(retry_after=wait)) from error
        while True:
            attempt.cycle = claim.cycle
            outcome = self._outcome(attempt, result)
            match self.ledger.settle(claim, outcome, attempt.deadline.to_report(), release=attempt.doubt is None):
                case None:
                    return outcome
                case Reused():
                    return self._outcome(attempt, failures.identifier_reused())
                case Known(_, RedriveCycle() as next_cycle):  # the event was given up meanwhile
                    claim = claim._replace(cycle=next_cycle)
                case Known(known, None):
                    return known

    def _result(self, claim: Claim, attempt: Attempt) -> "_Renamed | Failure":
        """The final result of the rename. Raises RenameFailedError if there is none yet."""
        event, target, previous = claim.event, claim.target, None
        try:
            if event.expected_name is not None:
                previous = self.calls.retry(attempt, lambda: self.calls.read(target, attempt)).name
                # If the rename happened but its outcome was not recorded, the redelivered event must pass.
                if short_name(previous) not in (event.expected_name, event.endpoint_service_name):
                    return failures.precondition_failed(previous[:MAX_SERVICE_NAME] if previous else previous)
            elif self.read_previous_name:
                previous = self.calls.previous_name(target, attempt)
            reply = self.calls.retry(attempt, lambda: self.calls.rename(target, event.endpoint_service_name, attempt))
        except RenameFailedError as error:
            failure = error.failure
            if failure.retryable:
                raise
            if attempt.doubt is not None and failure.kind is not Kind.NOT_FOUND:
                # An earlier call may still take effect. Only an invocation after the end of this claim can tell.
                raise RenameFailedError(attempt.doubt) from None
            return self._verified(claim, attempt, failure, previous) if failure.state_conflict else failure
        return _Renamed(event, reply, previous)

    def _verified(
        self, claim: Claim, attempt: Attempt, conflict: Failure, previous: str | None
    ) -> "_Renamed | Failure":
        """The conflict, unless an earlier invocation carried out the rename and ended before it could report it."""
        try:
            found = self.calls.retry(attempt, lambda: self.calls.read(claim.target, attempt))
        except RenameFailedError as unread:
            if unread.failure.kind is Kind.NOT_FOUND:
                return unread.failure
            raise RenameFailedError(failures.state_conflict_unverified(conflict, unread.failure)) from None
        is_renamed = short_name(found.name) == claim.event.endpoint_service_name
        return _Renamed(claim.event, found, previous) if is_renamed else conflict

    def _outcome(self, attempt: Attempt, result: "_Renamed | Failure") -> Outcome:
        event = attempt.event
        # An outcome that the ledger does not record must be the same when the event is redelivered.
        kept_time = None
        if isinstance(event, InvalidEvent):
            kept_time = event.time
        elif isinstance(result, Failure) and result.code == failures.IDENTIFIER_REUSED:
            kept_time = rfc3339(event.time)
        context = OutcomeContext(
            trigger=attempt.trigger,
            region=attempt.target.region if attempt.target else self.policy.region,
            project_id=attempt.target.project_id if attempt.target and kept_time is None else None,
            attempts=attempt.attempts if kept_time is None else 0,
            time=kept_time or rfc3339(self.now()),
            cycle=attempt.cycle,
        )
        if isinstance(result, Failure):
            return rename_failed(event, context, result)
        return renamed(result.event, context, result.reply, result.previous_name)


class _Renamed(NamedTuple):
    """A confirmed rename."""

    event: RenameEvent
    reply: Reply
    previous_name: str | None
