"""The temporary key for the function's role: cached, renewed in time, and never shown."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from huaweicloudsdkcore.auth.endpoint import get_iam_endpoint_by_id
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion

from function.adapters import cached_credentials as module
from function.adapters.cached_credentials import (
    MAX_AGE_SECONDS,
    RENEWAL_SECONDS,
    RETRY_AFTER_FAILURE_SECONDS,
    FederatedCredentials,
)
from function.adapters.huawei.credentials import Credentials
from function.adapters.huawei.iam import TEMPORARY_KEY_SECONDS, Iam
from function.adapters.huawei.regions import iam_endpoint
from function.domain.deadline import Deadline
from function.domain.failures import Failure, Kind, RenameFailedError
from tests.deadlines import lasting_less_than, within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed
from tests.fakes.federation import AUDIENCE, IDP, ISSUER, ROLE, local_iam
from tests.fakes.identifiers import PROJECT
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import KEY_PATH, TOKEN_PATH, HuaweiIam, IdentityProvider
from tests.localcloud.issuer import Issuer
from tests.unit.adapters.huawei.clients import TARGET, adapter

TOKEN: Any = (201, {}, {"X-Subject-Token": "token"})
CREDENTIAL = {"access": "A", "secret": "S", "securitytoken": "T", "expires_at": "2020-01-08T03:50:07.574000Z"}
LASTING = CREDENTIAL | {"expires_at": "2999-01-08T03:50:07.574000Z"}

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


class FakeSts:
    """AWS STS, which issues tokens for one role."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.error: ClientError | BotoCoreError | None = None
        self._now = now

    def get_web_identity_token(self, deadline: Deadline, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        if self.error:
            raise self.error
        issued = int(self._now())
        expires = issued + request["DurationSeconds"]
        self.tokens.append(ISSUER.token(sub=ROLE, aud=request["Audience"][0], iat=issued, exp=expires))
        return {"WebIdentityToken": self.tokens[-1]}


@pytest.fixture
def iam(cloud: HuaweiCloud, clock: MovedClock) -> Iterator[HuaweiIam]:
    with local_iam(cloud, clock) as iam:
        yield iam


class Federated:
    """Federated credentials, and the AWS that they have their tokens from."""

    def __init__(self, url: str, clock: MovedClock) -> None:
        self.clock = clock
        self.sts = FakeSts(clock)
        iam = Iam(IDP, PROJECT, endpoint=url)
        self.credentials = FederatedCredentials(cast("Any", self.sts), iam, audience=AUDIENCE, now=clock)

    def key(self) -> Credentials:
        return self.credentials.get(within(20))

    def failure(self, seconds: float = 20) -> Failure:
        return failed(self.credentials.get, within(seconds))


@pytest.fixture
def federated(iam: HuaweiIam, clock: MovedClock) -> Federated:
    return Federated(iam.url, clock)


def exchanges(iam: HuaweiIam) -> int:
    return sum(call.path == TOKEN_PATH for call in iam.calls)


# ---- The key


def test_temporary_key_authenticates_a_rename(cloud: HuaweiCloud, federated: Federated) -> None:
    vpcep = adapter(cloud.url, federated.credentials)

    assert vpcep.rename(TARGET, "orders", within(10.0)).name == "orders"
    assert federated.key().project_id == PROJECT


def test_temporary_key_is_exchanged_for_a_token_of_the_role_when_it_is_needed(
    iam: HuaweiIam, federated: Federated
) -> None:
    assert (federated.sts.requests, iam.calls) == ([], [])

    key = federated.key()

    assert federated.sts.requests == [{"Audience": [AUDIENCE], "DurationSeconds": 300, "SigningAlgorithm": "RS256"}]
    assert [(call.path, call.status) for call in iam.calls] == [(TOKEN_PATH, 201), (KEY_PATH, 201)]
    assert (iam.calls[0].idp_id, iam.calls[0].claims["sub"]) == (IDP, ROLE)
    assert key.security_token
    assert key.project_id == PROJECT


@pytest.mark.parametrize("region", sorted(VpcepRegion.static_fields))
def test_iam_endpoint_is_in_the_domain_of_the_regions_vpcep(region: str) -> None:
    domain = VpcepRegion.static_fields[region].endpoints[0].removeprefix(f"https://vpcep.{region}.")
    own = get_iam_endpoint_by_id(region)

    endpoint = iam_endpoint(region, {})

    assert domain in ("myhuaweicloud.com", "myhuaweicloud.eu")
    assert endpoint == f"https://iam.{region}.{domain}"
    # then: as the SDK has it, where it has one
    assert own in (None, endpoint)


@pytest.mark.parametrize(
    ("region", "vpcep", "iam"),
    [
        ("eu-west-101", None, "https://iam.eu-west-101.myhuaweicloud.eu"),
        ("cn-north-4", "http://127.0.0.1:4567", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("cn-north-4", "https://vpcep.example.com", "https://iam.cn-north-4.myhuaweicloud.com"),
        ("xx-nowhere-1", "https://vpcep.xx-nowhere-1.example.com", "https://iam.xx-nowhere-1.example.com"),
        ("xx-nowhere-1", "https://endpoints.example.com", None),
    ],
)
def test_iam_endpoint_follows_a_given_endpoint_only_if_the_region_is_unknown(
    region: str, vpcep: str | None, iam: str | None
) -> None:
    assert iam_endpoint(region, {region: vpcep} if vpcep else {}) == iam


# ---- The cache


@pytest.mark.parametrize(("late", "keys"), [(-10, 1), (10, 2)])
def test_key_is_cached_until_its_renewal_is_due(iam: HuaweiIam, federated: Federated, late: int, keys: int) -> None:
    key = federated.key()
    federated.clock.ahead += TEMPORARY_KEY_SECONDS - RENEWAL_SECONDS + late

    assert len({key, federated.key()}) == exchanges(iam) == keys


def test_key_is_used_until_it_expires_if_its_renewal_fails(iam: HuaweiIam, federated: Federated) -> None:
    key = federated.key()
    provider = iam.identity_providers.pop(IDP)
    federated.clock.ahead += TEMPORARY_KEY_SECONDS - 10

    # when the renewal fails
    assert [federated.key() for _ in range(20)] == [key] * 20
    assert exchanges(iam) == 2

    # when the key has expired
    federated.clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
    assert federated.failure().kind is Kind.ACCESS

    # when that is fixed
    iam.identity_providers[IDP] = provider
    federated.clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
    assert federated.key() != key


def test_key_that_expires_at_once_is_not_fetched_again_before_the_retry_interval_is_over(
    iam: HuaweiIam, federated: Federated
) -> None:
    iam.fail(*TOKEN)
    iam.fail(201, {"credential": CREDENTIAL})

    assert [federated.failure().kind for _ in range(20)] == [Kind.UNAVAILABLE] * 20
    assert exchanges(iam) == 1


# ---- Invalidation


def test_invalidated_key_is_fetched_again_once_per_interval(iam: HuaweiIam, federated: Federated) -> None:
    for _ in range(20):
        federated.credentials.invalidate(federated.key())
    assert exchanges(iam) == 2

    federated.clock.ahead += MAX_AGE_SECONDS + 1
    for _ in range(20):
        federated.credentials.invalidate(federated.key())
    assert exchanges(iam) == 3


def test_rename_with_a_revoked_key_succeeds_at_the_second_try(cloud: HuaweiCloud, federated: Federated) -> None:
    vpcep = adapter(cloud.url, federated.credentials)
    vpcep.rename(TARGET, "orders", within(10.0))
    cloud.revoke_temporary_keys()

    assert failed(vpcep.rename, TARGET, "invoices", within(10.0)).retry_in_process
    assert vpcep.rename(TARGET, "invoices", within(10.0)).name == "invoices"


# ---- AWS gives no token


def assert_no_key(failure: Failure, kind: Kind) -> None:
    assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", kind)
    assert (failure.retryable, failure.retry_in_process, failure.counts_as_attempt) == (True, False, False)


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetWebIdentityToken")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("AccessDenied", 403), Kind.ACCESS),
        (client_error("OutboundWebIdentityFederationDisabledException", 403), Kind.ACCESS),
        (client_error("InvalidClientTokenId", 403), Kind.ACCESS),
        (client_error("ValidationError", 400), Kind.ACCESS),
        (client_error("InvalidAction", 400), Kind.ACCESS),
        (client_error("InternalFailure", 500), Kind.UNAVAILABLE),
        (client_error("ServiceUnavailable", 503), Kind.UNAVAILABLE),
        (client_error("Throttling", 400), Kind.UNAVAILABLE),
        (EndpointConnectionError(endpoint_url="https://sts.eu-west-1.amazonaws.com"), Kind.UNAVAILABLE),
    ],
    ids=str,
)
def test_error_of_sts_becomes_a_failure_and_is_retried_after_the_interval(
    iam: HuaweiIam, federated: Federated, error: ClientError | BotoCoreError, kind: Kind
) -> None:
    federated.sts.error = error

    failure = federated.failure()

    assert_no_key(failure, kind)
    assert not isinstance(error, ClientError) or error.response["Error"]["Code"] in failure.message
    assert iam.calls == []
    federated.sts.error = None
    federated.clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
    assert federated.key()


