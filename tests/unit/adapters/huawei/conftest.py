"""A local Huawei Cloud, and the adapter that calls it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import KEY, adapter


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak=KEY.access_key, sk=KEY.secret_key, project_id=PROJECT, region=REGION) as cloud:
        cloud.add_service(SERVICE, name="billing")
        cloud.add_service(OTHER_SERVICE, name="reports")
        yield cloud


@pytest.fixture
def vpcep(cloud: HuaweiCloud) -> HuaweiEndpointServices:
    return adapter(cloud.url)
