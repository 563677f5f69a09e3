"""The key for Huawei Cloud in Secrets Manager: read seldom, renewed in time, and kept through an outage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import boto3
import pytest
from botocore.config import Config

from function.adapters import cached_credentials as module
from function.adapters.cached_credentials import MAX_AGE_SECONDS, RETRY_AFTER_FAILURE_SECONDS, SecretCredentials
from function.adapters.huawei.credentials import Credentials
from function.domain.deadline import Deadline
from function.domain.failures import Kind
from tests.deadlines import within
from tests.fakes.aws import FakeAws, WithoutDeadline
from tests.fakes.clock import FakeClock
from tests.fakes.failures import failed
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT

SECRET = {"ak": "AK1", "sk": "SK1", "project_id": PROJECT}
ROTATED = SECRET | {"ak": "AK2", "sk": "SK2"}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:huawei-AbCdEf"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def credentials(aws: FakeAws, clock: FakeClock) -> SecretCredentials:
    return from_secret(aws, clock)


def from_secret(aws: FakeAws, clock: FakeClock, default_project: str | None = None) -> SecretCredentials:
    aws.secret = json.dumps(SECRET)
    return SecretCredentials(client_of(aws), ARN, default_project=default_project, now=clock.epoch)


def client_of(aws: FakeAws) -> Any:
    """boto3's, and none of its second attempts."""
    config = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    return WithoutDeadline(_session().client("secretsmanager", endpoint_url=aws.url, config=config))


@cache
def _session() -> boto3.session.Session:
    """Reading botocore's models is most of what a client costs."""
    return boto3.session.Session()


def reads(aws: FakeAws) -> int:
    return len(aws.calls_of("GetSecretValue"))


