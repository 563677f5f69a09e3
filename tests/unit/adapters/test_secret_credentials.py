"""The key for Huawei Cloud in Secrets Manager: cached, read again in time, and used through an outage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from function.adapters import cached_credentials as module
from function.adapters.cached_credentials import MAX_AGE_SECONDS, RETRY_AFTER_FAILURE_SECONDS, SecretCredentials
from function.adapters.huawei.credentials import Credentials
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind
from tests.deadlines import lasting_less_than, within
from tests.fakes.clock import FakeClock
from tests.fakes.failures import failed
from tests.fakes.identifiers import OTHER_PROJECT, PROJECT

SECRET = {"ak": "AK1", "sk": "SK1", "project_id": PROJECT}
ROTATED = SECRET | {"ak": "AK2", "sk": "SK2"}
FIELDS = ["ak", "sk", "project_id", "security_token"]
BLANKS = ["\n", "\r\n", " ", "\t", "\ufeff", "\u200b", "\0"]
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:huawei-AbCdEf"


def error_of(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "GetSecretValue")


class Secret:
    """A secret of Secrets Manager, and the credentials in it.

    Attributes:
        error: what each read fails with.
        takes: seconds of each read.
        may_end: while it is not set, each read hangs in the lookup of a name, which no deadline ends.
    """

    def __init__(self, default_project: str | None = None) -> None:
        self.value = json.dumps(SECRET)
        self.error: ClientError | BotoCoreError | None = None
        self.takes = 0.0
        self.may_end = threading.Event()
        self.may_end.set()
        self.reads: list[dict[str, Any]] = []
        self.clock = FakeClock()
        self.threads = ThreadPoolExecutor(11)
        self.credentials = SecretCredentials(
            cast("Any", self), ARN, default_project=default_project, now=self.clock.epoch
        )

    def get_secret_value(self, deadline: Deadline, **request: Any) -> dict[str, Any]:
        self.reads.append(request)
        value = self.value
        time.sleep(self.takes)
        if not self.may_end.wait(10):
            raise TimeoutError
        if self.error:
            raise self.error
        return {"SecretString": value}

    def key(self) -> Credentials:
        return self.credentials.get(within(10))

    def failure(self, seconds: float = 10) -> Failure:
        return failed(self.credentials.get, within(seconds))

    def rotate(self, access_key: str = "AK2") -> None:
        self.value = json.dumps(ROTATED | {"ak": access_key})

    def begin_read_that_hangs(self) -> Future[Credentials]:
        self.may_end.clear()
        before, read = len(self.reads), self.threads.submit(self.key)
        while len(self.reads) == before:
            time.sleep(0.01)
        return read


@pytest.fixture
def secret() -> Iterator[Secret]:
    secret = Secret()
    yield secret
    secret.may_end.set()
    secret.threads.shutdown()


# ---- The secret


def test_key_is_read_from_the_secret_when_it_is_needed(secret: Secret) -> None:
    assert secret.reads == []

    assert secret.key() == Credentials("AK1", "SK1", None, PROJECT)
    assert secret.reads == [{"SecretId": ARN}]


@pytest.mark.parametrize(
    ("value", "default_project", "security_token", "project"),
    [
        (SECRET | {"security_token": "T1"}, None, "T1", PROJECT),
        (SECRET | {"comment": "rotated by hand", "age": 5}, None, None, PROJECT),
        ({"ak": "AK1", "sk": "SK1"}, PROJECT, None, PROJECT),
        (SECRET | {"project_id": OTHER_PROJECT}, PROJECT, None, OTHER_PROJECT),
    ],
    ids=["security token", "other members", "default project", "own project"],
)
def test_secret_may_have_more_or_fewer_members(
    value: dict[str, Any], default_project: str | None, security_token: str | None, project: str
) -> None:
    secret = Secret(default_project)
    secret.value = json.dumps(value)

    assert secret.key() == Credentials("AK1", "SK1", security_token, project)


# ---- The cache


@pytest.mark.parametrize(("age", "access_key"), [(MAX_AGE_SECONDS - 10, "AK1"), (MAX_AGE_SECONDS + 1, "AK2")])
def test_key_is_cached_until_its_maximum_age(secret: Secret, age: int, access_key: str) -> None:
    secret.key()
    secret.rotate()
    secret.clock.sleep(age)

    assert secret.key().access_key == access_key
    assert len(secret.reads) == (1 if access_key == "AK1" else 2)


@pytest.mark.parametrize("error", [None, error_of("InternalServiceError")])
def test_secret_is_read_once_for_all_threads(secret: Secret, error: ClientError | None) -> None:
    secret.takes = 0.1
    secret.error = error

    keys = set(secret.threads.map(lambda _: secret.failure().kind if error else secret.key(), range(100)))

    assert keys == {Kind.UNAVAILABLE if error else Credentials("AK1", "SK1", None, PROJECT)}
    assert len(secret.reads) == 1


@pytest.mark.parametrize("code", ["InternalServiceError", "ThrottlingException"])
def test_last_key_is_used_while_secrets_manager_is_unavailable_and_read_again_after_the_interval(
    secret: Secret, code: str
) -> None:
    secret.key()
    secret.clock.sleep(MAX_AGE_SECONDS + 1)
    secret.error = error_of(code)

    # then: a read that fails may take seconds, and each event asks for the key more than once
    assert [secret.key().access_key for _ in range(20)] == ["AK1"] * 20
    assert len(secret.reads) == 2

    # when the service is back
    secret.error = None
    secret.rotate()
    secret.clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)

    assert secret.key().access_key == "AK2"


def test_last_key_is_not_used_after_secrets_manager_has_refused(secret: Secret) -> None:
    secret.key()
    secret.clock.sleep(MAX_AGE_SECONDS + 1)

    secret.error = error_of("AccessDeniedException")

    assert secret.failure().kind is Kind.ACCESS


# ---- Invalidation


def test_key_is_read_again_once_however_often_it_is_invalidated(secret: Secret) -> None:
    refused_key = secret.key()
    secret.rotate()

    for _ in range(3):
        secret.credentials.invalidate(refused_key)
        assert secret.key().access_key == "AK2"

    assert len(secret.reads) == 2


def test_new_key_that_is_rejected_at_once_is_read_again_too(secret: Secret) -> None:
    for number in (2, 3):
        secret.credentials.invalidate(secret.key())
        secret.rotate(f"AK{number}")

        assert secret.key().access_key == f"AK{number}"


def test_invalidated_key_is_used_while_secrets_manager_is_unavailable(secret: Secret) -> None:
    key = secret.key()
    secret.error = error_of("InternalServiceError")

    secret.credentials.invalidate(key)

    assert secret.key() == key


# ---- No key


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        *(
            (error_of(code), code, Kind.ACCESS)
            for code in (
                "AccessDeniedException",
                "ResourceNotFoundException",
                "DecryptionFailure",
                "InvalidRequestException",
                "UnrecognizedClientException",
            )
        ),
        *((error_of(code), code, Kind.UNAVAILABLE) for code in ("InternalServiceError", "ThrottlingException")),
        (ConnectionClosedError(endpoint_url=""), "ConnectionClosedError", Kind.UNAVAILABLE),
    ],
)
def test_error_of_secrets_manager_becomes_a_failure_and_is_retried_after_the_interval(
    secret: Secret, error: ClientError | BotoCoreError, code: str, kind: Kind
) -> None:
    secret.error = error

    failure = secret.failure()

    assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", kind)
    assert (failure.retryable, failure.retry_in_process) == (True, False)
    assert code in failure.message
    assert [secret.failure() for _ in range(3)] == [failure] * 3
    assert len(secret.reads) == 1
    secret.error = None
    secret.clock.sleep(RETRY_AFTER_FAILURE_SECONDS + 1)
    assert secret.key().access_key == "AK1"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((value, "is not a JSON text") for value in ("", "AK1:SK1", "{", "[" * 100_000)),
        *((value, "is not a JSON object") for value in ("null", "[]", '"text"')),
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
    secret: Secret, value: str, reason: str
) -> None:
    secret.value = value

    failure = secret.failure()

    assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.ACCESS)
    assert not failure.retry_in_process
    assert reason in failure.message
    assert "AK1" not in failure.message
    assert "SK1" not in failure.message


# ---- Blanks that editors, terminals and consoles leave around a value


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("blank", [*BLANKS, "\r", "\u00a0"], ids=ascii)
def test_blanks_around_a_value_are_removed(secret: Secret, field: str, blank: str) -> None:
    value = SECRET | {"security_token": "T1"}
    secret.value = json.dumps(value | {field: f"{blank}{value[field]}{blank}"})

    assert secret.key() == Credentials("AK1", "SK1", "T1", PROJECT)


@pytest.mark.parametrize("before", ["\ufeff", "\ufeff\r\n", "\n", " "], ids=ascii)
def test_blanks_around_the_secret_are_removed(secret: Secret, before: str) -> None:
    secret.value = before + json.dumps(SECRET) + "\n"

    assert secret.key().access_key == "AK1"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, f"VAL{blank}UE") for field in FIELDS for blank in [*BLANKS, "\x7f", "\u00e9"]),
        *(("project_id", value) for value in ("../projects", "a/b", "a" * 65, "a%0A")),
    ],
    ids=ascii,
)
def test_character_that_cannot_be_part_of_a_value_is_an_access_failure_that_names_the_field(
    secret: Secret, field: str, value: str
) -> None:
    secret.value = json.dumps(SECRET | {field: value})

    failure = secret.failure()

    assert (failure.kind, failure.counts_as_attempt) == (Kind.ACCESS, False)
    assert f'"{field}"' in failure.message
    assert value not in failure.message
    assert "VAL" not in failure.message


# ---- A read that hangs or comes too late


def test_threads_wait_for_a_read_that_hangs_until_their_deadlines_at_most(secret: Secret) -> None:
    read = secret.begin_read_that_hangs()
    began = time.monotonic()

    failures = list(secret.threads.map(lambda _: secret.failure(0.3), range(10)))

    assert 0.25 < time.monotonic() - began < 1.5
    assert {(failure.kind, failure.counts_as_attempt) for failure in failures} == {(Kind.UNAVAILABLE, False)}
    # then: no thread waits for the same read again
    with lasting_less_than(0.2):
        secret.failure()
    assert len(secret.reads) == 1
    # when the answer comes after all
    secret.may_end.set()
    assert read.result().access_key == secret.key().access_key == "AK1"


def test_last_key_is_used_while_a_read_hangs(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.1)
    key = secret.key()
    secret.clock.sleep(MAX_AGE_SECONDS + 1)
    secret.begin_read_that_hangs()

    with lasting_less_than(2.0):
        assert secret.key() == key


def test_key_is_read_again_if_it_is_invalidated_while_a_read_hangs(secret: Secret) -> None:
    key = secret.key()
    secret.clock.sleep(MAX_AGE_SECONDS + 1)
    read = secret.begin_read_that_hangs()

    # when: it was rotated after Secrets Manager had answered, and before the answer came
    with lasting_less_than(0.2):
        secret.credentials.invalidate(key)
    secret.rotate()

    secret.may_end.set()
    assert read.result() == key
    assert secret.key().access_key == "AK2"


def test_read_that_failed_after_its_deadline_is_repeated_at_once(secret: Secret) -> None:
    secret.takes = 0.1
    secret.error = error_of("InternalServiceError")
    secret.failure(0.05)
    assert len(secret.reads) == 1

    secret.error = None

    assert secret.key().access_key == "AK1"


def test_secret_is_not_read_after_the_deadline(secret: Secret) -> None:
    assert secret.failure(-1).kind is Kind.UNAVAILABLE
    assert secret.reads == []
    assert secret.key().access_key == "AK1"
