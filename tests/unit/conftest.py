"""The environment that unit tests run in, and the fixtures that they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from function import settings
from tests.fakes.aws import FakeAws
from tests.fakes.clock import MovedClock
from tests.fakes.environment import ENVIRONMENT, local_huawei_cloud
from tests.fakes.identifiers import SERVICE
from tests.fakes.world import World
from tests.localcloud.huawei import HuaweiCloud

# What the machine's own environment must not decide: accounts, endpoints, proxies and verbosity.
_FOREIGN = ("HUAWEICLOUD_", "AWS_", "POWERTOOLS_")
_OWN = (
    *("LEDGER_TABLE", "RENAME_QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "MAX_RECEIVES", "MAX_PARALLEL_RENAMES"),
    *("NAME_MAX_LENGTH", "NAME_PATTERN", "ALLOWED_PROJECTS", "ALLOWED_REGIONS", "READ_PREVIOUS_NAME", "VPCEP_ENDPOINT"),
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(_FOREIGN) or variable in _OWN or variable.upper() in _PROXIES:
            monkeypatch.delenv(variable)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    with FakeAws() as aws:
        yield aws


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    """A Huawei Cloud that knows the key of the environment, and one endpoint service."""
    with local_huawei_cloud() as cloud:
        cloud.add_service(SERVICE, name="billing")
        yield cloud


@pytest.fixture
def app(_environment: None) -> ModuleType:
    """The module of the handler, which wires the function by the environment when it is imported first."""
    return import_module("function.app")


@pytest.fixture
def handler_with(app: ModuleType, aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts the handler with further settings."""

    def start(**environment: str) -> Any:
        function = app.Function(settings.load(ENVIRONMENT | {"AWS_ENDPOINT_URL": aws.url} | environment))
        monkeypatch.setattr(app, "_function", function)
        return app.handler

    return start
