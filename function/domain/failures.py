"""Kinds of failures, and the function's own codes.

Adapters create failures, the rename service acts on them, and outcomes report them to consumers.
"""

from enum import StrEnum
from typing import Final, NamedTuple

NO_TIME_LEFT: Final = "Rename.NoTimeLeft"
IDENTIFIER_REUSED: Final = "Rename.IdentifierReused"
SUPERSEDED: Final = "Rename.Superseded"


class Kind(StrEnum):
    """Category of a failure, which decides how it is handled."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    ACCESS = "access"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class Violation(NamedTuple):
    """One broken rule: a JSON Pointer (RFC 6901) into the rename event, and what is wrong there."""

    path: str
    message: str


class EventName(NamedTuple):
    """The identity of a rename event."""

    source: str
    id: str


class Failure(NamedTuple):
    """Why a rename failed.

    Attributes:
        code: Huawei Cloud's own code, or one of ``OWN_CODES``.
        message: for people, not for decisions. It may repeat a reply or an event, so logs use ``log_message()``.
        kind: its category.
        retryable: the same event may succeed later. False settles the event.
        http_status: of Huawei Cloud's reply, None if there was none.
        huawei_request_id: from Huawei Cloud's reply, None if it had none.
        counts_as_attempt: Huawei Cloud was called, or the call was tried.
        in_doubt: the rename may have happened, or may still happen.
        retry_in_process: may be retried in the same invocation.
        state_conflict: a conflict with the service's state, which may disappear after a retry or two.
        retry_after: seconds to wait, from Huawei Cloud or the ledger.
        violations: only for ``invalid``.
        superseded_by: the newer event, only for ``Rename.Superseded``.
        aws_error_code: AWS's error code, or why there was no response; None if AWS is not the reason.
    """

    code: str
    message: str
    kind: Kind
    retryable: bool
    http_status: int | None = None
    huawei_request_id: str | None = None
    counts_as_attempt: bool = True
    in_doubt: bool = False
    retry_in_process: bool = False
    state_conflict: bool = False
    retry_after: float | None = None
    violations: tuple[Violation, ...] = ()
    superseded_by: EventName | None = None
    aws_error_code: str | None = None


class RenameFailedError(Exception):
    """Carries a failure. The exception's text is only the failure's code, so it may be logged."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class OwnCode(NamedTuple):
    """One of the function's own codes.

    Attributes:
        message: a constant, for logs. A failure's own message may repeat a reply or an event.
    """

    kind: Kind
    message: str

    @property
    def retryable(self) -> bool:
        return self.kind not in (Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT)


OWN_CODES: Final = {
    "Rename.Abandoned": OwnCode(Kind.INTERNAL, "The function ended each time before it could report on the event."),
    "Rename.AccessDenied": OwnCode(Kind.ACCESS, "Huawei Cloud denied access and gave no error code."),
    "Rename.ClaimLost": OwnCode(
        Kind.UNAVAILABLE,
        "The rename took longer than its claim on the endpoint service, which another event holds now.",
    ),
    "Rename.Conflict": OwnCode(Kind.CONFLICT, "Huawei Cloud reported a conflict and gave no error code."),
    "Rename.ConnectionFailed": OwnCode(Kind.UNAVAILABLE, "There was no connection to Huawei Cloud, or it broke."),
    "Rename.CredentialsUnavailable": OwnCode(Kind.UNAVAILABLE, "The key for Huawei Cloud could not be obtained."),
    IDENTIFIER_REUSED: OwnCode(Kind.CONFLICT, "Another event has had this source and id, with other content."),
    "Rename.InProgress": OwnCode(
        Kind.UNAVAILABLE, "The endpoint service is being renamed for another event, or a rename may yet take effect."
    ),
    "Rename.InternalError": OwnCode(Kind.INTERNAL, "The function failed on the event: a defect."),
    "Rename.InvalidEvent": OwnCode(Kind.INVALID, "The event breaks its schema or what the settings allow."),
    "Rename.LedgerUnavailable": OwnCode(Kind.UNAVAILABLE, "The ledger (DynamoDB) refused or did not answer."),
    "Rename.NotFound": OwnCode(Kind.NOT_FOUND, "Huawei Cloud found nothing and gave no error code."),
    NO_TIME_LEFT: OwnCode(Kind.UNAVAILABLE, "The invocation had no time left for an attempt."),
    "Rename.Outage": OwnCode(
        Kind.UNAVAILABLE, "Huawei Cloud has been unavailable: the outage breaker lets no call through."
    ),
    "Rename.OutcomeNotPublished": OwnCode(
        Kind.UNAVAILABLE, "The outcome bus (EventBridge) refused the outcome or did not answer."
    ),
    "Rename.PreconditionFailed": OwnCode(Kind.CONFLICT, "The endpoint service is not called expected_name."),
    "Rename.Refused": OwnCode(Kind.INVALID, "Huawei Cloud refused the request and gave no error code."),
    "Rename.RespondAsync": OwnCode(Kind.UNAVAILABLE, "The caller asked for an answer at once."),
    "Rename.ServiceUnavailable": OwnCode(Kind.UNAVAILABLE, "Huawei Cloud was unavailable and gave no error code."),
    SUPERSEDED: OwnCode(Kind.CONFLICT, "A newer rename of the endpoint service has been carried out."),
    "Rename.Throttled": OwnCode(Kind.THROTTLED, "Huawei Cloud throttled the request and gave no error code."),
    "Rename.Timeout": OwnCode(Kind.UNAVAILABLE, "Huawei Cloud did not answer in time."),
    "Rename.UnconfirmedReply": OwnCode(Kind.UNAVAILABLE, "Huawei Cloud's reply does not prove the rename."),
}


