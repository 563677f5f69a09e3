"""The identity provider by which a local IAM trusts the tokens of AWS."""

from __future__ import annotations

from collections.abc import Callable

from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.iam import HuaweiIam, IdentityProvider
from tests.localcloud.issuer import Issuer

IDP, AUDIENCE = "aws", "vpcep-rename"
ROLE = "arn:aws:iam::123456789012:role/RenameFromQueue"
ISSUER = Issuer()


def local_iam(cloud: HuaweiCloud, now: Callable[[], float]) -> HuaweiIam:
    """With the provider registered."""
    iam = HuaweiIam(cloud, now=now)
    iam.identity_providers[IDP] = IdentityProvider(ISSUER.url, AUDIENCE, ISSUER.jwks())
    return iam
