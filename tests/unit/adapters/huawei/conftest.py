"""The adapter that calls the local Huawei Cloud."""

from __future__ import annotations

import pytest

from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import adapter


@pytest.fixture
def vpcep(cloud: HuaweiCloud) -> HuaweiEndpointServices:
    return adapter(cloud.url)
