"""The promises hold in a great many runs; and each of them is seen to break where the function is broken."""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.broken import VARIANTS
from tests.faults.simulation import run
from tests.faults.sweep import catch_variants, sweep
from tests.faults.world import BrokenPromise

SEEDS: Final = 3_000
PARTS: Final = 4
LEAST_EVENTS: Final = 100_000
MOST_SEEDS_TO_CATCH: Final = 1_000

Catches = dict[str, tuple[int, BrokenPromise] | None]


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // PARTS))
def test_all_promises_hold(first: int) -> None:
    swept = sweep(first, SEEDS // PARTS)

    assert swept.broken == []  # python -m tests.faults --replay SEED shows a run
    assert swept.events * PARTS >= LEAST_EVENTS


@pytest.fixture(scope="module")
def catches() -> Catches:
    return catch_variants(MOST_SEEDS_TO_CATCH)


@pytest.mark.parametrize("name", VARIANTS)
def test_broken_function_is_caught(name: str, catches: Catches) -> None:
    catch = catches[name]

    assert catch is not None
    assert catch[1].promise in VARIANTS[name].promises, catch


def test_each_promise_is_seen_to_break(catches: Catches) -> None:
    assert {catch[1].promise for catch in catches.values() if catch} == set(range(1, 10))


def test_run_is_repeated_by_its_seed() -> None:
    once, again, untraced = run(7, tracing=True), run(7, tracing=True), run(7)

    assert once == again
    assert once[:4] == untraced[:4]
    assert once.trace
    assert not untraced.trace
