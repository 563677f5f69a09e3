"""The two clouds, started once for all tests that need them."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.localcloud.stack import Clouds, local_clouds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all tests of the two clouds, while others run the rest."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("clouds"))


@pytest.fixture(scope="session")
def running_clouds() -> Iterator[Clouds]:
    with local_clouds() as clouds:
        yield clouds


@pytest.fixture
def clouds(running_clouds: Clouds) -> Clouds:
    """Both clouds, with no failure commanded, an empty journal and no outcome on its way."""
    running_clouds.huawei.reset()
    running_clouds.forget_outcomes()
    return running_clouds


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A test that fails shows what MiniStack and the functions logged last."""
    outcome = yield
    clouds = getattr(item, "funcargs", {}).get("running_clouds")
    if outcome.get_result().failed and clouds:
        outcome.get_result().sections.append(("MiniStack", clouds.aws.tail()))