class TestASecret:
    def test_holds_the_key(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        assert credentials.get(within(10)) == Credentials("AK1", "SK1", None, PROJECT)
        assert aws.calls_of("GetSecretValue") == [{"SecretId": ARN}]

    def test_is_not_read_before_it_is_needed(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        assert reads(aws) == 0

    def test_may_hold_a_security_token(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        aws.secret = json.dumps(SECRET | {"security_token": "T1"})

        assert credentials.get(within(10)).security_token == "T1"

    @pytest.mark.parametrize("secret", [{"ak": "AK1", "sk": "SK1"}, SECRET | {"project_id": OTHER_PROJECT}])
    def test_may_leave_the_project_to_the_settings(
        self, aws: FakeAws, clock: FakeClock, secret: dict[str, str]
    ) -> None:
        credentials = from_secret(aws, clock, default_project=PROJECT)
        aws.secret = json.dumps(secret)

        assert credentials.get(within(10)).project_id == secret.get("project_id", PROJECT)

    def test_may_hold_more_than_that(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        aws.secret = json.dumps(SECRET | {"comment": "rotated by hand", "age": 5})

        assert credentials.get(within(10)).access_key == "AK1"


class TestMemory:
    def test_saves_the_second_read(self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock) -> None:
        credentials.get(within(10))
        clock.sleep(MAX_AGE_SECONDS - 10)

        credentials.get(within(10))

        assert reads(aws) == 1

    def test_ends_so_that_a_rotation_needs_no_deployment(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        credentials.get(within(10))
        aws.secret = json.dumps(ROTATED)

        clock.sleep(MAX_AGE_SECONDS + 1)

        assert credentials.get(within(10)).access_key == "AK2"
        assert reads(aws) == 2

    def test_is_shared_by_all_threads(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        aws.delay = 0.1

        with ThreadPoolExecutor(max_workers=10) as pool:
            keys = set(pool.map(lambda _: credentials.get(within(10)), range(100)))

        assert keys == {Credentials("AK1", "SK1", None, PROJECT)}
        assert reads(aws) == 1

    @pytest.mark.parametrize(("code", "status"), [("InternalServiceError", 500), ("ThrottlingException", 400)])
    def test_lasts_while_secrets_manager_is_down(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock, code: str, status: int
    ) -> None:
        credentials.get(within(10))
        clock.sleep(MAX_AGE_SECONDS + 1)

        # when
        aws.fail("GetSecretValue", code, status=status, times=None)

        # then
        assert credentials.get(within(10)).access_key == "AK1"

        # when the service is back
        aws.recover()
        aws.secret = json.dumps(ROTATED)
        clock.sleep(MAX_AGE_SECONDS + 1)

        # then
        assert credentials.get(within(10)).access_key == "AK2"

    def test_does_not_ask_a_service_that_is_down_at_every_turn(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        # given: each question costs seconds, and each event asks more than once
        credentials.get(within(10))
        clock.sleep(MAX_AGE_SECONDS + 1)
        aws.fail("GetSecretValue", "InternalServiceError", status=500, times=None)
        before = reads(aws)

        # when
        for _ in range(20):
            credentials.get(within(10))

        # then
        assert reads(aws) - before <= 2

    def test_does_not_outlast_the_permission(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        credentials.get(within(10))
        clock.sleep(MAX_AGE_SECONDS + 1)

        aws.fail("GetSecretValue", "AccessDeniedException", times=None)

        assert failed(credentials.get, within(10)).kind is Kind.ACCESS


class TestForget:
    def test_has_the_secret_read_again(self, aws: FakeAws, credentials: SecretCredentials) -> None:
        refused_key = credentials.get(within(10))
        aws.secret = json.dumps(ROTATED)

        credentials.invalidate(refused_key)

        assert [credentials.get(within(10)).access_key for _ in range(3)] == ["AK2"] * 3
        assert reads(aws) == 2

    def test_of_a_key_that_has_been_replaced_already_does_nothing(
        self, aws: FakeAws, credentials: SecretCredentials
    ) -> None:
        refused_key = credentials.get(within(10))
        aws.secret = json.dumps(ROTATED)
        credentials.invalidate(refused_key)
        credentials.get(within(10))

        credentials.invalidate(refused_key)

        assert credentials.get(within(10)).access_key == "AK2"
        assert reads(aws) == 2

    def test_keeps_the_last_key_while_secrets_manager_is_down(
        self, aws: FakeAws, credentials: SecretCredentials
    ) -> None:
        key = credentials.get(within(10))
        aws.fail("GetSecretValue", "InternalServiceError", status=500, times=None)

        credentials.invalidate(key)

        assert credentials.get(within(10)) == key


class TestNoSecret:
    @pytest.mark.parametrize(
        "code",
        [
            "AccessDeniedException",
            "ResourceNotFoundException",
            "DecryptionFailure",
            "InvalidRequestException",
            "UnrecognizedClientException",
        ],
    )
    def test_that_somebody_must_mend_is_an_access_failure(
        self, aws: FakeAws, credentials: SecretCredentials, code: str
    ) -> None:
        aws.fail("GetSecretValue", code)

        failure = failed(credentials.get, within(10))

        assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.ACCESS)
        assert failure.retryable
        assert not failure.retry_in_process
        assert code in failure.message

    @pytest.mark.parametrize(("code", "status"), [("InternalServiceError", 500), ("ThrottlingException", 400)])
    def test_that_may_pass_is_tried_again_after_a_pause(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock, code: str, status: int
    ) -> None:
        aws.fail("GetSecretValue", code, status=status)

        failure = failed(credentials.get, within(10))

        assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.UNAVAILABLE)
        assert failure.retryable
        assert [failed(credentials.get, within(10)) for _ in range(3)] == [failure] * 3
        assert reads(aws) == 1
        clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)
        assert credentials.get(within(10)).access_key == "AK1"

    def test_for_want_of_an_answer_is_tried_again_after_a_pause(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        aws.hang_up("GetSecretValue")

        assert failed(credentials.get, within(10)).kind is Kind.UNAVAILABLE
        clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)
        assert credentials.get(within(10)).access_key == "AK1"

    @pytest.mark.parametrize(
        "secret",
        [
            "",
            "AK1:SK1",
            "{",
            "null",
            "[]",
            '"text"',
            "{}",
            json.dumps({"ak": "AK1", "project_id": PROJECT}),
            json.dumps({"ak": "AK1", "sk": "SK1"}),
            json.dumps(SECRET | {"sk": ""}),
            json.dumps(SECRET | {"sk": None}),
            json.dumps(SECRET | {"ak": 5}),
            json.dumps(SECRET | {"ak": ["AK1"]}),
            json.dumps(SECRET | {"project_id": ""}),
            json.dumps(SECRET | {"security_token": 5}),
            json.dumps(SECRET | {"ak": "\n"}),
            "[" * 100_000,
        ],
    )
    def test_of_the_right_form_is_an_access_failure_that_repeats_nothing_of_it(
        self, aws: FakeAws, credentials: SecretCredentials, secret: str
    ) -> None:
        aws.secret = secret

        failure = failed(credentials.get, within(10))

        assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.ACCESS)
        assert not failure.retry_in_process
        assert "AK1" not in failure.message
        assert "SK1" not in failure.message

    def test_of_the_right_form_is_put_right_by_the_next_version(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        aws.secret = "{}"
        failed(credentials.get, within(10))

        aws.secret = json.dumps(SECRET)
        clock.sleep(MAX_AGE_SECONDS + 1)

        assert credentials.get(within(10)).access_key == "AK1"


class TestBlanks:
    """What editors, terminals and consoles leave around a value is no part of it."""

    @pytest.mark.parametrize("field", ["ak", "sk", "project_id", "security_token"])
    @pytest.mark.parametrize("blank", ["\n", "\r\n", "\r", " ", "\t", "\ufeff", "\u200b", "\u00a0", "\0"], ids=ascii)
    def test_around_a_value_are_taken_off(
        self, aws: FakeAws, credentials: SecretCredentials, field: str, blank: str
    ) -> None:
        secret = SECRET | {"security_token": "T1"}
        aws.secret = json.dumps(secret | {field: f"{blank}{secret[field]}{blank}"})

        assert credentials.get(within(10)) == Credentials("AK1", "SK1", "T1", PROJECT)

    @pytest.mark.parametrize("before", ["\ufeff", "\ufeff\r\n", "\n", " "], ids=ascii)
    def test_before_the_text_are_taken_off(self, aws: FakeAws, credentials: SecretCredentials, before: str) -> None:
        aws.secret = before + json.dumps(SECRET) + "\n"

        assert credentials.get(within(10)).access_key == "AK1"

    @pytest.mark.parametrize("field", ["ak", "sk", "project_id", "security_token"])
    @pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t", "\ufeff", "\u200b", "\0", "\x7f", "\u00e9"], ids=ascii)
    def test_within_a_value_are_an_access_failure_that_names_the_field(
        self, aws: FakeAws, credentials: SecretCredentials, field: str, blank: str
    ) -> None:
        aws.secret = json.dumps(SECRET | {field: f"VAL{blank}UE"})

        failure = failed(credentials.get, within(10))

        assert (failure.kind, failure.counts_as_attempt) == (Kind.ACCESS, False)
        assert f'"{field}"' in failure.message
        assert "VAL" not in failure.message

    @pytest.mark.parametrize("project_id", ["../projects", "a/b", "a" * 65, "a%0A"])
    def test_are_not_all_that_a_project_cannot_have(
        self, aws: FakeAws, credentials: SecretCredentials, project_id: str
    ) -> None:
        aws.secret = json.dumps(SECRET | {"project_id": project_id})

        failure = failed(credentials.get, within(10))

        assert failure.kind is Kind.ACCESS
        assert '"project_id"' in failure.message
        assert project_id not in failure.message

    @pytest.mark.parametrize(("secret", "words"), [("AK1:SK1", "not a JSON text"), ("[]", "not a JSON object")])
    def test_or_another_form_is_told(
        self, aws: FakeAws, credentials: SecretCredentials, secret: str, words: str
    ) -> None:
        aws.secret = secret

        assert words in failed(credentials.get, within(10)).message


class StuckClient:
    """Secrets Manager as it is while the look-up of its name hangs: no deadline holds."""

    def __init__(self) -> None:
        self.questions = 0
        self.goes_on = threading.Event()
        self.secret = SECRET

    def get_secret_value(self, deadline: Deadline, **_: Any) -> dict[str, Any]:
        self.questions += 1
        secret = self.secret
        if not self.goes_on.wait(10):
            raise TimeoutError
        return {"SecretString": json.dumps(secret)}


@pytest.fixture
def stuck() -> Iterator[StuckClient]:
    client = StuckClient()
    yield client
    client.goes_on.set()


class TestAQuestionThatHangs:
    @pytest.fixture
    def threads(self, stuck: StuckClient) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(11) as threads:
            yield threads
            stuck.goes_on.set()

    @pytest.fixture
    def credentials(self, stuck: StuckClient, clock: FakeClock) -> SecretCredentials:
        return SecretCredentials(cast("Any", stuck), ARN, default_project=None, now=clock.epoch)

    def begin(self, threads: ThreadPoolExecutor, stuck: StuckClient, credentials: SecretCredentials) -> Future[Any]:
        asked, asks = stuck.questions, threads.submit(credentials.get, within(10))
        while stuck.questions == asked:
            time.sleep(0.01)
        return asks

    def test_is_asked_once_by_ten_threads(self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock) -> None:
        credentials = from_secret(aws, clock)
        aws.delay = 3.0  # more than the client waits
        began = time.monotonic()

        with ThreadPoolExecutor(10) as threads:
            failures = list(threads.map(lambda _: failed(credentials.get, within(10)), range(10)))

        assert {failure.kind for failure in failures} == {Kind.UNAVAILABLE}
        assert reads(aws) == 1
        assert time.monotonic() - began < 2.5

    def test_holds_others_until_their_deadlines_at_the_most(
        self, threads: ThreadPoolExecutor, stuck: StuckClient, credentials: SecretCredentials
    ) -> None:
        asks = self.begin(threads, stuck, credentials)
        began = time.monotonic()

        failures = list(threads.map(lambda _: failed(credentials.get, within(0.3)), range(10)))

        assert 0.25 < time.monotonic() - began < 1.5
        assert {(failure.kind, failure.counts_as_attempt) for failure in failures} == {(Kind.UNAVAILABLE, False)}
        # then: who asks again does not wait again for the same
        began = time.monotonic()
        failed(credentials.get, within(10))
        assert time.monotonic() - began < 0.2
        assert stuck.questions == 1
        # when the answer comes after all
        stuck.goes_on.set()
        assert asks.result().access_key == credentials.get(within(10)).access_key == "AK1"

    def test_leaves_others_the_last_key(
        self,
        threads: ThreadPoolExecutor,
        stuck: StuckClient,
        credentials: SecretCredentials,
        clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.1)
        stuck.goes_on.set()
        credentials.get(within(10))
        stuck.goes_on.clear()
        clock.sleep(MAX_AGE_SECONDS + 1)
        self.begin(threads, stuck, credentials)

        assert credentials.get(within(10)).access_key == "AK1"

    def test_keeps_nobody_from_telling_that_a_key_was_refused(
        self, threads: ThreadPoolExecutor, stuck: StuckClient, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        stuck.goes_on.set()
        key = credentials.get(within(10))
        stuck.goes_on.clear()
        clock.sleep(MAX_AGE_SECONDS + 1)
        asks = self.begin(threads, stuck, credentials)
        began = time.monotonic()

        # when: it was rotated after the question had been answered by Secrets Manager, and before the answer came
        credentials.invalidate(key)
        stuck.secret = ROTATED

        assert time.monotonic() - began < 0.2
        stuck.goes_on.set()
        assert asks.result() == key
        assert credentials.get(within(10)).access_key == "AK2"

    def test_for_want_of_time_is_asked_again_at_once(
        self, aws: FakeAws, credentials: SecretCredentials, clock: FakeClock
    ) -> None:
        credentials = from_secret(aws, clock)
        aws.delay = 0.5
        aws.fail("GetSecretValue", "InternalServiceError", status=500)

        failed(credentials.get, within(0.3))

        assert credentials.get(within(10)).access_key == "AK1"

    def test_is_not_asked_after_the_deadline(self, aws: FakeAws, clock: FakeClock) -> None:
        credentials = from_secret(aws, clock)

        assert failed(credentials.get, within(-1)).kind is Kind.UNAVAILABLE
        assert reads(aws) == 0
        assert credentials.get(within(10)).access_key == "AK1"