def test_empty_token_is_not_exchanged(iam: HuaweiIam, federated: Federated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated.sts, "get_web_identity_token", lambda *_, **__: {})

    assert federated.failure().kind is Kind.UNAVAILABLE
    assert iam.calls == []


# ---- IAM gives no key


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Kind.ACCESS) for status in (400, 401, 403, 404, 409)),
        *((status, Kind.UNAVAILABLE) for status in (408, 429, 500, 502, 503, 504)),
    ],
)
@pytest.mark.parametrize("path", [TOKEN_PATH, KEY_PATH])
def test_error_of_iam_becomes_a_failure_of_the_credentials(
    iam: HuaweiIam, federated: Federated, status: int, kind: Kind, path: str
) -> None:
    if path == KEY_PATH:
        iam.fail(*TOKEN)
    iam.fail(status, {"error": {"code": status, "message": "No.", "title": "No"}} if kind is Kind.ACCESS else None)

    failure = federated.failure()

    assert_no_key(failure, kind)
    assert failure.http_status == status
    assert f"HTTP status {status}" in failure.message
    assert failure.huawei_request_id
    assert iam.calls[-1].path == path


@pytest.mark.parametrize(
    "replies",
    [
        *([(200,)], [(201, {})], [(302, None, {"Location": "http://127.0.0.1:9/"})]),
        *([TOKEN, (201,)], [TOKEN, (201, [])], [TOKEN, (201, {})], [TOKEN, (201, {"credential": None})]),
        [TOKEN, (201, {"credential": {name: text for name, text in LASTING.items() if name != "securitytoken"}})],
        [TOKEN, (201, {"credential": LASTING | {"expires_at": "tomorrow"}})],
        *([TOKEN, (201, {"credential": LASTING | {name: ""}})] for name in ("access", "secret", "securitytoken")),
    ],
    ids=str,
)
def test_reply_of_iam_without_a_token_or_a_usable_key_is_an_unavailable_failure(
    iam: HuaweiIam, federated: Federated, replies: list[tuple[Any, ...]]
) -> None:
    for reply in replies:
        iam.fail(*reply)

    assert federated.failure().kind is Kind.UNAVAILABLE
    assert len(iam.calls) == len(replies)


