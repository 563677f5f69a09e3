"""The local IAM: the official SDK gets temporary keys from it, for valid tokens only."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkvpcep.v1 import VpcepClient

from tests.fakes.clock import MovedClock
from tests.fakes.federation import AUDIENCE, IDP, ISSUER, ROLE, local_iam
from tests.fakes.identifiers import PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import KEY_PATH, TOKEN_PATH, HuaweiIam
from tests.localcloud.issuer import Issuer
from tests.unit.localcloud.clients import refused, rename

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def iam(cloud: HuaweiCloud, clock: MovedClock) -> Iterator[HuaweiIam]:
    with local_iam(cloud, clock) as iam:
        yield iam


def claims(**others: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": ROLE, "aud": AUDIENCE, "iat": now, "exp": now + 300} | others


@pytest.fixture
def sdk(iam: HuaweiIam, cloud: HuaweiCloud, tmp_path: Path) -> Callable[..., VpcepClient]:
    """The SDK's own client, with the SDK's own way to a temporary key."""

    def client(id_token: str, idp_id: str = IDP) -> VpcepClient:
        file = tmp_path / "id-token"
        file.write_text(id_token)
        key = BasicCredentials(project_id=PROJECT).with_idp_id(idp_id).with_id_token_file(str(file))
        key = key.with_iam_endpoint(iam.url)
        return VpcepClient.new_builder().with_credentials(key).with_endpoint(cloud.url).build()

    return client


def client_with(cloud: HuaweiCloud, security_token: str | None) -> VpcepClient:
    """Of the temporary key HST."""
    key = BasicCredentials("HST", "secret", PROJECT)
    key = key.with_security_token(security_token) if security_token else key
    return VpcepClient.new_builder().with_credentials(key).with_endpoint(cloud.url).build()


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["another", AUDIENCE]])
def test_key_for_a_valid_token_authenticates_a_rename(
    sdk: Callable[..., VpcepClient], cloud: HuaweiCloud, audience: str | list[str]
) -> None:
    rename(sdk(ISSUER.token(**claims(aud=audience))))

    assert cloud.name_of(SERVICE) == "orders"


NOW = int(time.time())
REFUSED = {
    "another audience": ISSUER.token(**claims(aud="another")),
    "another issuer": ISSUER.token(**claims(iss="https://another.example.com")),
    "expired": ISSUER.token(**claims(exp=NOW - 1)),
    "an unknown key": Issuer().token(**claims(iss=ISSUER.url)),
    "a wrong signature": ISSUER.token(**claims()).rpartition(".")[0] + "." + "A" * 342,
    "no JWT": "no token",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_invalid_token_is_refused(
    sdk: Callable[..., VpcepClient], iam: HuaweiIam, cloud: HuaweiCloud, reason: str
) -> None:
    assert refused(rename, sdk(REFUSED[reason]))[0] == 401
    assert [call.reason for call in iam.calls] == [reason]
    assert cloud.calls == []


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_unsigned_token_is_refused(sdk: Callable[..., VpcepClient], iam: HuaweiIam, algorithm: str) -> None:
    [key] = ISSUER.jwks()["keys"]
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": key["kid"]}).encode()).decode()
    _, payload, _ = ISSUER.token(**claims()).split(".")

    assert refused(rename, sdk(f"{header.rstrip('=')}.{payload}."))[0] == 401
    assert iam.calls[0].status == 401


def test_unregistered_identity_provider_is_not_found(sdk: Callable[..., VpcepClient]) -> None:
    assert refused(rename, sdk(ISSUER.token(**claims()), idp_id="somebody"))[0] == 404


def test_temporary_key_is_refused_after_it_has_expired(cloud: HuaweiCloud, clock: MovedClock) -> None:
    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() + 900)
    rename(client_with(cloud, "token"))

    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() - 1)

    assert refused(rename, client_with(cloud, "token"))[0] == 401


@pytest.mark.parametrize("security_token", [None, "another"])
def test_temporary_key_is_refused_without_its_security_token(
    cloud: HuaweiCloud, clock: MovedClock, security_token: str | None
) -> None:
    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() + 900)

    assert refused(rename, client_with(cloud, security_token))[0] == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (KEY_PATH, {"auth": {"identity": {"methods": ["token"], "token": {"id": "forged"}}}}, 401),
        (KEY_PATH, {}, 400),
        (TOKEN_PATH, {"auth": {}}, 400),
        ("/v3/projects", {}, 404),
    ],
)
def test_malformed_request_is_refused(iam: HuaweiIam, path: str, body: dict[str, Any], status: int) -> None:
    reply = requests.post(f"{iam.url}{path}", json=body, headers={"X-Idp-Id": IDP}, timeout=5)

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, status)


@pytest.mark.parametrize(("seconds", "status"), [(900, 201), (86_400, 201), (899, 400), (86_401, 400)])
def test_temporary_key_lasts_between_a_quarter_of_an_hour_and_a_day(iam: HuaweiIam, seconds: int, status: int) -> None:
    body = {"auth": {"id_token": {"id": ISSUER.token(**claims())}}}
    token = requests.post(f"{iam.url}{TOKEN_PATH}", json=body, headers={"X-Idp-Id": IDP}, timeout=5)
    wanted = {"id": token.headers["X-Subject-Token"], "duration_seconds": seconds}

    request = {"auth": {"identity": {"methods": ["token"], "token": wanted}}}
    assert requests.post(f"{iam.url}{KEY_PATH}", json=request, timeout=5).status_code == status
