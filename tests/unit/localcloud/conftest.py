"""A local Huawei Cloud whose clock a test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.clock import MovedClock
from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, SERVICE
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.localcloud.clients import AK, SK


@pytest.fixture
def cloud(clock: MovedClock) -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT, now=clock) as cloud:
        cloud.add_service(SERVICE, name="billing")
        cloud.add_service(OTHER_SERVICE, name="reports")
        yield cloud
