"""A local Huawei Cloud, and an outage breaker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.identifiers import OTHER_SERVICE, PROJECT, REGION, SERVICE
from tests.fakes.world import World
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.breakers import Breaker, isolate_powertools
from tests.unit.adapters.huawei.clients import KEY


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    with HuaweiCloud(ak=KEY.access_key, sk=KEY.secret_key, project_id=PROJECT, region=REGION) as cloud:
        cloud.add_service(SERVICE, name="billing")
        cloud.add_service(OTHER_SERVICE, name="reports")
        yield cloud


@pytest.fixture
def breaker(world: World, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    isolate_powertools(monkeypatch, world)
    return Breaker(world)