def log_message(code: str) -> str:
    """A failure's message for logs. It depends on the code only, and repeats no message of a reply and no event."""
    return OWN_CODES[code].message if code in OWN_CODES else f"Huawei Cloud: {code}"


def _own(code: str, message: str | None = None) -> Failure:
    own = OWN_CODES[code]
    return Failure(code, message or own.message, own.kind, own.retryable)


def timeout(*, in_doubt: bool = False) -> Failure:
    """No reply in time; in doubt if the request was sent."""
    return _own("Rename.Timeout")._replace(retry_in_process=True, in_doubt=in_doubt)


def connection_failed(*, in_doubt: bool = False) -> Failure:
    """No connection, or a broken one; in doubt if the request was sent."""
    message = "The connection to Huawei Cloud broke." if in_doubt else "There is no connection to Huawei Cloud."
    return _own("Rename.ConnectionFailed", message)._replace(retry_in_process=True, in_doubt=in_doubt)


def unconfirmed_reply(status: int | None, huawei_request_id: str | None) -> Failure:
    """A reply without an error that does not confirm the rename: a redirect, a malformed body, another name."""
    return _own("Rename.UnconfirmedReply")._replace(
        retry_in_process=True, in_doubt=True, http_status=status, huawei_request_id=huawei_request_id
    )


def invalid_event(violations: tuple[Violation, ...]) -> Failure:
    # The ids of these outcomes are derived from their content, including this text: it must not change.
    return _own("Rename.InvalidEvent", "The rename event breaks its schema.")._replace(violations=violations)


def precondition_failed(service_name: str | None) -> Failure:
    """
    Args:
        service_name: as reported by the API.
    """
    message = f"The endpoint service does not have the expected name. It is called {service_name!r} now."
    return _own("Rename.PreconditionFailed", message)


def superseded(by: EventName) -> Failure:
    message = f"A newer rename of this endpoint service has been carried out: event {by.id} of {by.source}."
    return _own(SUPERSEDED, message)._replace(superseded_by=by)


def identifier_reused() -> Failure:
    # The id of this outcome is derived from its content too: the text must not change.
    return _own(IDENTIFIER_REUSED, "Another rename event has had this source and id, with other content.")


def in_progress(retry_after: float | None = None) -> Failure:
    """Another invocation holds the claim: its rename is in progress, or may still take effect.

    Args:
        retry_after: seconds until the claim expires, None if unknown.
    """
    return _own("Rename.InProgress")._replace(retry_after=retry_after)


def claim_lost() -> Failure:
    """The rename took longer than its claim on the endpoint service, which another invocation now holds."""
    return _own("Rename.ClaimLost")


def ledger_unavailable(reason: str) -> Failure:
    """No call is made without the ledger, which detects duplicates and stale events.

    Args:
        reason: AWS's error code, or why there was no response.
    """
    return _own("Rename.LedgerUnavailable", f"The ledger does not answer: {reason}.")._replace(aws_error_code=reason)


def outage() -> Failure:
    """The circuit breaker is open: Huawei Cloud has been unavailable, and is not called for now."""
    return _own("Rename.Outage")._replace(counts_as_attempt=False)


def abandoned() -> Failure:
    """A dead letter without an outcome: every invocation ended before it could report one."""
    return _own("Rename.Abandoned")


def credentials(message: str, *, kind: Kind, aws_error_code: str | None = None) -> Failure:
    """There is no key: ``access`` if an operator must act, ``unavailable`` if the cause may be transient."""
    return _own("Rename.CredentialsUnavailable", message)._replace(
        kind=kind, counts_as_attempt=False, aws_error_code=aws_error_code
    )


def not_published(reason: str) -> Failure:
    """The outcome is decided, but could not be published.

    Args:
        reason: AWS's error code, or why there was no response.
    """
    return _own("Rename.OutcomeNotPublished", f"The outcome bus did not take the outcome: {reason}.")._replace(
        aws_error_code=reason
    )


def no_time_left() -> Failure:
    return _own(NO_TIME_LEFT)


def respond_async_requested() -> Failure:
    """The caller asked not to wait for the rename."""
    return _own("Rename.RespondAsync")._replace(counts_as_attempt=False)


def internal_error() -> Failure:
    """A defect of the function. Retryable, because a later version may handle the event."""
    return _own("Rename.InternalError")


def as_conflict(failure: Failure) -> Failure:
    """A state conflict that remains after a few attempts: final."""
    return failure._replace(retryable=False, retry_in_process=False)


def state_conflict_unverified(failure: Failure, unread: Failure) -> Failure:
    """The failure if the read that verifies a state conflict failed: retryable, even if the read's failure is not."""
    return unread if unread.retryable else failure._replace(retryable=True)
