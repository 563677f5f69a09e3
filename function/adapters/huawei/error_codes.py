"""Maps Huawei Cloud's error codes to failures, by the error code tables of VPCEP and its API gateway.

Messages are not evaluated, because their texts change; the only exception is the length of a throttling window.
"""

import re
from typing import NamedTuple

from function.domain.failures import OWN_CODES, Failure, Kind
from function.domain.strict_json import replace_lone_surrogates

MESSAGE_MAX_LENGTH = 1_000
CODE_MAX_LENGTH = 128
OTHER_CODE = "Other"


class _Meaning(NamedTuple):
    kind: Kind
    retryable: bool = False
    retry_in_process: bool = False
    in_doubt: bool = False
    state_conflict: bool = False


_FINAL = _Meaning(Kind.INVALID)
_OWN_DEFECT = _Meaning(Kind.INTERNAL)
_NOT_FOUND = _Meaning(Kind.NOT_FOUND)
_CONFLICT = _Meaning(Kind.CONFLICT)
_STATE_CONFLICT = _Meaning(Kind.CONFLICT, retryable=True, retry_in_process=True, state_conflict=True)
# A wrong endpoint, region or project in the settings affects every event, like a wrong key.
_ACCESS = _Meaning(Kind.ACCESS, retryable=True)
_THROTTLED = _Meaning(Kind.THROTTLED, retryable=True, retry_in_process=True)
_UNAVAILABLE = _Meaning(Kind.UNAVAILABLE, retryable=True, retry_in_process=True)
_TIMED_OUT = _Meaning(Kind.UNAVAILABLE, retryable=True, retry_in_process=True, in_doubt=True)

# Codes whose HTTP status is ambiguous or wrong, by their digits.
_VPCEP_CODES = (
    dict.fromkeys(("0003", "0004", "0009", "0014", "1008"), _ACCESS)
    | dict.fromkeys(("0002", "1003", "1004", "2002", "2029", "3062", "3076"), _FINAL)
    | dict.fromkeys(("0001", "2004"), _UNAVAILABLE)
    | dict.fromkeys(("0005", "2003"), _NOT_FOUND)
    | dict.fromkeys(("0011", "0012"), _OWN_DEFECT)
    | {"0013": _TIMED_OUT, "0022": _THROTTLED, "3045": _STATE_CONFLICT}
)
_GATEWAY_CODES = (
    dict.fromkeys(("0101", "0103", "0301", "0303", "0305", "0307", "0311"), _ACCESS)
    | dict.fromkeys(("0302", "0304", "0306", "0310", "0401", "0402", "0404", "0501", "0502", "0801", "0802"), _ACCESS)
    | dict.fromkeys(("0104", "0105", "0106", "0602", "0607"), _FINAL)
    | dict.fromkeys(("0601", "0605", "0606", "0608", "0609", "0610", "0611", "0612", "0613", "0705"), _UNAVAILABLE)
    | {"0308": _THROTTLED}
)
# In lower case, because one code is documented as "Endpoint.1018". Current gateways have "APIGW.", older ones "APIG.".
_CODES = {
    f"{prefix}.{digits}": meaning
    for prefix, codes in (("endpoint", _VPCEP_CODES), ("apigw", _GATEWAY_CODES), ("apig", _GATEWAY_CODES))
    for digits, meaning in codes.items()
}
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
# The gateway's codes with status 5xx that say that the request reached no backend.
_REACHED_NO_BACKEND = frozenset({"apigw.0610", "apigw.0613", "apig.0610", "apig.0613"})
_DOUBTFUL_STATUSES = frozenset({500, 502, 503, 504})
_DOUBTFUL_STATUSES_OF_GATEWAYS = frozenset({502, 504})
_THROTTLE_WINDOW = re.compile(r"\btime:\s*([0-9]{1,6})\s*(second|minute|hour|day)", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _meaning(code: str, status: int) -> _Meaning:
    known = _CODES.get(code) or _STATUSES.get(status)
    meaning = known or (_UNAVAILABLE if status >= 500 else _FINAL)  # noqa: PLR2004 - HTTP's own classes
    return _TIMED_OUT if meaning is _UNAVAILABLE and _may_have_been_done(code, status) else meaning


def _may_have_been_done(code: str, status: int) -> bool:
    """Whether the request may have been carried out. VPCEP's own codes are definite, except with a gateway's status."""
    if code.startswith("endpoint."):
        return status in _DOUBTFUL_STATUSES_OF_GATEWAYS
    return status in _DOUBTFUL_STATUSES and code not in _REACHED_NO_BACKEND


def metric_code(code: str) -> str:
    """The code in one spelling if it is in a table here, else ``Other``, to limit the number of time series."""
    if code.lower() in _CODES:
        return f"EndPoint{code[-5:]}" if code.lower().startswith("endpoint") else code.upper()
    return code if code in OWN_CODES else OTHER_CODE


def from_reply(
    code: str | None,
    message: str,
    *,
    status: int,
    huawei_request_id: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    """The failure for an error reply of Huawei Cloud, by its code and status.

    Args:
        code: from the body, None if it had none.
        message: from the body, may be empty.
        status: HTTP status, 400 or more.
        huawei_request_id: from the header or the body.
        retry_after: seconds, from the header.
    """
    code = code if code and len(code) <= CODE_MAX_LENGTH and code.isascii() and code.isprintable() else None
    meaning = _meaning((code or "").lower(), status)
    if meaning.kind is Kind.THROTTLED and retry_after is None and (window := _THROTTLE_WINDOW.search(message)):
        retry_after = float(window[1]) * _SECONDS[window[2].lower()]
    return Failure(
        code or _CODE_WHERE_HUAWEI_GIVES_NONE[meaning.kind],
        replace_lone_surrogates(message[:MESSAGE_MAX_LENGTH]) or f"HTTP status {status}",
        **meaning._asdict(),
        http_status=status,
        huawei_request_id=replace_lone_surrogates((huawei_request_id or "")[:CODE_MAX_LENGTH]) or None,
        retry_after=retry_after,
    )
