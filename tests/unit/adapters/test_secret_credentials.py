"""The key for Huawei Cloud in Secrets Manager: cached, read again in time, and used through an outage."""

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
from function.domain.failures import Failure, Kind
from tests.deadlines import lasting_less_than, within
from tests.fakes.aws import FakeAws, WithoutDeadline
from tests.fakes.clock import FakeClock
from tests.fakes.failures import failed
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT

SECRET = {"ak": "AK1", "sk": "SK1", "project_id": PROJECT}
ROTATED = SECRET | {"ak": "AK2", "sk": "SK2"}
FIELDS = ["ak", "sk", "project_id", "security_token"]
BLANKS = ["\n", "\r\n", " ", "\t", "\ufeff", "\u200b", "\0"]
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:huawei-AbCdEf"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Cached:
    """Credentials in a secret of Secrets Manager."""

    def __init__(self, aws: FakeAws, clock: FakeClock, default_project: str | None = None) -> None:
        aws.secret = json.dumps(SECRET)
        self.clock = clock
        self.credentials = SecretCredentials(client_of(aws), ARN, default_project=default_project, now=clock.epoch)
        self._aws = aws

    def key(self) -> Credentials:
        return self.credentials.get(within(10))

    def failure(self, seconds: float = 10) -> Failure:
        return failed(self.credentials.get, within(seconds))

    @property
    def reads(self) -> int:
        return len(self._aws.calls_of("GetSecretValue"))


@pytest.fixture
def cached(aws: FakeAws, clock: FakeClock) -> Cached:
    return Cached(aws, clock)


def client_of(aws: FakeAws) -> Any:
    """boto3's, and none of its second attempts."""
    config = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    return WithoutDeadline(_session().client("secretsmanager", endpoint_url=aws.url, config=config))


@cache
def _session() -> boto3.session.Session:
    """Reading botocore's models is most of what a client costs."""
    return boto3.session.Session()


# ---- The secret


def test_key_is_read_from_the_secret_when_it_is_needed(aws: FakeAws, cached: Cached) -> None:
    assert cached.reads == 0

    assert cached.key() == Credentials("AK1", "SK1", None, PROJECT)
    assert aws.calls_of("GetSecretValue") == [{"SecretId": ARN}]


@pytest.mark.parametrize(
    ("secret", "default_project", "security_token", "project"),
    [
        (SECRET | {"security_token": "T1"}, None, "T1", PROJECT),
        (SECRET | {"comment": "rotated by hand", "age": 5}, None, None, PROJECT),
        ({"ak": "AK1", "sk": "SK1"}, PROJECT, None, PROJECT),
        (SECRET | {"project_id": OTHER_PROJECT}, PROJECT, None, OTHER_PROJECT),
    ],
    ids=["security token", "other members", "default project", "own project"],
)
def test_secret_may_have_more_or_fewer_members(
    aws: FakeAws,
    clock: FakeClock,
    secret: dict[str, Any],
    default_project: str | None,
    security_token: str | None,
    project: str,
) -> None:
    cached = Cached(aws, clock, default_project)
    aws.secret = json.dumps(secret)

    assert cached.key() == Credentials("AK1", "SK1", security_token, project)


# ---- The cache


@pytest.mark.parametrize(("age", "access_key"), [(MAX_AGE_SECONDS - 10, "AK1"), (MAX_AGE_SECONDS + 1, "AK2")])
def test_key_is_cached_until_its_maximum_age(aws: FakeAws, cached: Cached, age: int, access_key: str) -> None:
    cached.key()
    aws.secret = json.dumps(ROTATED)
    cached.clock.sleep(age)

    assert cached.key().access_key == access_key
    assert cached.reads == (1 if access_key == "AK1" else 2)


def test_secret_is_read_once_for_all_threads(aws: FakeAws, cached: Cached) -> None:
    aws.delay = 0.1

    with ThreadPoolExecutor(max_workers=10) as pool:
        keys = set(pool.map(lambda _: cached.key(), range(100)))

    assert keys == {Credentials("AK1", "SK1", None, PROJECT)}
    assert cached.reads == 1


@pytest.mark.parametrize(("code", "status"), [("InternalServiceError", 500), ("ThrottlingException", 400)])
def test_last_key_is_used_while_secrets_manager_is_unavailable_and_read_again_after_the_interval(
    aws: FakeAws, cached: Cached, code: str, status: int
) -> None:
    cached.key()
    cached.clock.sleep(MAX_AGE_SECONDS + 1)
    aws.fail("GetSecretValue", code, status=status, times=None)

    # then: a read that fails may take seconds, and each event asks for the key more than once
    assert [cached.key().access_key for _ in range(20)] == ["AK1"] * 20
    assert cached.reads == 2

    # when the service is back
    aws.recover()
    aws.secret = json.dumps(ROTATED)
    cached.clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)

    assert cached.key().access_key == "AK2"


