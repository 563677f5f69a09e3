"""The invariants hold in thousands of runs; and for each of them a broken variant of the function breaks it."""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.broken import VARIANTS
from tests.faults.simulation import run
from tests.faults.sweep import catch_variants, sweep
from tests.faults.world import BrokenInvariant

SEEDS: Final = 3_000
PARTS: Final = 4
MIN_EVENTS: Final = 100_000
MAX_SEEDS_TO_CATCH: Final = 1_000

Catches = dict[str, tuple[int, BrokenInvariant] | None]


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // PARTS))
def test_invariants_hold_in_each_run(first: int) -> None:
    swept = sweep(first, SEEDS // PARTS)

    assert swept.broken == []  # python -m tests.faults --replay SEED shows a run
    assert swept.events * PARTS >= MIN_EVENTS


@pytest.fixture(scope="module")
def catches() -> Catches:
    return catch_variants(MAX_SEEDS_TO_CATCH)


@pytest.mark.parametrize("name", VARIANTS)
def test_broken_variant_is_caught(name: str, catches: Catches) -> None:
    catch = catches[name]

    assert catch is not None
    assert catch[1].invariant in VARIANTS[name].invariants, catch


def test_each_invariant_is_broken_by_a_variant(catches: Catches) -> None:
    assert {catch[1].invariant for catch in catches.values() if catch} == set(range(1, 10))


def test_seed_reproduces_its_run() -> None:
    once, again, untraced = run(7, tracing=True), run(7, tracing=True), run(7)

    assert once == again
    assert once[:4] == untraced[:4]
    assert once.trace
    assert not untraced.trace
