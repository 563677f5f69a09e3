"""What can go wrong with a rename, and what each failure means for the event.

Apart from the rest because three rooms need it: the adapters say what happened, the decision acts on the kind, and the
outcome carries it to the consumer. The codes are those of Huawei Cloud's error code tables for VPCEP and its API
gateway; messages are never looked at, for their texts change, but for the length of a throttle window.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

MESSAGE_MAX_LENGTH = 1_000
CODE_MAX_LENGTH = 128
NO_TIME_LEFT = "Rename.NoTimeLeft"
IDENTIFIER_REUSED = "Rename.IdentifierReused"
SUPERSEDED = "Rename.Superseded"
OTHER_CODE = "Other"


class Kind(StrEnum):
    """Whose fault a failure is, and so what is done about it."""

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
    """What identifies a rename event."""

    source: str
    id: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What a rename failed with.

    Attributes:
        code: Huawei Cloud's own code, or one prefixed ``Rename.``.
        message: for people; never for decisions. It may repeat a reply or an event, so a log has ``log_message()``.
        kind: whose fault it is.
        retryable: the same event may succeed later. False settles the event at once.
        http_status: of Huawei Cloud's reply, None where there was none.
        huawei_request_id: as Huawei Cloud reported it, None where it did not.
        called: Huawei Cloud was called, or it was tried.
        in_doubt: the rename may have happened all the same.
        quick: another attempt inside the same invocation is allowed.
        state_conflict: an attempt or two may help, then it is a conflict with the service's state.
        retry_after: seconds that the other side asked to wait.
        violations: for ``invalid`` only.
        superseded_by: the newer event, for ``Rename.Superseded`` only.
        aws_error_code: of the AWS service that refused, or what kept its answer from coming; None where neither is the
            reason.
    """

    code: str
    message: str
    kind: Kind
    retryable: bool
    http_status: int | None = None
    huawei_request_id: str | None = None
    called: bool = True
    in_doubt: bool = False
    quick: bool = False
    state_conflict: bool = False
    retry_after: float | None = None
    violations: tuple[Violation, ...] = ()
    superseded_by: EventName | None = None
    aws_error_code: str | None = None


