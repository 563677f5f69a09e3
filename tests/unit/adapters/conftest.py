"""An outage breaker."""

from __future__ import annotations

import pytest

from tests.fakes.world import World
from tests.unit.adapters.breakers import Breaker, isolate_powertools


@pytest.fixture
def breaker(world: World, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    isolate_powertools(monkeypatch, world)
    return Breaker(world)
