"""The fuzz targets with the same inputs each time; `make fuzz` tries two hundred thousand others."""

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_handler_gives_only_documented_responses(target: str) -> None:
    assert fuzz(target, inputs=200) == 200