def test_last_key_is_not_used_after_secrets_manager_has_refused(aws: FakeAws, cached: Cached) -> None:
    cached.key()
    cached.clock.sleep(MAX_AGE_SECONDS + 1)

    aws.fail("GetSecretValue", "AccessDeniedException", times=None)

    assert cached.failure().kind is Kind.ACCESS


# ---- Invalidation


def test_invalidated_key_is_read_again(aws: FakeAws, cached: Cached) -> None:
    refused_key = cached.key()
    aws.secret = json.dumps(ROTATED)

    cached.credentials.invalidate(refused_key)

    assert [cached.key().access_key for _ in range(3)] == ["AK2"] * 3
    assert cached.reads == 2


def test_invalidation_of_a_key_that_was_replaced_has_no_effect(aws: FakeAws, cached: Cached) -> None:
    refused_key = cached.key()
    aws.secret = json.dumps(ROTATED)
    cached.credentials.invalidate(refused_key)
    cached.key()

    cached.credentials.invalidate(refused_key)

    assert cached.key().access_key == "AK2"
    assert cached.reads == 2


def test_invalidated_key_is_used_while_secrets_manager_is_unavailable(aws: FakeAws, cached: Cached) -> None:
    key = cached.key()
    aws.fail("GetSecretValue", "InternalServiceError", status=500, times=None)

    cached.credentials.invalidate(key)

    assert cached.key() == key


# ---- No key


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDeniedException", 400, Kind.ACCESS),
        ("ResourceNotFoundException", 400, Kind.ACCESS),
        ("DecryptionFailure", 400, Kind.ACCESS),
        ("InvalidRequestException", 400, Kind.ACCESS),
        ("UnrecognizedClientException", 400, Kind.ACCESS),
        ("InternalServiceError", 500, Kind.UNAVAILABLE),
        ("ThrottlingException", 400, Kind.UNAVAILABLE),
        ("ConnectionClosedError", None, Kind.UNAVAILABLE),
    ],
)
def test_error_of_secrets_manager_becomes_a_failure_and_is_retried_after_the_interval(
    aws: FakeAws, cached: Cached, code: str, status: int | None, kind: Kind
) -> None:
    if status:
        aws.fail("GetSecretValue", code, status=status)
    else:
        aws.hang_up("GetSecretValue")

    failure = cached.failure()

    assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", kind)
    assert (failure.retryable, failure.retry_in_process) == (True, False)
    assert code in failure.message
    assert [cached.failure() for _ in range(3)] == [failure] * 3
    assert cached.reads == 1
    cached.clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)
    assert cached.key().access_key == "AK1"


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        *((secret, "is not a JSON text") for secret in ("", "AK1:SK1", "{", "[" * 100_000)),
        *((secret, "is not a JSON object") for secret in ("null", "[]", '"text"')),
        ("{}", 'no text under "ak"'),
        (json.dumps({"ak": "AK1", "project_id": PROJECT}), 'no text under "sk"'),
        (json.dumps({"ak": "AK1", "sk": "SK1"}), 'no text under "project_id"'),
        *((json.dumps(SECRET | {"ak": value}), 'no text under "ak"') for value in (5, ["AK1"], "\n")),
        *((json.dumps(SECRET | {"sk": value}), 'no text under "sk"') for value in ("", None)),
        (json.dumps(SECRET | {"project_id": ""}), 'no text under "project_id"'),
        (json.dumps(SECRET | {"security_token": 5}), 'no text under "security_token"'),
    ],
    ids=lambda text: text[:40],
)
def test_malformed_secret_is_an_access_failure_that_says_why_and_contains_no_key(
    aws: FakeAws, cached: Cached, secret: str, reason: str
) -> None:
    aws.secret = secret

    failure = cached.failure()

    assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.ACCESS)
    assert not failure.retry_in_process
    assert reason in failure.message
    assert "AK1" not in failure.message
    assert "SK1" not in failure.message


def test_malformed_secret_is_read_again_after_the_maximum_age(aws: FakeAws, cached: Cached) -> None:
    aws.secret = "{}"
    cached.failure()

    aws.secret = json.dumps(SECRET)
    cached.clock.sleep(MAX_AGE_SECONDS + 1)

    assert cached.key().access_key == "AK1"


# ---- Blanks that editors, terminals and consoles leave around a value


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("blank", [*BLANKS, "\r", "\u00a0"], ids=ascii)
def test_blanks_around_a_value_are_removed(aws: FakeAws, cached: Cached, field: str, blank: str) -> None:
    secret = SECRET | {"security_token": "T1"}
    aws.secret = json.dumps(secret | {field: f"{blank}{secret[field]}{blank}"})

    assert cached.key() == Credentials("AK1", "SK1", "T1", PROJECT)


