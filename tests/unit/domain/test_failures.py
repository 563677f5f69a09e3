"""What each answer of Huawei Cloud means: the three tables of its error codes, row by row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function.adapters.huawei.error_codes import MESSAGE_MAX_LENGTH, from_reply, metric_code
from function.domain import failures
from function.domain.failures import Failure, Kind, RenameFailedError


class Means(NamedTuple):
    kind: Kind
    retryable: bool
    retry_in_process: bool = False
    in_doubt: bool = False
    state_conflict: bool = False


FINAL = Means(Kind.INVALID, retryable=False)
OWN_DEFECT = Means(Kind.INTERNAL, retryable=False)
NOT_FOUND = Means(Kind.NOT_FOUND, retryable=False)
CONFLICT = Means(Kind.CONFLICT, retryable=False)
STATE = Means(Kind.CONFLICT, retryable=True, retry_in_process=True, state_conflict=True)
ACCESS = Means(Kind.ACCESS, retryable=True)
THROTTLED = Means(Kind.THROTTLED, retryable=True, retry_in_process=True)
TRY_AGAIN = Means(Kind.UNAVAILABLE, retryable=True, retry_in_process=True)
LATER = Means(Kind.UNAVAILABLE, retryable=True)
DOUBT = Means(Kind.UNAVAILABLE, retryable=True, retry_in_process=True, in_doubt=True)

VPCEP = [
    ("EndPoint.0001", 500, TRY_AGAIN),
    ("EndPoint.0013", 504, DOUBT),
    ("EndPoint.0022", 400, THROTTLED),
    ("EndPoint.2004", 400, TRY_AGAIN),
    ("EndPoint.3045", 400, STATE),
    *[(f"EndPoint.{digits}", 504, OWN_DEFECT) for digits in ("0011", "0012")],
    *[(f"EndPoint.{digits}", 400, FINAL) for digits in ("0002", "1003", "1004", "2002", "2029", "3062", "3076")],
    ("EndPoint.2003", 400, NOT_FOUND),
    ("EndPoint.0005", 404, NOT_FOUND),
    *[(f"EndPoint.{digits}", 400, ACCESS) for digits in ("0009", "0014", "1008")],
    ("EndPoint.0003", 401, ACCESS),
    ("EndPoint.0004", 403, ACCESS),
]

GATEWAY: list[tuple[str, int, Means]] = [
    *[(digits, 404, ACCESS) for digits in ("0101", "0103")],
    *[(digits, 400, FINAL) for digits in ("0104", "0105", "0106", "0201", "0602", "0607")],
    *[("0201", status, FINAL) for status in (413, 414, 494)],
    *[("0201", status, DOUBT) for status in (502, 504)],
    *[(digits, 401, ACCESS) for digits in ("0301", "0303", "0305", "0307", "0311")],
    *[(digits, 403, ACCESS) for digits in ("0302", "0304", "0306", "0310", "0401", "0402", "0404", "0801", "0802")],
    ("0308", 429, THROTTLED),
    *[(digits, 405, ACCESS) for digits in ("0501", "0502")],
    *[(digits, 500, DOUBT) for digits in ("0601", "0605", "0606", "0608", "0609", "0611", "0612", "0705")],
    ("0610", 502, TRY_AGAIN),
    ("0613", 503, TRY_AGAIN),
]

# What is documented for the call, and what a proxy or a gateway on the way may answer.
STATUSES = [
    *[(status, FINAL) for status in (400, 405, 406, 413, 499)],
    *[(status, ACCESS) for status in (401, 403, 407)],
    (404, NOT_FOUND),
    (409, CONFLICT),
    (429, THROTTLED),
    *[(status, TRY_AGAIN) for status in (408, 501, 599)],
    *[(status, DOUBT) for status in (500, 502, 503, 504)],
]

# Statuses that say the opposite of what the code says.
CODE_TAKES_PRECEDENCE = [
    ("EndPoint.2003", 500, NOT_FOUND),
    ("EndPoint.0001", 400, TRY_AGAIN),
    ("EndPoint.0022", 403, THROTTLED),
    ("APIGW.0308", 400, THROTTLED),
    ("APIGW.0301", 500, ACCESS),
]

# Whether the request may have reached a backend, where no table knows the code or the status is another one.
UNKNOWN_CODE_OR_STATUS = [
    *[("EndPoint.9999", status, TRY_AGAIN) for status in (500, 503)],
    *[("EndPoint.9999", status, DOUBT) for status in (502, 504)],
    ("Endpoint.0001", 504, DOUBT),
    *[("Other.0001", status, DOUBT) for status in (500, 503)],
    ("Other.0001", 501, TRY_AGAIN),
    ("APIGW.9999", 500, DOUBT),
    ("APIG.0601", 503, DOUBT),
    ("APIGW.0601", 400, TRY_AGAIN),
    ("APIGW.0610", 500, TRY_AGAIN),
    ("APIG.0610", 504, TRY_AGAIN),
    ("apigw.0613", 502, TRY_AGAIN),
]

GATEWAY_ROWS = [
    (f"{prefix}.{digits}", status, means) for digits, status, means in GATEWAY for prefix in ("APIGW", "APIG")
]
ROWS = [*VPCEP, *GATEWAY_ROWS]


def meaning(failure: Failure) -> Means:
    return Means(failure.kind, failure.retryable, failure.retry_in_process, failure.in_doubt, failure.state_conflict)


@pytest.mark.parametrize(("code", "status", "means"), [*ROWS, *CODE_TAKES_PRECEDENCE, *UNKNOWN_CODE_OR_STATUS])
def test_code_and_status_mean_what_the_tables_say(code: str, status: int, means: Means) -> None:
    failure = from_reply(code, "any text", status=status, huawei_request_id="id-1")

    assert meaning(failure) == means
    assert (failure.code, failure.http_status, failure.huawei_request_id) == (code, status, "id-1")


@pytest.mark.parametrize(("code", "status", "means"), ROWS)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.swapcase, str.capitalize])
def test_code_is_compared_without_regard_to_case_and_reported_as_spelled(
    code: str, status: int, means: Means, spelling: Callable[[str], str]
) -> None:
    spelled = spelling(code)

    failure = from_reply(spelled, "", status=status)

    assert meaning(failure) == means
    assert failure.code == spelled


@pytest.mark.parametrize(("status", "means"), STATUSES)
@pytest.mark.parametrize("code", ["APIGW.0999", "APIG.9999", "Common.0001", "Endpoin.2003", "x", "", None])
def test_reply_without_a_known_code_means_what_its_status_says(code: str | None, status: int, means: Means) -> None:
    failure = from_reply(code, "", status=status)

    assert meaning(failure) == means
    assert failure.code == code if code else failure.code.startswith("Rename.")
    assert code or failure.message


def test_digits_of_the_service_mean_nothing_in_a_code_of_the_gateway() -> None:
    assert from_reply("APIGW.2003", "", status=400).kind is Kind.INVALID


@given(st.integers(min_value=400, max_value=599), st.text(max_size=20))
def test_any_code_and_status_have_a_meaning_without_harmful_retries(status: int, code: str) -> None:
    failure = from_reply(code, "", status=status)

    assert failure.code
    assert not (failure.retry_in_process and not failure.retryable), "a quick second attempt of what cannot succeed"
    assert not (failure.retry_in_process and failure.kind is Kind.ACCESS), "five wrong signatures lock the key"


# 0201 is in no table, for its status tells what it means.
@pytest.mark.parametrize(("code", "status"), [row[:2] for row in ROWS if not row[0].endswith(".0201")])
@pytest.mark.parametrize("spelling", [str, str.lower, str.upper, str.swapcase])
def test_metric_has_one_spelling_of_each_known_code(code: str, status: int, spelling: Callable[[str], str]) -> None:
    assert metric_code(from_reply(spelling(code), "", status=status).code) == code


def test_metric_has_the_codes_of_the_function_itself() -> None:
    source = Path(failures.__file__).read_text(encoding="utf-8")
    own = set(re.findall(r'"(Rename\.\w+)"', source))

    assert len(own) > 20
    assert {metric_code(code) for code in own} == own


@pytest.mark.parametrize("code", ["EndPoint.9999", "APIGW.9999", "Rename.Anything", "", "x" * 128, "EndPoint.2003x"])
def test_metric_has_one_name_for_all_unknown_codes(code: str) -> None:
    assert metric_code(code) == "Other"


MESSAGES = [
    "The VPC endpoint service does not exist.",
    "policy user over ratelimit,limit:200,time:5 minute",
    "APIGW.0301: Incorrect IAM authentication information",
    "EndPoint.2003",
    "429 Too Many Requests",
]


@given(
    st.sampled_from(ROWS),
    st.text(max_size=200) | st.sampled_from(MESSAGES),
)
def test_message_never_decides_what_a_failure_means(row: tuple[str, int, Means], message: str) -> None:
    code, status, means = row

    assert meaning(from_reply(code, message, status=status)) == means


@pytest.mark.parametrize("length", [1, MESSAGE_MAX_LENGTH, 2_000_000])
def test_message_of_a_reply_is_truncated(length: int) -> None:
    assert from_reply("EndPoint.2003", "x" * length, status=400).message == "x" * min(length, MESSAGE_MAX_LENGTH)


def test_message_is_not_in_the_text_of_the_exception() -> None:
    """The text may be logged."""
    assert str(RenameFailedError(from_reply("EndPoint.2003", "orders is gone", status=400))) == "EndPoint.2003"


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("The throttling threshold has been reached: policy user over ratelimit,limit:200,time:5 minute", 300),
        ("policy ip over ratelimit,limit:1,time:1 second", 1),
        ("policy api over ratelimit,limit:10,time:30 seconds", 30),
        ("limit:200,time:2 hour", 7200),
        ("limit:200,time:1 day", 86400),
        ("LIMIT:200,TIME:1 MINUTE", 60),
        ("limit:200, time: 1 minute", 60),
        ("limit:200,time:1minute", 60),
    ],
)
@pytest.mark.parametrize(("code", "status"), [("APIGW.0308", 429), ("EndPoint.0022", 400), (None, 429)])
def test_throttling_window_in_the_message_becomes_retry_after(
    message: str, seconds: float, code: str | None, status: int
) -> None:
    assert from_reply(code, message, status=status).retry_after == seconds


@pytest.mark.parametrize(
    "message",
    [
        *("", "The throttling threshold has been reached.", "limit:200", "downtime:5 minute"),
        *[f"limit:200,time:{time}" for time in ("", "soon", "5 fortnight", "99999999999999999999 day", "-5 minute")],
    ],
)
def test_retry_after_is_unknown_if_the_message_names_no_window(message: str) -> None:
    assert from_reply("APIGW.0308", message, status=429).retry_after is None


def test_throttling_window_is_read_from_throttled_replies_only() -> None:
    assert from_reply("EndPoint.0001", "limit:200,time:5 minute", status=500).retry_after is None


@pytest.mark.parametrize("retry_after", [0.0, 7.0, 900.0])
def test_retry_after_header_takes_precedence_over_the_message(retry_after: float) -> None:
    failure = from_reply("APIGW.0308", "limit:1,time:5 minute", status=429, retry_after=retry_after)

    assert failure.retry_after == retry_after


@pytest.mark.parametrize(
    ("failure", "code", "means"),
    [
        (failures.timeout(in_doubt=False), "Rename.Timeout", TRY_AGAIN),
        (failures.timeout(in_doubt=True), "Rename.Timeout", DOUBT),
        (failures.connection_failed(in_doubt=False), "Rename.ConnectionFailed", TRY_AGAIN),
        (failures.connection_failed(in_doubt=True), "Rename.ConnectionFailed", DOUBT),
        (failures.unconfirmed_reply(200, None), "Rename.UnconfirmedReply", DOUBT),
        (failures.precondition_failed("billing"), "Rename.PreconditionFailed", CONFLICT),
        (failures.invalid_event(()), "Rename.InvalidEvent", FINAL),
        (failures.internal_error(), "Rename.InternalError", Means(Kind.INTERNAL, retryable=True)),
        (failures.no_time_left(), "Rename.NoTimeLeft", LATER),
        (failures.not_published("x"), "Rename.OutcomeNotPublished", LATER),
        (failures.credentials("x", kind=Kind.ACCESS), "Rename.CredentialsUnavailable", ACCESS),
        (failures.credentials("x", kind=Kind.UNAVAILABLE), "Rename.CredentialsUnavailable", LATER),
    ],
)
def test_failure_of_the_function_itself_means_what_its_name_says(failure: Failure, code: str, means: Means) -> None:
    assert (failure.code, meaning(failure)) == (code, means)


def test_state_conflict_that_lasts_is_final_and_keeps_its_code() -> None:
    failure = failures.as_conflict(from_reply("EndPoint.3045", "", status=400, huawei_request_id="id-1"))

    assert (failure.kind, failure.retryable, failure.retry_in_process) == (Kind.CONFLICT, False, False)
    assert (failure.code, failure.http_status, failure.huawei_request_id) == ("EndPoint.3045", 400, "id-1")
