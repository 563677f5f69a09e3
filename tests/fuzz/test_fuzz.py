"""The fuzz targets at work, on the same inputs each time; `make fuzz` throws two hundred thousand others."""

import pytest

from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_documented_answers(target: str) -> None:
    assert fuzz(target, inputs=200) == 200