@pytest.mark.parametrize("before", ["\ufeff", "\ufeff\r\n", "\n", " "], ids=ascii)
def test_blanks_around_the_secret_are_removed(aws: FakeAws, cached: Cached, before: str) -> None:
    aws.secret = before + json.dumps(SECRET) + "\n"

    assert cached.key().access_key == "AK1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, f"VAL{blank}UE") for field in FIELDS for blank in [*BLANKS, "\x7f", "\u00e9"]),
        *(("project_id", value) for value in ("../projects", "a/b", "a" * 65, "a%0A")),
    ],
    ids=ascii,
)
def test_character_that_cannot_be_part_of_a_value_is_an_access_failure_that_names_the_field(
    aws: FakeAws, cached: Cached, field: str, value: str
) -> None:
    aws.secret = json.dumps(SECRET | {field: value})

    failure = cached.failure()

    assert (failure.kind, failure.counts_as_attempt) == (Kind.ACCESS, False)
    assert f'"{field}"' in failure.message
    assert value not in failure.message
    assert "VAL" not in failure.message


# ---- A read that hangs


def test_secret_is_read_once_for_ten_threads_if_the_read_times_out(aws: FakeAws, cached: Cached) -> None:
    aws.delay = 3.0  # more than the client waits

    with ThreadPoolExecutor(10) as threads, lasting_less_than(2.5):
        failures = list(threads.map(lambda _: cached.failure(), range(10)))

    assert {failure.kind for failure in failures} == {Kind.UNAVAILABLE}
    assert cached.reads == 1


class HangingClient:
    """Secrets Manager while the lookup of its name hangs, which no deadline ends; and credentials that use it."""

    def __init__(self, clock: FakeClock) -> None:
        self.requests = 0
        self.may_end = threading.Event()
        self.secret = SECRET
        self.threads = ThreadPoolExecutor(11)
        self.credentials = SecretCredentials(cast("Any", self), ARN, default_project=None, now=clock.epoch)

    def get_secret_value(self, deadline: Deadline, **_: Any) -> dict[str, Any]:
        self.requests += 1
        secret = self.secret
        if not self.may_end.wait(10):
            raise TimeoutError
        return {"SecretString": json.dumps(secret)}

    def begin(self) -> Future[Credentials]:
        before, fetch = self.requests, self.threads.submit(self.credentials.get, within(10))
        while self.requests == before:
            time.sleep(0.01)
        return fetch

    def cache_key(self, clock: FakeClock) -> Credentials:
        """A key that is older than its maximum age."""
        self.may_end.set()
        key = self.credentials.get(within(10))
        self.may_end.clear()
        clock.sleep(MAX_AGE_SECONDS + 1)
        return key


@pytest.fixture
def hanging(clock: FakeClock) -> Iterator[HangingClient]:
    client = HangingClient(clock)
    yield client
    client.may_end.set()
    client.threads.shutdown()


def test_threads_wait_for_a_read_that_hangs_until_their_deadlines_at_most(hanging: HangingClient) -> None:
    fetch, credentials = hanging.begin(), hanging.credentials
    began = time.monotonic()

    failures = list(hanging.threads.map(lambda _: failed(credentials.get, within(0.3)), range(10)))

    assert 0.25 < time.monotonic() - began < 1.5
    assert {(failure.kind, failure.counts_as_attempt) for failure in failures} == {(Kind.UNAVAILABLE, False)}
    # then: no thread waits for the same read again
    with lasting_less_than(0.2):
        failed(credentials.get, within(10))
    assert hanging.requests == 1
    # when the answer comes after all
    hanging.may_end.set()
    assert fetch.result().access_key == credentials.get(within(10)).access_key == "AK1"


def test_last_key_is_used_while_a_read_hangs(
    hanging: HangingClient, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.1)
    key = hanging.cache_key(clock)
    hanging.begin()

    with lasting_less_than(2.0):
        assert hanging.credentials.get(within(10)) == key


def test_key_is_read_again_if_it_is_invalidated_while_a_read_hangs(hanging: HangingClient, clock: FakeClock) -> None:
    key = hanging.cache_key(clock)
    fetch = hanging.begin()

    # when: it was rotated after Secrets Manager had answered, and before the answer came
    with lasting_less_than(0.2):
        hanging.credentials.invalidate(key)
    hanging.secret = ROTATED

    hanging.may_end.set()
    assert fetch.result() == key
    assert hanging.credentials.get(within(10)).access_key == "AK2"


def test_read_that_failed_after_its_deadline_is_repeated_at_once(aws: FakeAws, cached: Cached) -> None:
    aws.delay = 0.5
    aws.fail("GetSecretValue", "InternalServiceError", status=500)

    cached.failure(0.3)

    assert cached.key().access_key == "AK1"


def test_secret_is_not_read_after_the_deadline(aws: FakeAws, cached: Cached) -> None:
    assert cached.failure(-1).kind is Kind.UNAVAILABLE
    assert cached.reads == 0
    assert cached.key().access_key == "AK1"
