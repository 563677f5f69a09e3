"""Calls to endpoint services for one event: retries, and a read if a rename is in doubt."""

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Final

from function.domain import failures
from function.domain.backoff import full_jitter
from function.domain.deadline import MIN_CALL_SECONDS, Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from function.domain.model import FIRST_CYCLE, ParsedEvent, RedriveCycle, Target
from function.domain.ports import EndpointServices, ReadPurpose, Reply

MAX_CALL_ATTEMPTS: Final = 5
# EndPoint.3045: the service's state may change by itself, or only after somebody acts.
MAX_ATTEMPTS_AGAINST_STATE: Final = 3
CALL_BACKOFF_SECONDS: Final = 0.25
BACKOFF_CAP_SECONDS: Final = 8.0
MAX_CALL_SECONDS: Final = 10.0
MAX_PREVIOUS_NAME_SECONDS: Final = 2.0
# A reply may contain anything, and EventBridge limits the size of an outcome.
MAX_SERVICE_NAME: Final = 512


@dataclass(eq=False, repr=False)
class Attempt:
    """The processing of one event in one invocation.

    Attributes:
        target: None until it is known.
        doubt: the failure of a call that may still take effect. A read that shows the new name does not clear it: the
            service may have had that name before.
    """

    event: ParsedEvent
    deadline: Deadline
    trigger: str
    attempts: int = 0
    target: Target | None = None
    cycle: RedriveCycle = FIRST_CYCLE
    doubt: Failure | None = None


@dataclass(eq=False, repr=False)
class ServiceCalls:
    """Calls to endpoint services, bounded by the deadline of an attempt.

    Attributes:
        on_unreadable: called if the key may not read the previous name, which only the outcome needs.
    """

    services: EndpointServices
    _: KW_ONLY
    on_unreadable: Callable[[Failure], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] | None = None

    def retry(self, attempt: Attempt, call: Callable[[], Reply]) -> Reply:
        """Call until it succeeds or cannot succeed, or until time or attempts run out."""
        last: Failure | None = None
        for tries in range(1, MAX_CALL_ATTEMPTS + 1):
            try:
                return call()
            except RenameFailedError as error:
                failure = error.failure
                if last and failure.code == failures.NO_TIME_LEFT:
                    raise RenameFailedError(last) from None
                last = failure
                if failure.state_conflict and tries >= MAX_ATTEMPTS_AGAINST_STATE:
                    raise RenameFailedError(failures.as_conflict(failure)) from None
                wait = full_jitter(tries, base=CALL_BACKOFF_SECONDS, cap=BACKOFF_CAP_SECONDS, uniform=self.uniform)
                wait = max(wait, failure.retry_after or 0)
                if (
                    not failure.retry_in_process
                    or tries == MAX_CALL_ATTEMPTS
                    or attempt.deadline.remaining() < wait + MIN_CALL_SECONDS
                ):
                    raise
            self.sleep(wait)
        raise AssertionError  # the last try returns or raises

    def rename(self, target: Target, name: str, attempt: Attempt) -> Reply:
        """One call, and a read if the rename is in doubt."""
        deadline = _deadline_of_call(attempt.deadline, share=2 / 3)
        try:
            reply = self.services.rename(target, name, deadline)
            attempt.attempts += 1
            if short_name(reply.name) == name:
                return reply
            failure = failures.unconfirmed_reply(reply.status, reply.huawei_request_id)
        except RenameFailedError as error:
            failure = error.failure
            attempt.attempts += failure.counts_as_attempt
        if failure.in_doubt:
            attempt.doubt = failure
            found = self._read_in_doubt(target, attempt, failure)
            if short_name(found.name) == name:
                return found
        raise RenameFailedError(failure)

    def _read_in_doubt(self, target: Target, attempt: Attempt, doubt: Failure) -> Reply:
        """Read the name once after a rename in doubt. If that fails too, the rename remains in doubt."""
        try:
            return self.read(target, attempt)
        except RenameFailedError as error:
            if error.failure.kind is Kind.ACCESS or not error.failure.retryable:
                raise
            raise RenameFailedError(doubt) from None

    def read(self, target: Target, attempt: Attempt, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        """One call. A reply without a name is a failure."""
        reply = self.services.read(target, _deadline_of_call(attempt.deadline), purpose)
        if reply.name is None:
            raise RenameFailedError(failures.unconfirmed_reply(reply.status, reply.huawei_request_id))
        return reply

    def previous_name(self, target: Target, attempt: Attempt) -> str | None:
        """The name before the rename, which only the outcome needs. None if one call does not return it."""
        seconds = min(MAX_PREVIOUS_NAME_SECONDS, attempt.deadline.remaining() / 2)
        if seconds < MIN_CALL_SECONDS:
            return None
        try:
            return self.services.read(target, attempt.deadline.within(seconds), ReadPurpose.OUTCOME).name
        except Exception as error:  # noqa: BLE001 - whatever it is, the rename goes on
            if isinstance(error, RenameFailedError) and error.failure.kind is Kind.ACCESS:
                self.on_unreadable(error.failure)
            return None


def _deadline_of_call(deadline: Deadline, share: float = 1.0) -> Deadline:
    """The deadline of one call: a share of the time left, so that a rename leaves time for a read if it is in doubt."""
    seconds = deadline.remaining()
    if seconds < MIN_CALL_SECONDS:
        raise RenameFailedError(failures.no_time_left())
    return deadline.within(min(MAX_CALL_SECONDS, max(MIN_CALL_SECONDS, seconds * share)))


def short_name(service_name: str | None) -> str | None:
    """The name in a full service name, ``region.name.id``, or ``region.id`` if the name is empty.

    The id at the end is not checked: in the API's own examples it differs from the id in the path.
    """
    if service_name is None:
        return None
    match service_name.split("."):
        case [name]:
            return name
        case [_, *names, _]:
            return ".".join(names)
        case _:
            return None
