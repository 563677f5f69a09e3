"""The two clouds, started once in each process for all tests that need them."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.integration.observer import short_timeouts
from tests.localcloud.stack import Clouds, local_clouds


@pytest.fixture(scope="session")
def running_clouds() -> Iterator[Clouds]:
    # So that the calls of a test are those of its renames; test_dry_run.py and test_run.py have the default.
    with local_clouds(parameters={"ReadPreviousName": "false"}) as clouds:
        yield clouds


@pytest.fixture
def clouds(running_clouds: Clouds) -> Clouds:
    """Both clouds, with no failure commanded, an empty journal and no outcome on its way."""
    running_clouds.huawei.reset()
    running_clouds.forget_outcomes()
    return running_clouds


@pytest.fixture(scope="module")
def running_fast_clouds(running_clouds: Clouds) -> Iterator[Clouds]:
    with short_timeouts(running_clouds):
        yield running_clouds


@pytest.fixture
def fast(running_fast_clouds: Clouds, clouds: Clouds) -> Clouds:
    """The same with short timeouts."""
    return clouds


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A test that fails shows what MiniStack and the functions logged last."""
    outcome = yield
    clouds = getattr(item, "funcargs", {}).get("running_clouds")
    if outcome.get_result().failed and clouds:
        outcome.get_result().sections.append(("MiniStack", clouds.aws.tail()))