# ---- Time


def test_exchange_timeout_holds_for_both_requests_together(
    iam: HuaweiIam, federated: Federated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXCHANGE_SECONDS", 0.5)
    iam.delay = 0.35

    with lasting_less_than(0.65):
        failure = federated.failure()

    assert failure.kind is Kind.UNAVAILABLE
    assert "Rename.Timeout" in failure.message


def test_exchange_ends_at_the_deadline(iam: HuaweiIam, federated: Federated) -> None:
    iam.delay = 3.0

    with lasting_less_than(1.0):
        assert federated.failure(0.3).kind is Kind.UNAVAILABLE


def test_connection_of_the_last_exchange_is_not_used_for_the_next(clock: MovedClock) -> None:
    """One that was cut meanwhile would cost the first event that needs a key."""
    body = json.dumps({"credential": CREDENTIAL}).encode()
    reply = f"HTTP/1.1 201 Created\r\nX-Subject-Token: token\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def serve(connection: Any) -> None:
        while receive_request(connection):
            connection.sendall(reply)

    with RawServer(serve) as server:
        federated = Federated(server.url, clock)
        for connections in (1, 2):
            federated.failure()
            assert server.connections == connections
            clock.ahead += TEMPORARY_KEY_SECONDS


# ---- Secrecy


def test_failure_does_not_contain_the_token(
    iam: HuaweiIam, federated: Federated, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    iam.identity_providers[IDP] = IdentityProvider(ISSUER.url, AUDIENCE, Issuer().jwks())

    with pytest.raises(RenameFailedError) as caught:
        federated.key()

    [token] = federated.sts.tokens
    shown = [*traceback.format_exception(caught.value), repr(caught.value.failure), caplog.text]
    assert not [text for text in shown for part in token.split(".") if part in text]


@pytest.mark.parametrize("path", [TOKEN_PATH, KEY_PATH])
def test_failure_does_not_contain_a_token_that_iam_repeats(
    iam: HuaweiIam, federated: Federated, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    token = "header.payload.signature"
    monkeypatch.setattr(federated.sts, "get_web_identity_token", lambda *_, **__: {"WebIdentityToken": token})
    text = f"of {token}"
    if path == KEY_PATH:
        iam.fail(201, {}, {"X-Subject-Token": "unscoped-token"})
        text += " and unscoped%2Dtoken"
    iam.fail(401, {"error": {"code": text, "message": text}}, {"X-Request-Id": text})

    failure = federated.failure()

    assert failure.http_status == 401
    assert failure.huawei_request_id == "of ***.***.***" + (" and ***" if path == KEY_PATH else "")
    assert not [part for part in (*token.split("."), "unscoped") if part in repr(failure)]


def test_exchange_logs_no_secret(federated: Federated, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    key: Credentials = federated.key()

    secrets = [*federated.sts.tokens[0].split("."), key.secret_key, str(key.security_token)]
    assert not [secret for secret in secrets if secret in caplog.text]
