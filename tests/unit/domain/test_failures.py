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
DOUBT = Means(Kind.UNAVAILABLE, retryable=True, retry_in_process=True, in_doubt=True)

VPCEP = [
    ("EndPoint.0001", 500, TRY_AGAIN),
    ("EndPoint.0013", 504, DOUBT),
    ("EndPoint.0022", 400, THROTTLED),
    ("EndPoint.2004", 400, TRY_AGAIN),
    ("EndPoint.3045", 400, STATE),
    ("EndPoint.0011", 504, OWN_DEFECT),
    ("EndPoint.0012", 504, OWN_DEFECT),
    ("EndPoint.0002", 400, FINAL),
    ("EndPoint.1004", 400, FINAL),
    ("EndPoint.2002", 400, FINAL),
    ("EndPoint.1003", 400, FINAL),
    ("EndPoint.3076", 400, FINAL),
    ("EndPoint.2029", 400, FINAL),
    ("EndPoint.3062", 400, FINAL),
    ("EndPoint.2003", 400, NOT_FOUND),
    ("EndPoint.0005", 404, NOT_FOUND),
    ("EndPoint.0014", 400, ACCESS),
    ("EndPoint.0003", 401, ACCESS),
    ("EndPoint.0004", 403, ACCESS),
    ("EndPoint.0009", 400, ACCESS),
    ("EndPoint.1008", 400, ACCESS),
]

GATEWAY = [
    ("0101", 404, ACCESS),
    ("0103", 404, ACCESS),
    ("0104", 400, FINAL),
    ("0105", 400, FINAL),
    ("0106", 400, FINAL),
    ("0602", 400, FINAL),
    ("0607", 400, FINAL),
    ("0201", 400, FINAL),
    ("0201", 413, FINAL),
    ("0201", 414, FINAL),
    ("0201", 494, FINAL),
    ("0201", 502, DOUBT),
    ("0201", 504, DOUBT),
    ("0301", 401, ACCESS),
    ("0303", 401, ACCESS),
    ("0305", 401, ACCESS),
    ("0307", 401, ACCESS),
    ("0311", 401, ACCESS),
    ("0302", 403, ACCESS),
    ("0304", 403, ACCESS),
    ("0306", 403, ACCESS),
    ("0310", 403, ACCESS),
    ("0401", 403, ACCESS),
    ("0402", 403, ACCESS),
    ("0404", 403, ACCESS),
    ("0801", 403, ACCESS),
    ("0802", 403, ACCESS),
    ("0308", 429, THROTTLED),
    ("0501", 405, ACCESS),
    ("0502", 405, ACCESS),
    ("0601", 500, DOUBT),
    ("0605", 500, DOUBT),
    ("0606", 500, DOUBT),
    ("0608", 500, DOUBT),
    ("0609", 500, DOUBT),
    ("0611", 500, DOUBT),
    ("0612", 500, DOUBT),
    ("0705", 500, DOUBT),
    ("0610", 502, TRY_AGAIN),
    ("0613", 503, TRY_AGAIN),
]

# What is documented for the call, and what a proxy or a gateway on the way may answer.
STATUSES = [
    (400, FINAL),
    (401, ACCESS),
    (403, ACCESS),
    (404, NOT_FOUND),
    (405, FINAL),
    (406, FINAL),
    (407, ACCESS),
    (408, TRY_AGAIN),
    (409, CONFLICT),
    (413, FINAL),
    (429, THROTTLED),
    (499, FINAL),
    (500, DOUBT),
    (501, TRY_AGAIN),
    (502, DOUBT),
    (503, DOUBT),
    (504, DOUBT),
    (599, TRY_AGAIN),
]

# Statuses that say the opposite of what the code says.
CODE_WINS = [
    ("EndPoint.2003", 500, NOT_FOUND),
    ("EndPoint.0001", 400, TRY_AGAIN),
    ("EndPoint.0022", 403, THROTTLED),
    ("APIGW.0308", 400, THROTTLED),
    ("APIGW.0301", 500, ACCESS),
]

