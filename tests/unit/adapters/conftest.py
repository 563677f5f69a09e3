"""A local Huawei Cloud with two endpoint services, and an outage breaker."""

from __future__ import annotations

import pytest

from tests.fakes.identifiers import OTHER_SERVICE
from tests.fakes.world import World
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.breakers import Breaker, isolate_powertools


@pytest.fixture
def cloud(cloud: HuaweiCloud) -> HuaweiCloud:
    cloud.add_service(OTHER_SERVICE, name="reports")
    return cloud


@pytest.fixture
def breaker(world: World, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    isolate_powertools(monkeypatch, world)
    return Breaker(world)