class RenameFailedError(Exception):
    """Raised by collaborators of the decision; carries the failure. Its text is the code alone, so it may be logged."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code)
        self.failure = failure


class _Meaning(NamedTuple):
    kind: Kind
    retryable: bool = False
    quick: bool = False
    in_doubt: bool = False
    state_conflict: bool = False


_FINAL = _Meaning(Kind.INVALID)
_OWN_DEFECT = _Meaning(Kind.INTERNAL)
_NOT_FOUND = _Meaning(Kind.NOT_FOUND)
_CONFLICT = _Meaning(Kind.CONFLICT)
_STATE_CONFLICT = _Meaning(Kind.CONFLICT, retryable=True, quick=True, state_conflict=True)
# A wrong endpoint, region or project in the settings is everybody's problem just as a wrong key is.
_ACCESS = _Meaning(Kind.ACCESS, retryable=True)
_THROTTLED = _Meaning(Kind.THROTTLED, retryable=True, quick=True)
_UNAVAILABLE = _Meaning(Kind.UNAVAILABLE, retryable=True, quick=True)
_TIMED_OUT = _Meaning(Kind.UNAVAILABLE, retryable=True, quick=True, in_doubt=True)

# Codes whose status says too little or the wrong thing. Keys in lower case: one code is documented as "Endpoint.1018".
_VPCEP_CODES = {
    "endpoint.0001": _UNAVAILABLE,
    "endpoint.0002": _FINAL,
    "endpoint.0003": _ACCESS,
    "endpoint.0004": _ACCESS,
    "endpoint.0005": _NOT_FOUND,
    "endpoint.0009": _ACCESS,
    "endpoint.0011": _OWN_DEFECT,
    "endpoint.0012": _OWN_DEFECT,
    "endpoint.0013": _TIMED_OUT,
    "endpoint.0014": _ACCESS,
    "endpoint.0022": _THROTTLED,
    "endpoint.1003": _FINAL,
    "endpoint.1004": _FINAL,
    "endpoint.1008": _ACCESS,
    "endpoint.2002": _FINAL,
    "endpoint.2003": _NOT_FOUND,
    "endpoint.2004": _UNAVAILABLE,
    "endpoint.2029": _FINAL,
    "endpoint.3045": _STATE_CONFLICT,
    "endpoint.3062": _FINAL,
    "endpoint.3076": _FINAL,
}

# The gateway's codes by their digits: "APIGW." on current gateways, "APIG." on older ones.
_GATEWAY_CODES = (
    dict.fromkeys(("0101", "0103"), _ACCESS)
    | dict.fromkeys(("0104", "0105", "0106", "0602", "0607"), _FINAL)
    | dict.fromkeys(("0301", "0303", "0305", "0307", "0311"), _ACCESS)
    | dict.fromkeys(("0302", "0304", "0306", "0310", "0401", "0402", "0404", "0501", "0502", "0801", "0802"), _ACCESS)
    | {"0308": _THROTTLED}
    | dict.fromkeys(("0601", "0605", "0606", "0608", "0609", "0610", "0611", "0612", "0613", "0705"), _UNAVAILABLE)
)

_STATUSES = {
    401: _ACCESS,
    403: _ACCESS,
    404: _NOT_FOUND,
    407: _ACCESS,
    408: _UNAVAILABLE,
    409: _CONFLICT,
    429: _THROTTLED,
    504: _TIMED_OUT,
}

_CODE_WHERE_HUAWEI_GIVES_NONE = {
    Kind.INVALID: "Rename.Refused",
    Kind.NOT_FOUND: "Rename.NotFound",
    Kind.CONFLICT: "Rename.Conflict",
    Kind.ACCESS: "Rename.AccessDenied",
    Kind.THROTTLED: "Rename.Throttled",
    Kind.UNAVAILABLE: "Rename.ServiceUnavailable",
}

# Of the function's own codes, what a log says: constants, for a failure's own message may repeat a reply or an event.
LOG_MESSAGES = {
    "Rename.Abandoned": "The function ended each time before it could report on the event.",
    "Rename.AccessDenied": "Huawei Cloud denied access and gave no error code.",
    "Rename.ClaimLost": "The rename took longer than its claim on the endpoint service, which another event holds now.",
    "Rename.Conflict": "Huawei Cloud reported a conflict and gave no error code.",
    "Rename.ConnectionFailed": "There was no connection to Huawei Cloud, or it broke.",
    "Rename.CredentialsUnavailable": "The key for Huawei Cloud could not be had.",
    IDENTIFIER_REUSED: "Another event has had this source and id, with other content.",
    "Rename.InProgress": "The endpoint service is being renamed for another event.",
    "Rename.InternalError": "The function failed on the event: a defect.",
    "Rename.InvalidEvent": "The event breaks its schema or what the settings allow.",
    "Rename.LedgerUnavailable": "The ledger (DynamoDB) refused or did not answer.",
    "Rename.NotFound": "Huawei Cloud found nothing and gave no error code.",
    NO_TIME_LEFT: "The invocation had no time left for an attempt.",
    "Rename.Outage": "Huawei Cloud has been unavailable: the outage breaker lets no call through.",
    "Rename.OutcomeNotPublished": "The outcome bus (EventBridge) refused the outcome or did not answer.",
    "Rename.PreconditionFailed": "The endpoint service is not called expected_name.",
    "Rename.Refused": "Huawei Cloud refused the request and gave no error code.",
    "Rename.RespondAsync": "The caller asked for an answer at once.",
    "Rename.ServiceUnavailable": "Huawei Cloud was unavailable and gave no error code.",
    SUPERSEDED: "A newer rename of the endpoint service has been carried out.",
    "Rename.Throttled": "Huawei Cloud throttled the request and gave no error code.",
    "Rename.Timeout": "Huawei Cloud did not answer in time.",
    "Rename.UnconfirmedReply": "Huawei Cloud's reply does not prove the rename.",
}

# Of gateway answers with a status of 5xx, those that say that the request reached no backend.
_REACHED_NO_BACKEND = frozenset({"0610", "0613"})
_DOUBTFUL_STATUSES = frozenset({500, 502, 503, 504})
_DOUBTFUL_STATUSES_OF_GATEWAYS = frozenset({502, 504})

_GATEWAY_CODE = re.compile(r"apigw?\.([0-9]{4})", re.IGNORECASE)
_THROTTLE_WINDOW = re.compile(r"\btime:\s*([0-9]{1,6})\s*(second|minute|hour|day)", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _meaning(code: str | None, status: int) -> _Meaning:
    gateway = _GATEWAY_CODE.fullmatch(code or "")
    known = _GATEWAY_CODES.get(gateway[1]) if gateway else _VPCEP_CODES.get((code or "").lower())
    meaning = known or _STATUSES.get(status) or (_UNAVAILABLE if status >= 500 else _FINAL)  # noqa: PLR2004 - HTTP's own classes
    if meaning is _UNAVAILABLE and _may_have_been_done(code, status):
        return _TIMED_OUT
    return meaning


def _may_have_been_done(code: str | None, status: int) -> bool:
    """Whether the request may have been carried out all the same. VPCEP's own codes say what became of it."""
    if gateway := _GATEWAY_CODE.fullmatch(code or ""):
        return gateway[1] not in _REACHED_NO_BACKEND and status in _DOUBTFUL_STATUSES
    if code and code.lower().startswith("endpoint."):
        return status in _DOUBTFUL_STATUSES_OF_GATEWAYS
    return status in _DOUBTFUL_STATUSES