# Whether the request may have reached a backend, where no table knows the code or the status is another one.
IN_DOUBT = [
    ("EndPoint.9999", 500, TRY_AGAIN),
    ("EndPoint.9999", 503, TRY_AGAIN),
    ("EndPoint.9999", 502, DOUBT),
    ("EndPoint.9999", 504, DOUBT),
    ("Endpoint.0001", 504, DOUBT),
    ("Other.0001", 500, DOUBT),
    ("Other.0001", 503, DOUBT),
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


class TestCodes:
    @pytest.mark.parametrize(("code", "status", "means"), [*ROWS, *CODE_WINS, *IN_DOUBT])
    def test_mean_what_the_tables_say(self, code: str, status: int, means: Means) -> None:
        failure = from_reply(code, "any text", status=status, huawei_request_id="id-1")

        assert meaning(failure) == means
        assert (failure.code, failure.http_status, failure.huawei_request_id) == (code, status, "id-1")

    @pytest.mark.parametrize(("code", "status", "means"), ROWS)
    @pytest.mark.parametrize("spelling", [str.lower, str.upper, str.swapcase, str.capitalize])
    def test_are_compared_without_regard_to_case_and_reported_as_spelled(
        self, code: str, status: int, means: Means, spelling: Callable[[str], str]
    ) -> None:
        spelled = spelling(code)

        failure = from_reply(spelled, "", status=status)

        assert meaning(failure) == means
        assert failure.code == spelled

    @pytest.mark.parametrize(("status", "means"), STATUSES)
    @pytest.mark.parametrize("code", ["APIGW.0999", "APIG.9999", "Common.0001", "Endpoin.2003", "x"])
    def test_unknown_ones_mean_what_their_status_says(self, code: str, status: int, means: Means) -> None:
        failure = from_reply(code, "", status=status)

        assert meaning(failure) == means
        assert failure.code == code

    @pytest.mark.parametrize(("status", "means"), STATUSES)
    @pytest.mark.parametrize("code", [None, ""])
    def test_a_reply_without_one_means_what_its_status_says(self, code: str | None, status: int, means: Means) -> None:
        failure = from_reply(code, "", status=status)

        assert meaning(failure) == means
        assert failure.code.startswith("Rename.")
        assert failure.message

    def test_of_the_gateway_are_no_codes_of_the_service(self) -> None:
        # given: digits that mean "not found" for the service and nothing for the gateway
        failure = from_reply("APIGW.2003", "", status=400)

        assert failure.kind is Kind.INVALID

    @given(st.integers(min_value=400, max_value=599), st.text(max_size=20))
    def test_and_statuses_of_any_kind_have_some_meaning(self, status: int, code: str) -> None:
        failure = from_reply(code, "", status=status)

        assert failure.code
        assert not (failure.retry_in_process and not failure.retryable), "a quick second attempt of what cannot succeed"
        assert not (failure.retry_in_process and failure.kind is Kind.ACCESS), "five wrong signatures lock the key"


class TestBoundedCodes:
    """What may become a dimension of a metric."""

    # 0201 is in no table, for its status tells what it means.
    @pytest.mark.parametrize(("code", "status"), [row[:2] for row in ROWS if not row[0].endswith(".0201")])
    @pytest.mark.parametrize("spelling", [str, str.lower, str.upper, str.swapcase])
    def test_of_the_tables_have_one_spelling(self, code: str, status: int, spelling: Callable[[str], str]) -> None:
        assert metric_code(from_reply(spelling(code), "", status=status).code) == code

    def test_of_the_function_stay(self) -> None:
        source = Path(failures.__file__).read_text(encoding="utf-8")
        own = set(re.findall(r'"(Rename\.\w+)"', source))

        assert len(own) > 20
        assert {metric_code(code) for code in own} == own

    @pytest.mark.parametrize(
        "code", ["EndPoint.9999", "APIGW.9999", "Rename.Anything", "", "x" * 128, "EndPoint.2003x"]
    )
    def test_that_nobody_knows_are_one(self, code: str) -> None:
        assert metric_code(code) == "Other"


class TestMessages:
    @given(
        st.sampled_from(ROWS),
        st.text(max_size=200)
        | st.sampled_from(
            [
                "The VPC endpoint service does not exist.",
                "policy user over ratelimit,limit:200,time:5 minute",
                "APIGW.0301: Incorrect IAM authentication information",
                "EndPoint.2003",
                "429 Too Many Requests",
            ]
        ),
    )
    def test_never_decide(self, row: tuple[str, int, Means], message: str) -> None:
        code, status, means = row

        assert meaning(from_reply(code, message, status=status)) == means

    def test_are_passed_on(self) -> None:
        assert from_reply("EndPoint.2003", "It is gone.", status=400).message == "It is gone."

    def test_are_clipped(self) -> None:
        failure = from_reply("EndPoint.2003", "x" * 2_000_000, status=400)

        assert len(failure.message) == MESSAGE_MAX_LENGTH

    def test_are_no_part_of_the_exceptions_text_which_may_be_logged(self) -> None:
        failure = from_reply("EndPoint.2003", "orders is gone", status=400)

        assert str(RenameFailedError(failure)) == "EndPoint.2003"


class TestThrottleWindow:
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
    def test_becomes_the_time_to_wait(self, message: str, seconds: float, code: str | None, status: int) -> None:
        assert from_reply(code, message, status=status).retry_after == seconds

    @pytest.mark.parametrize(
        "message",
        [
            "",
            "The throttling threshold has been reached.",
            "limit:200",
            "limit:200,time:",
            "limit:200,time:soon",
            "limit:200,time:5 fortnight",
            "limit:200,time:99999999999999999999 day",
            "downtime:5 minute",
            "limit:200,time:-5 minute",
        ],
    )
    def test_is_unknown_where_the_message_names_none(self, message: str) -> None:
        assert from_reply("APIGW.0308", message, status=429).retry_after is None

    def test_is_read_of_throttled_replies_only(self) -> None:
        failure = from_reply("EndPoint.0001", "limit:200,time:5 minute", status=500)

        assert failure.retry_after is None

    @pytest.mark.parametrize("retry_after", [0.0, 7.0, 900.0])
    def test_gives_way_to_the_header(self, retry_after: float) -> None:
        failure = from_reply("APIGW.0308", "limit:1,time:5 minute", status=429, retry_after=retry_after)

        assert failure.retry_after == retry_after

    def test_of_the_header_counts_for_other_kinds_too(self) -> None:
        assert from_reply("EndPoint.0001", "", status=503, retry_after=7.0).retry_after == 7.0


class TestOwnFailures:
    @pytest.mark.parametrize(
        ("failure", "code", "means"),
        [
            (failures.timeout(in_doubt=False), "Rename.Timeout", TRY_AGAIN),
            (failures.timeout(in_doubt=True), "Rename.Timeout", DOUBT),
            (failures.connection_failed(in_doubt=False), "Rename.ConnectionFailed", TRY_AGAIN),
            (failures.connection_failed(in_doubt=True), "Rename.ConnectionFailed", DOUBT),
            (failures.unconfirmed_reply(status=200, huawei_request_id=None), "Rename.UnconfirmedReply", DOUBT),
            (failures.precondition_failed("billing"), "Rename.PreconditionFailed", CONFLICT),
            (failures.invalid_event(()), "Rename.InvalidEvent", FINAL),
            (failures.internal_error(), "Rename.InternalError", Means(Kind.INTERNAL, retryable=True)),
            (failures.no_time_left(), "Rename.NoTimeLeft", Means(Kind.UNAVAILABLE, retryable=True)),
            (failures.not_published("x"), "Rename.OutcomeNotPublished", Means(Kind.UNAVAILABLE, retryable=True)),
            (failures.credentials("x", kind=Kind.ACCESS), "Rename.CredentialsUnavailable", ACCESS),
            (
                failures.credentials("x", kind=Kind.UNAVAILABLE),
                "Rename.CredentialsUnavailable",
                Means(Kind.UNAVAILABLE, retryable=True),
            ),
        ],
    )
    def test_mean_what_their_names_say(self, failure: Failure, code: str, means: Means) -> None:
        assert (failure.code, meaning(failure)) == (code, means)

    def test_a_state_conflict_that_does_not_pass_is_final_and_keeps_its_code(self) -> None:
        failure = failures.as_conflict(from_reply("EndPoint.3045", "", status=400, huawei_request_id="id-1"))

        assert (failure.kind, failure.retryable, failure.retry_in_process) == (Kind.CONFLICT, False, False)
        assert (failure.code, failure.http_status, failure.huawei_request_id) == ("EndPoint.3045", 400, "id-1")
