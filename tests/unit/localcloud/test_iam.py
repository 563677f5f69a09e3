"""The local IAM is only worth something if the official SDK cannot tell it from the real one and nobody can fool it."""

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
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkvpcep.v1 import (
    UpdateEndpointServiceNameRequest,
    UpdateEndpointServiceNameRequestBody,
    VpcepClient,
)

from tests.fakes.clock import MovedClock
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import KEY_PATH, TOKEN_PATH, HuaweiIam, IdentityProvider
from tests.localcloud.issuer import Issuer

PROJECT = "0123456789abcdef0123456789abcdef"
SERVICE = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
IDP, AUDIENCE = "aws", "vpcep-rename"
ISSUER = Issuer()

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def cloud(clock: MovedClock) -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak="PERMANENT", sk="permanent-secret", project_id=PROJECT, now=clock) as cloud:
        cloud.add_service(SERVICE, name="billing")
        yield cloud


@pytest.fixture
def iam(cloud: HuaweiCloud, clock: MovedClock) -> Iterator[HuaweiIam]:
    with HuaweiIam(cloud, now=clock) as iam:
        iam.identity_providers[IDP] = IdentityProvider(ISSUER.url, AUDIENCE, ISSUER.jwks())
        yield iam


def claims(**others: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": "arn:aws:iam::123456789012:role/r", "aud": AUDIENCE, "iat": now, "exp": now + 300} | others


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


def rename(client: VpcepClient) -> Any:
    body = UpdateEndpointServiceNameRequestBody(endpoint_service_name="orders")
    request = UpdateEndpointServiceNameRequest(vpc_endpoint_service_id=SERVICE, body=body)
    return client.update_endpoint_service_name(request)


def test_the_sdk_gets_a_key_that_opens_the_door(sdk: Callable[..., VpcepClient], cloud: HuaweiCloud) -> None:
    rename(sdk(ISSUER.token(**claims())))

    assert cloud.name_of(SERVICE) == "orders"


@pytest.mark.parametrize("audience", [[AUDIENCE], ["another", AUDIENCE]])
def test_a_token_may_be_for_several(sdk: Callable[..., VpcepClient], audience: list[str]) -> None:
    rename(sdk(ISSUER.token(**claims(aud=audience))))


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
def test_no_other_token_opens_the_door(
    sdk: Callable[..., VpcepClient], iam: HuaweiIam, cloud: HuaweiCloud, reason: str
) -> None:
    with pytest.raises(ClientRequestException) as caught:
        rename(sdk(REFUSED[reason]))

    assert caught.value.status_code == 401
    assert [call.reason for call in iam.calls] == [reason]
    assert cloud.calls == []


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_an_unsigned_token_is_refused(sdk: Callable[..., VpcepClient], iam: HuaweiIam, algorithm: str) -> None:
    [key] = ISSUER.jwks()["keys"]
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": key["kid"]}).encode()).decode()
    _, payload, _ = ISSUER.token(**claims()).split(".")

    with pytest.raises(ClientRequestException):
        rename(sdk(f"{header.rstrip('=')}.{payload}."))

    assert iam.calls[0].status == 401


def test_an_identity_provider_that_nobody_registered_is_not_found(sdk: Callable[..., VpcepClient]) -> None:
    with pytest.raises(ClientRequestException) as caught:
        rename(sdk(ISSUER.token(**claims()), idp_id="somebody"))

    assert caught.value.status_code == 404


def test_a_key_ends_when_it_expires(sdk: Callable[..., VpcepClient], cloud: HuaweiCloud, clock: MovedClock) -> None:
    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() + 900)
    key = BasicCredentials("HST", "secret", PROJECT).with_security_token("token")
    client = VpcepClient.new_builder().with_credentials(key).with_endpoint(cloud.url).build()
    rename(client)

    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() - 1)

    with pytest.raises(ClientRequestException) as caught:
        rename(client)
    assert caught.value.status_code == 401


@pytest.mark.parametrize("security_token", [None, "another"])
def test_a_key_is_none_without_its_security_token(
    cloud: HuaweiCloud, clock: MovedClock, security_token: str | None
) -> None:
    cloud.add_temporary_key("HST", "secret", "token", expires_at=clock() + 900)
    key = BasicCredentials("HST", "secret", PROJECT)
    key = key.with_security_token(security_token) if security_token else key

    with pytest.raises(ClientRequestException):
        rename(VpcepClient.new_builder().with_credentials(key).with_endpoint(cloud.url).build())


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (KEY_PATH, {"auth": {"identity": {"methods": ["token"], "token": {"id": "forged"}}}}, 401),
        (KEY_PATH, {}, 400),
        (TOKEN_PATH, {"auth": {}}, 400),
        ("/v3/projects", {}, 404),
    ],
)
def test_what_is_no_such_request_is_refused(iam: HuaweiIam, path: str, body: dict[str, Any], status: int) -> None:
    reply = requests.post(f"{iam.url}{path}", json=body, headers={"X-Idp-Id": IDP}, timeout=5)

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, status)


@pytest.mark.parametrize(("seconds", "status"), [(900, 201), (86_400, 201), (899, 400), (86_401, 400)])
def test_a_key_lasts_between_a_quarter_of_an_hour_and_a_day(iam: HuaweiIam, seconds: int, status: int) -> None:
    body = {"auth": {"id_token": {"id": ISSUER.token(**claims())}}}
    token = requests.post(f"{iam.url}{TOKEN_PATH}", json=body, headers={"X-Idp-Id": IDP}, timeout=5)
    wanted = {"id": token.headers["X-Subject-Token"], "duration_seconds": seconds}

    request = {"auth": {"identity": {"methods": ["token"], "token": wanted}}}
    assert requests.post(f"{iam.url}{KEY_PATH}", json=request, timeout=5).status_code == status