def bounded(code: str) -> str:
    """The code in one spelling where it is in a table here, else ``Other``: a reply may hold any, and a metric has one
    time series for each."""
    if gateway := _GATEWAY_CODE.fullmatch(code):
        return code.upper() if gateway[1] in _GATEWAY_CODES else OTHER_CODE
    if code.lower() in _VPCEP_CODES:
        return f"EndPoint{code[-5:]}"
    return code if code in LOG_MESSAGES else OTHER_CODE


def log_message(code: str) -> str:
    """A failure's message for logs, by its code alone: a constant, whatever a reply or an event says."""
    return LOG_MESSAGES.get(code) or f"Huawei Cloud: {code}"


def from_reply(
    code: str | None,
    message: str,
    *,
    status: int,
    huawei_request_id: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    """The failure that an error reply of Huawei Cloud means, by its code and status.

    Args:
        code: from the body, None where it had none.
        message: from the body, may be empty.
        status: HTTP status, 400 or more.
        huawei_request_id: from the header or the body.
        retry_after: seconds, from the header.
    """
    code = code if code and len(code) <= CODE_MAX_LENGTH and code.isascii() and code.isprintable() else None
    meaning = _meaning(code, status)
    if meaning.kind is Kind.THROTTLED and retry_after is None and (window := _THROTTLE_WINDOW.search(message)):
        retry_after = float(window[1]) * _SECONDS[window[2].lower()]
    return _failure(
        code or _CODE_WHERE_HUAWEI_GIVES_NONE[meaning.kind],
        _clean(message, MESSAGE_MAX_LENGTH) or f"HTTP status {status}",
        meaning,
        http_status=status,
        huawei_request_id=_clean(huawei_request_id or "", CODE_MAX_LENGTH) or None,
        retry_after=retry_after,
    )


def timeout(*, in_doubt: bool = False) -> Failure:
    """No reply in time. In doubt, when the request had been sent."""
    meaning = _TIMED_OUT if in_doubt else _UNAVAILABLE
    return _failure("Rename.Timeout", "Huawei Cloud did not answer in time.", meaning)


def connection_failed(*, in_doubt: bool = False) -> Failure:
    """No connection, or one that broke. In doubt, when the request had been sent."""
    if in_doubt:
        return _failure("Rename.ConnectionFailed", "The connection to Huawei Cloud broke.", _TIMED_OUT)
    return _failure("Rename.ConnectionFailed", "There is no connection to Huawei Cloud.", _UNAVAILABLE)


def unconfirmed_reply(*, status: int | None, huawei_request_id: str | None) -> Failure:
    """A reply that is no error and proves nothing: a redirect, an empty or garbled body, another name."""
    return _failure(
        "Rename.UnconfirmedReply",
        "Huawei Cloud's reply does not prove the rename.",
        _TIMED_OUT,
        http_status=status,
        huawei_request_id=huawei_request_id,
    )


def invalid_event(violations: tuple[Violation, ...]) -> Failure:
    return Failure(
        "Rename.InvalidEvent",
        "The rename event breaks its schema.",
        Kind.INVALID,
        retryable=False,
        violations=violations,
    )


def precondition_failed(service_name: str | None) -> Failure:
    """
    Args:
        service_name: what the API reported.
    """
    return Failure(
        "Rename.PreconditionFailed",
        f"The endpoint service does not have the expected name. It is called {service_name!r} now.",
        Kind.CONFLICT,
        retryable=False,
    )


def superseded(by: EventName) -> Failure:
    message = f"A newer rename of this endpoint service has been carried out: event {by.id} of {by.source}."
    return Failure(SUPERSEDED, message, Kind.CONFLICT, retryable=False, superseded_by=by)


def identifier_reused() -> Failure:
    message = "Another rename event has had this source and id, with other content."
    return Failure(IDENTIFIER_REUSED, message, Kind.CONFLICT, retryable=False)


def in_progress(retry_after: float | None = None) -> Failure:
    """Another invocation renames the endpoint service right now, or its rename may yet take effect.

    Args:
        retry_after: seconds until its claim expires, where that is known.
    """
    message = "The endpoint service is being renamed for another event, or a rename of it may yet take effect."
    return Failure("Rename.InProgress", message, Kind.UNAVAILABLE, retryable=True, retry_after=retry_after)


def claim_lost() -> Failure:
    """The rename took longer than its claim on the endpoint service lasted, and somebody else has taken it over."""
    message = "The claim on the endpoint service was lost before the outcome was remembered."
    return Failure("Rename.ClaimLost", message, Kind.UNAVAILABLE, retryable=True)


def ledger_unavailable(reason: str) -> Failure:
    """No call without the ledger: nobody could tell a duplicate or a stale event.

    Args:
        reason: AWS's error code, or what went wrong on the way there.
    """
    message = f"The ledger does not answer: {reason}."
    return Failure("Rename.LedgerUnavailable", message, Kind.UNAVAILABLE, retryable=True, aws_error_code=reason)


def outage() -> Failure:
    """The outage breaker is open: Huawei Cloud has not been answering, and is left alone for a while."""
    message = "Huawei Cloud has been unavailable; it is left alone for a while."
    return Failure("Rename.Outage", message, Kind.UNAVAILABLE, retryable=True, called=False)


def abandoned() -> Failure:
    """A dead letter without an outcome: each time the function ended before it could report."""
    return Failure(
        "Rename.Abandoned", "The function never came to report on this event.", Kind.INTERNAL, retryable=True
    )


def credentials(message: str, *, kind: Kind, aws_error_code: str | None = None) -> Failure:
    """The key for Huawei Cloud cannot be had: ``access`` when somebody must act, ``unavailable`` when it may pass."""
    return Failure(
        "Rename.CredentialsUnavailable", message, kind, retryable=True, called=False, aws_error_code=aws_error_code
    )


def not_published(reason: str) -> Failure:
    """The rename is decided, but the bus did not take the outcome.

    Args:
        reason: AWS's error code, or what went wrong on the way there.
    """
    message = f"The outcome bus did not take the outcome: {reason}."
    return Failure("Rename.OutcomeNotPublished", message, Kind.UNAVAILABLE, retryable=True, aws_error_code=reason)


def no_time_left() -> Failure:
    return Failure(NO_TIME_LEFT, "The invocation had no time left for an attempt.", Kind.UNAVAILABLE, retryable=True)


def wanted_later() -> Failure:
    """The caller asked not to wait for the rename."""
    return Failure(
        "Rename.RespondAsync", "The caller asked for an answer at once.", Kind.UNAVAILABLE, retryable=True, called=False
    )


def internal_error() -> Failure:
    """A defect of the function. Left to the queue: a later version may be able to do it."""
    return Failure("Rename.InternalError", "The function failed on this event.", Kind.INTERNAL, retryable=True)


def as_conflict(failure: Failure) -> Failure:
    """A state conflict that did not pass after a few attempts: final from now on."""
    return replace(failure, retryable=False, quick=False)


def untold(failure: Failure, unread: Failure) -> Failure:
    """Of a state conflict, when the read that would decide it failed: not final, even where the read's failure is."""
    return unread if unread.retryable else replace(failure, retryable=True)


def _clean(text: str, length: int) -> str:
    """Of a bearable length, and in characters that UTF-8 can carry."""
    return text[:length].encode("utf-8", "replace").decode("utf-8")


def _failure(
    code: str,
    message: str,
    meaning: _Meaning,
    *,
    http_status: int | None = None,
    huawei_request_id: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    return Failure(
        code=code,
        message=message,
        kind=meaning.kind,
        retryable=meaning.retryable,
        quick=meaning.quick,
        in_doubt=meaning.in_doubt,
        state_conflict=meaning.state_conflict,
        http_status=http_status,
        huawei_request_id=huawei_request_id,
        retry_after=retry_after,
    )
