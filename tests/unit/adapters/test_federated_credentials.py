"""The key that Huawei Cloud gives to the function's role: asked for seldom, renewed in time, and never told."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.huawei.iam import TEMPORARY_KEY_SECONDS, Iam
from function.adapters.huawei.regions import iam_endpoint
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.domain.model import Target
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import KEY_PATH, TOKEN_PATH, HuaweiIam, IdentityProvider
from tests.localcloud.issuer import Issuer

IDP, AUDIENCE = "aws", "vpcep-rename"
ROLE = "arn:aws:iam::123456789012:role/RenameFromQueue"
ISSUER = Issuer()
CREDENTIAL = {"access": "A", "secret": "S", "securitytoken": "T", "expires_at": "2020-01-08T03:50:07.574000Z"}
LASTING = CREDENTIAL | {"expires_at": "2999-01-08T03:50:07.574000Z"}

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


class FakeSts:
    """AWS, as far as it vouches for a role."""

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
def cloud() -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak="PERMANENT", sk="permanent-secret", project_id=PROJECT, region=REGION) as cloud:
        cloud.add_service(SERVICE, name="billing")
        yield cloud


@pytest.fixture
def iam(cloud: HuaweiCloud, clock: MovedClock) -> Iterator[HuaweiIam]:
    with HuaweiIam(cloud, now=clock) as iam:
        iam.identity_providers[IDP] = IdentityProvider(ISSUER.url, AUDIENCE, ISSUER.jwks())
        yield iam


@pytest.fixture
def sts(clock: MovedClock) -> FakeSts:
    return FakeSts(clock)


@pytest.fixture
def credentials(iam: HuaweiIam, sts: FakeSts, clock: MovedClock) -> FederatedCredentials:
    return federated(iam.url, sts, clock)


def federated(url: str, sts: FakeSts, clock: MovedClock) -> FederatedCredentials:
    return FederatedCredentials(cast("Any", sts), Iam(IDP, PROJECT, endpoint=url), audience=AUDIENCE, now=clock)


def exchanges(iam: HuaweiIam) -> int:
    return sum(call.path == TOKEN_PATH for call in iam.calls)


class TestAKey:
    def test_opens_the_door(self, cloud: HuaweiCloud, credentials: FederatedCredentials) -> None:
        vpcep = HuaweiEndpointServices(
            credentials,
            region=REGION,
            regions={REGION},
            endpoints={REGION: cloud.url},
            pool_size=1,
        )

        assert vpcep.rename(Target(REGION, PROJECT, SERVICE), "orders", within(10.0)).name == "orders"
        assert credentials.get(within(10.0)).project_id == PROJECT

    def test_is_given_for_a_token_of_the_role(
        self, iam: HuaweiIam, sts: FakeSts, credentials: FederatedCredentials
    ) -> None:
        key = credentials.get(within(20))

        assert sts.requests == [{"Audience": [AUDIENCE], "DurationSeconds": 300, "SigningAlgorithm": "RS256"}]
        assert [(call.path, call.status) for call in iam.calls] == [(TOKEN_PATH, 201), (KEY_PATH, 201)]
        assert (iam.calls[0].idp_id, iam.calls[0].claims["sub"]) == (IDP, ROLE)
        assert key.security_token
        assert key.project_id == PROJECT

    def test_is_not_asked_for_before_it_is_needed(
        self, iam: HuaweiIam, sts: FakeSts, credentials: FederatedCredentials
    ) -> None:
        assert (sts.requests, iam.calls) == ([], [])

    @pytest.mark.parametrize("region", sorted(VpcepRegion.static_fields))
    def test_comes_from_the_iam_in_the_domain_of_the_regions_vpcep(self, region: str) -> None:
        domain = VpcepRegion.static_fields[region].endpoints[0].removeprefix(f"https://vpcep.{region}.")
        own = get_iam_endpoint_by_id(region)

        endpoint = iam_endpoint(region, {})

        assert domain in ("myhuaweicloud.com", "myhuaweicloud.eu")
        assert endpoint == f"https://iam.{region}.{domain}"
        # then: as the SDK has it, where it has one
        assert own in (None, endpoint)

    def test_comes_from_the_other_site_in_eu_west_101(self) -> None:
        assert iam_endpoint("eu-west-101", {}) == "https://iam.eu-west-101.myhuaweicloud.eu"

    @pytest.mark.parametrize(
        ("region", "vpcep", "iam"),
        [
            ("cn-north-4", "http://127.0.0.1:4567", "https://iam.cn-north-4.myhuaweicloud.com"),
            ("cn-north-4", "https://vpcep.example.com", "https://iam.cn-north-4.myhuaweicloud.com"),
            ("xx-nowhere-1", "https://vpcep.xx-nowhere-1.example.com", "https://iam.xx-nowhere-1.example.com"),
            ("xx-nowhere-1", "https://endpoints.example.com", None),
        ],
    )
    def test_comes_from_another_endpoints_domain_where_the_region_is_not_known(
        self, region: str, vpcep: str, iam: str | None
    ) -> None:
        assert iam_endpoint(region, {region: vpcep}) == iam


class TestMemory:
    def test_saves_the_second_exchange(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        key = credentials.get(within(20))
        clock.ahead += TEMPORARY_KEY_SECONDS - RENEWAL_SECONDS - 10

        assert credentials.get(within(20)) == key
        assert exchanges(iam) == 1

    def test_ends_before_the_key_does(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        key = credentials.get(within(20))
        clock.ahead += TEMPORARY_KEY_SECONDS - RENEWAL_SECONDS + 10

        assert credentials.get(within(20)) != key
        assert exchanges(iam) == 2

    def test_is_shared_by_all_threads(self, iam: HuaweiIam, credentials: FederatedCredentials) -> None:
        iam.delay = 0.05

        with ThreadPoolExecutor(max_workers=10) as pool:
            keys = set(pool.map(lambda _: credentials.get(within(20)), range(100)))

        assert len(keys) == 1
        assert exchanges(iam) == 1

    def test_lasts_as_long_as_the_key_where_there_is_no_other(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        key = credentials.get(within(20))
        provider = iam.identity_providers.pop(IDP)
        clock.ahead += TEMPORARY_KEY_SECONDS - 10

        # when the renewal fails
        assert [credentials.get(within(20)) for _ in range(20)] == [key] * 20
        assert exchanges(iam) == 2

        # when the key has expired
        clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
        assert failed(credentials.get, within(20)).kind is Kind.ACCESS

        # when that is mended
        iam.identity_providers[IDP] = provider
        clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
        assert credentials.get(within(20)) != key

    def test_of_a_failure_spares_both_clouds(
        self, iam: HuaweiIam, sts: FakeSts, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        iam.fail(503)

        with ThreadPoolExecutor(max_workers=10) as pool:
            failures = list(pool.map(lambda _: failed(credentials.get, within(20)), range(20)))

        assert {failure.kind for failure in failures} == {Kind.UNAVAILABLE}
        assert (len(sts.requests), len(iam.calls)) == (1, 1)

        # when the pause is over
        clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
        assert credentials.get(within(20))

    def test_of_a_key_that_expires_at_once_makes_no_storm(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        iam.fail(201, {}, {"X-Subject-Token": "token"})
        iam.fail(201, {"credential": CREDENTIAL})

        assert [failed(credentials.get, within(20)).kind for _ in range(20)] == [Kind.UNAVAILABLE] * 20
        assert exchanges(iam) == 1


class TestForget:
    def test_asks_for_another_key(self, iam: HuaweiIam, credentials: FederatedCredentials) -> None:
        key = credentials.get(within(20))

        credentials.invalidate(key)

        assert len({credentials.get(within(20)) for _ in range(3)} - {key}) == 1
        assert exchanges(iam) == 2

    def test_does_so_once_in_a_while_for_a_permission_that_is_missing_is_in_no_key(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        for _ in range(20):
            credentials.invalidate(credentials.get(within(20)))
        assert exchanges(iam) == 2

        clock.ahead += MAX_AGE_SECONDS + 1
        for _ in range(20):
            credentials.invalidate(credentials.get(within(20)))
        assert exchanges(iam) == 3

    def test_of_a_key_that_has_been_replaced_already_does_nothing(
        self, iam: HuaweiIam, credentials: FederatedCredentials, clock: MovedClock
    ) -> None:
        key = credentials.get(within(20))
        credentials.invalidate(key)
        credentials.get(within(20))
        clock.ahead += MAX_AGE_SECONDS + 1

        credentials.invalidate(key)

        credentials.get(within(20))
        assert exchanges(iam) == 2

    def test_keeps_the_last_key_while_there_is_no_other(
        self, iam: HuaweiIam, credentials: FederatedCredentials
    ) -> None:
        key = credentials.get(within(20))
        iam.fail(503)

        credentials.invalidate(key)

        assert credentials.get(within(20)) == key

    def test_brings_a_rename_through_whose_key_was_called_back(
        self, cloud: HuaweiCloud, credentials: FederatedCredentials
    ) -> None:
        vpcep = HuaweiEndpointServices(
            credentials,
            region=REGION,
            regions={REGION},
            endpoints={REGION: cloud.url},
            pool_size=1,
        )
        target = Target(REGION, PROJECT, SERVICE)
        vpcep.rename(target, "orders", within(10.0))
        cloud.revoke_temporary_keys()

        with pytest.raises(RenameFailedError) as caught:
            vpcep.rename(target, "invoices", within(10.0))

        assert caught.value.failure.retry_in_process
        assert vpcep.rename(target, "invoices", within(10.0)).name == "invoices"


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "No."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetWebIdentityToken")


class TestNoToken:
    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("AccessDenied", 403),
            ("OutboundWebIdentityFederationDisabledException", 403),
            ("InvalidClientTokenId", 403),
            ("ValidationError", 400),
            ("InvalidAction", 400),
        ],
    )
    def test_that_somebody_must_mend_is_an_access_failure(
        self, iam: HuaweiIam, sts: FakeSts, credentials: FederatedCredentials, code: str, status: int
    ) -> None:
        sts.error = client_error(code, status)

        failure = failed(credentials.get, within(20))

        assert (failure.code, failure.kind, failure.retry_in_process) == (
            "Rename.CredentialsUnavailable",
            Kind.ACCESS,
            False,
        )
        assert code in failure.message
        assert iam.calls == []

    def test_that_is_empty_goes_no_further(
        self, sts: FakeSts, credentials: FederatedCredentials, iam: HuaweiIam, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sts, "get_web_identity_token", lambda *_, **__: {})

        assert failed(credentials.get, within(20)).kind is Kind.UNAVAILABLE
        assert iam.calls == []

    @pytest.mark.parametrize(
        "error",
        [
            client_error("InternalFailure", 500),
            client_error("ServiceUnavailable", 503),
            client_error("Throttling", 400),
            EndpointConnectionError(endpoint_url="https://sts.eu-west-1.amazonaws.com"),
        ],
        ids=str,
    )
    def test_that_may_pass_is_tried_again(
        self, sts: FakeSts, credentials: FederatedCredentials, clock: MovedClock, error: ClientError | BotoCoreError
    ) -> None:
        sts.error = error

        failure = failed(credentials.get, within(20))

        assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.UNAVAILABLE)
        assert failure.retryable
        sts.error = None
        clock.ahead += RETRY_AFTER_FAILURE_SECONDS + 1
        assert credentials.get(within(20))


class TestARefusedToken:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
    def test_is_an_access_failure(self, iam: HuaweiIam, credentials: FederatedCredentials, status: int) -> None:
        iam.fail(status, {"error": {"code": status, "message": "No.", "title": "No"}})

        failure = failed(credentials.get, within(20))

        assert (failure.code, failure.kind, failure.retry_in_process) == (
            "Rename.CredentialsUnavailable",
            Kind.ACCESS,
            False,
        )
        assert (failure.http_status, failure.counts_as_attempt) == (status, False)
        assert failure.huawei_request_id
        assert failure.retryable

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    @pytest.mark.parametrize("path", [TOKEN_PATH, KEY_PATH])
    def test_that_may_pass_is_an_unavailable_one(
        self, iam: HuaweiIam, credentials: FederatedCredentials, status: int, path: str
    ) -> None:
        if path == KEY_PATH:
            iam.fail(201, {}, {"X-Subject-Token": "token"})
        iam.fail(status)

        failure = failed(credentials.get, within(20))

        assert (failure.code, failure.kind) == ("Rename.CredentialsUnavailable", Kind.UNAVAILABLE)
        assert iam.calls[-1].path == path

    @pytest.mark.parametrize(
        ("status", "body", "headers"),
        [
            (200, None, {}),
            (201, {}, {}),
            (302, None, {"Location": "http://127.0.0.1:9/"}),
        ],
    )
    def test_is_not_to_be_confused_with_a_reply_that_proves_nothing(
        self,
        iam: HuaweiIam,
        credentials: FederatedCredentials,
        status: int,
        body: object,
        headers: dict[str, str],
    ) -> None:
        iam.fail(status, body, headers)

        assert failed(credentials.get, within(20)).kind is Kind.UNAVAILABLE
        assert len(iam.calls) == 1

    @pytest.mark.parametrize(
        "body",
        [
            None,
            [],
            {},
            {"credential": None},
            {"credential": {name: text for name, text in LASTING.items() if name != "securitytoken"}},
            {"credential": LASTING | {"expires_at": "tomorrow"}},
            *({"credential": LASTING | {name: ""}} for name in ("access", "secret", "securitytoken")),
        ],
    )
    def test_nor_with_a_key_that_is_none(self, iam: HuaweiIam, credentials: FederatedCredentials, body: object) -> None:
        iam.fail(201, {}, {"X-Subject-Token": "token"})
        iam.fail(201, body)

        assert failed(credentials.get, within(20)).kind is Kind.UNAVAILABLE


class TestTime:
    def test_is_bounded_for_both_requests_together(
        self, iam: HuaweiIam, credentials: FederatedCredentials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "EXCHANGE_SECONDS", 0.5)
        iam.delay = 0.35

        began = time.monotonic()
        failure = failed(credentials.get, within(20))

        assert failure.kind is Kind.UNAVAILABLE
        assert time.monotonic() - began < 0.65
        assert "Rename.Timeout" in failure.message

    def test_is_bounded_by_the_deadline_too(self, iam: HuaweiIam, credentials: FederatedCredentials) -> None:
        iam.delay = 3.0
        began = time.monotonic()

        assert failed(credentials.get, within(0.3)).kind is Kind.UNAVAILABLE
        assert time.monotonic() - began < 1.0

    def test_is_bounded_for_a_reply_that_trickles_in(
        self, sts: FakeSts, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "EXCHANGE_SECONDS", 0.3)

        def trickle(connection: Any) -> None:
            receive_request(connection)
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n")
            for _ in range(20):
                connection.sendall(b" ")
                time.sleep(0.1)

        with RawServer(trickle) as server:
            began = time.monotonic()
            assert failed(federated(server.url, sts, clock).get, within(20)).kind is Kind.UNAVAILABLE
            assert time.monotonic() - began < 1.0

    def test_is_not_spent_on_a_connection_of_an_hour_ago(self, sts: FakeSts, clock: MovedClock) -> None:
        """One that was cut meanwhile would cost the first event that needs a key."""
        body = json.dumps({"credential": CREDENTIAL}).encode()
        reply = f"HTTP/1.1 201 Created\r\nX-Subject-Token: token\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

        def serve(connection: Any) -> None:
            while receive_request(connection):
                connection.sendall(reply)

        with RawServer(serve) as server:
            credentials = federated(server.url, sts, clock)
            for connections in (1, 2):
                failed(credentials.get, within(20))
                assert server.connections == connections
                clock.ahead += TEMPORARY_KEY_SECONDS

    def test_is_not_spent_where_nobody_listens(self, sts: FakeSts, clock: MovedClock) -> None:
        with RawServer(lambda connection: None) as server:
            url = server.url

        assert failed(federated(url, sts, clock).get, within(20)).kind is Kind.UNAVAILABLE


class TestSecrecy:
    def test_no_failure_tells_of_the_token(
        self, iam: HuaweiIam, sts: FakeSts, credentials: FederatedCredentials, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        iam.identity_providers[IDP] = IdentityProvider(ISSUER.url, AUDIENCE, Issuer().jwks())

        with pytest.raises(RenameFailedError) as caught:
            credentials.get(within(20))

        [token] = sts.tokens
        told = [*traceback.format_exception(caught.value), repr(caught.value.failure), caplog.text]
        assert not [text for text in told for part in token.split(".") if part in text]

    @pytest.mark.parametrize("path", [TOKEN_PATH, KEY_PATH])
    def test_no_failure_repeats_a_token_that_iam_repeats(
        self,
        iam: HuaweiIam,
        sts: FakeSts,
        credentials: FederatedCredentials,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
    ) -> None:
        token = "header.payload.signature"
        monkeypatch.setattr(sts, "get_web_identity_token", lambda *_, **__: {"WebIdentityToken": token})
        said = f"of {token}"
        if path == KEY_PATH:
            iam.fail(201, {}, {"X-Subject-Token": "unscoped-token"})
            said += " and unscoped%2Dtoken"
        iam.fail(401, {"error": {"code": said, "message": said}}, {"X-Request-Id": said})

        failure = failed(credentials.get, within(20))

        assert failure.http_status == 401
        assert failure.huawei_request_id == "of ***.***.***" + (" and ***" if path == KEY_PATH else "")
        assert not [part for part in (*token.split("."), "unscoped") if part in repr(failure)]

    def test_no_success_is_logged(
        self, credentials: FederatedCredentials, sts: FakeSts, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")

        key: Credentials = credentials.get(within(20))

        secrets = [*sts.tokens[0].split("."), key.secret_key, str(key.security_token)]
        assert not [secret for secret in secrets if secret in caplog.text]
