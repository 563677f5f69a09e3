"""Deployed without a secret: AWS vouches for the functions' roles, and Huawei Cloud gives them temporary keys."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from tests.integration.observer import (
    HTTP,
    QUEUE,
    RENAMED,
    TRIGGERS,
    a_rename,
    calls_for,
    outcome_of,
    send,
    service_of,
)
from tests.localcloud.aws import ACCOUNT, LocalAwsError
from tests.localcloud.iam import KEY_PATH, TOKEN_PATH, IamCall, IdentityProvider
from tests.localcloud.issuer import Issuer
from tests.localcloud.stack import AUDIENCE, FUNCTIONS, IDP_ID, Clouds, local_clouds


@pytest.fixture(scope="module")
def running_keyless_clouds() -> Iterator[Clouds]:
    with local_clouds(keyless=True) as clouds:
        yield clouds


@pytest.fixture
def keyless(running_keyless_clouds: Clouds) -> Iterator[Clouds]:
    """Both clouds, with functions that have no key yet."""
    clouds = running_keyless_clouds
    clouds.start_anew(QUEUE, HTTP)
    clouds.huawei.reset()
    clouds.iam.calls.clear()
    provider = clouds.iam.identity_providers[IDP_ID]
    yield clouds
    clouds.iam.identity_providers[IDP_ID] = provider


def exchanges(clouds: Clouds) -> list[IamCall]:
    return [call for call in clouds.iam.calls if call.path == TOKEN_PATH]


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_event_is_renamed_with_a_temporary_key(trigger: str, keyless: Clouds) -> None:
    event = a_rename(keyless)
    service_id = service_of(event)

    reply = send(keyless, trigger, event)

    assert outcome_of(keyless, event)["type"] == RENAMED
    assert reply is None or reply.status == 200
    assert keyless.huawei.name_of(service_id) == "orders"
    read, renamed = calls_for(keyless, service_id)
    assert read.authenticated
    assert renamed.authenticated
    assert [call.path for call in keyless.iam.calls] == [TOKEN_PATH, KEY_PATH]
    [exchange] = exchanges(keyless)
    function = QUEUE if trigger == "sqs" else HTTP
    role = keyless.stack.resources[f"{function}Role"]
    assert exchange.claims["sub"] == f"arn:aws:iam::{ACCOUNT}:role/{role}"
    assert exchange.claims["aud"] == AUDIENCE
    assert exchange.claims["exp"] - exchange.claims["iat"] == 300


def test_one_temporary_key_is_used_for_many_events(keyless: Clouds) -> None:
    events = [a_rename(keyless, f"orders-{number}") for number in range(10)]

    keyless.send_rename_events(events)

    assert {outcome_of(keyless, event)["type"] for event in events} == {RENAMED}
    # The messages may come in more than one batch, and each batch in an environment of its own.
    assert len(exchanges(keyless)) < 5


def test_event_is_renamed_after_its_temporary_key_was_revoked(keyless: Clouds) -> None:
    keyless.post_rename_event(a_rename(keyless))
    keyless.huawei.revoke_temporary_keys()

    reply = keyless.post_rename_event(a_rename(keyless))

    assert reply.status == 200
    assert len(exchanges(keyless)) == 2


SECRET_ARN = f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:huaweicloud-AbCdEf"
REFUSED = {
    "another audience": lambda provider: replace(provider, client_id="somebody-else"),
    "an unknown key": lambda provider: replace(provider, signing_keys=Issuer().jwks()),
    "a wrong signature": lambda provider: replace(provider, signing_keys=_forged(provider)),
    "another issuer": lambda provider: replace(provider, issuer=Issuer().url),
}


def _forged(provider: IdentityProvider) -> dict[str, object]:
    """Another key under the same id."""
    [known], [other] = provider.signing_keys["keys"], Issuer().jwks()["keys"]
    return {"keys": [other | {"kid": known["kid"]}]}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_token_is_a_failure_of_kind_access(reason: str, keyless: Clouds) -> None:
    keyless.iam.identity_providers[IDP_ID] = REFUSED[reason](keyless.iam.identity_providers[IDP_ID])
    event = a_rename(keyless)

    reply = keyless.post_rename_event(event)

    assert reply.status == 403
    error = reply.json()["data"]["error"]
    assert (error["code"], error["kind"], error["http_status"]) == ("Rename.CredentialsUnavailable", "access", 401)
    assert [call.reason for call in exchanges(keyless)] == [reason]
    assert calls_for(keyless, service_of(event)) == []


def test_event_with_a_failure_of_access_is_renamed_once_access_is_restored(keyless: Clouds) -> None:
    provider = keyless.iam.identity_providers.pop(IDP_ID)
    event = a_rename(keyless)
    reply = keyless.post_rename_event(event)
    assert (reply.status, reply.json()["data"]["error"]["kind"]) == (403, "access")
    outcome_of(keyless, event)

    keyless.iam.identity_providers[IDP_ID] = provider
    keyless.start_anew(HTTP)

    assert keyless.post_rename_event(event).status == 200


def test_each_keyless_role_may_get_a_token_and_read_no_secret(keyless: Clouds) -> None:
    for function in FUNCTIONS:
        granted = keyless.permissions(function)
        assert ("ProveIdentity", "sts:GetWebIdentityToken") in granted
        assert not [action for _, action in granted if action.startswith("secretsmanager:")]
    assert keyless.aws.client("secretsmanager").list_secrets()["SecretList"] == []


@pytest.mark.parametrize(
    "restricted",
    [
        lambda clouds: clouds.without(HTTP, "sts:GetWebIdentityToken"),
        lambda clouds: clouds.configured(HTTP, HUAWEICLOUD_IDP_AUDIENCE="somebody-else"),
    ],
    ids=["no permission", "permission for another audience"],
)
def test_role_gets_no_token_without_the_permission_for_its_audience(
    keyless: Clouds, restricted: Callable[[Clouds], AbstractContextManager[None]]
) -> None:
    with restricted(keyless):
        reply = keyless.post_rename_event(a_rename(keyless))

    assert reply.status == 403
    assert "AWS gives no token: AccessDenied" in reply.json()["data"]["error"]["message"]
    assert exchanges(keyless) == []


@pytest.mark.parametrize("key", [{}, {"HuaweiCloudIdpId": IDP_ID, "HuaweiCloudCredentialsSecretArn": SECRET_ARN}])
def test_template_requires_either_a_secret_or_an_identity_provider(
    key: dict[str, str], running_keyless_clouds: Clouds
) -> None:
    others = {"HuaweiCloudRegion": "cn-north-4", "HuaweiCloudProjectId": "project", "GradualDeployment": "false"}

    with pytest.raises(LocalAwsError, match="Give either HuaweiCloudCredentialsSecretArn or HuaweiCloudIdpId"):
        running_keyless_clouds.aws.deploy(others | key, stack="another")


def test_logs_have_no_token_and_no_temporary_key(keyless: Clouds) -> None:
    # given: a success and a failure have been logged
    keyless.post_rename_event(a_rename(keyless))
    keyless.iam.identity_providers.clear()
    keyless.start_anew(HTTP)
    keyless.post_rename_event(a_rename(keyless))

    logged = "\n".join(keyless.function_logs(QUEUE) + keyless.function_logs(HTTP))

    assert "rename event handled" in logged
    assert not [secret for secret in keyless.huawei.temporary_secrets() if secret in logged]
    assert "eyJ" not in logged  # what every JWT begins with
